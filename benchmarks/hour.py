"""The whole hourly run by how much changed and how long the history is: `python -m benchmarks.hour`.

A run is the look (extraction and mirror), every hourly rule with payloads and enqueuing, and the second judgement that
the plan makes; sending is measured elsewhere. Of the changed rows a quarter each are new returns, their labels, returns
whose status changes, and labels whose status changes, and each makes an event. Each new return is of somebody else, so
that nobody gets more than a person may in a day. The greatest history is that of a shop of 13 years; the others have
as many returns each day, for a shorter time. The mirror holds 120 days, but never all of a history: in each there are
as many returns an hour to be forgotten. Every hour begins after a checkpoint and a vacuum, as real ones do, and the
events of the hour before have been sent. Rules are judged two at a time, by processes, as tasks are, which have their
imports and their connection before, as tasks do.

Source: seconds for which the thread that reads waits for rows of the source, which here is on the same server; the look
goes on beside it.
"""

import logging
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from typing import Any

import psycopg
import sqlalchemy as sa

from benchmarks import kit
from benchmarks.kit import Figure, median
from loop_attentive import db, mirror, qualify, runs
from loop_attentive.canonical import Table
from loop_attentive.catalogue import CATALOGUE, EventType
from loop_attentive.mirror import Look
from loop_attentive.runs import Run
from loop_attentive.settings import RULES_LOOK_BACK_DAYS, Shop
from loop_attentive.source import Cursor, Raw, Source
from sandbox.warehouse import create, fill
from sandbox.warehouse.tables import TABLES

HOUR = timedelta(hours=1)
OLDEST = 13 * 365
"""Days since the first return of the greatest history."""

AT_ONCE = 2
"""Rules that are judged at the same time."""

HOURLY = [event for event in CATALOGUE if not event.daily]
ROWS_A_SECOND = 20_000

NEW_RETURNS = """
INSERT INTO loop.returns
SELECT
    number, 'open', 'refund', '#' || number, 'new.' || number || '@example.com', '+1678' || 2000000 + number %% 8000000,
    'https://sandbox.loopreturns.com/#/return/' || gen_random_uuid(), true, false, NULL, made_at, made_at, %(at)s, false
FROM
    (SELECT max(return_id) AS newest FROM loop.returns) AS before,
    generate_series(newest + 1, newest + %(rows)s) AS number,
    LATERAL (SELECT %(at)s::timestamptz - (number - newest) * interval '1 millisecond' AS made_at) AS made
"""
NEW_LABELS = """
INSERT INTO loop.labels
SELECT
    return_id, 'USPS', '92055' || lpad(return_id::text, 17, '0'), 'https://track.example.com/' || return_id,
    'https://labels.example.com/' || gen_random_uuid() || '.pdf', 'new', created_at, created_at::text, %(at)s
FROM loop.returns
ORDER BY return_id DESC
LIMIT %(rows)s
"""
OTHER_STATES = """
UPDATE loop.returns
SET state = CASE state WHEN 'closed' THEN 'open' ELSE 'closed' END, updated_at = %(at)s, synced_at = %(at)s
WHERE return_id IN (SELECT return_id FROM loop.returns ORDER BY return_id DESC OFFSET %(rows)s LIMIT %(rows)s)
"""
OTHER_LABELS = """
UPDATE loop.labels
SET
    status = CASE status WHEN 'in_transit' THEN 'delivered' ELSE 'in_transit' END,
    updated_at = %(at)s::timestamptz::text,
    synced_at = %(at)s
WHERE ctid IN (
    SELECT min(ctid)
    FROM loop.labels
    WHERE return_id IN (
        SELECT return_id::text FROM loop.returns ORDER BY return_id DESC OFFSET 2 * %(rows)s LIMIT %(rows)s
    )
    GROUP BY return_id
)
"""


class TimedSource(Source):
    """A source that knows how long it was waited for."""

    waited = 0.0

    def read(self, table: Table, since: Cursor) -> Iterator[Raw]:
        chunks = super().read(table, since)
        while True:
            began = time.monotonic()
            chunk = next(chunks, None)
            self.waited += time.monotonic() - began
            if chunk is None:
                return
            yield chunk


@dataclass(frozen=True)
class Cost:
    """Of one step: rows that it handled, and seconds; worker and database: of processor time.

    memory: MB that a process of the worker held at most so far. source: waiting for the source, beside the rest.
    """

    rows: int
    elapsed: float
    worker: float
    database: float
    memory: float
    source: float = 0.0


