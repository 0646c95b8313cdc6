"""A whole house for the tests: a real Airflow on a copy of the project, and merchants who live in it side by side.

Each merchant is a shop of its own: its entry in shops.yaml, its DAGs, its warehouse, and its stand-in for Attentive. So
many things can happen at the same time and none disturbs another; only Airflow and the ledger are shared.
"""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
import yaml
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from loop_attentive.migrate import migrate
from sandbox.airflow import (
    LEDGER,
    METADATA,
    PARTS,
    PRELOADING,
    Airflow,
    command,
    inherited,
    prepare,
    run_path,
    running,
    settings,
)
from sandbox.attentive import Record, Standin, running_standin
from sandbox.processes import HOME, LOGS, ROOT, Failed, free_port, process, wait_until
from sandbox.warehouse import create
from tests.e2e.collector import Collector

DAY, HOUR = timedelta(days=1), timedelta(hours=1)

PHONE = "+1 (415) 555-2671"
PHONE_DIGITS = "4155552671"
EMAIL = "canary.customer@example.com"
NAME = "Canary Customerson"
STATUS_PAGE = "https://canary.example.com/returns"
TRACKING_URL = "https://canary.example.com/tracking"
LABEL_URL = "https://canary.example.com/label.pdf"
FORGOTTEN_PHONE, FORGOTTEN_EMAIL = "+14155550188", "canary.forgotten@example.com"
"""What stands in customers' rows, and must not be found where nobody may see it."""

KEY = "canary-key"
"""How the merchants' API keys begin."""

LOOP_KEY = "canary-loop-key"
"""Of Loop's own API."""

PROJECT = HOME / "project"
SHOPS_FILE = PROJECT / "include" / "shops.yaml"

Run = dict[str, Any]
Task = dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    """A row of audit_attempt, as tests compare it."""

    event_id: str
    outcome: str | None
    http_status: int | None
    try_number: int
    started_at: datetime


