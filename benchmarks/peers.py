"""Ways to send events: this project's, and what people do today. Each is a function that a fresh process calls.

All send the same bodies to the same server, as well as the way allows: connections are kept, nothing sleeps.
"""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import aiohttp
import requests
import yaml

from benchmarks.kit import megabytes
from loop_attentive import db, delivery, punctual
from loop_attentive.attentive import AttentiveTransport, Endpoint, wire_time
from loop_attentive.delivery import Batch, Origin, deliver
from loop_attentive.pace import Pace
from loop_attentive.rules import still_due_sql
from loop_attentive.settings import Shop
from sandbox.processes import API_KEY
from tests.sending import CREATED, event_body

FRESH = get_context("forkserver")
"""Where processes come from that share nothing with this one, and yet have imported all this already."""
FRESH.set_forkserver_preload([__name__])

PATH = "/v1/events/custom"
HEADERS = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}


@dataclass(frozen=True)
class Cost:
    """What a peer took of its process while it sent. processor: seconds. memory: megabytes, at the most.

    began_at: by the machine's monotonic clock, when everything was imported.
    """

    began_at: float
    processor: float
    memory: float


def alone(send: Callable[..., None], *arguments: Any) -> Cost:
    """Calls it in a process of its own."""
    with ProcessPoolExecutor(1, FRESH) as pool:
        return pool.submit(_measured, send, *arguments).result()


def _measured(send: Callable[..., None], *arguments: Any) -> Cost:
    over = threading.Event()
    seen: list[float] = []

    def watch() -> None:
        while not over.wait(0.2):
            seen.append(megabytes())

    watching = threading.Thread(target=watch)
    watching.start()
    began_at, processor = time.monotonic(), time.process_time()
    try:
        send(*arguments)
    finally:
        over.set()
        watching.join()
    return Cost(began_at, time.process_time() - processor, max([*seen, megabytes()]))


def events(count: int) -> list[dict[str, Any]]:
    """As Attentive is told them, and as the ledger's are."""
    now = wire_time(datetime.now(UTC))
    return [
        {"type": CREATED, "externalEventId": str(uuid.uuid4()), "occurredAt": now, **event_body(str(100_000 + number))}
        for number in range(count)
    ]


def encode(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def this_project(url: str, conninfo: str, shop: Shop, run_key: int, seconds: float | None = None) -> None:
    """One sending task: what is due in the ledger, to the end, or until it is told to stop after so many seconds."""

    async def work() -> None:
        stop = asyncio.Event()
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, stop.set)
        line = partial(db.aconnect, conninfo, autocommit=True)
        async with AttentiveTransport(Endpoint(url, f"{API_KEY}-{shop.name}")) as transport:  # an account of its own
            pace = Pace(line, transport.account, shop.name, shop.requests_per_second)
            await deliver(line, shop, Batch(), Origin(run_key), transport, pace, still_due=still_due_sql, stop=stop)

    delivery.spare_the_collector()  # as the operator does
    punctual.run(work())


def this_project_bounded(at_once: int, *arguments: Any) -> None:
    """The same, with so many requests under way at most, and from the start."""
    delivery.FIRST_UNDER_WAY = delivery.MOST_UNDER_WAY = at_once
    this_project(*arguments)


def aiohttp_loop(at_once: int, url: str, count: int) -> None:
    """No ledger, no pace: workers that take the next event as soon as the last was answered."""

    async def work() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:
            waiting = iter(events(count))

            async def worker() -> None:
                for event in waiting:
                    async with session.post(f"{url}{PATH}", data=encode(event)) as response:
                        await response.read()
                        response.raise_for_status()

            await asyncio.gather(*(worker() for _ in range(at_once)))

    delivery.spare_the_collector()
    asyncio.run(work())


def requests_loop(url: str, count: int) -> None:
    """What a PythonOperator does: one session, one event after the other."""
    with requests.Session() as session:
        session.headers.update(HEADERS)
        for event in events(count):
            session.post(f"{url}{PATH}", data=encode(event)).raise_for_status()


def drt(url: str, count: int) -> None:
    """A project of drt-core with its rest_api destination, its own limit lifted and its batches large."""
    with tempfile.TemporaryDirectory(prefix="la-drt-") as directory:
        _drt_project(Path(directory), url, count)
        subprocess.run(
            [Path(sys.executable).with_name("drt"), "run"],
            cwd=directory,
            env=os.environ | {"HOME": directory},  # it reads ~/.drt/profiles.yml
            check=True,
            capture_output=True,
        )


def _drt_project(project: Path, url: str, count: int) -> None:
    database = project / "events.sqlite"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE event (body text)")
        connection.executemany("INSERT INTO event VALUES (?)", ((encode(event).decode(),) for event in events(count)))
    sync = {
        "name": "events",
        "model": "SELECT body FROM event",
        "destination": {
            "type": "rest_api",
            "url": f"{url}{PATH}",
            "headers": HEADERS,
            "body_template": "{{ row.body }}",
        },
        "sync": {"batch_size": 1000, "rate_limit": {"requests_per_second": 0}},
    }
    files = {
        "drt_project.yml": {"name": "bench", "version": "0.1", "profile": "bench"},
        "syncs/events.yml": sync,
        ".drt/profiles.yml": {"bench": {"type": "sqlite", "database": str(database)}},
    }
    for name, content in files.items():
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(yaml.safe_dump(content))
