"""Reading takes memory for some chunks, however many rows there are."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict

from loop_attentive import canonical
from tests.floor import Floor

READ = """
import resource, sys
import sqlalchemy as sa
from loop_attentive import canonical, settings, source
origin = source.Source(sa.create_engine(sys.argv[1]), settings.Shop(name="default"))
rows = sum(len(raw.rows) for raw in origin.read(canonical.RETURNS, source.Cursor()))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)  # DuckDB draws on stdout
"""


def filled(engine: sa.Engine, rows: int) -> None:
    """A canonical source with so many returns, each of some 600 bytes."""
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA IF NOT EXISTS loop"))
        for table in canonical.TABLES:
            columns = ", ".join(f"{column} varchar" for column in table.columns)
            connection.execute(sa.text(f"DROP TABLE IF EXISTS loop.{table.name}"))
            connection.execute(sa.text(f"CREATE TABLE loop.{table.name} ({columns})"))
        values = ", ".join("repeat('x', 40) || i" for _ in canonical.RETURNS.columns)
        of = f"generate_series(1, {rows})"
        connection.execute(sa.text(f"INSERT INTO loop.returns SELECT {values} FROM {of} AS n(i)"))


def peak(url: str, rows: int) -> int:
    """MB that a process held at most that read all returns."""
    done = subprocess.run([sys.executable, "-c", READ, url], capture_output=True, text=True, check=True)
    read, highest = map(int, done.stderr.split()[-2:])
    assert read == rows
    return highest


@pytest.mark.parametrize("engine", ["postgresql", "duckdb"])
def test_memory_does_not_grow_with_the_result(floor: Floor, tmp_path: Path, engine: str) -> None:
    """Ten times the rows, of 130 MB as they lie in the warehouse, of three times that in Python."""
    peaks = []
    for rows in (20_000, 200_000):
        url = f"postgresql+psycopg:///?{_query(floor.conninfo)}"
        if engine == "duckdb":
            url = f"duckdb:///{tmp_path}/{rows}.duckdb?memory_limit=200MB"
        warehouse = sa.create_engine(url)
        filled(warehouse, rows)
        warehouse.dispose()
        peaks.append(peak(url, rows))
    assert peaks[1] - peaks[0] < 100, peaks


def _query(conninfo: str) -> str:
    return "&".join(f"{key}={value}" for key, value in conninfo_to_dict(conninfo).items())
