"""Brings the ledger's database to the state that this code needs, forwards or backwards (alembic).

    python -m loop_attentive.migrate [--to REVISION]

migrates the database of the Airflow connection `loop_attentive_db`.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any, cast

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from loop_attentive import db, revision
from loop_attentive.db import CONNECTION_ID, DatabaseAway, connect, refused
from loop_attentive.db import conninfo as conninfo_of
from loop_attentive.errors import NeedsMending

SCHEMA = "loop_attentive"
SCRIPTS = Path(__file__).parent / "migrations"

KNOWS_WHO_SAID_NO = "0004"
"""The first revision that has the list of those who said no, and the switch."""


def migrate(conninfo: str, to: str = "head") -> None:
    """Migrate a database to a revision, to "head", or to "base" (nothing), in one transaction.

    Raises NeedsMending when this code does not have the revision, or not the one that the database is at, and when it
    would go back to one that cannot know who said no, though somebody did.
    """
    target = _revision(to)
    engine = create_engine("postgresql+psycopg://", creator=lambda: connect(conninfo), poolclass=NullPool)
    with engine.begin() as connection:
        # Several may start at once; the later ones wait here and find the work done.
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('loop_attentive.migrate', 0))"))
        # A role that owns only this schema may not even say CREATE SCHEMA IF NOT EXISTS.
        if connection.scalar(text("SELECT to_regnamespace(:schema)"), {"schema": SCHEMA}) is None:
            connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        ledger = cast(psycopg.Connection[Any], connection.connection.driver_connection)
        before = revision.found(ledger)
        move = command.downgrade if target in _path_to(before) else command.upgrade
        if before and target < KNOWS_WHO_SAID_NO <= before:
            _refuse_to_forget(ledger, target)
        move(_config(connection=connection, schema=SCHEMA), target)


def _refuse_to_forget(ledger: psycopg.Connection[Any], target: str) -> None:
    """Raises NeedsMending while somebody said no, or a shop is stopped: an older version would send to them again."""
    if db.scalar(ledger, db.sql("ledger/kept_from")):
        raise NeedsMending(
            f"People said no, or a shop is stopped, and revision {target} cannot know: they would be sent to again. Go "
            f"back no further than {KNOWS_WHO_SAID_NO}, or to base, where the events are gone as well."
        )


def _config(**attributes: object) -> Config:
    config = Config(attributes=dict(attributes))
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _revision(name: str) -> str:
    """The full name of a revision of this code; "base" stays."""
    if name == "base":
        return name
    try:
        script = _scripts().get_revision(name)
    except CommandError:
        script = None
    if not script:
        raise NeedsMending(f"This code has no database revision {name!r}: use one from {SCRIPTS / 'versions'}.")
    return script.revision


def _path_to(found: str | None) -> list[str]:
    """Every revision that a database at `found` has gone through, and where it began."""
    if found is None:
        return ["base"]
    try:
        return [script.revision for script in _scripts().walk_revisions("base", found)] + ["base"]
    except CommandError:
        raise NeedsMending(
            f"The database of connection {CONNECTION_ID} is at revision {found}, which this code does not know: "
            "use the version of the code that migrated it, or a newer one."
        ) from None


def main() -> None:
    # Airflow takes seconds to import, and tasks use this module too.
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    logging.getLogger("alembic").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=f"Migrate the database of the Airflow connection {CONNECTION_ID}.")
    parser.add_argument("--to", metavar="REVISION", default="head", help="a revision, head (default) or base")
    to = parser.parse_args().to
    try:
        conninfo = conninfo_of(BaseHook.get_connection(CONNECTION_ID))
        with connect(conninfo) as connection:
            before = revision.found(connection)
        migrate(conninfo, to)
        with connect(conninfo) as connection:
            after = revision.found(connection)
    except AirflowNotFoundException:
        sys.exit(
            f"There is no connection {CONNECTION_ID}: set AIRFLOW_CONN_{CONNECTION_ID.upper()}; "
            "it is the PostgreSQL for mirror and ledger."
        )
    except (NeedsMending, DatabaseAway) as error:
        sys.exit(str(error))
    except (DBAPIError, psycopg.Error) as error:  # a migration's own SQL goes past SQLAlchemy
        refusal = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(refusal, psycopg.Error):
            raise
        sys.exit(str(refused(refusal)))
    print(f"The database of connection {CONNECTION_ID} is at {after or 'base'} (before: {before or 'base'}).")


if __name__ == "__main__":
    main()
