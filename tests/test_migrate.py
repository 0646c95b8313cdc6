"""The database comes and goes as a whole, whoever migrates it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from loop_attentive import revision
from loop_attentive.errors import NeedsMending
from loop_attentive.migrate import SCRIPTS, migrate
from sandbox.airflow import inherited

EVERYTHING = """
SELECT 'relation', relname FROM pg_class WHERE relnamespace = to_regnamespace('loop_attentive')
UNION ALL
SELECT 'routine', proname FROM pg_proc WHERE pronamespace = to_regnamespace('loop_attentive')
UNION ALL
SELECT 'type', typname FROM pg_type WHERE typnamespace = to_regnamespace('loop_attentive')
"""


NEEDED = revision.known()[-1]


def found(conninfo: str) -> str | None:
    with psycopg.connect(conninfo) as connection:
        return revision.found(connection)


def check(conninfo: str) -> None:
    with psycopg.connect(conninfo) as connection:
        revision.check(connection)


def everything(conninfo: str) -> set[tuple[str, str]]:
    with psycopg.connect(conninfo) as connection:
        return set(connection.execute(EVERYTHING).fetchall())


def test_up_down_and_up_again(database: str) -> None:
    migrate(database)
    first = everything(database)
    assert {("relation", "event"), ("relation", "audit_event"), ("routine", "event_key")} <= first
    assert found(database) == NEEDED

    migrate(database, "base")
    assert found(database) is None
    assert {name for _, name in everything(database)} == {
        "alembic_version", "alembic_version_pkc", "_alembic_version"
    }  # fmt: skip

    migrate(database)
    assert everything(database) == first


def test_a_revision_that_knows_of_no_opt_out_and_no_stop_is_refused_while_there_is_one(database: str) -> None:
    migrate(database)
    decided = "INSERT INTO loop_attentive.decision (shop, action, decided_by, why) VALUES ('default', '{}', 'ann', '')"
    with psycopg.connect(database, autocommit=True) as connection:
        for known, put_right in (
            ("INSERT INTO loop_attentive.opt_out VALUES ('default', 1, true)", "DELETE FROM loop_attentive.opt_out"),
            (decided.format("stop"), decided.format("go on")),
        ):
            connection.execute(known)
            with pytest.raises(NeedsMending, match="revision 0003 cannot know"):
                migrate(database, "0003")
            assert found(database) == NEEDED
            migrate(database, "0004")
            migrate(database)
            connection.execute(put_right)
    migrate(database, "0003")
    assert found(database) == "0003"


def test_migrating_twice_changes_nothing(ledger: str) -> None:
    with psycopg.connect(ledger) as connection:
        connection.execute("INSERT INTO loop_attentive.shop VALUES ('default', now())")
    migrate(ledger)
    with psycopg.connect(ledger) as connection:
        assert connection.execute("SELECT shop FROM loop_attentive.shop").fetchall() == [("default",)]


def test_several_at_once(database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [database] * 4))
    check(database)


def test_a_role_that_owns_only_its_schema(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE ROLE pipeline LOGIN")
        try:
            connection.execute("CREATE SCHEMA loop_attentive AUTHORIZATION pipeline")
            role = make_conninfo(database, user="pipeline")
            migrate(role)
            check(role)
            migrate(role, "base")
        finally:
            connection.execute("DROP OWNED BY pipeline CASCADE")
            connection.execute("DROP ROLE pipeline")


@pytest.mark.parametrize("to", ["head", "base"])
def test_a_role_that_may_not_do_it_is_told_so_in_a_line(database: str, to: str) -> None:
    """Whether it may not make the schema, or owns none of its tables: these go by another way."""
    if to == "base":
        migrate(database)
    parts = conninfo_to_dict(database)
    own = f"postgres://pipeline@{quote(str(parts['host']), safe='')}/{parts['dbname']}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE ROLE pipeline LOGIN")
        if to == "base":
            connection.execute("GRANT USAGE ON SCHEMA loop_attentive TO pipeline")
            connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA loop_attentive TO pipeline")
        try:
            done = subprocess.run(
                [sys.executable, "-m", "loop_attentive.migrate", "--to", to],
                env={**os.environ, "PYTHONPATH": "plugins", "AIRFLOW_CONN_LOOP_ATTENTIVE_DB": own},
                capture_output=True, text=True,
            )  # fmt: skip
        finally:
            connection.execute("DROP OWNED BY pipeline")
            connection.execute("DROP ROLE pipeline")
    assert done.returncode == 1
    assert "The login of connection loop_attentive_db may not do what it has to (" in done.stderr
    assert "Traceback" not in done.stderr


def test_tasks_and_alembic_need_the_same_revision() -> None:
    assert ScriptDirectory(str(SCRIPTS)).get_current_head() == NEEDED


def test_check_tells_what_to_do(database: str) -> None:
    with pytest.raises(NeedsMending, match=f"is not migrated: it has nothing, this code needs {NEEDED}; run `make"):
        check(database)
    migrate(database)
    check(database)
    migrate(database, "base")
    with pytest.raises(NeedsMending, match="it has nothing"):
        check(database)


def test_a_database_of_another_version_of_the_code(ledger: str) -> None:
    with psycopg.connect(ledger) as connection:
        connection.execute("UPDATE loop_attentive.alembic_version SET version_num = '9999'")
    with pytest.raises(
        NeedsMending, match="at revision 9999, which this code does not know: it was migrated by a newer"
    ):
        check(ledger)
    with pytest.raises(NeedsMending, match="at revision 9999, which this code does not know"):
        migrate(ledger)


def test_a_revision_that_does_not_exist(database: str) -> None:
    with pytest.raises(NeedsMending, match="no database revision '0000'"):
        migrate(database, "0000")
    assert everything(database) == set()


def run(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it, with no connection but the one given."""
    return subprocess.run(
        [sys.executable, "-m", "loop_attentive.migrate", *arguments],
        env={**inherited(), "PYTHONPATH": "plugins", "AIRFLOW_HOME": str(home), **environment},
        capture_output=True,
        text=True,
    )


def test_the_command(database: str, tmp_path: Path) -> None:
    parts = conninfo_to_dict(database)
    socket = quote(str(parts["host"]), safe="")
    connection = {"AIRFLOW_CONN_LOOP_ATTENTIVE_DB": f"postgres://{parts['user']}:@{socket}/{parts['dbname']}"}

    up = run(tmp_path, **connection)
    assert up.stdout.endswith(f"is at {NEEDED} (before: base).\n"), up.stderr
    down = run(tmp_path, "--to", "base", **connection)
    assert down.stdout.endswith(f"is at base (before: {NEEDED}).\n"), down.stderr
    missing = run(tmp_path)
    assert missing.stderr.startswith("There is no connection loop_attentive_db: ")
    assert missing.returncode == 1


def test_the_locale_has_no_say_in_what_is_read(database: str) -> None:
    of_seven_bits = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": "plugins"}
    code = "import sys; from loop_attentive.migrate import migrate; migrate(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, database], env={**os.environ, **of_seven_bits}, check=True)
    check(database)
