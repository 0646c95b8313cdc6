"""make forget: what is held of people goes, wherever it is, and nothing reaches them from then on."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from loop_attentive import db, forget, people, removal
from loop_attentive.attentive import AttentiveTransport, Endpoint
from loop_attentive.catalogue import CATALOGUE
from loop_attentive.forget import Deletion, NotAsked
from loop_attentive.settings import Shop
from sandbox.attentive import DELETE_REQUEST, RECREATES_PERSON, Fault, Standin, running_standin
from tests.floor import DAY, HOUR, Floor
from tests.sending import CREATED, KEY, UPDATED, Book, Sending, send, somebody_waits, tell

PHONE, EMAIL = "+14155552671", "canary.ann@example.com"
CANARIES = ("4155552671", "canary")
"""What every spelling of this person's data holds."""

NOW = datetime.now(UTC).replace(microsecond=0)
T0 = NOW - 6 * HOUR

PRIVACY = Path(__file__).parents[1] / "docs" / "privacy.md"

OPTED_OUT = ("suppressed", "opted out")

PAGES = {"tracking_url": "https://canary.example/1", "label_url": "https://canary.example/label/1"}


def forgets(floor: Floor, *contacts: str, **options: Any) -> dict[str, removal.Removed]:
    """As the command does for one shop."""
    shop = floor.shop
    read = forget.read(contacts, shop)
    assert not read.unusable
    given = {shop.name: read.contacts}
    return forget.forget(floor.conn, {shop.name: shop}, given, who="ada", why="make forget", **options)


def found_anywhere(conn: psycopg.Connection[Any], *words: str) -> list[tuple[str, str]]:
    """Tables and columns of the ledger's schema that hold one of the words, in whatever type."""
    columns = conn.execute(
        "SELECT c.table_name, c.column_name FROM information_schema.columns AS c JOIN information_schema.tables AS t "
        "USING (table_schema, table_name) WHERE c.table_schema = 'loop_attentive' AND t.table_type = 'BASE TABLE'"
    ).fetchall()
    assert len(columns) > 100
    query = "SELECT count(*) FROM {} WHERE {}::text ILIKE ANY (%s)"
    patterns = [f"%{word}%" for word in words]
    return [
        (table, column)
        for table, column in columns
        if conn.execute(
            sql.SQL(query).format(sql.Identifier(table), sql.Identifier(column)), (patterns,)
        ).fetchone() != (0,)
    ]  # fmt: skip


def ret(floor: Floor, return_id: str, **row: Any) -> None:
    """A return of the person who is to be forgotten, made after the first look."""
    usual = {
        "created_at": NOW - HOUR, "customer_phone": "(415) 555-2671", "customer_email": EMAIL,
        "order_name": "#canary", "status_page_url": "https://canary.example/1",
    }  # fmt: skip
    floor.ret(return_id, **usual | row)


def a_life(floor: Floor) -> None:
    """Returns, labels and events of the person, and one of somebody else."""
    floor.start(T0)
    for number in "12345":
        ret(floor, number, labels_enabled=True)
    ret(floor, "6", customer_phone=None)
    floor.ret("7", customer_phone="+14155552699", created_at=NOW - HOUR, order_name="#1007")
    for number in "17":
        floor.label(
            number, f"1ZNUMBER{number}", status="new", created_at=NOW - HOUR,
            tracking_url=f"https://canary.example/{number}", label_url=f"https://canary.example/label/{number}",
        )  # fmt: skip
    floor.conn.execute("UPDATE loop.labels SET tracking_url = 'https://t', label_url = NULL WHERE return_id = '7'")
    floor.run(NOW, CREATED, "Loop Label Created")
    for number, status, reason in (
        ("2", "held", "flood"),
        ("3", "unknown", "no answer"),
        ("4", "unknown", "no answer"),
    ):
        floor.conn.execute(
            "UPDATE event SET status = %s, reason = %s, resend_at = %s WHERE return_id = %s",
            (status, reason, NOW + HOUR if number == "3" else None, number),
        )
    floor.conn.execute("UPDATE event SET status = 'accepted', body = NULL WHERE return_id = '5'")


# ── What goes ───────────────────────────────────────────────────────────────


def test_nothing_is_left_that_tells_who_they_were(floor: Floor) -> None:
    a_life(floor)
    where = {table for table, _ in found_anywhere(floor.conn, *CANARIES)}
    assert where == {"mirror_return", "mirror_label", "event"}
    removed = forgets(floor, PHONE)["default"]
    assert found_anywhere(floor.conn, *CANARIES) == []
    assert (removed.returns, removed.events, removed.stopped, removed.shared) == (6, 7, 6, 1)
    hashes = floor.conn.execute("SELECT phone_hash, email_hash FROM event WHERE return_id < '7'").fetchall()
    assert set(hashes) == {(None, None)}


