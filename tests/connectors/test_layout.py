"""SELECTs fitted to what a warehouse has, a merchant's own, other dialects, and what a connector knows of its syncs."""

import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import sqlglot
from sqlglot import exp

from loop_attentive import canonical, check, connectors, settings
from loop_attentive.connectors import Layout, fit
from loop_attentive.errors import NeedsMending
from loop_attentive.settings import BESIDE, SOURCES, Shop
from loop_attentive.source import Cursor, Source, spelling
from tests import connectors as landing
from tests.connectors import LANDINGS, land, told
from tests.connectors.test_story import events_of
from tests.floor import DAY, HOUR, T0, Floor

CONNECTORS = [name for name in LANDINGS if name != "canonical"]
DOCS = Path(__file__).parents[2] / "docs"
PAGES = [DOCS / "connectors.md", *sorted((DOCS / "connectors").glob("*.md"))]

# ── Fitting ─────────────────────────────────────────────────────────────────


def fitted(query: str, **tables: set[str]) -> str | None:
    """The query, fitted to a warehouse with these tables."""

    def resolve(table: exp.Table) -> connectors.Relation | None:
        return connectors.Relation(table, frozenset(tables[table.name])) if table.name in tables else None

    result = fit(cast(exp.Query, sqlglot.parse_one(query, read="postgres")), resolve)
    return result.sql(dialect="postgres") if result else None


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("SELECT a.x, a.y FROM a AS a", "SELECT a.x, NULL AS y FROM a AS a"),
        ("SELECT COALESCE(a.y, a.x) AS z FROM a AS a", "SELECT a.x AS z FROM a AS a"),
        ("SELECT a.x FROM a AS a WHERE COALESCE(a.y, COALESCE(a.z)) > a.x", "SELECT a.x FROM a AS a WHERE NULL > a.x"),
        ("SELECT a.x, b.x AS z FROM a AS a LEFT JOIN b AS b ON b.x = a.x", "SELECT a.x, NULL AS z FROM a AS a"),
        ("SELECT CASE WHEN a.y > a.x THEN a.y ELSE a.z END AS z FROM a AS a", "SELECT NULL AS z FROM a AS a"),
        ("SELECT GREATEST(a.y, MAX(a.x), MIN(a.z)) AS z FROM a AS a", "SELECT MAX(a.x) AS z FROM a AS a"),
        ("SELECT COALESCE(CAST(a.y AS TEXT), CAST(a.z AS TEXT)) AS z FROM a AS a", "SELECT NULL AS z FROM a AS a"),
        (
            "SELECT MIN(a.x) AS x FROM a AS a GROUP BY a.y, CAST(a.z AS TEXT)",
            "SELECT MIN(a.x) AS x FROM a AS a GROUP BY CAST(NULL AS TEXT), CAST(NULL AS TEXT)",
        ),
        ("SELECT a.x FROM a AS a INNER JOIN b AS b ON b.x = a.x", None),
        ("SELECT b.x FROM b AS b", None),
        (
            "SELECT k.y FROM (SELECT COALESCE(NULLIF(TRIM(a.y), ''), UPPER(a.z)) AS y FROM a AS a) AS k",
            "SELECT NULL AS y FROM (SELECT COALESCE(NULLIF(TRIM(NULL), ''), UPPER(NULL)) AS y FROM a AS a) AS k",
        ),
        ("SELECT a.x FROM a AS a UNION ALL SELECT b.x FROM b AS b", "SELECT a.x FROM a AS a"),
        ("SELECT b.x FROM b AS b UNION ALL SELECT a.x FROM a AS a", "SELECT a.x FROM a AS a"),
        (
            "SELECT a.x FROM a AS a LEFT JOIN (SELECT b.x FROM b AS b) AS k ON k.x = a.x WHERE k.x IS NULL",
            "SELECT a.x FROM a AS a WHERE NULL IS NULL",
        ),
        (
            "SELECT k.x, k.y FROM (SELECT a.x, a.y FROM a AS a) AS k",
            "SELECT k.x, NULL AS y FROM (SELECT a.x, NULL AS y FROM a AS a) AS k",
        ),
    ],
)
def test_a_query_is_fitted_to_what_is_there(query: str, meant: str | None) -> None:
    assert fitted(query, a={"x"}) == meant


