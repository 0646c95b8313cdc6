"""Reading Loop's data from the merchant's warehouse: any SQL engine that Airflow has a hook for, read only.

A connector's SELECTs (include/sql/sources/<connector>/) yield the canonical columns; here they are read in chunks.
"""

import json
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cached_property, partial
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Any, Literal, TypeVar, cast

import psycopg
import sqlalchemy as sa
from psycopg.adapt import Loader
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from loop_attentive.canonical import LABELS, TABLES, Row, Table, identifier, moment, money, text
from loop_attentive.connectors import Layout, Query, fingerprint
from loop_attentive.errors import NeedsMending
from loop_attentive.settings import Shop

CHUNK = 10_000
"""Rows read, normalised and handed on at a time: an extraction holds some of these chunks in memory."""

REREAD = timedelta(hours=2)
"""Each look reads again from this long before the cursor: rows land late and out of order."""

REREAD_OF_TWO_CLOCKS = timedelta(hours=26)
"""Where the cursor follows the later of two clocks: the other may come once a day."""

MOST_BY_ID = 1_000
"""Returns of which a table's rows are asked for by their ids; of more the table is read whole."""

TABLE = "table "
"""What a source tells begins with this where it is a table of the warehouse and no canonical column."""

MATCHED_WITHIN = timedelta(hours=1)
"""A payment is taken while a return is made: one at another time than this is not its."""

DUCKDB_IS_BUSY = "Could not set lock on file"
"""How DuckDB says that another process has the file open: one may write, or many may read."""


@dataclass
class Cursor:
    """How far the last completed look got in one table of this source.

    column: the time column it follows; None reads the whole table.
    position: the highest value seen, aware UTC. kind: how the source spells it, for a comparison it can make; None:
    not known, or as text, or the table's SELECTs do not agree.
    newest_synced_at: aware UTC, None if the table has none. has_rows: whether it ever had any.
    tells_shipped: of labels, whether any of them ever had a status. kinds: those that this look has met.
    """

    column: Literal["synced_at", "moved_at", "updated_at"] | None = None
    position: datetime | None = None
    kind: Literal["zoned", "naive"] | None = None
    newest_synced_at: datetime | None = None
    has_rows: bool = False
    tells_shipped: bool = False
    kinds: set[Literal["zoned", "naive"] | None] = field(default_factory=set)


NOW = {
    "mysql": "SELECT UTC_TIMESTAMP(6)",
    "mariadb": "SELECT UTC_TIMESTAMP(6)",
    "mssql": "SELECT SYSUTCDATETIME()",
}
"""Where CURRENT_TIMESTAMP has no zone and is the server's local time."""


