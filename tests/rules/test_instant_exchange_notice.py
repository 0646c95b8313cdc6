"""Loop Instant Exchange Notice: not shipped, within the 24 hours before the charge."""

from datetime import timedelta

from tests.floor import DAY, HOUR, T0, Floor

NOTICE = "Loop Instant Exchange Notice"
LOOK = T0 + 40 * DAY
TICK = timedelta(microseconds=1)


def test_within_the_24_hours_before_the_charge_and_never_at_or_after_it(floor: Floor) -> None:
    until_charge = {
        DAY + TICK: False,
        DAY: True,
        HOUR: True,
        TICK: True,
        timedelta(0): False,
        -HOUR: False,
    }
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    for left in until_charge:
        floor.ret(str(left), created_at=LOOK - 2 * DAY, is_instant_exchange=True, charge_at=LOOK + left)
    due = {event.return_id: (event.fact_at, event.occurred_at) for event in floor.run(LOOK, NOTICE)}
    assert due == {str(left): (LOOK + left - DAY, LOOK) for left, is_due in until_charge.items() if is_due}


def test_where_the_source_does_not_say_when_it_charges_the_shops_window_does(floor: Floor) -> None:
    floor.settings(instant_exchange_window_days=14)
    ages = {13 * DAY - TICK: False, 13 * DAY: True, 14 * DAY - TICK: True, 14 * DAY: False}
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    for age in ages:
        floor.ret(str(age), created_at=LOOK - age, is_instant_exchange=True)
    due = {event.return_id for event in floor.run(LOOK, NOTICE)}
    assert due == {str(age) for age, is_due in ages.items() if is_due}


def test_an_age_is_not_asked_for_where_the_charge_is_known(floor: Floor) -> None:
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    floor.ret(created_at=None, is_instant_exchange=True, charge_at=LOOK + HOUR)
    assert len(floor.run(LOOK, NOTICE)) == 1


def test_a_charge_that_is_put_off_is_announced_once(floor: Floor) -> None:
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    floor.ret(created_at=LOOK - 8 * DAY, is_instant_exchange=True, charge_at=LOOK + HOUR)
    assert len(floor.run(LOOK, NOTICE)) == 1
    floor.ret(charge_at=LOOK + 9 * DAY)
    assert floor.run(LOOK + 8 * DAY + HOUR, NOTICE) == []