class Merchant:
    """One shop. attentive: its stand-in. warehouse, ledger: connections in autocommit (the ledger's as superuser)."""

    def __init__(
        self, name: str, airflow: Airflow, warehouse: psycopg.Connection[Any], ledger: str, attentive: Standin
    ) -> None:
        self.name = name
        self.airflow = airflow
        self.warehouse = warehouse
        self.attentive = attentive
        suffix = "" if name == "default" else f"__{name}"
        self.hourly, self.daily = f"loop_attentive_hourly{suffix}", f"loop_attentive_daily{suffix}"
        self.resolve, self.stop = f"loop_attentive_resolve{suffix}", f"loop_attentive_stop{suffix}"
        self.backfill = f"loop_attentive_backfill{suffix}"
        self.dags = [self.hourly, self.daily, self.resolve, self.stop, self.backfill, f"loop_attentive_check{suffix}"]
        self._ids = iter(range(1, 10**6))
        self.open_ledger(ledger)
        self.connect_warehouse()
        self.connect_attentive()

    # ── The connections ──

    def open_ledger(self, conninfo: str) -> None:
        self.ledger = psycopg.connect(conninfo, autocommit=True, options="-c search_path=loop_attentive")

    def close(self) -> None:
        self.ledger.close()

    def connect_warehouse(self) -> None:
        info = conninfo_to_dict(self.warehouse.info.dsn)
        set_connection(
            self.airflow, f"warehouse_{self.name}",
            conn_type="postgres", host=str(info["host"]), login="postgres", schema=str(info["dbname"]),
        )  # fmt: skip

    def connect_attentive(self, url: str | None = None, key: str | None = None) -> None:
        set_connection(
            self.airflow, f"attentive_{self.name}",
            conn_type="http", host=url or self.attentive.url, password=key or f"{KEY}-{self.name}",
        )  # fmt: skip

    def connections(self, server: str) -> dict[str, dict[str, str]]:
        """Those that a command needs which Airflow does not run. server: conninfo of the ledger's."""
        host = str(conninfo_to_dict(server)["host"])
        return {
            "loop_attentive_db": {"conn_type": "postgres", "host": host, "login": "postgres", "schema": LEDGER},
            f"attentive_{self.name}": {
                "conn_type": "http", "host": self.attentive.url, "password": f"{KEY}-{self.name}",
            },
        }  # fmt: skip

    # ── The warehouse ──

    def put(self, table: str, **row: Any) -> None:
        row = {"synced_at": datetime.now(UTC)} | row
        self.warehouse.execute(
            sql.SQL("INSERT INTO loop.{} ({}) VALUES ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, row)),
                sql.SQL(", ").join(map(sql.Placeholder, row)),
            ),
            row,
        )

    def put_returns(self, count: int, age: timedelta, **row: Any) -> list[str]:
        """Open returns of that age, of somebody who can be reached, with labels enabled; their ids."""
        ids = [next(self._ids) for _ in range(count)]
        created_at = datetime.now(UTC) - age
        for return_id in ids:
            usual = {
                "return_id": return_id, "state": "open", "customer_phone": PHONE, "customer_email": EMAIL,
                "order_name": f"{NAME} #{return_id}", "status_page_url": STATUS_PAGE, "labels_enabled": True,
                "created_at": created_at, "updated_at": created_at, "is_deleted": False,
            }  # fmt: skip
            self.put("returns", **usual | row)
        return [str(return_id) for return_id in ids]

    def put_label(self, return_id: str, **row: Any) -> None:
        usual = {"tracking_url": TRACKING_URL, "label_url": LABEL_URL, "carrier": "UPS", "status": "in_transit"}
        self.put("labels", return_id=return_id, **usual | row)

    def put_delivered_label(self) -> None:
        """A source that knows no label at all reminds of nothing: nothing there tells what is shipped."""
        [return_id] = self.put_returns(1, 100 * DAY, state="closed")
        self.put_label(return_id, tracking_number="1ZOLD", status="delivered", created_at=datetime.now(UTC) - 99 * DAY)

    # ── Runs ──

    def scheduled(self, dag_id: str) -> Run:
        """The run that the scheduler makes once the DAG is no longer paused."""
        self.airflow.unpause(dag_id)
        wait_until(lambda: bool(self.airflow.runs(dag_id)), f"{dag_id} is scheduled", seconds=240, every=1)
        return self.airflow.runs(dag_id)[0]

    def trigger(self, dag_id: str, **form: Any) -> Run:
        wait_until(lambda: self.airflow.has_dag(dag_id), f"Airflow has read {dag_id}", seconds=180, every=1)
        return self.airflow.trigger(dag_id, **form)

    def when_asked(self, run: Run, task_id: str) -> Task:
        """The task, once it asks.

        Who answers before the scheduler has heard that the asking process ended, which nobody does by hand, makes
        Airflow take that end for the end of the task.
        """

        def asks() -> bool:
            parked = (
                f"with state success for task instance TaskInstanceKey(dag_id='{run['dag_id']}', task_id='{task_id}'"
            )
            heard = [line for line in scheduler_log() if parked in line and run["dag_run_id"] in line]
            return bool(heard) and self.task(run, task_id)["state"] == "awaiting_input"

        wait_until(asks, f"{task_id} of {run['dag_id']} asks", seconds=300)
        return self.task(run, task_id)

    def answers(self, run: Run, task_id: str, choice: str) -> str:
        """A person's answer to what a task asks, once it does; what was asked."""
        task = self.when_asked(run, task_id)
        path = f"{run_path(run)}/taskInstances/{task_id}/-1/hitlDetails"
        asked = str(self.airflow.ask("GET", path)["body"])
        self.airflow.answer(task, choice)
        return asked

    def ended(self, run: Run) -> str:
        """The state in which a run ends."""
        path = run_path(run)
        wait_until(
            lambda: self.airflow.ask("GET", path)["state"] in ("success", "failed"), f"{path} ends", 900, every=2
        )
        return str(self.airflow.ask("GET", path)["state"])

    def succeeds(self, *runs: Run) -> None:
        for run in runs:
            if self.ended(run) != "success":
                logs = {task["task_id"]: self.airflow.log(task) for task in self.tasks(run, state="failed")}
                raise AssertionError(f"{run['dag_run_id']} of {run['dag_id']} failed: {logs}")

    def tasks(self, run: Run, state: str | None = None) -> list[Task]:
        return [task for task in self.airflow.tasks(run) if state in (None, task["state"])]

    def task(self, run: Run, task_id: str) -> Task:
        [task] = [task for task in self.tasks(run) if task["task_id"] == task_id]
        return task

    def when_running(self, run: Run, task_id: str, also: Callable[[], bool]) -> Task:
        """The task, once it runs and the condition holds too."""

        def is_so() -> bool:
            return any(t["task_id"] == task_id and t["state"] == "running" for t in self.tasks(run)) and also()

        wait_until(is_so, f"{task_id} of {run['dag_id']} runs", seconds=300)
        return self.task(run, task_id)

    def clear(self, run: Run, **what: Any) -> None:
        """Clears tasks of a run, as the button in the UI does: all of them, if not told otherwise."""
        self.airflow.ask(
            "POST", f"dags/{run['dag_id']}/clearTaskInstances",
            json={"dag_run_id": run["dag_run_id"], "dry_run": False, "only_failed": False} | what,
        )  # fmt: skip

    def fail_by_hand(self, task: Task) -> None:
        """Marks a task failed, as in the UI."""
        self.airflow.ask(
            "PATCH",
            f"{run_path(task)}/taskInstances/{task['task_id']}/{task['map_index']}",
            json={"new_state": "failed"},
        )

    def fails_once(self, run: Run, task_id: str, *, tries: int, mend: str) -> None:
        """The run fails by one try of the task (tries: with those before it was cleared), in a line that says this."""
        assert self.ended(run) == "failed"
        assert {task["task_id"] for task in self.tasks(run, state="failed")} == {task_id, "audit"}
        failed = self.task(run, task_id)
        assert failed["try_number"] == tries
        log = self.airflow.log(failed)
        assert any(mend in line and "\n" not in line for line in log), log

    # ── What became of it ──

    def outcomes(self) -> Counter[tuple[str, str, str | None]]:
        """How many events there are of each type (without the word Loop), state and reason."""
        return Counter(
            self.rows("SELECT replace(event_type, 'Loop ', ''), status, reason FROM audit_event WHERE shop = %s")
        )

    def statuses(self) -> Counter[str]:
        return Counter(status for _, status, _ in self.outcomes().elements())

    def attempts(self) -> list[Attempt]:
        rows = self.rows(
            "SELECT a.event_id::text, a.outcome, a.http_status, a.try_number, a.started_at FROM audit_attempt AS a "
            "JOIN audit_event AS e USING (event_id) WHERE e.shop = %s ORDER BY a.event_id, a.attempt"
        )
        return [Attempt(*row) for row in rows]

    def marks(self) -> dict[str, datetime | None]:
        return dict(self.rows("SELECT event_type, completed_at FROM rule WHERE shop = %s"))

    def whole_looks(self) -> list[datetime]:
        return [at for (at,) in self.rows("SELECT as_of FROM look WHERE shop = %s AND whole ORDER BY as_of")]

    def looks(self, dag_id: str) -> dict[str, datetime]:
        """as_of of each run that is known to the ledger, by run id."""
        rows = self.rows("SELECT run_id, as_of, dag_id FROM audit_run WHERE shop = %s ORDER BY started_at")
        return {run_id: as_of for run_id, as_of, dag in rows if dag == dag_id}

    def leased(self) -> int:
        [(count,)] = self.rows("SELECT count(*) FROM event WHERE shop = %s AND lease IS NOT NULL")
        return int(count)

    def minutes_pass(self, minutes: int) -> None:
        """For the ledger: what it waits for comes sooner by so much, what it remembers is longer ago."""
        self.ledger.execute(
            "UPDATE event SET due_at = due_at - %(ago)s, resend_at = resend_at - %(ago)s, sent_at = sent_at - %(ago)s, "
            "lease_until = lease_until - %(ago)s WHERE shop = %(shop)s",
            {"ago": timedelta(minutes=minutes), "shop": self.name},
        )

    def accepted(self) -> Counter[str]:
        """How often the stand-in took in each event, by its id."""
        return Counter(str(record.event_id) for record in self.attentive.received if record.accepted)

    def received(self, event_id: str) -> list[Record]:
        return [record for record in self.attentive.received if record.event_id == event_id]

    def adds_up(self) -> None:
        """Every run: yielded = known + new, new = the sum of the states; and a request for every attempt that left."""
        rows = self.rows(
            "SELECT run_id, yielded - known - qualified, qualified - pending - held - sending - accepted - rejected "
            "- invalid - expired - suppressed - unknown FROM audit_run WHERE shop = %s"
        )
        assert all(row[1:] == (0, 0) for row in rows), rows
        left = [attempt for attempt in self.attempts() if attempt.outcome not in ("not sent", "lost")]
        lost = [attempt for attempt in self.attempts() if attempt.outcome == "lost"]
        assert len(left) <= len(self.attentive.received) <= len(left) + len(lost)

    def each_exactly_once(self) -> None:
        """Everything that Attentive took in is accepted in the ledger and nothing else is, and nothing came twice."""
        accepted = self.rows("SELECT event_id::text FROM audit_event WHERE shop = %s AND status = 'accepted'")
        assert self.accepted() == Counter(event_id for (event_id,) in accepted)

    def rows(self, query: LiteralString) -> list[tuple[Any, ...]]:
        return self.ledger.execute(query, (self.name,)).fetchall()


