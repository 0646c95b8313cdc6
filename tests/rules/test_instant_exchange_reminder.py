"""Loop Instant Exchange Reminder: not shipped, age >= 7 days, the charge more than 24 hours away."""

from datetime import timedelta

from tests.floor import DAY, T0, Floor

REMINDER = "Loop Instant Exchange Reminder"
LOOK = T0 + 40 * DAY
TICK = timedelta(microseconds=1)


def test_from_seven_exact_days_until_a_day_before_the_charge(floor: Floor) -> None:
    cases = {
        "six days old": (7 * DAY - TICK, 5 * DAY, False),
        "seven days old": (7 * DAY, 5 * DAY, True),
        "a month old": (30 * DAY, 5 * DAY, True),
        "charged in a day and a bit": (8 * DAY, DAY + TICK, True),
        "charged in a day": (8 * DAY, DAY, False),
        "charged already": (8 * DAY, -DAY, False),
    }
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    for case, (age, until_charge, _) in cases.items():
        floor.ret(case, created_at=LOOK - age, is_instant_exchange=True, charge_at=LOOK + until_charge)
    due = {event.return_id: event.fact_at for event in floor.run(LOOK, REMINDER)}
    assert due == {case: LOOK - age + 7 * DAY for case, (age, _, is_due) in cases.items() if is_due}


def test_where_the_source_does_not_say_when_it_charges_the_shops_window_does(floor: Floor) -> None:
    floor.settings(instant_exchange_window_days=14)
    ages = {7 * DAY: True, 13 * DAY - TICK: True, 13 * DAY: False}
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    for age in ages:
        floor.ret(str(age), created_at=LOOK - age, is_instant_exchange=True)
    floor.ret("the source knows better", created_at=LOOK - 20 * DAY, is_instant_exchange=True, charge_at=LOOK + 3 * DAY)
    due = {event.return_id for event in floor.run(LOOK, REMINDER)}
    assert due == {str(age) for age, is_due in ages.items() if is_due} | {"the source knows better"}


def test_nobody_is_reminded_of_a_charge_that_nobody_can_date(floor: Floor) -> None:
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    for days in range(1, 30):
        floor.ret(str(days), created_at=LOOK - days * DAY, is_instant_exchange=True)
    floor.ret("ageless", created_at=None, is_instant_exchange=True, charge_at=LOOK + 5 * DAY)
    assert floor.run(LOOK, REMINDER, "Loop Instant Exchange Notice") == []
