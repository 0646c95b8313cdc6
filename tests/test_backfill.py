"""Backfills by date range: what is foreseen, and that exactly this is sent once somebody has agreed."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, LiteralString, cast

import pytest

from loop_attentive import backfill, db, mirror
from loop_attentive.backfill import Range
from loop_attentive.backfill_operators import range_of
from loop_attentive.decisions import Asker
from loop_attentive.errors import NeedsMending
from loop_attentive.settings import Shop
from loop_attentive.source import Source
from tests.floor import DAY, HOUR, T0, Floor

CREATED, LABEL = "Loop Return Created", "Loop Label Created"
CHANGES = ("Loop Return Status Updated", "Loop Label Updated", "Loop Exchange Out Of Stock")
EXPIRING, EXPIRED = "Loop Return Expiring", "Loop Return Expired"
NOW = T0 + 3 * DAY
EVERYTHING = Range(T0.date(), NOW.date(), CHANGES)
THE_DAY = Range(NOW.date() - DAY, NOW.date())
PHONE, EMAIL = "+14155552671", "jane.roe@example.com"


def asker(run: str = "r1") -> Asker:
    return Asker("default", "loop_attentive_backfill", run)


def source(floor: Floor) -> Source:
    return Source(floor.engine, floor.shop)


def preview(floor: Floor, wanted: Range = THE_DAY, run: str = "r1", at: datetime = NOW) -> str:
    return backfill.preview(floor.conn, source(floor), asker(run), wanted, at=at)


def send(floor: Floor, wanted: Range = THE_DAY, run: str = "r1", at: datetime = NOW) -> dict[str, int]:
    plan_id = backfill.approve(floor.conn, asker(run), wanted, who="ann")
    return backfill.enqueue(floor.conn, source(floor), asker(run), wanted, plan_id, at=at)


def planned(floor: Floor, run: str = "r1") -> list[tuple[str, str]]:
    return floor.conn.execute(
        "SELECT e.event_type, e.key FROM plan_event AS e JOIN plan USING (plan_id) WHERE run_id = %s ORDER BY 1, 2",
        (run,),
    ).fetchall()


def counted(floor: Floor, run: str = "r1") -> dict[tuple[str, str, str, str | None], int]:
    """Events by type, day, verdict and reason, as the audit view tells."""
    rows = floor.conn.execute(
        "SELECT event_type, day::text, verdict, reason, events FROM audit_plan WHERE run_id = %s AND events > 0",
        (run,),
    ).fetchall()
    return {tuple(row[:4]): row[4] for row in rows}


def contents(floor: Floor) -> dict[str, Any]:
    """Every table of the ledger and the mirror but the plans, to compare."""
    tables = floor.conn.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'loop_attentive' AND tablename NOT LIKE 'plan%' ORDER BY 1"
    ).fetchall()
    return {
        table: floor.conn.execute(cast(LiteralString, f"SELECT t::text FROM {table} AS t ORDER BY 1")).fetchall()
        for (table,) in tables
    }


@pytest.fixture
def shop(floors: Callable[..., Floor]) -> Floor:
    """Three days after its first look, without a look since: everything since is new."""
    floor = floors()
    floor.ret("old", created_at=T0 - DAY)
    floor.start()
    return floor


def test_a_preview_tells_what_it_would_send_and_leaves_nothing_but_its_plan(shop: Floor) -> None:
    shop.ret("1", created_at=NOW - HOUR, customer_email=EMAIL, customer_phone=PHONE)
    shop.ret("2", created_at=NOW - 2 * HOUR, customer_email=None, customer_phone=None)
    shop.ret("3", created_at=NOW - DAY - HOUR)
    shop.ret("4", created_at=NOW - 2 * DAY - HOUR)
    shop.label("1", "1Z1", created_at=NOW - HOUR)
    before = contents(shop)
    text = preview(shop)

    assert contents(shop) == before
    assert planned(shop) == [(LABEL, "1|1Z1"), (CREATED, "1")]
    day, yesterday = str(NOW.date()), str(NOW.date() - DAY)
    assert counted(shop) == {
        (CREATED, day, "new", None): 1,
        (CREATED, day, "invalid", "no recipient"): 1,
        (CREATED, yesterday, "late", "too late"): 1,
        (LABEL, day, "new", None): 1,
    }
    assert "**2 events would be sent** for 2026-03-03 to 2026-03-04 (UTC, both included)" in text
    assert f"| {CREATED} | {day} | new |  | 1 |" in text
    assert "phone …71 e-mail j…" in text
    assert PHONE[2:] not in text
    assert "jane" not in text
    assert "speak of the present" in text
    assert "only states that a look of ours saw" in text
    assert "more than 24 hours ago is late" in text


def test_exactly_the_plan_is_sent_and_what_has_changed_since_is_counted(shop: Floor) -> None:
    for n in ("1", "2", "3", "4"):
        shop.ret(n, created_at=NOW - HOUR)
    preview(shop)
    shop.ret("1", is_deleted=True)
    shop.ret("5", created_at=NOW - HOUR)
    shop.run(NOW + timedelta(minutes=1), CREATED)  # finds what is left, and the new one
    shop.ret("6", created_at=NOW - HOUR)
    assert send(shop, at=NOW + timedelta(minutes=20)) == {"found by another run since": 3, "no longer due": 1}
    assert {key for key, (status, _) in shop.outcomes(CREATED).items() if status == "pending"} == {"2", "3", "4", "5"}

    shop.run(NOW + HOUR, CREATED)
    assert shop.outcomes(CREATED)["6"] == ("pending", None), "outside the plan, still due"


def test_a_plan_that_is_asked_about_reads_as_it_was_shown_whatever_came_since(shop: Floor) -> None:
    shop.ret("1", created_at=NOW - HOUR)
    shop.ret("2", created_at=NOW - 30 * HOUR)
    wanted = Range(NOW.date() - 3 * DAY, NOW.date(), [CREATED])
    shown = preview(shop, wanted)
    shop.ret("3", created_at=NOW - HOUR)
    kept = backfill.kept(shop.conn, shop.shop, asker(), wanted)
    assert shown.startswith(f"{kept}\n\n#### Examples")


def test_what_is_approved_goes_out_and_nothing_besides(shop: Floor) -> None:
    shop.ret("1", created_at=NOW - HOUR)
    shop.ret("2", created_at=NOW - HOUR)
    preview(shop)
    shop.ret("3", created_at=NOW - HOUR)
    shop.ret("2", is_deleted=True)
    assert send(shop, at=NOW + timedelta(minutes=20)) == {"to send": 1, "no longer due": 1}
    assert shop.outcomes(CREATED) == {"1": ("pending", None), "old": ("suppressed", "baseline")}

    shop.set_status("accepted", None)
    assert send(shop, at=NOW + HOUR) == {"to send": 1, "no longer due": 1}, "cleared: nothing is made twice"
    assert [(e.return_id, e.status) for e in shop.events() if e.return_id != "old"] == [("1", "accepted")]

    assert "was approved already" in preview(shop, at=NOW + HOUR)
    assert planned(shop) == [(CREATED, "1"), (CREATED, "2")]
    [(who, action, events)] = shop.conn.execute("SELECT decided_by, action, events FROM audit_decision").fetchall()
    assert (who, action, events) == ("ann", "backfill", 2)


@pytest.mark.parametrize("looked_between", [False, True])
def test_changes_that_the_preview_saw_first_are_sent_as_planned(shop: Floor, looked_between: bool) -> None:
    """Their keys hold the time of the look that saw them, and the preview's was rolled back."""
    shop.ret("1", created_at=NOW - 2 * DAY, updated_at=NOW - 2 * DAY)
    shop.label("1", "1Z1", status="new", created_at=NOW - 2 * DAY, updated_at=NOW - 2 * DAY)
    shop.run(NOW - 2 * HOUR, *CHANGES)
    shop.ret("1", state="closed", created_at=NOW - 2 * DAY, updated_at=NOW - HOUR)
    shop.label("1", "1Z1", status="in_transit", created_at=NOW - 2 * DAY, updated_at=NOW - HOUR)
    shop.item("1", "i", out_of_stock=True, updated_at=NOW - HOUR)
    assert "**3 events would be sent**" in preview(shop, EVERYTHING)
    if looked_between:
        shop.run(NOW + timedelta(minutes=1), *CHANGES)
    outcome = "found by another run since" if looked_between else "to send"
    assert send(shop, EVERYTHING, at=NOW + timedelta(minutes=20)) == {outcome: 3}
    assert send(shop, EVERYTHING, at=NOW + timedelta(minutes=30)) == {outcome: 3}, "cleared: nothing is made twice"
    assert sorted(e.event_type for e in shop.events() if e.status == "pending") == sorted(CHANGES)
    decided = "SELECT count(*) FROM decision_event JOIN event USING (event_id)"
    assert shop.conn.execute(decided).fetchall() == [(3,)]


