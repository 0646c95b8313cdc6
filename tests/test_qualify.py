"""From a rule's rows to the ledger: what is baseline, what is judged how, and that nothing is lost or made twice."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from loop_attentive import catalogue, db, decisions, mirror, qualify, rules, runs
from loop_attentive.catalogue import BY_NAME, CATALOGUE
from loop_attentive.event_id import event_id
from tests.floor import DAY, HOUR, T0, Event, Floor

CREATED, UPDATED, EXPIRING = "Loop Return Created", "Loop Return Status Updated", "Loop Return Expiring"
TICK = timedelta(microseconds=1)


def only(events: list[Event]) -> Event:
    assert len(events) == 1, events
    return events[0]


@pytest.fixture
def raise_version(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Raises a rule's version in the catalogue, wherever it was imported."""

    def raised(name: str) -> None:
        old = BY_NAME[name]
        new = replace(old, version=old.version + 1)
        events = tuple(new if event is old else event for event in CATALOGUE)
        monkeypatch.setattr(catalogue, "CATALOGUE", events)
        monkeypatch.setattr(mirror, "CATALOGUE", events)
        monkeypatch.setitem(BY_NAME, name, new)

    return raised


# ── Baseline ────────────────────────────────────────────────────────────────


def test_a_fact_at_or_before_the_first_look_is_recorded_as_baseline(floor: Floor) -> None:
    floor.look(T0)
    for number, created_at in enumerate([T0 - DAY, T0, T0 + TICK]):
        floor.ret(str(number), created_at=created_at)
    floor.qualify(floor.look(T0 + HOUR), CREATED)
    assert floor.outcomes() == {
        "0": ("suppressed", "baseline"),
        "1": ("suppressed", "baseline"),
        "2": ("pending", None),
    }
    assert floor.events()[0].body is None


def test_settings_may_name_a_time_before_the_first_look(floor: Floor) -> None:
    """A cut-over: what the sender before did not send any more is ours, as far as it has a time of its own."""
    floor.settings(enabled_at="2026-03-01T06:00:00Z")
    floor.ret("1", created_at=T0 - 6 * HOUR)
    floor.ret("2", created_at=T0 - 6 * HOUR + TICK)
    floor.ret("3", created_at=None)
    floor.label("3", status="new", updated_at=T0 - HOUR)  # a first sight timed by updated_at: nobody looked before
    floor.run(T0)
    assert floor.outcomes(CREATED) == {
        "1": ("suppressed", "baseline"),
        "2": ("pending", None),
        "3": ("suppressed", "baseline"),
    }
    assert floor.outcomes("Loop Label Created") == {"3": ("suppressed", "baseline")}


def test_settings_may_name_a_time_after_the_first_look(floor: Floor) -> None:
    """Until then the look before it began too early to tell what is new since."""
    floor.start()
    floor.settings(enabled_at="2026-03-01T14:00:00Z")
    floor.ret("1", created_at=T0 + HOUR)
    floor.ret("2", created_at=T0 + 3 * HOUR)
    floor.ret("3", created_at=None)
    floor.run(T0 + 4 * HOUR)
    floor.ret("4", created_at=None)
    floor.run(T0 + 5 * HOUR)
    assert floor.outcomes() == {
        "1": ("suppressed", "baseline"),
        "2": ("pending", None),
        "3": ("suppressed", "baseline"),
        "4": ("pending", None),
    }


