"""From a changed row in the warehouse to its request, behind a backlog: `python -m benchmarks.latency`.

A return is made in the warehouse; then comes what an hourly run does, without Airflow: look, every hourly rule, plan,
claim, mark, request. Told is the time from the row's commit to the request's arrival at the server, medians over
repeats, with a backlog in the ledger that does not stand before the event: of another shop, and of the same shop but
due tomorrow. Airflow's own time comes on top: see benchmarks/airflow.py.

What is due and older does stand before it, at the pace of Attentive: with 10,000 such events the event is waited for
to the end; with more of them told is how soon the first request leaves.

And the memory of a sending task, for as long as it is watched, by the backlog that it works on.
"""

import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg
import sqlalchemy as sa

from benchmarks import peers
from benchmarks.endpoint import Endpoint, endpoint
from benchmarks.kit import Figure, median, parser, server, tell
from loop_attentive import db, mirror, punctual, qualify, runs
from loop_attentive.attentive import AttentiveTransport
from loop_attentive.attentive import Endpoint as To
from loop_attentive.catalogue import CATALOGUE
from loop_attentive.delivery import Batch, Delivered, Origin, deliver
from loop_attentive.pace import Pace
from loop_attentive.rules import still_due_sql
from loop_attentive.settings import Shop
from loop_attentive.source import Source
from sandbox.processes import API_KEY
from sandbox.warehouse import create, fill
from tests.sending import Book

RETURNS = 2000
HOURLY = [event for event in CATALOGUE if not event.daily]

LATENCY = 0.08
FLAT_WITHIN = 50
"""Megabytes."""

FEW = 1000
LIFTED = 3_000
"""Requests a second: more than is reached."""

TOMORROW = timedelta(days=1)

NEW_RETURN = """
INSERT INTO loop.returns
SELECT new.*
FROM
    loop.returns AS old,
    jsonb_populate_record(old, jsonb_build_object(
        'return_id', (SELECT max(return_id) + 1 FROM loop.returns),
        'created_at', clock_timestamp(), 'updated_at', clock_timestamp(), 'synced_at', clock_timestamp()
    )) AS new
WHERE old.return_id = (SELECT min(return_id) FROM loop.returns WHERE state = 'open' AND customer_phone IS NOT NULL)
"""


@dataclass(frozen=True)
class Steps:
    """Seconds from the row's commit until each step is done; the last is the request's arrival."""

    look: float
    rules: float
    plan: float
    request: float


class House:
    """A shop whose history is known, with its warehouse in the ledger's database."""

    def __init__(self, conninfo: str, to: Endpoint) -> None:
        self.conninfo = conninfo
        self.to = to
        self.shop = Shop(name="default", max_per_person_per_day=1_000_000)  # all new returns are of one person
        self.conn = db.connect(conninfo, autocommit=True)
        self.engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo))
        create(self.conn)
        fill(self.conn, returns=RETURNS, now=datetime.now(UTC), seed=1)
        self._judge(self._look())
        self.conn.execute("VACUUM ANALYZE")

    def close(self) -> None:
        self.conn.close()
        self.engine.dispose()

    def change(self) -> Steps:
        """A new return, all the way to Attentive."""
        self.to.reset(LATENCY)
        self.conn.execute(NEW_RETURN)
        began = time.monotonic()
        look = self._look()
        looked = time.monotonic()
        run_key = self._judge(look)
        judged = time.monotonic()
        qualify.judge_again(self.conn, self.shop)
        self.conn.execute(db.sql("ledger/plan"), {"shop": self.shop.name})
        planned = time.monotonic()
        delivered = punctual.run(self._send(run_key))
        stats = self.to.stats()
        if delivered.counts != {"accepted": 1} or stats["requests"] != 1:
            raise RuntimeError(f"One request was to leave; it was {delivered.counts}.")
        return Steps(looked - began, judged - began, planned - began, stats["first_at"] - began)

    def _look(self) -> mirror.Look:
        return mirror.look(self.conn, Source(self.engine, self.shop))

    def _judge(self, look: mirror.Look) -> int:
        run = runs.start(self.conn, dag_id="bench", run_id=str(uuid.uuid4()), shop=self.shop.name, look=look)
        for event in HOURLY:
            qualify.qualify(self.conn, self.shop, event, run)
        return run.run_key

    async def _send(self, run_key: int) -> Delivered:
        line = partial(db.aconnect, self.conninfo, autocommit=True)
        async with AttentiveTransport(To(self.to.url, API_KEY)) as transport:
            pace = Pace(line, transport.account, self.shop.name, self.shop.requests_per_second)
            return await deliver(line, self.shop, Batch(), Origin(run_key), transport, pace, still_due=still_due_sql)


