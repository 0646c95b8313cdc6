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

import psycopg
from airflow.sdk import Connection
from psycopg.conninfo import conninfo_to_dict

from loop_attentive.destinations import destination, place
from loop_attentive.loop_api import LoopApi
from loop_attentive.settings import Shop
from loop_attentive.sync import sync
from loop_attentive.sync_operators import alone
from sandbox.loop import Loop

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.connectors.syncing"])


def postgres(database: str) -> Connection:
    """Airflow's connection to a database of which libpq's conninfo names the socket."""
    at = conninfo_to_dict(database)
    host, login, schema = (str(at[name]) for name in ("host", "user", "dbname"))
    return Connection(conn_id="loop_warehouse", conn_type="postgres", host=host, login=login, schema=schema)


def started(loop: Loop, landing: Connection, shop: Shop, now: datetime, folder: Path, ledger: str = "") -> BaseProcess:
    """A sync that has begun. folder: for what it keeps on the disk, and says (`said`). ledger: to take turns by."""
    process = PROCESSES.Process(target=_sync, args=(loop.url, loop.key, landing, shop, now, folder, ledger))
    process.start()
    return process


def _sync(url: str, key: str, landing: Connection, shop: Shop, now: datetime, folder: Path, ledger: str) -> None:
    with (folder / "said").open("ab") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    logging.basicConfig(level=logging.INFO, force=True)
    tempfile.tempdir = str(folder)
    try:
        with closing(LoopApi(url, key)) as api:
            if not ledger:
                sync(api, destination(landing), shop, now=now)
                return
            with (
                psycopg.connect(ledger, autocommit=True) as conn,
                alone(conn, api.account, place(landing)) as still_alone,
            ):
                sync(api, destination(landing), shop, now=now, still_alone=still_alone)
    except Exception:
        traceback.print_exc()
        os._exit(1)
