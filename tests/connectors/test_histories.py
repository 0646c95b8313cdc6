"""Any histories of returns, delivered in any order, late and twice, deleted and restored, however a connector spells
them: what is told is what the histories in order tell.

A history is what `tells` makes of it: that is the whole rule, written once more and by other means.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from loop_attentive.source import RETURN_STATUS
from tests.floor import HOUR, T0, Event, Floor

CREATED, UPDATED = "Loop Return Created", "Loop Return Status Updated"
LABEL_CREATED, LABEL_UPDATED = "Loop Label Created", "Loop Label Updated"
LOOKS = 5
AHEAD_OF_UTC = "Asia/Kolkata"

_numbers = count(1)
_stories = count(1)


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


# ── Histories ───────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Version:
    """A return at one time. label: the status of its one label, which has a number; None while there is none."""

    state: str
    is_deleted: bool
    label: str | None


@dataclass(frozen=True)
class Delivery:
    """A return's versions, and which of them land before each look."""

    history: tuple[Version, ...]
    batches: tuple[tuple[int, ...], ...]


STATES = st.sampled_from(["open", "closed", "cancelled", "expired", "review", " Closed ", "CANCELLED"])
LABELS = st.sampled_from([None, "new", "in_transit", "delivered", " In Transit"])
VERSIONS = st.builds(Version, STATES, st.sampled_from([False, False, False, True]), st.none())
WITH_LABEL = st.builds(Version, STATES, st.just(False), LABELS)
"""A label is kept apart from its return, so one that is deleted meanwhile is another story."""


@st.composite
def any_delivery(draw: st.DrawFn, versions: st.SearchStrategy[Version]) -> Delivery:
    """Late, twice, out of order, some versions never."""
    history = tuple(draw(st.lists(versions, min_size=1, max_size=6)))
    batch = st.lists(st.integers(0, len(history) - 1), max_size=3).map(tuple)
    return Delivery(history, tuple(draw(st.lists(batch, min_size=LOOKS, max_size=LOOKS))))


@st.composite
def prompt_delivery(draw: st.DrawFn, versions: st.SearchStrategy[Version]) -> Delivery:
    """Every version lands before the look that follows it: in any order, and some again."""
    history = tuple(draw(st.lists(versions, min_size=1, max_size=6)))
    edges = sorted(draw(st.lists(st.integers(0, len(history)), min_size=LOOKS - 1, max_size=LOOKS - 1)))
    batches = []
    for start, end in zip([0, *edges], [*edges, len(history)], strict=True):
        again = draw(st.lists(st.integers(0, max(0, end - 1)), max_size=2)) if end else []
        batches.append(tuple(draw(st.permutations([*range(start, end), *again]))))
    return Delivery(history, tuple(batches))


def in_order(delivery: Delivery) -> Delivery:
    """The same, as a connector that is never late delivers it."""
    done: set[int] = set()
    batches = []
    for batch in delivery.batches:
        batches.append(tuple(sorted(set(batch) - done)))
        done |= set(batch)
    return Delivery(delivery.history, tuple(batches))


def mapped(state: str) -> str:
    folded = state.strip().casefold()
    return RETURN_STATUS.get(folded, folded)


def tells(delivery: Delivery, *, keeps_all: bool) -> list[tuple[str, str]]:
    """What the customer must be told, look by look. keeps_all: the warehouse keeps each version as a row of its own."""
    said: list[tuple[str, str]] = []
    newest = newest_label = -1
    status = label = None
    is_known = was_deleted = False
    for batch in delivery.batches:
        if not batch:
            continue
        newest = max(newest, max(batch) if keeps_all else batch[-1])
        version = delivery.history[newest]
        now = mapped(version.state)
        if not version.is_deleted:
            if not is_known:
                said.append((CREATED, now))
            elif now != status and not was_deleted:
                said.append((UPDATED, now))
            is_known = True
        if labels := [place for place in batch if delivery.history[place].label]:
            newest_label = max(newest_label, max(labels) if keeps_all else labels[-1])
            labelled = str(delivery.history[newest_label].label).strip().casefold().replace(" ", "_")
            if labelled != label:
                said.append((LABEL_CREATED if label is None else LABEL_UPDATED, labelled))
            label = labelled
        status, was_deleted = now, version.is_deleted
    return said


# ── Telling them to the pipeline ────────────────────────────────────────────


def shop_on(floor: Floor, *, keeps_all: bool) -> Floor:
    """A shop that has looked before."""
    if floor.one("SELECT count(*) FROM shop") == (0,):
        if keeps_all:
            floor.conn.execute("ALTER TABLE loop.returns DROP CONSTRAINT returns_return_id_key")
            floor.conn.execute("ALTER TABLE loop.labels DROP CONSTRAINT labels_return_id_tracking_number_key")
        floor.start(T0)
    return floor


def story(floor: Floor, deliveries: Sequence[Delivery], spelling: Spelling, *, keeps_all: bool, gap: int) -> list[Any]:
    """Lands what is delivered, with a look after each batch; what each return was told, look by look."""
    began = T0 + next(_stories) * HOUR
    numbers = [str(next(_numbers)) for _ in deliveries]
    new: list[Event] = []
    for look in range(LOOKS):
        at = began + (look + 1) * HOUR / 10
        for number, delivery in zip(numbers, deliveries, strict=True):
            for place, version in enumerate(delivery.batches[look]):
                # What is landed later was synced later; all of it before the look.
                land(floor, number, delivery.history[version], spelling, keeps_all=keeps_all, began=began,
                     moved=began + version * gap * spelling.apart, synced=at - SECOND * (60 - place))  # fmt: skip
        new += floor.run(at, CREATED, UPDATED, LABEL_CREATED, LABEL_UPDATED)
    assert {event.status for event in new} <= {"pending"}
    order = [CREATED, UPDATED, LABEL_CREATED, LABEL_UPDATED]
    new.sort(key=lambda event: (event.detected_at, order.index(event.event_type)))
    return [
        [(e.event_type, e.properties["trackingStatus" if "Label" in e.event_type else "returnStatus"])
         for e in new if e.return_id == number] for number in numbers
    ]  # fmt: skip


