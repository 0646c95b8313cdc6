"""Preflight: what is said of a source before anything is sent, and that nothing of it is kept."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from loop_attentive import check, connectors, settings
from loop_attentive.check_operators import check_shop
from loop_attentive.source import Source
from sandbox.attentive import Standin
from sandbox.loop import running_loop
from tests import connectors as landing
from tests.connectors import LANDINGS, land, told
from tests.floor import DAY, HOUR, T0, Floor

NEW_YORK = timedelta(hours=-5)


def report(floor: Floor, at: Any = T0) -> check.Report:
    return check.check(floor.conn, Source(floor.engine, floor.shop), at=at)


def test_it_tells_what_the_last_days_would_have_made_and_keeps_nothing(floor: Floor) -> None:
    for number in range(5):
        floor.ret(str(number), created_at=T0 - DAY, synced_at=T0 - HOUR)
    floor.ret("9", created_at=T0 - 22 * DAY, labels_enabled=True)
    floor.label("1", status="new", created_at=T0 - DAY, synced_at=T0 - 3 * HOUR)
    found = report(floor)
    assert found.problems == []
    assert found.events["Loop Return Created"] == "5"
    assert found.events["Loop Label Created"] == "1"
    assert found.events["Loop Return Expiring"].startswith("1, which hold now")
    assert found.events["Loop Return Status Updated"].startswith("0, where a look")
    assert "returns: synced 1.0 hours ago" in str(found)
    for table in ("look", "mirror_return", "event", "source_cursor", "shop"):
        assert floor.one(f"SELECT count(*) FROM {table}") == (0,), table


def test_a_log_that_nothing_reads_is_told(floor: Floor) -> None:
    floor.settings(connector_log={"schema": "fivetran_log", "connection": "loop"})
    [line] = [line for line in report(floor).warnings if line.startswith("connector_log")]
    assert "nothing reads one of connector canonical" in line


def test_payments_that_are_matched_need_no_key(floor: Floor) -> None:
    told = "payments: without `return_id_in`"
    for match, is_told in (("no", True), ("yes", False)):
        floor.settings(stripe={"schema": "stripe", "match_by_email": match})
        assert any(line.startswith(told) for line in report(floor).warnings) is is_told


def test_a_table_that_is_read_whole_each_time_is_said_to_be(
    floor: Floor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connectors, "OWN", tmp_path)
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "returns.extend.sql").write_text("SELECT '1' AS return_id, true AS is_instant_exchange")
    floor.ret("1", created_at=T0 - DAY, synced_at=T0 - HOUR)
    assert "returns: synced 1.0 hours ago; a run reads all of it each time" in str(report(floor))


def test_it_counts_what_is_known_already_too(floor: Floor) -> None:
    floor.start()
    floor.ret("1", created_at=T0 + HOUR)
    floor.run(T0 + 2 * HOUR)
    before = floor.events()
    assert report(floor, T0 + 3 * HOUR).events["Loop Return Created"] == "1"
    assert floor.events() == before


def test_who_can_be_reached_is_told_in_numbers_and_never_by_name(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - DAY, customer_phone="+14155552671", customer_email=None)
    floor.ret("2", created_at=T0 - DAY, customer_phone="12", customer_email="ann@example.com")
    floor.ret("3", created_at=T0 - DAY, customer_phone=None, customer_email="no-reply@example.com")
    floor.ret("4", created_at=T0 - DAY, customer_phone=None, customer_email=None)
    text = str(report(floor))
    assert "50% of the 4 returns created in the last 30 days have a usable phone (25%) or e-mail (25%)" in text
    assert "4155552671" not in text
    assert "example.com" not in text


def test_instant_exchanges_without_a_charge_time_are_counted_while_no_window_is_set(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - DAY, is_instant_exchange=True)
    assert "1 instant exchanges have no charge_at" in str(report(floor))
    floor.settings(instant_exchange_window_days=14)
    assert "have no charge_at" not in str(report(floor))


@pytest.mark.parametrize("column", ["created_at", "updated_at"])
def test_times_that_are_ahead_are_told(floor: Floor, column: str) -> None:
    floor.ret("1", **{"created_at": T0, column: T0 + 5 * HOUR})
    assert f"{column} up to 5.0 hours in the future" in str(report(floor))


def test_what_keeps_a_run_from_working_is_a_problem(floor: Floor) -> None:
    floor.conn.execute("ALTER TABLE loop.returns DROP COLUMN state")
    found = report(floor)
    assert "table loop.returns lacks state" in found.problems[0]
    assert "loop.returns has no column state" in str(found)


def test_a_stale_source_is_told(floor: Floor) -> None:
    floor.settings(freshness_hours=26)
    floor.ret("1", created_at=T0 - 3 * DAY, synced_at=T0 - 2 * DAY)
    floor.label("1", status="new", synced_at=T0 - 2 * DAY)
    assert "no reminders for now: returns or labels were last synced" in str(report(floor))


def test_a_source_that_cannot_tell_what_is_shipped_is_told_before_and_after_the_first_look(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - DAY)
    unlabelled = "no reminders for now: the source has no labels, so it cannot tell what is shipped"
    statusless = "no reminders for now: no label has a status, so nothing tells what is shipped"
    assert unlabelled in str(report(floor))
    floor.label("1")
    assert statusless in str(report(floor))
    floor.start()
    assert statusless in str(report(floor, T0 + HOUR))
    floor.label("1", status="new")
    assert "no reminders for now" not in str(report(floor, T0 + HOUR))
    floor.look(T0 + HOUR)
    floor.conn.execute("TRUNCATE loop.labels")
    found = report(floor, T0 + 2 * HOUR)
    assert "labels has no rows yet" in found.warnings
    assert unlabelled in found.warnings


def test_a_limit_that_the_connector_usually_misses_is_told(floor: Floor) -> None:
    at, shop = list(told())[2]
    for hours, is_told in ((3, True), (26, False)):
        floor.settings(**landing.settings("fivetran") | {"freshness_hours": hours})
        land(floor.engine, LANDINGS["fivetran"](shop, at))
        assert ("usually syncs every 6 hours, and freshness_hours is 3" in str(report(floor, at))) is is_told


@pytest.mark.parametrize("connector", [name for name in LANDINGS if name != "canonical"])
def test_a_connectors_gaps_and_what_its_tables_lack_are_named(floor: Floor, connector: str) -> None:
    floor.settings(**landing.settings(connector) | {"stripe": None, "shopify": None})
    at, shop = list(told())[2]
    land(floor.engine, LANDINGS[connector](shop, at))
    found = report(floor, at)
    assert found.problems == []
    text = str(found)
    assert "instant exchanges: neither which returns are one" in text
    assert "nothing tells of transactions" in text
    assert "phones: Loop's tables hold none" in text
    main = "return_list" if connector == "fivetran" else "returns"
    assert f"land.{main} has no column " in text
    assert found.events["Loop Return Created"] == "51"


def test_a_gap_that_a_select_of_ones_own_fills_is_none(
    floor: Floor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(connectors, "OWN", tmp_path)
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "returns.extend.sql").write_text(
        "SELECT '1' AS return_id, true AS is_instant_exchange, '+16789998212' AS customer_phone"
    )
    floor.settings(**landing.settings("airbyte") | {"stripe": None, "shopify": None})
    at, shop = list(told())[2]
    land(floor.engine, LANDINGS["airbyte"](shop, at))
    text = str(report(floor, at))
    assert "instant exchanges" not in text
    assert "phones:" not in text
    assert "restocks: not told" in text


# ── Sources that are not as they should be ──────────────────────────────────


def test_a_warehouse_with_nothing_in_it(floor: Floor) -> None:
    floor.conn.execute("DROP SCHEMA loop CASCADE")
    [problem] = report(floor).problems
    assert "there is no table loop.returns" in problem
    assert "set the shop's schema" in problem
    assert report(floor).events == {}


def test_tables_without_a_row(floor: Floor) -> None:
    found = report(floor)
    assert found.problems == []
    assert "returns has no rows yet" in found.warnings
    assert "labels has no rows yet" in found.warnings


def test_each_table_that_may_not_be_read_is_named(floor: Floor) -> None:
    floor.conn.execute("DROP ROLE IF EXISTS reader_of_little; CREATE ROLE reader_of_little LOGIN")
    floor.conn.execute("GRANT USAGE ON SCHEMA loop TO reader_of_little")
    floor.conn.execute("GRANT SELECT ON loop.returns, loop.transactions TO reader_of_little")
    at = conninfo_to_dict(floor.conninfo)
    floor.engine = sa.create_engine(f"postgresql+psycopg://reader_of_little@/{at['dbname']}?host={at['host']}")
    [problem] = report(floor).problems
    assert "may not read table loop.labels, table loop.exchange_items: grant it SELECT" in problem
    floor.conn.execute("DROP OWNED BY reader_of_little; DROP ROLE reader_of_little")


def test_times_that_no_column_holds_as_times(floors: Callable[..., Floor]) -> None:
    floor = floors(times="bigint")
    for number in range(3):
        floor.ret(str(number), created_at=1772362800, updated_at=1772362800)
    text = str(report(floor))
    assert "returns.created_at: 3 of 3 values cannot be read as a time" in text
    assert "3 returns have no readable created_at" in text


def test_text_that_is_no_time(floors: Callable[..., Floor]) -> None:
    floor = floors(times="text")
    floor.ret("1", created_at="03/01/2026 10:00", updated_at="2026-03-01T10:00:00Z")
    floor.ret("2", created_at="2026-03-01 10:00", updated_at="N/A")
    text = str(report(floor))
    assert "returns.created_at: 1 of 2 values cannot be read as a time" in text
    assert "returns.updated_at" not in text, "what is absent is not unreadable"


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_times_without_a_zone_are_named(floors: Callable[..., Floor], zone: str | None) -> None:
    floor = floors(times="timestamp", **({"time_zone": zone} if zone else {}))
    floor.ret("1", created_at=(T0 - DAY).replace(tzinfo=None))
    found = report(floor)
    line = "times without a zone, taken as UTC (time_zone): returns.created_at"
    assert line in (found.facts if zone else found.warnings), "that nobody named it is worth a warning"


def test_a_zone_that_is_wrong_by_five_hours(floors: Callable[..., Floor]) -> None:
    """New York's wall clock, read as UTC: everything seems to have stopped five hours before each sync."""
    floor = floors(times="timestamp")
    for number in range(60):
        happened = T0 - HOUR * number / 2
        local = (happened + NEW_YORK).replace(tzinfo=None)
        floor.ret(str(number), created_at=local, updated_at=local, synced_at=T0.replace(tzinfo=None))
    text = str(report(floor))
    assert "nothing happened in the 5.0 hours before the newest synced_at, though 60 returns were created" in text
    assert "are times without a zone really in UTC (time_zone)?" in text


