"""A look: one reading of a shop's source into the mirror, in one transaction.

Rows are staged, compared by content with what the mirror holds, logged where they differ, and applied; then the
cursors move. A look that dies half-way leaves nothing behind. Looks of one shop take turns (advisory lock), and each
reads the source only after it has its turn, so an older picture never overwrites a newer one.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.exc import DBAPIError, ProgrammingError

from loop_attentive import canonical, db, people, source
from loop_attentive.canonical import Table
from loop_attentive.catalogue import CATALOGUE
from loop_attentive.errors import NeedsMending
from loop_attentive.people import SaidNo
from loop_attentive.settings import RULES_LOOK_BACK_DAYS, Shop
from loop_attentive.source import Cursor, Raw, Source

log = logging.getLogger(__name__)

CLOCK_TOLERANCE = timedelta(minutes=5)
"""Clocks further apart than this make every age and lateness a guess."""

SHARED_LOOK = timedelta(minutes=15)
"""A backfill's runs share one whole look that is not older than this."""


@dataclass(frozen=True)
class Look:
    """What a look saw. as_of: when it began to read, by the ledger's clock, UTC; rows read; mirror rows changed."""

    as_of: datetime
    extracted: int
    changed: int


def look(
    conn: psycopg.Connection[Any],
    origin: Source,
    *,
    whole: bool = False,
    at: datetime | None = None,
    account: str | None = None,
) -> Look:
    """Looks at the source and commits, or raises and leaves everything as it was.

    whole: read without the cursor, unless a whole look of the last 15 minutes can serve (that one is returned).
    at: the look's as_of, aware; by default the ledger's clock when the look has its turn. account: the shop's Attentive
    account, for its first look: who said no to another shop of it is kept out from the beginning.
    Raises NeedsMending when the source lacks a table or column, or a clock is more than five minutes off, and
    SourceFailed when the warehouse gives an error.
    """
    shop = origin.shop
    with conn.transaction(), psycopg.ClientCursor(conn) as cur:
        wait_for_turn(conn, shop)
        ledger_now = ledger_time(conn)
        as_of = at or _after_last_look(cur, shop, ledger_now)
        if whole and (recent := _recent_whole_look(cur, origin, as_of)):
            log.info("The whole look of %s serves this run too.", recent.as_of.isoformat())
            return recent
        with told_of_source(origin, "Asking the time and the tables"):
            _check_clock(f"the source of connection {shop.warehouse}", origin.clock(), ledger_now)
            absent = _check_tables(cur, origin)
            synced_at = origin.last_sync()
        _introduce(cur, shop, as_of, account)
        said_no = people.said_no(conn, shop)
        db.script(cur, "mirror/stage", {})
        if is_anew := _is_of_another_zone(cur, shop):
            log.info("The shop's time_zone has changed: the source is read anew.")
            db.script(cur, "mirror/forget_moves", {"shop": shop.name, "time_zone": shop.time_zone})
        elif is_anew := _reaches_further_back(cur, shop, as_of):
            log.info("The shop's mirror_days were raised: the source is read anew.")
        tables = [table for table in canonical.TABLES if table.name not in absent]
        cursors = {table.name: _cursor(cur, origin, table, is_anew=is_anew) for table in tables}
        seen = _take_in(conn, cur, origin, cursors, as_of, said_no, whole=whole)
        db.script(cur, "mirror/purge", {"shop": shop.name, "horizon": _horizon(shop, as_of)})
        _acquaint(cur)
        people.opt_out(conn, shop.name, said_no.found, given=False)
        _move_cursors(cur, origin, as_of, as_of + (db.now(cur) - ledger_now), cursors)
        _finish(cur, origin, seen, list(cursors), whole=whole, synced_at=synced_at)
    log.info("Looked as of %s: %d rows read, %d new or changed.", as_of.isoformat(), seen.extracted, seen.changed)
    return seen


def _take_in(
    conn: psycopg.Connection[Any],
    cur: psycopg.Cursor[Any],
    origin: Source,
    cursors: dict[str, "_Known"],
    as_of: datetime,
    said_no: SaidNo,
    *,
    whole: bool,
) -> Look:
    """Reads the source into the mirror: one table is read while the one before is applied."""
    shop, horizon = origin.shop, _horizon(origin.shop, as_of)
    extracted = changed = 0
    passed: Future[set[str]] = Future()
    try:
        with closing(source.ahead(_read(origin, cursors, as_of, passed.result, whole=whole))) as chunks:
            for table, chunk in chunks:
                if chunk is not None:
                    extracted += chunk.read
                    _stage(cur, table, chunk.rows, horizon, said_no)
                else:
                    _keep_out(conn, cur, shop, table, said_no)
                    known = cursors.get(table.name)
                    changed += _apply(cur, origin, table, as_of, known)
                    if table is canonical.RETURNS:
                        passed.set_result(_passed_over(cur, as_of) if known and known.previous_look else set())
    finally:
        passed.cancel()  # whoever waits for it need not any more
    return Look(as_of, extracted, changed)


