"""Which revision of the ledger's database this code needs. Told without alembic: every task asks it as it starts."""

from pathlib import Path
from typing import Any

import psycopg

from loop_attentive.db import CONNECTION_ID
from loop_attentive.errors import NeedsMending

VERSIONS = Path(__file__).parent / "migrations" / "versions"


def known() -> list[str]:
    """The revisions of the migrations, the oldest first."""
    return sorted(path.stem.partition("_")[0] for path in VERSIONS.glob("[0-9]*.py"))


def found(conn: psycopg.Connection[Any]) -> str | None:
    """The revision that a database is at; None when it has never been migrated."""
    if conn.execute("SELECT to_regclass('loop_attentive.alembic_version') IS NULL").fetchone() == (True,):
        return None
    row = conn.execute("SELECT version_num FROM loop_attentive.alembic_version").fetchone()
    return row[0] if row else None


def check(conn: psycopg.Connection[Any]) -> None:
    """Raises NeedsMending unless the database is at the revision that this code needs."""
    revision, revisions = found(conn), known()
    if revision == revisions[-1]:
        return
    if revision and revision not in revisions:
        raise NeedsMending(
            f"The database of connection {CONNECTION_ID} is at revision {revision}, which this code does not know: it "
            "was migrated by a newer version of this project. Deploy that one here too."
        )
    has = f"revision {revision}" if revision else "nothing"
    raise NeedsMending(
        f"The database of connection {CONNECTION_ID} is not migrated: it has {has}, this code needs {revisions[-1]}; "
        "run `make migrate` (in containers `docker compose run --rm init`)."
    )
