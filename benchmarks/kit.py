"""What the benchmarks share: figures and how they are told, a ledger's database, and medians."""

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import psycopg
from psycopg import sql

from loop_attentive.migrate import migrate
from sandbox.postgres import postgres

__all__ = ["Figure", "median", "megabytes", "parser", "processor_seconds", "read", "report", "server", "tell", "write"]


@dataclass(frozen=True)
class Figure:
    """One measured value.

    name: one that begins with a blank or a hyphen tells a detail of the figure before it. goal: what it was to reach,
    in words ("at least 50,000"). met: whether it did; None where there is no goal, or where the sizes were too small to
    tell. note: what has to be known to read it.
    """

    name: str
    value: float
    unit: str
    goal: str = ""
    met: bool | None = None
    note: str = ""

    @property
    def is_detail(self) -> bool:
        return self.name.startswith((" ", "-"))

    @property
    def plain_name(self) -> str:
        return self.name.lstrip(" -")


def number(value: float) -> str:
    """Three figures that count: 0.0123, 1.23, 12.3, 123, 12,345; whole ones as they are."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def verdict(figure: Figure) -> str:
    return {True: "met", False: "MISSED", None: ""}[figure.met]


def report(title: str, figures: Sequence[Figure]) -> None:
    """Prints an aligned table."""
    rows = [(f.name, number(f.value), f.unit, f.goal, verdict(f), f.note) for f in figures]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
    print(f"\n{title}\n")
    for row in rows:
        name, value, *others = row
        cells = [f"{name:{widths[0]}}", f"{value:>{widths[1]}}"]
        cells += [f"{cell:{width}}" for cell, width in zip(others, [*widths[2:], 0], strict=True)]
        print(("  " + "  ".join(cells)).rstrip())
    print(flush=True)


def write(path: str | Path, title: str, figures: Sequence[Figure]) -> None:
    """Writes JSON that `read` understands."""
    content = {"title": title, "figures": [asdict(figure) for figure in figures]}
    Path(path).write_text(json.dumps(content, indent=1) + "\n")


def read(path: str | Path) -> tuple[str, list[Figure]]:
    """Title and figures of a file that `write` made."""
    content = json.loads(Path(path).read_text())
    return content["title"], [Figure(**figure) for figure in content["figures"]]


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Of a benchmark's command line, with what all of them take: --json FILE. Its parts, which are all on this machine,
    speak to each other without a proxy.
    """
    os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
    result = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file as well")
    return result


def tell(options: argparse.Namespace, title: str, figures: Sequence[Figure]) -> None:
    """Prints the figures, and writes them where --json says."""
    report(title, figures)
    if options.json:
        write(options.json, title, figures)


@contextmanager
def server() -> Iterator[str]:
    """Conninfo of a migrated, empty database on an embedded PostgreSQL of its own, whose commits are durable.

    PostgreSQL's defaults are for the smallest machine: it gets what its documentation advises for a server, that is a
    quarter of the memory for shared buffers, and checkpoints by time (each 15 minutes) rather than by each GB of log.
    fsync and synchronous_commit stay on.
    """
    logging.disable(logging.INFO)  # figures are wanted, not steps
    settings = {
        "shared_buffers": f"{psutil.virtual_memory().total // 4 // 2**20}MB",
        "max_wal_size": "8GB",
        "checkpoint_timeout": "15min",
    }
    with tempfile.TemporaryDirectory(prefix="la-bench-") as directory:
        data = Path(directory) / "pg"
        with postgres(data) as conninfo, psycopg.connect(conninfo, autocommit=True) as connection:
            for setting, value in settings.items():
                connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(setting), value))
        with postgres(data) as conninfo:  # started again, with these settings
            with psycopg.connect(conninfo, autocommit=True) as connection:
                for setting in ("fsync", "synchronous_commit"):
                    row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
                    if row != ("on",):
                        raise RuntimeError(f"{setting} is not on: the figures would be worth nothing.")
            migrate(conninfo)
            yield conninfo


@contextmanager
def without_indexes(conn: psycopg.Connection[Any], *tables: str) -> Iterator[None]:
    """While tables are filled with millions of rows: indexes made afterwards take minutes, kept up hours."""
    of_these = "ANY (%(tables)s::regclass[])"
    constraints = conn.execute(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE "
        f"contype IN ('p', 'u', 'f') AND (conrelid = {of_these} OR confrelid = {of_these}) ORDER BY contype = 'f' DESC",
        {"tables": list(tables)},
    ).fetchall()
    indexes = conn.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index AS i "
        f"WHERE indrelid = {of_these} AND NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conindid = i.indexrelid)",
        {"tables": list(tables)},
    ).fetchall()
    for table, name, _ in constraints:
        conn.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for name, _ in indexes:
        conn.execute(f"DROP INDEX {name}")
    yield
    conn.execute("SET maintenance_work_mem = '1GB'")
    for table, name, definition in reversed(constraints):
        conn.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
    for _, definition in indexes:
        conn.execute(definition)


def megabytes(pid: int | None = None) -> float:
    """Of memory that a process (None: this one) has now."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def processor_seconds(pid: int | None = None) -> float:
    """That a process (None: this one) has used so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
