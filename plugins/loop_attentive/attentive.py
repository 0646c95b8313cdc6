"""Attentive's side of the wire: one request, one answer.

Sources: api.attentivemobile.com's published OpenAPI (POST /v1/events/custom, GET /v1/me). It documents no
body for a success, three shapes of error body, and no Retry-After; so any 2xx is a success, a body is
never required, and Retry-After is honoured where it appears.

Nothing of a request is ever logged, and no error text holds a contact, a value of the payload or the key.
"""

import asyncio
import hashlib
import hmac
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from email.parser import HeaderParser
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.providers.http.hooks.http import HttpAsyncHook

from loop_attentive import http_connection
from loop_attentive.catalogue import MAX_LATENESS
from loop_attentive.errors import NeedsMending
from loop_attentive.http_connection import Way

Outcome = Literal[
    "accepted",  # any 2xx
    "throttled",  # 429, 503
    "failed",  # 408 and the other 5xx: it may have been taken
    "refused",  # 403, 404, 3xx: not for this type, or not here
    "unauthorized",  # 401
    "rejected",  # the other 4xx
    "not sent",  # it surely never left
    "unknown",  # it left, or may have, and no answer came
]

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
REQUEST_TIMEOUT = 45.0
"""Seconds; the last bounds the whole request, from asking for a connection to the answer's head."""

BODY_TIMEOUT = 1.0
BODY_LIMIT = 64 * 1024
"""How long and how much of an answer's body is read: for its words on an error, and to keep the connection. What the
answer means for the others waits for it.
"""

LONGEST_LINE, MOST_LINES = 32 * 1024, 256
"""Of an answer's head, in bytes: gateways add a lot, and a success that cannot be read is in doubt."""

KEEP_ALIVE = 15.0
"""Seconds; shorter than what most servers allow, so that seldom a connection is closed as it is taken up again."""

CONNECTIONS_TRIED = 3
"""For one request, when a connection turns out to be closed by the server before anything was written to it."""

LONGEST_RETRY_AFTER = MAX_LATENESS.total_seconds()
"""Whoever has to wait longer is too late anyway."""


NO_ANSWER = "no answer in time"


@dataclass(frozen=True)
class Answer:
    """What became of one request.

    http_status: None when there was no answer. error: short, and safe to store and show.
    retry_after: seconds from now, at most a day. limit: requests a second, from x-ratelimit-limit.
    """

    outcome: Outcome
    http_status: int | None = None
    error: str | None = None
    retry_after: float | None = None
    limit: int | None = None


class Departure(Protocol):
    """The moments at which a request may leave, leaves, and has left."""

    async def cleared(self) -> None:
        """Awaited when the connection stands; returns when the request may be written, or raises to call it back.

        Awaited anew when the connection was closed meanwhile, and there is another.
        """

    def held_up(self) -> None:
        """Called when the connection was closed after all, so that nothing was written: it waits for another."""

    def left(self) -> None:
        """Called just before the bytes are written; raises, as cleared does, if it is too late for that by now."""

    def written(self) -> None:
        """Called when they are written: the server can have seen them no later than it sees what is written next."""


class Transport(Protocol):
    """Sends one event; replaceable, should Attentive ever publish another way in."""

    async def send(self, event: dict[str, Any], departure: Departure) -> Answer:
        """One request, whatever happens to it; raises only what the departure raised."""


@dataclass(frozen=True)
class Endpoint:
    """Where a connection leads, and the key to it."""

    base_url: str  # scheme, host, port and path; without the version
    key: str = field(repr=False)
    way: Way = field(default_factory=Way)

    @property
    def events_url(self) -> str:
        return f"{self.base_url}/v1/events/custom"

    @property
    def me_url(self) -> str:
        return f"{self.base_url}/v1/me"

    @property
    def deletion_url(self) -> str:
        return f"{self.base_url}/v1/privacy/delete-request"

    @property
    def account(self) -> str:
        return account(self.base_url, self.key)


def account(host: str, api_key: str) -> str:
    """The name of an Attentive account in the ledger: a hash of its host, keyed by the API key.

    host: a URL; scheme, host name and port count, spelling and path do not.
    """
    parts = urlsplit(host)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme.lower())
    origin = f"{parts.scheme.lower()}://{(parts.hostname or '').rstrip('.')}:{port}"
    return hmac.new(api_key.encode(), origin.encode(), hashlib.sha256).hexdigest()