def test_what_was_synced_before_it_happened(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - DAY, updated_at=T0 - 2 * HOUR, synced_at=T0 - 7 * HOUR)
    floor.ret("2", created_at=T0 - DAY, updated_at=T0 - 2 * HOUR, synced_at=T0 - 2 * HOUR)
    assert "1 returns have a created_at or updated_at after their synced_at, by up to 5.0 hours" in str(report(floor))


def test_a_quiet_shop_is_not_suspected(floor: Floor) -> None:
    for number in range(10):
        floor.ret(str(number), created_at=T0 - number * DAY - 6 * HOUR, synced_at=T0 - HOUR)
    assert "before the newest synced_at" not in str(report(floor))


def test_one_id_twice(floor: Floor) -> None:
    floor.conn.execute("ALTER TABLE loop.returns DROP CONSTRAINT returns_return_id_key")
    for state in ("open", "closed"):
        floor.conn.execute(
            "INSERT INTO loop.returns (return_id, state, created_at) VALUES ('1', %s, %s)", (state, T0 - HOUR)
        )
    found = report(floor)
    assert found.events["Loop Return Created"] == "1"
    assert "returns: 2 rows are of 1 returns: of each the newest counts" in found.facts


@pytest.fixture
def connections(ledger: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Airflow's connections of the shop; what is given is otherwise."""

    def give(**warehouse: Any) -> None:
        parts = conninfo_to_dict(ledger)
        database = {"conn_type": "postgres", "host": parts["host"], "login": parts["user"], "schema": parts["dbname"]}
        monkeypatch.setenv("AIRFLOW_CONN_LOOP_WAREHOUSE", json.dumps(database | warehouse))
        attentive = {"conn_type": "http", "host": "http://127.0.0.1:1", "password": "a-key"}
        monkeypatch.setenv("AIRFLOW_CONN_ATTENTIVE", json.dumps(attentive))

    give()
    return give


@pytest.fixture
def strangers(floor: Floor) -> Iterator[None]:
    """Roles that may not log in, or not to this database."""
    database = sql.Identifier(floor.conn.info.dbname)
    floor.conn.execute("CREATE ROLE sleeper; CREATE ROLE stranger LOGIN")
    floor.conn.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(database))
    yield
    floor.conn.execute("DROP ROLE sleeper; DROP ROLE stranger")