def backlog(conninfo: str, shop: Shop, events: int, due_in: timedelta | None = None) -> Book:
    """So many pending events, the newest a while ago; the database has taken note of them."""
    book = Book(conninfo, shop)
    book.add_many(events)
    if due_in:
        book.run("UPDATE event SET due_at = now() + %(wait)s WHERE run_key = %(run)s", wait=due_in, run=book.run_key)
    book.run("VACUUM ANALYZE event")
    return book


def to_request(house: House, repeats: int, behind: str) -> Figure:
    steps = [house.change() for _ in range(repeats)]
    look, rules, plan, request = (median(getattr(one, part) for one in steps) for part in Steps.__annotations__)
    note = f"look {look:.2f}, rules {rules - look:.2f}, plan {plan - rules:.2f}, sending {request - plan:.2f} s"
    return Figure(f"to its request, {behind}", request, "s", note=note)


def behind_due(book: Book, to: Endpoint, events: int) -> Figure:
    """How long the newest of so many due events waits at the pace of Attentive, once the task has started."""
    to.reset(LATENCY)
    peers.alone(peers.this_project, to.url, book.conninfo, book.shop, book.run_key)
    stats = to.stats()
    pace = book.shop.requests_per_second
    name = f"behind {events:,} due events, {pace} a second"
    return Figure(name, stats["last_at"] - stats["first_at"], "s", note=f"{events / pace:.0f} s are the limit's own")


def memory(book: Book, to: Endpoint, events: int, seconds: float) -> tuple[Figure, Figure]:
    """Of a task that sends a backlog with the limit lifted; and how soon it has begun."""
    to.reset(LATENCY)
    cost = peers.alone(peers.this_project, to.url, book.conninfo, book.shop, book.run_key, seconds)
    stats = to.stats()
    return (
        Figure(
            f"memory of a sending task, {events:,} due events", cost.memory, "MB", note=f"{stats['requests']:,} sent"
        ),
        Figure(
            f"a sending task's first request, {events:,} due events",
            stats["first_at"] - cost.began_at,
            "s",
            note="from when its process has imported everything",
        ),
    )


def main() -> None:
    parsing = parser("latency", __doc__)
    parsing.add_argument("--backlogs", type=int, nargs="+", default=[10_000, 500_000], help="from small to large")
    parsing.add_argument("--repeats", type=int, default=5)
    parsing.add_argument("--seconds", type=float, default=60, help="for which a sending task's memory is watched")
    options = parsing.parse_args()
    with server() as conninfo, endpoint() as to, closing(House(conninfo, to)) as house:
        figures = [to_request(house, options.repeats, "no backlog")]
        others = {}
        for events in options.backlogs:
            others[events] = backlog(conninfo, Shop(name=f"other_{events}", requests_per_second=LIFTED), events)
            figures.append(to_request(house, options.repeats, f"{events:,} of another shop"))
        waiting = 0
        for events in options.backlogs:
            backlog(conninfo, house.shop, events - waiting, due_in=TOMORROW)
            waiting = events
            figures.append(to_request(house, options.repeats, f"{events:,} due tomorrow"))
        fewest = options.backlogs[0]
        figures.append(behind_due(backlog(conninfo, Shop(name="in_line"), fewest), to, fewest))
        others = {FEW: backlog(conninfo, Shop(name="few", requests_per_second=LIFTED), FEW)} | others
        tasks = [memory(book, to, events, options.seconds) for events, book in others.items()]
        figures += [begun for _, begun in tasks] + [taken for taken, _ in tasks]
        spread = max(taken.value for taken, _ in tasks) - min(taken.value for taken, _ in tasks)
        figures.append(
            Figure("between the least and the most", spread, "MB", f"within {FLAT_WITHIN}", spread <= FLAT_WITHIN)
        )
        tell(options, "From a changed row to its request, behind a backlog", figures)


if __name__ == "__main__":
    main()
