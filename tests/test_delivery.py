"""The sender against a real PostgreSQL and a real HTTP server: what becomes of an event, and that it adds up."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from loop_attentive import audit, db, delivery, rules
from loop_attentive.attentive import Answer, AttentiveTransport, Departure, Outcome, Transport
from loop_attentive.delivery import AHEAD, FIRST_UNDER_WAY, RENEW_EVERY, Batch, NothingSent, Room
from loop_attentive.errors import NeedsMending
from loop_attentive.ledger import LEASE, NO_REMINDERS, Ledger, Marked, Settled
from loop_attentive.pace import elapsed
from loop_attentive.reconnect import ANSWER_WITHIN, PATIENCE, Connection
from loop_attentive.settings import Shop
from sandbox.attentive import Fault, Standin
from tests.floor import DAY, HOUR, Floor
from tests.sending import (
    CREATED,
    EXPIRED,
    EXPIRING,
    KEY,
    NOTICE,
    REFUND,
    UPDATED,
    Book,
    Sending,
    bare_server,
    busiest_second,
    connect,
    event_body,
    ledger_of,
    send,
    somebody_waits,
    still_due_of,
    tell,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def book(ledger: str) -> Book:
    return Book(ledger, Shop(name="default"))


# ── Answers ─────────────────────────────────────────────────────────────────


def test_an_accepted_event_keeps_nothing_private(book: Book) -> None:
    event_id = book.add()
    result, standin = send(book)
    event = book.event(event_id)
    assert (event["status"], event["body"], event["attempts"], event["http_status"]) == ("accepted", None, 1, 200)
    assert not event["restamped"]
    assert (result.counts, result.requests, result.pending, result.come_back_at) == ({"accepted": 1}, 1, 0, None)
    [record] = standin.received
    stamp = event["occurred_at"].strftime("%Y-%m-%dT%H:%M:%S.") + f"{event['occurred_at'].microsecond // 1000:03}Z"
    assert record.body == {
        "type": CREATED, "externalEventId": str(event_id), "occurredAt": stamp, **event_body("1001")
    }  # fmt: skip
    [attempt] = book.attempts(event_id)
    assert attempt["outcome"] == "accepted"
    assert attempt["error"] is None
    assert attempt["occurred_at"] == event["sent_occurred_at"]
    assert attempt["started_at"] <= attempt["finished_at"]


def test_the_prefix_is_part_of_the_type(ledger: str) -> None:
    book = Book(ledger, Shop(name="default", event_prefix="Shop A "))
    book.add()
    _, standin = send(book)
    assert [record.type for record in standin.received] == ["Shop A Loop Return Created"]


@pytest.mark.parametrize(
    ("status", "state", "outcome", "money_state"),
    [
        (202, "accepted", "accepted", "accepted"),
        (204, "accepted", "accepted", "accepted"),
        (400, "rejected", "rejected", "rejected"),
        (413, "rejected", "rejected", "rejected"),
        (422, "rejected", "rejected", "rejected"),
        (408, "pending", "failed", "unknown"),
        (500, "pending", "failed", "unknown"),
        (502, "pending", "failed", "unknown"),
        (504, "pending", "failed", "unknown"),
        (599, "pending", "failed", "unknown"),
        (429, "pending", "throttled", "pending"),
        (503, "pending", "throttled", "pending"),
    ],
)
def test_answers(book: Book, status: int, state: str, outcome: str, money_state: str) -> None:
    usual = book.add()
    money = book.add(REFUND, "1002")
    send(book, Fault(status=status, body="html"))
    for event_id, expected in ((usual, state), (money, money_state)):
        event = book.event(event_id)
        [attempt] = book.attempts(event_id)
        assert (event["status"], attempt["outcome"], attempt["http_status"]) == (expected, outcome, status)
        assert (event["body"] is None) == (expected in ("accepted", "rejected"))
        if expected == "pending":
            assert event["due_at"] >= attempt["finished_at"] + timedelta(seconds=1)
        if expected == "unknown":
            assert event["resend_at"] is None
            assert event["reason"] == f"HTTP {status}"


@pytest.mark.parametrize("as_date", [True, False])
def test_again_when_the_answer_says(book: Book, as_date: bool) -> None:
    event_id = book.add()
    result, _ = send(book, Fault(status=429, retry_after=40, retry_after_as_date=as_date))
    event, [attempt] = book.event(event_id), book.attempts(event_id)
    wait = event["due_at"] - attempt["finished_at"]
    assert timedelta(seconds=38.5) < wait < timedelta(seconds=40.5)
    assert result.come_back_at == event["due_at"]
    assert book.one("SELECT paused_until - now() > interval '35 seconds' FROM pace")


def test_a_throttled_event_goes_out_in_the_same_delivery(book: Book) -> None:
    event_id = book.add()
    result, standin = send(book, Fault(status=429, count=1), patience=10)
    assert book.event(event_id)["status"] == "accepted"
    assert [attempt["outcome"] for attempt in book.attempts(event_id)] == ["throttled", "accepted"]
    first, second = standin.received
    assert second.arrived - first.arrived >= 1.0
    assert first.event_id == second.event_id
    assert result.counts == {"throttled": 1, "accepted": 1}


@pytest.mark.parametrize("status", [429, 503])
def test_an_answer_that_asks_for_a_pause_and_says_no_more_stops_all_for_a_second(book: Book, status: int) -> None:
    book.add_many(100)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(status=status, after=20, count=1))
        await sending(patience=5)
        [asked_at] = [record.arrived for record in standin.received if record.status == status]
        assert not [record for record in standin.received if asked_at + 0.3 < record.arrived < asked_at + 0.95]

    tell(book, story)
    assert book.states() == {"accepted": 100}


@pytest.mark.parametrize(
    ("faults", "waits_for", "seconds"),
    [
        ([Fault(status=429, retry_after=1)], "Attentive asked for a pause", 20),
        ([Fault(status=500)], "Attentive fails", 20),
        ([Fault(status=500, count=5), Fault(status=429, retry_after=1)], "Attentive asked for a pause", 20),
        ([Fault(kind="silence", accepts=True)], "Attentive does not answer", 800),
    ],
    ids=["429", "500", "500 among 429", "silence"],
)
def test_who_gets_nothing_done_is_come_back_to_later(
    book: Book, monkeypatch: pytest.MonkeyPatch, faults: list[Fault], waits_for: str, seconds: int
) -> None:
    """The task would hold its slot, and the shop's next run would wait, until the last event has expired."""
    monkeypatch.setattr(delivery, "FRUITLESS_SAT_OUT", 2.0)
    book.add_many(1000)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults += faults
        sending.read_timeout = 1.0
        async with asyncio.timeout(30):
            result = await sending(patience=15)
        assert result.waits_for == waits_for
        assert result.pending > 100
        assert result.come_back_at
        assert result.come_back_at > book.one("SELECT now() + %(seconds)s * interval '1 second'", seconds=seconds)

    tell(book, story)
    assert book.one("SELECT count(*) FROM event WHERE status = 'unknown'") < (500 if seconds > 20 else 1)


def test_who_gets_something_done_is_not_left(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FRUITLESS_SAT_OUT", 1.0)
    book.add_many(600)
    result, _ = send(book, Fault(status=500, share=0.5), patience=15)
    assert result.counts["accepted"] >= 500


def test_backoff_is_bounded_however_often_it_was_tried(book: Book) -> None:
    for number in range(20):
        book.add(return_id=str(number), attempts=30)
    book.run(
        """
        INSERT INTO attempt (
            event_id, attempt, run_key, task_id, map_index, try_number, occurred_at, started_at, finished_at, outcome
        )
        SELECT event_id, n, %(run)s, 't', -1, 1, now(), now(), now(), 'failed' FROM event, generate_series(1, 30) AS n
        """,
        run=book.run_key,
    )
    book.run("UPDATE run SET requests = 20 * 30")
    send(book, Fault(status=500))
    longest = book.one("SELECT max(due_at) - now() FROM event")
    assert timedelta(seconds=60) < longest < timedelta(seconds=301), "of twenty, each up to five minutes at random"


def test_a_wrong_key_stops_the_run_and_harms_no_event(book: Book) -> None:
    book.add_many(400)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(status=401, after=30))
        with pytest.raises(NeedsMending, match="connection attentive") as raised:
            await sending()
        assert KEY not in str(raised.value)
        assert len(standin.received) < 150

    tell(book, story)
    assert book.states()["pending"] == 400 - book.states()["accepted"]
    assert book.one("SELECT count(*) FROM attempt WHERE http_status = 401") > 0


