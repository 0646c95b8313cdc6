"""How much may leave unseen: of an event type in a run, and to a person in a day."""

import threading
from datetime import datetime, timedelta
from typing import Any

import pytest

from loop_attentive import db, decisions, guard, mirror, qualify, runs
from loop_attentive.catalogue import BY_NAME, CATALOGUE
from tests.floor import DAY, HOUR, T0, Floor

CREATED, UPDATED, EXPIRING = "Loop Return Created", "Loop Return Status Updated", "Loop Return Expiring"
LABEL, REFUND = "Loop Label Created", "Loop Refund Transaction"
FLOOD = ("held", "more than usual")
CROWD = ("held", "more than max_per_person_per_day")
NOW = T0 + 40 * DAY
TICK = timedelta(seconds=1)


def returns(floor: Floor, first: int, count: int, **row: Any) -> None:
    """Many returns, each of another customer."""
    row = {"state": "open", "labels_enabled": True} | row
    names = ", ".join(row)
    floor.conn.execute(
        f"INSERT INTO loop.returns (return_id, customer_email, {names}) SELECT n::text, 'c' || n || '@example.com', "
        f"{', '.join(f'%({name})s' for name in row)} FROM generate_series(%(first)s::int, %(last)s) AS n",
        row | {"first": first, "last": first + count - 1},
    )


def history(floor: Floor, at: datetime, count: int, event_type: str = CREATED, **columns: Any) -> None:
    """Events of an earlier run that happened at one moment; unless told otherwise, Attentive accepted them."""
    values: dict[str, Any] = {"status": "accepted", "detected_at": at, "own_time": True, "reason": None} | columns
    look = mirror.Look(values["detected_at"], 0, 0)
    run = runs.start(floor.conn, dag_id="tests", run_id=f"history {at} {columns}", shop="default", look=look)
    names = ", ".join(values)
    floor.conn.execute(
        "INSERT INTO event (event_id, shop, event_type, key, return_id, occurred_at, fact_at, order_at, order_no, "
        f"run_key, {names}) SELECT gen_random_uuid(), 'default', %(event_type)s, gen_random_uuid(), n::text, %(at)s, "
        f"%(at)s, %(at)s, 0, %(run_key)s, {', '.join(f'%({name})s' for name in values)} "
        "FROM generate_series(1, %(count)s::int) AS n",
        values | {"event_type": event_type, "at": at, "run_key": run.run_key, "count": count},
    )


def largest(floor: Floor, event_type: str = CREATED) -> int:
    with floor.conn.cursor() as cur:
        return guard.largest(cur, floor.shop, BY_NAME[event_type], guard.NO_RUN, NOW)


def states(floor: Floor, event_type: str | None = None) -> dict[tuple[str, str | None], int]:
    rows = floor.conn.execute(
        "SELECT status, reason, count(*) FROM event WHERE event_type = coalesce(%s, event_type) GROUP BY 1, 2",
        (event_type,),
    )
    return {(status, reason): count for status, reason, count in rows}


def test_what_is_held_is_leased_to_nobody(floor: Floor) -> None:
    """A sender of another DAG has it in hand: whoever answers the question must not find it in a sender's hands."""
    floor.start()
    floor.settings(max_events_per_run=None, max_per_person_per_day=1)
    floor.ret("1", created_at=T0 + HOUR / 2)
    floor.label("1", created_at=T0 + HOUR)
    look = floor.look(T0 + HOUR)
    run = runs.start(floor.conn, dag_id="tests", run_id="run", shop="default", look=look)
    qualify.qualify(floor.conn, floor.shop, BY_NAME[LABEL], run, now=look.as_of)
    floor.conn.execute("UPDATE event SET lease = gen_random_uuid(), lease_until = now() + interval '1 minute'")
    qualify.qualify(floor.conn, floor.shop, BY_NAME[CREATED], run, now=look.as_of)
    assert states(floor) == {("pending", None): 1, CROWD: 1}
    assert floor.one("SELECT count(*) FROM event WHERE status = 'held' AND lease IS NOT NULL") == (0,)


