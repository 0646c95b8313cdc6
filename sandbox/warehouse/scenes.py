"""The story: everything that can happen to a return between two looks, and which events it means.

Each scene names the returns that it can happen to (`cast`), changes one of them, and yields the news that Attentive is
to be told. A scene that yields nothing is a trap: something moves, and nobody is to be told.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sandbox.warehouse.events import Event
from sandbox.warehouse.returns import Label, Return, folded, stamp
from sandbox.warehouse.stage import News, Stage

Cast = Callable[[Stage, Return], bool]
Play = Callable[[Stage, Return], Iterator[News]]

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
CHANCE_OF_NO_TIME = 0.2


@dataclass(frozen=True)
class Scene:
    name: str
    cast: tuple[Cast, ...]
    play: Play

    def suits(self, stage: Stage, r: Return) -> bool:
        return all(condition(stage, r) for condition in self.cast)


@dataclass(frozen=True)
class Arrival:
    """A return that the warehouse has never shown. label: None for none at all; otherwise what is special about it."""

    name: str
    traits: Mapping[str, Any] = field(default_factory=dict)
    label: Mapping[str, Any] | None = None
    news: tuple[Event, ...] = (Event.CREATED,)
    items: int = 0  # out of stock
    payments: int = 0
    age: timedelta = timedelta(0)
    charged_in: timedelta | None = None  # from the moment at which it reaches `age`


# ── New returns ──────────────────────────────────────────────────────────────

PENDING = {
    "carrier": "N/A",
    "tracking_number": "N/A",
    "tracking_url": "N/A",
    "label_url": "N/A",
    "status": "pending",
    "updated_at": "N/A",
}
NEW: dict[str, Any] = {}
WITH_LABEL = (Event.CREATED, Event.LABEL_CREATED)
NOBODY = {"customer_email": "N/A", "customer_phone": ""}
INSTANT = {"is_instant_exchange": True, "outcome": "exchange"}

ARRIVALS = (
    Arrival("submitted, its label still pending", label=PENDING),
    Arrival("submitted, its label numbered four seconds later", label=NEW, news=WITH_LABEL),
    Arrival("first seen in transit", label={"status": "In Transit"}, news=WITH_LABEL),
    Arrival("numbered, but pending", label={"status": "pending"}, news=WITH_LABEL),
    Arrival("a label without a status", label={"status": ""}, news=WITH_LABEL),
    Arrival("a label that does not say when it was made", label={"created_at": None}, news=WITH_LABEL),
    Arrival("a label without any time", label={"created_at": None, "updated_at": "N/A"}, news=WITH_LABEL),
    Arrival("a label without carrier or links", label={"carrier": "", "tracking_url": None, "label_url": "N/A"},
            news=WITH_LABEL),
    Arrival("a number in small letters with spaces", label={"tracking_number": " 1z 999 aa1 {} "}, news=WITH_LABEL),
    Arrival("first seen with its label cancelled", label={"status": "cancelled"}),
    Arrival("first seen closed", {"state": "closed"}),
    Arrival("waits for review", {"state": " Review "}, NEW, WITH_LABEL),
    Arrival("an outcome without a word at Attentive", {"outcome": "credit+refund"}),
    Arrival("no outcome, no order, no page", {"outcome": None, "order_name": "N/A", "status_page_url": ""}),
    Arrival("nobody knows if labels are enabled; there is one", {"labels_enabled": None}, NEW, WITH_LABEL),
    Arrival("nobody knows if labels are enabled; there is none", {"labels_enabled": None}),
    Arrival("can be reached by e-mail only", {"customer_phone": "N/A"}, NEW, WITH_LABEL),
    Arrival("can be reached by phone only", {"customer_email": ""}, NEW, WITH_LABEL),
    Arrival("a phone that cannot be", {"customer_phone": "+1-123-456-7890"}),
    Arrival("can be reached by nobody yet", NOBODY),
    Arrival("can be reached by nobody", NOBODY, NEW, WITH_LABEL),
    Arrival("first seen with an item out of stock", items=1, news=(Event.CREATED, Event.OUT_OF_STOCK)),
    Arrival("comes later than its label and its payment", {"has_landed": False}, NEW, payments=1, news=()),
    Arrival("deleted when first seen", {"is_deleted": True, "born_deleted": True}, news=()),
    Arrival("a state without a word at Attentive", {"state": "archived", "frozen": True}, news=()),
)  # fmt: skip

# Returns that come late, just as they reach an age that counts. They are too old to be news themselves; whether they
# are to be reminded is judged at the look, from what they are then.
AGES: dict[str, dict[str, Any]] = {
    "is 21 days old": {"age": 21 * DAY},
    "is 28 days old": {"age": 28 * DAY},
    "is an instant exchange of 7 days": {"age": 7 * DAY, "charged_in": 7 * DAY},
    "is charged in 24 hours": {"age": 13 * DAY, "charged_in": DAY},
}
CONDITIONS: tuple[tuple[str, Mapping[str, Any], Mapping[str, Any] | None], ...] = (
    ("and waits", {}, NEW),
    ("and has no label", {}, None),
    ("and has a pending label", {}, PENDING),
    ("and labels are enabled, because there is one", {"labels_enabled": None}, NEW),
    ("and labels are not enabled", {"labels_enabled": False}, NEW),
    ("but is shipped", {}, {"status": "out_for_delivery"}),
    ("but nobody can tell if it is shipped", {}, {"status": "error"}),
    ("but waits for review", {"state": "review"}, NEW),
    ("but is closed", {"state": "closed"}, NEW),
    ("but is deleted", {"is_deleted": True, "born_deleted": True, "frozen": True}, None),
    ("but nobody can be reached", NOBODY, NEW),
)
COMINGS_OF_AGE = tuple(
    Arrival(f"{age} {condition}", {**traits, **(INSTANT if "charged_in" in when else {})}, label, news=(), **when)
    for age, when in AGES.items()
    for condition, traits, label in CONDITIONS
)


def arrive(arrival: Arrival, stage: Stage) -> tuple[Return, list[News]]:
    r = stage.new_return(arrival.age, **arrival.traits)
    if arrival.charged_in is not None:
        r.charge_at = r.created_at + arrival.age + arrival.charged_in
    if arrival.label is not None:
        label = replace(stage.first_label(r), **arrival.label)
        label.tracking_number = (label.tracking_number or "").format(stage.number())
        r.labels.append(label)
    r.exchange_items += [stage.new_item(max(r.created_at, stage.moment())) for _ in range(arrival.items)]
    r.transactions += [stage.new_transaction("payment", "stripe", "succeeded") for _ in range(arrival.payments)]
    return r, [_first_sight(event, r) for event in arrival.news]


def _first_sight(event: Event, r: Return) -> News:
    match event:
        case Event.LABEL_CREATED:
            label = r.labels[-1]
            return News(event, r, label.created_at or label.moved_at, label)
        case Event.OUT_OF_STOCK:
            return News(event, r, r.exchange_items[-1].updated_at)
        case Event.PAYMENT:
            payment = r.transactions[-1]
            return News(event, r, payment.created_at, transaction_id=payment.transaction_id)
    return News(event, r, r.created_at)


# ── States ───────────────────────────────────────────────────────────────────

STATE_MOVES: tuple[tuple[str, str, Event | None], ...] = (
    ("open", "closed", Event.STATUS_UPDATED),
    ("open", " Closed", Event.STATUS_UPDATED),
    ("open", "cancelled", Event.STATUS_UPDATED),
    ("open", "expired", Event.STATUS_UPDATED),
    ("closed", "open", Event.STATUS_UPDATED),
    ("review", "closed", Event.STATUS_UPDATED),
    ("open", "review", None),
    ("review", "open", None),
)


def _move_state(after: str, event: Event | None, stage: Stage, r: Return) -> Iterator[News]:
    r.state = after
    moved_at = _touch(stage, r)
    if event:
        yield News(event, r, moved_at)
    r.frozen = after == "expired"  # so that it still is when the daily run comes


def _touch(stage: Stage, r: Return) -> datetime | None:
    """Most changes move updated_at; of the others, only the look can say when they happened."""
    if stage.rng.random() < CHANCE_OF_NO_TIME:
        return None
    r.updated_at = stage.moment()
    return r.updated_at


def _close_and_reopen(stage: Stage, r: Return) -> Iterator[News]:
    """Between two looks: nobody saw it closed."""
    r.updated_at = stage.moment()
    yield from ()


# ── Labels ───────────────────────────────────────────────────────────────────

LABEL_MOVES: tuple[tuple[str, str, Event | None], ...] = (
    ("new", "pre_transit", Event.LABEL_UPDATED),
    ("new", "In Transit", Event.LABEL_UPDATED),
    ("new", "error", Event.LABEL_UPDATED),
    ("new", "cancelled", Event.LABEL_UPDATED),
    ("pending", "new", None),
    ("error", "unknown", None),
    ("error", "new", Event.LABEL_UPDATED),
    ("pre_transit", "in_transit", Event.LABEL_UPDATED),
    ("in_transit", "available_for_pickup", None),
    ("in_transit", "out-for-delivery", Event.LABEL_UPDATED),
    ("in_transit", "return_to_sender", Event.LABEL_UPDATED),
    ("in_transit", "pre_transit", Event.LABEL_UPDATED),
    ("out_for_delivery", "delivered", Event.LABEL_UPDATED),
    ("delivered", "in_transit", Event.LABEL_UPDATED),
)


def _move_label(after: str, event: Event | None, stage: Stage, r: Return) -> Iterator[News]:
    label = r.labels[-1]
    label.status = after
    moved_at = _stamp_label(stage, label)
    if event:
        yield News(event, r, moved_at, label)


def _stamp_label(stage: Stage, label: Label) -> datetime | None:
    if stage.rng.random() < CHANCE_OF_NO_TIME:
        return None
    moved_at = stage.moment()
    label.updated_at = stamp(moved_at)
    return moved_at


def _number_label(stage: Stage, r: Return) -> Iterator[News]:
    """The same label: it keeps the time of its making."""
    [pending] = r.labels
    numbered_at = stage.moment()
    r.labels = [replace(stage.new_label(numbered_at), created_at=pending.created_at)]
    yield News(Event.LABEL_CREATED, r, numbered_at, r.labels[-1])


def _second_label(stage: Stage, r: Return) -> Iterator[News]:
    label = stage.new_label(stage.moment())
    r.labels.append(label)
    yield News(Event.LABEL_CREATED, r, label.created_at, label)


def _lose_and_find_parcel(stage: Stage, r: Return) -> Iterator[News]:
    """Between two looks: in transit, unknown, in transit."""
    r.labels[-1].updated_at = stamp(stage.moment())
    yield from ()


def _other_carrier(stage: Stage, r: Return) -> Iterator[News]:
    r.labels[-1].carrier = "UPS" if r.labels[-1].carrier != "UPS" else "FedEx"
    _stamp_label(stage, r.labels[-1])
    yield from ()


def _spell_number_otherwise(stage: Stage, r: Return) -> Iterator[News]:
    number = r.labels[-1].tracking_number or ""
    r.labels[-1].tracking_number = f" {number[:5].lower()} {number[5:]}"
    yield from ()


# ── Exchange items ───────────────────────────────────────────────────────────

RESOLUTIONS: tuple[tuple[str, str | None, str | None], ...] = (
    ("credit", "credit", "credit"),
    ("a gift card", "Gift_Card", "credit"),
    ("refund", "refund", "refund"),
    ("refund, spelt at length", "refunded to original payment", "refund"),
    ("another item", "replaced", None),
    ("restocked", None, None),
)


def _run_out(items: int, stage: Stage, r: Return) -> Iterator[News]:
    """Several items make one event, timed by the newest."""
    moments = sorted(stage.moment() for _ in range(items))
    r.exchange_items += [stage.new_item(moment) for moment in moments]
    yield News(Event.OUT_OF_STOCK, r, moments[-1])


def _run_out_undated(stage: Stage, r: Return) -> Iterator[News]:
    r.exchange_items.append(stage.new_item(None))
    yield News(Event.OUT_OF_STOCK, r)


def _run_out_again_too_soon(stage: Stage, r: Return) -> Iterator[News]:
    """No event before the last episode is 24 hours old; the look that finds it open then opens the next."""
    r.exchange_items.append(stage.new_item(stage.moment()))
    r.out_again = True
    yield from ()


def _resolve(resolution: str | None, outcome: str | None, stage: Stage, r: Return) -> Iterator[News]:
    """One item; only the last one that was open makes the event."""
    item = next(item for item in r.exchange_items if item.is_open)
    resolved_at = stage.moment()
    item.updated_at = resolved_at
    item.resolution = resolution
    if resolution is None:
        item.restocked_at = resolved_at
    was_an_episode, r.out_again = not r.out_again, False
    if was_an_episode and not r.is_out_of_stock:
        yield News(Event.RESOLVED, r, resolved_at, out_of_stock_outcome=outcome)


# ── Money ────────────────────────────────────────────────────────────────────

TRANSACTIONS: tuple[tuple[tuple[str, str, str], Event | None], ...] = (
    (("payment", "stripe", "succeeded"), Event.PAYMENT),
    (("payment", " Stripe", "SUCCEEDED"), Event.PAYMENT),
    (("payment", "stripe", "pending"), None),
    (("payment", "stripe", "failed"), None),
    (("payment", "shopify_payments", "succeeded"), None),
    (("refund", "stripe", "succeeded"), Event.REFUND),
    (("refund", "stripe", "pending"), None),
    (("refund", "shopify_payments", "succeeded"), None),
)
SUCCESS = {"payment": Event.PAYMENT, "refund": Event.REFUND}


def _transact(made: tuple[str, str, str], event: Event | None, stage: Stage, r: Return) -> Iterator[News]:
    transaction = stage.new_transaction(*made)
    r.transactions.append(transaction)
    if event:
        yield News(event, r, transaction.created_at, transaction_id=transaction.transaction_id)


def _settle(status: str, stage: Stage, r: Return) -> Iterator[News]:
    """Only the look can say when: a transaction has no other time than its making."""
    transaction = r.transactions[-1]
    transaction.status = status
    if status == "succeeded":
        yield News(SUCCESS[transaction.kind], r, transaction_id=transaction.transaction_id)


# ── Deleted, late, old and touched rows; people who can be reached at last ───


def _delete(stage: Stage, r: Return) -> Iterator[News]:
    r.is_deleted, r.state = True, "cancelled"
    r.updated_at = stage.moment()
    yield from ()


def _come_back(stage: Stage, r: Return) -> Iterator[News]:
    """What changed meanwhile is nobody's news; but one that nobody has seen undeleted is new."""
    r.is_deleted = False
    r.updated_at = stage.moment()
    if r.born_deleted:
        r.born_deleted = False
        yield News(Event.CREATED, r, r.created_at)
    else:
        r.state = "closed"


