"""Preflight: what a shop's warehouse tells, what it does not, and what one will get of it, before anything is sent.

    python -m loop_attentive.check [--shop NAME]

It looks at the source as a run does, in a transaction that is rolled back.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, cast

import psycopg

from loop_attentive import connectors, contacts, db, mirror, qualify, revision, rules, settings
from loop_attentive.catalogue import CATALOGUE, EventType
from loop_attentive.errors import NeedsMending
from loop_attentive.payload import CLOCK_TOLERANCE
from loop_attentive.runs import Run
from loop_attentive.settings import Shop
from loop_attentive.source import TABLES, Source

EVENTS_OF = timedelta(days=7)
CONTACTS_OF = timedelta(days=30)


@dataclass
class Report:
    """What was found. problems: what keeps the runs from working; warnings: what costs events; facts: all else."""

    title: str
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    events: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        events = [f"{name:<32}{what}" for name, what in self.events.items()]
        sections = {
            "To mend before anything works": self.problems,
            "What is missing, and what that costs": self.warnings,
            "What was found": self.facts,
            f"Events of the last {EVENTS_OF.days} days, as far as the source can tell": events,
        }
        told = [f"\n{head}:\n" + "\n".join(f"  {line}" for line in lines) for head, lines in sections.items() if lines]
        return "\n".join([self.title, *told])


def check(
    conn: psycopg.Connection[Any], origin: Source, *, account: str | None = None, at: datetime | None = None
) -> Report:
    """Looks at the source and tells what it is worth; nothing is kept.

    account: the shop's at Attentive. at: of the look, aware; by default the ledger's clock. Raises what a look raises
    where the warehouse cannot be reached at all.
    """
    shop, told = origin.shop, connectors.connector(origin.shop.connector)
    report = Report(
        f"Shop {shop.name}: connector {shop.connector} ({told.title}) on connection {shop.warehouse} "
        f"({origin.engine.dialect.name})"
    )
    try:
        with conn.transaction(force_rollback=True):
            look = mirror.look(conn, origin, whole=True, account=account, at=at)
            _say_what_is_there(report, conn, shop, look.as_of)
            _count_events(report, conn, shop, look.as_of)
    except NeedsMending as error:
        report.problems.append(str(error))
    _say_what_is_absent(report, origin)
    return report


def _say_what_is_absent(report: Report, origin: Source) -> None:
    """Tables and columns that the SELECTs name and the warehouse has not, and what no connector of its kind tells."""
    shop = origin.shop
    try:
        absent = origin.layout.absent()
    except NeedsMending:  # said already
        return
    for table, columns in absent.items():
        what = f"has no column {', '.join(columns)}" if columns else "is not there, or its login may not read it"
        report.warnings.append(f"{table} {what}")
    without = origin.absent()
    report.warnings += [f"nothing tells of {name.replace('_', ' ')}" for name in TABLE_NAMES if name in without]
    told = connectors.connector(shop.connector)
    report.warnings += [f"{what}: {words}" for what, words in told.gaps.items()]
    if told.rhythm_hours and shop.freshness_hours and shop.freshness_hours < told.rhythm_hours:
        report.warnings.append(
            f"{told.title} usually syncs every {told.rhythm_hours:g} hours, and freshness_hours is "
            f"{shop.freshness_hours:g}: reminders wait most of the time unless it syncs more often"
        )
    if shop.connector != "canonical" and shop.shopify is None:
        report.warnings.append("phones: Loop's tables hold none; name Shopify's with `shopify`")
    if shop.stripe and shop.stripe.return_id_in is None:
        report.warnings.append("payments: without `return_id_in` nothing tells which return a charge belongs to")


TABLE_NAMES = tuple(table.name for table in TABLES)


def _say_what_is_there(report: Report, conn: psycopg.Connection[Any], shop: Shop, now: datetime) -> None:
    for table, synced_at, column, kind, has_rows in _rows(conn, "check/tables", {"shop": shop.name}):
        if not has_rows:
            report.warnings.append(f"{table} has no rows yet")
            continue
        fresh = f"synced {_ago(now - synced_at)}" if synced_at else "no row tells when it was synced"
        spelt = {"naive": f"times without a zone, taken as {shop.time_zone}", "zoned": "times with their zone"}
        follows = f"a run reads what is new by {column}" if column and kind else "a run reads all of it each time"
        report.facts.append(f"{table}: {fresh}; {spelt.get(kind or '', 'times as text')}; {follows}")
    can_remind, why_not = rules.freshness(conn, shop, now)
    if not can_remind:
        report.warnings.append(f"no reminders for now: {why_not}")
    [(returns, instant, without_charge, undated, created_at, updated_at)] = _rows(
        conn, "check/returns", {"shop": shop.name}
    )
    report.facts.append(f"{returns:,} returns of the last {shop.mirror_days} days")
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
    _say_who_can_be_reached(report, conn, shop, now)


def _wrong_times(shop: Shop, now: datetime, created_at: datetime | None, updated_at: datetime | None) -> Iterator[str]:
    """A time in the future is nobody's: where it is ahead by hours, its zone is the likely reason."""
    for column, newest in (("created_at", created_at), ("updated_at", updated_at)):
        if newest is not None and newest - now > CLOCK_TOLERANCE:
            yield (
                f"returns have a {column} up to {(newest - now) / timedelta(hours=1):.1f} hours in the future: are "
                f"times without a zone really in {shop.time_zone} (time_zone)?"
            )


