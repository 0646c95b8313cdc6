"""Attentive at the other end of the made-up network: takes events, and answers as the weather is."""

import asyncio
import json
import random
from collections.abc import Callable
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from loop_attentive.attentive import BODY_TIMEOUT
from tests.simulation.clockwork import Process, VirtualLoop

ATTEMPT: ContextVar[int] = ContextVar("attempt", default=0)
"""Of the ledger, to which the request that is being written belongs."""

JITTER = 0.004
"""Seconds that one request may be longer on its way than another."""

NO_ANSWER = 0

UNSETTLED_SECONDS = 0.25
"""For which an answer may be in hand, once its body has come or is waited for no longer."""


@dataclass(frozen=True)
class Fate:
    """What becomes of a request. taken: whether its event is. status: of the answer, or NO_ANSWER.

    after: seconds until the answer. reset: the connection is cut then. retry_after: what the answer asks for. limit: of
    requests a second, that it names. body: what comes after its head, of so many bytes announced. ends: the connection
    is closed after the answer.
    """

    name: str
    taken: bool
    status: int = NO_ANSWER
    after: float = 0.0
    reset: bool = False
    retry_after: int | None = None
    limit: int | None = None
    announced: int = 0
    body: bytes = b""
    ends: bool = False


FAIR = Fate("taken", True, 200)
FOUL = (
    Fate("429", False, 429),
    Fate("429, retry after 3 s", False, 429, retry_after=3),
    Fate("503", False, 503),
    Fate("500, and taken", True, 500),
    Fate("500", False, 500),
    Fate("408, and taken", True, 408),
    Fate("504, and taken", True, 504),
    Fate("502", False, 502),
    Fate("400", False, 400),
    Fate("401", False, 401),
    Fate("403", False, 403),
    Fate("reset unread", False, reset=True),
    Fate("reset after it was taken", True, reset=True),
    Fate("silence", False),
    Fate("silence after it was taken", True),
    Fate("a late answer", True, 200, after=25.0),
    Fate("an answer that nobody waits for any more", True, 200, after=40.0),
    Fate("no HTTP", True, status=999),
    Fate("taken, and hung up", True, 200, ends=True),
    Fate("429, and a lower limit", False, 429, limit=4),
    Fate("taken, and the body never ends", True, 200, announced=1000, body=b"{"),
    Fate("503, and the body never ends", False, 503, announced=1000, body=b"{"),
    Fate("taken, and too much is said", True, 200, body=b"{}"),
)
REFUSED, SLOW, NEVER = "refused", "slow", "never"
"""What may become of opening a connection."""


@dataclass
class Request:
    """One request that arrived. at, left_at: the loop's time. distance: seconds of its way, as the weather was then.

    attempt: of the ledger. answered_at: when its client heard.
    """

    at: float
    left_at: float
    distance: float
    event: dict[str, Any]
    attempt: int
    process: Process
    fate: Fate
    answered_at: float | None = None

    @property
    def event_id(self) -> str:
        return str(self.event["externalEventId"])

    @property
    def is_over_by(self) -> float:
        """When its answer, once heard, is settled, while its client's database answers."""
        assert self.answered_at is not None, "it was answered"
        return self.answered_at + UNSETTLED_SECONDS + (BODY_TIMEOUT if self.fate.announced else 0)


@dataclass
class Weather:
    """How often a request, or the opening of a connection, meets with one of some mishaps; until a moment."""

    foul: tuple[Fate, ...] = ()
    share: float = 0.0
    connecting: tuple[str, ...] = ()
    connecting_share: float = 0.0
    until: float = 0.0
    latency: float = 0.08
    refused_types: frozenset[str] = field(default_factory=frozenset)