@pytest.mark.parametrize("connector", CONNECTORS)
def test_what_must_be_there_is_named_with_its_connector(floor: Floor, connector: str) -> None:
    """A schema without any table, and then one whose main table has lost its id."""
    floor.settings(**landing.settings(connector))
    floor.conn.execute("CREATE SCHEMA land")
    main = "return_list" if connector == "fivetran" else "returns"
    with pytest.raises(NeedsMending, match=f"as connector {connector} needs it: there is no table land.{main}"):
        floor.look(T0)
    land(floor.engine, LANDINGS[connector](next(iter(told()))[1], T0))
    floor.conn.execute(f"ALTER TABLE land.{main} DROP COLUMN created_at, DROP COLUMN state")
    with pytest.raises(NeedsMending, match=f"table land.{main} lacks created_at, state"):
        floor.look(T0)


def kept(floor: Floor) -> list[Any]:
    return [floor.conn.execute(f"TABLE {name}").fetchall() for name in ("mirror_label", "source_cursor", "look")]


def is_missed_until_it_is_back(floor: Floor, at: datetime, gone: str, back: str, told: str) -> None:
    """A look stops and changes nothing after one statement, and goes on after another. told: how it is named."""
    floor.run(at)
    before = kept(floor)
    floor.conn.execute(gone)
    with pytest.raises(NeedsMending, match=told):
        floor.look(at + HOUR)
    assert kept(floor) == before
    floor.conn.execute(back)
    assert floor.look(at + HOUR).changed == 0


def state_of(floor: Floor, return_id: str) -> str:
    [state] = floor.one("SELECT state FROM mirror_return WHERE return_id = %s", (return_id,))
    return str(state)


@pytest.mark.parametrize(
    ("connector", "table", "column", "named"),
    [
        ("canonical", "labels", "status", "labels lacks status"),
        ("fivetran", "return_list", "label_status", "labels lacks status"),
        ("posthog", "returns", "exchanges", "exchange_items lacks exchange_id, out_of_stock"),
    ],
)
def test_a_column_that_was_there_and_is_gone_stops_the_look_until_it_is_back(
    floor: Floor, connector: str, table: str, column: str, named: str
) -> None:
    floor.settings(**landing.settings(connector))
    at, shop = list(told())[2]
    land(floor.engine, LANDINGS[connector](shop, at), is_complete=connector == "canonical")
    is_missed_until_it_is_back(
        floor,
        at,
        f"ALTER TABLE land.{table} RENAME COLUMN {column} TO elsewhere",
        f"ALTER TABLE land.{table} RENAME COLUMN elsewhere TO {column}",
        rf"table land\.{named}",
    )


@pytest.mark.parametrize(
    ("connector", "table"),
    [
        ("fivetran", "land.return_cancelled"),
        ("fivetran", "shopify.order"),
        ("fivetran", "stripe.refund"),
        ("dlt", "land.returns__exchanges"),
    ],
)
def test_a_table_that_was_there_and_is_gone_stops_the_look_until_it_is_back(
    floor: Floor, connector: str, table: str
) -> None:
    """Whether it stands behind a join, in a union, or alone."""
    floor.settings(**landing.settings(connector))
    at, shop = list(told())[4]
    land(floor.engine, LANDINGS[connector](shop, at))
    schema, _, name = table.partition(".")
    is_missed_until_it_is_back(
        floor,
        at,
        f'ALTER TABLE {schema}."{name}" RENAME TO elsewhere',
        f'ALTER TABLE {schema}.elsewhere RENAME TO "{name}"',
        rf"needs it: there is no table {re.escape(table)}\. Add",
    )


def test_a_table_that_comes_later_is_read_from_its_beginning(floor: Floor) -> None:
    floor.settings(connector="fivetran", schema="land")
    common = {"state": "open", "created_at": T0 - DAY, "updated_at": T0 - DAY}
    land(floor.engine, {"land.return_list": [{"id": n, "_fivetran_synced": T0 - n * HOUR} | common for n in (1, 9)]})
    floor.look(T0)
    land(floor.engine, {"land.return_cancelled": [{"id": 9, "_fivetran_synced": T0 - 9 * HOUR} | common]})
    floor.look(T0 + HOUR)
    assert state_of(floor, "9") == "cancelled"


