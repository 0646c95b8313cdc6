"""What the purge of old events costs a sender that works beside it, and how fast it goes.

    python -m benchmarks.purge                          # a million settled events that are due to go
    python -m benchmarks.purge --old 200000

What sends is the real Ledger as in benchmarks/ledger.py; what purges is retention.py as the daily run calls it, in a
process of its own, with its rests. Turns of the sender alone and beside the purge alternate on one ledger; figures are
medians over the turns, the ratio is the median of pairs that came one after the other.
"""

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from benchmarks import kit
from benchmarks.kit import Figure, median, parser, server, tell
from benchmarks.ledger import HISTORY, turn
from loop_attentive import db, retention
from loop_attentive.settings import Shop
from sandbox.processes import wait_until
from tests.sending import Book

SHOP = Shop(name="default", mirror_days=40, retention_days=100)
"""For which all of ledger.py's history is due to go."""

EVENTS_IN_A_RUN = 10_000
AT_LEAST = 0.9

OLD_RUN = """
INSERT INTO run (dag_id, run_id, shop, as_of, requests)
VALUES ('d', 'old ' || %(first)s, 'default', now() - interval '380 days', %(requests)s)
RETURNING run_key
"""


def remember(book: Book, events: int) -> None:
    """A history of so many settled events, all of them older than the shop keeps any."""
    book.run("ALTER TABLE event ALTER own_time SET DEFAULT true")
    with kit.without_indexes(book.connection, "event", "attempt"):
        for first in range(1, events + 1, EVENTS_IN_A_RUN):
            run_key = book.one(OLD_RUN, first=first, requests=EVENTS_IN_A_RUN)
            last = min(first + EVENTS_IN_A_RUN - 1, events)
            book.run(HISTORY, run_key=run_key, of_a_run=events + 1, first=first, last=last)
    book.run("VACUUM ANALYZE event, attempt")


def purge(conninfo: str) -> None:
    """As the daily run does, until it is killed."""
    with db.connect(conninfo, autocommit=True) as conn:
        retention.purge(conn, SHOP, longest=timedelta(hours=3))


@contextmanager
def purging(book: Book, rates: list[float]) -> Iterator[None]:
    """While a purge is in its midst. rates: gets how many events a second it deleted meanwhile."""
    before = gone(book)
    process = multiprocessing.get_context("spawn").Process(target=purge, args=(book.conninfo,))
    process.start()
    has_begun = "the purge deletes what is old, or has ended"
    wait_until(lambda: gone(book) != before or not process.is_alive(), has_begun, seconds=60, every=0.05)
    first, began = gone(book), time.perf_counter()
    yield
    rates.append((gone(book) - first) / (time.perf_counter() - began))
    if not process.is_alive():
        raise RuntimeError("The purge had nothing left to do while the sender was still at work: give it more --old.")
    process.kill()
    process.join()


def gone(book: Book) -> int:
    """How many events have been purged."""
    return int(book.one("SELECT coalesce(sum(events), 0) FROM purged"))


def measure(conninfo: str, *, old: int, events: int, turns: int) -> list[Figure]:
    book = Book(conninfo, SHOP)
    remember(book, old)
    alone, beside, purged = [], [], list[float]()
    turn(book, events)  # the first pays for what is read for the first time
    for _ in range(turns):
        alone.append(turn(book, events))
        with purging(book, purged):
            beside.append(turn(book, events))
    ratio = median(one / other for one, other in zip(beside, alone, strict=True))
    return [
        Figure(f"claim, mark and settle, {old:,} old events in the ledger", median(alone), "events/s"),
        Figure("the same while they are purged", median(beside), "events/s"),
        Figure("- of the rate without", ratio, "x", f"at least {AT_LEAST}", ratio >= AT_LEAST, "median of pairs"),
        Figure(
            "purged meanwhile", median(purged), "events/s", note="a step of 2,000, then a rest of three times its time"
        ),
    ]


def main() -> None:
    arguments = parser("purge", __doc__)
    arguments.add_argument("--old", type=int, default=1_000_000, help="events that are due to go")
    arguments.add_argument("--events", type=int, default=20_000, help="sent in each turn")
    arguments.add_argument("--turns", type=int, default=5)
    options = arguments.parse_args()
    with server() as conninfo:
        figures = measure(conninfo, old=options.old, events=options.events, turns=options.turns)
    tell(options, "Purging beside a sender", figures)


if __name__ == "__main__":
    main()