def as_the_document_says_of_a_shop_that_is_gone(floor: Floor) -> None:
    [statements] = re.findall(r"```sql\n(DELETE.*?)```", PRIVACY.read_text(encoding="utf-8"), re.DOTALL)
    floor.conn.execute(statements.replace("'gone'", "'default'"))


def test_what_the_document_says_of_a_shop_that_is_gone_leaves_nobodys_contact(floor: Floor) -> None:
    a_life(floor)
    floor.conn.execute("UPDATE event SET status = 'sending' WHERE return_id = '2'")  # its sender died
    as_the_document_says_of_a_shop_that_is_gone(floor)
    assert found_anywhere(floor.conn, *CANARIES, "4155552699") == []
    assert floor.conn.execute("SELECT DISTINCT phone_hash, email_hash FROM event").fetchall() == [(None, None)]
    assert floor.outcomes(CREATED)["7"] == ("suppressed", "discarded")
    assert floor.outcomes(CREATED)["5"] == ("accepted", None)


def test_a_shop_that_was_gone_and_comes_back_knows_what_is_shipped(floor: Floor) -> None:
    """Its look reads again what nobody has touched since: labels, too."""
    floor.ret("1", created_at=T0, updated_at=T0, labels_enabled=True)
    floor.label("1", status="in_transit", created_at=T0, updated_at=T0)
    floor.ret("2", created_at=T0, updated_at=T0, labels_enabled=True)
    floor.label("3", created_at=T0 + DAY, updated_at=T0 + DAY)  # beyond which the cursor reads
    floor.start(T0 + DAY)
    as_the_document_says_of_a_shop_that_is_gone(floor)
    floor.ret("1", order_name="#1002", updated_at=T0 + 21 * DAY)
    floor.run(T0 + 22 * DAY, "Loop Return Expiring")
    assert floor.outcomes("Loop Return Expiring") == {"2": ("pending", None)}


def test_the_fact_that_events_existed_stays_and_other_people_are_left_alone(floor: Floor) -> None:
    a_life(floor)
    before = {event.key for event in floor.events()}
    forgets(floor, PHONE)
    assert {event.key for event in floor.events()} == before
    assert floor.outcomes(CREATED) == dict.fromkeys("12346", OPTED_OUT) | {
        "5": ("accepted", None),
        "7": ("pending", None),
    }
    assert {event.return_id for event in floor.events() if event.body} == {"7"}
    assert floor.one("SELECT customer_phone, order_name FROM mirror_return WHERE return_id = '7'") == (
        "+14155552699", "#1007"
    )  # fmt: skip
    assert floor.one("SELECT tracking_url FROM mirror_label WHERE return_id = '7'") == ("https://t",)
    _, standin = send(Book(floor.conninfo, floor.shop))
    assert {record.body["properties"]["returnId"] for record in standin.received if record.body} == {7}


def test_they_stay_forgotten_when_the_source_tells_of_them_again(floor: Floor) -> None:
    a_life(floor)
    forgets(floor, EMAIL)
    for number in "1236":
        floor.ret(number, state="closed", updated_at=NOW)
    floor.label("1", "1ZNUMBER1", status="in_transit", updated_at=NOW)
    assert floor.look(NOW + timedelta(minutes=1)).changed == 5
    assert floor.look(NOW + timedelta(minutes=2)).changed == 0
    floor.run(NOW + timedelta(minutes=3))
    assert found_anywhere(floor.conn, *CANARIES) == []
    assert floor.outcomes(UPDATED) == dict.fromkeys("1236", OPTED_OUT)