def test_a_plan_by_a_look_that_is_kept_is_of_what_that_saw(shop: Floor) -> None:
    """A preview shares a whole look of the last minutes; what comes to the same state later is another event."""
    wanted = Range(T0.date(), NOW.date(), ["Loop Label Updated"])

    def becomes(status: str, at: datetime) -> None:
        shop.label("1", "1Z1", status=status, created_at=NOW - 2 * DAY, updated_at=at)
        shop.look(at, whole=at == NOW)

    shop.ret("1", created_at=NOW - 2 * DAY, updated_at=NOW - 2 * DAY)
    becomes("new", NOW - 2 * HOUR)
    becomes("in_transit", NOW)
    assert "**1 events would be sent**" in preview(shop, wanted, at=NOW + timedelta(minutes=5))
    [(_, key)] = planned(shop)
    becomes("failure", NOW + HOUR)
    becomes("in_transit", NOW + 2 * HOUR)
    assert send(shop, wanted, at=NOW + 3 * HOUR) == {"to send": 1}
    assert [e.key for e in shop.events() if e.status == "pending"] == [key]


def test_it_goes_on_where_it_was_broken_off(shop: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.ret("1", created_at=NOW - HOUR)
    shop.label("1", "1Z1", created_at=NOW - HOUR)
    preview(shop)
    right = backfill.qualify.qualify

    def dies(conn: Any, its: Shop, event: Any, *args: Any, **options: Any) -> Any:
        if event.name == LABEL:
            raise ConnectionError("the worker is gone")
        return right(conn, its, event, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(backfill.qualify, "qualify", dies)
        with pytest.raises(ConnectionError):
            send(shop)
    assert [e.event_type for e in shop.events() if e.status == "pending"] == [CREATED]
    assert send(shop, at=NOW + HOUR) == {"to send": 2}
    assert {e.event_type for e in shop.events() if e.status == "pending"} == {CREATED, LABEL}


def test_nothing_outside_the_range_is_used_up(shop: Floor) -> None:
    shop.ret("1", created_at=NOW - HOUR)
    shop.ret("2", created_at=NOW - 23 * HOUR)
    today = Range(NOW.date(), NOW.date(), [CREATED])
    preview(shop, today)
    assert planned(shop) == [(CREATED, "1")]
    assert send(shop, today) == {"to send": 1}
    shop.run(NOW + timedelta(minutes=1), CREATED)
    assert shop.outcomes(CREATED)["2"] == ("pending", None)


def test_what_is_too_late_is_recorded_so_that_a_person_can_release_it(shop: Floor) -> None:
    shop.ret("1", created_at=NOW - 50 * HOUR)
    shop.ret("2", created_at=NOW - HOUR)
    wanted = Range(NOW.date() - 3 * DAY, NOW.date(), [CREATED])
    preview(shop, wanted)
    shop.ret("3", created_at=NOW - HOUR / 2)
    assert send(shop, wanted, at=NOW + HOUR) == {"to send": 1}
    of_old = {"old": ("suppressed", "baseline")}
    assert shop.outcomes(CREATED) == {"1": ("expired", "too late"), "2": ("pending", None)} | of_old


def test_what_is_too_late_is_recorded_though_there_is_nothing_to_send(shop: Floor) -> None:
    wanted = Range(NOW.date() - 3 * DAY, NOW.date(), [CREATED])
    preview(shop, wanted)
    assert backfill.record_unsent(shop.conn, source(shop), asker(), wanted, at=NOW) == 0
    shop.ret("1", created_at=NOW - 50 * HOUR)
    preview(shop, wanted)
    assert planned(shop) == []
    assert "1" not in shop.outcomes(CREATED)
    assert backfill.record_unsent(shop.conn, source(shop), asker(), wanted, at=NOW) == 1
    assert shop.outcomes(CREATED)["1"] == ("expired", "too late")


def test_a_plan_says_which_rules_are_off(shop: Floor) -> None:
    wanted = Range(NOW.date(), NOW.date(), ["Loop Refund Transaction"])
    plan = backfill.Plan(NOW)
    told = "Loop Refund Transaction: connector airbyte does not tell transactions."
    assert told in backfill.blind_spots(Shop(name="default", connector="airbyte"), wanted, plan)
    assert told not in backfill.blind_spots(Shop(name="default"), wanted, plan)


def test_what_was_approved_too_late_expires(shop: Floor) -> None:
    shop.ret("1", created_at=NOW - HOUR)
    preview(shop)
    assert send(shop, at=NOW + DAY) == {"expired": 1}


def test_what_the_ledger_holds_is_told_by_what_became_of_it(shop: Floor) -> None:
    states = [
        ("accepted", None), ("held", "more than usual"), ("unknown", None), ("rejected", "400"), ("pending", None),
        ("suppressed", "no longer true"), ("suppressed", "shadow"), ("expired", "too late"),
        ("suppressed", "opted out"),
    ]  # fmt: skip
    for n in range(len(states)):
        shop.ret(str(n), created_at=NOW - HOUR)
    shop.run(NOW, CREATED)
    for n, (status, reason) in enumerate(states):
        shop.conn.execute("UPDATE event SET status = %s, reason = %s WHERE return_id = %s", (status, reason, str(n)))
    text = preview(shop, at=NOW + HOUR)
    assert planned(shop) == []
    told = {(verdict, reason) for _, _, verdict, reason in counted(shop)}
    assert told == {
        ("already sent", None), ("held", "more than usual"), ("in doubt", None), ("rejected", "400"),
        ("being sent", None), ("no longer due", "no longer true"), ("suppressed", "shadow"), ("expired", "too late"),
        ("suppressed", "opted out"),
    }  # fmt: skip
    here, released = text.split("#### Could be released")
    assert "| suppressed | shadow | 1 |" in released
    assert "| expired | too late | 1 |" in released
    assert "opted out" in here
    assert "opted out" not in released
    assert "**0 events would be sent**" in text


def test_days_are_those_of_the_shops_clock(floors: Callable[..., Floor]) -> None:
    floor = floors(time_zone="America/New_York")
    floor.start(T0)
    floor.ret("1", created_at=datetime(2026, 3, 3, 5, 0, tzinfo=UTC))  # midnight there
    floor.ret("2", created_at=datetime(2026, 3, 3, 4, 59, tzinfo=UTC))
    floor.ret("3", created_at=datetime(2026, 3, 4, 5, 0, tzinfo=UTC))
    day = date(2026, 3, 3)
    text = preview(floor, Range(day, day, [CREATED]), at=datetime(2026, 3, 3, 20, tzinfo=UTC))
    assert planned(floor) == [(CREATED, "1")]
    assert "2026-03-03 to 2026-03-03 (America/New_York, both included)" in text


@pytest.mark.parametrize(
    ("zone", "day", "began", "ended"),
    [
        ("America/New_York", date(2026, 3, 8), "2026-03-08T05:00Z", "2026-03-09T04:00Z"),  # 23 hours
        ("America/New_York", date(2026, 11, 1), "2026-11-01T04:00Z", "2026-11-02T05:00Z"),  # 25
        ("Africa/Cairo", date(2026, 4, 24), "2026-04-23T22:00Z", "2026-04-24T21:00Z"),  # its clocks skip midnight
        ("UTC", date(2028, 2, 29), "2028-02-29T00:00Z", "2028-03-01T00:00Z"),
    ],
)
def test_a_day_is_as_long_as_the_shops_clock_makes_it(zone: str, day: date, began: str, ended: str) -> None:
    shop = Shop(name="default", time_zone=zone)
    assert Range(day, day).window(shop) == (datetime.fromisoformat(began), datetime.fromisoformat(ended))


@pytest.mark.parametrize("freshness_hours", [1, 48])
def test_reminders_of_a_stale_source_are_not_judged_and_said_so(
    floors: Callable[..., Floor], freshness_hours: int
) -> None:
    floor = floors(freshness_hours=freshness_hours)
    floor.label("elsewhere", "OTHER", status="new", synced_at=NOW - DAY)
    floor.start()
    floor.ret("1", created_at=NOW - 22 * DAY, labels_enabled=True, synced_at=NOW - DAY)
    text = preview(floor, Range(date(2026, 2, 1), NOW.date(), [EXPIRING, EXPIRED]))
    assert planned(floor) == ([] if freshness_hours == 1 else [(EXPIRING, "1")])
    assert ("put off: returns or labels were last synced" in text) == (freshness_hours == 1)


def test_many_lines_are_cut_and_their_sum_is_told(shop: Floor) -> None:
    for n in range(100):
        shop.ret(f"r{n}", created_at=NOW - n * DAY)
    shop.conn.execute("UPDATE shop SET enabled_at = %s", (NOW - 200 * DAY,))
    shop.settings(enabled_at=NOW - 200 * DAY)
    text = preview(shop, Range(NOW.date() - 110 * DAY, NOW.date(), [CREATED]))
    lines = [line for line in text.splitlines() if line.startswith(f"| {CREATED} | 20")]
    assert len(lines) <= backfill.MOST_LINES + 1
    assert "more lines: see audit_plan" in text


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ((date(2026, 3, 2), date(2026, 3, 1)), "ends before it begins"),
        ((date(2027, 3, 2), date(2027, 3, 2)), "is yet to come"),
        ((date(2026, 3, 1), date(2026, 3, 2), ["Loop"]), "no events Loop"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(shop: Floor, wanted: tuple[Any, ...], told: str) -> None:
    with pytest.raises(NeedsMending, match=told):
        preview(shop, Range(*wanted))


@pytest.mark.parametrize(("first", "last"), [("0001-01-01", "2026-03-01"), ("2026-03-01", "9999-12-31")])
def test_a_day_at_the_end_of_calendars_is_refused_in_one_line(first: str, last: str) -> None:
    with pytest.raises(NeedsMending, match="where calendars end"):
        range_of({"params": {"from": first, "to": last, "events": None}})


def test_a_plan_that_dies_half_way_leaves_nothing(shop: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.ret("1", created_at=NOW - HOUR)
    before = contents(shop)
    copy = db.copy

    def dies(cur: Any, table: str, *rest: Any) -> None:
        if table == "plan_event":  # when the plan and its counts are there
            raise ConnectionError
        copy(cur, table, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(db, "copy", dies)
        with pytest.raises(ConnectionError):
            preview(shop)
    assert contents(shop) == before
    assert planned(shop) == []


def test_more_than_usual_and_more_than_a_persons_share_is_sent_when_it_was_approved(shop: Floor) -> None:
    shop.settings(max_per_person_per_day=6)
    shop.conn.execute(
        "INSERT INTO loop.returns (return_id, state, customer_email, created_at) SELECT (1000 + n)::text, 'open', "
        "'one@example.com', %s FROM generate_series(1, 600) AS n",
        (NOW - HOUR,),
    )
    assert "**600 events would be sent**" in preview(shop)
    assert send(shop) == {"to send": 600}


def test_a_preview_shares_a_whole_look_of_the_last_minutes(shop: Floor) -> None:
    shop.ret("1", created_at=NOW - HOUR)
    mirror.look(shop.conn, source(shop), whole=True, at=NOW - timedelta(minutes=1))
    shop.ret("2", created_at=NOW - HOUR)
    preview(shop)
    assert planned(shop) == [(CREATED, "1")]
