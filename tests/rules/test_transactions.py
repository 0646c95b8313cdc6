"""Loop Payment Transaction and Loop Refund Transaction: Stripe took money of the customer's, or gave it back."""

from datetime import datetime
from typing import Any

import pytest

from tests.floor import DAY, HOUR, T0, Floor

KINDS = {"payment": "Loop Payment Transaction", "refund": "Loop Refund Transaction"}
STRIPE = {"kind": "payment", "gateway": "stripe", "status": "succeeded"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_succeeded_one_of_stripe_is_news_when_it_was_made(floor: Floor, kind: str) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.transaction("tx 1", **STRIPE | {"kind": kind}, amount="12.50", created_at=T0 + HOUR)
    [event] = floor.run(T0 + 3 * HOUR)
    assert (event.event_type, event.key, event.occurred_at) == (KINDS[kind], "tx 1", T0 + HOUR)
    assert floor.run(T0 + 4 * HOUR) == []


def test_who_is_told_of_which_transaction(floor: Floor) -> None:
    told: dict[str, tuple[dict[str, Any], str | None]] = {
        "a payment": ({}, KINDS["payment"]),
        "a refund": ({"kind": "refund"}, KINDS["refund"]),
        "folded": ({"kind": " Payment ", "gateway": "STRIPE", "status": "Succeeded "}, KINDS["payment"]),
        "not yet": ({"status": "pending"}, None),
        "failed": ({"status": "failed"}, None),
        "no status": ({"status": None}, None),
        "other money": ({"kind": "authorization"}, None),
        "no kind": ({"kind": ""}, None),
        "Shopify Payments": ({"gateway": "shopify_payments"}, None),
        "PayPal": ({"gateway": "paypal"}, None),
        "no gateway": ({"gateway": "N/A"}, None),
    }
    floor.ret(created_at=T0 - DAY)
    floor.start()
    for case, (row, _) in told.items():
        floor.transaction(case, **STRIPE | row, created_at=T0 + HOUR)
    events = {event.key: event.event_type for event in floor.run(T0 + 2 * HOUR)}
    assert {case: events.get(case) for case in told} == {case: event for case, (_, event) in told.items()}


@pytest.mark.parametrize("late", ["gateway", "kind"])
def test_one_that_is_told_to_be_of_stripe_after_it_succeeded_is_news_then(floor: Floor, late: str) -> None:
    untold: dict[str, Any] = STRIPE | {late: None}
    floor.ret(created_at=T0 - DAY)
    floor.transaction("old", **untold)
    floor.start()
    floor.transaction("new", **untold, created_at=T0 + HOUR)
    assert floor.run(T0 + 2 * HOUR) == []
    floor.transaction("old", **STRIPE)
    floor.transaction("new", **STRIPE)
    events = {event.key: (event.occurred_at, event.reason) for event in floor.run(T0 + 3 * HOUR)}
    assert events == {"old": (T0 + 3 * HOUR, "baseline"), "new": (T0 + HOUR, None)}
    floor.transaction("new", amount="2")
    assert floor.run(T0 + 4 * HOUR) == []


@pytest.mark.parametrize("created_at", [T0 - DAY, None])
def test_one_that_was_seen_before_it_succeeded_happened_when_it_was_seen(
    floor: Floor, created_at: datetime | None
) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.transaction(**STRIPE | {"status": "pending"}, created_at=created_at)
    floor.start()
    floor.transaction(status="succeeded")
    [event] = floor.run(T0 + HOUR)
    assert (event.occurred_at, event.status) == (T0 + HOUR, "pending")


def test_without_a_created_at_it_happened_when_it_was_seen_and_at_the_first_look_is_baseline(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - DAY)
    floor.ret("2", created_at=T0 - DAY)
    floor.transaction("old", "1", **STRIPE)
    floor.start()
    floor.transaction("new", "2", **STRIPE)
    [event] = floor.run(T0 + HOUR)
    assert (event.key, event.occurred_at, event.status) == ("new", T0 + HOUR, "pending")
    assert floor.outcomes()["1"] == ("suppressed", "baseline")


def test_a_transaction_that_flaps_is_told_once(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    told = []
    for hours, status in enumerate(["pending", "succeeded", "failed", "succeeded"], start=1):
        floor.transaction(**STRIPE | {"status": status}, created_at=T0 + HOUR)
        told += [event.occurred_at for event in floor.run(T0 + hours * HOUR)]
    assert told == [T0 + 2 * HOUR]


def test_one_that_has_failed_by_the_time_it_is_judged_is_not_told(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.transaction(**STRIPE, created_at=T0 + HOUR)
    floor.look(T0 + HOUR)  # died before it judged
    floor.transaction(status="failed")
    assert floor.run(T0 + 2 * HOUR) == []


def test_several_on_one_return_are_each_told(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    for number in range(3):
        floor.transaction(f"p{number}", **STRIPE, created_at=T0 + HOUR)
    assert [event.key for event in floor.run(T0 + 2 * HOUR)] == ["p0", "p1", "p2"]


def test_one_that_waits_for_its_return_is_told_with_it(floor: Floor) -> None:
    floor.start()
    floor.transaction(**STRIPE, created_at=T0 + HOUR)
    assert floor.run(T0 + 2 * HOUR) == []
    floor.ret(created_at=T0 + HOUR)
    assert [event.event_type for event in floor.run(T0 + 9 * HOUR)] == ["Loop Return Created", KINDS["payment"]]


@pytest.mark.parametrize("succeeds", ["while it waits", "in the look that brings its return"])
def test_one_that_succeeds_while_it_waits_for_its_return_was_seen_before(floor: Floor, succeeds: str) -> None:
    floor.start()
    floor.transaction(**STRIPE | {"status": "pending"}, created_at=T0 - DAY, synced_at=T0)
    floor.look(T0 + 1 * HOUR)
    floor.transaction(status="succeeded", synced_at=T0 + HOUR)
    if succeeds == "while it waits":
        floor.look(T0 + 2 * HOUR)
    floor.ret(created_at=T0 + HOUR)
    [event] = floor.run(T0 + 3 * HOUR, KINDS["payment"])
    assert (event.occurred_at, event.status) == (T0 + 3 * HOUR, "pending")


def test_money_that_moved_while_the_return_was_deleted_is_nobodys_news(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.ret(is_deleted=True)
    floor.transaction(**STRIPE, created_at=T0 + HOUR)
    assert floor.run(T0 + 2 * HOUR) == []
    floor.ret(is_deleted=False)
    assert floor.run(T0 + 3 * HOUR) == []


def test_an_amount_of_any_spelling_or_none_is_taken(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    for number, amount in enumerate(["-3.10", "N/A", "", None, "1e3", "NaN", "Infinity", "9" * 200]):
        floor.transaction(str(number), **STRIPE, amount=amount, created_at=T0 + HOUR)
    assert len(floor.run(T0 + 2 * HOUR)) == 8
