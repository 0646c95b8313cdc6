"""The hourly pipeline as it is, each minute, with a stopwatch on every task's own code (see benchmarks/airflow.py)."""

import json
import os
import time
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator  # noqa: F401  (Airflow looks for the word DAG before it reads a file)

from loop_attentive.catalogue import CATALOGUE
from loop_attentive.pipeline import pipeline
from loop_attentive.settings import load


def note(context: Any, *_: Any) -> None:
    """Called just before a task's own code, and just after."""
    line = {
        "run": context["dag_run"].run_id,
        "task": context["ti"].task_id,
        "at": time.time(),
        "processor": time.process_time(),
    }
    with Path(os.environ["BENCH_STEPS"]).open("a") as file:
        file.write(json.dumps(line) + "\n")


quiet_hour = pipeline(
    "quiet_hour",
    cron="* * * * *",
    shop=load()["default"],
    events=[event for event in CATALOGUE if not event.daily],
    doc=__doc__,
)
for task in quiet_hour.tasks:
    if isinstance(task, BaseOperator):
        task._pre_execute_hook = task._post_execute_hook = note
