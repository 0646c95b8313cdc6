"""The Attentive hook and transport: connections, requests, and what an answer may say."""

import asyncio
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from airflow.sdk import Connection
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from loop_attentive import attentive, punctual
from loop_attentive.attentive import Answer, AttentiveHook, AttentiveTransport, Endpoint, Words, account, endpoint
from loop_attentive.errors import NeedsMending
from loop_attentive.http_connection import Way
from sandbox.attentive import Fault, Standin
from tests.sending import CREATED, KEY, bare_server, event_body

EVENT = {
    "type": CREATED,
    "externalEventId": "6b1f9a6e-0000-5000-8000-000000000001",
    "occurredAt": "2026-01-01T00:00:00.000Z",
    **event_body("1001"),
}


class Departure:
    """Counts what the transport tells."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def cleared(self) -> None:
        self.told.append("cleared")

    def held_up(self) -> None:
        self.told.append("held up")

    def left(self) -> None:
        self.told.append("left")

    def written(self) -> None:
        self.told.append("written")


def connection(**parts: Any) -> Connection:
    return Connection(conn_id="attentive", conn_type="http", **{"password": KEY} | parts)


# ── The connection ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("parts", "url"),
    [
        ({"host": "https://api.attentivemobile.com"}, "https://api.attentivemobile.com/v1/events/custom"),
        ({"host": "https://api.attentivemobile.com/v1"}, "https://api.attentivemobile.com/v1/events/custom"),
        ({"host": "https://api.attentivemobile.com/v1/"}, "https://api.attentivemobile.com/v1/events/custom"),
        ({"host": "https://gateway.example.com/attentive"}, "https://gateway.example.com/attentive/v1/events/custom"),
        ({"host": "api.attentivemobile.com"}, "https://api.attentivemobile.com/v1/events/custom"),
        ({"host": "api.attentivemobile.com", "schema": "https"}, "https://api.attentivemobile.com/v1/events/custom"),
        ({"host": "example.com/v1", "schema": "https", "port": 8443}, "https://example.com:8443/v1/events/custom"),
        ({"host": "127.0.0.1", "port": 8080}, "http://127.0.0.1:8080/v1/events/custom"),
        ({"host": "http://localhost:8080/"}, "http://localhost:8080/v1/events/custom"),
        ({"host": "http://[::1]:8080/"}, "http://[::1]:8080/v1/events/custom"),
        ({"host": "::1", "port": 8080}, "http://[::1]:8080/v1/events/custom"),
        ({"host": "[::1]:8080"}, "http://[::1]:8080/v1/events/custom"),
        ({"host": "2001:db8::7"}, "https://[2001:db8::7]/v1/events/custom"),
        ({"host": "http://standin:80", "extra": '{"plain_http": true}'}, "http://standin:80/v1/events/custom"),
    ],
)
def test_base_urls(parts: dict[str, Any], url: str) -> None:
    to = endpoint(connection(**parts))
    assert to.events_url == url
    assert to.me_url == url.replace("/events/custom", "/me")


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"host": "https://api.attentivemobile.com", "password": None}, "no password"),
        ({"host": "https://api.attentivemobile.com", "password": "kéy"}, "no API key"),
        ({"host": None}, "no URL"),
        ({"host": "ftp://example.com"}, "no URL"),
        ({"host": "https://example.com/?key=1"}, "no URL"),
        ({"host": "https://user:secret@example.com"}, "no URL"),
        ({"host": "https://example.com:port"}, "no URL"),
        ({"host": "http://api.attentivemobile.com"}, "plain http"),
        ({"host": "http://10.0.0.1"}, "plain http"),
        ({"host": "https://example.com", "extra": '{"verify": false}'}, "certificates"),
        ({"host": "https://example.com", "extra": '{"verify": "False"}'}, "certificates"),
        ({"host": "https://example.com", "extra": '{"verify": "/no/such/file"}'}, "CA bundle"),
        ({"host": "https://example.com", "extra": '{"proxy": {"https": "http://secret:8080"}}'}, "proxy"),
        ({"host": "https://example.com", "extra": '{"proxy": "socks5://secret:8080"}'}, "proxy"),
    ],
)
def test_connections_that_cannot_be_used(parts: dict[str, Any], told: str) -> None:
    with pytest.raises(NeedsMending, match=told) as raised:
        endpoint(connection(**parts))
    assert "attentive" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)
    assert KEY not in str(raised.value)


def test_extra_gives_headers_but_not_ours() -> None:
    ours = {"authorization": "Basic x", "Expect": "100-continue", "Transfer-Encoding": "chunked"}
    extra = {"X-Team": "returns", "trust_env": "true", "verify": "true", "timeout": 3} | ours
    to = endpoint(connection(host="https://example.com", extra=json.dumps(extra)))
    assert to.way.headers == {"X-Team": "returns"}


def test_of_the_environment_only_the_proxy_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its netrc tells how other programs log in: aiohttp would make no request with two kinds of it."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)

    async def story() -> Answer:
        async with bare_server(serve) as proxy:
            monkeypatch.setenv("http_proxy", proxy)
            to = endpoint(connection(host="http://attentive.test", extra='{"plain_http": true, "trust_env": true}'))
            async with AttentiveTransport(to) as transport:
                return await transport.me()

    netrc = tmp_path / "netrc"
    netrc.write_text("machine attentive.test login somebody password else")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert asyncio.run(story()).outcome == "accepted"
    assert asked[0].startswith(b"GET http://attentive.test/v1/me ")
    assert f"Authorization: Bearer {KEY}".encode() in asked[0]


def test_the_environment_names_hosts_that_need_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("no_proxy", "near.test")
    far, near = (
        endpoint(connection(host=f"https://{name}.test", extra='{"trust_env": true}')) for name in ("far", "near")
    )
    assert (far.way.proxy, near.way.proxy) == ("http://proxy.test:3128", None)


def test_a_proxy_of_the_environment_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://secret:8080")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(NeedsMending, match=r"^The environment's https_proxy is no URL"):
        endpoint(connection(host="https://example.com", extra='{"trust_env": true}'))


def test_a_key_never_shows() -> None:
    to = endpoint(connection(host="https://example.com", extra='{"X-Secret": "s3cret"}'))
    assert KEY not in repr(to)
    assert "s3cret" not in repr(to)


def test_an_account_is_host_and_key() -> None:
    name = account("https://api.attentivemobile.com", KEY)
    assert name == account("https://API.attentivemobile.com:443/v1", KEY)
    assert len({name, account("http://api.attentivemobile.com", KEY), account("https://example.com", KEY),
                account("https://api.attentivemobile.com:8443", KEY),
                account("https://api.attentivemobile.com", KEY + "x")}) == 5  # fmt: skip
    assert KEY not in name


def test_a_connection_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_NOWHERE", raising=False)
    with pytest.raises(NeedsMending, match="There is no connection nowhere: create it"):
        AttentiveHook("nowhere").transport()


@pytest.mark.parametrize(("key", "known"), [(KEY, True), ("another", False)])
def test_the_hook_checks_the_key(monkeypatch: pytest.MonkeyPatch, key: str, known: bool) -> None:
    async def story() -> tuple[bool, str]:
        async with Standin(key=KEY) as standin:
            conn = connection(host=standin.url, password=key)
            monkeypatch.setenv("AIRFLOW_CONN_ATTENTIVE", conn.get_uri())
            return await asyncio.to_thread(AttentiveHook().test_connection)

    ok, message = asyncio.run(story())
    assert ok == known
    assert key not in message
    if not known:
        assert "connection attentive" in message
        assert "401" in message


# ── Requests ────────────────────────────────────────────────────────────────


def ask(to: str, departure: Departure | None = None, **options: Any) -> Answer:
    async def story() -> Answer:
        async with AttentiveTransport(Endpoint(to, KEY), **options) as transport:
            return await transport.send(EVENT, departure or Departure())

    return asyncio.run(story())


def ask_standin(*faults: Fault) -> Answer:
    async def story() -> Answer:
        async with Standin(key=KEY) as standin, AttentiveTransport(Endpoint(standin.url, KEY)) as transport:
            standin.faults.extend(faults)
            return await transport.send(EVENT, Departure())

    return asyncio.run(story())


def test_an_event_is_accepted_by_a_strict_server_and_the_limit_is_heard() -> None:
    assert ask_standin() == Answer("accepted", 200, None, None, 150)


@pytest.mark.parametrize("body", ["html", "empty", "json"])
def test_a_success_needs_no_json(body: Any) -> None:
    assert ask_standin(Fault(body=body)).outcome == "accepted"


def test_a_request_leaves_when_it_is_cleared_and_not_before() -> None:
    class Late(Departure):
        async def cleared(self) -> None:
            await asyncio.sleep(0.2)
            cleared_at.append(asyncio.get_running_loop().time())

    cleared_at: list[float] = []

    async def story() -> float:
        async with Standin(key=KEY) as standin, AttentiveTransport(Endpoint(standin.url, KEY)) as transport:
            late = Late()
            await transport.send(EVENT, late)
            assert late.told == ["left", "written"]
            return standin.received[0].arrived

    assert asyncio.run(story()) >= cleared_at[0]


@pytest.mark.parametrize("at", ["cleared", "left"])
def test_a_request_that_is_called_back_never_leaves(at: str) -> None:
    """Not even in the last moment, when the process stood still after it was cleared; nor is it one that failed."""

    class Never(Departure):
        async def cleared(self) -> None:
            if at == "cleared":
                raise LookupError

        def left(self) -> None:
            raise LookupError

    async def story() -> None:
        async with Standin(key=KEY) as standin, AttentiveTransport(Endpoint(standin.url, KEY)) as transport:
            with pytest.raises(LookupError):
                await transport.send(EVENT, Never())
            await asyncio.sleep(0.05)
            assert len(standin.received) == 0

    asyncio.run(story())


def test_more_connections_than_aiohttp_opens_by_itself() -> None:
    async def story() -> None:
        async with Standin(key=KEY, limit=None) as standin, AttentiveTransport(Endpoint(standin.url, KEY)) as transport:
            standin.faults.append(Fault(delay=0.5))
            began_at = asyncio.get_running_loop().time()
            answers = await asyncio.gather(*(transport.send(EVENT, Departure()) for _ in range(250)))
            assert {answer.outcome for answer in answers} == {"accepted"}
            assert asyncio.get_running_loop().time() - began_at < 2.5

    asyncio.run(story())


def test_environment_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask_standin().outcome == "accepted"


def self_signed(path: Path) -> Path:
    """A file with a key and its own certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + certificate.public_bytes(pem))
    return path