def test_twice_is_as_good_as_once(floor: Floor) -> None:
    a_life(floor)
    forgets(floor, PHONE, EMAIL)
    tables = "opt_out", "event", "mirror_return", "mirror_label"
    once = [floor.conn.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1").fetchall() for table in tables]
    removed = forgets(floor, EMAIL, PHONE)["default"]
    assert (removed.returns, removed.events, removed.stopped, removed.shared) == (0, 0, 0, 0)
    assert [floor.conn.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1").fetchall() for table in tables] == once


def test_who_shares_a_return_is_found_in_the_ledger_too(floor: Floor) -> None:
    """The mirror may have forgotten the return that shows it."""
    floor.start(T0)
    ret(floor, "1")
    ret(floor, "2", customer_phone=None)
    floor.run(NOW, CREATED)
    floor.conn.execute("DELETE FROM mirror_return WHERE return_id = '1'")
    forgets(floor, PHONE)
    assert floor.outcomes() == {"1": OPTED_OUT, "2": OPTED_OUT}
    assert found_anywhere(floor.conn, *CANARIES) == []


@pytest.mark.parametrize(
    "spelt",
    [
        {"customer_phone": "415-555-2671 ext. 5", "customer_email": None},
        {"customer_phone": "415-555-2671 or 415-555-2699", "customer_email": None},
        {"customer_phone": None, "customer_email": f"Ann <{EMAIL}>"},
        {"customer_phone": "n/a", "customer_email": f"{EMAIL}, bob@example.com"},
    ],
)
def test_a_contact_that_is_spelt_so_that_nothing_can_be_sent_to_it(floor: Floor, spelt: dict[str, str | None]) -> None:
    floor.start(T0)
    ret(floor, "1", **spelt)
    floor.label("1", "1Z", status="new", created_at=NOW - HOUR, **PAGES)
    floor.run(NOW - HOUR)
    assert found_anywhere(floor.conn, *CANARIES) != []
    assert forgets(floor, PHONE, EMAIL)["default"].returns == 1
    assert found_anywhere(floor.conn, *CANARIES) == []
    ret(floor, "1", order_name="#canary-2", updated_at=NOW, **spelt)
    floor.look(NOW)
    assert found_anywhere(floor.conn, *CANARIES) == []


def test_events_from_before_recipients_were_hashed(floor: Floor) -> None:
    floor.start(T0)
    ret(floor, "1")
    ret(floor, "2", customer_phone="+14155552699", customer_email=None)
    floor.run(NOW, CREATED)
    floor.conn.execute("UPDATE event SET phone_hash = NULL, email_hash = NULL")
    forgets(floor, EMAIL)
    assert floor.outcomes() == {"1": OPTED_OUT, "2": ("pending", None)}


def test_what_shows_only_a_contact_that_a_later_one_shows_to_be_theirs(floor: Floor) -> None:
    """In the mirror, and in bodies whose recipients were not hashed."""
    floor.start(T0)
    ret(floor, "1", customer_phone=None)
    ret(floor, "2")
    floor.run(NOW, CREATED)
    floor.conn.execute("UPDATE event SET phone_hash = NULL, email_hash = NULL")
    floor.conn.execute("DELETE FROM mirror_return WHERE return_id = '2'")
    forgets(floor, PHONE)
    assert floor.outcomes() == {"1": OPTED_OUT, "2": OPTED_OUT}
    assert found_anywhere(floor.conn, *CANARIES) == []


@pytest.mark.parametrize("gone", [{"is_deleted": True}, {"customer_phone": None, "customer_email": None}])
def test_pages_of_a_return_that_only_its_events_tell_to_be_theirs(floor: Floor, gone: dict[str, Any]) -> None:
    floor.start(T0)
    ret(floor, "1", order_name="#1", status_page_url=None)
    floor.label("1", "1Z", status="new", created_at=NOW - HOUR, **PAGES)
    floor.run(NOW, CREATED)
    floor.ret("1", updated_at=NOW + HOUR, **gone)
    floor.look(NOW + HOUR)
    assert (("mirror_label", "label_url") in found_anywhere(floor.conn, *CANARIES)) == ("is_deleted" not in gone)
    removed = forgets(floor, PHONE)["default"]
    assert (removed.returns, removed.events) == (1, 1)
    assert found_anywhere(floor.conn, *CANARIES) == []


@pytest.mark.parametrize("at_once", [True, False])
def test_a_label_that_waits_for_a_return_which_was_deleted_before_it_was_seen(floor: Floor, at_once: bool) -> None:
    """Nobody knows whose it was; so nothing of theirs may be held."""
    floor.start(T0)
    floor.label("1", "1Z", status="new", created_at=NOW - HOUR, synced_at=NOW - 5 * HOUR, **PAGES)
    floor.label("2", "2Z", status="new", created_at=NOW - HOUR, synced_at=NOW - 1.5 * HOUR)
    if not at_once:
        floor.look(NOW - HOUR)
    ret(floor, "1", is_deleted=True)
    floor.look(NOW)
    assert floor.conn.execute("SELECT count(*) FROM mirror_waiting").fetchone() == (2,)
    assert found_anywhere(floor.conn, *CANARIES) == []


def test_pages_of_a_return_without_an_event_do_not_outlive_what_tells_whose_it_is(floor: Floor) -> None:
    """Deleted, or kept beyond mirror_days for an item that is out of stock. When it comes back they come with it."""
    floor.settings(mirror_days=40)
    for number in ("1", "2"):
        ret(floor, number, created_at=T0 - DAY, updated_at=T0 - DAY, synced_at=T0 - DAY)
        floor.label(number, number, status="new", updated_at=T0 - DAY, synced_at=T0 - DAY, **PAGES)
    floor.item("2", "20", out_of_stock=True, synced_at=T0 - DAY)
    floor.start(T0)
    floor.ret("1", is_deleted=True, updated_at=T0 + HOUR, synced_at=T0 + HOUR)
    floor.look(T0 + HOUR)
    pages = "SELECT return_id FROM mirror_label WHERE label_url IS NOT NULL AND tracking_url IS NOT NULL ORDER BY 1"
    assert floor.conn.execute(pages).fetchall() == [("2",)]
    ret(floor, "3", created_at=T0 + 39 * DAY, synced_at=T0 + 39 * DAY)
    floor.ret("1", is_deleted=False, updated_at=T0 + 39 * DAY, synced_at=T0 + 39 * DAY)
    floor.look(T0 + 39 * DAY)
    assert floor.conn.execute(pages).fetchall() == [("1",), ("2",)]
    for day in (45, 46):  # the label is read again
        floor.label("2", "2", carrier=f"of day {day}", updated_at=T0 + day * DAY, synced_at=T0 + day * DAY)
        floor.look(T0 + day * DAY)
        assert floor.conn.execute(pages).fetchall() == [("1",)]
    floor.ret("2", state="closed", updated_at=T0 + 50 * DAY, synced_at=T0 + 50 * DAY)
    floor.look(T0 + 50 * DAY)
    assert floor.conn.execute(pages).fetchall() == [("1",), ("2",)]


def test_before_the_shop_has_ever_been_looked_at(floor: Floor) -> None:
    forgets(floor, PHONE)
    ret(floor, "1", created_at=T0 - DAY)
    floor.start(T0)
    assert found_anywhere(floor.conn, *CANARIES) == []


def test_shops_of_one_account_forget_together_and_others_do_not(floors: Any, ledger: str) -> None:
    floor: Floor = floors()
    shops = {name: Shop(name=name) for name in ("default", "same", "stranger")}
    for name in shops:
        floor.settings(name=name)
        floor.start(T0)
    people.know_account(floor.conn, ["default", "same"], "account a")
    people.know_account(floor.conn, ["stranger"], "account b")
    ret(floor, "1")
    for name in shops:
        floor.settings(name=name)
        floor.run(NOW, CREATED)
    removed = forget.forget(floor.conn, shops, {"default": {PHONE}}, who="ada", why="test")
    assert removed.keys() == {"default", "same"}
    states = dict(floor.conn.execute("SELECT shop, status FROM event").fetchall())
    assert states == {"default": "suppressed", "same": "suppressed", "stranger": "pending"}
    held = floor.conn.execute("SELECT shop FROM mirror_return WHERE customer_phone IS NOT NULL").fetchall()
    assert held == [("stranger",)]


# ── What is recorded ────────────────────────────────────────────────────────


def test_the_decision_is_recorded_with_counts_and_nothing_private(floor: Floor) -> None:
    a_life(floor)
    forgets(floor, PHONE)
    row = floor.one("SELECT shop, action, decided_by, why, scope, events FROM audit_decision")
    assert row[:4] == ("default", "forget", "ada", "make forget")
    assert row[4] == {"contacts": 1, "asked Attentive": False, "returns": 6, "events": 7, "shared contacts": 1}
    assert row[5] == 6
    before = floor.conn.execute("SELECT status_before, count(*) FROM decision_event GROUP BY 1").fetchall()
    assert dict(before) == {"pending": 3, "held": 1, "unknown": 2}


# ── While senders run ───────────────────────────────────────────────────────


def in_a_thread(
    floor: Floor, *contacts: str, deletion: Deletion | None = None
) -> tuple[threading.Thread, list[removal.Removed]]:
    """The command on a connection of its own."""
    results: list[removal.Removed] = []

    def work() -> None:
        with db.connect(floor.conninfo, autocommit=True) as conn:
            shop = floor.shop
            given = {shop.name: set(contacts)}
            shops = {shop.name: shop}
            removed = forget.forget(conn, shops, given, who="ada", why="test", deletion=deletion)
            results.append(removed[shop.name])

    thread = threading.Thread(target=work)
    thread.start()
    return thread, results


def test_it_and_a_preview_that_has_some_rules_do_not_wait_for_each_other(floor: Floor) -> None:
    """A preview takes the rules one after the other, and keeps them until it has foreseen the last."""
    floor.start(T0)
    take = "SELECT FROM rule WHERE event_type = %s FOR UPDATE"
    with db.connect(floor.conninfo) as preview:
        preview.execute(take, [CATALOGUE[-1].name])
        thread, results = in_a_thread(floor, PHONE)
        asyncio.run(somebody_waits(floor.conninfo))
        preview.execute(take, [CATALOGUE[0].name])
    thread.join(30)
    assert len(results) == 1


def test_it_waits_for_the_answer_to_what_is_on_its_way(floor: Floor) -> None:
    floor.start(T0)
    ret(floor, "1")
    ret(floor, "2")
    floor.run(NOW, CREATED)
    floor.conn.execute("UPDATE event SET due_at = now() + interval '1 hour' WHERE return_id = '2'")
    book = Book(floor.conninfo, floor.shop)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(delay=1.0))
        delivery = asyncio.create_task(sending())
        while not standin.received:
            await asyncio.sleep(0.01)
        thread, results = in_a_thread(floor, PHONE)
        await delivery
        await asyncio.to_thread(thread.join)
        assert (results[0].events, results[0].stopped, results[0].on_their_way) == (2, 1, 0)

    tell(book, story)
    assert floor.outcomes() == {"1": ("accepted", None), "2": OPTED_OUT}
    assert found_anywhere(floor.conn, *CANARIES) == []


@pytest.mark.parametrize(("answer", "outcome"), [("accepted", ("accepted", None)), (None, OPTED_OUT)])
def test_what_a_dead_sender_left_is_stopped_and_a_late_answer_still_counts(
    floor: Floor, answer: str | None, outcome: tuple[str, str | None]
) -> None:
    floor.start(T0)
    ret(floor, "1")
    floor.run(NOW, CREATED)
    book = Book(floor.conninfo, floor.shop)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(delay=1.0, status=None if answer else 429))
        delivery = asyncio.create_task(sending())
        while not standin.received:
            await asyncio.sleep(0.01)
        book.run("UPDATE event SET lease_until = now() - interval '1 second' WHERE status = 'sending'")
        forgets(floor, PHONE)
        assert floor.outcomes() == {"1": OPTED_OUT}
        assert floor.one("SELECT outcome FROM attempt") == ("lost",)
        await delivery

    tell(book, story)
    assert floor.outcomes() == {"1": outcome}
    assert found_anywhere(floor.conn, *CANARIES) == []


