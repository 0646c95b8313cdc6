"""Accidents, from a real warehouse to what the stand-in received: none may text anybody beyond what is due.

One shop has lived for some months; each accident happens to a copy of its database. What no guard stops is shown too.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any, LiteralString, cast

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from loop_attentive import catalogue, db, mirror, qualify, rules, runs
from loop_attentive.catalogue import BY_NAME, CATALOGUE, EventType
from loop_attentive.errors import NeedsMending
from loop_attentive.settings import Shop
from loop_attentive.source import Source
from sandbox.attentive import Standin, running_standin
from sandbox.warehouse import World
from tests.floor import DAY, HOUR, T0, Floor
from tests.sending import KEY, Book, Sending, connect
from tests.test_story import REQUESTS_PER_SECOND, Clock, Story, accepted

RETURNS = 4_000
TABLES = ("returns", "labels", "exchange_items", "transactions")
CREATED, UPDATED, LABEL = "Loop Return Created", "Loop Return Status Updated", "Loop Label Created"
EXPIRING, REMINDERS = "Loop Return Expiring", {event.name for event in CATALOGUE if event.reminder}
USUAL = "more than usual"

_numbers = count(1)


class Still(Clock):
    """The moment of the accident: so short a time passes that nothing else comes due."""

    def __init__(self, moment: datetime) -> None:
        super().__init__()
        self._moment = moment

    def __call__(self) -> datetime:
        self._moment += timedelta(milliseconds=1)
        return self._moment + self._ahead


class Accident(Story):
    """The shop on the day of the accident."""

    def __init__(self, conninfo: str, standin: Standin, number: int = 0) -> None:
        self.conninfo, self.standin = conninfo, standin
        self.shop = Shop(name="default")
        self.conn = connect(conninfo)
        [(last_look,)] = self.conn.execute("SELECT max(as_of) FROM look")
        self.clock = Still(last_look + number * timedelta(microseconds=10))
        self.engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo))
        self.world = World(self.conn, seed=2)
        self.book = Book(conninfo, self.shop)
        self.send = Sending(self.book, standin.url, seed=number)
        self._runs = 1000

    def does(self, statement: str, **parameters: Any) -> int:
        return self.conn.execute(cast(LiteralString, statement), parameters).rowcount

    def runs_as_usual(self) -> None:
        for daily in (False, True):
            self.run(daily=daily)

    def received(self) -> Counter[str]:
        """How many events of each type the stand-in has taken in since."""
        return Counter(body["type"] for body in accepted(self.standin))

    def held(self) -> dict[tuple[str, str], int]:
        rows = self.book.all(
            "SELECT event_type, reason, count(*) AS n FROM event WHERE status = 'held' GROUP BY event_type, reason"
        )
        return {(row["event_type"], row["reason"]): row["n"] for row in rows}

    def texts_nobody(self) -> None:
        assert self.received() == Counter()
        assert self.book.one("SELECT count(*) FROM event WHERE status IN ('pending', 'sending', 'unknown')") == 0
        self.book.check_sums()


@pytest.fixture(scope="module")
def lived(postgres: str, migrated: str) -> Iterator[str]:
    """Name of the database of a shop that is two days past its baseline, with its warehouse, to copy."""
    with database(postgres, migrated) as conninfo:
        with (
            running_standin(key=KEY, limit=None) as standin,
            closing(Story(conninfo, 1, standin, Clock(ahead=-2 * DAY), returns=RETURNS)) as story,
        ):
            story.clock.skip(2 * DAY)
            story.conn.execute(OLD_RETURNS)
            for table in TABLES:
                story.conn.execute(f"UPDATE loop.{table} SET synced_at = now()")
            for daily in (False, True):
                story.run(daily=daily)
        yield str(conninfo_to_dict(conninfo)["dbname"])


OLD_RETURNS = """
INSERT INTO loop.returns (return_id, state, customer_email, created_at, updated_at, is_deleted)
SELECT
    30000000 + n, 'closed', 'old' || n || '@example.com', now() - interval '300 days', now() - interval '290 days',
    false
