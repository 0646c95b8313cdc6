"""Nonsense in any column of any connector's tables: no run stops, and what stands beside it is told as ever."""

import random
import re
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from loop_attentive import canonical, mirror
from loop_attentive.canonical import Table
from loop_attentive.payload import RETURN_STATUSES
from loop_attentive.source import Cursor, Raw, Source
from tests.connectors import LANDINGS, Tables, land, settings, told
from tests.floor import DAY, HOUR, T0, Event, Floor

NONSENSE = (
    None,
    "",
    " ",
    "N/A",
    "null",
    "None",
    "💥",
    "\ud7ff",
    "x" * 5_000,
    "".join(random.Random(0).choices("0123456789abcdefghijklmnop", k=20_000)),  # does not compress
    " 007 ",
    "-5",
    "1e3",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "-0044-03-15",
    "2026-03-01T24:00:00",
    "infinity",
    "-infinity",
    '[{"tracking_number": "\\u0000\\ud800", "status": "\\udfff", "exchange_id": "\\ud83d"}]',
    '[{"exchange_id": 1e999, "out_of_stock": NaN, "status": -Infinity}]',
    '[{"exchange_id": ' + "9" * 5_000 + "}]",
    "[" * 100_000,
    "{1,2,3}",
    "'; DROP TABLE loop.returns; --",
    "%s :position {0}",
    "{",
    "[",
    "[{}]",
    "[[]]",
    "[1, null]",
    '[{"status": {"a": 1}, "tracking_number": [1], "exchange_id": true}]',
    '[{"status": "delivered", "exchange_id": "1", "out_of_stock": "maybe"}]',
    "-1",
    "0",
    "1e309",
    "NaN",
    "Infinity",
    "infinity",
    "9" * 400,
    "2026-13-45T99:99:99Z",
    "0001-01-01",
    "9999-12-31T23:59:59Z",
    "1767225600",
    "true",
    "cancelled",
)
HUGE = "".join(random.Random(1).choices("0123456789abcdef", k=1_000_000))
KEYS = ("return_id", "return_list_id", "return_cancelled_id", "_dlt_parent_id", "_dlt_id", "return_line_item_id", "id")
"""Columns that tell which return a row is of, in its last three digits."""

SYSTEM = re.compile(r"_.*|inserted_at|synced_at|load_id|status|amount")
"""What the connector itself writes, in types of its own."""


def number(row: dict[str, Any]) -> int:
    return next(int(str(row[key])[-3:]) for key in KEYS if key in row)


def fuzzed(tables: Tables, rng: random.Random | None) -> Tables:
    """Loop's tables, all as text; with nonsense in half of the columns of the odd returns' rows."""
    result: Tables = {}
    for name, rows in tables.items():
        if not name.startswith("land.") or name.endswith("_dlt_loads"):
            continue
        result[name] = []
        for row in rows:
            is_odd = bool(rng) and number(row) % 2
            new: dict[str, Any] = {}
            for column, value in row.items():
                is_system = SYSTEM.fullmatch(column) and not (column == "status" and "labels" in name)
                spelt = value.isoformat() if isinstance(value, datetime) else str(value)
                new[column] = value if is_system or value is None else spelt
                if rng and is_odd and not is_system and rng.random() < 0.5:
                    new[column] = rng.choice((*NONSENSE, HUGE))
            result[name].append(new)
    return result


def events_of(floor: Floor, connector: str, rng: random.Random | None) -> list[Event]:
    floor.settings(**settings(connector) | {"shopify": None, "stripe": None})
    for at, shop in list(told())[:5]:
        tables = LANDINGS[connector](shop, at)
        extra = {name: rows for name, rows in tables.items() if name.endswith("_dlt_loads")}
        land(floor.engine, fuzzed(tables, rng) | extra, is_complete=connector == "canonical")
        floor.run(at)
    return floor.events()


def of_even_returns(events: list[Event]) -> list[tuple[Any, ...]]:
    return [
        (event.event_type, event.return_id, event.key, event.occurred_at, event.status, event.reason, event.body)
        for event in events
        if re.fullmatch(r"1[0-5][02468]", event.return_id)
    ]


@pytest.fixture(scope="module")
def unspoilt() -> dict[str, list[tuple[Any, ...]]]:
    """What each connector yields of even returns when nothing is odd, told once."""
    return {}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("connector", LANDINGS)