def test_it_is_told_when_something_is_still_on_its_way(floor: Floor) -> None:
    floor.start(T0)
    ret(floor, "1")
    floor.run(NOW, CREATED)
    floor.conn.execute("UPDATE event SET status = 'sending', lease_until = now() + interval '1 minute'")
    assert forgets(floor, PHONE, patience=0.5)["default"].on_their_way == 1
    assert floor.one("SELECT cleaned_of FROM shop") == (None,)
    floor.conn.execute("UPDATE event SET status = 'accepted', lease_until = NULL, body = NULL")
    removed = removal.catch_up(floor.conn, floor.shop)
    assert removed is not None
    assert removed.events == 1


def test_many_at_once_while_senders_send(floor: Floor) -> None:
    """Nobody waits for anybody in a circle, everything adds up, and nothing leaves that was not marked before."""
    floor.start(T0)
    book = Book(floor.conninfo, floor.shop)
    book.add_many(1500)
    key = people.hash_key(floor.conn)
    contacts = [f"somebody{number}@example.com" for number in range(1500)]
    book.run(
        "UPDATE event SET email_hash = h.hash, "
        "body = jsonb_set(body::jsonb, '{user}', jsonb_build_object('email', h.contact)) "
        "FROM unnest(%(returns)s::text[], %(hashes)s::bigint[], %(contacts)s::text[]) AS h (return_id, hash, contact) "
        "WHERE event.return_id = h.return_id",
        returns=[str(100001 + number) for number in range(1500)],
        hashes=[people.hashed(contact, key) for contact in contacts], contacts=contacts,
    )  # fmt: skip
    said_no_at: list[datetime] = []

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(jitter=0.05))
        deliveries = [asyncio.create_task(sending(requests_per_second=400)) for _ in range(2)]
        while len(standin.received) < 100:
            await asyncio.sleep(0.01)
        thread, _ = in_a_thread(floor, *contacts[200:])
        await asyncio.to_thread(thread.join)
        said_no_at.append(floor.one("SELECT max(opted_out_at) FROM opt_out")[0])
        await asyncio.gather(*deliveries)

    tell(book, story, limit=None)
    states = book.states()
    assert states["accepted"] + states["suppressed"] == 1500
    assert states["suppressed"] > 500
    late = book.one(
        "SELECT count(*) FROM attempt JOIN event USING (event_id) WHERE email_hash IS NULL AND started_at > %(at)s",
        at=said_no_at[0] + timedelta(seconds=1),
    )
    assert late == 0
    assert found_anywhere(floor.conn, "somebody3", "somebody9") == []


