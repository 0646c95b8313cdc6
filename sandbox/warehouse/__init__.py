"""A made-up Loop warehouse that goes on living, and that knows which events Attentive must be sent.

Connections are to be in autocommit mode; each call that writes is one transaction.
"""

from sandbox.warehouse.events import Due, Event, Verdict, verdict
from sandbox.warehouse.tables import create, describe, fill
from sandbox.warehouse.world import World

__all__ = ["Due", "Event", "Verdict", "World", "create", "describe", "fill", "verdict"]