def scheduler_log() -> list[str]:
    return (LOGS / "scheduler.log").read_text().splitlines()


def set_connection(airflow: Airflow, conn_id: str, **fields: Any) -> None:
    remove_connection(airflow, conn_id)
    airflow.ask("POST", "connections", json={"connection_id": conn_id} | fields)


def remove_connection(airflow: Airflow, conn_id: str) -> None:
    with suppress(Failed):
        airflow.ask("DELETE", f"connections/{conn_id}")


class House:
    """metadata, ledger: conninfos. environment: of everything that runs here. metrics: what Airflow told of itself."""

    def __init__(
        self,
        airflow: Airflow,
        environment: Mapping[str, str],
        server: str,
        merchants: Mapping[str, Merchant],
        processes: ExitStack,
        metrics: Collector,
    ) -> None:
        self.metrics = metrics
        self.airflow = airflow
        self._processes = processes
        self._started_again = count(2)
        self.environment = environment
        self.server = server
        self.metadata = make_conninfo(server, dbname=METADATA)
        self.merchants = merchants
        self.connect_ledger()

    def connect_ledger(self, database: str = LEDGER, server: str | None = None) -> None:
        """server: conninfo of another PostgreSQL than Airflow's."""
        host = str(conninfo_to_dict(server or self.server)["host"])
        set_connection(
            self.airflow, "loop_attentive_db", conn_type="postgres", host=host, login="postgres", schema=database
        )

    def forget(self, merchant: Merchant, *contacts: str) -> str:
        """What `make forget` says, to which the contacts come on standard input."""
        connections = {
            f"AIRFLOW_CONN_{name.upper()}": json.dumps(fields)
            for name, fields in merchant.connections(self.server).items()
        }
        done = subprocess.run(
            [sys.executable, "-m", "loop_attentive.forget", "--shop", merchant.name],
            env={**self.environment, **connections}, cwd=PROJECT, input="\n".join(contacts), capture_output=True,
            text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def command(self, *arguments: str) -> str:
        """What an Airflow command says; it must succeed."""
        done = subprocess.run(
            command(*arguments), env=self.environment, cwd=PROJECT, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
        return done.stdout + done.stderr

    def dags_test(self, dag_id: str) -> str:
        """What `airflow dags test` says. The DAG is paused: else the scheduler takes tasks of that run as well."""
        self.airflow.pause(dag_id)
        return self.command("dags", "test", dag_id)

    def backfilled(self, dag_id: str, first: datetime, last: datetime) -> list[Run]:
        """The runs that `airflow backfill create` makes for the intervals that start from first to last."""
        before = {run["dag_run_id"] for run in self.airflow.runs(dag_id)}
        self.backfill(dag_id, "--from-date", first.isoformat(), "--to-date", last.isoformat())
        return [run for run in self.airflow.runs(dag_id) if run["dag_run_id"] not in before]

    def backfill(self, dag_id: str, *options: str) -> None:
        """`airflow backfill create`, once Airflow has noticed that the last one is done: of a DAG it allows one."""
        wait_until(
            lambda: all(made["completed_at"] for made in self.airflow.backfills(dag_id)),
            f"no backfill of {dag_id} is under way",
            seconds=300,
        )
        self.command("backfill", "create", "--dag-id", dag_id, *options)

    def rescheduled(self, run: Run, task_id: str) -> int:
        """How often a task gave its slot back."""
        with psycopg.connect(self.metadata) as metadata:
            row = metadata.execute(
                "SELECT count(*) FROM task_reschedule JOIN task_instance AS ti ON ti.id = ti_id "
                "WHERE dag_id = %s AND run_id = %s AND task_id = %s",
                (run["dag_id"], run["dag_run_id"], task_id),
            ).fetchone()
        return int(row[0]) if row else 0

    def read_dags_again(self) -> None:
        """Has Airflow read the DAG files now, and not when it is their turn."""
        for dag_id in ("loop_attentive_hourly", "loop_attentive_daily", "loop_attentive_check"):
            self.airflow.ask("PUT", f"parseDagFile/{self.airflow.ask('GET', f'dags/{dag_id}')['file_token']}")
        (PROJECT / "dags" / "loop_attentive_shops.py").touch()  # it makes no DAG to ask for

    def part(self, name: str) -> psutil.Process | None:
        """A part of Airflow, if it runs."""
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                if name in child.cmdline():
                    return child
        return None

    def start_what_has_ended(self) -> None:
        """Starts scheduler, DAG processor and triggerer again, as their supervisor does, where they have ended."""
        for name in ("scheduler", "dag-processor", "triggerer"):
            if self.part(name) is None:
                preloading = {"PYTHONPATH": f"{PRELOADING}:{self.environment['PYTHONPATH']}"}
                environment = {**self.environment, **(preloading if name == "scheduler" else {})}
                log_name = f"{name}-{next(self._started_again)}"
                self._processes.enter_context(process(log_name, command(*PARTS[name]), environment))

    def logs_of(self, part: str) -> list[str]:
        """What a part of Airflow has said."""
        return (LOGS / f"{part}.log").read_text().splitlines()

    def log_files(self) -> list[Path]:
        return [path for path in HOME.rglob("*.log") if path.is_file()]


@contextmanager
def open_house(server: str, shops: Mapping[str, Mapping[str, Any]]) -> Iterator[House]:
    """server: conninfo of a PostgreSQL's superuser. shops: settings by name, without their connections."""
    for part in ("dags", "plugins", "include"):
        shutil.copytree(ROOT / part, PROJECT / part, ignore=shutil.ignore_patterns("__pycache__"))
    write_settings(shops)
    prepare(server)
    ledger = make_conninfo(server, dbname=LEDGER)
    migrate(ledger)
    metrics = Collector()
    with ExitStack() as stack:
        environment = inherited() | {
            name: value
            for name, value in settings(server, "", free_port(0)).items()
            if not name.startswith("AIRFLOW_CONN_")
        }
        environment |= {
            "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
            "AIRFLOW__CORE__PARALLELISM": "8",  # many of them only wait
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",  # who changes a file has it read again
            **stack.enter_context(metrics.running()),
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",  # what a dead scheduler left is found soon
            "PYTHONPATH": str(PROJECT / "plugins"),
        }
        warehouses = {name: stack.enter_context(warehouse(server, f"warehouse_{name}")) for name in shops}
        standins = {name: stack.enter_context(running_standin(key=f"{KEY}-{name}")) for name in shops}
        airflow = stack.enter_context(running(environment))
        merchants = {name: Merchant(name, airflow, warehouses[name], ledger, standins[name]) for name in shops}
        for merchant in merchants.values():
            stack.callback(merchant.close)
        house = House(airflow, environment, server, merchants, stack, metrics)
        dags = [dag for merchant in merchants.values() for dag in merchant.dags]
        wait_until(lambda: all(map(airflow.has_dag, dags)), "Airflow has read the DAGs", seconds=180, every=1)
        yield house


def write_settings(shops: Mapping[str, Mapping[str, Any]]) -> None:
    usual = {
        name: {"warehouse": f"warehouse_{name}", "attentive": f"attentive_{name}", "max_per_person_per_day": 100_000}
        for name in shops  # each merchant has one customer
    }
    SHOPS_FILE.write_text(yaml.safe_dump({"shops": {name: usual[name] | dict(shops[name]) for name in shops}}))


@contextmanager
def warehouse(server: str, name: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    with closing(psycopg.connect(make_conninfo(server, dbname=name), autocommit=True)) as connection:
        create(connection)
        yield connection
