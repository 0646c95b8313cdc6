"""The canonical tables: their columns, one form for every value, and what Loop's and the carriers' words mean.

Every value is brought to one form: text without sentinels, folded enumerations, aware UTC times, Decimal money.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any

Row = tuple[Any, ...]

SENTINELS = frozenset({"", "n/a"})
"""Loop's spellings of a missing value (real payloads)."""

LONGEST_SENTINEL = max(map(len, SENTINELS))


LARGEST_NUMBER = 10**40
"""Above that no number is an id."""

DIGITS = 80
"""So many of an amount a database takes with ease, before and behind the point."""

LONGEST_ID = 200
"""Characters of an id, a number or a word; two of them, of four bytes each, fit into a key of PostgreSQL's indexes."""


def text(value: Any) -> str | None:
    """Trimmed text; None for a sentinel. NUL, and halves of characters, cannot be stored in PostgreSQL."""
    if value is None:
        return None
    if isinstance(value, float | Decimal):
        value = _without_point(value)
    try:
        told = bytes(value).decode(errors="replace") if isinstance(value, bytes | memoryview) else str(value)
    except ValueError:  # an integer of more digits than Python writes
        return None
    if not told.isascii():
        told = told.encode(errors="replace").decode()
    trimmed = told.replace("\0", "").strip()
    return None if len(trimmed) <= LONGEST_SENTINEL and trimmed.casefold() in SENTINELS else trimmed


def folded(value: Any) -> str | None:
    """Text of an enumeration: trimmed, case-folded, and cut where no word is so long: it stands in keys too."""
    trimmed = text(value)
    return trimmed.casefold()[:LONGEST_ID] if trimmed else None


def identifier(value: Any) -> str | None:
    """An id as text; None for what is none."""
    if isinstance(value, float | Decimal) and not Decimal(value).is_finite():
        return None
    told = text(value)
    return told if told and len(told) <= LONGEST_ID else None


def _without_point(number: float | Decimal) -> float | Decimal | int:
    """A number without a fraction loses the point that some tables and drivers give it: a phone, an order, an id."""
    exact = Decimal(number)
    is_whole = exact.is_finite() and -LARGEST_NUMBER < exact < LARGEST_NUMBER and exact == int(exact)
    return int(exact) if is_whole else number


FLAGS = dict.fromkeys(("true", "t", "yes", "y", "1"), True) | dict.fromkeys(("false", "f", "no", "n", "0"), False)


def flag(value: Any) -> bool | None:
    """A boolean, or text, a number or a bit that means one; None if it cannot be told."""
    if isinstance(value, bool):
        return value
    if value in (b"\0", b"\1"):  # MySQL's BIT(1)
        return value == b"\1"
    return FLAGS.get((identifier(value) or "").casefold())


def money(value: Any) -> Decimal | None:
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):
        return None
    if not amount.is_finite() or len(amount.as_tuple().digits) > DIGITS or abs(amount.adjusted()) > DIGITS:
        return None
    return amount


DATED_TEXT = re.compile(r"\s*\d{4}-\d\d-\d\d")
"""What a time in text begins with; fromisoformat would read digits alone, such as an epoch's, as some date too."""


BEFORE_OFFSET = re.compile(r"(:\d\d(?:\.\d+)?)\s+(?=(?:Z|[+-]\d\d:?(?:\d\d)?)$)")
"""The end of a clock's time, where Snowflake writes a blank before the offset."""


def moment(value: Any, zone: tzinfo) -> datetime | None:
    """A time as aware UTC: a timestamp, a naive one (in the shop's zone), or ISO 8601 text; None if unreadable."""
    if value is None:
        return None
    if isinstance(value, str):
        if not DATED_TEXT.match(value):
            return None
        try:
            told = value.strip().replace(" UTC", "+00:00")
            value = datetime.fromisoformat(BEFORE_OFFSET.sub(r"\1", told))
        except ValueError:
            return None
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        return None
    if value.tzinfo is None:
        value = value.replace(tzinfo=zone)
    if value.year in (1, 9999):  # some drivers' infinity, some sources' "never"
        return None
    return value.astimezone(UTC)


# ── What Loop's words mean ──────────────────────────────────────────────────

RETURN_STATUS = {"cancelled": "canceled", "review": "open", "needs review": "open"}
"""Loop's return states where Attentive's word is another; the rest is told as it stands."""

LABEL_STATUS = {
    "new": ("new", "no"),
    "pre_transit": ("pre_transit", "no"),
    "in_transit": ("in_transit", "yes"),
    "out_for_delivery": ("out_for_delivery", "yes"),
    "delivered": ("delivered", "yes"),
    "available_for_pickup": ("in_transit", "yes"),
    "return_to_sender": ("unknown", "yes"),
    "failure": ("unknown", "yes"),
    "cancelled": ("canceled", "no"),
    "canceled": ("canceled", "no"),
    "voided": ("canceled", "no"),
}
"""Carriers' statuses (Loop's, EasyPost's): what Attentive is told, and whether the package is on its way."""


