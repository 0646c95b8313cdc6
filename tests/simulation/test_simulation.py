"""Schedules of mishaps, and proof that a sender which is wrong does not get through them."""

import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from threading import Event

import psycopg
import pytest

from loop_attentive import db
from tests.simulation.schedule import MISHAPS, POINTS, SAID_NO, Outcome, play, prepare
from tests.simulation.wrong_senders import WRONG_SENDERS, Wrong

SOME = range(150, 500)
MANY = range(500, 10_750)

RESENDS = ("accepted", "rejected", "throttled", "failed", "refused", "not sent", "unknown", "lost")
"""What may become of a request for what was in doubt."""

Seen = tuple[Counter[tuple[str, str]], set[str], Counter[str]]
"""What happened where in some schedules, where it could have happened, and what became of their resends."""


@pytest.fixture
def session(ledger: str) -> Iterator[psycopg.Connection]:
    with db.connect(ledger, autocommit=True) as session:
        prepare(session)
        yield session


def must_hold(outcome: Outcome) -> None:
    """Fails with the seed and its story."""
    story = "\n".join(outcome.story)
    assert not outcome.violation, f"seed {outcome.seed}: {outcome.violation}\n{story}"


def play_some(ledger: str, seeds: range, failed: Event) -> Seen:
    """Plays some schedules, each of which must hold; ends where those of the other do not."""
    logging.disable()  # in a process of its own, where nobody reads of databases that are away
    mishaps, reached, resends = Counter[tuple[str, str]](), set[str](), Counter[str]()
    with db.connect(ledger, autocommit=True) as session:
        prepare(session)
        for seed in seeds:
            if failed.is_set():
                break
            outcome = play(seed, session)
            if outcome.violation:
                failed.set()
            must_hold(outcome)
            mishaps += outcome.mishaps
            reached |= outcome.reached
            resends += outcome.resends
    return mishaps, reached, resends


def test_some_hundred_schedules(ledgers: Callable[[], str]) -> None:
    mishaps, reached, resends = play_in_parallel(ledgers, SOME)
    assert {what for _, what in mishaps} == {*MISHAPS, SAID_NO}
    assert reached <= set(POINTS), "there are points at which nothing can happen"
    assert {point for point, _ in mishaps} == {*POINTS, "any time"}, "something happened at every point"
    assert resends.keys() == set(RESENDS)
    assert resends["lost"] >= 10, "senders die while they send again"
    assert resends.total() - resends["accepted"] >= 50, "the weather is foul when they do"


@pytest.mark.long
def test_ten_thousand_schedules(ledgers: Callable[[], str]) -> None:
    mishaps, *_ = play_in_parallel(ledgers, MANY)
    everything = {(point, what) for point in POINTS for what in MISHAPS}
    assert everything <= mishaps.keys(), "everything happened at every point"


def play_in_parallel(ledgers: Callable[[], str], seeds: range) -> Seen:
    """On two processors, each with a ledger of its own: dead senders' events are anybody's, whatever their shop."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(2, context) as pool:
        parts = pool.map(play_some, [ledgers(), ledgers()], [seeds[::2], seeds[1::2]], [manager.Event()] * 2)
        mishaps, reached, resends = zip(*parts, strict=True)
        return sum(mishaps, Counter()), set().union(*reached), sum(resends, Counter())


def test_a_seed_plays_the_same_way_each_time(session: psycopg.Connection) -> None:
    first, again = (play(17, session) for _ in range(2))
    assert first == again
    assert len(first.story) > 10


@pytest.mark.parametrize("wrong", WRONG_SENDERS, ids=lambda wrong: wrong.name)
def test_a_wrong_sender_is_caught(session: psycopg.Connection, wrong: Wrong) -> None:
    must_hold(play(wrong.seed, session))
    with wrong.patched():
        outcome = play(wrong.seed, session)
    assert outcome.violation, "the seed catches it no longer: look for another"
    assert wrong.seen in outcome.violation