@pytest.mark.parametrize("what", ["a rule", db.JUDGES_AGAIN, db.DECIDES])
def test_what_is_judged_meanwhile_leaves_nothing(floor: Floor, what: str) -> None:
    """It has read the mirror before that was cleaned, and commits what it made of it after the events were stopped."""
    floor.start(T0)
    ret(floor, "1")
    floor.run(NOW, CREATED)
    with db.connect(floor.conninfo) as judging:
        if what == "a rule":
            judging.execute("SELECT FROM rule WHERE shop = 'default' FOR UPDATE")
        else:
            db.wait_for_turn(judging, what.format("default"))
        same = (
            "shop, event_type, return_id, occurred_at, fact_at, detected_at, body, order_at, order_no, run_key, "
            "phone_hash, email_hash"
        )
        judging.execute(
            f"INSERT INTO event (event_id, key, status, {same}) "
            f"SELECT gen_random_uuid(), 'late', 'held', {same} FROM event"
        )
        thread, _ = in_a_thread(floor, PHONE)
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while floor.one(waiting) == (0,) and thread.is_alive():
            time.sleep(0.01)
    thread.join()
    assert {event.status for event in floor.events()} == {"suppressed"}
    assert found_anywhere(floor.conn, *CANARIES) == []


def test_pages_of_a_label_go_when_their_return_shows_to_be_theirs(floor: Floor) -> None:
    floor.start(T0)
    forgets(floor, PHONE)
    ret(floor, "1", customer_phone=None, customer_email="another@example.com")
    pages = dict.fromkeys(("tracking_url", "label_url"), "https://canary.example/1")
    floor.label("1", status="new", created_at=NOW - HOUR, **pages)
    floor.look(NOW - HOUR)
    assert found_anywhere(floor.conn, "canary.example") != []
    ret(floor, "1", customer_email="another@example.com", updated_at=NOW)
    floor.conn.execute("DELETE FROM loop.labels")  # as good as not moved: the look does not read it
    floor.look(NOW)
    assert found_anywhere(floor.conn, "canary.example") == []