# ── The bound of a type ─────────────────────────────────────────────────────


@pytest.mark.parametrize(("count", "state"), [(500, ("pending", None)), (501, FLOOD)])
def test_a_shop_without_a_history_may_send_500_of_a_type(floor: Floor, count: int, state: tuple[str, str]) -> None:
    floor.start()
    returns(floor, 1, count, created_at=T0 + HOUR)
    result = floor.qualify(floor.look(T0 + 2 * HOUR), CREATED)[CREATED]
    assert result.states == {state[0]: count}
    assert states(floor) == {state: count}


@pytest.mark.parametrize(("count", "state"), [(600, ("pending", None)), (601, FLOOD)])
def test_a_busier_one_ten_times_its_largest_hour(floor: Floor, count: int, state: tuple[str, str | None]) -> None:
    floor.start()
    history(floor, NOW - 3 * DAY, 60)
    returns(floor, 1, count, created_at=NOW - HOUR)
    floor.run(NOW, CREATED)
    assert states(floor) == {("accepted", None): 60, state: count}


def test_what_counts_as_usual(floor: Floor) -> None:
    floor.start()
    hour = (NOW - 2 * DAY).replace(minute=0)
    history(floor, hour, 10)
    history(floor, hour + HOUR - timedelta(seconds=1), 1)
    history(floor, hour + HOUR, 5)
    assert largest(floor) == 11
    history(floor, hour, 2, status="suppressed", reason="baseline", detected_at=NOW)
    assert largest(floor) == 13, "a baseline knows the shop from its first day"
    history(floor, hour, 100, status="suppressed", reason="baseline", own_time=False)
    history(floor, hour, 100, status="suppressed", reason="shadow")
    for status in ("held", "pending", "expired", "invalid", "rejected", "unknown"):
        history(floor, hour, 100, status=status)
    history(floor, hour, 100, UPDATED)
    assert largest(floor) == 13
    history(floor, NOW - 28 * DAY - TICK, 100)
    history(floor, NOW + TICK, 100)
    assert largest(floor) == 13
    assert largest(floor, UPDATED) == 100


@pytest.mark.parametrize(("zone", "most"), [("UTC", 7), ("America/New_York", 12)])
def test_a_daily_type_is_measured_by_the_day_of_its_shop(floor: Floor, zone: str, most: int) -> None:
    floor.start()
    floor.settings(time_zone=zone)
    midnight = (NOW - 2 * DAY).replace(hour=0)
    history(floor, midnight - HOUR, 5, EXPIRING)
    history(floor, midnight + HOUR, 7, EXPIRING)
    assert largest(floor, EXPIRING) == most


def test_a_setting_replaces_the_bound(floor: Floor) -> None:
    floor.start()
    floor.settings(max_events_per_run=700)
    returns(floor, 1, 700, created_at=T0 + HOUR)
    floor.run(T0 + 2 * HOUR, CREATED)
    assert states(floor) == {("pending", None): 700}


def test_a_run_that_is_cleared_answers_for_what_it_found_before(floor: Floor) -> None:
    floor.start()
    run = None
    for hours, first in ((2, 1), (3, 301)):
        returns(floor, first, 300, created_at=T0 + HOUR)
        look = floor.look(T0 + hours * HOUR)
        run = runs.start(floor.conn, dag_id="tests", run_id="one", shop="default", look=look)
        qualify.qualify(floor.conn, floor.shop, BY_NAME[CREATED], run, now=look.as_of)
    assert states(floor) == {FLOOD: 600}
    decide(floor)
    returns(floor, 601, 1, created_at=T0 + HOUR)
    look = floor.look(T0 + 4 * HOUR)
    run = runs.start(floor.conn, dag_id="tests", run_id="one", shop="default", look=look)
    qualify.qualify(floor.conn, floor.shop, BY_NAME[CREATED], run, now=look.as_of)
    assert states(floor) == {("pending", None): 601}, "what a person has released is not held again"