class Source:
    """A shop's warehouse, read with its connector's SELECTs.

    engine: SQLAlchemy engine of the warehouse connection; its user needs SELECT only.
    """

    def __init__(self, engine: sa.Engine, shop: Shop) -> None:
        self.engine = engine
        self.shop = shop

    @property
    def is_known(self) -> bool:
        """Whether it was found out how the warehouse is read."""
        return "_found" in self.__dict__

    @property
    def identity(self) -> str:
        """Names what is read: another connection, connector, schema or table is another source."""
        tables = "".join(f"/{table}={name}" for table, name in sorted(self.shop.tables.items()))
        return f"{self.shop.warehouse}/{self.shop.connector}/{self.shop.source_schema}{tables}"

    @cached_property
    def told_by(self) -> str:
        """Names how it is read."""
        return fingerprint(self.shop)

    def clock(self) -> datetime:
        """The source's own time, aware UTC."""
        with self._session() as connection:
            asked = NOW.get(self.engine.dialect.name, "SELECT CURRENT_TIMESTAMP")
            now = moment(connection.execute(sa.text(asked)).scalar(), UTC)
        if now is None:
            raise NeedsMending(f"The source of connection {self.shop.warehouse} does not tell its time.")
        return now

    @property
    def layout(self) -> Layout:
        """How the warehouse is read, as it stands; raises NeedsMending for a SELECT of the shop that cannot serve."""
        return self._found[0]

    @property
    def queries(self) -> dict[str, list[Query]]:
        """What yields each canonical table; raises as layout does."""
        return self._found[1]

    @cached_property
    def _found(self) -> tuple[Layout, dict[str, list[Query]]]:
        forbidden: list[str] = []
        layout = Layout(self.shop, self.engine.dialect.name, partial(self._columns_of, forbidden))
        queries = {table.name: layout.queries(table.name, table.columns) for table in TABLES}
        if forbidden:
            what = ", ".join(dict.fromkeys(forbidden))
            raise NeedsMending(
                f"The login of connection {self.shop.warehouse} may not read {what}: grant it SELECT on that, and "
                "USAGE on its schema."
            )
        return layout, queries

    def missing(self) -> dict[str, list[str]]:
        """What must be there and is not, as the warehouse calls it: table -> absent columns (empty: no such table)."""
        return self.layout.problems()

    def absent(self) -> list[str]:
        """Canonical tables of which nothing can be read."""
        return [table.name for table in TABLES if not self.queries[table.name]]

    def told(self, table: str) -> list[str]:
        """The columns of a canonical table that are not NULL throughout, and from which tables of the warehouse it is
        read: "table loop.return_list".
        """
        [columns] = [known.columns for known in TABLES if known.name == table]
        told = frozenset[str]().union(*(query.told for query in self.queries[table]))
        if "nested" in told:
            told |= self.layout.connector.nested.get(table, {}).keys()
        if told & LINKS:
            told |= {"return_id"}
        tables = frozenset[str]().union(*(query.tables for query in self.queries[table]))
        return sorted(told.intersection(columns)) + sorted(TABLE + name for name in tables)

    def last_sync(self) -> datetime | None:
        """When the connector completed its last sync by its own record, aware UTC; None where it keeps none."""
        query = self.layout.last_sync()
        if query is None:
            return None
        log = self.shop.connector_log
        parameters = {"connection": log.connection if log else None} if ":connection" in query else {}
        with self._session() as connection:
            return moment(connection.execute(sa.text(query), parameters).scalar(), UTC)

    @contextmanager
    def _session(self, **options: Any) -> Iterator[sa.Connection]:
        """A connection on which times are read as they are meant, whatever the server's settings."""
        with self.engine.connect() as connection:
            _set_up(connection, self.shop.time_zone)
            _forgive_times(connection)
            yield connection.execution_options(**options)

    def _columns_of(self, forbidden: list[str], query: str, what: str) -> frozenset[str] | None:
        """The columns of a SELECT, case-folded; None when the warehouse has not what it names. what: it reads.

        forbidden: where what is there, but may not be read, is noted.
        """
        with self.engine.connect() as connection:
            try:
                return frozenset(name.casefold() for name in connection.execute(_literal(query)).keys())  # noqa: SIM118
            except (InterfaceError, OperationalError):
                raise
            except DBAPIError as error:
                if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
                    forbidden.append(what)
                return None

    def count(self, table: str) -> int:
        """Rows of a canonical table; 0 where nothing can be read of it."""
        with self.engine.connect() as connection:
            return sum(
                connection.execute(_literal(f"SELECT COUNT(*) FROM ({query.sql}) AS counted")).scalar() or 0  # noqa: S608
                for query in self.queries[table]
            )

    def has_any(self, table: str) -> bool:
        """Whether a canonical table has a row."""
        one: sa.Select[Any] = sa.select(sa.literal_column("1")).limit(1)
        with self.engine.connect() as connection:
            return any(
                connection.execute(one.select_from(_literal(f"({query.sql}) AS any_row"))).first()
                for query in self.queries[table]
            )

    def read(self, table: Table, since: Cursor) -> Iterator["Raw"]:
        """Chunks of raw rows at or after the cursor, and those that have no value in its column."""
        for query in self.queries[table.name]:
            yield from self._read(table, query, *self._after(since, query))

    def read_of(self, table: Table, return_ids: Collection[str]) -> Iterator["Raw"]:
        """Chunks of raw rows of these returns; of all where they are more than MOST_BY_ID, or where the table spells
        ids otherwise than we do (1.00, or with blanks).
        """
        if len(return_ids) > MOST_BY_ID or self._spells_otherwise(table):
            yield from self.read(table, Cursor())
            return
        is_named = self.layout.as_text("return_id") + " IN :return_ids"
        for query in self.queries[table.name]:
            yield from self._read(table, query, is_named, {"return_ids": list(return_ids)})

    def _spells_otherwise(self, table: Table) -> bool:
        """As a row of each SELECT tells."""
        columns: list[sa.ColumnClause[Any]] = [
            sa.literal_column(told) for told in ("return_id", self.layout.as_text("return_id"))
        ]
        one = sa.select(*columns).where(sa.text("return_id IS NOT NULL")).limit(1)
        with self.engine.connect() as connection:
            rows = [
                connection.execute(one.select_from(_literal(f"({query.sql}) AS any_row"))).first()
                for query in self.queries[table.name]
            ]
        return any(row is not None and row[1] != identifier(row[0]) for row in rows)

    def _after(self, since: Cursor, query: Query) -> tuple[str | None, dict[str, Any]]:
        """A condition on rows that may be new since the cursor, and its parameters; None for all."""
        if since.column not in query.told or not since.position or not since.kind or query.is_whole:
            return None, {}
        position = since.position - (REREAD_OF_TWO_CLOCKS if query.of_two_clocks else REREAD)
        if since.kind == "naive":
            position = position.astimezone(self.shop.zone).replace(tzinfo=None)
        return f"{since.column} >= :position OR {since.column} IS NULL", {"position": position}

    def _read(
        self, table: Table, query: Query, condition: str | None, parameters: Mapping[str, Any]
    ) -> Iterator["Raw"]:
        statement = query.sql.replace(":", "\\:")
        if conditions := [f"({told})" for told in (query.only, condition) if told]:
            columns, where = ", ".join(query.columns), " AND ".join(conditions)
            statement = f"SELECT {columns} FROM ({statement}) AS wanted WHERE {where}"  # noqa: S608
        selected = sa.text(statement)
        if "return_ids" in parameters:
            selected = selected.bindparams(sa.bindparam("return_ids", expanding=True))
        unfold = _Unfolding(self.shop, table, query, self.layout.connector.nested.get(table.name, {}))
        with self._session(stream_results=True, max_row_buffer=CHUNK) as connection:
            for chunk in connection.execute(selected, {**query.parameters, **parameters}).partitions(CHUNK):
                yield unfold(chunk)


