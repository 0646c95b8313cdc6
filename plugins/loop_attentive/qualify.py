"""From a rule's rows to the ledger: each event once, in the state that it starts with.

A rule is judged in one transaction, which also moves its mark. What the ledger knows already is counted and left alone;
what is new is judged in this order: baseline, switched off, opted out, too late, invalid, not on the test list, shadow,
held, pending.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import tee
from typing import Any, LiteralString, NamedTuple, cast

import numpy as np
import pandas as pd
import psycopg

from loop_attentive import connectors, db, guard, payload, people, rules
from loop_attentive.catalogue import BY_NAME, MAX_LATENESS, REMINDERS, EventType
from loop_attentive.event_id import event_ids
from loop_attentive.runs import Run
from loop_attentive.settings import RULES_LOOK_BACK_DAYS, Shop

log = logging.getLogger(__name__)

CHUNK = 50_000
"""Events judged at a time: what a qualification holds in memory."""

SWITCHED_OFF, OPTED_OUT, TOO_LATE = "switched off", "opted out", "too late"
NOT_ON_TEST_LIST, SHADOW = "not on the test list", "shadow"

FIRST_OF_ALL = datetime(1970, 1, 1, tzinfo=UTC)
"""The place of Created among the events of its return."""

LEDGER_COLUMNS = (
    "key", "return_id", "fact_at", "occurred_at", "own_time", "detail", "status", "reason", "body", "phone_hash",
    "email_hash",
)  # fmt: skip
"""What differs between the events of one rule and run: detail and body are JSON text."""

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Qualified:
    """What became of a rule's rows: yielded = known + created, and created by starting state.

    off: why the rule cannot be judged at all, if so. stale: why what needs a fresh source is put off, if it is.
    """

    yielded: int
    known: int
    created: int
    states: dict[str, int]
    off: str | None = None
    stale: str | None = None


def qualify(
    conn: psycopg.Connection[Any],
    shop: Shop,
    event: EventType,
    run: Run,
    *,
    now: datetime | None = None,
    plan_id: int | None = None,
) -> Qualified:
    """Judges one rule for a run, and commits.

    A usual run judges all that its look saw since the rule's mark, which it moves; a backfill judges what happened in
    its interval, whenever it was seen, and moves no mark. A stale source puts reminders off; it uses up none.
    now: what lateness is judged by, aware; by default the ledger's clock. plan_id: a plan that a person has approved:
    of what may be sent its events alone are taken, and none is held.
    """
    with conn.transaction(), psycopg.ClientCursor(conn) as cur:
        off, stale = _find(conn, cur, shop, event, run)
        now = now or db.now(cur)
        if plan_id is not None:
            cur.execute(db.sql("backfill/follow_plan"), {"plan_id": plan_id})
            late = None if event.reminder else now - MAX_LATENESS
            purged = now - timedelta(days=shop.retention_days)
            cur.execute(db.sql("backfill/keep_planned"), {"plan_id": plan_id, "late": late, "purged": purged})
        yielded, known = _counts(cur)
        if event.reminder and known:
            _revive(conn, cur, shop, run, now)
        states, omitted = _store_new(conn, cur, shop, event, run, now) if yielded > known else (Counter(), 0)
        if plan_id is not None:
            planned = {"plan_id": plan_id, "shop": shop.name, "event_type": event.name}
            cur.execute(db.sql("backfill/name_planned"), planned)
        # Reminders that are put off stay due for the rule's next version too, should one come meanwhile.
        if run.window_start is None and not (event.reminder and (off or stale)):
            cur.execute(
                "UPDATE rule SET completed_at = greatest(completed_at, %s) "
                "WHERE shop = %s AND event_type = %s AND version = %s",
                (run.as_of, shop.name, event.name, event.version),
            )
        if plan_id is None and states["pending"]:
            held = min(guard.hold_new(cur, shop, event, run, now), states["pending"])
            states = states + Counter(held=held) - Counter(pending=held)
        result = Qualified(yielded, known, states.total(), dict(states), off, stale)
        _record(cur, run, event, result, omitted)
    return result


def _store_new(
    conn: psycopg.Connection[Any], cur: psycopg.Cursor[Any], shop: Shop, event: EventType, run: Run, now: datetime
) -> tuple[Counter[str], int]:
    """Judges the candidates that the ledger does not know, and writes them there: how many start in which state, and
    how many return outcomes were left out.
    """
    states, omitted, key = Counter[str](), 0, people.hash_key(conn)
    for rows in _baseline(conn):
        store(cur, rows, shop, event, run)
        states["suppressed"] += len(rows)
    for facts in _facts(conn, shop, known=False):
        judged = judge(facts, shop, event, now, key)
        omitted += int(judged["outcome_omitted"].sum())
        store(cur, _rows(judged, LEDGER_COLUMNS), shop, event, run)
        states.update(judged["status"].tolist())
    return states, omitted


def foresee(
    conn: psycopg.Connection[Any], shop: Shop, event: EventType, run: Run, *, now: datetime | None = None
) -> Iterator[pd.DataFrame]:
    """What qualify would make of what the ledger does not know, in the caller's transaction; nothing is stored.

    Yields frames with at least the LEDGER_COLUMNS, a chunk at a time.
    """
    with psycopg.ClientCursor(conn) as cur:
        _find(conn, cur, shop, event, run)
        now = now or db.now(cur)
        key = people.hash_key(conn)
    for rows in _baseline(conn):
        yield pd.DataFrame(rows, columns=LEDGER_COLUMNS)
    for facts in _facts(conn, shop, known=False):
        yield judge(facts, shop, event, now, key)


def count(conn: psycopg.Connection[Any], shop: Shop, event: EventType, run: Run) -> int:
    """How many facts of a run's interval a rule yields, known or not, in the caller's transaction; stores nothing."""
    with psycopg.ClientCursor(conn) as cur:
        _find(conn, cur, shop, event, run)
        return _counts(cur)[0]


class _Rule(NamedTuple):
    """When the rule started for a shop (facts until then are baseline), its mark, and when the shop was restored."""

    starts_at: datetime
    mark: datetime | None
    restored_at: datetime | None


def _lock_rule(cur: psycopg.Cursor[Any], shop: Shop, event: EventType) -> _Rule:
    """Others wait their turn."""
    row = cur.execute(
        "SELECT s.enabled_at, r.starts_at, r.completed_at, r.restored_at FROM rule AS r JOIN shop AS s USING (shop) "
        "WHERE r.shop = %s AND r.event_type = %s AND r.version = %s FOR UPDATE OF r",
        (shop.name, event.name, event.version),
    ).fetchone()
    if row is None:
        raise LookupError(f"No look of shop {shop.name} has completed since {event.name} came into the catalogue.")
    enabled_at, starts_at, mark, restored_at = row
    shop_since = shop.enabled_at or enabled_at
    return _Rule(max(shop_since, starts_at or shop_since), mark, restored_at)


def _find(
    conn: psycopg.Connection[Any], cur: psycopg.Cursor[Any], shop: Shop, event: EventType, run: Run
) -> tuple[str | None, str | None]:
    """Puts what a rule yields for a run into the temporary table candidate. Why it is off, or stale: see Qualified."""
    rule = _lock_rule(cur, shop, event)
    cur.execute(db.sql("qualify/candidates"))
    if off := connectors.why_off(shop, event):
        return off, None
    fresh, stale = rules.freshness(conn, shop, run.as_of) if event.reminder else (True, None)
    since = rule.mark if rule.mark and run.window_start is None else "-infinity"
    cur.execute(
        db.sql("qualify/yield").replace("{rule}", rules.rule(event)),
        {
            "shop": shop.name, "event_type": event.name, "as_of": run.as_of, "since": since, "fresh": fresh,
            "window_days": shop.instant_exchange_window_days, "starts_at": rule.starts_at, "reminder": event.reminder,
            "restored_at": rule.restored_at, "window_start": run.window_start, "window_end": run.window_end,
        },
    )  # fmt: skip
    return None, stale


def _counts(cur: psycopg.Cursor[Any]) -> tuple[int, int]:
    row = cur.execute("SELECT count(*), count(*) FILTER (WHERE is_known) FROM candidate").fetchone()
    return cast(tuple[int, int], row)


def _baseline(conn: psycopg.Connection[Any]) -> Iterator[list[Row]]:
    """New candidates from before their rule started, as LEDGER_COLUMNS, a chunk at a time."""
    with psycopg.ServerCursor(conn, "candidate_baseline") as cur:
        cur.execute(db.sql("qualify/baseline"))
        while rows := cur.fetchmany(CHUNK):
            yield rows


def _facts(conn: psycopg.Connection[Any], shop: Shop, *, known: bool) -> Iterator[pd.DataFrame]:
    """The other candidates with the facts for their payload, a chunk at a time."""
    with psycopg.ServerCursor(conn, "candidate_facts") as cur:
        cur.execute(db.sql("qualify/facts"), {"shop": shop.name, "known": known})
        columns = [column.name for column in cur.description or ()]
        while rows := cur.fetchmany(CHUNK):
            yield pd.DataFrame(rows, columns=columns)


# ── Judgement ───────────────────────────────────────────────────────────────


def judge(facts: pd.DataFrame, shop: Shop, event: EventType, now: datetime, key: bytes) -> pd.DataFrame:
    """The state that each event starts in.

    facts: the columns of include/sql/qualify/facts.sql; what a person released is not late. key: of the hashes.
    Returns them with occurred_at, status, reason, body (JSON text; only where the event may be sent), phone_hash,
    email_hash and outcome_omitted.
    """
    shaped = payload.shape(facts, region=shop.phone_region, now=now)
    listed, shaped = _only_recipients(facts, shaped, shop, now)
    late = (shaped["occurred_at"] < now - MAX_LATENESS) & ~facts["is_released"].astype(bool) & (not event.reminder)
    invalid = shaped["invalid_reason"].notna()
    verdicts = (
        (np.full(len(facts), event.name in shop.events_off), "suppressed", SWITCHED_OFF),
        (facts["opted_out"], "suppressed", OPTED_OUT),
        (late, "expired", TOO_LATE),
        (invalid, "invalid", shaped["invalid_reason"]),
        (~listed, "suppressed", NOT_ON_TEST_LIST),
        (np.full(len(facts), shop.mode == "shadow"), "suppressed", SHADOW),
    )
    conditions = [np.asarray(condition, dtype=bool) for condition, _, _ in verdicts]
    status = np.select(conditions, [status for _, status, _ in verdicts], default="pending")
    reason = np.select(conditions, [np.asarray(reason, dtype=object) for _, _, reason in verdicts], default=None)  # type: ignore[call-overload]
    return facts.assign(
        occurred_at=shaped["occurred_at"],
        status=status,
        reason=pd.Series(reason, index=facts.index, dtype=object),  # a text column would make NaN of None
        body=shaped["body"].where(status == "pending", None),
        phone_hash=pd.Series(people.hashes(shaped["phone"], key), index=facts.index, dtype=object),
        email_hash=pd.Series(people.hashes(shaped["email"], key), index=facts.index, dtype=object),
        outcome_omitted=shaped["outcome_omitted"],
    )


def _only_recipients(
    facts: pd.DataFrame, shaped: pd.DataFrame, shop: Shop, now: datetime
) -> tuple[pd.Series, pd.DataFrame]:
    """Which events may go out by the shop's test list, and their bodies without contacts that are not on it."""
    if not shop.only_recipients:
        return pd.Series(True, index=facts.index), shaped
    phone = shaped["phone"].isin(shop.only_recipients)
    email = shaped["email"].str.lower().isin(shop.only_recipients)
    allowed = facts.assign(
        customer_phone=facts["customer_phone"].where(phone, None),
        customer_email=facts["customer_email"].where(email, None),
    )
    listed = phone | email
    return listed, shaped.where(~listed, payload.shape(allowed, region=shop.phone_region, now=now))


