"""The steps as Airflow sees them: the connections that they work by."""

import asyncio
import gc
import json
import os
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType, SimpleNamespace
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import sqlalchemy as sa
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Connection
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException, AirflowSkipException

from loop_attentive import db, decisions, people, settings
from loop_attentive.attentive import AttentiveHook, account
from loop_attentive.decision_operators import ProposeOperator, SwitchOperator
from loop_attentive.delivery import Delivered
from loop_attentive.errors import NeedsMending
from loop_attentive.operators import (
    AuditOperator,
    LookOperator,
    QualifyOperator,
    SendOperator,
    StepOperator,
    connection,
    warehouse_engine,
)
from loop_attentive.settings import Shop
from tests.floor import DAY, HOUR, T0, Floor
from tests.webhook import Receiver

PHONE = "+14155552671"


@pytest.mark.parametrize("conn_type", ["http", "no_such_engine", ""])
def test_a_warehouse_that_nothing_installed_reads_with_sql(conn_type: str) -> None:
    with pytest.raises(NeedsMending, match=r"Connection loop_warehouse is of type .*install the provider"):
        warehouse_engine(Connection(conn_id="loop_warehouse", conn_type=conn_type))


def test_a_postgres_warehouse_is_reached_as_its_extra_says(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URI may name the socket's directory, or sslmode, behind its question mark: in Airflow that is the extra."""
    directory = quote(str(psycopg.conninfo.conninfo_to_dict(postgres)["host"]), safe="")
    monkeypatch.setenv(
        "AIRFLOW_CONN_LOOP_WAREHOUSE", f"postgresql://postgres@/postgres?host={directory}&sslmode=disable"
    )
    engine = warehouse_engine(connection("loop_warehouse"))
    with engine.connect() as warehouse:
        assert warehouse.execute(sa.text("SELECT 1")).scalar() == 1
    engine.dispose()


def test_a_postgres_warehouse_may_be_of_no_encoding(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = quote(str(psycopg.conninfo.conninfo_to_dict(postgres)["host"]), safe="")
    monkeypatch.setenv("AIRFLOW_CONN_LOOP_WAREHOUSE", f"postgresql://postgres@/plain?host={directory}")
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute("CREATE DATABASE plain TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C'")
        try:
            engine = warehouse_engine(connection("loop_warehouse"))
            with engine.connect() as warehouse:
                assert warehouse.execute(sa.text("SELECT 'é'")).scalar() == "é"
            engine.dispose()
        finally:
            server.execute("DROP DATABASE plain WITH (FORCE)")


# ── People who said no ──────────────────────────────────────────────────────


@pytest.fixture
def connections(ledger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's connections of a shop whose warehouse is in the ledger's database."""
    parts = psycopg.conninfo.conninfo_to_dict(ledger)
    database = {"conn_type": "postgres", "host": parts["host"], "login": parts["user"], "schema": parts["dbname"]}
    attentive = {"conn_type": "http", "host": "http://127.0.0.1:1", "password": "a-key"}
    for name, value in (("LOOP_WAREHOUSE", database), ("LOOP_ATTENTIVE_DB", database), ("ATTENTIVE", attentive)):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(value))


CONTEXT: Any = {
    "dag_run": SimpleNamespace(dag_id="d", run_id="r", run_type="manual"),
    "ti": SimpleNamespace(task_id="send", map_index=0, try_number=1),
}
ACCOUNT = account("http://127.0.0.1:1", "a-key")


def test_a_look_tells_of_the_account_and_removes_what_is_held_of_who_said_no(connections: None, floor: Floor) -> None:
    floor.conn.execute("INSERT INTO shop (shop, enabled_at, account) VALUES ('elsewhere', now(), %s)", (ACCOUNT,))
    people.opt_out(floor.conn, "elsewhere", [people.hashed(PHONE, people.hash_key(floor.conn))], given=True)
    floor.ret("1", customer_phone=PHONE, created_at=T0, updated_at=T0)
    floor.conn.execute(
        "INSERT INTO mirror_return (shop, return_id, customer_phone, created_at, is_deleted) "
        "VALUES ('default', '2', %s, now(), false)",
        (PHONE,),
    )
    floor.settings(mirror_days=3_650)
    LookOperator(task_id="extract", shop="default").step(CONTEXT, floor.conn, floor.shop)
    assert floor.one("SELECT account FROM shop WHERE shop = 'default'") == (ACCOUNT,)
    held = floor.conn.execute("SELECT customer_phone, opted_out FROM mirror_return").fetchall()
    assert held == [(None, True)] * 2


def test_a_look_needs_no_connection_to_attentive(
    connections: None, floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_ATTENTIVE")
    LookOperator(task_id="extract", shop="default").step(CONTEXT, floor.conn, floor.shop)
    assert floor.one("SELECT account FROM shop") == (None,)


def test_a_sender_tells_of_the_account_for_every_shop_of_its_connection(
    connections: None, floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    shops = {
        "default": Shop(name="default"),
        "same": Shop(name="same"),
        "other": Shop(name="other", attentive="another"),
    }
    monkeypatch.setattr(settings, "sound", lambda: shops)
    monkeypatch.setattr(settings, "shop", shops.__getitem__)
    for name in shops:
        floor.settings(name=name)
        floor.qualify(floor.look(T0))
    floor.conn.execute("UPDATE run SET dag_id = 'd', run_id = 'r' WHERE shop = 'default'")
    operator = SendOperator(task_id="send", shop="default", batch={"index": 0, "of": 1})
    operator.ledger = floor.conninfo
    operator.transport = AttentiveHook("attentive").transport()
    asyncio.run(operator.deliver(CONTEXT))
    accounts = dict(floor.conn.execute("SELECT shop, account FROM shop").fetchall())
    assert accounts == {"default": ACCOUNT, "same": ACCOUNT, "other": None}


@pytest.mark.parametrize(
    ("first_put_off", "ends", "told"),
    [
        (None, AirflowRescheduleException, None),
        (HOUR / 12, AirflowRescheduleException, None),
        (HOUR, AirflowFailException, "no request of this run"),
    ],
)
def test_a_sender_to_which_attentive_gives_nothing_but_errors_comes_back_for_half_an_hour_and_fails(
    connections: None,
    monkeypatch: pytest.MonkeyPatch,
    first_put_off: timedelta | None,
    ends: type[Exception],
    told: str | None,
) -> None:
    """However often it has come back; green it would tell nobody, and its events would expire."""
    now = datetime.now(UTC)

    async def deliver(_: SendOperator, __: Any) -> Delivered:
        return Delivered({"failed": 20}, 20, 20, now + HOUR / 60, "Attentive fails", True, False, frozenset())

    monkeypatch.setattr(SendOperator, "deliver", deliver)
    monkeypatch.setattr(settings, "shop", lambda name: Shop(name=name))
    since = first_put_off and now - first_put_off
    task = SimpleNamespace(get_first_reschedule_date=lambda _: since)
    send = SendOperator(task_id="send", shop="default", batch={})
    try:
        with pytest.raises(ends, match=told):
            send.execute(CONTEXT | {"ti": task})
    finally:
        gc.unfreeze()  # what a sender's own process need not look at


# ── What a run says of itself ───────────────────────────────────────────────


def the_run(floor: Floor, *names: str, at: datetime, window: tuple[datetime, datetime] | None = None) -> None:
    """A run of some rules, which is the one of CONTEXT."""
    floor.conn.execute("UPDATE run SET dag_id = 'before' WHERE dag_id = 'd'")
    floor.qualify(floor.look(at, whole=window is not None), *names, window=window)
    floor.conn.execute("UPDATE run SET dag_id = 'd', run_id = 'r' WHERE run_key = (SELECT max(run_key) FROM run)")


def audit_after(*before: str, events: Sequence[str]) -> AuditOperator:
    """That of a DAG in which these tasks come before it, and `ask` stands beside it."""
    with DAG("d", schedule=None):
        audit = AuditOperator(task_id="audit", shop="default", event_types=list(events))
        for task_id in before:
            EmptyOperator(task_id=task_id) >> audit
        EmptyOperator(task_id="ask")
    return audit


def audit_of(floor: Floor, *names: str, states: Mapping[str, str] = MappingProxyType({})) -> None:
    task = SimpleNamespace(get_task_states=lambda **_: {"r": {"extract": "success", **states}})
    audit = audit_after("extract", "qualify.return_created", "plan", "send", events=names)
    audit.step(CONTEXT | {"ti": task}, floor.conn, floor.shop)


CREATED = "Loop Return Created"


def test_a_run_that_leaves_events_says_how_many_and_succeeds(floor: Floor, capsys: pytest.CaptureFixture[str]) -> None:
    floor.start()
    for return_id in ("1", "2", "3"):
        floor.ret(return_id, created_at=T0 + HOUR / 2)
    floor.ret("4", created_at=T0 + HOUR / 2, customer_phone=None)
    the_run(floor, CREATED, at=T0 + HOUR)
    floor.conn.execute("UPDATE event SET status = 'held', reason = 'more than usual' WHERE return_id = '2'")
    floor.conn.execute("UPDATE event SET status = 'unknown', reason = 'no answer' WHERE return_id = '3'")
    audit_of(floor, CREATED)
    assert "Left for later: 1 pending, 1 held, 1 unknown." in capsys.readouterr().out


def test_a_run_that_does_not_add_up_fails(floor: Floor) -> None:
    floor.start()
    floor.ret("1", created_at=T0)
    the_run(floor, CREATED, at=T0 + HOUR)
    floor.conn.execute("DELETE FROM event")
    with pytest.raises(AirflowFailException, match=r"^The run does not add up: .*Loop Return Created"):
        audit_of(floor, CREATED)


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ({"qualify.return_created": "failed"}, r"^Failed before: qualify\.return_created; their logs say why"),
        ({"send_0": "success", "send_1": "failed"}, r"^Failed before: send_1; "),
        ({"plan": "failed", "send": "upstream_failed"}, r"^Failed before: plan; "),
        ({"plan": "success", "send": "upstream_failed"}, r"^Did not run: send: clear what comes before"),
    ],
)
@pytest.mark.parametrize("judged", [True, False])
def test_a_run_fails_where_a_step_before_did_and_names_it(
    floor: Floor, states: dict[str, str], told: str, judged: bool
) -> None:
    """Also where a rule was not judged for that: it does not add up then, but is no fault of the project."""
    floor.start()
    the_run(floor, CREATED if judged else "Loop Refund Transaction", at=T0 + HOUR)
    with pytest.raises(AirflowFailException, match=told):
        audit_of(floor, CREATED, states=states)


def test_who_could_not_be_asked_fails_by_itself(floor: Floor) -> None:
    floor.start()
    the_run(floor, CREATED, at=T0 + HOUR)
    audit_of(floor, CREATED, states={"ask": "failed"})


def by_a_form(**params: Any) -> Any:
    """The context of a run that somebody triggered."""
    dag_run = SimpleNamespace(dag_id="d", run_id="r", triggering_user_name="ann")
    return {"dag_run": dag_run, "ti": SimpleNamespace(get_task_states=lambda **_: {}), "params": params}


def test_a_cleared_stop_that_was_undone_since_does_not_look_as_if_it_had_stopped(floor: Floor) -> None:
    switch = SwitchOperator(task_id="switch", shop="default")
    stop = by_a_form(action="stop", why="a wrong text")
    assert switch.step(stop, floor.conn, floor.shop) == {"sending": "off"}
    assert switch.step(stop, floor.conn, floor.shop) == {"sending": "off"}, "cleared while it holds"
    decisions.throw_switch(
        floor.conn, decisions.Asker("default", "d", "another"), action="go on", who="bob", why="mended"
    )
    with pytest.raises(NeedsMending, match=r"^This run's 'stop' was undone since: sending of shop default is on\."):
        switch.step(stop, floor.conn, floor.shop)


def test_a_cleared_run_that_has_decided_asks_about_nothing_else(floor: Floor) -> None:
    floor.start()
    floor.ret("1", created_at=T0 + HOUR / 2)
    floor.settings(max_events_per_run=0)
    floor.run(T0 + HOUR, CREATED)
    form = by_a_form(
        action="send", states=["held"], why="a sale", reason=None, events=[], returns=[], of_run=None, unasked=False,
        **{"from": None, "to": None},
    )  # fmt: skip
    propose = ProposeOperator(task_id="propose", shop="default")
    asked = propose.step(form, floor.conn, floor.shop)
    assert asked.startswith("**Send 1 events**")

    floor.ret("3", created_at=T0 + HOUR)
    floor.run(T0 + HOUR * 1.25, CREATED)
    waiting = {"ti": SimpleNamespace(get_task_states=lambda **_: {"r": {"approve": "awaiting_input"}})}
    assert propose.step(form | waiting, floor.conn, floor.shop) == asked, "cleared while somebody looks at it"
    asker = decisions.Asker("default", "d", "r")
    held = decisions.Selection(action="send", states=["held"], why="a sale")
    assert decisions.decide(floor.conn, floor.shop, asker, held, who="ann").events == 1

    floor.ret("2", created_at=T0 + HOUR * 1.5)
    floor.run(T0 + 2 * HOUR, CREATED)
    with pytest.raises(AirflowSkipException, match="This run has made its decision"):
        propose.step(form, floor.conn, floor.shop)
    assert decisions.propose(floor.conn, floor.shop, asker._replace(run_id="anew"), held).events == 2


def test_somebody_is_told_of_a_run_that_failed(
    connections: None, floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor.start()
    the_run(floor, CREATED, at=T0 + HOUR)
    floor.settings(notify="chat")
    monkeypatch.setattr(settings, "shop", lambda _: floor.shop)
    chat, audit = Receiver(), audit_after("qualify.return_created", events=[CREATED])

    def ends(state: str, try_number: int = 1) -> None:
        states = {"r": {"qualify.return_created": state}}
        task = SimpleNamespace(get_task_states=lambda **_: states, try_number=try_number, max_tries=3)
        audit.execute(CONTEXT | {"ti": task})

    with chat.running() as port:
        monkeypatch.setenv("AIRFLOW_CONN_CHAT", json.dumps({"conn_type": "http", "host": f"http://127.0.0.1:{port}"}))
        ends("success")
        assert chat.messages == []
        with pytest.raises(AirflowFailException):
            ends("failed")
        chat.status = 500
        with pytest.raises(AirflowFailException, match=r"^Failed before: "):
            ends("failed")
        chat.status = 200
        nowhere = {"conn_type": "postgres", "host": "/nowhere", "login": "x", "schema": "x"}
        monkeypatch.setenv("AIRFLOW_CONN_LOOP_ATTENTIVE_DB", json.dumps(nowhere))
        for try_number in (1, 4):  # the last one
            with pytest.raises(db.DatabaseAway):
                ends("success", try_number)
    failed, away = (message.splitlines() for message in chat.messages)
    assert failed[0].startswith("Failed in shop default: run r of DAG d.")
    assert failed[1] == "Failed before: qualify.return_created; their logs say why."
    assert "cannot be reached" in away[1]


def test_a_backfilled_interval_says_what_it_cannot_hold_and_what_could_be_released(
    floor: Floor, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = "Loop Return Status Updated"
    floor.start()
    floor.ret("1", created_at=T0 - DAY)
    the_run(floor, CREATED, changes, at=T0 + HOUR, window=(T0 - 2 * DAY, T0))
    audit_of(floor, CREATED, changes)
    said = capsys.readouterr().out
    assert f"Of {changes} only what a look has seen can be found: the source keeps no history." in said
    assert f"Of this interval loop_attentive_resolve could release:\n        1 {CREATED}: suppressed (baseline)" in said


def test_a_rule_that_a_stale_source_keeps_from_being_judged_says_so(
    connections: None, floor: Floor, capsys: pytest.CaptureFixture[str]
) -> None:
    floor.start()
    floor.settings(freshness_hours=26)
    floor.ret("1", created_at=T0 - 22 * DAY, labels_enabled=True, synced_at=T0)
    floor.label("1", status="new", synced_at=T0)
    expiring = "Loop Return Expiring"
    the_run(floor, CREATED, at=T0 + 3 * DAY)
    QualifyOperator(task_id="expiring", shop="default", event_type=expiring).step(CONTEXT, floor.conn, floor.shop)
    told = "Reminders that need a fresh source are put off: returns or labels were last synced at 2026-03-01T12:00:00"
    assert told in capsys.readouterr().out
    assert floor.one("SELECT count(*) FROM event WHERE event_type = %s", [expiring]) == (0,)


# ── What an error tells ─────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("table", "operator"),
    [
        ("mirror_return", LookOperator(task_id="extract", shop="default")),
        ("event", QualifyOperator(task_id="created", shop="default", event_type="Loop Return Created")),
    ],
)
def test_an_error_of_the_ledger_names_no_row(
    connections: None, floor: Floor, monkeypatch: pytest.MonkeyPatch, table: str, operator: StepOperator
) -> None:
    """PostgreSQL shows the whole row that a constraint refuses."""
    monkeypatch.setattr(settings, "sound", lambda: {"default": floor.shop})
    monkeypatch.setattr(settings, "shop", lambda _: floor.shop)
    floor.start()
    floor.ret("1", customer_phone=PHONE, customer_email="ann@example.com", created_at=datetime.now(UTC))
    if table == "event":
        floor.qualify(floor.look(datetime.now(UTC)), "Loop Payment Transaction")
    floor.conn.execute(f"ALTER TABLE {table} ADD CONSTRAINT surprise CHECK (false) NOT VALID")
    floor.conn.execute("UPDATE run SET dag_id = 'd', run_id = 'r'")
    with pytest.raises(Exception, match=rf"refused a statement \(CheckViolation 23514 {table} surprise\)") as caught:
        operator.execute(CONTEXT)
    told = "".join(traceback.format_exception(caught.value))
    assert PHONE not in told
    assert "ann@example.com" not in told


def test_a_ledger_whose_login_may_make_no_temporary_table_is_a_persons_matter(
    connections: None, floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "sound", lambda: {"default": floor.shop})
    monkeypatch.setattr(settings, "shop", lambda _: floor.shop)
    database = str(psycopg.conninfo.conninfo_to_dict(floor.conninfo)["dbname"])
    floor.conn.execute(f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
    floor.conn.execute("CREATE ROLE pipeline LOGIN")
    try:
        floor.conn.execute("GRANT ALL ON SCHEMA loop_attentive TO pipeline")
        floor.conn.execute("GRANT ALL ON ALL TABLES IN SCHEMA loop_attentive TO pipeline")
        ledger = json.loads(os.environ["AIRFLOW_CONN_LOOP_ATTENTIVE_DB"]) | {"login": "pipeline"}
        monkeypatch.setenv("AIRFLOW_CONN_LOOP_ATTENTIVE_DB", json.dumps(ledger))
        with pytest.raises(AirflowFailException, match=r"^The login of .* to create temporary .* grant it TEMPORARY"):
            LookOperator(task_id="extract", shop="default").execute(CONTEXT)
    finally:
        floor.conn.execute("DROP OWNED BY pipeline; DROP ROLE pipeline")
