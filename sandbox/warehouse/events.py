"""What Attentive must have been sent: the events that are due, and the verdict on what arrived."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

from sandbox.warehouse.returns import NOTHING, RETURN_STATUS, Label, Return, folded

OUTCOMES = ("exchange", "upsell", "refund", "credit", "exchange+refund", "exchange+credit")

SAME_TIME = timedelta(milliseconds=1)
"""Attentive is told milliseconds."""

_ABSENT = object()


class Event(StrEnum):
    CREATED = "Loop Return Created"
    STATUS_UPDATED = "Loop Return Status Updated"
    LABEL_CREATED = "Loop Label Created"
    LABEL_UPDATED = "Loop Label Updated"
    OUT_OF_STOCK = "Loop Exchange Out Of Stock"
    RESOLVED = "Loop Out Of Stock Resolved"
    EXPIRING = "Loop Return Expiring"
    EXPIRED = "Loop Return Expired"
    REMINDER = "Loop Instant Exchange Reminder"
    NOTICE = "Loop Instant Exchange Notice"
    PAYMENT = "Loop Payment Transaction"
    REFUND = "Loop Refund Transaction"


DAILY = {Event.EXPIRING, Event.EXPIRED, Event.REMINDER}


def properties(r: Return, label: Label | None = None, **shown: str | None) -> dict[str, Any]:
    """Exactly what the payload must hold about `r`, with `label` or else its newest live one."""
    label = label or r.newest_label
    every = {
        "returnId": r.return_id,
        "returnStatus": RETURN_STATUS.get(folded(r.state)),
        "order": r.order_name,
        "statusPageUrl": r.status_page_url,
        "labelsEnabled": r.labels_enabled if r.labels_enabled is not None else bool(r.numbered) or None,
        "returnOutcome": r.outcome if r.outcome in OUTCOMES else None,
    }
    if label:
        every |= {
            "label": label.label_url,
            "trackingNumber": label.number,
            "trackingUrl": label.tracking_url,
            "trackingStatus": label.told,
            "trackingCarrier": label.carrier,
        }
    return {name: value for name, value in (every | shown).items() if value not in NOTHING}


@dataclass(frozen=True)
class Due:
    """One event that Attentive must receive once.

    occurred_at: aware; None when it is stamped with the moment of sending, which nobody can foresee.
    """

    event_type: Event
    return_id: int
    subject: str | None
    cadence: Literal["hourly", "daily"]
    occurred_at: datetime | None
    properties: dict[str, Any] = field(repr=False)
    user: dict[str, str] = field(repr=False)

    def __str__(self) -> str:
        return _named(self.event_type, self.return_id, self.subject)


@dataclass(frozen=True)
class Verdict:
    """One readable line a problem: ids and names of events and fields, no value that may be private."""

    due: int
    received: int
    missing: list[str]
    doubled: list[str]
    unexpected: list[str]
    wrong: list[str]

    @property
    def is_good(self) -> bool:
        return not (self.missing or self.doubled or self.unexpected or self.wrong)

    def __str__(self) -> str:
        problems = [
            f"{kind}: {problem}"
            for kind in ("missing", "doubled", "unexpected", "wrong")
            for problem in getattr(self, kind)
        ]
        return "\n".join(problems or [f"all {self.due} due events were received exactly once, and no other"])


def verdict(due: Iterable[Due], received: Iterable[Mapping[str, Any]]) -> Verdict:
    """Hold the JSON bodies that the stand-in accepted against the list of what is due.

    The same news can come twice about one return (closed, open, closed again), so within one name events are paired
    by their content; an `externalEventId` that arrives again is doubled whatever it holds.
    """
    due, received = list(due), list(received)
    result = Verdict(len(due), len(received), [], [], [], [])
    expected: dict[str, list[Due]] = defaultdict(list)
    for event in sorted(due, key=lambda event: event.occurred_at is None):
        expected[_name(event.event_type, event.properties)].append(event)
    arrived: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    seen = set()
    for body in received:
        name, event_id = _name(body["type"], body["properties"]), body.get("externalEventId")
        if event_id in seen:
            result.doubled.append(name)
            continue
        if event_id:
            seen.add(event_id)
        arrived[name].append(body)
    for name in sorted(expected.keys() | arrived.keys()):
        _judge(name, expected[name], arrived[name], result)
    return result


def _judge(name: str, expected: list[Due], arrived: list[Mapping[str, Any]], result: Verdict) -> None:
    was_expected = bool(expected)
    left_over = []
    for body in arrived:
        match = next((event for event in expected if not _differences(event, body)), None)
        if match:
            expected.remove(match)
        else:
            left_over.append(body)
    for event, body in zip(expected, left_over, strict=False):
        result.wrong.append(f"{event}: {', '.join(_differences(event, body))}")
    result.missing.extend(str(event) for event in expected[len(left_over) :])
    too_many = result.doubled if was_expected else result.unexpected
    too_many.extend(name for _ in left_over[len(expected) :])


def _differences(event: Due, body: Mapping[str, Any]) -> list[str]:
    """Names of what is not as it must be."""
    wrong = [
        f"{part}.{name}"
        for part, expected in (("properties", event.properties), ("user", event.user))
        for name in sorted(expected.keys() | body[part].keys())
        if not _same(expected.get(name, _ABSENT), body[part].get(name, _ABSENT))
    ]
    wrong += [f"{name} is absent" for name in ("externalEventId", "occurredAt") if not body.get(name)]
    stamped = body.get("occurredAt")
    if stamped and event.occurred_at and abs(datetime.fromisoformat(stamped) - event.occurred_at) > SAME_TIME:
        wrong.append(f"occurredAt is {stamped}, not {event.occurred_at.isoformat()}")
    return wrong


def _same(expected: object, actual: object) -> bool:
    """Equal in JSON too, where true is not 1."""
    return type(expected) is type(actual) and expected == actual


def _subject(event_type: str, shown: Mapping[str, Any]) -> str | None:
    """What tells events of one type and return apart on the wire. Transactions are not named there."""
    match event_type:
        case Event.STATUS_UPDATED:
            return str(shown.get("returnStatus"))
        case Event.LABEL_CREATED:
            return str(shown.get("trackingNumber"))
        case Event.LABEL_UPDATED:
            return f"{shown.get('trackingNumber')} {shown.get('trackingStatus')}"
    return None


def _name(event_type: str, shown: Mapping[str, Any]) -> str:
    return _named(event_type, shown.get("returnId"), _subject(event_type, shown))


def _named(event_type: str, return_id: object, subject: str | None) -> str:
    return f"{event_type} of return {return_id}" + (f" ({subject})" if subject else "")
