"""Airflow in the sandbox: its settings, its databases, and all its parts for as long as they are wanted."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from sandbox.processes import API_KEY, HOME, LOGS, ROOT, Failed, alone, log, process, wait_until

METADATA = f"airflow_{version('apache-airflow').replace('.', '_')}"
LEDGER = "loop_attentive"
WAREHOUSE = "warehouse"

PARTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],  # the API server reads the logs from the disk
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}

PRELOADING = Path(__file__).parent / "scheduler"
"""A folder for the scheduler's Python path alone: see what is in it."""


def command(*arguments: str) -> list[str]:
    """Airflow's command line in this Python."""
    return [sys.executable, "-m", "airflow", *arguments]


# ── Settings ─────────────────────────────────────────────────────────────────


def inherited() -> dict[str, str]:
    """The user's environment, without what they have set for an Airflow of their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}


def settings(server: str, attentive: str, port: int = 8080) -> dict[str, str]:
    """Environment variables of everything that Airflow runs.

    server: conninfo of the PostgreSQL that holds all three databases. attentive: URL of the stand-in.
    port: of the UI. It is open to everybody who reaches 127.0.0.1, and listens nowhere else.
    """
    socket_directory = str(conninfo_to_dict(server)["host"])

    def database(name: str) -> str:
        return json.dumps({"conn_type": "postgres", "host": socket_directory, "login": "postgres", "schema": name})

    return {
        "AIRFLOW_CONN_LOOP_WAREHOUSE": database(WAREHOUSE),
        "AIRFLOW_CONN_LOOP_ATTENTIVE_DB": database(LEDGER),
        "AIRFLOW_CONN_ATTENTIVE": json.dumps({"conn_type": "http", "host": attentive, "password": API_KEY}),
        "AIRFLOW_HOME": str(HOME / "airflow"),
        "AIRFLOW__API__BASE_URL": f"http://localhost:{port}",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": _secret(),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": (
            f"postgresql+psycopg2://postgres:@/{METADATA}?host={quote(socket_directory)}"
        ),
        "no_proxy": _no_proxy(),
        # Airflow's own affairs, yet in every log:
        "PYTHONWARNINGS": "ignore::DeprecationWarning,ignore:Could not import graphviz",
    }


def _no_proxy() -> str:
    """What is reached without the environment's proxy: with what it names itself, this machine, where all this is."""
    own = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    return ",".join(filter(None, [own, "127.0.0.1,localhost"]))


def _secret() -> str:
    """What Airflow's parts in this sandbox know one another by."""
    file = HOME / "secret"
    with alone("secret"):
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(64))
        return file.read_text()


# ── Databases ────────────────────────────────────────────────────────────────