UNREACHABLE = [
    ({"login": "nobody"}, "refused the log-in, or has no such role or database"),
    ({"schema": "no_such_database"}, "refused the log-in, or has no such role or database"),
    ({"login": "sleeper"}, "refused the log-in, or has no such role or database"),
    ({"login": "stranger"}, "refused the log-in, or has no such role or database"),
    (
        {"extra": {"sslmode": "sometimes"}},
        "cannot be asked as the connection says: mend its port, or what its extra says",
    ),
    ({"host": "127.0.0.1", "port": 1}, "is the warehouse up, and the connection's host right?"),
    ({"host": "no-such-host.invalid"}, "is the warehouse up, and the connection's host right?"),
    ({"conn_type": "http"}, "which no installed provider reads with SQL"),
]


@pytest.mark.parametrize(("warehouse", "says"), UNREACHABLE)
def test_a_warehouse_that_cannot_be_reached(
    floor: Floor, connections: Callable[..., None], strangers: None, warehouse: dict[str, Any], says: str
) -> None:
    connections(**warehouse | {"password": "secret-of-warehouse"})
    found = check_shop(floor.conn, floor.shop)
    [problem] = found.problems
    assert "loop_warehouse" in problem
    assert says in problem
    assert "secret-of-warehouse" not in str(found)