def test_where_it_was_not_noted_which_tables_were_read_nothing_is_missed_nor_read_anew(floor: Floor) -> None:
    """As an older version of this project left it."""
    floor.settings(connector="fivetran", schema="land")
    at, shop = list(told())[4]
    land(floor.engine, LANDINGS["fivetran"](shop, at))
    floor.run(at)
    columns = "ARRAY(SELECT name FROM unnest(told) AS name WHERE name NOT LIKE 'table %')"
    floor.conn.execute(f"UPDATE source_cursor SET told = {columns}")
    floor.conn.execute("UPDATE land.return_list SET state = 'closed', _fivetran_synced = %s", (at - 3 * HOUR,))
    floor.look(at + HOUR)
    assert state_of(floor, "101") == "open"


def test_what_a_person_has_read_no_more_is_not_missed(floor: Floor, own: Callable[[str, str], None]) -> None:
    floor.settings(**landing.settings("fivetran"))
    at, shop = list(told())[4]
    land(floor.engine, LANDINGS["fivetran"](shop, at))
    floor.run(at)
    floor.settings(**landing.settings("fivetran") | {"shopify": None})
    floor.look(at + HOUR)
    floor.settings(connector="fivetran", schema="land")
    floor.look(at + 2 * HOUR)
    tables = {table for (table,) in floor.conn.execute("SELECT source_table FROM source_cursor")}
    assert tables == {"returns", "labels", "exchange_items"}

    assert floor.fresh(at, None) == (True, None)
    own("labels.sql", "SELECT r.id AS return_id, r.tracking_number FROM land.return_list AS r")
    floor.look(at + 3 * HOUR)
    assert floor.fresh(at, None) == (False, "no label has a status, so nothing tells what is shipped")


def test_a_view_behind_an_own_select_that_loses_a_column_is_missed(
    floor: Floor, own: Callable[[str, str], None]
) -> None:
    own("labels.sql", "SELECT * FROM loop.shown")
    floor.conn.execute("CREATE VIEW loop.shown AS SELECT return_id, tracking_number, status FROM loop.labels")
    floor.label("1", status="new")
    floor.start()
    floor.conn.execute("DROP VIEW loop.shown; CREATE VIEW loop.shown AS SELECT return_id FROM loop.labels")
    with pytest.raises(NeedsMending, match=r"table loop\.labels lacks status, tracking_number"):
        floor.look(T0 + HOUR)


def test_a_time_without_a_zone_is_the_shops_also_where_rows_are_compared(floor: Floor) -> None:
    """PostHog's times have no zone, Shopify's have one: the contact that lands later moves the return."""
    scenes = list(told())
    floor.settings(**landing.settings("posthog") | {"time_zone": "UTC"})
    for at, shop in scenes[:2]:
        land(floor.engine, LANDINGS["posthog"](shop, at))
        floor.run(at)
    [raw] = Source(floor.engine, floor.shop).read(canonical.RETURNS, Cursor())
    assert spelling([moved for moved in raw.moved or () if moved]) == "zoned"
    assert {event.reason for event in floor.events() if event.return_id == "138"} == {"no recipient"}
    at, shop = scenes[3]
    land(floor.engine, LANDINGS["posthog"](shop, at))
    floor.run(at)
    floor.judge_again(at)
    assert {event.status for event in floor.events() if event.return_id == "138"} == {"pending"}


# ── A merchant's own SELECTs ────────────────────────────────────────────────


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a SELECT of the shop's own."""
    monkeypatch.setattr(connectors, "OWN", tmp_path)
    (tmp_path / "default").mkdir()

    def write(name: str, text: str) -> None:
        (tmp_path / "default" / name).write_text(text)

    return write


