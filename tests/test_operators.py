"""The steps as Airflow sees them: the connections that they work by."""

from urllib.parse import quote

import psycopg
import pytest
import sqlalchemy as sa
from airflow.sdk import Connection

from loop_attentive.errors import NeedsMending
from loop_attentive.operators import connection, warehouse_engine


@pytest.mark.parametrize("conn_type", ["http", "no_such_engine", ""])
def test_a_warehouse_that_nothing_installed_reads_with_sql(conn_type: str) -> None:
    with pytest.raises(NeedsMending, match=r"Connection loop_warehouse is of type .*install the provider"):
        warehouse_engine(Connection(conn_id="loop_warehouse", conn_type=conn_type))


def test_a_postgres_warehouse_is_reached_as_its_extra_says(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URI may name the socket's directory, or sslmode, behind its question mark: in Airflow that is the extra."""
    directory = quote(str(psycopg.conninfo.conninfo_to_dict(postgres)["host"]), safe="")
    monkeypatch.setenv(
        "AIRFLOW_CONN_LOOP_WAREHOUSE", f"postgresql://postgres@/postgres?host={directory}&sslmode=disable"
    )
    engine = warehouse_engine(connection("loop_warehouse"))
    with engine.connect() as warehouse:
        assert warehouse.execute(sa.text("SELECT 1")).scalar() == 1
    engine.dispose()