def test_no_connection_at_all_and_nobody_to_send_to(
    floor: Floor, connections: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_LOOP_WAREHOUSE")
    monkeypatch.delenv("AIRFLOW_CONN_ATTENTIVE")
    found = check_shop(floor.conn, floor.shop)
    assert "There is no connection loop_warehouse: create it" in found.problems[0]
    assert "sending: There is no connection attentive" in found.warnings[0]


@pytest.mark.parametrize(("key", "known"), [("a-key", True), ("another", False)])
def test_attentive_is_asked_for_the_key(
    floor: Floor, connections: Callable[..., None], monkeypatch: pytest.MonkeyPatch, key: str, known: bool
) -> None:
    async def story() -> str:
        async with Standin(key="a-key") as standin:
            conn = {"conn_type": "http", "host": standin.url, "password": key}
            monkeypatch.setenv("AIRFLOW_CONN_ATTENTIVE", json.dumps(conn))
            return str(await asyncio.to_thread(check_shop, floor.conn, floor.shop))

    told = "sending: Attentive did not confirm the API key of connection attentive: HTTP 401"
    assert (told in asyncio.run(story())) is not known


def test_a_shop_that_syncs_by_itself_is_told_what_that_needs(
    floor: Floor, connections: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    floor.settings(loop_api="loop_api", schema="landed")
    with running_loop(key="secret-of-loop") as loop:
        for key, says in (("secret-of-loop", None), ("another", "Loop refused the key (status 401")):
            conn = {"conn_type": "http", "host": loop.url, "password": key}
            monkeypatch.setenv("AIRFLOW_CONN_LOOP_API", json.dumps(conn))
            problems = " ".join(check_shop(floor.conn, floor.shop).problems)
            assert "The sync makes the tables: switch loop_attentive_sync on" in problems
            assert (str(says) in problems) is (says is not None)
    connections(conn_type="snowflake", login="loader", password="secret", extra={"account": "a", "database": "d"})
    problems = " ".join(check_shop(floor.conn, floor.shop).problems)
    assert ("pip install 'dlt[snowflake]'" in problems) is (find_spec("snowflake") is None)
    connections(conn_type="bigquery")
    problems = " ".join(check_shop(floor.conn, floor.shop).problems)
    assert "loop_attentive_sync loads into PostgreSQL" in problems


def test_an_unknown_connector_is_told_with_those_that_there_are() -> None:
    with pytest.raises(Exception, match="connector") as told:
        settings.Shop.model_validate({"name": "default", "connector": "stitch"})
    assert "fivetran" in str(told.value)


def test_the_worst_comes_first_and_each_line_by_itself(floor: Floor) -> None:
    """In Airflow's log each is an entry, with a level that one can filter by."""
    floor.conn.execute("ALTER TABLE loop.returns DROP COLUMN state")
    lines = list(report(floor).lines())
    levels = [level for level, _ in lines]
    assert levels.index(logging.ERROR) < levels.index(logging.WARNING)
    assert not [line for _, line in lines if "\n" in line]


# ── Many returns ────────────────────────────────────────────────────────────


def fill(conn: psycopg.Connection[Any], returns: int) -> None:
    """So many returns of the last 120 days, half of them with a label."""
    conn.execute(
        "INSERT INTO loop.returns (return_id, state, customer_phone, created_at, updated_at, synced_at) "
        "SELECT n::text, 'open', '+1415555' || lpad((n %% 10000)::text, 4, '0'), at, at, at "
        "FROM (SELECT n, %(at)s - n * interval '120 days' / %(number)s AS at FROM generate_series(1, %(number)s) AS n)",
        {"at": T0, "number": returns},
    )
    conn.execute(
        "INSERT INTO loop.labels (return_id, tracking_number, status, created_at, updated_at, synced_at) "
        "SELECT return_id, '94' || return_id, 'new', created_at, updated_at, synced_at FROM loop.returns "
        "WHERE return_id::bigint % 2 = 0"
    )


def test_of_many_returns_a_share_is_looked_at(floors: Callable[..., Floor], monkeypatch: pytest.MonkeyPatch) -> None:
    floor = floors()
    fill(floor.conn, 12_000)
    exact = report(floor)
    monkeypatch.setattr(check, "MOST_RETURNS", 3_000)
    estimate = report(floor)
    assert "12,000 returns in the source: every 4th was looked at" in str(estimate)
    for name in ("Loop Return Created", "Loop Label Created", "Loop Return Expiring"):
        true, about = (int(re.sub(r"\D", "", told.events[name])) for told in (exact, estimate))
        assert estimate.events[name].startswith("about ")
        assert abs(about - true) < true * 0.25, name
    # Once there is a mirror, what is new is enough, and nothing is estimated.
    floor.start()
    hour_later = int(report(floor, T0 + HOUR).events["Loop Return Created"])
    assert abs(hour_later - int(exact.events["Loop Return Created"])) <= 5


@pytest.mark.long
def test_a_million_returns_take_less_than_a_minute(floor: Floor) -> None:
    """Half of it is the databases', so the other half is measured, which no other load of the machine changes."""
    fill(floor.conn, 1_000_000)
    began = time.process_time()
    found = report(floor)
    assert time.process_time() - began < 30
    assert found.problems == []