FROM generate_series(1, 1000) AS n;
INSERT INTO loop.labels (return_id, tracking_number, status, created_at, updated_at)
SELECT
    (30000000 + n)::text, '1ZOLD' || n, 'delivered', CASE WHEN n % 3 > 0 THEN now() - interval '300 days' END,
    CASE WHEN n % 2 > 0 THEN (now() - interval '290 days')::text END
FROM generate_series(1, 1000) AS n;
INSERT INTO loop.exchange_items (return_id, exchange_id, out_of_stock, updated_at)
SELECT (30000000 + n)::text, n, true, now() - interval '290 days' FROM generate_series(1, 50) AS n
"""
"""From before what the mirror holds, some with labels that have no date of their own, or none at all."""


@contextmanager
def database(postgres: str, template: str) -> Iterator[str]:
    name = f"accident_{next(_numbers)}"
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield make_conninfo(postgres, dbname=name)
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def shop(postgres: str, lived: str) -> Iterator[Accident]:
    with (
        database(postgres, lived) as conninfo,
        running_standin(key=KEY, limit=None) as standin,
        closing(Accident(conninfo, standin)) as accident,
    ):
        accident.runs_as_usual()
        accident.texts_nobody()
        yield accident


# ── The warehouse ───────────────────────────────────────────────────────────

TOUCHED = """
UPDATE loop.returns SET updated_at = now(), synced_at = now();
UPDATE loop.labels SET updated_at = to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), synced_at = now();
UPDATE loop.exchange_items SET updated_at = now(), synced_at = now();
UPDATE loop.transactions SET synced_at = now();
"""

DROPPED = """
CREATE TABLE {0}_copy AS SELECT * FROM loop.{0};
DROP TABLE loop.{0};
CREATE TABLE loop.{0} AS SELECT * FROM {0}_copy;
"""


def test_a_re_import_of_the_whole_warehouse(shop: Accident) -> None:
    shop.does(TOUCHED)
    shop.runs_as_usual()
    shop.texts_nobody()
    assert shop.held() == {}


def test_a_re_import_into_tables_that_were_dropped(shop: Accident) -> None:
    shop.does("".join(DROPPED.format(t) for t in TABLES) + TOUCHED)
    shop.runs_as_usual()
    shop.texts_nobody()
    assert shop.held() == {}


def test_a_re_import_and_the_mirror_is_new_too(shop: Accident) -> None:
    shop.does(TOUCHED)
    for table in ("return", "label", "item", "episode", "transaction"):
        shop.does(f"DELETE FROM mirror_{table}")
    shop.does("DELETE FROM source_cursor")
    shop.runs_as_usual()
    shop.texts_nobody()
    assert shop.held() == {}


def test_a_re_import_that_dates_everything_today(shop: Accident) -> None:
    """What had left the mirror long ago comes back as of today. Of the types that are few, those few leave."""
    shop.does(TOUCHED)
    for table in ("returns", "labels", "transactions"):
        shop.does(f"UPDATE loop.{table} SET created_at = now()")
    shop.runs_as_usual()
    held = shop.held()
    assert held.keys() == {(CREATED, USUAL), (LABEL, USUAL)}
    assert min(held.values()) > 500
    left = shop.received()
    assert not left.keys() & {CREATED, LABEL}
    assert left.total() < 100, "which docs/guard.md says: small accidents pass"


def test_a_connector_that_flips_all_states_and_back(shop: Accident) -> None:
    shop.does("CREATE TABLE flipped AS SELECT return_id FROM loop.returns WHERE state = 'open'")
    for state, held in (("closed", 1), ("open", 2)):
        count = shop.does(
            "UPDATE loop.returns SET state = %(state)s, updated_at = now(), synced_at = now() "
            "WHERE return_id IN (SELECT return_id FROM flipped)",
            state=state,
        )
        shop.runs_as_usual()
        shop.texts_nobody()
        assert shop.held().keys() == {(UPDATED, USUAL)}
        assert 500 < count * 0.9 * held < shop.held()[UPDATED, USUAL] <= count * held


# ── Rules ───────────────────────────────────────────────────────────────────

EVERYTHING = """
SELECT r.return_id, event_key(r.return_id, 'again') AS key, %(as_of)s::timestamptz AS fact_at,
    %(as_of)s::timestamptz AS occurred_at, 'itself' AS timed_by, NULL::timestamptz AS looked_after,
    jsonb_build_object('status', 'open') AS detail
