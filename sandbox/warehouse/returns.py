"""A return as the story knows it, and how it is written to the warehouse and read back."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from psycopg import sql
from psycopg.rows import class_row

from sandbox.warehouse.tables import Connection

NOTHING = ("N/A", "", None)
"""What connectors write where there is no value."""

RETURN_STATUS = {"open": "open", "review": "open", "closed": "closed", "cancelled": "canceled", "expired": "expired"}

# Each raw status, folded: what Attentive is told (of a label that has a number), and whether the parcel is under way.
# None: nobody can tell.
LABEL_STATUS: dict[str, tuple[str, bool | None]] = {
    "": ("unknown", False),
    "n/a": ("unknown", False),
    "pending": ("new", False),
    "new": ("new", False),
    "pre_transit": ("pre_transit", False),
    "in_transit": ("in_transit", True),
    "out_for_delivery": ("out_for_delivery", True),
    "delivered": ("delivered", True),
    "available_for_pickup": ("in_transit", True),
    "return_to_sender": ("unknown", True),
    "failure": ("unknown", True),
    "cancelled": ("canceled", False),
    "canceled": ("canceled", False),
    "voided": ("canceled", False),
}
CANNOT_BE_TOLD = ("unknown", None)

UNDER_WAY = [status for status, (_, shipped) in LABEL_STATUS.items() if shipped]


def folded(text: str | None) -> str:
    return (text or "").strip().lower().replace(" ", "_").replace("-", "_")


def stamp(moment: datetime) -> str:
    """A time as it stands in labels.updated_at."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(kw_only=True)
class Label:
    carrier: str | None
    tracking_number: str | None
    tracking_url: str | None
    label_url: str | None
    status: str | None
    created_at: datetime | None
    updated_at: str | None

    @property
    def number(self) -> str | None:
        """As Attentive is told; None while there is none."""
        if self.tracking_number in NOTHING:
            return None
        return (self.tracking_number or "").replace(" ", "").upper()

    @property
    def told(self) -> str | None:
        return LABEL_STATUS.get(folded(self.status), CANNOT_BE_TOLD)[0] if self.number else None

    @property
    def shipped(self) -> bool | None:
        return LABEL_STATUS.get(folded(self.status), CANNOT_BE_TOLD)[1]

    @property
    def moved_at(self) -> datetime | None:
        return None if self.updated_at in NOTHING else datetime.fromisoformat(self.updated_at or "")

    @property
    def is_live(self) -> bool:
        return self.told != "canceled"


@dataclass(kw_only=True)
class Item:
    exchange_id: int
    out_of_stock: bool
    resolution: str | None
    restocked_at: datetime | None
    updated_at: datetime | None

    @property
    def is_open(self) -> bool:
        return self.out_of_stock and self.resolution in NOTHING and self.restocked_at is None


@dataclass(kw_only=True)
class Transaction:
    transaction_id: str
    kind: str
    gateway: str
    status: str
    amount: str
    currency: str
    created_at: datetime


@dataclass(kw_only=True, eq=False)
class Return:
    return_id: int
    state: str | None
    outcome: str | None
    order_name: str | None
    customer_email: str | None
    customer_phone: str | None
    status_page_url: str | None
    labels_enabled: bool | None
    is_instant_exchange: bool | None
    charge_at: datetime | None
    created_at: datetime
    updated_at: datetime | None
    is_deleted: bool = False

    labels: list[Label] = field(default_factory=list)
    exchange_items: list[Item] = field(default_factory=list)
    transactions: list[Transaction] = field(default_factory=list)

    # What is no column: what the looks have made of it so far.
    has_landed: bool = True  # False: only its label and transaction have arrived
    born_deleted: bool = False
    ever_shipped: bool = False
    expired_at: datetime | None = None  # when its state went to expired, by the change's fact time
    out_of_stock_since: datetime | None = None  # the look that opened its last episode
    out_again: bool = False  # has an open item, but the last episode is too young for another
    reminded: set[str] = field(default_factory=set)
    unsent: list[str] = field(default_factory=list)  # events that nobody could be sent
    frozen: bool = False  # nothing more happens to it
    older_picture: "Return | None" = None  # what the next sync brings instead of it

    @property
    def numbered(self) -> list[Label]:
        return [label for label in self.labels if label.number]

    @property
    def newest_label(self) -> Label | None:
        """The story dates all labels of a return that has several."""
        live = [label for label in self.numbered if label.is_live]
        return max(live, key=lambda label: label.created_at or self.created_at, default=None)

    @property
    def labels_on(self) -> bool:
        return bool(self.numbered) if self.labels_enabled is None else self.labels_enabled

    @property
    def is_out_of_stock(self) -> bool:
        return any(item.is_open for item in self.exchange_items)

    @property
    def is_doubtful(self) -> bool:
        """Nobody can tell whether it is shipped."""
        return any(label.shipped is None for label in self.numbered if label.is_live)

    @property
    def may_be_reminded(self) -> bool:
        return folded(self.state) == "open" and not (self.is_deleted or self.ever_shipped or self.is_doubtful)


