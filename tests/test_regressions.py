"""What others got wrong, each by its name: senders of events to Attentive, and readers of a source that changes.

Each is tried on the real parts: a source, the rules, the ledger on PostgreSQL, the sender, and a server that is as
strict as Attentive's; what counts is what the server received. How senders went wrong is from public repositories.

Of the reader's mistakes some are tested where the part is tested, down to the event that comes of it:

- two rows with the same timestamp at the edge of a window: here, and test_source.py,
  test_rows_that_share_the_time_at_the_edge_are_all_read
- precision lost in rounding: here, and test_source.py, test_a_source_that_keeps_fewer_digits_of_a_second_loses_no_row
- a row that commits late with an early timestamp: here, and test_source.py,
  test_a_late_row_with_an_early_time_of_its_own_is_found_by_its_synced_at
- a look that dies half-way: test_mirror.py, test_a_look_that_dies_half_way_leaves_nothing and
  test_a_look_whose_database_session_is_killed_leaves_nothing
- two looks at once: here, and for the mirror alone test_mirror.py,
  test_two_looks_at_once_take_turns_and_each_reads_only_after_it_has_its_turn
- an older version of a row delivered after a newer one: here, and for the mirror alone test_mirror.py,
  test_a_row_older_than_the_mirrors_is_not_applied_and_one_of_the_same_age_is
"""

import asyncio
import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from loop_attentive import db, mirror, qualify, rules, runs
from loop_attentive.catalogue import BY_NAME
from loop_attentive.settings import Shop
from loop_attentive.source import Source
from sandbox.attentive import NO_JOURNEY, Fault, Record, Standin
from tests.floor import DAY, HOUR, T0, Floor
from tests.sending import CREATED, KEY, REFUND, UPDATED, Book, Sending, send, tell

MINUTE = timedelta(minutes=1)
PHONE, EMAIL = "+14155552671", "jane.doe@example.com"


@pytest.fixture
def book(ledger: str) -> Book:
    return Book(ledger, Shop(name="default"))


def by_event(records: Iterable[Record]) -> dict[str | None, list[Record]]:
    received = defaultdict(list)
    for record in records:
        received[record.event_id].append(record)
    return received


# ── Senders: what is sent ───────────────────────────────────────────────────


def sent_from_the_source(floor: Floor, **contact: Any) -> list[Record]:
    """What is received of a return with a label and a refund, from the source to the server."""
    now = datetime.now(UTC)
    floor.settings(enabled_at=now - DAY)
    floor.ret(state="open", created_at=now - 3 * HOUR, updated_at=now - 3 * HOUR, **contact)
    floor.label(status="new", created_at=now - 2 * HOUR)
    floor.transaction(kind="refund", gateway="stripe", status="succeeded", created_at=now - HOUR)
    floor.run(now)
    _, standin = send(Book(floor.conninfo, floor.shop), still_due=rules.still_due_sql)
    return list(standin.received)


def test_the_field_is_spelt_occurred_at_with_two_c_and_two_r(floor: Floor) -> None:
    received = sent_from_the_source(floor, customer_phone=PHONE)
    told = {record.type: record.body["occurredAt"] for record in received if record.body}
    facts = {event.event_type: event.occurred_at for event in floor.events()}
    assert told.keys() == {CREATED, "Loop Label Created", REFUND}
    for event_type, occurred_at in facts.items():
        assert abs(datetime.fromisoformat(told[event_type]) - occurred_at) < timedelta(milliseconds=1)
    for record in received:
        assert record.accepted, "a key that Attentive does not know is refused"
        assert record.notes == (), "the time was not ignored"


@pytest.mark.parametrize("nobody", [None, "", "N/A"])
def test_an_event_without_an_identifier_is_not_sent_with_an_empty_user(floor: Floor, nobody: str | None) -> None:
    assert sent_from_the_source(floor, customer_phone=nobody, customer_email=nobody) == []
    assert set(floor.outcomes().values()) == {("invalid", "no recipient")}