def _literal(query: str) -> sa.TextClause:
    """A query that has no parameters, whatever it holds."""
    return sa.text(query.replace(":", "\\:"))


@dataclass(frozen=True)
class Raw:
    """Rows as the source spells them: canonical columns. moved: the moved_at of each, where the connector yields it.

    is_of_whole: their SELECT is read whole each time, so they move no position.
    """

    rows: Sequence[Row]
    moved: Sequence[Any] | None = None
    is_of_whole: bool = False


LINKS = frozenset({"link", "charge_link", "matched"})
"""What may tell a transaction's return beside its return_id."""


class _Unfolding:
    """Brings what a SELECT yields beside the canonical columns into them."""

    def __init__(self, shop: Shop, table: Table, query: Query, nested: Mapping[str, str]) -> None:
        self.width = len(table.columns)
        self.is_whole = query.is_whole
        self.places = {extra: place for place, extra in enumerate(query.columns) if place >= self.width}
        self.nested = [(table.columns.index(column), name) for column, name in nested.items()]
        self.link_key = shop.stripe.return_id_in if shop.stripe else None
        self.is_linked = bool(LINKS & self.places.keys())
        self.zone = shop.zone
        self.column = {column: place for place, column in enumerate(table.columns)}

    def __call__(self, chunk: Sequence[Any]) -> Raw:
        if not self.places:
            return Raw([tuple(row) for row in chunk], is_of_whole=self.is_whole)
        rows, moved = [], []
        for row in chunk:
            for canonical in self._rows(row):
                rows.append(canonical)
                moved.append(row[self.places["moved_at"]] if "moved_at" in self.places else None)
        return Raw(rows, moved if "moved_at" in self.places else None, self.is_whole)

    def _rows(self, row: Any) -> list[Row]:
        values = list(row[: self.width])
        if "created_epoch" in self.places and values[self.column["created_at"]] is None:
            values[self.column["created_at"]] = since_epoch(row[self.places["created_epoch"]])
        if self.is_linked:
            values[self.column["return_id"]] = self._linked(values, row)
        if "nested" not in self.places:
            return [tuple(values)]
        elements = parsed(row[self.places["nested"]])
        told = [element for element in elements if isinstance(element, dict)] if isinstance(elements, list) else []
        if not told:  # the row stands for itself, if it says anything
            return [tuple(values)] if any(text(values[place]) for place, _ in self.nested) else []
        return [self._element(values, element) for element in told]

    def _linked(self, values: list[Any], row: Any) -> Any:
        """The return of a charge or refund: as its metadata names it, else its SELECT, else the one that fits."""
        for link in ("link", "charge_link"):
            told = parsed(row[self.places[link]]) if link in self.places else None
            named = told.get(self.link_key) if isinstance(told, dict) and self.link_key else None
            if identifier(named):
                return named
        told = values[self.column["return_id"]]
        if identifier(told) or "matched" not in self.places:
            return told
        charged = moment(values[self.column["created_at"]], self.zone)
        returned = moment(row[self.places["matched_at"]], self.zone) if "matched_at" in self.places else None
        is_near = charged is not None and returned is not None and abs(charged - returned) <= MATCHED_WITHIN
        return row[self.places["matched"]] if is_near else None

    def _element(self, values: list[Any], element: dict[str, Any]) -> Row:
        row = list(values)
        for place, name in self.nested:
            value = element.get(name)
            row[place] = None if isinstance(value, dict | list) else value
        return tuple(row)


