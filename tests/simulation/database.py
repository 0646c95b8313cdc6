"""The real PostgreSQL, behind lines that are slow, break, or lose an answer."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import cache
from typing import Any

import psycopg

from loop_attentive.catalogue import INCLUDE
from tests.sending import STANDS_IN
from tests.simulation.clockwork import Process, VirtualLoop

SLOWEST = 0.002
"""Seconds that a question or an answer is on its way at most, when all is well."""

LATE = (0.0, 0.05, 1.0, 20.0)
"""Seconds at most after which what was asked on a line that broke is done after all, where it is."""


class Database:
    """All lines lead to one session, one statement or transaction after the other, in the order of made-up time.

    now: its clock.
    """

    def __init__(
        self,
        session: psycopg.Connection[Any],
        loop: VirtualLoop,
        rng: random.Random,
        now: Callable[[], datetime],
        tell: Callable[[str], None],
    ) -> None:
        self.session = session
        self.now = now
        self.away_until = float("-inf")
        self.lines: set[Line] = set()
        self._loop = loop
        self._rng = rng
        self._tell = tell

    async def connect(self, process: Process) -> "Line":
        await process.reaches("database: connect")
        await self.travel()
        process.must_be_alive()
        if self._loop.time() < self.away_until:
            raise psycopg.OperationalError("connection refused (made up)")
        line = Line(self, process)
        self.lines.add(line)
        return line

    async def travel(self) -> None:
        await asyncio.sleep(self._rng.uniform(0, SLOWEST))

    def may_do_late(self, line: "Line", query: str, parameters: Any) -> None:
        """A statement that was on its way when its line broke: it is done though nobody waits for it, or it is not."""
        within = self._rng.choice(LATE)
        if within:
            self._tell(f"{name_of(query)} of process {line.process.number} is on its way though its line has broken")
            self._loop.call_later(self._rng.uniform(0, within), self._do_late, query, parameters)

    def _do_late(self, query: str, parameters: Any) -> None:
        if self._loop.time() >= self.away_until:
            self.run(query, parameters, None)

    def run(self, query: str, parameters: Any, row_factory: Any) -> "Rows":
        if parameters and parameters.get("now"):
            parameters = parameters | {"now": self.now()}  # read when it runs, not when it was asked
        with self.session.cursor(row_factory=row_factory or psycopg.rows.tuple_row) as cursor:
            cursor.execute(query, parameters)
            return Rows(cursor.fetchall() if cursor.description else [])

    def goes_away(self, seconds: float) -> None:
        """Crashes, and is there again later; what was committed stays."""
        self._tell(f"the database is away for {seconds:.1f} s")
        self.away_until = max(self.away_until, self._loop.time() + seconds)
        for line in list(self.lines):
            line.break_off()


class Line:
    """Stands for a psycopg.AsyncConnection in autocommit."""

    def __init__(self, database: Database, process: Process) -> None:
        self._database = database
        self.process = process
        self._in_transaction = False
        self._broken = self._was_cut = False
        self._last_asked = ""

    def break_off(self, *, cut: bool = False) -> None:
        """cut: what was asked on it may arrive all the same."""
        self._broken = True
        self._was_cut = cut
        self._database.lines.discard(self)

    async def execute(self, query: str, parameters: Any = None, row_factory: Any = None) -> "Rows":
        if self._in_transaction:
            self.process.hit("inside a transaction")  # nobody can wait here: all lines share the session
            self._must_stand()
            return self._database.run(query, parameters, row_factory)
        name = name_of(query)
        try:
            await self._ask(name)
        except psycopg.OperationalError:
            if self._was_cut:
                self._database.may_do_late(self, query, parameters)
            raise
        rows = self._database.run(query, parameters, row_factory)
        await self._hear(name)
        return rows

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        # Nobody claims on a line before it has begun: a transaction that comes first gives back what nobody heard of,
        # or makes an account's pace known.
        name = {"by_key": "restoring", "": "pace_open"}.get(self._last_asked, "transaction")
        await self._ask(name)
        self._database.session.execute("BEGIN")
        self._in_transaction = True
        try:
            yield
        except BaseException:
            self._database.session.execute("ROLLBACK")
            raise
        else:
            self._database.session.execute("COMMIT")
        finally:
            self._in_transaction = False
        await self._hear(name)

    def cursor(self, row_factory: Any = None) -> "Cursor":
        return Cursor(self, row_factory)

    async def close(self) -> None:
        self.break_off()

    async def _ask(self, name: str) -> None:
        self._last_asked = name
        await self.process.reaches(f"{name}: asked")
        await self._database.travel()
        await self.process.reaches(f"{name}: heard")
        self._must_stand()

    async def _hear(self, name: str) -> None:
        await self.process.reaches(f"{name}: done")
        await self._database.travel()
        await self.process.reaches(f"{name}: told")
        self._must_stand()

    def _must_stand(self) -> None:
        self.process.must_be_alive()
        if self._broken:
            raise psycopg.OperationalError("the connection is lost (made up)")


class Rows:
    """A finished statement's rows."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = iter(rows)

    async def fetchone(self) -> Any:
        return next(self._rows, None)

    async def fetchall(self) -> list[Any]:
        return list(self._rows)


class Cursor:
    """Stands for a psycopg.AsyncCursor."""

    def __init__(self, line: Line, row_factory: Any) -> None:
        self._line = line
        self._row_factory = row_factory
        self._rows = Rows([])

    async def __aenter__(self) -> "Cursor":
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def execute(self, query: str, parameters: Any = None) -> None:
        self._rows = await self._line.execute(query, parameters, self._row_factory)

    async def fetchone(self) -> Any:
        return await self._rows.fetchone()

    async def fetchall(self) -> list[Any]:
        return await self._rows.fetchall()


def name_of(query: str) -> str:
    """The statement's file, by its first line."""
    return _names().get(query.partition("\n")[0], "other")


@cache
def _names() -> dict[str, str]:
    files = (*(INCLUDE / "sql" / "ledger").glob("*.sql"), INCLUDE / "sql" / "mirror" / "freshness.sql")
    return {STANDS_IN: "still_due"} | {file.read_text().partition("\n")[0]: file.stem for file in files}