def _passed_over(cur: psycopg.Cursor[Any], as_of: datetime) -> set[str]:
    """Ids of applied returns of whose children the cursors may have passed what the mirror does not hold."""
    rows = cur.execute(db.sql("mirror/passed_over"), {"old": _old(as_of)}).fetchall()
    return {return_id for (return_id,) in rows}


def wait_for_turn(conn: psycopg.Connection[Any], shop: Shop) -> None:
    """Has the mirror of a shop to oneself until the transaction ends."""
    db.wait_for_turn(conn, f"look at {shop.name}")


def _horizon(shop: Shop, as_of: datetime) -> datetime:
    """Returns that were neither created nor changed since are not held."""
    return as_of - timedelta(days=shop.mirror_days)


def _old(as_of: datetime) -> datetime:
    """Returns created before may not have been held till now, whatever mirror_days was."""
    return as_of - timedelta(days=RULES_LOOK_BACK_DAYS)


def _after_last_look(cur: psycopg.Cursor[Any], shop: Shop, now: datetime) -> datetime:
    """Now, or just after the last look where the clock was set back since: rules would not see what this look sees."""
    last = db.scalar(cur, "SELECT max(as_of) FROM look WHERE shop = %s", (shop.name,))
    return max(now, last.astimezone(UTC) + timedelta(microseconds=1)) if last else now


def _rules() -> dict[str, list[Any]]:
    """The rules as they are now: parameters of what a look begins, or serves."""
    return {"event_types": [event.name for event in CATALOGUE], "versions": [event.version for event in CATALOGUE]}


def _recent_whole_look(cur: psycopg.Cursor[Any], origin: Source, now: datetime) -> Look | None:
    """One of the same source, read as it is now, by the same zone and as far back, that every rule's version has seen:
    the cursors are those of the source that was looked at last.
    """
    row = cur.execute(
        db.sql("mirror/recent_whole_look"),
        {
            "shop": origin.shop.name, "since": now - SHARED_LOOK, "source": origin.identity,
            "told_by": origin.told_by, "time_zone": origin.shop.time_zone, "horizon": _horizon(origin.shop, now),
            **_rules(),
        },
    ).fetchone()  # fmt: skip
    return Look(*row) if row else None


def ledger_time(conn: psycopg.Connection[Any]) -> datetime:
    """Now, by the ledger's clock, UTC. Raises NeedsMending when this worker's is more than five minutes off."""
    now = db.now(conn)
    _check_clock("this worker", datetime.now(UTC), now)
    return now


def _check_clock(whose: str, theirs: datetime, ours: datetime) -> None:
    if abs(theirs - ours) > CLOCK_TOLERANCE:
        raise NeedsMending(
            f"The clock of {whose} says {theirs:%Y-%m-%d %H:%M:%S} UTC, the ledger's database "
            f"{ours:%Y-%m-%d %H:%M:%S} UTC: set the wrong one right, they may differ by five minutes at most."
        )


def _check_tables(cur: psycopg.Cursor[Any], origin: Source) -> frozenset[str]:
    """Names of tables that the source does without, as it always has. Raises for any other gap."""
    absent = frozenset(origin.absent())
    missing = _gone(cur, origin, absent) | origin.missing()
    if missing:
        gaps = "; ".join(
            f"table {table} lacks {', '.join(columns)}" if columns else f"there is no table {table}"
            for table, columns in missing.items()
        )
        raise NeedsMending(
            f"The source of connection {origin.shop.warehouse} is not as connector {origin.shop.connector} needs it: "
            f"{gaps}. Add what is missing (empty or NULL will do), grant SELECT on it, or set the shop's schema."
        )
    if "labels" in absent:
        log.warning("The source has no table labels: no label event, and no reminder as nothing tells what is shipped.")
    return absent