def test_a_rule_that_is_added_later_starts_with_its_own_first_look(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(mirror, "CATALOGUE", tuple(event for event in CATALOGUE if event.name != CREATED))
        floor.qualify(floor.look(T0), UPDATED)
        floor.ret("1", created_at=T0 + HOUR)
        floor.qualify(floor.look(T0 + 2 * HOUR), UPDATED)
    floor.ret("2", created_at=T0 + 3 * HOUR)
    floor.look(T0 + 4 * HOUR)  # its first
    floor.ret("3", created_at=T0 + 5 * HOUR)
    floor.run(T0 + 6 * HOUR, CREATED)
    assert {number: reason for number, (_, reason) in floor.outcomes().items()} == {
        "1": "baseline",
        "2": "baseline",
        "3": None,
    }


def test_a_raised_version_starts_where_the_old_one_stopped(floor: Floor, raise_version: Callable[[str], None]) -> None:
    floor.start()
    floor.ret("1", created_at=T0 + HOUR)
    assert len(floor.run(T0 + 2 * HOUR, CREATED)) == 1
    floor.ret("2", created_at=T0 + 3 * HOUR)  # between the old one's last run and the new one's first
    floor.look(T0 + 4 * HOUR)
    raise_version(CREATED)
    floor.ret("3", created_at=T0 + 5 * HOUR)
    floor.ret("4", created_at=T0 + HOUR)  # from before
    events = floor.run(T0 + 6 * HOUR, CREATED)
    assert {event.return_id: event.reason for event in events} == {"2": None, "3": None, "4": "baseline"}


def test_a_version_raised_while_the_source_is_stale_loses_no_reminder(
    floor: Floor, raise_version: Callable[[str], None]
) -> None:
    floor.settings(freshness_hours=26)
    floor.label("elsewhere", "OTHER", status="new", synced_at=T0)
    floor.ret("0", synced_at=T0)
    floor.start()
    now = T0 + 10 * DAY
    floor.ret("1", created_at=now - 22 * DAY, labels_enabled=True, synced_at=T0)
    assert floor.run(now, EXPIRING) == []
    raise_version(EXPIRING)
    floor.ret("0", synced_at=now)
    floor.label("elsewhere", "OTHER", status="new", synced_at=now)
    assert only(floor.run(now + HOUR, EXPIRING)).status == "pending"


def test_a_changed_comment_changes_nothing(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    floor.start()
    floor.ret("1", created_at=T0 + HOUR)
    assert len(floor.run(T0 + 2 * HOUR)) == 1
    sql = db.sql

    def commented(name: str) -> str:
        return f"-- 100 % another %(comment)s; and: so on\n{sql(name)}" if name.startswith("events/") else sql(name)

    monkeypatch.setattr(db, "sql", commented)
    floor.ret("2", created_at=T0 + 3 * HOUR)
    assert [event.return_id for event in floor.run(T0 + 4 * HOUR)] == ["2"]


# ── Judgement ───────────────────────────────────────────────────────────────


def test_it_is_judged_in_this_order(floor: Floor) -> None:
    """Each return has the fault of its own step and of all later ones."""
    floor.look(T0)
    now = T0 + 30 * HOUR
    floor.settings(events_off=[UPDATED], only_recipients=["+14155552671"], mode="shadow")
    unreachable = {"customer_phone": "N/A"}
    floor.ret("1", created_at=T0 - HOUR, **unreachable)
    floor.ret("2", created_at=T0 + HOUR, **unreachable)
    floor.ret("3", created_at=now, **unreachable)
    floor.ret("4", created_at=now, customer_phone="+14155550132")
    floor.ret("5", created_at=now)
    floor.run(now)
    assert floor.outcomes() == {
        "1": ("suppressed", "baseline"),
        "2": ("expired", "too late"),
        "3": ("invalid", "no recipient"),
        "4": ("suppressed", "not on the test list"),
        "5": ("suppressed", "shadow"),
    }
    floor.settings(events_off=[CREATED])
    floor.ret("6", created_at=T0 - HOUR, **unreachable)
    floor.ret("7", created_at=T0 + HOUR, **unreachable)
    events = floor.run(now + HOUR)
    assert {event.return_id: event.reason for event in events} == {"6": "baseline", "7": "switched off"}


def test_what_is_older_than_24_hours_is_too_late_but_a_reminder_never_is(floor: Floor) -> None:
    floor.start()
    floor.label("elsewhere", "OTHER", status="new")
    floor.ret("1", created_at=T0 + TICK)
    floor.ret("2", created_at=T0 + HOUR)
    floor.ret("3", created_at=T0 + TICK - 20 * DAY, labels_enabled=True)
    now = T0 + DAY + HOUR
    floor.run(now, CREATED)
    assert floor.outcomes(CREATED) == {
        "1": ("expired", "too late"),
        "2": ("pending", None),
        "3": ("suppressed", "baseline"),
    }
    assert floor.run(now + 5 * DAY, EXPIRING)[0].status == "pending"  # a fact of four days before


def test_a_fact_up_to_ten_minutes_ahead_is_now_and_further_ahead_is_invalid(floor: Floor) -> None:
    floor.start()
    now = T0 + HOUR
    floor.ret("1", created_at=now + timedelta(minutes=10))
    floor.ret("2", created_at=now + timedelta(minutes=10) + TICK)
    events = {event.return_id: event for event in floor.run(now)}
    assert (events["1"].occurred_at, events["1"].fact_at) == (now, now + timedelta(minutes=10))
    assert (events["2"].status, events["2"].reason) == ("invalid", "occurredAt: more than ten minutes ahead")


def test_a_switched_off_event_is_recorded_and_not_sent_when_it_is_switched_on_again(floor: Floor) -> None:
    floor.start()
    floor.settings(events_off=[CREATED])
    floor.ret(created_at=T0 + HOUR)
    assert only(floor.run(T0 + 2 * HOUR)).reason == "switched off"
    floor.settings()
    assert floor.run(T0 + 3 * HOUR) == []
    assert floor.outcomes() == {"1": ("suppressed", "switched off")}


def test_only_recipients_lets_through_who_is_on_it_and_only_by_the_contact_that_is(floor: Floor) -> None:
    floor.start()
    floor.settings(only_recipients=["(415) 555-2671", "Ann@Example.com"])
    both = {"customer_phone": "415-555-2671", "customer_email": "ann@example.COM"}
    floor.ret("1", created_at=T0 + HOUR, **both)
    floor.ret("2", created_at=T0 + HOUR, **both | {"customer_email": "bob@example.com"})
    floor.ret("3", created_at=T0 + HOUR, **both | {"customer_phone": "+14155550132"})
    floor.ret("4", created_at=T0 + HOUR, customer_phone="+14155550132", customer_email="bob@example.com")
    floor.ret("5", created_at=T0 + HOUR, customer_phone="N/A")
    events = {event.return_id: event for event in floor.run(T0 + 2 * HOUR)}
    assert {number: event.body and event.body["user"] for number, event in events.items()} == {
        "1": {"phone": "+14155552671", "email": "ann@example.com"},
        "2": {"phone": "+14155552671"},
        "3": {"email": "ann@example.com"},
        "4": None,
        "5": None,
    }
    assert [events[number].reason for number in "45"] == ["not on the test list", "no recipient"]


def test_what_is_pending_obeys_a_test_list_and_a_switch_that_came_later(floor: Floor) -> None:
    floor.start()
    both = {"customer_phone": "415-555-2671", "customer_email": "Bob@example.com"}
    floor.ret("1", created_at=T0 + HOUR, **both)
    floor.ret("2", created_at=T0 + HOUR, **both | {"customer_phone": None})
    floor.ret("3", created_at=T0 + HOUR, **both | {"customer_email": "ann@example.com"})
    floor.ret("4", created_at=T0 + HOUR, customer_phone="+14155550132")
    floor.label("4", created_at=T0 + HOUR)
    floor.run(T0 + 2 * HOUR)
    assert qualify.obey_settings(floor.conn, floor.shop) == 0
    floor.settings(only_recipients=["+14155552671"], events_off=["Loop Label Created"])
    assert qualify.obey_settings(floor.conn, floor.shop) == 3
    assert {e.return_id: e.body["user"] for e in floor.events() if e.body} == {
        "1": {"phone": "+14155552671"},
        "3": {"phone": "+14155552671"},
    }
    assert floor.outcomes(CREATED) == {
        "1": ("pending", None),
        "2": ("suppressed", "not on the test list"),
        "3": ("pending", None),
        "4": ("suppressed", "not on the test list"),
    }
    assert floor.outcomes("Loop Label Created") == {"4": ("suppressed", "switched off")}


def test_the_ledger_knows_a_type_without_the_shops_prefix(floor: Floor) -> None:
    """The prefix may change while the event stays the same: it is neither made nor sent again."""
    floor.start()
    floor.settings(event_prefix="Acme: ")
    floor.ret("1", created_at=T0 + HOUR)
    assert [event.event_type for event in floor.run(T0 + 2 * HOUR)] == [CREATED]
    assert floor.one("SELECT event_type FROM audit_event") == (CREATED,)
    floor.settings(event_prefix="Other: ")
    assert floor.run(T0 + 3 * HOUR) == []


@pytest.mark.parametrize(
    "forbids",
    [{"only_recipients": ["+14155550199"]}, {"events_off": [CREATED]}, {"enabled_at": T0 + 2 * HOUR}],
    ids=lambda settings: next(iter(settings)),
)
def test_what_is_unknown_is_not_sent_again_against_the_settings(floor: Floor, forbids: dict[str, Any]) -> None:
    floor.start()
    floor.ret("1", created_at=T0 + HOUR, customer_phone="+14155552671", customer_email="ann@example.com")
    floor.run(T0 + 2 * HOUR, CREATED)
    floor.conn.execute(
        "UPDATE event SET status = 'unknown', reason = 'no answer', resend_at = now(), lease = gen_random_uuid()"
    )
    state = "SELECT status, reason, resend_at IS NULL, lease, body IS NULL FROM event"
    floor.settings(only_recipients=["+14155552671", "ann@example.com"])
    qualify.obey_settings(floor.conn, floor.shop)
    assert floor.one(state)[2] is False
    floor.settings(**forbids)
    assert qualify.obey_settings(floor.conn, floor.shop) == 0
    assert floor.one(state) == ("unknown", "no answer", True, None, False)


def test_what_is_unknown_is_not_sent_again_by_a_contact_that_is_not_listed(floor: Floor) -> None:
    """It would have to be the same as it was."""
    floor.start()
    floor.ret("1", created_at=T0 + HOUR, customer_phone="+14155552671", customer_email="ann@example.com")
    floor.run(T0 + 2 * HOUR, CREATED)
    floor.conn.execute("UPDATE event SET status = 'unknown', reason = 'no answer', resend_at = now()")
    floor.settings(only_recipients=["+14155552671"])
    qualify.obey_settings(floor.conn, floor.shop)
    assert floor.one("SELECT status, resend_at, body::jsonb #>> '{user,email}' FROM event") == (
        "unknown", None, "ann@example.com"
    )  # fmt: skip


def test_what_is_pending_obeys_an_enabled_at_that_came_later(floor: Floor) -> None:
    floor.start()
    floor.ret("1", created_at=T0 + HOUR)
    floor.ret("2", created_at=T0 + HOUR + TICK)
    floor.ret("3", created_at=T0 + HOUR, customer_phone=None)
    floor.ret("4", created_at=T0 + HOUR)
    floor.run(T0 + 2 * HOUR, CREATED)
    floor.conn.execute("UPDATE event SET status = 'held' WHERE return_id = '4'")
    asker = decisions.Asker("default", "resolve", "r")
    sends = decisions.Selection(action="send", states=["held"], why="a test")
    decisions.propose(floor.conn, floor.shop, asker, sends)
    decisions.decide(floor.conn, floor.shop, asker, sends, who="ann")
    assert qualify.obey_settings(floor.conn, floor.shop) == 0

    floor.settings(enabled_at=T0 + HOUR)
    assert qualify.obey_settings(floor.conn, floor.shop) == 1
    floor.ret("3", customer_phone="415-555-2671")
    floor.look(T0 + 3 * HOUR)
    assert floor.judge_again(T0 + 3 * HOUR) == 0
    assert floor.outcomes(CREATED) == {
        "1": ("suppressed", "baseline"),
        "2": ("pending", None),
        "3": ("invalid", "no recipient"),
        "4": ("pending", None),  # a person has decided
    }
    assert [event.return_id for event in floor.events() if event.body] == ["2", "4"]
    assert floor.run(T0 + 4 * HOUR, CREATED) == []

    floor.settings(enabled_at=T0 + 2 * HOUR, events_off=[CREATED])
    qualify.obey_settings(floor.conn, floor.shop)
    assert floor.outcomes(CREATED)["2"] == ("suppressed", "baseline")  # the first reason of those that hold
    assert floor.outcomes(CREATED)["4"] == ("suppressed", "switched off")


@pytest.mark.parametrize(("bound", "status"), [(3, "pending"), (2, "held"), (0, "held"), (None, "pending")])
def test_above_max_events_per_run_all_of_a_type_are_held(floor: Floor, bound: int | None, status: str) -> None:
    floor.ret("other", created_at=T0 - DAY)
    floor.start()
    floor.settings(max_events_per_run=bound)
    for number in range(3):
        floor.ret(str(number), created_at=T0 + HOUR)
    floor.ret("9", created_at=T0 + HOUR, customer_phone=None)  # not to be sent anyway, so not counted
    result = floor.qualify(floor.look(T0 + 2 * HOUR))[CREATED]
    assert result.states == {status: 3, "invalid": 1}
    assert {event.status for event in floor.events() if event.return_id in ("0", "1", "2")} == {status}


def test_one_type_above_the_bound_holds_no_other(floor: Floor) -> None:
    for number in range(3):
        floor.ret(str(number), created_at=T0 - DAY)
    floor.start()
    floor.settings(max_events_per_run=1)
    for number in range(3):
        floor.ret(str(number), state="closed")
    floor.ret("7", created_at=T0 + HOUR)
    events = floor.run(T0 + 2 * HOUR)
    assert {(event.event_type, event.status) for event in events} == {(CREATED, "pending"), (UPDATED, "held")}
    floor.ret("8", created_at=T0 + 3 * HOUR)
    assert only(floor.run(T0 + 4 * HOUR)).status == "pending"  # the next run counts by itself


# ── Shadow ──────────────────────────────────────────────────────────────────


def test_from_shadow_to_live_what_happened_after_enabled_at_is_judged_anew(floor: Floor) -> None:
    floor.start()
    floor.settings(mode="shadow")
    now = T0 + 40 * HOUR
    floor.ret("1", created_at=now - 25 * HOUR)
    floor.run(now - 24 * HOUR)
    floor.ret("2", created_at=now - 3 * HOUR)
    floor.ret("3", created_at=now - HOUR)
    floor.run(now)
    assert set(floor.outcomes().values()) == {("suppressed", "shadow")}
    floor.settings()
    assert floor.judge_again(now) == 0  # live, but since when?
    floor.settings(enabled_at=(now - 26 * HOUR).isoformat())
    assert floor.judge_again(now) == 2
    assert floor.outcomes() == {"1": ("expired", "too late"), "2": ("pending", None), "3": ("pending", None)}
    assert floor.events()[-1].properties["returnId"] == 3


def test_what_the_first_look_after_enabled_at_merely_noticed_may_be_of_before(floor: Floor) -> None:
    missing = "Loop Exchange Out Of Stock"
    floor.ret("1", created_at=T0 - HOUR)
    floor.ret("2", created_at=T0 - HOUR)
    floor.start()
    floor.settings(mode="shadow")
    for number in ("1", "2"):
        floor.item(number, number, out_of_stock=True)
        floor.run(T0 + int(number) * HOUR, missing)
    floor.settings(enabled_at=(T0 + HOUR / 2).isoformat())
    assert floor.judge_again(T0 + 3 * HOUR) == 1
    assert floor.outcomes(missing) == {"1": ("suppressed", "shadow"), "2": ("pending", None)}


def test_shadow_events_from_before_enabled_at_stay_where_they_are(floor: Floor) -> None:
    floor.start()
    floor.settings(mode="shadow")
    floor.ret("1", created_at=T0 + 1 * HOUR)
    floor.ret("2", created_at=T0 + 1 * HOUR + TICK)
    floor.run(T0 + 2 * HOUR)
    floor.settings(enabled_at=(T0 + 1 * HOUR).isoformat())
    assert floor.judge_again(T0 + 2 * HOUR) == 1
    assert floor.outcomes() == {"1": ("suppressed", "shadow"), "2": ("pending", None)}


def test_going_live_releases_no_flood(floor: Floor) -> None:
    floor.start()
    floor.settings(mode="shadow")
    for number in range(5):
        floor.ret(str(number), created_at=T0 + HOUR)
    floor.run(T0 + 2 * HOUR)
    floor.settings(enabled_at=T0.isoformat(), max_events_per_run=4)
    floor.judge_again(T0 + 3 * HOUR)
    assert {status for status, _ in floor.outcomes().values()} == {"held"}


# ── Judged again ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("contact", [{"customer_phone": "415-555-2671"}, {"customer_email": "ann@example.com"}])
def test_one_without_a_recipient_is_judged_again_when_the_contact_changes(
    floor: Floor, contact: dict[str, str]
) -> None:
    floor.start()
    floor.ret(created_at=T0 + HOUR, customer_phone="N/A")
    assert only(floor.run(T0 + 2 * HOUR)).reason == "no recipient"
    assert floor.judge_again(T0 + 2 * HOUR) == 0
    floor.ret(order_name="#2")
    floor.look(T0 + 3 * HOUR)
    assert floor.judge_again(T0 + 3 * HOUR) == 0
    floor.ret(**contact)
    floor.look(T0 + 4 * HOUR)
    assert floor.judge_again(T0 + 4 * HOUR) == 1
    event = only(floor.events())
    assert (event.status, event.reason, event.occurred_at) == ("pending", None, T0 + HOUR)
    assert floor.judge_again(T0 + 5 * HOUR) == 0


def test_but_only_within_its_lateness_and_only_for_want_of_a_recipient(floor: Floor) -> None:
    floor.start()
    floor.ret("1", created_at=T0 + HOUR, customer_phone="N/A")
    floor.ret("2", created_at=T0 + HOUR, customer_phone="N/A", state="processing")
    floor.run(T0 + 2 * HOUR)
    for number in ("1", "2"):
        floor.ret(number, customer_phone="+14155552671")
    floor.look(T0 + 25 * HOUR + TICK)
    assert floor.judge_again(T0 + 25 * HOUR + TICK) == 0
    assert {status for status, _ in floor.outcomes().values()} == {"invalid"}


def test_a_reminder_without_a_recipient_has_no_lateness(floor: Floor) -> None:
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    floor.ret("1", created_at=T0 - 20 * DAY, labels_enabled=True, customer_phone="N/A")
    assert only(floor.run(T0 + DAY, EXPIRING)).reason == "no recipient"
    floor.ret("1", customer_phone="+14155552671")
    floor.look(T0 + 3 * DAY)
    assert floor.judge_again(T0 + 3 * DAY) == 1
    event = only(floor.events())
    assert (event.status, event.occurred_at) == ("pending", T0 + DAY)


def test_a_reminder_that_was_dropped_as_no_longer_true_is_pending_again_when_its_rule_yields_it_again(
    floor: Floor,
) -> None:
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    floor.ret(created_at=T0 - 20 * DAY, labels_enabled=True)
    due = T0 + 2 * DAY
    assert only(floor.run(due, EXPIRING)).status == "pending"
    floor.set_status("suppressed", "no longer true")
    floor.ret(state="review")
    floor.run(due + HOUR, EXPIRING)
    assert floor.outcomes(EXPIRING)["1"] == ("suppressed", "no longer true")
    floor.ret(state="open")
    floor.run(due + 2 * HOUR, EXPIRING)
    [event] = [event for event in floor.events() if event.event_type == EXPIRING]
    assert (event.status, event.reason, event.occurred_at) == ("pending", None, due + 2 * HOUR)
    assert event.properties["returnId"] == 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("accepted", None),
        ("rejected", None),
        ("suppressed", "discarded"),
        ("suppressed", "opted out"),
        ("unknown", None),
    ],
)
def test_a_reminder_that_came_to_another_end_is_not_made_again(floor: Floor, status: str, reason: str | None) -> None:
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    floor.ret(created_at=T0 - 20 * DAY, labels_enabled=True)
    floor.run(T0 + 2 * DAY, EXPIRING)
    floor.set_status(status, reason)
    floor.run(T0 + 3 * DAY, EXPIRING)
    assert floor.outcomes(EXPIRING) == {"1": (status, reason)}