def decide(floor: Floor) -> None:
    """A person releases all that is held."""
    decision = decisions.record(floor.conn, shop="default", action="send", who="ann", why="a sale")
    floor.conn.execute(
        "INSERT INTO decision_event (decision_id, event_id, status_before) "
        "SELECT %s, event_id, status FROM event WHERE status = 'held'",
        (decision,),
    )
    floor.conn.execute("UPDATE event SET status = 'pending', reason = NULL WHERE status = 'held'")


def test_the_runs_of_a_backfill_count_together(floor: Floor) -> None:
    floor.start()
    for hour in range(4):
        returns(floor, 1 + 200 * hour, 200, created_at=T0 + hour * HOUR + HOUR / 2)
    look = floor.look(T0 + 5 * HOUR, whole=True)
    for hour in range(4):
        floor.qualify(look, CREATED, window=(T0 + hour * HOUR, T0 + (hour + 1) * HOUR))
        floor.set_status("accepted", None)
    assert states(floor) == {("accepted", None): 400, FLOOD: 400}


def test_a_backfills_run_that_is_judged_a_day_after_its_look_is_guarded(floor: Floor) -> None:
    """Reminders are never too late, so nothing else would stop them."""
    floor.settings(max_events_per_run=0)
    floor.label("elsewhere", "OTHER", status="new")
    floor.start()
    floor.ret("1", created_at=T0 - 20 * DAY, labels_enabled=True)
    look = floor.look(T0 + 2 * DAY, whole=True)
    window = (T0, T0 + 2 * DAY)
    floor.qualify(look, "Loop Return Expiring", window=window, now=look.as_of + 30 * HOUR)
    assert [status for status, _ in states(floor)] == ["held"]


def test_what_a_run_found_before_a_backfill_took_it_over_does_not_count(floor: Floor) -> None:
    floor.start()
    for first, count, at, window in (
        (1, 450, T0 + HOUR, None),
        (1001, 100, T0 + 30 * HOUR, (T0, T0 + DAY)),
    ):
        returns(floor, first, count, created_at=at - 10 * HOUR if window else at - HOUR / 2)
        look = floor.look(at, whole=window is not None)
        run = runs.start(floor.conn, dag_id="tests", run_id="one", shop="default", look=look, window=window)
        qualify.qualify(floor.conn, floor.shop, BY_NAME[CREATED], run, now=look.as_of)
        if window is None:
            floor.set_status("accepted", None)
    assert states(floor) == {("accepted", None): 450, ("pending", None): 100}


def test_what_is_released_together_is_guarded_as_well(floor: Floor) -> None:
    floor.start()
    floor.settings(mode="shadow")
    returns(floor, 1, 501, created_at=T0 + HOUR)
    floor.run(T0 + 2 * HOUR, CREATED)
    floor.settings(enabled_at=T0.isoformat())
    assert floor.judge_again(T0 + 3 * HOUR) == 0
    assert states(floor) == {FLOOD: 501}


def test_a_long_history_is_looked_at_by_its_last_runs_only(floor: Floor) -> None:
    history(floor, NOW - 60 * DAY, 30_000, detected_at=NOW - 60 * DAY)
    history(floor, NOW - DAY, 300)
    floor.conn.execute("ANALYZE event, run")
    reads = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'event'"
    with floor.conn.transaction():
        (before,) = floor.one(reads)
        assert largest(floor) == 300
        (after,) = floor.one(reads)
    assert after - before < 1_000


# ── The cap of a person ─────────────────────────────────────────────────────


