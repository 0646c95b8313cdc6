"""`make demo`: the whole pipeline, run by a real Airflow, on a warehouse that goes on living."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
from psycopg.conninfo import make_conninfo

from loop_attentive.catalogue import CATALOGUE
from loop_attentive.migrate import migrate
from loop_attentive.settings import DEFAULT_SHOP, Shop, load
from sandbox.airflow import LEDGER, WAREHOUSE, Airflow, inherited, prepare, running, settings
from sandbox.postgres import postgres
from sandbox.processes import HOME, Failed, alone, free_port, standin, wait_until
from sandbox.warehouse import World, create, fill

HOURLY = "loop_attentive_hourly"
DAILY = "loop_attentive_daily"

SEED = 1
RETURNS = 2000
"""What the warehouse holds when the pipeline looks for the first time: all of it is history, and nothing is sent."""
SIZE = 2
"""How often each thing that can happen to a return happens between two looks."""

SHOWN_PROBLEMS = 10
SHOWN_LINES = 15

STATES = ("accepted", "rejected", "invalid", "suppressed", "expired", "pending", "held", "sending", "unknown")

COUNTS = """
SELECT event_type, status, count(*)
FROM loop_attentive.audit_event
GROUP BY event_type, status
"""

LOOKS = """
SELECT as_of, dag_id = %s
FROM loop_attentive.audit_run
WHERE finished_at IS NOT NULL
ORDER BY as_of
"""


def demo(afterwards: Callable[["Demo"], None] | None = None) -> int:
    """Run it; the exit status is 0 when the verdict is good. In a terminal it stays up until it is interrupted.

    afterwards: what to do, instead of staying, while it is still up.
    """
    stays = afterwards is None and sys.stdout.isatty() and os.environ.get("ONCE") != "1"
    with alone("demo", or_else=f"A demo is running already in {HOME}."), postgres(HOME / "pg") as server:
        if load() != {DEFAULT_SHOP: Shop(name=DEFAULT_SHOP)}:
            say("include/shops.yaml was edited, and holds here too: in shadow, or by another connector, nothing comes.")
        say("PostgreSQL is up. Making Airflow's tables, the ledger and a warehouse ...")
        prepare(server, anew=True)
        ledger = make_conninfo(server, dbname=LEDGER)
        migrate(ledger)
        with psycopg.connect(make_conninfo(server, dbname=WAREHOUSE), autocommit=True) as warehouse:
            create(warehouse)
            fill(warehouse, returns=RETURNS, now=datetime.now(UTC), seed=SEED)
            say(f"The warehouse holds {RETURNS} returns. Starting Airflow ...")
            with standin() as attentive:
                environment = inherited() | settings(server, attentive, free_port(8080))
                with running(environment) as airflow:
                    say(f"Airflow is up, and you may look already: {airflow.url}")
                    played = Demo(airflow, warehouse, ledger, attentive)
                    status = played.play(stays)
                    if afterwards:
                        afterwards(played)
                    return status


class Demo:
    def __init__(self, airflow: Airflow, warehouse: psycopg.Connection[Any], ledger: str, attentive: str) -> None:
        self.airflow = airflow
        self._warehouse = warehouse
        self._ledger = ledger
        self._attentive = attentive
        self._world = World(warehouse, SEED, SIZE)
        self._seen: set[datetime] = set()

    def play(self, stays: bool) -> int:
        wait_until(self._are_read, "Airflow has read the DAGs", seconds=120)
        say("First look, by the hourly DAG's schedule: what is there already is the baseline ...")
        self.airflow.unpause(HOURLY)
        self._finish(HOURLY, self._scheduled(HOURLY))
        for number in (1, 2):
            self.goes_on()
            say(f"The warehouse lived on ({number}). Hourly run, triggered as by the button in the UI ...")
            self._finish(HOURLY, self.airflow.trigger(HOURLY)["dag_run_id"])
        say("Daily run, by its schedule ...")
        self.airflow.unpause(DAILY)
        self._finish(DAILY, self._scheduled(DAILY))
        is_good = self._tell()
        if stays:
            print("\nEverything stays up until you press Ctrl-C.", flush=True)
            with suppress(KeyboardInterrupt):
                signal.pause()
        return 0 if is_good else 1

    def goes_on(self) -> None:
        """The warehouse lives on, and nobody has looked yet."""
        self._world.step(self._warehouse, datetime.now(UTC))

    def _are_read(self) -> bool:
        if errors := self.airflow.import_errors():
            raise Failed("Airflow cannot import a DAG file. " + "\n".join(errors))
        return self.airflow.has_dag(HOURLY) and self.airflow.has_dag(DAILY)

    def _scheduled(self, dag_id: str) -> str:
        """Id of the run that the scheduler makes once the DAG is unpaused."""
        wait_until(lambda: bool(self.airflow.runs(dag_id)), f"{dag_id} is scheduled", seconds=120)
        return str(self.airflow.runs(dag_id)[0]["dag_run_id"])

    def _finish(self, dag_id: str, run_id: str) -> None:
        """Wait for the run's end, and tell the world which looks there were since."""
        started = time.monotonic()
        wait_until(
            lambda: self.airflow.run(dag_id, run_id)["state"] in ("success", "failed"), f"{run_id} ends", seconds=600
        )
        run = self.airflow.run(dag_id, run_id)
        if run["state"] == "failed":
            raise Failed("\n".join(self._failure(run)))
        with psycopg.connect(self._ledger) as connection:
            looks = connection.execute(LOOKS, [DAILY]).fetchall()
        for as_of, daily in looks:
            if as_of not in self._seen:
                self._seen.add(as_of)
                self._world.looked(as_of, daily=daily)
        say(f"... done in {time.monotonic() - started:.0f} s.")

    def _failure(self, run: dict[str, Any]) -> Iterator[str]:
        yield f"Run {run['dag_run_id']} of {run['dag_id']} failed:"
        for task in self.airflow.tasks(run):
            if task["state"] == "failed":
                yield f"\n  {task['task_id']} (map index {task['map_index']}, try {task['try_number']}):"
                yield from (f"    {line}" for line in self.airflow.log(task)[-SHOWN_LINES:])

    def _tell(self) -> bool:
        with psycopg.connect(self._ledger) as connection:
            counts = {(event_type, status): n for event_type, status, n in connection.execute(COUNTS)}
        verdict = self._world.verdict(accepted(self._attentive))
        print("", *table(counts), sep="\n")
        print("\nThe verdict is good:" if verdict.is_good else "\nThe verdict is NOT good:")
        problems = str(verdict).splitlines()
        print(*problems[:SHOWN_PROBLEMS], sep="\n")
        if len(problems) > SHOWN_PROBLEMS:
            print(f"... and {len(problems) - SHOWN_PROBLEMS} more")
        print(f"\nAirflow's UI: {self.airflow.url}")
        print("It logs you in by itself: it listens on this machine only, and everybody on it is an admin.", flush=True)
        return verdict.is_good


