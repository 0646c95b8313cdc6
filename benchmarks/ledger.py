"""How many events a second the ledger claims, marks and settles, in the small steps that sending uses.

    python -m benchmarks.ledger                         # ten million settled events: takes a while, and 10 GB of disk
    python -m benchmarks.ledger --settled 100000

What sends is the real Ledger on a real PostgreSQL, with claims, handfuls and settlements as large as delivery.py makes
them with the limit lifted; there is no HTTP, answers come at once, and all are good. Three ledgers take turns: an
empty one, one with a long history, and one in whose database somebody has left a REPEATABLE READ transaction open
since before the first event, so that nothing in it can be cleaned up. Figures are medians over the turns; ratios are
medians over pairs of turns that came one after the other.
"""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks import kit
from benchmarks.kit import Figure, median, parser, server, tell
from loop_attentive import db, punctual
from loop_attentive.attentive import Answer
from loop_attentive.delivery import CLAIM, HANDFUL, SETTLE_EVERY
from loop_attentive.ledger import Batch, Ledger, Origin, Settled
from loop_attentive.migrate import migrate
from loop_attentive.settings import Shop
from tests.sending import Book

SHOP = Shop(name="default")
EMPTY, LONG, PINNED = "empty", "long", "pinned"
OF_A_RUN = 1_000
"""Events of the history that one run sent; the runs themselves are left out, nothing asks for them."""

AT_LEAST = 5_000
WITHIN = 0.75

HISTORY = """
WITH settled AS (
    INSERT INTO event (
        event_id, shop, event_type, key, return_id, occurred_at, fact_at, detected_at, status, order_at, order_no,
        run_key, attempts, http_status, sent_at, sent_occurred_at
    )
    SELECT
        gen_random_uuid(), 'default', 'Loop Return Created', n::text, n::text, at, at, at, 'accepted', at, 0,
        %(run_key)s::bigint - n / %(of_a_run)s, 1, 200, at, at
    FROM
        generate_series(%(first)s::bigint, %(last)s::bigint) AS n,
        LATERAL (SELECT now() - interval '400 days' + n * interval '1 second' AS at) AS t
    RETURNING event_id, run_key, sent_at
)
INSERT INTO attempt (
    event_id, attempt, run_key, task_id, map_index, try_number, occurred_at, started_at, finished_at, outcome,
    http_status
)
SELECT event_id, 1, run_key, 'send', 0, 1, sent_at, sent_at, sent_at, 'accepted', 200 FROM settled
"""


def remember(book: Book, events: int, at_once: int = 500_000) -> None:
    """Gives a ledger a history of so many settled events."""
    with kit.without_indexes(book.connection, "event", "attempt"):
        for first in range(1, events + 1, at_once):
            last = min(first + at_once - 1, events)
            book.run(HISTORY, run_key=0, of_a_run=OF_A_RUN, first=first, last=last)
    book.run("VACUUM ANALYZE event, attempt")


async def send(conninfo: str, run_key: int) -> int:
    """Claims, marks and settles whatever is pending; how many that was."""
    line = partial(db.aconnect, conninfo, autocommit=True)
    ledger = Ledger(line, SHOP, Batch(), Origin(run_key), random.Random(1), None)  # noqa: S311
    answers: list[Settled] = []
    settled = 0
    all_marked = asyncio.Event()

    async def feed() -> None:
        await ledger.begin()
        claimed_all = False
        while ledger.in_hand or not claimed_all:
            wanted = CLAIM - len(ledger.in_hand)
            if not claimed_all and wanted >= CLAIM / 2:
                claimed_all = len(await ledger.claim(wanted, from_the_oldest=not settled)) < wanted
            marked, _ = await ledger.mark(list(ledger.in_hand.values())[:HANDFUL])
            at = time.monotonic()
            answers.extend(Settled(mark, Answer("accepted", 200), at, 0.0) for mark in marked)
        all_marked.set()

    async def settle() -> None:
        nonlocal settled
        while answers or not all_marked.is_set():
            if not all_marked.is_set():
                await asyncio.sleep(SETTLE_EVERY)
            now, answers[:] = answers[:], []
            if now:
                await ledger.settle(now, time.monotonic)
            settled += len(now)

    await asyncio.gather(feed(), settle())
    await ledger.close()
    return settled


def turn(book: Book, events: int) -> float:
    """Events a second, of so many."""
    book.add_many(events)
    book.run("CHECKPOINT")  # so that no turn pays for what came before it
    began = time.perf_counter()
    settled = punctual.run(send(book.conninfo, book.run_key))
    took = time.perf_counter() - began
    if settled != events:
        raise RuntimeError(f"{settled} of {events} events were settled.")
    return events / took


@contextmanager
def books(conninfo: str, settled: int) -> Iterator[dict[str, Book]]:
    """The three ledgers, each in a database of its own."""
    opened = {}
    for name in (EMPTY, LONG, PINNED):
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        migrate(own := make_conninfo(conninfo, dbname=name))
        opened[name] = Book(own, SHOP)
    remember(opened[LONG], settled)
    with closing(psycopg.connect(opened[PINNED].conninfo)) as somebody:
        somebody.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        somebody.execute("SELECT count(*) FROM loop_attentive.event")
        yield opened


def measure(conninfo: str, *, settled: int, events: int, turns: int) -> list[Figure]:
    rates = defaultdict(list)
    with books(conninfo, settled) as opened:
        for _ in range(turns):
            for name, book in opened.items():
                rates[name].append(turn(book, events))
    at_full_size = settled >= 10_000_000
    long, pinned = (
        median(other / empty for other, empty in zip(rates[name], rates[EMPTY], strict=True)) for name in (LONG, PINNED)
    )
    rate = median(rates[EMPTY])
    return [
        Figure("claim, mark and settle", rate, "events/s", f"at least {AT_LEAST:,}", rate >= AT_LEAST),
        Figure(
            f"the same with {settled:,} settled events",
            median(rates[LONG]),
            "events/s",
            f"at least {AT_LEAST:,}",
            median(rates[LONG]) >= AT_LEAST if at_full_size else None,
        ),
        Figure("- of the rate without", long, "x", f"at least {WITHIN}", long >= WITHIN if at_full_size else None),
        Figure(
            "the same with an old snapshot pinned",
            median(rates[PINNED]),
            "events/s",
            f"at least {AT_LEAST:,}",
            median(rates[PINNED]) >= AT_LEAST,
            f"{turns * events:,} events since it was taken",
        ),
        Figure("- of the rate without", pinned, "x", f"at least {WITHIN}", pinned >= WITHIN),
    ]


def main() -> None:
    arguments = parser("ledger", __doc__)
    arguments.add_argument("--settled", type=int, default=10_000_000, help="events of the long history")
    arguments.add_argument("--events", type=int, default=20_000, help="sent in each turn")
    arguments.add_argument("--turns", type=int, default=5)
    options = arguments.parse_args()
    with server() as conninfo:
        figures = measure(conninfo, settled=options.settled, events=options.events, turns=options.turns)
    tell(options, "The ledger", figures)


if __name__ == "__main__":
    main()