@pytest.fixture
def capped(floor: Floor) -> Floor:
    """A shop past its baseline, at most three events a person and day."""
    floor.start()
    floor.settings(max_per_person_per_day=3)
    return floor


def test_the_latest_of_a_person_are_held(capped: Floor) -> None:
    for number in (4, 2, 5, 1, 3):
        capped.ret(str(number), created_at=T0 + number * HOUR / 6)
    capped.ret("6", created_at=T0 + HOUR, customer_phone="+14155550132")
    result = capped.qualify(capped.look(T0 + 2 * HOUR), CREATED)[CREATED]
    assert result.states == {"pending": 4, "held": 2}
    # of Created, each is the first of its return: the id decides, which is as good as any
    assert sorted(capped.outcomes().values(), key=str) == [CROWD] * 2 + [("pending", None)] * 4
    assert capped.outcomes()["6"] == ("pending", None)


def test_the_latest_in_order_whatever_rule_is_judged_first_and_created_never_before_them(capped: Floor) -> None:
    capped.ret(created_at=T0 + HOUR)
    for number in range(4):
        capped.label("1", f"1Z{number}", status="new", created_at=T0 + HOUR + number * TICK)
    look = capped.look(T0 + 2 * HOUR)
    run = runs.start(capped.conn, dag_id="tests", run_id="one", shop="default", look=look)
    for name in (LABEL, CREATED):
        qualify.qualify(capped.conn, capped.shop, BY_NAME[name], run, now=look.as_of)
    kept = {event.key: event.status for event in capped.events()}
    assert kept == {"1": "pending", "1|1Z0": "pending", "1|1Z1": "pending", "1|1Z2": "held", "1|1Z3": "held"}


@pytest.mark.parametrize(
    ("status", "reason", "counts"),
    [
        ("accepted", None, True),
        ("unknown", None, True),
        ("sending", None, True),
        ("pending", None, True),
        ("held", "more than usual", False),
        ("suppressed", "discarded", False),
        ("rejected", None, False),
        ("expired", "too late", False),
    ],
)
def test_what_counts_for_a_person(capped: Floor, status: str, reason: str | None, counts: bool) -> None:
    for number in range(3):
        capped.ret(str(number), created_at=T0 + HOUR)
    capped.run(T0 + 2 * HOUR, CREATED)
    capped.set_status(status, reason)
    capped.ret("9", created_at=T0 + 3 * HOUR)
    capped.run(T0 + 4 * HOUR, CREATED)
    assert capped.outcomes()["9"] == (CROWD if counts else ("pending", None))


def test_a_day_later_it_is_another_day(capped: Floor) -> None:
    for number in range(3):
        capped.ret(str(number), created_at=T0 + HOUR)
    capped.run(T0 + 2 * HOUR, CREATED)
    for return_id, later, state in (("4", DAY - TICK, CROWD), ("5", DAY, ("pending", None))):
        capped.ret(return_id, created_at=T0 + HOUR + later)
        capped.run(T0 + 2 * HOUR + later, CREATED)
        assert capped.outcomes()[return_id] == state


def test_who_shares_a_phone_or_an_address_is_one_person(capped: Floor) -> None:
    contacts = [("+14155552671", None), ("+14155552671", "A@example.com"), ("+14155552671", "b@example.com")]
    contacts += [("+14155550132", "a@example.com"), ("+14155550132", "a@example.com")]
    for number, (phone, email) in enumerate(contacts):
        capped.ret(str(number), created_at=T0 + HOUR, customer_phone=phone, customer_email=email)
    capped.run(T0 + 2 * HOUR, CREATED)
    assert CROWD not in capped.outcomes().values(), "three by the one phone, three by the one address"
    capped.ret("5", created_at=T0 + HOUR, customer_phone="+14155550132", customer_email=None)
    capped.ret("6", created_at=T0 + HOUR, customer_phone="+14155550132", customer_email=None)
    capped.run(T0 + 3 * HOUR, CREATED)
    assert [capped.outcomes()[number] for number in "56"].count(CROWD) == 1
    capped.ret("7", created_at=T0 + HOUR, customer_phone=None, customer_email="a@EXAMPLE.com")
    capped.run(T0 + 4 * HOUR, CREATED)
    assert capped.outcomes()["7"] == CROWD


