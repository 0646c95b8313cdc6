"""What is older than the shop's retention goes, in small steps; counts stay, and nothing is made again."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from loop_attentive import retention
from loop_attentive.retention import Purged
from tests.floor import DAY, HOUR, T0, Floor

CREATED = "Loop Return Created"
LATER = T0 + 500 * DAY


@pytest.fixture
def floor(floors: Callable[..., Floor]) -> Floor:
    floor = floors()
    floor.start()
    return floor


def returns(floor: Floor, first: int, count: int, at: datetime, *, own_time: bool = True) -> None:
    floor.conn.execute(
        "INSERT INTO loop.returns (return_id, state, customer_email, created_at, updated_at) "
        "SELECT (%s::int + n)::text, 'open', 'c' || n || '@example.com', %s, %s FROM generate_series(0, %s::int - 1) n",
        (first, at if own_time else None, at, count),
    )


def sent(floor: Floor, first: int, count: int, at: datetime, **options: Any) -> None:
    """Events of a run, accepted at the third request."""
    returns(floor, first, count, at, **options)
    floor.run(at + HOUR, CREATED)
    floor.conn.execute("UPDATE event SET sent_at = %s WHERE status = 'pending'", (at + HOUR,))
    for outcome in ("throttled", "throttled", "accepted"):
        floor.conn.execute(
            "INSERT INTO attempt "
            "(event_id, attempt, run_key, task_id, map_index, try_number, occurred_at, started_at, outcome) "
            "SELECT event_id, attempts + 1, run_key, 'send', 0, 1, sent_at, sent_at, %s "
            "FROM event WHERE status = 'pending'",
            (outcome,),
        )
        floor.conn.execute("UPDATE event SET attempts = attempts + 1 WHERE status = 'pending'")
    floor.set_status("accepted", None)


def purge(floor: Floor, now: datetime = LATER, **options: Any) -> Purged:
    return retention.purge(floor.conn, floor.shop, now=now, sleep=lambda _: None, **options)


def count(floor: Floor, table: str) -> int:
    return int(floor.one(f"SELECT count(*) FROM {table}")[0])


def test_old_events_go_with_their_attempts_and_their_counts_stay(floor: Floor) -> None:
    sent(floor, 1, 3, T0 + DAY)
    sent(floor, 100, 2, LATER - DAY)
    assert purge(floor) == Purged(3, 9, is_all=True)
    assert {event.return_id for event in floor.events()} == {"100", "101"}
    assert count(floor, "attempt") == 6
    rows = floor.conn.execute("SELECT event_type, status, month::text, events, attempts FROM audit_purged").fetchall()
    assert rows == [(CREATED, "accepted", "2026-03-01", 3, 9)]
    assert floor.one("SELECT count(*) FROM run WHERE as_of < %s", (LATER - 100 * DAY,)) == (0,)
    assert purge(floor) == Purged(0, 0, is_all=True)


@pytest.mark.parametrize("own_time", [True, False])
def test_what_is_gone_is_never_made_to_be_sent_again(floor: Floor, own_time: bool) -> None:
    sent(floor, 1, 1, T0 + DAY, own_time=own_time)
    purge(floor)
    assert floor.events() == []
    floor.look(LATER - DAY)  # by now it has left the mirror too
    floor.ret("1", updated_at=LATER)
    floor.run(LATER)
    assert [event for event in floor.events() if event.status == "pending"] == []
    assert count(floor, "purged_key") == (0 if own_time else 1)


@pytest.mark.parametrize("created_at", [T0 + DAY, None])
def test_a_label_that_got_its_number_with_a_touch_is_not_made_again_by_another(
    floor: Floor, created_at: datetime | None
) -> None:
    label_created = "Loop Label Created"
    floor.ret("1", created_at=created_at, updated_at=T0 + DAY)
    floor.label("1", None, status="pending", updated_at=T0 + DAY)
    floor.run(T0 + DAY + HOUR)
    floor.renumber_label("1", number="1Z1", status="new", updated_at=T0 + 2 * DAY)
    assert [event.status for event in floor.run(T0 + 2 * DAY + HOUR, label_created)] == ["pending"]
    floor.set_status("accepted", None)
    purge(floor)
    floor.look(LATER - DAY)  # by now it has left the mirror too
    floor.ret("1", updated_at=LATER)
    floor.label("1", "1Z1", updated_at=LATER)
    assert floor.run(LATER, label_created) == []


def test_a_reminder_is_not_sent_again_after_it_was_purged(floors: Callable[..., Floor]) -> None:
    """It is never late, so its key has to be known."""
    expired = "Loop Return Expired"
    floor = floors(mirror_days=32, retention_days=63)
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    floor.ret("1", created_at=T0, labels_enabled=True)
    assert [event.status for event in floor.run(T0 + 29 * DAY, expired)] == ["pending"]
    floor.set_status("accepted", None)
    for day in (40, 60, 80):  # kept in the mirror
        floor.ret("1", updated_at=T0 + day * DAY)
        floor.look(T0 + day * DAY)
    assert purge(floor, T0 + 95 * DAY).events == 1
    floor.ret("1", state="expired", updated_at=T0 + 96 * DAY)
    assert floor.run(T0 + 97 * DAY, expired) == []


def test_what_happened_lately_to_an_old_event_keeps_it(floor: Floor) -> None:
    returns(floor, 1, 4, T0 + DAY)
    floor.run(T0 + 2 * DAY, CREATED)
    recent = LATER - DAY
    floor.conn.execute("UPDATE event SET status = 'sending', lease_until = %s WHERE return_id = '1'", (recent,))
    floor.conn.execute("UPDATE event SET status = 'accepted', sent_at = %s WHERE return_id = '2'", (recent,))
    floor.conn.execute("UPDATE event SET released_at = %s WHERE return_id = '3'", (recent,))
    assert purge(floor).events == 1
    assert {event.return_id for event in floor.events()} == {"1", "2", "3"}


def test_another_shops_events_stay(floor: Floor) -> None:
    sent(floor, 1, 2, T0 + DAY)
    floor.conn.execute("UPDATE run SET shop = 'other'; UPDATE event SET shop = 'other'")
    assert purge(floor).events == 0
    assert count(floor, "event") == 2


def test_who_has_an_event_in_hand_is_not_waited_for(floor: Floor) -> None:
    sent(floor, 1, 3, T0 + DAY)
    with psycopg.connect(floor.conninfo) as other:
        other.execute("SELECT FROM loop_attentive.event WHERE return_id = '2' FOR UPDATE")
        assert purge(floor).events == 2
    assert purge(floor).events == 1


def test_steps_are_small_and_what_is_done_stays_done(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    sent(floor, 1, 5, T0 + DAY)
    rests: list[float] = []

    def dies_at_the_second(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 2:
            raise ConnectionError("the worker is gone")

    with pytest.raises(ConnectionError):
        retention.purge(floor.conn, floor.shop, now=LATER, sleep=dies_at_the_second)
    assert count(floor, "event") == 1
    assert floor.one("SELECT sum(events)::int FROM audit_purged") == (4,)
    assert purge(floor) == Purged(1, 3, is_all=True)
    assert floor.one("SELECT sum(events)::int, sum(attempts)::int FROM audit_purged") == (5, 15)


def test_it_ends_when_its_time_is_up(floor: Floor) -> None:
    sent(floor, 1, 5, T0 + DAY)
    assert purge(floor, longest=timedelta(0)) == Purged(0, 0, is_all=False)
    assert count(floor, "event") == 5


def test_two_purges_of_a_shop_do_not_run_side_by_side(floor: Floor) -> None:
    sent(floor, 1, 1, T0 + DAY)
    with psycopg.connect(floor.conninfo, autocommit=True) as other:
        other.execute("SET search_path = loop_attentive")
        other.execute("SELECT pg_advisory_lock(hashtextextended('loop_attentive purge of default', 0))")
        assert purge(floor) == Purged(0, 0, is_all=False)
        other.execute("SELECT pg_advisory_unlock_all()")  # a server ends a session some time after its client has
    assert purge(floor).events == 1


def test_what_a_run_says_of_itself_still_adds_up(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of its events were released lately, and stay."""
    sent(floor, 1, 5, T0 + DAY)
    floor.conn.execute("UPDATE event SET released_at = %s WHERE return_id IN ('1', '2')", (LATER - DAY,))
    assert purge(floor).events == 3
    [(yielded, known, created)] = floor.conn.execute("SELECT yielded, known, created FROM run_rule WHERE yielded > 0")
    assert (yielded, known, created) == (2, 0, 2)


def test_old_decisions_and_plans_go_but_the_word_on_the_switch_stays(floor: Floor) -> None:
    sent(floor, 1, 1, T0 + DAY)
    floor.conn.execute(
        "INSERT INTO decision (shop, action, decided_at, decided_by, why) "
        "SELECT 'default', action, %s, 'ann', 'why' FROM unnest(ARRAY['go on', 'stop', 'discard']) AS action",
        (T0,),
    )
    floor.conn.execute(
        "INSERT INTO decision_event (decision_id, event_id, status_before) "  # planned, and due no more
        "SELECT decision_id, gen_random_uuid(), 'planned' FROM decision WHERE action = 'discard'; "
        "INSERT INTO proposed SELECT 'default', 'd', 'r', event_id, status FROM event; "
        "INSERT INTO plan (shop, dag_id, run_id, made_at, as_of, first_day, last_day, event_types) "
        "VALUES ('default', 'd', 'r', '2026-03-01', '2026-03-01', '2026-03-01', '2026-03-01', '{}')"
    )
    purge(floor)
    assert floor.conn.execute("SELECT action FROM decision").fetchall() == [("stop",)]
    assert (count(floor, "proposed"), count(floor, "plan")) == (0, 0)