def test_what_no_connector_lands_a_merchant_can_add(floor: Floor, own: Callable[[str, str], None]) -> None:
    """Which returns are instant exchanges, and when they are charged; the types are the merchant's own."""
    floor.conn.execute("CREATE SCHEMA own; CREATE TABLE own.charges (rma bigint, charged timestamptz)")
    floor.conn.execute(
        "INSERT INTO own.charges SELECT n, %s FROM generate_series(141, 143) AS n", (T0 + 14 * HOUR * 24,)
    )
    own("returns.extend.sql", "-- ours: 50 % off\nSELECT rma AS return_id, true AS is_instant_exchange, "
        "charged AS charge_at FROM own.charges -- '12:00'\n;")  # fmt: skip
    events = events_of(floor, floor.engine, "fivetran")
    instant = [(event.return_id, event.event_type) for event in events if "Instant" in event.event_type]
    assert sorted(instant) == [
        ("141", "Loop Instant Exchange Reminder"),
        *((number, f"Loop Instant Exchange {kind}") for number in ("142", "143") for kind in ("Notice", "Reminder")),
    ]


def test_the_time_of_an_added_column_is_not_that_of_the_connectors_rows(
    floor: Floor, own: Callable[[str, str], None]
) -> None:
    floor.conn.execute("CREATE SCHEMA own; CREATE TABLE own.charges (rma text, at timestamptz)")
    own("returns.sql", "SELECT return_id, state, customer_phone, created_at, updated_at FROM loop.returns")
    own("returns.extend.sql", "SELECT rma AS return_id, true AS is_instant_exchange, at AS synced_at FROM own.charges")
    floor.ret("1", created_at=T0 - HOUR, updated_at=T0 - HOUR)
    floor.start()
    floor.conn.execute("INSERT INTO own.charges VALUES ('1', %s), ('2', %s)", (T0 + HOUR, T0 + 48 * HOUR))
    floor.ret("2", created_at=T0 + 48 * HOUR, updated_at=T0 + 48 * HOUR)
    floor.look(T0 + 49 * HOUR)
    floor.ret("1", state="closed", created_at=T0 - HOUR, updated_at=T0 + 49 * HOUR)
    events = floor.run(T0 + 50 * HOUR, "Loop Return Status Updated")
    assert [event.return_id for event in events] == ["1"]


def test_a_table_can_be_replaced_and_rows_be_added(floor: Floor, own: Callable[[str, str], None]) -> None:
    floor.conn.execute("CREATE SCHEMA own; CREATE TABLE own.money (id text, rma text, at timestamptz, ok text)")
    floor.conn.execute("INSERT INTO own.money VALUES ('p1', '1', %s, 'succeeded')", (T0 + HOUR,))
    own("transactions.sql", "SELECT id AS transaction_id, rma AS return_id, 'payment' AS kind, 'stripe' AS gateway, "
        "ok AS status, at AS created_at FROM own.money")  # fmt: skip
    own("labels.extend.sql", "SELECT '1' AS return_id, '1Z7' AS tracking_number, 'new' AS status")
    floor.start()
    floor.ret("1", created_at=T0 + HOUR / 2)
    floor.label("1", "1Z1", status="new")
    events = floor.run(T0 + 2 * HOUR)
    assert {(event.event_type, event.key) for event in events} >= {
        ("Loop Payment Transaction", "p1"), ("Loop Label Created", "1|1Z1"), ("Loop Label Created", "1|1Z7"),
    }  # fmt: skip


def test_added_rows_that_are_read_whole_leave_the_cursor_to_the_connectors(
    floor: Floor, own: Callable[[str, str], None]
) -> None:
    """Their updated_at is not the time by which PostHog's rows are followed."""
    floor.conn.execute("CREATE SCHEMA own; CREATE TABLE own.labels (rma text, number text, at timestamptz)")
    own("labels.extend.sql", "SELECT rma AS return_id, number AS tracking_number, 'new' AS status, at AS updated_at "
        "FROM own.labels")  # fmt: skip
    floor.settings(**landing.settings("posthog"))
    for at, shop in list(told())[:3]:
        land(floor.engine, LANDINGS["posthog"](shop, at))
        floor.conn.execute("INSERT INTO own.labels VALUES ('138', %s, %s)", (f"1Z{at:%H%M}", at))
        floor.look(at)
    assert floor.one("SELECT position_column FROM source_cursor WHERE source_table = 'labels'") == ("moved_at",)


