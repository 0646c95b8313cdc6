"""The search for what stands in customers' rows, and for keys, wherever somebody may see it."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from tests.e2e.house import (
    EMAIL,
    FORGOTTEN_EMAIL,
    FORGOTTEN_PHONE,
    KEY,
    LABEL_URL,
    LOOP_KEY,
    NAME,
    PHONE,
    PHONE_DIGITS,
    STATUS_PAGE,
    TRACKING_URL,
)

PRIVATE = (
    PHONE, PHONE_DIGITS, EMAIL, NAME, STATUS_PAGE, TRACKING_URL, LABEL_URL, KEY, LOOP_KEY,
    FORGOTTEN_PHONE.removeprefix("+1"), FORGOTTEN_EMAIL,
)  # fmt: skip

Leaks = dict[str, set[str]]
"""Where something private was found, and what."""


def in_text(text: str) -> set[str]:
    """Also as a URL or PostgreSQL's bytea spells it."""
    return {
        word for word in PRIVATE if any(spelt in text for spelt in (word, quote(word, safe=""), word.encode().hex()))
    }


def in_files(paths: Iterable[Path]) -> Leaks:
    return {str(path): words for path in paths if (words := in_text(path.read_text()))}


def in_metrics(said: Iterable[bytes]) -> set[str]:
    return in_text(b"".join(said).decode("latin-1"))


def in_tables(connection: psycopg.Connection[Any], schema: str, *, but: Collection[str] = ()) -> Leaks:
    """In each table and view of a schema, but those that may hold such."""
    return {
        name: words for name in relations(connection, schema) - set(but) if (words := _in(connection, schema, name))
    }


def relations(connection: psycopg.Connection[Any], schema: str) -> set[str]:
    """The tables and views of a schema."""
    query = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'p', 'v', 'm')"
    return {name for (name,) in connection.execute(query, [schema])}


def _in(connection: psycopg.Connection[Any], schema: str, name: str) -> set[str]:
    query = sql.SQL("SELECT coalesce(string_agg(t::text, ' '), '') FROM {} AS t").format(sql.Identifier(schema, name))
    [(text,)] = connection.execute(query).fetchall()
    return in_text(text)
