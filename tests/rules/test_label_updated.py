"""Loop Label Updated: the tracking status of a known label differs, in Attentive's words."""

from tests.floor import DAY, HOUR, T0, Floor

UPDATED = "Loop Label Updated"


CHANGES = {
    ("new", "pre_transit"): "pre_transit",
    ("new", "in_transit"): "in_transit",
    ("pending", "pre_transit"): "pre_transit",
    ("in_transit", "out_for_delivery"): "out_for_delivery",
    ("out_for_delivery", "delivered"): "delivered",
    ("in_transit", "return_to_sender"): "unknown",
    ("in_transit", "failure"): "unknown",
    ("new", "error"): "unknown",
    ("new", "lost in space"): "unknown",
    ("new", "cancelled"): "canceled",  # shown although it is cancelled by now
    ("new", "voided"): "canceled",
    ("delivered", "in_transit"): "in_transit",
    ("pending", "new"): None,  # a numbered label that is pending is new
    ("in_transit", "available_for_pickup"): None,
    ("in_transit", "In-Transit"): None,
    ("error", "failure"): None,
    ("cancelled", "voided"): None,
}


def test_only_a_status_that_maps_to_another_word_is_an_update(floor: Floor) -> None:
    for number, (before, _) in enumerate(CHANGES):
        floor.ret(str(number), created_at=T0 - DAY)
        floor.label(str(number), status=before)
    floor.start()
    for number, (_, after) in enumerate(CHANGES):
        floor.label(str(number), status=after)
    news = {event.return_id: event.properties["trackingStatus"] for event in floor.run(T0 + HOUR)}
    assert {change: news.get(str(number)) for number, change in enumerate(CHANGES)} == CHANGES


