"""Who is reminded at all: what Return Expiring, Return Expired (by age) and the two of instant exchanges share."""

from datetime import datetime
from typing import Any

import pytest

from tests.floor import DAY, HOUR, T0, Floor

LOOK = T0 + 40 * DAY

BY_AGE: dict[str, dict[str, Any]] = {
    "Loop Return Expiring": {"created_at": LOOK - 22 * DAY},
    "Loop Return Expired": {"created_at": LOOK - 29 * DAY},
    "Loop Instant Exchange Reminder": {
        "created_at": LOOK - 8 * DAY, "is_instant_exchange": True, "charge_at": LOOK + 3 * DAY
    },
    "Loop Instant Exchange Notice": {
        "created_at": LOOK - 8 * DAY, "is_instant_exchange": True, "charge_at": LOOK + 3 * HOUR
    },
}  # fmt: skip
"""A return that is due for each reminder, as far as times go."""


Cases = dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]
"""Traits of a return and its labels, by the name of the case."""


def reminded(floor: Floor, cases: Cases) -> dict[str, list[str]]:
    """The reminders that a return with these traits and labels gets, by the case's name."""
    floor.label("elsewhere", "OTHER", status="new")  # the source has labels
    floor.start()
    for place, (traits, labels) in enumerate(cases.values()):
        for event, times in BY_AGE.items():
            return_id = f"{event} {place}"
            floor.ret(return_id, **{"labels_enabled": True} | times | traits)
            for number, label in enumerate(labels):
                floor.label(return_id, **{"number": f"{number}"} | label)
    events = {event.return_id for event in floor.run(LOOK, *BY_AGE)}
    return {case: [e for e in BY_AGE if f"{e} {place}" in events] for place, case in enumerate(cases)}


EVERY = list(BY_AGE)
WITH_LABELS = ["Loop Return Expiring", "Loop Return Expired"]
OF_INSTANT_EXCHANGES = ["Loop Instant Exchange Reminder", "Loop Instant Exchange Notice"]


def test_only_what_is_open_at_the_source_and_not_deleted(floor: Floor) -> None:
    states: dict[str, list[str]] = {
        "open": EVERY, " Open ": EVERY, "review": [], "needs review": [], "closed": [], "cancelled": [], "canceled": [],
        "expired": [], "N/A": [],
    }  # fmt: skip
    cases: Cases = {state: ({"state": state}, []) for state in states}
    cases |= {"no state": ({"state": None}, []), "deleted": ({"is_deleted": True}, [])}
    assert reminded(floor, cases) == states | {"no state": [], "deleted": []}


def test_each_status_of_a_label_tells_shipped_not_shipped_or_cannot_be_told(floor: Floor) -> None:
    statuses = {
        None: EVERY, "": EVERY, "N/A": EVERY, "none": EVERY, "pending": EVERY, "new": EVERY, "pre_transit": EVERY,
        "Pre Transit": EVERY, "in_transit": [], "In-Transit": [], "out_for_delivery": [], "delivered": [],
        "available_for_pickup": [], "return_to_sender": [], "failure": [], "error": [], "unknown": [],
        "lost in space": [], "cancelled": EVERY, "canceled": EVERY, "voided": EVERY,
    }  # fmt: skip
    cases: Cases = {str(status): ({}, [{"status": status}]) for status in statuses}
    assert reminded(floor, cases) == {str(status): events for status, events in statuses.items()}


def test_of_several_labels_one_that_is_shipped_or_cannot_be_told_is_enough(floor: Floor) -> None:
    cases: Cases = {
        "two new": ({}, [{"status": "new"}, {"status": "new"}]),
        "the older is shipped": ({}, [{"status": "delivered"}, {"status": "new"}]),
        "one cannot be told": ({}, [{"status": "error"}, {"status": "new"}]),
        "one is cancelled": ({}, [{"status": "voided"}, {"status": "new"}]),
        "numberless, cannot be told": ({}, [{"number": "N/A", "status": "error"}]),
        "numberless beside a number": ({}, [{"number": "N/A", "status": "error"}, {"status": "new"}]),
        "numberless beside a dead number": ({}, [{"number": "N/A", "status": "error"}, {"status": "voided"}]),
        "numberless, shipped": ({}, [{"number": "N/A", "status": "in_transit"}, {"status": "new"}]),
    }
    assert reminded(floor, cases) == {
        "two new": EVERY,
        "the older is shipped": [],
        "one cannot be told": [],
        "one is cancelled": EVERY,
        "numberless, cannot be told": [],
        "numberless beside a number": EVERY,
        "numberless beside a dead number": [],
        "numberless, shipped": [],
    }


def test_labels_enabled_counts_for_expiry_only_and_follows_from_a_numbered_label_where_nobody_says(
    floor: Floor,
) -> None:
    new = [{"status": "new"}]
    cases: Cases = {
        "true": ({"labels_enabled": True}, []),
        "false": ({"labels_enabled": False}, new),
        "unsaid, a label": ({"labels_enabled": None}, new),
        "unsaid, none": ({"labels_enabled": None}, []),
        "unsaid, no number": ({"labels_enabled": None}, [{"number": "N/A", "status": "pending"}]),
        "unsaid, a dead one": ({"labels_enabled": None}, [{"status": "voided"}]),
    }
    assert reminded(floor, cases) == {
        "true": EVERY,
        "false": OF_INSTANT_EXCHANGES,
        "unsaid, a label": EVERY,
        "unsaid, none": OF_INSTANT_EXCHANGES,
        "unsaid, no number": OF_INSTANT_EXCHANGES,
        "unsaid, a dead one": OF_INSTANT_EXCHANGES,
    }


