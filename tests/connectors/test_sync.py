"""The sync of our own: what Loop's API holds arrives, once, whole, and within what Loop allows."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import dlt
import psycopg
import pytest
import sqlalchemy as sa
from airflow.sdk import Connection
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from loop_attentive.errors import NeedsMending
from loop_attentive.loop_api import APART, LONGEST_WINDOW, LoopApi, LoopAway, windows
from loop_attentive.settings import Shop
from loop_attentive.source import Source
from loop_attentive.sync import Landed, SyncFailed, sync
from loop_attentive.sync_operators import destination as to_destination
from loop_attentive.sync_operators import first_moment, loop_api
from sandbox.loop import Loop, running_loop
from sandbox.processes import wait_until
from tests.connectors import Shop as Told
from tests.connectors import beside, flat, land, nested, settings, told
from tests.connectors.syncing import destination as dlts_destination
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
def destination(database: str) -> Any:
    return dlts_destination(database)


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
    assert min(after - before for before, after in pairwise([0, *times])) >= APART - 1e-9, "nor with the sync before"
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


def scenes() -> Iterator[tuple[str | None, list[dict[str, Any]]]]:
    """A table that a sync is killed at, and what has changed at Loop before."""
    yield None, [ret(1, NOW, labels=[{"tracking_number": "941", "status": "new"}])]
    tables = ["loop_staging.returns", "loop.returns", "loop.returns__labels", "loop.advanced_shipping_notices"]
    for number, table in enumerate([*tables, "loop._dlt_pipeline_state", "loop._dlt_loads"], start=2):
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


def test_a_sync_that_is_killed_anywhere_loses_nothing_and_makes_no_wrong_event(
    loop: Loop, api: LoopApi, destination: Any, database: str, warehouse: sa.Engine, floor: Floor,
    ledgers: Callable[[], str], tmp_path: Path,
) -> None:  # fmt: skip
    """Before it writes, within its merge, between its tables, before it is recorded; a look beside it each time."""
    floor.settings(loop_api="loop_api")
    floor.engine = warehouse
    wanted: list[Any] = []
    for number, (table, changes) in enumerate(scenes(), start=1):
        now = NOW + number * HOUR
        for row in changes:
            loop.put(row)
            loop.notices.append(
                {"id": row["id"], "return_line_item_id": f"i{row['id']}", "created_at": now.isoformat()}
            )
        if table:
            with stopped_at(table, database) as is_waiting:
                process = started(loop, database, floor.shop, now, tmp_path)
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
        for number, (_, changes) in enumerate(scenes(), start=1):
            for row in changes:
                loop.put(row)
            sync(api, destination, calm.shop, now=NOW + number * HOUR)
            calm.run(NOW + number * HOUR + 3 * MINUTE)
            assert wanted[number - 1] == told_of(calm.events()), number


def test_what_a_killed_sync_left_on_the_disk_goes_with_the_next(
    loop: Loop, api: LoopApi, destination: Any, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(api, destination, SHOP, now=NOW)
    loop.put(ret(1, NOW))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with stopped_at("loop.returns", database) as is_waiting:
        process = started(loop, database, SHOP, NOW + MINUTE, tmp_path)
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
    loop: Loop, api: LoopApi, destination: Any, database: str, warehouse: sa.Engine, ledger: str, tmp_path: Path
) -> None:
    sync(api, destination, SHOP, now=NOW)
    for number in range(5):
        loop.put(ret(number, NOW + MINUTE))
    with stopped_at("loop_staging.returns", database) as is_waiting:
        first = started(loop, database, SHOP, NOW + 5 * MINUTE, tmp_path, ledger)
        wait_until(is_waiting, "the first sync writes", 60, every=0.05)
        asked = len(loop.asked)
        for number in range(5, 8):
            loop.put(ret(number, NOW + 6 * MINUTE))
        second = started(loop, database, SHOP, NOW + 10 * MINUTE, tmp_path, ledger)
        with psycopg.connect(ledger, autocommit=True) as watcher:
            waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            wait_until(lambda: watcher.execute(waits).rowcount > 0, "the second waits", 60, every=0.05)
        assert len(loop.asked) == asked, "it asks for nothing meanwhile"
    for process in (first, second):
        process.join(60)
        assert process.exitcode == 0, (tmp_path / "said").read_text()
    assert sorted(rows(warehouse, "SELECT id FROM loop.returns")) == [(str(number),) for number in range(8)]
    assert loop.refused == []


def test_nobody_is_told_of_a_row_that_the_warehouse_refuses(
    loop: Loop, api: LoopApi, destination: Any, database: str, tmp_path: Path
) -> None:
    """A database quotes it in its error, and dlt quotes the database."""
    sync(api, destination, SHOP, now=NOW)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("ALTER TABLE loop.returns ADD CHECK (customer NOT LIKE 'ann@%')")
    loop.put(ret(1, NOW + MINUTE, order_name="#canary"))
    process = started(loop, database, SHOP, NOW + 5 * MINUTE, tmp_path)
    process.join(120)
    said = (tmp_path / "said").read_text()
    assert process.exitcode == 1
    assert "SyncFailed: The sync stopped at its step load" in said
    for canary in ("ann@example.com", "#canary", loop.key):
        assert canary not in said


def test_somebody_elses_table_is_left_as_it_is(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine
) -> None:
    loop.put(ret(1))
    with warehouse.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA loop"))
        connection.execute(sa.text("CREATE TABLE loop.returns (return_id text)"))
    with pytest.raises(NeedsMending, match="holds a table returns that the sync did not make"):
        sync(api, destination, SHOP, now=NOW)
    columns = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'loop'"
    assert rows(warehouse, columns) == [("return_id",)]
    assert loop.asked == []


def test_what_dlt_remembers_does_not_pile_up(
    loop: Loop, api: LoopApi, destination: Any, warehouse: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loop_attentive.sync.STATES_KEPT", 2)
    for number in range(5):
        loop.put(ret(1, NOW + number * MINUTE))
        assert sync(api, destination, SHOP, now=NOW + number * MINUTE).returns == 1
    assert rows(warehouse, "SELECT count(*) FROM loop._dlt_pipeline_state") == [(2,)]
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
