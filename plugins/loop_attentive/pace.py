"""When the next request may leave, for all workers of one Attentive account together.

An account has as many permits as it may send requests in a second. A permit is free again PERIOD after the
write that it was used for; so no sliding second, as the server counts, ever holds more requests than there are
permits, and a late write makes the next one late instead of making a burst.

The permits are one row of the ledger's database. A worker takes a handful in one statement, each with the moment
from which it may be used, and gives the moments of the real writes back with the next handful. In the row a taken
permit is reserved until its holder may no longer use it, and PERIOD more: it comes back by itself when its
holder dies. Its token tells who has it: what is given back after somebody else took it is ignored.

Moments in the row are the database's. A worker maps them to its own monotonic clock by what all answers together
allow (see ClockMap); nobody's wall clock is read.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.rows import dict_row

from loop_attentive.db import DatabaseAway, sql
from loop_attentive.reconnect import Connect, Connection, Reconnecting

log = logging.getLogger(__name__)

MARGIN = timedelta(milliseconds=10)
"""What network and server may add to one request more than to another before a second holds too many.

Its price is throughput: the rate is the limit divided by 1 + margin, 148.5 a second of 150.
"""

PERIOD = timedelta(seconds=1) + MARGIN

HORIZON = timedelta(milliseconds=150)
"""How far ahead permits are taken: the time to commit the marks and to open a connection."""

HOLD = timedelta(seconds=1)
"""How long after its first moment a permit may be used; then it has lapsed."""

LONGEST_PAUSE = 3600.0
"""Seconds; then it is tried again, whatever an answer has asked for: it may be a gateway's mistake."""

PAUSE = 1.0
"""Seconds without a request, for all workers, after an answer that asked for it without saying how long."""

SURE_OF_MORE = 20
"""Answers in a row that must tell of a higher limit before it is believed; a lower one is believed at once."""

CLOCKS_COMPARED_EVERY = 1.0
"""Seconds; what is not known of the database's clock makes each request later than it has to be."""

CLOCKS_DRIFT = 0.0002
"""Seconds that two clocks may drift apart in one: what was learned grows less sure with time."""


if sys.platform == "linux":

    def elapsed() -> float:
        """Seconds by a clock that goes on while the machine sleeps: marks and permits lapse meanwhile."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:
    elapsed = time.monotonic


@dataclass(eq=False)
class Permit:
    """The right to write one request between two moments of the worker's monotonic clock.

    free_at: since when it is free, by the database's clock.
    """

    token: int
    free_at: datetime
    usable_at: float
    lapses_at: float
    used_at: float | None = None
    given_back: bool = False


class ClockMap:
    """How far the database's clock is ahead of the worker's monotonic one: at least, and at most.

    Each answer was made somewhere between the question and its arrival; what all of them allow is known. A moment is
    mapped to the side on which an error makes a request late, never early.
    """

    def __init__(self) -> None:
        self._least, self._most = float("-inf"), float("inf")
        self._learned_at = 0.0

    def learn(self, asked_at: float, began: datetime, ended: datetime, answered_at: float) -> float:
        """What the database's clock said as an answer began and ended, between two moments of the monotonic one.

        Returns by how many seconds at least it was set, if that contradicts what was known, or 0.
        """
        drift = (answered_at - self._learned_at) * CLOCKS_DRIFT
        least, most = ended.timestamp() - answered_at, began.timestamp() - asked_at
        self._least, self._most = max(self._least - drift, least), min(self._most + drift, most)
        contradiction = max(self._least - self._most, 0.0)
        if contradiction:
            self._least, self._most = least, most
        self._learned_at = answered_at
        return contradiction

    def surely_at(self, moment: datetime) -> float:
        """When a moment of the database's has surely come."""
        return moment.timestamp() - self._least

    def perhaps_at(self, moment: datetime) -> float:
        """When it may have come at the earliest."""
        return moment.timestamp() - self._most

    def database_at_most(self, monotonic: float) -> datetime:
        """What the database's clock said then at the latest."""
        return datetime.fromtimestamp(monotonic + self._most, UTC)


