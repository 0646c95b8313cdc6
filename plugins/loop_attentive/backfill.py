"""A backfill by date range: what it would send is foreseen first, and only that is sent, once a person has agreed.

The source holds only the latest state, so the past is not replayed: the warehouse is looked at again, now and whole,
and of what the rules yield the facts are taken whose time lies in the range.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple, cast

import pandas as pd
import psycopg

from loop_attentive import connectors, days, db, decisions, mirror, qualify, rules, runs
from loop_attentive.catalogue import CATALOGUE, MAX_LATENESS, EventType, check_names
from loop_attentive.days import ONE_DAY
from loop_attentive.decisions import Asker
from loop_attentive.errors import NeedsMending
from loop_attentive.event_id import event_ids
from loop_attentive.runs import Run
from loop_attentive.settings import Shop
from loop_attentive.source import Source

EXAMPLES = 10
MOST_LINES = 60
"""Lines of a table that people are shown; audit_plan has them all."""

VERDICTS = {"pending": "new", "expired": "late"}
"""What a state is called of an event that the ledger does not hold yet; the others by their own name."""


@dataclass(frozen=True)
class Range:
    """What a form asks for. first, last: days of the fact by the shop's clock, both included. events: empty for all."""

    first: date
    last: date
    events: Sequence[str] = ()

    def __post_init__(self) -> None:
        days.check(self.first, self.last)
        check_names(self.events)

    def check(self, shop: Shop, now: datetime) -> None:
        """Raises NeedsMending for what is yet to come, in one line."""
        if self.first > now.astimezone(shop.zone).date():
            raise NeedsMending(f"The range begins on {self.first}, which is yet to come in {shop.time_zone}.")

    def types(self) -> list[EventType]:
        return [event for event in CATALOGUE if not self.events or event.name in self.events]

    def window(self, shop: Shop) -> tuple[datetime, datetime]:
        """From the first day's midnight to the one after the last day, UTC."""
        return days.midnight(self.first, shop.zone), days.midnight(self.last + ONE_DAY, shop.zone)


class Count(NamedTuple):
    """Events of one type and day with one verdict."""

    event_type: str
    day: date
    verdict: str
    reason: str | None
    releasable: bool


class Example(NamedTuple):
    """An event that would be sent. fact_at: UTC. to: its contact, masked."""

    event_type: str
    return_id: str
    fact_at: datetime
    to: str


@dataclass
class Plan:
    """What a backfill foresees.

    planned: type and key of what would be sent. stale: why what needs a fresh source is put off, if it is.
    """

    as_of: datetime
    counts: Counter[Count] = field(default_factory=Counter)
    planned: list[tuple[str, str]] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    stale: str | None = None


def preview(
    conn: psycopg.Connection[Any],
    origin: Source,
    asker: Asker,
    wanted: Range,
    *,
    account: str | None = None,
    at: datetime | None = None,
) -> str:
    """Foresees a range, keeps the plan, and commits; its text, in Markdown. Whatever else it did is rolled back.

    A plan that a person has approved is not made again. at: of its look and judgement, aware; by default the ledger's
    clock. Raises NeedsMending for what makes no sense, and what a look raises.
    """
    shop = origin.shop
    wanted.check(shop, at or datetime.now(UTC))
    if decisions.is_decided(conn, asker):
        return "This plan was approved already. What is left of it goes out when the run goes on."
    plan = _foresee(conn, origin, wanted, account, at)
    _keep(conn, asker, wanted, plan)
    return describe(shop, wanted, plan)


def _foresee(
    conn: psycopg.Connection[Any], origin: Source, wanted: Range, account: str | None, at: datetime | None
) -> Plan:
    shop = origin.shop
    start, end = wanted.window(shop)
    with conn.transaction(force_rollback=True):
        look = mirror.look(conn, origin, whole=True, account=account, at=at)
        run = Run(0, look.as_of, start, end)
        plan = Plan(look.as_of, stale=rules.freshness(conn, shop, look.as_of)[1])
        for row in conn.execute(
            db.sql("backfill/known"),
            {
                "shop": shop.name, "zone": shop.time_zone, "start": start, "end": end,
                "event_types": [event.name for event in wanted.types()],
            },
        ):  # fmt: skip
            plan.counts[Count(*row[:-1])] += row[-1]
        for event in wanted.types():
            for judged in qualify.foresee(conn, shop, event, run, now=at):
                _add(plan, shop, event, judged)
    return plan


def _add(plan: Plan, shop: Shop, event: EventType, judged: pd.DataFrame) -> None:
    """Counts what a rule yielded, and notes what would be sent."""
    days = pd.to_datetime(judged["fact_at"], utc=True).dt.tz_convert(shop.time_zone).dt.date
    for (day, status, reason), events in Counter(
        zip(days, judged["status"], judged["reason"].where(judged["reason"].notna(), None), strict=True)
    ).items():
        # What is not in the ledger yet is released only when a run has recorded it.
        plan.counts[Count(event.name, day, VERDICTS.get(status, status), reason, releasable=False)] += events
    due = judged[judged["status"] == "pending"]
    plan.planned.extend((event.name, key) for key in due["key"])
    for row in due.head(max(0, EXAMPLES - len(plan.examples))).itertuples():
        user = json.loads(str(row.body))["user"]
        plan.examples.append(
            Example(event.name, str(row.return_id), cast(datetime, row.fact_at).astimezone(UTC), masked(user))
        )


