"""Connectors: how a warehouse lays out Loop's data, and the SELECTs that yield the canonical columns from it.

A connector is a folder in include/sql/sources: a SELECT for each canonical table, views that these share, and
connector.yaml, which tells what the connector can. A view of several connectors stands beside their folders. Shopify's
and Stripe's tables, which other connectors bring, stand in include/sql/beside. A SELECT is written once, in
PostgreSQL's dialect, and names schemas by what is in them:

    loop, shopify, stripe, log   tables of the warehouse; the shop's settings tell their schemas
    connector                    a view: another SELECT of the connector's folder, or of include/sql/sources
    beside                       a view: a SELECT of include/sql/beside/<system>/<its connector>, or beside/<system>
    shop                         a view: the SELECT that yields a canonical table of this shop

It is fitted to what the warehouse has (an absent column is NULL) and brought into the engine's dialect.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Annotated, Literal, cast

import sqlglot
import yaml
from pydantic import BaseModel, ConfigDict, Field
from sqlglot import exp

from loop_attentive.catalogue import EventType
from loop_attentive.errors import NeedsMending
from loop_attentive.settings import BESIDE, OWN, SOURCES, Shop

WRITTEN_IN = "postgres"
DIALECTS = {"postgresql": "postgres", "mssql": "tsql", "mariadb": "mysql"}
"""What sqlglot calls a dialect that SQLAlchemy names otherwise."""

EXTRAS = ("nested", "moved_at", "link", "charge_link", "matched", "matched_at", "created_epoch")
"""What a SELECT may yield beside the canonical columns.

nested: a JSON array, each element of which is a row, with its fields over the row's own. moved_at: the time that tells
which rows are new, where they have no synced_at. link, charge_link: JSON objects that name the return under a key of
the shop's settings, the first before the second. matched: a return that fits, if its time matched_at fits as well.
created_epoch: created_at in seconds since 1970.
"""

VIEWS = ("connector", "beside", "shop")

Told = Literal["updates", "cancellations", "labels", "shipped", "out_of_stock", "phones", "transactions", "last_sync"]
"""What a connector may tell. last_sync: keeps a record of its last completed sync."""

Columns = frozenset[str]
"""Names of columns, case-folded."""

NAMED = "named"
"""Where a table of a fitted query notes its name in the SELECTs, for the warehouse's may be another."""


class Connector(BaseModel):
    """What a connector.yaml tells.

    tells: what the connector brings: rules that need anything else are off. required: tables without which nothing can
    be read, and columns of them. is_complete: every column that a SELECT names must be there. nested: for a canonical
    table, its columns by what an element of the JSON calls them. tells_landing: rows have a time at which they landed.
    gaps: what it does not tell, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    tells: frozenset[Told]
    rhythm_hours: Annotated[float, Field(gt=0)] | None = None
    is_complete: bool = False
    tells_landing: bool = True
    required: dict[str, list[str]] = Field(default_factory=dict)
    nested: dict[str, dict[str, str]] = Field(default_factory=dict)
    gaps: dict[str, str] = Field(default_factory=dict)


@cache
def connector(name: str) -> Connector:
    return Connector.model_validate(yaml.safe_load((SOURCES / name / "connector.yaml").read_text(encoding="utf-8")))


def why_off(shop: Shop, event: EventType) -> str | None:
    """Why a rule cannot be judged with what the shop's connector tells, if so."""
    lacking = sorted(event.needs - tells(shop))
    return f"connector {shop.connector} does not tell {' and '.join(lacking)}" if lacking else None


def tells(shop: Shop) -> frozenset[str]:
    """What the shop's connector tells, with what stands beside it and what the merchant adds."""
    added = set()
    if shop.shopify:
        added.add("phones")
    if shop.stripe or any(OWN.glob(f"{shop.name}/transactions*.sql")):
        added.add("transactions")
    return connector(shop.connector).tells | added


def fingerprint(shop: Shop) -> str:
    """Names how a shop is read: another means that a person has changed its settings or a SELECT."""
    files = [file for folder in (SOURCES, BESIDE, OWN / shop.name) for file in sorted(folder.rglob("*.sql"))]
    settings = shop.model_dump_json(include={"shopify", "stripe"})
    return sha256(b"\0".join([settings.encode(), *(file.read_bytes() for file in files)])).hexdigest()[:16]


# ── Fitting a SELECT to what is there ───────────────────────────────────────


