"""Events a second with the limit lifted, against what people do today: `python -m benchmarks.sending`.

In one run, on one machine, by turns, and medians: this project (from the ledger, every step durable), a bare aiohttp
loop that keeps no ledger, a loop over `requests`, drt-core, and in a real Airflow one HttpOperator task an event. Every
peer has a process of its own, and so has the server (see benchmarks/endpoint.py), whose clock decides: the rate is that
between the first request's arrival and the last's, so nobody's start-up counts.

This project and the bare loop are compared at the same bound of requests under way, that with which this project
begins; and once more with its own bound, which grows, where the bare loop may have as many as it had at its peak.

Then this project alone at the pace of Attentive, 150 a second: what it takes of a core once it has started.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil

from benchmarks import peers
from benchmarks.airflow import airflow, ended, has
from benchmarks.endpoint import Endpoint, endpoint
from benchmarks.kit import Figure, median, megabytes, parser, processor_seconds, server, tell
from loop_attentive.delivery import FIRST_UNDER_WAY
from loop_attentive.settings import Shop
from sandbox.processes import wait_until
from tests.sending import Book

LATENCIES = (0.08, 0.0)
"""Seconds that the server takes for an answer."""

LIFTED = Shop(name="default", requests_per_second=3_000)
"""More than is reached here; not more by far, for each permit is a moment that the database looks at."""

LIMITED = Shop(name="default")

AT_ONCE = FIRST_UNDER_WAY

THIS, BARE = f"this project, {AT_ONCE} at once", f"bare aiohttp loop, {AT_ONCE} at once"
THIS_FREE, BARE_FREE = "this project, its own bound", "bare aiohttp loop, as many at once as that"
REQUESTS, DRT = "requests loop", "drt-core, rest_api"
HTTP_OPERATOR = "one HttpOperator task an event"

SHARE_OF_BARE = 0.8
SHARE_OF_A_CORE = 0.15


@dataclass
class Turn:
    """One peer's sending. Processor seconds an event: of the peer, of the ledger's database, of the server."""

    rate: float
    under_way: int
    peer: float = 0.0
    database: float = 0.0
    server: float = 0.0


@dataclass
class Race:
    """Turns of all peers at one latency. seconds: how long a turn should take, more or less."""

    book: Book
    to: Endpoint
    latency: float
    seconds: float
    turns: dict[str, list[Turn]] = field(default_factory=dict)

    def lap(self, events: int) -> None:
        """Everybody once; the quick ones send so many events, the others as many as they can in about that time."""
        self.book.add_many(events)
        mine = (self.to.url, self.book.conninfo, LIFTED, self.book.run_key)
        self._turn(THIS, peers.this_project_bounded, AT_ONCE, *mine)
        self._turn(BARE, peers.aiohttp_loop, AT_ONCE, self.to.url, events)
        self.book.add_many(events)
        free = self._turn(THIS_FREE, peers.this_project, *mine)
        self._turn(BARE_FREE, peers.aiohttp_loop, free.under_way, self.to.url, events)
        one_by_one = int(self.seconds / max(self.latency, 1 / 1500))
        self._turn(REQUESTS, peers.requests_loop, self.to.url, one_by_one)
        self._turn(DRT, peers.drt, self.to.url, one_by_one)

    def _turn(self, name: str, send: Callable[..., None], *arguments: Any) -> Turn:
        self.to.reset(self.latency)
        database = database_seconds(self.book)
        cost = peers.alone(send, *arguments)
        stats = self.to.stats()
        sent = stats["requests"]
        used = database_seconds(self.book) - database
        turn = Turn(stats["rate"], stats["most_under_way"], cost.processor / sent, used / sent, stats["busy"] / sent)
        self.turns.setdefault(name, []).append(turn)
        return turn

    def rate(self, name: str) -> float:
        return median(turn.rate for turn in self.turns[name])

    def figures(self) -> Iterator[Figure]:
        for name in self.turns:
            yield Figure(f"{name}{at(self.latency)}", self.rate(name), "events/s", note=self._costs(name))
        share = self._share(THIS, BARE)
        goal, met = (f"at least {SHARE_OF_BARE}", share >= SHARE_OF_BARE) if self.latency else ("", None)
        yield Figure(
            f"this project / bare, {AT_ONCE} at once{at(self.latency)}", share, "", goal, met, "median of pairs"
        )
        share = self._share(THIS_FREE, BARE_FREE)
        yield Figure(f"this project / bare, its own bound{at(self.latency)}", share, "", note="median of pairs")

    def _share(self, one: str, other: str) -> float:
        return median(a.rate / b.rate for a, b in zip(self.turns[one], self.turns[other], strict=True))

    def _costs(self, name: str) -> str:
        turns = self.turns[name]
        if name in (REQUESTS, DRT):
            return ""
        shares = [("sender", "peer"), ("server", "server")] + [("database", "database")] * (name in (THIS, THIS_FREE))
        busy = [f"{who} {median(getattr(t, part) * t.rate for t in turns):.0%}" for who, part in shares]
        return f"{median(turn.under_way for turn in turns):.0f} under way at most; of a core: {', '.join(busy)}"


def database_seconds(book: Book) -> float:
    """Processor seconds of the server of a book's database, with all its processes, those that are gone included."""
    postmaster = psutil.Process(book.connection.info.backend_pid).parent()
    assert postmaster is not None
    times = postmaster.cpu_times()
    gone = times.children_user + times.children_system
    return float(
        times.user + times.system + gone + sum(processor_seconds(child.pid) for child in postmaster.children())
    )


