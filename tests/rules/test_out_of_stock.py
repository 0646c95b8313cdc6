"""Loop Exchange Out Of Stock and Loop Out Of Stock Resolved: an episode of a return opens, and is over."""

from datetime import datetime
from typing import Any

from tests.floor import DAY, HOUR, T0, Event, Floor

OUT = "Loop Exchange Out Of Stock"
RESOLVED = "Loop Out Of Stock Resolved"


def news(events: list[Event]) -> list[tuple[str, datetime, str | None]]:
    """Type, time and outcome of each."""
    return [(e.event_type, e.occurred_at, e.properties.get("outOfStockOutcome")) for e in events]


def test_an_item_is_open_when_it_is_out_of_stock_and_neither_resolved_nor_restocked(floor: Floor) -> None:
    items: dict[str, dict[str, Any]] = {
        "plain": {"out_of_stock": True},
        "empty resolution": {"out_of_stock": True, "resolution": ""},
        "n/a resolution": {"out_of_stock": True, "resolution": "N/A"},
        "in stock": {"out_of_stock": False},
        "nobody knows": {"out_of_stock": None},
        "resolved": {"out_of_stock": True, "resolution": "refund"},
        "restocked": {"out_of_stock": True, "restocked_at": T0 + HOUR},
    }
    for number in range(len(items)):
        floor.ret(str(number), created_at=T0 - DAY)
    floor.start()
    for number, item in enumerate(items.values()):
        floor.item(str(number), updated_at=T0 + HOUR, **item)
    open_ones = {event.return_id for event in floor.run(T0 + 2 * HOUR)}
    assert [case for number, case in enumerate(items) if str(number) in open_ones] == [
        "plain",
        "empty resolution",
        "n/a resolution",
    ]


