"""The sessions of the ledger's database: ours whatever the server, the database or the role has set for others."""

import asyncio
import json
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from airflow.sdk import Connection
from psycopg import sql
from psycopg.adapt import PyFormat
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from loop_attentive import db
from loop_attentive.errors import NeedsMending
from loop_attentive.migrate import migrate
from loop_attentive.settings import Shop
from sandbox.attentive import Fault, Standin
from tests.floor import HOUR, T0, Floor
from tests.sending import CREATED, UPDATED, Book, Sending, tell


def set_for_others(conninfo: str, **settings: str) -> None:
    """Sets what sessions in this database begin with."""
    name = sql.Identifier(str(conninfo_to_dict(conninfo)["dbname"]))
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for setting, value in settings.items():
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, sql.Identifier(setting), sql.Literal(value))
            )


def test_what_is_set_for_others_changes_nothing(ledger: str, caplog: pytest.LogCaptureFixture) -> None:
    floor = Floor(ledger)
    floor.engine = sa.create_engine("postgresql+psycopg://", creator=lambda: db.connect(ledger))  # no matter of ours
    set_for_others(
        ledger,
        default_transaction_isolation="serializable",
        datestyle="German, DMY",
        intervalstyle="sql_standard",
        timezone="Asia/Kolkata",
        client_encoding="LATIN1",
        bytea_output="escape",
        search_path="public",
        statement_timeout="1ms",
        lock_timeout="1ms",
        idle_in_transaction_session_timeout="10ms",
        idle_session_timeout="50ms",
        synchronous_commit="off",
    )
    migrate(ledger)
    floor.close()
    floor.conn = db.connect(ledger, autocommit=True)
    floor.start()
    floor.ret("7", created_at=T0 + HOUR, updated_at=T0 + HOUR, order_name="№ 7 €")
    [created] = floor.run(T0 + 2 * HOUR)
    floor.conn.close()
    assert (created.occurred_at, created.properties["order"]) == (T0 + HOUR, "№ 7 €")

    book = Book(ledger, Shop(name="default"))
    book.run("DELETE FROM event")
    book.add_many(100)
    for return_id in range(100_001, 100_031):
        book.add(UPDATED, str(return_id))

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults += [Fault(status=429, retry_after=1, count=1), Fault(delay=0.02, jitter=0.1)]
        await asyncio.gather(*(sending(requests_per_second=600, patience=3) for _ in range(2)))
        assert {record.type for record in standin.received if record.accepted} == {CREATED, UPDATED}

    tell(book, story, limit=None)
    assert book.states() == {"accepted": 130}
    assert "cannot be reached" not in caplog.text


def test_what_is_committed_is_on_the_disk(ledger: str) -> None:
    """A mark that a server forgets when it falls over lets its event be sent again."""
    set_for_others(ledger, synchronous_commit="off")

    async def senders() -> Any:
        async with await db.aconnect(ledger) as conn:
            return await (await conn.execute("SHOW synchronous_commit")).fetchone()

    assert asyncio.run(senders()) == ("on",)
    with db.connect(ledger) as conn:
        assert conn.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_a_database_that_can_only_be_read_is_told_in_one_line(ledger: str) -> None:
    set_for_others(ledger, default_transaction_read_only="on")
    with pytest.raises(NeedsMending, match=r"connection loop_attentive_db can only be read: .*Name the primary"):
        db.connect(ledger)


def test_a_pooler_that_takes_no_settings_is_a_persons_matter() -> None:
    told = db.unreachable(psycopg.OperationalError("connection failed: FATAL:  unsupported startup parameter: options"))
    assert isinstance(told, NeedsMending)
    assert "a pooler such as PgBouncer" in str(told)