def masked(user: dict[str, str]) -> str:
    """A contact as somebody may see it who knows it: the last two digits of a phone, the first letter of an e-mail."""
    phone, email = user.get("phone"), user.get("email")
    return " ".join(filter(None, [phone and f"phone …{phone[-2:]}", email and f"e-mail {email[0]}…"]))


def _keep(conn: psycopg.Connection[Any], asker: Asker, wanted: Range, plan: Plan) -> None:
    with conn.transaction(), conn.cursor() as cur:
        cur.execute("DELETE FROM plan WHERE (shop, dag_id, run_id) = (%s, %s, %s)", asker)
        [(plan_id,)] = cur.execute(
            "INSERT INTO plan (shop, dag_id, run_id, as_of, first_day, last_day, event_types) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING plan_id",
            (*asker, plan.as_of, wanted.first, wanted.last, [event.name for event in wanted.types()]),
        ).fetchall()
        columns = ("plan_id", *Count._fields, "events")
        db.copy(cur, "plan_count", columns, ((plan_id, *count, events) for count, events in plan.counts.items()))
        db.copy(
            cur,
            "plan_event",
            ("plan_id", "event_type", "key", "event_id"),
            (
                (plan_id, event.name, key, event_id)
                for event in wanted.types()
                for keys in [[key for name, key in plan.planned if name == event.name]]
                for key, event_id in zip(keys, event_ids(asker.shop, event.name, keys), strict=True)
            ),
        )


def kept(conn: psycopg.Connection[Any], shop: Shop, asker: Asker, wanted: Range) -> str:
    """The text of the plan that the run has, without its examples."""
    [(plan_id, as_of)] = conn.execute(
        "SELECT plan_id, as_of FROM plan WHERE (shop, dag_id, run_id) = (%s, %s, %s)", asker
    ).fetchall()
    plan = Plan(as_of, stale=rules.freshness(conn, shop, as_of)[1])
    for *count, events in conn.execute(
        "SELECT event_type, day, verdict, reason, releasable, events FROM plan_count WHERE plan_id = %s", (plan_id,)
    ):
        plan.counts[Count(*count)] = events
    rows = conn.execute("SELECT event_type, key FROM plan_event WHERE plan_id = %s", (plan_id,)).fetchall()
    plan.planned = cast(list[tuple[str, str]], rows)
    return describe(shop, wanted, plan)


# ── What people read ────────────────────────────────────────────────────────


def describe(shop: Shop, wanted: Range, plan: Plan) -> str:
    """A plan in Markdown; nothing in it says who anybody is."""
    sent = len(plan.planned)
    seconds = round(sent / shop.requests_per_second)
    days = f"{wanted.first} to {wanted.last} ({shop.time_zone}, both included)"
    parts = [
        f"**{sent:,} events would be sent** for {days}, as the warehouse is now. At {shop.requests_per_second:g} "
        f"requests a second that takes {timedelta(seconds=seconds)} (h:mm:ss).",
        _table([count for count in plan.counts if not count.releasable], plan, "In this range"),
        _table(
            [count for count in plan.counts if count.releasable], plan, "Could be released by `loop_attentive_resolve`"
        ),
        "\n".join(["#### What this range cannot show", "", *(f"- {line}" for line in blind_spots(shop, wanted, plan))]),
    ]
    if plan.examples:
        lines = [f"| {e.event_type} | {e.return_id} | {e.fact_at:%Y-%m-%d %H:%M} | {e.to} |" for e in plan.examples]
        head = ["#### Examples", "", "| event | return | happened at (UTC) | to |", "|---|---|---|---|"]
        parts.append("\n".join([*head, *lines]))
    return "\n\n".join(filter(None, parts))


def _table(counts: list[Count], plan: Plan, title: str) -> str:
    if not counts:
        return ""
    place = {event.name: event.order_no for event in CATALOGUE}
    counts.sort(key=lambda count: (count.verdict != "new", place[count.event_type], count.day, count.verdict))
    lines = [
        f"| {c.event_type} | {c.day} | {c.verdict} | {c.reason or ''} | {plan.counts[c]:,} |"
        for c in counts[:MOST_LINES]
    ]
    if more := counts[MOST_LINES:]:
        rest = sum(plan.counts[count] for count in more)
        lines.append(f"| … | | | {len(more):,} more lines: see audit_plan | {rest:,} |")
    head = [f"#### {title}", "", "| event | day | verdict | reason | events |", "|---|---|---|---|--:|"]
    return "\n".join([*head, *lines])