def test_what_one_batch_was_refused_no_other_batch_of_the_run_asks_for(book: Book) -> None:
    book.add_many(40, CREATED)
    book.add_many(40, UPDATED)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(status=403, type=CREATED))
        await sending(Batch(0, 2), map_index=0)
        asked = len(standin.received)
        assert (await sending(Batch(1, 2), map_index=1)).stopped_types == {CREATED}
        assert all(record.type == UPDATED for record in standin.received[asked:])

    tell(book, story)


def test_a_wrong_key_stops_every_batch_of_the_run(book: Book) -> None:
    book.add_many(40)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(status=401))
        with pytest.raises(NeedsMending, match="does not know the API key"):
            await sending(Batch(0, 2), map_index=0)
        asked = len(standin.received)
        with pytest.raises(NeedsMending, match="does not know the API key"):
            await sending(Batch(1, 2), map_index=1)
        assert len(standin.received) == asked
        standin.faults.clear()
        await sending(try_number=2)

    tell(book, story)
    assert book.states() == {"accepted": 40}


@pytest.mark.parametrize("fault", [Fault(status=429), Fault(status=500), Fault(status=503), Fault(kind="reset")])
def test_a_run_that_gets_nothing_done_says_so(book: Book, fault: Fault) -> None:
    book.add_many(10)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(fault)
        assert (await sending()).fruitless
        standin.faults.clear()
        assert (await sending()).fruitless, "what the run has asked for so far has come to nothing"
        in_two_minutes(book)
        assert not (await sending()).fruitless
        standin.faults.append(fault)
        book.add(UPDATED, "77")
        assert not (await sending()).fruitless, "the run has sent something"

    tell(book, story)


def test_what_was_refused_before_the_run_was_cleared_counts_no_more(book: Book) -> None:
    """The key is mended, and a run with more batches than before has some that are in their first try."""
    book.add_many(40)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(status=401))
        with pytest.raises(NeedsMending, match="does not know the API key"):
            await sending(Batch(0, 1), map_index=0)
        standin.faults.clear()
        book.run("UPDATE run SET as_of = clock_timestamp()")
        in_two_minutes(book)
        await sending(Batch(0, 2), map_index=0, try_number=2)
        await sending(Batch(1, 2), map_index=1)

    tell(book, story)
    assert book.states() == {"accepted": 40}


def test_what_another_batch_was_refused_some_time_ago_counts_no_more(book: Book) -> None:
    """The key was mended, and the sending alone is cleared: tries of batches need not have been as many."""
    book.add_many(40)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(status=401))
        with pytest.raises(NeedsMending, match="does not know the API key"):
            await sending(Batch(1, 2), map_index=1, try_number=2)
        standin.faults.clear()
        book.run("UPDATE run SET as_of = as_of - interval '2 minutes'")
        book.run("UPDATE attempt SET started_at = started_at - interval '2 minutes'")
        await sending(Batch(0, 2), map_index=0, try_number=2)
        await sending(Batch(1, 2), map_index=1, try_number=3)

    tell(book, story)
    assert book.states() == {"accepted": 40}


@pytest.mark.parametrize("status", [403, 404, 302, 308])
def test_a_refused_type_stops_alone(book: Book, status: int) -> None:
    book.add_many(60, CREATED)
    book.add_many(60, UPDATED)
    blocked = book.add(CREATED, "77", age=timedelta(hours=3))
    free = book.add(UPDATED, "77")
    result, standin = send(book, Fault(status=status, type=CREATED))
    assert result.stopped_types == {CREATED}
    assert result.counts["refused"] <= 10, "what was on its way when the first refusal came"
    assert result.counts["accepted"] == 61
    assert result.pending == 61
    assert result.come_back_at is None
    assert book.event(blocked)["status"] == "pending"
    assert book.event(free)["status"] == "accepted"
    assert standin.traffic(endpoint="elsewhere").requests == 0, "a redirect was followed"


def test_a_refused_type_stays_stopped_when_its_task_comes_back_and_not_when_it_is_tried_anew(book: Book) -> None:
    refused, put_off = book.add(CREATED, "1"), book.add(UPDATED, "2")

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults[:] = [Fault(status=403, type=CREATED), Fault(status=500, type=UPDATED, count=1)]
        await sending()
        in_two_minutes(book)
        result = await sending()
        assert result.counts == {"accepted": 1}
        assert result.stopped_types == {CREATED}
        standin.faults.clear()
        assert (await sending(try_number=2)).counts == {"accepted": 1}

    tell(book, story)
    assert len(book.attempts(refused)) == len(book.attempts(put_off)) == 2


@pytest.mark.parametrize("status", [403, 307])
def test_every_type_refused_is_for_a_person(book: Book, status: int) -> None:
    book.add_many(40, CREATED)
    book.add_many(40, UPDATED)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(status=status))
        with pytest.raises(NeedsMending, match=r"refused every event type.*connection attentive"):
            await sending()

    tell(book, story)
    assert book.states() == {"pending": 80}


@pytest.mark.parametrize("in_one_go", [True, False])
def test_every_type_refused_is_for_a_person_whatever_else_came_to_nothing(book: Book, in_one_go: bool) -> None:
    """A gateway that lacks a moment among those that refuse must not make the run end well."""
    book.add_many(2, CREATED)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults[:] = [Fault(status=503, count=1), Fault(status=403)]
        if not in_one_go:
            standin.faults[:] = [Fault(status=503)]
            await sending()
            standin.faults[:] = [Fault(status=403)]
            book.run("UPDATE event SET due_at = now()")
            book.run("UPDATE pace SET paused_until = now(), free_at = '{}', token = '{}'")
        with pytest.raises(NeedsMending, match=r"refused every event type.*connection attentive"):
            await sending(patience=5)

    tell(book, story)
    assert book.states() == {"pending": 2}


def test_a_run_that_another_of_its_account_keeps_paused_says_that_it_got_nothing_done(book: Book) -> None:
    another = Book(book.conninfo, book.shop)
    another.add(return_id="1")

    async def story(standin: Standin, sending: Sending) -> None:
        await Sending(another, standin.url)()
        book.run("UPDATE pace SET paused_until = now() + interval '50 minutes'")
        assert not (await sending()).fruitless, "it has nothing to send"
        book.add(return_id="2")
        result = await sending()
        assert (result.fruitless, result.requests, result.waits_for) == (True, 0, "Attentive asked for a pause")
        assert result.come_back_at

    tell(book, story)


def test_twenty_rejected_in_a_row_stop_the_run(book: Book) -> None:
    book.add_many(500)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(status=422, after=10))
        with pytest.raises(NeedsMending, match="rejected 20 events in a row"):
            await sending()

    tell(book, story)
    states = book.states()
    assert states["accepted"] == 10
    assert 20 <= states["rejected"] < 60
    assert states["pending"] == 490 - states["rejected"]


def test_now_and_then_a_rejected_event_stops_nothing(book: Book) -> None:
    book.add_many(200)
    result, _ = send(book, Fault(status=422, share=0.5))
    assert sum(result.counts.values()) == 200
    assert 60 < book.states()["rejected"] < 140


def test_only_an_accepted_event_ends_a_row_of_rejected_ones(book: Book) -> None:
    book.add_many(500)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults[:] = [Fault(status=500, share=0.5), Fault(status=422)]
        with pytest.raises(NeedsMending, match="rejected 20 events in a row"):
            await sending()

    tell(book, story)
    assert 20 <= book.states()["rejected"] < 60


