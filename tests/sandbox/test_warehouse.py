"""The sandbox warehouse: its history, its story, and its list of what is due."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import phonenumbers
import psycopg
import pytest
from email_validator import validate_email
from psycopg import sql

from sandbox.warehouse import Due, Event, World, create, describe, fill, people, scenes, verdict, world
from sandbox.warehouse.returns import NOTHING, Item, Label, Return, Transaction, save, stamp
from sandbox.warehouse.tables import TABLES

START = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

Connection = psycopg.Connection[Any]


@pytest.fixture
def conn(postgres: str) -> Iterator[Connection]:
    """An empty warehouse. A schema is made and dropped much quicker than a database."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        create(connection)
        yield connection
        connection.execute("DROP SCHEMA loop CASCADE")


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Narrow the story to these scenes and arrivals."""

    def narrow(*, plays: tuple[scenes.Scene, ...] = (), arrivals: tuple[scenes.Arrival, ...] = (), **_: object) -> None:
        monkeypatch.setattr(world, "SCENES", plays)
        monkeypatch.setattr(world, "ARRIVALS", arrivals)
        monkeypatch.setattr(world, "COMINGS_OF_AGE", ())

    return narrow


def rows(conn: Connection, table: str) -> list[Any]:
    return sorted(conn.execute(sql.SQL("SELECT * FROM loop.{}").format(sql.Identifier(table))).fetchall(), key=repr)


def whole(conn: Connection) -> dict[str, list[Any]]:
    return {table: rows(conn, table) for table in TABLES}


def values(conn: Connection, table: str, column: str) -> set[Any]:
    query = sql.SQL("SELECT DISTINCT {} FROM loop.{}").format(sql.Identifier(column), sql.Identifier(table))
    return {value for (value,) in conn.execute(query)}


def names(due: list[Due]) -> list[tuple[str, str | None]]:
    return [(event.event_type.value.removeprefix("Loop "), event.subject) for event in due]


# ── The history ──────────────────────────────────────────────────────────────


CANONICAL = """
exchange_items: return_id, exchange_id, out_of_stock, resolution, restocked_at, updated_at, synced_at
labels: return_id, carrier, tracking_number, tracking_url, label_url, status, created_at, updated_at, synced_at
returns: return_id, state, outcome, order_name, customer_email, customer_phone, status_page_url, labels_enabled, \
is_instant_exchange, charge_at, created_at, updated_at, synced_at, is_deleted
transactions: transaction_id, return_id, kind, gateway, status, amount, currency, created_at, synced_at
"""


def test_the_columns_are_those_of_the_canonical_source(conn: Connection) -> None:
    found = conn.execute("""
        SELECT table_name || ': ' || string_agg(column_name, ', ' ORDER BY ordinal_position)
        FROM information_schema.columns
        WHERE table_schema = 'loop'
        GROUP BY table_name
        ORDER BY table_name
    """)
    assert [line for (line,) in found] == CANONICAL.split("\n")[1:-1]


@pytest.mark.parametrize("returns", [0, 1, 10, 3000])
def test_a_history_has_the_size_it_is_asked_for(conn: Connection, returns: int) -> None:
    fill(conn, returns=returns, now=START, seed=1)
    counts = describe(conn)
    assert counts["returns"] == returns
    assert counts == {table: len(rows(conn, table)) for table in TABLES}


def test_the_same_seed_makes_the_same_history_and_another_seed_another(conn: Connection) -> None:
    histories = []
    for seed in (1, 1, 2):
        fill(conn, returns=300, now=START, seed=seed)
        histories.append(whole(conn))
        conn.execute("TRUNCATE loop.returns, loop.labels, loop.exchange_items, loop.transactions")
    assert histories[0] == histories[1] != histories[2]


def test_a_history_holds_what_real_ones_hold(conn: Connection) -> None:
    fill(conn, returns=3000, now=START, seed=1)
    assert values(conn, "returns", "state") == {"open", "closed", "cancelled", "expired", "review"}
    assert {"credit+refund", None, "exchange"} < values(conn, "returns", "outcome")
    assert values(conn, "returns", "labels_enabled") == {True, False, None}
    for table, column in (("returns", "customer_email"), ("returns", "customer_phone")):
        assert {"N/A", "", None} < values(conn, table, column)
    for column in ("tracking_number", "status", "updated_at"):
        assert {"N/A", ""} < values(conn, "labels", column)
    assert "N/A" in values(conn, "labels", "carrier")
    assert {"N/A", "", None, "credit", "refund"} < values(conn, "exchange_items", "resolution")
    assert values(conn, "transactions", "gateway") == {"stripe", "shopify_payments"}
    assert values(conn, "transactions", "status") == {"succeeded", "pending", "failed"}
    [(several,)] = conn.execute(
        "SELECT count(*) FROM (SELECT FROM loop.labels GROUP BY return_id HAVING count(*) > 1) AS x"
    )
    assert several > 100
    [(neither,)] = conn.execute(
        "SELECT count(*) FROM loop.returns"
        " WHERE coalesce(customer_phone, '') IN ('', 'N/A') AND coalesce(customer_email, '') IN ('', 'N/A')"
    )
    assert neither > 0


def test_a_history_reaches_back_200_days_and_never_ahead(conn: Connection) -> None:
    fill(conn, returns=3000, now=START, seed=1)
    created = values(conn, "returns", "created_at")
    assert START - 200 * DAY <= min(created) < START - 195 * DAY
    assert START - HOUR < max(created) <= max(values(conn, "returns", "updated_at") - {None}) <= START
    assert max(values(conn, "labels", "created_at") - {None}) <= START
    assert max(values(conn, "labels", "updated_at") - set(NOTHING)) <= stamp(START)
    assert START == max(values(conn, "returns", "synced_at")) == max(values(conn, "labels", "synced_at"))


def test_what_becomes_of_a_return_becomes_of_it_within_two_months(conn: Connection) -> None:
    fill(conn, returns=3000, now=START, seed=1)
    [(longest,)] = conn.execute("SELECT max(updated_at - created_at) FROM loop.returns")
    assert 55 * DAY < longest <= 60 * DAY


def test_every_return_has_a_page_of_its_own(conn: Connection) -> None:
    fill(conn, returns=300, now=START, seed=1)
    pages = values(conn, "returns", "status_page_url")
    assert len(pages) == 300
    assert all(re.fullmatch(r"https://sandbox\.loopreturns\.com/#/return/[0-9a-f-]{36}", page) for page in pages)


def test_every_contact_is_what_attentive_must_be_sent(conn: Connection) -> None:
    fill(conn, returns=3000, now=START, seed=1)
    for phone in values(conn, "returns", "customer_phone") - set(NOTHING):
        number = phonenumbers.parse(phone, "US")
        assert phonenumbers.is_valid_number(number), phone
        assert people.user(None, phone) == {"phone": phonenumbers.format_number(number, 0)}
    for email in values(conn, "returns", "customer_email") - set(NOTHING):
        assert people.user(email, None) == {"email": validate_email(email, check_deliverability=False).normalized}


@pytest.mark.parametrize("area_code", people.AREA_CODES)
def test_every_area_code_makes_valid_numbers(area_code: str) -> None:
    assert all(
        phonenumbers.is_valid_number(phonenumbers.parse(spelling % (area_code, line), "US"))
        for spelling in people.PHONE_SPELLINGS
        for line in ("2000", "9999")
    )


def test_a_phone_that_cannot_be_is_none() -> None:
    assert not phonenumbers.is_valid_number(phonenumbers.parse(people.NO_PHONE[-1] or ""))
    assert people.user("N/A", people.NO_PHONE[-1]) == {}


# ── The story as a whole ─────────────────────────────────────────────────────


def live(conn: Connection, *, seed: int, steps: int = 4, apart: timedelta = HOUR) -> World:
    fill(conn, returns=400, now=START, seed=seed)
    story = World(conn, seed=seed)
    now = START + MINUTE
    story.looked(now)
    for _ in range(steps):
        now += apart
        story.step(conn, now)
        story.looked(now + MINUTE)
        story.looked(now + 2 * MINUTE, daily=True)
    return story


def test_the_same_seed_tells_the_same_story(conn: Connection) -> None:
    told = []
    for seed in (1, 1, 2):
        due = live(conn, seed=seed).due
        told.append((due, whole(conn)))
        conn.execute("TRUNCATE loop.returns, loop.labels, loop.exchange_items, loop.transactions")
    assert told[0] == told[1] != told[2]


@pytest.mark.parametrize("apart", [3 * MINUTE, HOUR, 13 * HOUR, 25 * HOUR])
def test_the_story_tells_of_all_twelve_events(conn: Connection, apart: timedelta) -> None:
    due = live(conn, seed=1, apart=apart).due
    assert {event.event_type for event in due} == set(Event)
    assert all(event.user and event.properties["returnId"] == event.return_id for event in due)
    assert {event.event_type for event in due if event.cadence == "daily"} == {
        Event.EXPIRING,
        Event.EXPIRED,
        Event.REMINDER,
    }


def test_a_history_is_no_news_but_some_of_it_comes_of_age(conn: Connection) -> None:
    fill(conn, returns=12_000, now=START, seed=1)
    story = World(conn, seed=1)
    for daily in (False, True):
        story.looked(START, daily=daily)
    assert story.due == []
    for daily in (False, True):
        story.looked(START + DAY, daily=daily)
    assert {event.event_type for event in story.due} == {Event.EXPIRING, Event.EXPIRED, Event.REMINDER, Event.NOTICE}
    assert all(event.occurred_at == START + DAY for event in story.due)


def test_every_scene_is_played(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    played = set()

    def noting(scene: scenes.Scene) -> scenes.Scene:
        def play(*args: Any) -> Iterator[Any]:
            played.add(scene.name)
            return scene.play(*args)

        return replace(scene, play=play)

    monkeypatch.setattr(world, "SCENES", tuple(map(noting, scenes.SCENES)))
    live(conn, seed=1, steps=12, apart=5 * HOUR)
    assert played == {scene.name for scene in scenes.SCENES}


def test_a_world_opened_later_names_nothing_twice(conn: Connection) -> None:
    live(conn, seed=1, steps=3)
    later = World(conn, seed=1)
    later.looked(START + DAY)
    later.step(conn, START + DAY + HOUR)
    for table, column in (("transactions", "transaction_id"), ("exchange_items", "exchange_id")):
        assert len(values(conn, table, column)) == describe(conn)[table]


def test_a_sync_keeps_returns_and_labels_fresh(conn: Connection) -> None:
    live(conn, seed=1, steps=2)
    last_step = START + MINUTE + 2 * HOUR
    for table in ("returns", "labels"):
        assert max(values(conn, table, "synced_at")) == last_step


def test_nothing_is_dated_ahead_of_the_step(conn: Connection) -> None:
    live(conn, seed=1, steps=3, apart=MINUTE * 3)
    last_step = START + 10 * MINUTE
    for table, column in (("returns", "created_at"), ("returns", "updated_at"), ("labels", "created_at")):
        assert max(values(conn, table, column) - {None}) <= last_step
    assert max(values(conn, "labels", "updated_at") - set(NOTHING)) <= stamp(last_step)


def test_the_story_waits_for_the_look(conn: Connection) -> None:
    story = World(conn, seed=1)
    with pytest.raises(RuntimeError, match="hourly look"):
        story.step(conn, START)
    story.looked(START)
    with pytest.raises(RuntimeError, match="last look"):
        story.step(conn, START)
    story.step(conn, START + MINUTE)
    story.looked(START + 2 * MINUTE, daily=True)
    with pytest.raises(RuntimeError, match="hourly look"):
        story.step(conn, START + 3 * MINUTE)


# ── What happens to one return ───────────────────────────────────────────────

MADE_AT = START - 2 * DAY
STEP = START + HOUR
LOOK = STEP + MINUTE


def a_return(**traits: Any) -> Return:
    columns: dict[str, Any] = {
        "return_id": 41,
        "state": "open",
        "outcome": "exchange",
        "order_name": "#1041",
        "customer_email": "ada@example.com",
        "customer_phone": "+1-415-555-2041",
        "status_page_url": "https://sandbox.loopreturns.com/#/return/41",
        "labels_enabled": True,
        "is_instant_exchange": False,
        "charge_at": None,
        "created_at": MADE_AT,
        "updated_at": MADE_AT,
    }
    return Return(**(columns | traits))


def a_label(**traits: Any) -> Label:
    columns: dict[str, Any] = {
        "carrier": "USPS",
        "tracking_number": "9400 1041",
        "tracking_url": "https://track.example.com/41",
        "label_url": "https://labels.example.com/41.pdf",
        "status": "new",
        "created_at": MADE_AT,
        "updated_at": stamp(MADE_AT),
    }
    return Label(**(columns | traits))


def an_item(number: int = 1) -> Item:
    return Item(exchange_id=number, out_of_stock=True, resolution="N/A", restocked_at=None, updated_at=MADE_AT)


def a_pending(kind: str) -> Transaction:
    return Transaction(
        transaction_id="tx",
        kind=kind,
        gateway="stripe",
        status="pending",
        amount="1",
        currency="USD",
        created_at=MADE_AT,
    )


def labelled(status: str, **traits: Any) -> Return:
    return a_return(labels=[a_label(status=status, **traits)])


NUMBERLESS = {"tracking_number": "N/A", "status": "pending", "updated_at": "N/A"}
STATUS, LABEL = "Return Status Updated", "Label Updated"
CLOSED, OUT, RESOLVED = (STATUS, "closed"), ("Exchange Out Of Stock", None), ("Out Of Stock Resolved", None)

# Scene, the return that it happens to, and what is due then. Numbers of things made by the story are left out: "*".
ONE_SCENE: tuple[tuple[str, Return, list[tuple[str, str | None]]], ...] = (
    ("open becomes closed", a_return(), [CLOSED]),
    ("open becomes  Closed", a_return(), [CLOSED]),
    ("open becomes cancelled", a_return(), [(STATUS, "canceled")]),
    ("open becomes expired", a_return(), [(STATUS, "expired"), ("Return Expired", None)]),
    ("open becomes expired", labelled("delivered"), [(STATUS, "expired")]),
    ("closed becomes open", a_return(state="closed"), [(STATUS, "open")]),
    ("review becomes closed", a_return(state="review"), [CLOSED]),
    ("open becomes review", a_return(), []),
    ("review becomes open", a_return(state="review"), []),
    ("closed and open again between two looks", a_return(), []),
    ("label new becomes pre_transit", labelled("new"), [(LABEL, "94001041 pre_transit")]),
    ("label new becomes In Transit", labelled(" New"), [(LABEL, "94001041 in_transit")]),
    ("label new becomes error", labelled("new"), [(LABEL, "94001041 unknown")]),
    ("label new becomes cancelled", labelled("new"), [(LABEL, "94001041 canceled")]),
    ("label pending becomes new", labelled("pending"), []),
    ("label error becomes unknown", labelled("error"), []),
    ("label error becomes new", labelled("error"), [(LABEL, "94001041 new")]),
    ("label pre_transit becomes in_transit", labelled("pre_transit"), [(LABEL, "94001041 in_transit")]),
    ("label in_transit becomes available_for_pickup", labelled("in_transit"), []),
    ("label in_transit becomes out-for-delivery", labelled("in_transit"), [(LABEL, "94001041 out_for_delivery")]),
    ("label in_transit becomes return_to_sender", labelled("in_transit"), [(LABEL, "94001041 unknown")]),
    ("label in_transit becomes pre_transit", labelled("in_transit"), [(LABEL, "94001041 pre_transit")]),
    ("label out_for_delivery becomes delivered", labelled("out_for_delivery"), [(LABEL, "94001041 delivered")]),
    ("label delivered becomes in_transit", labelled("delivered"), [(LABEL, "94001041 in_transit")]),
    ("label gets its number", labelled(**NUMBERLESS), [("Label Created", "*")]),
    ("another label", labelled("new"), [("Label Created", "*")]),
    ("parcel lost and found between two looks", labelled("in_transit"), []),
    ("another carrier", labelled("new"), []),
    ("the number spelt otherwise", labelled("new"), []),
    ("an item out of stock", a_return(), [OUT]),
    ("two items out of stock", a_return(), [OUT]),
    ("an item out of stock, nobody knows since when", a_return(), [OUT]),
    ("out of stock again, too soon", a_return(out_of_stock_since=START), []),
    ("out of stock again, long after", a_return(out_of_stock_since=START - DAY), [OUT]),
    ("an item resolved: credit", a_return(exchange_items=[an_item()]), [RESOLVED]),
    ("an item resolved: credit", a_return(exchange_items=[an_item(1), an_item(2)]), []),
    ("an item resolved: a gift card", a_return(exchange_items=[an_item()]), [RESOLVED]),
    ("an item resolved: refund", a_return(exchange_items=[an_item()]), [RESOLVED]),
    ("an item resolved: refund", a_return(exchange_items=[an_item()], out_again=True), []),
    ("an item resolved: refund, spelt at length", a_return(exchange_items=[an_item()]), [RESOLVED]),
    ("an item resolved: another item", a_return(exchange_items=[an_item()]), [RESOLVED]),
    ("an item resolved: restocked", a_return(exchange_items=[an_item()]), [RESOLVED]),
    ("payment stripe succeeded", a_return(), [("Payment Transaction", "*")]),
    ("payment  Stripe SUCCEEDED", a_return(), [("Payment Transaction", "*")]),
    ("payment stripe pending", a_return(), []),
    ("payment stripe failed", a_return(), []),
    ("payment shopify_payments succeeded", a_return(), []),
    ("refund stripe succeeded", a_return(), [("Refund Transaction", "*")]),
    ("refund stripe pending", a_return(), []),
    ("refund shopify_payments succeeded", a_return(), []),
    ("pending money succeeded", a_return(transactions=[a_pending("refund")]), [("Refund Transaction", "*")]),
    ("pending money succeeded", a_return(transactions=[a_pending("payment")]), [("Payment Transaction", "*")]),
    ("pending money failed", a_return(transactions=[a_pending("payment")]), []),
    ("deleted", a_return(), []),
    ("back from being deleted", a_return(is_deleted=True), []),
    ("back from being deleted", a_return(is_deleted=True, born_deleted=True, created_at=START + MINUTE),
     [("Return Created", None)]),
    ("comes after its label and payment",
     a_return(has_landed=False, created_at=START + MINUTE,
              labels=[a_label(created_at=START + MINUTE)],
              transactions=[replace(a_pending("payment"), status="succeeded", created_at=START + MINUTE)]),
     [("Return Created", None), ("Label Created", "94001041"), ("Payment Transaction", "*")]),
    ("can be reached at last", a_return(unsent=[Event.CREATED], customer_email=None, customer_phone=None,
                                        created_at=START + MINUTE), [("Return Created", None)]),
    ("touched and equal", a_return(), []),
    ("an older picture", a_return(), []),
)  # fmt: skip


def test_every_scene_has_an_example() -> None:
    assert {name for name, _, _ in ONE_SCENE} == {scene.name for scene in scenes.SCENES}


@pytest.mark.parametrize(("name", "subject", "expected"), ONE_SCENE, ids=[name for name, _, _ in ONE_SCENE])
def test_one_scene(
    conn: Connection, only: Any, name: str, subject: Return, expected: list[tuple[str, str | None]]
) -> None:
    r = replace(subject, labels=[replace(x) for x in subject.labels],
                exchange_items=[replace(x) for x in subject.exchange_items],
                transactions=[replace(x) for x in subject.transactions])  # fmt: skip
    story = one_story(conn, only, r, name)
    found = names(story.due)
    assert len(found) == len(expected)
    for (event, of), (expected_event, expected_of) in zip(found, expected, strict=True):
        assert event == expected_event
        assert of == expected_of or (expected_of == "*" and of)


def one_story(conn: Connection, only: Any, r: Return, scene_name: str) -> World:
    story = World(conn, seed=3)
    story._cast.append(r)
    save(conn, [r], START)
    story.looked(START)
    only(plays=tuple(scene for scene in scenes.SCENES if scene.name == scene_name))
    story.step(conn, STEP)
    story.looked(LOOK)
    story.looked(LOOK + MINUTE, daily=True)
    return story


def test_a_scene_is_told_whole(conn: Connection, only: Any) -> None:
    r = labelled("in_transit", carrier="N/A", label_url="")
    [event] = one_story(conn, only, r, "label in_transit becomes out-for-delivery").due
    [(status, moved_at)] = conn.execute("SELECT status, updated_at::timestamptz FROM loop.labels")
    assert status == "out-for-delivery"
    assert event.occurred_at == moved_at
    assert START < event.occurred_at <= STEP
    assert event.cadence == "hourly"
    assert event.user == {"phone": "+14155552041", "email": "ada@example.com"}
    assert event.properties == {
        "returnId": 41,
        "returnStatus": "open",
        "order": "#1041",
        "statusPageUrl": "https://sandbox.loopreturns.com/#/return/41",
        "labelsEnabled": True,
        "trackingNumber": "94001041",
        "trackingUrl": "https://track.example.com/41",
        "trackingStatus": "out_for_delivery",
        "returnOutcome": "exchange",
    }


def test_a_label_event_shows_a_cancelled_label_and_others_do_not(conn: Connection, only: Any) -> None:
    [event] = one_story(conn, only, labelled("new"), "label new becomes cancelled").due
    assert event.properties["trackingStatus"] == "canceled"
    [event] = one_story(conn, only, labelled("cancelled"), "open becomes closed").due
    assert "trackingNumber" not in event.properties


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("credit", "credit"), ("a gift card", "credit"), ("refund", "refund"), ("refund, spelt at length", "refund"),
     ("another item", None), ("restocked", None)],
)  # fmt: skip
def test_a_resolution_names_its_outcome(conn: Connection, only: Any, name: str, outcome: str | None) -> None:
    [event] = one_story(conn, only, a_return(exchange_items=[an_item()]), f"an item resolved: {name}").due
    assert event.properties.get("outOfStockOutcome") == outcome
    [item] = rows(conn, "exchange_items")
    assert event.occurred_at == (item[4] or item[5])


def test_money_seen_before_it_succeeded_is_dated_by_the_look(conn: Connection, only: Any) -> None:
    [event] = one_story(conn, only, a_return(transactions=[a_pending("payment")]), "pending money succeeded").due
    assert event.occurred_at == LOOK


def test_an_older_picture_is_older(conn: Connection, only: Any) -> None:
    one_story(conn, only, a_return(), "an older picture")
    [row] = conn.execute("SELECT state, updated_at FROM loop.returns WHERE return_id = 41")
    assert row == ("closed", MADE_AT - HOUR)


def test_nobody_is_told_who_cannot_be_reached(conn: Connection, only: Any) -> None:
    r = a_return(customer_email="N/A", customer_phone="+1-123-456-7890")
    assert one_story(conn, only, r, "open becomes closed").due == []


def test_who_was_reached_is_not_reached_again(conn: Connection, only: Any) -> None:
    r = a_return(unsent=[Event.CREATED], customer_email=None, customer_phone=None, created_at=START + MINUTE)
    story = one_story(conn, only, r, "can be reached at last")
    story.step(conn, STEP + HOUR)
    story.looked(LOOK + HOUR)
    assert names(story.due) == [("Return Created", None)]


@pytest.mark.parametrize("unsent", [[Event.PAYMENT], [Event.CREATED, Event.PAYMENT], []])
def test_only_somebody_whose_only_unsent_event_is_created_is_reached(conn: Connection, only: Any, unsent: Any) -> None:
    """Any other would be judged again too, and the story does not say which."""
    r = a_return(unsent=unsent, customer_email=None, customer_phone=None, created_at=START + MINUTE)
    assert one_story(conn, only, r, "can be reached at last").due == []


def test_an_episode_that_came_too_soon_opens_after_24_hours(conn: Connection, only: Any) -> None:
    story = one_story(conn, only, a_return(out_of_stock_since=START), "out of stock again, too soon")
    story.looked(START + DAY - MINUTE)
    assert story.due == []
    story.looked(START + DAY)
    story.looked(START + DAY + HOUR)
    assert [(event.event_type, event.occurred_at) for event in story.due] == [(Event.OUT_OF_STOCK, START + DAY)]


def test_news_that_waits_grows_old(conn: Connection, only: Any) -> None:
    """An orphan's times are kept while it waits for its return: true, then restamped, then too late."""
    ages = {10 * HOUR: STEP, 12 * HOUR: None, 25 * HOUR: "too late"}
    for age, expected in ages.items():
        r = a_return(is_deleted=True, born_deleted=True, created_at=STEP)
        story = World(conn, seed=3)
        story._cast.append(r)
        story.looked(START)
        only(plays=tuple(scene for scene in scenes.SCENES if scene.name == "back from being deleted"))
        story.step(conn, STEP + age)
        story.looked(STEP + age)
        assert [event.occurred_at for event in story.due] == ([] if expected == "too late" else [expected])


