"""externalEventId: the same event has the same id in every attempt, run and backfill."""

import uuid
from collections.abc import Iterable, Iterator
from hashlib import sha1
from json.encoder import encode_basestring_ascii as quoted

NAMESPACE = uuid.UUID("6f1c6d0e-5f0b-5c1a-9a53-1d2b7c0e4f68")
"""This project's own namespace. Changing it, or the encoding below, would send everything again."""

HASHED, VERSION_5 = ~(0xF000 << 64 | 0xC000 << 48), 5 << 76 | 0x8000 << 48
"""The bits of a UUIDv5 that come from the hash, and its version and variant, which do not."""


def event_id(shop: str, event_type: str, key: str) -> uuid.UUID:
    """UUIDv5 (RFC 9562) of the compact JSON array of the three, so that no two triples read alike.

    event_type: its name without the shop's prefix, which may change while the event stays the same.
    """
    return uuid.uuid5(NAMESPACE, f"[{quoted(shop)},{quoted(event_type)},{quoted(key)}]")


def event_ids(shop: str, event_type: str, keys: Iterable[str]) -> Iterator[uuid.UUID]:
    """As event_id, of many events of one type, one for each key as it is asked for; at a third of the cost."""
    prefix = NAMESPACE.bytes + f"[{quoted(shop)},{quoted(event_type)},".encode()
    for key in keys:
        digest = sha1(prefix + f"{quoted(key)}]".encode(), usedforsecurity=False).digest()
        yield uuid.UUID(int=int.from_bytes(digest[:16]) & HASHED | VERSION_5)
