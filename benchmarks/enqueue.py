"""What it takes to enqueue events, whatever the ledger holds already: `python -m benchmarks.enqueue`.

Enqueued is what a rule yielded and what has been judged: each row is looked up in the ledger by its key, and those that
it does not know are written, pending, with their body, their id and all their indexes, in one transaction a rule,
which looks last at how much that is, of the type and for each person.
Measured in turns on an empty ledger, on one with millions of settled events, and on that one while a transaction holds
a snapshot from before; a ratio is the median over these pairs.
"""

import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from itertools import count
from multiprocessing import get_context
from typing import Any, LiteralString, cast

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks import kit
from benchmarks.kit import Figure, median
from loop_attentive import db, guard, qualify, runs
from loop_attentive.canonical import Row
from loop_attentive.catalogue import CATALOGUE, EventType
from loop_attentive.migrate import migrate
from loop_attentive.mirror import Look
from loop_attentive.runs import Run
from loop_attentive.settings import Shop

Connection = psycopg.Connection[Any]

SHOP = Shop(name="default", max_events_per_run=10_000_000)
AT_ONCE = 2
"""Rules that are judged at the same time, by processes as tasks are."""

EVENTS = CATALOGUE[:AT_ONCE]
FIRST_ID = 50_000_000

BODY = (
    '{"user":{"phone":"+12125550123","email":"jane.doe@example.com"},"properties":{"returnId":50000000,'
    '"returnStatus":"open","order":"#1234","statusPageUrl":'
    '"https://sandbox.loopreturns.com/#/return/6f1c6d0e-5f0b-5c1a-9a53-1d2b7c0e4f68","labelsEnabled":true,'
    '"label":"https://labels.example.com/6f1c6d0e5f0b5c1a9a531d2b7c0e4f68.pdf","trackingNumber":"9205500000000012345",'
    '"trackingUrl":"https://track.example.com/9205500000000012345","trackingStatus":"new","trackingCarrier":"USPS",'
    '"returnOutcome":"refund"}}'
)

DUE = """
CREATE TEMP TABLE due ON COMMIT PRESERVE ROWS AS
SELECT
    n::text AS return_id, n::text AS key, %(at)s::timestamptz AS fact_at, %(at)s::timestamptz AS occurred_at,
    'itself' AS timed_by, NULL::timestamptz AS looked_after, '{}'::jsonb AS detail
FROM generate_series(%(first)s, %(first)s + %(rows)s - 1) AS n
"""
SETTLED = """
INSERT INTO event (
    event_id, shop, event_type, key, return_id, occurred_at, fact_at, detected_at, status, order_at, order_no, run_key,
    attempts, http_status, sent_at, sent_occurred_at
)
SELECT
    gen_random_uuid(), 'default',
    (%(types)s::text[])[1 + n %% 4],
    return_id
    || (ARRAY['', '|92055' || return_id, '|closed|' || at, '|92055' || return_id || '|delivered|' || at])[1 + n %% 4],
    return_id, at, at, at, 'accepted', at, n %% 4, 1 + n / 1000, 1, 200, at, at
FROM generate_series(1, %(events)s) AS n
CROSS JOIN LATERAL (
    SELECT
        (%(first)s - 1 - (%(events)s - n) / 4)::text AS return_id,
        now() - (%(events)s - n) * interval '3 seconds' AS at
) AS made
"""


def settle_many(conn: Connection, events: int) -> None:
    """Fills the ledger with accepted events, four a return."""
    with kit.without_indexes(conn, "event"):
        run(conn, SETTLED, events=events, first=FIRST_ID, types=[event.name for event in CATALOGUE[:4]])
    run(conn, "VACUUM ANALYZE event")
    run(conn, "CHECKPOINT")


def run(conn: Connection, query: str, **parameters: Any) -> None:
    conn.execute(cast(LiteralString, query), parameters)


class Task:
    """What a process that enqueues has from its beginning: a session of its own, and the events of one rule."""

    conn: Connection
    event: EventType
    run: Run
    judged: Sequence[Row]

    @classmethod
    def begin(cls, conninfo: str, event: EventType) -> None:
        logging.disable(logging.INFO)
        cls.conn, cls.event = db.connect(conninfo, autocommit=True), event

    @classmethod
    def prepare(cls, run: Run, first: int, rows: int) -> None:
        """What the rule yields in a run, as a table, and its judgement."""
        at = run.as_of - timedelta(minutes=5)
        cls.conn.execute("DROP TABLE IF EXISTS due")
        psycopg.ClientCursor(cls.conn).execute(DUE, {"first": first, "rows": rows, "at": at})
        cls.run = run
        cls.judged = [
            (str(n), str(n), at, at, True, "{}", "pending", None, BODY, scattered(n), scattered(-n))
            for n in range(first, first + rows)
        ]

    @classmethod
    def enqueue(cls) -> None:
        with cls.conn.transaction(), psycopg.ClientCursor(cls.conn) as cur:
            cur.execute(db.sql("qualify/candidates"))
            cur.execute(
                db.sql("qualify/yield").replace("{rule}", "SELECT * FROM due"),
                {
                    "shop": SHOP.name, "event_type": cls.event.name, "reminder": cls.event.reminder,
                    "starts_at": cls.run.as_of - timedelta(days=1), "restored_at": None,
                    "window_start": None, "window_end": None,
                },
            )  # fmt: skip
            [(known,)] = cur.execute("SELECT count(*) FILTER (WHERE is_known) FROM candidate")
            if known:
                assert known == len(cls.judged), "what has just been enqueued is known"
            else:
                qualify.store(cur, cls.judged, SHOP, cls.event, cls.run)
                guard.hold_new(cur, SHOP, cls.event, cls.run, cls.run.as_of)