def test_a_certificate_that_nobody_signed_is_not_spoken_to(tmp_path: Path) -> None:
    async def serve(request: web.Request) -> web.Response:
        raise AssertionError

    async def story() -> tuple[Answer, list[str]]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self_signed(tmp_path / "server.pem"))
        app = web.Application()
        app.router.add_post("/{path:.*}", serve)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        departure = Departure()
        try:
            async with AttentiveTransport(Endpoint(f"https://127.0.0.1:{runner.addresses[0][1]}", KEY)) as transport:
                return await transport.send(EVENT, departure), departure.told
        finally:
            await runner.cleanup()

    answer, told = asyncio.run(story())
    assert (answer.outcome, answer.error, told) == ("not sent", "TLS: certificate not accepted", [])


def test_nothing_of_a_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def story() -> None:
        asyncio.get_running_loop().set_debug(True)
        asyncio.get_running_loop().slow_callback_duration = 0
        async with Standin(key=KEY) as standin, AttentiveTransport(Endpoint(standin.url, KEY)) as transport:
            for fault in (Fault(), Fault(status=400), Fault(kind="reset"), Fault(status=500, body="html")):
                standin.faults[:] = [fault]
                await transport.send(EVENT, Departure())

    asyncio.run(story())
    for private in (KEY, "jane.doe", "+1212", "#1001"):
        assert private not in caplog.text