@pytest.mark.parametrize("arrival", scenes.ARRIVALS, ids=lambda arrival: arrival.name)
def test_one_arrival(conn: Connection, only: Any, arrival: scenes.Arrival) -> None:
    due = one_arrival(conn, only, arrival).due
    [(returns, told)] = conn.execute("""
        SELECT count(*), count(*) FILTER (
            WHERE NOT is_deleted AND state != 'archived' AND NOT (customer_email = 'N/A' AND customer_phone = '')
        )
        FROM loop.returns
    """)
    [(labels,)] = conn.execute(
        "SELECT count(*) FROM loop.labels WHERE tracking_number != 'N/A' AND status != 'cancelled'"
    )
    expected = [Event.CREATED] + [Event.LABEL_CREATED] * labels + [Event.OUT_OF_STOCK] * arrival.items
    assert returns == arrival.traits.get("has_landed", True)
    assert [event.event_type for event in due] == expected * told


def one_arrival(conn: Connection, only: Any, arrival: scenes.Arrival) -> World:
    only(arrivals=(arrival,))
    story = World(conn, seed=3)
    story.looked(START)
    story.step(conn, STEP)
    story.looked(LOOK)
    return story


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("submitted, its label numbered four seconds later", "created_at"),
        ("a label that does not say when it was made", "updated_at::timestamptz"),
        ("a label without any time", None),
    ],
)
def test_a_new_label_is_dated_by_what_it_tells(conn: Connection, only: Any, name: str, column: str | None) -> None:
    [arrival] = [arrival for arrival in scenes.ARRIVALS if arrival.name == name]
    created, label = one_arrival(conn, only, arrival).due
    [(created_at,)] = conn.execute("SELECT created_at FROM loop.returns")
    assert created.occurred_at == created_at
    if column:
        [(labelled_at,)] = conn.execute(sql.SQL("SELECT {} FROM loop.labels").format(sql.SQL(column)))
        assert label.occurred_at == labelled_at == created_at + timedelta(seconds=4)
    else:
        assert label.occurred_at == LOOK


