"""externalEventId: stable, and different for different events."""

import itertools
import json
import time
import uuid

from loop_attentive.event_id import NAMESPACE, event_id, event_ids

CREATED = "Loop Return Created"


def test_an_id_never_changes() -> None:
    # A literal, so that no change of the code can send everything a second time unnoticed.
    assert event_id("default", CREATED, "1001") == uuid.UUID("b740ebbb-45f6-5931-bf88-2d4aea1391e4")


def test_it_is_a_version_5_uuid_of_the_compact_json_array() -> None:
    key = 'a|"b"\\c, é 🎁'
    spelled = json.dumps(["default", CREATED, key], separators=(",", ":"), ensure_ascii=True)
    made = event_id("default", CREATED, key)
    assert made == uuid.uuid5(NAMESPACE, spelled)
    assert (made.version, made.variant) == (5, uuid.RFC_4122)


def test_no_two_triples_read_alike() -> None:
    awkward = [
        "",
        "a",
        "b",
        "ab",
        ",",
        '"',
        '","',
        'a","b',
        "\\",
        '\\"',
        "[",
        "a|b",
        "é",
        "e\u0301",
        "\0",
        "\ud800",
        " a",
    ]
    triples = list(itertools.product(awkward, repeat=3))
    assert len({event_id(*triple) for triple in triples}) == len(triples)


def test_many_are_the_same_as_one_by_one_and_in_order() -> None:
    keys = ["1", "2", "a|b", "é", "1"]
    assert list(event_ids("default", CREATED, keys)) == [event_id("default", CREATED, key) for key in keys]
    assert list(event_ids("default", CREATED, [])) == []


def test_a_hundred_thousand_take_seconds_at_most() -> None:
    started = time.process_time()
    assert len(set(event_ids("default", CREATED, map(str, range(100_000))))) == 100_000
    assert time.process_time() - started < 5