# ── Answers ─────────────────────────────────────────────────────────────────

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7),
        ("0.5", 0.5),
        ("-3", 0),
        ("7200", 7200),
        ("999999999", 86_400),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30),
        ("Thu, 01 Jan 2026 12:00:30", 30),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 86_400),
        ("soon", None),
        ("nan", None),
        ("inf", 86_400),
        ("", None),
        ("Thu, 01 Jan 2026 12:00:30 +999999999999999", None),
        ("Thu, 01 Jan 99999 12:00:30 GMT", None),
        ("7, 9", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert attentive.retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        ("150", 150),
        (" 50 ", 50),
        ("0", None),
        ("-1", None),
        ("many", None),
        (None, None),
        ("", None),
        ("1e3", None),
        ("150.5", None),
        ("99999999", None),
        ("١٥٠", None),
        ("50, 50;w=1", 50),
        ("50;w=1", 50),
    ],
)
def test_the_limit_that_an_answer_names(value: str | None, limit: int | None) -> None:
    assert attentive.positive(value) == limit


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": {"id": "x", "message": "no such field"}}', "no such field"),
        (b'{"error": "no such field"}', "no such field"),
        (b'{"success": false, "message": "no such field"}', "no such field"),
        (b"<html><body><h1>Bad gateway</h1></body></html>", "Bad gateway"),
        (b'["a list"]', ""),
        (b'{"error": 7}', ""),
        (b"", ""),
        (b"\xff\xfe no such field", "no such field"),
        (b"[" * 60000, ""),
    ],
)
def test_error_texts(body: bytes, text: str) -> None:
    assert text in Words({}, KEY).remove_from(attentive.error_text(body))


