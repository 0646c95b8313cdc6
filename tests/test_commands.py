"""What commands tell whoever runs them beside Airflow."""

import psycopg
import pytest

from loop_attentive import commands
from loop_attentive.errors import NeedsMending


def test_a_row_that_the_database_refuses_is_not_shown(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        with psycopg.connect(ledger) as conn:
            conn.execute("INSERT INTO loop_attentive.opt_out (shop, person_hash, given) VALUES ('canary', NULL, true)")
        return 0

    assert commands.exit_status(work) == 1
    told = capsys.readouterr().err
    assert "loop_attentive_db refused a statement (NotNullViolation 23502 opt_out)" in told
    assert "canary" not in told


def test_what_a_person_must_mend(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise NeedsMending("Mend it.")

    assert commands.exit_status(work) == 1
    assert capsys.readouterr().err == "Mend it.\n"
    assert commands.exit_status(lambda: 3) == 3
