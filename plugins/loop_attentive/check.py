"""Preflight: what a shop's warehouse tells, what it does not, and what one will get of it, before anything is sent.

It looks at the source as a run does, in a transaction that is rolled back; of many returns at a share of them.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import psycopg

from loop_attentive import connectors, contacts, db, mirror, qualify, rules
from loop_attentive.canonical import TABLES, Table, identifier, moment, text
from loop_attentive.catalogue import CATALOGUE, EventType
from loop_attentive.errors import NeedsMending
from loop_attentive.payload import FACT_AHEAD
from loop_attentive.runs import Run
from loop_attentive.settings import Shop
from loop_attentive.source import Cursor, Raw, Source

EVENTS_OF = timedelta(days=7)
CONTACTS_OF = timedelta(days=30)
MOST_CONTACTS = 20_000
"""So many are looked at: each takes a while."""

MOST_RETURNS = 100_000
"""Of more, a share is looked at: a person waits for the answer."""

WATCHED = 20_000
"""Rows of a table whose times are looked at, one by one."""


@dataclass
class Report:
    """What was found. problems: what keeps the runs from working; warnings: what costs events; facts: all else."""

    title: str
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    events: dict[str, str] = field(default_factory=dict)

    def lines(self) -> Iterator[tuple[int, str]]:
        """Line by line, each with the level of logging that it is worth."""
        yield logging.INFO, self.title
        events = [f"{name:<32}{what}" for name, what in self.events.items()]
        for level, head, lines in (
            (logging.ERROR, "To mend before anything works", self.problems),
            (logging.WARNING, "What is missing, and what that costs", self.warnings),
            (logging.INFO, "What was found", self.facts),
            (logging.INFO, f"Events of the last {EVENTS_OF.days} days, as far as the source can tell", events),
        ):
            if lines:
                yield logging.INFO, ""
                yield logging.INFO, f"{head}:"
                yield from ((level, f"  {line}") for line in lines)

    def __str__(self) -> str:
        return "\n".join(line for _, line in self.lines())


class Watched(Source):
    """Reads the source from its beginning, and notes how times are spelt.

    every: of so many returns one, with all that is of it. follows: only what is new, as runs do. times: how many values
    of a table's column are zoned, naive, text, or unreadable. rows, returns: of how many rows there were, which ids.
    """

    def __init__(self, origin: Source) -> None:
        super().__init__(origin.engine, origin.shop)
        self.every = 1
        self.follows = False
        self.times: Counter[tuple[str, str, str]] = Counter()
        self.rows = 0
        self.returns: set[str] = set()
        self._noted: Counter[str] = Counter()

    def read(self, table: Table, since: Cursor) -> Iterator[Raw]:
        place = table.columns.index("return_id")
        for raw in super().read(table, since if self.follows else Cursor()):
            kept = [n for n, row in enumerate(raw.rows) if self._is_of_share(row[place])]
            moved = raw.moved and [raw.moved[n] for n in kept]
            share = replace(raw, rows=[raw.rows[n] for n in kept], moved=moved)
            self._note(table, share)
            if table.name == "returns":
                self.rows += len(kept)
                self.returns.update(str(row[place]) for row in share.rows)
            yield share

    def _is_of_share(self, return_id: Any) -> bool:
        return self.every == 1 or crc32((identifier(return_id) or "").encode(errors="replace")) % self.every == 0

    def _note(self, table: Table, raw: Raw) -> None:
        rows = raw.rows[: max(0, WATCHED - self._noted[table.name])]
        self._noted[table.name] += len(rows)
        for place, column in enumerate(table.columns):
            if column.endswith("_at"):
                kinds = Counter(map(self._kind, (row[place] for row in rows)))
                self.times.update({(table.name, column, kind): n for kind, n in kinds.items() if kind})

    def _kind(self, value: Any) -> str | None:
        if text(value) is None:
            return None
        if moment(value, UTC) is None:
            return "unreadable"
        if isinstance(value, datetime):
            return "zoned" if value.tzinfo else "naive"
        return "text"


def check(
    conn: psycopg.Connection[Any], origin: Source, *, account: str | None = None, at: datetime | None = None
) -> Report:
    """Looks at the source and tells what it is worth; nothing is kept.

    account: the shop's at Attentive. at: of the look, aware; by default the ledger's clock.
    """
    shop = origin.shop
    report = Report(f"{titled(shop)} ({origin.engine.dialect.name})")
    watched = Watched(origin)
    try:
        with conn.transaction(force_rollback=True):
            with mirror.told_of_source(origin, "Counting returns"):
                number = watched.count("returns")
            if number > MOST_RETURNS:
                # With a mirror, what is new will do; without one, a share.
                watched.follows = bool(_rows(conn, "check/tables", {"shop": shop.name, "source": origin.identity}))
                watched.every = 1 if watched.follows else -(-number // MOST_RETURNS)
            look = mirror.look(conn, watched, account=account, at=at)
            if watched.every > 1:
                report.facts.append(
                    f"{number:,} returns in the source: every {watched.every}th was looked at, and the numbers below "
                    "are estimates from these"
                )
            _say_what_is_there(report, conn, watched, look.as_of)
            _say_how_rows_are(report, watched)
            _count_events(report, conn, shop, look.as_of, watched.every)
    except (NeedsMending, mirror.SourceFailed) as error:
        report.problems.append(str(error))
    if watched.is_known:
        _say_what_is_absent(report, watched)
    return report


def titled(shop: Shop) -> str:
    told = connectors.connector(shop.connector)
    return f"Shop {shop.name}: connector {shop.connector} ({told.title}) on connection {shop.warehouse}"


def _say_what_is_absent(report: Report, origin: Source) -> None:
    """Tables and columns that the SELECTs name and the warehouse has not, and what no connector of its kind tells."""
    shop = origin.shop
    if shop.loop_api and origin.missing():
        report.problems.insert(
            0,
            f"The sync makes the tables: switch loop_attentive_sync{shop.dag_suffix} on, or run it once, first.",
        )
    for table, columns in origin.layout.absent().items():
        what = f"has no column {', '.join(columns)}" if columns else "is not there, or its login may not read it"
        report.warnings.append(f"{table} {what}")
    without = origin.absent()
    report.warnings += [f"nothing tells of {name.replace('_', ' ')}" for name in TABLE_NAMES if name in without]
    told = connectors.connector(shop.connector)
    report.warnings += [f"{what}: {words}" for what, words in told.gaps.items() if not _is_filled(what, origin)]
    if told.rhythm_hours and shop.freshness_hours and shop.freshness_hours < told.rhythm_hours:
        report.warnings.append(
            f"{told.title} usually syncs every {told.rhythm_hours:g} hours, and freshness_hours is "
            f"{shop.freshness_hours:g}: reminders wait most of the time unless it syncs more often"
        )
    if shop.connector != "canonical" and "customer_phone" not in origin.told("returns"):
        report.warnings.append(
            "phones: Loop's tables hold none; "
            + ("neither do Shopify's here" if shop.shopify else "name Shopify's with `shopify`")
        )
    if shop.stripe and shop.stripe.return_id_in is None and shop.stripe.match_by_email == "no":
        report.warnings.append("payments: without `return_id_in` nothing tells which return a charge belongs to")


TABLE_NAMES = tuple(table.name for table in TABLES)

FILLED_BY = {"instant exchanges": ("returns", "is_instant_exchange"), "restocks": ("exchange_items", "restocked_at")}
"""Which canonical column closes a connector's gap: a SELECT of one's own may tell it, or Shopify's stock."""


