"""A look: one reading of a shop's source into the mirror, in one transaction.

Rows are staged, compared by content with what the mirror holds, logged where they differ, and applied; then the
cursors move. A look that dies half-way leaves nothing behind. Looks of one shop take turns (advisory lock), and each
reads the source only after it has its turn, so an older picture never overwrites a newer one.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql
from sqlalchemy.exc import DBAPIError, ProgrammingError

from loop_attentive import db, source
from loop_attentive.catalogue import CATALOGUE
from loop_attentive.errors import NeedsMending
from loop_attentive.settings import Shop
from loop_attentive.source import Cursor, Source, Table

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


def look(conn: psycopg.Connection[Any], origin: Source, *, whole: bool = False, at: datetime | None = None) -> Look:
    """Looks at the source and commits, or raises and leaves everything as it was.

    whole: read without the cursor, unless a whole look of the last 15 minutes can serve (that one is returned).
    at: the look's as_of, aware; by default the ledger's clock when the look has its turn.
    Raises NeedsMending when the source lacks a table or column, or a clock is more than five minutes off.
    """
    shop = origin.shop
    with conn.transaction(), psycopg.ClientCursor(conn) as cur:
        cur.execute("SELECT pg_advisory_xact_lock(hashtextextended('loop_attentive look at ' || %s, 0))", (shop.name,))
        ledger_now = cast(datetime, scalar(cur, "SELECT clock_timestamp()")).astimezone(UTC)
        as_of = at or _after_last_look(cur, shop, ledger_now)
        if whole and (recent := _recent_whole_look(cur, shop, as_of)):
            log.info("The whole look of %s serves this run too.", recent.as_of.isoformat())
            return recent
        _check_clock("this worker", datetime.now(UTC), ledger_now)
        with _told_of_source(origin, "Asking the time and the tables"):
            _check_clock(f"the source of connection {shop.warehouse}", origin.clock(), ledger_now)
            absent = _check_tables(cur, origin)
        script(cur, "mirror/stage", {})
        extracted, cursors = 0, {}
        for table in source.TABLES:
            if table.name in absent:
                continue
            cursors[table.name] = before = _cursor(cur, origin, table)
            rows = _stage(cur, origin, table, before, as_of, whole=whole)
            extracted += rows
            log.info("Read %d rows of %s.", rows, table.name)
        changed = sum(_apply(cur, shop, table, as_of, cursors.get(table.name)) for table in source.TABLES)
        script(cur, "mirror/purge", {"shop": shop.name, "horizon": as_of - timedelta(days=shop.mirror_days)})
        _finish(cur, origin, as_of, {name: known.cursor for name, known in cursors.items()}, whole, extracted, changed)
    log.info("Looked as of %s: %d rows read, %d new or changed.", as_of.isoformat(), extracted, changed)
    return Look(as_of, extracted, changed)


def script(cur: psycopg.Cursor[Any], name: str, parameters: dict[str, Any]) -> int:
    """Runs the statements of include/sql/<name>.sql; the number of rows that the last one touched."""
    cur.execute(cast(LiteralString, db.sql(name)), parameters)
    while cur.nextset():
        pass
    return cur.rowcount


def scalar(cur: psycopg.Cursor[Any], query: LiteralString | sql.Composed, parameters: Any = None) -> Any:
    row = cur.execute(query, parameters).fetchone()
    return row[0] if row else None


def _after_last_look(cur: psycopg.Cursor[Any], shop: Shop, now: datetime) -> datetime:
    """Now, or just after the last look where the clock was set back since: rules would not see what this look sees."""
    last = scalar(cur, "SELECT max(as_of) FROM look WHERE shop = %s", (shop.name,))
    return max(now, last.astimezone(UTC) + timedelta(microseconds=1)) if last else now


def _recent_whole_look(cur: psycopg.Cursor[Any], shop: Shop, now: datetime) -> Look | None:
    row = cur.execute(
        "SELECT as_of, extracted, changed FROM look WHERE shop = %s AND whole AND as_of >= %s "
        "ORDER BY as_of DESC LIMIT 1",
        (shop.name, now - SHARED_LOOK),
    ).fetchone()
    return Look(*row) if row else None


def _check_clock(whose: str, theirs: datetime, ours: datetime) -> None:
    if abs(theirs - ours) > CLOCK_TOLERANCE:
        raise NeedsMending(
            f"The clock of {whose} says {theirs:%Y-%m-%d %H:%M:%S} UTC, the ledger's database "
            f"{ours:%Y-%m-%d %H:%M:%S} UTC: set the wrong one right, they may differ by five minutes at most."
        )


def _check_tables(cur: psycopg.Cursor[Any], origin: Source) -> frozenset[str]:
    """Names of tables that the source does without: labels, if it never had them. Raises for any other gap."""
    missing = origin.missing()
    if missing.get("labels") == [] and not scalar(
        cur,
        "SELECT has_rows FROM source_cursor WHERE shop = %s AND source_table = 'labels' AND source = %s",
        (origin.shop.name, origin.identity),
    ):
        log.warning("The source has no table labels: no label event, and no reminder as nothing tells what is shipped.")
        del missing["labels"]
        absent = frozenset({"labels"})
    else:
        absent = frozenset()
    if missing:
        schema = origin.shop.source_schema
        gaps = "; ".join(
            f"table {schema}.{table} lacks {', '.join(columns)}" if columns else f"there is no table {schema}.{table}"
            for table, columns in missing.items()
        )
        raise NeedsMending(
            f"The source of connection {origin.shop.warehouse} is not as connector {origin.shop.connector} needs it: "
            f"{gaps}. Add what is missing (empty or NULL will do), grant SELECT on it, or set the shop's schema."
        )
    return absent


# ── Staging ─────────────────────────────────────────────────────────────────


@dataclass
class _Known:
    """A table's cursor, and the as_of of the completed look before this one (None: none at this source)."""

    cursor: Cursor
    previous_look: datetime | None


