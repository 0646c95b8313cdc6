"""A stand-in for Attentive's API: as strict as its documents, with faults to switch on.

In a test's own event loop:     async with Standin(key="k") as standin: ...
From tests without a loop:      with running_standin(key="k") as standin: ...
As a process of its own:        python -m sandbox.attentive --key-env NAME --port-file FILE

It listens on 127.0.0.1 only. What it demands comes from Attentive's public OpenAPI description (custom events, /me,
privacy). Where that is lenient in a way that loses data in silence, the stand-in refuses instead: values that a text
message cannot show, property keys beyond the 200 that Journeys can use, phones that no numbering plan assigns.
What nobody documents is noted and let pass: an occurredAt in the future, one event id sent twice.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import random
import re
import signal
import socket
import struct
import tempfile
import threading
import time
import weakref
from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, Self, overload

import phonenumbers
from aiohttp import web

log = logging.getLogger(__name__)

EVENTS = "/v1/events/custom"
ME = "/v1/me"
DELETE_REQUEST = "/v1/privacy/delete-request"
ELSEWHERE = "elsewhere"
"""Stands for every other path in the traffic's books, such as one that a redirect was followed to."""

REQUESTS_PER_SECOND = 150
PROPERTY_KEYS_PER_TYPE = 200
LARGEST_BODY = 64 * 1024
"""Bytes. Attentive names no bound; a gateway always has one."""

JOURNEY_AGE = timedelta(hours=12)

NO_JOURNEY = "no_journey"
"""Accepted, but occurredAt is older than 12 hours: no Journey fires."""
IN_FUTURE = "occurred_in_future"
NO_OCCURRED_AT = "no_occurred_at"
NO_EVENT_ID = "no_event_id"
RECREATES_PERSON = "recreates_deleted_person"

Json = dict[str, Any]


# --- What an event must look like -------------------------------------------------------------------------------------

BANNED_IN_NAMES = frozenset("\"'(){}[]\\|,")
E164 = re.compile(r"\+[1-9][0-9]{6,14}")
EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})", re.IGNORECASE
)


