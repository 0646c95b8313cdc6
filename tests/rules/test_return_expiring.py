"""Loop Return Expiring: labels enabled, not shipped, 21 <= age < 28 days."""

from datetime import timedelta

from tests.floor import DAY, HOUR, T0, Floor

EXPIRING = "Loop Return Expiring"
LOOK = T0 + 40 * DAY
TICK = timedelta(microseconds=1)


def test_age_is_counted_in_exact_days_of_24_hours(floor: Floor) -> None:
    ages = {
        21 * DAY - TICK: False,
        21 * DAY: True,
        24 * DAY: True,
        28 * DAY - TICK: True,
        28 * DAY: False,
        21 * DAY - HOUR: False,
    }
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    for age in ages:
        floor.ret(str(age), created_at=LOOK - age, labels_enabled=True)
    due = {event.return_id: event.fact_at for event in floor.run(LOOK, EXPIRING)}
    assert due == {str(age): LOOK - age + 21 * DAY for age, is_due in ages.items() if is_due}


def test_a_clock_change_in_the_shops_zone_makes_no_day_shorter(floors) -> None:  # type: ignore[no-untyped-def]
    """On 8 March 2026 New York's clocks went forward: by them it would be due an hour earlier."""
    floor: Floor = floors(time_zone="America/New_York", times="timestamp")
    floor.label("elsewhere", "OTHER", status="new")
    floor.start(T0 - DAY)
    floor.ret("1", created_at="2026-03-01 07:00", labels_enabled=True)  # T0 in New York
    assert floor.run(T0 + 21 * DAY - HOUR / 2, EXPIRING) == []
    assert [event.return_id for event in floor.run(T0 + 21 * DAY, EXPIRING)] == ["1"]


def test_one_that_turned_21_days_while_nothing_ran_is_still_reminded_inside_the_bounds(floor: Floor) -> None:
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    floor.ret("1", created_at=T0, labels_enabled=True)
    floor.ret("2", created_at=T0 - DAY, labels_enabled=True)
    floor.run(T0 + 20 * DAY, EXPIRING)
    [event] = floor.run(T0 + 27 * DAY, EXPIRING)
    assert (event.return_id, event.fact_at, event.occurred_at) == ("1", T0 + 21 * DAY, T0 + 27 * DAY)
    assert event.status == "pending"  # however late: it speaks of the present


def test_without_a_created_at_nobody_is_reminded_by_age(floor: Floor) -> None:
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    floor.ret(created_at="infinity", labels_enabled=True)
    floor.ret("2", created_at=None, updated_at=LOOK - 22 * DAY, labels_enabled=True)
    assert floor.run(LOOK, EXPIRING) == []