# ── Storing ─────────────────────────────────────────────────────────────────


def store(cur: psycopg.Cursor[Any], rows: Iterable[Row], shop: Shop, event: EventType, run: Run) -> None:
    """Writes new events to the ledger, which takes them in while the next are made. rows: their LEDGER_COLUMNS."""
    rows, again = tee(rows)
    ids = event_ids(shop.name, event.name, (row[0] for row in again))
    place = LEDGER_COLUMNS.index("occurred_at")
    order_no = event.order_no
    db.copy(
        cur,
        "event",
        ("event_id", "shop", "event_type", "detected_at", "order_no", "order_at", "run_key", *LEDGER_COLUMNS),
        (
            (event_id, shop.name, event.name, run.as_of, order_no, _order_at(order_no, row[place]), run.run_key, *row)
            for event_id, row in zip(ids, rows, strict=True)
        ),
    )


def _order_at(order_no: int, occurred_at: datetime) -> datetime:
    """The place among the events of its return: Created first, the others by the milliseconds that are told."""
    if order_no == 0:
        return FIRST_OF_ALL
    return occurred_at.replace(microsecond=occurred_at.microsecond // 1000 * 1000)


def _rows(frame: pd.DataFrame, columns: Iterable[str]) -> Iterable[Row]:
    """Some columns as plain Python values, row by row."""
    return zip(*(_values(frame[column]) for column in columns), strict=True)


def _values(column: pd.Series) -> list[Any]:
    is_time = isinstance(column.dtype, pd.DatetimeTZDtype)
    return (column.dt.to_pydatetime() if is_time else column).tolist()


def _record(cur: psycopg.Cursor[Any], run: Run, event: EventType, result: Qualified, omitted: int) -> None:
    cur.execute(
        "INSERT INTO run_rule AS r (run_key, event_type, yielded, known, created, outcomes_omitted) "
        "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (run_key, event_type) DO UPDATE SET "
        "yielded = r.yielded + excluded.yielded, known = r.known + excluded.known, "
        "created = r.created + excluded.created, outcomes_omitted = r.outcomes_omitted + excluded.outcomes_omitted",
        (run.run_key, event.name, result.yielded, result.known, result.created, omitted),
    )
    _tell_omitted(event.name, omitted)


def _tell_omitted(event_type: str, outcomes: int) -> None:
    if outcomes:
        log.warning("%s: left out %d return outcomes that Attentive's table does not have.", event_type, outcomes)


# ── Judging again ───────────────────────────────────────────────────────────


def _revive(conn: psycopg.Connection[Any], cur: psycopg.Cursor[Any], shop: Shop, run: Run, now: datetime) -> None:
    """Reminders that were dropped as no longer true, and that the rule yields again, are judged anew; but none that the
    settings' enabled_at forbids: a sender that is at work would take it.
    """
    cur.execute(
        "DELETE FROM candidate AS c WHERE c.is_known AND (c.fact_at <= %s OR NOT EXISTS (SELECT FROM event AS e "
        "WHERE e.event_id = c.event_id AND e.status = 'suppressed' AND e.reason = 'no longer true'))",
        (shop.enabled_at,),
    )
    _judge_known(conn, cur, shop, run, now)


def judge_again(
    conn: psycopg.Connection[Any], shop: Shop, *, run: Run | None = None, now: datetime | None = None
) -> int:
    """Judges anew, and commits: events without a recipient whose return has another contact by now, and, in live
    mode, shadow events whose fact is later than the settings' enabled_at. How many became pending.

    run: the one that tells of those that are held.
    """
    with conn.transaction(), psycopg.ClientCursor(conn) as cur:
        db.wait_for_turn(cur, db.JUDGES_AGAIN.format(shop.name))
        now = now or db.now(cur)
        cur.execute(db.sql("qualify/candidates"))
        cur.execute(
            _with_enabled("revisable"),
            {
                "shop": shop.name,
                "not_before": now - MAX_LATENESS,
                "reminders_not_before": now - timedelta(days=RULES_LOOK_BACK_DAYS),
                "reminders": REMINDERS,
                "enabled_at": shop.enabled_at,
                "is_live": shop.mode == "live",
            },
        )
        return _judge_known(conn, cur, shop, run, now)


def obey_settings(conn: psycopg.Connection[Any], shop: Shop) -> int:
    """Suppresses, and commits, what was pending when enabled_at, events_off or only_recipients came to forbid it; how
    many. What is unknown is not sent again then.
    """
    if not shop.enabled_at and not shop.events_off and not shop.only_recipients:
        return 0
    parameters = {
        "shop": shop.name,
        "enabled_at": shop.enabled_at,
        "events_off": list(shop.events_off),
        "everybody": not shop.only_recipients,
        "listed": people.hashes(shop.only_recipients, people.hash_key(conn)),
    }
    with conn.transaction():
        return conn.execute(_with_enabled("obey_settings"), parameters).rowcount


def _with_enabled(name: str) -> LiteralString:
    return db.sql(f"qualify/{name}").replace("{since_enabled}", db.sql("qualify/since_enabled"))


def release(conn: psycopg.Connection[Any], shop: Shop) -> None:
    """Judges anew, in the caller's transaction, what a person has decided to send and has no body any more."""
    with psycopg.ClientCursor(conn) as cur:
        cur.execute(db.sql("qualify/candidates"))
        cur.execute(db.sql("qualify/decided"))
        _judge_into_table(conn, cur, shop, db.now(cur))
        cur.execute(db.sql("qualify/release"))


def _judge_known(
    conn: psycopg.Connection[Any], cur: psycopg.Cursor[Any], shop: Shop, run: Run | None, now: datetime
) -> int:
    """Writes a new judgement for the candidates that the ledger holds; how many became pending.

    What is released at once is guarded like what is new.
    """
    _judge_into_table(conn, cur, shop, now)
    guard.hold_judged(cur, shop, run, now)
    cur.execute(db.sql("qualify/judge_again"))
    [(pending,)] = cur.execute("SELECT count(*) FROM judged WHERE status = 'pending'").fetchall()
    return int(pending) - (guard.hold_judged_above_cap(cur, shop, run, now) if pending else 0)


def _judge_into_table(conn: psycopg.Connection[Any], cur: psycopg.Cursor[Any], shop: Shop, now: datetime) -> None:
    """The candidates' new judgement, in the temporary table judged."""
    cur.execute(
        "CREATE TEMP TABLE judged (event_id uuid, occurred_at timestamptz, status text, reason text, body json, "
        "phone_hash bigint, email_hash bigint) ON COMMIT DROP"
    )
    columns = ("event_id", "occurred_at", "status", "reason", "body", "phone_hash", "email_hash")
    key = people.hash_key(conn)
    for frame in _facts(conn, shop, known=True):
        for event_type, facts in frame.groupby("event_type"):
            judged = judge(facts, shop, BY_NAME[str(event_type)], now, key)
            db.copy(cur, "judged", columns, _rows(judged, columns))
            _tell_omitted(str(event_type), int(judged["outcome_omitted"].sum()))
