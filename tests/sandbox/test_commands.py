"""What the Makefile runs, in a place where nothing has run before."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_airflow_knows_the_dags_at_once() -> None:
    """No dag-processor has read them, nor will one: it is the first command in a clean clone."""
    done = subprocess.run(
        [sys.executable, "-m", "sandbox", "airflow", "dags", "list", "--output", "plain"],
        check=False, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for dag_id in ("loop_attentive_hourly", "loop_attentive_daily", "loop_attentive_backfill"):
        assert dag_id in done.stdout
