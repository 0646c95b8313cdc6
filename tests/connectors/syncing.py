"""A sync in a process of its own, as a task is one: for tests that kill it, or start two."""

import logging
import multiprocessing
import os
import tempfile
import traceback
from contextlib import closing
from datetime import datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import dlt
import psycopg
from airflow.sdk import Connection
from psycopg.conninfo import conninfo_to_dict

from loop_attentive.loop_api import LoopApi
from loop_attentive.settings import Shop
from loop_attentive.sync import sync
from loop_attentive.sync_operators import alone
from sandbox.loop import Loop

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.connectors.syncing"])


def destination(database: str) -> Any:
    """dlt's, for libpq's conninfo of a socket's database."""
    at = conninfo_to_dict(database)
    return dlt.destinations.postgres(
        credentials=f"postgresql://{at['user']}:@localhost:5432/{at['dbname']}?host={at['host']}"
    )


def started(loop: Loop, database: str, shop: Shop, now: datetime, folder: Path, ledger: str = "") -> BaseProcess:
    """A sync that has begun. folder: for what it keeps on the disk, and says (`said`). ledger: to take turns by."""
    process = PROCESSES.Process(target=_sync, args=(loop.url, loop.key, database, shop, now, folder, ledger))
    process.start()
    return process


def _sync(url: str, key: str, database: str, shop: Shop, now: datetime, folder: Path, ledger: str) -> None:
    with (folder / "said").open("ab") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    logging.basicConfig(level=logging.INFO, force=True)
    tempfile.tempdir = str(folder)
    try:
        with closing(LoopApi(url, key)) as api:
            if not ledger:
                sync(api, destination(database), shop, now=now)
                return
            warehouse = Connection(conn_id="w", conn_type="postgres", schema=database)
            with psycopg.connect(ledger, autocommit=True) as conn, alone(conn, api, warehouse, shop):
                sync(api, destination(database), shop, now=now)
    except Exception:
        traceback.print_exc()
        os._exit(1)