@pytest.mark.parametrize(
    "echo",
    [
        "user.phone +12125550123 is bad",
        "2125550123",
        "(212) 555-0123",
        "jane.doe.1001@example.com",
        "jane.doe.1001%40example.com",
        "JANE DOE",
        "jane",
        "Jane,Doe",
        "JaneDoe",
        "Jané",
        "order #1001",
        "https://track.example/x",
        "track.example/x",
        KEY,
        KEY.upper(),
        f"Bearer {KEY}",
        "\\u002b12125550123",
        "a" * 80,
        "zero\x00byte",
    ],
)
def test_what_a_server_echoes_is_not_kept(echo: str) -> None:
    event = {
        "user": {"phone": "+12125550123", "email": "jane.doe.1001@example.com"},
        "properties": {"order": "#1001", "trackingUrl": "https://track.example/x", "returnStatus": "open"},
    }
    shown = Words(event, KEY).remove_from(f"the value {echo} was not understood")
    assert shown.startswith("the value")
    assert shown.endswith("was not understood")
    for private in ("212", "555", "jan", "doe", "example", "1001", "key", "track", "aaaa", "\x00"):
        assert private not in shown.casefold()


def test_a_body_of_nothing_but_brackets_takes_no_time() -> None:
    began_at = time.monotonic()
    assert Words({}, KEY).remove_from(attentive.error_text(b"<" * attentive.BODY_LIMIT)) is not None
    assert time.monotonic() - began_at < 1, "it took ten seconds, in which nothing else was sent"


def test_error_texts_are_short() -> None:
    assert len(Words({}, KEY).remove_from("so it goes " * 1000)) <= 160


def test_an_answer_is_read_only_so_far() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(status=400)
        await response.prepare(request)
        for _ in range(10_000):
            await response.write(b"so it goes " * 1000)
        return response

    async def story() -> tuple[Answer, float]:
        app = web.Application()
        app.router.add_post("/{path:.*}", endless)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        began_at = asyncio.get_running_loop().time()
        try:
            async with AttentiveTransport(Endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}", KEY)) as transport:
                answer = await transport.send(EVENT, Departure())
                return answer, asyncio.get_running_loop().time() - began_at
        finally:
            await runner.cleanup()

    answer, seconds = asyncio.run(story())
    assert answer.outcome == "rejected"
    assert answer.error is not None
    assert len(answer.error) < 200
    assert seconds < 2


def test_an_answer_that_never_comes_is_unknown() -> None:
    async def story() -> Answer:
        async with (
            Standin(key=KEY) as standin,
            AttentiveTransport(Endpoint(standin.url, KEY), read_timeout=0.3) as transport,
        ):
            standin.faults.append(Fault(kind="silence"))
            return await transport.send(EVENT, Departure())

    assert asyncio.run(story()) == Answer("unknown", error="no answer in time")


def test_a_host_that_is_not_there_is_not_sent() -> None:
    departure = Departure()
    answer = ask("http://127.0.0.1:9", departure)
    assert (answer.outcome, answer.error, departure.told) == ("not sent", "connection refused", [])


# ── Connections that are not what they were ─────────────────────────────────

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BAD = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


