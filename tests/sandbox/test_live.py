"""The warehouse that lives on beside the containers: which one it may be, and that it is filled once."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from sandbox import live

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / ".env.example").read_text()
OURS = dict(
    zip(
        ("warehouse", "attentive"),
        re.findall(r"^# (?:The sandbox's: )?({.*(?:warehouse|sandbox-key).*})$", EXAMPLE, re.M),
        strict=True,
    )
)
THEIRS = {
    "warehouse": "postgresql://reader:Kinkajou7@warehouse.example.com/analytics",
    "attentive": '{"conn_type": "http", "host": "https://api.attentivemobile.com", "password": "Kinkajou7"}',
}


@pytest.mark.parametrize("theirs", [{"warehouse"}, {"attentive"}, {"warehouse", "attentive"}])
def test_nothing_is_made_up_in_somebodys_warehouse_or_for_their_account(theirs: set[str]) -> None:
    told = {name: (THEIRS if name in theirs else OURS)[name] for name in OURS}
    environment = os.environ | {
        "AIRFLOW_CONN_LOOP_WAREHOUSE": told["warehouse"],
        "AIRFLOW_CONN_ATTENTIVE": told["attentive"],
        "AIRFLOW_CONN_LOOP_ATTENTIVE_DB": "postgresql://127.0.0.1:1/loop_attentive",
        "PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.live"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if "Not the sandbox's" in line]
    named = {"loop_warehouse": "warehouse", "attentive": "attentive"}
    assert {named[name] for name in re.findall(r"loop_warehouse|\battentive\b", line)} == theirs
    assert "Kinkajou7" not in done.stderr


def test_the_connections_of_the_example_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LOOP_WAREHOUSE", OURS["warehouse"])
    monkeypatch.setenv("AIRFLOW_CONN_ATTENTIVE", OURS["attentive"])
    live.check(*map(live.BaseHook.get_connection, ("loop_warehouse", "attentive")))


def test_an_empty_warehouse_is_filled_and_a_filled_one_left(ledger: str, database: str) -> None:
    for _ in range(2):
        ended = threading.Event()
        ended.set()
        live.live(database, ledger, ended)
        with psycopg.connect(database) as connection:
            assert connection.execute("SELECT count(*) FROM loop.returns").fetchone() == (2000,)
