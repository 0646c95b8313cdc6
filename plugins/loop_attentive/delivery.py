"""Delivers a batch of events: claim, mark, send, settle.

**Claim** leases some hundreds of events that may leave: due, and first of their return. It changes no state, so a
sender that dies here has done nothing. **Mark**: a handful of permits of the account's pace is taken, and as many
events become `sending`, together with their attempt, committed; here they are judged for the last time. Each then has
its own coroutine, which opens or takes a connection, waits for its permit's moment and **sends**. **Settle**: every
few hundredths of a second the answers that came in are committed in one set, with what follows for each event.

So a killed sender leaves in doubt what was on its way, and the few marks made ahead of their moment. Their lease ends,
the next claim finds them, and they become `unknown`. An answer that comes after all is still written.

Nothing here knows Airflow, or what an event is about; reminders are judged by the rule that the caller hands in.
"""

import asyncio
import logging
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast, get_args

from psycopg.rows import dict_row

from loop_attentive import db
from loop_attentive.attentive import Answer, Departure, Outcome, Transport, wire_time
from loop_attentive.catalogue import BY_NAME, CATALOGUE, JOURNEY_LATENESS, MAX_LATENESS, EventType
from loop_attentive.errors import NeedsMending
from loop_attentive.pace import HORIZON, Pace, Permit
from loop_attentive.reconnect import Connect, Connection, Reconnecting
from loop_attentive.settings import Shop

log = logging.getLogger(__name__)

CLAIM = 500
"""Events leased at once; the next claim is made when half of them have left."""

HANDFUL = 100
"""Events marked at once, at most. At the default pace it is what leaves in HORIZON: about twenty."""

TOP_UP = HORIZON.total_seconds() / 2
"""Seconds before the last mark leaves at which the next handful is marked."""

SETTLE_EVERY = 0.05

LEASE = timedelta(seconds=60)
RENEW_EVERY = 15.0

SWEEP_EVERY = 5.0
"""Seconds after which a claim begins at the oldest event again, for what has become free since."""

LOOK_AGAIN = 0.1
"""Seconds between claims that found nothing, while answers may still free the next event of a return."""

LEAVES_WITHIN = timedelta(seconds=12)
"""The longest from a mark to its request, if a connection has to be opened. A reminder must hold until then."""

PAUSE_SAT_OUT = 5.0
"""Seconds; when the account pauses for longer, the sender comes back later instead."""

COME_BACK_AFTER_NOTHING = 30.0

RESEND_AFTER = timedelta(minutes=2)

FIRST_BACKOFF, LONGEST_BACKOFF = 2.0, 300.0
SHORTEST_DELAY = 1.0
"""Seconds; exponential backoff with full jitter, but never sooner than the last."""

REJECTED_IN_A_ROW = 20
NOT_SENT_IN_A_ROW = 20
"""So many with nothing else between, and the run stops: it is not the events that are wrong."""

MOST_UNDER_WAY, FIRST_UNDER_WAY, FEWEST_UNDER_WAY = 600, 150, 4

WAITS_FOR_SOURCE = "waits for a fresh source"

BUCKETS = 64
"""Of the ledger's column: what batches are made of."""

MONEY = [event.name for event in CATALOGUE if event.money]
REMINDERS = [event.name for event in CATALOGUE if event.reminder]


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
class Delivered:
    """What a delivery did, and what is left.

    counts: answers by outcome, and what the last judgement left out: expired, no longer (true), waits (for the source).
    requests: made by the transport. pending: events of the batch that are left so. come_back_at: when the next of
    them, or of those to be sent again, may leave (UTC), or None. stopped: it was told to stop before it was done.
    stopped_types: refused by Attentive in this run.
    """

    counts: dict[str, int]
    requests: int
    pending: int
    come_back_at: datetime | None
    stopped: bool
    stopped_types: frozenset[str]


