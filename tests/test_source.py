"""The source: one form for every value, how far a look reads, and what is said when something is missing."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from queue import SimpleQueue
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import make_conninfo

from loop_attentive import canonical, source
from loop_attentive.errors import NeedsMending
from loop_attentive.migrate import migrate
from loop_attentive.mirror import SourceFailed
from tests.floor import DAY, HOUR, T0, Floor

NEW_YORK = ZoneInfo("America/New_York")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


# ── One form for every value ────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spelling", "meant"),
    [
        ("2026-03-01T12:00:00.000Z", NOON),
        ("2026-03-01T12:00:00+00:00", NOON),
        ("2026-03-01T07:00:00-05:00", NOON),
        ("2026-03-01 12:00:00+00", NOON),
        ("2026-03-01 12:00:00 UTC", NOON),
        (" 2026-03-01T12:00:00Z ", NOON),
        ("2026-03-01 12:00:00.000 +0000", NOON),
        ("2026-03-01 07:00:00.000 -0500", NOON),
        ("2026-03-01 12:00:00 Z", NOON),
        ("2026-03-01 +00:00", None),
        ("2026-03-01T12:00:00.123456Z", NOON.replace(microsecond=123456)),
        ("2026-03-01T12:00:00.1Z", NOON.replace(microsecond=100000)),
        ("2026-03-01 07:00:00", NOON),  # naive: in the shop's zone
        ("2026-03-01T07:00:00.000", NOON),
        ("2026-03-01", NOON - timedelta(hours=7)),
        (datetime(2026, 3, 1, 7), NOON),  # noqa: DTZ001
        (datetime(2026, 3, 1, 13, tzinfo=timezone(HOUR)), NOON),
        (date(2026, 3, 1), NOON - timedelta(hours=7)),
        ("N/A", None),
        ("n/a", None),
        ("", None),
        ("  ", None),
        (None, None),
        ("yesterday", None),
        ("2026-13-01T00:00:00Z", None),
        ("2026-02-30", None),
        ("1767225600", None),
        ("1767225600000", None),
        (1767225600, None),
        (datetime.max, None),  # noqa: DTZ901
        (datetime.min, None),  # noqa: DTZ901
        ("9999-12-31T23:59:59Z", None),  # some sources' never
        ("0001-01-01T00:00:00Z", None),
        ("1611111111000", None),  # an epoch's digits are no date
    ],
)
def test_a_time_in_any_spelling_and_an_unreadable_one_counts_as_absent(spelling: Any, meant: datetime | None) -> None:
    assert canonical.moment(spelling, NEW_YORK) == meant


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (17, "17"), ("17", "17"), (" 17 ", "17"), (17.0, "17"), (Decimal("17"), "17"), (Decimal("17.000"), "17"),
        (2**62 + 1, str(2**62 + 1)), (Decimal("4611686018427387905"), "4611686018427387905"), ("", None), ("N/A", None),
        (" n/a ", None), (None, None), (float("nan"), None), (float("inf"), None), (Decimal("NaN"), None),
        (Decimal("Infinity"), None),
    ],
)  # fmt: skip
def test_an_id_is_trimmed_text_whatever_its_type(value: Any, meant: str | None) -> None:
    assert canonical.identifier(value) == meant


def test_a_phone_and_an_order_may_be_numbers(floor: Floor) -> None:
    for column, kind in (("customer_phone", "double precision"), ("order_name", "numeric(20, 2)")):
        floor.conn.execute(f"ALTER TABLE loop.returns ALTER {column} TYPE {kind} USING NULL")
    floor.start()
    floor.ret("1", created_at=T0 + HOUR, customer_phone=4155552671, order_name=1001)
    [event] = floor.run(T0 + 2 * HOUR)
    assert event.body is not None
    assert (event.body["user"]["phone"], event.properties["order"]) == ("+14155552671", "1001")


def test_a_tracking_number_may_be_a_number() -> None:
    values = (94001, 94001.0, Decimal("94001.00"), " 94 001 ", "n/a", None)
    assert [canonical.tracking_number(value) for value in values] == ["94001"] * 4 + [""] * 2


@pytest.mark.parametrize(
    ("values", "meant"),
    [
        ([True, "true", "TRUE", " t ", "yes", "Y", "1", 1, 1.0, Decimal(1)], True),
        ([False, "false", "F", "no", "n", "0", 0, 0.0, Decimal(0)], False),
        ([None, "", "N/A", "maybe", 2, "-1"], None),
    ],
)
def test_a_flag_may_be_a_boolean_a_number_or_text(values: list[Any], meant: bool | None) -> None:
    assert [canonical.flag(value) for value in values] == [meant] * len(values)
    assert [canonical.flag(bit) for bit in (b"\1", b"\0")] == [True, False]


def test_money_may_be_text_and_negative_and_what_is_none_is_absent() -> None:
    assert canonical.money(" -12.50 ") == Decimal("-12.50")
    assert [canonical.money(value) for value in ("N/A", "", None, "NaN", "Infinity", "12,50")] == [None] * 6


def test_text_loses_its_margins_and_what_no_database_can_hold() -> None:
    assert canonical.text(" #1\0 ") == "#1"
    assert canonical.folded(" Return_To_SENDER ") == "return_to_sender"


# ── Types of columns ────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("columns", "return_id", "created_at", "no"),
    [
        ({"times": "timestamptz"}, "1", "2026-03-01 08:00-05", "false"),
        ({"times": "timestamp"}, "1", "2026-03-01 08:00", "false"),
        ({"times": "text", "flags": "text"}, "1", "2026-03-01T13:00:00.000Z", "No"),
        ({"times": "text", "flags": "integer", "ids": "bigint"}, "1", "2026-03-01 08:00:00", "0"),
        ({"ids": "numeric"}, "1.00", "2026-03-01T13:00:00Z", "false"),
        ({"ids": "double precision"}, "1", "2026-03-01T13:00:00Z", "false"),
        ({"ids": "varchar(20)", "times": "timestamp(0)"}, " 1 ", "2026-03-01T08:00:00", "f"),
    ],
)
def test_ids_times_and_flags_may_be_of_any_type(
    floors: Callable[..., Floor], columns: dict[str, str], return_id: str, created_at: str, no: str
) -> None:
    floor = floors(**columns, time_zone="America/New_York")
    floor.start()
    floor.put("returns", return_id=return_id, state="open", customer_phone="+14155552671", created_at=created_at,
              is_deleted=no)  # fmt: skip
    floor.put("labels", return_id=return_id, tracking_number="1Z1", status="new", created_at=created_at)
    events = floor.run(T0 + 2 * HOUR)
    assert [(e.event_type, e.key, e.occurred_at) for e in events] == [
        ("Loop Return Created", "1", T0 + HOUR),
        ("Loop Label Created", "1|1Z1", T0 + HOUR),
    ]
    assert events[0].properties["returnId"] == 1


@pytest.mark.parametrize("nothing", [None, "", "N/A", " n/a "])
def test_nothing_in_every_column_makes_at_most_an_event_without_it(
    floors: Callable[..., Floor], nothing: str | None
) -> None:
    floor = floors(times="text", flags="text")
    floor.start()
    for table in canonical.TABLES:
        floor.put(table.name, **dict.fromkeys(table.columns, nothing))
        keys = {"return_id": "1", "transaction_id": "2", "exchange_id": "3"}
        floor.put(
            table.name, **dict.fromkeys(table.columns, nothing) | {k: v for k, v in keys.items() if k in table.columns}
        )
    floor.ret("4", customer_phone="+14155552671", **dict.fromkeys(("state", "created_at", "updated_at"), nothing))
    events = floor.run(T0 + HOUR)
    assert {e.return_id: (e.event_type, e.status, e.reason) for e in events} == {
        "1": ("Loop Return Created", "invalid", "no recipient"),
        "4": ("Loop Return Created", "pending", None),
    }
    assert floor.events()[-1].body == {
        "user": {"phone": "+14155552671"}, "properties": {"returnId": 4, "order": "#1001"}
    }  # fmt: skip


def test_a_time_of_postgres_that_python_has_none_for_counts_as_absent_and_stops_nothing(floor: Floor) -> None:
    floor.start()
    for number, never in enumerate(["infinity", "-infinity", "0044-03-15 12:00 BC", "20000-01-01"]):
        floor.ret(str(number), created_at=never, charge_at=never)
    assert {event.occurred_at for event in floor.run(T0 + HOUR)} == {T0 + HOUR}


# ── How far a look reads ────────────────────────────────────────────────────


def read(floor: Floor, at: datetime) -> int:
    return floor.look(at).extracted


def test_each_look_reads_again_from_two_hours_before_the_highest_synced_at(floor: Floor) -> None:
    for number, hours in enumerate([0, 1, 2, 3, 4]):
        floor.ret(str(number), synced_at=T0 - hours * HOUR)
    assert read(floor, T0) == 5
    assert read(floor, T0 + HOUR) == 3  # from exactly two hours before
    floor.ret("5", synced_at=T0 + 2 * HOUR)
    assert read(floor, T0 + 3 * HOUR) == 4
    assert read(floor, T0 + 4 * HOUR) == 2


def test_rows_that_share_the_time_at_the_edge_are_all_read(floor: Floor) -> None:
    for number in range(7):
        floor.ret(str(number), synced_at=T0)
    floor.start()
    floor.ret("7", created_at=T0 + HOUR, synced_at=T0)
    assert [event.return_id for event in floor.run(T0 + 2 * HOUR)] == ["7"]


@pytest.mark.parametrize("times", ["timestamptz(0)", "timestamptz(3)", "timestamp(0)", "timestamp(6)"])
def test_a_source_that_keeps_fewer_digits_of_a_second_loses_no_row(floors: Callable[..., Floor], times: str) -> None:
    floor = floors(times=times, time_zone="America/New_York")
    zoned = times.startswith("timestamptz")
    synced_at = T0 if zoned else T0.astimezone(NEW_YORK).replace(tzinfo=None)
    floor.ret("1", synced_at=synced_at + timedelta(seconds=5.678901))
    floor.start()
    floor.ret("2", synced_at=synced_at + timedelta(seconds=5.678901) - 2 * HOUR)
    assert [event.return_id for event in floor.run(T0 + HOUR)] == ["2"]


def test_a_late_row_with_an_early_time_of_its_own_is_found_by_its_synced_at(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - DAY, updated_at=T0 - DAY, synced_at=T0)
    floor.look(T0 - HOUR)
    floor.look(T0)
    floor.ret(
        "2", created_at=T0 - timedelta(minutes=30), updated_at=T0 - timedelta(minutes=30), synced_at=T0 + 5 * HOUR
    )
    [event] = floor.run(T0 + 6 * HOUR, "Loop Return Created")[1:]
    assert (event.return_id, event.status) == ("2", "pending")


def test_a_row_that_commits_late_with_an_early_timestamp_is_found_by_the_next_look(floor: Floor) -> None:
    floor.ret("1", synced_at=T0)
    floor.start()
    early = T0 + timedelta(minutes=10)
    with psycopg.connect(floor.conninfo) as late:
        late.execute(
            "INSERT INTO loop.returns (return_id, state, created_at, synced_at) VALUES ('2', 'open', %s, %s)",
            (early, early),
        )
        floor.ret("3", created_at=T0 + HOUR, synced_at=T0 + HOUR)
        assert [event.return_id for event in floor.run(T0 + HOUR)] == ["3"]
    assert [event.return_id for event in floor.run(T0 + 2 * HOUR)] == ["2"]


def test_rows_without_a_synced_at_are_read_by_every_look(floor: Floor) -> None:
    floor.ret("1", synced_at=T0)
    floor.ret("2", synced_at=None)
    floor.ret("3", synced_at=T0 - DAY)
    floor.start()
    floor.ret("2", state="closed")
    assert [event.return_id for event in floor.run(T0 + HOUR)] == ["2"]
    assert read(floor, T0 + 2 * HOUR) == 2


def test_times_kept_as_text_have_no_order_to_rely_on_so_the_table_is_read_whole(floors: Callable[..., Floor]) -> None:
    floor = floors(times="text")
    floor.ret("1", synced_at="2026-03-01T12:00:00.000Z")
    floor.ret("2", synced_at="2026-02-01 12:00:00+00:00")
    floor.label("1", status="new", updated_at="N/A", synced_at="2026-02-01 12:00:00")
    floor.start()
    assert read(floor, T0 + HOUR) == 3
    fresh, why_not = floor.fresh(T0 + HOUR, freshness_hours=24)
    assert not fresh
    assert "last synced at 2026-02-01T12:00:00.000000Z" in (why_not or "")


def test_where_there_is_no_synced_at_updated_at_is_followed_and_where_there_is_neither_all_is_read(
    floor: Floor,
) -> None:
    floor.ret("1", updated_at=T0 - 5 * HOUR)
    floor.ret("2", updated_at=T0)
    floor.ret("3")
    floor.transaction("1")
    floor.transaction("2")
    assert read(floor, T0) == 5
    assert read(floor, T0 + HOUR) == 4  # returns 2 and 3; transactions have no updated_at
    floor.ret("1", state="closed", updated_at=T0 + HOUR)
    assert read(floor, T0 + 2 * HOUR) == 5


def test_once_there_is_a_synced_at_it_is_followed(floor: Floor) -> None:
    floor.ret("1", updated_at=T0)
    floor.look(T0)
    floor.ret("1", synced_at=T0 + HOUR)
    floor.ret("2", updated_at=T0 - DAY, synced_at=T0 + HOUR)
    assert read(floor, T0 + 1 * HOUR) == 1  # still by updated_at: only the touched one
    floor.ret("2", state="closed", synced_at=T0 + 2 * HOUR)
    assert [event.event_type for event in floor.run(T0 + 3 * HOUR)] == ["Loop Return Created"] * 2


@pytest.mark.parametrize("column", ["synced_at", "updated_at"])
def test_one_time_in_the_far_future_hides_no_later_row(floor: Floor, column: str) -> None:
    floor.ret("1", **{column: T0})
    floor.ret("2", **{column: T0 + 9000 * DAY})
    floor.start()
    floor.ret("3", created_at=T0 + HOUR, **{column: T0 + HOUR})
    assert [event.return_id for event in floor.run(T0 + 2 * HOUR)] == ["3"]


@pytest.mark.parametrize("ahead", [HOUR, 9000 * DAY])
def test_one_time_in_the_future_hides_no_later_version_of_its_row(floor: Floor, ahead: timedelta) -> None:
    floor.ret("1", created_at=T0 - DAY, updated_at=T0 - DAY)
    floor.label("1", status="new", created_at=T0 - DAY, updated_at=T0 - DAY)
    floor.item("1", "9", out_of_stock=False, updated_at=T0 - DAY)
    floor.start()
    to_come: dict[str, Any] = dict.fromkeys(("updated_at", "synced_at"), T0 + 2 * HOUR + ahead)
    floor.ret("1", state="canceled", **to_come)
    floor.label("1", status="in_transit", **to_come)
    floor.item("1", "9", out_of_stock=True, **to_come)
    changed = {"Loop Return Status Updated", "Loop Label Updated"}
    told = floor.run(T0 + 2 * HOUR)
    assert {(event.event_type, event.status, event.reason) for event in told} == {
        (name, "invalid", "occurredAt: more than ten minutes ahead")
        for name in {*changed, "Loop Exchange Out Of Stock"}
    }
    later: dict[str, Any] = dict.fromkeys(("updated_at", "synced_at"), T0 + 2.5 * HOUR)
    floor.ret("1", state="closed", **later)
    floor.label("1", status="delivered", **later)
    floor.item("1", "9", out_of_stock=False, restocked_at=T0 + 2.5 * HOUR, **later)
    told = floor.run(T0 + 3 * HOUR)
    assert {(event.event_type, event.status) for event in told} == {
        (name, "pending") for name in {*changed, "Loop Out Of Stock Resolved"}
    }


def test_naive_times_are_compared_as_the_source_has_them(floors: Callable[..., Floor]) -> None:
    floor = floors(times="timestamp", time_zone="America/New_York")
    for number, local in enumerate(["2026-03-01 07:00", "2026-03-01 05:00", "2026-03-01 04:59"]):
        floor.ret(str(number), synced_at=local)
    assert read(floor, T0) == 3
    assert read(floor, T0 + HOUR) == 2


def test_a_time_zone_that_is_put_right_leaves_no_newer_row_out(floors: Callable[..., Floor]) -> None:
    """What was read as if five hours ahead must not look newer than what comes after it; nor is it passed over."""
    floor = floors(times="timestamp", time_zone="America/New_York")
    at = dict.fromkeys(("updated_at", "synced_at"), "2026-03-01 11:00")
    floor.ret("1", created_at="2026-02-20 09:00", **at)
    floor.label("1", status="new", created_at="2026-02-20 09:00", **at)
    floor.ret("2", **dict.fromkeys(("created_at", "updated_at", "synced_at"), "2026-02-20 09:00"))
    floor.label("9", status="new", created_at="2026-02-20 09:00", **at)  # waits for its return
    floor.start()
    floor.look(T0 + HOUR / 2, whole=True)
    floor.settings(time_zone="UTC")
    assert floor.look(T0 + HOUR * 0.6, whole=True).as_of == T0 + HOUR * 0.6, "no look by the wrong zone serves"
    assert floor.one("SELECT updated_at FROM mirror_waiting") == (T0 - HOUR,)
    later = dict.fromkeys(("updated_at", "synced_at"), "2026-03-01 12:30")
    floor.ret("1", state="closed", created_at="2026-02-20 09:00", **later)
    floor.label("1", status="in_transit", created_at="2026-02-20 09:00", **later)
    changes = ("Loop Return Status Updated", "Loop Label Updated")
    assert {(e.event_type, e.occurred_at) for e in floor.run(T0 + HOUR, *changes)} == {
        (name, T0 + HOUR / 2) for name in changes
    }
    assert floor.run(T0 + 2 * HOUR) == []
    assert read(floor, T0 + 6 * HOUR) == 3, "by its cursor again"


@pytest.mark.parametrize("times", ["timestamp", "timestamptz"])
def test_what_changes_as_a_time_zone_is_put_right_but_has_no_newer_updated_at_is_timed_by_the_look(
    floors: Callable[..., Floor], times: str
) -> None:
    floor = floors(times=times, time_zone="America/New_York")
    at = dict.fromkeys(("updated_at", "synced_at"), "2026-02-22 11:00+00")
    for return_id, number in (("1", "1Z1"), ("2", None)):
        floor.ret(return_id, created_at="2026-02-20 09:00+00", **at)
        floor.label(return_id, number, status="new", **at)
    floor.item(out_of_stock=False, **at)
    floor.start()
    floor.settings(time_zone="UTC")
    floor.ret(state="closed")
    floor.label(status="in_transit")
    floor.renumber_label("2", number="1Z2")
    floor.item(out_of_stock=True)
    changes = ("Return Status Updated", "Label Updated", "Label Created", "Exchange Out Of Stock")
    told = floor.run(T0 + HOUR, *(f"Loop {name}" for name in changes))
    assert {e.event_type.removeprefix("Loop "): (e.occurred_at, e.status) for e in told} == dict.fromkeys(
        changes, (T0 + HOUR, "pending")
    )


def test_a_time_zone_and_a_schema_that_are_put_right_at_once_leave_no_newer_row_out(
    floors: Callable[..., Floor],
) -> None:
    floor = floors(times="timestamp", time_zone="America/New_York")
    floor.ret("1", created_at="2026-02-20 09:00", updated_at="2026-03-01 11:00")
    floor.start()
    floor.settings(time_zone="UTC", schema="other")
    floor.conn.execute("ALTER SCHEMA loop RENAME TO other")
    floor.conn.execute("UPDATE other.returns SET state = 'closed', updated_at = '2026-03-01 12:30'")
    floor.look(T0 + HOUR)
    assert floor.one("SELECT state FROM mirror_return") == ("closed",)


def test_ten_rows_a_chunk_or_all_at_once_is_the_same(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "CHUNK", 10)
    for number in range(35):
        floor.ret(str(number), synced_at=T0 - number * HOUR)
    assert read(floor, T0) == 35
    assert read(floor, T0 + HOUR) == 3


# ── What is missing ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("table", ["returns", "exchange_items", "transactions"])
def test_a_missing_table_is_named_in_one_line(floor: Floor, table: str) -> None:
    floor.conn.execute(f"DROP TABLE loop.{table}")
    with pytest.raises(NeedsMending, match=f"there is no table loop.{table}") as raised:
        floor.look(T0)
    assert "\n" not in str(raised.value)
    assert "loop_warehouse" in str(raised.value)


def test_missing_columns_of_several_tables_are_named_in_one_line(floor: Floor) -> None:
    floor.conn.execute("ALTER TABLE loop.returns DROP COLUMN charge_at, DROP COLUMN state")
    floor.conn.execute("ALTER TABLE loop.labels DROP COLUMN synced_at")
    with pytest.raises(NeedsMending) as raised:
        floor.look(T0)
    assert "table loop.returns lacks charge_at, state; table loop.labels lacks synced_at" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_another_schema_is_where_the_settings_say(floor: Floor) -> None:
    floor.conn.execute("ALTER SCHEMA loop RENAME TO merchant_data")
    with pytest.raises(NeedsMending, match="set the shop's schema"):
        floor.look(T0)
    floor.settings(schema="merchant_data")
    assert read(floor, T0) == 0


@pytest.mark.parametrize("schema", ["user", "Loop_Data", "LOOP"])
def test_a_schema_may_be_a_word_of_sql_or_hold_capitals(floor: Floor, schema: str) -> None:
    floor.conn.execute(sql.SQL("ALTER SCHEMA loop RENAME TO {}").format(sql.Identifier(schema)))
    (database,) = floor.one("SELECT current_database()")
    for hours, name in enumerate((schema, f"{database}.{schema}")):
        floor.settings(schema=name)
        assert read(floor, T0 + hours * HOUR) == 0


def test_without_a_labels_table_the_look_goes_on_and_nobody_is_reminded(
    floor: Floor, caplog: pytest.LogCaptureFixture
) -> None:
    floor.conn.execute("DROP TABLE loop.labels")
    floor.start()
    floor.ret(created_at=T0 - 20 * DAY, labels_enabled=True, state="open")
    with caplog.at_level(logging.WARNING, "loop_attentive"):
        look = floor.look(T0 + 2 * DAY)
    assert "no table labels" in caplog.text
    result = floor.qualify(look)
    assert {name for name, qualified in result.items() if qualified.stale} == {
        "Loop Return Expiring",
        "Loop Return Expired",
        "Loop Instant Exchange Reminder",
        "Loop Instant Exchange Notice",
    }
    assert [event.event_type for event in floor.events()] == ["Loop Return Created"]


def test_a_labels_table_that_is_gone_is_an_error_and_one_that_comes_later_is_welcome(floor: Floor) -> None:
    floor.conn.execute("ALTER TABLE loop.labels RENAME TO labels_later")
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.conn.execute("ALTER TABLE loop.labels_later RENAME TO labels")
    floor.label(status="new")
    assert [event.reason for event in floor.run(T0 + HOUR)] == ["baseline"]  # a first look at that table
    floor.label(number="2", status="new")
    assert [event.key for event in floor.run(T0 + 2 * HOUR)] == ["1|2"]
    floor.conn.execute("DROP TABLE loop.labels")
    with pytest.raises(NeedsMending, match=r"there is no table loop\.labels"):
        floor.look(T0 + 3 * HOUR)


def test_a_view_serves_as_well_as_a_table(floor: Floor) -> None:
    floor.conn.execute("ALTER TABLE loop.returns RENAME TO raw")
    floor.conn.execute("CREATE VIEW loop.returns AS SELECT * FROM loop.raw")
    assert read(floor, T0) == 0


def test_a_row_without_an_id_is_left_out_and_counted(floor: Floor, caplog: pytest.LogCaptureFixture) -> None:
    floor.put("returns", return_id="N/A", customer_phone="+14155552671")
    with caplog.at_level(logging.WARNING, "loop_attentive"):
        floor.start()
    assert "Left out 1 rows of returns without an id." in caplog.text
    assert "4155552671" not in caplog.text


def test_an_empty_warehouse_and_a_source_that_fails_while_it_is_read(floor: Floor) -> None:
    assert floor.run(T0) == []
    floor.conn.execute("ALTER TABLE loop.transactions RENAME TO raw")
    floor.conn.execute(
        "CREATE VIEW loop.transactions AS SELECT transaction_id, return_id, kind, gateway, status, amount, currency, "
        "created_at, (now() + 1 / (length(transaction_id) - 1) * interval '1 day') AS synced_at FROM loop.raw"
    )
    floor.conn.execute("INSERT INTO loop.raw (transaction_id) VALUES ('x')")
    with pytest.raises(SourceFailed, match="Reading transactions from connection loop_warehouse failed"):
        floor.look(T0 + HOUR)


def test_a_source_that_may_not_be_read_is_a_persons_matter(floor: Floor) -> None:
    floor.conn.execute("CREATE ROLE stranger LOGIN")
    try:
        floor.engine = sa.create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(floor.conninfo, user="stranger")
        )
        floor.conn.execute("GRANT USAGE ON SCHEMA loop TO stranger")
        with pytest.raises(NeedsMending, match=r"loop_warehouse may not read table loop\.returns, .*: grant"):
            floor.look(T0)
    finally:
        floor.engine.dispose()
        floor.conn.execute("DROP OWNED BY stranger; DROP ROLE stranger")


def test_a_warehouse_that_cannot_be_reached_is_told_in_one_line(floor: Floor) -> None:
    for user, error, words in (
        ("nobody_there", NeedsMending, "The database of connection loop_warehouse refused the log-in"),
        (None, SourceFailed, "from connection loop_warehouse failed .*is the warehouse up"),
    ):
        where = {"user": user} if user else {"host": "/nowhere"}
        floor.engine = sa.create_engine(
            "postgresql+psycopg://", creator=lambda where=where: psycopg.connect(floor.conninfo, **where)
        )
        with pytest.raises(error, match=words):
            floor.look(T0)


def test_a_clock_that_is_more_than_five_minutes_off_stops_the_look(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = source.Source.clock
    for minutes, stops in ((4, False), (-4, False), (6, True), (-6, True)):
        monkeypatch.setattr(source.Source, "clock", lambda self, m=minutes: clock(self) + timedelta(minutes=m))
        if stops:
            with pytest.raises(NeedsMending, match="clock of the source of connection loop_warehouse"):
                floor.look(T0)
        else:
            floor.look(T0 + timedelta(minutes=minutes))


def test_the_source_tells_its_time_in_whatever_zone_its_session_is(floor: Floor) -> None:
    floor.conn.execute("ALTER ROLE CURRENT_USER SET timezone = 'Asia/Tokyo'")
    try:
        now = source.Source(floor.engine, floor.shop).clock()
        floor.ret(created_at=T0 - HOUR)
        floor.start()
        assert [event.occurred_at for event in floor.events()] == [T0 - HOUR]
    finally:
        floor.conn.execute("ALTER ROLE CURRENT_USER RESET timezone")
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=1)


OTHER_DEFAULTS = (
    "timezone = 'America/New_York'", "datestyle = 'SQL, DMY'", "intervalstyle = 'sql_standard'",
    "default_transaction_isolation = 'repeatable read'", "standard_conforming_strings = off", "bytea_output = 'escape'",
    "extra_float_digits = -5", "lock_timeout = '1ms'", "statement_timeout = '1s'",
    "idle_in_transaction_session_timeout = '1ms'",
)  # fmt: skip


@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII"])
def test_servers_may_have_other_defaults(postgres: str, encoding: str) -> None:
    """Both the ledger's and the warehouse's, with its times as a connector lands them."""
    name = f"other_{encoding.lower()}"
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {encoding} LOCALE 'C'")
        try:
            for setting in OTHER_DEFAULTS:
                server.execute(f"ALTER DATABASE {name} SET {setting}")
            conninfo = make_conninfo(postgres, dbname=name)
            migrate(conninfo)
            with closing(Floor(conninfo)) as floor:
                floor.engine = sa.create_engine(
                    "postgresql+psycopg://",
                    creator=lambda: psycopg.connect(
                        conninfo, client_encoding="UTF8", options="-c idle_in_transaction_session_timeout=0"
                    ),
                )
                floor.ret(state="open", order_name="#1 é", created_at=T0 - DAY, synced_at=T0)
                floor.start()
                floor.ret(state="closed", updated_at=T0 + HOUR, synced_at=T0 + HOUR)
                floor.label(status="new", created_at=T0 + HOUR)
                floor.item(out_of_stock=True)
                events = floor.run(T0 + 2 * HOUR)
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert [(e.event_type, e.key, e.occurred_at, e.properties["order"]) for e in events] == [
        ("Loop Return Status Updated", "1|closed|2026-03-01T14:00:00.000000Z", T0 + HOUR, "#1 é"),
        ("Loop Label Created", "1|1Z1", T0 + HOUR, "#1 é"),
        ("Loop Exchange Out Of Stock", "1|2026-03-01T14:00:00.000000Z", T0 + 2 * HOUR, "#1 é"),
    ]


def test_a_warehouse_waits_while_what_was_read_is_worked_on(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large table a chunk is read while others wait, inside a transaction, whatever the server allows others."""
    monkeypatch.setattr(source, "CHUNK", 1)
    for number in range(10):
        floor.ret(str(number))
    floor.engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(floor.conninfo, options="-c idle_in_transaction_session_timeout=200ms"),
    )
    origin = source.Source(floor.engine, floor.shop)
    assert origin.absent() == []
    read = 0
    for raw in origin.read(canonical.RETURNS, source.Cursor()):
        read += len(raw.rows)
        time.sleep(0.4 if read == 1 else 0)
    assert read == 10


