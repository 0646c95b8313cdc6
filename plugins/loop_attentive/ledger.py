"""What a sender says to the ledger: claim, mark, settle, and what keeps them true when a connection is lost.

Every statement is a file of include/sql/ledger. Time is the database's own, or what the caller's clock says.
"""

import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, LiteralString, NamedTuple, cast

from psycopg.rows import dict_row

from loop_attentive import db
from loop_attentive.attentive import NO_ANSWER, Answer, wire_time
from loop_attentive.catalogue import JOURNEY_LATENESS, MAX_LATENESS, MONEY, REMINDERS
from loop_attentive.reconnect import Connect, Connection, Reconnecting
from loop_attentive.settings import Shop

LEASE = timedelta(seconds=60)
"""Longer than a sender is ever away from its renewals; when it ends, its events are anybody's again."""

LEAVES_WITHIN = timedelta(seconds=12)
"""The longest from a mark to its request, if a connection has to be opened. A reminder must hold until then."""

COMMITS_WITHIN = timedelta(seconds=5)
"""A mark that takes longer to be seen is found, should it be lost, by a claim from the oldest."""

OVERLOOKED_UNTIL = timedelta(seconds=5)
"""Whoever was claiming an event at the moment of our claim has it in hand by then, or is gone."""

BESIDE_EACH_OTHER = timedelta(minutes=1)
"""What one batch was refused that long ago another need not ask for: it takes a person longer to mend a key."""

RESEND_AFTER = timedelta(minutes=2)

WAITS_FOR_SOURCE = "waits for a fresh source"

BUCKETS = 64
"""Of the ledger's column: what batches are made of."""


@dataclass(frozen=True)
class Batch:
    """The events whose return falls into one of `of` equal parts."""

    index: int = 0
    of: int = 1


@dataclass(frozen=True)
class Origin:
    """Who sends: a run of the ledger, and Airflow's task instance."""

    run_key: int
    task_id: str = "send"
    map_index: int = -1
    try_number: int = 1


@dataclass(frozen=True)
class Claimed:
    """An event that is leased."""

    event_id: uuid.UUID
    event_type: str
    return_id: str


@dataclass(frozen=True)
class Marked:
    """An event that is about to leave. sent_at: when it was marked (UTC). event: as Attentive is told it."""

    claimed: Claimed
    attempt: int
    sent_at: datetime
    event: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Settled:
    """An answer to be written. at: when it came (monotonic). delay: seconds until the event may leave again."""

    mark: Marked
    answer: Answer
    at: float
    delay: float


class JudgedReminders(NamedTuple):
    """Ids of events that wait for a fresh source, and of those that hold no longer."""

    waiting: Sequence[uuid.UUID] = ()
    no_longer: Sequence[uuid.UUID] = ()


NO_REMINDERS = JudgedReminders()


class Left(NamedTuple):
    """at: when the next event may leave. why: not sooner. now: by the ledger's clock."""

    at: datetime | None
    why: str | None
    pending: int
    now: datetime


