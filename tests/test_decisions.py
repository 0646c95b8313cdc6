"""What people decide: exactly the events that they were asked about, once, with who, when and why."""

import asyncio
import random
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from loop_attentive import db, decisions, runs, switch
from loop_attentive.decisions import Asker, Selection
from loop_attentive.delivery import Batch, Origin, deliver
from loop_attentive.errors import NeedsMending
from loop_attentive.mirror import Look
from loop_attentive.pace import Pace
from loop_attentive.settings import Shop
from sandbox.attentive import Fault, Standin
from tests.floor import DAY, HOUR, Floor
from tests.sending import CREATED, EXPIRING, KEY, REFUND, UPDATED, Book, Sending, ledger_of, send, still_due_of, tell

SHOP = Shop(name="default")
WHO = "ann"


@pytest.fixture
def book(ledger: str) -> Book:
    return Book(ledger, SHOP)


def ask(book: Book, run: str = "r1") -> Asker:
    return Asker(book.shop.name, "loop_attentive_resolve", run)


def proposed(book: Book, run: str = "r1", **selection: Any) -> int:
    return decisions.propose(book.connection, book.shop, ask(book, run), Selection(why="test", **selection)).events


def decide(book: Book, run: str = "r1", **selection: Any) -> decisions.Decided:
    """Proposes and decides at once."""
    proposed(book, run, **selection)
    return decisions.decide(book.connection, book.shop, ask(book, run), Selection(why="test", **selection), who=WHO)


def note_the_hold(book: Book, ago: timedelta = timedelta()) -> None:
    """The run has held an event so long ago."""
    book.connection.execute(
        "INSERT INTO hold (run_key, event_type, reason, bound, events, held_at) "
        "SELECT run_key, %s, 'flood', 1, 1, now() - %s FROM run",
        (CREATED, ago),
    )


def start(book: Book, run: str = "r1") -> None:
    runs.start(book.connection, **ask(book, run)._asdict(), look=Look(datetime.now(UTC), 0, 0))


def asks_about_a_held_event(book: Book, run: str) -> None:
    book.add(CREATED, "1", status="held", reason="flood")
    note_the_hold(book)
    start(book, run)
    assert proposed(book, run, action="send", states=["held"]) == 1


def test_exactly_the_events_that_a_form_selects(book: Book) -> None:
    at = datetime(2026, 3, 5, 12, tzinfo=UTC)
    book.shop = Shop(name="default", time_zone="America/New_York")
    for n, (event_type, status, reason, fact_at) in enumerate(
        [
            (CREATED, "held", "a", at),
            (CREATED, "held", "b", at),
            (UPDATED, "held", "a", at),
            (CREATED, "held", "a", datetime(2026, 3, 5, 5, tzinfo=UTC)),  # midnight there
            (CREATED, "held", "a", datetime(2026, 3, 5, 4, 59, tzinfo=UTC)),
            (CREATED, "held", "a", datetime(2026, 3, 6, 5, tzinfo=UTC)),
            (CREATED, "unknown", "a", at),
        ]
    ):
        book.add(event_type, str(n), status=status, reason=reason, fact_at=fact_at)
    Book(book.conninfo, Shop(name="other")).add(CREATED, "9", status="held", reason="a", fact_at=at)
    the_day: dict[str, Any] = {"first": date(2026, 3, 5), "last": date(2026, 3, 5)}

    assert proposed(book, action="send", states=["held"]) == 6
    assert proposed(book, action="send", states=["held", "unknown"]) == 7
    assert proposed(book, action="send", states=["held"], reason="a") == 5
    assert proposed(book, action="send", states=["held"], events=[CREATED]) == 5
    assert proposed(book, action="send", states=["held"], returns=["1", "2", "6"]) == 2
    assert proposed(book, action="send", states=["held"], events=[CREATED], reason="a", **the_day) == 2
    assert proposed(book, action="send", states=["held"], of_run="another") == 0
    of_run = book.one("SELECT run_id FROM run WHERE shop = 'default'")
    assert proposed(book, action="send", states=["held"], of_run=of_run) == 6


