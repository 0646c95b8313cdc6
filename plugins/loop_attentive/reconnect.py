"""One connection to the ledger that outlives the server's restarts."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg

from loop_attentive.db import DatabaseAway, unreachable
from loop_attentive.errors import NeedsMending

log = logging.getLogger(__name__)

T = TypeVar("T")
Connection = psycopg.AsyncConnection[Any]
Connect = Callable[[], Awaitable[Connection]]

PATIENCE = 180.0
"""Seconds that an unreachable database is waited for before the work is given up."""

ANSWER_WITHIN = 25.0
"""Seconds after which a database that neither answers nor hangs up counts as lost. Leases can still be renewed then."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0

LOST = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    TimeoutError,
)
"""What says that the server is gone, has become a standby, or has ended the session of a sender that stood still."""


class Reconnecting:
    """Runs work on a connection of its own, one piece at a time, and again when the connection was lost.

    connect: yields a connection in autocommit; work of several statements opens its transaction itself.
    restored: whether a lost commit took place is not known, so work must bear being done twice, or this, run on
    every new connection but the first, must undo what nobody heard of.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        restored: Callable[[Connection], Awaitable[None]] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._connect = connect
        self._restored = restored
        self._patience = patience
        self._connection: Connection | None = None
        self._was_lost = False
        self._one_at_a_time = asyncio.Lock()

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Work's result, committed. Raises DatabaseAway when the database stayed away too long."""
        async with self._one_at_a_time:
            give_up_at = asyncio.get_running_loop().time() + self._patience
            pause = FIRST_PAUSE
            while True:
                try:
                    async with asyncio.timeout(ANSWER_WITHIN):
                        return await self._once(work)
                except LOST as error:
                    await self._forget()
                    self._raise_if_hopeless(error, give_up_at)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _once(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        if self._connection is None:
            self._connection = await self._connect()
            if self._was_lost and self._restored:
                await self._restored(self._connection)
            self._was_lost = False
        return await work(self._connection)

    def _raise_if_hopeless(self, error: Exception, give_up_at: float) -> None:
        if isinstance(error, psycopg.OperationalError) and isinstance(told := unreachable(error), NeedsMending):
            raise told from None
        if asyncio.get_running_loop().time() >= give_up_at:
            raise DatabaseAway("The ledger's database went away while events were sent, and stayed away.") from None
        log.warning("The ledger's database cannot be reached just now (%s); trying again.", type(error).__name__)

    async def _forget(self) -> None:
        self._was_lost = True
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def close(self) -> None:
        if self._connection is not None:
            await self._forget()