def test_added_rows_whose_times_are_of_another_type_stop_no_look(
    floors: Callable[..., Floor], own: Callable[[str, str], None]
) -> None:
    floor = floors(times="text")
    floor.conn.execute("CREATE SCHEMA own; CREATE TABLE own.labels (rma text, number text, at timestamptz)")
    own("labels.extend.sql", "SELECT rma AS return_id, number AS tracking_number, 'new' AS status, at AS synced_at "
        "FROM own.labels")  # fmt: skip
    floor.ret("1", created_at=T0.isoformat())
    floor.start()
    for hour in (1, 2, 3):
        at = T0 + hour * HOUR
        floor.label("1", f"9{hour}", status="new", created_at=at.isoformat(), synced_at=at.isoformat())
        floor.conn.execute("INSERT INTO own.labels VALUES ('1', %s, %s)", (f"1Z{hour}", at))
        assert len(floor.run(at, "Loop Label Created")) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT nonsense FROM nowhere", "does not run in the warehouse"),
        ("SELECT 1 AS id", "yields no column return_id"),
        ("SELECT 1 AS return_id, 2 AS charged_at", "yields charged_at: known are return_id, state"),
    ],
)
def test_what_is_wrong_with_an_own_select_is_said_before_anything_is_read(
    floor: Floor, own: Callable[[str, str], None], text: str, said: str
) -> None:
    own("returns.extend.sql", text)
    with pytest.raises(NeedsMending, match=rf"include/sql/shops/default/returns.extend.sql .*{said}"):
        floor.look(T0)


def test_an_own_select_of_other_types_is_named_before_anything_is_read(
    floor: Floor, own: Callable[[str, str], None]
) -> None:
    own("returns.extend.sql", "SELECT '1' AS return_id, 5 AS customer_email")
    with pytest.raises(NeedsMending, match=r"returns\.extend\.sql cannot be joined .* cast each of its columns"):
        floor.look(T0)


def test_a_table_may_have_another_name_in_the_warehouse(floor: Floor) -> None:
    floor.settings(connector="airbyte", schema="land", tables={"returns": "loop_returns"})
    floor.conn.execute("CREATE SCHEMA land")
    with pytest.raises(NeedsMending, match=r"there is no table land\.loop_returns"):
        floor.look(T0)
    row = {"id": "1", "state": "open", "created_at": T0, "updated_at": T0, "_airbyte_emitted_at": T0}
    land(floor.engine, {"land.loop_returns": [row]})
    floor.look(T0)
    assert floor.one("SELECT return_id FROM mirror_return") == ("1",)


def test_shipping_notices_tell_a_tracking_url_where_those_that_are_left_agree(floor: Floor) -> None:
    """Line items of listed and of cancelled returns; a notice that was deleted softly tells nothing."""
    floor.settings(connector="fivetran", schema="land")
    common = {"created_at": T0, "tracking_number": "1Z", "carrier": "UPS", "_fivetran_synced": T0}
    notices = [(21, "https://t/1", False), (21, "https://t/old", True), (22, "https://t/2", False),
               (23, "https://t/3", False), (24, "https://t/4", False), (24, "", False)]  # fmt: skip
    land(floor.engine, {
        "land.return_list": [{"id": n, "state": "open"} | common for n in (1, 3, 4)],
        "land.return_cancelled": [{"id": 2} | common],
        "land.return_list_line_item": [
            {"return_list_id": n, "line_item_id": i} for n, i in ((1, 21), (3, 23), (3, 22), (4, 24))
        ],
        "land.return_cancelled_line_item": [{"return_cancelled_id": 2, "line_item_id": 22}],
        "land.advanced_shipping_notice": [
            {"return_line_item_id": i, "integration_tracking_url": url, "_fivetran_deleted": is_deleted}
            for i, url, is_deleted in notices
        ],
    })  # fmt: skip
    floor.look(T0)
    found = floor.conn.execute("SELECT return_id, tracking_url FROM mirror_label ORDER BY 1").fetchall()
    assert found == [("1", "https://t/1"), ("2", "https://t/2"), ("3", None), ("4", "https://t/4")]