def _say_who_can_be_reached(report: Report, conn: psycopg.Connection[Any], shop: Shop, now: datetime) -> None:
    people = phones = emails = reachable = 0
    for phone, email in _rows(conn, "check/contacts", {"shop": shop.name, "since": now - CONTACTS_OF}):
        has_phone = bool(phone and contacts.phone(phone, shop.phone_region))
        has_email = bool(email and contacts.email(email))
        people, phones, emails = people + 1, phones + has_phone, emails + has_email
        reachable += has_phone or has_email
    if not people:
        report.warnings.append(f"no return was created in the last {CONTACTS_OF.days} days")
        return
    line = (
        f"{reachable / people:.0%} of the {people:,} returns created in the last {CONTACTS_OF.days} days have a usable "
        f"phone ({phones / people:.0%}) or e-mail ({emails / people:.0%})"
    )
    (report.facts if reachable == people else report.warnings).append(line)


def _count_events(report: Report, conn: psycopg.Connection[Any], shop: Shop, now: datetime) -> None:
    run = Run(0, now, now - EVENTS_OF, now)
    for event in CATALOGUE:
        report.events[event.name] = _events_of(conn, shop, event, run)


def _events_of(conn: psycopg.Connection[Any], shop: Shop, event: EventType, run: Run) -> str:
    if off := connectors.why_off(shop, event):
        return f"off: {off}"
    found = f"{qualify.count(conn, shop, event, run):,}"
    if event.name in shop.events_off:
        return f"{found}, switched off by events_off"
    return f"{found}, where a look has seen the change" if event.change else found


def _rows(conn: psycopg.Connection[Any], name: str, parameters: dict[str, Any]) -> list[Any]:
    return conn.execute(cast(LiteralString, db.sql(name)), parameters).fetchall()


def _ago(age: timedelta) -> str:
    return f"{age / timedelta(hours=1):,.1f} hours ago"


def main() -> int:
    parser = argparse.ArgumentParser(description="Tell what a shop's warehouse is worth, without sending anything.")
    parser.add_argument("--shop", help="of include/shops.yaml; by default every shop")
    try:
        return run(parser.parse_args().shop)
    except (NeedsMending, db.DatabaseAway, mirror.SourceFailed) as error:
        print(error, file=sys.stderr)
        return 1


def run(only: str | None) -> int:
    from loop_attentive.operators import account_of, ledger, source_of

    shops = settings.load()
    if only and only not in shops:
        raise NeedsMending(f"There is no shop {only}: include/shops.yaml has {', '.join(shops)}.")
    reports = []
    with ledger() as conn:
        revision.check(conn)
        for shop in [shops[only]] if only else shops.values():
            with source_of(shop) as origin:
                reports.append(check(conn, origin, account=account_of(shop)))
            print(f"{reports[-1]}\n\nChecked at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; nothing was sent or kept.")
    return 1 if any(report.problems for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
