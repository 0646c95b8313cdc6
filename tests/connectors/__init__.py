"""One made-up shop with fifty returns and all twelve events, written once, and how each connector would land it."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from tests.floor import DAY, HOUR, T0

Row = dict[str, Any]
Tables = dict[str, list[Row]]
"""Rows by schema.table."""

MINUTE = HOUR / 60

OPEN_LABELS = range(116, 121)
"""Returns with a label that is never used."""


@dataclass
class Shop:
    """What is so in the shop at one time, by return id (transactions by their own)."""

    returns: dict[str, Row] = field(default_factory=dict)
    labels: dict[str, Row] = field(default_factory=dict)
    items: dict[str, Row] = field(default_factory=dict)
    orders: dict[str, Row] = field(default_factory=dict)
    stock: dict[str, Row] = field(default_factory=dict)
    transactions: dict[str, Row] = field(default_factory=dict)

    def create(self, number: int, at: datetime, **row: Any) -> None:
        key = str(number)
        self.returns[key] = {
            "state": "open",
            "outcome": "exchange",
            "order_name": f"#{number}",
            "created_at": at,
            "updated_at": at,
            "status_page_url": f"https://shop.loopreturns.com/#/return/{number}",
            "instant": False,
            "charge_at": None,
        } | row

    def change(self, number: int, at: datetime, **row: Any) -> None:
        self.returns[str(number)] |= row | {"updated_at": at}

    def label(self, number: int, at: datetime, status: str, tracking: str | None = None) -> None:
        has = tracking != "N/A"
        self.labels[str(number)] = {
            "carrier": "USPS" if has else "N/A",
            "tracking_number": f"94{number}" if has else "N/A",
            "status": status,
            "url": f"https://labels.example/{number}.pdf" if has else None,
            "updated_at": at,
            "tracking_url": f"https://track.example/94{number}" if has else None,
        }
        self.change(number, at)

    def item(self, number: int, at: datetime, resolution: str | None = None) -> None:
        self.items[str(number)] = {"exchange_id": f"9{number}", "out_of_stock": True, "resolution": resolution}
        self.stock.setdefault(f"5{number}", {"available": 0, "updated_at": at})
        self.change(number, at)

    def order(self, number: int, at: datetime) -> None:
        self.orders[str(number)] = {"phone": f"+1415555{2000 + number}", "email": f"c{number}@example.com", "at": at}

    def transact(self, number: int, at: datetime, kind: str, captured: bool = True) -> None:
        prefix = "ch" if kind == "payment" else "re"
        self.transactions[f"{prefix}_{number}"] = {
            "return_id": str(number),
            "kind": kind,
            "captured": captured,
            "created_at": at,
            "amount": 1250,
        }


def told() -> Iterable[tuple[datetime, Shop]]:
    """The story: the shop as it stands at each look."""
    shop = Shop()

    def scene(at: datetime) -> tuple[datetime, Shop]:
        return at, deepcopy(shop)

    at = T0 - DAY
    shop.create(100, at)
    shop.label(100, at, "new")
    shop.order(100, at)
    shop.item(100, at, "refund")
    shop.transact(100, at, "payment")
    yield scene(T0)
    at = T0 + HOUR / 2
    for number in range(101, 151):
        is_instant = number in (141, 142, 143)
        shop.create(number, at, instant=is_instant, charge_at=T0 + 14 * DAY if is_instant else None)
        if number not in (138, 139, 140):  # whose contacts land hours later
            shop.order(number, at)
    yield scene(T0 + HOUR)
    at = T0 + HOUR + 20 * MINUTE
    for number in range(101, 121):
        shop.label(number, at, "new")
    for number in range(121, 126):
        shop.label(number, at, "pending", "N/A")
    for number in range(141, 144):
        shop.label(number, at, "new")
    yield scene(T0 + 2 * HOUR)
    at = T0 + 2 * HOUR + 20 * MINUTE
    for number in range(101, 106):
        shop.label(number, at, "in_transit")
    for number in range(106, 111):
        shop.change(number, at, state="closed")
    for number in range(111, 114):
        shop.change(number, at, state="cancelled")
    for number in (114, 115):
        shop.change(number, at, state="expired")
    for number in range(126, 131):
        shop.item(number, at)
    for number in (138, 139, 140):
        shop.order(number, at)
    yield scene(T0 + 3 * HOUR)
    at = T0 + 3 * HOUR + 20 * MINUTE
    for number, resolution in ((126, "refund"), (127, "Refund"), (128, "gift card")):
        shop.item(number, at, resolution)
    shop.stock["5129"] = {"available": 3, "updated_at": at}
    for number in (131, 132, 133):
        shop.transact(number, at, "payment")
    for number in (134, 135):
        shop.transact(number, at - 10 * MINUTE, "payment")
        shop.transact(number, at, "refund")
    shop.transact(136, at, "payment", captured=False)
    shop.transact(137, at, "payment", captured=False)
    shop.transact(137, at, "refund", captured=False)  # a hold that dropped
    yield scene(T0 + 4 * HOUR)
    shop.transactions["ch_136"]["captured"] = True
    shop.label(121, T0 + 4 * HOUR + 20 * MINUTE, "new")
    yield scene(T0 + 5 * HOUR)
    yield scene(T0 + 8 * DAY)
    shop.label(141, T0 + 9 * DAY, "in_transit")
    yield scene(T0 + 13.6 * DAY)
    yield scene(T0 + 22 * DAY)
    yield scene(T0 + 28.5 * DAY)


# ── As each connector lands it ──────────────────────────────────────────────


def canonical(shop: Shop, at: datetime) -> Tables:
    returns = [
        {
            "return_id": key,
            "state": row["state"],
            "outcome": row["outcome"],
            "order_name": row["order_name"],
            "customer_email": shop.orders.get(key, {}).get("email"),
            "customer_phone": shop.orders.get(key, {}).get("phone"),
            "status_page_url": row["status_page_url"],
            "labels_enabled": None,
            "is_instant_exchange": row["instant"],
            "charge_at": row["charge_at"],
            "created_at": row["created_at"],
            "updated_at": row["updated_at"],
            "synced_at": at,
            "is_deleted": False,
        }
        for key, row in shop.returns.items()
    ]
    labels = [
        {
            "return_id": key,
            "carrier": row["carrier"],
            "tracking_number": row["tracking_number"],
            "tracking_url": row["tracking_url"],
            "label_url": row["url"],
            "status": row["status"],
            "created_at": None,
            "updated_at": row["updated_at"],
            "synced_at": at,
        }
        for key, row in shop.labels.items()
    ]
    items = [
        {
            "return_id": key,
            "exchange_id": row["exchange_id"],
            "out_of_stock": True,
            "resolution": row["resolution"],
            "restocked_at": stock["updated_at"] if stock["available"] else None,
            "updated_at": None,
            "synced_at": at,
        }
        for key, row in shop.items.items()
        for stock in [shop.stock[f"5{key}"]]
    ]
    transactions = [
        {
            "transaction_id": key,
            "return_id": row["return_id"],
            "kind": row["kind"],
            "gateway": "stripe",
            "status": "succeeded" if row["captured"] else "not captured",
            "amount": Decimal("12.50"),
            "currency": "usd",
            "created_at": row["created_at"],
            "synced_at": at,
        }
        for key, row in shop.transactions.items()
    ]
    return {
        "land.returns": returns,
        "land.labels": labels,
        "land.exchange_items": items,
        "land.transactions": transactions,
    }


def flat(key: str, shop: Shop, spell: Callable[[datetime], Any]) -> Row:
    """A return as Loop's list API has it, without its nested parts."""
    row, label = shop.returns[key], shop.labels.get(key)
    return {
        "id": int(key),
        "state": row["state"],
        "outcome": row["outcome"],
        "order_name": row["order_name"],
        "provider_order_id": f"7{key}" if int(key) % 2 else None,
        "customer": None,
        "status_page_url": row["status_page_url"],
        "created_at": spell(row["created_at"]),
        "updated_at": spell(row["updated_at"]),
        "carrier": label["carrier"] if label else "N/A",
        "tracking_number": label["tracking_number"] if label else None,
        "label_status": label["status"] if label else None,
        "label_url": label["url"] if label else None,
        "label_updated_at": label["updated_at"].isoformat() if label else "N/A",
    }