class Process:
    """This process's own time, and that of its connection's backend, from here on."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._pid = conn.info.backend_pid
        self._began = time.monotonic(), kit.processor_seconds(), kit.processor_seconds(self._pid)

    def cost(self, rows: int, source: float = 0.0) -> Cost:
        now = time.monotonic(), kit.processor_seconds(), kit.processor_seconds(self._pid)
        elapsed, worker, database = (after - before for before, after in zip(self._began, now, strict=True))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return Cost(rows, elapsed, worker, database, memory, source)


class Task:
    """What a process that judges rules has from its beginning."""

    conn: psycopg.Connection[Any]

    @classmethod
    def begin(cls, conninfo: str) -> None:
        logging.disable(logging.WARNING)
        cls.conn = db.connect(conninfo, autocommit=True)

    @classmethod
    def is_ready(cls, _: int) -> bool:
        return not cls.conn.closed

    @classmethod
    def judge(cls, shop: Shop, event: EventType, run: Run, now: datetime) -> Cost:
        process = Process(cls.conn)
        return process.cost(qualify.qualify(cls.conn, shop, event, run, now=now).created)


class Bench:
    """A shop with a made-up source and its own mirror and ledger, in one database."""

    def __init__(self, conninfo: str, *, mirror_days: int = 120) -> None:
        # of a size for which such hours are usual: nothing is held for a person
        self.shop = Shop(name="default", mirror_days=mirror_days, max_events_per_run=10_000_000)
        self.conn = db.connect(conninfo, autocommit=True)
        self._tasks = ProcessPoolExecutor(AT_ONCE, get_context("spawn"), Task.begin, (conninfo,))
        list(self._tasks.map(Task.is_ready, range(AT_ONCE)))
        self.engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo))
        self._runs = 0

    def close(self) -> None:
        self._tasks.shutdown()
        self.conn.close()
        self.engine.dispose()

    def history(self, returns: int, now: datetime, *, days: int, growth: float) -> None:
        """Fills the source; the last sync brought one row a table, so that little is read again in the next hours."""
        create(self.conn)
        self.without_index()
        fill(self.conn, returns=returns, now=now - 3 * HOUR, seed=1, days=days, growth=growth)
        self.with_index()
        self.sync(now)

    def with_index(self) -> None:
        for table in TABLES:
            self.conn.execute(f"CREATE INDEX {table}_synced_at ON loop.{table} (synced_at)")

    def without_index(self) -> None:
        for table in TABLES:
            self.conn.execute(f"DROP INDEX loop.{table}_synced_at")

    def sync(self, at: datetime) -> None:
        """A sync that brings one row a table."""
        for table in TABLES:
            newest = f"SELECT ctid FROM loop.{table} ORDER BY synced_at DESC LIMIT 1"
            self.conn.execute(f"UPDATE loop.{table} SET synced_at = %s WHERE ctid = ({newest})", [at])

    def look(self, at: datetime) -> tuple[Look, Cost]:
        source = TimedSource(self.engine, self.shop)
        process = Process(self.conn)
        look = mirror.look(self.conn, source, at=at)
        return look, process.cost(look.changed, source.waited)

    def rules(self, look: Look, events: Sequence[EventType] = HOURLY) -> Cost:
        """Judges the rules for a run of that look, some at once as tasks do, and again. rows: new events."""
        self._runs += 1
        run = runs.start(self.conn, dag_id="bench", run_id=str(self._runs), shop=self.shop.name, look=look)
        judge = partial(Task.judge, self.shop, run=run, now=look.as_of)
        process = Process(self.conn)
        tasks = list(self._tasks.map(judge, events))
        qualify.judge_again(self.conn, self.shop, now=look.as_of)
        plan = process.cost(sum(task.rows for task in tasks))
        return replace(
            plan,
            worker=plan.worker + sum(task.worker for task in tasks),
            database=plan.database + sum(task.database for task in tasks),
            memory=max(task.memory for task in tasks),
        )

    def settle(self) -> None:
        """All events have been sent, and an hour passes."""
        self.conn.execute("UPDATE event SET status = 'accepted', body = NULL WHERE status = 'pending'")
        self.conn.execute("VACUUM ANALYZE")
        self.conn.execute("CHECKPOINT")

    def change(self, rows: int, at: datetime) -> None:
        """About so many rows change in the source."""
        for query in (NEW_RETURNS, NEW_LABELS, OTHER_STATES, OTHER_LABELS) if rows else ():
            self.conn.execute(query, {"rows": rows // 4, "at": at})


def hours(bench: Bench, now: datetime, changes: int, repeats: int) -> Iterator[tuple[Cost, Cost]]:
    """So many hours in which so much changes, each after one in which nothing did: its look and its rules."""
    for _ in range(repeats):
        now += 3 * HOUR  # no row of the last change is read again
        bench.sync(now)
        bench.rules(bench.look(now)[0])
        now += HOUR
        bench.change(changes, now)
        bench.sync(now)
        bench.settle()
        look, looked = bench.look(now)
        yield looked, bench.rules(look)


def measure(returns: int, days: int, changes: Sequence[int], repeats: int) -> tuple[dict[int, float], list[Figure]]:
    """Seconds of the whole run by number of changes, and the figures, for one history."""
    totals, figures = {}, []
    mirror_days = min(120, max(days * 2 // 3, RULES_LOOK_BACK_DAYS + 1))  # settings allow no fewer
    with kit.server() as conninfo, closing(Bench(conninfo, mirror_days=mirror_days)) as bench:
        now = datetime.now(UTC)
        bench.history(returns, now, days=days, growth=1.0)
        look, looked = bench.look(now)
        judged = bench.rules(look, CATALOGUE)
        figures += told(f"{returns:,} returns, the first hour", [(looked, judged)], read=look.extracted)
        for rows in changes:
            costs = list(hours(bench, now, rows, repeats))
            now += 4 * HOUR * repeats
            totals[rows] = median(looked.elapsed + judged.elapsed for looked, judged in costs)
            figures += told(f"{returns:,} returns, {rows:,} changed", costs)
        bench.without_index()
        figures += told(f"{returns:,} returns, 0 changed, no index on synced_at", list(hours(bench, now, 0, 1)))
    return totals, figures


def told(name: str, costs: Sequence[tuple[Cost, Cost]], *, read: int = 0) -> list[Figure]:
    """The figures of some hours of one kind; read: rows of the source, where more were read than changed."""
    looks, rules = zip(*costs, strict=True)
    total = median(looked.elapsed + judged.elapsed for looked, judged in costs)
    rows = median(looked.rows for looked in looks)
    figures = [Figure(name, total, "s", note=f"{read:,} rows read" if read else "")]
    if rows >= ROWS_A_SECOND:
        met = None if read else rows / total >= ROWS_A_SECOND
        figures.append(Figure("  changed rows", rows / total, "rows/s", "" if read else "at least 20,000", met))
    return [
        *figures,
        Figure("  its look", median(cost.elapsed for cost in looks), "s"),
        Figure("  waiting for the source, beside its look", median(cost.source for cost in looks), "s"),
        Figure("  its rules", median(cost.elapsed for cost in rules), "s", note=f"{rules[-1].rows:,} new events"),
        Figure("  worker", median(a.worker + b.worker for a, b in costs), "processor s"),
        Figure("  database", median(a.database + b.database for a, b in costs), "processor s"),
    ]


def main() -> None:
    parser = kit.parser("hour", __doc__)
    parser.add_argument("--returns", type=int, nargs="+", default=[100_000, 10_000_000])
    parser.add_argument("--changes", type=int, nargs="+", default=[0, 1_000, 100_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--days", type=int, default=OLDEST, help="since the first return of the greatest history")
    options = parser.parse_args()
    logging.getLogger("loop_attentive").setLevel(logging.ERROR)  # outcomes without a word at Attentive are no surprise
    figures, totals = [], {}
    for returns in options.returns:
        days = max(round(options.days * returns / max(options.returns)), 1)
        totals[returns], some = measure(returns, days, options.changes, options.repeats)
        figures += some
    if len(totals) > 1:
        for rows in options.changes:
            ratio = totals[max(totals)][rows] / totals[min(totals)][rows]
            name = f"{rows:,} changed, the longest history against the shortest"
            figures.append(Figure(name, ratio, "times", "at most 1.2", ratio <= 1.2))
    kit.tell(options, "The hourly run", figures)


if __name__ == "__main__":
    main()
