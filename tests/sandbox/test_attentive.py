"""The stand-in against what is known of Attentive: each demand just inside and just outside, the rate, every fault."""

import asyncio
import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sandbox import attentive
from sandbox.attentive import (
    DELETE_REQUEST,
    ELSEWHERE,
    EVENTS,
    HTML,
    IN_FUTURE,
    LARGEST_BODY,
    ME,
    NO_EVENT_ID,
    NO_JOURNEY,
    NO_OCCURRED_AT,
    RECREATES_PERSON,
    Fault,
    Standin,
    running_standin,
)

KEY = "the-key"
OTHER_KEY = "the-other-key"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PHONE = "+12125550123"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    text: str


class Hand:
    """A clock, in seconds, that stands where it is put."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def standin(clock: Hand) -> Iterator[Standin]:
    with running_standin(key=KEY, other_keys=[OTHER_KEY], limit=None, now=lambda: NOW, clock=clock) as standin:
        yield standin


def call(standin: Standin, method: str, path: str, *, key: str | None = KEY, **options: Any) -> Reply:
    async def exchange() -> Reply:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(method, standin.url + path, allow_redirects=False, **options) as answer,
        ):
            lower_case = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(answer.status, lower_case, await answer.text())

    return asyncio.run(exchange())


def send(standin: Standin, body: Any = None, **options: Any) -> Reply:
    return call(standin, "POST", EVENTS, json=event() if body is None else body, **options)


def send_many(standin: Standin, count: int) -> list[int]:
    """The statuses of so many events, sent over several connections at once."""

    async def one(session: aiohttp.ClientSession) -> int:
        async with session.post(standin.url + EVENTS, json=event()) as answer:
            return answer.status

    async def all_of_them() -> list[int]:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
            return await asyncio.gather(*(one(session) for _ in range(count)))

    return asyncio.run(all_of_them())


def event(**changes: Any) -> dict[str, Any]:
    """An event that is as it should be, but for the changes."""
    return {
        "type": "Loop Return Created",
        "user": {"phone": PHONE, "email": "ann@example.com"},
        "properties": {"returnId": 17, "returnStatus": "open", "labelsEnabled": True},
        "externalEventId": "37fb97a9-6cfd-4983-bd65-68d104d53b70",
        "occurredAt": "2026-03-01T11:59:30.000Z",
    } | changes


def user(**identifiers: Any) -> dict[str, Any]:
    return event(user=identifiers)


def properties(**values: Any) -> dict[str, Any]:
    return event(properties=values)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in event().items() if name != key}


# --- What an event must look like


def test_an_accepted_event_is_recorded_whole(standin: Standin, clock: Hand) -> None:
    clock.at = 3.5
    answer = send(standin)
    assert (answer.status, answer.text) == (200, "")
    [record] = standin.received
    assert (record.arrived_at, record.arrived) == (NOW, 3.5)
    assert (record.app, record.event_id, record.type) == ("App 1", event()["externalEventId"], "Loop Return Created")
    assert (record.status, record.accepted, record.notes, record.body) == (200, True, (), event())
    assert standin.accepted == 1


@pytest.mark.parametrize(
    "body",
    [
        without("properties"),
        without("externalEventId"),
        without("occurredAt"),
        event(type="Größe: Order/Shipped-2 <a>!"),
        user(phone=PHONE),
        user(phone="+447911123456"),
        user(email="a@b.co"),
        user(email="jürgen+x@mail.bücher.example"),
        user(externalIdentifiers={"clientUserId": "7"}),
        user(externalIdentifiers={"customIdentifiers": [{"name": "a", "value": "b"}, {"name": "c", "value": "d"}]}),
        event(properties={}),
        properties(order="#1001", price=9.5, count=0, gift=False),
        event(properties={"Order Id": "5", "a.b-c:d/e": "x"}),
        event(occurredAt="2026-03-01T11:59:30Z"),
        event(occurredAt="2026-03-01t11:59:30.123456z"),
        event(occurredAt="2026-03-01T06:59:30-05:00"),
    ],
)
def test_takes_what_the_documents_allow(standin: Standin, body: dict[str, Any]) -> None:
    assert send(standin, body).status == 200
    assert standin.received[0].accepted


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (without("type"), "type is missing"),
        (without("user"), "user is missing"),
        (event(type=""), "type is no text"),
        (event(type=None), "type is no text"),
        (event(type=5), "type is no text"),
        (event(occuredAt="2026-03-01T11:59:30.000Z"), "the body has a key other than"),
        (event(extra=1), "the body has a key other than"),
        (event(user=None), "user is no object"),
        (event(user="ann"), "user is no object"),
        (user(), "user has no identifier"),
        (user(phone=PHONE, name="Ann"), "user has a key other than"),
        (user(phone=""), "user.phone"),
        (user(phone=None, email="ann@example.com"), "user.phone"),
        (user(phone=12125550123), "user.phone"),
        (user(phone="12125550123"), "user.phone"),
        (user(phone="+1 212 555 0123"), "user.phone"),
        (user(phone="+1-212-555-0123"), "user.phone"),
        (user(phone="(212) 555-0123"), "user.phone"),
        (user(phone="+1212555012"), "user.phone"),
        (user(phone="+121255501234"), "user.phone"),
        (user(phone="+15555550123"), "user.phone"),
        (user(phone="+02125550123"), "user.phone"),
        (user(phone="+999123456789"), "user.phone"),
        (user(phone="+١٢١٢٥٥٥٠١٢٣"), "user.phone"),
        (user(phone=PHONE + "\n"), "user.phone"),
        (user(phone="N/A"), "user.phone"),
        (user(email=""), "user.email"),
        (user(phone=PHONE, email=None), "user.email"),
        (user(email="N/A"), "user.email"),
        (user(email="ann"), "user.email"),
        (user(email="ann@example"), "user.email"),
        (user(email="ann@@example.com"), "user.email"),
        (user(email="ann@.com"), "user.email"),
        (user(email="ann@example."), "user.email"),
        (user(email="an n@example.com"), "user.email"),
        (user(email="ann@example.com "), "user.email"),
        (user(externalIdentifiers={}), "user.externalIdentifiers has no identifier"),
        (user(externalIdentifiers=[]), "user.externalIdentifiers is no object"),
        (user(externalIdentifiers={"shopifyId": "7"}), "user.externalIdentifiers has a key other than"),
        (user(externalIdentifiers={"clientUserId": ""}), "clientUserId"),
        (user(externalIdentifiers={"clientUserId": 7}), "clientUserId"),
        (user(externalIdentifiers={"customIdentifiers": {"name": "a", "value": "b"}}), "customIdentifiers is no list"),
        (user(externalIdentifiers={"customIdentifiers": []}), "customIdentifiers is no list"),
        (user(externalIdentifiers={"customIdentifiers": ["a"]}), "customIdentifiers is no object"),
        (user(externalIdentifiers={"customIdentifiers": [{"name": "a"}]}), "customIdentifiers.value"),
        (user(externalIdentifiers={"customIdentifiers": [{"name": "a", "value": 5}]}), "customIdentifiers.value"),
        (
            user(externalIdentifiers={"customIdentifiers": [{"name": "a", "value": "b", "c": "d"}]}),
            "customIdentifiers has a key other than",
        ),
        (event(properties=None), "properties is no object"),
        (event(properties=[]), "properties is no object"),
        (properties(items=["a"]), "empty or not flat"),
        (properties(shipment={"carrier": "UPS"}), "empty or not flat"),
        (properties(label=None), "empty or not flat"),
        (properties(label=""), "empty or not flat"),
        (event(properties={"": "x"}), "a key of properties is no text"),
        (properties(returnId="17"), "properties.returnId is no integer"),
        (properties(returnId=17.0), "properties.returnId is no integer"),
        (properties(returnId=True), "properties.returnId is no integer"),
        (properties(labelsEnabled="true"), "properties.labelsEnabled is no boolean"),
        (properties(labelsEnabled=1), "properties.labelsEnabled is no boolean"),
        (event(externalEventId=""), "externalEventId"),
        (event(externalEventId=5), "externalEventId"),
        (event(externalEventId=None), "externalEventId"),
        (event(occurredAt=None), "occurredAt"),
        (event(occurredAt=""), "occurredAt"),
        (event(occurredAt=1772366370), "occurredAt"),
        (event(occurredAt="2026-03-01"), "occurredAt"),
        (event(occurredAt="2026-03-01T11:59:30"), "occurredAt"),
        (event(occurredAt="2026-03-01 11:59:30Z"), "occurredAt"),
        (event(occurredAt="2026-03-01T11:59Z"), "occurredAt"),
        (event(occurredAt="2026-03-01T11:59:30+0000"), "occurredAt"),
        (event(occurredAt="2026-02-30T11:59:30Z"), "occurredAt"),
        (event(occurredAt="2026-03-01T25:00:00Z"), "occurredAt"),
        (event(occurredAt="0001-01-01T00:00:00+12:00"), "occurredAt"),
    ],
)
def test_refuses_what_breaks_the_documents(standin: Standin, body: dict[str, Any], reason: str) -> None:
    assert send(standin, body).status == 400
    [record] = standin.received
    assert (record.accepted, record.status, record.body) == (False, 400, body)
    assert reason in record.notes[0]


@pytest.mark.parametrize("character", list("\"'(){}[]\\|,"))
def test_banned_characters_in_type_and_keys(standin: Standin, character: str) -> None:
    assert send(standin, event(type=f"a{character}b")).status == 400
    assert send(standin, event(properties={f"a{character}b": "x"})).status == 400
    assert send(standin, properties(value=f"a{character}b")).status == 200


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b'"text"', b'{"type": NaN}', b'{"type": "\xff"}', b"[" * 20_000, b"type=a&user=b"],
)
def test_a_body_that_is_no_json_object(standin: Standin, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    assert call(standin, "POST", EVENTS, data=content, headers=headers).status == 400
    assert standin.received[0].notes == ("the body is no JSON object",)
    assert standin.received[0].body is None


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("text/plain", 400),
        ("application/x-www-form-urlencoded", 400),
    ],
)
def test_content_type(standin: Standin, content_type: str, status: int) -> None:
    content = json.dumps(event())
    assert call(standin, "POST", EVENTS, data=content, headers={"Content-Type": content_type}).status == status


@pytest.mark.parametrize(("size", "status"), [(LARGEST_BODY - 1, 200), (LARGEST_BODY + 1, 413)])
def test_size_of_the_body(standin: Standin, size: int, status: int) -> None:
    content = json.dumps(event()).ljust(size).encode()
    headers = {"Content-Type": "application/json"}
    assert call(standin, "POST", EVENTS, data=content, headers=headers).status == status
    assert standin.received[0].status == status


def test_size_of_a_body_without_a_content_length(standin: Standin) -> None:
    async def chunks() -> Any:
        for _ in range(5):
            yield b" " * (LARGEST_BODY // 4)

    headers = {"Content-Type": "application/json"}
    assert call(standin, "POST", EVENTS, data=chunks(), headers=headers).status == 413


@pytest.mark.parametrize("authorization", [None, f"Basic {KEY}", KEY, "Bearer", "Bearer ", "Bearer wrong"])
def test_without_the_key_nothing_is_accepted(standin: Standin, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    for method, path in [("POST", EVENTS), ("GET", ME), ("POST", DELETE_REQUEST)]:
        assert call(standin, method, path, key=None, json=event(), headers=headers).status == 401
    assert [(record.app, record.accepted) for record in standin.received] == [(None, False)]
    assert standin.deletions == []


def test_a_type_belongs_to_the_key_that_first_sent_it(standin: Standin) -> None:
    refused = event(user={})
    assert send(standin, refused).status == 400
    assert send(standin, event(), key=OTHER_KEY).status == 200, "a refused event creates no type"
    assert send(standin, event(), key=KEY).status == 403
    assert send(standin, event(type="loop return created"), key=KEY).status == 200, "types are case-sensitive"
    assert send(standin, event(), key=OTHER_KEY).status == 200
    assert [record.app for record in standin.received if record.accepted] == ["App 2", "App 1", "App 2"]


def test_a_type_may_have_200_keys_over_all_time(standin: Standin) -> None:
    keys = {f"key{number}": number for number in range(150)}
    more = {f"more{number}": number for number in range(50)}
    assert send(standin, event(properties=keys)).status == 200
    assert send(standin, event(properties=more | {"one too many": 1})).status == 400
    assert send(standin, event(properties=more)).status == 200, "the refused event's keys do not count"
    assert send(standin, event(properties=keys | more)).status == 200
    assert send(standin, event(properties={"another": 1})).status == 400
    assert send(standin, event(type="another", properties={"another": 1})).status == 200


@pytest.mark.parametrize(
    ("age", "notes"),
    [
        (timedelta(0), ()),
        (timedelta(hours=12), ()),
        (timedelta(hours=12, milliseconds=1), (NO_JOURNEY,)),
        (timedelta(days=400), (NO_JOURNEY,)),
        (-timedelta(milliseconds=1), (IN_FUTURE,)),
    ],
)
def test_late_and_early_events_are_answered_200(standin: Standin, age: timedelta, notes: tuple[str, ...]) -> None:
    for zone in ("+00:00", "-08:00"):
        occurred_at = (NOW - age).astimezone(datetime.fromisoformat(f"2026-03-01T00:00{zone}").tzinfo)
        assert send(standin, event(occurredAt=occurred_at.isoformat(timespec="milliseconds"))).status == 200
    assert [record.notes for record in standin.received] == [notes, notes]


def test_what_is_left_out_is_noted(standin: Standin) -> None:
    assert send(standin, without("occurredAt")).status == 200
    assert send(standin, without("externalEventId")).status == 200
    assert [record.notes for record in standin.received] == [(NO_OCCURRED_AT,), (NO_EVENT_ID,)]


def test_an_event_sent_twice_shows_twice(standin: Standin) -> None:
    assert [send(standin).status, send(standin).status] == [200, 200]
    assert [record.event_id for record in standin.received] == [event()["externalEventId"]] * 2


def test_three_shapes_of_error_bodies(standin: Standin) -> None:
    bodies = [json.loads(send(standin, user()).text) for _ in range(4)]
    message = "user has no identifier"
    shapes = [{"error": {"id": "sandbox", "message": message}}, {"error": message}]
    assert bodies == [*shapes, {"success": False, "message": message}, shapes[0]]


def test_no_answer_repeats_a_value(standin: Standin) -> None:
    for body in (user(phone="secret"), event(type="secret|"), event(properties={"secret|": "secret"}), event(secret=1)):
        assert "secret" not in send(standin, body).text
    assert not any("secret" in note for record in standin.received for note in record.notes)


# --- The other endpoints


def test_me_tells_the_app_of_the_key(standin: Standin) -> None:
    fields = {"applicationName", "attentiveDomainName", "companyName", "contactEmail", "companyId"}
    for key, name in [(KEY, "App 1"), (OTHER_KEY, "App 2")]:
        account = json.loads(call(standin, "GET", ME, key=key).text)
        assert account.keys() == fields
        assert account["applicationName"] == name
    assert len(standin.received) == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"subjectPhone": PHONE}, 200),
        ({"subjectEmail": "ann@example.com", "requestMsg": "asked to"}, 200),
        ({"clientUserId": "7"}, 200),
        ({}, 400),
        ({"requestMsg": "asked to"}, 400),
        ({"subjectPhone": ""}, 400),
        ({"subjectPhone": None}, 400),
        ({"phone": PHONE}, 400),
    ],
)
def test_delete_request(standin: Standin, body: dict[str, Any], status: int) -> None:
    answer = call(standin, "POST", DELETE_REQUEST, json=body)
    assert answer.status == status
    assert standin.deletions == ([body] if status == 200 else [])
    assert ("id" in json.loads(answer.text)) == (status == 200)


def test_an_event_for_a_deleted_person_is_noted(standin: Standin) -> None:
    call(standin, "POST", DELETE_REQUEST, json={"subjectEmail": "ann@example.com"})
    assert send(standin).status == 200
    assert send(standin, user(phone=PHONE)).status == 200
    assert [record.notes for record in standin.received] == [(RECREATES_PERSON,), ()]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/events"), ("GET", EVENTS), ("POST", ME), ("POST", "/v1/subscriptions")]
)
def test_anything_else_is_404(standin: Standin, method: str, path: str) -> None:
    assert call(standin, method, path, json=event()).status == 404
    assert standin.traffic(endpoint=ELSEWHERE).answers == {404: 1}


def test_it_listens_on_one_address_only(standin: Standin) -> None:
    with socket.create_connection(("127.0.0.1", standin.port)):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", standin.port))


# --- The rate


def test_a_full_bucket_plus_its_refill_is_too_much(standin: Standin, clock: Hand) -> None:
    standin.limit = 150
    clock.at = 0.9
    assert send_many(standin, 150) == [200] * 150
    clock.at = 1.1
    assert send_many(standin, 149) == [429] * 149
    assert standin.accepted == 150
    assert standin.traffic().busiest_second == 299
    assert standin.traffic().answers == {200: 150, 429: 149}


def test_a_second_after_it_was_used_a_permit_is_free(standin: Standin, clock: Hand) -> None:
    standin.limit = 2
    statuses = []
    for clock.at in (0.0, 0.5, 0.75, 0.9990234375, 1.0, 1.25, 1.5, 1.75):
        statuses.append(send(standin).status)
    assert statuses == [200, 200, 429, 429, 200, 429, 200, 429]


def test_the_real_clock_frees_permits_too() -> None:
    with running_standin(key=KEY, limit=1) as standin:
        started = time.monotonic()
        assert send(standin).status == 200
        while send(standin).status == 429:
            assert time.monotonic() < started + 10
        first, second = (record.arrived for record in standin.received if record.accepted)
        assert second - first >= 1.0


def test_both_headers_on_every_answer(standin: Standin) -> None:
    standin.limit = 4
    answers = [send(standin), send(standin, user()), send(standin), send(standin), send(standin)]
    answers += [call(standin, "GET", ME), send(standin, key="wrong"), call(standin, "GET", "/nowhere")]
    standin.faults.append(Fault(status=503, body="html"))
    answers.append(send(standin))
    assert [answer.status for answer in answers] == [200, 400, 200, 200, 429, 200, 401, 404, 503]
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"4"}
    remaining = [answer.headers["x-ratelimit-remaining"] for answer in answers]
    assert remaining == ["3", "2", "1", "0", "0", "3", "3", "3", "0"]


def test_each_key_and_endpoint_has_its_own_second(standin: Standin) -> None:
    standin.limit = 1
    requests = [("POST", EVENTS, KEY), ("POST", EVENTS, OTHER_KEY), ("GET", ME, KEY)]
    bodies = {KEY: event(), OTHER_KEY: event(type="Another")}
    for expected in (200, 429):
        for method, path, key in requests:
            assert call(standin, method, path, key=key, json=bodies[key]).status == expected
    assert [standin.traffic(app).requests for app in ("App 1", "App 2", None)] == [2, 2, 0]


def test_the_limit_can_be_changed_and_lifted(standin: Standin) -> None:
    standin.limit = 2
    assert send_many(standin, 2) == [200, 200]
    standin.limit = 3
    assert sorted(send_many(standin, 2)) == [200, 429]
    standin.limit = 1
    assert send(standin).status == 429
    standin.limit = None
    answer = send(standin)
    assert answer.status == 200
    assert not any(name.startswith("x-ratelimit") for name in answer.headers)


def test_the_busiest_second_slides(standin: Standin, clock: Hand) -> None:
    for clock.at in (0.0, 0.5, 1.0, 1.25, 1.4375, 3.0):
        send(standin)
    assert standin.traffic().busiest_second == 4
    assert [record.arrived for record in standin.received] == [0.0, 0.5, 1.0, 1.25, 1.4375, 3.0]


def test_its_own_lateness_is_told() -> None:
    async def block() -> dict[int, float]:
        async with Standin(KEY) as standin:
            await asyncio.sleep(0.02)
            time.sleep(0.05)  # the loop is to be late
            await asyncio.sleep(0.02)
            return standin.lag.late_seconds

    late = asyncio.run(block())
    assert max(late.values()) >= 0.04
    assert abs(max(late) - time.monotonic()) < 5


def test_no_collection_keeps_it_from_seeing_an_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_through: list[int] = []

    async def serve(*_: object) -> None:
        looked_through.append(len(gc.get_objects()))

    monkeypatch.setattr(attentive, "serve", serve)
    try:
        attentive.main(["--key", KEY])
    finally:
        gc.unfreeze()
    assert looked_through[0] < 5_000 < len(gc.get_objects())


# --- Faults


def refused_by_fault(standin: Standin, status: int) -> bool:
    record = standin.received[-1]
    return (record.status, record.accepted, record.body) == (status, False, event())


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503, 504])
def test_error_status(standin: Standin, status: int) -> None:
    standin.faults.append(Fault(status=status))
    assert send(standin).status == status
    assert refused_by_fault(standin, status)
    standin.faults.clear()
    assert send(standin).status == 200


def test_an_error_may_hide_that_the_event_was_taken(standin: Standin) -> None:
    standin.faults.append(Fault(status=500, accepts=True))
    assert send(standin).status == 500
    assert (standin.received[0].status, standin.received[0].accepted) == (500, True)


def test_retry_after(standin: Standin) -> None:
    standin.faults.append(Fault(status=429, count=1))
    standin.faults.append(Fault(status=429, retry_after=3, count=1))
    standin.faults.append(Fault(status=503, retry_after=90, retry_after_as_date=True))
    without_header, seconds, date = send(standin), send(standin), send(standin)
    assert "retry-after" not in without_header.headers
    assert seconds.headers["retry-after"] == "3"
    assert parsedate_to_datetime(date.headers["retry-after"]) == NOW + timedelta(seconds=90)


def test_redirect(standin: Standin) -> None:
    standin.faults.append(Fault(status=307))
    answer = send(standin)
    assert (answer.status, refused_by_fault(standin, 307)) == (307, True)
    assert call(standin, "POST", answer.headers["location"], json=event()).status == 404
    assert standin.traffic(endpoint=ELSEWHERE).requests == 1


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (Fault(), 200, ""),
        (Fault(body="json"), 200, "{}"),
        (Fault(body="html"), 200, HTML),
        (Fault(status=202), 202, ""),
        (Fault(status=202, body="json"), 202, "{}"),
    ],
)
def test_success_in_many_guises(standin: Standin, fault: Fault, status: int, text: str) -> None:
    standin.faults.append(fault)
    answer = send(standin)
    assert (answer.status, answer.text) == (status, text)
    assert (standin.received[0].status, standin.received[0].accepted) == (status, True)
    assert send(standin, user()).status == 400, "a guise of success is none of a refusal"


def test_error_bodies_of_gateways(standin: Standin) -> None:
    standin.faults = [Fault(status=502, body=body, count=1) for body in ("html", "empty", "json")]
    html, empty, nothing = send(standin), send(standin), send(standin)
    assert (html.text, html.headers["content-type"].partition(";")[0]) == (HTML, "text/html")
    assert (empty.text, nothing.text) == ("", "{}")


def test_delay_and_jitter(standin: Standin) -> None:
    standin.faults.append(Fault(delay=0.2, jitter=0.1))
    started = time.monotonic()
    assert send(standin).status == 200
    assert time.monotonic() - started >= 0.2


def test_jitter_comes_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def delays(seed: int) -> list[float]:
        slept: list[float] = []

        async def note(seconds: float) -> None:
            slept.append(seconds)

        async with Standin(KEY, seed=seed) as standin, aiohttp.ClientSession() as session:
            standin.faults.append(Fault(delay=1.0, jitter=0.5))
            monkeypatch.setattr("sandbox.attentive.asyncio.sleep", note)
            for _ in range(5):
                await session.post(standin.url + EVENTS, json=event())
            monkeypatch.undo()
        return slept

    first, again, other = (asyncio.run(delays(seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert all(1.0 <= delay <= 1.5 for delay in first)


def test_a_sender_who_gives_up_waiting_does_not_undo_the_event(standin: Standin) -> None:
    standin.faults.append(Fault(delay=30))
    with pytest.raises(TimeoutError):
        send(standin, timeout=aiohttp.ClientTimeout(total=0.2))
    assert standin.received[0].accepted


def exchange_raw(standin: Standin, content: bytes) -> bytes:
    """What comes back on a bare connection; raises ConnectionResetError when it is reset."""
    with socket.create_connection(("127.0.0.1", standin.port), timeout=10) as connection:
        connection.sendall(content)
        return connection.recv(65536)


def head(length: int) -> bytes:
    return (
        f"POST {EVENTS} HTTP/1.1\r\nHost: sandbox\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def test_reset_before_the_body_is_read(standin: Standin) -> None:
    standin.faults.append(Fault(kind="reset"))
    with pytest.raises(ConnectionResetError):
        exchange_raw(standin, head(100))
    [record] = standin.received
    assert (record.status, record.accepted, record.body, record.event_id) == (None, False, None, None)
    with pytest.raises(aiohttp.ClientConnectionError):
        send(standin)
    assert standin.traffic().answers == {None: 2}


def test_reset_after_accepting(standin: Standin) -> None:
    standin.faults.append(Fault(kind="reset", accepts=True))
    content = json.dumps(event()).encode()
    with pytest.raises(ConnectionResetError):
        exchange_raw(standin, head(len(content)) + content)
    [record] = standin.received
    assert (record.status, record.accepted, record.body) == (None, True, event())


@pytest.mark.parametrize("accepts", [True, False])
def test_an_answer_that_never_comes(standin: Standin, accepts: bool) -> None:
    standin.faults.append(Fault(kind="silence", accepts=accepts))
    with pytest.raises(TimeoutError):
        send(standin, timeout=aiohttp.ClientTimeout(total=0.3))
    [record] = standin.received
    assert (record.status, record.accepted, record.body) == (None, accepts, event())


def test_a_lost_answer_does_not_make_a_bad_event_good(standin: Standin) -> None:
    standin.faults.append(Fault(kind="reset", accepts=True))
    with pytest.raises(aiohttp.ClientConnectionError):
        send(standin, user())
    assert not standin.received[0].accepted


def test_the_next_so_many_requests(standin: Standin) -> None:
    standin.faults.append(Fault(status=429, count=2))
    assert [send(standin).status for _ in range(4)] == [429, 429, 200, 200]


def test_for_so_many_seconds(standin: Standin) -> None:
    standin.faults.append(Fault(status=429, seconds=0.5))
    ends = time.monotonic() + 0.5
    assert send(standin).status == 429
    while send(standin).status == 429:
        assert time.monotonic() < ends + 5
    assert time.monotonic() >= ends


def test_a_share_of_the_requests_comes_from_the_seed() -> None:
    def struck(seed: int) -> list[bool]:
        with running_standin(key=KEY, limit=None, seed=seed) as standin:
            standin.faults.append(Fault(status=500, share=0.3))
            return [send(standin).status == 500 for _ in range(40)]

    first = struck(7)
    expected = random.Random(7)
    assert first == [expected.random() < 0.3 for _ in range(40)]
    assert first != struck(8)


def test_for_one_type(standin: Standin) -> None:
    standin.faults.append(Fault(status=403, type="Loop Label Created"))
    assert send(standin, event(type="Loop Label Created")).status == 403
    assert send(standin).status == 200


def test_from_some_moment_on(standin: Standin) -> None:
    standin.faults.append(Fault(status=401, after=2, endpoint=None))
    assert [send(standin).status for _ in range(4)] == [200, 200, 401, 401]
    assert call(standin, "GET", ME).status == 401


def test_a_fault_is_of_the_events_endpoint_unless_told(standin: Standin) -> None:
    standin.faults = [Fault(status=500), Fault(status=503, endpoint=ME)]
    assert send(standin).status == 500
    assert call(standin, "GET", ME).status == 503
    assert call(standin, "POST", DELETE_REQUEST, json={"clientUserId": "7"}).status == 200


def test_the_first_fault_that_applies_strikes(standin: Standin) -> None:
    standin.faults = [Fault(status=403, type="Another"), Fault(status=500, count=1), Fault(status=502)]
    assert [send(standin).status for _ in range(3)] == [500, 502, 502]
    assert send(standin, event(type="Another")).status == 403


@pytest.mark.parametrize(
    "setting",
    [{"kind": "earthquake"}, {"body": "xml"}, {"status": 99}, {"share": 1.5}, {"count": -1}, {"delay": -0.1}],
)
def test_there_are_no_other_faults(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        Fault(**setting)


# --- What was received


def test_records_read_as_a_sequence(standin: Standin) -> None:
    for number in range(5):
        send(standin, event(externalEventId=f"id{number}"))
    ids = [record.event_id for record in standin.received]
    assert ids == ["id0", "id1", "id2", "id3", "id4"]
    assert standin.received[-1].event_id == "id4"
    assert [record.event_id for record in standin.received[1:3]] == ids[1:3]
    with pytest.raises(IndexError):
        standin.received[5]


def test_records_stay_readable_after_the_end() -> None:
    with running_standin(key=KEY) as standin:
        send(standin)
    assert standin.received[0].body == event()
    with pytest.raises(aiohttp.ClientConnectionError):
        send(standin)


# --- Its control


def control(standin: Standin, method: str, path: str, body: Any = None) -> Any:
    options = {} if body is None else {"json": body}
    answer = call(standin, method, f"/_sandbox/{path}", key=None, **options)
    assert answer.status == 200, answer.text
    return json.loads(answer.text)


def test_control_of_faults(standin: Standin) -> None:
    assert control(standin, "POST", "faults", {"status": 503, "count": 2})[0]["status"] == 503
    added = [{"kind": "reset", "accepts": True, "type": "Another"}, {"delay": 0.01}]
    listed = control(standin, "POST", "faults", added)
    assert [fault["kind"] for fault in listed] == ["answer", "reset", "answer"]
    assert send(standin).status == 503
    assert control(standin, "GET", "faults")[0]["count"] == 1
    assert control(standin, "DELETE", "faults") == []
    assert send(standin).status == 200


@pytest.mark.parametrize("body", [{"kind": "earthquake"}, {"nonsense": 1}, [1], "text", {"share": "much"}])
def test_control_refuses_nonsense(standin: Standin, body: Any) -> None:
    assert call(standin, "POST", "/_sandbox/faults", key=None, json=body).status == 400
    assert call(standin, "POST", "/_sandbox/limit", key=None, json=body).status == 400
    assert call(standin, "POST", "/_sandbox/faults", key=None, data="{").status == 400
    assert standin.faults == []


def test_control_of_the_limit(standin: Standin) -> None:
    assert control(standin, "POST", "limit", {"limit": 1}) == {"limit": 1}
    assert [send(standin).status, send(standin).status] == [200, 429]
    assert control(standin, "POST", "limit", {"limit": None}) == {"limit": None}
    assert send(standin).status == 200
    for wrong in (-1, "150", True):
        assert call(standin, "POST", "/_sandbox/limit", key=None, json={"limit": wrong}).status == 400


def test_control_pages_through_what_was_received(standin: Standin) -> None:
    for number in range(5):
        send(standin, event(externalEventId=f"id{number}"))

    def page(query: str) -> list[str]:
        answer = call(standin, "GET", f"/_sandbox/received{query}", key=None)
        assert answer.headers["x-total"] == "5"
        return [json.loads(line)["event_id"] for line in answer.text.splitlines()]

    assert page("") == ["id0", "id1", "id2", "id3", "id4"]
    assert page("?start=3") == ["id3", "id4"]
    assert page("?start=1&count=2") == ["id1", "id2"]
    assert page("?start=9") == []
    assert call(standin, "GET", "/_sandbox/received?start=-1", key=None).status == 400


def test_control_tells_what_was_counted_and_never_a_key(standin: Standin) -> None:
    send(standin)
    send(standin, key=OTHER_KEY)
    call(standin, "GET", ME, key="wrong")
    stats = control(standin, "GET", "stats")
    assert (stats["received"], stats["accepted"], stats["limit"]) == (2, 1, None)
    assert {(line["app"], line["endpoint"], *line["answers"]) for line in stats["traffic"]} == {
        ("App 1", EVENTS, "200"),
        ("App 2", EVENTS, "403"),
        (None, ME, "401"),
    }
    assert KEY not in json.dumps(stats)
    assert OTHER_KEY not in json.dumps(stats)


def test_reset_forgets(standin: Standin) -> None:
    send(standin)
    call(standin, "POST", DELETE_REQUEST, json={"subjectPhone": PHONE})
    standin.faults.append(Fault(status=500))
    stats = control(standin, "POST", "reset", {})
    assert (stats["received"], stats["accepted"], stats["deletions"], stats["traffic"]) == (0, 0, 0, [])
    assert send(standin, key=OTHER_KEY).status == 200
    assert [(record.app, record.notes) for record in standin.received] == [("App 2", ())]


# --- As a process of its own


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_line(tmp_path: Path, number: signal.Signals) -> None:
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "sandbox.attentive", "--key-env", "SANDBOX_KEY", "--port-file", str(port_file)]
    process = subprocess.Popen(
        command,
        env=os.environ | {"SANDBOX_KEY": KEY},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        first_line = process.stdout.readline()
        url = f"http://127.0.0.1:{port_file.read_text().strip()}"
        assert first_line == f"The Attentive stand-in listens on {url}\n"
        asyncio.run(talk_to(url))
        with socket.create_connection(("127.0.0.1", int(port_file.read_text()))) as waiting:
            waiting.sendall(head(2) + b"{}")
            process.send_signal(number)
            rest, _ = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (process.returncode, rest) == (0, "")
    assert not port_file.exists()


async def talk_to(url: str) -> None:
    """Sends an accepted event, a refused one, and one that is left waiting for ever."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
        for body, status in [(event(), 200), (user(), 400)]:
            async with session.post(url + EVENTS, json=body) as answer:
                assert answer.status == status
        async with session.post(f"{url}/_sandbox/faults", json={"kind": "silence"}) as answer:
            assert answer.status == 200
        with pytest.raises(TimeoutError):
            await session.post(url + EVENTS, json=event(), timeout=aiohttp.ClientTimeout(total=0.2))


def test_command_line_without_a_key() -> None:
    command = [sys.executable, "-m", "sandbox.attentive", "--key-env", "A_VARIABLE_THAT_IS_NOT_SET"]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "A_VARIABLE_THAT_IS_NOT_SET" in ended.stderr