def same(at: datetime) -> datetime:
    return at


def naive(at: datetime) -> datetime:
    return at.replace(tzinfo=None)


def beside(shop: Shop, at: datetime, *, airbyte: bool = False) -> Tables:
    """Shopify by Fivetran, and Stripe by Fivetran or Airbyte."""
    orders = [
        {
            "id": int(f"7{key}"),
            "name": shop.returns[key]["order_name"],
            "customer_id": int(f"8{key}"),
            "email": row["email"],
            "billing_address_phone": "",
            "_fivetran_deleted": False,
            "_fivetran_synced": row["at"],
        }
        for key, row in shop.orders.items()
    ]
    customers = [
        {"id": int(f"8{key}"), "phone": row["phone"], "_fivetran_synced": at} for key, row in shop.orders.items()
    ]
    stamp = "_airbyte_extracted_at" if airbyte else "_fivetran_synced"
    charges, refunds = [], []
    for key, row in shop.transactions.items():
        money = {
            "id": key,
            "amount": row["amount"],
            "currency": "usd",
            "status": "succeeded",
            stamp: at,
            "created": int(row["created_at"].timestamp()) if airbyte else row["created_at"],
            "metadata": json.dumps({"loop_return": row["return_id"]}),
        }
        if row["kind"] == "payment":
            charges.append(money | {"captured": row["captured"], "refunded": not row["captured"], "livemode": True})
        else:
            refunds.append(money | {"charge" if airbyte else "charge_id": key.replace("re_", "ch_"), "metadata": "{}"})
    s = "s" if airbyte else ""
    return {
        "shopify.order": orders,
        "shopify.customer": customers,
        f"stripe.charge{s}": charges,
        f"stripe.refund{s}": refunds,
        "shopify.product_variant": [{"id": int(key), "inventory_item_id": int(f"6{key}")} for key in shop.stock],
        "shopify.inventory_level": [
            {
                "inventory_item_id": int(f"6{key}"),
                "location_id": place,
                "available": row["available"] - place,
                "updated_at": row["updated_at"],
                "_fivetran_synced": row["updated_at"],
            }
            for key, row in shop.stock.items()
            for place in (0, 1)
            if row["available"] or not place
        ],
    }


