"""What is older than the shop's retention goes: its events with their attempts, then the runs that found them.

In small steps, each committed, that wait for nobody and rest in between, so that who looks or sends meanwhile is not
slowed. What is left of an event is a count, and a hash of its key that keeps it from being made again.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import psycopg

from loop_attentive import db
from loop_attentive.catalogue import REMINDERS
from loop_attentive.settings import Shop

log = logging.getLogger(__name__)

STEP = 2_000
"""Events deleted in one transaction: some tens of milliseconds."""

REST = 3.0
"""Times as long as a step took, nothing is done after it."""

RUNS_AT_ONCE = 100
"""How many runs are asked for their old events together."""

LONGEST = timedelta(minutes=10)

NEVER_AGAIN = [*REMINDERS, "Loop Label Created"]
"""Types whose keys stay, though their events have a time of their own: a reminder is never late, and a label that was
touched when it got its number has the time of another touch when it is found again.
"""


@dataclass(frozen=True)
class Purged:
    """is_all: nothing that is due to go was left for the next purge, but what somebody had in hand."""

    events: int
    attempts: int
    is_all: bool


def purge(
    conn: psycopg.Connection[Any],
    shop: Shop,
    *,
    longest: timedelta = LONGEST,
    now: datetime | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Purged:
    """Deletes what is older than the shop's retention_days, until nothing is left or the time is up.

    conn: in autocommit. now: aware; by default the ledger's clock. Two purges of a shop do not run side by side: the
    second deletes nothing.
    """
    name = f"loop_attentive purge of {shop.name}"
    if not db.scalar(conn, "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (name,)):
        log.warning("Another purge of this shop is running: left to it.")
        return Purged(0, 0, is_all=False)
    try:
        horizon = (now or db.now(conn)) - timedelta(days=shop.retention_days)
        return _purge(conn, shop, horizon, time.monotonic() + longest.total_seconds(), sleep)
    finally:
        conn.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))


def _purge(
    conn: psycopg.Connection[Any], shop: Shop, horizon: datetime, until: float, sleep: Callable[[float], None]
) -> Purged:
    events = attempts = 0
    for event_ids in _old_events(conn, shop, horizon):
        if time.monotonic() >= until:
            return Purged(events, attempts, is_all=False)
        began_at = time.monotonic()
        asked = {"event_ids": event_ids, "horizon": horizon, "never_again": NEVER_AGAIN}
        row = conn.execute(db.sql("retention/purge"), asked).fetchone()
        gone, tried = cast(tuple[int, int], row)
        events, attempts = events + gone, attempts + tried
        sleep((time.monotonic() - began_at) * REST)
    with conn.transaction(), psycopg.ClientCursor(conn) as cur:
        db.script(cur, "retention/old_rest", {"shop": shop.name, "horizon": horizon})
    return Purged(events, attempts, is_all=True)


def _old_events(conn: psycopg.Connection[Any], shop: Shop, horizon: datetime) -> Iterator[list[uuid.UUID]]:
    """Ids of the events that are due to go, a step's at a time. What is held open meanwhile is a list, no snapshot."""
    runs = [
        run_key for (run_key,) in conn.execute(db.sql("retention/old_runs"), {"shop": shop.name, "horizon": horizon})
    ]
    for first in range(0, len(runs), RUNS_AT_ONCE):
        with psycopg.ServerCursor(conn, "old_events", withhold=True) as cur:
            cur.execute(
                db.sql("retention/old_events"), {"run_keys": runs[first : first + RUNS_AT_ONCE], "horizon": horizon}
            )
            while rows := cur.fetchmany(STEP):
                yield [event_id for (event_id,) in rows]