def test_shipping_notices_do_not_say_of_which_of_several_labels_they_are(floor: Floor) -> None:
    floor.settings(connector="dlt", schema="land")
    load = {"_dlt_load_id": "1"}
    common = {"state": "open", "created_at": T0, "updated_at": T0} | load
    land(floor.engine, {
        "land._dlt_loads": [{"load_id": "1", "status": 0, "inserted_at": T0}],
        "land.returns": [{"id": n, "_dlt_id": f"r{n}"} | common for n in ("1", "2")],
        "land.returns__labels": [
            {"_dlt_parent_id": parent, "tracking_number": number, "carrier": "UPS", "status": "new"}
            for parent, number in (("r1", "1Z1"), ("r2", "1Z2"), ("r2", "1Z3"))
        ],
        "land.returns__line_items": [{"_dlt_parent_id": f"r{n}", "line_item_id": n} for n in ("1", "2")],
        "land.advanced_shipping_notices": [
            {"return_line_item_id": n, "integration_tracking_url": f"https://t/{n}"} | load for n in ("1", "2")
        ],
    })  # fmt: skip
    floor.look(T0)
    found = floor.conn.execute("SELECT number, tracking_url FROM mirror_label ORDER BY 1").fetchall()
    assert found == [("1Z1", "https://t/1"), ("1Z2", None), ("1Z3", None)]


def test_a_label_of_a_returns_own_columns_needs_a_number_or_a_status(floor: Floor) -> None:
    """Whichever column of dlt's the number went to."""
    floor.settings(connector="dlt", schema="land")
    common = {"state": "open", "created_at": T0}
    numbered = [{"tracking_number": "941"}, {"tracking_number__v_text": "1Z2"}, {"label_status": "new"}, {}]
    land(floor.engine, {
        "land.returns": [{"id": str(n), "_dlt_id": f"r{n}"} | common | row for n, row in enumerate(numbered, start=1)],
    })  # fmt: skip
    floor.look(T0)
    found = floor.conn.execute("SELECT return_id, number FROM mirror_label ORDER BY 1").fetchall()
    assert found == [("1", "941"), ("2", "1Z2"), ("3", "")]


# ── What a connector tells of itself ────────────────────────────────────────


def about_its_log(floor: Floor, at: datetime) -> list[str]:
    """What a check says of it."""
    warnings = check.check(floor.conn, Source(floor.engine, floor.shop), at=at + HOUR).warnings
    return [line for line in warnings if "connector_log" in line]


@pytest.mark.parametrize(
    ("schema", "named"), [("fivetran_log", "connector_id"), ("fivetran_metadata", "connection_id")]
)
def test_freshness_is_judged_by_the_connectors_own_record(floor: Floor, schema: str, named: str) -> None:
    floor.settings(**landing.settings("fivetran") | {"connector_log": {"schema": schema, "connection": "loop"}})
    at, shop = list(told())[2]
    log = [
        {named: "loop", "time_stamp": at - 30 * HOUR, "message_event": "sync_end",
         "message_data": '{"status": "SUCCESSFUL"}'},
        {named: "loop", "time_stamp": at - HOUR, "message_event": "sync_end",
         "message_data": '{"status":"FAILURE_WITH_TASK", "before":"SUCCESSFUL"}'},
        {named: "other", "time_stamp": at, "message_event": "sync_end",
         "message_data": '{"status":"SUCCESSFUL"}'},
    ]  # fmt: skip
    land(floor.engine, LANDINGS["fivetran"](shop, at) | {f"{schema}.log": log})
    floor.look(at)
    fresh, why_not = floor.fresh(at, 26)
    assert not fresh
    assert "last complete sync was at" in str(why_not)
    assert floor.fresh(at, 31) == (True, None)
    assert not about_its_log(floor, at)
    floor.settings(**landing.settings("fivetran") | {"connector_log": {"schema": schema, "connection": "Loop"}})
    assert f"{schema} holds no complete sync of connection 'Loop'" in about_its_log(floor, at)[0]


def test_what_other_sources_land_beside_loops_does_not_make_it_fresh(floor: Floor) -> None:
    floor.settings(connector="dlt", schema="land")
    loads = (("1", "loop", 30), ("2", "other", 1))
    land(floor.engine, {
        "land.returns": [{"id": "1", "state": "open", "created_at": T0 - DAY, "_dlt_id": "r1", "_dlt_load_id": "1"}],
        "land._dlt_loads": [
            {"load_id": load, "schema_name": name, "status": 0, "inserted_at": T0 - hours * HOUR}
            for load, name, hours in loads
        ],
    })  # fmt: skip
    floor.look(T0)
    assert floor.one("SELECT synced_at FROM look") == (T0 - 30 * HOUR,)


