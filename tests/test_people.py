"""People who said no: what is never stored of them, and that nothing reaches them, whenever they said it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from loop_attentive import people, removal
from sandbox.attentive import Fault, Standin
from tests.floor import DAY, HOUR, Floor
from tests.sending import Book, Sending, send, tell

CREATED, UPDATED = "Loop Return Created", "Loop Return Status Updated"

PHONE, EMAIL = "+14155552671", "ann@example.com"
OTHERS_PHONE = "+14155552672"

OPTED_OUT = ("suppressed", "opted out")
PENDING = ("pending", None)

NOW = datetime.now(UTC).replace(microsecond=0)
T0 = NOW - 6 * HOUR


def say_no(floor: Floor, *contacts: str, shop: str = "default") -> None:
    """As a person tells it, but for what is held already."""
    key = people.hash_key(floor.conn)
    people.opt_out(floor.conn, shop, [people.hashed(contact, key) for contact in contacts], given=True)


def held(floor: Floor, shop: str = "default") -> dict[str, tuple[Any, ...]]:
    """What the mirror holds of each return that tells whose it is."""
    rows = floor.conn.execute(
        "SELECT return_id, customer_phone, customer_email, order_name, status_page_url FROM mirror_return "
        "WHERE shop = %s",
        (shop,),
    ).fetchall()
    return {row[0]: row[1:] for row in rows}


NOTHING = (None, None, None, None)


def listed(floor: Floor) -> set[tuple[str, int, bool]]:
    return set(floor.conn.execute("SELECT shop, person_hash, given FROM opt_out").fetchall())


def row_of(floor: Floor, contact: str, given: bool, shop: str = "default") -> tuple[str, int, bool]:
    return shop, people.hashed(contact, people.hash_key(floor.conn)), given


def ret(floor: Floor, return_id: str, *, phone: str | None = None, email: str | None = None, **row: Any) -> None:
    """A return that was made after the first look."""
    usual = {"created_at": NOW - HOUR, "status_page_url": f"https://shop.example/returns/{return_id}"}
    floor.ret(return_id, customer_phone=phone, customer_email=email, **usual | row)


def sent(floor: Floor) -> set[str]:
    """Return ids of what Attentive gets when everything that is due is sent."""
    _, standin = send(Book(floor.conninfo, floor.shop))
    return {str(record.body["properties"]["returnId"]) for record in standin.received if record.body}


# ── At extraction and judgement ─────────────────────────────────────────────


@pytest.mark.parametrize("spelling", [PHONE, "(415) 555-2671", " +1 415.555.2671", "4155552671"])
def test_who_said_no_before_the_first_look_is_never_stored_and_gets_nothing(floor: Floor, spelling: str) -> None:
    say_no(floor, PHONE)
    ret(floor, "1", phone=spelling, email=EMAIL, created_at=T0 - DAY)
    ret(floor, "2", phone=OTHERS_PHONE, created_at=T0 - DAY)
    floor.start(T0)
    ret(floor, "3", phone=spelling)
    ret(floor, "4", phone=OTHERS_PHONE)
    floor.run(NOW, CREATED)
    assert held(floor)["1"] == held(floor)["3"] == NOTHING
    assert held(floor)["2"][0] == held(floor)["4"][0] == OTHERS_PHONE
    assert floor.outcomes(CREATED) == {
        "1": ("suppressed", "baseline"),
        "2": ("suppressed", "baseline"),
        "3": OPTED_OUT,
        "4": PENDING,
    }
    assert sent(floor) == {"4"}


def test_an_address_in_other_capitals_is_the_same(floor: Floor) -> None:
    say_no(floor, "Ann@Example.com")
    floor.start(T0)
    ret(floor, "1", email="aNN@EXAMPLE.COM")
    floor.run(NOW, CREATED)
    assert floor.outcomes() == {"1": OPTED_OUT}


def test_a_return_without_its_contact_is_no_change_when_it_is_read_again(floor: Floor) -> None:
    say_no(floor, PHONE)
    ret(floor, "1", phone=PHONE, email=EMAIL)
    floor.label("1", tracking_url="https://track.example/1", label_url="https://label.example/1", status="new")
    assert floor.look(T0).changed == 2
    ret(floor, "1", phone=PHONE, updated_at=NOW)
    floor.label("1", updated_at=NOW)
    assert floor.look(T0 + HOUR).changed == 0


def test_what_shows_where_their_packages_go_is_not_stored(floor: Floor) -> None:
    say_no(floor, PHONE)
    floor.label("1", status="new", tracking_url="https://track.example/1", label_url="https://label.example/1")
    floor.label("2", status="new", tracking_url="https://track.example/2", label_url="https://label.example/2")
    floor.look(T0)  # the labels wait for their returns
    ret(floor, "1", phone=PHONE)
    ret(floor, "2", phone=OTHERS_PHONE)
    floor.look(NOW)
    labels = floor.conn.execute(
        "SELECT number, tracking_url, label_url FROM mirror_label ORDER BY return_id"
    ).fetchall()
    assert labels == [("1Z1", None, None), ("1Z1", "https://track.example/2", "https://label.example/2")]
    assert floor.one("SELECT count(*) FROM mirror_waiting") == (0,)


def test_opted_out_is_told_before_too_late_and_invalid_and_after_switched_off(floor: Floor) -> None:
    say_no(floor, PHONE)
    floor.settings(enabled_at=(NOW - 9 * DAY).isoformat(), events_off=[UPDATED])
    ret(floor, "1", phone=PHONE, created_at=NOW - 2 * DAY)
    ret(floor, "no number", phone=PHONE)
    floor.qualify(floor.look(NOW - HOUR))
    floor.ret("1", state="closed", updated_at=NOW - HOUR)
    floor.run(NOW)
    assert floor.outcomes(CREATED) == {"1": OPTED_OUT, "no number": OPTED_OUT}
    assert floor.outcomes(UPDATED) == {"1": ("suppressed", "switched off")}


def test_their_reminders_stay_away_too(floor: Floor) -> None:
    say_no(floor, PHONE)
    ret(floor, "1", phone=PHONE, labels_enabled=True, created_at=NOW - 22 * DAY)
    ret(floor, "2", phone=OTHERS_PHONE, labels_enabled=True, created_at=NOW - 22 * DAY)
    floor.label("9", number="1ZOLD", status="delivered")
    floor.settings(enabled_at=(NOW - 9 * DAY).isoformat())
    floor.run(NOW, "Loop Return Expiring")
    assert floor.outcomes() == {"1": OPTED_OUT, "2": PENDING}


def test_an_event_that_had_no_recipient_gets_none_from_who_said_no(floor: Floor) -> None:
    say_no(floor, PHONE)
    floor.start(T0)
    ret(floor, "1")
    floor.run(NOW - timedelta(minutes=30), CREATED)
    assert floor.outcomes() == {"1": ("invalid", "no recipient")}
    floor.ret("1", customer_phone=PHONE)
    floor.look(NOW)
    assert floor.judge_again(NOW) == 0
    assert sent(floor) == set()


# ── Who shares a return with them ───────────────────────────────────────────


def test_who_was_found_to_share_a_return_and_is_named_later_is_known_by_that_moment(floor: Floor) -> None:
    """Else they would go off the list with those who were named before."""
    person = people.hashed(EMAIL, people.hash_key(floor.conn))
    people.opt_out(floor.conn, "default", [person], given=False)
    found_at = floor.one("SELECT opted_out_at FROM opt_out")
    people.opt_out(floor.conn, "default", [person], given=True)
    named_at = floor.one("SELECT opted_out_at FROM opt_out")
    assert named_at > found_at
    people.opt_out(floor.conn, "default", [person], given=False)
    people.opt_out(floor.conn, "default", [person], given=True)
    assert floor.one("SELECT opted_out_at FROM opt_out") == named_at


def test_who_shares_a_return_is_the_same_person_whatever_was_read_first(floor: Floor) -> None:
    say_no(floor, PHONE)
    floor.start(T0)
    ret(floor, "1", email=EMAIL)  # read before the return that shows whose it is
    ret(floor, "2", phone=PHONE, email=EMAIL)
    ret(floor, "3", phone=OTHERS_PHONE, email=EMAIL)
    ret(floor, "4", phone=OTHERS_PHONE)
    floor.run(NOW, CREATED)
    assert listed(floor) == {row_of(floor, PHONE, True), row_of(floor, EMAIL, False)}
    assert floor.outcomes() == {"1": OPTED_OUT, "2": OPTED_OUT, "3": OPTED_OUT, "4": PENDING}
    assert [held(floor)[number] for number in "123"] == [NOTHING] * 3
    assert sent(floor) == {"4"}  # whose phone shares a return with an address that was only shared itself


def test_a_contact_that_cannot_be_sent_to_tells_whose_a_return_is_but_is_itself_nobodys(floor: Floor) -> None:
    """A switchboard's number is several people's."""
    say_no(floor, EMAIL)
    floor.start(T0)
    ret(floor, "1", phone=OTHERS_PHONE, email=f"Ann <{EMAIL}>")
    ret(floor, "2", phone=f"{PHONE} ext. 5", email=EMAIL)
    ret(floor, "3", phone=OTHERS_PHONE)
    ret(floor, "4", phone=PHONE)
    floor.run(NOW, CREATED)
    assert listed(floor) == {row_of(floor, EMAIL, True), row_of(floor, OTHERS_PHONE, False)}
    assert floor.outcomes() == {"1": OPTED_OUT, "2": OPTED_OUT, "3": OPTED_OUT, "4": PENDING}


def test_a_later_look_shows_who_they_are_and_what_is_held_already_goes(floor: Floor) -> None:
    floor.start(T0)
    say_no(floor, PHONE)
    ret(floor, "1", email=EMAIL)
    floor.run(NOW - timedelta(minutes=30), CREATED)
    assert floor.outcomes() == {"1": PENDING}
    floor.conn.execute("DELETE FROM loop.returns")  # read no more
    ret(floor, "2", phone=PHONE, email=EMAIL)
    floor.look(NOW)
    removed = removal.catch_up(floor.conn, floor.shop)
    assert removed is not None
    assert (removed.returns, removed.events, removed.stopped, removed.on_their_way) == (1, 1, 1, 0)
    assert held(floor) == {"1": NOTHING, "2": NOTHING}
    assert floor.outcomes() == {"1": OPTED_OUT}
    assert removal.catch_up(floor.conn, floor.shop) is None  # until the list is another


def test_a_return_stays_theirs_when_its_contact_is_gone_and_not_when_it_is_anothers(floor: Floor) -> None:
    say_no(floor, PHONE)
    ret(floor, "1", phone=PHONE, email=EMAIL)
    ret(floor, "2", phone=PHONE)
    floor.look(T0)
    ret(floor, "1", order_name="#1001-B")
    ret(floor, "2", phone=OTHERS_PHONE)
    floor.look(NOW)
    assert held(floor)["1"] == NOTHING
    assert held(floor)["2"][:3] == (OTHERS_PHONE, None, "#1001")
    assert floor.conn.execute("SELECT opted_out FROM mirror_return ORDER BY return_id").fetchall() == [
        (True,),
        (False,),
    ]


# ── Shops of one account ────────────────────────────────────────────────────


@pytest.mark.parametrize(("others_account", "outcome"), [("account a", OPTED_OUT), ("account b", PENDING)])
def test_shops_of_one_account_share_who_said_no(
    floor: Floor, others_account: str, outcome: tuple[str, str | None]
) -> None:
    floor.start(T0)
    people.know_account(floor.conn, ["default"], "account a")
    floor.settings(name="other", phone_region="GB")
    floor.start(T0)
    people.know_account(floor.conn, ["other"], others_account)
    say_no(floor, PHONE)
    ret(floor, "1", phone=PHONE)
    floor.run(NOW, CREATED)
    assert floor.outcomes() == {"1": outcome}
    assert (held(floor, "other")["1"] == NOTHING) == (outcome == OPTED_OUT)
    assert sent(floor) == ({"1"} if outcome == PENDING else set())


def test_the_first_look_of_a_second_shop_keeps_out_who_said_no_to_the_first(floor: Floor) -> None:
    floor.start(T0)
    people.know_account(floor.conn, ["default"], "account a")
    say_no(floor, PHONE)
    ret(floor, "1", phone=PHONE, email=EMAIL)
    floor.settings(name="other")
    floor.look(NOW, account="account a")
    assert held(floor, "other") == {"1": NOTHING}
    assert row_of(floor, EMAIL, False, shop="other") in listed(floor)
    assert floor.one("SELECT enabled_at, account FROM shop WHERE shop = 'other'") == (NOW, "account a")


def test_a_shop_that_comes_to_an_account_gives_up_what_it_holds_of_those_who_said_no_there(floor: Floor) -> None:
    floor.start(T0)
    people.know_account(floor.conn, ["default"], "account a")
    say_no(floor, PHONE)
    floor.settings(name="other")
    floor.start(T0)
    ret(floor, "1", phone=PHONE)
    floor.run(NOW, CREATED)
    assert floor.outcomes() == {"1": PENDING}
    people.know_account(floor.conn, ["other"], "account a")
    assert removal.catch_up(floor.conn, floor.shop) is not None
    assert floor.outcomes() == {"1": OPTED_OUT}
    assert held(floor, "other") == {"1": NOTHING}


@pytest.mark.parametrize("other_goes_too", [True, False])
def test_a_shop_that_gets_a_new_key_knows_who_said_no_to_another_under_the_old_one(
    floor: Floor, other_goes_too: bool
) -> None:
    """The other may be paused, or have been taken out of shops.yaml: nobody would tell the ledger of its new key."""
    floor.start(T0)
    say_no(floor, PHONE)
    floor.settings(name="other")
    floor.start(T0)
    people.know_account(floor.conn, ["default", "other"], "account a")
    people.know_account(floor.conn, ["default", "other"] if other_goes_too else ["other"], "account b")
    ret(floor, "1", phone=PHONE)
    floor.run(NOW, CREATED)
    assert floor.outcomes() == {"1": OPTED_OUT}
    assert held(floor, "other") == {"1": NOTHING}


# ── Between judgement and the request ───────────────────────────────────────


def test_who_says_no_after_the_judgement_gets_nothing(floor: Floor) -> None:
    floor.start(T0)
    ret(floor, "1", phone=PHONE)
    ret(floor, "2", phone=OTHERS_PHONE, email=EMAIL)
    ret(floor, "3", phone=OTHERS_PHONE)
    floor.run(NOW, CREATED)
    say_no(floor, PHONE, EMAIL)
    assert sent(floor) == {"3"}
    assert {n: (e.status, e.reason, e.body) for n, e in zip("123", floor.events(), strict=True)} == {
        "1": (*OPTED_OUT, None),
        "2": (*OPTED_OUT, None),
        "3": ("accepted", None, None),
    }
    hashes = floor.conn.execute("SELECT phone_hash, email_hash FROM event WHERE reason = 'opted out'").fetchall()
    assert hashes == [(None, None)] * 2


def test_an_event_behind_another_one_does_not_wait_for_its_turn_to_be_dropped(floor: Floor) -> None:
    floor.start(T0)
    ret(floor, "1", phone=PHONE, updated_at=NOW - HOUR)
    floor.run(NOW - timedelta(minutes=30), CREATED)
    floor.ret("1", state="closed", updated_at=NOW - timedelta(minutes=20))
    floor.run(NOW)
    say_no(floor, PHONE)
    assert sent(floor) == set()
    assert {(e.event_type, e.status) for e in floor.events()} == {(CREATED, "suppressed"), (UPDATED, "suppressed")}


@pytest.mark.parametrize("waits", ["not yet due", "due"])
def test_who_says_no_while_an_unknown_waits_to_be_sent_again_is_not_sent_it(floor: Floor, waits: str) -> None:
    floor.start(T0)
    ret(floor, "1", phone=PHONE, email=EMAIL)
    floor.run(NOW, CREATED)
    floor.conn.execute(
        "UPDATE event SET status = 'unknown', reason = 'no answer', attempts = 1, sent_occurred_at = occurred_at, "
        "sent_at = now() - interval '3 minutes', resend_at = now() + %s",
        (timedelta(minutes=1 if waits == "not yet due" else -1),),
    )
    floor.conn.execute(
        "INSERT INTO attempt (event_id, attempt, run_key, task_id, map_index, try_number, occurred_at, started_at, "
        "finished_at, outcome) SELECT event_id, 1, run_key, 't', 0, 1, occurred_at, sent_at, sent_at, 'lost' FROM event"
    )
    say_no(floor, EMAIL)
    if waits == "not yet due":
        assert sent(floor) == set()
        assert floor.outcomes() == {"1": ("unknown", "no answer")}
        floor.conn.execute("UPDATE event SET resend_at = now()")
    assert sent(floor) == set()
    assert floor.outcomes() == {"1": OPTED_OUT}
    assert floor.one("SELECT attempts, resend_at, body FROM event") == (1, None, None)


def test_a_request_that_was_on_its_way_may_arrive_and_its_answer_counts(floor: Floor) -> None:
    floor.start(T0)
    ret(floor, "1", phone=PHONE)
    floor.run(NOW, CREATED)
    book = Book(floor.conninfo, floor.shop)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(delay=0.5))
        delivery = asyncio.create_task(sending())
        while not standin.received:
            await asyncio.sleep(0.01)
        say_no(floor, PHONE)
        await delivery

    tell(book, story)
    assert floor.outcomes() == {"1": ("accepted", None)}


# ── Contacts that are of no use ─────────────────────────────────────────────


def test_a_deleted_return_is_held_without_its_contact_and_gets_it_back(floor: Floor) -> None:
    floor.start(T0)
    ret(floor, "1", phone=PHONE, email=EMAIL, updated_at=NOW - 5 * HOUR)
    ret(floor, "2", phone=PHONE, is_deleted=True)
    floor.run(NOW - 4 * HOUR)
    assert held(floor)["1"][:2] == (PHONE, EMAIL)
    assert held(floor)["2"] == NOTHING
    floor.ret("1", is_deleted=True, updated_at=NOW - 3 * HOUR)
    floor.run(NOW - 3 * HOUR)
    assert held(floor)["1"] == NOTHING
    floor.ret("1", updated_at=NOW - 3 * HOUR, synced_at=NOW)  # touched
    assert floor.look(NOW - 2 * HOUR).changed == 0
    floor.ret("1", is_deleted=False)  # nothing else of it is another
    assert floor.look(NOW - HOUR).changed == 1
    assert held(floor)["1"] == (PHONE, EMAIL, "#1001", "https://shop.example/returns/1")
    floor.ret("1", state="closed", updated_at=NOW - timedelta(minutes=5))
    [event] = floor.run(NOW)
    assert event.event_type == UPDATED
    assert event.body is not None
    assert event.body["user"] == {"phone": PHONE, "email": EMAIL}


def test_nothing_else_loses_its_contact_as_long_as_something_may_happen_to_it(floor: Floor) -> None:
    for number, state in enumerate(("open", "closed", "canceled", "expired", "review")):
        ret(floor, str(number), phone=PHONE, state=state, created_at=T0 - 100 * DAY, updated_at=T0 - 90 * DAY)
    floor.look(T0)
    assert {contact[0] for contact in held(floor).values()} == {PHONE}


def test_what_stays_for_an_open_item_alone_loses_its_contact_and_gets_it_back_when_it_is_touched(floor: Floor) -> None:
    floor.settings(mirror_days=40)
    ret(floor, "1", phone=PHONE, email=EMAIL, created_at=T0 - 30 * DAY, updated_at=T0 - 30 * DAY)
    floor.item("1", out_of_stock=True, updated_at=T0 - 30 * DAY)
    floor.look(T0)
    assert held(floor)["1"][:2] == (PHONE, EMAIL)
    floor.look(T0 + 11 * DAY)
    assert held(floor)["1"] == NOTHING
    floor.ret("1", state="closed", updated_at=T0 + 12 * DAY)
    floor.look(T0 + 12 * DAY)
    assert held(floor)["1"] == (PHONE, EMAIL, "#1001", "https://shop.example/returns/1")


def test_reading_contacts_costs_nothing_while_nobody_said_no(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people.contacts, "phone", None)
    monkeypatch.setattr(people.contacts, "email", None)
    ret(floor, "1", phone=PHONE, email=EMAIL)
    assert floor.look(T0).changed == 1