def test_a_person_is_asked_about_what_is_held_once_and_one_question_at_a_time(book: Book) -> None:
    def unasked() -> int:
        return decisions.unasked(book.connection, book.shop)

    def ends(run: str) -> None:
        book.connection.execute("UPDATE run SET finished_at = now() WHERE run_id = %s", [run])

    book.connection.execute("UPDATE run SET as_of = now() - interval '3 days'")  # and was cleared today
    book.add(CREATED, "1", status="held", reason="flood")
    assert unasked() == 0, "no run has held it lately: nobody need look further"
    note_the_hold(book)
    Book(book.conninfo, Shop(name="other")).add(CREATED, "9", status="held", reason="flood")
    assert unasked() == 1

    start(book, "first")
    proposed(book, "first", action="send", states=["held"])
    book.add(UPDATED, "2", status="held", reason="flood")
    assert unasked() == 0, "the first question is open"
    ends("first")
    assert unasked() == 1, "of the first event somebody was asked, whatever they answered"

    start(book, "second")
    proposed(book, "second", action="send", states=["held"])
    book.add(UPDATED, "3", status="held", reason="flood")
    assert unasked() == 0
    book.connection.execute("UPDATE run SET started_at = now() - interval '25 hours' WHERE run_id = 'second'")
    assert unasked() == 1, "nobody has answered for a day"

    book.add(UPDATED, "4", status="held", reason="restored")
    assert unasked() == 1, "a restore has a list of its own"
    start(book, "third")
    assert proposed(book, "third", action="send", states=["held"], unasked=True) == 1
    assert proposed(book, "third", action="send", states=["held"], unasked=True) == 1, "the same task again"


def test_what_was_held_while_a_question_stood_over_the_weekend_is_asked_about(book: Book) -> None:
    book.add(CREATED, "1", status="held", reason="flood")
    note_the_hold(book, ago=3 * DAY)
    assert decisions.unasked(book.connection, SHOP) == 1


def test_a_second_answer_to_one_question_is_no_other_decision(book: Book) -> None:
    book.add(CREATED, "1", status="held", reason="flood")
    assert decide(book, action="send", states=["held"]).events == 1
    with pytest.raises(NeedsMending, match="has decided already, to send 1 events"):
        decisions.decide(
            book.connection, book.shop, ask(book), Selection("discard", ["held"], why="test"), who=WHO
        )  # fmt: skip


def test_a_question_that_was_taken_away_is_asked_anew(book: Book) -> None:
    asks_about_a_held_event(book, "gone")
    assert decisions.unasked(book.connection, SHOP) == 0
    [question] = decisions.open_questions(book.connection, SHOP)
    assert question == (ask(book, "gone"), False)

    decisions.withdraw(book.connection, question.asker)
    assert decisions.open_questions(book.connection, SHOP) == []
    assert decisions.unasked(book.connection, SHOP) == 1


def test_a_question_whose_run_came_to_nothing_may_be_asked_anew(book: Book) -> None:
    """Airflow tells whether it failed; the ledger, that nothing was decided."""
    asks_about_a_held_event(book, "fails")
    book.connection.execute("UPDATE run SET finished_at = now() WHERE run_id = 'fails'")
    assert decisions.open_questions(book.connection, SHOP) == [(ask(book, "fails"), True)]
    assert decisions.unasked(book.connection, SHOP) == 0, "it may have been answered: change nothing"

    decisions.withdraw(book.connection, ask(book, "fails"))
    assert decisions.open_questions(book.connection, SHOP) == []
    assert decisions.unasked(book.connection, SHOP) == 1
    with pytest.raises(NeedsMending, match="another run's question by now"):
        decisions.decide(
            book.connection, book.shop, ask(book, "fails"), Selection("send", ["held"], why="test"), who=WHO
        )  # fmt: skip