async def read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    [length] = [line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    await reader.readexactly(int(length))


class Meanwhile(Departure):
    """Something happens to the connection while its request waits for its permit."""

    def __init__(self, happens: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._happens = happens

    async def cleared(self) -> None:
        if not self.told:
            await self._happens()
            await asyncio.sleep(0.05)
        await super().cleared()


def two_requests(then: bytes, second: bytes) -> tuple[list[Answer], list[str], int]:
    """A first request is answered with 200. While a second one waits, with the connection in hand, the server says
    something more, or nothing and hangs up. On another connection it would say `second` to it.

    The answers, what the second departure was told, and how many requests came.
    """
    requests = 0
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        connections.append(writer)
        answers = [OK if len(connections) == 1 else second, second]
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await read_request(reader)
                requests += 1
                writer.write(answers.pop(0))

    async def meanwhile() -> None:
        connections[0].write(then)
        if not then:
            connections[0].close()

    async def story() -> tuple[list[Answer], list[str], int]:
        async with bare_server(serve) as url, AttentiveTransport(Endpoint(url, KEY)) as transport:
            departure = Meanwhile(meanwhile)
            answers = [await transport.send(EVENT, Departure()), await transport.send(EVENT, departure)]
            return answers, departure.told, requests

    return asyncio.run(story())


def test_a_connection_that_is_closed_while_its_request_waits_costs_a_new_one_and_no_doubt() -> None:
    answers, told, requests = two_requests(b"", OK)
    assert [answer.outcome for answer in answers] == ["accepted", "accepted"]
    assert told == ["cleared", "held up", "cleared", "left", "written"]
    assert requests == 2


@pytest.mark.parametrize("said", [OK, b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b"noise"])
def test_what_a_server_said_before_the_request_is_not_its_answer(said: bytes) -> None:
    answers, _, requests = two_requests(said, BAD)
    assert [answer.outcome for answer in answers] == ["accepted", "rejected"]
    assert requests == 2


def test_a_proxy_that_refuses_was_sent_nothing_of_the_event() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def story() -> Answer:
        async with (
            bare_server(serve) as url,
            AttentiveTransport(Endpoint("https://example.com", KEY, Way(proxy=url))) as transport,
        ):
            return await transport.send(EVENT, Departure())

    assert asyncio.run(story()) == Answer("not sent", error="the proxy refused")


def test_a_server_that_always_hangs_up_first_was_sent_nothing() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    class Waits(Departure):
        async def cleared(self) -> None:
            await asyncio.sleep(0.05)

    async def story() -> Answer:
        async with bare_server(serve) as url, AttentiveTransport(Endpoint(url, KEY)) as transport:
            return await transport.send(EVENT, Waits())

    assert asyncio.run(story()) == Answer("not sent", error="connection closed before the request")


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" + OK, "accepted"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + BAD, "rejected"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "unknown"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 30_000 + b"\r\nContent-Length: 0\r\n\r\n", "accepted"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"Content-Length: 0\r\n\r\n", "accepted"),
        (b"HTTP/1.1 200 OK\r\nSet-Cookie: =;;=\xff;\r\nSet-Cookie: a\r\nContent-Length: 0\r\n\r\n", "accepted"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", "accepted"),
        # Its head has told, whatever aiohttp thinks of the rest.
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "accepted"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n{}", "accepted"),
        (b"HTTP/1.1 204 No Content\r\n\r\n{}", "accepted"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n{}", "refused"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 422 No\r\nContent-Length: 0\r\n\r\n{}", "rejected"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nRetry-After: \xff\r\nDate: \xff\r\n\r\n{}", "accepted"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-ratelimit-limit: \xff\r\n\r\n{}", "accepted"),
        (b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", "unknown"),
        (b"HTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "unknown"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "accepted"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "accepted"),
        (b"HTTP/1.1 200 OK\r\nRetry-After: 3\r\nContent-Le", "unknown"),
        (b"HTTP/1.1 429 Slow\r\nRetry-After: Thu, 01 Jan 2026 12:00:30 +999999999999999\r\n\r\n", "throttled"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "refused"),
        (b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", "failed"),
    ],
)
def test_odd_answers(said: bytes, outcome: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(said)
        await writer.drain()
        writer.close()

    async def story() -> Answer:
        async with bare_server(serve) as url, AttentiveTransport(Endpoint(url, KEY)) as transport:
            return await transport.send(EVENT, Departure())

    assert asyncio.run(story()).outcome == outcome


def test_what_an_odd_answer_asks_for_is_heard() -> None:
    said = b"HTTP/1.1 429 Slow\r\nRETRY-AFTER: 7\r\nx-ratelimit-limit: 50\r\nContent-Length: 0\r\n\r\nsurplus"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(said)
        writer.close()

    async def story() -> Answer:
        async with bare_server(serve) as url, AttentiveTransport(Endpoint(url, KEY)) as transport:
            return await transport.send(EVENT, Departure())

    assert asyncio.run(story()) == Answer("throttled", 429, "HTTP 429", retry_after=7, limit=50)


@pytest.mark.parametrize("event_loop", [asyncio.new_event_loop, punctual.event_loop])
def test_an_answer_that_came_while_the_process_stood_still_is_heard(
    monkeypatch: pytest.MonkeyPatch, event_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Time is up before the loop gets to read it."""
    monkeypatch.setattr(attentive, "REQUEST_TIMEOUT", 1.0)
    monkeypatch.setattr(attentive, "CONNECT_TIMEOUT", 0.9)
    answered = threading.Event()

    class StandsStill(Departure):
        def written(self) -> None:
            answered.wait(5)
            time.sleep(1.2)  # the stall itself

    def serve(listener: socket.socket) -> None:
        with listener.accept()[0] as connected:
            connected.recv(65_536)
            connected.sendall(OK)
            answered.set()
            connected.recv(1)

    async def story(port: int) -> Answer:
        async with AttentiveTransport(Endpoint(f"http://127.0.0.1:{port}", KEY), read_timeout=0.1) as transport:
            return await transport.send(EVENT, StandsStill())

    with socket.create_server(("127.0.0.1", 0)) as listener, asyncio.Runner(loop_factory=event_loop) as runner:
        serving = threading.Thread(target=serve, args=(listener,))
        serving.start()
        answer = runner.run(story(listener.getsockname()[1]))
        serving.join()
    assert answer.outcome == "accepted"


def test_a_date_to_wait_for_is_read_by_the_servers_clock() -> None:
    said = (
        b"HTTP/1.1 503 Busy\r\nDate: Thu, 01 Jan 2026 12:00:00 GMT\r\n"
        b"Retry-After: Thu, 01 Jan 2026 12:00:30 GMT\r\nContent-Length: 0\r\n\r\n"
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(said)

    async def story() -> Answer:
        async with bare_server(serve) as url, AttentiveTransport(Endpoint(url, KEY)) as transport:
            return await transport.send(EVENT, Departure())

    assert asyncio.run(story()).retry_after == 30


def test_over_ipv6() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)

    async def story() -> Answer:
        async with bare_server(serve, "::1") as url:
            to = endpoint(connection(host="::1", port=int(url.rpartition(":")[2])))
            async with AttentiveTransport(to) as transport:
                return await transport.send(EVENT, Departure())

    assert asyncio.run(story()).outcome == "accepted"


@contextmanager
def deaf_server(backlog: int = 16) -> Iterator[int]:
    """A port at which connections are made, and nothing is ever read or said."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen(backlog)
        yield listening.getsockname()[1]


def test_a_server_that_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the kernel keeps for it: the write itself stalls, and the time of the whole request bounds it."""
    monkeypatch.setattr(attentive, "REQUEST_TIMEOUT", 1.0)
    monkeypatch.setattr(attentive, "CONNECT_TIMEOUT", 0.3)
    departure = Departure()
    event = EVENT | {"properties": {"order": "x" * 20_000_000}}

    async def story(port: int) -> Answer:
        async with AttentiveTransport(Endpoint(f"http://127.0.0.1:{port}", KEY), read_timeout=0.3) as transport:
            async with asyncio.timeout(10):
                return await transport.send(event, departure)

    with deaf_server() as port:
        assert asyncio.run(story(port)) == Answer("unknown", error="no answer in time")
    assert departure.told == ["cleared", "left"]


def test_a_handshake_that_never_ends_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attentive, "CONNECT_TIMEOUT", 0.3)
    departure = Departure()
    with deaf_server() as port:
        answer = ask(f"https://127.0.0.1:{port}", departure)
    assert (answer.outcome, answer.error, departure.told) == ("not sent", "connecting timed out", [])


def test_a_connection_that_nobody_takes_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attentive, "CONNECT_TIMEOUT", 0.3)
    departure = Departure()
    with deaf_server(backlog=0) as port, ExitStack() as waiting:
        for _ in range(3):  # as many as the kernel queues, and more
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        answer = ask(f"http://127.0.0.1:{port}", departure)
    assert (answer.outcome, answer.error, departure.told) == ("not sent", "connecting timed out", [])