def test_one_that_still_holds_can_be_asked_for_by_return(floor: Floor) -> None:
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    for number in ("1", "2", "3"):
        floor.ret(number, created_at=T0 - 20 * DAY, labels_enabled=True)
    floor.ret("2", state="closed")
    look = floor.look(T0 + 2 * DAY)
    due = floor.conn.execute(
        rules.still_due_sql(BY_NAME[EXPIRING]),
        {"shop": "default", "as_of": look.as_of, "since": "-infinity", "fresh": True, "window_days": None,
         "return_ids": ["1", "2"]},
    ).fetchall()  # fmt: skip
    assert due == [("1",)]


# ── Order ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", ["a run", "a contact that came later", "a person"])
def test_within_a_millisecond_the_tables_order_decides(floor: Floor, by: str) -> None:
    """The label was made 0.4 ms before the status changed; Attentive is told of one and the same millisecond."""
    floor.ret(created_at=T0 - DAY)
    floor.start()
    if by != "a run":
        floor.ret(customer_phone="N/A") if by == "a contact that came later" else floor.settings(mode="shadow")
    floor.ret(state="closed", updated_at=T0 + HOUR + 600 * TICK)
    floor.label(status="new", created_at=T0 + HOUR + 200 * TICK)
    assert len(floor.run(T0 + 2 * HOUR)) == 2
    if by == "a contact that came later":
        floor.ret(customer_phone="+14155552671")
        floor.look(T0 + 3 * HOUR)
        floor.judge_again(T0 + 3 * HOUR)
    elif by == "a person":
        floor.settings(mode="live", retention_days=36_500)  # T0 may be years ago
        asker = decisions.Asker("default", "tests", "decides")
        chosen = decisions.Selection("release", ["suppressed"], "test", reason="shadow")
        decisions.propose(floor.conn, floor.shop, asker, chosen)
        decisions.decide(floor.conn, floor.shop, asker, chosen, who="ann")
    told = [event for event in floor.events() if event.status == "pending"]
    assert [event.event_type for event in told] == [UPDATED, "Loop Label Created"]
    assert told[0].occurred_at > told[1].occurred_at


