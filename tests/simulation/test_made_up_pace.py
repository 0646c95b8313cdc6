"""The pace in made-up time: workers with clocks of their own, whose questions to the database are slow now and then."""

import asyncio
import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial

import psycopg
import pytest

from loop_attentive import db
from loop_attentive.pace import Pace
from tests.sending import busiest_second
from tests.simulation.attentive import JITTER
from tests.simulation.clockwork import Process, VirtualLoop
from tests.simulation.database import Database
from tests.simulation.schedule import BEGINNING

LIMIT = 20
SECONDS = 30.0

Mishaps = Callable[[random.Random, Process], None]


@pytest.fixture
def session(ledger: str) -> Iterator[psycopg.Connection]:
    with db.connect(ledger, autocommit=True) as session:
        yield session


async def use(process: Process, loop: VirtualLoop, pace: Pace, written: list[float], rng: random.Random) -> None:
    """Writes as fast as the pace allows."""
    await asyncio.sleep(rng.uniform(0, 3))
    while loop.time() < SECONDS:
        permits = await pace.take(rng.randint(1, LIMIT))
        for permit in permits:
            await asyncio.sleep(permit.usable_at - process.monotonic())
            if pace.holds(permit):
                pace.used(permit)
                written.append(loop.time() + rng.uniform(0, JITTER))
            else:
                pace.unused(permit)
        if not permits:
            await asyncio.sleep(max((pace.next_free_at or 0.0) - process.monotonic() - 0.075, 0.01))


def writes(session: psycopg.Connection, seed: int, mishaps: Mishaps) -> list[float]:
    """When three workers write, in seconds."""
    rng = random.Random(seed)
    loop = VirtualLoop()
    written: list[float] = []

    def now() -> datetime:
        return BEGINNING + timedelta(hours=seed, seconds=loop.time())

    database = Database(session, loop, random.Random(rng.random()), now, lambda _: None)
    tasks = []
    for number in range(3):
        process = Process(loop, number, rng, lambda _: None)
        mishaps(rng, process)
        connect = partial(database.connect, process)
        pace = Pace(connect, f"account {seed}", "default", LIMIT, monotonic=process.monotonic, now=now)  # type: ignore[arg-type]
        tasks.append(process.start(use(process, loop, pace, written, random.Random(rng.random()))))
    try:
        loop.run_until_complete(asyncio.wait(tasks))
    finally:
        loop.close()
    return sorted(written)


def slow_answers(rng: random.Random, process: Process) -> None:
    for nth in (1, *rng.sample(range(2, 40), 10)):
        point = rng.choice(("pace_take: heard", "pace_take: done"))
        process.mishaps[point, nth] = partial(Process.hold_up, seconds=rng.uniform(0.01, 0.5))


def stops(rng: random.Random, process: Process) -> None:
    for nth in rng.sample(range(1, 60), 6):
        process.mishaps["pace_take: told", nth] = partial(Process.stop, seconds=rng.choice((0.2, 0.2, 2.0)))


def nothing(rng: random.Random, process: Process) -> None:
    return


@pytest.mark.parametrize(("mishaps", "least"), [(nothing, 0.97), (slow_answers, 0.8), (stops, 0.8)])
@pytest.mark.parametrize("seed", range(10))
def test_no_second_holds_more_than_the_limit(
    session: psycopg.Connection, seed: int, mishaps: Mishaps, least: float
) -> None:
    moments = writes(session, seed, mishaps)
    assert busiest_second(moments) <= LIMIT
    steady = [at for at in moments if 4 <= at < SECONDS - 3]
    assert len(steady) >= least * LIMIT * (SECONDS - 7)