def test_error_texts_hold_nothing_private(book: Book) -> None:
    book.add()
    book.run("UPDATE event SET body = jsonb_set(body::jsonb, '{properties,order}', '\"Jane Doe order\"')")

    async def story(_: Standin, sending: Sending) -> None:
        echo = (
            b'{"message": "bad request of Jane Doe, jane.doe.1001@example.com +12125550123, key ' + KEY.encode() + b'"}'
        )
        async with answering(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n%b" % (len(echo), echo)) as url:
            sending.url = url
            await sending()

    tell(book, story)
    [row] = book.all("SELECT error FROM attempt")
    assert row["error"].startswith("HTTP 400 bad request of")
    for private in ("Jane", "jane", "Doe", "@", "555", KEY, "key that"):
        assert private not in row["error"]


# ── Requests that never left, and answers that never came ───────────────────


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """The URL of a server that answers whatever comes with the same bytes, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with bare_server(serve) as url:
        yield url


def test_nothing_sent_is_a_retry_and_harms_no_event(book: Book) -> None:
    book.add_many(300)
    book.add(REFUND, "5")

    async def story(_: Standin, sending: Sending) -> None:
        sending.url = f"http://127.0.0.1:{unused_port()}"
        with pytest.raises(NothingSent, match="connection attentive") as raised:
            await sending()
        assert raised.value.retry_after > 0

    tell(book, story)
    assert book.states() == {"pending": 301}
    attempts = book.all("SELECT DISTINCT outcome, error FROM attempt")
    assert attempts == [{"outcome": "not sent", "error": "connection refused"}]


def test_a_run_that_has_sent_comes_back_when_attentive_cannot_be_reached(book: Book) -> None:
    """It did send: the last of its events wait, and that fails nothing."""
    book.add()

    async def story(_: Standin, sending: Sending) -> None:
        await sending()
        book.add(return_id="2")
        sending.url = f"http://127.0.0.1:{unused_port()}"
        result = await sending()
        assert result.counts == {"not sent": 1}
        assert (result.pending, result.come_back_at is None) == (1, False)

    tell(book, story)


class Breaks(Transport):
    """Fails before a request leaves, in a way that no answer tells of."""

    async def send(self, event: dict[str, Any], departure: Departure) -> Answer:
        raise NeedsMending("The password has changed.")


def test_what_fails_before_it_leaves_is_pending_again(book: Book) -> None:
    book.add_many(10)
    money = book.add(REFUND, "5")

    async def story(_: Standin, sending: Sending) -> None:
        with pytest.raises(NeedsMending, match="password"):
            await sending(through=lambda _: Breaks())

    tell(book, story)
    assert book.states() == {"pending": 11}
    assert book.attempts(money) == []


def test_an_unknown_host_is_not_sent(book: Book) -> None:
    book.add()

    async def story(_: Standin, sending: Sending) -> None:
        sending.url = "https://no-such-host.invalid"
        with pytest.raises(NothingSent):
            await sending()

    tell(book, story)
    assert book.all("SELECT outcome, error FROM attempt") == [{"outcome": "not sent", "error": "name not resolved"}]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="reset"),
        Fault(kind="reset", accepts=True),
        Fault(kind="silence", accepts=True),
        Fault(kind="silence"),
    ],
    ids=["reset", "reset after accepting", "accepted in silence", "silence"],
)
def test_an_answer_that_never_comes(book: Book, fault: Fault) -> None:
    usual = book.add()
    money = book.add(REFUND, "1002")

    async def story(standin: Standin, sending: Sending) -> None:
        sending.read_timeout = 0.5
        standin.faults.append(Fault(**fault.settings()))
        result = await sending()
        assert result.counts == {"unknown": 2}
        assert result.come_back_at == book.event(usual)["resend_at"]
        assert result.waits_for is not None
        assert "no answer" in result.waits_for

    tell(book, story)
    [attempt] = book.attempts(usual)
    assert book.event(usual)["status"] == book.event(money)["status"] == "unknown"
    assert book.event(usual)["resend_at"] >= attempt["started_at"] + timedelta(minutes=2)
    assert book.event(money)["resend_at"] is None
    assert book.event(usual)["body"] is not None


@pytest.mark.parametrize(
    "answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"", b"\x00\xff" * 100, b"HTTP/1.1 200"]
)
def test_an_answer_that_is_no_http(book: Book, answer: bytes) -> None:
    event_id = book.add()

    async def story(_: Standin, sending: Sending) -> None:
        async with answering(answer) as sending.url:
            await sending()

    tell(book, story)
    assert book.event(event_id)["status"] == "unknown"


def test_a_body_that_breaks_off_changes_nothing(book: Book) -> None:
    event_id = book.add()

    async def story(_: Standin, sending: Sending) -> None:
        async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{") as sending.url:
            await sending()

    tell(book, story)
    assert book.event(event_id)["status"] == "accepted"


def test_when_attentive_falls_silent_little_ends_in_doubt(book: Book) -> None:
    book.add_many(2000)

    async def story(standin: Standin, sending: Sending) -> None:
        sending.read_timeout = 0.5
        standin.faults.append(Fault(kind="silence", accepts=True, after=100))
        stop = asyncio.Event()
        running = asyncio.create_task(sending(stop=stop))
        await asyncio.sleep(5)
        stop.set()
        await running

    tell(book, story)
    assert book.states()["accepted"] == 100
    assert book.states()["unknown"] <= 220, "at full rate it would be some 600"


def test_however_many_answers_came_no_more_than_some_hundreds_wait_for_theirs() -> None:
    room = Room()
    for _ in range(5000):
        room.answered()
    for _ in range(600):
        room.enter()
    assert room.is_full


def in_two_minutes(book: Book) -> None:
    """Lets time pass for what is unknown or put off."""
    book.run("UPDATE event SET resend_at = now() WHERE resend_at IS NOT NULL")
    book.run("UPDATE event SET due_at = now()")


def test_unknown_is_sent_again_once_with_the_same_body(book: Book) -> None:
    event_id = book.add(age=timedelta(hours=11, minutes=20))

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(kind="reset", accepts=True))
        await sending()
        assert (await sending()).requests == 0, "too early"
        book.run("UPDATE event SET resend_at = now()")
        await sending()
        assert book.event(event_id)["resend_at"] is None
        assert "no answer" in book.event(event_id)["reason"]
        book.run("UPDATE event SET due_at = '-infinity'")
        assert (await sending()).requests == 0, "the second lost answer is for a person"
        first, second = standin.received
        assert first.body == second.body

    tell(book, story)
    assert book.event(event_id)["status"] == "unknown"


def test_unknown_is_not_sent_again_when_its_time_has_become_too_old(book: Book) -> None:
    event_id = book.add(status="unknown", attempts=1, sent_at=datetime.now(UTC) - timedelta(minutes=3),
                        sent_occurred_at=datetime.now(UTC) - timedelta(hours=11, minutes=31),
                        resend_at=datetime.now(UTC) - timedelta(minutes=1))  # fmt: skip
    book.run(
        """
        INSERT INTO attempt (
            event_id, attempt, run_key, task_id, map_index, try_number, occurred_at, started_at, outcome
        )
        VALUES (%(id)s, 1, %(run)s, 't', -1, 1, now(), now() - interval '3 minutes', 'lost')
        """,
        id=event_id,
        run=book.run_key,
    )
    result, _ = send(book)
    assert result.requests == 0
    event = book.event(event_id)
    assert (event["status"], event["resend_at"]) == ("unknown", None)
    assert event["body"] is not None


def test_an_answer_lost_late_in_the_day_waits_for_a_person(book: Book) -> None:
    event_id = book.add(age=timedelta(hours=11, minutes=29))
    send(book, Fault(kind="reset"))
    assert book.event(event_id)["status"] == "unknown"
    assert book.event(event_id)["resend_at"] is None


@pytest.mark.parametrize("status", [429, 500, 403])
def test_a_resend_that_is_put_off_stays_unknown(book: Book, status: int) -> None:
    event_id = book.add()

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults[:] = [Fault(kind="reset")]
        await sending()
        standin.faults[:] = [Fault(status=status, count=1)]
        in_two_minutes(book)
        if status == 403:
            with pytest.raises(NeedsMending):
                await Sending(Book(book.conninfo, book.shop), standin.url)()
        else:
            await sending()
        event = book.event(event_id)
        assert event["status"] == "unknown"
        assert event["resend_at"] >= book.attempts(event_id)[-1]["finished_at"] + timedelta(minutes=2)
        in_two_minutes(book)
        book.run("UPDATE pace SET paused_until = now(), free_at = '{}', token = '{}'")
        await sending()

    tell(book, story)
    assert book.event(event_id)["status"] == "accepted"


# ── Late ────────────────────────────────────────────────────────────────────

SLACK = timedelta(seconds=20)


@pytest.mark.parametrize(
    ("age", "state", "restamped"),
    [
        (timedelta(hours=11, minutes=30) - SLACK, "accepted", False),
        (timedelta(hours=11, minutes=30) + SLACK, "accepted", True),
        (timedelta(hours=24) - SLACK, "accepted", True),
        (timedelta(hours=24) + SLACK, "expired", False),
    ],
)
def test_late(book: Book, age: timedelta, state: str, restamped: bool) -> None:
    event_id = book.add(age=age)
    result, standin = send(book)
    event = book.event(event_id)
    assert (event["status"], event["restamped"]) == (state, restamped)
    assert event["body"] is None
    assert datetime.now(UTC) - event["occurred_at"] >= age, "the true time stays"
    if state == "expired":
        assert result.counts == {"expired": 1}
        assert (event["reason"], event["attempts"], len(standin.received)) == ("too late", 0, 0)
    elif restamped:
        assert abs(datetime.now(UTC) - event["sent_occurred_at"]) < timedelta(minutes=1)
        assert standin.received[0].notes == ()


def test_what_a_person_released_counts_from_then(book: Book) -> None:
    long_ago = timedelta(days=9)
    good = book.add(return_id="1", age=long_ago, released_at=datetime.now(UTC) - timedelta(hours=23))
    bad = book.add(return_id="2", age=long_ago, released_at=datetime.now(UTC) - timedelta(hours=25))
    send(book)
    assert (book.event(good)["status"], book.event(good)["restamped"]) == ("accepted", True)
    assert book.event(bad)["status"] == "expired"


def test_reminders_go_out_as_long_as_they_hold(book: Book) -> None:
    old = timedelta(hours=30)
    holds = book.add(EXPIRING, "1", age=old)
    gone = book.add(EXPIRING, "2", age=old)
    waits = book.add(EXPIRED, "3", age=old)
    behind_gone = book.add(UPDATED, "2")
    behind_waiting = book.add(UPDATED, "3")
    book.run(
        """
        INSERT INTO source_cursor (shop, source_table, source, newest_synced_at, has_rows, looked_at)
        SELECT 'default', t, 's', now() - interval '3 days', true, now() FROM unnest('{returns,labels}'::text[]) AS t
        """
    )

    async def story(standin: Standin, sending: Sending) -> None:
        rule = still_due_of("1", if_fresh=("3",))
        result = await sending(still_due=rule, patience=1)
        assert result.counts == {"accepted": 3, "waits": 1, "no longer": 1}
        assert (result.pending, result.come_back_at) == (1, None)
        event = book.event(waits)
        assert (event["status"], event["reason"]) == ("pending", "waits for a fresh source")
        book.run("UPDATE source_cursor SET newest_synced_at = now()")
        assert (await sending(still_due=rule)).counts == {"accepted": 1}

    tell(book, story)
    assert (book.event(holds)["status"], book.event(holds)["restamped"]) == ("accepted", True)
    event = book.event(gone)
    assert (event["status"], event["reason"], event["body"]) == ("suppressed", "no longer true", None)
    for event_id in (waits, behind_gone, behind_waiting):
        assert book.event(event_id)["status"] == "accepted"


def test_expired_goes_out_by_either_of_its_conditions_and_no_longer_by_none(floor: Floor) -> None:
    now = datetime.now(UTC)
    floor.settings(enabled_at=now - DAY)
    floor.label("elsewhere", "OTHER", status="new")
    for return_id in ("1", "2", "3"):
        floor.ret(return_id, created_at=now - 28.5 * DAY, labels_enabled=True)
    assert len(floor.run(now - 2 * HOUR, EXPIRED)) == 3
    floor.ret("2", state="expired")
    floor.ret("3", state="closed")
    floor.look(now - HOUR)
    send(Book(floor.conninfo, floor.shop), still_due=rules.still_due_sql)
    assert floor.outcomes() == {
        "1": ("accepted", None), "2": ("accepted", None), "3": ("suppressed", "no longer true"),
    }  # fmt: skip


def test_a_reminder_that_found_its_recipient_days_later_goes_out_if_it_still_holds(floor: Floor) -> None:
    now = datetime.now(UTC)
    floor.settings(enabled_at=now - 3 * DAY)
    floor.label("elsewhere", "OTHER", status="new")
    for return_id in ("1", "2"):
        floor.ret(return_id, created_at=now - 23.5 * DAY, labels_enabled=True, customer_phone=None)
    floor.run(now - 2 * DAY, EXPIRING)
    assert set(floor.outcomes().values()) == {("invalid", "no recipient")}
    for return_id in ("1", "2"):
        floor.ret(return_id, customer_phone="+14155552671")
    floor.label("2", status="in_transit")
    floor.look(now)
    assert floor.judge_again(now) == 2
    _, standin = send(Book(floor.conninfo, floor.shop), still_due=rules.still_due_sql)
    assert [record.body["properties"]["returnId"] for record in standin.received if record.body] == [1]
    assert floor.outcomes() == {"1": ("accepted", None), "2": ("suppressed", "no longer true")}


def test_what_waits_for_a_fresh_source_holds_nothing_back_even_when_nothing_else_is_sent(book: Book) -> None:
    book.add(EXPIRING, "1", age=timedelta(hours=30))
    book.add(EXPIRED, "1", age=timedelta(hours=29))
    behind = book.add(UPDATED, "1")
    result, _ = send(book, still_due=still_due_of(if_fresh=("1",)))
    assert result.counts == {"waits": 2, "accepted": 1}
    assert book.event(behind)["status"] == "accepted"


async def left_in_doubt(book: Book, standin: Standin, sending: Sending) -> None:
    """A reminder has left while it held, and nobody knows what became of it; it may leave again."""
    standin.faults.append(Fault(kind="reset", count=1))
    await sending(still_due=still_due_of("1"))
    in_two_minutes(book)


def test_a_reminder_in_doubt_leaves_again_only_while_it_holds(book: Book) -> None:
    event_id = book.add(EXPIRING, "1")

    async def story(standin: Standin, sending: Sending) -> None:
        await left_in_doubt(book, standin, sending)
        assert (await sending(still_due=still_due_of())).requests == 0

    tell(book, story)
    assert (book.event(event_id)["status"], book.event(event_id)["resend_at"]) == ("unknown", None)


def test_a_reminder_in_doubt_waits_for_a_fresh_source_and_leaves_with_it(book: Book) -> None:
    event_id = book.add(EXPIRING, "1")

    async def story(standin: Standin, sending: Sending) -> None:
        await left_in_doubt(book, standin, sending)
        assert (await sending(still_due=still_due_of(if_fresh=("1",)))).counts == {"waits": 1}
        event = book.event(event_id)
        assert (event["status"], event["reason"]) == ("unknown", "waits for a fresh source")
        assert (await sending(still_due=still_due_of("1"))).counts == {"accepted": 1}

    tell(book, story)
    assert book.event(event_id)["status"] == "accepted"


def test_a_notice_must_hold_until_it_has_left(book: Book) -> None:
    event_id = book.add(NOTICE, "1")
    asked: list[str] = []

    def rule(_: object) -> str:
        asked.append("")
        return "SELECT '1' WHERE %(as_of)s > clock_timestamp() + interval '2 seconds'"

    send(book, still_due=rule)
    assert asked
    assert book.event(event_id)["status"] == "accepted"


# ── Order ───────────────────────────────────────────────────────────────────


def test_events_of_a_return_leave_in_order_and_one_after_the_other(book: Book) -> None:
    chains = {
        str(return_id): [
            str(book.add(UPDATED if n else CREATED, str(return_id), age=timedelta(minutes=30 - n))) for n in range(4)
        ]
        for return_id in range(1, 21)
    }
    _, standin = send(book, Fault(delay=0.05, jitter=0.2))
    arrived = defaultdict(list)
    for record in standin.received:
        assert record.body is not None
        arrived[str(record.body["properties"]["returnId"])].append(record)
    for return_id, chain in chains.items():
        assert [record.event_id for record in arrived[return_id]] == chain
        for one, next_one in zip(arrived[return_id], arrived[return_id][1:], strict=False):
            assert next_one.arrived >= one.arrived + 0.05


def test_same_instant_goes_by_the_tables_order(book: Book) -> None:
    at = datetime.now(UTC) - timedelta(minutes=1)
    last = book.add(UPDATED, "1", order_at=at)
    first = book.add(CREATED, "1", order_at=at)
    _, standin = send(book)
    assert [record.event_id for record in standin.received] == [str(first), str(last)]


@pytest.mark.parametrize(
    ("earlier", "waits"),
    [
        ({"status": "pending", "due_at": datetime(2100, 1, 1, tzinfo=UTC)}, True),
        ({"status": "unknown", "resend_at": datetime(2100, 1, 1, tzinfo=UTC)}, True),
        ({"status": "unknown"}, False),
        ({"status": "held"}, False),
        ({"status": "rejected"}, False),
        ({"status": "suppressed"}, False),
        ({"status": "pending", "due_at": datetime(2100, 1, 1, tzinfo=UTC), "event_type": REFUND}, False),
    ],
)
def test_what_an_event_waits_for(book: Book, earlier: dict[str, Any], waits: bool) -> None:
    book.add(**{"event_type": CREATED} | earlier, return_id="1", age=timedelta(hours=1))
    event_id = book.add(UPDATED, "1")
    money = book.add(REFUND, "1")
    result, _ = send(book)
    assert book.event(event_id)["status"] == ("pending" if waits else "accepted")
    assert book.event(money)["status"] == "accepted", "money does not wait"
    if waits:
        assert result.come_back_at == datetime(2100, 1, 1, tzinfo=UTC)


def test_an_earlier_event_put_off_holds_the_next_one_back(book: Book) -> None:
    first, second = book.add(CREATED, "1", age=timedelta(hours=1)), book.add(UPDATED, "1")
    _, standin = send(book, Fault(status=500, count=1), patience=10)
    assert [record.event_id for record in standin.received] == [str(first), str(first), str(second)]


# ── Pace ────────────────────────────────────────────────────────────────────


def test_the_limit_that_answers_name_is_kept_within_a_second(book: Book) -> None:
    book.add_many(250)

    async def story(standin: Standin, sending: Sending) -> None:
        result = await sending(patience=10)
        assert result.counts["accepted"] == 250
        first = standin.received[0].arrived
        late = [record for record in standin.received if record.arrived > first + 2]
        assert sum(record.status == 429 for record in late) <= 3
        assert book.one("SELECT learned FROM pace") == 50

    tell(book, story, limit=50)


def test_a_connection_that_opens_slowly_costs_its_permit_and_not_the_event(book: Book) -> None:
    book.add_many(30)
    marked_and_waiting: list[float] = []

    class Slow:
        def __init__(self, transport: AttentiveTransport) -> None:
            self._transport = transport

        async def send(self, event: dict[str, Any], departure: Departure) -> Answer:
            await asyncio.sleep(1.5)
            marked_and_waiting.append(time.monotonic())
            return await self._transport.send(event, departure)

    async def story(standin: Standin, sending: Sending) -> None:
        result = await sending(through=Slow)
        assert result.counts == {"accepted": 30}
        assert {attempt["attempt"] for attempt in book.all("SELECT attempt FROM attempt")} == {1}

    tell(book, story)
    assert len(marked_and_waiting) == 30


# ── Leases, batches, and ends ───────────────────────────────────────────────


def test_batches_part_the_events(book: Book) -> None:
    book.add_many(60)

    async def story(standin: Standin, sending: Sending) -> None:
        one = await sending(Batch(0, 2))
        assert 0 < one.requests < 60
        assert one.pending == 0
        other = await sending(Batch(1, 2))
        assert one.requests + other.requests == 60

    tell(book, story)
    assert book.states() == {"accepted": 60}


def test_two_senders_on_one_batch_send_each_event_once(book: Book) -> None:
    book.add_many(900)
    for return_id in range(30):
        for n in range(4):
            book.add(UPDATED, str(100001 + return_id), age=timedelta(minutes=30 - n))

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(delay=0.02, jitter=0.1))
        results = await asyncio.gather(sending(requests_per_second=600), sending(requests_per_second=600))
        assert all(result.requests > 50 for result in results)
        assert set(Counter(record.event_id for record in standin.received if record.accepted).values()) == {1}

    tell(book, story, limit=None)
    assert book.states() == {"accepted": 1020}


def test_a_dead_senders_events_become_unknown_and_its_late_answer_still_counts(book: Book) -> None:
    event_id = book.add()
    book.add(UPDATED, "1001", age=timedelta(seconds=1))

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(delay=1.0, count=1))
        first = asyncio.create_task(sending())
        while not standin.received:
            await asyncio.sleep(0.01)
        book.run("UPDATE event SET lease_until = now() - interval '1 second' WHERE status = 'sending'")
        second = await sending()
        assert second.requests == 0
        event = book.event(event_id)
        assert event["status"] == "unknown"
        assert event["resend_at"] > event["sent_at"] + timedelta(minutes=2)
        assert [attempt["outcome"] for attempt in book.attempts(event_id)] == ["lost"]
        await first

    tell(book, story)
    assert book.states() == {"accepted": 2}
    assert [attempt["outcome"] for attempt in book.attempts(event_id)] == ["accepted"]


def test_a_sender_that_slept_after_its_mark_does_not_send_what_others_have_given_up(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_id = book.add(REFUND)
    mark, slept = Ledger.mark, timedelta()
    given_up_at: list[datetime] = []

    async def story(_: Standin, sending: Sending) -> None:
        async def mark_and_sleep(ledger: Ledger, *asked: Any) -> Any:
            nonlocal slept
            marked = await mark(ledger, *asked)
            if not given_up_at:
                slept += timedelta(minutes=2)
                book.run("UPDATE event SET lease_until = now() - interval '1 second'")
                given_up_at.append(book.one("SELECT clock_timestamp()"))
                await sending()
                assert book.event(event_id)["status"] == "unknown"
            return marked

        monkeypatch.setattr(Ledger, "mark", mark_and_sleep)
        await sending(monotonic=lambda: elapsed() + slept.total_seconds())

    tell(book, story)
    [attempt] = book.attempts(event_id)
    assert attempt["outcome"] == "accepted"
    assert attempt["started_at"] > given_up_at[0], "marked anew, as its first request had never left"


def test_an_accepted_attempt_decides_whatever_the_others_say(book: Book) -> None:
    event_id = book.add()

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults[:] = [Fault(delay=2.0, count=1), Fault(status=400, count=1)]
        slow = asyncio.create_task(sending())
        while not standin.received:
            await asyncio.sleep(0.01)
        book.run("UPDATE event SET lease_until = now() - interval '1 second' WHERE status = 'sending'")
        await sending()
        in_two_minutes(book)
        await sending()
        assert book.event(event_id)["status"] == "rejected"
        await slow

    tell(book, story)
    assert book.event(event_id)["status"] == "accepted"
    assert [attempt["outcome"] for attempt in book.attempts(event_id)] == ["accepted", "rejected"]


def test_a_mark_of_long_ago_is_found_whenever_its_lease_ends(book: Book) -> None:
    """Every claim looks for lost events, but not again at what no sender had marked when it last looked."""
    old, new = book.add(return_id="1"), book.add(return_id="2")

    async def story() -> None:
        async with ledger_of(book) as theirs, ledger_of(book) as ours:
            await theirs.mark(await theirs.claim(1, from_the_oldest=True))
            book.run("UPDATE event SET sent_at = now() - interval '1 hour' WHERE status = 'sending'")
            await ours.release(await ours.claim(1, from_the_oldest=True))
            await theirs.mark(await theirs.claim(1, from_the_oldest=True))
            assert (book.event(old)["status"], book.event(new)["status"]) == ("sending", "sending")
            book.run("UPDATE event SET lease_until = now() - interval '1 second' WHERE status = 'sending'")
            await ours.claim(1, from_the_oldest=False)

    asyncio.run(story())
    assert (book.event(old)["status"], book.event(new)["status"]) == ("unknown", "unknown")


ACCEPTED = "UPDATE event SET status = 'accepted', body = NULL, lease = NULL, lease_until = NULL"
"""What an accepted attempt makes of the one event."""


def test_an_answer_that_is_being_written_is_not_given_up_for_lost(book: Book) -> None:
    event_id = book.add()

    async def story() -> None:
        async with ledger_of(book) as theirs, ledger_of(book) as ours:
            await theirs.mark(await theirs.claim(1, from_the_oldest=True))
            book.run("UPDATE event SET lease_until = now() - interval '1 second'")
            with db.connect(book.conninfo) as settling:
                settling.execute(ACCEPTED)
                async with asyncio.timeout(5):
                    assert await ours.claim(1, from_the_oldest=True) == []

    asyncio.run(story())
    assert (book.event(event_id)["status"], book.event(event_id)["resend_at"]) == ("accepted", None)


def test_a_refusal_does_not_overrule_an_acceptance_that_is_being_written(book: Book) -> None:
    """Of two attempts at one event, whose senders settle in the same moment."""
    event_id = book.add()

    async def story() -> None:
        async with ledger_of(book) as ledger:
            _, second = await marked_again(ledger, book)
            with db.connect(book.conninfo) as settling:
                settling.execute(ACCEPTED)
                refused = Settled(second, Answer("rejected", 400, "HTTP 400"), time.monotonic(), 0.0)
                written = asyncio.create_task(ledger.settle([refused], time.monotonic))
                await somebody_waits(book.conninfo)
            await written

    asyncio.run(story())
    assert book.event(event_id)["status"] == "accepted"


@pytest.mark.parametrize("is_marked", [True, False])
def test_what_another_sender_has_in_hand_is_come_back_for_when_its_lease_ends(book: Book, is_marked: bool) -> None:
    """Should it be dead, its run's next try is sooner than that, and would end with nothing to wait for."""
    event_id = book.add()

    async def story(_: Standin, sending: Sending) -> None:
        async with ledger_of(book) as theirs:
            claimed = await theirs.claim(1, from_the_oldest=True)
            marked = (await theirs.mark(claimed))[0] if is_marked else []
            result = await sending()
            lease_until = book.one("SELECT lease_until FROM event WHERE event_id = %(id)s", id=event_id)
            assert (result.come_back_at, result.waits_for) == (lease_until, "another sender has it in hand")
            await theirs.unmark(marked, keep=True)
            await theirs.release(claimed)

    tell(book, story)
    assert book.states() == {"pending": 1}


async def marked_again(ledger: Ledger, book: Book) -> list[Marked]:
    """The two marks of the one event, whose first was given up for lost."""
    [first], _ = await ledger.mark(await ledger.claim(1, from_the_oldest=True))
    book.run("UPDATE event SET lease_until = now() - interval '1 second'")
    async with ledger_of(book) as another:
        await another.claim(1, from_the_oldest=True)
    in_two_minutes(book)
    [second], _ = await ledger.mark(await ledger.claim(1, from_the_oldest=True))
    return [first, second]


def test_nobody_takes_hold_of_what_another_has_in_hand(book: Book) -> None:
    event_id = book.add()

    async def story() -> None:
        async with ledger_of(book) as theirs, ledger_of(book) as ours:
            claimed = await theirs.claim(1, from_the_oldest=True)
            before = book.event(event_id)
            assert await ours.claim(1, from_the_oldest=True) == []
            assert await ours.mark(claimed) == ([], Counter())
            ours.in_hand[event_id] = claimed[0]
            await ours.renew()
            await ours.release(claimed)
            assert book.event(event_id) == before
            [mark], _ = await theirs.mark(claimed)
            await ours.release(claimed)
            assert book.states() == {"sending": 1}
            await theirs.settle([Settled(mark, Answer("accepted", 200), time.monotonic(), 0.0)], time.monotonic)

    asyncio.run(story())
    assert book.states() == {"accepted": 1}


def test_what_a_sender_has_under_way_it_does_not_give_up_itself(book: Book) -> None:
    """The database was away for longer than a lease: the answers are in hand, and the claim comes before them."""
    event_id = book.add()

    async def story() -> None:
        async with ledger_of(book) as ledger:
            [mark], _ = await ledger.mark(await ledger.claim(1, from_the_oldest=True))
            book.run("UPDATE event SET sent_at = sent_at - interval '1 hour', lease_until = now() - interval '1 hour'")
            assert await ledger.claim(1, from_the_oldest=True) == []
            assert book.states() == {"sending": 1}
            await ledger.settle([Settled(mark, Answer("accepted", 200), time.monotonic(), 0.0)], time.monotonic)

    asyncio.run(story())
    assert book.states() == {"accepted": 1}
    assert [attempt["outcome"] for attempt in book.attempts(event_id)] == ["accepted"]


def test_what_is_found_lost_is_sent_again_two_minutes_after_that(book: Book) -> None:
    """Whoever has its answer after all, and gets its database back with the others, writes it until then."""
    event_id = book.add()

    async def story() -> None:
        async with ledger_of(book) as theirs, ledger_of(book) as ours:
            await theirs.mark(await theirs.claim(1, from_the_oldest=True))
            book.run("UPDATE event SET sent_at = sent_at - interval '1 hour', lease_until = now() - interval '1 hour'")
            assert await ours.claim(1, from_the_oldest=True) == []

    asyncio.run(story())
    assert book.event(event_id)["status"] == "unknown"
    assert book.one("SELECT resend_at - now() BETWEEN interval '110 seconds' AND interval '2 minutes' FROM event")


def test_a_mark_that_nobody_heard_of_is_taken_back_though_an_older_one_is_under_way(book: Book) -> None:
    book.add()

    async def story() -> None:
        async with ledger_of(book) as ledger:
            first, second = await marked_again(ledger, book)
            ledger.under_way = {first.claimed.event_id: first}
            async with await db.aconnect(book.conninfo, autocommit=True) as line:
                await ledger._restore(line)
            assert book.event(second.claimed.event_id)["attempts"] == first.attempt

    asyncio.run(story())
    assert book.states() == {"unknown": 1}


def test_a_mark_whose_commit_came_after_it_was_given_up_is_taken_back(book: Book) -> None:
    """It would be in doubt in a minute, though nothing has left."""
    event_id = book.add()

    async def story() -> None:
        async with ledger_of(book) as ledger:
            claimed = await ledger.claim(1, from_the_oldest=True)
            async with await db.aconnect(book.conninfo, autocommit=True) as line:
                await ledger._mark(line, claimed, NO_REMINDERS)
            assert await ledger.mark(claimed) == ([], Counter())
            assert book.event(event_id)["status"] == "pending"
            assert book.attempts(event_id) == []
            [mark], _ = await ledger.mark(await ledger.claim(1, from_the_oldest=True))
            assert mark.attempt == 1

    asyncio.run(story())


def test_who_stands_still_inside_a_claim_keeps_nobody_waiting_for_long(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "STANDS_STILL", "500ms")
    book.add_many(50)

    async def story(standin: Standin, sending: Sending) -> None:
        frozen = await db.aconnect(book.conninfo, autocommit=True)
        await frozen.execute("BEGIN")
        await frozen.execute("SELECT FROM event FOR UPDATE")
        assert (await sending(patience=10)).counts == {"accepted": 50}
        await frozen.close()

    tell(book, story)
    assert book.states() == {"accepted": 50}


def test_a_sender_whose_session_was_ended_goes_on_with_another(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "STANDS_STILL", "200ms")
    book.add()

    async def story() -> int:
        async with ledger_of(book) as ledger:
            stands_still = [True, False]

            async def work(line: Connection) -> int:
                async with line.transaction():
                    await line.execute("SELECT FROM event FOR UPDATE")
                    if stands_still.pop(0):
                        time.sleep(0.5)
                    return (await line.execute("SELECT FROM event")).rowcount

            found = await ledger._feeding.run(work)
            assert not stands_still, "the session was ended, and it was done again"
            return found

    assert asyncio.run(story()) == 1


def test_answers_do_not_wait_for_the_pace(book: Book) -> None:
    """Another worker stands still while it has the account's row, and a 429 is to be told of."""
    book.add_many(40)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(delay=0.5, count=30))
        running = asyncio.create_task(sending(patience=2))
        while len(standin.received) < 30:
            await asyncio.sleep(0.01)
        standin.faults[:] = [Fault(status=429)]
        with psycopg.connect(book.conninfo) as holder:
            holder.execute("SELECT FROM loop_attentive.pace FOR UPDATE")
            async with asyncio.timeout(10):
                while not any(record.status == 429 for record in standin.received):
                    await asyncio.sleep(0.01)
            given_up_at = time.monotonic() + 2.0
            while book.states().get("accepted", 0) < 30:
                assert time.monotonic() < given_up_at, book.states()
                await asyncio.sleep(0.02)
            holder.rollback()
        standin.faults.clear()
        await running

    tell(book, story)
    assert book.states() == {"accepted": 40}


