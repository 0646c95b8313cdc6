"""What people can see after all that: docs in the UI, logs without noise, and nothing private anywhere."""

import json
from concurrent.futures import Future
from datetime import UTC, datetime

import psycopg
import pytest
from playwright.sync_api import expect

from loop_attentive.catalogue import CATALOGUE
from sandbox.attentive import Fault
from sandbox.browser import CHROMIUM, browser, open_run, show_graph
from sandbox.processes import wait_until
from tests.e2e import leaks
from tests.e2e.house import EMAIL, HOUR, LABEL_URL, NAME, PHONE_DIGITS, STATUS_PAGE, TRACKING_URL, House, Run
from tests.e2e.story import story

pytestmark = pytest.mark.usefixtures("stories")

WHERE_KEYS_LIVE = {"connection"}
"""Airflow's own table of connections."""

WHERE_PEOPLE_LIVE = {"mirror_return", "mirror_label", "mirror_waiting", "event"}
"""Of the ledger's tables; event holds what is not final."""

KINDS = ("hourly", "daily", "resolve", "stop", "backfill", "check", "sync")
"""Of DAGs, by their names."""

OF_THE_WAREHOUSE = "return outcomes that Attentive's table does not have."
"""How a warning ends that is about the made-up warehouse's rows, and right."""


@pytest.fixture
def run(house: House, stories: dict[str, Future[None]]) -> Run:
    """A run of the hourly DAG that sent something."""
    stories["test_each_kind_of_run_sends_what_is_due_exactly_once"].result()
    return next(run for run in house.airflow.runs("loop_attentive_hourly") if run["run_type"] == "manual")


def test_dags_groups_and_tasks_explain_themselves(house: House) -> None:
    for dag_id, events in (
        ("loop_attentive_hourly", [event for event in CATALOGUE if not event.daily]),
        ("loop_attentive_daily", [event for event in CATALOGUE if event.daily]),
    ):
        assert "If it fails" in house.airflow.ask("GET", f"dags/{dag_id}/details")["doc_md"]
        tasks = {task["task_id"]: task for task in house.airflow.ask("GET", f"dags/{dag_id}/tasks")["tasks"]}
        steps = {"extract", "plan", "send", "audit", "ask"} | ({"purge"} if dag_id.endswith("daily") else set())
        assert tasks.keys() == steps | {f"qualify.{event.slug}" for event in events}
        assert all(task["doc_md"] for task in tasks.values())
        assert all(event.meaning in tasks[f"qualify.{event.slug}"]["doc_md"] for event in events)
        with psycopg.connect(house.metadata) as metadata:
            [(groups,)] = metadata.execute(
                "SELECT data #> '{dag,task_group}' FROM serialized_dag WHERE dag_id = %s "
                "ORDER BY last_updated DESC LIMIT 1",
                (dag_id,),
            ).fetchall()
        assert "One task an event" in json.dumps(groups)


def test_a_good_run_says_little_and_warns_of_nothing(house: House, run: Run) -> None:
    entries = [
        entry
        for path in house.log_files()
        if f"run_id={run['dag_run_id']}" in str(path)
        for entry in map(json.loads, path.read_text().splitlines())
    ]
    assert len(entries) < 400
    warnings = [entry["event"] for entry in entries if entry["level"] not in ("debug", "info")]
    assert [warning for warning in warnings if not warning.endswith(OF_THE_WAREHOUSE)] == []
    for part in ("dag-processor", "scheduler", "api-server", "triggerer"):
        said = house.logs_of(part)
        assert [line for line in said if "Warning" in line and "loop_attentive" in line] == []