class RefusedError(Exception):
    """An answer other than success. `reason` names the field and never its value."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def require(condition: bool, reason: str) -> None:
    if not condition:
        raise RefusedError(400, reason)


def check_event(event: Json) -> None:
    """Raises RefusedError unless the event is one that Attentive takes, whoever sends it and whenever."""
    check_keys(event, {"type", "user", "properties", "externalEventId", "occurredAt"}, "the body")
    require("type" in event, "type is missing")
    require("user" in event, "user is missing")
    check_name(event["type"], "type")
    check_user(event["user"])
    check_properties(event.get("properties", {}))
    if "externalEventId" in event:
        check_text(event["externalEventId"], "externalEventId")
    if "occurredAt" in event:
        parse_time(event["occurredAt"])


def check_user(user: Any) -> None:
    check_keys(user, {"phone", "email", "externalIdentifiers"}, "user")
    require(bool(user), "user has no identifier")
    if "phone" in user:
        require(is_phone(user["phone"]), "user.phone is no E.164 number")
    if "email" in user:
        require(matches(EMAIL, user["email"]), "user.email is no e-mail address")
    if "externalIdentifiers" in user:
        check_external_identifiers(user["externalIdentifiers"])


def check_external_identifiers(identifiers: Any) -> None:
    where = "user.externalIdentifiers"
    check_keys(identifiers, {"clientUserId", "customIdentifiers"}, where)
    require(bool(identifiers), f"{where} has no identifier")
    if "clientUserId" in identifiers:
        check_text(identifiers["clientUserId"], f"{where}.clientUserId")
    if "customIdentifiers" in identifiers:
        where = f"{where}.customIdentifiers"
        custom = identifiers["customIdentifiers"]
        require(isinstance(custom, list) and bool(custom), f"{where} is no list of identifiers")
        for identifier in custom:
            check_keys(identifier, {"name", "value"}, where)
            check_text(identifier.get("name"), f"{where}.name")
            check_text(identifier.get("value"), f"{where}.value")


def check_properties(properties: Any) -> None:
    require(isinstance(properties, dict), "properties is no object")
    for key, value in properties.items():
        check_name(key, "a key of properties")
        flat = isinstance(value, str | bool | int | float) and value != ""
        require(flat, "a value of properties is empty or not flat")
    if "returnId" in properties:
        require(type(properties["returnId"]) is int, "properties.returnId is no integer")
    if "labelsEnabled" in properties:
        require(type(properties["labelsEnabled"]) is bool, "properties.labelsEnabled is no boolean")


def check_keys(value: Any, allowed: set[str], where: str) -> None:
    require(isinstance(value, dict), f"{where} is no object")
    require(value.keys() <= allowed, f"{where} has a key other than {', '.join(sorted(allowed))}")


def check_name(value: Any, where: str) -> None:
    check_text(value, where)
    require(BANNED_IN_NAMES.isdisjoint(value), f"{where} has a character that is not allowed")


def check_text(value: Any, where: str) -> None:
    require(isinstance(value, str) and bool(value.strip()), f"{where} is no text, or empty")


def matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def is_phone(value: Any) -> bool:
    try:
        return matches(E164, value) and phonenumbers.is_valid_number(phonenumbers.parse(value))
    except phonenumbers.NumberParseException:
        return False


def parse_time(value: Any) -> datetime:
    """The instant in UTC of an RFC 3339 text with an offset; raises RefusedError for anything else."""
    require(matches(RFC3339, value), "occurredAt is no RFC 3339 time with an offset")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise RefusedError(400, "occurredAt is no time of the calendar") from None


def remarks(event: Json, now: datetime) -> list[str]:
    """What Attentive would not tell the sender of an accepted event."""
    notes = [] if "externalEventId" in event else [NO_EVENT_ID]
    if "occurredAt" not in event:
        return [*notes, NO_OCCURRED_AT]
    occurred_at = parse_time(event["occurredAt"])
    if now - occurred_at > JOURNEY_AGE:
        notes.append(NO_JOURNEY)
    if occurred_at > now:
        notes.append(IN_FUTURE)
    return notes


def parse_object(content: bytes) -> Json | None:
    """The JSON object in a body, or None when it is not one (NaN and Infinity are not JSON)."""
    try:
        value = json.loads(content.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_number(constant: str) -> None:
    raise ValueError(constant)


ERROR_SHAPES: tuple[Callable[[str], Json], ...] = (
    lambda reason: {"error": {"id": "sandbox", "message": reason}},
    lambda reason: {"error": reason},
    lambda reason: {"success": False, "message": reason},
)


# --- The rate ---------------------------------------------------------------------------------------------------------


class SlidingSecond:
    """The instants (seconds of a monotonic clock) of the last second; one a full second old is out of it."""

    def __init__(self) -> None:
        self._instants: deque[float] = deque()

    def count(self, now: float) -> int:
        while self._instants and self._instants[0] <= now - 1.0:
            self._instants.popleft()
        return len(self._instants)

    def add(self, now: float) -> int:
        self._instants.append(now)
        return self.count(now)


class Traffic:
    """The requests of one key to one endpoint.

    requests: all of them. busiest_second: the most in any sliding second, throttled ones included.
    answers: how many got each status; None are those that got no answer.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.busiest_second = 0
        self.answers: Counter[int | None] = Counter()
        self._arrived = SlidingSecond()
        self._admitted = SlidingSecond()

    def arrive(self, now: float, limit: int | None) -> int | None:
        """Counts a request. What remains of the second after it, negative when it is beyond the limit; None: no limit.

        A throttled request uses nothing up, so that a sender who slows down gets through again.
        """
        self.requests += 1
        self.busiest_second = max(self.busiest_second, self._arrived.add(now))
        if limit is not None and self._admitted.count(now) >= limit:
            return -1
        admitted = self._admitted.add(now)
        return None if limit is None else limit - admitted


class LagMeter:
    """Tells how late the stand-in's own event loop was, so that its lateness is not taken for the sender's.

    late_seconds: for each second of the monotonic clock in which the loop lagged more than 8 ms, the worst lag in it.
    """

    TICK = 0.004
    TOLERATED = 0.008

    def __init__(self) -> None:
        self.late_seconds: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + self.TICK, self._tick, loop, loop.time() + self.TICK)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        if now - due > self.TOLERATED:
            self.late_seconds[int(now)] = max(now - due, self.late_seconds.get(int(now), 0.0))
        self._timer = loop.call_at(now + self.TICK, self._tick, loop, now + self.TICK)