def fivetran(shop: Shop, at: datetime) -> Tables:
    """A cancelled return stays in the list as it was before."""
    system = {"_fivetran_synced": at, "_fivetran_deleted": False}
    listed, cancelled, exchanges = [], [], []
    for key, row in shop.returns.items():
        told = flat(key, shop, same) | system
        if row["state"] == "cancelled":
            listed.append(told | {"state": "open", "updated_at": row["created_at"]})
            cancelled.append(
                {name: told[name] for name in ("id", "created_at", "_fivetran_synced", "_fivetran_deleted")}
                | {"updated_at": told["updated_at"]}
            )
        else:
            listed.append(told)
    for key, item in shop.items.items():
        exchanges.append(
            {
                "exchange_id": int(item["exchange_id"]),
                "return_list_id": int(key),
                "out_of_stock": True,
                "out_of_stock_resolution": item["resolution"],
                "variant_id": int(f"5{key}"),
            }
            | system
        )
    notices = [
        {
            "id": int(key),
            "return_line_item_id": int(f"3{key}"),
            "integration_tracking_url": label["tracking_url"],
            "_fivetran_synced": at,
        }
        for key, label in shop.labels.items()
        if label["tracking_url"]
    ]
    return beside(shop, at) | {
        "land.return_list": listed,
        "land.return_cancelled": cancelled,
        "land.return_list_exchange": exchanges,
        "land.return_list_line_item": [
            {"line_item_id": int(f"3{key}"), "return_list_id": int(key)} for key in shop.returns
        ],
        "land.advanced_shipping_notice": notices,
    }


def dlt(shop: Shop, at: datetime) -> Tables:
    load = str(at.timestamp())
    returns, labels, exchanges = [], [], []
    for key in shop.returns:
        told = flat(key, shop, same) | {"id": key, "_dlt_id": f"r{key}", "_dlt_load_id": load}
        returns.append(told | {"label_updated_at": None, "label_updated_at__v_text": "N/A"})
        if (label := shop.labels.get(key)) and int(key) % 3:  # the others have the flat one alone
            child = {name: label[name] for name in ("carrier", "status", "url", "updated_at")}
            labels.append(
                child
                | {
                    "tracking_number": None,
                    "tracking_number__v_text": label["tracking_number"],
                    "_dlt_parent_id": f"r{key}",
                    "_dlt_id": f"l{key}",
                }
            )
        elif label:
            returns[-1]["label_updated_at"] = label["updated_at"]
        if item := shop.items.get(key):
            exchanges.append(
                {
                    "exchange_id": item["exchange_id"],
                    "out_of_stock": True,
                    "_dlt_parent_id": f"r{key}",
                    "out_of_stock_resolution": item["resolution"],
                    "variant_id": f"5{key}",
                }
            )
    return beside(shop, at) | {
        "land.returns": returns,
        "land.returns__labels": labels,
        "land.returns__exchanges": exchanges,
        "land._dlt_loads": [{"load_id": load, "status": 0, "inserted_at": at}],
    }