REMINDED_AT = START + DAY
AGES: tuple[tuple[timedelta, bool, timedelta | None, list[str]], ...] = (
    # age at the daily look, is instant, charged in, what is due
    (21 * DAY - MINUTE, False, None, []),
    (21 * DAY, False, None, ["Return Expiring"]),
    (22 * DAY - MINUTE, False, None, ["Return Expiring"]),
    (22 * DAY + MINUTE, False, None, []),  # turned 21 days before the baseline
    (28 * DAY - MINUTE, False, None, []),
    (28 * DAY, False, None, ["Return Expired"]),
    (29 * DAY + MINUTE, False, None, []),
    (7 * DAY - MINUTE, True, 7 * DAY, []),
    (7 * DAY, True, 7 * DAY, ["Instant Exchange Reminder"]),
    (7 * DAY, True, DAY + MINUTE, ["Instant Exchange Reminder"]),
    (7 * DAY, True, None, []),
    (7 * DAY, False, 7 * DAY, []),
    (13 * DAY, True, DAY, ["Instant Exchange Notice"]),
    (13 * DAY, True, DAY + MINUTE, []),
    (13 * DAY, True, MINUTE, ["Instant Exchange Notice"]),
    (13 * DAY, True, timedelta(0), []),
)


@pytest.mark.parametrize(("age", "instant", "charged_in", "expected"), AGES)
def test_reminders_by_age(
    conn: Connection, age: timedelta, instant: bool, charged_in: timedelta | None, expected: list[str]
) -> None:
    r = a_return(
        created_at=REMINDED_AT - age,
        is_instant_exchange=instant,
        charge_at=None if charged_in is None else REMINDED_AT + charged_in,
    )
    due = reminded(conn, r)
    assert [event for event, _ in names(due)] == expected
    assert all(event.occurred_at == REMINDED_AT for event in due)


