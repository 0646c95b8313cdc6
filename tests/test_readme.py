"""The README is true: its commands exist, its SQL runs, its tables are those of the code."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from loop_attentive import canonical, db
from loop_attentive.catalogue import CATALOGUE

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def rows(header: str) -> list[list[str]]:
    """The cells of the table below a header row."""
    table = README.split(header + "\n", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


MAKE = sorted({line.strip() for block in blocks("sh") for line in block.splitlines() if line.startswith("make ")})


@pytest.mark.parametrize("command", MAKE)
def test_make_knows_each_command(command: str) -> None:
    done = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", re.findall(r"`make ([a-z-]+)", README))
def test_make_has_each_target_that_is_spoken_of(command: str) -> None:
    assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("query", [q for block in blocks("sql") for q in block.split(";\n") if q.strip()])
def test_its_sql_runs(ledger: str, query: str) -> None:
    with db.connect(ledger) as conn:
        conn.execute(query.replace("'…'", "NULL"))


def test_its_events_are_those_of_the_catalogue() -> None:
    events = [(name, dag) for name, dag, _ in rows("| event | DAG | when |")]
    assert events == [(event.name, "daily" if event.daily else "hourly") for event in CATALOGUE]


def test_its_source_tables_are_those_that_are_read() -> None:
    told = {
        name.strip("`"): tuple(column.split(" (")[0] for column in re.sub(r"\([^)]*\)", "", columns).split(", "))
        for name, columns in rows("| table | columns |")
    }
    assert {name: tuple(c.strip() for c in columns) for name, columns in told.items()} == {
        table.name: table.columns for table in canonical.TABLES
    }


def test_its_states_are_those_of_the_ledger(ledger: str) -> None:
    with db.connect(ledger) as conn:
        checked = conn.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'event_status_check'"
        ).fetchone()
    assert checked is not None
    assert {state.strip("`") for state, _ in rows("| status | meaning |")} == set(re.findall(r"'(\w+)'", checked[0]))


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_its_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