def test_a_transaction_may_last_whatever_is_set_for_others(ledger: str) -> None:
    with psycopg.connect(ledger) as server:
        if server.info.server_version < db.HAS_TRANSACTION_TIMEOUT:
            pytest.skip("PostgreSQL knows transaction_timeout from 17 on.")
    set_for_others(ledger, transaction_timeout="30s")

    async def told(autocommit: bool) -> tuple[str, bool, TransactionStatus]:
        async with await db.aconnect(ledger, autocommit=autocommit) as conn:
            status = conn.info.transaction_status
            [(timeout,)] = await (await conn.execute("SHOW transaction_timeout")).fetchall()
            return timeout, conn.autocommit, status

    for autocommit in (True, False):
        with db.connect(ledger, autocommit=autocommit) as conn:
            assert (conn.info.transaction_status, conn.autocommit) == (TransactionStatus.IDLE, autocommit)
            assert conn.execute("SHOW transaction_timeout").fetchall() == [("0",)]
        assert asyncio.run(told(autocommit)) == ("0", autocommit, TransactionStatus.IDLE)


def test_the_environment_has_no_say_in_how_times_are_told(ledger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGTZ", "America/New_York")
    monkeypatch.setenv("PGDATESTYLE", "German")
    query = "SELECT timestamptz '2026-03-01 12:00'::text"

    async def told() -> list[tuple[str]]:
        async with await db.aconnect(ledger) as conn:
            return await (await conn.execute(query)).fetchall()

    with db.connect(ledger) as conn:
        assert conn.execute(query).fetchall() == [("2026-03-01 12:00:00+00",)]
    assert asyncio.run(told()) == [("2026-03-01 12:00:00+00",)]


def test_many_copies_by_one_cursor_cost_no_more_than_the_first_each(ledger: str) -> None:
    with db.connect(ledger) as conn, conn.cursor() as cur:
        cur.execute("CREATE TEMP TABLE staged (number integer, told jsonb)")
        for number in range(20):
            db.copy(cur, "staged", ("number", "told"), [(number, '{"how": "as text"}')])
        assert len(cur.adapters.get_dumper(Jsonb, PyFormat.AUTO).__mro__) < 10
        # and what the cursor itself writes is written as before
        documents = [Jsonb({"a": 1}), Jsonb({"how": "as text"})]
        assert cur.execute("SELECT count(*), %s FROM staged WHERE told = %s", documents).fetchall() == [(20, {"a": 1})]


def test_all_that_libpq_knows_can_be_told_in_the_extra() -> None:
    """A demand on security that is dropped without a word is none."""
    demands = {
        "sslmode": "verify-full",
        "sslcrl": "/crl",
        "channel_binding": "require",
        "target_session_attrs": "read-write",
    }
    connection = Connection(conn_id="x", conn_type="postgres", host="h", extra=json.dumps(demands | {"iam": False}))
    assert conninfo_to_dict(db.conninfo(connection)) == {"host": "h"} | demands


@pytest.mark.parametrize(
    ("libpq_says", "why"),
    [
        ('root certificate file "/ca.pem" does not exist', "cannot be asked as the connection says"),
        ("server does not support SSL, but SSL was required", "cannot be asked as the connection says"),
        ('FATAL:  role "loop" is not permitted to log in', "refused the log-in"),
        ('FATAL:  permission denied for database "shop"', "refused the log-in"),
        ('FATAL:  pg_hba.conf rejects connection for host "10.0.0.1", user "a", database "b"', "refused the log-in"),
        ("FATAL:  the database system is starting up", None),
        ("connection to server failed: Connection refused", None),
    ],
)  # fmt: skip
def test_what_no_retry_can_help(libpq_says: str, why: str | None) -> None:
    """The words are those of libpq 18 and PostgreSQL 18."""
    told = db.why_hopeless(psycopg.OperationalError(libpq_says))
    assert told is None if why is None else str(told).startswith(why)


def test_options_of_a_connection_go_before_ours(ledger: str) -> None:
    parts = conninfo_to_dict(ledger)
    extra = {"options": "-c deadlock_timeout=7s -c jit=on", "keepalives": 0}
    own = Connection(
        conn_id="x", conn_type="postgres", host=str(parts["host"]), login=str(parts["user"]),
        schema=str(parts["dbname"]),
        extra=json.dumps(extra),
    )  # fmt: skip
    assert "keepalives=0" in db.conninfo(own)
    with db.connect(db.conninfo(own)) as conn:
        assert db.scalar(conn, "SHOW deadlock_timeout") == "7s"
        assert db.scalar(conn, "SHOW jit") == "off"