NOT_REMINDED = (
    a_return(state="review"),
    a_return(state="closed"),
    a_return(is_deleted=True),
    a_return(labels_enabled=False),
    a_return(labels_enabled=None),
    a_return(customer_email=None, customer_phone="N/A"),
    labelled("delivered"),
    labelled("return_to_sender"),
    labelled("error"),
    labelled("lost in the post"),
    a_return(labels=[a_label(), a_label(tracking_number="2", status="in_transit")]),
    a_return(labels=[a_label(status="new")], ever_shipped=True),
)
REMINDED = (
    a_return(),
    a_return(labels_enabled=None, labels=[a_label()]),
    labelled("pending"),
    labelled("N/A"),
    labelled("cancelled"),
    a_return(labels=[a_label(), a_label(tracking_number="2", status="voided")]),
    labelled(**NUMBERLESS),
)


@pytest.mark.parametrize(("r", "times"), [*((r, 0) for r in NOT_REMINDED), *((r, 1) for r in REMINDED)])
def test_who_is_reminded(conn: Connection, r: Return, times: int) -> None:
    assert len(reminded(conn, replace(r, created_at=REMINDED_AT - 21 * DAY, reminded=set()))) == times


def reminded(conn: Connection, r: Return) -> list[Due]:
    """Two daily and two hourly runs look at the same time: nobody is reminded twice."""
    story = World(conn, seed=3)
    story._cast.append(r)
    story.looked(START)
    for daily in (False, True, False, True):
        story.looked(REMINDED_AT, daily=daily)
    return story.due


