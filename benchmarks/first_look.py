"""What the first look at a large history costs, and the hours after it: `make bench`, which prints a table.

Elapsed time depends on what else the machine does; processor seconds hardly do. All but the source's own reading is
counted: the worker, and its session with the ledger's database.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import psutil
import psycopg
import sqlalchemy as sa

from loop_attentive import db, mirror, qualify, runs
from loop_attentive.catalogue import CATALOGUE
from loop_attentive.migrate import migrate
from loop_attentive.mirror import Look
from loop_attentive.settings import Shop
from loop_attentive.source import Source
from sandbox.postgres import postgres
from sandbox.warehouse import create, fill
from sandbox.warehouse.tables import TABLES

T = TypeVar("T")

HOUR = timedelta(hours=1)
ALL_OF_IT = 400
"""Days that the mirror holds here: more than the made-up history has."""

HEADER = f"{'':34}{'rows':>10}{'elapsed':>10}{'worker':>10}{'database':>10}{'memory':>10}"

CHANGES = (
    "UPDATE loop.returns SET state = 'closed', updated_at = %(at)s, synced_at = %(at)s WHERE return_id = ANY ("
    "SELECT return_id FROM loop.returns WHERE state = 'open' ORDER BY return_id LIMIT %(half)s)",
    "UPDATE loop.labels SET status = 'out_for_delivery', updated_at = %(at)s::text, synced_at = %(at)s "
    "WHERE return_id = ANY (SELECT return_id FROM loop.labels WHERE status = 'in_transit' "
    "ORDER BY return_id LIMIT %(half)s)",
)


class Bench:
    """A shop with a history, and a stopwatch."""

    def __init__(self, conninfo: str) -> None:
        self.shop = Shop(name="default", mirror_days=ALL_OF_IT)
        self.conn = db.connect(conninfo, autocommit=True)
        self.engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo))
        self.worker, self.database = psutil.Process(), psutil.Process(self.conn.info.backend_pid)

    def close(self) -> None:
        self.conn.close()
        self.engine.dispose()

    def hour(self, name: str, at: datetime) -> None:
        """A look, then every rule."""
        look = self._measured(f"{name}: look", lambda: self._look(at), lambda look: look.extracted)
        self._measured(f"{name}: all rules", lambda: self._qualify(name, look), lambda events: events)

    def change(self, rows: int, at: datetime) -> None:
        """So many rows change in the source, half of them returns, half labels."""
        for query in CHANGES:
            self.conn.execute(query, {"at": at, "half": rows // 2})

    def _look(self, at: datetime) -> Look:
        return mirror.look(self.conn, Source(self.engine, self.shop), at=at)

    def _qualify(self, name: str, look: Look) -> int:
        run = runs.start(self.conn, dag_id="bench", run_id=name, shop=self.shop.name, look=look)
        return sum(qualify.qualify(self.conn, self.shop, event, run, now=look.as_of).created for event in CATALOGUE)

    def _measured(self, name: str, work: Callable[[], T], rows: Callable[[T], int]) -> T:
        began, worker, database = time.monotonic(), _seconds(self.worker), _seconds(self.database)
        result = work()
        elapsed = time.monotonic() - began
        worker, database = _seconds(self.worker) - worker, _seconds(self.database) - database
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{name:34}{rows(result):>10,}{elapsed:>8.1f} s{worker:>8.1f} s{database:>8.1f} s{memory:>7.0f} MB",
            flush=True,
        )
        return result


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


@contextmanager
def opened(returns: int) -> Iterator[tuple[Bench, datetime]]:
    """A bench on a fresh history of so many returns, and the time at which that ends."""
    with tempfile.TemporaryDirectory(prefix="la-bench-") as directory, postgres(Path(directory) / "pg") as conninfo:
        migrate(conninfo)
        with closing(Bench(conninfo)) as bench:
            now = datetime.now(UTC)
            create(bench.conn)
            fill(bench.conn, returns=returns, now=now - 3 * HOUR, seed=1)
            for table in TABLES:  # the last sync brought little, so that little is read again in the next hours
                newest = f"SELECT max(return_id::text) FROM loop.{table}"
                bench.conn.execute(f"UPDATE loop.{table} SET synced_at = %s WHERE return_id::text = ({newest})", [now])
            yield bench, now


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_look", description=__doc__)
    parser.add_argument("--returns", type=int, default=1_000_000)
    parser.add_argument("--changes", type=int, default=1_000)
    options = parser.parse_args()
    print(f"A history of {options.returns:,} returns.\n\n{HEADER}")
    with opened(options.returns) as (bench, now):
        bench.hour("first hour", now)
        bench.conn.execute("VACUUM ANALYZE")  # as autovacuum has done by the next hour
        bench.hour("quiet hour", now + HOUR)
        bench.change(options.changes, now + HOUR * 1.5)
        bench.hour(f"hour with {options.changes:,} changes", now + 2 * HOUR)
        bench.hour("quiet hour after that", now + 5 * HOUR)


if __name__ == "__main__":
    main()
