"""Histories of returns and of all that is theirs, how they are delivered, and what they must tell.

`tells` is the whole rule, written once more and by other means: each look goes by one version of each thing, and each
kind of thing makes words of the steps from look to look.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate, pairwise
from typing import Any, Generic, NamedTuple, TypeVar

from hypothesis import strategies as st

from loop_attentive.canonical import RETURN_STATUS
from tests.floor import DAY

LOOKS = 5

CREATED, UPDATED = "Loop Return Created", "Loop Return Status Updated"
LABEL_CREATED, LABEL_UPDATED = "Loop Label Created", "Loop Label Updated"
OUT, RESOLVED = "Loop Exchange Out Of Stock", "Loop Out Of Stock Resolved"
PAYMENT, REFUND = "Loop Payment Transaction", "Loop Refund Transaction"
EVENTS = (CREATED, UPDATED, LABEL_CREATED, LABEL_UPDATED, OUT, RESOLVED, PAYMENT, REFUND)


class Word(NamedTuple):
    """What is told: at which look, by which event, and what it shows: the status, the outcome, or which transaction."""

    look: int
    event: str
    shows: str


def place(told: Word) -> tuple[int, int, str]:
    """By which words are sorted."""
    return told.look, EVENTS.index(told.event), told.shows


# ── Versions, and how they are delivered ────────────────────────────────────


class Return(NamedTuple):
    state: str
    is_deleted: bool


class Item(NamedTuple):
    out_of_stock: bool | None
    resolution: str | None
    is_restocked: bool


class Transaction(NamedTuple):
    kind: str
    gateway: str | None
    status: str


V = TypeVar("V")


@dataclass(frozen=True)
class Delivery(Generic[V]):
    """The versions of one thing, and which of them land before each look. No version: there is no such thing."""

    history: tuple[V, ...]
    batches: tuple[tuple[int, ...], ...]


NEVER: Delivery[Any] = Delivery((), ((),) * LOOKS)


@dataclass(frozen=True)
class Story:
    """A return with all that is its, each delivered by itself. label: the status of its one label, which has a number.
    items: by exchange_id. transactions: by what their ids end in.
    """

    returned: Delivery[Return] = NEVER
    label: Delivery[str] = NEVER
    items: tuple[tuple[int, Delivery[Item]], ...] = ()
    transactions: tuple[tuple[str, Delivery[Transaction]], ...] = ()


ITEM_IDS = (9, 10)
"""The higher is not the later in the alphabet."""
TRANSACTION_IDS = ("a", "b")

REFUNDED, CREDITED, NEITHER = "refund", "credit", ""
OUTCOMES = {
    "refund": REFUNDED, " Fully REFUNDED": REFUNDED, "refund, not credit": REFUNDED, "Store Credit ": CREDITED,
    "GIFT_CARD": CREDITED, "Exchanged": NEITHER,
}  # fmt: skip
"""What each resolution means to the customer. The source spells one that is empty as it spells all empty text."""


def histories_of(versions: st.SearchStrategy[V]) -> st.SearchStrategy[list[V]]:
    return st.lists(versions, min_size=2, max_size=6)


RETURNS = histories_of(
    st.builds(
        Return,
        st.sampled_from(["open", "closed", "cancelled", "expired", "review", " Closed ", "CANCELLED"]),
        st.sampled_from([False, False, False, True]),
    )
)
LABELS = histories_of(st.sampled_from(["new", "in_transit", "delivered", " In Transit"]))
MISSING = Item(True, None, False)
NOT_MISSING = [
    *[Item(True, resolution, False) for resolution in OUTCOMES],
    Item(True, "Store Credit ", True),
    Item(True, None, True),
    Item(False, None, False),
    Item(None, None, False),
]
ITEMS = st.one_of(
    histories_of(st.sampled_from([*[MISSING] * len(NOT_MISSING), *NOT_MISSING])),
    # Time and again: that makes the most episodes.
    st.lists(st.sampled_from(NOT_MISSING), min_size=1, max_size=3).map(
        lambda closed: [version for one in closed for version in (MISSING, one)]
    ),
)
TRANSACTIONS = histories_of(
    st.builds(
        Transaction,
        st.sampled_from(["payment", "refund", " Refund"]),
        st.sampled_from(["stripe", "stripe", " Stripe", "shopify_payments", None]),
        st.sampled_from(["succeeded", "SUCCEEDED ", "pending", "failed"]),
    )
)


@st.composite
def any_delivery(draw: st.DrawFn, histories: st.SearchStrategy[Sequence[V]]) -> Delivery[V]:
    """Late, twice, out of order, some versions never; or, at many a look, as they come."""
    history = tuple(draw(histories))
    newest = len(history) - 1
    batch = st.none() | st.lists(st.integers(0, newest), max_size=3)
    batches = draw(st.lists(batch, min_size=LOOKS, max_size=LOOKS))
    return Delivery(
        history,
        tuple((min(look, newest),) if batch is None else tuple(batch) for look, batch in enumerate(batches)),
    )


@st.composite
def prompt_delivery(draw: st.DrawFn, histories: st.SearchStrategy[Sequence[V]]) -> Delivery[V]:
    """Every version lands before the look that follows it: in any order, and some again."""
    history = tuple(draw(histories))
    edges = sorted(draw(st.lists(st.integers(0, len(history)), min_size=LOOKS - 1, max_size=LOOKS - 1)))
    batches = []
    for start, end in zip([0, *edges], [*edges, len(history)], strict=True):
        again = draw(st.lists(st.integers(0, end - 1), max_size=2)) if end else []
        batches.append(tuple(draw(st.permutations([*range(start, end), *again]))))
    return Delivery(history, tuple(batches))


@st.composite
def stories(draw: st.DrawFn, deliver: Any) -> Story:
    """deliver: makes deliveries of histories. Of six things one never comes; many a return comes after the rest."""

    def delivery(histories: st.SearchStrategy[Any]) -> Delivery[Any]:
        return draw(deliver(histories)) if draw(st.integers(0, 5)) else NEVER

    return Story(
        later(delivery(RETURNS), draw(st.sampled_from([0, 0, 1, 2]))),
        delivery(LABELS),
        tuple((item, delivery(ITEMS)) for item in ITEM_IDS),
        tuple((transaction, delivery(TRANSACTIONS)) for transaction in TRANSACTION_IDS),
    )


def later(delivery: Delivery[V], looks: int) -> Delivery[V]:
    return Delivery(delivery.history, ((),) * looks + delivery.batches[: LOOKS - looks])


RESTS = st.lists(
    st.sampled_from([timedelta(minutes=6), timedelta(hours=11, minutes=54), timedelta(hours=12)]),
    min_size=LOOKS,
    max_size=LOOKS,
)
"""Before each look. Some make a day together, to the minute, and some just less."""


def in_order(delivery: Delivery[V]) -> Delivery[V]:
    """The same, as a connector that is never late delivers it."""
    done: set[int] = set()
    batches = []
    for batch in delivery.batches:
        batches.append(tuple(sorted(set(batch) - done)))
        done |= set(batch)
    return Delivery(delivery.history, tuple(batches))


def parts(story: Story) -> list[tuple[str, Delivery[Any]]]:
    """All that is delivered, each by its name within the story."""
    named: list[tuple[Any, Delivery[Any]]] = [*story.items, *story.transactions]
    return [("", story.returned), ("", story.label), *((str(name), delivery) for name, delivery in named)]


def all_in_order(story: Story) -> Story:
    return Story(
        in_order(story.returned),
        in_order(story.label),
        tuple((item, in_order(delivery)) for item, delivery in story.items),
        tuple((transaction, in_order(delivery)) for transaction, delivery in story.transactions),
    )


# ── What they must tell ─────────────────────────────────────────────────────


def tells(story: Story, rests: Sequence[timedelta], *, keeps_all: bool) -> list[Word]:
    """What the customer must be told. rests: between the looks. keeps_all: the warehouse keeps each version as a row of
    its own.
    """
    returned = newest_of(story.returned, keeps_all=keeps_all)
    is_live = [version is not None and not version.is_deleted for version in returned]
    if True not in is_live:
        return []
    arrived = is_live.index(True)

    def known(versions: list[V | None]) -> list[V | None]:
        """Nothing is known of a return, nor of what is its, before it is first seen alive."""
        return [None] * arrived + versions[arrived:]

    def newest(delivery: Delivery[Any]) -> list[Any]:
        return known(newest_of(delivery, keeps_all=keeps_all))

    # What changed while it was deleted is nobody's news when it comes back.
    is_heard = [look == arrived or all(is_live[look - 1 : look + 1]) for look in range(LOOKS)]
    told = [
        *of_statuses([version and mapped(version.state) for version in known(returned)], CREATED, UPDATED),
        *of_statuses([version and word(version).replace(" ", "_") for version in newest(story.label)],
                     LABEL_CREATED, LABEL_UPDATED),
        *of_items({item: newest(numbered(delivery)) for item, delivery in story.items}, list(accumulate(rests))),
    ]  # fmt: skip
    heard = [one for one in told if is_heard[one.look]]
    for transaction, delivery in story.transactions:
        heard += of_transaction(transaction, known(last_of(delivery)), is_heard)
    return sorted(heard, key=place)


def newest_of(delivery: Delivery[V], *, keeps_all: bool) -> list[V | None]:
    """The version that each look goes by: the newest one that was there at any look."""
    newest, seen = -1, []
    for batch in delivery.batches:
        if batch:
            newest = max(newest, max(batch) if keeps_all else batch[-1])
        seen.append(delivery.history[newest] if newest >= 0 else None)
    return seen


def last_of(delivery: Delivery[V]) -> list[V | None]:
    """The version that each look goes by where none says how new it is: the one that landed last."""
    seen: list[V | None] = [None]
    for batch in delivery.batches:
        seen.append(delivery.history[batch[-1]] if batch else seen[-1])
    return seen[1:]


def numbered(delivery: Delivery[V]) -> Delivery[tuple[int, V]]:
    return Delivery(tuple(enumerate(delivery.history)), delivery.batches)


def of_statuses(statuses: Iterable[str | None], first: str, changed: str) -> Iterator[Word]:
    for look, (before, now) in enumerate(pairwise([None, *statuses])):
        if now is not None and now != before:
            yield Word(look, first if before is None else changed, now)


def of_items(items: dict[int, list[tuple[int, Item] | None]], times: Sequence[timedelta]) -> Iterator[Word]:
    """items: by exchange_id, each with the number of its version, look by look. times: of the looks."""
    began: timedelta | None = None
    is_under_way = False
    were_open: set[int] = set()
    for look, time in enumerate(times):
        seen = {item: version for item, versions in items.items() if (version := versions[look])}
        are_open = {item for item, (_, version) in seen.items() if is_open(version)}
        if is_under_way and not are_open:
            is_under_way = False
            _, _, last = max((seen[item][0], item, seen[item][1]) for item in were_open)
            yield Word(look, RESOLVED, OUTCOMES[last.resolution] if last.resolution else NEITHER)
        elif are_open and not is_under_way and (began is None or time - began >= DAY):
            is_under_way, began = True, time
            yield Word(look, OUT, "")
        were_open = are_open


def is_open(item: Item) -> bool:
    return item.out_of_stock is True and item.resolution is None and not item.is_restocked


def of_transaction(name: str, versions: list[Transaction | None], is_heard: Sequence[bool]) -> list[Word]:
    """Each of the two events once, whatever becomes of the transaction after that."""
    told: dict[str, Word] = {}
    plain = [version and tuple(map(word, version)) for version in versions]
    for look, (before, now) in enumerate(pairwise([None, *plain])):
        if is_heard[look] and now and now != before and now[1:] == ("stripe", "succeeded"):
            event = {"payment": PAYMENT, "refund": REFUND}[now[0]]
            told.setdefault(event, Word(look, event, name))
    return list(told.values())


def mapped(state: str) -> str:
    return RETURN_STATUS.get(word(state), word(state))


def word(told: str | None) -> str:
    return (told or "").strip().casefold()
