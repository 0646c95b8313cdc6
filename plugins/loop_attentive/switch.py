"""A running sender's eye on the switch: whoever stops a shop stops its senders within a second."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from loop_attentive import db, decisions
from loop_attentive.db import DatabaseAway
from loop_attentive.reconnect import Connect, Connection, Reconnecting

LOOK_EVERY = 0.3
"""Seconds; with the time that a marked request needs to be called back it is well within a second."""


class Switch:
    """stop: who stopped the shop, as far as is known."""

    def __init__(self) -> None:
        self.stop: decisions.Stop | None = None


@asynccontextmanager
async def watched(connect: Connect, shop: str, stop: asyncio.Event) -> AsyncIterator[Switch]:
    """Sets the event when the shop is stopped, at once if it is already.

    Also when it cannot look any more; what keeps it from that is raised in the end.
    """
    switch, line = Switch(), Reconnecting(connect)

    async def look(connection: Connection) -> decisions.Stop | None:
        cursor = await connection.execute(db.sql("ledger/switch"), {"shop": shop})
        return decisions.as_stop(await cursor.fetchone())

    async def watch() -> None:
        try:
            while switch.stop is None:
                await asyncio.sleep(LOOK_EVERY)
                with suppress(DatabaseAway):  # who sends finds out by itself
                    switch.stop = await line.run(look)
        finally:
            stop.set()

    switch.stop = await line.run(look)
    if switch.stop:
        stop.set()
    watching = asyncio.create_task(watch())
    try:
        yield switch
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            try:
                await watching
            finally:
                await line.close()
