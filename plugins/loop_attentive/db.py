"""The ledger's database (PostgreSQL: mirror and ledger): SQL files and connections."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, LiteralString, cast

import psycopg
from psycopg import conninfo as libpq
from psycopg import sql as composed
from psycopg.types.json import set_json_dumps

from loop_attentive.catalogue import INCLUDE
from loop_attentive.errors import NeedsMending

CONNECTION_ID = "loop_attentive_db"

SETTINGS = {
    "search_path": "loop_attentive,pg_temp",
    "intervalstyle": "postgres",
    "standard_conforming_strings": "on",
    "extra_float_digits": "1",
    # Few statements, each of many rows: memory for them pays, to compile them does not.
    "work_mem": "64MB",
    "temp_buffers": "64MB",
    "jit": "off",
    # What was committed has happened, a mark above all: a server that forgets one lets its event be sent again.
    "synchronous_commit": "on",
    # Whoever is cut off holds its locks for two minutes, and not for the hours that the system would wait.
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
    "tcp_user_timeout": "120000",
    # Looks take turns, and each sees what the one before has committed.
    "default_transaction_isolation": r"read\ committed",
    # A look waits for its turn and for the warehouse, inside its transaction, for as long as its task may.
    "lock_timeout": "0",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
"""Of our sessions, whatever the server's, the database's or the role's are: those are made for other work."""

TIMES = "SET timezone = 'UTC'; SET datestyle = 'ISO'"
"""As SETTINGS, but PGTZ and PGDATESTYLE in the environment would prevail over what a session begins with."""

STANDS_STILL = "20s"
"""How long a sender may do nothing inside a transaction until the server ends its session: others wait for the rows."""

HAS_TRANSACTION_TIMEOUT = 170_000
NO_TRANSACTION_TIMEOUT = "SET transaction_timeout = 0"
"""As the other timeouts in SETTINGS, but an older server would refuse a session that begins with it."""

SESSION = {
    "application_name": "loop_attentive",
    "client_encoding": "UTF8",
    "options": " ".join(f"-c {name}={value}" for name, value in SETTINGS.items()),
}

FIELDS = frozenset({"user", "password", "dbname"})
"""What an Airflow connection's fields alone tell libpq; its extra may tell all else."""


@cache
def sql(name: str) -> LiteralString:
    """The text of include/sql/<name>.sql."""
    return cast(LiteralString, (INCLUDE / "sql" / f"{name}.sql").read_text(encoding="utf-8"))


def script(cur: psycopg.Cursor[Any], name: str, parameters: dict[str, Any]) -> int:
    """Runs the statements of include/sql/<name>.sql; the number of rows that the last one touched."""
    cur.execute(sql(name), parameters)
    while cur.nextset():
        pass
    return cur.rowcount


def scalar(
    line: psycopg.Connection[Any] | psycopg.Cursor[Any],
    query: LiteralString | composed.Composed,
    parameters: Sequence[Any] | Mapping[str, Any] = (),
) -> Any:
    """The first value of the answer's first row; None where there is no row."""
    row = line.execute(query, parameters).fetchone()
    return row[0] if row else None


def now(line: psycopg.Connection[Any] | psycopg.Cursor[Any]) -> datetime:
    """By the ledger's clock, UTC."""
    return cast(datetime, scalar(line, "SELECT clock_timestamp()")).astimezone(UTC)


async def anow(line: psycopg.AsyncConnection[Any]) -> datetime:
    """As now, for coroutines."""
    row = await (await line.execute("SELECT clock_timestamp()")).fetchone()
    return cast(tuple[datetime], row)[0]


JUDGES_AGAIN, DECIDES = "judges {} again", "decides {}"
"""What one at a time does that writes new judgements of old events to the ledger; in braces goes the shop's name."""


def wait_for_turn(line: psycopg.Connection[Any] | psycopg.Cursor[Any], what: str) -> None:
    """Has something of a shop to oneself until the transaction ends. what: is done, with the shop's name."""
    line.execute("SELECT pg_advisory_xact_lock(hashtextextended('loop_attentive ' || %s, 0))", (what,))


def copy(cur: psycopg.Cursor[Any], table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Copies rows into a table, each value of its column's type; jsonb is given as JSON text.

    In binary form, which is many times cheaper than text for both sides.
    """
    into, names = composed.Identifier(table), composed.SQL(", ").join(map(composed.Identifier, columns))
    # A cursor of its own: psycopg derives what writes JSON anew each time it is set, so that thousands of copies by one
    # cursor would each cost more than the last.
    with psycopg.Cursor(cur.connection) as own:
        set_json_dumps(str, own)
        described = own.execute(composed.SQL("SELECT {} FROM {} LIMIT 0").format(names, into)).description or ()
        with own.copy(composed.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(into, names)) as copying:
            copying.set_types([column.type_code for column in described])
            for row in rows:
                copying.write_row(row)


def conninfo(connection: Any) -> str:
    """libpq's connection string for an Airflow connection to PostgreSQL; its host may be a socket directory."""
    if connection.conn_type not in ("postgres", "postgresql"):
        raise NeedsMending(
            f"Connection {connection.conn_id} is of type {connection.conn_type!r}: "
            "mirror and ledger need PostgreSQL; make it a postgres connection."
        )
    parts = {
        "host": connection.host,
        "port": connection.port,
        "user": connection.login,
        "password": connection.password,
        "dbname": connection.schema,
    }
    given = {key: value for key, value in (parts | libpq_options(connection)).items() if value not in (None, "")}
    return libpq.make_conninfo("", **given)


def libpq_options(connection: Any) -> dict[str, Any]:
    """What a PostgreSQL connection's extra tells libpq, of all that libpq knows."""
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()} - FIELDS
    return {key: value for key, value in connection.extra_dejson.items() if key in known}