def test_who_gets_no_permit_in_time_is_taken_back_and_not_told_to_be_unsent(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger stands still while marked events wait for other permits, after a pause."""
    monkeypatch.setattr(delivery, "LEAVES_WITHIN", timedelta(seconds=3))
    book.add_many(40)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(status=429, count=1))
        running = asyncio.create_task(sending(patience=2))
        while not standin.received:
            await asyncio.sleep(0.005)
        with psycopg.connect(book.conninfo) as holder:
            holder.execute("SELECT FROM loop_attentive.pace FOR UPDATE")
            given_up_at = time.monotonic() + 8.0
            while not book.states().get("sending", 0):
                await asyncio.sleep(0.01)
            while book.states().get("sending", 0):
                assert time.monotonic() < given_up_at, book.states()
                await asyncio.sleep(0.02)
            holder.rollback()
        await running

    tell(book, story)
    assert book.states() == {"accepted": 40}


def test_answers_of_two_attempts_that_come_together(book: Book) -> None:
    """The first attempt was given up for lost; then its 200 comes in, together with the second's 400."""
    event_id = book.add()

    async def story() -> None:
        async with ledger_of(book) as ledger:
            first, second = await marked_again(ledger, book)
            answers = [(first, Answer("accepted", 200)), (second, Answer("rejected", 400, "HTTP 400"))]
            now = time.monotonic()
            settled = [Settled(mark, answer, now, 0.0) for mark, answer in answers]
            await ledger.settle(settled[::-1], time.monotonic)
            await ledger.settle(settled, time.monotonic)

    asyncio.run(story())
    assert (book.event(event_id)["status"], book.event(event_id)["http_status"]) == ("accepted", 200)
    assert [attempt["outcome"] for attempt in book.attempts(event_id)] == ["accepted", "rejected"]
    book.check_sums()


@pytest.mark.parametrize(("outcome", "http_status"), [("throttled", 429), ("rejected", 400), ("failed", 500)])
def test_a_late_answer_to_what_was_given_up_decides_nothing_while_another_attempt_is_under_way(
    book: Book, outcome: Outcome, http_status: int
) -> None:
    event_id = book.add()

    async def story() -> None:
        async with ledger_of(book) as ledger:
            first, _ = await marked_again(ledger, book)
            before = book.event(event_id)
            late = Settled(first, Answer(outcome, http_status), time.monotonic(), 0.0)
            await ledger.settle([late], time.monotonic)
            assert book.event(event_id) == before

    asyncio.run(story())
    assert book.states() == {"sending": 1}
    assert [attempt["outcome"] for attempt in book.attempts(event_id)] == [outcome, None]


def test_what_a_run_that_is_over_never_heard_of_is_lost_though_an_earlier_attempt_was_accepted(book: Book) -> None:
    event_id = book.add()

    async def story() -> None:
        async with ledger_of(book) as ledger:
            first, second = await marked_again(ledger, book)
            now = time.monotonic()
            await ledger.settle([Settled(first, Answer("accepted", 200), now, 0.0)], time.monotonic)
            with db.connect(book.conninfo) as conn:
                assert audit.audit(conn, book.run_key, []).lost == 1
            assert [attempt["outcome"] for attempt in book.attempts(event_id)] == ["accepted", "lost"]
            book.check_sums()
            await ledger.settle([Settled(second, Answer("rejected", 400), now, 0.0)], time.monotonic)

    asyncio.run(story())
    assert book.states() == {"accepted": 1}
    assert [attempt["outcome"] for attempt in book.attempts(event_id)] == ["accepted", "rejected"]
    book.check_sums()


@pytest.mark.parametrize("was_heard_of", [True, False])
def test_a_mark_is_taken_back_though_an_earlier_attempt_was_accepted_meanwhile(book: Book, was_heard_of: bool) -> None:
    """The late answer ended the lease, by which a mark that nobody heard of would be known."""
    event_id = book.add()

    async def story() -> None:
        async with ledger_of(book) as ledger:
            first, second = await marked_again(ledger, book)
            await ledger.settle([Settled(first, Answer("accepted", 200), time.monotonic(), 0.0)], time.monotonic)
            if was_heard_of:
                await ledger.unmark([second], keep=True)
            else:
                ledger.under_way = {}
                async with await db.aconnect(book.conninfo, autocommit=True) as line:
                    await ledger._restore(line)

    asyncio.run(story())
    event = book.event(event_id)
    [attempt] = book.attempts(event_id)
    assert (event["status"], event["attempts"], event["sent_at"]) == ("accepted", 1, attempt["started_at"])
    assert (event["reason"], event["resend_at"], attempt["outcome"]) == (None, None, "accepted")
    book.check_sums()


def test_a_mark_taken_back_is_not_taken_for_the_next_of_its_number(book: Book) -> None:
    """The commit that took it back was heard of late: by then the event had been claimed and marked again."""
    book.add()

    async def story() -> None:
        async with ledger_of(book) as ledger:
            [first], _ = await ledger.mark(await ledger.claim(1, from_the_oldest=True))
            async with await db.aconnect(book.conninfo, autocommit=True) as line:
                await ledger._unmarking([(first.claimed.event_id, first.attempt, first.sent_at)], False)(line)
            [second], _ = await ledger.mark(await ledger.claim(1, from_the_oldest=True))
            assert second.attempt == first.attempt
            await ledger.unmark([first], keep=False)
            assert ledger.under_way == {second.claimed.event_id: second}
            await ledger.unmark([second], keep=False)

    asyncio.run(story())
    assert book.states() == {"pending": 1}


def test_a_server_that_can_only_be_read_for_a_while_is_waited_for(book: Book) -> None:
    """As a standby that has not been promoted yet, which is reached after a failover: no answer is lost meanwhile."""
    book.add_many(450)

    def read_only(setting: str) -> None:
        book.run(f"ALTER SYSTEM SET default_transaction_read_only = {setting}")
        book.run("SELECT pg_reload_conf()")

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(delay=0.3))
        running = asyncio.create_task(sending(patience=10))
        while len(standin.received) < 150:
            await asyncio.sleep(0.01)
        read_only("on")
        try:
            arrived = -1
            while arrived != len(standin.received):
                arrived = len(standin.received)
                await asyncio.sleep(1.0)
            assert not running.done()
        finally:
            read_only("off")
        result = await running
        assert result.counts["accepted"] == 450
        assert "unknown" not in result.counts
        assert max(Counter(record.event_id for record in standin.received if record.accepted).values()) == 1

    tell(book, story)
    assert book.states() == {"accepted": 450}


