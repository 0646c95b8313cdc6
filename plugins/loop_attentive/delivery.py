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
import gc
import logging
import math
import random
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args

from loop_attentive import db
from loop_attentive.attentive import Answer, Departure, Outcome, Transport
from loop_attentive.catalogue import EventType
from loop_attentive.errors import NeedsMending
from loop_attentive.ledger import LEAVES_WITHIN, Batch, Ledger, Left, Marked, Origin, Settled
from loop_attentive.pace import HORIZON, Pace, Permit, elapsed
from loop_attentive.reconnect import Connect
from loop_attentive.reminders import Reminders
from loop_attentive.settings import Shop

log = logging.getLogger(__name__)

CLAIM = 600
"""Events leased at once; the next claim is made when half of them have left."""

HANDFUL = 300
"""Events marked at once, at most: fewer as a rule, what leaves in HORIZON. At the default pace that is about twenty."""

TOP_UP = HORIZON.total_seconds() / 2
"""Seconds before the last mark leaves at which the next handful is marked."""

SETTLE_EVERY = 0.05

RENEW_EVERY = 15.0

SWEEP_EVERY = 5.0
"""Seconds after which a claim begins at the oldest event again, for what has become free since."""

LOOK_AGAIN = 0.1
"""Seconds between claims that found nothing, while answers may still free the next event of a return."""

PAUSE_SAT_OUT = 5.0
"""Seconds; when the account pauses for longer, the sender comes back later instead."""

COME_BACK_AFTER_NOTHING = 30.0
COME_BACK_AFTER_SILENCE = 900.0
"""Seconds; each time that a silent Attentive is asked leaves some hundreds of events in doubt."""

FRUITLESS = {
    "throttled": ("Attentive asked for a pause", COME_BACK_AFTER_NOTHING),
    "failed": ("Attentive fails", COME_BACK_AFTER_NOTHING),
    "not sent": ("Attentive cannot be reached", COME_BACK_AFTER_NOTHING),
    "unknown": ("Attentive does not answer", COME_BACK_AFTER_SILENCE),
}
"""Outcomes that get nothing done: what is waited for then, and for how many seconds."""

FRUITFUL = frozenset(get_args(Outcome)) - FRUITLESS.keys()
"""The other outcomes."""

FRUITLESS_SAT_OUT = 60.0
"""Seconds without any other outcome; the sender comes back later then, however soon the next event is due."""

FIRST_BACKOFF, LONGEST_BACKOFF = 2.0, 300.0
SHORTEST_DELAY = 1.0
"""Seconds; exponential backoff with full jitter, but never sooner than the last."""

REJECTED_IN_A_ROW = 20
NOT_SENT_IN_A_ROW = 20
"""So many with nothing else between, and the run stops: it is not the events that are wrong."""

MOST_UNDER_WAY, FIRST_UNDER_WAY, FEWEST_UNDER_WAY = 600, 150, 4

AHEAD = 0.3
"""Seconds of the pace that may be marked and not have left, whatever for: a killed sender leaves them in doubt."""


@dataclass(frozen=True)
class Delivered:
    """What a delivery did, and what is left.

    counts: answers by outcome, and what the last judgement left out: expired, no longer (true), waits (for the source),
    opted out, past resending, not now.
    requests: made by the transport. pending: events of the batch that are left so. come_back_at: when the next of
    them, or of those to be sent again, may leave (UTC), or None. waits_for: what keeps it from leaving sooner.
    fruitless: Attentive has answered no request of the run but with an error of its own; or a pause has kept the run
    from making any.
    stopped: it was told to stop before it was done. stopped_types: refused by Attentive in this run.
    """

    counts: dict[str, int]
    requests: int
    pending: int
    come_back_at: datetime | None
    waits_for: str | None
    fruitless: bool
    stopped: bool
    stopped_types: frozenset[str]


