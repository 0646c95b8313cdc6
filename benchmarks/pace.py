"""How near the sender comes to the limit without a request too many, as the server counts: `python -m benchmarks.pace`.

The stand-in runs in a process of its own, and so does each sender. The table tells, for each latency and number of
senders, the average rate from the first to the last arrival, the most requests in any sliding second, the 429s that the
senders caused themselves, and in how many seconds the stand-in's own loop lagged by more than 8 ms.
"""

import argparse
import asyncio
import multiprocessing
import tempfile
from functools import partial
from pathlib import Path

import httpx
from psycopg.conninfo import make_conninfo

from loop_attentive import db
from loop_attentive.attentive import AttentiveTransport, Endpoint
from loop_attentive.delivery import Batch, Origin, deliver
from loop_attentive.migrate import migrate
from loop_attentive.pace import Pace
from loop_attentive.rules import still_due_sql
from loop_attentive.settings import Shop
from sandbox.postgres import postgres
from sandbox.processes import API_KEY, standin
from tests.sending import Book

SHOP = Shop(name="default")
LIMIT = SHOP.requests_per_second


def send(conninfo: str, url: str, run_key: int, index: int, of: int) -> None:
    """One sender: a batch of the ledger, to the end."""

    async def work() -> None:
        line = partial(db.aconnect, conninfo, autocommit=True)
        async with AttentiveTransport(Endpoint(url, API_KEY)) as transport:
            pace = Pace(line, transport.account, SHOP.name, LIMIT)
            origin = Origin(run_key, map_index=index)
            await deliver(line, SHOP, Batch(index, of), origin, transport, pace, still_due=still_due_sql, patience=5)

    asyncio.run(work())


def measure(conninfo: str, url: str, *, latency: float, senders: int, seconds: int) -> str:
    book = Book(conninfo, SHOP)
    book.add_many(LIMIT * seconds)
    httpx.delete(f"{url}/_sandbox/faults")
    httpx.post(f"{url}/_sandbox/reset")
    httpx.post(f"{url}/_sandbox/faults", json={"kind": "answer", "delay": latency})
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=send, args=(conninfo, url, book.run_key, index, senders)) for index in range(senders)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    stats = httpx.get(f"{url}/_sandbox/stats").json()
    [traffic] = [one for one in stats["traffic"] if one["endpoint"].endswith("/events/custom")]
    marks = [
        book.one(f"SELECT {end}(started_at) FROM attempt WHERE run_key = %(run)s", run=book.run_key)
        for end in ("min", "max")
    ]
    rate = (traffic["requests"] - 1) / (marks[1] - marks[0]).total_seconds()
    too_many = traffic["answers"].get("429", 0)
    late = len(stats["late_seconds"])
    return (
        f"{latency * 1000:>8.0f} ms {senders:>8} {rate:>10.1f} {traffic['busiest_second']:>10} {too_many:>8} {late:>12}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    seconds = parser.parse_args().seconds
    print(f"{'latency':>11} {'senders':>8} {'a second':>10} {'busiest':>10} {'429s':>8} {'late seconds':>12}")
    with (
        tempfile.TemporaryDirectory(prefix="la-") as directory,
        postgres(Path(directory) / "pg") as server,
        standin() as url,
    ):
        conninfo = make_conninfo(server)
        migrate(conninfo)
        for latency in (0.08, 0.5):
            for senders in (1, 2, 4):
                print(measure(conninfo, url, latency=latency, senders=senders, seconds=seconds), flush=True)


if __name__ == "__main__":
    main()