def _land(stage: Stage, r: Return) -> Iterator[News]:
    """The return whose label and payment were there before it."""
    r.has_landed = True
    for event in (Event.CREATED, Event.LABEL_CREATED, Event.PAYMENT):
        yield _first_sight(event, r)


def _reach(stage: Stage, r: Return) -> Iterator[News]:
    """The only event that could not be sent is judged again."""
    r.unsent.clear()
    r.customer_email = f"found.{r.return_id}@example.com"
    r.updated_at = stage.moment()
    yield News(Event.CREATED, r, r.created_at)


def _touch_only(stage: Stage, r: Return) -> Iterator[News]:
    """A sync brings the same row again."""
    yield from ()


def _bring_older_picture(stage: Stage, r: Return) -> Iterator[News]:
    """A row from before the last one, in another state: the mirror keeps what it has."""
    r.older_picture = replace(r, state="closed", updated_at=(r.updated_at or r.created_at) - HOUR)
    yield from ()


# ── Who can be cast for what ─────────────────────────────────────────────────


def _in_state(state: str) -> Cast:
    return lambda _, r: folded(r.state) == state


def _last_label_is(status: str) -> Cast:
    return lambda _, r: bool(r.numbered) and folded(r.labels[-1].status) == status


def _has_number(_: Stage, r: Return) -> bool:
    return bool(r.numbered)