def label_status(raw: Any, number: str) -> tuple[str | None, str]:
    """(trackingStatus or None for "no label", shipped: no | yes | unknown) of a label with this number or ''."""
    status = folded(raw)
    if status is None or status == "none":
        return ("unknown" if number else None), "no"
    status = "_".join(status.replace("-", " ").split())
    if status == "pending":
        return ("new" if number else None), "no"
    return LABEL_STATUS.get(status, ("unknown", "unknown"))


def tracking_number(value: Any) -> str:
    """A label's number: upper case without spaces; '' for none, and for what is too long to be one."""
    number = "".join((identifier(value) or "").split()).upper()
    return number if len(number) <= LONGEST_ID else ""


# ── Canonical tables ────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Table:
    """A canonical table: its columns in the SELECT's order, and what becomes of a row.

    staged: columns of the look's temporary table, in the order that `normal` yields them.
    normal: (raw row, zone of naive times) -> staged row, or None when the row has no id to live under.
    """

    name: str
    columns: tuple[str, ...]
    staged: tuple[str, ...]
    normal: Callable[[Row, tzinfo], Row | None]


def _return(row: Row, zone: tzinfo) -> Row | None:
    (
        return_id,
        state,
        outcome,
        order,
        email,
        phone,
        page,
        labels,
        instant,
        charge,
        created,
        updated,
        synced,
        deleted,
    ) = row
    key = identifier(return_id)
    if key is None:
        return None
    state = folded(state)
    return (
        key, state, RETURN_STATUS.get(state, state) if state else None, folded(outcome), text(order), text(email),
        text(phone), text(page), flag(labels), flag(instant), moment(charge, zone), moment(created, zone),
        moment(updated, zone), moment(synced, zone), flag(deleted) or False,
    )  # fmt: skip


def _label(row: Row, zone: tzinfo) -> Row | None:
    return_id, carrier, number, tracking_url, label_url, status, created, updated, synced = row
    key = identifier(return_id)
    if key is None:
        return None
    number = tracking_number(number)
    tracking_status, shipped = label_status(status, number)
    return (
        key, number, text(carrier), text(tracking_url), text(label_url), tracking_status, shipped,
        moment(created, zone), moment(updated, zone), moment(synced, zone),
    )  # fmt: skip


def _exchange_item(row: Row, zone: tzinfo) -> Row | None:
    return_id, exchange_id, out_of_stock, resolution, restocked, updated, synced = row
    key, item = identifier(return_id), identifier(exchange_id)
    if key is None or item is None:
        return None
    return (
        key, item, flag(out_of_stock), folded(resolution), moment(restocked, zone), moment(updated, zone),
        moment(synced, zone),
    )  # fmt: skip


def _transaction(row: Row, zone: tzinfo) -> Row | None:
    transaction_id, return_id, kind, gateway, status, amount, currency, created, synced = row
    key, parent = identifier(transaction_id), identifier(return_id)
    if key is None or parent is None:
        return None
    return (
        key, parent, folded(kind), folded(gateway), folded(status), money(amount), text(currency),
        moment(created, zone), moment(synced, zone),
    )  # fmt: skip


RETURNS = Table(
    "returns",
    (
        "return_id", "state", "outcome", "order_name", "customer_email", "customer_phone", "status_page_url",
        "labels_enabled", "is_instant_exchange", "charge_at", "created_at", "updated_at", "synced_at", "is_deleted",
    ),
    (
        "return_id", "state", "status", "outcome", "order_name", "customer_email", "customer_phone", "status_page_url",
        "labels_enabled", "is_instant_exchange", "charge_at", "created_at", "updated_at", "synced_at", "is_deleted",
    ),
    _return,
)  # fmt: skip
LABELS = Table(
    "labels",
    (
        "return_id", "carrier", "tracking_number", "tracking_url", "label_url", "status", "created_at", "updated_at",
        "synced_at",
    ),
    (
        "return_id", "number", "carrier", "tracking_url", "label_url", "tracking_status", "shipped", "created_at",
        "updated_at", "synced_at",
    ),
    _label,
)  # fmt: skip
EXCHANGE_ITEMS = Table(
    "exchange_items",
    ("return_id", "exchange_id", "out_of_stock", "resolution", "restocked_at", "updated_at", "synced_at"),
    ("return_id", "exchange_id", "out_of_stock", "resolution", "restocked_at", "updated_at", "synced_at"),
    _exchange_item,
)
TRANSACTIONS = Table(
    "transactions",
    (
        "transaction_id", "return_id", "kind", "gateway", "status", "amount", "currency", "created_at", "synced_at",
    ),
    (
        "transaction_id", "return_id", "kind", "gateway", "status", "amount", "currency", "created_at", "synced_at",
    ),
    _transaction,
)  # fmt: skip
TABLES = (RETURNS, LABELS, EXCHANGE_ITEMS, TRANSACTIONS)