def land(
    floor: Floor, number: str, version: Version, spelling: Spelling, *, keeps_all: bool, began: datetime,
    moved: datetime, synced: datetime,
) -> None:  # fmt: skip
    row = {
        "return_id": number, "state": version.state, "outcome": spelling.absent, "order_name": spelling.absent,
        "customer_email": spelling.absent, "customer_phone": "+14155552671", "status_page_url": spelling.absent,
        "charge_at": spelling.absent if spelling.times == "text" else None, "created_at": spelling.tell(began),
        "updated_at": spelling.tell(moved), "synced_at": spelling.tell(synced), "is_deleted": version.is_deleted,
    }  # fmt: skip
    write(floor, "returns", row, keeps_all=keeps_all)
    if version.label is not None:
        label = {
            "return_id": number, "carrier": spelling.absent, "tracking_number": f" 1z{number} ",
            "label_url": spelling.absent, "status": version.label, "updated_at": spelling.tell(moved),
            "synced_at": spelling.tell(synced),
        }  # fmt: skip
        write(floor, "labels", label, keeps_all=keeps_all)


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
    deadline=None, max_examples=5, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LONG = settings(USUAL, max_examples=60)

RETURNS = [VERSIONS, WITH_LABEL]


def some(deliveries: Callable[..., st.SearchStrategy[Delivery]]) -> st.SearchStrategy[list[Delivery]]:
    """Many returns at once: a look costs the same."""
    return st.lists(st.one_of([deliveries(versions) for versions in RETURNS]), min_size=1, max_size=15)


GAPS = st.sampled_from([1, 7, 60])
EACH_SPELLING = pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
EACH_WAREHOUSE = pytest.mark.parametrize("keeps_all", [True, False], ids=["appended", "replaced"])


def nothing_is_made_up(floor: Floor, deliveries: list[Delivery], gap: int, spelling: Spelling, keeps_all: bool) -> None:
    said = story(shop_on(floor, keeps_all=keeps_all), deliveries, spelling, keeps_all=keeps_all, gap=gap)
    for delivery, mine in zip(deliveries, said, strict=True):
        assert mine == tells(delivery, keeps_all=keeps_all), delivery


def any_order_is_as_good(floor: Floor, deliveries: list[Delivery], gap: int, spelling: Spelling) -> None:
    floor = shop_on(floor, keeps_all=True)
    said = story(floor, deliveries, spelling, keeps_all=True, gap=gap)
    assert said == [tells(in_order(delivery), keeps_all=True) for delivery in deliveries]


def opened(floors: Callable[..., Floor], spelling: Spelling) -> Floor:
    return floors(times=spelling.times, time_zone=AHEAD_OF_UTC)


@pytest.mark.parametrize(
    ("spelling", "keeps_all"),
    [(spelling, number % 2 == 0) for number, spelling in enumerate(SPELLINGS.values())],
    ids=SPELLINGS,
)
def test_late_twice_and_out_of_order_nothing_is_made_up(
    floors: Callable[..., Floor], spelling: Spelling, keeps_all: bool
) -> None:
    floor = opened(floors, spelling)
    USUAL(given(some(any_delivery), GAPS)(lambda d, gap: nothing_is_made_up(floor, d, gap, spelling, keeps_all)))()


@EACH_SPELLING
def test_what_comes_before_the_look_may_come_in_any_order(floors: Callable[..., Floor], spelling: Spelling) -> None:
    floor = opened(floors, spelling)
    USUAL(given(some(prompt_delivery), GAPS)(lambda d, gap: any_order_is_as_good(floor, d, gap, spelling)))()


@pytest.mark.long
@EACH_WAREHOUSE
@EACH_SPELLING
def test_late_twice_and_out_of_order_in_many_more_histories(
    floors: Callable[..., Floor], spelling: Spelling, keeps_all: bool
) -> None:
    floor = opened(floors, spelling)
    LONG(given(some(any_delivery), GAPS)(lambda d, gap: nothing_is_made_up(floor, d, gap, spelling, keeps_all)))()


@pytest.mark.long
@EACH_SPELLING
def test_any_order_before_the_look_in_many_more_histories(floors: Callable[..., Floor], spelling: Spelling) -> None:
    floor = opened(floors, spelling)
    LONG(given(some(prompt_delivery), GAPS)(lambda d, gap: any_order_is_as_good(floor, d, gap, spelling)))()


def test_the_model_tells_what_one_expects() -> None:
    """It is judged by, so it is shown what it must say itself."""
    opened, closed, gone = (
        Version(*of) for of in (("open", False, None), ("closed", False, None), ("closed", True, None))
    )
    history = (opened, gone, opened, closed)
    assert tells(Delivery(history, ((0,), (1,), (2,), (3,), ())), keeps_all=True) == [
        (CREATED, "open"),
        (UPDATED, "closed"),
    ]
    assert tells(Delivery(history, ((1,), (0,), (2,), (3,), ())), keeps_all=True) == [
        (CREATED, "open"),
        (UPDATED, "closed"),
    ]
    assert tells(Delivery(history, ((3,), (0,), (1,), (2,), ())), keeps_all=True) == [(CREATED, "closed")]