def _waits_for_number(_: Stage, r: Return) -> bool:
    return len(r.labels) == 1 and not r.numbered


def _labels_are_dated(_: Stage, r: Return) -> bool:
    """Which of several labels is the newest would be in doubt otherwise."""
    return bool(r.numbered) and all(label.created_at for label in r.labels)


def _may_lose_label(_: Stage, r: Return) -> bool:
    """Whether labels are enabled would be in doubt otherwise."""
    return r.labels_enabled is not None


def _was_never_out_of_stock(_: Stage, r: Return) -> bool:
    return r.out_of_stock_since is None


def _was_just_out_of_stock(stage: Stage, r: Return) -> bool:
    return not r.is_out_of_stock and r.out_of_stock_since is not None and stage.now - r.out_of_stock_since < 20 * HOUR


def _was_long_ago_out_of_stock(stage: Stage, r: Return) -> bool:
    return not r.is_out_of_stock and r.out_of_stock_since is not None and stage.now - r.out_of_stock_since > DAY


def _is_out_of_stock(_: Stage, r: Return) -> bool:
    return r.is_out_of_stock


def _is_in_stock(_: Stage, r: Return) -> bool:
    """What becomes of an episode that is open while its return is deleted would be in doubt otherwise."""
    return not r.is_out_of_stock


