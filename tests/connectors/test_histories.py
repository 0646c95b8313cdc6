"""Any histories of returns and of what is theirs, delivered in any order, late and twice, deleted and restored, however
a connector spells them: what is told is what the histories in order tell.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, count
from typing import Any
from zlib import crc32
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from psycopg import sql

from loop_attentive import qualify
from tests.connectors.histories import (
    CREATED,
    EVENTS,
    ITEM_IDS,
    LABEL_CREATED,
    LABEL_UPDATED,
    LOOKS,
    MISSING,
    NEVER,
    OUT,
    PAYMENT,
    REFUND,
    RESOLVED,
    RESTS,
    UPDATED,
    Delivery,
    Item,
    Return,
    Story,
    Transaction,
    V,
    Word,
    all_in_order,
    any_delivery,
    parts,
    place,
    prompt_delivery,
    stories,
    tells,
)
from tests.floor import DAY, KEYS, T0, Event, Floor

AHEAD_OF_UTC = "Asia/Kolkata"

_numbers = count(1)
_stories = count(1)


@pytest.fixture(autouse=True)
def nothing_comes_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too late to be sent is other tests' business: here a version may land days after it arose."""
    monkeypatch.setattr(qualify, "MAX_LATENESS", 1000 * DAY)


# ── How connectors spell and keep what they deliver ─────────────────────────


@dataclass(frozen=True)
class Spelling:
    """times: the SQL type of the source's times. tell: a time as it stands there. apart: so far apart two versions are
    at least, so that they are told apart. absent: how a text that there is none of stands there.
    """

    times: str
    tell: Callable[[datetime], Any]
    apart: timedelta
    absent: str | None


MICRO, MILLI, SECOND = timedelta(microseconds=1), timedelta(milliseconds=1), timedelta(seconds=1)


def naive(moment: datetime) -> datetime:
    return moment.astimezone(ZoneInfo(AHEAD_OF_UTC)).replace(tzinfo=None)