def connect(conninfo: str, *, autocommit: bool = False) -> psycopg.Connection[Any]:
    """A connection whose session has our SETTINGS; raises NeedsMending when the server does not let us in, or write."""
    try:
        connection = psycopg.connect(of_our_session(conninfo), autocommit=autocommit)
        connection.execute(once_connected(connection.info.server_version))
        connection.commit()
    except psycopg.OperationalError as error:
        raise unreachable(error) from None
    if can_only_be_read(connection):
        connection.close()
        raise NeedsMending(
            f"The database of connection {CONNECTION_ID} can only be read: it is a standby, or its server, database or "
            "role sets default_transaction_read_only. Name the primary in the connection, or mend the setting."
        )
    return connection


async def aconnect(conninfo: str, *, autocommit: bool = False) -> psycopg.AsyncConnection[Any]:
    """As connect, for coroutines; raises psycopg.OperationalError, which the sender may wait out.

    Of a server that can only be read, too: a standby may be promoted in a moment.
    """
    connection = await psycopg.AsyncConnection.connect(of_our_session(conninfo), autocommit=autocommit)
    if can_only_be_read(connection):
        await connection.close()
        raise psycopg.OperationalError("The database can only be read just now.")
    await connection.execute(once_connected(connection.info.server_version))
    await connection.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, false)", (STANDS_STILL,))
    await connection.commit()
    return connection


def of_our_session(conninfo: str) -> str:
    """With what our sessions set, after the options that a connection has of its own (such as a proxy's endpoint)."""
    own = libpq.conninfo_to_dict(conninfo).get("options")
    options = " ".join(filter(None, [str(own or ""), SESSION["options"]]))
    return libpq.make_conninfo(conninfo, **SESSION | {"options": options})


def can_only_be_read(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    told = map(connection.info.parameter_status, ("in_hot_standby", "default_transaction_read_only"))
    return "on" in told


def once_connected(server_version: int) -> LiteralString:
    """What is set when a session has begun."""
    return f"{TIMES}; {NO_TRANSACTION_TIMEOUT}" if server_version >= HAS_TRANSACTION_TIMEOUT else TIMES


class DatabaseAway(Exception):
    """The ledger's database cannot be reached just now; a retry may help."""


class LedgerFailed(Exception):
    """The ledger's database refused a statement; a retry may help. Names no row: PostgreSQL shows those it refuses."""

    def __init__(self, error: psycopg.Error) -> None:
        where = [error.diag.table_name, error.diag.constraint_name]
        told = " ".join(filter(None, [type(error).__name__, error.sqlstate, *where]))
        super().__init__(f"The database of connection {CONNECTION_ID} refused a statement ({told}).")


def refused(error: psycopg.Error) -> Exception:
    """What to raise for a statement that failed: a person's matter, or one for a retry. Shows no row."""
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return NeedsMending(
            f"The login of connection {CONNECTION_ID} may not do what it has to ({error.diag.message_primary}): "
            "let it own the schema loop_attentive, and grant it TEMPORARY on the database."
        )
    return LedgerFailed(error)


def unreachable(error: psycopg.OperationalError) -> Exception:
    """What to raise for a failed connection: a person's matter if it can never work so, else one for a retry."""
    if why := why_hopeless(error):
        return NeedsMending(f"The database of connection {CONNECTION_ID} {why}.")
    if "unsupported startup parameter" in str(error):
        return NeedsMending(
            f"Between us and the database of connection {CONNECTION_ID} is a pooler such as PgBouncer, which does not "
            "take what our sessions set: name PostgreSQL's own host and port in the connection."
        )
    return DatabaseAway(f"The database of connection {CONNECTION_ID} cannot be reached: is it up, and its host right?")


UNUSABLE = (
    "root certificate",
    "server does not support SSL",
    "certificate file",
    "private key file",
    'value: "',
    "invalid port",
)
REFUSED = (
    "authentication failed", "does not exist", "no password supplied", "no pg_hba.conf entry",
    "pg_hba.conf rejects connection", "is not permitted to log in", "permission denied for database",
)  # fmt: skip
"""libpq gives no SQLSTATE for a failed log-in, so its (unlocalised) words decide."""


def why_hopeless(error: psycopg.OperationalError) -> str | None:
    """What is wrong with a connection that will fail each time, and what to do; None where a retry may help."""
    told = str(error)
    if any(words in told for words in UNUSABLE):
        return "cannot be asked as the connection says: mend its port, or what its extra says of SSL (sslmode ...)"
    if any(words in told for words in REFUSED):
        return (
            "refused the log-in, or has no such role or database: mend the connection's host, login, password or "
            "schema (the database's name)"
        )
    return None