def test_a_large_set_of_answers_costs_no_more_than_many_small_ones(book: Book) -> None:
    """It was quadratic: two thousand answers at once took seconds, in which nothing else was settled."""
    book.add_many(3000)

    async def story() -> tuple[float, float]:
        async with ledger_of(book) as ledger:

            async def settle(at_once: int) -> float:
                marked: list[Marked] = []
                while len(marked) < 1500:
                    marked += (await ledger.mark(await ledger.claim(100, from_the_oldest=False)))[0]
                now = time.monotonic()
                answers = [Settled(mark, Answer("accepted", 200), now, 0.0) for mark in marked]
                for start in range(0, len(answers), at_once):
                    await ledger.settle(answers[start : start + at_once], time.monotonic)
                return time.monotonic() - now

            return await settle(30), await settle(1500)

    small, large = asyncio.run(story())
    assert large < 2 * small
    assert book.states() == {"accepted": 3000}


def test_a_stop_lets_answers_come_in_and_takes_marks_back(book: Book) -> None:
    book.add_many(600)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(delay=0.5))
        stop = asyncio.Event()
        running = asyncio.create_task(sending(stop=stop))
        while len(standin.received) < 100:
            await asyncio.sleep(0.01)
        stop.set()
        told_at, received = time.monotonic(), len(standin.received)
        result = await running
        assert time.monotonic() - told_at < 5
        assert result.stopped
        assert result.counts == {"accepted": len(standin.received)}
        assert len(standin.received) <= received + 20, "at full rate it would be 75 until the last answer"

    tell(book, story)
    assert book.states()["pending"] == 600 - book.states()["accepted"]
    assert book.one("SELECT count(*) FROM pace, unnest(free_at) AS f WHERE f > now() + interval '1.1 seconds'") == 0


