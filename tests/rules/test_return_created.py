"""Loop Return Created: a return is seen for the first time."""

from datetime import timedelta

from tests.floor import DAY, HOUR, T0, Floor

CREATED = "Loop Return Created"


def test_a_return_is_news_when_it_is_seen_for_the_first_time_and_never_again(floor: Floor) -> None:
    floor.start()
    floor.ret(created_at=T0 + HOUR)
    [event] = floor.run(T0 + 2 * HOUR, CREATED)
    assert (event.key, event.status) == ("1", "pending")
    assert event.occurred_at == event.fact_at == T0 + HOUR
    floor.ret(state="closed", updated_at=T0 + 3 * HOUR)
    assert floor.run(T0 + 4 * HOUR, CREATED) == []


def test_whatever_state_it_is_in_by_then(floor: Floor) -> None:
    told = {
        "open": "open",
        "closed": "closed",
        "cancelled": "canceled",
        "Expired ": "expired",
        "review": "open",
        "Needs Review": "open",
        "N/A": None,
        "": None,
        None: None,
    }
    floor.start()
    for number, state in enumerate(told):
        floor.ret(str(number), state=state, created_at=T0 + HOUR)
    events = floor.run(T0 + 2 * HOUR)
    assert {event.event_type for event in events} == {CREATED}
    assert [event.properties.get("returnStatus") for event in events] == list(told.values())


def test_without_a_created_at_it_happened_when_it_was_seen(floor: Floor) -> None:
    floor.start()
    floor.ret(created_at=None, updated_at=T0 - DAY)
    [event] = floor.run(T0 + HOUR, CREATED)
    assert (event.occurred_at, event.status) == (T0 + HOUR, "pending")


def test_what_was_there_at_the_first_look_is_baseline_dated_or_not(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - HOUR)
    floor.ret("2", created_at=None)
    floor.ret("3", created_at=None, updated_at=T0 - HOUR)
    floor.look(T0)
    floor.ret("4", created_at=T0)
    floor.ret("5", created_at=T0 + timedelta(microseconds=1))
    floor.qualify(floor.look(T0 + HOUR), CREATED)
    assert floor.outcomes() == {
        "1": ("suppressed", "baseline"),
        "2": ("suppressed", "baseline"),
        "3": ("suppressed", "baseline"),
        "4": ("suppressed", "baseline"),
        "5": ("pending", None),
    }


def test_a_deleted_return_makes_nothing_and_one_deleted_when_first_seen_is_new_when_it_comes_back(floor: Floor) -> None:
    floor.start()
    floor.ret(created_at=T0 + HOUR, is_deleted=True)
    floor.label(status="new", created_at=T0 + HOUR)
    floor.transaction(kind="payment", gateway="stripe", status="succeeded", created_at=T0 + HOUR)
    assert floor.run(T0 + 2 * HOUR) == []
    floor.ret(is_deleted=False)
    assert {event.event_type: event.occurred_at for event in floor.run(T0 + 3 * HOUR)} == {
        CREATED: T0 + HOUR,
        "Loop Label Created": T0 + HOUR,
        "Loop Payment Transaction": T0 + HOUR,
    }


def test_coming_back_is_no_first_sight(floor: Floor) -> None:
    floor.start()
    floor.ret(created_at=T0 + HOUR)
    assert len(floor.run(T0 + 2 * HOUR)) == 1
    floor.ret(is_deleted=True)
    assert floor.run(T0 + 3 * HOUR) == []
    floor.ret(is_deleted=False)
    assert floor.run(T0 + 4 * HOUR) == []


def test_a_time_far_from_the_present_stops_nobody(floor: Floor) -> None:
    floor.start()
    for place, created_at in enumerate(["0001-01-01", "1500-06-01", "2100-01-01", "9998-12-31"]):
        floor.ret(str(place), created_at=created_at, updated_at=T0 + HOUR)
    floor.ret("9", created_at=T0 + HOUR)
    floor.qualify(floor.look(T0 + 2 * HOUR), CREATED)
    ahead = ("invalid", "occurredAt: more than ten minutes ahead")
    assert floor.outcomes() == {
        "0": ("pending", None),  # a source's "never": as if it were absent
        "1": ("suppressed", "baseline"),
        "2": ahead,
        "3": ahead,
        "9": ("pending", None),
    }


def test_ten_returns_of_one_order_are_ten_events_in_one_look(floor: Floor) -> None:
    floor.start()
    for number in range(10):
        floor.ret(str(number), created_at=T0 + HOUR, order_name="#7")
    assert len(floor.run(T0 + 2 * HOUR, CREATED)) == 10
