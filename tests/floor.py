"""A shop to test on: a canonical source in its own schema of the ledger's database, and runs at any time one likes."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, cast

import psycopg
import sqlalchemy as sa
from psycopg import sql

from loop_attentive import canonical, db, mirror, qualify, rules, runs, source
from loop_attentive.catalogue import BY_NAME, CATALOGUE
from loop_attentive.settings import Shop

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""When the shop's first look is, unless a test says otherwise."""

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

KEYS = {
    "returns": ["return_id"],
    "labels": ["return_id", "tracking_number"],
    "exchange_items": ["return_id", "exchange_id"],
    "transactions": ["transaction_id"],
}
FLAGS = {"labels_enabled", "is_instant_exchange", "is_deleted", "out_of_stock"}


@dataclass(frozen=True)
class Event:
    """A ledger row, as tests compare it."""

    event_type: str
    return_id: str
    key: str
    occurred_at: datetime
    fact_at: datetime
    detected_at: datetime
    status: str
    reason: str | None
    body: dict[str, Any] | None

    @property
    def properties(self) -> dict[str, Any]:
        assert self.body is not None, f"{self.event_type} is {self.status}: {self.reason}"
        return self.body["properties"]


class Floor:
    """times: the SQL type of the source's time columns; flags: of its booleans; ids: of its ids."""

    def __init__(
        self, conninfo: str, *, times: str = "timestamptz", flags: str = "boolean", ids: str = "text", **settings: Any
    ) -> None:
        self.conninfo = conninfo
        self.settings(**settings)
        self.conn = db.connect(conninfo, autocommit=True)
        self.engine = sa.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo))
        self.conn.execute("CREATE SCHEMA IF NOT EXISTS loop")
        for table in canonical.TABLES:
            self._create(table, times, flags, ids)
        self.runs = 0

    def settings(self, **settings: Any) -> None:
        usual = {"name": "default", "freshness_hours": None, "max_per_person_per_day": 1_000_000}
        self.shop = Shop.model_validate(usual | settings)

    def _create(self, table: canonical.Table, times: str, flags: str, ids: str) -> None:
        kinds = {"at": times, "id": ids} | dict.fromkeys(FLAGS, flags)
        types = {c: kinds.get(c) or kinds.get(c.rpartition("_")[2], "text") for c in table.columns}
        columns = ", ".join(f"{column} {kind}" for column, kind in types.items())
        unique = ", ".join(KEYS[table.name])
        self.conn.execute(f"CREATE TABLE loop.{table.name} ({columns}, UNIQUE NULLS NOT DISTINCT ({unique}))")

    def one(self, query: str, parameters: Any = None) -> tuple[Any, ...]:
        """The only row of the answer."""
        (row,) = self.conn.execute(cast(LiteralString, query), parameters).fetchall()
        return row

    def close(self) -> None:
        self.conn.close()
        self.engine.dispose()

    # ── The source ──

    def put(self, table: str, **row: Any) -> None:
        """Inserts a row, or changes the named columns of the one with its key."""
        keys = KEYS[table]
        row = dict.fromkeys(keys) | row
        changes = [c for c in row if c not in keys] or keys[:1]
        self.conn.execute(
            sql.SQL("INSERT INTO loop.{} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, row)),
                sql.SQL(", ").join(map(sql.Placeholder, row)),
                sql.SQL(", ").join(map(sql.Identifier, keys)),
                sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c)) for c in changes),
            ),
            row,
        )

    def ret(self, return_id: str = "1", **row: Any) -> None:
        """A return; unless told otherwise an open one of the one customer, who can be reached."""
        known = self.conn.execute("SELECT FROM loop.returns WHERE return_id::text = %s", (return_id,)).rowcount
        usual = {} if known else {"state": "open", "customer_phone": "+14155552671", "order_name": "#1001"}
        self.put("returns", return_id=return_id, **usual | row)

    def label(self, return_id: str = "1", number: str | None = "1Z1", **row: Any) -> None:
        self.put("labels", return_id=return_id, tracking_number=number, **row)

    def renumber_label(self, return_id: str = "1", *, number: str, **row: Any) -> None:
        """The return's labels get this number, as connectors that key labels by it show it: the old row is gone."""
        self.conn.execute("UPDATE loop.labels SET tracking_number = %s WHERE return_id::text = %s", (number, return_id))
        self.label(return_id, number, **row)

    def item(self, return_id: str = "1", exchange_id: str = "10", **row: Any) -> None:
        self.put("exchange_items", return_id=return_id, exchange_id=exchange_id, **row)

    def transaction(self, transaction_id: str = "t1", return_id: str = "1", **row: Any) -> None:
        self.put("transactions", transaction_id=transaction_id, return_id=return_id, **row)

    # ── Runs ──

    def look(self, at: datetime, *, whole: bool = False, account: str | None = None) -> mirror.Look:
        return mirror.look(self.conn, source.Source(self.engine, self.shop), whole=whole, at=at, account=account)

    def qualify(
        self,
        look: mirror.Look,
        *names: str,
        window: tuple[datetime, datetime] | None = None,
        now: datetime | None = None,
    ) -> dict[str, qualify.Qualified]:
        """Judges the rules by a look, in a run of their own."""
        self.runs += 1
        run = runs.start(
            self.conn, dag_id="tests", run_id=f"run {self.runs}", shop=self.shop.name, look=look, window=window
        )
        events = [BY_NAME[name] for name in names] or CATALOGUE
        return {e.name: qualify.qualify(self.conn, self.shop, e, run, now=now or look.as_of) for e in events}

    def run(self, at: datetime, *names: str, **options: Any) -> list[Event]:
        """A look and every rule (or the named ones); the events that are new."""
        before = {(event.event_type, event.key) for event in self.events()}
        self.qualify(self.look(at), *names, **options)
        return [event for event in self.events() if (event.event_type, event.key) not in before]

    def fresh(self, now: datetime, freshness_hours: float | None) -> tuple[bool, str | None]:
        """Whether reminders can be judged at this time, and if not, why."""
        return rules.freshness(self.conn, self.shop.model_copy(update={"freshness_hours": freshness_hours}), now)

    def judge_again(self, now: datetime) -> int:
        """How many events became pending because they were judged anew."""
        return qualify.judge_again(self.conn, self.shop, now=now)

    def set_status(self, status: str, reason: str | None) -> None:
        """What became of every event that was pending."""
        self.conn.execute("UPDATE event SET status = %s, reason = %s WHERE status = 'pending'", (status, reason))

    def events(self) -> list[Event]:
        rows = self.conn.execute(
            "SELECT event_type, return_id, key, occurred_at, fact_at, detected_at, status, reason, body "
            "FROM event ORDER BY order_at, order_no, key"
        )
        return [Event(*row) for row in rows]

    def occurrences(self, at: datetime, name: str) -> dict[str, datetime]:
        """A run of one rule: when each of its new events happened, by key."""
        return {event.key: event.occurred_at for event in self.run(at, name)}

    def outcomes(self, event_type: str | None = None) -> dict[str, tuple[str, str | None]]:
        """State and reason of each return's event (of this type), by return id."""
        return {e.return_id: (e.status, e.reason) for e in self.events() if event_type in (None, e.event_type)}

    def start(self, at: datetime = T0) -> None:
        """The first look, whose findings are baseline."""
        look = self.look(at)
        if look.extracted:
            self.qualify(look)
        assert all(event.status == "suppressed" for event in self.events())