# ── Runs ────────────────────────────────────────────────────────────────────


def test_what_the_rule_yielded_is_new_or_known_and_every_new_one_is_in_a_state(floor: Floor) -> None:
    for number in range(4):
        floor.ret(str(number), created_at=T0 - DAY)
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    for number in range(4, 9):
        floor.ret(str(number), created_at=T0 - 20 * DAY + HOUR, labels_enabled=True,
                  customer_phone="N/A" if number == 4 else "+14155552671")  # fmt: skip
    for days in (2, 3):
        look = floor.look(T0 + days * DAY)
        for qualified in floor.qualify(look).values():
            assert qualified.yielded == qualified.known + qualified.created
            assert qualified.created == sum(qualified.states.values())
    total = len(floor.events())
    sums = "SELECT sum(yielded), sum(known), sum(qualified), sum(pending + invalid + suppressed) FROM audit_run"
    assert floor.one(sums) == (total + 5, 5, total, total)


def test_an_outcome_without_a_word_at_attentive_is_left_out_and_counted(floor: Floor) -> None:
    floor.start()
    for number, outcome in enumerate(["credit+refund", "Gift_Card", " Exchange+Refund ", "refund", "N/A", None]):
        floor.ret(str(number), created_at=T0 + HOUR, outcome=outcome)
    events = floor.run(T0 + 2 * HOUR)
    assert [event.properties.get("returnOutcome") for event in events] == [
        None,
        None,
        "exchange+refund",
        "refund",
        None,
        None,
    ]
    assert floor.one("SELECT outcomes_omitted FROM run_rule WHERE event_type = %s AND created > 0", [CREATED]) == (2,)