def test_money_counts_and_is_held_like_the_rest(capped: Floor) -> None:
    capped.ret(created_at=T0 + HOUR)
    for number in range(4):
        capped.transaction(f"t{number}", kind="refund", gateway="stripe", status="succeeded",
                           created_at=T0 + HOUR + number * TICK)  # fmt: skip
    capped.run(T0 + 2 * HOUR)
    assert states(capped, REFUND) == {("pending", None): 2, CROWD: 2}
    assert states(capped, CREATED) == {("pending", None): 1}


def test_what_a_person_has_released_counts_and_is_not_held_again(capped: Floor) -> None:
    for number in range(5):
        capped.ret(str(number), created_at=T0 + HOUR)
    look = capped.look(T0 + 2 * HOUR)
    run = runs.start(capped.conn, dag_id="tests", run_id="one", shop="default", look=look)
    qualify.qualify(capped.conn, capped.shop, BY_NAME[CREATED], run, now=look.as_of)
    decide(capped)
    capped.label("0", status="new", created_at=T0 + HOUR)
    run = runs.start(
        capped.conn, dag_id="tests", run_id="one", shop="default", look=(look := capped.look(T0 + 3 * HOUR))
    )
    for event in CATALOGUE[:3]:
        qualify.qualify(capped.conn, capped.shop, event, run, now=look.as_of)
    assert states(capped) == {("pending", None): 5, CROWD: 1}


def test_an_older_reminder_that_comes_back_to_life_counts_as_of_now(capped: Floor) -> None:
    """Released are events of earlier days too: they are no other day's."""
    capped.settings(mode="shadow", max_per_person_per_day=3)
    capped.label("elsewhere", "OTHER", status="new")
    for number in range(5):
        capped.ret(str(number), created_at=T0 - 20 * DAY + HOUR, labels_enabled=True)
    capped.run(T0 + 2 * DAY, EXPIRING)
    capped.settings(enabled_at=T0.isoformat(), max_per_person_per_day=3)
    assert capped.judge_again(T0 + 5 * DAY) == 3
    assert states(capped, EXPIRING) == {("pending", None): 3, CROWD: 2}


def test_rules_that_are_judged_at_once_let_no_more_through_together(
    capped: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        capped.ret(str(number), created_at=T0 + HOUR)
        capped.label(str(number), f"1Z{number}", status="new", created_at=T0 + HOUR)
        capped.transaction(f"t{number}", str(number), kind="refund", gateway="stripe", status="succeeded",
                           created_at=T0 + HOUR)  # fmt: skip
    look = capped.look(T0 + 2 * HOUR)
    all_have_stored, hold_new = threading.Barrier(3), guard.hold_new

    def together(*arguments: Any) -> int:
        all_have_stored.wait(30)
        return hold_new(*arguments)

    def judge(name: str) -> None:
        with db.connect(capped.conninfo, autocommit=True) as conn:
            run = runs.start(conn, dag_id="tests", run_id=name, shop="default", look=look)
            qualify.qualify(conn, capped.shop, BY_NAME[name], run, now=look.as_of)

    monkeypatch.setattr(guard, "hold_new", together)
    threads = [threading.Thread(target=judge, args=(name,)) for name in (CREATED, LABEL, REFUND)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert states(capped) == {("pending", None): 3, CROWD: 6}


def test_many_customers_are_no_crowd(capped: Floor) -> None:
    returns(capped, 1, 450, created_at=T0 + HOUR)
    capped.run(T0 + 2 * HOUR, CREATED)
    assert states(capped) == {("pending", None): 450}