def _gone(cur: psycopg.Cursor[Any], origin: Source, absent: frozenset[str]) -> dict[str, list[str]]:
    """What this source told at its last look and tells no more, though it is read as it was then: table -> columns
    (empty: the whole table). Where a table of the warehouse is gone, that is all there is to mend.
    """
    known = cur.execute(
        "SELECT source_table, told FROM source_cursor "
        "WHERE shop = %s AND source = %s AND has_rows AND (told_by = %s) IS NOT FALSE",
        (origin.shop.name, origin.identity, origin.told_by),
    ).fetchall()
    called = origin.layout.called
    nowhere = {source.TABLE + name: called(name) for name, columns in origin.layout.found.items() if columns is None}
    gone: dict[str, list[str]] = {}
    for table, told in known:
        lost = set(told).difference(origin.told(table))
        columns = sorted(name for name in lost if not name.startswith(source.TABLE))
        if tables := lost & nowhere.keys():
            gone |= {nowhere[name]: [] for name in tables}
        elif table in absent or columns:
            gone[called(f"loop.{table}")] = [] if table in absent else columns
    return gone


# ── Staging ─────────────────────────────────────────────────────────────────


def _is_of_another_zone(cur: psycopg.Cursor[Any], shop: Shop) -> bool:
    """Whether the last look read times that have no zone by another one than the shop has now, at whichever source."""
    query = "SELECT bool_or(time_zone <> %s) FROM source_cursor WHERE shop = %s"
    return bool(db.scalar(cur, query, (shop.time_zone, shop.name)))


def _reaches_further_back(cur: psycopg.Cursor[Any], shop: Shop, as_of: datetime) -> bool:
    """Whether the last look held nothing of some time from which this one holds returns."""
    query = "SELECT bool_or(horizon > %s) FROM source_cursor WHERE shop = %s"
    return bool(db.scalar(cur, query, (_horizon(shop, as_of), shop.name)))


@dataclass
class _Known:
    """A table's cursor, and as_of and end of the completed look before this one (None: none at this source).

    stock_is_news: that look could not tell what is restocked. A table is read whole after the shop's time_zone was
    changed or its mirror_days raised, and when it tells more than it did, such as the phones of Shopify, or is read
    from one more table of the warehouse: rows that were passed over may tell it.
    """

    cursor: Cursor
    previous_look: datetime | None
    previous_end: datetime | None = None
    stock_is_news: bool = True


def _cursor(cur: psycopg.Cursor[Any], origin: Source, table: Table, *, is_anew: bool) -> _Known:
    row = cur.execute(
        "SELECT position_column, position, position_kind, newest_synced_at, has_rows, tells_shipped, looked_at, "
        "coalesce(looked_until, looked_at), "
        "CASE WHEN told_by IS NOT NULL THEN told END FROM source_cursor "
        "WHERE shop = %s AND source_table = %s AND source = %s",
        (origin.shop.name, table.name, origin.identity),
    ).fetchone()
    if row is None:
        return _Known(Cursor(), None)
    *cursor, looked_at, looked_until, told = row
    news = _news(told, origin.told(table.name)) if told is not None else set()
    return _Known(Cursor() if is_anew or news else Cursor(*cursor), looked_at, looked_until, "restocked_at" in news)


def _news(told: list[str], tells: list[str]) -> set[str]:
    """What a table tells and did not tell before; of the warehouse's tables that is known where they were noted."""
    were_noted = any(name.startswith(source.TABLE) for name in told)
    return {name for name in tells if were_noted or not name.startswith(source.TABLE)}.difference(told)


@dataclass(frozen=True)
class _Chunk:
    """Rows of one table, normalised. read: of how many, with those that had no id."""

    read: int
    rows: list[canonical.Row]


def _read(
    origin: Source, cursors: dict[str, _Known], as_of: datetime, passed: Callable[[], set[str]], *, whole: bool
) -> Iterator[tuple[Table, _Chunk | None]]:
    """What the source has since the cursors, which move over it: each table's chunks, then None.

    passed: waits until the returns are applied, and tells of which the cursors have passed what the mirror has not:
    labels tell whether a return is shipped, and what came later would look new.
    """
    zone = origin.shop.zone
    for table in canonical.TABLES:
        if known := cursors.get(table.name):
            read = nameless = 0
            since = Cursor() if whole else replace(known.cursor)
            with told_of_source(origin, f"Reading {table.name}"):
                chunks: Iterator[tuple[Raw, set[str] | None]] = ((raw, None) for raw in origin.read(table, since))
                if table is not canonical.RETURNS and since.position:
                    chunks = chain(chunks, _read_of(origin, table, passed))
                for raw, only_of in chunks:
                    rows = [row for row in (table.normal(values, zone) for values in raw.rows) if row is not None]
                    source.advance(known.cursor, table, raw, rows, until=as_of + CLOCK_TOLERANCE, zone=zone)
                    read, nameless = read + len(raw.rows), nameless + len(raw.rows) - len(rows)
                    if only_of is not None:  # of more than can be named all were read
                        place = table.staged.index("return_id")
                        rows = [row for row in rows if row[place] in only_of]
                    yield table, _Chunk(len(raw.rows), rows)
                if table is canonical.LABELS and known.cursor.has_rows and not read and not origin.has_any(table.name):
                    known.cursor = Cursor()  # it was emptied: what will fill it is read from its beginning
            log.info("Read %d rows of %s.", read, table.name)
            if nameless:
                log.warning("Left out %d rows of %s without an id.", nameless, table.name)
        yield table, None