# ── The connection ──────────────────────────────────────────────────────────


def endpoint(connection: Any) -> Endpoint:
    """Reads an Airflow connection of type http. Raises NeedsMending for one that cannot be used."""
    key = http_connection.api_key(connection, absent="put Attentive's API key there")
    url = http_connection.url(connection, such_as="https://api.attentivemobile.com", carries="the API key")
    base_url = url._replace(path=url.path.rstrip("/").removesuffix("/v1"), fragment="").geturl()
    return Endpoint(base_url, key, http_connection.way(connection, url))


class AttentiveHook(HttpAsyncHook):
    """Talks to Attentive through a connection of type http: host = base URL, password = API key.

    Of the provider's hook it keeps the connection's ways; not its retries, nor its logging of bodies.
    """

    conn_name_attr = "attentive_conn_id"
    default_conn_name = "attentive"
    conn_type = "http"
    hook_name = "Attentive"

    def __init__(self, attentive_conn_id: str = default_conn_name) -> None:
        super().__init__(method="POST", http_conn_id=attentive_conn_id)

    def transport(self) -> "AttentiveTransport":
        """Raises NeedsMending when the connection is missing or cannot be used."""
        try:
            connection = self.get_connection(self.http_conn_id)
        except AirflowNotFoundException:
            raise NeedsMending(
                f"There is no connection {self.http_conn_id}: create it, of type http, "
                "its host Attentive's base URL, its password the API key."
            ) from None
        return AttentiveTransport(endpoint(connection))

    def test_connection(self) -> tuple[bool, str]:
        """Whether Attentive knows the key, and what to tell. It does not prove the right to send events."""
        try:
            answer = asyncio.run(who_am_i(self.transport()))
        except NeedsMending as error:
            return False, str(error)
        if answer.outcome == "accepted":
            return True, "Attentive knows the API key."
        told = answer.error or f"HTTP {answer.http_status}"
        return False, f"Attentive did not confirm the API key of connection {self.http_conn_id}: {told}."


async def who_am_i(transport: "AttentiveTransport") -> Answer:
    async with transport:
        return await transport.me()


# ── The transport ───────────────────────────────────────────────────────────


class Unhurried:
    """A departure that may leave at once."""

    async def cleared(self) -> None:
        return

    def held_up(self) -> None:
        return

    def left(self) -> None:
        return

    def written(self) -> None:
        return


class ClosedBefore(aiohttp.ClientConnectionError):
    """The server has closed a connection, or spoken on it, before the request: nothing is written to it."""


@dataclass
class Passage:
    """One request on its way: whether it may have left, and whether its connection was fit for it."""

    departure: Departure
    gone: bool = False
    unfit: bool = False
    connection: Any = None
    called_back: Exception | None = None
    heard: bytearray = field(default_factory=bytearray)

    async def begin(self, connection: Any) -> None:
        self.connection = connection
        await self.departure.cleared()
        self.look_at_the_connection()
        self.listen(connection.protocol)

    def listen(self, protocol: Any) -> None:
        """Keeps what comes first once the request has left: it may be an answer that aiohttp does not tell, because
        something odd came with it, or because it was only read when time was up.
        """
        receive = type(protocol).data_received

        def hear(data: bytes) -> None:
            if self.gone and len(self.heard) < LONGEST_LINE:
                self.heard += data
            receive(protocol, data)

        protocol.data_received = hear

    def leave(self) -> None:
        self.look_at_the_connection()
        try:
            self.departure.left()
        except Exception as error:  # aiohttp makes an error of the connection of it
            self.called_back = error
            raise
        self.gone = True

    def look_at_the_connection(self) -> None:
        """What was said before the request was written would be taken for its answer."""
        protocol = self.connection.protocol
        self.unfit = protocol is None or not protocol.is_connected() or protocol.should_close
        if self.unfit:
            self.departure.held_up()
            raise ClosedBefore