def nested(key: str, shop: Shop) -> Row:
    label, item = shop.labels.get(key), shop.items.get(key)
    labels = (
        [
            {name: label[name] for name in ("carrier", "tracking_number", "status", "url")}
            | {"updated_at": label["updated_at"].isoformat(), "line_items": [1]}
        ]
        if label
        else []
    )
    exchanges = (
        [{"exchange_id": item["exchange_id"], "out_of_stock": True, "out_of_stock_resolution": item["resolution"]}]
        if item
        else []
    )
    return {"labels": json.dumps(labels), "exchanges": json.dumps(exchanges)}


def posthog(shop: Shop, at: datetime) -> Tables:
    return beside(shop, at) | {"land.returns": [flat(key, shop, naive) | nested(key, shop) for key in shop.returns]}


def airbyte(shop: Shop, at: datetime) -> Tables:
    """Times of rows as text, as a source without a schema leaves them."""
    rows = [
        flat(key, shop, datetime.isoformat) | nested(key, shop) | {"_airbyte_extracted_at": at} for key in shop.returns
    ]
    return beside(shop, at, airbyte=True) | {"land.returns": rows}


LANDINGS: Mapping[str, Callable[[Shop, datetime], Tables]] = {
    "canonical": canonical,
    "fivetran": fivetran,
    "dlt": dlt,
    "posthog": posthog,
    "airbyte": airbyte,
}


def settings(connector: str) -> dict[str, Any]:
    """A shop's settings for a landing of this connector."""
    if connector == "canonical":
        return {"connector": connector, "schema": "land"}
    return {
        "connector": connector,
        "schema": "land",
        "shopify": {"schema": "shopify"},
        "stripe": {
            "schema": "stripe",
            "connector": "airbyte" if connector == "airbyte" else "fivetran",
            "return_id_in": "loop_return",
        },
    }


# ── Into a warehouse ────────────────────────────────────────────────────────

TYPES = {
    "postgresql": {datetime: "timestamptz", "naive": "timestamp", Decimal: "numeric"},
    "snowflake": {datetime: "timestamp_tz", "naive": "timestamp_ntz", Decimal: "number(18, 2)"},
    "duckdb": {datetime: "timestamptz", "naive": "timestamp", Decimal: "decimal(18, 2)"},
}
COMMON = {bool: "boolean", int: "bigint", str: "varchar"}


def land(engine: sa.Engine, tables: Tables, *, is_complete: bool = False) -> None:
    """Replaces these tables. Unless is_complete, a column without a value, and a table without a row, is not there."""
    with engine.begin() as connection:
        for name, rows in tables.items():
            schema, _, table = name.partition(".")
            quoted = f"{schema}.{_quoted(engine, table)}"
            connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {quoted}"))
            if columns := _columns(engine, rows, is_complete):
                defined = ", ".join(f"{_quoted(engine, column)} {kind}" for column, kind in columns.items())
                connection.execute(sa.text(f"CREATE TABLE {quoted} ({defined})"))
                values = ", ".join(f":{column}" for column in columns)
                names = ", ".join(_quoted(engine, column) for column in columns)
                statement = sa.text(f"INSERT INTO {quoted} ({names}) VALUES ({values})")
                connection.execute(statement, [{column: row.get(column) for column in columns} for row in rows])


def _quoted(engine: sa.Engine, name: str) -> str:
    """A name that may be a word of SQL, in the case that the engine gives it without quotes."""
    return f'"{name.upper() if engine.dialect.name == "snowflake" else name}"'


def _columns(engine: sa.Engine, rows: Sequence[Row], is_complete: bool) -> dict[str, str]:
    types = TYPES[engine.dialect.name]
    columns: dict[str, str] = {}
    if is_complete:
        columns = {
            name: types[datetime] if name.endswith("_at") else "varchar"
            for name in rows[0]
            if all(row[name] is None for row in rows)
        }
    for row in rows:
        for column, value in row.items():
            if value is None or column in columns:
                continue
            kind: Any = type(value)
            if isinstance(value, datetime) and value.tzinfo is None:
                kind = "naive"
            columns[column] = COMMON.get(kind) or types[kind]
    return columns