def blind_spots(shop: Shop, wanted: Range, plan: Plan) -> list[str]:
    """Which events a range cannot show, and why: a sentence each."""
    off = {event: why for event in wanted.types() if (why := connectors.why_off(shop, event))}
    types = [event for event in wanted.types() if event not in off]
    spots = [f"{event.name}: {why}." for event, why in off.items()]
    if changes := [event.name for event in types if event.change]:
        spots.append(
            f"{', '.join(changes)}: only states that a look of ours saw. The warehouse keeps the latest state alone; "
            "what came and went between two looks, or before the first one, is nowhere."
        )
    if reminders := [event.name for event in types if event.reminder]:
        now = f" Those that need a fresh source are put off: {plan.stale}." if plan.stale else ""
        spots.append(f"{', '.join(reminders)}: speak of the present, so only what is true now is found.{now}")
    horizon = (plan.as_of - timedelta(days=shop.mirror_days)).astimezone(shop.zone).date()
    if wanted.first <= horizon:
        spots.append(
            f"Whatever is only about returns untouched since {horizon}: the mirror holds {shop.mirror_days} days."
        )
    if len(reminders) < len(types):
        hours = MAX_LATENESS // timedelta(hours=1)
        spots.append(f"What happened more than {hours} hours ago is late: it is counted, never sent.")
    return spots


# ── Sending ─────────────────────────────────────────────────────────────────


def planned(conn: psycopg.Connection[Any], asker: Asker) -> int:
    """How many events the run's plan would send."""
    row = conn.execute(
        "SELECT count(*) FROM plan_event JOIN plan USING (plan_id) WHERE (shop, dag_id, run_id) = (%s, %s, %s)", asker
    ).fetchone()
    return cast(tuple[int], row)[0]


def approve(conn: psycopg.Connection[Any], asker: Asker, wanted: Range, *, who: str) -> int:
    """Records that a person approved the run's plan, and commits; once, however often it is tried. The plan_id."""
    with conn.transaction():
        [(plan_id,)] = conn.execute(
            "SELECT plan_id FROM plan WHERE (shop, dag_id, run_id) = (%s, %s, %s) FOR UPDATE", asker
        ).fetchall()
        if not decisions.is_decided(conn, asker):
            [(events,)] = conn.execute("SELECT count(*) FROM plan_event WHERE plan_id = %s", (plan_id,)).fetchall()
            scope = {"from": str(wanted.first), "to": str(wanted.last), "events": sorted(wanted.events)}
            decision_id = decisions.record(
                conn, **asker._asdict(), action="backfill", who=who, why="the plan of this run was approved",
                scope=scope, events=events,
            )  # fmt: skip
            conn.execute(
                "INSERT INTO decision_event (decision_id, event_id, status_before) "
                "SELECT %s, event_id, 'planned' FROM plan_event WHERE plan_id = %s",
                (decision_id, plan_id),
            )
    return int(plan_id)


def enqueue(
    conn: psycopg.Connection[Any], origin: Source, asker: Asker, wanted: Range, plan_id: int, **look: Any
) -> dict[str, int]:
    """Brings what an approved plan holds and is still due into the ledger, rule by rule, each committed; and what is
    never sent.

    look: further arguments of mirror.look. How many of the plan's events had which outcome: to send, found by another
    run since, no longer due, or a state in which they are not sent.
    """
    run = _take_in(conn, origin, asker, wanted, plan_id, **look)
    rows = conn.execute(db.sql("backfill/outcome"), {"plan_id": plan_id, "run_key": run.run_key}).fetchall()
    return dict(cast(list[tuple[str, int]], rows))


def record_unsent(conn: psycopg.Connection[Any], origin: Source, asker: Asker, wanted: Range, **look: Any) -> int:
    """Brings what is never sent into the ledger where the run's plan holds nothing else, so that a person can release
    it; how many events. look: as of enqueue.
    """
    plan_id = db.scalar(
        conn,
        "SELECT plan_id FROM plan JOIN plan_count USING (plan_id) WHERE (shop, dag_id, run_id) = (%s, %s, %s) "
        "AND (verdict = 'late' OR verdict = 'suppressed' AND NOT releasable AND reason = 'baseline') LIMIT 1",
        asker,
    )
    if plan_id is None:
        return 0
    run = _take_in(conn, origin, asker, wanted, plan_id, **look)
    return int(db.scalar(conn, "SELECT sum(created) FROM run_rule WHERE run_key = %s", (run.run_key,)) or 0)


def _take_in(
    conn: psycopg.Connection[Any], origin: Source, asker: Asker, wanted: Range, plan_id: int, **look: Any
) -> Run:
    shop = origin.shop
    seen = mirror.look(conn, origin, whole=True, **look)
    run = runs.start(
        conn, dag_id=asker.dag_id, run_id=asker.run_id, shop=shop.name, look=seen, window=wanted.window(shop)
    )
    for event in wanted.types():
        qualify.qualify(conn, shop, event, run, plan_id=plan_id, now=look.get("at"))
    return run
