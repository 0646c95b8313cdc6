"""The search for leaks finds them: without this, that it finds none would tell nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
import psycopg
import pytest

from tests.e2e import leaks
from tests.e2e.collector import Collector


@pytest.mark.parametrize("word", leaks.PRIVATE)
@pytest.mark.parametrize("wrapped", ["{}", "DETAIL:  Failing row contains ({}, null).", '{{"event": "no {}"}}'])
def test_a_line_of_a_log(tmp_path: Path, word: str, wrapped: str) -> None:
    clean, leaking = tmp_path / "clean.log", tmp_path / "leaking.log"
    clean.write_text("3 events are held.\n" * 1_000)
    leaking.write_text(f"{clean.read_text()}{wrapped.format(word)}\n{clean.read_text()}")
    assert word in leaks.in_files([clean, leaking])[str(leaking)]
    assert leaks.in_files([clean]) == {}


def test_a_metric_that_airflow_sends() -> None:
    collector = Collector()
    with collector.running() as settings:
        for said in (b"\x0a\x08ti.start\x12", b"\x0a\xff task.canary.customer@example.com\x80\x12"):
            httpx.post(settings["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"], content=said, trust_env=False)
    assert leaks.in_metrics(collector.said[:1]) == set()
    assert leaks.in_metrics(collector.said) == {"canary.customer@example.com"}


@pytest.mark.parametrize(
    ("type_", "shown"),
    [
        ("text", str),
        ("jsonb", lambda word: json.dumps({"conf": [{"why": f"of {word}"}]})),
        ("text[]", lambda word: [f"at {word}"]),
        ("bytea", lambda word: f"of {word}".encode()),
        ("text", lambda word: f"?customer={quote(word, safe='')}"),
    ],
)
def test_a_row_of_a_table_or_view(database: str, type_: str, shown: Callable[[str], object]) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE SCHEMA somewhere")
        connection.execute(f"CREATE TABLE somewhere.leaking (id int, said {type_})")
        connection.execute("CREATE TABLE somewhere.clean (id int, said text)")
        connection.execute("INSERT INTO somewhere.clean VALUES (1, 'nothing'), (2, NULL)")
        connection.execute("CREATE VIEW somewhere.looking AS SELECT said FROM somewhere.leaking")
        connection.execute("INSERT INTO somewhere.leaking VALUES (1, NULL), (2, NULL)")
        assert leaks.relations(connection, "somewhere") == {"leaking", "clean", "looking"}
        assert leaks.in_tables(connection, "somewhere") == {}
        for word in leaks.PRIVATE:
            connection.execute("UPDATE somewhere.leaking SET said = %s WHERE id = 2", [shown(word)])
            found = leaks.in_tables(connection, "somewhere")
            assert found.keys() == {"leaking", "looking"}
            assert word in found["leaking"] & found["looking"]
        assert leaks.in_tables(connection, "somewhere", but={"leaking", "looking"}) == {}