def test_a_decided_question_is_no_open_one(book: Book) -> None:
    book.add(CREATED, "1", status="held", reason="flood")
    start(book)
    assert decide(book, action="send", states=["held"]).events == 1
    book.connection.execute("UPDATE run SET finished_at = now()")
    assert decisions.open_questions(book.connection, SHOP) == []


def test_who_said_no_is_no_matter_of_a_decision(book: Book) -> None:
    book.add(CREATED, "1", status="suppressed", reason="opted out")
    book.add(CREATED, "2", status="suppressed", reason="baseline")
    assert proposed(book, action="release", states=["suppressed"]) == 1
    assert proposed(book, action="discard", states=["suppressed"]) == 1


def test_what_may_have_been_sent_and_purged_is_not_released(book: Book) -> None:
    """It is found again, too late, when its return is touched after years."""
    long_ago = datetime.now(UTC) - 401 * DAY
    book.add(REFUND, "1", status="expired", reason="too late", fact_at=long_ago)
    book.add(REFUND, "2", status="expired", reason="too late", fact_at=long_ago + 2 * DAY)
    book.add(REFUND, "3", status="suppressed", reason="baseline", fact_at=long_ago)
    assert proposed(book, action="release", states=["expired"], returns=["1"]) == 0
    assert proposed(book, action="release", states=["expired", "suppressed"]) == 2


def test_what_was_sent_again_since_it_was_asked_about_is_left_alone(book: Book) -> None:
    """It is as it was, in doubt, but not for the same request."""
    book.add(REFUND, "1", status="unknown", reason="no answer in time")
    choice: dict[str, Any] = {"action": "send", "states": ["unknown"]}
    assert proposed(book, "first", **choice) == 1
    book.connection.execute("UPDATE event SET attempts = attempts + 1")
    decided = decisions.decide(
        book.connection, book.shop, ask(book, "first"), Selection(why="test", **choice), who=WHO
    )  # fmt: skip
    assert decided == (0, 1)