def test_a_look_that_is_under_way_brings_nothing_back(floor: Floor) -> None:
    """It began with the list as it was: the mirror is cleaned when it has ended."""
    floor.start(T0)
    ret(floor, "1")
    with db.connect(floor.conninfo) as looking:
        looking.execute("SELECT pg_advisory_xact_lock(hashtextextended('loop_attentive look at default', 0))")
        thread, _ = in_a_thread(floor, PHONE)
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while floor.one(waiting) == (0,) and thread.is_alive():
            time.sleep(0.01)
        looking.execute(
            "INSERT INTO mirror_return (shop, return_id, customer_phone, is_deleted) "
            "VALUES ('default', '1', %s, false)",
            (PHONE,),
        )
        looking.commit()
        thread.join()
    assert found_anywhere(floor.conn, *CANARIES) == []


# ── Deletion at Attentive ───────────────────────────────────────────────────


@pytest.fixture
def standin() -> Iterator[Standin]:
    with running_standin(key=KEY) as standin:
        yield standin


def deletion(standin: Standin, *shops: str) -> Deletion:
    return Deletion({shop: AttentiveTransport(Endpoint(standin.url, KEY)) for shop in shops or ("default",)})


def test_attentive_is_asked_for_each_contact_once(floor: Floor, standin: Standin) -> None:
    a_life(floor)
    standin.faults.append(Fault(status=429, retry_after=0, count=1, endpoint=DELETE_REQUEST))
    forgets(floor, "415-555-2671", deletion=deletion(standin))
    assert standin.deletions == [{"subjectPhone": PHONE}, {"subjectEmail": EMAIL}]
    assert found_anywhere(floor.conn, *CANARIES) == []
    assert floor.one("SELECT scope ->> 'asked Attentive' FROM audit_decision") == ("true",)