def table(counts: dict[tuple[str, str], int]) -> Iterator[str]:
    """Per event type how many qualified, and in what state they are; a state that nothing is in has no column."""
    states = [state for state in STATES if state == "accepted" or any(status == state for _, status in counts)]
    yield f"{'':31}{'qualified':>12}" + "".join(f"{state:>12}" for state in states)
    for name in [*(event.name for event in CATALOGUE), "all"]:
        mine = [
            sum(n for (event, status), n in counts.items() if name in (event, "all") and status == state)
            for state in states
        ]
        yield f"{name:31}" + "".join(f"{n or '.':>12}" for n in (sum(mine), *mine))


def accepted(attentive: str) -> Iterator[Any]:
    """Bodies of the events that the stand-in accepted."""
    with httpx.Client(base_url=attentive, trust_env=False) as client:
        total = start = 0
        while start <= total:
            page = client.get("/_sandbox/received", params={"start": start}).raise_for_status()
            records = [json.loads(line) for line in page.text.splitlines()]
            total, start = int(page.headers["x-total"]), start + max(len(records), 1)
            yield from (record["body"] for record in records if record["accepted"])


_STARTED = time.monotonic()


def say(line: str) -> None:
    """A line of progress, with the seconds since the start."""
    print(f"{time.monotonic() - _STARTED:4.0f} s  {line}", flush=True)
