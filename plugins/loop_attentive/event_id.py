"""externalEventId: the same event has the same id in every attempt, run and backfill."""

import uuid
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii as quoted

NAMESPACE = uuid.UUID("6f1c6d0e-5f0b-5c1a-9a53-1d2b7c0e4f68")
"""This project's own namespace. Changing it, or the encoding below, would send everything again."""


def event_id(shop: str, event_type: str, key: str) -> uuid.UUID:
    """UUIDv5 (RFC 9562) of the compact JSON array of the three, so that no two triples read alike.

    event_type: its name without the shop's prefix, which may change while the event stays the same.
    """
    return uuid.uuid5(NAMESPACE, f"[{quoted(shop)},{quoted(event_type)},{quoted(key)}]")


def event_ids(shop: str, event_types: Iterable[str], keys: Iterable[str]) -> list[uuid.UUID]:
    """The ids of many events, one for each pair of event type and key, in their order.

    Raises ValueError where there are not as many keys as event types.
    """
    return [event_id(shop, event_type, key) for event_type, key in zip(event_types, keys, strict=True)]