FROM mirror_return AS r
WHERE r.shop = %(shop)s
"""


@pytest.mark.parametrize("raised", [False, True], ids=["", "version raised"])
@pytest.mark.parametrize("name", [UPDATED, EXPIRING])
def test_a_rule_that_is_edited_wrongly_yields_everything(
    shop: Accident, monkeypatch: pytest.MonkeyPatch, name: str, raised: bool
) -> None:
    right, edited = db.sql, BY_NAME[name]
    monkeypatch.setattr(db, "sql", lambda file: EVERYTHING if file == f"events/{edited.slug}" else right(file))
    if raised:
        raise_version(monkeypatch, edited)
    shop.runs_as_usual()
    shop.texts_nobody()
    assert shop.held().keys() == {(name, USUAL)}


def raise_version(monkeypatch: pytest.MonkeyPatch, old: EventType) -> None:
    new = replace(old, version=old.version + 1)
    events = tuple(new if event is old else event for event in CATALOGUE)
    for module in (catalogue, mirror):
        monkeypatch.setattr(module, "CATALOGUE", events)
    monkeypatch.setattr("tests.test_story.CATALOGUE", events)
    monkeypatch.setitem(BY_NAME, old.name, new)


# ── Clocks ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("days", [-1, 1])
def test_a_worker_whose_clock_is_wrong_by_a_day(shop: Accident, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + days * DAY

    monkeypatch.setattr(mirror, "datetime", Wrong)
    with pytest.raises(NeedsMending, match="The clock of this worker"):
        shop.runs_as_usual()
    shop.texts_nobody()


@pytest.mark.parametrize("days", [-1, 1])
def test_a_source_whose_clock_is_wrong_by_a_day(shop: Accident, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    right = Source.clock
    monkeypatch.setattr(Source, "clock", lambda self: right(self) + days * DAY)
    with pytest.raises(NeedsMending, match="The clock of the source"):
        shop.runs_as_usual()
    shop.texts_nobody()


@pytest.mark.parametrize("shift", ["1 day", "-1 day"])
def test_times_of_the_warehouse_that_are_wrong_by_a_day(shop: Accident, shift: str) -> None:
    """Reminders go by age and come a day early or late, as many as usual: docs/guard.md says so."""
    began_at = shop.clock()
    shop.world.step(shop.conn, began_at)
    for column in ("created_at", "updated_at", "charge_at"):
        shop.does(f"UPDATE loop.returns SET {column} = {column} + %(shift)s::interval", shift=shift)
    for table in ("labels", "transactions"):
        shop.does(f"UPDATE loop.{table} SET created_at = created_at + %(shift)s::interval", shift=shift)
    shop.does(
        "UPDATE loop.labels SET updated_at = (updated_at::timestamptz + %(shift)s::interval)::text "
        "WHERE updated_at LIKE '2%%'",
        shift=shift,
    )
    shop.does("UPDATE loop.exchange_items SET updated_at = updated_at + %(shift)s::interval", shift=shift)
    shop.runs_as_usual()
    judged = shop.world.verdict(accepted(shop.standin))
    assert judged.doubled == []
    early = Counter(line.split(" of ")[0] for line in judged.unexpected)
    assert early.keys() <= REMINDERS
    assert early.total() < 100
    new = shop.book.all(
        "SELECT status, reason FROM event WHERE event_type = %(created)s AND detected_at > %(began_at)s",
        created=CREATED,
        began_at=began_at,
    )
    assert {row["status"] for row in new} <= {"invalid", "expired", "suppressed"}
    assert ("occurredAt: more than ten minutes ahead" if shift == "1 day" else "too late") in {
        row["reason"] for row in new
    }


# ── Deployments and backfills ───────────────────────────────────────────────

SALE = """
INSERT INTO loop.returns (return_id, state, customer_email, created_at, updated_at, synced_at, is_deleted)
SELECT 90000000 + n, 'open', 'sale' || n || '@example.com', now() - n * interval '1 second', now(), now(), false
FROM generate_series(1, 300) AS n
"""


def test_two_deployments_on_one_ledger_look_judge_and_send_at_once(shop: Accident) -> None:
    shop.does(SALE)
    others = [Accident(shop.conninfo, shop.standin, number) for number in (1, 2)]
    errors: list[BaseException] = []

    def deploy(other: Accident, name: str) -> None:
        try:
            deployment(other, name, other.shop)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=deploy, args=(o, str(n))) for n, o in enumerate(others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for other in others:
        other.close()
    assert errors == []
    assert shop.received() == {CREATED: 300}
    assert len({body["externalEventId"] for body in accepted(shop.standin)}) == 300
    shop.book.check_sums()


def deployment(other: Accident, name: str, settings: Shop) -> None:
    """A run of all rules by another deployment, with its own settings."""
    look = mirror.look(other.book.connection, Source(other.engine, settings), at=other.clock())
    run = runs.start(other.book.connection, dag_id=f"deployment {name}", run_id="1", shop=settings.name, look=look)
    for event in CATALOGUE:
        qualify.qualify(other.book.connection, settings, event, run)
    qualify.judge_again(other.book.connection, settings, run=run)
    other.book.run_key = run.run_key
    # In real time: two senders on one ledger have one clock, its own.
    asyncio.run(other.send(still_due=rules.still_due_sql, requests_per_second=REQUESTS_PER_SECOND))


SETTINGS: tuple[dict[str, Any], ...] = (
    {"enabled_at": "2020-01-01T00:00:00Z"},
    {"time_zone": "Asia/Tokyo"},
    {"mirror_days": 3_650},
    {"schema": "staging"},
    {"warehouse": "another", "schema": "staging", "enabled_at": "2020-01-01T00:00:00Z"},
)


@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_a_second_deployment_with_other_settings(shop: Accident, settings: dict[str, Any]) -> None:
    shop.does("CREATE SCHEMA staging")
    for table in TABLES:
        shop.does(f"CREATE TABLE staging.{table} AS SELECT * FROM loop.{table}")
    deployment(shop, "staging", Shop.model_validate({"name": "default"} | settings))
    shop.runs_as_usual()
    shop.texts_nobody()
    assert shop.held() == {}


def test_a_second_deployment_with_another_shops_data(shop: Accident) -> None:
    shop.does("CREATE SCHEMA staging")
    for table in ("labels", "exchange_items", "transactions"):
        shop.does(f"CREATE TABLE staging.{table} AS TABLE loop.{table} WITH NO DATA")
    shop.does(
        "CREATE TABLE staging.returns AS SELECT return_id + 10000000 AS return_id, state, outcome, order_name, "
        "customer_email, customer_phone, status_page_url, labels_enabled, is_instant_exchange, charge_at, "
        "now() - random() * interval '1 hour' AS created_at, updated_at, now() AS synced_at, is_deleted "
        "FROM loop.returns"
    )
    deployment(shop, "staging", Shop.model_validate({"name": "default", "schema": "staging"}))
    shop.texts_nobody()
    assert shop.held().keys() == {(CREATED, USUAL)}
    shop.runs_as_usual()
    assert shop.received().keys() <= REMINDERS, "of the other shop's instant exchanges: few, so they are not stopped"
    assert shop.received().total() < 20


def test_a_backfill_over_everything(shop: Accident) -> None:
    look = mirror.look(shop.book.connection, Source(shop.engine, shop.shop), whole=True, at=shop.clock())
    for days in range(0, 120, 10):
        window = (look.as_of - (days + 10) * DAY, look.as_of - days * DAY)
        run = runs.start(
            shop.book.connection, dag_id="backfill", run_id=str(days), shop="default", look=look, window=window
        )
        for event in CATALOGUE:
            qualify.qualify(shop.book.connection, shop.shop, event, run)
    shop.deliver()
    shop.texts_nobody()
    assert shop.held() == {}


def test_a_backfill_of_many_hours(shop: Accident) -> None:
    """Each hour is below the bound, together they are above it."""
    busiest = shop.book.one(
        "SELECT max(events) FROM (SELECT count(*) AS events FROM event WHERE event_type = %(created)s AND own_time "
        "AND fact_at > now() - interval '27 days' GROUP BY date_trunc('hour', fact_at)) AS hours",
        created=CREATED,
    )
    shop.does(SALE.replace("1 second", "1 minute").replace("300", "1200"))
    look = mirror.look(shop.book.connection, Source(shop.engine, shop.shop), whole=True, at=shop.clock())
    for hours in range(24):
        window = (look.as_of - (hours + 1) * HOUR, look.as_of - hours * HOUR)
        run = runs.start(
            shop.book.connection, dag_id="backfill", run_id=str(hours), shop="default", look=look, window=window
        )
        qualify.qualify(shop.book.connection, shop.shop, BY_NAME[CREATED], run)
        shop.book.run_key = run.run_key
        shop.deliver()
    assert 300 < shop.received()[CREATED] <= max(500, 10 * busiest) < 1200
    assert shop.held().keys() == {(CREATED, USUAL)}


# ── What is no accident ─────────────────────────────────────────────────────


@pytest.mark.parametrize(("sold", "is_held"), [(790, False), (880, True)])
def test_a_busy_shop_in_its_first_hour(floors: Callable[..., Floor], sold: int, is_held: bool) -> None:
    """Its baseline tells that 80 returns in an hour are usual: nearly ten times as many pass, eleven times do not."""
    floor = floors()
    many = (
        "INSERT INTO loop.returns (return_id, state, customer_email, created_at) SELECT (%(first)s::int + n)::text, "
        "'open', 'c' || n || '@example.com', %(at)s FROM generate_series(1, %(count)s::int) AS n"
    )
    for days in range(1, 5):
        floor.conn.execute(many, {"first": days * 1000, "count": 20 * days, "at": T0 - days * DAY})
    floor.start()
    floor.conn.execute(many, {"first": 10_000, "count": sold, "at": T0 + HOUR / 2})
    events = floor.run(T0 + HOUR, CREATED)
    assert {(event.status, event.reason) for event in events} == {("held", USUAL) if is_held else ("pending", None)}

    with running_standin(key=KEY, limit=None, now=lambda: T0 + HOUR) as standin:
        book = Book(floor.conninfo, floor.shop)
        send = Sending(book, standin.url)
        asyncio.run(send(now=lambda: T0 + HOUR, requests_per_second=2000))
        assert len(accepted(standin)) == (0 if is_held else sold)
        book.connection.close()


def test_one_person_gets_no_more_than_their_share(shop: Accident) -> None:
    """A test customer, a reseller, a default e-mail address: a hundred returns of one person in an hour."""
    shop.does(SALE.replace("'sale' || n || '@example.com'", "'one@example.com'").replace("300", "100"))
    shop.runs_as_usual()
    assert shop.received() == {CREATED: 6}
    assert shop.held() == {(CREATED, "more than max_per_person_per_day"): 94}
    shop.runs_as_usual()
    assert shop.received() == {CREATED: 6}
