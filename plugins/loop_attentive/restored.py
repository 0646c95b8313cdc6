"""After the ledger's database was restored from a backup: makes it safe to let the runs go on.

    python -m loop_attentive.restored [--shop NAME]

What was sent since the backup is in no table. So whatever the backup would still send waits for a person, and what
happened until now is baseline when the next runs find it: recorded, never sent unless a person releases it.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg

from loop_attentive import commands, db, decisions, settings
from loop_attentive.catalogue import CATALOGUE
from loop_attentive.operators import ledger
from loop_attentive.settings import Shop


class Waiting(NamedTuple):
    """Events of one type that wait for a person in one state."""

    event_type: str
    status: str
    events: int


class Restored(NamedTuple):
    """last_look: as_of of the last one that the backup knows, UTC; None if it knows none."""

    last_look: datetime | None
    waiting: Sequence[Waiting]

    def __str__(self) -> str:
        until = f"{self.last_look.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if self.last_look else "before its first look"
        lines = [f"  {line.events:>9,} {line.status:<10} {line.event_type}" for line in self.waiting]
        return "\n".join([f"the backup's last look: {until}; waiting for a person:", *(lines or ["  nothing"])])


def make_safe(conn: psycopg.Connection[Any], shop: Shop, *, who: str, now: datetime | None = None) -> Restored:
    """Keeps what the backup would send from leaving, lets the rules start now, and commits; may be done again.

    now: aware; by default the ledger's clock.
    """
    with conn.transaction(), psycopg.ClientCursor(conn) as cur:
        [(last_look,)] = conn.execute("SELECT max(as_of) FROM look WHERE shop = %s", (shop.name,)).fetchall()
        rows = conn.execute(db.sql("ledger/restored"), {"shop": shop.name, "is_live": shop.mode == "live"}).fetchall()
        db.script(
            cur,
            "ledger/start_rules_anew",
            {
                "shop": shop.name, "now": now,
                "event_types": [event.name for event in CATALOGUE],
                "versions": [event.version for event in CATALOGUE],
            },
        )  # fmt: skip
        waiting = [Waiting(*row) for row in rows]
        scope = {"last look": last_look.astimezone(UTC).isoformat() if last_look else None}
        decisions.record(
            conn, shop=shop.name, action="restored", who=who, why="the ledger was restored from a backup",
            scope=scope, events=sum(line.events for line in waiting),
        )  # fmt: skip
    return Restored(last_look, waiting)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a ledger safe that was restored from a backup.")
    parser.add_argument("--shop", help="of include/shops.yaml; by default every shop")
    only = parser.parse_args().shop
    return commands.exit_status(lambda: run(only))


def run(only: str | None) -> int:
    shops = [settings.shop(only)] if only else settings.load().values()
    with ledger() as conn:
        for shop in shops:
            print(f"Shop {shop.name}: {make_safe(conn, shop, who=commands.user())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
