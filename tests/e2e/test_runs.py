"""Every kind of run: by schedule, by button, by `dags test`, as a backfill, at once, and again."""

from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from loop_attentive.catalogue import CATALOGUE
from loop_attentive.operators import EVENTS_PER_BATCH
from sandbox.attentive import Fault
from sandbox.loop import running_loop
from sandbox.processes import wait_until
from sandbox.warehouse import World, fill
from tests.e2e.house import (
    DAY,
    EMAIL,
    HOUR,
    KEY,
    LOOP_KEY,
    NAME,
    PHONE,
    PHONE_DIGITS,
    STATUS_PAGE,
    House,
    Merchant,
    Run,
    set_connection,
)
from tests.e2e.story import story
from tests.webhook import Receiver


class Life:
    """A merchant whose warehouse goes on living, and who knows what is due."""

    def __init__(self, merchant: Merchant) -> None:
        fill(merchant.warehouse, returns=300, now=datetime.now(UTC), seed=2)
        self.merchant = merchant
        self.world = World(merchant.warehouse, seed=2)
        self._seen: set[datetime] = set()

    def goes_on(self) -> None:
        self.world.step(self.merchant.warehouse, datetime.now(UTC))

    def was_looked_at(self) -> None:
        """Tells the world of the looks since."""
        daily = set(self.merchant.looks(self.merchant.daily).values())
        for as_of in sorted(daily | set(self.merchant.looks(self.merchant.hourly).values())):
            if as_of not in self._seen:
                self._seen.add(as_of)
                self.world.looked(as_of, daily=as_of in daily)


@story
def test_preflight_tells_what_a_run_would_meet_and_keeps_nothing(house: House) -> None:
    merchant = house.merchants["checked"]
    merchant.put_returns(3, DAY)
    merchant.succeeds(merchant.trigger("loop_attentive_check__checked"))
    log = "".join(path.read_text() for path in house.log_files() if "loop_attentive_check__checked" in str(path))
    assert "Events of the last 7 days" in log
    assert "connector canonical" in log
    assert merchant.statuses() == Counter()
    assert merchant.rows("SELECT as_of FROM look WHERE shop = %s") == []


@story
def test_each_kind_of_run_sends_what_is_due_exactly_once(house: House) -> None:
    merchant = house.merchants["default"]
    life = Life(merchant)
    merchant.succeeds(merchant.scheduled(merchant.hourly))
    assert not merchant.attentive.received, "the first look is the baseline"
    life.was_looked_at()

    life.goes_on()
    by_button = merchant.trigger(merchant.hourly)
    assert by_button["logical_date"] is by_button["data_interval_start"] is None
    merchant.succeeds(by_button)
    life.was_looked_at()
    house.dags_test(merchant.daily)
    life.was_looked_at()

    life.goes_on()
    at_the_same_time = [merchant.trigger(merchant.hourly), merchant.scheduled(merchant.daily)]
    merchant.succeeds(*at_the_same_time)
    life.was_looked_at()

    life.goes_on()
    house.dags_test(merchant.hourly)
    life.was_looked_at()

    verdict = life.world.verdict(record.body or {} for record in merchant.attentive.received if record.accepted)
    assert verdict.is_good, str(verdict)
    assert verdict.due > 50
    merchant.each_exactly_once()
    merchant.adds_up()