# ── The verdict ──────────────────────────────────────────────────────────────


def sent(event: Due) -> dict[str, Any]:
    """The body as the pipeline would send it."""
    occurred_at = event.occurred_at or START
    return {
        "type": str(event.event_type),
        "externalEventId": str(uuid4()),
        "occurredAt": occurred_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "user": dict(event.user),
        "properties": dict(event.properties),
    }


@pytest.fixture
def due(conn: Connection) -> list[Due]:
    return live(conn, seed=1, steps=3).due


def test_all_received_once_is_good(due: list[Due]) -> None:
    result = verdict(due, [sent(event) for event in reversed(due)])
    assert result.is_good
    assert str(result) == f"all {len(due)} due events were received exactly once, and no other"


def test_a_missing_one_is_found(due: list[Due]) -> None:
    for position in range(0, len(due), 10):
        result = verdict(due, [sent(event) for event in due[:position] + due[position + 1 :]])
        assert not result.is_good
        assert result.missing == [str(due[position])]
        assert (result.doubled, result.unexpected, result.wrong) == ([], [], [])


@pytest.mark.parametrize("same_id", [True, False])
def test_a_doubled_one_is_found(due: list[Due], same_id: bool) -> None:
    bodies = [sent(event) for event in due]
    again = dict(bodies[5]) if same_id else dict(bodies[5], externalEventId=str(uuid4()))
    result = verdict(due, [*bodies, again])
    assert len(result.doubled) == 1
    assert (result.missing, result.unexpected, result.wrong) == ([], [], [])