def test_it_happened_at_the_labels_updated_at_if_that_moved_else_when_it_was_seen(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.label(number="MOVED", status="new", updated_at=T0 - HOUR)
    floor.label(number="STOOD", status="new", updated_at=T0 - HOUR)
    floor.label(number="DATELESS", status="new")
    floor.start()
    floor.label(number="MOVED", status="in_transit", updated_at=T0 + HOUR)
    floor.label(number="STOOD", status="in_transit")
    floor.label(number="DATELESS", status="in_transit")
    assert {event.key.split("|")[1]: event.occurred_at for event in floor.run(T0 + 2 * HOUR, UPDATED)} == {
        "MOVED": T0 + HOUR,
        "STOOD": T0 + 2 * HOUR,
        "DATELESS": T0 + 2 * HOUR,
    }


def test_its_key_holds_return_number_new_status_and_the_look(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.label(number="1z 1", status="new")
    floor.start()
    floor.label(number="1z 1", status="In Transit")
    [event] = floor.run(T0 + HOUR)
    assert event.key == "1|1Z1|in_transit|2026-03-01T13:00:00.000000Z"


def test_a_first_status_where_there_was_none_is_no_update(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.label(number="N/A", status=None)
    floor.start()
    floor.label(number="N/A", status="new")
    assert floor.run(T0 + 1 * HOUR) == []
    floor.renumber_label(number="1Z1", status="in_transit")
    assert [event.event_type for event in floor.run(T0 + 2 * HOUR)] == ["Loop Label Created"]


def test_a_label_without_a_number_is_not_spoken_of(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.label(number="N/A", status="new")
    floor.start()
    floor.label(number="N/A", status="in_transit")
    assert floor.run(T0 + HOUR) == []


def test_there_and_back_between_two_looks_is_nothing_and_over_looks_is_told_each_time(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.label(status="in_transit")
    floor.start()
    floor.label(status="delivered")
    floor.label(status="in_transit", updated_at=T0 + HOUR)
    assert floor.run(T0 + HOUR) == []
    told = []
    for hours, status in enumerate(["delivered", "in_transit", "delivered"], start=2):
        floor.label(status=status)
        told += [event.properties["trackingStatus"] for event in floor.run(T0 + hours * HOUR)]
    assert told == ["delivered", "in_transit", "delivered"]


def test_each_shows_the_label_and_the_status_in_its_key(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.label(number="A", status="new", created_at=T0 - DAY, carrier="UPS")
    floor.label(number="B", status="new", created_at=T0 - HOUR, carrier="USPS")
    floor.start()
    floor.label(number="A", status="in_transit")
    floor.look(T0 + 1 * HOUR)
    floor.label(number="A", status="delivered")
    floor.label(number="B", status="cancelled")
    shown = [(e.properties["trackingNumber"], e.properties["trackingStatus"], e.properties["trackingCarrier"])
             for e in floor.run(T0 + 2 * HOUR, UPDATED)]  # fmt: skip
    assert shown == [("A", "in_transit", "UPS"), ("A", "delivered", "UPS"), ("B", "canceled", "USPS")]


def test_a_carrier_that_appears_or_changes_is_no_event(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.label(status="new", carrier="N/A")
    floor.start()
    floor.label(carrier="UPS", updated_at=T0 + HOUR)
    assert floor.run(T0 + 2 * HOUR) == []
    floor.label(carrier="USPS", updated_at=T0 + 3 * HOUR)
    assert floor.run(T0 + 4 * HOUR) == []


def test_what_changes_while_the_return_is_deleted_is_nobodys_news(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.label(status="new")
    floor.start()
    floor.ret(is_deleted=True)
    floor.label(status="in_transit")
    assert floor.run(T0 + 1 * HOUR) == []
    floor.ret(is_deleted=False)
    floor.label(status="delivered")
    assert floor.run(T0 + 2 * HOUR) == []
    floor.label(status="in_transit")
    assert len(floor.run(T0 + 3 * HOUR, UPDATED)) == 1


def test_a_first_status_of_a_label_with_a_number_is_no_update(floor: Floor) -> None:
    floor.start()
    floor.ret("1", created_at=T0 + HOUR)
    floor.label("1", "1Z1", status="N/A", created_at=T0 + HOUR)
    floor.run(T0 + 2 * HOUR)
    floor.label("1", "1Z1", status="new", updated_at=T0 + 3 * HOUR)
    assert floor.run(T0 + 4 * HOUR) == []
    floor.label("1", "1Z1", status="in_transit", updated_at=T0 + 5 * HOUR)
    assert [event.event_type for event in floor.run(T0 + 6 * HOUR)] == ["Loop Label Updated"]


def test_a_status_of_which_nothing_is_known_does_not_stay_when_it_is_told_no_more(floor: Floor) -> None:
    floor.start()
    floor.ret("1", created_at=T0 + HOUR)
    floor.label("1", "1Z1", status="error", created_at=T0 + HOUR)
    floor.look(T0 + 2 * HOUR)
    assert floor.one("SELECT tracking_status, shipped FROM mirror_label") == ("unknown", "unknown")
    floor.label("1", "1Z1", status="N/A", updated_at=T0 + 3 * HOUR)
    floor.look(T0 + 4 * HOUR)
    assert floor.one("SELECT tracking_status, shipped FROM mirror_label") == ("unknown", "no")
    floor.label("1", "1Z1", status="in_transit", updated_at=T0 + 5 * HOUR)
    [event] = floor.run(T0 + 6 * HOUR, "Loop Label Updated")
    assert event.body
    assert event.body["properties"]["trackingStatus"] == "in_transit"


def test_a_status_that_is_not_told_for_a_while_is_no_update_and_neither_is_its_return(floor: Floor) -> None:
    floor.start()
    floor.ret("1", created_at=T0 + HOUR)
    floor.label("1", "1Z1", status="in_transit", created_at=T0 + HOUR)
    floor.run(T0 + 2 * HOUR)
    for hour, status in ((3, None), (5, "in_transit"), (7, "")):
        floor.label("1", "1Z1", status=status, updated_at=T0 + hour * HOUR)
        assert floor.run(T0 + (hour + 1) * HOUR) == []
    floor.label("1", "1Z1", status="delivered", updated_at=T0 + 9 * HOUR)
    [event] = floor.run(T0 + 10 * HOUR)
    assert event.body
    assert event.body["properties"]["trackingStatus"] == "delivered"