def prepare(server: str, *, anew: bool = False) -> None:
    """Make the databases of metadata (with Airflow's tables), ledger and warehouse (empty) where they are missing.

    server: conninfo of its superuser. anew: make all three again, and forget Airflow's logs.
    """
    with alone("prepare"), psycopg.connect(server, autocommit=True) as connection:
        empty_metadata = f"{METADATA}_empty"
        if not _exists(connection, empty_metadata):
            _make_metadata(server, connection, empty_metadata)
        for name, template in ((METADATA, empty_metadata), (LEDGER, "template0"), (WAREHOUSE, "template0")):
            if anew:
                _execute(connection, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
            if not _exists(connection, name):
                _execute(connection, "CREATE DATABASE {} TEMPLATE {}", name, template)
        # A scheduler that is killed leaves its connections to the tasks that it forked, and with them the locks of its
        # transaction: until they end, the next scheduler could not take up a single run.
        _execute(connection, "ALTER DATABASE {} SET idle_in_transaction_session_timeout = '30s'", METADATA)
        if anew:
            shutil.rmtree(HOME / "airflow" / "logs", ignore_errors=True)


def _make_metadata(server: str, connection: psycopg.Connection[Any], name: str) -> None:
    """Airflow takes its time to make its tables: do it once, and copy them from then on."""
    _execute(connection, "DROP DATABASE IF EXISTS {} WITH (FORCE)", METADATA)
    _execute(connection, "CREATE DATABASE {}", METADATA)
    with log("db-migrate") as output:
        environment = inherited() | settings(server, "")
        done = subprocess.run(
            command("db", "migrate"), check=False, cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    if done.returncode:
        raise Failed(f"`airflow db migrate` failed: see {LOGS / 'db-migrate.log'}")
    _execute(connection, "ALTER DATABASE {} RENAME TO {}", METADATA, name)


def _exists(connection: psycopg.Connection[Any], database: str) -> bool:
    return connection.execute("SELECT FROM pg_database WHERE datname = %s", [database]).fetchone() is not None


def _execute(connection: psycopg.Connection[Any], statement: str, *names: str) -> None:
    connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


# ── The running Airflow ──────────────────────────────────────────────────────


class Airflow:
    """Speaks to a running Airflow through its REST API. Runs and tasks are the objects that it answers with."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=120)

    def is_healthy(self) -> bool:
        """Whether all four parts are up."""
        try:
            health = self._http.get("/api/v2/monitor/health").raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return False
        return all(part and part.get("status") == "healthy" for part in health.values())

    def log_in(self) -> None:
        token = self._answer(self._http.get("/auth/token"))["access_token"]
        self._http.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        """What Airflow answers to a request below /api/v2; request: as of httpx. Raises Failed for an error."""
        response = self._http.request(method, f"/api/v2/{path}", **request)
        return self._answer(response) if response.content else {}

    def has_dag(self, dag_id: str) -> bool:
        return self._http.get(f"/api/v2/dags/{dag_id}").status_code == httpx.codes.OK

    def import_errors(self) -> list[str]:
        errors = self.ask("GET", "importErrors")["import_errors"]
        return [f"{error['filename']}:\n{error['stack_trace']}" for error in errors]

    def unpause(self, dag_id: str) -> None:
        self.ask("PATCH", f"dags/{dag_id}", json={"is_paused": False})

    def pause(self, dag_id: str) -> None:
        self.ask("PATCH", f"dags/{dag_id}", json={"is_paused": True})

    def trigger(self, dag_id: str, **form: Any) -> dict[str, Any]:
        """Start a run as the button in the UI does, without a date. form: what is filled in."""
        return self.ask("POST", f"dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": form})

    def asks(self, run: Mapping[str, Any], task_id: str) -> bool:
        """Whether a task waits for a person."""
        return any(task["task_id"] == task_id and task["state"] == "awaiting_input" for task in self.tasks(run))

    def backfill(self, dag_id: str, first: datetime, last: datetime) -> int:
        """As `airflow backfill create`: a run for each interval that begins between the two. Its id."""
        body = {"dag_id": dag_id, "from_date": first.isoformat(), "to_date": last.isoformat()}
        return int(self.ask("POST", "backfills", json=body)["id"])

    def is_backfilled(self, backfill: int) -> bool:
        return bool(self.ask("GET", f"backfills/{backfill}")["completed_at"])

    def backfills(self, dag_id: str) -> list[dict[str, Any]]:
        return list(self.ask("GET", f"backfills?dag_id={dag_id}")["backfills"])

    def answer(self, task: Mapping[str, Any], choice: str) -> None:
        """Answer what a task asks for under Required Actions."""
        path = f"{run_path(task)}/taskInstances/{task['task_id']}/{task['map_index']}/hitlDetails"
        self.ask("PATCH", path, json={"chosen_options": [choice], "params_input": {}})

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        return list(self.ask("GET", f"dags/{dag_id}/dagRuns")["dag_runs"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return self.ask("GET", f"dags/{dag_id}/dagRuns/{run_id}")

    def tasks(self, run: Mapping[str, Any]) -> list[dict[str, Any]]:
        return list(self.ask("GET", f"{run_path(run)}/taskInstances")["task_instances"])

    def log(self, task: Mapping[str, Any]) -> list[str]:
        """The log of a task's last try, a line an entry."""
        answer = self.ask(
            "GET",
            f"{run_path(task)}/taskInstances/{task['task_id']}/logs/{task['try_number']}",
            params={"map_index": task["map_index"], "full_content": True},
        )
        return [line for entry in answer["content"] if (line := _log_line(entry))]

    @staticmethod
    def _answer(response: httpx.Response) -> dict[str, Any]:
        if response.is_error:
            raise Failed(f"Airflow answered {response.status_code} to {response.request.url.path}: {response.text}")
        return dict(response.json() or {})


def run_path(run_or_task: Mapping[str, Any]) -> str:
    return f"dags/{run_or_task['dag_id']}/dagRuns/{run_or_task['dag_run_id']}"


def _log_line(entry: Mapping[str, Any]) -> str:
    if entry["event"].startswith("::"):  # the UI folds the log there
        return ""
    errors = [f"{error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or []]
    return " | ".join([entry["event"], *errors])


@contextmanager
def running(environment: dict[str, str]) -> Iterator[Airflow]:
    """All parts of Airflow, up and healthy."""
    preloading = {"PYTHONPATH": f"{PRELOADING}:{environment.get('PYTHONPATH', '')}"}
    with ExitStack() as stack:
        parts = {
            name: stack.enter_context(
                process(name, command(*part), environment | (preloading if name == "scheduler" else {}))
            )
            for name, part in PARTS.items()
        }
        stack.callback(_end_all, list(parts.values()))
        airflow = Airflow(environment["AIRFLOW__API__BASE_URL"])

        def is_up() -> bool:
            for name, part in parts.items():
                if part.poll() is not None:
                    raise Failed(f"`airflow {name}` ended: see {LOGS / name}.log")
            return airflow.is_healthy()

        wait_until(is_up, "Airflow is up", seconds=300)
        airflow.log_in()
        yield airflow


def _end_all(parts: list[subprocess.Popen[bytes]]) -> None:
    """All at once, so that their patience does not add up."""
    for part in parts:
        part.send_signal(signal.SIGINT)
    alive = [psutil.Process(part.pid) for part in parts if part.poll() is None]
    for too_slow in psutil.wait_procs(alive, timeout=5)[1]:
        too_slow.kill()
