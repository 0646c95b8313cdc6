"""Fills an empty warehouse and lets it live: something happens in it after each look of the hourly DAG.

    python -m sandbox.live

Warehouse and ledger are the Airflow connections `loop_warehouse` and `loop_attentive_db`; runs until it is ended. Only
the warehouse of docker-compose.yaml is filled, and only while the stand-in gets what is sent.
"""

import logging
import signal
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import psycopg
from airflow.sdk import BaseHook

from loop_attentive import http_connection
from loop_attentive.db import conninfo
from loop_attentive.errors import NeedsMending
from sandbox.warehouse import World, create, fill

log = logging.getLogger(__name__)

SECONDS_BETWEEN_QUESTIONS = 20

LAST_HOURLY_LOOK = """
SELECT max(as_of)
FROM loop_attentive.audit_run
WHERE dag_id = 'loop_attentive_hourly' AND finished_at IS NOT NULL
"""


def check(warehouse: Any, attentive: Any) -> None:
    """Raises NeedsMending unless both Airflow connections are the sandbox's: what is made up belongs into nobody's
    warehouse or account.
    """
    attentive_url = http_connection.url(attentive, such_as="http://127.0.0.1:8099", carries="the key")
    is_ours = {
        warehouse.conn_id: (warehouse.host, warehouse.schema) == ("postgres", "warehouse"),
        attentive.conn_id: attentive_url.hostname == "127.0.0.1",
    }
    if wrong := [name for name, ours in is_ours.items() if not ours]:
        raise NeedsMending(
            f"Not the sandbox's: connection {', connection '.join(wrong)}. Nothing is made up there: take the one that "
            ".env.example has for the sandbox, or start without --profile sandbox."
        )


def live(warehouse: str, ledger: str, ended: threading.Event) -> None:
    """warehouse, ledger: conninfos. Until `ended` is set, the warehouse moves on whenever its last move was seen."""
    with psycopg.connect(warehouse, autocommit=True) as source:
        if source.execute("SELECT to_regnamespace('loop')").fetchone() == (None,):
            create(source)
            fill(source, returns=2000, now=datetime.now(UTC), seed=1)
            log.info("The warehouse is filled.")
        world = World(source, seed=1)
        seen = None
        while not ended.wait(SECONDS_BETWEEN_QUESTIONS):
            with psycopg.connect(ledger) as connection:
                row = connection.execute(LAST_HOURLY_LOOK).fetchone()
            if row and row[0] and row[0] != seen:
                seen = row[0]
                world.looked(seen)
                world.step(source, datetime.now(UTC))
                log.info("The look of %s was seen; the warehouse lived on.", seen)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    warehouse, ledger, attentive = map(BaseHook.get_connection, ("loop_warehouse", "loop_attentive_db", "attentive"))
    try:
        check(warehouse, attentive)
    except NeedsMending as error:
        sys.exit(str(error))
    live(conninfo(warehouse), conninfo(ledger), ended)


if __name__ == "__main__":
    main()