class Attentive:
    """The server, and the network that leads to it."""

    def __init__(
        self,
        loop: VirtualLoop,
        weather: Weather,
        rng: random.Random,
        tell: Callable[[str], None],
        arrived: Callable[[Request], None],
    ) -> None:
        self.requests: list[Request] = []
        self._wires: list[Wire] = []
        self._loop = loop
        self._weather = weather
        self._rng = rng
        self._tell = tell
        self._arrived = arrived

    def turns(self, weather: Weather) -> None:
        self._weather = weather

    async def connect(self, process: Process) -> None:
        await process.reaches("connecting")
        weather = self._weather
        how = ""
        if self._loop.time() < weather.until and self._rng.random() < weather.connecting_share:
            how = self._rng.choice(weather.connecting)
        await asyncio.sleep({SLOW: self._rng.uniform(0.5, 9.5), NEVER: 60.0}.get(how, weather.latency / 2))
        if how == REFUSED:
            raise ConnectionRefusedError(111, "refused (made up)")
        await process.reaches("connected")

    def wire(self, process: Process, protocol: Any) -> "Wire":
        self._wires.append(Wire(self._loop, self, process, protocol))
        return self._wires[-1]

    def hangs_up(self, process: Process) -> None:
        """Closes those connections of a process on which no answer is owed, as who goes out of service does."""
        for wire in self._wires:
            if wire.process is process and not wire.is_owed_an_answer:
                wire.close()

    @property
    def distance(self) -> float:
        return self._weather.latency / 2

    def delay(self) -> float:
        return self._rng.uniform(0, JITTER)

    def receive(self, wire: "Wire", event: dict[str, Any], attempt: int, left_at: float, distance: float) -> None:
        request = Request(self._loop.time(), left_at, distance, event, attempt, wire.process, self._fate())
        self.requests.append(request)
        self._tell(f"{request.event_id[:8]} attempt {attempt} of process {wire.process.number}: {request.fate.name}")
        self._arrived(request)
        wire.process.hit("received")
        self._loop.call_later(self._weather.latency / 2 + request.fate.after, self._answer, wire, request)

    def _fate(self) -> Fate:
        weather = self._weather
        if self._loop.time() < weather.until and self._rng.random() < weather.share:
            return self._rng.choice(weather.foul)
        return FAIR

    def _answer(self, wire: "Wire", request: Request) -> None:
        fate = request.fate
        if fate.reset:
            wire.cut()
        elif fate.status == 999:
            wire.bring(b"\x00 this is not HTTP \r\n\r\n", request)
        elif fate.status != NO_ANSWER:
            lines = [f"HTTP/1.1 {fate.status} Made Up", f"Content-Length: {fate.announced}"]
            lines += [f"Retry-After: {fate.retry_after}"] if fate.retry_after is not None else []
            lines += [f"x-ratelimit-limit: {fate.limit}"] if fate.limit is not None else []
            wire.bring("\r\n".join([*lines, "", ""]).encode() + fate.body, request)


class Wire(asyncio.Transport):
    """The client's end of a connection."""

    def __init__(self, loop: VirtualLoop, server: Attentive, process: Process, protocol: Any) -> None:
        super().__init__()
        self.process = process
        self.is_owed_an_answer = False
        self._loop = loop
        self._server = server
        self._protocol = protocol
        self._closed = False
        self._written = b""
        self._last_arrival = 0.0
        self._in_process(protocol.connection_made, self)

    def _in_process(self, callback: Callable[..., object], *args: object) -> None:
        self._loop.call_soon(callback, *args, context=self.process.context.copy())

    def write(self, data: Any) -> None:
        if self._closed or not self.process.is_alive:
            return
        self._written += bytes(data)
        head, blank, body = self._written.partition(b"\r\n\r\n")
        if blank and len(body) >= _content_length(head):
            self._written = b""
            self.is_owed_an_answer = True
            distance = self._server.distance
            self._last_arrival = max(self._last_arrival, self._loop.time() + distance + self._server.delay())
            event, attempt = json.loads(body), ATTEMPT.get()
            arrives = partial(self._server.receive, self, event, attempt, self._loop.time(), distance)
            self._loop.call_at(self._last_arrival, arrives, context=Context())
            self.process.hit("written")

    def bring(self, data: bytes, request: Request) -> None:
        if not self._closed and self.process.is_alive:
            self._in_process(self._hand_over, data, request)

    def _hand_over(self, data: bytes, request: Request) -> None:
        if not self._closed and self.process.is_alive:
            request.answered_at = self._loop.time()
            self.is_owed_an_answer = False
            self._protocol.data_received(data)
            self.process.hit("answered")
            if request.fate.ends:
                self.close()

    def cut(self) -> None:
        self._end(ConnectionResetError(104, "reset (made up)"))

    def close(self) -> None:
        self._end(None)

    abort = close

    def _end(self, error: Exception | None) -> None:
        if not self._closed:
            self._closed = True
            self._in_process(self._protocol.connection_lost, error)

    def is_closing(self) -> bool:
        return self._closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