SENDER_PROCESS = """
    import asyncio, sys
    from loop_attentive.settings import Shop
    from tests.sending import Book, Sending
    book = Book(sys.argv[1], Shop(name="default"))
    print(book.run_key, flush=True)
    asyncio.run(Sending(book, sys.argv[2], read_timeout=float(sys.argv[3]))())
"""


def start_sender(conninfo: str, url: str, read_timeout: float = 5.0) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"}
    code = textwrap.dedent(SENDER_PROCESS)
    return subprocess.Popen(
        [sys.executable, "-c", code, conninfo, url, str(read_timeout)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_sender_loses_nothing_and_leaves_little_in_doubt(book: Book) -> None:
    book.add_many(1500)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(delay=0.08))
        process = start_sender(book.conninfo, standin.url)
        while len(standin.received) < 300:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        await asyncio.sleep(0.3)
        in_doubt = book.one("SELECT count(*) FROM event WHERE status = 'sending'")
        assert in_doubt <= 50, "12 on their way at 80 ms, 12 not settled yet, 22 marked ahead"
        book.run("UPDATE event SET lease_until = now() - interval '1 second' WHERE lease IS NOT NULL")
        await sending()
        assert book.states() == {"unknown": in_doubt, "accepted": 1500 - in_doubt}
        in_two_minutes(book)
        await sending()
        times = Counter(record.event_id for record in standin.received if record.accepted)
        assert len(times) == 1500
        twice = {event_id for event_id, count in times.items() if count > 1}
        lost = {str(row["event_id"]) for row in book.all("SELECT event_id FROM attempt WHERE outcome = 'lost'")}
        assert twice <= lost
        assert len(lost) == in_doubt
        assert max(times.values()) <= 2

    tell(book, story)
    assert book.states() == {"accepted": 1500}


def test_a_sender_killed_while_attentive_is_silent_leaves_little_more_in_doubt_than_was_on_its_way(book: Book) -> None:
    """It marked as many again as were on their way, hundreds, to wait for answers that did not come."""
    book.add_many(2000)

    async def story(standin: Standin, _: Sending) -> None:
        standin.faults.append(Fault(kind="silence", accepts=True, after=200))
        process = start_sender(book.conninfo, standin.url, read_timeout=60)
        most_under_way = FIRST_UNDER_WAY + 200
        while len(standin.received) < 200 + most_under_way:
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)  # in which it must not mark any more
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        arrived = {record.event_id for record in standin.received}
        in_doubt = {str(row["event_id"]) for row in book.all("SELECT event_id FROM event WHERE status = 'sending'")}
        assert len(in_doubt & arrived) >= most_under_way
        assert 0 < len(in_doubt - arrived) <= AHEAD * book.shop.requests_per_second
        book.run("UPDATE event SET lease_until = now() - interval '1 second' WHERE lease IS NOT NULL")
        standin.faults.clear()
        await Sending(book, standin.url)()

    tell(book, story)