def test_reading_writes_nothing(floor: Floor) -> None:
    floor.ret()
    with psycopg.connect(floor.conninfo, autocommit=True) as conn:
        before = conn.execute("SELECT xmin, * FROM loop.returns").fetchall()
        floor.look(T0)
        assert conn.execute("SELECT xmin, * FROM loop.returns").fetchall() == before


def test_the_next_chunk_is_read_while_the_last_one_is_worked_on() -> None:
    made: SimpleQueue[int] = SimpleQueue()

    def counting() -> Iterator[int]:
        for number in range(9):
            made.put(number)
            yield number

    chunks = source.ahead(counting(), most=2)
    assert next(chunks) == 0
    assert [made.get(timeout=30) for _ in range(3)] == [0, 1, 2]  # two wait to be taken, though nobody asked
    assert [*chunks] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_fails_while_it_is_read_fails_where_it_is_taken() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ConnectionResetError("the warehouse went away")

    chunks = source.ahead(failing())
    assert next(chunks) == 1
    with pytest.raises(ConnectionResetError, match="went away"):
        next(chunks)


def test_nobody_waits_for_a_warehouse_that_never_answers() -> None:
    answer = threading.Event()

    def silent() -> Iterator[int]:
        yield 1
        answer.wait()

    chunks = source.ahead(silent())
    assert next(chunks) == 1
    chunks.close()  # returns at once
    answer.set()