def _is_filled(gap: str, origin: Source) -> bool:
    if gap not in FILLED_BY:
        return False
    table, column = FILLED_BY[gap]
    return column in origin.told(table)


def _say_what_is_there(report: Report, conn: psycopg.Connection[Any], origin: Watched, now: datetime) -> None:
    shop, every = origin.shop, origin.every
    for table, synced_at, column, kind, has_rows in _rows(
        conn, "check/tables", {"shop": shop.name, "source": origin.identity}
    ):
        if not has_rows:
            report.warnings.append(f"{table} has no rows yet")
            continue
        fresh = f"synced {_ago(now - synced_at)}" if synced_at else "no row tells when it was synced"
        follows = f"a run reads what is new by {column}" if column and kind else "a run reads all of it each time"
        report.facts.append(f"{table}: {fresh}; {follows}")
    can_remind, why_not = rules.freshness(conn, shop, now)
    if not can_remind:
        report.warnings.append(f"no reminders for now: {why_not}")
    last_look = "SELECT synced_at FROM look WHERE shop = %s ORDER BY as_of DESC LIMIT 1"
    log = shop.connector_log
    if log and not any(table.startswith("log.") for table in origin.layout.wanted):
        report.warnings.append(f"connector_log: nothing reads one of connector {shop.connector}: leave it out")
    elif log and db.scalar(conn, last_look, (shop.name,)) is None:
        report.warnings.append(
            f"connector_log: {log.tables} holds no complete sync of connection {log.connection!r}, so the newest row "
            "tells how fresh the source is: is that the connection's id there?"
        )
    [found] = _rows(conn, "check/returns", {"shop": shop.name})
    returns, instant, without_charge, undated = (number * every for number in found[:4])
    created_at, updated_at = found[4:]
    report.facts.append(f"{returns:,} returns of the last {shop.mirror_days} days")
    for name, newest in (("created", created_at), ("updated", updated_at)):
        if newest is not None and newest <= now:
            report.facts.append(f"the newest of them was {name} {_ago(now - newest)}")
    if undated:
        report.warnings.append(f"{undated:,} returns have no readable created_at: none of them is reminded by age")
    if instant:
        report.facts.append(f"{instant:,} of them are instant exchanges")
    if without_charge and shop.instant_exchange_window_days is None:
        report.warnings.append(
            f"{without_charge:,} instant exchanges have no charge_at, and instant_exchange_window_days is not set: "
            "they get neither Reminder nor Notice"
        )
    report.warnings += _wrong_times(shop, now, created_at, updated_at)
    report.warnings += _synced_at_odds(conn, shop, every)
    _say_who_can_be_reached(report, conn, shop, now)


