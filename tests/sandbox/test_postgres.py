"""The sandbox's PostgreSQL starts wherever somebody clones the project, and whatever their shell has set."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sandbox.postgres import postgres


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="la in my Dürer's "))
    yield path
    shutil.rmtree(path)


def test_in_a_path_with_blanks_and_a_locale_that_the_machine_has_not(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "xx_XX.UTF-8")
    with postgres(directory / "pg") as conninfo, postgres(directory / "pg") as again:
        assert again == conninfo
        with psycopg.connect(conninfo) as connection:
            assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