class NothingSent(Exception):
    """No request could leave at all; worth another try after retry_after seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CalledBack(Exception):
    """A marked request does not leave: its permit has lapsed, or the sending stops."""


def spare_the_collector() -> None:
    """Keeps what is imported from being looked at by every garbage collection: a fifth of a sender's processor time.

    For a process that sends and does nothing else, before it begins.
    """
    gc.collect()
    gc.freeze()


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
    monotonic: Callable[[], float] = elapsed,
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
        Ledger(connect, shop, batch, origin, rng, now),
        Reminders(connect, shop, still_due, now),
        transport,
        pace,
        connection_id=shop.attentive,
        stop=stop or asyncio.Event(),
        patience=patience,
        rng=rng,
        monotonic=monotonic,
    )
    return await sender.run()


class Room:
    """How many requests may be under way at once.

    Enough for the pace at some seconds of latency. It shrinks when answers fail to come and grows again with those
    that do: when Attentive falls silent, some hundreds of events end in doubt and not the whole backlog.
    """

    def __init__(self) -> None:
        self._size = float(FIRST_UNDER_WAY)
        self._shrunk_at = float("-inf")
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def is_full(self) -> bool:
        return self._under_way >= int(self._size)

    def for_marks(self, flights: int, rate: int) -> int:
        """How many more may be marked: as many as have room, and again as many that wait for the next answers, but no
        more than leave in some tenths of a second.

        rate: how many may leave in one. Never a few only: a mark costs a commit.
        """
        ahead = math.ceil(AHEAD * rate)
        more = min(int(self._size * 2) - flights, ahead - (flights - self._under_way))
        return more if more >= min(self._size, ahead) / 4 else 0

    def enter(self) -> None:
        self._under_way += 1

    def leave(self) -> None:
        self._under_way -= 1

    async def vacancy(self) -> None:
        """Waits, in turn and for a second at most, until there may be room."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await asyncio.wait([turn], timeout=1.0)
        turn.cancel()

    def call_next(self) -> None:
        """Lets as many look as there is room for."""
        to_call = max(int(self._size) - self._under_way, 1)
        while to_call and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                to_call -= 1

    def answered(self) -> None:
        self._size = min(self._size + 1, MOST_UNDER_WAY)

    def unanswered(self, started_at: float, now: float) -> None:
        """Leaves room for half of what is under way; once for all requests that were so together."""
        if started_at > self._shrunk_at:
            self._size = max(min(self._size, self._under_way) / 2, FEWEST_UNDER_WAY)
            self._shrunk_at = now


class Flight(Departure):
    """One marked event on its way, and the permit that it leaves by. marked_at: monotonic; no later than the mark."""

    def __init__(self, sender: "Sender", mark: Marked, permit: Permit, marked_at: float) -> None:
        self.mark = mark
        self.permit = permit
        self.marked_at = marked_at
        self.left_at: float | None = None
        self.has_room = False
        self._sender = sender

    async def cleared(self) -> None:
        """Waits for the permit's moment; for another permit, if opening a connection took longer than it held."""
        while True:
            await asyncio.sleep(max(self.permit.usable_at - self._sender.monotonic(), 0))
            while not self.has_room and self._sender.room.is_full and not self._sender.calls_back(self):
                await self._sender.room.vacancy()
            if self._sender.calls_back(self):
                raise CalledBack
            if self._sender.pace.holds(self.permit):
                if not self.has_room:
                    self._sender.room.enter()
                    self._sender.room_changed.set()
                self.has_room = True
                return
            await self._exchange_permit()

    def held_up(self) -> None:
        """Until another connection stands, it is one of those that are marked and have not left."""
        self.has_room = False
        self._sender.room.leave()
        self._sender.room.call_next()

    async def _exchange_permit(self) -> None:
        self._sender.pace.unused(self.permit)
        while not (permits := await self._ask_for_a_permit()):
            await asyncio.sleep(self._sender.until_next_permit())
        self.permit = permits[0]

    async def _ask_for_a_permit(self) -> list[Permit]:
        if self._sender.calls_back(self):
            raise CalledBack
        try:
            async with asyncio.timeout(self._sender.until_too_late(self)):
                return await self._sender.pace.take(1)
        except (db.DatabaseAway, TimeoutError):
            raise CalledBack from None

    def left(self) -> None:
        """The process may have stood still since it was cleared."""
        if self._sender.is_too_late(self) or not self._sender.pace.holds(self.permit):
            raise CalledBack
        self.left_at = self._sender.monotonic()

    def give_permit_back(self) -> None:
        """If that has not been done; a write that failed half-way may have reached the server."""
        if self.left_at is None:
            self._sender.pace.unused(self.permit)
        else:
            self._sender.pace.used(self.permit)

    def written(self) -> None:
        """Only now: a process that stood still between the two would give its permit back too early."""
        self._sender.pace.used(self.permit)