def test_an_outcome_that_is_left_out_when_an_event_is_judged_again_is_told(
    floor: Floor, caplog: pytest.LogCaptureFixture
) -> None:
    floor.start()
    floor.ret("1", created_at=T0 + HOUR, outcome="credit+refund", customer_phone=None)
    floor.run(T0 + 2 * HOUR, CREATED)
    floor.ret("1", customer_phone="+14155552671")
    floor.look(T0 + 3 * HOUR)
    caplog.clear()
    assert floor.judge_again(T0 + 3 * HOUR) == 1
    assert "Loop Return Created: left out 1 return outcomes that Attentive's table does not have." in caplog.messages


def test_an_event_has_the_id_of_its_shop_type_and_key_in_every_database(floor: Floor) -> None:
    floor.start()
    floor.ret(created_at=T0 + HOUR)
    floor.run(T0 + 2 * HOUR)
    assert floor.conn.execute("SELECT event_id FROM event").fetchall() == [(event_id("default", CREATED, "1"),)]


def test_hourly_and_daily_at_the_same_minute_make_no_false_change_and_lose_none(floor: Floor) -> None:
    hourly = [event.name for event in CATALOGUE if not event.daily]
    daily = [event.name for event in CATALOGUE if event.daily]
    floor.ret("1", created_at=T0 - DAY)
    floor.label("1", status="new")
    floor.start()
    floor.ret("1", state="closed")
    floor.label("1", status="in_transit")
    first = floor.look(T0 + HOUR)
    second = floor.look(T0 + HOUR + TICK)
    assert second.changed == 0
    floor.qualify(second, *daily)
    floor.qualify(first, *hourly)
    assert [event.event_type for event in floor.events()[2:]] == [UPDATED, "Loop Label Updated"]
    assert floor.run(T0 + 2 * HOUR) == []