def _cursor(cur: psycopg.Cursor[Any], origin: Source, table: Table) -> _Known:
    row = cur.execute(
        "SELECT position_column, position, position_kind, newest_synced_at, has_rows, looked_at FROM source_cursor "
        "WHERE shop = %s AND source_table = %s AND source = %s",
        (origin.shop.name, table.name, origin.identity),
    ).fetchone()
    return _Known(Cursor(*row[:5]), row[5]) if row else _Known(Cursor(), None)


def _stage(
    cur: psycopg.Cursor[Any], origin: Source, table: Table, known: _Known, as_of: datetime, *, whole: bool
) -> int:
    """Copies what the source has since the cursor into the look's temporary table, and moves the cursor over it."""
    rows, nameless, zone = 0, 0, origin.shop.zone
    horizon = as_of - timedelta(days=origin.shop.mirror_days)
    with _told_of_source(origin, f"Reading {table.name}"):
        for raw in origin.read(table, Cursor() if whole else known.cursor):
            staged = [row for row in (table.normal(values, zone) for values in raw) if row is not None]
            rows, nameless = rows + len(raw), nameless + len(raw) - len(staged)
            source.advance(known.cursor, table, raw, staged, until=as_of + CLOCK_TOLERANCE)
            if table is source.RETURNS:
                staged = _without_old(cur, staged, horizon)
            db.copy(cur, f"staged_{table.name}", table.staged, staged)
    if nameless:
        log.warning("Left out %d rows of %s without an id.", nameless, table.name)
    return rows


class SourceFailed(Exception):
    """The warehouse gave an error while it was read; a retry may help. Holds no value of a row."""


@contextmanager
def _told_of_source(origin: Source, doing: str) -> Iterator[None]:
    """Tells in one line of an error of the warehouse: NeedsMending where only a person can help, else SourceFailed."""
    name = origin.shop.warehouse
    try:
        yield
    except DBAPIError as error:
        told = f"{doing} from connection {name} failed ({type(error.orig).__name__})"
        if isinstance(error.orig, psycopg.OperationalError) and db.is_refusal(error.orig):
            raise NeedsMending(
                f"The database of connection {name} refused the log-in, or has no such role or database: "
                "mend the connection's host, login, password or schema (the database's name)."
            ) from None
        if isinstance(error, ProgrammingError):
            raise NeedsMending(
                f"{told}: grant its login SELECT on the tables, and see that they are sound, views included."
            ) from None
        raise SourceFailed(
            f"{told}: is the warehouse up, and the connection's host right? Its own log says more."
        ) from None


def _without_old(cur: psycopg.Cursor[Any], returns: list[source.Row], horizon: datetime) -> list[source.Row]:
    """Returns created or changed since the horizon, or at no time that can be read; the others' ids are put apart."""
    created, updated = source.RETURNS.staged.index("created_at"), source.RETURNS.staged.index("updated_at")
    kept, old = [], set()
    for row in returns:
        touched = max(filter(None, (row[created], row[updated])), default=None)
        if touched is None or touched >= horizon:
            kept.append(row)
        else:
            old.add(row[0])
    if old:
        cur.execute("INSERT INTO too_old SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", (list(old),))
    return kept


# ── Applying ────────────────────────────────────────────────────────────────

DIFFERENCES = {
    "returns": "return_in",
    "labels": "label_in",
    "exchange_items": "item_in",
    "transactions": "transaction_in",
}


def _apply(cur: psycopg.Cursor[Any], shop: Shop, table: Table, as_of: datetime, known: _Known | None) -> int:
    """Brings one table of the mirror up to what was staged; how many of its rows are new or changed."""
    parameters = {
        "shop": shop.name,
        "as_of": as_of,
        "horizon": as_of - timedelta(days=shop.mirror_days),
        "previous_look": known.previous_look if known else None,
    }
    script(cur, f"mirror/apply_{table.name}", parameters)
    if table is source.EXCHANGE_ITEMS:
        script(cur, "mirror/apply_episodes", parameters)
    differences = sql.Identifier(DIFFERENCES[table.name])
    return int(scalar(cur, sql.SQL("SELECT count(*) FROM {} WHERE is_new OR fields <> '{{}}'").format(differences)))


def _finish(
    cur: psycopg.Cursor[Any],
    origin: Source,
    as_of: datetime,
    cursors: dict[str, Cursor],
    whole: bool,
    extracted: int,
    changed: int,
) -> None:
    """Moves the cursors and records the look; the first one enables the shop, and rules start where they must."""
    for name, cursor in cursors.items():
        cur.execute(
            cast(LiteralString, db.sql("mirror/move_cursor")),
            {
                "shop": origin.shop.name, "source_table": name, "source": origin.identity, "looked_at": as_of,
                "position_column": cursor.column, "position": cursor.position, "position_kind": cursor.kind,
                "newest_synced_at": cursor.newest_synced_at, "has_rows": cursor.has_rows,
            },
        )  # fmt: skip
    script(
        cur,
        "mirror/finish_look",
        {
            "shop": origin.shop.name, "source": origin.identity, "as_of": as_of, "whole": whole,
            "extracted": extracted, "changed": changed,
            "event_types": [event.name for event in CATALOGUE],
            "versions": [event.version for event in CATALOGUE],
        },
    )  # fmt: skip
