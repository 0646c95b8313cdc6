"""A real PostgreSQL for the tests: one server a pytest process, one database a test. And a home for Airflow."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from loop_attentive.migrate import migrate
from sandbox.postgres import postgres as running_postgres
from tests.floor import Floor

ROOT = Path(__file__).resolve().parent.parent

# Before anything imports Airflow: nobody's own Airflow has a say in the tests, nor they in it; nor has a proxy.
for name in [name for name in os.environ if name.startswith("AIRFLOW") or name.lower().endswith("_proxy")]:
    del os.environ[name]
_home = tempfile.TemporaryDirectory(prefix="la-home-")
os.environ |= {
    "SANDBOX_HOME": _home.name,
    "AIRFLOW_HOME": f"{_home.name}/airflow",
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
}

# A pytest that is ended from outside stops its PostgreSQL too.
signal.signal(signal.SIGTERM, signal.default_int_handler)

_numbers = count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Conninfo of a server's superuser. Nothing here need survive a power cut, so it does not wait for the disk."""
    directory = Path(tempfile.mkdtemp(prefix="la-"))
    try:
        with running_postgres(directory / "pg") as conninfo:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                    connection.execute(f"ALTER SYSTEM SET {setting} = off")
                connection.execute("SELECT pg_reload_conf()")
            yield conninfo
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """Conninfo of a fresh, empty database."""
    with _fresh_database(postgres, template="template0") as conninfo:
        yield conninfo


@pytest.fixture
def ledger(postgres: str, migrated: str) -> Iterator[str]:
    """Conninfo of a fresh database with mirror and ledger."""
    with _fresh_database(postgres, template=migrated) as conninfo:
        yield conninfo


@pytest.fixture
def ledgers(postgres: str, migrated: str) -> Iterator[Callable[[], str]]:
    """Makes as many such databases as a test wants."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(_fresh_database(postgres, template=migrated))


@pytest.fixture(scope="session")
def migrated(postgres: str) -> Iterator[str]:
    """Name of a migrated database to copy: that is much quicker than to migrate each time."""
    with _fresh_database(postgres, template="template0") as conninfo:
        migrate(conninfo)
        yield str(conninfo_to_dict(conninfo)["dbname"])


@contextmanager
def _fresh_database(postgres: str, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield make_conninfo(postgres, dbname=name)
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def floors(ledger: str) -> Iterator[Callable[..., Floor]]:
    """Opens a shop to test on, with the source's column types or the shop's settings that a test wants."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(closing(Floor(ledger, **options)))


@pytest.fixture
def floor(floors: Callable[..., Floor]) -> Floor:
    """A shop to test on; the freshness of its source is not judged."""
    return floors()