# --- Faults -----------------------------------------------------------------------------------------------------------

HTML = "<!DOCTYPE html><html><head><title>Gateway</title></head><body><h1>Something went wrong</h1></body></html>"


@dataclass
class Fault:
    """Something that goes wrong with requests. Of those switched on, the first that applies to a request strikes it.

    What happens:
    kind: `answer` (one comes, changed as below), `reset` (the connection is) or `silence` (no answer ever comes).
    accepts: the request is dealt with as usual all the same, though its sender is told otherwise. Without it a reset
        comes before the body is read. An `answer` without an error status is always dealt with.
    status: of the answer; None or a 2xx leaves refusals as they are. A 3xx points to a path that does not exist.
    body: of the answer: `html`, `empty`, `json` ({}) or `echo` (what was asked); None: as usual.
    retry_after: seconds for the header of that name; retry_after_as_date: spelt as an HTTP-date.
    delay, jitter: seconds before the answer or the reset; up to `jitter` more, at random.

    When it happens:
    endpoint: None for all. type: only events of this type. share: of the requests, at random.
    count: the next so many requests. seconds: from when the fault was made. after: so many accepted events.
    """

    kind: Literal["answer", "reset", "silence"] = "answer"
    accepts: bool = False
    status: int | None = None
    body: Literal["html", "empty", "json", "echo"] | None = None
    retry_after: int | None = None
    retry_after_as_date: bool = False
    delay: float = 0.0
    jitter: float = 0.0
    endpoint: str | None = EVENTS
    type: str | None = None
    share: float = 1.0
    count: int | None = None
    seconds: float | None = None
    after: int = 0
    made_at: float = field(default_factory=time.monotonic, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in ("answer", "reset", "silence"):
            raise ValueError("kind must be answer, reset or silence")
        if self.body not in (None, "html", "empty", "json", "echo"):
            raise ValueError("body must be html, empty, json, echo or null")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError("status must be between 200 and 599")
        if not 0 <= self.share <= 1:
            raise ValueError("share must be between 0 and 1")
        if min(self.delay, self.jitter, self.after, self.count or 0, self.seconds or 0, self.retry_after or 0) < 0:
            raise ValueError("delay, jitter, after, count, seconds and retry_after must not be negative")

    def settings(self) -> Json:
        return {setting.name: getattr(self, setting.name) for setting in fields(self) if setting.init}

    @property
    def gives_error(self) -> bool:
        return self.status is not None and self.status >= 300

    @property
    def deals_with_request(self) -> bool:
        return self.accepts or (self.kind == "answer" and not self.gives_error)

    @property
    def reads_body(self) -> bool:
        return self.accepts or self.kind != "reset"

    def is_on(self, endpoint: str, accepted: int) -> bool:
        expired = self.seconds is not None and time.monotonic() >= self.made_at + self.seconds
        return self.endpoint in (None, endpoint) and accepted >= self.after and not expired

    def strikes(self, rng: random.Random) -> bool:
        """Whether it strikes this request, to which it applies. One that strikes is used up by one."""
        if self.count is not None and self.count <= 0:
            return False
        if self.share < 1 and rng.random() >= self.share:
            return False
        if self.count is not None:
            self.count -= 1
        return True

    def status_instead_of(self, status: int) -> int | None:
        if self.kind != "answer":
            return None
        changed = self.status is not None and (self.gives_error or status < 300)
        return self.status if changed else status

    def headers(self, now: datetime) -> dict[str, str]:
        headers = {}
        if self.retry_after is not None and self.retry_after_as_date:
            headers["Retry-After"] = format_datetime(now + timedelta(seconds=self.retry_after), usegmt=True)
        elif self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status is not None and 300 <= self.status < 400:
            headers["Location"] = "/v1/moved"
        return headers


NO_FAULT = Fault()


# --- What was received ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record:
    """One request to the events endpoint, whatever became of it.

    arrived_at: UTC. arrived: the same instant in seconds of the machine's monotonic clock.
    app: whose key it came with, `App 1` for the first; None for an unknown key.
    event_id, type, body: as far as the body could be read. status: as answered; None: no answer.
    accepted: Attentive took the event in. notes: why it was refused, or what the sender was not told.
    """

    arrived_at: datetime
    arrived: float
    app: str | None
    event_id: str | None
    type: str | None
    status: int | None
    accepted: bool
    notes: tuple[str, ...]
    body: Json | None

    def to_line(self) -> bytes:
        values = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(values | {"arrived_at": self.arrived_at.isoformat()}).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Record":
        values = json.loads(line)
        values["arrived_at"] = datetime.fromisoformat(values["arrived_at"])
        values["notes"] = tuple(values["notes"])
        return cls(**values)


class Received(Sequence[Record]):
    """Every record since the start, in order of arrival; may be read from any thread.

    Records are lines of an unlinked temporary file: a million of them take 8 MB of memory.
    """

    PAGE = 1000

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the next line)
        weakref.finalize(self, self._file.close)
        self._starts = array("Q", [0])
        self._lock = threading.Lock()

    def append(self, record: Record) -> None:
        with self._lock:
            self._starts.append(self._starts[-1] + self._file.write(record.to_line()))

    def lines(self, start: int, stop: int) -> bytes:
        """The records from start up to stop, one JSON object a line."""
        with self._lock:
            self._file.flush()
            begin, end = (self._starts[min(number, len(self._starts) - 1)] for number in (start, stop))
            return os.pread(self._file.fileno(), max(0, end - begin), begin)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        numbers = range(len(self))[index]
        if isinstance(numbers, int):
            return Record.from_line(self.lines(numbers, numbers + 1))
        return [self[number] for number in numbers]

    def __iter__(self) -> Iterator[Record]:
        start = 0
        while page := self.lines(start, start + self.PAGE).splitlines():
            yield from map(Record.from_line, page)
            start += len(page)