class NoConnection(Transport):
    """Is never connected, until it is let go: then it asks whether the request is still to leave.

    was_closed: it was connected once, and the connection was closed as the request was to leave.
    """

    def __init__(self, let_go: asyncio.Event, *, was_closed: bool) -> None:
        self._let_go = let_go
        self._was_closed = was_closed

    async def send(self, event: dict[str, Any], departure: Departure) -> Answer:
        if self._was_closed:
            await departure.cleared()
            departure.held_up()
        await self._let_go.wait()
        await departure.cleared()
        raise AssertionError("nothing may leave after a stop")


@pytest.mark.parametrize("was_closed", [False, True])
def test_until_a_connection_stands_little_is_marked(book: Book, was_closed: bool) -> None:
    book.add_many(500)

    async def story(_: Standin, sending: Sending) -> None:
        stop, let_go = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(sending(stop=stop, through=lambda _: NoConnection(let_go, was_closed=was_closed)))
        await asyncio.sleep(2.0)  # 300 could have been marked
        marked = book.one("SELECT count(*) FROM event WHERE status = 'sending'")
        assert 0 < marked <= AHEAD * book.shop.requests_per_second
        stop.set()
        let_go.set()
        await running

    tell(book, story)
    assert book.states() == {"pending": 500}


def test_leases_outlast_a_database_that_neither_answers_nor_hangs_up() -> None:
    cancelling = 5.0  # what psycopg may take to give up
    assert RENEW_EVERY + ANSWER_WITHIN + cancelling < LEASE.total_seconds()


