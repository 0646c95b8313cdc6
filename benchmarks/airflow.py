"""What an hour costs in which nothing changed, under a real Airflow: `python -m benchmarks.airflow`.

The hourly DAG as it is, scheduled each minute so that nobody has to wait, on a sandbox warehouse whose first look is
over; all parts of Airflow, the LocalExecutor and PostgreSQL on this machine. Told are the tasks of a run, the time from
the moment of the schedule to the end of the run, and how much of that is Airflow's: the time in which no code of this
project ran in any task. Medians over the runs. The sandbox's scheduler imports pandas and the like before it forks
tasks; then all is measured once more without that.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

import sandbox.airflow
from benchmarks.kit import Figure, median, parser, tell
from loop_attentive.migrate import migrate
from sandbox.airflow import LEDGER, WAREHOUSE, Airflow, inherited, prepare, running, settings
from sandbox.postgres import postgres
from sandbox.processes import ROOT, Failed, free_port, wait_until
from sandbox.warehouse import create, fill

DAGS = ROOT / "benchmarks" / "dags"
QUIET = "quiet_hour"
RETURNS = 2000
WARM_UP = 1
"""Runs that are not counted: the first look, and what it leaves to do."""


@contextmanager
def airflow(attentive: str, more: Mapping[str, str]) -> Iterator[tuple[Airflow, str]]:
    """A running Airflow with the benchmarks' DAGs and everything of its own, and its databases' server.

    attentive: URL of where events go. more: environment of everything that runs there.
    """
    with tempfile.TemporaryDirectory(prefix="la-bench-") as directory, postgres(Path(directory) / "pg") as server:
        prepare(server)
        migrate(make_conninfo(server, dbname=LEDGER))
        environment = inherited() | settings(server, attentive, free_port(0))
        environment |= {"AIRFLOW_HOME": f"{directory}/airflow", "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS), **more}
        with running(environment) as up:
            yield up, server


def has(up: Airflow, dag_id: str) -> bool:
    if errors := up.import_errors():
        raise Failed("Airflow cannot import a DAG file. " + "\n".join(errors))
    return up.has_dag(dag_id)


def ended(up: Airflow, dag_id: str, count: int, seconds: float) -> list[dict[str, Any]]:
    """The first so many runs of a DAG, when all of them have succeeded."""

    def are_over() -> bool:
        runs = up.runs(dag_id)
        if failed := [run["dag_run_id"] for run in runs if run["state"] == "failed"]:
            raise Failed(f"{failed[0]} of {dag_id} failed.")
        return sum(run["state"] == "success" for run in runs) >= count

    wait_until(are_over, f"{count} runs of {dag_id} are over", seconds=seconds, every=1)
    over = [run for run in up.runs(dag_id) if run["state"] == "success"]
    return sorted(over, key=lambda run: str(run["run_after"]))[:count]


class Run:
    """One run, and the spans of this project's code in it. Seconds, of the wall's clock.

    A task that skips itself notes its beginning only: it ends when Airflow says so.
    """

    def __init__(self, run: Mapping[str, Any], tasks: list[dict[str, Any]], steps: list[dict[str, Any]]) -> None:
        notes = [step for step in steps if step["run"] == run["dag_run_id"]]
        ends = {task["task_id"]: moment(task["end_date"]) for task in tasks if task["end_date"]}
        pairs = []
        for task in dict.fromkeys(note["task"] for note in notes):
            begin, *noted = [note for note in notes if note["task"] == task]
            [end] = noted or [begin | {"at": ends[task]}]
            pairs.append((begin, end))
        self.tasks = len([task for task in tasks if task["state"] == "success"])
        self.scheduled_to_done = moment(run["end_date"]) - moment(run["run_after"])
        self.waited = min(moment(task["start_date"]) for task in tasks if task["start_date"]) - moment(run["run_after"])
        self.in_tasks = sum(task["duration"] or 0 for task in tasks)
        self.own = sum(end["at"] - begin["at"] for begin, end in pairs)
        self.own_processor = sum(end["processor"] - begin["processor"] for begin, end in pairs)
        self.own_at_once = union([(begin["at"], end["at"]) for begin, end in pairs])


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def union(spans: list[tuple[float, float]]) -> float:
    """Seconds that lie in at least one span."""
    covered, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        covered += max(0.0, end - max(begin, until))
        until = max(until, end)
    return covered


def quiet_runs(count: int) -> list[Run]:
    with tempfile.TemporaryDirectory(prefix="la-bench-") as directory:
        steps = Path(directory) / "steps"
        with airflow("http://127.0.0.1:9", {"BENCH_STEPS": str(steps)}) as (up, server):
            with psycopg.connect(make_conninfo(server, dbname=WAREHOUSE), autocommit=True) as warehouse:
                create(warehouse)
                fill(warehouse, returns=RETURNS, now=datetime.now().astimezone(), seed=1)
            wait_until(lambda: has(up, QUIET), f"Airflow has read {QUIET}", seconds=120, every=1)
            up.unpause(QUIET)
            over = ended(up, QUIET, WARM_UP + count, seconds=180 + 90 * count)[WARM_UP:]
            notes = [json.loads(line) for line in steps.read_text().splitlines()]
            return [Run(run, up.tasks(run), notes) for run in over]


def figures(runs: list[Run], where: str = "") -> list[Figure]:
    total = median(run.scheduled_to_done for run in runs)
    own = median(run.own_at_once for run in runs)
    return [
        Figure(f"tasks of a quiet hour{where}", median(run.tasks for run in runs), "tasks"),
        Figure(f"from the schedule to done{where}", total, "s", note=f"median of {len(runs)} runs"),
        Figure(f"of it before the first task starts{where}", median(run.waited for run in runs), "s"),
        Figure(f"of it while own code runs in some task{where}", own, "s"),
        Figure(f"of it Airflow's alone{where}", total - own, "s", note=f"{(total - own) / total:.0%}"),
        Figure(f"- tasks' time, summed{where}", median(run.in_tasks for run in runs), "s"),
        Figure(f"- own code's time, summed{where}", median(run.own for run in runs), "s"),
        Figure(f"- own code's processor time, summed{where}", median(run.own_processor for run in runs), "s"),
    ]


def main() -> None:
    options = parsed()
    told = figures(quiet_runs(options.runs))
    if not options.once:
        sandbox.airflow.PRELOADING = Path(os.devnull)
        told += figures(quiet_runs(options.runs), ", nothing imported before")
    tell(options, "An hour in which nothing changed, under Airflow", told)


def parsed() -> argparse.Namespace:
    result = parser("airflow", __doc__)
    result.add_argument("--runs", type=int, default=5)
    result.add_argument("--once", action="store_true", help="not once more, with nothing imported before tasks fork")
    return result.parse_args()


if __name__ == "__main__":
    main()
