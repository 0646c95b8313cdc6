"""What people can see after all that: docs in the UI, logs without noise, and nothing private anywhere."""

import json
from concurrent.futures import Future
from typing import Any

import psycopg
import pytest
from playwright.sync_api import expect
from psycopg import sql

from loop_attentive.catalogue import CATALOGUE
from sandbox.browser import CHROMIUM, browser, open_run, show_graph
from tests.e2e.house import EMAIL, KEY, PHONE, PHONE_DIGITS, STATUS_PAGE, House, Run

pytestmark = pytest.mark.usefixtures("stories")

PRIVATE = (PHONE, PHONE_DIGITS, EMAIL, STATUS_PAGE, KEY)

WHERE_KEYS_LIVE = {"connection"}
"""Airflow's own table of connections."""

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
        steps = {"extract", "plan", "send", "audit"} | ({"purge"} if dag_id.endswith("daily") else set())
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


def test_nothing_private_is_where_it_may_be_seen(house: House) -> None:
    sent = [record for merchant in house.merchants.values() for record in merchant.attentive.received]
    assert f"+1{PHONE_DIGITS}" in {record.body["user"].get("phone") for record in sent if record.body}
    logs = house.log_files()
    assert len(logs) > 100
    for path in logs:
        assert not private_words(path.read_text()), path
    with psycopg.connect(house.metadata) as metadata:
        tables = {name for (name,) in metadata.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
        assert {"xcom", "rendered_task_instance_fields", "log"} < tables
        for table in tables - WHERE_KEYS_LIVE:
            assert not seen_in(metadata, table), table
    for merchant in house.merchants.values():
        for view in (
            "audit_event", "audit_attempt", "audit_run", "audit_decision", "audit_plan", "audit_purged", "plan_event"
        ):  # fmt: skip
            assert not seen_in(merchant.ledger, view), view


def seen_in(connection: psycopg.Connection[Any], table: str) -> set[str]:
    query = sql.SQL("SELECT coalesce(string_agg(t::text, ' '), '') FROM {} AS t").format(sql.Identifier(table))
    [(text,)] = connection.execute(query).fetchall()
    return private_words(text)


def private_words(text: str) -> set[str]:
    return {word for word in PRIVATE if word in text}


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
