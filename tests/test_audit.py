"""A run's summary: it adds up, and says so loudly when it does not."""

from collections.abc import Iterator

import pytest

from loop_attentive import runs
from loop_attentive.audit import audit, releasable
from loop_attentive.catalogue import BY_NAME, CATALOGUE
from tests.floor import DAY, HOUR, T0, Floor


@pytest.fixture
def floor(ledger: str) -> Iterator[Floor]:
    floor = Floor(ledger)
    floor.start()
    floor.ret("1", created_at=T0 + HOUR / 2)
    floor.ret("2", created_at=T0 + HOUR / 2, customer_phone="N/A")
    floor.ret("3", created_at=T0 - DAY)
    floor.run(T0 + HOUR)
    yield floor
    floor.close()


def run_key(floor: Floor) -> int:
    row = floor.conn.execute("SELECT max(run_key) FROM run").fetchone()
    assert row is not None
    return int(row[0])


def test_a_run_adds_up_and_is_closed(floor: Floor) -> None:
    summary = audit(floor.conn, run_key(floor), CATALOGUE)
    assert summary.problems == []
    created = summary.by_event["Loop Return Created"]
    assert (created["yielded"], created["known"], created["created"]) == (3, 0, 3)
    assert (created["pending"], created["invalid"], created["suppressed"]) == (1, 1, 1)
    assert floor.conn.execute("SELECT finished_at IS NOT NULL FROM audit_run ORDER BY started_at DESC").fetchone() == (
        True,
    )


def test_the_view_shows_the_same_sums(floor: Floor) -> None:
    row = floor.conn.execute(
        "SELECT yielded, known, qualified, pending + held + sending + accepted + rejected + invalid + expired "
        "+ suppressed + unknown FROM audit_run ORDER BY started_at DESC LIMIT 1"
    ).fetchone()
    assert row == (3, 0, 3, 3)


def test_what_could_be_released_of_a_backfills_interval_is_listed(floor: Floor) -> None:
    look = floor.look(T0 + 30 * HOUR, whole=True)
    floor.qualify(look, "Loop Return Created", window=(T0 - DAY, T0 + HOUR), now=look.as_of)
    floor.conn.execute("UPDATE event SET status = 'expired', reason = 'too late' WHERE return_id = '1'")
    run = runs.find(floor.conn, dag_id="tests", run_id=f"run {floor.runs}", shop="default")
    lines = releasable(floor.conn, floor.shop, run, ["Loop Return Created", "Loop Label Created"])
    assert sorted(line.split(": ")[1] for line in lines) == ["expired (too late)", "suppressed (baseline)"]
    assert all(line.startswith("        1 Loop Return Created") for line in lines)
    assert releasable(floor.conn, floor.shop, run, ["Loop Label Created"]) == []


def test_a_rule_that_was_not_judged_is_named(floor: Floor) -> None:
    floor.conn.execute(
        "DELETE FROM run_rule WHERE run_key = %s AND event_type = 'Loop Label Created'", (run_key(floor),)
    )
    assert audit(floor.conn, run_key(floor), CATALOGUE).problems == ["Loop Label Created was not judged"]
    others = [event for event in CATALOGUE if event is not BY_NAME["Loop Label Created"]]
    assert audit(floor.conn, run_key(floor), others).problems == []


def test_an_event_that_vanished_is_noticed(floor: Floor) -> None:
    floor.conn.execute("DELETE FROM event WHERE return_id = '1'")
    (problem,) = audit(floor.conn, run_key(floor), CATALOGUE).problems
    assert problem == "Loop Return Created: 3 events were new, but 2 are in the ledger"


def test_rows_that_a_rule_yielded_and_nobody_counted_are_noticed(floor: Floor) -> None:
    floor.conn.execute("UPDATE run_rule SET yielded = yielded + 1 WHERE event_type = 'Loop Return Created'")
    (problem,) = audit(floor.conn, run_key(floor), CATALOGUE).problems
    assert problem.startswith("Loop Return Created: its rule yielded 4 rows")


@pytest.mark.parametrize(("outcome", "adds_up"), [("accepted", False), ("lost", True), (None, True)])
def test_attempts_are_as_many_as_requests_but_for_those_whose_process_ended(
    floor: Floor, outcome: str | None, adds_up: bool
) -> None:
    floor.conn.execute(
        "INSERT INTO attempt (event_id, attempt, run_key, task_id, map_index, try_number, occurred_at, started_at, "
        "outcome) SELECT event_id, 1, run_key, 'send', 0, 1, now(), now(), %s FROM event WHERE return_id = '1'",
        (outcome,),
    )
    problems = audit(floor.conn, run_key(floor), CATALOGUE).problems
    assert problems == ([] if adds_up else ["0 requests were made, but 1 attempts have an outcome"])
