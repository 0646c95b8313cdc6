"""The same story through every connector and engine: the same events, but for the gaps that a connector declares."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import sqlalchemy as sa

from loop_attentive import canonical, source
from loop_attentive.connectors import connector as declared
from tests.connectors import LANDINGS, land, settings, told
from tests.floor import Event, Floor

GAPS: dict[str, Callable[[Event], bool]] = {
    "instant exchanges": lambda event: "Instant" in event.event_type,
    "restocks": lambda event: event.event_type == "Loop Out Of Stock Resolved" and event.return_id == "129",
}
"""Events that a connector with this gap does not yield."""


def events_of(floor: Floor, warehouse: sa.Engine, connector: str, **more: Any) -> list[Event]:
    floor.settings(**settings(connector) | more)
    floor.engine = warehouse
    for at, shop in told():
        land(warehouse, LANDINGS[connector](shop, at), is_complete=connector == "canonical")
        floor.run(at)
        floor.judge_again(at)
    return floor.events()


def shown(event: Event) -> tuple[Any, ...]:
    """What must be the same: all but what only some connectors can tell."""
    properties = {key: value for key, value in (event.body or {}).get("properties", {}).items() if key != "trackingUrl"}
    return (event.event_type, event.return_id, event.key, event.occurred_at, event.status, event.reason,
            event.body and event.body["user"], properties)  # fmt: skip


@pytest.fixture(scope="session")
def expected() -> dict[str, list[Event]]:
    """The events of the canonical tables, told once."""
    return {}


@pytest.mark.parametrize("connector", LANDINGS)
def test_every_connector_yields_the_same_events(
    ledgers: Callable[[], str], floor: Floor, warehouse: sa.Engine, connector: str, expected: dict[str, list[Event]]
) -> None:
    if not expected:
        reference = Floor(ledgers())
        expected["events"] = events_of(reference, reference.engine, "canonical")
        reference.close()
    wanted = expected["events"]
    assert len({event.event_type for event in wanted if event.status != "suppressed"}) == 12
    assert len({event.return_id for event in wanted}) == 51
    gaps = [GAPS[gap] for gap in declared(connector).gaps if gap in GAPS]
    assert list(map(shown, events_of(floor, warehouse, connector))) == [
        shown(event) for event in wanted if not any(gap(event) for gap in gaps)
    ]


@pytest.mark.parametrize("connector", LANDINGS)
def test_labels_of_some_returns_are_found_by_their_ids(floor: Floor, warehouse: sa.Engine, connector: str) -> None:
    floor.settings(**settings(connector))
    *_, (at, shop) = told()
    land(warehouse, LANDINGS[connector](shop, at), is_complete=connector == "canonical")
    origin, zone = source.Source(warehouse, floor.shop), floor.shop.zone

    def labels(chunks: Iterable[source.Raw]) -> list[canonical.Row]:
        rows = [canonical.LABELS.normal(row, zone) for chunk in chunks for row in chunk.rows]
        return sorted((row for row in rows if row), key=str)

    every = labels(origin.read(canonical.LABELS, source.Cursor()))
    two = sorted({row[0] for row in every})[:2]
    wanted = [row for row in every if row[0] in two]
    assert len({row[0] for row in wanted}) == 2
    assert labels(origin.read_of(canonical.LABELS, two)) == wanted
