"""The ledger's database (PostgreSQL: mirror and ledger): SQL files and connections."""

from functools import cache
from typing import Any

import psycopg
from psycopg import conninfo as libpq

from loop_attentive.catalogue import INCLUDE
from loop_attentive.errors import NeedsMending

CONNECTION_ID = "loop_attentive_db"

SESSION = {"application_name": "loop_attentive", "options": "-c timezone=UTC -c search_path=loop_attentive,pg_temp"}


LIBPQ_OPTIONS = frozenset(
    {"sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "keepalives", "keepalives_idle", "host", "port"}
)
"""What an Airflow connection's extra may tell libpq."""


@cache
def sql(name: str) -> str:
    """The text of include/sql/<name>.sql."""
    return (INCLUDE / "sql" / f"{name}.sql").read_text()


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
    extras = {key: value for key, value in connection.extra_dejson.items() if key in LIBPQ_OPTIONS}
    return libpq.make_conninfo("", **{key: value for key, value in (parts | extras).items() if value})


def connect(conninfo: str, *, autocommit: bool = False) -> psycopg.Connection[Any]:
    """A connection whose session speaks UTC; raises NeedsMending when the server does not let us in."""
    try:
        return psycopg.connect(libpq.make_conninfo(conninfo, **SESSION), autocommit=autocommit)
    except psycopg.OperationalError as error:
        raise unreachable(error) from None


async def aconnect(conninfo: str, *, autocommit: bool = False) -> psycopg.AsyncConnection[Any]:
    """As connect, for coroutines; raises psycopg.OperationalError, which the sender may wait out."""
    return await psycopg.AsyncConnection.connect(libpq.make_conninfo(conninfo, **SESSION), autocommit=autocommit)


class DatabaseAway(Exception):
    """The ledger's database cannot be reached just now; a retry may help."""


def unreachable(error: psycopg.OperationalError) -> Exception:
    """What to raise for a failed connection: a person's matter if the server refused us, else one for a retry.

    libpq gives no SQLSTATE for a failed log-in, so its (unlocalised) words decide.
    """
    words = str(error)
    refused = ("authentication failed", "does not exist", "no password supplied", "no pg_hba.conf entry")
    if any(word in words for word in refused):
        return NeedsMending(
            f"The database of connection {CONNECTION_ID} refused the log-in, or has no such role or database: "
            "mend the connection's host, login, password or schema (the database's name)."
        )
    return DatabaseAway(f"The database of connection {CONNECTION_ID} cannot be reached: is it up, and its host right?")