@story
def test_backfills_beside_usual_runs_lose_nothing_and_send_nothing_twice(house: House) -> None:
    merchant = house.merchants["late"]
    # A warehouse whose tables have no row: quiet runs, which send nothing and succeed.
    quiet = [merchant.scheduled(merchant.hourly), merchant.scheduled(merchant.daily)]
    merchant.succeeds(*quiet)
    assert [merchant.task(run, "send")["state"] for run in quiet] == ["skipped", "skipped"]
    assert merchant.task(quiet[1], "purge")["state"] == "success", "what is too old goes on quiet days too"
    marks = merchant.marks()
    # Without labels no reminder is judged.
    assert {name for name, mark in marks.items() if mark} == {event.name for event in CATALOGUE if not event.reminder}
    assert len(marks) == len(CATALOGUE)

    merchant.put_delivered_label()
    [last_week] = merchant.put_returns(1, 24.5 * DAY)
    merchant.put_returns(1, 21 * DAY + HOUR)  # reminded today
    [new] = merchant.put_returns(1, HOUR)
    merchant.put_returns(1, 30 * HOUR)  # created too long ago
    merchant.put(
        "transactions", transaction_id="ch_1", return_id=new, kind="payment", gateway="stripe", status="succeeded",
        amount="1.00", currency="USD", created_at=datetime.now(UTC) - HOUR,
    )  # fmt: skip

    # Last week, while a reminder is due today: only last week's is sent, by one look for all days.
    now = datetime.now(UTC)
    days = house.backfilled(merchant.daily, now - 5 * DAY, now - 2 * DAY)
    assert len(days) >= 3
    assert {run["run_type"] for run in days} == {"backfill"}
    merchant.succeeds(*days)
    [look] = merchant.whole_looks()
    as_of = merchant.looks(merchant.daily)
    assert {as_of[run["dag_run_id"]] for run in days} == {look}
    assert merchant.outcomes() == {("Return Expiring", "accepted", None): 1}
    assert [r.body["properties"]["returnId"] for r in merchant.attentive.received if r.body] == [int(last_week)]
    assert merchant.marks() == marks

    # Two usual runs and a backfill of the last hours, all at once.
    usual = [merchant.trigger(merchant.hourly), merchant.trigger(merchant.daily)]
    hours = house.backfilled(merchant.hourly, now - 2.9 * HOUR, now - HOUR)
    merchant.succeeds(*usual, *hours)
    assert merchant.outcomes() == {
        ("Return Expiring", "accepted", None): 2,
        ("Return Created", "accepted", None): 1,
        ("Return Created", "expired", "too late"): 1,
        ("Return Created", "suppressed", "baseline"): 3,
        ("Payment Transaction", "accepted", None): 1,
        ("Label Created", "suppressed", "baseline"): 1,
    }
    merchant.each_exactly_once()
    assert set(merchant.marks().values()) == {usual_look(merchant, run) for run in usual}

    # The same run again: a cleared run finds its events known, and sends none of them again.
    before = merchant.accepted()
    merchant.clear(usual[1])
    merchant.succeeds(usual[1])
    assert merchant.accepted() == before

    # An hour that has had its run: Airflow's backfill takes that run over, which is narrowed to its interval then.
    marks, hour = merchant.marks(), quiet[0]["data_interval_start"]
    house.backfill(merchant.hourly, "--reprocess-behavior", "completed", "--from-date", hour, "--to-date", hour)
    merchant.succeeds(quiet[0])
    [interval] = merchant.rows(
        "SELECT window_start, window_end - window_start FROM audit_run "
        f"WHERE shop = %s AND dag_id = '{merchant.hourly}' AND run_id = '{quiet[0]['dag_run_id']}'"
    )
    assert interval == (datetime.fromisoformat(hour), HOUR)
    assert merchant.marks() == marks
    assert merchant.accepted() == before
    merchant.adds_up()


def usual_look(merchant: Merchant, run: Run) -> datetime:
    return merchant.looks(run["dag_id"])[run["dag_run_id"]]


@story
def test_what_a_shop_sets_is_obeyed(house: House) -> None:
    shadow, careful = house.merchants["shadow"], house.merchants["careful"]
    for merchant in (shadow, careful):
        merchant.put_delivered_label()
        merchant.put_returns(3, 22 * DAY)
        merchant.put_returns(1, 29 * DAY)
    careful.put_returns(1, 29 * DAY, customer_email="somebody.else@example.com", customer_phone=None)
    chat = Receiver()
    with chat.running() as port:
        set_connection(house.airflow, "chat", conn_type="http", host=f"http://127.0.0.1:{port}/hook")
        runs = {merchant: merchant.scheduled(merchant.daily) for merchant in (shadow, careful)}
        for merchant, run in runs.items():
            merchant.succeeds(run)
    assert shadow.outcomes() == {
        ("Return Expiring", "suppressed", "shadow"): 3,
        ("Return Expired", "suppressed", "shadow"): 1,
    }
    assert not shadow.attentive.received
    assert careful.outcomes() == {
        ("Return Expiring", "held", "more than max_events_per_run"): 3,
        ("Return Expired", "accepted", None): 1,
        ("Return Expired", "suppressed", "not on the test list"): 1,
    }
    [message] = chat.messages
    assert "- 3 Loop Return Expiring: more than max_events_per_run (bound 2)" in message
    assert runs[careful]["dag_run_id"] in message
    assert f"{house.airflow.url}/dags/{careful.resolve}/required_actions" in message
    assert not [canary for canary in (PHONE_DIGITS, EMAIL, STATUS_PAGE, KEY) if canary in message]
    assert message.splitlines()[0] in str(careful.airflow.log(careful.task(runs[careful], "audit")))
    [told] = careful.attentive.received
    assert told.body is not None
    assert told.body["user"].keys() == {"email"}, "the phone is not on the list"
    careful.each_exactly_once()


