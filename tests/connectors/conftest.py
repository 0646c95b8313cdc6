"""An empty warehouse on each engine that is proven, by its Airflow provider's connection where that is installed."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.floor import Floor

NO_SNOWFLAKE = pytest.mark.skipif(
    find_spec("fakesnow") is None, reason="needs an environment of its own: make test-snowflake"
)


def has_provider(engine: str) -> bool:
    try:
        return find_spec(f"airflow.providers.{engine}.hooks") is not None
    except ModuleNotFoundError:
        return False


def by_hook(monkeypatch: pytest.MonkeyPatch, **connection: Any) -> sa.Engine:
    """The engine that a task gets for an Airflow connection of these parts."""
    from loop_attentive import operators

    monkeypatch.setenv("AIRFLOW_CONN_LOOP_WAREHOUSE", json.dumps(connection))
    return operators.warehouse_engine(operators.connection("loop_warehouse"))


def duckdb_engine(monkeypatch: pytest.MonkeyPatch, file: str) -> sa.Engine:
    if has_provider("duckdb"):
        return by_hook(monkeypatch, conn_type="duckdb", host=file, extra={"memory_limit": "1GB"})
    return sa.create_engine(f"duckdb:///{file}")


SNOWFLAKE: dict[str, Any] = {
    "conn_type": "snowflake",
    "login": "user",
    "password": "password",
    "schema": "public",
    "extra": {"account": "account", "database": "warehouse"},
}


def snowflake_engine(monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    engine = by_hook(monkeypatch, **SNOWFLAKE)

    @sa.event.listens_for(engine, "before_cursor_execute", retval=True)
    def without_zones(*told: Any) -> tuple[str, Any]:
        """This statement of Snowflake's fakesnow does not know."""
        statement, parameters = told[2:4]
        return ("SELECT 1", {}) if statement.startswith("ALTER SESSION SET TIMEZONE") else (statement, parameters)

    return engine


@pytest.fixture(params=["postgresql", "duckdb", pytest.param("snowflake", marks=NO_SNOWFLAKE)])
def warehouse(
    request: pytest.FixtureRequest, tmp_path: Path, floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> Iterator[sa.Engine]:
    if request.param == "postgresql":
        yield floor.engine
        return
    if request.param == "duckdb":
        engine = duckdb_engine(monkeypatch, f"{tmp_path}/warehouse.duckdb")
        yield engine
        engine.dispose()
        return
    import fakesnow

    with fakesnow.patch():
        engine = snowflake_engine(monkeypatch)
        yield engine
        engine.dispose()