class NothingSent(Exception):
    """No request could leave at all; worth another try after retry_after seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CalledBack(Exception):
    """A marked request does not leave: its permit has lapsed, or the sending stops."""


async def deliver(
    connect: Connect,
    shop: Shop,
    batch: Batch,
    origin: Origin,
    transport: Transport,
    pace: Pace,
    *,
    still_due: Callable[[EventType], str],
    stop: asyncio.Event | None = None,
    patience: float = 0.0,
    rng: random.Random | None = None,
    now: Callable[[], datetime] | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Delivered:
    """Sends what is due of a batch, and what falls due meanwhile.

    connect: yields a connection to the ledger, in autocommit. pace: of the same account as the transport; closed here.
    still_due: SQL that yields return_id where a reminder's rule still holds (see rules.still_due_sql). stop: set it,
    and nothing new starts, answers are awaited, leases are returned. patience: seconds to wait for an event that is
    not due yet. now: the ledger's clock if not the database's own, and monotonic: the worker's (both for simulations).

    Raises NeedsMending (a wrong key, every type refused, twenty rejected in a row), NothingSent, DatabaseAway.
    """
    rng = rng or random.Random()  # noqa: S311 - nothing here is a secret
    sender = Sender(
        Ledger(connect, shop, batch, origin, still_due, rng, now),
        transport,
        pace,
        connection_id=shop.attentive,
        stop=stop or asyncio.Event(),
        patience=patience,
        rng=rng,
        monotonic=monotonic,
    )
    return await sender.run()


# ── The ledger ──────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Claimed:
    """An event that is leased."""

    event_id: uuid.UUID
    event_type: str
    return_id: str


@dataclass(frozen=True)
class Marked:
    """An event that is about to leave. event: as Attentive is told it."""

    claimed: Claimed
    attempt: int
    event: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Settled:
    """An answer to be written. at: when it came (monotonic). delay: seconds until the event may leave again."""

    event_id: uuid.UUID
    attempt: int
    answer: Answer
    at: float
    delay: float


class Left(NamedTuple):
    """at: when the next event may leave. now: by the ledger's clock."""

    at: datetime | None
    pending: int
    now: datetime