def fit(query: exp.Query, resolve: Callable[[exp.Table], "Relation | None"]) -> exp.Query | None:
    """The query without what is not there; None when all its rows would come from tables that are not there.

    resolve: finds a table or view, or None. An absent column becomes NULL, and so does each of a table that is joined
    from the left and absent. Columns must be written with their table's alias.
    """
    if isinstance(query, exp.SetOperation):
        left, right = fit(cast(exp.Query, query.left), resolve), fit(cast(exp.Query, query.right), resolve)
        if left is None or right is None:
            return left or right
        query.set("this", left)
        query.set("expression", right)
        return query
    there: dict[str, Columns] = {}
    first = query.args.get("from_")
    joins = query.args.get("joins") or []
    for holder in filter(None, [first, *joins]):
        relation = _relation(holder.this, resolve)
        if relation is not None:
            holder.set("this", relation.node)
            there[relation.node.alias_or_name] = relation.columns
        elif holder is first or holder.side != "LEFT":
            return None
    query.set("joins", [join for join in joins if join.this.alias_or_name in there])
    for column in list(_own_columns(query)):
        if column.name.casefold() not in there.get(column.table, frozenset()):
            if isinstance(column.parent, exp.Group):  # a constant is no key to group by
                column.replace(exp.cast(exp.Null(), "TEXT"))
                continue
            is_projection = column.arg_key == "expressions" and column.parent is query
            column.replace(exp.alias_(exp.Null(), column.name) if is_projection else exp.Null())
    _shorten(query)
    return query


def _shorten(query: exp.Query) -> None:
    """Leaves out what can yield NULL only: some engines make a text of it, which then compares with no time."""
    shortened = exp.Coalesce | exp.Greatest | exp.Case | exp.Cast | exp.Max | exp.Min | exp.Sum
    for node in reversed([node for node in query.walk() if isinstance(node, shortened)]):
        if isinstance(node, exp.Cast | exp.Max | exp.Min | exp.Sum):
            if isinstance(node.this, exp.Null) and not isinstance(node.parent, exp.Group):
                node.replace(exp.Null())
            continue
        if isinstance(node, exp.Case):
            yielded = [*(branch.args["true"] for branch in node.args["ifs"]), node.args.get("default") or exp.Null()]
            if all(isinstance(value, exp.Null) for value in yielded):
                node.replace(exp.Null())
            continue
        told = [value for value in (node.this, *node.expressions) if not isinstance(value, exp.Null)]
        if len(told) > 1:
            node.set("this", told[0])
            node.set("expressions", told[1:])
        else:
            node.replace(told[0] if told else exp.Null())


def _own_columns(query: exp.Query) -> Iterator[exp.Column]:
    """Columns that the query itself names, not its subqueries."""
    for node in query.walk(prune=lambda node: isinstance(node, exp.Subquery)):
        if isinstance(node, exp.Column):
            yield node


@dataclass(frozen=True)
class Relation:
    """A table or a subquery that is there, under the alias that it was named by, and its columns that hold anything."""

    node: exp.Expression
    columns: Columns


def _relation(node: exp.Expression, resolve: Callable[[exp.Table], "Relation | None"]) -> Relation | None:
    if isinstance(node, exp.Table):
        return resolve(node)
    inner = fit(cast(exp.Query, node.this), resolve)
    if inner is None:
        return None
    node.set("this", inner)
    return Relation(node, told_by(inner))


def told_by(query: exp.Query) -> Columns:
    """The columns of a query that are not NULL throughout."""
    if isinstance(query, exp.SetOperation):
        return told_by(cast(exp.Query, query.left)) | told_by(cast(exp.Query, query.right))
    return frozenset(
        selected.alias_or_name.casefold() for selected in query.selects if not _is_null(selected.unalias())
    )


def _is_null(value: exp.Expr) -> bool:
    """Whether it is NULL throughout, also where a NULL was trimmed, or brought into another case."""
    if isinstance(value, exp.Coalesce):
        return all(_is_null(alternative) for alternative in (value.this, *value.expressions))
    if isinstance(value, exp.Nullif | exp.Trim | exp.Lower | exp.Upper | exp.Cast):
        return _is_null(value.this)
    return isinstance(value, exp.Null)


def _read_by(query: exp.Query) -> frozenset[str]:
    """The warehouse's tables in a query that was fitted, by their names in the SELECTs."""
    return frozenset(table.meta[NAMED] for table in query.find_all(exp.Table))


# ── The SELECTs of a shop ───────────────────────────────────────────────────


