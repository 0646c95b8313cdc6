"""Facts become request bodies: Attentive's wire format and its limits, a column at a time.

The fields, their spelling and their values are those of Loop's own integration with Attentive.
"""

from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from functools import partial
from itertools import repeat
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

import numpy as np
import pandas as pd

from loop_attentive import contacts

RETURN_STATUSES = ("open", "closed", "canceled", "expired")
TRACKING_STATUSES = ("new", "pre_transit", "in_transit", "out_for_delivery", "delivered", "canceled", "unknown")
RETURN_OUTCOMES = ("exchange", "upsell", "refund", "credit", "exchange+refund", "exchange+credit")
OUT_OF_STOCK_OUTCOMES = ("credit", "refund")

RESOLVED = "Loop Out Of Stock Resolved"
"""The only event that tells an outOfStockOutcome."""

FACT_AHEAD = timedelta(minutes=10)
"""A fact up to this far ahead happened now, by a clock that runs fast."""

NO_RECIPIENT = "no recipient"
"""The one reason that a later change of the return's contact can mend."""

ABSENT = frozenset({"", "n/a"})
"""How sources write that there is nothing, besides NULL."""

LONGEST_ABSENT = max(map(len, ABSENT))

BLOCK = 50_000
"""Rows whose bodies are put together at a time."""

LONGEST_ID = 18
"""Digits of a return id that surely fits 64 bits."""


def shape(facts: pd.DataFrame, *, region: str, now: datetime) -> pd.DataFrame:
    """The request body of every event, or the reason why it has none.

    facts: one row an event, with the columns event_type (without prefix), return_id, occurred_at (UTC), status,
        outcome, order_name, customer_email, customer_phone, status_page_url, labels_enabled, has_label, label_url,
        tracking_number, tracking_url, tracking_status, tracking_carrier and out_of_stock_outcome; what is absent
        may be None, NaN, NA, "" or "N/A".
    region: two-letter code of the country that phones without a country code belong to.
    now: the present moment, with its zone.

    Returns, with the index of facts: occurred_at (UTC; now, where it was a little ahead), body (compact JSON text
    of user and properties, None where invalid), phone (E.164), email, invalid_reason (None, or the field and what
    is wrong with it, never its value), outcome_omitted (the return has an outcome that Attentive does not know).
    """
    occurred_at = pd.to_datetime(facts["occurred_at"], utc=True).dt.as_unit("us")
    phone = _each_distinct_text(facts["customer_phone"], partial(contacts.phone, region=region))
    email = _each_distinct_text(facts["customer_email"], contacts.email)
    return_id = _each_distinct_text(facts["return_id"], _integer)
    status = _each_distinct(facts["status"], _cleaned)
    outcome = _each_distinct(facts["outcome"], _cleaned)

    breaches = {
        "returnId: not an integer": return_id.isna(),
        f"returnStatus: not one of {', '.join(RETURN_STATUSES)}": status.notna() & ~status.isin(RETURN_STATUSES),
        "occurredAt: missing": occurred_at.isna(),
        "occurredAt: more than ten minutes ahead": occurred_at > now + FACT_AHEAD,
        # Last: a row with this reason lacks nothing else.
        NO_RECIPIENT: phone.isna() & email.isna(),
    }
    invalid_reason = np.full(len(facts), None, dtype=object)
    for reason, holds in reversed(breaches.items()):  # so that the first one stays
        invalid_reason[holds] = reason
    body = _bodies(facts.assign(phone=phone, email=email, return_id=return_id))
    body[pd.notna(invalid_reason)] = None
    return pd.DataFrame(
        {
            "occurred_at": occurred_at.mask(occurred_at.between(now, now + FACT_AHEAD), now),
            "body": pd.Series(body, index=facts.index, dtype=object),
            "phone": phone,
            "email": email,
            "invalid_reason": pd.Series(invalid_reason, index=facts.index, dtype=object),
            "outcome_omitted": outcome.notna() & ~outcome.isin(RETURN_OUTCOMES),
        }
    )