class AttentiveTransport:
    """A pool of connections to Attentive; use as an async context manager.

    It opens as many connections as there are requests at once: bounding those is the caller's part.
    """

    def __init__(self, to: Endpoint, *, read_timeout: float = READ_TIMEOUT) -> None:
        self._to = to
        self._timeout = aiohttp.ClientTimeout(
            total=max(REQUEST_TIMEOUT, read_timeout + CONNECT_TIMEOUT), connect=CONNECT_TIMEOUT, sock_read=read_timeout
        )

    @property
    def account(self) -> str:
        return self._to.account

    async def __aenter__(self) -> "AttentiveTransport":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._to.way.ssl_context, keepalive_timeout=KEEP_ALIVE),
            headers={
                **self._to.way.headers,
                "Authorization": f"Bearer {self._to.key}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
            timeout=self._timeout,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=PacedRequest,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
            max_headers=MOST_LINES,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(self, event: dict[str, Any], departure: Departure) -> Answer:
        """See Transport.send."""
        return await self._post(self._to.events_url, event, departure, Words(event, self._to.key))

    async def me(self) -> Answer:
        """GET /v1/me: whether the key is known."""
        return await self._ask("GET", self._to.me_url, Passage(Unhurried()), None, Words({}, self._to.key))

    async def delete_person(self, subject: Literal["subjectPhone", "subjectEmail"], contact: str) -> Answer:
        """POST /v1/privacy/delete-request: Attentive deletes them within thirty days."""
        person: dict[str, Any] = {subject: contact}
        return await self._post(self._to.deletion_url, person, Unhurried(), Words({"user": person}, self._to.key))

    async def _post(self, url: str, content: dict[str, Any], departure: Departure, private: "Words") -> Answer:
        body = JSON.encode(content).encode()
        for _ in range(CONNECTIONS_TRIED):
            passage = Passage(departure)
            came = await self._ask("POST", url, passage, PacedBody(body, passage), private)
            if not passage.unfit:
                break
        return came

    async def _ask(self, method: str, url: str, passage: Passage, body: "PacedBody | None", private: "Words") -> Answer:
        try:
            async with self._session.request(
                method, url, data=body, allow_redirects=False, proxy=self._to.way.proxy
            ) as response:
                came = answer(response.status, response.headers, await read(response), private)
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            told = head(bytes(passage.heard))
            if told:
                came = answer(*told, b"", private)
            else:
                came = Answer("unknown" if passage.gone else "not sent", error=describe(error))
        if passage.called_back:
            raise passage.called_back
        return Answer("not sent", error="connection closed before the request") if passage.unfit else came


JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class PacedBody(aiohttp.BytesPayload):
    """A body that tells when it is written: aiohttp sends the head together with it."""

    def __init__(self, content: bytes, passage: Passage) -> None:
        super().__init__(content, content_type="application/json")
        self.passage = passage

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self.passage.leave()
        await super().write_with_length(writer, content_length)
        self.passage.departure.written()


class PacedRequest(aiohttp.ClientRequest):
    """A request that waits for its departure once its connection stands.

    aiohttp's tracing tells of the same two moments, for a fifth more of the processor.
    """

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        if isinstance(self.body, PacedBody):
            await self.body.passage.begin(conn)
        return await super().send(conn)


async def read(response: aiohttp.ClientResponse) -> bytes:
    """The first of an answer's body. Its head has told already, so a body that breaks off or drips changes nothing."""
    if response.content.is_eof():
        return response.content.read_nowait(BODY_LIMIT)
    received = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            while len(received) < BODY_LIMIT and (chunk := await response.content.read(BODY_LIMIT - len(received))):
                received += chunk
    except (aiohttp.ClientError, HttpProcessingError, OSError):
        response.close()
    return bytes(received)


STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d)(?: [^\r\n]*)?\r?\n")
END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


def head(heard: bytes) -> tuple[int, Message] | None:
    """Status and headers of an answer of which at least the head has come whole; interim ones (1xx) are passed over."""
    while (line := STATUS_LINE.match(heard)) and (end := END_OF_HEAD.search(heard, line.end() - 2)):
        if not 100 <= (status := int(line[1])) < 200:
            return status, HeaderParser().parsestr(heard[line.end() : end.end()].decode("latin-1"))
        heard = heard[end.end() :]
    return None


def answer(status: int, headers: Any, body: bytes, private: "Words") -> Answer:
    outcome, wait = outcome_of(status), headers.get("Retry-After")
    return Answer(
        outcome,
        status,
        None if outcome == "accepted" else f"HTTP {status} {private.remove_from(error_text(body))}".strip(),
        retry_after(wait, http_date(headers.get("Date")) or datetime.now(UTC)) if wait else None,
        positive(headers.get("x-ratelimit-limit")),
    )


