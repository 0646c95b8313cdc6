"""The rules: include/sql/events/*.sql, and the ways in which they are asked.

A rule is one SELECT over the mirror. It is given shop, as_of, since (its mark: changes seen until then are judged
already), fresh (whether the source is fresh enough to remind by) and window_days (the shop's instant-exchange window),
and yields a row for each event that is due: return_id, key, fact_at, occurred_at, timed_by (itself: by a time of its
own; touched: by the updated_at that moved with it; first_sight: by that of a row that is new to us; seen: by the look's
time), looked_after (as_of of the completed look before the one that saw it) and detail (jsonb: what the event is about,
by id and status only).
"""

import re
from datetime import datetime
from typing import Any, LiteralString, cast

import psycopg

from loop_attentive import db
from loop_attentive.catalogue import EventType
from loop_attentive.settings import Shop


def rule(event: EventType) -> LiteralString:
    """The rule's SELECT, without its lines of comment: a % in one would count as a parameter."""
    select = re.sub(r"(?m)^\s*--.*\n?", "", db.sql(f"events/{event.slug}"))
    return cast(LiteralString, select.rstrip().rstrip(";"))


def still_due_sql(event: EventType) -> str:
    """SQL that yields return_id for those of %(return_ids)s for which the rule holds at %(as_of)s."""
    return f"SELECT DISTINCT return_id FROM (\n{rule(event)}\n) AS due WHERE return_id = ANY(%(return_ids)s)"  # noqa: S608 - our own files


def freshness(conn: psycopg.Connection[Any], shop: Shop, now: datetime) -> tuple[bool, str | None]:
    """Whether reminders can be judged by the source as it was last synced, and if not, why."""
    parameters = {"shop": shop.name, "now": now, "freshness_hours": shop.freshness_hours}
    row = conn.execute(db.sql("mirror/freshness"), parameters).fetchone()
    return cast(tuple[bool, str | None], row)