class Sender:
    """One delivery: a feeder (claims, permits, marks), its flights, a settler, and one who tells the other workers."""

    def __init__(
        self,
        ledger: Ledger,
        reminders: Reminders,
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
        self._reminders = reminders
        self.pace = pace
        self.monotonic = monotonic
        self._transport = transport
        self._connection_id = connection_id
        self._stop = stop
        self._patience = patience
        self._rng = rng
        self.room = Room()
        self._flights: set[asyncio.Task[None]] = set()
        self._answers: list[Settled] = []
        self._called_back: list[Marked] = []
        self._counts: Counter[str] = Counter()
        self._rejected_in_a_row = 0
        self._not_sent_in_a_row = 0
        self._fruitless_since: float | None = None
        self._failure: Exception | None = None
        self._come_back_in: float | None = None
        self._waits_for: str | None = None
        self._claimed_all = False
        self._claim_at = self._sweep_at = float("-inf")
        # what its parts tell each other
        self._halt = asyncio.Event()
        self.room_changed = asyncio.Event()
        self._something_to_settle = asyncio.Event()
        self._something_to_tell = asyncio.Event()
        self._settled = asyncio.Event()
        self._all_landed = False

    async def run(self) -> Delivered:
        """See deliver."""
        watching = asyncio.create_task(self._halt_when_told())
        telling = asyncio.create_task(self._tell_urgent_news())
        telling.add_done_callback(self._fail_with)
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
            for task in (watching, telling):
                task.cancel()
            await asyncio.gather(watching, telling, return_exceptions=True)
            await self._reminders.close()
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
        if self.ledger.key_was_refused:
            self._fail(self._wrong_key())
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
            self._sweep_at = ended_at + max(SWEEP_EVERY, 20 * (ended_at - began_at))
        if len(claimed) < wanted:
            self._claimed_all = sweep
            self._sweep_at = began_at
            # a claim that has to step over much is not made again and again
            self._claim_at = ended_at + max(LOOK_AGAIN, 5 * (ended_at - began_at))
        else:
            self._claimed_all = False

    async def _mark_a_handful(self) -> None:
        room = self.room.for_marks(len(self._flights), self.pace.limit)
        if room <= 0:
            self.room_changed.clear()
            await _wait(self.room_changed, 1.0)
            return
        permits = await self.pace.take(min(len(self.ledger.in_hand), room, HANDFUL))
        if not permits:
            await self._wait_for_permits()
            return
        events = list(self.ledger.in_hand.values())[: len(permits)]
        asked_at = self.monotonic()
        marked, judged = await self.ledger.mark(events, await self._reminders.judge(events))
        self._counts.update(judged)
        if judged.keys() - {"not now"}:  # whatever waited for them may go now
            self._claim_at = self.monotonic()
        for mark, permit in zip(marked, permits, strict=False):
            self._start(Flight(self, mark, permit, asked_at))
        for permit in permits[len(marked) :]:
            self.pace.unused(permit)
        if marked:
            await self._sleep(permits[len(marked) - 1].usable_at - TOP_UP - self.monotonic())

    async def _wait_for_permits(self) -> None:
        pause = self.pace.paused_until - self.monotonic()
        if pause > max(self._patience, PAUSE_SAT_OUT):
            self._come_back_later("Attentive asked for a pause", pause)
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
        answer = None
        try:
            with suppress(CalledBack):
                answer = await self._transport.send(flight.mark.event, flight)
        finally:
            if answer is not None:
                self._take_in(flight, answer)
            elif flight.left_at is None:  # called back, or something failed on the way
                self._called_back.append(flight.mark)
            flight.give_permit_back()
            if flight.has_room:
                self.room.leave()
            self.room.call_next()
            self._something_to_settle.set()

    def _land(self, task: asyncio.Task[None]) -> None:
        self._flights.discard(task)
        self.room_changed.set()
        self._fail_with(task)

    def _fail_with(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._fail(error)

    def calls_back(self, flight: Flight) -> bool:
        """Whether a marked event is not to leave after all."""
        return (
            self._halt.is_set()
            or flight.mark.claimed.event_type in self.ledger.stopped_types
            or self.is_too_late(flight)
        )

    def is_too_late(self, flight: Flight) -> bool:
        """Whether others may have given a marked event up before it left."""
        return self.until_too_late(flight) < 0

    def until_too_late(self, flight: Flight) -> float:
        return flight.marked_at + LEAVES_WITHIN.total_seconds() - self.monotonic()

    def _take_in(self, flight: Flight, answer: Answer) -> None:
        """What one answer means for its event, and for the others."""
        at = self.monotonic()
        self._counts[answer.outcome] += 1
        self._answers.append(Settled(flight.mark, answer, at, self._delay(answer, flight.mark.attempt)))
        self._rejected_in_a_row = 0 if answer.outcome == "accepted" else self._rejected_in_a_row
        self._not_sent_in_a_row = self._not_sent_in_a_row + 1 if answer.outcome == "not sent" else 0
        self.pace.heard(answer.limit)
        if answer.http_status is not None:
            self.room.answered()
        match answer.outcome:
            case "unknown":
                self.room.unanswered(flight.marked_at, at)
            case "throttled":
                self.pace.pause(answer.retry_after)
            case "unauthorized":
                self._fail(self._wrong_key())
            case "refused":
                self._stop_type(flight.mark.claimed.event_type, answer)
            case "rejected":
                self._count_rejected(answer)
        self._count_fruitless(answer, at)
        if self.pace.has_urgent_news:
            self._something_to_tell.set()

    async def _tell_urgent_news(self) -> None:
        """Beside the settler: no answer in hand waits for the pace's row, which another worker may hold."""
        while True:
            await self._something_to_tell.wait()
            self._something_to_tell.clear()
            with suppress(db.DatabaseAway):  # who asks for permits finds out by itself
                await self.pace.tell()

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

    def _wrong_key(self) -> NeedsMending:
        return NeedsMending(
            f"Attentive does not know the API key of connection {self._connection_id} (HTTP 401): "
            "put a valid one into its password. The events stay pending."
        )

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._halt.set()

    def _stop_type(self, event_type: str, answer: Answer) -> None:
        if event_type not in self.ledger.stopped_types:
            log.warning("Attentive refuses %s (%s): its events stay pending in this run.", event_type, answer.error)
            self.ledger.stopped_types.add(event_type)

    def _come_back_later(self, why: str, seconds: float) -> None:
        self._come_back_in, self._waits_for = seconds, why
        self._halt.set()

    def _count_fruitless(self, answer: Answer, at: float) -> None:
        if answer.outcome not in FRUITLESS:
            self._fruitless_since = None
            return
        self._fruitless_since = at if self._fruitless_since is None else self._fruitless_since
        if at - self._fruitless_since >= FRUITLESS_SAT_OUT or self._not_sent_in_a_row >= NOT_SENT_IN_A_ROW:
            self._come_back_later(*FRUITLESS[answer.outcome])

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
        if self._failure:
            raise self._failure
        left = await self.ledger.left()
        await self._raise_what_stopped_it(left)
        moments = [left.at] if left.at else []
        if self._come_back_in is not None:
            moments = [left.now + timedelta(seconds=self._come_back_in)]
        return Delivered(
            counts=dict(self._counts),
            requests=self._requests,
            pending=left.pending,
            come_back_at=min(moments, default=None),
            waits_for=self._waits_for or left.why,
            fruitless=await self._is_fruitless(),
            stopped=self._stop.is_set(),
            stopped_types=frozenset(self.ledger.stopped_types),
        )

    async def _is_fruitless(self) -> bool:
        if not self._counts.keys().isdisjoint(FRUITFUL):
            return False
        was_kept_from_asking = self._come_back_in is not None
        return await self.ledger.came_to_nothing_but(*FRUITLESS, "lost", or_to_no_attempt=was_kept_from_asking)

    @property
    def _requests(self) -> int:
        return sum(self._counts[outcome] for outcome in get_args(Outcome))

    async def _raise_what_stopped_it(self, left: Left) -> None:
        not_sent = self._counts["not sent"]
        if not_sent and not_sent == self._requests and await self.ledger.came_to_nothing_but("not sent"):
            raise NothingSent(
                f"Attentive could not be reached at all through connection {self._connection_id}: "
                "is its host right, and the service up? The events stay pending.",
                COME_BACK_AFTER_NOTHING,
            )
        if await self._is_every_type_refused(left):
            raise NeedsMending(
                f"Attentive refused every event type ({', '.join(sorted(self.ledger.stopped_types))}): see that the "
                f"API key of connection {self._connection_id} has the scope events:write, and that its host is right. "
                "The events stay pending."
            )

    async def _is_every_type_refused(self, left: Left) -> bool:
        """Of those that were asked for. An answer that got nothing done either, such as a 429, makes no difference
        where nothing is left that may leave by itself.
        """
        refused = self._counts["refused"]
        if refused and refused == self._requests and await self.ledger.came_to_nothing_but("refused"):
            return True
        may_go_on = left.at is not None or self._come_back_in is not None or self._stop.is_set()
        if may_go_on or not refused or not left.pending or self._counts["accepted"]:
            return False
        return await self.ledger.came_to_nothing_but("refused", *FRUITLESS, "lost")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Waits for an event, but not for longer than so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