def _read_of(origin: Source, table: Table, passed: Callable[[], set[str]]) -> Iterator[tuple[Raw, set[str]]]:
    """Chunks of the children of what the cursors have passed, with whose they may be."""
    return_ids = passed()
    for raw in origin.read_of(table, return_ids) if return_ids else ():
        yield raw, return_ids


def _stage(
    cur: psycopg.Cursor[Any], table: Table, rows: list[canonical.Row], horizon: datetime, said_no: SaidNo
) -> None:
    """Copies rows into the look's temporary table, and the ids of returns from before the horizon into another."""
    columns = table.staged
    if table is canonical.RETURNS:
        rows, old = _split_by_age(_without_contacts(rows, said_no), horizon)
        columns = (*columns, "opted_out")
        db.copy(cur, "too_old", ("return_id",), old)
    db.copy(cur, f"staged_{table.name}", columns, rows)


PERSONAL = frozenset(
    canonical.RETURNS.staged.index(column)
    for column in ("customer_phone", "customer_email", "order_name", "status_page_url")
)
PHONE, EMAIL, IS_DELETED = map(canonical.RETURNS.staged.index, ("customer_phone", "customer_email", "is_deleted"))


def _without_contacts(returns: list[canonical.Row], said_no: SaidNo) -> list[canonical.Row]:
    """Returns, each with whether it is of somebody who said no: then, and while it is deleted, it can make no event,
    and nothing of it goes on that tells whose it is.
    """
    kept = []
    for row in returns:
        opted_out = bool(said_no) and said_no.owns(row[PHONE], row[EMAIL])
        kept.append((*(_impersonal(row) if opted_out or row[IS_DELETED] else row), opted_out))
    return kept


def _impersonal(row: canonical.Row) -> canonical.Row:
    return tuple(None if place in PERSONAL else value for place, value in enumerate(row))


def _keep_out(
    conn: psycopg.Connection[Any], cur: psycopg.Cursor[Any], shop: Shop, table: Table, said_no: SaidNo
) -> None:
    """Takes out of the staged returns what only those read after them showed to be of somebody who said no."""
    if table is not canonical.RETURNS or not said_no:
        return
    query = db.sql("people/staged_with_contact")
    late = people.owned(conn, said_no, query, {}) if said_no.found else []
    db.script(cur, "people/redact_staged", {"shop": shop.name, "return_ids": late})


def _introduce(cur: psycopg.Cursor[Any], shop: Shop, as_of: datetime, account: str | None) -> None:
    if account:
        cur.execute(
            "INSERT INTO shop (shop, enabled_at, account) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (shop.name, as_of, account),
        )


class SourceFailed(Exception):
    """The warehouse gave an error while it was read; a retry may help. Holds no value of a row."""


@contextmanager
def told_of_source(origin: Source, doing: str) -> Iterator[None]:
    """Tells in one line of an error of the warehouse: NeedsMending where only a person can help, else SourceFailed."""
    name = origin.shop.warehouse
    try:
        yield
    except DBAPIError as error:
        told = f"{doing} from connection {name} failed ({type(error.orig).__name__})"
        if isinstance(error.orig, psycopg.OperationalError) and (why := db.why_hopeless(error.orig)):
            raise NeedsMending(f"The database of connection {name} {why}.") from None
        if isinstance(error, ProgrammingError):
            raise NeedsMending(
                f"{told}: grant its login SELECT on the tables, and see that they are sound, views included."
            ) from None
        if source.DUCKDB_IS_BUSY in str(error.orig):
            raise SourceFailed(
                f"{told}: another process, such as a sync, has the DuckDB file open, and whoever writes must be alone "
                "with it. The next try comes by itself."
            ) from None
        raise SourceFailed(
            f"{told}: is the warehouse up, and the connection's host right? Its own log says more."
        ) from None


CREATED, UPDATED = map(canonical.RETURNS.staged.index, ("created_at", "updated_at"))


