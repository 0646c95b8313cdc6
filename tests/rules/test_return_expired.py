"""Loop Return Expired: labels enabled, not shipped, 28 <= age < 31 days; or the status became expired lately."""

from datetime import timedelta
from typing import Any

import pytest

from tests.floor import DAY, HOUR, T0, Floor

EXPIRED = "Loop Return Expired"
UPDATED = "Loop Return Status Updated"
LOOK = T0 + 40 * DAY
TICK = timedelta(microseconds=1)


def test_by_age_from_28_to_31_exact_days(floor: Floor) -> None:
    ages = {28 * DAY - TICK: False, 28 * DAY: True, 31 * DAY - TICK: True, 31 * DAY: False}
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    for age in ages:
        floor.ret(str(age), created_at=LOOK - age, labels_enabled=True)
    due = {event.return_id: (event.fact_at, event.occurred_at) for event in floor.run(LOOK, EXPIRED)}
    assert due == {str(age): (LOOK - age + 28 * DAY, LOOK) for age, is_due in ages.items() if is_due}


def test_a_return_that_goes_to_expired_makes_status_updated_and_expired_at_the_time_of_the_change(floor: Floor) -> None:
    floor.ret(created_at=T0 - 5 * DAY)
    floor.start()
    floor.ret(state="Expired", updated_at=T0 + HOUR)
    assert [(e.event_type, e.occurred_at, e.status) for e in floor.run(T0 + 2 * HOUR)] == [
        (UPDATED, T0 + HOUR, "pending"),
        (EXPIRED, T0 + HOUR, "pending"),
    ]


def test_by_status_within_three_days_of_the_change(floor: Floor) -> None:
    changes = {3 * DAY - TICK: True, 3 * DAY: False, HOUR: True}
    for number in range(len(changes)):
        floor.ret(str(number), created_at=LOOK - 15 * DAY)
    floor.start(LOOK - 5 * DAY)
    for number, ago in enumerate(changes):
        floor.ret(str(number), state="expired", updated_at=LOOK - ago)
    due = {LOOK - event.occurred_at: event.status == "pending" for event in floor.run(LOOK, EXPIRED)}
    assert due == {ago: True for ago, is_due in changes.items() if is_due}


def test_by_status_a_daily_run_may_come_days_after_the_look_that_saw_it(floor: Floor) -> None:
    floor.ret(created_at=T0 - 5 * DAY)
    floor.start()
    floor.ret(state="expired")
    seen = floor.look(T0 + HOUR)
    assert floor.run(seen.as_of + 3 * DAY, EXPIRED) == []
    [event] = floor.run(seen.as_of + 3 * DAY - TICK, EXPIRED)
    assert event.occurred_at == seen.as_of


def test_by_status_labels_need_not_be_enabled_but_nothing_may_be_shipped(floor: Floor) -> None:
    cases: dict[str, tuple[dict[str, Any], list[str | None], bool]] = {
        "labels enabled": ({"labels_enabled": True}, [], True),
        "labels not enabled": ({"labels_enabled": False}, [], True),
        "nobody says": ({"labels_enabled": None}, [], True),
        "a new label": ({}, ["new"], True),
        "on its way": ({}, ["in_transit"], False),
        "one of two on its way": ({}, ["new", "delivered"], False),
        "shipped back to its sender": ({}, ["return_to_sender"], False),
        "cancelled label": ({}, ["voided"], True),
    }
    for case, (traits, statuses, _) in cases.items():
        floor.ret(case, created_at=T0 - DAY, **traits)
        for number, status in enumerate(statuses):
            floor.label(case, str(number), status=status)
    floor.start()
    for case in cases:
        floor.ret(case, state="expired")
    due = {event.return_id for event in floor.run(T0 + HOUR, EXPIRED)}
    assert {case: case in due for case in cases} == {case: is_due for case, (_, _, is_due) in cases.items()}


def test_by_status_the_source_need_be_neither_fresh_nor_have_labels(floor: Floor) -> None:
    floor.settings(freshness_hours=1)
    floor.ret("by status", created_at=T0 - DAY, synced_at=T0 - 9 * DAY)
    floor.ret("by age", created_at=T0 - 27 * DAY, labels_enabled=True, synced_at=T0 - 9 * DAY)
    floor.start()
    floor.ret("by status", state="expired")
    assert [event.return_id for event in floor.run(T0 + 2 * DAY, EXPIRED)] == ["by status"]


def test_by_status_a_first_sight_is_no_change_and_a_first_status_neither(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - DAY, state=None)
    floor.start()
    floor.ret("1", state="expired")
    floor.ret("2", created_at=T0 + HOUR, state="expired")
    assert floor.run(T0 + 2 * HOUR, EXPIRED) == []


def test_by_status_one_that_was_opened_again_or_deleted_since_is_not_told(floor: Floor) -> None:
    for number in ("reopened", "deleted"):
        floor.ret(number, created_at=T0 - DAY)
    floor.start()
    for number in ("reopened", "deleted"):
        floor.ret(number, state="expired")
    floor.look(T0 + 1 * HOUR)
    floor.ret("reopened", state="open")
    floor.ret("deleted", is_deleted=True)
    assert floor.run(T0 + 2 * HOUR, EXPIRED) == []


@pytest.mark.parametrize("expires_as_it_comes_back", [False, True])
def test_by_status_what_changed_while_it_was_deleted_is_not_told_when_it_comes_back(
    floor: Floor, expires_as_it_comes_back: bool
) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.ret(is_deleted=True)
    floor.look(T0 + HOUR)
    floor.ret(state="expired", is_deleted=not expires_as_it_comes_back)
    assert floor.run(T0 + 2 * HOUR, EXPIRED) == []
    floor.ret(is_deleted=False)
    assert floor.run(T0 + 3 * HOUR, EXPIRED) == []


def test_it_is_said_once_whichever_way_it_came_and_however_often_it_flaps(floor: Floor) -> None:
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    floor.ret("1", created_at=LOOK - 29 * DAY, labels_enabled=True)
    assert len(floor.run(LOOK, EXPIRED)) == 1
    for hours, state in enumerate(["expired", "open", "expired"], start=1):
        floor.ret("1", state=state)
        assert floor.run(LOOK + hours * HOUR, EXPIRED) == []