def test_several_items_make_one_event_timed_by_the_newest(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.item(exchange_id="old", out_of_stock=False, updated_at=T0 - DAY)
    floor.start()
    floor.item(exchange_id="old", out_of_stock=True, updated_at=T0 + 1 * HOUR)
    floor.item(exchange_id="new", out_of_stock=True, updated_at=T0 + 2 * HOUR)
    floor.item(exchange_id="dateless", out_of_stock=True)
    [event] = floor.run(T0 + 3 * HOUR)
    assert (event.event_type, event.occurred_at, event.key) == (OUT, T0 + 2 * HOUR, "1|2026-03-01T15:00:00.000000Z")


def test_a_time_that_did_not_move_tells_nothing_and_the_look_does(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - DAY)
    floor.item("1", out_of_stock=False, updated_at=T0 - DAY)
    floor.ret("2", created_at=T0 - DAY)
    floor.start()
    floor.item("1", out_of_stock=True)  # its updated_at stands still
    floor.item("2", out_of_stock=True)  # it has none
    assert news(floor.run(T0 + HOUR)) == [(OUT, T0 + HOUR, None)] * 2


def test_a_first_sight_counts_but_not_at_the_first_look(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - DAY)
    floor.item("1", out_of_stock=True, updated_at=T0 - HOUR)
    floor.start()
    floor.ret("2", created_at=T0 + HOUR)
    floor.item("2", out_of_stock=True, updated_at=T0 + HOUR)
    floor.run(T0 + 2 * HOUR)
    assert floor.outcomes(OUT) == {"1": ("suppressed", "baseline"), "2": ("pending", None)}


def test_a_further_item_joins_the_episode_that_is_under_way(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.item(exchange_id="1", out_of_stock=True)
    assert len(floor.run(T0 + 1 * HOUR)) == 1
    floor.item(exchange_id="2", out_of_stock=True)
    assert floor.run(T0 + 2 * HOUR) == []
    floor.item(exchange_id="1", resolution="refund")
    assert floor.run(T0 + 3 * HOUR) == []  # one is still open
    floor.item(exchange_id="2", resolution="credit")
    assert news(floor.run(T0 + 4 * HOUR)) == [(RESOLVED, T0 + 4 * HOUR, "credit")]


def test_how_the_last_open_item_was_settled_is_the_outcome(floor: Floor) -> None:
    outcomes = {
        "refund": "refund",
        " Refunded ": "refund",
        "full_REFUND_to_card": "refund",
        "credit": "credit",
        "store credit": "credit",
        "gift card": "credit",
        "Gift_Card": "credit",
        "refund as credit": "refund",
        "exchange": None,
        "50% off": None,
    }
    for number in range(len(outcomes)):
        floor.ret(str(number), created_at=T0 - DAY)
        floor.item(str(number), out_of_stock=True)
    floor.start()
    for number, resolution in enumerate(outcomes):
        floor.item(str(number), resolution=resolution)
    told = {e.return_id: e.properties.get("outOfStockOutcome") for e in floor.run(T0 + HOUR, RESOLVED)}
    assert {resolution: told[str(number)] for number, resolution in enumerate(outcomes)} == outcomes


def test_back_in_stock_has_no_outcome_and_happened_when_it_was_restocked(floor: Floor) -> None:
    for number in ("1", "2"):
        floor.ret(number, created_at=T0 - DAY)
        floor.item(number, out_of_stock=True, updated_at=T0 - HOUR)
    floor.start()
    floor.item("1", restocked_at=T0 + HOUR, updated_at=T0 + 2 * HOUR)
    floor.item("2", out_of_stock=False, updated_at=T0 + 2 * HOUR)  # nobody says since when
    assert news(floor.run(T0 + 3 * HOUR)) == [(RESOLVED, T0 + HOUR, None), (RESOLVED, T0 + 2 * HOUR, None)]


def test_of_several_that_are_back_the_last_one_ends_it(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    for exchange_id in ("20", "3"):
        floor.item(exchange_id=exchange_id, out_of_stock=True)
    floor.start()
    floor.item(exchange_id="20", restocked_at=T0 + HOUR)
    floor.item(exchange_id="3", restocked_at=T0 + 2 * HOUR)
    assert news(floor.run(T0 + 3 * HOUR)) == [(RESOLVED, T0 + 2 * HOUR, None)]


def test_a_resolution_happened_at_updated_at_if_that_moved_else_when_it_was_seen(floor: Floor) -> None:
    for number in ("moved", "stood", "dateless"):
        floor.ret(number, created_at=T0 - DAY)
        floor.item(number, out_of_stock=True, updated_at=None if number == "dateless" else T0 - HOUR)
    floor.start()
    floor.item("moved", resolution="refund", updated_at=T0 + HOUR)
    floor.item("stood", resolution="refund")
    floor.item("dateless", resolution="refund")
    assert {event.return_id: event.occurred_at for event in floor.run(T0 + 3 * HOUR, RESOLVED)} == {
        "moved": T0 + HOUR,
        "stood": T0 + 3 * HOUR,
        "dateless": T0 + 3 * HOUR,
    }


def test_of_several_the_latest_then_the_highest_exchange_id_names_the_outcome(floor: Floor) -> None:
    cases: dict[str, list[tuple[str, str, datetime | None]]] = {
        "by time": [("1", "credit", T0 + 2 * HOUR), ("2", "refund", T0 + HOUR)],
        "by id": [("9", "refund", T0 + HOUR), ("10", "credit", T0 + HOUR)],
        "dated first": [("1", "credit", T0 + HOUR), ("2", "refund", None)],
        "no dates": [("1", "refund", None), ("2", "credit", None)],
    }
    for number, items in enumerate(cases.values()):
        floor.ret(str(number), created_at=T0 - DAY)
        for exchange_id, _, _ in items:
            floor.item(str(number), exchange_id, out_of_stock=True)
    floor.start()
    for number, items in enumerate(cases.values()):
        for exchange_id, resolution, updated_at in items:
            floor.item(str(number), exchange_id, resolution=resolution, updated_at=updated_at)
    told = {e.return_id: e.properties.get("outOfStockOutcome") for e in floor.run(T0 + 3 * HOUR, RESOLVED)}
    assert {case: told[str(number)] for number, case in enumerate(cases)} == dict.fromkeys(cases, "credit")


def test_an_open_item_that_is_touched_is_no_news(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.item(out_of_stock=True, updated_at=T0 + HOUR)
    assert len(floor.run(T0 + HOUR)) == 1
    floor.item(updated_at=T0 + 30 * HOUR)
    assert floor.run(T0 + 31 * HOUR) == []


def test_open_and_resolved_between_two_looks_is_nothing(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.item(out_of_stock=True, updated_at=T0 + 1 * HOUR)
    floor.item(resolution="refund", updated_at=T0 + 2 * HOUR)
    assert floor.run(T0 + 3 * HOUR) == []


def test_the_next_episode_starts_no_sooner_than_24_hours_after_the_last_one_began(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    began = T0 + HOUR
    floor.item(out_of_stock=True)
    assert [e.event_type for e in floor.run(began)] == [OUT]
    floor.item(resolution="refund")
    assert [e.event_type for e in floor.run(began + HOUR)] == [RESOLVED]
    floor.item(exchange_id="another", out_of_stock=True)
    assert floor.run(began + 2 * HOUR) == []
    assert floor.run(began + 23 * HOUR) == []
    again = began + 24 * HOUR
    assert news(floor.run(again)) == [(OUT, again, None)]  # still open then: in the first look after that
    floor.item(exchange_id="another", restocked_at=again + HOUR)
    assert news(floor.run(again + 2 * HOUR)) == [(RESOLVED, again + HOUR, None)]


def test_an_item_that_is_over_before_its_episode_could_start_makes_nothing(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.item(out_of_stock=True)
    floor.run(T0 + 1 * HOUR)
    floor.item(resolution="refund")
    floor.run(T0 + 2 * HOUR)
    floor.item(resolution=None)
    assert floor.run(T0 + 3 * HOUR) == []
    floor.item(resolution="refund")
    assert floor.run(T0 + 4 * HOUR) == []
    assert floor.run(T0 + 40 * HOUR) == []


def test_what_happens_while_the_return_is_deleted_is_nobodys_news(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.ret(is_deleted=True)
    floor.item(out_of_stock=True)
    assert floor.run(T0 + 1 * HOUR) == []
    floor.ret(is_deleted=False)
    assert floor.run(T0 + 2 * HOUR) == []
    assert floor.run(T0 + 30 * HOUR) == []


def test_items_wait_for_their_return(floor: Floor) -> None:
    floor.start()
    floor.item(out_of_stock=True, updated_at=T0 + HOUR)
    assert floor.run(T0 + 2 * HOUR) == []
    floor.ret(created_at=T0 + HOUR)
    assert [e.event_type for e in floor.run(T0 + 9 * HOUR)] == ["Loop Return Created", OUT]


def test_only_the_resolution_tells_an_outcome(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY, outcome="credit")
    floor.item(out_of_stock=True)
    floor.start()
    floor.item(resolution="refund")
    floor.ret(state="closed")
    told = {e.event_type: e.properties.get("outOfStockOutcome") for e in floor.run(T0 + HOUR)}
    assert told == {RESOLVED: "refund", "Loop Return Status Updated": None}
