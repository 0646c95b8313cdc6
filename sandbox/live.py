"""Fills an empty warehouse and lets it live: something happens in it after each look of the hourly DAG.

    python -m sandbox.live

Warehouse and ledger are the Airflow connections `loop_warehouse` and `loop_attentive_db`; runs until it is ended.
"""

import logging
import signal
import threading
from datetime import UTC, datetime

import psycopg
from airflow.sdk import BaseHook

from loop_attentive.db import conninfo
from sandbox.warehouse import World, create, fill

log = logging.getLogger(__name__)

SECONDS_BETWEEN_QUESTIONS = 20

LAST_HOURLY_LOOK = """
SELECT max(as_of)
FROM loop_attentive.audit_run
WHERE dag_id = 'loop_attentive_hourly' AND finished_at IS NOT NULL
"""


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
    warehouse, ledger = (conninfo(BaseHook.get_connection(name)) for name in ("loop_warehouse", "loop_attentive_db"))
    live(warehouse, ledger, ended)


if __name__ == "__main__":
    main()
