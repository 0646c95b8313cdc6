"""Senders that are wrong, each in one small way. What they do wrong must be seen, or the simulation proves nothing.

Each is a patch of the real one, made by a context that undoes it, and the seed of a schedule that catches it. Where a
seed does so no longer, because the schedules or the sender have changed, `python -m tests.simulation --wrong NAME`
looks for another.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from loop_attentive import db, delivery, ledger, pace
from loop_attentive.attentive import NO_ANSWER, AttentiveTransport, Passage
from loop_attentive.ledger import JudgedReminders, Ledger, Settled
from loop_attentive.pace import Pace
from loop_attentive.reminders import Reminders

Patched = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Wrong:
    """seed: of a schedule that catches it. seen: words of the violation then."""

    name: str
    patched: Patched
    seed: int
    seen: str


def sql(name: str, *changes: tuple[str, str]) -> Patched:
    """Another text in a statement of include/sql/ledger: right and wrong, in pairs."""
    original = db.sql

    def text(asked: str) -> str:
        found = original(asked)
        if asked == f"ledger/{name}":
            for right, wrong in changes:
                assert right in found, f"{name}.sql no longer says: {right}"
                found = found.replace(right, wrong)
        return found

    @contextmanager
    def patched() -> Iterator[None]:
        ledger.statement.cache_clear()
        try:
            with patch.object(db, "sql", text), patch.object(pace, "sql", text):
                yield
        finally:
            ledger.statement.cache_clear()

    return patched


def python(*changes: tuple[Any, str, Any]) -> Patched:
    """Other attributes of modules or classes."""

    @contextmanager
    def patched() -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, value in changes:
                stack.enter_context(patch.object(owner, name, value))
            yield

    return patched


# ── What they do ──


def _fresh_id(self: Ledger, row: Any, event: Callable[[Ledger, Any], dict[str, Any]] = Ledger._event) -> dict[str, Any]:
    return event(self, row) | {"externalEventId": str(uuid.UUID(int=row["event_id"].int ^ row["attempt"]))}


def _accepted_when_in_doubt(answer: Any, outcome: Callable[[Any], str] = ledger.outcome_of_attempt) -> str:
    return "accepted" if answer.error == NO_ANSWER else outcome(answer)


async def _all_good_if_one_is(
    self: Ledger, answers: Sequence[Settled], monotonic: Any, settle: Any = Ledger.settle
) -> None:
    good = next((one.answer for one in answers if one.answer.outcome == "accepted"), None)
    await settle(self, [replace(one, answer=good or one.answer) for one in answers], monotonic)


async def _ask_twice(self: AttentiveTransport, *request: Any, ask: Any = AttentiveTransport._ask) -> Any:
    answer = await ask(self, *request)
    return await ask(self, *request) if answer.outcome == "unknown" else answer


async def _in_doubt_when_refused(self: AttentiveTransport, *request: Any, ask: Any = AttentiveTransport._ask) -> Any:
    answer = await ask(self, *request)
    return replace(answer, outcome="unknown") if answer.error == "connection refused" else answer


async def _nothing(*_: Any, **__: Any) -> None:
    return None


def _at_once(*_: Any) -> float:
    return 0.0


def _at_once_when_failed(self: Any, answer: Any, attempt: int, delay: Any = delivery.Sender._delay) -> float:
    return 0.0 if answer.outcome == "failed" else float(delay(self, answer, attempt))


def _in_a_second(self: Any, answer: Any, *_: Any) -> float:
    return 1.0


def _always_unknown(*_: Any) -> str:
    return "unknown"


def _of_the_last_one(
    self: Ledger, row: Any, event: Callable[[Ledger, Any], dict[str, Any]] = Ledger._event
) -> dict[str, Any]:
    last = vars(self).setdefault("last_bodies", [])
    last.append(row["body"])
    return event(self, row | {"body": last[-2] if len(last) > 1 else row["body"]})


async def _none_holds(self: Reminders, _: Any, reminders: Any) -> JudgedReminders:
    return JudgedReminders(no_longer=[one.event_id for one in reminders])


async def _all_hold(*_: Any) -> JudgedReminders:
    return JudgedReminders()


async def _deaf(_: Any) -> None:
    await asyncio.Event().wait()


async def _settle_unless_failed(self: Any, settle: Any = delivery.Sender._settle) -> None:
    if self._failure:
        self._answers = []
    await settle(self)


def _whatever_is_connecting(self: Any, flights: int, rate: int) -> int:
    return max(int(self._size) - flights, 0)


def _ignore(*_: Any) -> None:
    return None


def _never(*_: Any) -> bool:
    return False


def _an_hour(*_: Any) -> float:
    return 3600.0


WRONG_SENDERS = (
    Wrong(
        "sends before it has marked",
        sql("mark", ("status = 'sending',", "status = 'pending',")),
        0,
        "had not said unknown",
    ),
    Wrong(
        "does not ask who said no",
        sql("mark", ("WHERE o.shop = e.shop AND", "WHERE false AND")),
        6,
        "had said no",
    ),
    Wrong(
        "asks who said no but sends again what is in doubt",
        sql("mark", ("                THEN 'opted out'", "                AND e.status = 'pending' THEN 'opted out'")),
        7,
        "had said no",
    ),
    Wrong(
        "sends again with a new id",
        python((Ledger, "_event", _fresh_id)),
        0,
        "left without a mark",
    ),
    Wrong(
        "forgets that others have leases",
        sql("lost", ("AND e.lease_until < clock.now", "")),
        6,
        "was given up, and its process is well",
    ),
    Wrong(
        "never gives up what dead senders left",
        sql("lost", ("e.status = 'sending'", "false")),
        0,
        "never done",
    ),
    Wrong(
        "takes a time-out for a failure",
        sql("settle", ("WHEN d.outcome = 'unknown' OR d.was_resend OR", "WHEN d.was_resend OR")),
        6,
        "had not said unknown",
    ),
    Wrong(
        "takes a time-out for a success",
        python((ledger, "outcome_of_attempt", _accepted_when_in_doubt)),
        6,
        "never heard to be accepted",
    ),
    Wrong(
        "takes all for good because one is",
        python((Ledger, "settle", _all_good_if_one_is)),
        5,
        "never heard to be accepted",
    ),
    Wrong(
        "sends again at once",
        sql("settle", ("d.answered_at + %(resend_after)s::interval", "d.answered_at")),
        6,
        "was sent again after",
    ),
    Wrong(
        "sends again about money",
        sql("settle", ("WHEN d.money OR (d.outcome", "WHEN (d.outcome")),
        5,
        "about money",
    ),
    Wrong(
        "sends lost ones again about money",
        sql("lost", ("lost.event_type <> ALL (%(money)s::text[])", "true")),
        31,
        "about money",
    ),
    Wrong(
        "sends again whenever it hears nothing",
        sql("settle", ("d.money OR (d.outcome = 'unknown' AND d.was_resend)", "d.money")),
        7,
        "attempts were in doubt",
    ),
    Wrong(
        "sends again whenever a sender dies",
        sql("lost", ("AND p.attempt < lost.attempts", "AND false")),
        19,
        "attempts were in doubt",
    ),
    Wrong(
        "is in doubt about a refused connection",
        python((AttentiveTransport, "_ask", _in_doubt_when_refused)),
        5,
        "was never made",
    ),
    Wrong(
        "drops an answer that comes late",
        sql("settle", ("(t.outcome IS NULL OR t.outcome = 'lost')", "t.outcome IS NULL")),
        79,
        "the ledger says lost",
    ),
    Wrong(
        "counts an answer twice that it wrote twice",
        sql(
            "settle",
            ("(SELECT count(*) FROM written)", "cardinality(%(event_ids)s::uuid[])"),
            ("EXISTS (SELECT FROM written)", "true"),
        ),
        6,
        "attempts answered",
    ),
    Wrong(
        "forgets the order of a return",
        sql("earlier", ("b.status IN ('pending', 'sending', 'unknown')", "false")),
        0,
        "before an earlier event",
    ),
    Wrong(
        "judges the age once, when it queues",
        sql("mark", ("WHEN clock.now - e.occurred_at <= %(journey)s::interval THEN", "WHEN true THEN")),
        2,
        "no Journey fires",
    ),
    Wrong(
        "leaves its marks when it is told to stop",
        python((Ledger, "unmark", _nothing)),
        12,
        "was given up, and its process is well",
    ),
    Wrong(
        "forgets what it did when its line broke",
        python((Ledger, "_restore", _nothing)),
        88,
        "was given up, and its process is well",
    ),
    Wrong(
        "sends what it marked long ago",
        python((delivery.Sender, "until_too_late", _an_hour)),
        33,
        "s after its mark",
    ),
    Wrong(
        "asks twice for one mark",
        python((AttentiveTransport, "_ask", _ask_twice)),
        10,
        "one attempt made two requests",
    ),
    Wrong(
        "comes again at once after a 429",
        python((delivery.Sender, "_delay", _at_once), (Pace, "pause", _ignore)),
        5,
        "s after 429",
    ),
    Wrong(
        "does not wait as long as it is told",
        python((delivery.Sender, "_delay", _in_a_second), (Pace, "pause", _ignore)),
        13,
        "s after 429",
    ),
    Wrong(
        "comes again at once after a failure",
        python((delivery.Sender, "_delay", _at_once_when_failed)),
        5,
        "s after 50",
    ),
    Wrong(
        "does not tell the others to pause",
        python((Pace, "pause", _ignore)),
        32,
        "while the account was to pause",
    ),
    Wrong(
        "calls every answer unknown",
        python((ledger, "outcome_of_attempt", _always_unknown)),
        0,
        "the ledger says unknown",
    ),
    Wrong(
        "gives up what was throttled",
        sql(
            "settle",
            (
                "WHEN d.outcome = 'unknown' OR d.was_resend",
                "WHEN d.outcome = 'throttled' THEN 'rejected' WHEN d.outcome = 'unknown' OR d.was_resend",
            ),
        ),
        3,
        "its last attempt is not",
    ),
    Wrong(
        "takes no reminder for true any more",
        python((Reminders, "_judge", _none_holds)),
        0,
        "is no longer true, and holds",
    ),
    Wrong(
        "has others than reminders wait for the source",
        sql(
            "mark",
            (
                "WHEN e.event_id = ANY (%(waiting)s::uuid[]) THEN",
                "WHEN e.event_id = ANY (%(waiting)s::uuid[]) OR e.event_type = 'Loop Label Created' THEN",
            ),
        ),
        5,
        "was never sent",
    ),
    Wrong(
        "does not ask whether reminders still hold",
        python((Reminders, "judge", _all_hold)),
        1,
        "left, and does not hold",
    ),
    Wrong(
        "sends whatever is due, however late",
        sql("mark", ("THEN 'expired'", "AND false THEN 'expired'")),
        0,
        "left too late",
    ),
    Wrong(
        "sends again what starts no Journey any more",
        sql("mark", ("clock.now - e.sent_occurred_at >= %(journey)s::interval", "false")),
        322,
        "left again too late",
    ),
    Wrong(
        "does not hear an answer with which something odd came",
        python((Passage, "listen", _ignore)),
        28,
        "the ledger says unknown",
    ),
    Wrong(
        "does not hear of a lower limit",
        python((Pace, "heard", _ignore)),
        3,
        "were named",
    ),
    Wrong(
        "lets reminders expire",
        sql("mark", ("AND e.event_type <> ALL (%(reminders)s::text[])", "")),
        5,
        "and is a reminder",
    ),
    Wrong(
        "tells the moment of sending for the event's own",
        sql(
            "mark",
            (
                "<= %(journey)s::interval THEN date_trunc('milliseconds', e.occurred_at)",
                "<= %(journey)s::interval THEN date_trunc('milliseconds', clock.now)",
            ),
        ),
        0,
        "with a time that is not its own",
    ),
    Wrong(
        "sends one event with the body of another",
        python((Ledger, "_event", _of_the_last_one)),
        1,
        "with what is not its own",
    ),
    Wrong(
        "does not hear when it is told to stop",
        python((delivery.Sender, "_halt_when_told", _deaf)),
        1,
        "after its process was told to stop",
    ),
    Wrong(
        "drops what it has heard when it fails",
        python((delivery.Sender, "_settle", _settle_unless_failed)),
        14,
        "and its process is well",
    ),
    Wrong(
        "marks while nothing connects",
        python((delivery.Room, "for_marks", _whatever_is_connecting)),
        112,
        "was killed with",
    ),
    Wrong(
        "gives used permits back as unused",
        python((Pace, "used", Pace.unused)),
        2,
        "requests in one second",
    ),
    Wrong(
        "marks all that it has in hand",
        python((pace, "HORIZON", timedelta(seconds=0.9)), (delivery, "TOP_UP", 0.45), (delivery, "AHEAD", 1.0)),
        8,
        "was killed with",
    ),
    Wrong(
        "settles now and then",
        python((delivery, "SETTLE_EVERY", 5.0)),
        0,
        "old answers",
    ),
    Wrong(
        "keeps its leases when it ends",
        sql("release", ("AND lease = %(lease)s", "AND false")),
        3,
        "has ended and keeps",
    ),
)