def test_a_database_that_fails_over_is_waited_for() -> None:
    """A managed one takes a minute or two; the answers in hand would be lost, and money a person's matter."""
    assert PATIENCE >= 150


@pytest.mark.parametrize("is_resend", [False, True])
def test_what_another_sender_was_claiming_is_come_back_for(book: Book, is_resend: bool) -> None:
    """Should that one die, nobody else would come before the next run."""

    async def story(standin: Standin, sending: Sending) -> None:
        event_id = book.add()
        if is_resend:
            standin.faults.append(Fault(kind="reset", count=1))
            await sending()
            in_two_minutes(book)
        with connect(book.conninfo) as other, other.transaction():
            other.execute("SELECT FROM event WHERE event_id = %s FOR UPDATE", [event_id])
            result = await sending()
            assert result.requests == 0
            assert result.come_back_at is not None
            assert result.come_back_at - datetime.now(UTC) < timedelta(seconds=6)
            assert result.waits_for == "another sender has it in hand"
        assert (await sending()).counts == {"accepted": 1}

    tell(book, story)


def test_two_senders_die_in_turn_on_one_event_and_no_third_sends_it(book: Book) -> None:
    event_id = book.add()

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(kind="silence"))
        for requests in (1, 2):
            process = start_sender(book.conninfo, standin.url)
            while len(standin.received) < requests:
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.wait)
            book.run("UPDATE event SET lease_until = now() - interval '1 second'")
            assert (await sending()).requests == 0, "too early"
            in_two_minutes(book)
        assert (await sending()).requests == 0, "the second lost answer is for a person"
        first, second = standin.received
        assert first.body == second.body

    tell(book, story)
    event = book.event(event_id)
    assert (event["status"], event["resend_at"]) == ("unknown", None)
    assert event["body"] is not None
    assert [attempt["outcome"] for attempt in book.attempts(event_id)] == ["lost", "lost"]


def test_a_database_that_goes_away_for_a_moment_costs_nothing(book: Book) -> None:
    book.add_many(500)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(delay=0.05))
        running = asyncio.create_task(sending())
        for _ in range(4):
            await asyncio.sleep(0.6)
            book.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        result = await running
        assert result.counts["accepted"] == 500
        assert set(Counter(record.event_id for record in standin.received if record.accepted).values()) == {1}

    tell(book, story)
    assert book.states() == {"accepted": 500}


class StandsStill(Departure):
    """A process that is not run for a moment, between its last look at the clock and the write."""

    def __init__(self, departure: Departure) -> None:
        self._departure = departure

    async def cleared(self) -> None:
        await self._departure.cleared()

    def held_up(self) -> None:
        self._departure.held_up()

    def left(self) -> None:
        self._departure.left()
        time.sleep(0.3)  # the fault itself: nothing of this process goes on meanwhile

    def written(self) -> None:
        self._departure.written()


def test_a_process_that_stood_still_before_a_write_makes_no_second_too_full(book: Book) -> None:
    class Transport:
        def __init__(self, transport: AttentiveTransport) -> None:
            self._transport = transport
            self._sent = 0

        async def send(self, event: dict[str, Any], departure: Departure) -> Answer:
            self._sent += 1
            return await self._transport.send(event, StandsStill(departure) if self._sent == 5 else departure)

    book.add_many(60)

    async def story(standin: Standin, sending: Sending) -> None:
        await sending(requests_per_second=20, through=Transport)
        assert busiest_second(record.arrived for record in standin.received) <= 20

    tell(book, story)


def test_a_database_that_is_not_migrated_says_so(database: str) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        Book(database, Shop(name="default"))


def test_taking_marks_back_twice_leaves_what_others_marked_meanwhile(book: Book) -> None:
    """The first commit was not heard of, so it is tried again; by then another sender has marked the event anew."""
    event_id = book.add()

    async def marked_by(ledger: Ledger) -> Marked:
        [marked], _ = await ledger.mark(await ledger.claim(1, from_the_oldest=True))
        return marked

    async def story() -> tuple[Marked, Marked]:
        async with ledger_of(book) as one, ledger_of(book) as other:
            first = await marked_by(one)
            await one.unmark([first], keep=False)
            second = await marked_by(other)
            await one.unmark([first], keep=False)
            return first, second

    first, second = asyncio.run(story())
    assert first.attempt == second.attempt == 1
    assert book.event(event_id)["status"] == "sending"
    [attempt] = book.attempts(event_id)
    assert attempt["started_at"] == second.sent_at