def _synced_at_odds(conn: psycopg.Connection[Any], shop: Shop, every: int) -> Iterator[str]:
    """What was synced before it happened, or so long after the last thing that happened as a zone is wide."""
    [(early, recent, most_early, silence)] = _rows(conn, "check/synced", {"tolerance": FACT_AHEAD})
    if early:
        yield (
            f"{early * every:,} returns have a created_at or updated_at after their synced_at, by up to "
            f"{_hours(most_early)}: {_which_zone(shop)}"
        )
    if silence and recent * every >= BUSY and SMALLEST_OFFSET <= silence <= LARGEST_OFFSET:
        yield (
            f"nothing happened in the {_hours(silence)} before the newest synced_at, though {recent * every:,} returns "
            f"were created in the two days before: {_which_zone(shop)}"
        )


def _wrong_times(shop: Shop, now: datetime, created_at: datetime | None, updated_at: datetime | None) -> Iterator[str]:
    """A time in the future is nobody's: where it is ahead by hours, its zone is the likely reason."""
    for column, newest in (("created_at", created_at), ("updated_at", updated_at)):
        if newest is not None and newest - now > FACT_AHEAD:
            yield (f"returns have a {column} up to {_hours(newest - now)} in the future: {_which_zone(shop)}")


BUSY = 48
"""Returns in two days: one an hour."""

SMALLEST_OFFSET, LARGEST_OFFSET = timedelta(minutes=50), timedelta(hours=14, minutes=30)


def _which_zone(shop: Shop) -> str:
    return f"are times without a zone really in {shop.time_zone} (time_zone)?"


def _hours(span: timedelta) -> str:
    return f"{span / timedelta(hours=1):,.1f} hours"


def _say_how_rows_are(report: Report, watched: Watched) -> None:
    shop = watched.shop
    if watched.rows > len(watched.returns):
        report.facts.append(
            f"returns: {watched.rows:,} rows are of {len(watched.returns):,} returns: of each the newest counts"
        )
    naive: list[str] = []
    for table, column in sorted({(table, column) for table, column, _ in watched.times}):
        number = {kind: watched.times[table, column, kind] for kind in ("zoned", "naive", "text", "unreadable")}
        if unreadable := number["unreadable"]:
            report.warnings.append(
                f"{table}.{column}: {unreadable:,} of {sum(number.values()):,} values cannot be read as a time, and "
                "count as absent: a timestamp can, and ISO 8601 text"
            )
        if number["naive"]:
            naive.append(f"{table}.{column}")
    if naive:
        # With the zone unset, that it is UTC is nobody's word.
        lines = report.facts if "time_zone" in shop.model_fields_set else report.warnings
        lines.append(f"times without a zone, taken as {shop.time_zone} (time_zone): {', '.join(naive)}")


def _say_who_can_be_reached(report: Report, conn: psycopg.Connection[Any], shop: Shop, now: datetime) -> None:
    people = phones = emails = reachable = 0
    for phone, email in _rows(
        conn, "check/contacts", {"shop": shop.name, "since": now - CONTACTS_OF, "most": MOST_CONTACTS}
    ):
        has_phone = bool(phone and contacts.phone(phone, shop.phone_region))
        has_email = bool(email and contacts.email(email))
        people, phones, emails = people + 1, phones + has_phone, emails + has_email
        reachable += has_phone or has_email
    if not people:
        report.warnings.append(f"no return was created in the last {CONTACTS_OF.days} days")
        return
    which = f"the newest {people:,}" if people == MOST_CONTACTS else f"the {people:,}"
    line = (
        f"{reachable / people:.0%} of {which} returns created in the last {CONTACTS_OF.days} days have a usable "
        f"phone ({phones / people:.0%}) or e-mail ({emails / people:.0%})"
    )
    (report.facts if reachable == people else report.warnings).append(line)


def _count_events(report: Report, conn: psycopg.Connection[Any], shop: Shop, now: datetime, every: int) -> None:
    run = Run(0, now, now - EVENTS_OF, now)
    for event in CATALOGUE:
        report.events[event.name] = _events_of(conn, shop, event, run, every)


def _events_of(conn: psycopg.Connection[Any], shop: Shop, event: EventType, run: Run, every: int) -> str:
    if off := connectors.why_off(shop, event):
        return f"off: {off}"
    found = ("about " if every > 1 else "") + f"{qualify.count(conn, shop, event, run) * every:,}"
    if event.name in shop.events_off:
        return f"{found}, switched off by events_off"
    if event.reminder:
        return f"{found}, which hold now: what was due and is over by now is not counted"
    return f"{found}, where a look has seen the change" if event.change else found


def _rows(conn: psycopg.Connection[Any], name: str, parameters: dict[str, Any]) -> list[Any]:
    return conn.execute(db.sql(name), parameters).fetchall()


def _ago(age: timedelta) -> str:
    return f"{_hours(age)} ago"
