"""The twelve events: what distinguishes them outside their SQL."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile
from pathlib import Path

from loop_attentive.errors import NeedsMending

INCLUDE = Path(__file__).parents[2] / "include"

MAX_LATENESS = timedelta(hours=24)
"""An event older than this when it would leave is of no use any more."""

JOURNEY_LATENESS = timedelta(hours=11, minutes=30)
"""Attentive answers 200 but starts no Journey for an occurredAt older than 12 hours; half an hour is our margin."""


@dataclass(frozen=True)
class EventType:
    """One row of the catalogue.

    name: the event's name at Attentive, without the shop's prefix.
    daily: judged by the daily DAG; otherwise by the hourly one.
    reminder: speaks of the present: sent only while it still holds, however late.
    change: speaks of a state that came after another: known only where a look saw it.
    money: about money: neither waits for other events of its return nor makes them wait, and is
        never sent again on a guess.
    needs: what a connector must tell for the rule to be judged (include/sql/sources/*/connector.yaml).
    version: raised when the rule's meaning changes; the new one starts where the old one stopped.
    """

    name: str
    daily: bool = False
    reminder: bool = False
    change: bool = False
    money: bool = False
    needs: frozenset[str] = frozenset()
    version: int = 1

    @property
    def slug(self) -> str:
        return self.name.removeprefix("Loop ").lower().replace(" ", "_")

    @property
    def sql_file(self) -> Path:
        return INCLUDE / "sql" / "events" / f"{self.slug}.sql"

    @property
    def meaning(self) -> str:
        """What qualifies, and why: the sentence that heads its SQL file."""
        lines = self.sql_file.read_text(encoding="utf-8").splitlines()
        return " ".join(
            line.removeprefix("--").strip() for line in takewhile(lambda line: line.startswith("--"), lines)
        )

    @property
    def order_no(self) -> int:
        """Place among the events of one return that occurred in the same millisecond."""
        return CATALOGUE.index(self)


UNSHIPPED = frozenset({"updates", "shipped"})
"""What a connector must tell before anybody is reminded: a package on its way must not look unshipped for ever."""

CATALOGUE: tuple[EventType, ...] = (
    EventType("Loop Return Created"),
    EventType("Loop Return Status Updated", change=True, needs=frozenset({"updates"})),
    EventType("Loop Label Created", needs=frozenset({"labels"})),
    EventType("Loop Label Updated", change=True, needs=frozenset({"labels", "updates"})),
    EventType("Loop Exchange Out Of Stock", change=True, needs=frozenset({"out_of_stock"})),
    EventType("Loop Out Of Stock Resolved", change=True, needs=frozenset({"out_of_stock", "updates"})),
    EventType("Loop Return Expiring", daily=True, reminder=True, needs=UNSHIPPED),
    EventType("Loop Return Expired", daily=True, reminder=True, needs=UNSHIPPED),
    EventType("Loop Instant Exchange Reminder", daily=True, reminder=True, needs=UNSHIPPED),
    EventType("Loop Instant Exchange Notice", reminder=True, needs=UNSHIPPED),
    EventType("Loop Payment Transaction", money=True, needs=frozenset({"transactions"})),
    EventType("Loop Refund Transaction", money=True, needs=frozenset({"transactions"})),
)

BY_NAME = {event.name: event for event in CATALOGUE}

MONEY = [event.name for event in CATALOGUE if event.money]
REMINDERS = [event.name for event in CATALOGUE if event.reminder]


def check_names(names: Iterable[str]) -> None:
    """Raises NeedsMending for names that no event has, in one line."""
    if unknown := sorted(set(names) - set(BY_NAME)):
        raise NeedsMending(f"There are no events {', '.join(unknown)}: take their names without prefix.")