def parsed(value: Any) -> Any:
    """JSON as Python has it, from text or from a driver that has parsed it already; None for what is no JSON."""
    if not isinstance(value, str | bytes):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def since_epoch(value: Any) -> datetime | None:
    """Seconds since 1970, a number or text, as aware UTC."""
    seconds = money(value)
    try:
        return None if seconds is None else datetime.fromtimestamp(float(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None


SESSION = {
    "postgresql": (
        "SELECT set_config('TimeZone', :zone, false), set_config('DateStyle', 'ISO', false), (SELECT "
        "set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout')"
    ),
    "duckdb": "SET TimeZone = :zone",
    "snowflake": "ALTER SESSION SET TIMEZONE = :zone",
}
"""What a session is told, so that a time without a zone is the shop's where it is compared with others, psycopg can
read what a server with another DateStyle sends, and a server that bounds idle transactions waits while the beginning of
a large table is applied."""


def _set_up(connection: sa.Connection, zone: str) -> None:
    if statement := SESSION.get(connection.dialect.name):
        connection.execute(sa.text(statement), {"zone": zone})


def _forgive_times(connection: sa.Connection) -> None:
    """Has psycopg read a PostgreSQL time that Python has none for (infinity, BC, 24:00, the year 10000) as absent.

    It would raise, and one such value would stop every look.
    """
    raw = connection.connection.driver_connection
    if isinstance(raw, psycopg.Connection):
        for name in ("timestamptz", "timestamp", "date", "time", "timetz", "interval"):
            oid = raw.adapters.types[name].oid
            if strict := psycopg.adapters.get_loader(oid, psycopg.pq.Format.TEXT):
                raw.adapters.register_loader(oid, _forgiving(strict))


def _forgiving(strict: Any) -> type[Loader]:
    class Forgiving(Loader):
        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self.strict = strict(oid, context)

        def load(self, data: Any) -> Any:
            try:
                return self.strict.load(data)
            except psycopg.DataError:
                return None

    return Forgiving


T = TypeVar("T")


def ahead(items: Iterator[T], most: int = 2) -> Generator[T, None, None]:
    """The same items, made by a thread of its own that goes on while the last one is worked on.

    most: how many may wait to be taken. Nobody waits for the thread when this ends early: what it reads may never come.
    """
    made: SimpleQueue[tuple[T, None] | tuple[None, BaseException] | None] = SimpleQueue()
    room = Semaphore(most)
    is_over = False

    def make() -> None:
        try:
            for item in items:
                made.put((item, None))
                room.acquire()
                if is_over:
                    return
            made.put(None)
        except BaseException as error:  # raised where the items are taken
            made.put((None, error))

    Thread(target=make, name="ahead", daemon=True).start()
    try:
        while (one := made.get()) is not None:
            item, error = one
            if error:
                raise error
            room.release()
            yield cast(T, item)
    finally:
        is_over = True
        room.release()


def advance(cursor: Cursor, table: Table, raw: Raw, staged: list[Row], *, until: datetime, zone: tzinfo) -> None:
    """Moves a cursor over a chunk: its raw rows, which show how times are spelt, and the normalised ones.

    until: aware; a time after that is nobody's present, and one such row would hide all that come after it.
    """
    cursor.has_rows = cursor.has_rows or bool(raw.rows)
    if table is LABELS and not cursor.tells_shipped:
        status = LABELS.columns.index("status")
        cursor.tells_shipped = any(text(row[status]) is not None for row in raw.rows)
    newest = {column: newest_of(table, column, staged, until) for column in ("synced_at", "updated_at")}
    if newest["synced_at"]:
        cursor.newest_synced_at = max(newest["synced_at"], cursor.newest_synced_at or newest["synced_at"])
    if raw.is_of_whole:
        return
    column: Literal["synced_at", "moved_at", "updated_at"] = "updated_at"
    if cursor.newest_synced_at:
        column = "synced_at"
    elif raw.moved is not None:
        column = "moved_at"
        times = [moment(value, zone) for value in raw.moved]
        newest[column] = max((time for time in times if time is not None and time <= until), default=None)
    position = newest[column]
    if position is None:
        return
    if cursor.column == column and cursor.position:
        position = max(position, cursor.position)
    cursor.column, cursor.position = column, position
    if column == "moved_at":
        values = list(raw.moved or ())
    else:
        place = table.columns.index(column)
        values = [row[place] for row in raw.rows]
    kind = spelling([value for value in values if value is not None])
    cursor.kinds.add(kind)
    cursor.kind = kind if cursor.kinds == {kind} else None


def newest_of(table: Table, column: str, staged: list[Row], until: datetime) -> datetime | None:
    if column not in table.staged:
        return None
    place = table.staged.index(column)
    return max((row[place] for row in staged if row[place] is not None and row[place] <= until), default=None)


def spelling(values: list[Any]) -> Literal["zoned", "naive"] | None:
    """How a source spells its times: text has no order that can be relied on, so None."""
    if not values or not all(isinstance(value, datetime) for value in values):
        return None
    return "naive" if any(value.tzinfo is None for value in values) else "zoned"