@dataclass
class News:
    """What a worker has to tell the others with its next take.

    limit: another one from now on. limit_stays: answers go on naming it, so that it is not forgotten; somebody may have
    heard of another one meanwhile.
    """

    back: list[Permit] = field(default_factory=list)
    pause: float | None = None
    limit: int | None = None
    limit_stays: int | None = None

    def after(self, older: "News") -> "News":
        """These, with older ones that could not be told."""
        pauses = [pause for pause in (older.pause, self.pause) if pause is not None]
        limit = self.limit if self.limit is not None else older.limit
        stays = self.limit_stays if self.limit_stays is not None else older.limit_stays
        return News([*older.back, *self.back], max(pauses, default=None), limit, stays)


class Pace:
    """One worker's share in the pace of an account.

    account: see attentive.account. setting: the shop's requests_per_second; the smallest of the account's
    shops counts. monotonic: the worker's clock, in seconds. now: the database's clock, if not its own (tests).
    """

    def __init__(
        self,
        connect: Connect,
        account: str,
        shop: str,
        setting: int,
        *,
        monotonic: Callable[[], float] = elapsed,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._database = Reconnecting(connect)
        self._account = account
        self._shop = shop
        self._setting = setting
        self._monotonic = monotonic
        self._now = now
        self._clocks = ClockMap()
        self._compared_at = float("-inf")
        self._news = News()
        self._open = False
        self._told_limit: int | None = None
        self._told_times = 0
        self.limit = setting
        self.next_free_at: float | None = None
        self.paused_until = float("-inf")

    async def take(self, wanted: int) -> list[Permit]:
        """Up to so many permits that may be used within HORIZON; tells the news on the way.

        Afterwards next_free_at says when there will be another, and limit and paused_until are up to date; moments
        are the monotonic clock's. Raises DatabaseAway.
        """
        if not self._open:
            await self._database.run(self._introduce)
            self._open = True
        news, self._news = self._news, News()
        try:
            told, asked_at, answered_at = await self._database.run(lambda line: self._exchange(line, wanted, news))
        except (DatabaseAway, asyncio.CancelledError):
            self._news = self._news.after(news)
            raise
        was_set_by = self._clocks.learn(asked_at, told["now"], told["ended_at"], answered_at)
        if answered_at > self._compared_at + CLOCKS_COMPARED_EVERY:
            was_set_by = max(was_set_by, await self._database.run(self._compare_clocks))
        self.limit = told["permits"]
        self.paused_until = max(self.paused_until, self._clocks.surely_at(told["paused_until"]))
        self.next_free_at = told["next_free_at"] and self._clocks.surely_at(told["next_free_at"])
        surely, perhaps, hold = self._clocks.surely_at, self._clocks.perhaps_at, HOLD.total_seconds()
        permits = [
            Permit(token, at, surely(at), perhaps(at) + hold)
            for token, at in zip(told["tokens"], told["usable_at"], strict=True)
        ]
        return permits if was_set_by <= MARGIN.total_seconds() else self._sit_out(permits, was_set_by)

    def _sit_out(self, permits: list[Permit], was_set_by: float) -> list[Permit]:
        """The database's clock was set, so its row tells of no permit when it is free: none is used for a period."""
        log.warning("The clock of the ledger's database was set by %.2f s: nothing is sent for a second.", was_set_by)
        for permit in permits:
            self.unused(permit)
        self.pause(PERIOD.total_seconds())
        return []

    async def tell(self) -> None:
        """Tells the news without taking anything."""
        await self.take(0)

    async def close(self) -> None:
        """Gives everything back."""
        if self._open:
            await self.tell()
        await self.disconnect()

    async def disconnect(self) -> None:
        """Gives nothing back: what was taken comes back by itself."""
        await self._database.close()

    @property
    def has_urgent_news(self) -> bool:
        """Whether the other workers should know at once."""
        return self._news.pause is not None or self._news.limit not in (None, self.limit)

    def holds(self, permit: Permit) -> bool:
        """Whether the permit may be used now that its moment has come: it has not lapsed, and nobody paused since."""
        now = self._monotonic()
        paused_since = now < self.paused_until and permit.usable_at < self.paused_until - MARGIN.total_seconds()
        return now < permit.lapses_at and not paused_since

    def used(self, permit: Permit) -> None:
        """The permit's request is being written in this moment."""
        if not permit.given_back:
            permit.used_at = self._monotonic()
        self._give_back(permit)

    def unused(self, permit: Permit) -> None:
        """The permit will not be used: it is free again as it was."""
        self._give_back(permit)

    def _give_back(self, permit: Permit) -> None:
        if not permit.given_back:
            permit.given_back = True
            self._news.back.append(permit)

    def pause(self, seconds: float | None) -> None:
        """The account asked for a pause, of all workers. To be told soon: see tell."""
        seconds = min(max(seconds or 0.0, PAUSE), LONGEST_PAUSE)
        self._news.pause = max(self._news.pause or 0.0, seconds)
        self.paused_until = max(self.paused_until, self._monotonic() + seconds)

    def heard(self, limit: int | None) -> None:
        """An answer named the account's limit."""
        if limit is None:
            return
        self._told_times = self._told_times + 1 if limit == self._told_limit else 1
        self._told_limit = limit
        more = self.limit < min(limit, self._setting)
        if limit < self.limit or (more and self._told_times >= SURE_OF_MORE):
            self._news.limit = limit
            # It changes nothing while another shop's setting is smaller: no need to tell each time.
            self._told_times = 0
        elif limit == self.limit < self._setting:
            self._news.limit_stays = limit

    async def _introduce(self, connection: Connection) -> None:
        """In turn with others of the account: each sees the settings of those before."""
        async with connection.transaction():
            turn = "SELECT pg_advisory_xact_lock(hashtextextended('loop_attentive pace of ' || %(account)s, 0))"
            await connection.execute(turn, {"account": self._account})
            await connection.execute(
                sql("ledger/pace_open"),
                {
                    "account": self._account,
                    "shop": self._shop,
                    "setting": self._setting,
                    "now": self._now and self._now(),
                },
            )

    async def _compare_clocks(self, connection: Connection) -> float:
        self._compared_at = asked_at = self._monotonic()
        cursor = await connection.execute(sql("ledger/pace_now"), {"now": self._now and self._now()})
        row = await cursor.fetchone()
        assert row is not None, "a clock always tells"
        return self._clocks.learn(asked_at, row[0], row[0], self._monotonic())

    async def _exchange(self, connection: Connection, wanted: int, news: News) -> tuple[dict[str, Any], float, float]:
        asked_at = self._monotonic()
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                sql("ledger/pace_take"),
                {
                    "account": self._account,
                    "wanted": wanted,
                    "tokens": [permit.token for permit in news.back],
                    "free_again": [self._free_again(permit) for permit in news.back],
                    "pause": None if news.pause is None else timedelta(seconds=news.pause),
                    "longest_pause": timedelta(seconds=LONGEST_PAUSE),
                    "learned": news.limit,
                    "stays": news.limit_stays,
                    "period": PERIOD,
                    "horizon": HORIZON,
                    "hold": HOLD,
                    "now": self._now and self._now(),
                },
            )
            told = await cursor.fetchone()
        answered_at = self._monotonic()
        assert told is not None, "an account's row is made before it is used and never removed"
        return told, asked_at, answered_at

    def _free_again(self, permit: Permit) -> datetime:
        if permit.used_at is None:
            return permit.free_at
        return self._clocks.database_at_most(permit.used_at) + PERIOD