@pytest.mark.parametrize(
    ("selection", "told"),
    [
        ({"action": "explode", "states": ["held"]}, "no action 'explode'"),
        ({"action": "send", "states": []}, "To send is for states held, unknown, rejected"),
        ({"action": "send", "states": ["expired"]}, "To send is for states held, unknown, rejected"),
        ({"action": "release", "states": ["held"]}, "To release is for states suppressed, expired"),
        ({"action": "delivered", "states": ["held"]}, "To delivered is for states unknown"),
        ({"action": "send", "states": ["held"], "events": ["Loop"]}, "no events Loop"),
        ({"action": "send", "states": ["held"], "first": date(2026, 2, 2), "last": date(2026, 2, 1)}, "ends before"),
        ({"action": "send", "states": ["held"], "first": date.min}, "where calendars end"),
        ({"action": "send", "states": ["held"], "last": date.max}, "where calendars end"),
        ({"action": "send", "states": ["held"], "why": "  "}, "Nobody said why"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(book: Book, selection: dict[str, Any], told: str) -> None:
    with pytest.raises(NeedsMending, match=told):
        decisions.propose(book.connection, SHOP, ask(book), Selection(**{"why": "test"} | selection))


def test_what_the_settings_forbid_leaves_by_nobodys_decision(book: Book) -> None:
    book.shop = Shop(name="default", events_off=frozenset({UPDATED}))
    forbidden = book.add(UPDATED, "1", status="held", reason="flood")
    allowed = book.add(CREATED, "2", status="held", reason="flood")

    assert decide(book, action="send", states=["held"]) == (2, 0)
    assert (book.event(forbidden)["status"], book.event(forbidden)["reason"]) == ("suppressed", "switched off")
    assert book.event(allowed)["status"] == "pending"


def test_what_was_held_is_sent_and_is_late_when_it_would_have_been(book: Book) -> None:
    fresh = book.add(CREATED, "1", status="held", reason="flood")
    late = book.add(CREATED, "2", status="held", reason="flood", age=timedelta(hours=25))
    assert decide(book, action="send", states=["held"]) == (2, 0)
    _, standin = send(book)
    assert [record.event_id for record in standin.received] == [str(fresh)]
    assert book.event(fresh)["status"] == "accepted"
    assert (book.event(late)["status"], book.event(late)["reason"]) == ("expired", "too late")


def test_what_was_in_doubt_is_sent_again_as_it_was_and_counts_from_the_decision(book: Book) -> None:
    refund = book.add(REFUND, "1")
    book.run("UPDATE event SET status = 'unknown', reason = 'no answer' WHERE event_id = %(id)s", id=refund)
    old = book.add(REFUND, "2", status="unknown", reason="no answer", age=timedelta(hours=30))
    assert decide(book, action="send", states=["unknown"]) == (2, 0)
    _, standin = send(book)
    assert Counter(record.event_id for record in standin.received) == {str(refund): 1, str(old): 1}
    assert book.event(old)["restamped"]


def test_after_a_persons_decision_what_was_in_doubt_before_it_is_a_doubt_no_more(book: Book) -> None:
    """A 429, a stop and a crash leave what is sent again then as they leave what is sent for the first time."""
    in_doubt = {event_type: book.add(event_type, str(n)) for n, event_type in enumerate((REFUND, CREATED))}

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(kind="reset", accepts=True))
        await sending()
        standin.faults[:] = [Fault(status=429)]
        book.run("UPDATE event SET resend_at = NULL")  # as after a second loss: nobody but a person sends it again
        assert decide(book, action="send", states=["unknown"]) == (2, 0)
        await sending()
        assert book.states() == {"pending": 2}, "after a 429"

        book.run("UPDATE pace SET paused_until = now(), free_at = '{}', token = '{}'")
        book.run("UPDATE event SET due_at = now()")
        async with ledger_of(book) as ledger:
            marked, _ = await ledger.mark(await ledger.claim(2, from_the_oldest=True))
            await ledger.unmark(marked, keep=False)
            assert book.states() == {"pending": 2}, "after marks were taken back"
            await ledger.mark(await ledger.claim(2, from_the_oldest=True))
            book.run("UPDATE event SET lease_until = now() - interval '1 second'")
        async with ledger_of(book) as another:
            await another.claim(2, from_the_oldest=True)

    tell(book, story)
    assert book.states() == {"unknown": 2}
    assert book.event(in_doubt[CREATED])["resend_at"] is not None, "in doubt for the first time"
    assert book.event(in_doubt[REFUND])["resend_at"] is None


def test_discarded_and_delivered_ones_are_never_sent(book: Book) -> None:
    discarded = [book.add(CREATED, str(n), status=status) for n, status in enumerate(["held", "unknown", "pending"])]
    arrived = book.add(REFUND, "8", status="unknown", reason="no answer")
    assert decide(book, "r1", action="delivered", states=["unknown"], events=[REFUND]) == (1, 0)
    assert decide(book, "r2", action="discard", states=["held", "unknown", "pending"]) == (3, 0)
    result, _ = send(book)
    assert result.requests == 0
    assert {book.event(one)["reason"] for one in discarded} == {"discarded"}
    assert {book.event(one)["body"] for one in [*discarded, arrived]} == {None}
    assert (book.event(arrived)["status"], book.event(arrived)["reason"]) == ("accepted", "marked as delivered")


def test_discarding_leaves_alone_what_is_never_sent_anyway(book: Book) -> None:
    shadow = book.add(CREATED, "1", status="suppressed", reason="shadow")
    late = book.add(CREATED, "2", status="expired", reason="too late")
    asked = Selection("release", ["suppressed", "expired"], "test")
    assert decisions.propose(book.connection, SHOP, ask(book), asked).events == 2
    assert decisions.decide(book.connection, SHOP, ask(book), asked.instead("discard"), who=WHO) == (1, 1)
    assert [book.event(one)["reason"] for one in (shadow, late)] == ["discarded", "too late"]
    assert book.one("SELECT scope ->> 'states' FROM audit_decision") == '["suppressed"]'


def test_only_what_is_as_it_was_proposed_is_decided_and_nothing_that_a_sender_has_in_hand(book: Book) -> None:
    leased: dict[str, Any] = {"lease": "00000000-0000-4000-8000-000000000000", "lease_until": datetime.now(UTC) + HOUR}
    kept = book.add(CREATED, "1", status="pending", **leased)
    moved = book.add(CREATED, "2", status="held")
    assert proposed(book, action="discard", states=["held", "pending"]) == 2
    new = book.add(CREATED, "3", status="held")
    book.run("UPDATE event SET status = 'pending' WHERE event_id = %(id)s", id=moved)
    chosen = Selection("discard", ["held", "pending"], "test")
    assert decisions.decide(book.connection, SHOP, ask(book), chosen, who=WHO) == (0, 2)
    assert [book.event(one)["status"] for one in (kept, moved, new)] == ["pending", "pending", "held"]


def test_a_decision_is_made_once_and_says_who_when_why_and_what(book: Book) -> None:
    before = datetime.now(UTC)
    first = book.add(CREATED, "1", status="held", reason="flood")
    chosen: dict[str, Any] = {"action": "send", "states": ["held"], "events": [CREATED], "returns": ["1"]}
    assert decide(book, **chosen) == (1, 0)
    book.run("UPDATE event SET status = 'held', reason = 'flood' WHERE event_id = %(id)s", id=first)
    again = decisions.decide(book.connection, SHOP, ask(book), Selection(why="test", **chosen), who="bob")
    assert again == (1, 0)
    assert book.event(first)["status"] == "held"

    [row] = book.all("SELECT * FROM audit_decision")
    assert before < row.pop("decided_at") < datetime.now(UTC)
    assert row.pop("decision_id")
    assert row == {
        "shop": "default", "action": "send", "decided_by": WHO, "why": "test", "dag_id": "loop_attentive_resolve",
        "run_id": "r1", "events": 1, "scope": {"states": ["held"], "events": [CREATED], "returns": ["1"]},
    }  # fmt: skip
    [of_event] = book.all("SELECT event_id, status_before, reason_before FROM decision_event")
    assert of_event == {"event_id": first, "status_before": "held", "reason_before": "flood"}


# ── What has no body any more is made anew ──────────────────────────────────


def released(floor: Floor, *, run_id: str = "r1", **selection: Any) -> decisions.Decided:
    asker = Asker("default", "loop_attentive_resolve", run_id)
    decisions.propose(floor.conn, floor.shop, asker, Selection(why="test", **selection))
    return decisions.decide(floor.conn, floor.shop, asker, Selection(why="test", **selection), who=WHO)


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


def test_baseline_and_expired_ones_are_released_with_a_body_and_leave_stamped_anew(floor: Floor, now: datetime) -> None:
    floor.ret("1", created_at=now - 3 * DAY)
    floor.run(now - 2 * DAY)
    floor.ret("2", created_at=now - 2 * DAY + HOUR)
    floor.run(now - HOUR)
    assert floor.outcomes(CREATED) == {"1": ("suppressed", "baseline"), "2": ("expired", "too late")}

    assert released(floor, action="release", states=["suppressed", "expired"]) == (2, 0)
    assert floor.outcomes(CREATED) == {"1": ("pending", None), "2": ("pending", None)}
    _, standin = send(Book(floor.conninfo, floor.shop))
    assert {record.body["properties"]["returnId"] for record in standin.received if record.body} == {1, 2}
    book = Book(floor.conninfo, floor.shop)
    assert book.all(
        "SELECT DISTINCT status, restamped, body IS NULL AS is_final FROM event WHERE return_id IN ('1', '2')"
    ) == [{"status": "accepted", "restamped": True, "is_final": True}]


def test_what_a_person_releases_is_stamped_anew_however_young_and_what_one_sends_again_is_not(
    floor: Floor, now: datetime
) -> None:
    floor.settings(mode="shadow")
    floor.look(now - 4 * HOUR)
    floor.ret("1", created_at=now - 3 * HOUR)
    floor.run(now - 2 * HOUR)
    floor.settings(mode="live")
    floor.ret("2", created_at=now - HOUR)
    floor.run(now)
    book = Book(floor.conninfo, floor.shop)
    send(book, Fault(status=400))
    assert floor.outcomes(CREATED) == {"1": ("suppressed", "shadow"), "2": ("rejected", "HTTP 400")}

    assert released(floor, action="release", states=["suppressed"]) == (1, 0)
    assert released(floor, run_id="r2", action="send", states=["rejected"]) == (1, 0)
    _, standin = send(book)
    told = {
        record.body["properties"]["returnId"]: record.body["occurredAt"] for record in standin.received if record.body
    }
    assert now - timedelta(minutes=1) < datetime.fromisoformat(told[1])
    assert abs(datetime.fromisoformat(told[2]) - (now - HOUR)) < timedelta(milliseconds=1)
    assert book.all("SELECT return_id, restamped FROM event ORDER BY return_id") == [
        {"return_id": "1", "restamped": True},
        {"return_id": "2", "restamped": False},
    ]


def test_a_released_event_that_has_no_recipient_goes_out_when_there_is_one_whatever_the_guard_says_of_others(
    floor: Floor, now: datetime
) -> None:
    floor.look(now - 3 * DAY)
    floor.settings(max_events_per_run=0)
    floor.ret("1", created_at=now - 2 * DAY, customer_phone=None, customer_email=None)
    floor.ret("2", created_at=now - 2 * HOUR, customer_phone=None, customer_email=None)
    floor.run(now - HOUR, CREATED)
    nobody = ("invalid", "no recipient")
    assert floor.outcomes(CREATED) == {"1": ("expired", "too late"), "2": nobody}
    assert released(floor, action="release", states=["expired"]) == (1, 0)
    assert floor.outcomes(CREATED) == {"1": nobody, "2": nobody}
    for return_id in ("1", "2"):
        floor.ret(return_id, customer_phone="+14155552671")
    floor.look(now)
    assert floor.judge_again(now) == 1
    send(Book(floor.conninfo, floor.shop))
    assert floor.outcomes(CREATED) == {"1": ("accepted", None), "2": ("held", "more than max_events_per_run")}


def test_a_rejected_event_is_made_anew_from_what_the_mirror_holds_by_now(floor: Floor, now: datetime) -> None:
    floor.look(now - 2 * HOUR)
    floor.ret("1", created_at=now - HOUR)
    floor.run(now - HOUR / 2)
    book = Book(floor.conninfo, floor.shop)
    send(book, Fault(status=400))
    assert book.states() == {"rejected": 1}
    floor.ret("1", created_at=now - HOUR, order_name="#mended")
    floor.run(now)
    assert released(floor, action="send", states=["rejected"]) == (1, 0)
    _, standin = send(book)
    assert [record.body["properties"]["order"] for record in standin.received if record.body] == ["#mended"]


def test_a_release_does_not_overrule_shadow_switches_or_the_contract(floor: Floor, now: datetime) -> None:
    floor.ret("1", created_at=now - 3 * DAY)
    floor.ret("2", created_at=now - 3 * DAY, customer_phone=None, customer_email=None)
    floor.run(now - 2 * DAY)
    floor.settings(mode="shadow")
    assert released(floor, action="release", states=["suppressed"], returns=["1", "2"]) == (2, 0)
    assert floor.outcomes(CREATED) == {"1": ("suppressed", "shadow"), "2": ("invalid", "no recipient")}


def test_a_reminder_that_is_released_leaves_only_while_it_is_true(book: Book) -> None:
    true = book.add(EXPIRING, "1", status="held")
    false = book.add(EXPIRING, "2", status="held")
    decide(book, action="send", states=["held"])
    send(book, still_due=still_due_of("1"))
    assert book.event(true)["status"] == "accepted"
    assert (book.event(false)["status"], book.event(false)["reason"]) == ("suppressed", "no longer true")


# ── The switch ──────────────────────────────────────────────────────────────


def throw(book: Book, action: str, run: str) -> None:
    asker = Asker("default", "loop_attentive_stop", run)
    decisions.throw_switch(book.connection, asker, action=action, who=WHO, why="a wrong text")


def test_the_last_word_counts_and_a_repeated_task_says_nothing_new(book: Book) -> None:
    assert decisions.stop_of(book.connection, "default") is None
    throw(book, "stop", "s1")
    stop = decisions.stop_of(book.connection, "default")
    assert stop is not None
    assert str(stop).startswith("stopped by ann on ")
    assert str(stop).endswith(" UTC: a wrong text")
    assert decisions.stop_of(book.connection, "other") is None
    throw(book, "go on", "s2")
    throw(book, "stop", "s1")  # its task is cleared and runs once more
    assert decisions.stop_of(book.connection, "default") is None
    assert [row["action"] for row in book.all("SELECT action FROM audit_decision ORDER BY decided_at")] == [
        "stop",
        "go on",
    ]


def test_who_cannot_look_at_the_switch_any_more_stops_and_says_why(book: Book) -> None:
    lines = 0

    async def line() -> psycopg.AsyncConnection[Any]:
        nonlocal lines
        lines += 1
        if lines > 1:
            raise psycopg.OperationalError("FATAL:  password authentication failed")
        return await db.aconnect(book.conninfo, autocommit=True)

    async def story() -> None:
        stop = asyncio.Event()
        async with switch.watched(line, "default", stop) as seen:
            book.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                     " AND datname = current_database()")  # fmt: skip
            async with asyncio.timeout(10):
                await stop.wait()
            assert seen.stop is None

    with pytest.raises(NeedsMending, match="refused the log-in"):
        asyncio.run(story())


def test_a_running_sender_stops_within_a_second_and_what_is_left_goes_out_once(book: Book) -> None:
    book.add_many(600)
    thrown_at: list[float] = []

    async def watched_delivery(standin: Standin, sending: Sending) -> switch.Switch:
        line = partial(db.aconnect, book.conninfo, autocommit=True)
        stop = asyncio.Event()
        async with sending.transport() as transport, switch.watched(line, "default", stop) as seen:
            await deliver(
                line, book.shop, Batch(), Origin(book.run_key), transport,
                Pace(line, transport.account, "default", 150), still_due=still_due_of(), stop=stop,
                rng=random.Random(1),
            )  # fmt: skip
        return seen

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.append(Fault(delay=0.08))
        delivery = asyncio.create_task(watched_delivery(standin, sending))
        while len(standin.received) < 100:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(throw, book, "stop", "s1")
        thrown_at.append(time.monotonic())
        seen = await delivery
        assert time.monotonic() - thrown_at[0] < 1.0
        assert seen.stop is not None
        arrived, taken = len(standin.received), sum(record.accepted for record in standin.received)
        assert book.states() == {"accepted": taken, "pending": 600 - taken}

        assert (await watched_delivery(standin, sending)).stop is not None
        assert len(standin.received) == arrived

        await asyncio.to_thread(throw, book, "go on", "s2")
        assert (await watched_delivery(standin, sending)).stop is None
        accepted = Counter(record.event_id for record in standin.received if record.accepted)
        assert Counter(accepted.values()) == {1: 600}

    tell(book, story)
    assert KEY not in str(book.all("SELECT * FROM decision"))