def scattered(number: int) -> int:
    """As the hash of a contact is."""
    return number * 0x9E3779B97F4A7C15 % 2**64 - 2**63


class Bench:
    """A ledger to enqueue into, by some rules at once, each in a process of its own."""

    def __init__(self, conninfo: str, settled: int) -> None:
        migrate(conninfo)
        self.conninfo, self.settled = conninfo, settled
        self.conn = db.connect(conninfo, autocommit=True)
        if settled:
            settle_many(self.conn, settled)
        spawn = get_context("spawn")
        self._tasks = [ProcessPoolExecutor(1, spawn, Task.begin, (conninfo, event)) for event in EVENTS]
        self._first = count(FIRST_ID, 1_000_000)

    def close(self) -> None:
        for task in self._tasks:
            task.shutdown()
        self.conn.close()

    def enqueue(self, rows: int, at_once: int = AT_ONCE, *, pinned: bool = False) -> tuple[float, float]:
        """Rows a second of so many new events, shared by some tasks; and of the same again, which are known by then."""
        first, tasks, look = next(self._first), self._tasks[:at_once], Look(datetime.now(UTC), 0, 0)
        found_by = runs.start(self.conn, dag_id="bench", run_id=str(uuid.uuid4()), shop=SHOP.name, look=look)
        all_of(task.submit(Task.prepare, found_by, first, rows // at_once) for task in tasks)
        with self._pinned() if pinned else nullcontext():
            speeds = rows / self._elapsed(tasks), rows / self._elapsed(tasks)
        if self.settled:
            run(self.conn, "DELETE FROM event WHERE run_key = %(run_key)s", run_key=found_by.run_key)
            run(self.conn, "VACUUM event")
        else:
            run(self.conn, "TRUNCATE event CASCADE")
        return speeds

    def _elapsed(self, tasks: Sequence[Executor]) -> float:
        began = time.monotonic()
        all_of(task.submit(Task.enqueue) for task in tasks)
        return time.monotonic() - began

    @contextmanager
    def _pinned(self) -> Iterator[None]:
        """While somebody's transaction holds a snapshot."""
        with psycopg.connect(self.conninfo) as conn:
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            conn.execute("SELECT count(*) FROM pg_class")
            yield


def all_of(futures: Iterable[Future[None]]) -> None:
    """Waits until all are done; raises what went wrong in one."""
    for future in list(futures):
        future.result()


def measure(conninfo: str, rows: int, settled: int, repeats: int) -> list[Figure]:
    with psycopg.connect(conninfo, autocommit=True) as server:
        server.execute("CREATE DATABASE old")
    speeds = []
    with closing(Bench(conninfo, 0)) as empty, closing(Bench(make_conninfo(conninfo, dbname="old"), settled)) as old:
        for _ in range(repeats):
            (alone, _), (fresh, _) = empty.enqueue(rows, 1), empty.enqueue(rows)
            (aged, known), (pinned, _) = old.enqueue(rows), old.enqueue(rows, pinned=True)
            speeds.append((alone, fresh, aged, known, pinned))
    alone, fresh, aged, known, pinned = (median(column) for column in zip(*speeds, strict=True))
    by_history, by_snapshot = median(s[1] / s[2] for s in speeds), median(s[2] / s[4] for s in speeds)
    return [
        Figure(f"into an empty ledger, {AT_ONCE} rules at once", fresh, "rows/s", "at least 50,000", fresh >= 50_000),
        Figure("  one rule alone", alone, "rows/s"),
        Figure(f"into one of {settled:,} settled events", aged, "rows/s", "at least 50,000", aged >= 50_000),
        Figure("  the time it takes, against the empty one", by_history, "times", "at most 1.25", by_history <= 1.25),
        Figure("  with an old snapshot pinned", pinned, "rows/s", "at least 50,000", pinned >= 50_000),
        Figure("  the time it takes, against none pinned", by_snapshot, "times", "at most 1.25", by_snapshot <= 1.25),
        Figure("  rows that it knows already", known, "rows/s"),
    ]


def main() -> None:
    parser = kit.parser("enqueue", __doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--settled", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with kit.server() as conninfo:
        figures = measure(conninfo, options.rows, options.settled, options.repeats)
    kit.tell(options, f"Enqueuing {options.rows:,} events", figures)


if __name__ == "__main__":
    main()
