"""Loop Return Status Updated: the status, as Attentive names it, differs from the one seen before."""

from datetime import datetime

from tests.floor import DAY, HOUR, T0, Floor

UPDATED = "Loop Return Status Updated"


def told(floor: Floor, at: datetime) -> list[str]:
    return [event.properties["returnStatus"] for event in floor.run(at, UPDATED)]


CHANGES = {
    ("open", "closed"): "closed",
    ("open", "cancelled"): "canceled",
    ("open", "Canceled"): "canceled",
    ("open", "expired"): "expired",
    ("closed", "open"): "open",
    ("review", "closed"): "closed",
    ("closed", "review"): "open",
    ("open", "review"): None,  # both are open to the customer
    ("review", "needs review"): None,
    ("open", " OPEN "): None,
    ("cancelled", "canceled"): None,
    (None, "open"): None,  # a first status is no update
    ("N/A", "closed"): None,
    ("open", None): None,
    ("open", ""): None,
    ("open", "N/A"): None,
}


def test_only_a_status_that_maps_to_another_word_is_an_update(floor: Floor) -> None:
    for number, (before, _) in enumerate(CHANGES):
        floor.ret(str(number), state=before, created_at=T0 - DAY)
    floor.start()
    for number, (_, after) in enumerate(CHANGES):
        floor.ret(str(number), state=after)
    news = {event.return_id: event.properties["returnStatus"] for event in floor.run(T0 + HOUR, UPDATED)}
    assert {change: news.get(str(number)) for number, change in enumerate(CHANGES)} == CHANGES


def test_a_status_that_was_away_for_a_while_is_compared_with_the_last_one_that_was_there(floor: Floor) -> None:
    floor.ret(state="open", created_at=T0 - DAY)
    floor.start()
    floor.ret(state=None)
    assert told(floor, T0 + 1 * HOUR) == []
    floor.ret(state="open")
    assert told(floor, T0 + 2 * HOUR) == []
    floor.ret(state=None)
    floor.look(T0 + 3 * HOUR)
    floor.ret(state="closed")
    assert told(floor, T0 + 4 * HOUR) == ["closed"]


def test_it_happened_at_updated_at_if_that_moved_with_it_else_when_it_was_seen(floor: Floor) -> None:
    floor.ret("moved", updated_at=T0 - HOUR)
    floor.ret("stood", updated_at=T0 - HOUR)
    floor.ret("dateless")
    floor.start()
    floor.ret("moved", state="closed", updated_at=T0 + HOUR)
    floor.ret("stood", state="closed")
    floor.ret("dateless", state="closed")
    assert {event.return_id: event.occurred_at for event in floor.run(T0 + 2 * HOUR, UPDATED)} == {
        "moved": T0 + HOUR,
        "stood": T0 + 2 * HOUR,
        "dateless": T0 + 2 * HOUR,
    }


def test_a_change_is_named_by_the_look_that_saw_it(floor: Floor) -> None:
    floor.ret()
    floor.start()
    floor.ret(state="closed", updated_at=T0 + HOUR)
    [event] = floor.run(T0 + 2 * HOUR, UPDATED)
    assert event.key == "1|closed|2026-03-01T14:00:00.000000Z"


def test_a_first_sight_is_no_change(floor: Floor) -> None:
    floor.start()
    floor.ret(state="closed", created_at=T0 + HOUR)
    assert [event.event_type for event in floor.run(T0 + 2 * HOUR)] == ["Loop Return Created"]


def test_of_several_changes_between_two_looks_the_last_state_counts_once(floor: Floor) -> None:
    floor.ret("1")
    floor.ret("2")
    floor.start()
    for state in ("closed", "expired"):
        floor.ret("1", state=state)
    for state in ("closed", "open"):
        floor.ret("2", state=state)
    assert [(e.return_id, e.properties["returnStatus"]) for e in floor.run(T0 + HOUR, UPDATED)] == [("1", "expired")]


def test_a_state_that_flaps_over_looks_is_told_each_time(floor: Floor) -> None:
    floor.ret()
    floor.start()
    seen = []
    for hours, state in enumerate(["closed", "open", "closed"], start=1):
        floor.ret(state=state)
        seen += told(floor, T0 + hours * HOUR)
    assert seen == ["closed", "open", "closed"]


def test_it_shows_the_value_in_its_key_even_if_a_later_look_has_seen_another(floor: Floor) -> None:
    floor.ret()
    floor.start()
    floor.ret(state="closed")
    floor.look(T0 + HOUR)
    floor.ret(state="open")
    assert told(floor, T0 + 2 * HOUR) == ["closed", "open"]


def test_a_status_that_attentive_has_no_word_for_is_invalid_and_stops_nothing_else(floor: Floor) -> None:
    floor.ret("1")
    floor.ret("2")
    floor.start()
    floor.ret("1", state="processing")
    floor.ret("2", state="closed")
    events = floor.run(T0 + HOUR, UPDATED)
    assert {event.return_id: event.status for event in events} == {"1": "invalid", "2": "pending"}
    assert "processing" not in str([event.reason for event in events])


def test_what_changed_while_it_was_deleted_is_taken_over_silently(floor: Floor) -> None:
    floor.ret()
    floor.start()
    floor.ret(state="closed", is_deleted=True)
    assert told(floor, T0 + 1 * HOUR) == []
    floor.ret(state="expired")
    assert told(floor, T0 + 2 * HOUR) == []
    floor.ret(state="cancelled", is_deleted=False)
    assert floor.run(T0 + 3 * HOUR) == []
    floor.ret(state="open")
    assert told(floor, T0 + 4 * HOUR) == ["open"]


def test_a_change_that_was_not_judged_before_its_return_was_deleted_makes_no_event(floor: Floor) -> None:
    floor.ret()
    floor.start()
    floor.ret(state="closed")
    floor.look(T0 + HOUR)
    floor.ret(is_deleted=True)
    assert floor.run(T0 + 2 * HOUR) == []
