"""What people decide: about events that wait for a person, and whether a shop sends at all.

A decision about events has two steps. What is asked about is proposed: its events are fixed as they are. When a person
has agreed, those of them that are still so are decided, in the transaction that records who, when and why.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any, NamedTuple, cast

import psycopg
from psycopg.types.json import Json

from loop_attentive import days, db
from loop_attentive.catalogue import check_names
from loop_attentive.days import ONE_DAY
from loop_attentive.errors import NeedsMending
from loop_attentive.settings import Shop

log = logging.getLogger(__name__)

STATES_FOR = {
    "send": ("held", "unknown", "rejected"),
    "release": ("suppressed", "expired"),
    "discard": ("held", "unknown", "rejected", "pending", "suppressed"),
    "delivered": ("unknown",),
}
"""What may be decided about events, and in which states they may be."""


class Asker(NamedTuple):
    """The DAG run in which something is decided, for one shop."""

    shop: str
    dag_id: str
    run_id: str


# ── The switch ──────────────────────────────────────────────────────────────


class Stop(NamedTuple):
    """Why a shop sends nothing. at: UTC."""

    who: str
    why: str
    at: datetime

    def __str__(self) -> str:
        return f"stopped by {self.who} on {self.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC: {self.why}"


def stop_of(conn: psycopg.Connection[Any], shop: str) -> Stop | None:
    """Who stopped a shop's sending, or None while it goes on."""
    return as_stop(conn.execute(db.sql("ledger/switch"), {"shop": shop}).fetchone())


def as_stop(row: tuple[Any, ...] | None) -> Stop | None:
    """What a row of include/sql/ledger/switch.sql says."""
    return Stop(*row[1:]) if row and row[0] else None


def throw_switch(conn: psycopg.Connection[Any], asker: Asker, *, action: str, who: str, why: str) -> None:
    """Stops a shop's sending or lets it go on, and commits; a run does so once, however often it is tried."""
    if action not in ("stop", "go on"):
        raise NeedsMending(f"There is no action {action!r} for the switch: choose stop or go on.")
    with conn.transaction():
        if not is_decided(conn, asker):
            record(conn, **asker._asdict(), action=action, who=who, why=_reason(why))


# ── Decisions about events ──────────────────────────────────────────────────


@dataclass(frozen=True)
class Selection:
    """What a person asks about. first, last: days of the fact, in the shop's zone, both included. Empty: no limit.

    unasked: only what nobody has been asked about yet, and no restore has held.
    """

    action: str
    states: Sequence[str]
    why: str
    reason: str | None = None
    events: Sequence[str] = ()
    returns: Sequence[str] = ()
    first: date | None = None
    last: date | None = None
    of_run: str | None = None
    unasked: bool = False

    def instead(self, action: str) -> "Selection":
        """Another action for the same events, as far as they are in a state that it is for."""
        return replace(self, action=action, states=[state for state in self.states if state in STATES_FOR[action]])

    def check(self) -> None:
        """Raises NeedsMending for what makes no sense, in one line."""
        if self.action not in STATES_FOR:
            raise NeedsMending(f"There is no action {self.action!r}: choose one of {', '.join(STATES_FOR)}.")
        allowed = STATES_FOR[self.action]
        if not self.states or set(self.states) - set(allowed):
            raise NeedsMending(f"To {self.action} is for states {', '.join(allowed)}: choose one or more of them.")
        check_names(self.events)
        days.check(self.first, self.last)
        _reason(self.why)

    def told(self) -> dict[str, Any]:
        """As it is recorded: nothing private. Return ids are only counted when they are many."""
        told = {
            "states": sorted(self.states),
            "reason": self.reason,
            "events": sorted(self.events),
            "returns": sorted(self.returns) if len(self.returns) <= 20 else len(self.returns),
            "from": self.first.isoformat() if self.first else None,
            "to": self.last.isoformat() if self.last else None,
            "of_run": self.of_run,
            "unasked": self.unasked,
        }
        return {key: value for key, value in told.items() if value}


class Line(NamedTuple):
    """Events of one type in one state with one reason. first_at, last_at: of their facts, UTC."""

    event_type: str
    status: str
    reason: str | None
    events: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True)
class Proposal:
    """What a run proposes to decide."""

    lines: list[Line] = field(default_factory=list)

    @property
    def events(self) -> int:
        return sum(line.events for line in self.lines)

    def table(self) -> str:
        """In Markdown, times in UTC."""
        rows = [
            f"| {line.event_type} | {line.status} | {line.reason or ''} | {line.events} "
            f"| {line.first_at:%Y-%m-%d %H:%M} | {line.last_at:%Y-%m-%d %H:%M} |"
            for line in self.lines
        ]
        return "\n".join(["| event | status | reason | events | from | to |", "|---|---|---|--:|---|---|", *rows])


def propose(conn: psycopg.Connection[Any], shop: Shop, asker: Asker, selection: Selection) -> Proposal:
    """Fixes the events that a selection finds, and commits; what the run proposed before is forgotten."""
    selection.check()
    first, last = selection.first, selection.last
    with conn.transaction():
        if selection.unasked:  # two questions of one moment would be about the same events
            db.wait_for_turn(conn, f"asks about {shop.name}")
        conn.execute("DELETE FROM proposed WHERE (shop, dag_id, run_id) = (%s, %s, %s)", asker)
        conn.execute(
            db.sql("ledger/propose"),
            asker._asdict() | {
                "states": list(selection.states),
                "retention_days": shop.retention_days,
                "reason": selection.reason,
                "events": list(selection.events),
                "returns": list(selection.returns),
                "from": days.midnight(first, shop.zone) if first else None,
                "until": days.midnight(last + ONE_DAY, shop.zone) if last else None,
                "of_run": selection.of_run,
                "unasked": selection.unasked,
            },
        )  # fmt: skip
        return proposal(conn, asker)