def _split_by_age(returns: list[canonical.Row], horizon: datetime) -> tuple[list[canonical.Row], list[canonical.Row]]:
    """Returns created or changed since the horizon, or at no time that can be read; and the ids of the others."""
    kept, old = [], []
    for row in returns:
        if _is_held(row, horizon):
            kept.append(row)
        else:
            old.append(row[:1])
    return kept, old


def _is_held(row: canonical.Row, horizon: datetime) -> bool:
    touched = row[UPDATED] or row[CREATED]
    return touched is None or touched >= horizon or (row[CREATED] or touched) >= horizon


# ── Applying ────────────────────────────────────────────────────────────────

DIFFERENCES = {
    "returns": "return_in",
    "labels": "label_in",
    "exchange_items": "item_in",
    "transactions": "transaction_in",
}


WITH_MOVES = {
    "returns": ("mirror_return", sql.Literal("")),
    "labels": ("mirror_label", sql.Identifier("m", "number")),
    "exchange_items": ("mirror_item", sql.Identifier("m", "exchange_id")),
}
"""Tables of which the mirror holds when a row last changed: as what, and what names a row within its return."""


def _apply(cur: psycopg.Cursor[Any], origin: Source, table: Table, as_of: datetime, known: _Known | None) -> int:
    """Brings one table of the mirror up to what was staged; how many of its rows are new or changed."""
    shop, previous_look = origin.shop, known.previous_look if known else None
    by_stock = origin.layout.is_beside("exchange_items")
    parameters = {
        "shop": shop.name,
        "as_of": as_of,
        "horizon": _horizon(shop, as_of),
        "old": _old(as_of),
        "previous_look": previous_look,
        "last_looks_end": known.previous_end + CLOCK_TOLERANCE if known and known.previous_end else None,
        # what is restocked is told by the stock of the moment, or was until nobody told it any more
        "restocked_once": by_stock or "restocked_at" not in origin.told("exchange_items"),
        "stock_is_news": by_stock and known is not None and known.stock_is_news,
    }
    if table.name in WITH_MOVES:
        _keep_unmoved(cur, shop, table.name)
    db.script(cur, f"mirror/apply_{table.name}", parameters)
    if table is canonical.EXCHANGE_ITEMS:
        db.script(cur, "mirror/apply_episodes", parameters)
    differences = sql.Identifier(DIFFERENCES[table.name])
    return int(db.scalar(cur, sql.SQL("SELECT count(*) FROM {} WHERE is_new OR fields <> '{{}}'").format(differences)))


def _keep_unmoved(cur: psycopg.Cursor[Any], shop: Shop, table: str) -> None:
    mirrored, subject = WITH_MOVES[table]
    query = sql.SQL(db.sql("mirror/keep_unmoved")).format(
        mirrored=sql.Identifier(mirrored), staged=sql.Identifier(f"staged_{table}"), subject=subject
    )
    cur.execute(query, {"source_table": table, "shop": shop.name})


def _acquaint(cur: psycopg.Cursor[Any]) -> None:
    """Has the planner see what a first look brought: rules that follow at once would take hours by its guesses."""
    for (table,) in cur.execute(db.sql("mirror/unknown_tables")).fetchall():
        cur.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(table)))


def _move_cursors(
    cur: psycopg.Cursor[Any], origin: Source, as_of: datetime, until: datetime, cursors: dict[str, _Known]
) -> None:
    for name, known in cursors.items():
        cursor = known.cursor
        told = origin.told(name)
        cur.execute(
            db.sql("mirror/move_cursor"),
            {
                "shop": origin.shop.name, "source_table": name, "source": origin.identity, "looked_at": as_of,
                "looked_until": until,
                "position_column": cursor.column, "position": cursor.position, "position_kind": cursor.kind,
                "newest_synced_at": cursor.newest_synced_at, "has_rows": cursor.has_rows,
                "tells_shipped": cursor.tells_shipped and "status" in told,
                "told": told, "told_by": origin.told_by, "time_zone": origin.shop.time_zone,
                "horizon": _horizon(origin.shop, as_of),
            },
        )  # fmt: skip


def _finish(
    cur: psycopg.Cursor[Any], origin: Source, seen: Look, read: list[str], *, whole: bool, synced_at: datetime | None
) -> None:
    """Records the look; a shop's first one enables it, and rules start where they must. read: names of tables."""
    db.script(
        cur,
        "mirror/finish_look",
        {
            "shop": origin.shop.name, "source": origin.identity, "read": read, "as_of": seen.as_of, "whole": whole,
            "extracted": seen.extracted, "changed": seen.changed, "synced_at": synced_at,
            "told_by": origin.told_by, **_rules(),
        },
    )  # fmt: skip
