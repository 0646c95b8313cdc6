"""What keeps an accident from anybody's phone: a bound for each event type, and one for each person.

Both hold events in the transaction that would release them, so nothing above a bound is ever seen by a sender.
"""

import logging
from datetime import datetime, timedelta
from typing import Any, Literal, LiteralString, NamedTuple

import psycopg

from loop_attentive import db
from loop_attentive.catalogue import BY_NAME, EventType
from loop_attentive.runs import Run
from loop_attentive.settings import Shop

log = logging.getLogger(__name__)

MORE_THAN_USUAL = "more than usual"
ABOVE_SETTING = "more than max_events_per_run"
ABOVE_CAP = "more than max_per_person_per_day"

NOTICED_FROM = 500
"""No flood is smaller than this, however quiet the shop."""

TIMES_THE_LARGEST = 10
HISTORY = timedelta(days=28)
DAY = timedelta(days=1)


class Released(NamedTuple):
    """What is released, for the cap.

    new, so_far: conditions on event e: by this transaction, and with what the same run has released before it, which
    may still be held. asked: what they ask for. of_runs: the runs that found it.
    """

    new: LiteralString
    so_far: LiteralString
    asked: dict[str, Any]
    of_runs: list[int]


def _by_rule(run: Run, event: EventType) -> Released:
    of_run = "e.run_key = %(run_key)s"
    asked = {"run_key": run.run_key, "event_type": event.name}
    return Released(f"{of_run} AND e.event_type = %(event_type)s", of_run, asked, [run.run_key])


def _by_judging_again(cur: psycopg.Cursor[Any]) -> Released:
    again = "(e.event_id IN (SELECT j.event_id FROM judged AS j WHERE j.status = 'pending')) IS TRUE"
    of_runs = cur.execute(
        "SELECT DISTINCT e.run_key FROM judged AS j JOIN event AS e USING (event_id) WHERE j.status = 'pending'"
    ).fetchall()
    return Released(again, again, {}, [run_key for (run_key,) in of_runs])


class Bound(NamedTuple):
    """events: the most of a type that may leave unseen. reason: of those that are held above it."""

    events: int
    reason: str


class Together(NamedTuple):
    """Events that are one flood: what these runs have found since a moment (aware)."""

    run_keys: list[int]
    since: datetime | Literal["-infinity"] = "-infinity"


NO_RUN = Together([])


def hold_new(cur: psycopg.Cursor[Any], shop: Shop, event: EventType, run: Run, now: datetime) -> int:
    """Holds what is too much of a rule's new events; how many of that type. The transaction should end soon after."""
    together = _counted_together(cur, shop, run)
    count = db.scalar(
        cur,
        db.sql("qualify/count_run"),
        {"run_keys": together.run_keys, "counted_since": together.since, "event_type": event.name},
    )
    if bound := _exceeded(cur, shop, event, count, together, now):
        held = cur.execute(
            db.sql("qualify/hold_run"),
            {"run_key": run.run_key, "event_type": event.name, "reason": bound.reason},
        ).rowcount
        _record(cur, run, event.name, bound, count, held)
        return held
    return _hold_above_cap(cur, shop, run, now, _by_rule(run, event)).count(event.name)


def hold_judged(cur: psycopg.Cursor[Any], shop: Shop, run: Run | None, now: datetime) -> None:
    """Of events that were judged again, whole types wait for a person where more would be released than usual; not what
    somebody has decided about.
    """
    counts = cur.execute(db.sql("qualify/count_judged")).fetchall()
    for event_type, count in counts:
        if bound := _exceeded(cur, shop, BY_NAME[event_type], count, NO_RUN, now):
            asked = {"event_type": event_type, "reason": bound.reason}
            held = cur.execute(db.sql("qualify/hold_judged"), asked).rowcount
            _record(cur, run, event_type, bound, count, held)


def hold_judged_above_cap(cur: psycopg.Cursor[Any], shop: Shop, run: Run | None, now: datetime) -> int:
    """Of events that were judged again and are pending by now, how many were more than their person may get."""
    return len(_hold_above_cap(cur, shop, run, now, _by_judging_again(cur)))


def _counted_together(cur: psycopg.Cursor[Any], shop: Shop, run: Run) -> Together:
    """A backfill's runs share one look, and are counted with those of the day before that. What a run found before
    Airflow's backfill took it over is none of that.
    """
    if run.window_start is None:
        return Together([run.run_key])
    rows = cur.execute(
        "SELECT run_key FROM run WHERE run_key = %s OR (shop = %s AND window_start IS NOT NULL AND as_of > %s)",
        (run.run_key, shop.name, run.as_of - DAY),
    ).fetchall()
    return Together([run_key for (run_key,) in rows], run.as_of - DAY)


def _exceeded(
    cur: psycopg.Cursor[Any], shop: Shop, event: EventType, count: int, together: Together, now: datetime
) -> Bound | None:
    """The bound that so many events are above; None when they may leave. The history is read for many only."""
    if shop.max_events_per_run is not None:
        bound = Bound(shop.max_events_per_run, ABOVE_SETTING)
    elif count <= NOTICED_FROM:
        return None
    else:
        bound = Bound(max(NOTICED_FROM, TIMES_THE_LARGEST * largest(cur, shop, event, together, now)), MORE_THAN_USUAL)
    return bound if count > bound.events else None


def largest(cur: psycopg.Cursor[Any], shop: Shop, event: EventType, but_of: Together, now: datetime) -> int:
    """Events of a type in its largest hour of the last 28 days; in its largest day, by the shop's clock, if daily.

    but_of: what does not count.
    """
    unit, zone = ("day", shop.time_zone) if event.daily else ("hour", "UTC")
    most = db.scalar(
        cur,
        db.sql("qualify/largest"),
        {
            "shop": shop.name, "event_type": event.name, "since": now - HISTORY, "now": now,
            "unit": unit, "zone": zone, "run_keys": but_of.run_keys, "counted_since": but_of.since,
        },
    )  # fmt: skip
    return int(most)


def _hold_above_cap(
    cur: psycopg.Cursor[Any], shop: Shop, run: Run | None, now: datetime, released: Released
) -> list[str]:
    """The types of the events that are held for their person's sake. One rule of a shop decides at a time."""
    cap = Bound(shop.max_per_person_per_day, ABOVE_CAP)
    db.wait_for_turn(cur, f"cap of {shop.name}")
    query = db.sql("qualify/hold_above_cap").replace("{new}", released.new).replace("{released}", released.so_far)
    rows = cur.execute(
        query,
        {
            "run_keys": released.of_runs, "shop": shop.name, "day_ago": now - DAY, "cap": cap.events,
            "reason": cap.reason,
        } | released.asked,
    ).fetchall()  # fmt: skip
    types = [event_type for (event_type,) in rows]
    for event_type in dict.fromkeys(types):
        _record(cur, run, event_type, cap, None, types.count(event_type))
    return types


def _record(
    cur: psycopg.Cursor[Any], run: Run | None, event_type: str, bound: Bound, found: int | None, held: int
) -> None:
    """Tells the log, and whoever is notified of the run."""
    log.warning(
        "%s: %s%s (%d): %d are held for a person.",
        event_type, "" if found is None else f"{found} events, ", bound.reason, bound.events, held,
    )  # fmt: skip
    if run and held:
        cur.execute(
            db.sql("qualify/record_hold"),
            {
                "run_key": run.run_key, "event_type": event_type, "reason": bound.reason, "bound": bound.events,
                "events": held,
            },
        )  # fmt: skip