@story
def test_rows_without_any_value_stop_nothing(house: House) -> None:
    merchant = house.merchants["hollow"]
    merchant.warehouse.execute("ALTER TABLE loop.returns DROP CONSTRAINT returns_pkey")
    merchant.warehouse.execute("ALTER TABLE loop.returns ALTER return_id DROP NOT NULL")
    for table in ("returns", "labels", "exchange_items", "transactions"):
        merchant.put(table, synced_at=None)
        merchant.put(table, synced_at=None, return_id=7)
    merchant.put_delivered_label()
    [whole] = merchant.put_returns(1, HOUR)
    merchant.succeeds(merchant.scheduled(merchant.hourly))
    assert [r.body["properties"]["returnId"] for r in merchant.attentive.received if r.body] == [int(whole)]
    assert merchant.statuses()["accepted"] == 1
    assert merchant.statuses().keys() <= {"accepted", "suppressed", "invalid"}
    merchant.adds_up()


@story
def test_a_waiting_send_goes_on_by_hand_too(house: House) -> None:
    """`dags test` has no scheduler that would bring a task back after it gave its slot away."""
    merchant = house.merchants["by_hand"]
    merchant.put_delivered_label()
    merchant.put_returns(4, 22 * DAY)
    merchant.attentive.faults += [Fault(status=429, retry_after=20, count=4)]
    said = house.dags_test(merchant.daily)
    assert "giving the slot back" in said
    assert merchant.statuses() == Counter(accepted=4)
    merchant.each_exactly_once()
    merchant.adds_up()


@pytest.mark.long
def test_batches_that_follow_each_other_by_hand_leave_no_gap(house: House) -> None:
    """`dags test` runs one mapped task after the other, where a run of the scheduler's has them side by side."""
    merchant = house.merchants["batched"]
    merchant.attentive.limit = 600
    returns = merchant.put_returns(EVENTS_PER_BATCH + 500, HOUR)
    house.dags_test(merchant.hourly)
    assert merchant.statuses() == Counter(accepted=len(returns))
    merchant.each_exactly_once()
    batches = "SELECT DISTINCT map_index FROM audit_attempt JOIN audit_event USING (event_id) WHERE shop = %s"
    assert sorted(merchant.rows(batches)) == [(0,), (1,)]
    arrivals = sorted(record.arrived for record in merchant.attentive.received)
    longest = max(after - before for before, after in pairwise(arrivals))
    print(f"The longest gap between two requests: {longest:.2f} s")
    assert longest < 5


@story
def test_a_change_at_loop_reaches_attentive_by_the_sync_alone(house: House) -> None:
    merchant = house.merchants["synced"]
    airflow, sync = merchant.airflow, "loop_attentive_sync__synced"

    def at_loop(number: int, **more: Any) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat()
        return {
            "id": str(number), "state": "open", "customer": EMAIL, "order_name": f"#{number}", "created_at": now,
            "updated_at": now, "labels": [], "line_items": [], "status_page_url": STATUS_PAGE, "customer_name": NAME,
            "address": {"name": NAME, "phone": PHONE},
        } | more  # fmt: skip

    def followed() -> list[Run]:
        return [run for run in airflow.runs(merchant.hourly) if run["run_type"] == "asset_triggered"]

    with running_loop(key=LOOP_KEY) as loop:
        set_connection(airflow, "loop_of_synced", conn_type="http", host=loop.url, password=f"{LOOP_KEY}-of-another")
        loop.put(at_loop(1))
        refused = merchant.trigger(sync)
        airflow.unpause(sync)
        assert merchant.ended(refused) == "failed"
        assert any("Loop refused the key (status 401" in line for line in airflow.log(merchant.task(refused, "sync")))
        loop.refused.clear()

        set_connection(airflow, "loop_of_synced", conn_type="http", host=loop.url, password=LOOP_KEY)
        first = merchant.trigger(sync)
        merchant.succeeds(first)
        merchant.succeeds(merchant.scheduled(merchant.hourly))
        assert [r.body["properties"]["returnId"] for r in merchant.attentive.received if r.body] == [1]

        loop.put(at_loop(2))
        merchant.succeeds(merchant.trigger(sync))
        wait_until(lambda: bool(followed()), "the hourly DAG follows the sync", seconds=120)
        merchant.succeeds(*followed())
        assert [r.body["properties"]["returnId"] for r in merchant.attentive.received if r.body] == [1, 2]

        # Nothing new: the sync is skipped, and nothing follows.
        before = len(followed())
        quiet = merchant.trigger(sync)
        merchant.succeeds(quiet)
        assert merchant.task(quiet, "sync")["state"] == "skipped"
        assert len(followed()) == before
        assert loop.refused == []
        airflow.pause(sync)
    merchant.each_exactly_once()
    merchant.adds_up()