@dataclass(frozen=True)
class Query:
    """A SELECT in the engine's dialect. columns: what it yields, in order: the canonical ones, then extras.

    told: those of them that are not NULL throughout. is_whole: nothing tells which of its rows are new, so it is read
    whole each time. of_two_clocks: who lands one part of its rows says nothing of when the other part lands. only: a
    condition on its columns, in any dialect, with SQLAlchemy's parameters. tables: the warehouse's that it reads, by
    their names in the SELECTs; what a SELECT of the shop's own reads nobody knows.
    """

    sql: str
    columns: tuple[str, ...]
    told: Columns
    is_whole: bool = False
    of_two_clocks: bool = False
    only: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    tables: frozenset[str] = frozenset()


@dataclass
class Layout:
    """How the warehouse of a shop is read, as it stands.

    dialect: SQLAlchemy's name of it. columns_of: the columns that a SELECT without rows yields (and what it reads, in
    words), None where it cannot be run, which for a table means that it is not there. found: what was looked for in the
    warehouse, by its name in the SELECTs, and the columns there; None for an absent table. wanted: the columns that the
    SELECTs name.
    """

    shop: Shop
    dialect: str
    columns_of: Callable[[str, str], Columns | None]
    found: dict[str, Columns | None] = field(default_factory=dict)
    wanted: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.connector = connector(self.shop.connector)
        self.schemas = schemas(self.shop)
        self._tables: dict[str, tuple[exp.Table, Columns] | None] = {}
        if sqlglot.Dialect.get(self._dialect) is None:
            raise NeedsMending(
                f"Connection {self.shop.warehouse} speaks {self.dialect}, and no SELECT can be brought into that: have "
                "the tables copied into an engine that docs/connectors.md names."
            )

    @property
    def _dialect(self) -> str:
        return DIALECTS.get(self.dialect, self.dialect)

    def as_text(self, column: str) -> str:
        """A column as text, in the engine's dialect: ids are numbers here and text there."""
        return sqlglot.parse_one(f"CAST({column} AS TEXT)", read=WRITTEN_IN).sql(dialect=self._dialect, comments=False)

    def queries(self, table: str, columns: tuple[str, ...]) -> list[Query]:
        """What to read of a canonical table with these columns: nothing, one SELECT, or one and the shop's own."""
        own, extension = self._own(f"{table}.sql", columns), self._own(f"{table}.extend.sql", columns)
        base = own or self._connectors(table, columns)
        if extension is None:
            return [base] if base else []
        if table == "returns" and base:
            return [self._extended(base, extension)]
        # These have one cursor.
        return [replace(query, of_two_clocks=base is not None) for query in (base, extension) if query]

    def _connectors(self, table: str, columns: tuple[str, ...]) -> Query | None:
        fitted = self._fitted(self._file(table))
        if fitted is None:
            return None
        told = told_by(fitted)
        of_two_clocks = self.is_beside(table)
        is_whole = of_two_clocks and not self.connector.tells_landing
        yielded = columns + tuple(extra for extra in EXTRAS if extra in told)
        inner = fitted.sql(dialect=self._dialect, comments=False)
        sql = f"SELECT {', '.join(yielded)} FROM ({inner}) AS source_rows"  # noqa: S608
        query = Query(sql, yielded, told, is_whole, of_two_clocks, tables=_read_by(fitted))
        if of_two_clocks:
            self._try_out(query, table)
        if table == "transactions" and self.shop.stripe:
            only, parameters = self._linked(told)
            return replace(query, only=only, parameters=parameters)
        return query

    def _try_out(self, query: Query, table: str) -> None:
        """Raises NeedsMending where the times of two connectors' tables are of types that cannot be compared."""
        where = f"include/sql/{cast(Path, self._file(table)).relative_to(BESIDE.parent)}"
        if self.columns_of(f"SELECT * FROM ({query.sql}) AS tried WHERE 1 = 0", where) is None:  # noqa: S608
            raise NeedsMending(
                f"{where} does not run in the warehouse of connection {self.shop.warehouse}: have each time in "
                f"{', '.join(sorted(map(self.called, query.tables)))} be a timestamp, by a view that casts it where it "
                "lands as text, for that compares with no time (docs/connectors.md tells what else an engine may lack)."
            )

    def is_beside(self, table: str) -> bool:
        """Whether the SELECT of a canonical table reads another connector's tables beside Loop's."""
        file = self._file(table)
        is_own = (OWN / self.shop.name / f"{table}.sql").exists()
        return file is not None and BESIDE in file.parents and not is_own

    def _linked(self, told: Columns) -> tuple[str | None, dict[str, str]]:
        """A condition on Stripe's rows: something may tell their return. Most charges of an account have nothing to do
        with returns, and need not leave the warehouse.
        """
        conditions = [f"{column} IS NOT NULL" for column in ("return_id", "matched") if column in told]
        key = self.shop.stripe.return_id_in if self.shop.stripe else None
        if key is None:
            return " OR ".join(conditions) or "1 = 0", {}
        if not re.fullmatch("[A-Za-z0-9_ .-]+", key):  # JSON may spell it in another way
            return None, {}
        conditions += [f"{column} LIKE :key" for column in ("link", "charge_link") if column in told]
        return " OR ".join(conditions) or "1 = 0", {"key": f'%"{key}"%'}

    def _file(self, table: str) -> Path | None:
        """The SELECT that begins a canonical table: with Shopify's tables, one that builds on the connector's."""
        beside = BESIDE / "shopify" / f"{table}.sql"
        if self.shop.shopify and beside.exists() and self._view("connector", table):
            return beside
        if table == "transactions" and self.shop.stripe:
            return BESIDE / "stripe" / "transactions.sql"
        return self._view("connector", table)

    def _view(self, kind: str, name: str) -> Path | None:
        if kind == "shop":
            return self._file(name)
        folders = [SOURCES / self.shop.connector, SOURCES]
        if kind == "beside":
            shopify, stripe = self.shop.shopify, self.shop.stripe
            folders = [BESIDE / "shopify" / shopify.connector] if shopify else []
            folders += [BESIDE / "stripe" / stripe.connector, BESIDE / "stripe"] if stripe else []
            if name == "matched_by_email" and not (stripe and stripe.match_by_email == "yes"):
                return None
        return next((folder / f"{name}.sql" for folder in folders if (folder / f"{name}.sql").exists()), None)

    def _fitted(self, file: Path | None) -> exp.Query | None:
        if file is None:
            return None
        query = sqlglot.parse_one(file.read_text(encoding="utf-8"), read=WRITTEN_IN)
        for table, columns in _named(cast(exp.Query, query)):
            self.wanted.setdefault(table, set()).update(columns)
        return fit(cast(exp.Query, query), self._resolve)

    def _resolve(self, table: exp.Table) -> Relation | None:
        if table.db in VIEWS:
            view = self._fitted(self._view(table.db, table.name))
            if view is None:
                return None
            alias = exp.TableAlias(this=exp.to_identifier(table.alias))
            return Relation(exp.Subquery(this=view, alias=alias), told_by(view))
        name = f"{table.db}.{table.name}"
        if name not in self._tables:
            self._tables[name] = self._probe(table)
            probed = self._tables[name]
            self.found[name] = probed[1] if probed else None
        if (probed := self._tables[name]) is None:
            return None
        actual = probed[0].copy()
        actual.set("alias", table.args.get("alias"))
        actual.meta[NAMED] = name
        return Relation(actual, probed[1])

    def _probe(self, table: exp.Table) -> tuple[exp.Table, Columns] | None:
        """The table as it is called in the warehouse, and its columns; None if its schema is not given or it is absent.

        A name that has to be quoted is tried in lower and in upper case. A schema's is tried as it stands, and quoted:
        it may be a word of SQL, or hold capitals.
        """
        schema = self.schemas.get(table.db)
        if schema is None:
            return None
        catalog, _, db = schema.rpartition(".")
        quoted = bool(table.this.quoted)
        names = [table.name, table.name.upper()] if quoted else [self._name(table.db, table.name)]
        for as_it_is, name in product((False, True), names):
            actual = exp.table_(
                exp.to_identifier(name, quoted=quoted),
                db=exp.to_identifier(db, quoted=as_it_is),
                catalog=exp.to_identifier(catalog, quoted=as_it_is) if catalog else None,
            )
            called = actual.sql(dialect=self._dialect)
            columns = self.columns_of(f"SELECT * FROM {called} WHERE 1 = 0", f"table {schema}.{name}")  # noqa: S608
            if columns is not None:
                return actual, columns
        return None

    def _name(self, db: str, table: str) -> str:
        """What the warehouse calls a table."""
        return self.shop.tables.get(table, table) if db == "loop" else table

    def _own(self, file: str, columns: tuple[str, ...]) -> Query | None:
        """A SELECT that the merchant wrote, in the engine's dialect; raises NeedsMending when it cannot serve."""
        path = OWN / self.shop.name / file
        if not path.exists():
            return None
        where = f"include/sql/shops/{self.shop.name}/{file}"
        text = path.read_text(encoding="utf-8").strip().rstrip(";").replace("{schema}", self.shop.source_schema)
        found = self.columns_of(f"SELECT * FROM (\n{text}\n) AS own WHERE 1 = 0", where)  # noqa: S608
        if found is None:
            raise NeedsMending(f"{where} does not run in the warehouse: try it there, as the connection's user.")
        if columns[0] not in found:
            raise NeedsMending(f"{where} yields no column {columns[0]}: each row must tell what it is about.")
        if unknown := sorted(found - set(columns)):
            raise NeedsMending(f"{where} yields {', '.join(unknown)}: known are {', '.join(columns)}.")
        yielded = ", ".join(column if column in found else f"NULL AS {column}" for column in columns)
        sql = f"SELECT {yielded} FROM (\n{text}\n) AS own"  # noqa: S608
        return Query(sql, columns, found, is_whole=file.endswith(".extend.sql") and "synced_at" not in found)

    def _extended(self, base: Query, own: Query) -> Query:
        """Returns with the columns that the merchant's own SELECT tells, by return_id."""
        key = [self.as_text(f"{side}.return_id") for side in ("own", "base")]
        selected = []
        for column in base.columns:
            if column not in own.told or column == "return_id":
                selected.append(f"base.{column}")
            elif column not in base.told:
                selected.append(f"own.{column}")
            elif column == "synced_at":
                selected.append(
                    "CASE WHEN own.synced_at > base.synced_at THEN own.synced_at ELSE base.synced_at END AS synced_at"
                )
            else:
                selected.append(f"CASE WHEN own.{column} IS NULL THEN base.{column} ELSE own.{column} END AS {column}")
        sql = (
            f"SELECT {', '.join(selected)} FROM ({base.sql}) AS base "  # noqa: S608
            f"LEFT JOIN ({own.sql}) AS own ON {key[0]} = {key[1]}"
        )
        where = f"include/sql/shops/{self.shop.name}/returns.extend.sql"
        if self.columns_of(f"SELECT * FROM ({sql}) AS extended WHERE 1 = 0", where) is None:  # noqa: S608
            raise NeedsMending(
                f"{where} cannot be joined to the connector's returns: cast each of its columns to the type that the "
                "connector's has (make check names the tables)."
            )
        has_two_clocks = "synced_at" in own.told - base.told  # what the connector changes has no time of landing
        is_whole = base.is_whole or own.is_whole or has_two_clocks
        of_two_clocks = "synced_at" in own.told or base.of_two_clocks
        return Query(sql, base.columns, base.told | own.told, is_whole, of_two_clocks, tables=base.tables)

    def last_sync(self) -> str | None:
        """A SELECT of the last completed sync's time (parameter: connection), where the connector keeps a record."""
        path = self._view("connector", "last_sync")
        fitted = self._fitted(path)
        if fitted is None:
            return None
        # Each dialect spells a parameter in its own way, SQLAlchemy in one.
        for parameter in list(fitted.find_all(exp.Placeholder)):
            parameter.replace(exp.Var(this=f":{parameter.name}"))
        return fitted.sql(dialect=self._dialect, comments=False)

    def problems(self) -> dict[str, list[str]]:
        """What keeps the source from being read: table, as the warehouse calls it, -> absent columns ([]: no table)."""
        gaps: dict[str, list[str]] = {}
        for table, columns in self.found.items():
            required = self.connector.required.get(table)
            if columns is None:
                if required is not None:
                    gaps[self.called(table)] = []
                continue
            must = set(required or ()) | (self.wanted.get(table, set()) if self.connector.is_complete else set())
            if lacking := sorted(must - columns):
                gaps[self.called(table)] = lacking
        return gaps

    def absent(self) -> dict[str, list[str]]:
        """What the SELECTs name and the warehouse has not, required or not; as problems."""
        return {
            self.called(table): [] if columns is None else sorted(self.wanted.get(table, set()) - columns)
            for table, columns in self.found.items()
            if columns is None or self.wanted.get(table, set()) - columns
        }

    def called(self, table: str) -> str:
        db, _, name = table.partition(".")
        return f"{self.schemas.get(db) or db}.{self._name(db, name)}"


def schemas(shop: Shop) -> Mapping[str, str | None]:
    return {
        "loop": shop.source_schema,
        "shopify": shop.shopify.tables if shop.shopify else None,
        "stripe": shop.stripe.tables if shop.stripe else None,
        "log": shop.connector_log.tables if shop.connector_log else None,
    }


def _named(query: exp.Query) -> Iterator[tuple[str, set[str]]]:
    """The tables of the warehouse that a SELECT names, each with the columns it asks of it."""
    for select in query.find_all(exp.Select):
        holders = filter(None, [select.args.get("from_"), *(select.args.get("joins") or [])])
        for relation in (holder.this for holder in holders):
            if isinstance(relation, exp.Table) and relation.db not in VIEWS:
                asked = {c.name.casefold() for c in _own_columns(select) if c.table == relation.alias_or_name}
                yield f"{relation.db}.{relation.name}", asked
