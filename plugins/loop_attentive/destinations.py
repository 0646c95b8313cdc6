"""Where the sync lands: an Airflow connection as dlt's destination of the same kind."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dlt
import sqlalchemy as sa
from dlt.common.configuration.specs import ConnectionStringCredentials
from dlt.common.destination import Destination
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials
from dlt.destinations.impl.postgres.configuration import PostgresCredentials
from dlt.destinations.impl.snowflake.configuration import SnowflakeCredentials

from loop_attentive import db
from loop_attentive.errors import NeedsMending


def destination(warehouse: Any) -> Destination[Any, Any]:
    """dlt's destination for an Airflow connection; raises NeedsMending where the sync cannot land there.

    Raises ImportError where the warehouse's client is not installed.
    """
    made = credentials(warehouse)
    destination: Destination[Any, Any] = KINDS[warehouse.conn_type][0](credentials=made)
    destination.client_class  # noqa: B018  (imports it)
    return destination


def place(warehouse: Any) -> str:
    """Names the database of a connection, as another connection to it would."""
    made = credentials(warehouse)
    return f"{made.data_location()}/{made.database}"


def credentials(warehouse: Any) -> ConnectionStringCredentials:
    if warehouse.conn_type not in KINDS:
        raise NeedsMending(
            f"Connection {warehouse.conn_id} is of type {warehouse.conn_type!r}: loop_attentive_sync loads into "
            "PostgreSQL, DuckDB and Snowflake. For another warehouse run a dlt pipeline of your own, and take loop_api "
            "out of shops.yaml."
        )
    return KINDS[warehouse.conn_type][1](warehouse)


def _postgres(warehouse: Any) -> PostgresCredentials:
    """Its host may be a socket directory."""
    options = {name: str(value) for name, value in db.libpq_options(warehouse).items()}
    host = warehouse.host or options.pop("host", None) or "localhost"
    if host.startswith("/"):
        options["host"], host = host, "localhost"  # dlt wants a name there, libpq takes the later one
    url = sa.URL.create(
        "postgresql", warehouse.login, warehouse.password or "", host, warehouse.port or 5432, warehouse.schema, options
    )
    return PostgresCredentials(url.render_as_string(hide_password=False))


def _duckdb(warehouse: Any) -> DuckDbCredentials:
    extra = warehouse.extra_dejson
    file = extra.get("database") or warehouse.host or ":memory:"
    if file == ":memory:" or file.startswith("md:") or warehouse.password or extra.get("motherduck_token"):
        raise NeedsMending(
            f"Connection {warehouse.conn_id} names no DuckDB file: loop_attentive_sync loads neither into memory nor "
            "into MotherDuck. Make its host the file's path, and take its password and database out."
        )
    if extra.get("read_only"):
        raise NeedsMending(
            f"Connection {warehouse.conn_id} is read_only, and loop_attentive_sync must write: take that out of its "
            "extra."
        )
    limits = {name: extra[name] for name in ("memory_limit", "threads", "temp_directory") if name in extra}
    return DuckDbCredentials(str(Path(file).resolve()), global_config=limits)


def _snowflake(warehouse: Any) -> SnowflakeCredentials:
    """By a password, or a private key, whose passphrase is the password then."""
    extra = warehouse.extra_dejson
    key = {"private_key": extra.get("private_key_content"), "private_key_path": extra.get("private_key_file")}
    secret = "private_key_passphrase" if any(key.values()) else "password"
    way = (extra.get("authenticator") or "snowflake").lower()
    if way not in ("snowflake", "snowflake_jwt") or not (warehouse.password or any(key.values())):
        raise NeedsMending(
            f"Connection {warehouse.conn_id} has neither a password nor a private key, or another authenticator: "
            "loop_attentive_sync logs in to Snowflake by these two alone."
        )
    if missing := [name for name in ("account", "database") if not extra.get(name)]:
        raise NeedsMending(f"Connection {warehouse.conn_id} lacks {' and '.join(missing)} in its extra.")
    told = {
        "host": ".".join(filter(None, [extra["account"], extra.get("region")])),
        "username": warehouse.login,
        "database": extra["database"],
        "warehouse": extra.get("warehouse"),
        "role": extra.get("role"),
    }
    return SnowflakeCredentials(
        {name: value for name, value in (told | key | {secret: warehouse.password}).items() if value}
    )


KINDS: dict[str, tuple[Callable[..., Destination[Any, Any]], Callable[[Any], ConnectionStringCredentials]]] = {
    "postgres": (dlt.destinations.postgres, _postgres),
    "postgresql": (dlt.destinations.postgres, _postgres),
    "duckdb": (dlt.destinations.duckdb, _duckdb),
    # The files that it loads from hold e-mail addresses, and would stay in the tables' stages.
    "snowflake": (partial(dlt.destinations.snowflake, keep_staged_files=False), _snowflake),
}
"""By an Airflow connection's type: dlt's destination, and what it is to know of the connection."""