def test_nonsense_stops_nothing_and_harms_no_other_row(
    ledgers: Any, unspoilt: dict[str, list[tuple[Any, ...]]], connector: str, seed: int
) -> None:
    if connector not in unspoilt:
        with closing(Floor(ledgers())) as clean:
            unspoilt[connector] = of_even_returns(events_of(clean, connector, None))
    wanted = unspoilt[connector]
    with closing(Floor(ledgers())) as spoilt:
        found = events_of(spoilt, connector, random.Random(seed))
    assert len(wanted) > 30
    assert of_even_returns(found) == wanted, f"seed {seed}"
    for event in found:
        if event.status == "pending":
            assert isinstance(event.properties["returnId"], int)
            assert event.properties.get("returnStatus", "open") in RETURN_STATUSES


# ── What a driver may hand over ─────────────────────────────────────────────

VALUES: tuple[Any, ...] = (
    *NONSENSE,
    "\ud800",
    "a\0b",
    0, -7, 10**30, 10**5_000, True, False,
    float("nan"), float("inf"), -0.0, 1.5, 1e22, 1e300,
    Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("1E+30"), Decimal("1E+1000000"), Decimal("1E-5000"),
    Decimal("0." + "1" * 20_000),
    datetime.min, datetime.max,  # noqa: DTZ901
    datetime(2, 1, 1, tzinfo=timezone(timedelta(hours=14))),
    datetime(9998, 12, 31, 23, tzinfo=timezone(-timedelta(hours=14))), datetime(2030, 1, 1, tzinfo=UTC), date.min,
    datetime.fromisoformat("2026-03-01T11:00"), date.max, date(2026, 3, 1), time(23, 59), timedelta.max,
    b"", b"\x00\xff", memoryview(b"abc"), uuid.UUID(int=1), [], [1, None], [["a"]], {}, {"a": [1]}, (1, 2), object(),
)  # fmt: skip
"""A column of any type may stand where another is due."""

NOW = T0 + DAY


def sound(number: str) -> dict[str, tuple[Any, ...]]:
    """Rows of one return that makes events of most types."""
    at = NOW - HOUR
    rows: dict[str, dict[str, Any]] = {
        "returns": {"return_id": number, "state": "open", "outcome": "refund", "order_name": f"#{number}",
                    "customer_email": "ann@example.com", "customer_phone": "+14155552671", "status_page_url": "https://s",
                    "labels_enabled": True, "is_instant_exchange": True, "charge_at": NOW + 3 * HOUR,
                    "created_at": at, "updated_at": at, "synced_at": at, "is_deleted": False},
        "labels": {"return_id": number, "carrier": "USPS", "tracking_number": f"94{number}", "tracking_url": "https://t",
                   "label_url": "https://l", "status": "new", "created_at": at, "updated_at": at, "synced_at": at},
        "exchange_items": {"return_id": number, "exchange_id": "1", "out_of_stock": True, "resolution": None,
                           "restocked_at": None, "updated_at": at, "synced_at": at},
        "transactions": {"transaction_id": f"t{number}", "return_id": number, "kind": "payment", "gateway": "stripe",
                         "status": "succeeded", "amount": Decimal("1.00"), "currency": "usd", "created_at": at,
                         "synced_at": at},
    }  # fmt: skip
    return {table.name: tuple(rows[table.name][column] for column in table.columns) for table in canonical.TABLES}


class Handed(Source):
    """A source whose rows are given, as Python holds them."""

    rows: dict[str, list[tuple[Any, ...]]]

    def read(self, table: Table, since: Cursor) -> Iterator[Raw]:
        yield Raw(self.rows[table.name])


def test_no_value_in_any_column_stops_a_run_or_makes_a_wrong_event(floor: Floor) -> None:
    floor.settings(max_events_per_run=1_000_000)
    floor.start()
    handed = Handed(floor.engine, floor.shop)
    handed.rows = {table.name: [] for table in canonical.TABLES}
    number = 0
    odd: dict[str, tuple[str, Any]] = {}
    for table in canonical.TABLES:
        for place, column in enumerate(table.columns):
            for value in VALUES:
                number += 1
                odd[str(number)] = column, value
                for name, row in sound(str(number)).items():
                    is_odd = name == table.name
                    handed.rows[name].append((*row[:place], value, *row[place + 1 :]) if is_odd else row)
    for name, row in sound("900000").items():
        handed.rows[name].append(row)
    floor.qualify(mirror.look(floor.conn, handed, at=NOW))
    events = floor.events()
    wanted = {event.event_type: event for event in events if event.return_id == "900000"}
    assert len(wanted) == 5
    assert all(event.status == "pending" for event in wanted.values())
    for event in events:
        assert event.status in ("pending", "suppressed", "invalid", "expired"), event
        assert event.status == "pending" or (event.reason is not None and event.body is None), event
        if event.status == "pending" and event.return_id in odd:
            column, value = odd[event.return_id]
            assert event.properties["returnId"] == int(event.return_id), (column, value)
            assert NOW - DAY <= event.occurred_at <= NOW, (column, value)
            assert event.event_type in wanted, (column, value)