@story
def test_whatever_would_show_a_row_or_a_message_fails_and_is_got_over(house: House) -> None:
    """What it showed is looked for by the next test."""
    merchant = house.merchants["private"]
    merchant.put_delivered_label()
    created_at = datetime.now(UTC) - HOUR
    for number, return_id in enumerate(merchant.put_returns(6, HOUR)):
        merchant.put_label(return_id, tracking_number=f"1ZNEW{number}", created_at=created_at, updated_at=created_at)
    merchant.attentive.faults += [
        Fault(status=400, body="echo", count=1),
        Fault(status=500, body="echo", count=1),
        Fault(status=503, body="html", count=1),
        Fault(status=408, body="echo", accepts=True, count=1),
        Fault(kind="reset", accepts=True, count=1),
        Fault(status=302, count=1, type="Loop Label Created"),
    ]

    def is_said(task_id: str, words: str) -> bool:
        logs = [path for path in house.log_files() if f"dag_id={merchant.hourly}/" in str(path)]
        return any(words in path.read_text() for path in logs if f"task_id={task_id}/" in str(path))

    # PostgreSQL shows the whole row that a constraint refuses: here the first one, and no other.
    for table, surprise, exempt in (
        ("mirror_return", "first_return", "false"),
        ("event", "first_pending", "status <> 'pending'"),
        ("event", "first_sending", "status <> 'sending'"),
    ):
        merchant.ledger.execute(f"CREATE SEQUENCE {surprise}")
        merchant.ledger.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {surprise} "
            f"CHECK (shop <> 'private' OR {exempt} OR nextval('loop_attentive.{surprise}') > 1) NOT VALID"
        )
    # And a phone that the warehouse cannot read as a number.
    merchant.warehouse.execute("ALTER TABLE loop.returns RENAME TO returns_elsewhere")
    merchant.warehouse.execute(
        "CREATE VIEW loop.returns AS SELECT * FROM loop.returns_elsewhere WHERE customer_phone::int > 0"
    )
    hour = merchant.scheduled(merchant.hourly)
    wait_until(lambda: is_said("extract", "InvalidTextRepresentation"), "the warehouse fails", seconds=300, every=1)
    merchant.warehouse.execute("DROP VIEW loop.returns")
    merchant.warehouse.execute("ALTER TABLE loop.returns_elsewhere RENAME TO returns")
    if merchant.ended(hour) == "failed":  # on a slow machine the warehouse was mended too late
        merchant.clear(hour, only_failed=True)
    merchant.succeeds(hour)
    assert is_said("extract", "CheckViolation 23514 mirror_return first_return")
    assert is_said("qualify.return_created", "first_pending") or is_said("qualify.label_created", "first_pending")
    assert is_said("send", "CheckViolation 23514 event first_sending")
    for table, surprise in (("mirror_return", "first_return"), ("event", "first_pending"), ("event", "first_sending")):
        merchant.ledger.execute(f"ALTER TABLE {table} DROP CONSTRAINT {surprise}")
    merchant.minutes_pass(3)  # the leases of the sender that failed
    merchant.succeeds(merchant.trigger(merchant.hourly))
    assert merchant.statuses()["rejected"] == 1
    assert merchant.statuses()["accepted"] >= 6
    merchant.succeeds(merchant.trigger(merchant.stop, action="stop", why="to be looked at"))
    merchant.adds_up()


def test_nothing_private_is_where_it_may_be_seen(house: House) -> None:
    sent = [record.body for merchant in house.merchants.values() for record in merchant.attentive.received]
    told = json.dumps(sent)
    for word in (f"+1{PHONE_DIGITS}", EMAIL, NAME, STATUS_PAGE, TRACKING_URL, LABEL_URL):
        assert word in told, f"{word} came as far as Attentive"
    logs = house.log_files()
    assert len(logs) > 50
    assert leaks.in_files(logs) == {}
    for kind in KINDS:
        assert any(f"dag_id=loop_attentive_{kind}" in str(path) for path in logs), f"{kind} was looked at too"
    assert b"loop_attentive_hourly" in b"".join(house.metrics.said)
    assert leaks.in_metrics(house.metrics.said) == set()
    with psycopg.connect(house.metadata) as metadata:
        assert leaks.relations(metadata, "public") > {"xcom", "rendered_task_instance_fields", "log"}
        assert leaks.in_tables(metadata, "public", but=WHERE_KEYS_LIVE) == {}
    ledger = house.merchants["default"].ledger
    views = {"event", "attempt", "run", "decision", "plan", "purged"}
    assert leaks.relations(ledger, "loop_attentive") > {f"audit_{view}" for view in views}
    found = leaks.in_tables(ledger, "loop_attentive")
    assert found["mirror_return"] >= {EMAIL, NAME, STATUS_PAGE}, "the search finds what is there"
    assert found.keys() <= WHERE_PEOPLE_LIVE


@pytest.mark.skipif(CHROMIUM is None, reason="There is no Chromium to look with (on Debian: apt install chromium).")
def test_the_ui_shows_the_tasks_of_a_run_and_the_docs(house: House, run: Run) -> None:
    with browser(house.airflow) as page:
        open_run(page, run["dag_id"], run["dag_run_id"])
        for task in ("extract", "qualify", "plan", "send", "audit"):
            expect(page.get_by_text(task, exact=True).first).to_be_visible()
        show_graph(page)
        for event in (event for event in CATALOGUE if not event.daily):
            expect(page.get_by_text(event.slug, exact=True).first).to_be_visible()
        page.goto(f"/dags/{run['dag_id']}")
        page.get_by_role("button", name="Dag Docs").click()
        expect(page.get_by_text("Loop returns to Attentive, every hour")).to_be_visible()
