"""The sync of our own: what Loop's API holds arrives, once, whole, and within what Loop allows."""

import json
import re
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
import sqlalchemy as sa
from airflow.sdk import Connection, Context
from airflow.sdk.exceptions import AirflowSkipException
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from loop_attentive import settings as settings_of_shops
from loop_attentive.db import DatabaseAway
from loop_attentive.destinations import credentials, place
from loop_attentive.destinations import destination as to_destination
from loop_attentive.errors import NeedsMending
from loop_attentive.loop_api import APART, LONGEST_WINDOW, LoopApi, LoopAway, windows
from loop_attentive.mirror import SourceFailed
from loop_attentive.settings import Shop
from loop_attentive.source import Source
from loop_attentive.sync import Landed, SyncFailed, _Seen, sync
from loop_attentive.sync_operators import SyncOperator, alone, first_moment, loop_api
from loop_attentive.sync_operators import landing as landing_of
from sandbox.loop import Loop, running_loop
from sandbox.processes import wait_until
from tests.connectors import Shop as Told
from tests.connectors import beside, flat, land, nested, settings, told
from tests.connectors.conftest import NO_SNOWFLAKE, SNOWFLAKE, duckdb_engine, snowflake_engine
from tests.connectors.dlt_in_fakesnow import Stages, snowflake_for_dlt
from tests.connectors.syncing import postgres as postgres_at
from tests.connectors.syncing import started
from tests.connectors.test_story import GAPS, declared, events_of, shown
from tests.floor import Floor

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SHOP = Shop(name="default", loop_api="loop_api")


@pytest.fixture
def loop() -> Iterator[Loop]:
    with running_loop(key="secret-of-loop") as loop:
        yield loop


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@contextmanager
def api_of(loop: Loop) -> Iterator[LoopApi]:
    clock = Clock()
    with closing(LoopApi(loop.url, loop.key, sleep=clock.sleep, monotonic=clock)) as api:
        yield api


@pytest.fixture
def api(loop: Loop) -> Iterator[LoopApi]:
    with api_of(loop) as api:
        yield api


@pytest.fixture
def landing(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Connection:
    """The warehouse's connection in Airflow: to PostgreSQL, where a test does not ask for another kind."""
    kind = getattr(request, "param", "postgresql")
    if kind == "duckdb":
        return Connection(conn_id="loop_warehouse", conn_type="duckdb", host=f"{tmp_path}/warehouse.duckdb")
    if kind == "snowflake":
        request.getfixturevalue("stages")
        return Connection(conn_id="loop_warehouse", **SNOWFLAKE | {"extra": json.dumps(SNOWFLAKE["extra"])})
    return postgres_at(database)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stages]:
    """Those of fakesnow, which is Snowflake meanwhile."""
    with snowflake_for_dlt(monkeypatch) as stages:
        yield stages


SNOWFLAKE_TOO = pytest.param("snowflake", marks=NO_SNOWFLAKE)
IN_EACH_KIND = pytest.mark.parametrize("landing", ["postgresql", "duckdb", SNOWFLAKE_TOO], indirect=True)
IN_DUCKDB = pytest.mark.parametrize("landing", ["duckdb"], indirect=True)
IN_SNOWFLAKE = pytest.mark.parametrize("landing", [SNOWFLAKE_TOO], indirect=True)


@pytest.fixture
def destination(landing: Connection) -> Any:
    return to_destination(landing)