def test_an_unexpected_one_is_found(due: list[Due]) -> None:
    stranger = sent(replace(due[0], properties=due[0].properties | {"returnId": 7}))
    result = verdict(due, [*map(sent, due), stranger])
    assert len(result.unexpected) == 1
    assert "of return 7" in result.unexpected[0]
    assert (result.missing, result.doubled, result.wrong) == ([], [], [])


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("properties", "order", "#0"),
        ("properties", "labelsEnabled", 1),
        ("properties", "trackingUrl", None),
        ("properties", "surplus", ""),
        ("user", "email", "eve@example.com"),
    ],
)
def test_a_wrong_payload_is_found(due: list[Due], part: str, name: str, value: object) -> None:
    event = next(event for event in due if event.event_type is Event.LABEL_CREATED and len(event.user) == 2)
    bodies = [sent(other) for other in due if other is not event]
    body = sent(event)
    body[part][name] = value
    result = verdict(due, [*bodies, body])
    assert result.wrong == [f"{event}: {part}.{name}"]
    assert (result.missing, result.doubled, result.unexpected) == ([], [], [])


def test_a_wrong_time_is_found(due: list[Due]) -> None:
    event = next(event for event in due if event.occurred_at)
    bodies = [sent(other) for other in due if other is not event]
    result = verdict(due, [*bodies, sent(event) | {"occurredAt": "2026-01-01T00:00:00.000Z"}])
    [line] = result.wrong
    assert "occurredAt is 2026-01-01" in line


def test_the_same_news_may_come_twice_when_it_happened_twice(due: list[Due]) -> None:
    closed = next(event for event in due if event.event_type is Event.STATUS_UPDATED and event.occurred_at)
    again = replace(closed, occurred_at=START + 5 * DAY)
    assert verdict([closed, again], [sent(again), sent(closed)]).is_good
    assert verdict([closed, again], [sent(again)]).missing == [str(closed)]


def test_a_verdict_shows_no_contact(due: list[Due]) -> None:
    bodies = [sent(event) for event in due]
    for body in bodies:
        body["user"] = {"phone": "+14155559999", "email": "eve@example.com"}
    text = str(verdict(due, bodies[10:]))
    assert "missing" in text
    assert "wrong" in text
    assert "@" not in text
    assert "+1" not in text
