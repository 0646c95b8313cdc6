"""The step that has a person asked, as Airflow's own runner plays it; only Airflow's API server is made up."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import httpx
import psycopg
import pytest
from airflow.sdk import DAG, Context
from airflow.sdk.api.client import Client
from airflow.sdk.api.datamodels._generated import TaskInstance
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.execution_time.supervisor import TaskRunResult, run_task_in_process

from loop_attentive import decision_operators, decisions, mirror, runs, settings
from loop_attentive.decision_operators import DISCARD, AskOperator, DecideOperator, SwitchOperator
from loop_attentive.errors import NeedsMending
from loop_attentive.settings import Shop
from tests.floor import Floor

HOURLY, RESOLVE, RUN = "loop_attentive_hourly", "loop_attentive_resolve", "scheduled__1"


class Api:
    """What a task asks of Airflow's API server. triggered: the form of each run that it asked for.

    run_id: of the run that the task is of. states: of other runs, by their id.
    """

    def __init__(self) -> None:
        self.run_id = RUN
        self.states: dict[str, str] = {}
        self.is_paused = False
        self.triggered: dict[tuple[str, str], dict[str, Any]] = {}
        self.xcoms: dict[str, Any] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        match request.method, request.url.path.strip("/").split("/"):
            case "PATCH", ["task-instances", _, "run"]:
                now = datetime.now(UTC).isoformat()
                run: dict[str, Any] = {
                    "dag_id": HOURLY, "run_id": self.run_id, "logical_date": now, "data_interval_start": now,
                    "data_interval_end": now, "run_after": now, "start_date": now, "end_date": None,
                    "run_type": "scheduled", "state": "running", "consumed_asset_events": [], "partition_key": None,
                }  # fmt: skip
                return httpx.Response(200, json={"dag_run": run, "max_tries": 3, "should_retry": True})
            case "GET", ["dags", dag_id]:
                about = dict.fromkeys(
                    ("bundle_name", "bundle_version", "relative_fileloc", "owners", "next_dagrun"), None
                )
                return httpx.Response(200, json={"dag_id": dag_id, "is_paused": self.is_paused, "tags": []} | about)
            case "GET", ["dag-runs", "count"]:
                run_ids, states = (request.url.params.get_list(name) for name in ("run_ids", "states"))
                return httpx.Response(200, json=sum(self.states.get(run_id) in states for run_id in run_ids))
            case "POST", ["dag-runs", dag_id, run_id]:
                if (dag_id, run_id) in self.triggered:
                    return httpx.Response(409, json={"detail": "there already"})
                self.triggered[dag_id, run_id] = json.loads(request.content)["conf"]
                return httpx.Response(204)
            case "POST", ["xcoms", _, _, _, key]:
                self.xcoms[key] = json.loads(request.content)
                return httpx.Response(201, json={"message": "set"})
            case "GET", ["xcoms", _, _, _, key] if key in self.xcoms:
                return httpx.Response(200, json={"key": key, "value": self.xcoms[key]})
            case "GET", _:
                return httpx.Response(404, json={"detail": "not found"})
        return httpx.Response(204)


@pytest.fixture
def floor(ledger: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Floor]:
    """A shop that holds three events."""
    info = psycopg.conninfo.conninfo_to_dict(ledger)
    database = {"conn_type": "postgres", "host": info["host"], "login": info["user"], "schema": info["dbname"]}
    monkeypatch.setenv("AIRFLOW_CONN_LOOP_ATTENTIVE_DB", json.dumps(database))
    monkeypatch.setattr(settings, "shop", lambda name: Shop(name=name))
    now = datetime.now(UTC)
    with closing(Floor(ledger, max_events_per_run=0, enabled_at=now - timedelta(days=1))) as floor:
        for return_id in ("1", "2", "3"):
            floor.ret(return_id, created_at=now - timedelta(hours=1))
        events = floor.run(now, "Loop Return Created")
        assert [event.status for event in events] == ["held"] * 3
        yield floor


def asked(api: Api, try_number: int = 1) -> TaskRunResult:
    """How the task ends."""
    with DAG(HOURLY, schedule=None):
        task = AskOperator(task_id="ask", shop=Shop(name="default"), retries=3)
    instance = TaskInstance(
        id=uuid4(), task_id="ask", dag_id=HOURLY, run_id=api.run_id, try_number=try_number, dag_version_id=uuid4(),
        map_index=-1,
    )  # fmt: skip
    client = Client(base_url="http://api", token="", transport=httpx.MockTransport(api))
    return run_task_in_process(instance, task, client)


def test_what_is_held_is_asked_about_once_and_the_tasks_link_leads_there(floor: Floor) -> None:
    api = Api()
    assert asked(api).state == "success"
    [((dag_id, run_id), form)] = api.triggered.items()
    assert (dag_id, run_id) == (RESOLVE, f"{HOURLY}__{RUN}")
    assert (form["action"], form["states"], form["unasked"]) == ("send", ["held"], True)
    assert api.xcoms["_link_TriggerDagRunLink"].endswith(f"/dags/{RESOLVE}/runs/{run_id}")
    assert asked(api).state == "skipped"
    assert len(api.triggered) == 1


def in_question(floor: Floor, api: Api) -> str:
    """The id of the run that was triggered, which has proposed what is held and waits for an answer."""
    [((dag_id, run_id), form)] = api.triggered.items()
    asker = decisions.Asker("default", dag_id, run_id)
    runs.start(floor.conn, **asker._asdict(), look=mirror.Look(datetime.now(UTC), 0, 0))
    choice = decisions.Selection(form["action"], form["states"], form["why"], unasked=True)
    assert decisions.propose(floor.conn, floor.shop, asker, choice).events == 3
    api.states[run_id] = "running"
    return run_id


@pytest.mark.parametrize(("state", "is_asked"), [("success", False), ("failed", True), ("deleted", True)])
def test_a_question_is_asked_anew_when_its_run_has_failed_but_not_when_nothing_was_to_change(
    floor: Floor, state: str, is_asked: bool
) -> None:
    api = Api()
    assert asked(api).state == "success"
    run_id = in_question(floor, api)
    api.run_id = "scheduled__2"
    assert asked(api).state == "skipped"

    floor.conn.execute("UPDATE run SET finished_at = now() WHERE run_id = %s", (run_id,))  # its audit has run
    api.states[run_id], api.run_id = state, "scheduled__3"
    assert asked(api).state == ("success" if is_asked else "skipped")
    assert len(api.triggered) == 1 + is_asked


def test_a_question_that_was_taken_away_is_asked_anew_by_the_same_run_when_it_is_cleared(floor: Floor) -> None:
    api = Api()
    assert asked(api).state == "success"
    api.states[in_question(floor, api)] = "failed"
    assert asked(api, try_number=2).state == "success"
    assert {run_id for _, run_id in api.triggered} == {f"{HOURLY}__{RUN}", f"{HOURLY}__{RUN}__2"}


def test_nobody_is_asked_when_nothing_is_held(floor: Floor) -> None:
    floor.conn.execute("UPDATE event SET status = 'pending'")
    api = Api()
    api.is_paused = True
    assert asked(api).state == "skipped"
    assert api.triggered == {}


def test_a_paused_dag_that_would_ask_fails_the_task_in_a_line_that_says_what_to_do(floor: Floor) -> None:
    api = Api()
    api.is_paused = True
    ended = asked(api)
    assert ended.state == "failed", "no retry unpauses it"
    assert isinstance(ended.error, AirflowFailException)
    assert str(ended.error) == (
        "3 events are held, and loop_attentive_resolve, which would ask what to do with them, is paused: "
        "unpause it and clear this task, or leave it to the next run."
    )
    assert api.triggered == {}


# ── What is done ────────────────────────────────────────────────────────────


def filled_in(**form: Any) -> Context:
    """The context of a task of a run by hand, as far as the steps use it."""
    usual = dict.fromkeys(("reason", "events", "returns", "from", "to", "of_run")) | {"unasked": False, "why": "test"}
    dag_run = SimpleNamespace(dag_id=RESOLVE, run_id="manual__1", triggering_user_name="ann")
    return cast(Context, {"params": usual | form, "dag_run": dag_run})


def discards(floor: Floor, *states: str) -> dict[str, int]:
    """Events in these states are to be released, and a person answers to discard them: how many were, and were not."""
    form = filled_in(action="release", states=list(states))
    asker = decision_operators.asker_of(form, floor.shop)
    decisions.propose(floor.conn, floor.shop, asker, decision_operators.selection_of(form))
    answer = {"chosen_options": [DISCARD], "responded_by_user": {"name": "ann"}}
    return DecideOperator(task_id="decide", shop="default", answer=answer).step(form, floor.conn, floor.shop)


def test_what_is_late_already_is_left_as_it_is_by_one_who_discards_it(floor: Floor) -> None:
    floor.conn.execute("UPDATE event SET status = 'expired', reason = 'too late'")
    with pytest.raises(AirflowSkipException, match="ann chose to discard what will never be sent anyway"):
        discards(floor, "expired")
    floor.conn.execute("UPDATE event SET status = 'suppressed', reason = 'shadow' WHERE return_id = '1'")
    assert discards(floor, "suppressed", "expired") == {"events": 1, "left": 2}
    late = ("expired", "too late")
    assert floor.outcomes() == {"1": ("suppressed", "discarded"), "2": late, "3": late}


def test_a_wrong_clock_fails_the_run_that_stops_and_keeps_nobody_from_stopping(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "CLOCK_TOLERANCE", -timedelta(seconds=1))
    switch = SwitchOperator(task_id="switch", shop="default")
    with pytest.raises(NeedsMending, match="The clock of this worker"):
        switch.step(filled_in(action="stop"), floor.conn, floor.shop)
    assert decisions.stop_of(floor.conn, "default") is not None