class Ledger:
    """What a sender says to the ledger, on a connection to feed and another to settle."""

    def __init__(
        self,
        connect: Connect,
        shop: Shop,
        batch: Batch,
        origin: Origin,
        rng: random.Random,
        now: Callable[[], datetime] | None,
    ) -> None:
        self.shop = shop
        self.origin = origin
        self.in_hand: dict[uuid.UUID, Claimed] = {}
        self.under_way: dict[uuid.UUID, Marked] = {}
        self.stopped_types: set[str] = set()
        self.key_was_refused = False
        self._now = now
        self._lease = uuid.UUID(int=rng.getrandbits(128), version=4)
        self._after: tuple[datetime | str, int, uuid.UUID] = FIRST
        self._claimed_at: datetime | None = None
        self._marked_since = datetime.min.replace(tzinfo=UTC)
        self._connect = connect
        self._feeding = Reconnecting(self._connect_by_key, restored=self._restore)
        self._settling = Reconnecting(self._connect_by_key)
        self._batch = {
            "shop": shop.name,
            "buckets": [bucket for bucket in range(BUCKETS) if bucket % batch.of == batch.index],
        }

    async def _connect_by_key(self) -> Connection:
        connection = await self._connect()
        await connection.execute(statement("by_key"))
        return connection

    async def begin(self) -> None:
        await self._feeding.run(self._statement("judge_reminders_again", self._batch))
        refused = await self._feeding.run(self._refused_before)
        self.key_was_refused = None in refused
        self.stopped_types |= {event_type for event_type in refused if event_type is not None}

    async def _refused_before(self, connection: Connection) -> set[str | None]:
        refused_since = await self._clock(connection) - BESIDE_EACH_OTHER
        parameters = self._parameters(vars(self.origin), {"refused_since": refused_since})
        cursor = await connection.execute(statement("refused_before"), parameters)
        return {row[0] for row in await cursor.fetchall()}

    async def claim(self, most: int, *, from_the_oldest: bool) -> list[Claimed]:
        """Leases up to so many events, from where the last claim ended or from the oldest."""
        if from_the_oldest:
            self._after = FIRST
            self._marked_since = datetime.min.replace(tzinfo=UTC)
        return await self._feeding.run(lambda connection: self._claim(connection, most))

    async def _claim(self, connection: Connection, most: int) -> list[Claimed]:
        async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            now = await self._clock(connection)
            await cursor.execute(
                statement("lost"),
                self._parameters({"now": now, "sent_since": self._marked_since, "under_way": list(self.under_way)}),
            )
            marked = cast(dict[str, Any], await cursor.fetchone())
            after_at, after_no, after_id = self._after
            await cursor.execute(
                statement("claim"),
                self._parameters(
                    self._batch,
                    {"claimed_at": now, "most": most, "after_at": after_at, "after_no": after_no, "after_id": after_id},
                ),
            )
            rows = await cursor.fetchall()
        self._claimed_at = now
        self._marked_since = (marked["oldest"] or now) - COMMITS_WITHIN
        if fresh := [row for row in rows if not row["resend"]]:
            self._after = (fresh[-1]["order_at"], fresh[-1]["order_no"], fresh[-1]["event_id"])
        claimed = [Claimed(row["event_id"], row["event_type"], row["return_id"]) for row in rows]
        self.in_hand.update((event.event_id, event) for event in claimed)
        return claimed

    async def mark(
        self, events: Sequence[Claimed], reminders: JudgedReminders = NO_REMINDERS
    ) -> tuple[list[Marked], Counter[str]]:
        """Marks those of the leased events that may leave now; tells how the others were judged."""
        marked, judged = await self._feeding.run(lambda connection: self._mark(connection, events, reminders))
        for event in events:
            self.in_hand.pop(event.event_id, None)
        self.under_way.update((mark.claimed.event_id, mark) for mark in marked)
        if len(marked) + judged.total() < len(events):
            # An earlier try may have marked the others, in a commit that came after we had stopped waiting for it.
            await self._feeding.run(self._restore)
        return marked, judged

    async def _mark(
        self, connection: Connection, events: Sequence[Claimed], reminders: JudgedReminders
    ) -> tuple[list[Marked], Counter[str]]:
        by_id = {event.event_id: event for event in events}
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                statement("mark"),
                self._parameters(
                    {
                        "event_ids": list(by_id),
                        "waiting": list(reminders.waiting),
                        "no_longer": list(reminders.no_longer),
                    },
                    asdict(self.origin),
                ),
            )
            rows = await cursor.fetchall()
        marked = [
            Marked(by_id[row["event_id"]], row["attempt"], row["sent_at"], self._event(row))
            for row in rows
            if row["verdict"] == "goes"
        ]
        return marked, Counter(row["verdict"] for row in rows if row["verdict"] != "goes")

    def _event(self, row: Any) -> dict[str, Any]:
        return {
            "type": self.shop.event_prefix + row["event_type"],
            "externalEventId": str(row["event_id"]),
            "occurredAt": wire_time(row["occurred_at"]),
            "user": row["body"]["user"],
            "properties": row["body"]["properties"],
        }

    async def settle(self, answers: Sequence[Settled], monotonic: Callable[[], float]) -> None:
        """Writes answers, once each however often it is tried."""

        async def work(connection: Connection) -> None:
            now = monotonic()
            await connection.execute(
                statement("settle"),
                self._parameters(
                    {
                        "run_key": self.origin.run_key,
                        "event_ids": [one.mark.claimed.event_id for one in answers],
                        "attempts": [one.mark.attempt for one in answers],
                        "outcomes": [outcome_of_attempt(one.answer) for one in answers],
                        "http_statuses": [one.answer.http_status for one in answers],
                        "errors": [one.answer.error for one in answers],
                        "reasons": [reason(one.answer) for one in answers],
                        "ages": [now - one.at for one in answers],
                        "delays": [one.delay for one in answers],
                    }
                ),
            )

        await self._settling.run(work)
        self._no_longer_under_way(one.mark for one in answers)

    async def unmark(self, marks: Sequence[Marked], *, keep: bool) -> None:
        """Takes marks back whose requests never left; keep: the events stay leased, in hand."""
        await self._settling.run(
            self._unmarking([(one.claimed.event_id, one.attempt, one.sent_at) for one in marks], keep)
        )
        self._no_longer_under_way(marks)
        if keep:
            self.in_hand.update((one.claimed.event_id, one.claimed) for one in marks)

    def _unmarking(
        self, marks: Sequence[tuple[uuid.UUID, int, datetime]], keep: bool
    ) -> Callable[[Connection], Awaitable[None]]:
        event_ids, attempts, sent_at = ([mark[part] for mark in marks] for part in range(3))
        return self._statement(
            "unmark", {"event_ids": event_ids, "attempts": attempts, "sent_at": sent_at, "keep": keep}
        )

    def _no_longer_under_way(self, marks: Iterable[Marked]) -> None:
        """A mark that was taken back gives its number to the next, which may be on its way by the time that we hear."""
        for mark in marks:
            if self.under_way.get(mark.claimed.event_id) is mark:
                del self.under_way[mark.claimed.event_id]

    async def renew(self) -> None:
        held = [*self.in_hand, *self.under_way]
        await self._settling.run(self._statement("renew", {"event_ids": held}))

    async def release(self, events: Iterable[Claimed]) -> None:
        held = [event.event_id for event in events]
        if held:
            await self._feeding.run(self._statement("release", {"event_ids": held}))
        for event_id in held:
            self.in_hand.pop(event_id, None)

    async def _restore(self, connection: Connection) -> None:
        """After a lost connection: gives back what was leased or marked in commits that nobody heard of."""
        async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            known = {
                "in_hand": list(self.in_hand),
                "under_way": list(self.under_way),
                "marked_at": [mark.sent_at for mark in self.under_way.values()],
            }
            await cursor.execute(statement("unheard_of"), self._parameters(self._batch, known, asdict(self.origin)))
            rows = await cursor.fetchall()
            marks = [(row["event_id"], row["attempt"], row["sent_at"]) for row in rows if row["marked"]]
            await self._unmarking(marks, keep=True)(connection)
            lost_claims = [row["event_id"] for row in rows if row["event_id"] not in self.in_hand]
            await connection.execute(statement("release"), self._parameters({"event_ids": lost_claims}))

    async def left(self) -> Left:
        """What is left of the batch that could not leave at the last claim."""

        async def work(connection: Connection) -> Left:
            since = {"claimed_at": self._claimed_at, "look_again": OVERLOOKED_UNTIL}
            cursor = await connection.execute(statement("next_due"), self._parameters(self._batch, since))
            return Left(*cast(tuple[datetime | None, str | None, int, datetime], await cursor.fetchone()))

        return await self._feeding.run(work)

    async def came_to_nothing_but(self, *outcomes: str, or_to_no_attempt: bool = False) -> bool:
        """Whether these are all that any attempt of the run has come to; or_to_no_attempt: what to say where none has
        come to anything.
        """

        async def work(connection: Connection) -> bool:
            asked = {"run_key": self.origin.run_key, "outcomes": list(outcomes), "or_none": or_to_no_attempt}
            cursor = await connection.execute(statement("came_to_nothing_but"), self._parameters(asked))
            return bool(cast(tuple[bool], await cursor.fetchone())[0])

        return await self._feeding.run(work)

    async def close(self) -> None:
        for line in (self._feeding, self._settling):
            await line.close()

    async def _clock(self, connection: Connection) -> datetime:
        if self._now:
            return self._now()
        return await db.anow(connection)

    def _statement(self, name: str, parameters: dict[str, Any]) -> Callable[[Connection], Awaitable[None]]:
        async def work(connection: Connection) -> None:
            await connection.execute(statement(name), self._parameters(parameters))

        return work

    def _parameters(self, *parameters: dict[str, Any]) -> dict[str, Any]:
        every = {
            "now": self._now and self._now(),
            "lease": self._lease,
            "lease_time": LEASE,
            "money": MONEY,
            "reminders": REMINDERS,
            "stopped": list(self.stopped_types),
            "passed_over": [*MONEY, *self.stopped_types],
            "waits_for_source": WAITS_FOR_SOURCE,
            "journey": JOURNEY_LATENESS,
            "max_lateness": MAX_LATENESS,
            "resend_after": RESEND_AFTER,
            "leaves_within": LEAVES_WITHIN,
        }
        for some in parameters:
            every |= some
        return every


FIRST: tuple[datetime | str, int, uuid.UUID] = ("-infinity", 0, uuid.UUID(int=0))
"""Before every event in the order of claims."""


@cache
def statement(name: str) -> LiteralString:
    """A statement of include/sql/ledger; {claimable} and {earlier} stand for what several share."""
    text = db.sql(f"ledger/{name}")
    for part in ("claimable", "earlier"):
        text = text.replace(f"{{{part}}}", db.sql(f"ledger/{part}"))
    return text


def outcome_of_attempt(answer: Answer) -> str:
    """As the ledger names it: a refused key is a refusal; its status tells."""
    return "refused" if answer.outcome == "unauthorized" else answer.outcome


def reason(answer: Answer) -> str | None:
    """What the event's row says of its last answer."""
    match answer.outcome:
        case "accepted":
            return None
        case "unknown":
            return answer.error if answer.error == NO_ANSWER else f"no answer: {answer.error}"
        case "not sent":
            return f"not sent: {answer.error}"
        case _:
            return f"HTTP {answer.http_status}"
