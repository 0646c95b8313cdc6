"""Reminders in the moment before they leave: their rules are asked again, against the mirror as it is by now."""

from collections.abc import Callable, Sequence
from datetime import datetime

from loop_attentive import db
from loop_attentive.catalogue import BY_NAME, REMINDERS, EventType
from loop_attentive.ledger import LEAVES_WITHIN, NO_REMINDERS, Claimed, JudgedReminders
from loop_attentive.reconnect import Connect, Connection, Reconnecting
from loop_attentive.settings import Shop


class Reminders:
    """On a connection of its own. still_due, now: see delivery.deliver."""

    def __init__(
        self,
        connect: Connect,
        shop: Shop,
        still_due: Callable[[EventType], str],
        now: Callable[[], datetime] | None,
    ) -> None:
        self._shop = shop
        self._still_due = still_due
        self._now = now
        self._database = Reconnecting(connect)

    async def judge(self, events: Sequence[Claimed]) -> JudgedReminders:
        """Which of some events wait for a fresh source, and which hold no longer, fresh or not. Raises DatabaseAway."""
        reminders = [event for event in events if event.event_type in REMINDERS]
        if not reminders:
            return NO_REMINDERS
        return await self._database.run(lambda connection: self._judge(connection, reminders))

    async def close(self) -> None:
        await self._database.close()

    async def _judge(self, connection: Connection, reminders: Sequence[Claimed]) -> JudgedReminders:
        now = self._now() if self._now else await db.anow(connection)
        fresh = await self._is_fresh(connection, now)
        waiting, no_longer = [], []
        for name in dict.fromkeys(event.event_type for event in reminders):
            events = [event for event in reminders if event.event_type == name]
            due = await self._due_returns(connection, BY_NAME[name], events, now, fresh)
            due_if_fresh = due if fresh else await self._due_returns(connection, BY_NAME[name], events, now, True)
            waiting += [event.event_id for event in events if event.return_id in due_if_fresh - due]
            no_longer += [event.event_id for event in events if event.return_id not in due_if_fresh | due]
        return JudgedReminders(waiting, no_longer)

    async def _is_fresh(self, connection: Connection, now: datetime) -> bool:
        asked = {"shop": self._shop.name, "now": now, "freshness_hours": self._shop.freshness_hours}
        row = await (await connection.execute(db.sql("mirror/freshness"), asked)).fetchone()
        assert row is not None, "an aggregate yields a row"
        return bool(row[0])

    async def _due_returns(
        self, connection: Connection, event_type: EventType, events: Sequence[Claimed], now: datetime, fresh: bool
    ) -> set[str]:
        cursor = await connection.execute(
            self._still_due(event_type),
            {
                "shop": self._shop.name,
                "as_of": now + LEAVES_WITHIN,
                "since": "-infinity",
                "fresh": fresh,
                "window_days": self._shop.instant_exchange_window_days,
                "return_ids": [event.return_id for event in events],
            },
        )
        return {row[0] for row in await cursor.fetchall()}
