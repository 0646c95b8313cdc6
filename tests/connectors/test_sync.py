"""The sync of our own: what Loop's API holds arrives, once, whole, and within what Loop allows."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import dlt
import pytest
import sqlalchemy as sa
from airflow.sdk import Connection
from psycopg.conninfo import conninfo_to_dict

from loop_attentive.errors import NeedsMending
from loop_attentive.loop_api import APART, LONGEST_WINDOW, LoopApi, LoopAway, windows
from loop_attentive.settings import Shop
from loop_attentive.sync import Landed, SyncFailed, sync
from loop_attentive.sync_operators import destination as to_destination
from loop_attentive.sync_operators import first_moment, loop_api
from sandbox.loop import Loop, running_loop
from tests.connectors import Shop as Told
from tests.connectors import beside, flat, land, nested, settings, told
from tests.connectors.test_story import GAPS, declared, events_of, shown
from tests.floor import Floor

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
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


@pytest.fixture
def api(loop: Loop) -> Iterator[LoopApi]:
    clock = Clock()
    with closing(LoopApi(loop.url, loop.key, sleep=clock.sleep, monotonic=clock)) as api:
        yield api


@pytest.fixture
def destination(database: str) -> Any:
    at = conninfo_to_dict(database)
    return dlt.destinations.postgres(
        credentials=f"postgresql://{at['user']}:@localhost:5432/{at['dbname']}?host={at['host']}"
    )


@pytest.fixture
def warehouse(database: str) -> Iterator[sa.Engine]:
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


def test_what_a_return_no_longer_has_goes(loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine) -> None:
    loop.put(ret(1, labels=[{"tracking_number": "94"}, {"tracking_number": "95"}]))
    sync(api, destination, SHOP, now=NOW)
    loop.put(ret(1, NOW + MINUTE, labels=[{"tracking_number": "95"}]))
    sync(api, destination, SHOP, now=NOW + 5 * MINUTE)
    assert rows(warehouse, "SELECT tracking_number FROM loop.returns__labels") == [("95",)]


def test_a_sync_that_found_nothing_leaves_its_mark(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine
) -> None:
    """By which the freshness of a quiet shop is judged."""
    for number in range(3):
        sync(api, destination, SHOP, now=NOW + number * MINUTE)
    assert rows(warehouse, "SELECT count(DISTINCT load_id) FROM loop._dlt_loads") == [(3,)]


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
    assert min(after - before for before, after in pairwise(times)) >= APART - 1e-9
    assert 60 / APART < 300


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
    nowhere = dlt.destinations.postgres(credentials=f"postgresql://nobody:@localhost:5432/none?host={at['host']}")
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


def test_the_tracking_url_of_the_shipping_notices_reaches_the_event(
    loop: Loop, api: LoopApi, destination: Any, floor: Floor, warehouse: sa.Engine
) -> None:
    floor.settings(loop_api="loop_api")
    floor.engine = warehouse
    sync(api, destination, floor.shop, now=NOW)
    floor.run(NOW)
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
    assert sync(api, destination, floor.shop, now=NOW + 5 * MINUTE) == Landed(returns=1, notices=1)
    floor.run(NOW + 10 * MINUTE)
    [event] = [event for event in floor.events() if event.event_type == "Loop Label Created"]
    assert event.properties["trackingUrl"] == "https://track/94"


def as_loop_tells(key: str, shop: Told) -> dict[str, Any]:
    row = flat(key, shop, datetime.isoformat) | {name: json.loads(part) for name, part in nested(key, shop).items()}
    for item in row["exchanges"]:
        item["variant_id"] = f"5{key}"
    return row


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
        ({"host": "http://api.loopreturns.com/api/v1", "password": "k"}, "over plain http"),
        ({"host": "", "password": "k"}, "is no URL"),
    ],
)
def test_a_connection_that_cannot_do_is_told(conn: dict[str, Any], says: str) -> None:
    with pytest.raises(NeedsMending, match=says):
        loop_api(Connection(conn_id="loop_api", conn_type="http", **conn))


def test_a_warehouse_that_the_sync_cannot_fill_is_told() -> None:
    with pytest.raises(NeedsMending, match="is of type 'snowflake': loop_attentive_sync loads into PostgreSQL"):
        to_destination(Connection(conn_id="loop_warehouse", conn_type="snowflake"))


def test_a_day_of_the_form_begins_by_the_shops_clock() -> None:
    shop = Shop(name="default", time_zone="America/New_York")
    assert first_moment("2026-03-01", shop) == datetime(2026, 3, 1, 5, tzinfo=UTC)
    assert first_moment(None, shop) is None