def test_two_shops_of_one_account_ask_once(floor: Floor, standin: Standin) -> None:
    shops = {name: Shop(name=name) for name in ("default", "other")}
    for name in shops:
        floor.settings(name=name)
        floor.start(T0)
    asking = deletion(standin, *shops)
    forget.forget(floor.conn, shops, {name: {PHONE} for name in shops}, who="ada", why="test", deletion=asking)
    assert standin.deletions == [{"subjectPhone": PHONE}]


def test_who_shares_a_return_in_another_shop_of_the_account_is_deleted_by_the_connection_of_the_chosen_one(
    floor: Floor, standin: Standin
) -> None:
    shops = {name: Shop(name=name) for name in ("default", "eu")}
    asking = deletion(standin, "default")
    ret(floor, "1", created_at=T0)
    for name in ("eu", "default"):
        floor.settings(name=name)
        floor.start(T0)
        floor.conn.execute("DELETE FROM loop.returns")
    people.know_account(floor.conn, shops, AttentiveTransport(Endpoint(standin.url, KEY)).account)
    forget.forget(floor.conn, shops, {"default": {PHONE}}, who="ada", why="test", deletion=asking)
    assert standin.deletions == [{"subjectPhone": PHONE}, {"subjectEmail": EMAIL}]


def test_nobody_is_sent_anything_that_would_bring_them_back(floor: Floor) -> None:
    floor.start(T0)
    for number in "12":
        ret(floor, number, customer_email=None)
    floor.run(NOW, CREATED)
    floor.conn.execute("UPDATE event SET due_at = now() + interval '2 seconds' WHERE return_id = '2'")
    book = Book(floor.conninfo, floor.shop)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(delay=1.0))
        delivery = asyncio.create_task(sending(patience=5))
        while not standin.received:
            await asyncio.sleep(0.01)
        with db.connect(floor.conninfo, autocommit=True) as conn:
            given = {"default": {PHONE}}
            await asyncio.to_thread(
                forget.forget, conn, {"default": floor.shop}, given, who="ada", why="test", deletion=deletion(standin)
            )
        assert standin.deletions == [{"subjectPhone": PHONE}]
        await delivery
        floor.ret("1", state="closed", updated_at=NOW)
        floor.run(datetime.now(UTC))
        await sending()
        assert [record.notes for record in standin.received] == [()], RECREATES_PERSON

    tell(book, story)


@pytest.mark.parametrize(("status", "taken_before"), [(400, 0), (422, 1), (404, 2)])
def test_one_that_attentive_refuses_keeps_nobody_else_from_being_deleted(
    floor: Floor, standin: Standin, status: int, taken_before: int
) -> None:
    a_life(floor)
    standin.faults += [
        Fault(count=taken_before, endpoint=DELETE_REQUEST),
        Fault(status=status, count=1, endpoint=DELETE_REQUEST),
    ]
    forgets(floor, PHONE, "+14155552699", deletion=deletion(standin))
    asked = [{"subjectPhone": PHONE}, {"subjectPhone": "+14155552699"}, {"subjectEmail": EMAIL}]
    assert standin.deletions == [who for place, who in enumerate(asked) if place != taken_before]
    assert found_anywhere(floor.conn, *CANARIES, "4155552699") == []


@pytest.mark.parametrize("status", [401, 403, 404, 307])
def test_when_attentive_does_not_take_it_everything_can_be_done_again(
    floor: Floor, standin: Standin, status: int
) -> None:
    a_life(floor)
    standin.faults.append(Fault(status=status, endpoint=DELETE_REQUEST))
    with pytest.raises(NotAsked, match=rf"HTTP {status}.*Run this again") as told:
        forgets(floor, PHONE, deletion=deletion(standin))
    assert not any(canary in str(told.value) for canary in CANARIES)
    assert floor.outcomes(CREATED)["1"] == OPTED_OUT  # nothing goes out, whatever Attentive says
    standin.faults.clear()
    forgets(floor, PHONE, deletion=deletion(standin))
    assert standin.deletions == [{"subjectPhone": PHONE}, {"subjectEmail": EMAIL}]
    assert found_anywhere(floor.conn, *CANARIES) == []


def test_a_look_in_between_keeps_nobody_from_being_deleted_who_shares_a_return(floor: Floor, standin: Standin) -> None:
    """It cleans the mirror, which alone told of them, while what is on its way is waited for."""
    a_life(floor)
    floor.conn.execute(
        "UPDATE event SET status = 'sending', lease = gen_random_uuid(), lease_until = now() + interval '2 seconds' "
        "WHERE status = 'pending'"
    )
    thread, _ = in_a_thread(floor, PHONE, deletion=deletion(standin))
    while floor.one("SELECT count(*) FROM opt_out") != (2,):
        time.sleep(0.01)
    assert removal.catch_up(floor.conn, floor.shop) is not None
    assert floor.one("SELECT count(*) FROM mirror_return WHERE customer_email = %s", (EMAIL,)) == (0,)
    thread.join()
    assert standin.deletions == [{"subjectPhone": PHONE}, {"subjectEmail": EMAIL}]