def _bodies(facts: pd.DataFrame) -> np.ndarray:
    """The body of each row, in blocks that keep their pieces near the processor; no JSON where the row is invalid."""
    blocks = [facts.iloc[start : start + BLOCK] for start in range(0, len(facts), BLOCK)]
    return np.array([body for block in blocks for body in _joined(block)], dtype=object)


def _joined(facts: pd.DataFrame) -> Iterable[str]:
    """Bodies are joined from their columns' pieces of JSON: encoding row after row would take many times longer."""
    phone, email = facts["phone"], facts["email"]
    labels_enabled = facts["labels_enabled"].astype("boolean")
    has_label = facts["has_label"].astype("boolean").fillna(False)
    labels_enabled = labels_enabled.mask(labels_enabled.isna() & has_label, True)
    pieces = (
        repeat('{"user":{'),
        ('"phone":"' + phone + '"').fillna(""),
        (phone.notna() & email.notna()).map({True: ",", False: ""}),
        ('"email":"' + email + '"').fillna(""),  # a valid address holds nothing that JSON would escape
        repeat('},"properties":{"returnId":'),
        facts["return_id"].fillna(""),
        _property("returnStatus", facts["status"], RETURN_STATUSES),
        _property("order", facts["order_name"]),
        _property("statusPageUrl", facts["status_page_url"]),
        _each_distinct(labels_enabled, {True: ',"labelsEnabled":true', False: ',"labelsEnabled":false'}.get, absent=""),
        _property("label", facts["label_url"]),
        _property("trackingNumber", facts["tracking_number"]),
        _property("trackingUrl", facts["tracking_url"]),
        _property("trackingStatus", facts["tracking_status"], TRACKING_STATUSES),
        _property("trackingCarrier", facts["tracking_carrier"]),
        _property("returnOutcome", facts["outcome"], RETURN_OUTCOMES),
        _property(
            "outOfStockOutcome",
            facts["out_of_stock_outcome"].where(facts["event_type"] == RESOLVED),
            OUT_OF_STOCK_OUTCOMES,
        ),
        repeat("}}"),
    )
    return map("".join, zip(*pieces, strict=False))


def _property(name: str, column: pd.Series, allowed: Collection[str] | None = None) -> Iterable[str]:
    """The column's piece of each body: `,"name":"value"`, or nothing where the value is absent or not allowed."""

    def piece(text: str | None) -> str:
        return "" if text is None or (allowed and text not in allowed) else f',"{name}":{quoted(text)}'

    if allowed:
        return _each_distinct_text(column, piece, absent="")
    # Nearly every value is another: to look for equal ones would cost as much as they do.
    values = column.astype(object).where(column.notna(), None).tolist()
    return ["" if value is None else piece(_cleaned(value)) for value in values]


def _each_distinct(column: pd.Series, function: Callable[[Any], Any], absent: str | None = None) -> pd.Series:
    """The column with the function applied, once for each distinct value.

    absent: what stands for a missing value, and for one that the function answers with None.
    """
    codes, distinct = pd.factorize(column.to_numpy(dtype=object))
    results = np.full(len(distinct) + 1, absent, dtype=object)  # the last is what code -1, a missing value, picks
    results[:-1] = [absent if (result := function(value)) is None else result for value in distinct]
    return pd.Series(results[codes], index=column.index, dtype=object)


def _each_distinct_text(column: pd.Series, function: Callable[[str], Any], absent: str | None = None) -> pd.Series:
    """As _each_distinct, for a function of cleaned text."""
    return _each_distinct(column, lambda value: None if (text := _cleaned(value)) is None else function(text), absent)


def _cleaned(value: object) -> str | None:
    """Text as it stands, without what PostgreSQL's JSON cannot hold and the white space around; None where absent."""
    text = value if isinstance(value, str) else str(value)
    if "\0" in text:
        text = text.replace("\0", "")
    if not text.isascii():
        text = text.encode("utf-8", errors="ignore").decode("utf-8")  # drops halves of surrogate pairs
    text = text.strip()
    return None if len(text) <= LONGEST_ABSENT and text.lower() in ABSENT else text


def _integer(text: str) -> str | None:
    return str(int(text)) if text.isascii() and text.isdecimal() and len(text) <= LONGEST_ID else None
