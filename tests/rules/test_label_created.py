"""Loop Label Created: a label gets its first real tracking number."""

from tests.floor import DAY, HOUR, T0, Floor

CREATED = "Loop Label Created"


def test_a_label_is_news_once_it_has_a_real_number(floor: Floor) -> None:
    nothings = [None, "", "N/A", "n/a", "  "]
    floor.start()
    for number, nothing in enumerate(nothings):
        floor.ret(str(number), created_at=T0 + HOUR)
        floor.label(str(number), nothing, status="pending", carrier="N/A", updated_at=T0 + HOUR)
    assert floor.run(T0 + 2 * HOUR, CREATED) == []
    for number in range(len(nothings)):
        floor.renumber_label(str(number), number="1Z1", status="new", carrier="USPS", updated_at=T0 + 3 * HOUR)
    events = floor.run(T0 + 4 * HOUR, CREATED)
    assert [event.key for event in events] == ["0|1Z1", "1|1Z1", "2|1Z1", "3|1Z1", "4|1Z1"]
    assert {(event.occurred_at, event.properties["trackingNumber"]) for event in events} == {(T0 + 3 * HOUR, "1Z1")}


def test_a_label_first_seen_with_its_number_is_timed_by_its_making_else_its_touch_else_the_look(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.label(number="A", status="new", created_at=T0 + HOUR, updated_at=T0 + 2 * HOUR)
    floor.label(number="B", status="new", updated_at=T0 + 2 * HOUR)
    floor.label(number="C", status="new")
    assert floor.occurrences(T0 + 5 * HOUR, CREATED) == {
        "1|A": T0 + HOUR,
        "1|B": T0 + 2 * HOUR,
        "1|C": T0 + 5 * HOUR,
    }


def test_a_label_that_got_its_number_later_is_timed_by_that_and_not_by_its_making(floor: Floor) -> None:
    for return_id in ("moved", "stood", "dateless"):
        floor.ret(return_id, created_at=T0 - DAY)
        floor.label(return_id, "N/A", status="pending", created_at=T0 - DAY, updated_at=T0 - HOUR)
    floor.start()
    floor.renumber_label("moved", number="1Z1", status="new", updated_at=T0 + 2 * HOUR)
    floor.renumber_label("stood", number="1Z1", status="new", updated_at=T0 - HOUR)
    floor.renumber_label("dateless", number="1Z1", status="new", updated_at=None)
    assert floor.occurrences(T0 + 5 * HOUR, CREATED) == {
        "moved|1Z1": T0 + 2 * HOUR,
        "stood|1Z1": T0 + 5 * HOUR,
        "dateless|1Z1": T0 + 5 * HOUR,
    }


def test_of_two_labels_one_is_that_which_had_no_number_and_the_other_is_new(floor: Floor) -> None:
    floor.start()
    for return_id in ("alike", "told apart"):
        floor.ret(return_id, created_at=T0 + HOUR)
        floor.label(return_id, None, status="pending", created_at=T0 + HOUR, updated_at=T0 + HOUR)
    assert floor.run(T0 + 2 * HOUR, CREATED) == []
    floor.renumber_label("alike", number="A", updated_at=T0 + 3 * HOUR)
    floor.label("alike", "B", created_at=T0 + HOUR, updated_at=T0 + 3 * HOUR)
    floor.renumber_label("told apart", number="B")
    floor.label("told apart", "A", updated_at=T0 + HOUR)
    assert floor.occurrences(T0 + 4 * HOUR, CREATED) == {
        "alike|A": T0 + 3 * HOUR,  # its touch
        "alike|B": T0 + HOUR,  # its making
        "told apart|A": T0 + HOUR,  # its touch, at first sight
        "told apart|B": T0 + 4 * HOUR,  # the look, for it was not touched since it had no number
    }
    for return_id in ("alike", "told apart"):
        floor.label(return_id, "C", created_at=T0 + HOUR, updated_at=T0 + 5 * HOUR)
    assert floor.occurrences(T0 + 6 * HOUR, CREATED) == {"alike|C": T0 + HOUR, "told apart|C": T0 + HOUR}


def test_a_first_look_at_labels_without_any_time_sends_nothing(floor: Floor) -> None:
    for number in range(5):
        floor.ret(str(number), created_at=T0 - DAY)
        floor.label(str(number), f"1Z{number}", status="in_transit")
    floor.start()
    assert floor.outcomes(CREATED) == {str(number): ("suppressed", "baseline") for number in range(5)}
    assert floor.run(T0 + HOUR) == []


def test_a_label_is_the_same_however_its_number_is_spelt_and_whoever_carries_it(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.label(number="1Z999AA1", status="new", carrier=None)
    assert [event.key for event in floor.run(T0 + HOUR, CREATED)] == ["1|1Z999AA1"]
    for hours, spelling in enumerate(["1z 999 aa1", " 1Z999AA1 ", "1z999aa1"], start=2):
        floor.renumber_label(number=spelling, carrier=f"Carrier {hours}", updated_at=T0 + hours * HOUR)
        assert floor.run(T0 + hours * HOUR) == []


def test_the_same_number_on_another_return_is_another_label(floor: Floor) -> None:
    floor.ret("1")
    floor.ret("2")
    floor.start()
    floor.label("1", "1Z1", status="new")
    floor.label("2", "1Z1", status="new")
    assert [event.key for event in floor.run(T0 + HOUR, CREATED)] == ["1|1Z1", "2|1Z1"]


def test_each_label_of_a_return_is_news_and_shows_itself(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.label(number="A", status="new", created_at=T0 + HOUR, label_url="https://l/a", carrier="UPS")
    floor.label(number="B", status="voided", created_at=T0 + HOUR, label_url="https://l/b", carrier="USPS")
    floor.label(number="C", status=None, created_at=T0 + 2 * HOUR, tracking_url="https://t/c")
    shown = [
        {key: value for key, value in event.properties.items() if key.startswith(("label", "tracking"))}
        for event in floor.run(T0 + 3 * HOUR, CREATED)
    ]
    assert shown == [  # B is cancelled: no label
        {"label": "https://l/a", "labelsEnabled": True, "trackingNumber": "A", "trackingStatus": "new",
         "trackingCarrier": "UPS"},
        {"labelsEnabled": True, "trackingNumber": "C", "trackingStatus": "unknown", "trackingUrl": "https://t/c"},
    ]  # fmt: skip


def test_a_label_that_was_cancelled_when_it_was_first_seen_is_news_when_that_is_taken_back(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.label(number="A", status="voided", created_at=T0 - DAY, updated_at=T0 - DAY)
    floor.label(number="B", status="voided", created_at=T0 - DAY)
    floor.label(number="C", status="new", created_at=T0 - DAY)
    floor.start()
    floor.label(number="A", status="new", updated_at=T0 + HOUR)
    floor.label(number="B", status="new")
    floor.label(number="C", status="voided")
    events = floor.run(T0 + 2 * HOUR)
    assert {(e.event_type, e.key.split("|")[1], e.occurred_at) for e in events} == {
        (CREATED, "A", T0 + HOUR),
        (CREATED, "B", T0 + 2 * HOUR),
        ("Loop Label Updated", "C", T0 + 2 * HOUR),
    }
    for number in "ABC":
        floor.label(number=number, status="new" if number == "C" else "voided")
    assert [e.event_type for e in floor.run(T0 + 3 * HOUR)] == ["Loop Label Updated"] * 3


STATUSES = {
    None: "unknown",
    "": "unknown",
    "N/A": "unknown",
    "None": "unknown",
    "pending": "new",
    "new": "new",
    "Pre-Transit": "pre_transit",
    " IN TRANSIT ": "in_transit",
    "out  for - Delivery": "out_for_delivery",
    "out_for_delivery": "out_for_delivery",
    "delivered": "delivered",
    "available_for_pickup": "in_transit",
    "return_to_sender": "unknown",
    "failure": "unknown",
    "error": "unknown",
    "unknown": "unknown",
    "lost in space": "unknown",
    "cancelled": "no label",
    "canceled": "no label",
    "Voided": "no label",
}


def test_a_label_first_seen_in_any_state_makes_this_event_and_no_update(floor: Floor) -> None:
    for number in range(len(STATUSES)):
        floor.ret(str(number), created_at=T0 - DAY)
    floor.start()
    for number, status in enumerate(STATUSES):
        floor.label(str(number), status=status, created_at=T0 + HOUR)
    events = floor.run(T0 + 2 * HOUR)
    assert {event.event_type for event in events} == {CREATED}
    told = {event.return_id: event.properties["trackingStatus"] for event in events}
    assert {status: told.get(str(number), "no label") for number, status in enumerate(STATUSES)} == STATUSES


def test_a_label_waits_for_its_return_and_is_news_together_with_it(floor: Floor) -> None:
    floor.start()
    floor.label(status="new", created_at=T0 + HOUR)
    assert floor.run(T0 + 2 * HOUR) == []
    floor.ret(created_at=T0 + HOUR)
    events = floor.run(T0 + 9 * HOUR)  # the cursor of the labels is past it by now
    assert [event.event_type for event in events] == ["Loop Return Created", CREATED]


def test_a_label_made_while_its_return_is_deleted_is_nobodys_news(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.ret(is_deleted=True)
    floor.label(status="new", created_at=T0 + HOUR)
    assert floor.run(T0 + 2 * HOUR) == []
    floor.ret(is_deleted=False)
    assert floor.run(T0 + 3 * HOUR) == []