# ── The command ─────────────────────────────────────────────────────────────


def test_lines() -> None:
    lines = ["+14155552671", "", "  (415) 555-2671 \r", "Ann@Example.COM", "noreply@shop.example", "12", "\ufffd\ufffd"]
    read = forget.read(lines, Shop(name="default"))
    assert read.contacts == {PHONE, "Ann@example.com"}
    assert read.unusable == [5, 6, 7]


@pytest.mark.parametrize("between", [", ", "\t", ";", " ", " ("])
def test_a_line_of_two_contacts_is_not_taken_for_one_of_them(between: str) -> None:
    lines = [f"ann@example.com{between}415-555-2671", f"415-555-2671{between}415-555-2672", f"Ann{between}415-555-2671"]
    read = forget.read(lines, Shop(name="default"))
    assert read == forget.Read(set(), [1, 2, 3])


def test_two_numbers_that_look_like_one_are_not_taken_for_a_strangers() -> None:
    german = Shop(name="default", phone_region="DE")
    assert forget.read(["030/12345 030/12346", "0301234 0305678"], german) == forget.Read(set(), [1, 2])
    assert forget.read(["+49 30 12345678", "030 12345678", "030 / 1234 5678"], german).contacts == {"+493012345678"}


@pytest.mark.parametrize(
    "copied", ["\u202a+1 415\u2011555\u20112671\u202c", "+1 415–555–2671", "＋14155552671", "tel:+14155552671"]
)
def test_a_number_as_it_is_copied(copied: str) -> None:
    assert forget.read([copied], Shop(name="default")).contacts == {PHONE}


def test_a_number_belongs_to_the_country_of_the_shop() -> None:
    read = forget.read(["020 7946 0000"], Shop(name="default", phone_region="GB"))
    assert read.contacts == {"+442079460000"}
    assert forget.read(["020 7946 0000"], Shop(name="default")).unusable == [1]


def run(home: Path, lines: bytes, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it, with no connection but those given."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(
        [sys.executable, "-m", "loop_attentive.forget", *arguments],
        env={**inherited, "PYTHONPATH": "plugins", "AIRFLOW_HOME": str(home), **environment},
        input=lines,
        capture_output=True,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_the_command(floor: Floor, standin: Standin, tmp_path: Path) -> None:
    a_life(floor)
    parts = conninfo_to_dict(floor.conninfo)
    ledger = {"conn_type": "postgres", "host": parts["host"], "login": parts["user"], "schema": parts["dbname"]}
    connections = {
        "AIRFLOW_CONN_LOOP_ATTENTIVE_DB": json.dumps(ledger),
        "AIRFLOW_CONN_ATTENTIVE": json.dumps({"conn_type": "http", "host": standin.url, "password": KEY}),
    }
    lines = b"4155552671\n\ncanary-no-address\ncanary@\xff\xfe\n"

    done = run(tmp_path, lines, "--delete-at-attentive", **connections)
    assert done.returncode == 1
    assert "Shop default: 1 contacts given, 1 more found" in done.stdout
    assert "removed from 6 returns and 7 events, 6 of which will not be sent any more" in done.stdout
    assert "Attentive was asked to delete 2 contacts." in done.stdout
    assert (
        "2 lines are neither a valid phone nor an e-mail address, and nothing was done for them: 3, 4." in done.stderr
    )
    assert not any(canary in done.stdout + done.stderr for canary in CANARIES)
    assert {"subjectEmail": EMAIL} in standin.deletions
    assert found_anywhere(floor.conn, *CANARIES) == []
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"canary" in file.read_bytes()]

    again = run(tmp_path, b"4155552671\n", "--shop", "default", **connections)
    assert (again.returncode, len(standin.deletions)) == (0, 2)
    standin.faults.append(Fault(status=400, count=1, endpoint=DELETE_REQUEST))
    refused = run(tmp_path, b"4155552671\n4155552699\n", "--delete-at-attentive", **connections)
    assert (refused.returncode, len(standin.deletions)) == (1, 3)
    assert "Attentive refused to delete 1 more (HTTP 400" in refused.stderr
    nobody = run(tmp_path, b"4155552671\n", "--shop", "nobody", **connections)
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert nobody.stderr.endswith("There is no shop nobody: include/shops.yaml has default.\n")
