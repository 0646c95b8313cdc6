"""What the Makefile runs, in a place where nothing has run before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def sandbox(*arguments: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandbox", *arguments],
        check=False, cwd=ROOT, capture_output=True, text=True, input=given, env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.long
def test_airflow_knows_the_dags_at_once() -> None:
    """No dag-processor has read them, nor will one: it is the first command in a clean clone."""
    done = sandbox("airflow", "dags", "list", "--output", "plain")
    assert done.returncode == 0, done.stderr
    for dag_id in ("loop_attentive_hourly", "loop_attentive_daily", "loop_attentive_backfill"):
        assert dag_id in done.stdout


@pytest.mark.long
def test_who_brings_airflows_database_brings_its_connections(tmp_path: Path) -> None:
    """The sandbox's would hide them, and a run would read a made-up warehouse."""
    database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db"}
    asked = ("airflow", "connections", "get", "loop_warehouse", "--output", "plain")
    assert sandbox("airflow", "db", "migrate", **database).returncode == 0
    assert "loop_warehouse" in sandbox(*asked).stdout
    assert "Connection not found" in sandbox(*asked, **database).stderr


@pytest.mark.long
def test_the_demo_ends_with_a_good_verdict(tmp_path: Path) -> None:
    done = sandbox("demo", SANDBOX_HOME=str(tmp_path), ONCE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The verdict is good:" in done.stdout


def test_forget_says_when_the_sandbox_stands_in_for_ones_own_ledger(tmp_path: Path) -> None:
    """Else somebody whose connections are in Airflow's UI believes that people are forgotten who are not."""
    done = sandbox("forget", given="+14155552671", SANDBOX_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "1 contacts given" in done.stdout
    assert done.stderr.startswith("AIRFLOW_CONN_LOOP_ATTENTIVE_DB is not set: the sandbox's ledger")


def test_forget_keeps_ones_own_attentive_and_the_sandboxs_ledger_apart(tmp_path: Path) -> None:
    """Attentive would delete somebody who is not on one's own list, and whom the next event brings back."""
    own = json.dumps({"conn_type": "http", "host": "http://127.0.0.1:1", "password": "key"})
    done = sandbox("forget", given="+14155552671", SANDBOX_HOME=str(tmp_path), AIRFLOW_CONN_ATTENTIVE=own)
    assert done.returncode == 1
    assert "AIRFLOW_CONN_ATTENTIVE is set and AIRFLOW_CONN_LOOP_ATTENTIVE_DB is not" in done.stderr
    assert "given" not in done.stdout


@pytest.mark.parametrize(("says", "asks"), [("yes", True), ("", False)])
def test_make_forget_asks_attentive_where_it_is_told_so(says: str, asks: bool) -> None:
    done = subprocess.run(
        ["make", "forget", f"DELETE_AT_ATTENTIVE={says}", "--dry-run"], cwd=ROOT, capture_output=True, text=True
    )
    assert ("--delete-at-attentive" in done.stdout) == asks


def test_make_forget_does_not_guess(tmp_path: Path) -> None:
    done = subprocess.run(["make", "forget", "DELETE_AT_ATTENTIVE=true", "--dry-run"], cwd=ROOT, capture_output=True)
    assert done.returncode != 0
    assert b"DELETE_AT_ATTENTIVE is yes, or left out" in done.stderr


@pytest.mark.parametrize("command", ["migrate", "forget"])
def test_a_command_that_knows_ones_own_ledger_keeps_to_it(tmp_path: Path, command: str) -> None:
    own = "postgres://nobody@127.0.0.1:1/nowhere"
    done = sandbox(command, SANDBOX_HOME=str(tmp_path), AIRFLOW_CONN_LOOP_ATTENTIVE_DB=own)
    assert done.returncode == 1
    assert "The database of connection loop_attentive_db cannot be reached" in done.stderr
    assert "sandbox" not in done.stderr