def test_a_change_that_the_daily_look_saw_is_told_by_the_next_hourly_run(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.ret(state="closed")
    floor.qualify(floor.look(T0 + HOUR), EXPIRING)
    event = only(floor.run(T0 + 2 * HOUR))
    assert (event.event_type, event.occurred_at) == (UPDATED, T0 + HOUR)


def test_runs_that_judge_out_of_turn_or_again_make_nothing_twice_and_lose_nothing(floor: Floor) -> None:
    floor.start()
    floor.ret("1", created_at=T0 + HOUR)
    first = floor.look(T0 + 2 * HOUR)
    floor.ret("2", created_at=T0 + 2 * HOUR)
    second = floor.look(T0 + 3 * HOUR)
    assert floor.qualify(second, CREATED)[CREATED].created == 2
    assert floor.qualify(first, CREATED)[CREATED].created == 0
    assert floor.qualify(second, CREATED)[CREATED].created == 0
    floor.ret("3", created_at=T0 + 3 * HOUR)
    assert [event.return_id for event in floor.run(T0 + 4 * HOUR, CREATED)] == ["3"]


def test_two_runs_at_once_on_one_rule_make_each_event_once(floor: Floor) -> None:
    floor.start()
    for number in range(50):
        floor.ret(str(number), created_at=T0 + HOUR)
    look = floor.look(T0 + 2 * HOUR)
    created: list[int] = []

    def judge(run_id: str) -> None:
        with db.connect(floor.conninfo, autocommit=True) as conn:
            run = runs.start(conn, dag_id="tests", run_id=run_id, shop="default", look=look)
            created.append(qualify.qualify(conn, floor.shop, BY_NAME[CREATED], run, now=look.as_of).created)

    threads = [threading.Thread(target=judge, args=(f"at once {number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(created) == [0, 0, 50]


def test_a_rule_that_fails_keeps_its_mark_and_its_rows(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    floor.start()
    floor.ret(created_at=T0 + HOUR)
    look = floor.look(T0 + 2 * HOUR)
    with monkeypatch.context() as patch:
        patch.setattr(qualify, "_record", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            floor.qualify(look, CREATED)
    assert floor.events() == []
    assert len(floor.run(T0 + 3 * HOUR, CREATED)) == 1


def test_thousands_of_rows_are_judged_in_chunks(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qualify, "CHUNK", 7)
    floor.start()
    floor.settings(max_events_per_run=20)
    for number in range(30):
        floor.ret(str(number), created_at=T0 + HOUR, customer_phone="N/A" if number % 3 else "+14155552671")
    assert floor.qualify(floor.look(T0 + 2 * HOUR), CREATED)[CREATED].states == {"invalid": 20, "pending": 10}


def test_created_stands_first_in_the_order_of_its_return(floor: Floor) -> None:
    floor.start()
    floor.ret(created_at=T0 + 5 * HOUR)
    floor.label(status="new", created_at=T0 + HOUR)
    assert [event.event_type for event in floor.run(T0 + 6 * HOUR)] == [CREATED, "Loop Label Created"]


def test_a_dead_label_lends_nothing_to_other_events(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.label(number="N/A", status="new", label_url="https://l/0", created_at=T0 - DAY)
    floor.start()
    floor.renumber_label(number="A", status="new", label_url="https://l/a")
    floor.look(T0 + HOUR)
    floor.label(number="A", status="voided")
    floor.ret(state="closed")
    shown = only(floor.run(T0 + 2 * HOUR, UPDATED)).properties
    assert not {name for name in shown if name.startswith(("label", "tracking"))}


def test_other_events_show_the_newest_live_label_by_making_then_first_seen_then_number(floor: Floor) -> None:
    labels: dict[str, list[dict[str, Any]]] = {
        "by making": [{"number": "A", "created_at": T0 - HOUR}, {"number": "B", "created_at": T0 - DAY}],
        "a dead one": [{"number": "A", "created_at": T0 - DAY}, {"number": "B", "created_at": T0, "status": "voided"}],
        "by number": [{"number": "8"}, {"number": "A"}],
        "numbered first": [{"number": "N/A", "created_at": T0}, {"number": "A", "created_at": T0 - DAY}],
    }
    for place, rows in enumerate(labels.values()):
        floor.ret(str(place), created_at=T0 - DAY)
        for row in rows:
            floor.label(str(place), **{"status": "new"} | row)
    floor.ret("9", created_at=T0 - DAY)
    floor.label("9", "B", status="new")
    floor.start()
    floor.label("9", "A", status="new")
    for number in ("0", "1", "2", "3", "9"):
        floor.ret(number, state="closed")
    events = floor.run(T0 + HOUR, UPDATED)
    assert [event.properties["trackingNumber"] for event in events] == ["A"] * 5


# ── Backfill ────────────────────────────────────────────────────────────────


def test_a_backfill_takes_the_facts_of_its_interval_and_leaves_the_rest_for_the_next_run(floor: Floor) -> None:
    floor.start()
    for hours in (1, 2, 3, 4):
        floor.ret(str(hours), created_at=T0 + hours * HOUR)
    window = (T0 + 2 * HOUR, T0 + 4 * HOUR)
    assert [event.return_id for event in floor.run(T0 + 5 * HOUR, window=window)] == ["2", "3"]
    assert [event.return_id for event in floor.run(T0 + 6 * HOUR)] == ["1", "4"]


def test_a_backfill_of_last_week_uses_up_no_reminder_of_today_and_moves_no_mark(floor: Floor) -> None:
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    today = T0 + 10 * DAY
    floor.ret("1", created_at=today - 21 * DAY, labels_enabled=True)
    floor.ret("2", created_at=T0 + 2 * DAY)
    marks = floor.conn.execute("SELECT * FROM rule ORDER BY event_type").fetchall()
    events = floor.run(today, window=(T0 + DAY, T0 + 8 * DAY))
    assert [(event.return_id, event.status, event.reason) for event in events] == [("2", "expired", "too late")]
    assert floor.conn.execute("SELECT * FROM rule ORDER BY event_type").fetchall() == marks
    assert [event.event_type for event in floor.run(today + HOUR)] == [CREATED, EXPIRING]


def test_a_backfill_releases_nothing_and_makes_nothing_that_the_ledger_holds(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - HOUR)
    floor.start()
    floor.settings(events_off=[CREATED])
    floor.ret("2", created_at=T0 + HOUR)
    floor.run(T0 + 2 * HOUR)
    floor.settings(mode="shadow")
    floor.ret("3", created_at=T0 + 3 * HOUR)
    floor.run(T0 + 4 * HOUR)
    floor.settings()
    before = floor.events()
    look = floor.look(T0 + 5 * HOUR, whole=True)
    result = floor.qualify(look, CREATED, window=(T0 - DAY, T0 + DAY))[CREATED]
    assert (result.yielded, result.known, result.created) == (3, 3, 0)
    assert floor.events() == before


def test_a_backfill_finds_what_came_too_late_for_the_cursor(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - DAY, synced_at=T0)
    floor.start()
    floor.ret("2", created_at=T0 + HOUR, synced_at=T0 - 3 * HOUR)
    assert floor.run(T0 + 2 * HOUR) == []
    floor.qualify(floor.look(T0 + 3 * HOUR, whole=True), window=(T0, T0 + 2 * HOUR))
    assert floor.outcomes()["2"] == ("pending", None)


def test_a_backfill_finds_again_what_its_mended_rule_had_missed(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    floor.start()
    floor.ret(state="closed", updated_at=T0 + HOUR)
    floor.run(T0 + 2 * HOUR)
    floor.conn.execute("DELETE FROM event WHERE event_type = %s", (UPDATED,))
    assert floor.run(T0 + 3 * HOUR) == []
    event = only(floor.run(T0 + 4 * HOUR, window=(T0 + HOUR, T0 + HOUR + TICK)))
    assert (event.event_type, event.occurred_at, event.status) == (UPDATED, T0 + HOUR, "pending")


def test_backfilled_reminders_are_judged_by_now(floor: Floor) -> None:
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    now = T0 + 40 * DAY
    floor.ret("1", created_at=now - 22 * DAY, labels_enabled=True)
    floor.ret("2", created_at=now - 30 * DAY, labels_enabled=True)  # turned 21 in the interval, but is past 28 by now
    events = floor.run(now, EXPIRING, window=(now - 10 * DAY, now))
    assert [(event.return_id, event.occurred_at) for event in events] == [("1", now)]


# ── Freshness ───────────────────────────────────────────────────────────────


def test_how_fresh_the_source_is(floor: Floor) -> None:
    def why(hours: float | None, now: Any = T0) -> str | None:
        fresh, reason = floor.fresh(now, freshness_hours=hours)
        assert fresh is (reason is None)
        return reason

    floor.look(T0 - 9 * HOUR)
    assert "no labels" in (why(None) or "")  # an empty table of labels cannot tell what is shipped
    floor.label("elsewhere", "OTHER", status="new")
    floor.look(T0 - 8 * HOUR)
    assert why(None) is None
    assert "no synced_at" in (why(26) or "")
    floor.label("elsewhere", "OTHER", status="new", synced_at=T0 - 2 * HOUR)
    floor.ret(synced_at=None)
    floor.look(T0 - 2 * HOUR)
    assert "no synced_at" in (why(26) or "")
    floor.ret(synced_at=T0 - HOUR)
    floor.look(T0)
    assert why(2) is None  # by the older of the two
    assert why(2, T0 + TICK) == (
        "returns or labels were last synced at 2026-03-01T10:00:00.000000Z, more than freshness_hours ago"
    )
    assert why(0.5) is not None
    assert why(26) is None


def delivered_unseen(floor: Floor) -> None:
    """Returns of the age of a reminder, with labels that were delivered, as nobody is told."""
    for return_id in ("1", "2"):
        floor.ret(return_id, created_at=T0 - 20 * DAY, labels_enabled=True, synced_at=T0)
        floor.label(return_id, f"1Z{return_id}", synced_at=T0)


def test_labels_that_never_tell_a_status_remind_nobody(floor: Floor) -> None:
    delivered_unseen(floor)
    floor.label("2", "1Z2", status="N/A")
    floor.start()
    assert floor.fresh(T0, 26) == (False, "no label has a status, so nothing tells what is shipped")
    now = T0 + 2 * DAY
    result = floor.qualify(floor.look(now), EXPIRING)[EXPIRING]
    assert (result.yielded, result.stale) == (0, "no label has a status, so nothing tells what is shipped")
    floor.label("2", "1Z2", status="delivered", synced_at=now)
    assert [event.return_id for event in floor.run(now + HOUR, EXPIRING)] == ["1"]
    floor.label("2", "1Z2", status=None, synced_at=now + HOUR)  # once told, the column is there
    floor.look(now + 2 * HOUR)
    assert floor.fresh(now, None) == (True, None)


@pytest.mark.parametrize("synced_at", [None, T0 - DAY])
def test_labels_that_were_emptied_remind_nobody_until_they_are_back(floor: Floor, synced_at: datetime | None) -> None:
    delivered_unseen(floor)
    floor.conn.execute("UPDATE loop.labels SET status = 'new', synced_at = %s", (synced_at,))
    floor.label("elsewhere", "OTHER", status="new", synced_at=synced_at and T0)
    floor.start()
    now = T0 + 2 * DAY
    floor.conn.execute("CREATE TABLE loop.lost AS TABLE loop.labels; TRUNCATE loop.labels")
    result = floor.qualify(floor.look(now), EXPIRING)[EXPIRING]
    assert (result.yielded, result.stale) == (0, "the source has no labels, so it cannot tell what is shipped")
    floor.conn.execute("INSERT INTO loop.labels SELECT * FROM loop.lost")
    floor.label("1", "1Z1", status="delivered")  # and a synced_at that the looks before had left behind
    assert [event.return_id for event in floor.run(now + HOUR, EXPIRING)] == ["2"]


def test_labels_of_which_a_look_reads_none_are_there_all_the_same(floor: Floor) -> None:
    delivered_unseen(floor)
    floor.conn.execute("UPDATE loop.labels SET status = 'new'")
    floor.start()
    floor.conn.execute("UPDATE loop.labels SET synced_at = %s", (T0 - DAY,))
    assert floor.look(T0 + HOUR).extracted == 2, "the returns, and no label"
    assert floor.fresh(T0 + HOUR, None) == (True, None)


def test_a_stale_source_puts_reminders_off_and_uses_up_none(floor: Floor) -> None:
    floor.settings(freshness_hours=26)
    floor.label("elsewhere", "OTHER", status="new", synced_at=T0)
    floor.ret("0", created_at=T0 - DAY, synced_at=T0)
    floor.start()
    now = T0 + 3 * DAY
    floor.ret("1", created_at=now - 22 * DAY, labels_enabled=True, synced_at=T0)
    floor.ret("2", created_at=now - HOUR, synced_at=T0)
    look = floor.look(now)
    result = floor.qualify(look)
    assert (result[EXPIRING].yielded, result[CREATED].created) == (0, 2)
    assert "last synced" in (result[EXPIRING].stale or "")
    assert result[CREATED].stale is None
    floor.ret("0", synced_at=now)
    floor.label("elsewhere", "OTHER", status="new", synced_at=now)
    assert [event.event_type for event in floor.run(now + HOUR)] == [EXPIRING]


def test_every_event_of_the_catalogue_has_a_rule_that_reads_as_one_select() -> None:
    for event in CATALOGUE:
        assert db.sql(f"events/{event.slug}").startswith("-- "), f"{event.slug} does not say what it is"
        assert rules.rule(event).startswith("SELECT")
        assert ";" not in rules.rule(event)


def test_what_was_merely_noticed_after_enabled_at_was_moved_may_have_happened_before(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - DAY)
    floor.start()
    floor.run(T0 + HOUR)
    floor.ret("1", state="closed")
    assert [event.status for event in floor.run(T0 + 2 * HOUR, UPDATED)] == ["pending"]
    floor.settings(enabled_at=T0 + 1.5 * HOUR)
    assert qualify.obey_settings(floor.conn, floor.shop) == 1
    assert floor.outcomes(UPDATED) == {"1": ("suppressed", "baseline")}


def test_a_test_list_lets_an_unknown_event_go_again_that_shows_nobody_else(floor: Floor) -> None:
    floor.settings(only_recipients=["+14155552671"])
    floor.start()
    floor.ret("1", created_at=T0 + HOUR, customer_email="ann@example.com")
    floor.run(T0 + 2 * HOUR, CREATED)
    floor.conn.execute("UPDATE event SET status = 'unknown', resend_at = %s", (T0 + 3 * HOUR,))
    qualify.obey_settings(floor.conn, floor.shop)
    assert floor.one("SELECT resend_at FROM event") == (T0 + 3 * HOUR,)
    floor.conn.execute("UPDATE event SET body = jsonb_set(body::jsonb, '{user,email}', '\"ann@example.com\"')")
    qualify.obey_settings(floor.conn, floor.shop)
    assert floor.one("SELECT resend_at FROM event") == (None,)


def test_a_reminder_comes_back_to_life_after_its_rule_was_raised(floor: Floor) -> None:
    expiring = "Loop Return Expiring"
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    floor.ret("1", created_at=T0, labels_enabled=True)
    floor.run(T0 + 22 * DAY, expiring)
    floor.set_status("suppressed", "no longer true")
    floor.conn.execute("UPDATE rule SET starts_at = %s", (T0 + 23 * DAY,))
    floor.settings(enabled_at=T0 + 23 * DAY)
    floor.run(T0 + 24 * DAY, expiring)
    assert floor.outcomes(expiring) == {"1": ("suppressed", "no longer true")}, "a person has forbidden it since"
    floor.settings()
    floor.run(T0 + 24 * DAY + HOUR, expiring)
    assert floor.outcomes(expiring) == {"1": ("pending", None)}
