"""The whole pipeline but Airflow: a warehouse that goes on living, looks, all rules, and the sender over HTTP.

The time is the story's own, so that a day between two looks takes no time. The warehouse keeps its own list of what is
due, worked out without the rules; what the stand-in received is held against it. A story is made by its seed alone.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from loop_attentive import audit, mirror, qualify, rules, runs
from loop_attentive.catalogue import CATALOGUE
from loop_attentive.settings import Shop
from loop_attentive.source import Source
from sandbox.attentive import Fault, Standin, running_standin
from sandbox.warehouse import World, create, fill, verdict
from tests.sending import KEY, Book, Sending, connect

HISTORY = 300
REQUESTS_PER_SECOND = 2000
MOST_DELIVERIES = 200
SECONDS_OF_A_DAY = 86_400

MISHAPS = (
    Fault(status=429, share=0.01),
    Fault(status=429, share=0.01, retry_after=2),
    Fault(status=500, share=0.05),
    Fault(status=503, share=0.01, body="html"),
    Fault(kind="reset", share=0.03, accepts=True),
    Fault(kind="reset", share=0.03),
)


class Clock:
    """The story's time: it goes on as the real one does, and can be set ahead."""

    def __init__(self, ahead: timedelta = timedelta(0)) -> None:
        self._ahead = ahead

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def skip(self, time: timedelta) -> None:
        self._ahead += max(time, timedelta(0))


class Story:
    """A shop with a history, its looks and deliveries, and what becomes of it step by step."""

    def __init__(self, conninfo: str, seed: int, standin: Standin, clock: Clock, returns: int = HISTORY) -> None:
        self.clock = clock
        self.rng = random.Random(seed)
        self.shop = Shop(name="default")
        self.engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo))
        self.conn = connect(conninfo)
        create(self.conn)
        fill(self.conn, returns=returns, now=clock(), seed=seed)
        self.world = World(self.conn, seed=seed)
        self.book = Book(conninfo, self.shop)
        self.send = Sending(self.book, standin.url, seed=seed)
        self._runs = 0
        for daily in (False, True):
            self.run(daily=daily)

    def close(self) -> None:
        self.conn.close()
        self.book.connection.close()
        self.engine.dispose()

    def step(self) -> None:
        """Some time passes, from a second to a day; things happen; the DAGs run, one after the other."""
        self.clock.skip(timedelta(seconds=SECONDS_OF_A_DAY ** self.rng.random()))
        self.world.step(self.conn, self.clock())
        for daily in self.rng.sample((False, True), 2):
            self.clock.skip(timedelta(seconds=7))
            self.run(daily=daily)

    def run(self, *, daily: bool) -> None:
        """What a run of the hourly or the daily DAG does."""
        self._runs += 1
        ledger = self.book.connection
        look = mirror.look(ledger, Source(self.engine, self.shop), at=self.clock())
        run = runs.start(ledger, dag_id="story", run_id=str(self._runs), shop=self.shop.name, look=look)
        events = [event for event in CATALOGUE if event.daily is daily]
        for event in events:
            qualify.qualify(ledger, self.shop, event, run, now=self.clock())
        qualify.judge_again(ledger, self.shop, now=self.clock())
        self.world.looked(look.as_of, daily=daily)
        self.book.run_key = run.run_key
        self.deliver()
        assert audit.audit(ledger, run.run_key, events).problems == []

    def deliver(self) -> None:
        """Delivers until nothing is left that may leave by itself, however long that takes in the story's time."""
        for _ in range(MOST_DELIVERIES):
            delivery = self.send(now=self.clock, still_due=rules.still_due_sql, requests_per_second=REQUESTS_PER_SECOND)
            come_back_at = asyncio.run(delivery).come_back_at
            if come_back_at is None:
                return
            self.clock.skip(come_back_at - self.clock())
        raise AssertionError(f"{MOST_DELIVERIES} deliveries were not enough")


@contextmanager
def story(conninfo: str, seed: int, *faults: Fault) -> Iterator[tuple[Story, Standin]]:
    clock = Clock()
    with running_standin(key=KEY, limit=None, seed=seed, now=clock) as standin:
        standin.faults.extend(faults)
        with closing(Story(conninfo, seed, standin, clock)) as told:
            yield told, standin


def accepted(standin: Standin) -> list[dict[str, Any]]:
    """Bodies that the stand-in took in, whatever it answered."""
    return [record.body for record in standin.received if record.accepted and record.body]


@pytest.mark.parametrize("seed", range(4))
def test_everything_due_is_received_once_and_nothing_else(ledger: str, seed: int) -> None:
    with story(ledger, seed) as (told, standin):
        for _ in range(4):
            told.step()
        judged = told.world.verdict(accepted(standin))
        assert judged.is_good, f"seed {seed}: {judged}"
        assert judged.due > 200, f"seed {seed} is not much of a story"
        assert set(told.book.states()) <= {"accepted", "suppressed", "invalid", "expired"}, f"seed {seed}"
        told.book.check_sums()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 108))
def test_a_long_story(ledger: str, seed: int) -> None:
    with story(ledger, seed) as (told, standin):
        for _ in range(25):
            told.step()
        judged = told.world.verdict(accepted(standin))
        assert judged.is_good, f"seed {seed}: {judged}"
        told.book.check_sums()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(200, 208))
def test_with_mishaps_every_event_is_accepted_or_known_to_be_in_doubt(ledger: str, seed: int) -> None:
    with story(ledger, seed, *(Fault(**fault.settings()) for fault in MISHAPS)) as (told, standin):
        for _ in range(8):
            told.step()
        bodies = accepted(standin)
        arrivals = Counter(body["externalEventId"] for body in bodies)
        rows = told.book.all(
            "SELECT event_id::text, status, (SELECT count(*) FROM attempt AS a "
            "WHERE a.event_id = e.event_id AND a.outcome = 'unknown') AS doubts FROM event AS e WHERE attempts > 0"
        )
        events = {row["event_id"]: row for row in rows}

        assert {row["status"] for row in rows} == {"accepted", "unknown"}, f"seed {seed}"
        assert {i for i, row in events.items() if row["status"] == "accepted"} <= arrivals.keys() <= events.keys()
        repeated = [i for i, count in arrivals.items() if count > 1 + events[i]["doubts"]]
        assert not repeated, f"seed {seed}: sent again without a doubt"

        judged = verdict(told.world.due, {body["externalEventId"]: body for body in bodies}.values())
        lost = [i for i, row in events.items() if row["status"] == "unknown" and i not in arrivals]
        assert judged.unexpected + judged.wrong + judged.doubled == [], f"seed {seed}"
        assert len(judged.missing) == len(lost), f"seed {seed}: {judged}"
        assert any(row["doubts"] for row in rows), f"seed {seed}: nothing went wrong"
        told.book.check_sums()
