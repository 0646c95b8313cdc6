"""Nonsense in any column of any connector's tables: no run stops, and what stands beside it is told as ever."""

import random
import re
from datetime import datetime
from typing import Any

import pytest

from loop_attentive.payload import RETURN_STATUSES
from tests.connectors import LANDINGS, Tables, land, settings, told
from tests.floor import Event, Floor

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
                    new[column] = rng.choice(NONSENSE)
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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("connector", LANDINGS)
def test_nonsense_stops_nothing_and_harms_no_other_row(ledgers: Any, connector: str, seed: int) -> None:
    clean, spoilt = Floor(ledgers()), Floor(ledgers())
    try:
        wanted = of_even_returns(events_of(clean, connector, None))
        found = events_of(spoilt, connector, random.Random(seed))
    finally:
        clean.close()
        spoilt.close()
    assert len(wanted) > 30
    assert of_even_returns(found) == wanted, f"seed {seed}"
    for event in found:
        if event.status == "pending":
            assert isinstance(event.properties["returnId"], int)
            assert event.properties.get("returnStatus", "open") in RETURN_STATUSES
