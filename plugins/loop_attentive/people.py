"""People as the ledger remembers them: by keyed hashes of their phones and e-mail addresses."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, cast

import psycopg


def hash_key(conn: psycopg.Connection[Any]) -> bytes:
    """The key of this ledger's hashes."""
    return bytes(cast(tuple[bytes], conn.execute("SELECT key FROM hash_key").fetchone())[0])


def hashed(contact: str, key: bytes) -> int:
    """64 bits, signed, of a phone in E.164 or an e-mail address; who writes the latter in capitals is the same."""
    return int.from_bytes(blake2b(contact.lower().encode(), key=key, digest_size=8).digest(), signed=True)


def hashes(contacts: Iterable[Any], key: bytes) -> list[int | None]:
    """Of each contact; None for what is no text."""
    return [hashed(contact, key) if isinstance(contact, str) else None for contact in contacts]