# --- The server -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Arrival:
    """A request before anything is made of it: when, whose, where to, and what it found left of its second."""

    at: datetime
    instant: float
    app: str | None
    endpoint: str
    limit: int | None
    remaining: int | None

    @property
    def throttled(self) -> bool:
        return self.remaining is not None and self.remaining < 0

    def rate_headers(self) -> dict[str, str]:
        if self.limit is None or self.remaining is None:
            return {}
        return {"x-ratelimit-limit": str(self.limit), "x-ratelimit-remaining": str(max(0, self.remaining))}


@dataclass(slots=True)
class Verdict:
    """What Attentive makes of a request, whatever a fault then tells its sender."""

    status: int = 200
    accepted: bool = False
    notes: tuple[str, ...] = ()
    reply: Json | None = None
    body: Json | None = None


class EventType:
    """An event type at Attentive: it belongs to the app that first sent it, and all keys it ever had count."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.property_keys: set[str] = set()


class Standin:
    """The stand-in, listening from `start` (or `async with`) to `stop`.

    key: the API key of `App 1`; other_keys: of `App 2`, `App 3`...; any other key is unknown.
    limit: requests a key may make to an endpoint in any sliding second; None: no limit and no rate headers.
        May be changed while it runs, and so may the list `faults`.
    port: 0 for any free one. seed: of everything random in faults.
    now: the clock by which events are late, in UTC. clock: the monotonic one of the limit, in seconds.
    received: every request to the events endpoint. accepted: how many of them Attentive took in.
    deletions: the bodies of privacy delete-requests.
    """

    def __init__(
        self,
        key: str,
        *,
        other_keys: Sequence[str] = (),
        limit: int | None = REQUESTS_PER_SECOND,
        port: int = 0,
        seed: int = 0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self.port = port
        self.lag = LagMeter()
        self._apps = {key: f"App {number}" for number, key in enumerate((key, *other_keys), 1)}
        self._now = now
        self._clock = clock
        self._rng = random.Random(seed)
        self._runner: web.AppRunner | None = None
        self._endpoints: dict[tuple[str, str], Callable[[str, datetime, Json], Verdict]] = {
            ("POST", EVENTS): self._take_event,
            ("POST", DELETE_REQUEST): self._take_deletion,
            ("GET", ME): self._tell_account,
        }
        self.reset()

    def reset(self) -> None:
        """Forgets all requests, event types and deletions, and switches all faults off."""
        self.received = Received()
        self.accepted = 0
        self.deletions: list[Json] = []
        self._deleted: set[str] = set()
        self.faults: list[Fault] = []
        self._types: dict[str, EventType] = {}
        self._traffic: defaultdict[tuple[str | None, str], Traffic] = defaultdict(Traffic)
        self._error_shapes = cycle(ERROR_SHAPES)

    @property
    def url(self) -> str:
        """Scheme, host and port, without the /v1 with which every path begins."""
        return f"http://127.0.0.1:{self.port}"

    def traffic(self, app: str | None = "App 1", endpoint: str = EVENTS) -> Traffic:
        """The requests of one app (None: of all unknown keys) to one endpoint."""
        return self._traffic[app, endpoint]

    def stats(self) -> Json:
        """Everything counted, as JSON: the same as GET /_sandbox/stats."""
        return {
            "limit": self.limit,
            "received": len(self.received),
            "accepted": self.accepted,
            "deletions": len(self.deletions),
            "traffic": [
                {
                    "app": app,
                    "endpoint": endpoint,
                    "requests": traffic.requests,
                    "busiest_second": traffic.busiest_second,
                    "answers": {str(status or "none"): count for status, count in traffic.answers.items()},
                }
                for (app, endpoint), traffic in tuple(self._traffic.items())
            ],
            "late_seconds": dict(self.lag.late_seconds),
        }

    async def start(self) -> None:
        app = web.Application(client_max_size=LARGEST_BODY)
        app.add_routes(control_routes(self))
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=1024).start()
        self.port = self._runner.addresses[0][1]
        self.lag.start()

    async def stop(self) -> None:
        """Stops listening and breaks off what still waits for an answer; what was received stays readable."""
        self.lag.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        """One request, from its arrival to its answer."""
        arrival = self._arrive(request)
        fault = await self._fault_for(request, arrival.endpoint)
        verdict = await self._judge(request, arrival, fault)
        status = fault.status_instead_of(verdict.status)
        self._note(arrival, verdict, status)
        if fault.delay or fault.jitter:
            await asyncio.sleep(fault.delay + self._rng.uniform(0, fault.jitter))
        if fault.kind == "silence":
            await asyncio.get_running_loop().create_future()  # until the sender, or the stand-in, goes away
        if status is None:
            reset_connection(request)
            return web.Response()
        return self._answer(arrival, verdict, fault, status)

    def _arrive(self, request: web.Request) -> Arrival:
        instant, limit = self._clock(), self.limit
        endpoint = request.path if (request.method, request.path) in self._endpoints else ELSEWHERE
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        app = self._apps.get(key) if scheme.lower() == "bearer" else None
        remaining = self._traffic[app, endpoint].arrive(instant, limit)
        return Arrival(self._now(), instant, app, endpoint, limit, remaining)

    async def _fault_for(self, request: web.Request, endpoint: str) -> Fault:
        for fault in tuple(self.faults):
            if (
                fault.is_on(endpoint, self.accepted)
                and (fault.type is None or fault.type == await type_of(request))
                and fault.strikes(self._rng)
            ):
                return fault
        return NO_FAULT

    async def _judge(self, request: web.Request, arrival: Arrival, fault: Fault) -> Verdict:
        verdict = Verdict()
        body: Json | None = None
        try:
            if fault.reads_body:
                body = await read_object(request)
            if fault.deals_with_request:
                verdict = self._deal_with(request, arrival, body)
        except RefusedError as refused:
            verdict = Verdict(refused.status, notes=(refused.reason,))
        verdict.body = body
        return verdict

    def _deal_with(self, request: web.Request, arrival: Arrival, body: Json | None) -> Verdict:
        if arrival.throttled:
            raise RefusedError(429, "too many requests in a second")
        if arrival.app is None:
            raise RefusedError(401, "the API key is missing or unknown")
        if arrival.endpoint == ELSEWHERE:
            raise RefusedError(404, "there is no such endpoint")
        if request.method == "POST":
            require(request.content_type == "application/json", "the Content-Type is not application/json")
            require(body is not None, "the body is no JSON object")
        return self._endpoints[request.method, request.path](arrival.app, arrival.at, body or {})

    def _take_event(self, app: str, now: datetime, event: Json) -> Verdict:
        check_event(event)
        event_type = self._types.get(event["type"]) or EventType(owner=app)
        if event_type.owner != app:
            raise RefusedError(403, "the event type belongs to another app")
        keys = event_type.property_keys.union(event.get("properties", ()))
        require(len(keys) <= PROPERTY_KEYS_PER_TYPE, "the event type has too many different keys of properties")
        event_type.property_keys = keys
        self._types[event["type"]] = event_type
        self.accepted += 1
        return Verdict(accepted=True, notes=(*remarks(event, now), *self._recreation(event["user"])))

    def _recreation(self, user: Json) -> list[str]:
        return [RECREATES_PERSON] if user.get("phone") in self._deleted or user.get("email") in self._deleted else []

    def _take_deletion(self, _app: str, _now: datetime, request: Json) -> Verdict:
        check_keys(request, {"subjectEmail", "subjectPhone", "clientUserId", "requestMsg"}, "the body")
        for name, value in request.items():
            check_text(value, name)
        subjects = {value for name, value in request.items() if name != "requestMsg"}
        require(bool(subjects), "neither subjectPhone, subjectEmail nor clientUserId is given")
        self._deleted |= subjects
        self.deletions.append(request)
        return Verdict(accepted=True, reply={"id": f"deletion{len(self.deletions)}"})

    def _tell_account(self, app: str, _now: datetime, _body: Json) -> Verdict:
        return Verdict(
            accepted=True,
            reply={
                "applicationName": app,
                "attentiveDomainName": "sandbox.attn.tv",
                "companyName": "Sandbox",
                "contactEmail": "sandbox@example.com",
                "companyId": "sandbox",
            },
        )

    def _note(self, arrival: Arrival, verdict: Verdict, status: int | None) -> None:
        self._traffic[arrival.app, arrival.endpoint].answers[status] += 1
        if arrival.endpoint == EVENTS:
            body = verdict.body or {}
            self.received.append(
                Record(
                    arrived_at=arrival.at,
                    arrived=arrival.instant,
                    app=arrival.app,
                    event_id=text_or_none(body.get("externalEventId")),
                    type=text_or_none(body.get("type")),
                    status=status,
                    accepted=verdict.accepted,
                    notes=verdict.notes,
                    body=verdict.body,
                )
            )

    def _answer(self, arrival: Arrival, verdict: Verdict, fault: Fault, status: int) -> web.Response:
        headers = arrival.rate_headers() | fault.headers(self._now())
        if fault.body == "html":
            return web.Response(status=status, headers=headers, text=HTML, content_type="text/html")
        reply = verdict.reply
        if status >= 400:
            reply = next(self._error_shapes)("; ".join(verdict.notes) or "a fault of the sandbox")
        if fault.body is not None:
            reply = {"json": {}, "echo": {"message": json.dumps(verdict.body)}}.get(fault.body)
        if reply is None:
            return web.Response(status=status, headers=headers)
        return web.json_response(reply, status=status, headers=headers)


async def read_object(request: web.Request) -> Json | None:
    """The JSON object in the body, or None; raises RefusedError when the body is too large."""
    too_large = RefusedError(413, "the body is too large")
    if (request.content_length or 0) > LARGEST_BODY:
        raise too_large
    try:
        return parse_object(await request.read())
    except web.HTTPRequestEntityTooLarge:
        raise too_large from None


async def type_of(request: web.Request) -> str | None:
    try:
        return text_or_none((await read_object(request) or {}).get("type"))
    except RefusedError:
        return None


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def reset_connection(request: web.Request) -> None:
    """Ends the connection by a TCP reset, not by an orderly close."""
    transport = request.transport
    if transport is not None:
        no_linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        transport.abort()


# --- Its control, for those outside its process -----------------------------------------------------------------------


def control_routes(standin: Standin) -> list[web.RouteDef]:
    """Paths below /_sandbox/, without a key: whatever reaches 127.0.0.1 may use them.

    GET received?start=0&count=1000: records, one JSON object a line; the header x-total tells how many there are.
    GET stats. GET, POST (one or a list, added at the end), DELETE faults. POST reset. POST limit: {"limit": 150}.
    """

    async def received(request: web.Request) -> web.Response:
        start = whole_number(request.query.get("start", "0"), "start")
        count = whole_number(request.query.get("count", "1000"), "count")
        return web.Response(
            body=standin.received.lines(start, start + count),
            content_type="application/x-ndjson",
            headers={"x-total": str(len(standin.received))},
        )

    async def stats(_: web.Request) -> web.Response:
        return web.json_response(standin.stats())

    async def faults(_: web.Request) -> web.Response:
        return web.json_response([fault.settings() for fault in standin.faults])

    async def add_faults(request: web.Request) -> web.Response:
        given = await sent_json(request)
        try:
            standin.faults += [Fault(**fault) for fault in (given if isinstance(given, list) else [given])]
        except (TypeError, ValueError) as error:
            raise web.HTTPBadRequest(text=f"No such fault: {error}") from None
        return await faults(request)

    async def clear_faults(request: web.Request) -> web.Response:
        standin.faults.clear()
        return await faults(request)

    async def reset(_: web.Request) -> web.Response:
        standin.reset()
        return web.json_response(standin.stats())

    async def change_limit(request: web.Request) -> web.Response:
        match await sent_json(request):
            case {"limit": None}:
                standin.limit = None
            case {"limit": limit} if type(limit) is int and limit >= 0:
                standin.limit = limit
            case _:
                raise web.HTTPBadRequest(text='Send {"limit": requests a second, or null for none}.')
        return web.json_response({"limit": standin.limit})

    return [
        web.get("/_sandbox/received", received),
        web.get("/_sandbox/stats", stats),
        web.get("/_sandbox/faults", faults),
        web.post("/_sandbox/faults", add_faults),
        web.delete("/_sandbox/faults", clear_faults),
        web.post("/_sandbox/reset", reset),
        web.post("/_sandbox/limit", change_limit),
    ]


def whole_number(text: str, name: str) -> int:
    if not re.fullmatch("[0-9]{1,15}", text):
        raise web.HTTPBadRequest(text=f"{name} must be a whole number.")
    return int(text)


async def sent_json(request: web.Request) -> Any:
    try:
        return await request.json()
    except ValueError:
        raise web.HTTPBadRequest(text="The body is not JSON.") from None


# --- Ways to run it ---------------------------------------------------------------------------------------------------


@contextmanager
def running_standin(**options: Any) -> Iterator[Standin]:
    """A Standin(**options) that runs in a thread of its own; its surface may be used from the caller's."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="attentive-standin")
    thread.start()
    try:
        standin = Standin(**options)
        asyncio.run_coroutine_threadsafe(standin.start(), loop).result()
        try:
            yield standin
        finally:
            asyncio.run_coroutine_threadsafe(standin.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def serve(standin: Standin, port_file: Path | None) -> None:
    """Runs until SIGTERM or SIGINT. The port file appears whole, once the stand-in listens, and goes with it."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with standin:
        if port_file is not None:
            unfinished = port_file.with_name(f"{port_file.name}.{os.getpid()}")
            unfinished.write_text(f"{standin.port}\n")
            unfinished.replace(port_file)
        log.info("The Attentive stand-in listens on %s", standin.url)
        await stopped.wait()
    if port_file is not None:
        port_file.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sandbox.attentive", description="A stand-in for Attentive's API.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one (default)")
    parser.add_argument("--port-file", type=Path, help="write the port to this file once it listens")
    parser.add_argument("--limit", type=int, default=REQUESTS_PER_SECOND, help="requests in any sliding second")
    keys = parser.add_mutually_exclusive_group(required=True)
    keys.add_argument("--key", help="the API key that it knows")
    keys.add_argument("--key-env", metavar="NAME", help="the environment variable that holds the API key")
    options = parser.parse_args(arguments)
    key = options.key or os.environ.get(options.key_env or "")
    if not key:
        parser.error(f"the API key is empty: set the environment variable {options.key_env or '(or --key)'}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    gc.freeze()  # to look through all that is imported takes 13 ms, in which no arrival would be seen
    asyncio.run(serve(Standin(key, port=options.port, limit=options.limit), options.port_file))


if __name__ == "__main__":
    main()