def test_a_rule_that_needs_what_the_connector_does_not_tell_is_off_and_says_so(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    lame = connectors.connector("canonical").model_copy(update={"tells": frozenset({"labels", "shipped"})})
    monkeypatch.setattr(connectors, "connector", lambda name: lame)
    floor.start()
    floor.ret("1", created_at=T0 - 22 * HOUR * 24, labels_enabled=True)
    floor.label("1", status="new")
    result = floor.qualify(floor.look(T0 + HOUR))
    assert result["Loop Return Expiring"].off == "connector canonical does not tell updates"
    assert "out_of_stock" in str(result["Loop Exchange Out Of Stock"].off)
    assert {event.event_type for event in floor.events()} == {"Loop Return Created", "Loop Label Created"}


# ── Other dialects ──────────────────────────────────────────────────────────


@cache
def every_column() -> frozenset[str]:
    files = [*SOURCES.rglob("*.sql"), *BESIDE.rglob("*.sql")]
    return frozenset(
        column.name
        for file in files
        for column in sqlglot.parse_one(file.read_text(), read="postgres").find_all(exp.Column)
    )


@pytest.mark.parametrize(
    "dialect",
    ["postgresql", "duckdb", "snowflake", "bigquery", "redshift", "databricks", "mysql", "mariadb"],
)
@pytest.mark.parametrize("connector", LANDINGS)
def test_each_select_can_be_parsed_in_each_dialect(connector: str, dialect: str) -> None:
    told = landing.settings(connector)
    if "stripe" in told:
        told["stripe"]["match_by_email"] = "yes"
    shop = Shop.model_validate({"name": "default"} | told)
    layout = Layout(shop, dialect, lambda query, what: every_column())
    for table in canonical.TABLES:
        queries = layout.queries(table.name, table.columns)
        assert queries, table.name
        for query in queries:
            parsed = sqlglot.parse_one(query.sql, read=connectors.DIALECTS.get(dialect, dialect))
            assert [selected.alias_or_name for selected in parsed.selects] == list(query.columns)  # type: ignore[attr-defined]


def test_an_engine_whose_dialect_nobody_knows_is_told() -> None:
    with pytest.raises(NeedsMending, match="Connection loop_warehouse speaks esperanto"):
        Layout(Shop(name="default"), "esperanto", lambda query, what: every_column())


def test_a_name_that_must_be_quoted_is_found_in_upper_case() -> None:
    """Fivetran's ORDER in Snowflake."""
    shop = Shop.model_validate({"name": "default"} | landing.settings("fivetran"))
    asked = []

    def columns_of(query: str, what: str) -> frozenset[str] | None:
        asked.append(query)
        return None if '"order"' in query else every_column()

    [query] = Layout(shop, "snowflake", columns_of).queries("returns", canonical.RETURNS.columns)
    assert 'shopify."ORDER"' in query.sql
    assert asked.count('SELECT * FROM shopify."order" WHERE 1 = 0') == 1


# ── The pages ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [*LANDINGS, "sync", "shopify", "stripe"])
def test_each_page_shows_a_set_up_that_is_a_settings_file(tmp_path: Path, name: str) -> None:
    blocks = (DOCS / "connectors" / f"{name}.md").read_text().split("```yaml\n")[1:]
    assert blocks
    for block in blocks:
        path = tmp_path / "shops.yaml"
        path.write_text(block.split("```")[0])
        shops = settings.load(path).values()
        if name in LANDINGS:
            assert {shop.connector for shop in shops} == {name}


@pytest.mark.parametrize("name", LANDINGS)
def test_each_page_tells_its_connectors_gaps(name: str) -> None:
    page = " ".join((DOCS / "connectors" / f"{name}.md").read_text().split())
    for what, words in connectors.connector(name).gaps.items():
        assert f"{what}: {words}" in page, what


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        file, _, place = target.partition("#")
        heads = re.findall(r"(?m)^#+ (.*)$", ((page.parent / file) if file else page).read_text())
        slugs = {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in heads}
        assert not place or place in slugs, target