PARTS = {"labels": Label, "exchange_items": Item, "transactions": Transaction}
PART_ORDER = {"labels": "created_at", "exchange_items": "exchange_id", "transactions": "created_at"}
_RETURN_COLUMNS = [f.name for f in fields(Return)][:13]

_WAITING = sql.SQL("""
    SELECT {columns}
    FROM loop.returns AS r
    WHERE r.state = 'open' AND NOT r.is_deleted AND r.created_at > %(since)s
        AND NOT EXISTS (
            SELECT FROM loop.labels AS l
            WHERE l.return_id = r.return_id::text
                AND replace(lower(trim(l.status)), ' ', '_') = ANY(%(under_way)s)
        )
    ORDER BY r.return_id
""")


def load_waiting(conn: Connection) -> list[Return]:
    """The returns that still wait to be shipped: the only ones of a history that can become due by themselves."""
    [(newest,)] = conn.execute("SELECT max(created_at) FROM loop.returns")
    if newest is None:
        return []
    query = _WAITING.format(columns=_identifiers(_RETURN_COLUMNS))
    with conn.cursor(row_factory=class_row(Return)) as cursor:
        since = newest - timedelta(days=40)
        returns = cursor.execute(query, {"since": since, "under_way": UNDER_WAY}).fetchall()
    by_id = {str(r.return_id): r for r in returns}
    for table, part in PARTS.items():
        columns = _columns(part)
        query = sql.SQL("SELECT return_id, {} FROM loop.{} WHERE return_id = ANY(%s) ORDER BY {}").format(
            _identifiers(columns), sql.Identifier(table), sql.Identifier(PART_ORDER[table])
        )
        for return_id, *values in conn.execute(query, [list(by_id)]):
            getattr(by_id[return_id], table).append(part(**dict(zip(columns, values, strict=True))))
    return returns


def save(conn: Connection, returns: Iterable[Return], synced_at: datetime) -> None:
    """Write these returns and all that belongs to them anew, as a sync does that brings them again."""
    touched = list(returns)
    ids = [r.return_id for r in touched]
    landed = [r.older_picture or r for r in touched if r.has_landed]
    _replace(conn, "returns", _RETURN_COLUMNS, ids, [[*_values(r, _RETURN_COLUMNS), synced_at] for r in landed])
    for table, part in PARTS.items():
        columns = _columns(part)
        rows = [[str(r.return_id), *_values(row, columns), synced_at] for r in touched for row in getattr(r, table)]
        _replace(conn, table, ["return_id", *columns], [str(i) for i in ids], rows)


def _replace(conn: Connection, table: str, columns: list[str], ids: list[Any], rows: list[list[Any]]) -> None:
    name = sql.Identifier("loop", table)
    conn.execute(sql.SQL("DELETE FROM {} WHERE return_id = ANY(%s)").format(name), [ids])
    into = sql.SQL("COPY {} ({}) FROM STDIN").format(name, _identifiers([*columns, "synced_at"]))
    with conn.cursor() as cursor, cursor.copy(into) as copy:
        for row in rows:
            copy.write_row(row)


def _columns(part: type[Any]) -> list[str]:
    return [f.name for f in fields(part)]


def _identifiers(names: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _values(row: object, columns: list[str]) -> Iterator[Any]:
    return (getattr(row, column) for column in columns)
