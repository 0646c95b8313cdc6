"""What fakesnow lacks of Snowflake for dlt to load into it, made up as Snowflake documents it.

- Several statements in one call (num_statements=0), as dlt makes tables and merges.
- A schema in quotes at the log-in.
- A stage between quotes, in PUT and COPY INTO; JSON by the names of its columns in COPY INTO; REMOVE.

Only the very statements that dlt 1.31 writes are known: any other reaches fakesnow, which refuses it.
"""

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PUT = re.compile(r"PUT 'file://(?P<file>[^']+)' '(?P<folder>@[^']+)' OVERWRITE = TRUE, AUTO_COMPRESS = FALSE")
COPY = re.compile(
    r"COPY INTO (?P<table>\S+)\s+FROM '(?P<staged>@[^']+)'\s+"
    r"FILE_FORMAT = \(TYPE = 'JSON', BINARY_FORMAT = 'BASE64'\)\s+MATCH_BY_COLUMN_NAME='CASE_INSENSITIVE'\s*"
)
REMOVE = re.compile(r"REMOVE '(?P<staged>@[^']+)'")
DONE = "SELECT 'Statement executed successfully.' AS status"


class Stages:
    """The tables' stages, which are gone with the test."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.came: list[str] = []

    def put(self, file: str, folder: str) -> None:
        staged = f"{folder}/{Path(file).name}"
        self.files[staged] = Path(file).read_bytes()
        self.came.append(staged)

    def rows(self, staged: str) -> list[dict[str, Any]]:
        """Names of columns in upper case: they are matched whatever their case."""
        lines = gzip.decompress(self.files[staged]).splitlines()
        return [{name.upper(): value for name, value in json.loads(line).items()} for line in lines]


@contextmanager
def snowflake_for_dlt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stages]:
    """In this process; empty at first, and not even a schema made before somebody makes it."""
    import fakesnow
    from fakesnow.cursor import FakeSnowflakeCursor
    from fakesnow.instance import FakeSnow

    stages = Stages()
    connect, execute = FakeSnow.connect, FakeSnowflakeCursor.execute

    def connected(self: Any, database: str | None = None, schema: str | None = None, **more: Any) -> Any:
        return connect(self, database, schema and schema.strip('"'), **more)

    def executed(self: Any, command: str, params: Any = None, *args: Any, num_statements: int = 1, **more: Any) -> Any:
        for statement in command.removesuffix(";").split(";\n") if num_statements == 0 else [command]:
            one(self, statement, params, *args, **more)
        return self

    def one(self: Any, statement: str, params: Any, *args: Any, **more: Any) -> None:
        if put := PUT.fullmatch(statement):
            stages.put(put["file"], put["folder"])
            execute(self, DONE)
        elif copy := COPY.fullmatch(statement):
            execute(self, *copied(copy["table"], stages.rows(copy["staged"])))
        elif remove := REMOVE.fullmatch(statement):
            del stages.files[remove["staged"]]
            execute(self, DONE)
        else:
            execute(self, statement, params, *args, **more)

    monkeypatch.setattr(FakeSnow, "connect", connected)
    monkeypatch.setattr(FakeSnowflakeCursor, "execute", executed)
    with fakesnow.patch(create_schema_on_connect=False):
        yield stages


def copied(table: str, rows: list[dict[str, Any]]) -> tuple[str, list[Any]]:
    """An INSERT, so that fakesnow takes it into its transaction. A name that is not in each row is NULL there."""
    if not rows:
        return DONE, []
    names = sorted({name for row in rows for name in row})
    columns = ", ".join(f'"{name}"' for name in names)
    values = ", ".join(["(" + ", ".join(["%s"] * len(names)) + ")"] * len(rows))
    values_told = [row.get(name) for row in rows for name in names]
    return f"INSERT INTO {table} ({columns}) VALUES {values}", values_told