def _is_told_if_shipped(_: Stage, r: Return) -> bool:
    """Whether it makes Expired would be in doubt otherwise."""
    return not r.is_doubtful


def _has_one_item(_: Stage, r: Return) -> bool:
    """Which resolution names the outcome would be in doubt otherwise."""
    return len(r.exchange_items) == 1


def _has_pending_money(_: Stage, r: Return) -> bool:
    return bool(r.transactions) and r.transactions[-1].status == "pending" and r.transactions[-1].gateway == "stripe"


def _is_dated(_: Stage, r: Return) -> bool:
    return r.updated_at is not None


def _is_only_created(_: Stage, r: Return) -> bool:
    """And nobody could be told."""
    return r.unsent == [Event.CREATED] and not r.labels and r.state == "open"


def _is_there(_: Stage, r: Return) -> bool:
    return r.has_landed and not r.is_deleted and not r.frozen


def _is_deleted(_: Stage, r: Return) -> bool:
    return r.is_deleted and not r.frozen


def _has_not_landed(_: Stage, r: Return) -> bool:
    return not r.has_landed


def _scene(name: str, play: Play, *cast: Cast) -> Scene:
    return Scene(name, (_is_there, *cast), play)


SCENES: tuple[Scene, ...] = (
    *(
        _scene(
            f"{before} becomes {after}",
            partial(_move_state, after, event),
            _in_state(before),
            *([_is_told_if_shipped] if after == "expired" else []),
        )
        for before, after, event in STATE_MOVES
    ),
    _scene("closed and open again between two looks", _close_and_reopen, _in_state("open")),
    *(
        _scene(
            f"label {before} becomes {after}",
            partial(_move_label, after, event),
            _last_label_is(before),
            *([_may_lose_label] if after == "cancelled" else []),
        )
        for before, after, event in LABEL_MOVES
    ),
    _scene("label gets its number", _number_label, _waits_for_number),
    _scene("another label", _second_label, _labels_are_dated),
    _scene("parcel lost and found between two looks", _lose_and_find_parcel, _last_label_is("in_transit")),
    _scene("another carrier", _other_carrier, _has_number),
    _scene("the number spelt otherwise", _spell_number_otherwise, _has_number),
    _scene("an item out of stock", partial(_run_out, 1), _was_never_out_of_stock),
    _scene("two items out of stock", partial(_run_out, 2), _was_never_out_of_stock),
    _scene("an item out of stock, nobody knows since when", _run_out_undated, _was_never_out_of_stock),
    _scene("out of stock again, too soon", _run_out_again_too_soon, _was_just_out_of_stock),
    _scene("out of stock again, long after", partial(_run_out, 1), _was_long_ago_out_of_stock),
    *(
        _scene(
            f"an item resolved: {name}",
            partial(_resolve, resolution, outcome),
            _is_out_of_stock,
            *([_has_one_item] if outcome is None else []),
        )
        for name, resolution, outcome in RESOLUTIONS
    ),
    *(_scene(" ".join(made), partial(_transact, made, event)) for made, event in TRANSACTIONS),
    *(
        _scene(f"pending money {status}", partial(_settle, status), _has_pending_money)
        for status in ("succeeded", "failed")
    ),
    _scene("deleted", _delete, _is_in_stock),
    Scene("back from being deleted", (_is_deleted,), _come_back),
    Scene("comes after its label and payment", (_has_not_landed,), _land),
    _scene("can be reached at last", _reach, _is_only_created),
    _scene("touched and equal", _touch_only),
    _scene("an older picture", _bring_older_picture, _in_state("open"), _is_dated),
)