def proposal(conn: psycopg.Connection[Any], asker: Asker) -> Proposal:
    """What a run has proposed."""
    return Proposal([Line(*row) for row in conn.execute(db.sql("ledger/proposal"), asker._asdict())])


def unasked(conn: psycopg.Connection[Any], shop: Shop) -> int:
    """How many held events a person should be asked about now: none while a question about such is open."""
    return int(db.scalar(conn, db.sql("ledger/unasked"), {"shop": shop.name, "dag_id": shop.resolve_dag}))


class Question(NamedTuple):
    """About a shop's held events, with nothing decided. has_ended: its run, as far as the ledger knows."""

    asker: Asker
    has_ended: bool


def open_questions(conn: psycopg.Connection[Any], shop: Shop) -> list[Question]:
    """Those of the last week, and whatever may still be answered."""
    asked = {"shop": shop.name, "dag_id": shop.resolve_dag}
    rows = conn.execute(db.sql("ledger/open_questions"), asked).fetchall()
    return [Question(Asker(shop.name, shop.resolve_dag, run_id), has_ended) for run_id, has_ended in rows]


def withdraw(conn: psycopg.Connection[Any], question: Asker) -> None:
    """Takes a question away that nobody will answer any more, and commits: its events may be asked about again."""
    with conn.transaction():
        conn.execute(db.sql("ledger/withdraw"), question._asdict())


class Decided(NamedTuple):
    """events: how many the decision changed. left: proposed, but no longer as they were, in a sender's hands, or in a
    state that it is not for.
    """

    events: int
    left: int


def decide(conn: psycopg.Connection[Any], shop: Shop, asker: Asker, selection: Selection, *, who: str) -> Decided:
    """Decides what the run proposed, records it, and commits; once, however often it is tried."""
    from loop_attentive import qualify  # pandas: a second that no other task need wait for

    selection.check()
    with conn.transaction(), psycopg.ClientCursor(conn) as cur:
        db.wait_for_turn(cur, db.DECIDES.format(shop.name))
        proposed = db.scalar(cur, "SELECT count(*) FROM proposed WHERE (shop, dag_id, run_id) = (%s, %s, %s)", asker)
        made = "SELECT action, events FROM decision WHERE (shop, dag_id, run_id) = (%s, %s, %s)"
        if before := cur.execute(made, asker).fetchone():
            action, events = before
            if action != selection.action:
                raise NeedsMending(
                    f"This run has decided already, to {action} {events} events: trigger the DAG anew for another."
                )
            return Decided(events, proposed - events)
        if not proposed:
            raise NeedsMending("What this run asked about is another run's question by now, or gone: answer that one.")
        cur.execute(db.sql("ledger/take_proposed"), asker._asdict() | {"states": list(selection.states)})
        if selection.action in ("discard", "delivered"):
            cur.execute(db.sql(f"ledger/decide_{selection.action}"))
        else:
            cur.execute(db.sql("ledger/decide_send"))
            qualify.release(conn, shop)
        events = db.scalar(cur, "SELECT count(*) FROM decided")
        decision_id = record(
            conn, **asker._asdict(), action=selection.action, who=who, why=_reason(selection.why),
            scope=selection.told(), events=events,
        )  # fmt: skip
        cur.execute(
            "INSERT INTO decision_event (decision_id, event_id, status_before, reason_before) "
            "SELECT %s, event_id, status, reason FROM decided",
            (decision_id,),
        )
        cur.execute("DROP TABLE decided")
        # A sender that is at work would take them before any plan looks at the settings.
        if forbidden := qualify.obey_settings(conn, shop):
            log.warning("%d are suppressed: enabled_at, events_off or only_recipients forbid them.", forbidden)
    return Decided(events, proposed - events)


def record(
    conn: psycopg.Connection[Any],
    *,
    shop: str,
    action: str,
    who: str,
    why: str,
    dag_id: str | None = None,
    run_id: str | None = None,
    scope: dict[str, Any] | None = None,
    events: int = 0,
) -> int:
    """Records a decision in the caller's transaction; its decision_id. who: a user's name. scope: nothing private."""
    row = conn.execute(
        db.sql("ledger/decide"),
        {
            "shop": shop, "action": action, "who": who, "why": why, "dag_id": dag_id, "run_id": run_id,
            "scope": Json(scope or {}), "events": events,
        },
    ).fetchone()  # fmt: skip
    return cast(tuple[int], row)[0]


def is_decided(conn: psycopg.Connection[Any], asker: Asker) -> bool:
    """Whether the run's decision was made before."""
    decided = "SELECT EXISTS (SELECT FROM decision WHERE (shop, dag_id, run_id) = (%s, %s, %s))"
    return bool(db.scalar(conn, decided, asker))


def _reason(why: str) -> str:
    if not why.strip():
        raise NeedsMending("Nobody said why: fill in the reason, it is kept with the decision.")
    return why.strip()