def http_operator(events: int, to: Endpoint) -> Iterator[tuple[float, Figure]]:
    """Latency and rate of one HttpOperator task an event, in an Airflow that does nothing else."""
    bodies = json.dumps([json.dumps(event) for event in peers.events(events)])
    with airflow(to.url, {"BENCH_BODIES": bodies}) as (up, _):
        wait_until(lambda: has(up, "http_operator"), "Airflow has read http_operator", seconds=120, every=1)
        up.unpause("http_operator")
        for number, latency in enumerate(LATENCIES, 1):
            to.reset(latency)
            up.trigger("http_operator")
            ended(up, "http_operator", number, seconds=120 + 5 * events)
            stats = to.stats()
            if stats["requests"] != events:
                raise RuntimeError(f"{events} tasks of HttpOperator made {stats['requests']} requests.")
            note = f"{events} tasks, LocalExecutor, 4 at once"
            yield latency, Figure(f"{HTTP_OPERATOR}{at(latency)}", stats["rate"], "events/s", note=note)


def at(latency: float) -> str:
    return f" at {latency * 1000:.0f} ms"


def at_the_pace(book: Book, to: Endpoint, seconds: int) -> list[Figure]:
    """What the sending process takes of a core, from when it has sent for some seconds."""
    start_up = 3
    rate = LIMITED.requests_per_second
    book.add_many(rate * (seconds + start_up + 2))
    to.reset(LATENCIES[0])
    sending = peers.FRESH.Process(target=peers.this_project, args=(to.url, book.conninfo, LIMITED, book.run_key))
    sending.start()
    assert sending.pid is not None
    wait_until(lambda: to.stats()["requests"] > rate * start_up, "it sends", seconds=120, every=0.1)
    used, database, began, requests = _now(book, to, sending.pid)
    time.sleep(seconds)  # the span that is measured
    used_then, database_then, ended_at, requests_then = _now(book, to, sending.pid)
    memory = megabytes(sending.pid)
    sending.join()
    took = ended_at - began
    share = (used_then - used) / took
    return [
        Figure("rate at the limit", (requests_then - requests) / took, "events/s", note=f"over {took:.0f} s, 80 ms"),
        Figure("sending process at the limit, of a core", 100 * share, "%", "less than 15", share < SHARE_OF_A_CORE),
        Figure("ledger's database at the limit, of a core", 100 * (database_then - database) / took, "%"),
        Figure("memory of the sending process at the limit", memory, "MB"),
    ]


def _now(book: Book, to: Endpoint, pid: int) -> tuple[float, float, float, int]:
    return processor_seconds(pid), database_seconds(book), time.monotonic(), to.stats()["requests"]


def main() -> None:
    parsing = parser("sending", __doc__)
    parsing.add_argument("--events", type=int, default=10_000, help="that the quick ones send in a turn")
    parsing.add_argument(
        "--seconds", type=float, default=5, help="that the slow ones send in a turn, and at the limit x 6"
    )
    parsing.add_argument("--repeats", type=int, default=5, help="0: only what it takes at the limit")
    parsing.add_argument("--tasks", type=int, default=40, help="of HttpOperator; 0: leave it out")
    options = parsing.parse_args()
    figures: list[Figure] = []
    with server() as conninfo, endpoint() as to:
        book = Book(conninfo, LIFTED)
        races = [Race(book, to, latency, options.seconds) for latency in LATENCIES]
        for _ in range(options.repeats):
            for race in races:
                race.lap(options.events)
        pace = at_the_pace(book, to, int(options.seconds * 6))
        in_airflow = dict(http_operator(options.tasks, to)) if options.tasks else {}
        for race in races if options.repeats else ():
            figures += [*race.figures(), *filter(None, [in_airflow.get(race.latency)])]
        figures += pace
        tell(options, "Sending with the limit lifted", figures)


if __name__ == "__main__":
    main()