def test_shipped_is_sticky(floor: Floor) -> None:
    floor.start()
    for event, times in BY_AGE.items():
        floor.ret(event, labels_enabled=True, **times)
        floor.label(event, event, status="in_transit")
    floor.look(LOOK - HOUR)
    for event in BY_AGE:
        floor.label(event, event, status="new")
    assert floor.run(LOOK, *BY_AGE) == []


def test_shipped_is_sticky_while_a_label_waits_for_its_return_and_over_its_carriers(floor: Floor) -> None:
    floor.conn.execute("ALTER TABLE loop.labels DROP CONSTRAINT labels_return_id_tracking_number_key")

    def row(return_id: str, carrier: str, status: str, updated_at: datetime | None = None) -> None:
        floor.conn.execute(
            "INSERT INTO loop.labels (return_id, tracking_number, carrier, status, updated_at) VALUES "
            "(%s, '1', %s, %s, %s)", (return_id, carrier, status, updated_at),
        )  # fmt: skip

    row("waited", "UPS", "in_transit")
    floor.start()
    floor.conn.execute("UPDATE loop.labels SET status = 'new'")
    floor.look(LOOK - 2 * HOUR)
    floor.conn.execute("UPDATE loop.labels SET status = 'pre_transit'")
    for return_id in ("waited", "changed carrier", "changed carrier since"):
        floor.ret(return_id, labels_enabled=True, created_at=LOOK - 22 * DAY)
    row("changed carrier", "UPS", "in_transit", LOOK - 3 * HOUR)
    row("changed carrier", "USPS", "new", LOOK - 2 * HOUR)
    row("changed carrier since", "USPS", "new")
    floor.look(LOOK - HOUR)
    row("changed carrier since", "Z", "in_transit")
    assert floor.run(LOOK, *BY_AGE) == []


@pytest.mark.parametrize("waits", [False, True])
def test_shipped_is_sticky_also_where_only_a_row_tells_it_that_comes_after_a_newer_one(
    floor: Floor, waits: bool
) -> None:
    def appear() -> None:
        for return_id in ("late", "never"):
            floor.ret(return_id, labels_enabled=True, created_at=LOOK - 22 * DAY)

    floor.start()
    for return_id in ("late", "never"):
        floor.label(return_id, return_id, carrier="UPS", status="new", updated_at=LOOK - 3 * HOUR)
    if not waits:
        appear()
    floor.look(LOOK - 2 * HOUR)
    floor.label("late", "late", carrier="USPS", status="in_transit", updated_at=LOOK - 4 * HOUR)
    assert floor.look(LOOK - HOUR).changed == 0
    floor.conn.execute("DELETE FROM loop.labels WHERE return_id = 'late'")
    appear()
    assert {event.return_id for event in floor.run(LOOK, *BY_AGE)} == {"never"}
    assert floor.one("SELECT carrier, tracking_status FROM mirror_label WHERE number = 'LATE'") == ("UPS", "new")


def test_shipped_is_sticky_over_a_cancellation_that_is_taken_back(floor: Floor) -> None:
    """Shipped and cancelled while it waited for its return, the label was never seen as anything but cancelled."""
    floor.start()
    for hours, status in ((4, "in_transit"), (3, "voided")):
        for event in BY_AGE:
            floor.label(event, event, status=status)
        floor.look(LOOK - hours * HOUR)
    for event, times in BY_AGE.items():
        floor.ret(event, labels_enabled=True, **times)
    floor.look(LOOK - 2 * HOUR)
    for event in BY_AGE:
        floor.label(event, event, status="new")
    assert floor.run(LOOK, *BY_AGE) == []


def test_an_instant_exchange_is_one_only_if_the_source_says_so(floor: Floor) -> None:
    cases: Cases = {
        "yes": ({"is_instant_exchange": True}, []),
        "no": ({"is_instant_exchange": False}, []),
        "unsaid": ({"is_instant_exchange": None}, []),
    }
    assert reminded(floor, cases) == {"yes": EVERY, "no": WITH_LABELS, "unsaid": WITH_LABELS}


def test_a_reminder_speaks_of_the_present_and_is_made_once(floor: Floor) -> None:
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    for event, times in BY_AGE.items():
        floor.ret(event, labels_enabled=True, **times)
    events = floor.run(LOOK, *BY_AGE)
    assert {event.event_type: event.occurred_at for event in events} == dict.fromkeys(BY_AGE, LOOK)
    assert {event.event_type: event.key for event in events} == {event: event for event in BY_AGE}
    assert floor.run(LOOK + HOUR, *BY_AGE) == []


def test_what_was_due_before_the_shop_was_enabled_is_baseline(floor: Floor) -> None:
    floor.label("elsewhere", "OTHER", status="new")
    for event, times in BY_AGE.items():
        floor.ret(event, labels_enabled=True, **times)
    floor.start(LOOK)
    reminders = {event.event_type: event.reason for event in floor.events() if event.event_type in BY_AGE}
    assert reminders == dict.fromkeys(BY_AGE, "baseline")