@pytest.mark.parametrize(
    ("contact", "user"),
    [
        ({"customer_phone": "(415) 555-2671", "customer_email": EMAIL}, {"phone": PHONE, "email": EMAIL}),
        ({"customer_phone": "12", "customer_email": EMAIL}, {"email": EMAIL}),
        ({"customer_phone": PHONE, "customer_email": "nobody"}, {"phone": PHONE}),
    ],
)
def test_a_user_is_phone_and_email_and_never_custom_identifiers_as_an_object(
    floor: Floor, contact: dict[str, str], user: dict[str, str]
) -> None:
    received = sent_from_the_source(floor, **contact)
    assert [record.body["user"] for record in received if record.body] == [user] * 3
    assert all(record.accepted for record in received)


# ── Senders: when, and how often ────────────────────────────────────────────


class Clock:
    """A clock that can be set ahead."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def test_the_age_is_judged_at_each_attempt_and_not_once_before_it_waits(book: Book) -> None:
    """Queued in time, it waits through retries: after 11.5 hours it is stamped anew, each time."""
    clock = Clock()
    event_id = book.add(age=11 * HOUR)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(status=500, count=2))
        await sending(now=clock)
        clock.ahead += 70 * MINUTE
        await sending(now=clock)
        clock.ahead += 70 * MINUTE
        await sending(now=clock)
        in_time, late, latest = standin.received
        stamps = [datetime.fromisoformat(r.body["occurredAt"]) for r in (in_time, late, latest) if r.body]
        assert abs(in_time.arrived_at - stamps[0] - 11 * HOUR) < MINUTE
        assert [abs(r.arrived_at - at) < MINUTE for r, at in zip((late, latest), stamps[1:], strict=True)] == [True] * 2
        assert NO_JOURNEY not in {note for record in standin.received for note in record.notes}

    tell(book, story, now=clock)
    assert book.event(event_id)["status"] == "accepted"
    assert book.event(event_id)["restamped"]


def test_an_event_that_waited_for_a_day_is_not_sent_at_all(book: Book) -> None:
    clock = Clock()
    event_id = book.add(age=11 * HOUR)

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(status=500, count=1))
        await sending(now=clock)
        clock.ahead += 14 * HOUR
        await sending(now=clock)
        assert len(standin.received) == 1

    tell(book, story, now=clock)
    assert (book.event(event_id)["status"], book.event(event_id)["reason"]) == ("expired", "too late")


def test_a_retry_has_the_id_and_the_body_of_the_first_request(book: Book) -> None:
    event_id = book.add()
    _, standin = send(
        book,
        Fault(status=429, count=1),
        Fault(status=500, count=1),
        Fault(status=503, body="html", count=1),
        patience=30,
    )
    assert [record.status for record in standin.received] == [429, 500, 503, 200]
    assert {record.event_id for record in standin.received} == {str(event_id)}
    assert all(record.body == standin.received[0].body for record in standin.received)


def test_a_time_out_is_no_failure_and_what_is_sent_again_is_said(book: Book) -> None:
    """Attentive has taken it in, and only its answer is missing."""
    usual, money = book.add(), book.add(REFUND, "1002")

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(kind="silence", accepts=True, count=2))
        sending.read_timeout = 2.0
        await sending(patience=5)
        assert Counter(record.event_id for record in standin.received) == {str(usual): 1, str(money): 1}
        for event_id in (usual, money):
            assert book.event(event_id)["status"] == "unknown"
            assert [attempt["outcome"] for attempt in book.attempts(event_id)] == ["unknown"]
            assert book.event(event_id)["reason"] == "no answer in time"
        assert book.event(usual)["resend_at"] >= book.attempts(usual)[0]["finished_at"] + 2 * MINUTE

        book.run("UPDATE event SET resend_at = now() WHERE resend_at IS NOT NULL")
        await sending()
        assert Counter(record.event_id for record in standin.received) == {str(usual): 2, str(money): 1}

    tell(book, story)
    assert [attempt["outcome"] for attempt in book.attempts(usual)] == ["unknown", "accepted"]
    assert book.event(money)["status"] == "unknown"


def test_each_event_has_its_own_outcome_and_not_its_batchs(book: Book) -> None:
    book.add_many(150)
    _, standin = send(
        book, Fault(status=422, share=0.2), Fault(status=500, share=0.2), Fault(kind="reset", share=0.1, accepts=True)
    )
    told = {200: "accepted", 422: "rejected", 500: "pending", None: "unknown"}
    expected = {record.event_id: told[record.status] for record in standin.received}
    rows = book.all("SELECT event_id::text, status FROM event")
    assert {row["event_id"]: row["status"] for row in rows} == expected
    assert set(expected.values()) == set(told.values())
    assert len(expected) == 150


def test_after_429_nothing_comes_in_the_same_second_nor_by_a_fixed_schedule(book: Book) -> None:
    book.add_many(20)
    _, standin = send(book, Fault(status=429, count=20, delay=0.3), patience=30)
    assert Counter(record.status for record in standin.received) == {429: 20, 200: 20}
    for first, again in by_event(standin.received).values():
        assert again.arrived - first.arrived >= 1.0
    waits = book.all(
        "SELECT extract(epoch FROM e.due_at - a.finished_at)::float8 AS wait "
        "FROM event AS e JOIN attempt AS a USING (event_id) WHERE a.attempt = 1"
    )
    chosen = [row["wait"] for row in waits]
    assert 0.999 < min(chosen) < max(chosen) < 2.001
    assert len({round(wait, 2) for wait in chosen}) > 5, "at random, so that they do not come back all at once"


def test_neither_the_key_nor_anything_of_a_request_is_logged(book: Book, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    book.add_many(60)
    book.add(REFUND, "5")

    async def story(standin: Standin, sending: Sending) -> None:
        asyncio.get_running_loop().set_debug(True)
        standin.faults += [Fault(status=status, count=4) for status in (400, 429, 500, 503)]
        standin.faults += [Fault(kind="reset", count=4), Fault(kind="silence", count=4), Fault(status=403, count=1)]
        sending.read_timeout = 2.0
        await sending(patience=5)

    tell(book, story)
    assert caplog.records
    for private in (KEY, "jane.doe", "2125550123", "returnId", "#1", "Bearer"):
        assert private not in caplog.text
    shown = book.one("SELECT string_agg(e::text, ' ') FROM audit_event AS e")
    shown += book.one("SELECT string_agg(a::text, ' ') FROM audit_attempt AS a")
    for private in (KEY, "jane.doe", "2125550123", "returnId"):
        assert private not in shown


def test_a_rested_pace_does_not_let_the_limit_and_a_refill_through_one_second(book: Book) -> None:
    """A bucket of 150 that is full, and refilled while it empties, lets 299 through."""

    async def story(standin: Standin, sending: Sending) -> None:
        book.add_many(20)
        await sending()
        await asyncio.sleep(1.2)
        book.add_many(430)
        await asyncio.gather(sending(), sending())
        assert standin.accepted == 450
        # A stand-in that is late itself sees requests closer together than they were sent.
        late = max(standin.lag.late_seconds.values(), default=0.0)
        assert standin.traffic().busiest_second <= 150 * (1 + late)

    tell(book, story, limit=None)


# ── Readers: each event exactly once ────────────────────────────────────────


def made(floor: Floor, event_type: str = CREATED) -> Counter[str]:
    """How many events of a type there are of each return, baseline apart."""
    return Counter(e.return_id for e in floor.events() if e.event_type == event_type and e.status == "pending")


def test_rows_that_share_a_timestamp_at_the_edge_make_one_event_each(floor: Floor) -> None:
    floor.start(T0 - DAY)
    floor.ret("1", created_at=T0 - HOUR, synced_at=T0)
    floor.run(T0, CREATED)
    floor.ret("2", created_at=T0 - HOUR, synced_at=T0)
    floor.run(T0 + HOUR, CREATED)
    floor.ret("3", created_at=T0 + HOUR, synced_at=T0 + 2 * HOUR)  # the edge is now at T0 itself
    floor.run(T0 + 2 * HOUR, CREATED)
    floor.ret("4", created_at=T0 + HOUR, synced_at=T0)
    for hours in (3, 4):
        floor.run(T0 + hours * HOUR, CREATED)
    assert made(floor) == {"1": 1, "2": 1, "3": 1, "4": 1}


@pytest.mark.parametrize("times", ["timestamptz(0)", "timestamptz(3)", "timestamptz"])
def test_rounded_times_make_one_event_each(floors: Callable[..., Floor], times: str) -> None:
    """Rows on both sides of an edge that falls between two microseconds, milliseconds or seconds."""
    floor = floors(times=times)
    floor.start(T0 - DAY)
    moments = [T0 + n * timedelta(microseconds=499_999) for n in range(-3, 4)]
    for number, moment in enumerate(moments):
        floor.ret(str(number), created_at=moment, synced_at=moment + 2 * HOUR)
        floor.run(T0 + 3 * HOUR + number * MINUTE, CREATED)
    for number, moment in enumerate(moments):  # two hours earlier: at the edge
        floor.ret(f"9{number}", created_at=moment, synced_at=max(moments))
        floor.run(T0 + 4 * HOUR + number * MINUTE, CREATED)
    assert set(made(floor).values()) == {1}
    assert len(made(floor)) == 14


def test_a_row_that_commits_late_with_an_early_timestamp_makes_its_event_once(floor: Floor) -> None:
    floor.start(T0 - DAY)
    floor.ret("1", created_at=T0 - HOUR, synced_at=T0 - HOUR)
    with psycopg.connect(floor.conninfo) as slow:
        slow.execute(
            "INSERT INTO loop.returns (return_id, state, customer_phone, created_at, synced_at) "
            "VALUES ('2', 'open', %s, %s, %s)",
            (PHONE, T0 - 90 * MINUTE, T0 - 90 * MINUTE),
        )
        floor.ret("3", created_at=T0, synced_at=T0)
        floor.run(T0, CREATED)
        assert made(floor) == {"1": 1, "3": 1}
        slow.commit()
    floor.run(T0 + HOUR, CREATED)
    floor.run(T0 + 2 * HOUR, CREATED)
    assert made(floor) == {"1": 1, "2": 1, "3": 1}


def test_two_runs_at_once_make_each_event_once(floor: Floor) -> None:
    """Each looks and judges, again and again, while the source goes on changing, as fast as the machine can."""
    floor.settings(enabled_at=datetime.now(UTC) - DAY, max_events_per_run=1_000_000)
    floor.look(datetime.now(UTC) - MINUTE)
    failures: list[BaseException] = []
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(floor.conninfo))

    def run_and_run(name: int) -> None:
        try:
            with db.connect(floor.conninfo, autocommit=True) as conn:
                for number in range(6):
                    look = mirror.look(conn, Source(engine, floor.shop))
                    run = runs.start(conn, dag_id="d", run_id=f"{name} {number}", shop="default", look=look)
                    for event_type in (CREATED, UPDATED):
                        qualify.qualify(conn, floor.shop, BY_NAME[event_type], run)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run_and_run, args=(name,)) for name in range(2)]
    for thread in threads:
        thread.start()
    changed = 0
    while any(thread.is_alive() for thread in threads):
        now = datetime.now(UTC)
        floor.ret(str(changed), created_at=now, updated_at=now, synced_at=now)
        if changed:
            floor.ret(str(changed - 1), state="closed", updated_at=now, synced_at=now)
        changed += 1
    engine.dispose()
    assert not failures
    floor.run(datetime.now(UTC), CREATED, UPDATED)
    assert made(floor) == dict.fromkeys(map(str, range(changed)), 1)
    seen_open = made(floor, UPDATED)
    assert set(seen_open.values()) <= {1}, "closed once"
    assert seen_open.keys() <= made(floor).keys()


def test_an_older_version_of_a_row_after_a_newer_one_is_no_event(floor: Floor) -> None:
    floor.ret(state="open", created_at=T0 - DAY, updated_at=T0 - DAY, synced_at=T0 - DAY)
    floor.start()
    for minutes, state, updated_at in (
        (60, "closed", T0 + HOUR),
        (61, "open", T0 - DAY),  # a sync that was late brings the old row
        (62, "closed", T0 + HOUR),
        (63, "open", T0 + HOUR - timedelta(microseconds=1)),
        (64, "closed", T0 + HOUR),
    ):
        at = T0 + minutes * MINUTE
        floor.ret(state=state, updated_at=updated_at, synced_at=at)
        floor.run(at, UPDATED)
    [event] = [event for event in floor.events() if event.event_type == UPDATED]
    assert event.properties["returnStatus"] == "closed"
    assert event.occurred_at == T0 + HOUR