@pytest.fixture
def warehouse(landing: Connection, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    if landing.conn_type == "duckdb":
        engine = duckdb_engine(monkeypatch, str(landing.host))

        @sa.event.listens_for(engine, "checkin")
        def let_go(_: Any, connection: Any) -> None:
            """As a look does at its end: who has the file open shuts the sync out."""
            connection.invalidate()
    elif landing.conn_type == "snowflake":
        engine = snowflake_engine(monkeypatch)
    else:
        at = conninfo_to_dict(database)
        engine = sa.create_engine(f"postgresql+psycopg://{at['user']}@/{at['dbname']}?host={at['host']}")
    yield engine
    engine.dispose()


def rows(warehouse: sa.Engine, query: str) -> list[tuple[Any, ...]]:
    with warehouse.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def ret(number: int, updated_at: datetime = NOW - DAY, **more: Any) -> dict[str, Any]:
    """A return as Loop's list tells it."""
    return {
        "id": str(number),
        "state": "open",
        "customer": "ann@example.com",
        "address": {"phone": "+14155552671", "address1": "1 Main St"},
        "created_at": (updated_at - DAY).isoformat(),
        "updated_at": updated_at.isoformat(),
        "tracking_number": "N/A",
        "label_updated_at": "N/A",
        "labels": [],
        "line_items": [{"line_item_id": f"i{number}", "title": "Shirt", "price": "10.00"}],
    } | more


@pytest.fixture
def following(api: LoopApi, destination: Any, floor: Floor, warehouse: sa.Engine) -> Floor:
    """A shop that reads what the sync lands, after its first look: what comes from now on is news."""
    floor.settings(loop_api="loop_api")
    floor.engine = warehouse
    sync(api, destination, floor.shop, now=NOW)
    floor.run(NOW)
    return floor


def test_every_state_and_every_page_arrives(loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine) -> None:
    states = ["open", "closed", "cancelled", "expired", "review"]
    loop.page_size = 3
    for number in range(40):
        loop.put(ret(number, state=states[number % 5]))
    assert sync(api, destination, SHOP, now=NOW) == Landed(returns=40)
    assert rows(warehouse, "SELECT state, count(*) FROM loop.returns GROUP BY 1 ORDER BY 1") == [
        (state, 8) for state in sorted(states)
    ]
    assert loop.refused == []


def test_a_long_time_is_asked_for_in_pieces_that_loop_takes(loop: Loop, api: LoopApi, destination: Any) -> None:
    loop.put(ret(1, NOW - 700 * DAY))
    assert sync(api, destination, SHOP, now=NOW, since=NOW - 800 * DAY).returns == 1
    assert loop.refused == []
    pieces = list(windows(NOW - 800 * DAY, NOW))
    assert pieces[0][0] == NOW - 800 * DAY
    assert pieces[-1][1] == NOW
    assert all(end - start <= LONGEST_WINDOW for start, end in pieces)
    assert all(before[1] == after[0] for before, after in pairwise(pieces))


@IN_EACH_KIND
def test_only_what_has_changed_comes_again(loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine) -> None:
    for number in range(3):
        loop.put(ret(number, NOW - MINUTE))
    assert sync(api, destination, SHOP, now=NOW).returns == 3
    assert sync(api, destination, SHOP, now=NOW + 5 * MINUTE) == Landed()
    loop.put(ret(1, NOW + 6 * MINUTE, state="closed", labels=[{"tracking_number": "94", "status": "new"}]))
    assert sync(api, destination, SHOP, now=NOW + 10 * MINUTE).returns == 1
    assert rows(warehouse, "SELECT id, state FROM loop.returns ORDER BY 1") == [
        ("0", "open"),
        ("1", "closed"),
        ("2", "open"),
    ]
    assert rows(warehouse, "SELECT tracking_number FROM loop.returns__labels") == [("94",)]


def test_a_list_that_lags_behind_loses_nothing(loop: Loop, api: LoopApi, destination: Any) -> None:
    sync(api, destination, SHOP, now=NOW)
    loop.put(ret(1, NOW - 10 * MINUTE))  # updated before the last sync, listed after it
    assert sync(api, destination, SHOP, now=NOW + 5 * MINUTE).returns == 1


@IN_EACH_KIND
def test_what_was_emptied_comes_back_from_an_earlier_day_on(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine
) -> None:
    """All of it, also what the last sync remembers to have landed."""
    for number, age in ((1, MINUTE), (2, 20 * DAY)):
        loop.put(ret(number, NOW - age))
    loop.notices.append({"id": "n1", "return_line_item_id": "i1", "created_at": (NOW - DAY).isoformat()})
    assert sync(api, destination, SHOP, now=NOW) == Landed(returns=2, notices=1)
    with warehouse.begin() as connection:
        for table in ("returns", "advanced_shipping_notices"):
            connection.execute(sa.text(f"DELETE FROM loop.{table}"))
    assert sync(api, destination, SHOP, now=NOW + MINUTE, since=NOW - 30 * DAY) == Landed(returns=2, notices=1)
    assert sync(api, destination, SHOP, now=NOW + 2 * MINUTE) == Landed()


def test_a_first_sync_that_died_is_made_again(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine, database: str
) -> None:
    """Its tables are there, and nothing says whose they are."""
    loop.put(ret(1))
    at = conninfo_to_dict(database)
    with warehouse.begin() as connection:
        for statement in ("CREATE ROLE loader LOGIN", "CREATE SCHEMA loop AUTHORIZATION loader"):
            connection.execute(sa.text(statement))
    try:
        as_loader = to_destination(postgres_at(f"host={at['host']} user=loader dbname={at['dbname']}"))
        for _ in range(2):
            with pytest.raises(SyncFailed, match="and in that of its name with _staging"):
                sync(api, as_loader, SHOP, now=NOW)
        with warehouse.begin() as connection:
            connection.execute(sa.text("CREATE SCHEMA loop_staging AUTHORIZATION loader"))
        assert sync(api, as_loader, SHOP, now=NOW).returns == 1
        assert rows(warehouse, "SELECT id FROM loop.returns") == [("1",)]
    finally:
        with warehouse.begin() as connection:
            connection.execute(sa.text("DROP OWNED BY loader CASCADE"))
            connection.execute(sa.text("DROP ROLE loader"))


@IN_EACH_KIND
def test_what_a_return_no_longer_has_goes(loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine) -> None:
    loop.put(ret(1, labels=[{"tracking_number": "94"}, {"tracking_number": "95"}]))
    sync(api, destination, SHOP, now=NOW)
    loop.put(ret(1, NOW + MINUTE, labels=[{"tracking_number": "95"}]))
    sync(api, destination, SHOP, now=NOW + 5 * MINUTE)
    assert rows(warehouse, "SELECT tracking_number FROM loop.returns__labels") == [("95",)]


@IN_EACH_KIND
def test_a_sync_that_found_nothing_leaves_its_mark(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine
) -> None:
    """By which the freshness of a quiet shop is judged."""
    for number in range(3):
        sync(api, destination, SHOP, now=NOW + number * MINUTE)
    assert rows(warehouse, "SELECT count(DISTINCT load_id) FROM loop._dlt_loads") == [(3,)]


def test_what_a_try_has_landed_that_was_not_told_is_followed_after_the_next(
    loop: Loop, landing: Connection, floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hourly run follows a sync that succeeds; one that brought nothing is skipped."""
    at = conninfo_to_dict(floor.conninfo)
    ledger = {"conn_type": "postgres", "host": at["host"], "login": at["user"], "schema": at["dbname"]}
    warehouse = {"conn_type": "postgres", "host": landing.host, "login": landing.login, "schema": landing.schema}
    api = {"conn_type": "http", "host": loop.url, "password": loop.key}
    for name, conn in (("LOOP_ATTENTIVE_DB", ledger), ("LOOP_WAREHOUSE", warehouse), ("LOOP_API", api)):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(conn))
    monkeypatch.setattr(settings_of_shops, "shop", lambda _: SHOP)
    loop.put(ret(1, datetime.now(UTC) - MINUTE))
    step = SyncOperator(task_id="sync", shop="default")

    def ends(try_number: int) -> dict[str, int]:
        return step.execute(cast(Context, {"params": {}, "ti": SimpleNamespace(try_number=try_number)}))

    assert ends(1) == {"returns": 1, "notices": 0}
    assert ends(2) == {"returns": 0, "notices": 0}, "the try before it was lost after it had landed"
    with pytest.raises(AirflowSkipException):
        ends(1)


def test_no_more_is_landed_than_is_needed(loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine) -> None:
    loop.put(ret(1))
    sync(api, destination, SHOP, now=NOW)
    named = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'loop'"
    columns = rows(warehouse, named)
    assert {name for table, name in columns if table == "returns__line_items" and not name.startswith("_")} == {
        "line_item_id"
    }
    text = str([rows(warehouse, f'SELECT * FROM loop."{table}"') for table in {table for table, _ in columns}])
    assert "Main St" not in text
    assert "4155552671" not in text
    assert "ann@example.com" in text


def test_no_minute_holds_more_requests_than_loop_allows(loop: Loop) -> None:
    clock, times = Clock(), []
    with closing(LoopApi(loop.url, loop.key, sleep=clock.sleep, monotonic=clock)) as api:
        for _ in range(10):
            for _ in api.returns(NOW - 500 * DAY, NOW):
                times.append(clock.now)
    assert len(times) == 250
    assert min(after - before for before, after in pairwise([0, *times])) >= APART - 1e-9, "nor with the sync before"
    assert 60 / APART < 300


@IN_SNOWFLAKE
def test_no_file_stays_in_a_tables_stage(loop: Loop, api: LoopApi, destination: Any, stages: Stages) -> None:
    loop.put(ret(1))
    sync(api, destination, SHOP, now=NOW)
    assert [name for name in stages.came if "/returns." in name]
    assert stages.files == {}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_waited_out(loop: Loop, api: LoopApi, destination: Any, status: int) -> None:
    loop.put(ret(1))
    loop.faults.extend([status, status])
    assert sync(api, destination, SHOP, now=NOW).returns == 1


def test_what_does_not_pass_is_told_and_nothing_is_lost(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine
) -> None:
    loop.put(ret(1, NOW - MINUTE))
    sync(api, destination, SHOP, now=NOW)
    loop.put(ret(2, NOW + MINUTE))
    asked = len(loop.asked)
    loop.faults.extend([503] * 6)
    with pytest.raises(LoopAway, match="in 6 attempts; the last one: status 503"):
        sync(api, destination, SHOP, now=NOW + 5 * MINUTE)
    assert len(loop.asked) == asked + 6
    assert sync(api, destination, SHOP, now=NOW + 60 * MINUTE).returns == 1
    assert rows(warehouse, "SELECT id FROM loop.returns ORDER BY 1") == [("1",), ("2",)]


def test_a_refused_key_is_a_persons_matter(loop: Loop, destination: Any) -> None:
    with (
        closing(LoopApi(loop.url, "another-key")) as api,
        pytest.raises(NeedsMending, match="mend the password") as told,
    ):
        sync(api, destination, SHOP, now=NOW)
    assert "another-key" not in str(told.value)
    assert len(loop.asked) == 1


def test_a_warehouse_that_takes_no_rows_is_told_without_a_row(loop: Loop, api: LoopApi, database: str) -> None:
    loop.put(ret(1))
    at = conninfo_to_dict(database)
    nowhere = to_destination(postgres_at(f"host={at['host']} user=nobody dbname=none"))
    with pytest.raises(SyncFailed) as told:
        sync(api, nowhere, SHOP, now=NOW)
    assert "ann@example.com" not in str(told.value)


def test_a_next_page_that_is_none_is_no_end(loop: Loop, api: LoopApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list cut short in silence would lose returns."""
    monkeypatch.setattr(loop, "_list", lambda query: {"returns": [ret(1)], "nextPageUrl": "https://loop/next"})
    with pytest.raises(LoopAway, match="cut short"):
        list(api.returns(NOW - DAY, NOW))


def test_rows_without_an_id_are_left_out_and_counted(loop: Loop, api: LoopApi, destination: Any) -> None:
    loop.put(ret(1))
    loop.returns["none"] = ret(2) | {"id": None}
    assert sync(api, destination, SHOP, now=NOW) == Landed(returns=1, without_id=1)


@pytest.mark.parametrize("column", ["id", "return_line_item_id"])
def test_notices_without_an_id_are_left_out_and_counted(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine, column: str
) -> None:
    notice = {"id": 1, "return_line_item_id": "i1", "created_at": (NOW - MINUTE).isoformat()}
    absent = {name: value for name, value in notice.items() if name != column}
    loop.notices += [notice, notice | {column: None}, notice | {column: ""}, absent]
    assert sync(api, destination, SHOP, now=NOW) == Landed(notices=1, without_id=3)
    assert rows(warehouse, "SELECT id, return_line_item_id FROM loop.advanced_shipping_notices") == [("1", "i1")]


def test_the_tracking_url_of_the_shipping_notices_reaches_the_event(
    loop: Loop, api: LoopApi, destination: Any, following: Floor
) -> None:
    label = {"carrier": "USPS", "tracking_number": "94", "status": "new", "updated_at": (NOW + MINUTE).isoformat()}
    loop.put(ret(7, NOW + MINUTE, created_at=(NOW + MINUTE).isoformat(), labels=[label]))
    loop.notices.append(
        {
            "id": 1,
            "return_line_item_id": "i7",
            "integration_tracking_url": "https://track/94",
            "customer_email": "ann@example.com",
            "created_at": (NOW + MINUTE).isoformat(),
        }
    )
    assert sync(api, destination, following.shop, now=NOW + 5 * MINUTE) == Landed(returns=1, notices=1)
    following.run(NOW + 10 * MINUTE)
    [event] = [event for event in following.events() if event.event_type == "Loop Label Created"]
    assert event.properties["trackingUrl"] == "https://track/94"


def test_what_changes_while_a_list_is_read_moves_nothing_out_of_sight(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed return leaves the list, and those behind it move up, from a page to come to one that was read."""
    loop.page_size = 3
    for number in range(12):
        loop.put(ret(number, NOW - DAY + number * MINUTE))
    for number in range(12, 18):
        loop.put(ret(number, NOW - 2 * DAY))  # all in one second
    tell = loop._list

    def tell_and_change(query: dict[str, str]) -> Any:
        answer = tell(query)
        if answer["returns"] and answer["nextPageUrl"] and query["state"] == "open":
            first = int(answer["returns"][0]["id"])
            if first in (0, 12) and loop.returns[str(first)]["state"] == "open":
                loop.put(ret(first, NOW + MINUTE, state="closed"))
        return answer

    monkeypatch.setattr(loop, "_list", tell_and_change)
    sync(api, destination, SHOP, now=NOW)
    assert {state for (state,) in rows(warehouse, "SELECT state FROM loop.returns")} == {"open"}
    assert loop.returns["0"]["state"] == loop.returns["12"]["state"] == "closed"
    sync(api, destination, SHOP, now=NOW + 5 * MINUTE)
    landed = dict(rows(warehouse, "SELECT id, state FROM loop.returns"))
    assert landed == {str(n): "closed" if n in (0, 12) else "open" for n in range(18)}
    assert loop.refused == []


def test_a_return_that_is_seen_in_two_states_is_what_it_was_last(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It moved on between two passes, by a clock that is behind ours: both versions came."""
    loop.put(ret(1, NOW - 10 * MINUTE, labels=[{"tracking_number": "94"}]))
    tell = loop._list

    def tell_and_change(query: dict[str, str]) -> Any:
        answer = tell(query)
        if query["state"] == "open":
            loop.put(ret(1, NOW - 9 * MINUTE, state="closed", labels=[{"tracking_number": "95"}]))
        return answer

    monkeypatch.setattr(loop, "_list", tell_and_change)
    sync(api, destination, SHOP, now=NOW)
    assert rows(warehouse, "SELECT id, state FROM loop.returns") == [("1", "closed")]
    assert rows(warehouse, "SELECT tracking_number FROM loop.returns__labels") == [("95",)]


def test_a_list_that_lags_brings_no_older_version_over_the_one_that_was_landed(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.put(ret(1, NOW - 9 * MINUTE, state="closed"))
    sync(api, destination, SHOP, now=NOW)
    tell = loop._list

    def tell_and_lag(query: dict[str, str]) -> Any:
        answer = tell(query)
        if query["state"] == "open":
            answer["returns"].append(ret(1, NOW - 10 * MINUTE))
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(loop, "_list", tell_and_lag)
        for minute in (1, 2):
            assert sync(api, destination, SHOP, now=NOW + minute * MINUTE) == Landed()
    assert rows(warehouse, "SELECT id, state FROM loop.returns") == [("1", "closed")]
    loop.put(ret(1, NOW + MINUTE, state="expired"))
    assert sync(api, destination, SHOP, now=NOW + 3 * MINUTE).returns == 1
    assert rows(warehouse, "SELECT id, state FROM loop.returns") == [("1", "expired")]


def test_what_an_older_version_of_the_sync_remembered_does_not_come_again(
    loop: Loop, api: LoopApi, destination: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It remembered a digest, and no time."""
    loop.put(ret(1, NOW - MINUTE))
    loop.notices.append({"id": 1, "return_line_item_id": "i1", "created_at": (NOW - MINUTE).isoformat()})

    def keep(seen: _Seen) -> None:
        seen._state["seen"] = {key: version.digest for key, version in seen._now.items()}

    with monkeypatch.context() as patched:
        patched.setattr(_Seen, "keep", keep)
        assert sync(api, destination, SHOP, now=NOW) == Landed(returns=1, notices=1)
    for minute in (1, 2):
        assert sync(api, destination, SHOP, now=NOW + minute * MINUTE) == Landed()


def test_an_outage_of_half_a_year_is_made_up_for(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine
) -> None:
    sync(api, destination, SHOP, now=NOW)
    for month in range(6):
        loop.put(ret(month, NOW + month * 30 * DAY))
    assert sync(api, destination, SHOP, now=NOW + 180 * DAY).returns == 6
    assert loop.refused == []


def test_a_day_of_the_form_skips_nothing_that_came_since_the_last_sync(
    loop: Loop, api: LoopApi, destination: Any
) -> None:
    sync(api, destination, SHOP, now=NOW)
    loop.put(ret(1, NOW + DAY))
    assert sync(api, destination, SHOP, now=NOW + 3 * DAY, since=NOW + 2 * DAY).returns == 1


ODD: list[dict[str, Any]] = [
    {"created_at": "0001-01-01T00:00:00+14:00", "updated_at": "2026-03-01 12:01:00"},
    {"created_at": "9999-12-31T23:59:59-12:00", "label_updated_at": "yesterday"},
    {"created_at": "2026-03-01T11:00:00", "order_name": "a\0b \ud800 💥", "outcome": ["exchange"]},
    {"created_at": 1772362800, "state": "open", "labels": 5, "line_items": {"a": 1}, "exchanges": "none"},
    {"labels": [None, 1, "x", {"tracking_number": ["1"], "status": {"a": "\0"}, "updated_at": "N/A"}]},
    {"exchanges": [{"exchange_id": 10**40, "out_of_stock": "maybe"}, {"exchange_id": None, "out_of_stock": 1}]},
    {"customer": "x" * 1_000_000, "provider_order_id": float("nan"), "outcome": float("inf")},
    {"id": " 007 ", "customer": {"email": "ann@example.com"}, "status_page_url": False},
    {"id": -3},
    {"id": {"a": 1}},
]


@IN_EACH_KIND
def test_odd_values_stop_no_sync(
    loop: Loop, api: LoopApi, destination: Any, following: Floor, warehouse: sa.Engine
) -> None:
    for number, odd in enumerate(ODD, start=1):
        loop.put(ret(number, NOW + MINUTE, created_at=(NOW + MINUTE).isoformat()) | odd)
    assert sync(api, destination, following.shop, now=NOW + 5 * MINUTE).returns == len(ODD)
    loop.put(ret(100, NOW + 60 * MINUTE, created_at=(NOW + 60 * MINUTE).isoformat()))
    following.run(NOW + 60 * MINUTE)
    assert rows(warehouse, "SELECT count(*) FROM loop.returns") == [(len(ODD),)]
    sync(api, destination, following.shop, now=NOW + 65 * MINUTE)
    pending = [event for event in following.run(NOW + 70 * MINUTE) if event.status == "pending"]
    assert [event.return_id for event in pending] == ["100"]


# ── Killed, stopped, two at once ────────────────────────────────────────────


@contextmanager
def stopped_at(table: str, database: str) -> Iterator[Callable[[], bool]]:
    """Nobody writes into a table of the warehouse, until this ends; what is yielded: whether somebody waits for it."""
    with psycopg.connect(database) as holder, psycopg.connect(database, autocommit=True) as watcher:
        holder.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(sql.Identifier(*table.split("."))))
        waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        yield lambda: watcher.execute(waits).rowcount > 0


def others_are_gone(database: str) -> bool:
    with psycopg.connect(database) as conn:
        others = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'dltHub_postgres'"
        )
        return conn.execute(others).rowcount == 0


def told_of(events: list[Any]) -> list[tuple[Any, ...]]:
    return sorted(
        (e.event_type, e.return_id, e.status, str(e.body and e.properties.get("returnStatus")),
         str(e.body and e.properties.get("trackingNumber"))) for e in events
    )  # fmt: skip


WITHIN_ITS_MERGE, BEFORE_IT_IS_RECORDED = "loop.returns__labels", "loop._dlt_loads"
ANYWHERE = (
    "loop_staging.returns", "loop.returns", WITHIN_ITS_MERGE, "loop.advanced_shipping_notices",
    "loop._dlt_pipeline_state", BEFORE_IT_IS_RECORDED,
)  # fmt: skip


def scenes(tables: Sequence[str]) -> Iterator[tuple[str | None, list[dict[str, Any]]]]:
    """A table that a sync is killed at, and what has changed at Loop before."""
    yield None, [ret(1, NOW, labels=[{"tracking_number": "941", "status": "new"}])]
    for number, table in enumerate(tables, start=2):
        at = NOW + number * HOUR - MINUTE
        label = {"tracking_number": f"94{number}", "status": "new", "updated_at": at.isoformat()}
        moved = {
            "tracking_number": "941",
            "status": "in_transit" if number % 2 else "new",
            "updated_at": at.isoformat(),
        }
        state = "closed" if number % 2 else "open"
        yield (
            table,
            [
                ret(number, at, created_at=at.isoformat(), labels=[label]),
                ret(1, at, created_at=NOW.isoformat(), state=state, labels=[moved]),
            ],
        )


@pytest.mark.parametrize(
    "tables",
    [
        pytest.param((WITHIN_ITS_MERGE, BEFORE_IT_IS_RECORDED), id="somewhere"),
        pytest.param(ANYWHERE, id="anywhere", marks=pytest.mark.long),
    ],
)
def test_a_sync_that_is_killed_loses_nothing_and_makes_no_wrong_event(
    loop: Loop, api: LoopApi, destination: Any, landing: Connection, database: str, warehouse: sa.Engine, floor: Floor,
    ledgers: Callable[[], str], tmp_path: Path, tables: Sequence[str],
) -> None:  # fmt: skip
    """Before it writes, within its merge, between its tables, before it is recorded; a look beside it each time."""
    floor.settings(loop_api="loop_api")
    floor.engine = warehouse
    wanted: list[Any] = []
    for number, (table, changes) in enumerate(scenes(tables), start=1):
        now = NOW + number * HOUR
        for row in changes:
            loop.put(row)
            loop.notices.append(
                {"id": row["id"], "return_line_item_id": f"i{row['id']}", "created_at": now.isoformat()}
            )
        if table:
            with stopped_at(table, database) as is_waiting:
                process = started(loop, landing, floor.shop, now, tmp_path)
                wait_until(lambda: is_waiting() or not process.is_alive(), f"a sync waits at {table}", 60, every=0.05)  # noqa: B023
                assert process.is_alive(), (tmp_path / "said").read_text()
                floor.run(now)
                process.kill()
                process.join()
            wait_until(lambda: others_are_gone(database), "what it had asked for is over", 30, every=0.05)
            assert list(tmp_path.glob("loop-sync-*")), "rows were on the disk"
            floor.run(now + MINUTE)
        sync(api, destination, floor.shop, now=now + 2 * MINUTE)
        floor.run(now + 3 * MINUTE)
        wanted.append(told_of(floor.events()))
    assert len(rows(warehouse, "SELECT id FROM loop.returns")) == len(wanted)
    assert {
        count for _, count in rows(warehouse, "SELECT _dlt_parent_id, count(*) FROM loop.returns__labels GROUP BY 1")
    } == {1}
    # The same without anybody killed.
    with closing(Floor(ledgers(), loop_api="loop_api", schema="calm")) as calm:
        calm.engine = warehouse
        loop.returns.clear()
        for number, (_, changes) in enumerate(scenes(tables), start=1):
            for row in changes:
                loop.put(row)
            sync(api, destination, calm.shop, now=NOW + number * HOUR)
            calm.run(NOW + number * HOUR + 3 * MINUTE)
            assert wanted[number - 1] == told_of(calm.events()), number


def test_what_a_killed_sync_left_on_the_disk_goes_with_the_next(
    loop: Loop,
    api: LoopApi,
    destination: Any,
    landing: Connection,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sync(api, destination, SHOP, now=NOW)
    loop.put(ret(1, NOW))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with stopped_at("loop.returns", database) as is_waiting:
        process = started(loop, landing, SHOP, NOW + MINUTE, tmp_path)
        wait_until(is_waiting, "a sync waits", 60, every=0.05)
        [left] = tmp_path.glob("loop-sync-*")
        with api_of(loop) as another:  # one that only finds nothing, beside it
            sync(another, destination, Shop(name="other", loop_api="loop_api", schema="other"), now=NOW - DAY)
        assert left.exists(), "a living process has it"
        process.kill()
        process.join()
    sync(api, destination, SHOP, now=NOW + 2 * MINUTE)
    assert not list(tmp_path.glob("*loop-sync-*"))


def test_two_at_once_take_turns_and_keep_the_limit_together(
    loop: Loop,
    api: LoopApi,
    destination: Any,
    landing: Connection,
    database: str,
    warehouse: sa.Engine,
    ledger: str,
    tmp_path: Path,
) -> None:
    sync(api, destination, SHOP, now=NOW)
    for number in range(5):
        loop.put(ret(number, NOW + MINUTE))
    with stopped_at("loop_staging.returns", database) as is_waiting:
        first = started(loop, landing, SHOP, NOW + 5 * MINUTE, tmp_path, ledger)
        wait_until(is_waiting, "the first sync writes", 60, every=0.05)
        asked = len(loop.asked)
        for number in range(5, 8):
            loop.put(ret(number, NOW + 6 * MINUTE))
        second = started(loop, landing, SHOP, NOW + 10 * MINUTE, tmp_path, ledger)
        with psycopg.connect(ledger, autocommit=True) as watcher:
            waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            wait_until(lambda: watcher.execute(waits).rowcount > 0, "the second waits", 60, every=0.05)
        assert len(loop.asked) == asked, "it asks for nothing meanwhile"
    for process in (first, second):
        process.join(60)
        assert process.exitcode == 0, (tmp_path / "said").read_text()
    assert sorted(rows(warehouse, "SELECT id FROM loop.returns")) == [(str(number),) for number in range(8)]
    assert loop.refused == []


def test_a_sync_whose_lock_was_lost_lands_nothing(
    loop: Loop, api: LoopApi, destination: Any, landing: Connection, warehouse: sa.Engine, ledger: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """PostgreSQL gives a lock back with the connection that took it: another sync may have begun meanwhile."""
    sync(api, destination, SHOP, now=NOW)
    loop.put(ret(1, NOW + MINUTE))
    tell, ended = loop._list, []
    with psycopg.connect(ledger, autocommit=True) as conn, psycopg.connect(ledger, autocommit=True) as server:

        def tell_and_end(query: dict[str, str]) -> Any:
            ended.append(server.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,)).fetchone())
            return tell(query)

        pid = conn.info.backend_pid
        monkeypatch.setattr(loop, "_list", tell_and_end)
        with (
            pytest.raises(DatabaseAway, match="the lock that keeps two syncs apart"),
            alone(conn, api.account, place(landing)) as still_alone,
        ):
            sync(api, destination, SHOP, now=NOW + 5 * MINUTE, still_alone=still_alone)
    assert ended[0] == (True,)
    assert rows(warehouse, "SELECT id FROM loop.returns") == []
    monkeypatch.undo()
    assert sync(api, destination, SHOP, now=NOW + 6 * MINUTE).returns == 1


# ── A DuckDB file, which one process may write, or many may read ────────────


@contextmanager
def open_elsewhere(landing: Connection, *, read_only: bool) -> Iterator[None]:
    """Another process has the file open."""
    holds = (
        "import duckdb, sys; _ = duckdb.connect(sys.argv[1], read_only=bool(sys.argv[2])); print(flush=True); input()"
    )
    arguments = [sys.executable, "-c", holds, str(landing.host), "yes" if read_only else ""]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        yield
        other.communicate(b"\n")


@IN_DUCKDB
def test_a_sync_that_meets_a_look_lands_nothing_says_so_and_makes_up_for_it(
    loop: Loop, api: LoopApi, destination: Any, landing: Connection, warehouse: sa.Engine
) -> None:
    sync(api, destination, SHOP, now=NOW)
    loop.put(ret(1, NOW + MINUTE))
    with (
        open_elsewhere(landing, read_only=True),
        pytest.raises(SyncFailed, match="file of connection loop_warehouse is open in another process"),
    ):
        sync(api, destination, SHOP, now=NOW + 5 * MINUTE)
    assert rows(warehouse, "SELECT id FROM loop.returns") == []
    assert sync(api, destination, SHOP, now=NOW + 6 * MINUTE).returns == 1


@IN_DUCKDB
def test_a_look_that_begins_while_a_sync_asks_loop_makes_it_fail_before_it_lands(
    loop: Loop, api: LoopApi, destination: Any, landing: Connection, warehouse: sa.Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The file is free while a sync waits for Loop, and its own from the load's begin to its end."""
    sync(api, destination, SHOP, now=NOW)
    loop.put(ret(1, NOW + MINUTE))
    tell = loop._list
    with ExitStack() as look:

        def tell_and_look(query: dict[str, str]) -> Any:
            if query["state"] == "open":
                look.enter_context(open_elsewhere(landing, read_only=True))
            return tell(query)

        monkeypatch.setattr(loop, "_list", tell_and_look)
        with pytest.raises(SyncFailed, match="is open in another process"):
            sync(api, destination, SHOP, now=NOW + 5 * MINUTE)
    monkeypatch.undo()
    assert rows(warehouse, "SELECT id FROM loop.returns") == []
    assert sync(api, destination, SHOP, now=NOW + 6 * MINUTE).returns == 1


@IN_DUCKDB
def test_a_look_that_meets_a_sync_says_so_and_the_next_one_sees_it_all(
    loop: Loop, api: LoopApi, destination: Any, landing: Connection, following: Floor
) -> None:
    loop.put(ret(1, NOW + MINUTE))
    sync(api, destination, following.shop, now=NOW + 5 * MINUTE)
    with open_elsewhere(landing, read_only=False), pytest.raises(SourceFailed, match="such as a sync, has the DuckDB"):
        following.run(NOW + 6 * MINUTE)
    assert [event.event_type for event in following.run(NOW + 7 * MINUTE)] == ["Loop Return Created"]


@IN_DUCKDB
def test_nobody_opens_the_file_between_two_steps_of_a_load(
    loop: Loop, api: LoopApi, destination: Any, landing: Connection, warehouse: sa.Engine, tmp_path: Path
) -> None:
    sync(api, destination, SHOP, now=NOW)
    loop.put(ret(1, NOW + MINUTE))
    process = started(loop, landing, SHOP, NOW + 5 * MINUTE, tmp_path)
    log = Path(f"{landing.host}.wal")
    wait_until(lambda: log.exists() or not process.is_alive(), "it writes", 60, every=0.001)

    def loads() -> int:
        try:
            return int(rows(warehouse, "SELECT count(*) FROM loop._dlt_loads")[0][0])
        except sa.exc.DBAPIError:
            return 0

    seen = [count for count in iter(loads, 2) if count]
    process.join(60)
    assert (process.exitcode, seen) == (0, []), (tmp_path / "said").read_text()


@IN_DUCKDB
def test_a_sync_that_is_killed_as_it_writes_spoils_no_file(
    loop: Loop, api: LoopApi, destination: Any, landing: Connection, warehouse: sa.Engine, following: Floor,
    tmp_path: Path,
) -> None:  # fmt: skip
    log = Path(f"{landing.host}.wal")
    ends = []
    for number, written in enumerate((1, 1_500, 3_000, 4_000), start=1):  # bytes, of some 4,600 that a sync writes
        now = NOW + number * HOUR
        loop.put(ret(number, now, created_at=now.isoformat(), labels=[{"tracking_number": f"94{number}"}]))
        process = started(loop, landing, following.shop, now + MINUTE, tmp_path)
        has_written = partial(lambda size: log.exists() and log.stat().st_size >= size, written)
        wait_until(lambda: has_written() or not process.is_alive(), "it writes", 60, every=0.001)  # noqa: B023
        process.kill()
        process.join()
        ends.append(process.exitcode)
        following.run(now + 2 * MINUTE)
        sync(api, destination, following.shop, now=now + 3 * MINUTE)
        following.run(now + 4 * MINUTE)
        assert rows(warehouse, "SELECT id FROM loop.returns ORDER BY id") == [(str(n),) for n in range(1, number + 1)]
        assert rows(warehouse, "SELECT tracking_number FROM loop.returns__labels ORDER BY 1") == [
            (f"94{n}",) for n in range(1, number + 1)
        ]
    assert -signal.SIGKILL in ends
    told = [
        (event.return_id, event.status) for event in following.events() if event.event_type == "Loop Return Created"
    ]
    assert told == [(str(number), "pending") for number in range(1, 5)]


# ── What the warehouse says ─────────────────────────────────────────────────


def test_nobody_is_told_of_a_row_that_the_warehouse_refuses(
    loop: Loop, api: LoopApi, destination: Any, landing: Connection, database: str, tmp_path: Path
) -> None:
    """A database quotes it in its error, and dlt quotes the database."""
    sync(api, destination, SHOP, now=NOW)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("ALTER TABLE loop.returns ADD CHECK (customer NOT LIKE 'ann@%')")
    loop.put(ret(1, NOW + MINUTE, order_name="#canary"))
    process = started(loop, landing, SHOP, NOW + 5 * MINUTE, tmp_path)
    process.join(120)
    said = (tmp_path / "said").read_text()
    assert process.exitcode == 1
    assert "SyncFailed: The sync stopped at its step load" in said
    for canary in ("ann@example.com", "#canary", loop.key):
        assert canary not in said


@IN_EACH_KIND
def test_somebody_elses_table_is_left_as_it_is(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine
) -> None:
    loop.put(ret(1))
    with warehouse.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA loop"))
        connection.execute(sa.text("CREATE TABLE loop.returns (return_id text)"))
    with pytest.raises(NeedsMending, match="holds a table returns that the sync did not make"):
        sync(api, destination, SHOP, now=NOW)
    columns = "SELECT lower(column_name) FROM information_schema.columns WHERE lower(table_schema) = 'loop'"
    assert rows(warehouse, columns) == [("return_id",)]
    assert loop.asked == []


@IN_EACH_KIND
def test_what_another_shops_sync_or_a_pipeline_of_ones_own_has_landed_is_left_as_it_is(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine
) -> None:
    loop.put(ret(1))
    sync(api, destination, SHOP, now=NOW)
    loop.put(ret(2, NOW + MINUTE))
    with pytest.raises(NeedsMending, match="holds a table returns that the sync did not make"):
        sync(api, destination, Shop(name="outlet", loop_api="loop_api"), now=NOW + 5 * MINUTE)
    assert rows(warehouse, "SELECT id FROM loop.returns") == [("1",)]
    assert sync(api, destination, SHOP, now=NOW + 5 * MINUTE).returns == 1


def test_a_list_of_any_length_is_divided() -> None:
    """By the stretches' ends, not by calls within calls, of which Python takes a thousand."""
    api = LoopApi.__new__(LoopApi)
    asked: list[dict[str, Any]] = []

    def page(question: dict[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
        asked.append(question)
        start, end = (datetime.fromisoformat(question[side]) for side in ("from", "to"))
        rows = [{"id": question["from"], "updated_at": question["from"]}]
        return rows, "more" if end - start > timedelta(seconds=1) else None

    vars(api)["_page"] = page
    pages = list(api._listed("open", NOW, NOW + timedelta(seconds=3_000)))
    assert [row["id"] for [row] in pages] == sorted(row["id"] for [row] in pages)
    assert len(pages) == 3_000


@IN_EACH_KIND
def test_what_dlt_remembers_does_not_pile_up(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loop_attentive.sync.STATES_KEPT", 2)
    for number in range(5):
        loop.put(ret(1, NOW + number * MINUTE))
        assert sync(api, destination, SHOP, now=NOW + number * MINUTE).returns == 1
    assert rows(warehouse, "SELECT count(*) FROM loop._dlt_pipeline_state") == [(3,)]
    assert sync(api, destination, SHOP, now=NOW + 15 * MINUTE).returns == 0


def test_the_first_exchange_of_a_shop_is_told(
    loop: Loop, api: LoopApi, destination: Any, following: Floor, warehouse: sa.Engine
) -> None:
    """Its table was looked at before there was a row in it: else the look that finds it would take it for old."""
    made = (NOW + MINUTE).isoformat()
    loop.put(ret(1, NOW + MINUTE, created_at=made, exchanges=[{"exchange_id": "9", "out_of_stock": True}]))
    sync(api, destination, following.shop, now=NOW + 5 * MINUTE)
    told = {event.event_type: event.status for event in following.run(NOW + 10 * MINUTE)}
    assert told == {"Loop Return Created": "pending", "Loop Exchange Out Of Stock": "pending"}
    absent = Source(warehouse, following.shop).layout.absent()
    assert not [table for table, columns in absent.items() if not columns]


def as_loop_tells(key: str, shop: Told) -> dict[str, Any]:
    row = flat(key, shop, datetime.isoformat) | {name: json.loads(part) for name, part in nested(key, shop).items()}
    for item in row["exchanges"]:
        item["variant_id"] = f"5{key}"
    return row


@IN_EACH_KIND
def test_the_same_events_as_through_any_connector(
    loop: Loop,
    api: LoopApi,
    destination: Any,
    warehouse: sa.Engine,
    ledgers: Callable[[], str],
    floor: Floor,
) -> None:
    reference = Floor(ledgers())
    with closing(reference):
        gaps = [GAPS[gap] for gap in declared("dlt").gaps if gap in GAPS]
        wanted = [
            shown(event)
            for event in events_of(reference, reference.engine, "canonical")
            if not any(gap(event) for gap in gaps)
        ]
    floor.settings(**settings("dlt") | {"loop_api": "loop_api"})
    floor.engine = warehouse
    for at, shop in told():
        for key in shop.returns:
            loop.put(as_loop_tells(key, shop))
        land(warehouse, beside(shop, at))
        # The story's returns do not all say when they were updated last: so the sync asks for everything.
        sync(api, destination, floor.shop, now=at, since=at - 100 * DAY)
        with warehouse.begin() as connection:
            connection.execute(
                sa.text("UPDATE land._dlt_loads SET inserted_at = :at WHERE inserted_at > :at"), {"at": at}
            )
        floor.run(at)
        floor.judge_again(at)
    assert list(map(shown, floor.events())) == wanted


@pytest.mark.parametrize(
    ("conn", "says"),
    [
        ({"host": "https://api.loopreturns.com/api/v1"}, "has no password"),
        ({"host": "https://api.loopreturns.com/api/v1", "password": "…"}, "no API key"),
        ({"host": "http://api.loopreturns.com/api/v1", "password": "k"}, "over plain http"),
        ({"host": "", "password": "k"}, "is no URL"),
        ({"host": "https://api.loopreturns.com:port", "password": "k"}, "is no URL"),
        ({"host": "https://[api.loopreturns.com", "password": "k"}, "is no URL"),
    ],
)
def test_a_connection_that_cannot_do_is_told(conn: dict[str, Any], says: str) -> None:
    with pytest.raises(NeedsMending, match=says):
        loop_api(Connection(conn_id="loop_api", conn_type="http", **conn))


def warehouse_at(conn_type: str, extra: dict[str, Any] | None = None, **parts: Any) -> Connection:
    return Connection(conn_id="loop_warehouse", conn_type=conn_type, extra=json.dumps(extra or {}), **parts)


ACCOUNT = {"account": "merchant-eu", "database": "ANALYTICS"}


@pytest.mark.parametrize(
    ("conn", "says"),
    [
        (warehouse_at("bigquery"), "is of type 'bigquery': loop_attentive_sync loads into PostgreSQL, DuckDB and Snow"),
        (warehouse_at("duckdb"), "names no DuckDB file"),
        (warehouse_at("duckdb", host="md:analytics"), "names no DuckDB file"),
        (warehouse_at("duckdb", password="token-of-motherduck"), "names no DuckDB file"),
        (warehouse_at("duckdb", {"read_only": True}, host="/data/w.duckdb"), "is read_only, and .* must write"),
        (warehouse_at("snowflake", ACCOUNT, login="loader"), "neither a password nor a private key"),
        (warehouse_at("snowflake", ACCOUNT | {"authenticator": "oauth"}, password="p"), "by these two alone"),
        (warehouse_at("snowflake", login="loader", password="secret"), "lacks account and database in its extra"),
    ],
)
def test_a_warehouse_that_the_sync_cannot_fill_is_told(conn: Connection, says: str) -> None:
    with pytest.raises(NeedsMending, match=says):
        to_destination(conn)


@pytest.mark.skipif(find_spec("snowflake") is not None, reason="the client of Snowflake is there")
def test_a_missing_client_is_named_with_what_brings_it() -> None:
    conn = warehouse_at("snowflake", ACCOUNT, login="loader", password="secret")
    with pytest.raises(NeedsMending, match=re.escape(".venv/bin/python -m pip install 'dlt[snowflake]'")):
        landing_of(conn)


def test_snowflake_is_told_what_the_connection_says(tmp_path: Path) -> None:
    more = {"warehouse": "LOADING", "role": "LOADER", "region": "eu-central-1"}
    by_password = credentials(warehouse_at("snowflake", ACCOUNT | more, login="loader", password="secret"))
    assert cast(Any, by_password).to_connector_params() == {
        "account": "merchant-eu.eu-central-1",
        "user": "loader",
        "password": "secret",
        "database": "ANALYTICS",
        "warehouse": "LOADING",
        "role": "LOADER",
        "application": "dltHub_dlt",
        "timezone": "UTC",
    }
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase"))
    (tmp_path / "key.p8").write_bytes(pem)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    for named in (
        {"private_key_content": pem.decode()},
        {"private_key_content": b64encode(pem).decode()},
        {"private_key_file": f"{tmp_path}/key.p8"},
    ):
        by_key = credentials(warehouse_at("snowflake", ACCOUNT | named, login="loader", password="passphrase"))
        by_key.resolve()
        told = cast(Any, by_key).to_connector_params()
        assert (told["private_key"], told["password"]) == (der, None)


def test_connections_to_one_database_are_one_place() -> None:
    """Whose syncs take turns."""
    one, same = (warehouse_at("snowflake", ACCOUNT, login=name, password="secret") for name in ("ann", "bob"))
    other = warehouse_at("snowflake", ACCOUNT | {"account": "another"}, login="ann", password="secret")
    assert place(one) == place(same) != place(other)
    file = warehouse_at("duckdb", host="/data/w.duckdb")
    assert place(file) == place(warehouse_at("duckdb", {"database": "/data/../data/w.duckdb"}))
    assert place(file) != place(warehouse_at("duckdb", host="/data/v.duckdb"))


def test_a_day_of_the_form_begins_by_the_shops_clock() -> None:
    shop = Shop(name="default", time_zone="America/New_York")
    assert first_moment("2026-03-01", shop) == datetime(2026, 3, 1, 5, tzinfo=UTC)
    assert first_moment(None, shop) is None
