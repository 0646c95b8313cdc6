"""What goes wrong between us and Attentive, and processes that die: nothing is lost, nothing is sent twice."""

import os
import signal
from collections import Counter
from datetime import UTC, datetime

from sandbox.attentive import Fault
from sandbox.processes import free_port, wait_until
from tests.e2e.house import DAY, House
from tests.e2e.story import story


@story
def test_a_send_waits_as_it_is_told_without_a_slot(house: House) -> None:
    merchant = house.merchants["unlucky"]
    merchant.put_delivered_label()
    merchant.put_returns(20, 22 * DAY)
    merchant.put_returns(1, 29 * DAY)
    merchant.put_returns(1, 10 * DAY, is_instant_exchange=True, charge_at=datetime.now(UTC) + 5 * DAY)
    merchant.attentive.faults += [
        Fault(status=429, retry_after=40, count=15),
        Fault(status=503, body="html", count=3),
        Fault(kind="reset", accepts=True, type="Loop Return Expired", count=1),
        Fault(kind="silence", type="Loop Instant Exchange Reminder", count=1),
        Fault(delay=1, jitter=1),
    ]
    run = merchant.scheduled(merchant.daily)
    merchant.succeeds(run)
    send = merchant.task(run, "send")
    assert send["try_number"] == 1, "to wait is no failure"
    assert house.rescheduled(run, "send") >= 2, "the slot was given back"
    said = merchant.airflow.log(send)
    assert any("(Attentive asked for a pause): giving the slot back" in line for line in said)
    assert merchant.statuses() == Counter(accepted=22)
    attempts = merchant.attempts()
    outcomes = Counter(attempt.outcome for attempt in attempts)
    assert outcomes == Counter({"accepted": 22, "throttled": outcomes["throttled"], "unknown": 2})
    assert Counter(a.http_status for a in attempts if a.outcome == "throttled") == {429: 15, 503: 3}
    merchant.adds_up()

    # What was in doubt is sent again once, the same, two minutes later.
    twice = [event_id for event_id, times in merchant.accepted().items() if times > 1]
    doubtful = {attempt.event_id for attempt in attempts if attempt.outcome == "unknown"}
    assert set(twice) < doubtful
    for event_id in doubtful:
        first, again = merchant.received(event_id)[-2:]
        assert first.body == again.body
        assert (again.arrived_at - first.arrived_at).total_seconds() >= 120


@story
def test_nothing_is_lost_while_attentive_is_down(house: House) -> None:
    merchant = house.merchants["cut_off"]
    merchant.put_delivered_label()
    merchant.put_returns(25, 22 * DAY)
    merchant.connect_attentive(url=f"http://127.0.0.1:{free_port(0)}")
    run = merchant.scheduled(merchant.daily)
    assert merchant.ended(run) == "failed"
    send = merchant.task(run, "send")
    assert send["try_number"] == 4
    assert any("could not be reached" in line for line in merchant.airflow.log(send))
    assert merchant.statuses() == Counter(pending=25)

    merchant.connect_attentive()
    merchant.succeeds(merchant.trigger(merchant.daily))
    assert merchant.statuses() == Counter(accepted=25)
    merchant.each_exactly_once()
    merchant.adds_up()


@story
def test_a_killed_sender_loses_nothing(house: House) -> None:
    merchant = house.merchants["killed"]
    merchant.put_delivered_label()
    merchant.put_returns(60, 22 * DAY)
    merchant.attentive.faults += [Fault(jitter=4)]
    run = merchant.scheduled(merchant.daily)
    send = merchant.when_running(run, "send", lambda: merchant.statuses()["accepted"] >= 5)
    os.kill(send["pid"], signal.SIGKILL)
    wait_until(lambda: merchant.task(run, "send")["state"] == "up_for_retry", "the death is noticed", seconds=60)
    in_doubt = merchant.statuses()["sending"]
    assert 0 < in_doubt < 60
    merchant.minutes_pass(3)
    merchant.succeeds(run)

    assert merchant.task(run, "send")["try_number"] == 2
    assert merchant.statuses() == Counter(accepted=60)
    lost = {attempt.event_id for attempt in merchant.attempts() if attempt.outcome == "lost"}
    assert len(lost) == in_doubt
    accepted = merchant.accepted()
    assert len(accepted) == 60
    assert {event_id for event_id, times in accepted.items() if times > 1} <= lost
    assert max(accepted.values()) <= 2
    merchant.adds_up()


@story
def test_a_sender_that_is_told_to_stop_leaves_nothing_in_doubt(house: House) -> None:
    merchant = house.merchants["ended"]
    merchant.put_delivered_label()
    merchant.put_returns(400, 22 * DAY)
    merchant.attentive.limit = 20
    merchant.attentive.faults += [Fault(jitter=2)]
    run = merchant.scheduled(merchant.daily)
    send = merchant.when_running(run, "send", lambda: merchant.statuses()["accepted"] >= 20)
    merchant.fail_by_hand(send)
    wait_until(lambda: merchant.leased() == 0, "the leases are returned", seconds=60)
    assert merchant.ended(run) == "failed"
    statuses = merchant.statuses()
    assert statuses.keys() == {"accepted", "pending"}
    merchant.each_exactly_once()
    merchant.adds_up()

    merchant.attentive.limit = 150
    merchant.clear(run, task_ids=["send"], include_downstream=True)
    merchant.succeeds(run)
    assert merchant.statuses() == Counter(accepted=400)
    merchant.each_exactly_once()
    merchant.adds_up()