def outcome_of(status: int) -> Outcome:
    match status:
        case _ if 200 <= status < 300:
            return "accepted"
        case 429 | 503:
            return "throttled"
        case 401:
            return "unauthorized"
        case 403 | 404:
            return "refused"
        case _ if status == 408 or status >= 500:
            return "failed"
        case _ if 300 <= status < 400:
            return "refused"
        case _ if status >= 400:
            return "rejected"
        case _:
            return "unknown"


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait, from a Retry-After of seconds or of an HTTP date; None when it is absent or no such thing.

    now: by the server's clock, which that date is by, where its answer tells.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        moment = http_date(value)
        if moment is None:
            return None
        seconds = (moment - now).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if seconds == seconds else None


def http_date(value: str | None) -> datetime | None:
    """An aware time, from a header; None when it is absent or unreadable."""
    try:
        moment = parsedate_to_datetime(value or "")
    except (ValueError, OverflowError):  # the latter for a zone beyond all measure
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def positive(value: str | None) -> int | None:
    """A header's number, or the first of its list: `150, 150;w=1`."""
    number = re.match(r"\s*([1-9][0-9]{0,6})\s*(?:[,;]|$)", value or "")
    return int(number[1]) if number else None


# ── Words that may be shown ─────────────────────────────────────────────────


def describe(error: Exception) -> str:
    """What went wrong on the way, in fixed words: the exceptions' own may hold headers and addresses."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "name not resolved"
        case aiohttp.ClientConnectorCertificateError():
            return "TLS: certificate not accepted"
        case aiohttp.ClientSSLError():
            return "TLS failed"
        case aiohttp.ConnectionTimeoutError():
            return "connecting timed out"
        case aiohttp.ClientHttpProxyError():
            return "the proxy refused"
        case aiohttp.ClientConnectorError():
            return "connection refused" if isinstance(error.os_error, ConnectionRefusedError) else "connection failed"
        case TimeoutError():
            return NO_ANSWER
        case aiohttp.ServerDisconnectedError() | OSError():
            return "connection lost before the answer"
        case aiohttp.ClientResponseError():
            return "the answer was not HTTP"
        case _:
            return "request failed"


def error_text(body: bytes) -> str:
    """The words of an error body, in any of the three shapes that are known, or as it is."""
    text = body.decode("utf-8", "replace")
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return re.sub(r"<[^<>]*>", " ", text)
    error = told.get("error", told.get("message")) if isinstance(told, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else ""


class Words:
    """The private words of a request: servers echo what they dislike."""

    LONGEST_TEXT = 160
    LONGEST_WORD = 40
    SHORTEST_PART = 4
    """Letters of a private word that is found inside another one too."""

    def __init__(self, event: dict[str, Any], key: str) -> None:
        self._event = event
        self._key = key

    def remove_from(self, text: str) -> str:
        """Text, cut short, in which whatever could be somebody's is a dot: private words, digits, addresses."""
        private = {word for value in [self._key, *scalars(self._event)] for word in words(value)}
        shown = ("…" if self._private(token, private) else token for token in text[:4096].split())
        return re.sub(r"…( …)+", "…", " ".join(shown))[: self.LONGEST_TEXT]

    def _private(self, token: str, private: set[str]) -> bool:
        return (
            len(token) > self.LONGEST_WORD
            or not token.isprintable()
            or re.search(r"[\d@\\%&]|://", token) is not None
            or self._key.casefold() in token.casefold()
            or not private.isdisjoint(words(token))
            or any(len(word) >= self.SHORTEST_PART and word in plain(token) for word in private)
        )


def plain(text: str) -> str:
    """Case-folded, without accents."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(sign))


def words(text: str) -> Iterator[str]:
    return (match.group() for match in re.finditer(r"[^\W\d_]+", plain(text)))


def scalars(event: dict[str, Any]) -> Iterator[str]:
    """The values of user and properties, as text."""
    for part in ("user", "properties"):
        for value in event.get(part, {}).values():
            if isinstance(value, str):
                yield value


def wire_time(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds: YYYY-MM-DDTHH:MM:SS.mmmZ."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
