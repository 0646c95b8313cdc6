"""The four tables of the sandbox warehouse and a history to fill them with."""

from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from sandbox.warehouse import people

HERE = Path(__file__).parent
TABLES = ("returns", "labels", "exchange_items", "transactions")
FIRST_ID = 40_000_000

Connection = psycopg.Connection[Any]


def create(conn: Connection) -> None:
    """Make schema `loop` and its four empty tables. Raises psycopg.errors.DuplicateSchema where it exists."""
    conn.execute((HERE / "create.sql").read_text())


def fill(conn: Connection, *, returns: int, now: datetime, seed: int, days: int = 200, growth: float = 2.0) -> None:
    """Write a history of `returns` returns that ends at `now` (aware): the same for the same arguments.

    days: how long the shop has been there. growth: 1.0 for as many returns each day, more for a shop that grows.
    A million take about half a minute, ten million some minutes; the server does the work.
    """
    made_of = {
        "returns": returns,
        "now": now,
        "seed": seed,
        "days": days,
        "growth": growth,
        "first_id": FIRST_ID,
        "names": people.NAMES,
        "area_codes": people.AREA_CODES,
        "phone_spellings": people.PHONE_SPELLINGS,
    }
    with conn.transaction():
        psycopg.ClientCursor(conn).execute((HERE / "fill.sql").read_text(), made_of)


def describe(conn: Connection) -> dict[str, int]:
    """Rows in each table."""
    counts = ", ".join(f"(SELECT count(*) FROM loop.{table})" for table in TABLES)
    [row] = conn.execute(sql.SQL("SELECT " + counts))
    return dict(zip(TABLES, row, strict=True))