SPELLINGS = {
    "microseconds": Spelling("timestamptz", lambda at: at, MICRO, None),
    "milliseconds": Spelling("timestamptz(3)", lambda at: at, MILLI, ""),
    "seconds": Spelling("timestamptz", lambda at: at.replace(microsecond=0), SECOND, "N/A"),
    "naive": Spelling("timestamp", naive, MICRO, " n/a "),
    "text": Spelling("text", lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ"), SECOND, "N/A"),
    "text of milliseconds": Spelling("text", lambda at: at.isoformat(" ", "milliseconds"), MILLI, "N/A"),
    "text without a zone": Spelling("text", lambda at: naive(at).isoformat(), MICRO, ""),
}


# ── Telling them to the pipeline ────────────────────────────────────────────


@dataclass(frozen=True)
class Warehouse:
    """keeps_all: each version is a row of its own. gap: versions are so many times as far apart as they must be.
    syncs_again: what lands again has been synced anew, and so is what there is now; else it is the row that it was.
    """

    spelling: Spelling
    keeps_all: bool
    gap: int
    syncs_again: bool


def shop_on(floors: Callable[..., Floor], spelling: Spelling, *, keeps_all: bool) -> Floor:
    """A shop that has looked before."""
    floor = floors(times=spelling.times, time_zone=AHEAD_OF_UTC)
    if keeps_all:
        for table, keys in KEYS.items():
            floor.conn.execute(f"ALTER TABLE loop.{table} DROP CONSTRAINT {'_'.join([table, *keys, 'key'])}")
    floor.start(T0)
    return floor


def told(floor: Floor, stories: Sequence[Story], rests: Sequence[timedelta], warehouse: Warehouse) -> list[list[Word]]:
    """Lands the stories, with a look after each batch; what the customer of each was told."""
    began = T0 + next(_stories) * 6 * DAY
    looks = [began + rest for rest in accumulate(rests)]
    words: dict[str, list[Word]] = {str(next(_numbers)): [] for _ in stories}
    for look, at in enumerate(looks):
        for number, story in zip(words, stories, strict=True):
            for name, delivery in parts(story):
                for landed, version in enumerate(delivery.batches[look]):
                    # What is landed later was synced later; all of it before the look.
                    synced = at - SECOND * (60 - landed)
                    if not warehouse.syncs_again:
                        first = next(past for past, batch in enumerate(delivery.batches) if version in batch)
                        synced = looks[first] - SECOND * (60 - version)
                    moved = began + version * warehouse.gap * warehouse.spelling.apart
                    land(floor, warehouse, number, name, delivery.history[version], began, moved, synced)
        for event in floor.run(at, *EVENTS):
            assert event.status == "pending"
            if event.return_id in words:  # else it is of an earlier story, which goes on
                words[event.return_id].append(Word(look, event.event_type, shown(event)))
    return [sorted(mine, key=place) for mine in words.values()]


def shown(event: Event) -> str:
    if event.event_type in (PAYMENT, REFUND):
        return event.key.removeprefix(event.return_id)
    shows = {
        CREATED: "returnStatus", UPDATED: "returnStatus", LABEL_CREATED: "trackingStatus",
        LABEL_UPDATED: "trackingStatus", RESOLVED: "outOfStockOutcome",
    }  # fmt: skip
    return str(event.properties.get(shows.get(event.event_type, ""), ""))


def land(
    floor: Floor, warehouse: Warehouse, number: str, name: str, version: Any, began: datetime, moved: datetime,
    synced: datetime,
) -> None:  # fmt: skip
    """A version as a row. name: of the item or transaction in its story."""
    time, absent = warehouse.spelling.tell, warehouse.spelling.absent
    no_time = absent if warehouse.spelling.times == "text" else None
    table, row = "labels", {
        "carrier": absent, "tracking_number": f" 1z{number} ", "label_url": absent, "status": version,
        "updated_at": time(moved),
    }  # fmt: skip
    if isinstance(version, Return):
        table, row = "returns", {
            "state": version.state, "outcome": absent, "order_name": absent, "customer_email": absent,
            "customer_phone": "+14155552671", "status_page_url": absent, "charge_at": no_time,
            "created_at": time(began), "updated_at": time(moved), "is_deleted": version.is_deleted,
        }  # fmt: skip
    elif isinstance(version, Item):
        table, row = "exchange_items", {
            "exchange_id": name, "out_of_stock": version.out_of_stock,
            "resolution": absent if version.resolution is None else version.resolution,
            "restocked_at": time(moved) if version.is_restocked else no_time, "updated_at": time(moved),
        }  # fmt: skip
    elif isinstance(version, Transaction):
        table, row = "transactions", {
            "transaction_id": number + name, "kind": version.kind,
            "gateway": absent if version.gateway is None else version.gateway, "status": version.status,
            "amount": "-12.50", "currency": absent, "created_at": time(began),
        }  # fmt: skip
    write(floor, table, {"return_id": number, **row, "synced_at": time(synced)}, keeps_all=warehouse.keeps_all)


def write(floor: Floor, table: str, row: dict[str, Any], *, keeps_all: bool) -> None:
    if not keeps_all:
        floor.put(table, **row)
        return
    floor.conn.execute(
        sql.SQL("INSERT INTO loop.{} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Placeholder, row)),
        ),
        row,
    )


# ── The properties ──────────────────────────────────────────────────────────

USUAL = settings(
    deadline=None,
    max_examples=3,
    derandomize=True,
    phases=set(Phase) - {Phase.explain},  # that takes minutes, and what fails is small by then
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LONG = settings(USUAL, max_examples=30)

GAPS = st.sampled_from([1, 7, 60])
EACH_SPELLING = pytest.mark.parametrize("spelling", SPELLINGS)
EACH_WAREHOUSE = pytest.mark.parametrize("keeps_all", [True, False], ids=["appended", "replaced"])


def some(deliver: Callable[..., st.SearchStrategy[Delivery[Any]]]) -> st.SearchStrategy[list[Story]]:
    """Many returns at once: a look costs the same."""
    return st.lists(stories(deliver), min_size=18, max_size=18)


def nothing_is_made_up(floors: Callable[..., Floor], spelling: str, *, keeps_all: bool, profile: settings) -> None:
    spelled = SPELLINGS[spelling]
    floor = shop_on(floors, spelled, keeps_all=keeps_all)

    @profile
    @seed(crc32(f"{spelling} {keeps_all}".encode()))
    @given(some(any_delivery), RESTS, GAPS)
    def holds(stories: list[Story], rests: list[timedelta], gap: int) -> None:
        said = told(floor, stories, rests, Warehouse(spelled, keeps_all, gap, syncs_again=True))
        for story, mine in zip(stories, said, strict=True):
            assert mine == tells(story, rests, keeps_all=keeps_all), story

    holds()


def any_order_is_as_good(floors: Callable[..., Floor], spelling: str, *, profile: settings) -> None:
    spelled = SPELLINGS[spelling]
    floor = shop_on(floors, spelled, keeps_all=True)

    @profile
    @seed(crc32(spelling.encode()))
    @given(some(prompt_delivery), RESTS, GAPS)
    def holds(stories: list[Story], rests: list[timedelta], gap: int) -> None:
        said = told(floor, stories, rests, Warehouse(spelled, keeps_all=True, gap=gap, syncs_again=False))
        for story, mine in zip(stories, said, strict=True):
            assert mine == tells(all_in_order(story), rests, keeps_all=True), story

    holds()


@pytest.mark.parametrize(
    ("spelling", "keeps_all"),
    [(spelling, number % 2 == 0) for number, spelling in enumerate(SPELLINGS)],
    ids=SPELLINGS,
)
def test_late_twice_and_out_of_order_nothing_is_made_up(
    floors: Callable[..., Floor], spelling: str, keeps_all: bool
) -> None:
    nothing_is_made_up(floors, spelling, keeps_all=keeps_all, profile=USUAL)


@EACH_SPELLING
def test_what_comes_before_the_look_may_come_in_any_order(floors: Callable[..., Floor], spelling: str) -> None:
    any_order_is_as_good(floors, spelling, profile=USUAL)


@pytest.mark.long
@EACH_WAREHOUSE
@EACH_SPELLING
def test_late_twice_and_out_of_order_in_many_more_histories(
    floors: Callable[..., Floor], spelling: str, keeps_all: bool
) -> None:
    nothing_is_made_up(floors, spelling, keeps_all=keeps_all, profile=LONG)


@pytest.mark.long
@EACH_SPELLING
def test_any_order_before_the_look_in_many_more_histories(floors: Callable[..., Floor], spelling: str) -> None:
    any_order_is_as_good(floors, spelling, profile=LONG)


# ── What the model tells, by which all is judged ────────────────────────────

OPEN, CLOSED, GONE = Return("open", False), Return("closed", False), Return("closed", True)
BACK = Item(True, None, True)
PAID, TO_BE_PAID = Transaction("payment", " Stripe", "Succeeded"), Transaction("payment", "stripe", "pending")
OFTEN = [timedelta(minutes=6)] * LOOKS
TWICE_A_DAY = [timedelta(hours=12)] * LOOKS


def landing(*versions: V | None) -> Delivery[V]:
    """One version before each look; None: none."""
    history = tuple(version for version in versions if version is not None)
    left = iter(range(len(history)))
    batches = [() if version is None else (next(left),) for version in versions]
    return Delivery(history, (*batches, *[()] * (LOOKS - len(batches))))


def settled(resolution: str = "refund") -> Item:
    return Item(True, resolution, False)


def test_the_model_tells_of_a_return_what_one_expects() -> None:
    history = (OPEN, GONE, OPEN, CLOSED)
    for batches, expected in {
        ((0,), (1,), (2,), (3,), ()): [Word(0, CREATED, "open"), Word(3, UPDATED, "closed")],
        ((1,), (0,), (2,), (3,), ()): [Word(2, CREATED, "open"), Word(3, UPDATED, "closed")],
        ((3,), (0,), (1,), (2,), ()): [Word(0, CREATED, "closed")],
    }.items():
        assert tells(Story(Delivery(history, batches)), OFTEN, keeps_all=True) == expected
    label = landing("new", " New ", None, "In Transit")
    assert tells(Story(landing(None, OPEN), label), OFTEN, keeps_all=True) == [
        Word(1, CREATED, "open"),
        Word(1, LABEL_CREATED, "new"),
        Word(3, LABEL_UPDATED, "in_transit"),
    ]


EXPECTED_OF_ITEMS: dict[str, tuple[Sequence[timedelta], list[Delivery[Item]], list[Word]]] = {
    "opened and settled": (
        OFTEN,
        [landing(MISSING, None, settled("GIFT_CARD"))],
        [Word(0, OUT, ""), Word(2, RESOLVED, "credit")],
    ),
    "back in stock": (OFTEN, [landing(MISSING, BACK)], [Word(0, OUT, ""), Word(1, RESOLVED, "")]),
    "one of two": (
        OFTEN,
        [landing(MISSING, settled()), landing(None, MISSING, None, settled("Store Credit "))],
        [Word(0, OUT, ""), Word(3, RESOLVED, "credit")],
    ),
    "both at once": (
        OFTEN,
        [landing(MISSING, settled("Store Credit ")), landing(MISSING, settled())],
        [Word(0, OUT, ""), Word(1, RESOLVED, "refund")],
    ),
    "both at once, the first one later": (
        OFTEN,
        [Delivery((MISSING, MISSING, settled("Store Credit ")), ((0,), (2,), (), (), ())), landing(MISSING, settled())],
        [Word(0, OUT, ""), Word(1, RESOLVED, "credit")],
    ),
    "again within a day": (OFTEN, [landing(MISSING, BACK, MISSING)], [Word(0, OUT, ""), Word(1, RESOLVED, "")]),
    "again, told when a day is over": (
        TWICE_A_DAY,
        [landing(MISSING, settled(), None, None, BACK), landing(None, None, MISSING)],
        [Word(0, OUT, ""), Word(1, RESOLVED, "refund"), Word(2, OUT, "")],
    ),
    "again, over before it could be told": (
        TWICE_A_DAY,
        [Delivery((MISSING, BACK, MISSING, BACK), ((0,), (1, 2), (3,), (), ()))],
        [Word(0, OUT, ""), Word(2, RESOLVED, "")],
    ),
    "never open": (OFTEN, [landing(Item(None, None, False), settled(), BACK)], []),
}


@pytest.mark.parametrize(("rests", "items", "expected"), EXPECTED_OF_ITEMS.values(), ids=EXPECTED_OF_ITEMS)
def test_the_model_tells_of_items_what_one_expects(
    rests: Sequence[timedelta], items: list[Delivery[Item]], expected: list[Word]
) -> None:
    story = Story(landing(OPEN), items=tuple(zip(ITEM_IDS, items, strict=False)))
    assert [one for one in tells(story, rests, keeps_all=True) if one.event in (OUT, RESOLVED)] == expected


def test_the_model_tells_of_transactions_what_one_expects() -> None:
    transactions = {
        "pays later": landing(TO_BE_PAID, PAID, TO_BE_PAID, PAID),
        "refunds": landing(None, None, Transaction("Refund", "stripe", "succeeded")),
        "another gateway": landing(Transaction("payment", "shopify_payments", "succeeded")),
        "none": landing(Transaction("payment", None, "succeeded")),
        "fails": landing(TO_BE_PAID, Transaction("payment", "stripe", "failed")),
    }
    assert tells(Story(landing(OPEN), transactions=tuple(transactions.items())), OFTEN, keeps_all=True) == [
        Word(0, CREATED, "open"),
        Word(1, PAYMENT, "pays later"),
        Word(2, REFUND, "refunds"),
    ]


def of_everything(returned: Delivery[Return]) -> Story:
    """Each thing changes at the looks 1 and 3."""
    return Story(
        returned,
        landing("new", "in_transit", None, "delivered"),
        ((9, landing(MISSING, settled(), None, MISSING)),),
        (("a", landing(TO_BE_PAID, PAID)), ("b", landing(TO_BE_PAID, None, None, PAID))),
    )


def test_the_model_is_silent_while_a_return_is_not_there() -> None:
    assert tells(of_everything(NEVER), OFTEN, keeps_all=True) == []
    assert tells(of_everything(landing(GONE)), OFTEN, keeps_all=True) == []
    # Gone from the first look after, and back as something else happens: that is taken over too.
    assert tells(of_everything(landing(OPEN, GONE, None, CLOSED)), TWICE_A_DAY, keeps_all=True) == [
        Word(0, CREATED, "open"),
        Word(0, LABEL_CREATED, "new"),
        Word(0, OUT, ""),
    ]
    # Back a look before that: what happens then is told.
    assert tells(of_everything(landing(OPEN, GONE, CLOSED)), TWICE_A_DAY, keeps_all=True) == [
        Word(0, CREATED, "open"),
        Word(0, LABEL_CREATED, "new"),
        Word(0, OUT, ""),
        Word(3, LABEL_UPDATED, "delivered"),
        Word(3, OUT, ""),
        Word(3, PAYMENT, "b"),
    ]
    # Gone when it was first seen, its first sight is when it comes.
    assert tells(of_everything(landing(GONE, None, OPEN)), OFTEN, keeps_all=True) == [
        Word(2, CREATED, "open"),
        Word(2, LABEL_CREATED, "in_transit"),
        Word(2, PAYMENT, "a"),
        Word(3, LABEL_UPDATED, "delivered"),
        Word(3, OUT, ""),
        Word(3, PAYMENT, "b"),
    ]
