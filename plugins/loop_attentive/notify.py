"""Tells somebody, by an incoming webhook, that a run has held events or has failed: numbers and names of types and
tasks, nothing of people.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import psycopg

from loop_attentive import db, http_connection
from loop_attentive.settings import Shop

TIMEOUT = aiohttp.ClientTimeout(total=10.0)


Post = Callable[[str], None]
"""Posts a message, or raises NotTold."""


class Held(NamedTuple):
    """Events of a type that a run has held."""

    event_type: str
    events: int
    reason: str
    bound: int


class NotTold(Exception):
    """The webhook did not take the message. Names neither its URL nor what was said."""


def held_by(conn: psycopg.Connection[Any], run_key: int, *, untold: bool = False) -> list[Held]:
    """What of a run's holds still waits for a person (no events: all is decided). untold: as much of it as nobody was
    notified of; those rows are the caller's then.
    """
    query = db.sql("ledger/held_untold" if untold else "ledger/held_by_run")
    query = query.replace("{still_held}", db.sql("ledger/still_held"))
    rows = conn.execute(query, {"run_key": run_key}).fetchall()
    return [Held(*row) for row in rows]


def waits(held: Sequence[Held]) -> bool:
    return any(one.events for one in held)


def text(shop: Shop, dag_id: str, run_id: str, held: Sequence[Held], ui: str = "") -> str:
    """What somebody should know of a run that has held events, and what to do. ui: the URL of Airflow's, if known."""
    lines = [f"- {one.events:,} {one.event_type}: {one.reason} (bound {one.bound:,})" for one in held if one.events]
    return "\n".join(
        [
            f"Held and not sent in shop {shop.name}: {sum(one.events for one in held):,} (DAG {dag_id}, run {run_id}).",
            *lines,
            f"Approve or discard them under Required Actions of DAG {shop.resolve_dag}"
            + (f", {ui.rstrip('/')}/dags/{shop.resolve_dag}/required_actions" if ui else "")
            + "; or trigger it with state held for a part of them. docs/guard.md says how to tell an accident from a "
            "busy hour. Until then they wait, and those that speak of something that happened expire after 24 hours.",
        ]
    )


def failed(shop: Shop, dag_id: str, run_id: str, why: str, ui: str = "") -> str:
    """What somebody should know of a run that has failed. why: as its audit says. ui: as of text."""
    where = f" {ui.rstrip('/')}/dags/{dag_id}/runs/{quote(run_id)}" if ui else ""
    return (
        f"Failed in shop {shop.name}: run {run_id} of DAG {dag_id}.{where}\n"
        f"{why}\n"
        "What waits, or is not found, and speaks of something that happened expires 24 hours after that."
    )


def tell_one(post: Post, message: str) -> int:
    """Posts one message; how many that are."""
    post(message)
    return 1


def tell(conn: psycopg.Connection[Any], shop: Shop, post: Post, ui: str = "") -> int:
    """Posts a message for each run that has held, in the shop's last week, what nobody was told of and still waits; how
    many messages.

    Each is told once: what was posted is committed with its message, and what another task is telling is left to it.
    ui: as of text. Raises what post raises; what was not told then is told by the next run.
    """
    runs = conn.execute(db.sql("ledger/runs_untold"), {"shop": shop.name}).fetchall()
    messages = 0
    for run_key, dag_id, run_id in runs:
        with conn.transaction():
            held = held_by(conn, run_key, untold=True)
            if waits(held):
                messages += tell_one(post, text(shop, dag_id, run_id, held, ui))
            conn.execute(
                "UPDATE hold SET told = events WHERE run_key = %s AND (event_type, reason) IN "
                "(SELECT * FROM unnest(%s::text[], %s::text[]))",
                (run_key, [one.event_type for one in held], [one.reason for one in held]),
            )
    return messages


@dataclass(frozen=True)
class Webhook:
    """Where messages go. Its URL is a secret."""

    url: str = field(repr=False)
    way: http_connection.Way

    def post(self, message: str) -> None:
        """Posts {"text": message}; raises NotTold."""
        try:
            status = asyncio.run(self._post(message))
        except (aiohttp.ClientError, OSError, ValueError) as error:  # the last for a host that cannot be one
            raise NotTold(f"it could not be reached ({type(error).__name__})") from None
        if not 200 <= status < 300:
            raise NotTold(f"it answered HTTP {status}")

    async def _post(self, message: str) -> int:
        headers = {**self.way.headers, "Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession(timeout=TIMEOUT) as session,
            session.post(
                self.url, data=json.dumps({"text": message}), headers=headers, ssl=self.way.ssl_context,
                proxy=self.way.proxy, allow_redirects=False,
            ) as response,
        ):  # fmt: skip
            return response.status


def webhook(connection: Any) -> Webhook:
    """Reads an Airflow connection of type http: host = the webhook's URL, whose secret end may be the password."""
    url = http_connection.url(connection, such_as="https://hooks.example.com/services", carries="messages", query=True)
    if connection.password:
        url = url._replace(path=f"{url.path.rstrip('/')}/{connection.password.strip().lstrip('/')}")
    return Webhook(url.geturl(), http_connection.way(connection, url))
