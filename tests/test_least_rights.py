"""The source is read with a login that may only read, and nothing more is asked of it."""

from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from loop_attentive import mirror
from loop_attentive.errors import NeedsMending
from loop_attentive.source import Source
from tests.floor import HOUR, T0, Floor


@pytest.fixture
def reader(floor: Floor) -> Iterator[str]:
    """Conninfo of a login that may do nothing but read the source's tables, and only in read-only transactions."""
    name = sql.Identifier("reader_of_" + str(conninfo_to_dict(floor.conninfo)["dbname"]))
    floor.conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'reads'").format(name))
    floor.conn.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(name))
    floor.conn.execute(sql.SQL("GRANT USAGE ON SCHEMA loop TO {}").format(name))
    floor.conn.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA loop TO {}").format(name))
    yield make_conninfo(floor.conninfo, user=name.as_string().strip('"'), password="reads")
    floor.conn.execute(sql.SQL("DROP OWNED BY {}").format(name))
    floor.conn.execute(sql.SQL("DROP ROLE {}").format(name))


def look(floor: Floor, conninfo: str) -> mirror.Look:
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo))
    try:
        return mirror.look(floor.conn, Source(engine, floor.shop), at=T0 + HOUR)
    finally:
        engine.dispose()


def test_a_login_that_only_reads_is_enough(floor: Floor, reader: str) -> None:
    floor.ret("1")
    floor.label("1")
    with psycopg.connect(reader) as its, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        its.execute("DELETE FROM loop.returns")
    assert look(floor, reader).changed == 2


def test_a_table_that_it_may_not_read_is_named_as_a_matter_of_grants(floor: Floor, reader: str) -> None:
    user = sql.Identifier(str(conninfo_to_dict(reader)["user"]))
    floor.conn.execute(sql.SQL("REVOKE SELECT ON loop.labels FROM {}").format(user))
    with pytest.raises(NeedsMending, match="SELECT"):
        look(floor, reader)


@pytest.mark.parametrize("hostile", ['loop"; DROP TABLE event; --', "loop'--", "loop returns", "loop\x00", ""])
def test_a_hostile_schema_name_is_refused(floor: Floor, hostile: str) -> None:
    with pytest.raises(ValueError, match="schema"):
        floor.settings(schema=hostile)