class Ledger:
    """What a sender says to the ledger, on a connection each to feed, to settle, and to judge reminders."""

    def __init__(
        self,
        connect: Connect,
        shop: Shop,
        batch: Batch,
        origin: Origin,
        still_due: Callable[[EventType], str],
        rng: random.Random,
        now: Callable[[], datetime] | None,
    ) -> None:
        self.shop = shop
        self.origin = origin
        self.in_hand: dict[uuid.UUID, Claimed] = {}
        self.under_way: dict[uuid.UUID, int] = {}
        self.stopped_types: set[str] = set()
        self._still_due = still_due
        self._now = now
        self._lease = uuid.UUID(int=rng.getrandbits(128), version=4)
        self._after: tuple[datetime | str, int, uuid.UUID] = FIRST
        self._claimed_at: datetime | None = None
        self._connect = connect
        self._feeding = Reconnecting(self._connect_by_key, restored=self._restore)
        self._settling = Reconnecting(self._connect_by_key)
        self._judging = Reconnecting(connect)
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

    async def claim(self, most: int, *, from_the_oldest: bool) -> list[Claimed]:
        """Leases up to so many events, from where the last claim ended or from the oldest."""
        if from_the_oldest:
            self._after = FIRST
        return await self._feeding.run(lambda connection: self._claim(connection, most))

    async def _claim(self, connection: Connection, most: int) -> list[Claimed]:
        async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            now = await self._clock(connection)
            await cursor.execute(statement("lost"), self._parameters({"now": now}))
            after_at, after_no, after_id = self._after
            await cursor.execute(
                statement("claim"),
                self._parameters(
                    self._batch,
                    {"now": now, "most": most, "after_at": after_at, "after_no": after_no, "after_id": after_id},
                ),
            )
            rows = await cursor.fetchall()
        self._claimed_at = now
        if fresh := [row for row in rows if not row["resend"]]:
            self._after = (fresh[-1]["order_at"], fresh[-1]["order_no"], fresh[-1]["event_id"])
        claimed = [Claimed(row["event_id"], row["event_type"], row["return_id"]) for row in rows]
        self.in_hand.update((event.event_id, event) for event in claimed)
        return claimed

    async def mark(self, events: Sequence[Claimed]) -> tuple[list[Marked], Counter[str]]:
        """Marks those of the leased events that may leave now; tells how the others were judged."""
        reminders = [event for event in events if event.event_type in REMINDERS]
        judgement: tuple[list[uuid.UUID], list[uuid.UUID]] = ([], [])
        if reminders:
            judgement = await self._judging.run(lambda connection: self._judge(connection, reminders))
        marked, judged = await self._feeding.run(lambda connection: self._mark(connection, events, *judgement))
        for event in events:
            self.in_hand.pop(event.event_id, None)
        self.under_way.update((one.claimed.event_id, one.attempt) for one in marked)
        return marked, judged

    async def _mark(
        self,
        connection: Connection,
        events: Sequence[Claimed],
        waiting: Sequence[uuid.UUID],
        no_longer: Sequence[uuid.UUID],
    ) -> tuple[list[Marked], Counter[str]]:
        by_id = {event.event_id: event for event in events}
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                statement("mark"),
                self._parameters(
                    {"event_ids": list(by_id), "waiting": list(waiting), "no_longer": list(no_longer)},
                    {"run_key": self.origin.run_key, "task_id": self.origin.task_id},
                    {"map_index": self.origin.map_index, "try_number": self.origin.try_number},
                ),
            )
            rows = await cursor.fetchall()
        marked = [
            Marked(by_id[row["event_id"]], row["attempt"], self._event(row)) for row in rows if row["verdict"] == "goes"
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

    async def _judge(
        self, connection: Connection, reminders: Sequence[Claimed]
    ) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
        """Of some reminders, those that wait for a fresh source, and those that hold no longer, fresh or not."""
        now = await self._clock(connection)
        fresh = await self._is_fresh(connection, now)
        waiting, no_longer = [], []
        for name in dict.fromkeys(event.event_type for event in reminders):
            events = [event for event in reminders if event.event_type == name]
            due = await self._due_returns(connection, BY_NAME[name], events, now, fresh)
            due_if_fresh = due if fresh else await self._due_returns(connection, BY_NAME[name], events, now, True)
            waiting += [event.event_id for event in events if event.return_id in due_if_fresh - due]
            no_longer += [event.event_id for event in events if event.return_id not in due_if_fresh | due]
        return waiting, no_longer

    async def _is_fresh(self, connection: Connection, now: datetime) -> bool:
        cursor = await connection.execute(
            db.sql("mirror/freshness"),
            {"shop": self.shop.name, "now": now, "freshness_hours": self.shop.freshness_hours},
        )
        row = await cursor.fetchone()
        assert row is not None, "an aggregate yields a row"
        return bool(row[0])

    async def _due_returns(
        self, connection: Connection, event_type: EventType, events: Sequence[Claimed], now: datetime, fresh: bool
    ) -> set[str]:
        cursor = await connection.execute(
            self._still_due(event_type),
            {
                "shop": self.shop.name,
                "as_of": now + LEAVES_WITHIN,
                "since": "-infinity",
                "fresh": fresh,
                "window_days": self.shop.instant_exchange_window_days,
                "return_ids": [event.return_id for event in events],
            },
        )
        return {row[0] for row in await cursor.fetchall()}

    async def settle(self, answers: Sequence[Settled], monotonic: Callable[[], float]) -> None:
        """Writes answers, once each however often it is tried."""

        async def work(connection: Connection) -> None:
            now = monotonic()
            await connection.execute(
                statement("settle"),
                self._parameters(
                    {
                        "run_key": self.origin.run_key,
                        "event_ids": [one.event_id for one in answers],
                        "attempts": [one.attempt for one in answers],
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
        self._no_longer_under_way((one.event_id, one.attempt) for one in answers)

    async def unmark(self, marks: Sequence[Marked], *, keep: bool) -> None:
        """Takes marks back whose requests never left; keep: the events stay leased, in hand."""
        await self._settling.run(self._unmarking({one.claimed.event_id: one.attempt for one in marks}, keep))
        self._no_longer_under_way((one.claimed.event_id, one.attempt) for one in marks)
        if keep:
            self.in_hand.update((one.claimed.event_id, one.claimed) for one in marks)

    def _unmarking(self, marks: dict[uuid.UUID, int], keep: bool) -> Callable[[Connection], Awaitable[None]]:
        return self._statement("unmark", {"event_ids": list(marks), "attempts": list(marks.values()), "keep": keep})

    def _no_longer_under_way(self, attempts: Iterable[tuple[uuid.UUID, int]]) -> None:
        for event_id, attempt in attempts:
            if self.under_way.get(event_id) == attempt:
                del self.under_way[event_id]

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
            await cursor.execute(
                statement("unheard_of"),
                self._parameters(self._batch, {"in_hand": list(self.in_hand), "under_way": list(self.under_way)}),
            )
            rows = await cursor.fetchall()
            await self._unmarking({row["event_id"]: row["attempt"] for row in rows if row["marked"]}, keep=True)(
                connection
            )
            lost_claims = [row["event_id"] for row in rows if row["event_id"] not in self.in_hand]
            await connection.execute(statement("release"), self._parameters({"event_ids": lost_claims}))

    async def left(self) -> Left:
        """What is left of the batch that could not leave at the last claim."""

        async def work(connection: Connection) -> Left:
            cursor = await connection.execute(
                statement("next_due"), self._parameters(self._batch, {"claimed_at": self._claimed_at})
            )
            return Left(*cast(tuple[datetime | None, int, datetime], await cursor.fetchone()))

        return await self._feeding.run(work)

    async def all_refused(self) -> bool:
        async def work(connection: Connection) -> bool:
            run_key = {"run_key": self.origin.run_key}
            cursor = await connection.execute(statement("all_refused"), self._parameters(run_key))
            return bool(cast(tuple[bool], await cursor.fetchone())[0])

        return await self._feeding.run(work)

    async def close(self) -> None:
        for line in (self._feeding, self._settling, self._judging):
            await line.close()

    async def _clock(self, connection: Connection) -> datetime:
        if self._now:
            return self._now()
        cursor = await connection.execute("SELECT clock_timestamp()")
        return cast(tuple[datetime], await cursor.fetchone())[0]

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


def statement(name: str) -> str:
    """A statement of include/sql/ledger; {earlier} stands for what claim and mark share."""
    return db.sql(f"ledger/{name}").replace("{earlier}", db.sql("ledger/earlier"))


def outcome_of_attempt(answer: Answer) -> str:
    """As the ledger names it: a refused key is a refusal; its status tells."""
    return "refused" if answer.outcome == "unauthorized" else answer.outcome


def reason(answer: Answer) -> str | None:
    """What the event's row says of its last answer."""
    match answer.outcome:
        case "accepted":
            return None
        case "unknown":
            return f"no answer: {answer.error}"
        case "not sent":
            return f"not sent: {answer.error}"
        case _:
            return f"HTTP {answer.http_status}"


# ── The sender ──────────────────────────────────────────────────────────────


class Room:
    """How many requests may be under way at once.

    Enough for the pace at some seconds of latency. It shrinks when answers fail to come and grows again with those
    that do: when Attentive falls silent, some dozens of events end in doubt and not the whole backlog.
    """

    def __init__(self) -> None:
        self._size = float(FIRST_UNDER_WAY)
        self._shrunk_at = float("-inf")

    @property
    def size(self) -> int:
        return int(self._size)

    def answered(self) -> None:
        self._size = min(self._size + 1, MOST_UNDER_WAY)

    def unanswered(self, started_at: float, now: float, under_way: int) -> None:
        """Leaves room for half of what is under way; once for all requests that were so together."""
        if started_at > self._shrunk_at:
            self._size = max(min(self._size, under_way) / 2, FEWEST_UNDER_WAY)
            self._shrunk_at = now


class Flight(Departure):
    """One marked event on its way, and the permit that it leaves by."""

    def __init__(self, sender: "Sender", mark: Marked, permit: Permit) -> None:
        self.mark = mark
        self.permit = permit
        self.marked_at = sender.monotonic()
        self.left_at: float | None = None
        self._sender = sender

    async def cleared(self) -> None:
        """Waits for the permit's moment; for another permit, if opening a connection took longer than it held."""
        while True:
            await asyncio.sleep(max(self.permit.usable_at - self._sender.monotonic(), 0))
            if self._sender.calls_back(self):
                raise CalledBack
            if self._sender.pace.holds(self.permit):
                return
            await self._exchange_permit()

    async def _exchange_permit(self) -> None:
        self._sender.pace.unused(self.permit)
        while not (permits := await self._ask_for_a_permit()):
            await asyncio.sleep(self._sender.until_next_permit())
        self.permit = permits[0]

    async def _ask_for_a_permit(self) -> list[Permit]:
        if self._sender.calls_back(self):
            raise CalledBack
        try:
            return await self._sender.pace.take(1)
        except db.DatabaseAway:
            raise CalledBack from None

    def left(self) -> None:
        self.left_at = self._sender.monotonic()
        self._sender.pace.used(self.permit)


class Sender:
    """One delivery: a feeder (claims, permits, marks), its flights, and a settler."""

    def __init__(
        self,
        ledger: Ledger,
        transport: Transport,
        pace: Pace,
        *,
        connection_id: str,
        stop: asyncio.Event,
        patience: float,
        rng: random.Random,
        monotonic: Callable[[], float],
    ) -> None:
        self.ledger = ledger
        self.pace = pace
        self.monotonic = monotonic
        self._transport = transport
        self._connection_id = connection_id
        self._stop = stop
        self._patience = patience
        self._rng = rng
        self._room = Room()
        self._flights: set[asyncio.Task[None]] = set()
        self._answers: list[Settled] = []
        self._called_back: list[Marked] = []
        self._counts: Counter[str] = Counter()
        self._rejected_in_a_row = 0
        self._not_sent_in_a_row = 0
        self._failure: Exception | None = None
        self._come_back_in: float | None = None
        self._claimed_all = False
        self._claim_at = self._sweep_at = float("-inf")
        # what the three parts tell each other
        self._halt = asyncio.Event()
        self._landed = asyncio.Event()
        self._something_to_settle = asyncio.Event()
        self._settled = asyncio.Event()
        self._all_landed = False

    async def run(self) -> Delivered:
        """See deliver."""
        watching = asyncio.create_task(self._halt_when_told())
        settling = asyncio.create_task(self._settle_until_all_landed())
        settling.add_done_callback(lambda _: self._halt.set())
        try:
            try:
                await self._feed()
            finally:
                self._halt.set()
                await asyncio.gather(*self._flights, return_exceptions=True)
                self._all_landed = True
                self._something_to_settle.set()
                await settling
            return await self._finish()
        finally:
            watching.cancel()
            await self.ledger.close()
            await self.pace.disconnect()

    async def _halt_when_told(self) -> None:
        await self._stop.wait()
        self._halt.set()

    async def _sleep(self, seconds: float) -> None:
        """Sleeps, but not when everything is to stop."""
        await _wait(self._halt, seconds)

    # ── Claim and mark ──

    async def _feed(self) -> None:
        """Until nothing is left that may leave soon: keeps events in hand, and marks ahead."""
        await self.ledger.begin()
        while not self._halt.is_set():
            await self._put_down_stopped_types()
            await self._claim_when_low()
            if self.ledger.in_hand:
                await self._mark_a_handful()
            elif self.ledger.under_way:
                await _wait(self._settled, 1.0)
                await self._sleep(self._claim_at - self.monotonic())
            elif not await self._wait_for_the_next():
                return

    async def _put_down_stopped_types(self) -> None:
        stopped = self.ledger.stopped_types
        await self.ledger.release([event for event in self.ledger.in_hand.values() if event.event_type in stopped])

    async def _claim_when_low(self) -> None:
        wanted = CLAIM - len(self.ledger.in_hand)
        began_at = self.monotonic()
        if wanted < CLAIM / 2 or (self._claimed_all and began_at < self._claim_at):
            return
        sweep = self._claimed_all or began_at >= self._sweep_at
        self._settled.clear()
        claimed = await self.ledger.claim(wanted, from_the_oldest=sweep)
        ended_at = self.monotonic()
        if sweep:
            self._sweep_at = ended_at + SWEEP_EVERY
        if len(claimed) < wanted:
            self._claimed_all = sweep
            self._sweep_at = began_at
            # a claim that has to step over much is not made again and again
            self._claim_at = ended_at + max(LOOK_AGAIN, 5 * (ended_at - began_at))
        else:
            self._claimed_all = False

    async def _mark_a_handful(self) -> None:
        room = self._room.size - len(self._flights)
        if room <= 0:
            self._landed.clear()
            await _wait(self._landed, 1.0)
            return
        permits = await self.pace.take(min(len(self.ledger.in_hand), room, HANDFUL))
        if not permits:
            await self._wait_for_permits()
            return
        events = list(self.ledger.in_hand.values())[: len(permits)]
        marked, judged = await self.ledger.mark(events)
        self._counts.update(judged)
        for mark, permit in zip(marked, permits, strict=False):
            self._start(Flight(self, mark, permit))
        for permit in permits[len(marked) :]:
            self.pace.unused(permit)
        if marked:
            await self._sleep(permits[len(marked) - 1].usable_at - TOP_UP - self.monotonic())

    async def _wait_for_permits(self) -> None:
        pause = self.pace.paused_until - self.monotonic()
        if pause > max(self._patience, PAUSE_SAT_OUT):
            self._come_back_in = pause
            self._halt.set()
        await self._sleep(self.until_next_permit())

    def until_next_permit(self) -> float:
        """Seconds until it is worth asking for a permit again."""
        next_free_at = self.pace.next_free_at
        wait = TOP_UP if next_free_at is None else next_free_at - HORIZON.total_seconds() / 2 - self.monotonic()
        return min(max(wait, 0.01), 1.0)

    async def _wait_for_the_next(self) -> bool:
        """Sits out what is due within patience; False when that is nothing."""
        left = await self.ledger.left()
        if left.at is None or (wait := (left.at - left.now).total_seconds()) > self._patience:
            return False
        await self._sleep(wait)
        self._claim_at = self.monotonic()
        return True

    # ── Send ──

    def _start(self, flight: Flight) -> None:
        task = asyncio.create_task(self._fly(flight))
        self._flights.add(task)
        task.add_done_callback(self._land)

    async def _fly(self, flight: Flight) -> None:
        try:
            answer = await self._transport.send(flight.mark.event, flight)
        except CalledBack:
            self._called_back.append(flight.mark)
        else:
            self._take_in(flight, answer)
        if flight.left_at is None:
            self.pace.unused(flight.permit)
        self._something_to_settle.set()

    def _land(self, task: asyncio.Task[None]) -> None:
        self._flights.discard(task)
        self._landed.set()
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._fail(error)

    def calls_back(self, flight: Flight) -> bool:
        """Whether a marked event is not to leave after all."""
        return (
            self._halt.is_set()
            or flight.mark.claimed.event_type in self.ledger.stopped_types
            or self.monotonic() > flight.marked_at + LEAVES_WITHIN.total_seconds()
        )

    def _take_in(self, flight: Flight, answer: Answer) -> None:
        """What one answer means for its event, and for the others."""
        at = self.monotonic()
        event, attempt = flight.mark.claimed, flight.mark.attempt
        self._counts[answer.outcome] += 1
        self._answers.append(Settled(event.event_id, attempt, answer, at, self._delay(answer, attempt)))
        self._rejected_in_a_row = 0 if answer.outcome == "accepted" else self._rejected_in_a_row
        self._not_sent_in_a_row = self._not_sent_in_a_row + 1 if answer.outcome == "not sent" else 0
        self.pace.heard(answer.limit)
        if answer.http_status is not None:
            self._room.answered()
        match answer.outcome:
            case "unknown":
                self._room.unanswered(flight.marked_at, at, len(self._flights))
            case "throttled":
                self.pace.pause(answer.retry_after)
            case "unauthorized":
                self._fail(
                    NeedsMending(
                        f"Attentive does not know the API key of connection {self._connection_id} (HTTP 401): "
                        "put a valid one into its password. The events stay pending."
                    )
                )
            case "refused":
                self._stop_type(event.event_type, answer)
            case "rejected":
                self._count_rejected(answer)
            case "not sent" if self._not_sent_in_a_row >= NOT_SENT_IN_A_ROW:
                self._come_back_in = COME_BACK_AFTER_NOTHING
                self._halt.set()

    def _delay(self, answer: Answer, attempt: int) -> float:
        """Seconds until the event may leave again, should it have to."""
        match answer.outcome:
            case "throttled" if answer.retry_after is not None:
                return max(answer.retry_after, SHORTEST_DELAY)
            case "throttled" | "failed" | "not sent":
                longest = min(FIRST_BACKOFF * 2 ** min(attempt - 1, 16), LONGEST_BACKOFF)
                return max(self._rng.uniform(0, longest), SHORTEST_DELAY)
            case _:
                return 0.0

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._halt.set()

    def _stop_type(self, event_type: str, answer: Answer) -> None:
        if event_type not in self.ledger.stopped_types:
            log.warning("Attentive refuses %s (%s): its events stay pending in this run.", event_type, answer.error)
            self.ledger.stopped_types.add(event_type)

    def _count_rejected(self, answer: Answer) -> None:
        self._rejected_in_a_row += 1
        if self._rejected_in_a_row >= REJECTED_IN_A_ROW:
            self._fail(
                NeedsMending(
                    f"Attentive rejected {REJECTED_IN_A_ROW} events in a row (the last: {answer.error}): "
                    f"see their attempts, and whether connection {self._connection_id} leads to the right place. "
                    "The other events stay pending."
                )
            )

    # ── Settle ──

    async def _settle_until_all_landed(self) -> None:
        renew_at = self.monotonic() + RENEW_EVERY
        while not self._all_landed or self._answers or self._called_back:
            await _wait(self._something_to_settle, 1.0)
            if not self._all_landed:
                await asyncio.sleep(SETTLE_EVERY)
            self._something_to_settle.clear()
            await self._settle()
            if self.monotonic() >= renew_at:
                await self.ledger.renew()
                renew_at = self.monotonic() + RENEW_EVERY

    async def _settle(self) -> None:
        answers, self._answers = self._answers, []
        called_back, self._called_back = self._called_back, []
        if self.pace.has_urgent_news:
            await self.pace.tell()
        if answers:
            await self.ledger.settle(answers, self.monotonic)
        if called_back:
            await self.ledger.unmark(called_back, keep=not self._halt.is_set())
        if answers or called_back:
            self._settled.set()

    # ── Finish ──

    async def _finish(self) -> Delivered:
        await self.ledger.release(list(self.ledger.in_hand.values()))
        await self.pace.close()
        await self._raise_what_stopped_it()
        left = await self.ledger.left()
        moments = [left.at] if left.at else []
        if self._come_back_in is not None:
            moments = [left.now + timedelta(seconds=self._come_back_in)]
        return Delivered(
            counts=dict(self._counts),
            requests=self._requests,
            pending=left.pending,
            come_back_at=min(moments, default=None),
            stopped=self._stop.is_set(),
            stopped_types=frozenset(self.ledger.stopped_types),
        )

    @property
    def _requests(self) -> int:
        return sum(self._counts[outcome] for outcome in get_args(Outcome))

    async def _raise_what_stopped_it(self) -> None:
        if self._failure:
            raise self._failure
        if self._requests and self._requests == self._counts["not sent"]:
            raise NothingSent(
                f"Attentive could not be reached at all through connection {self._connection_id}: "
                "is its host right, and the service up? The events stay pending.",
                COME_BACK_AFTER_NOTHING,
            )
        refused = self._counts["refused"]
        if refused and refused == self._requests and await self.ledger.all_refused():
            raise NeedsMending(
                f"Attentive refused every event type ({', '.join(sorted(self.ledger.stopped_types))}): see that the "
                f"API key of connection {self._connection_id} has the scope events:write, and that its host is right. "
                "The events stay pending."
            )


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Waits for an event, but not for longer than so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
