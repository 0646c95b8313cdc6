"""Everything goes wrong while events are sent by the thousand: none is lost, and none is sent twice without a doubt.

Told after the stories of the others, as it kills what they live by. A story is made by its seed, which it prints (what
processes do besides is theirs): CHAOS_SEED=7 tells another one.
"""

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from sandbox.attentive import Record
from tests.e2e.chaos import CLEARED, KILL, Chaos, Fate, own_ledger
from tests.e2e.house import EMAIL, HOUR, PHONE, STATUS_PAGE, House, Merchant

CREATED, LABEL = "Loop Return Created", "Loop Label Created"
MONEY = ("Loop Payment Transaction", "Loop Refund Transaction")

DOUBTFUL_STATUSES = (408, 500, 502, 504)

RESEND_AFTER = 120.0

SETTLED_WITHIN, SETTLED_AFTER_RESTART = 3.0, 15.0
"""Seconds; a few hundredths, on a machine that does nothing else."""


@dataclass(frozen=True)
class Plan:
    """What is to be told.

    returns: each makes one and a half events. limit: requests a second. hurried: the ledger's minutes are skipped, not
    waited for.
    """

    returns: int
    limit: int
    blows: tuple[str, ...]
    hurried: bool


SHORT = Plan(
    1_000,
    150,
    (KILL, "the ledger crashes", CLEARED, "the scheduler is killed"),
    hurried=True,
)
LONG = Plan(
    13_000,
    600,
    (
        *[KILL] * 4,
        "the ledger restarts",
        "the ledger crashes",
        "the ledger crashes",
        "Airflow's database restarts",
        CLEARED,
        "the run is cleared",
        "the scheduler is killed",
        "the machine is lost",
    ),
    hurried=False,
)


@pytest.fixture
def merchant(house: House, stories: dict[str, Future[None]]) -> Merchant:
    """One who has the house for himself, as the others' stories are over."""
    assert all(story.done() for story in stories.values())
    return house.merchants["chaos"]


@pytest.mark.parametrize("plan", [SHORT, pytest.param(LONG, marks=pytest.mark.long)], ids=["short", "long"])
def test_nothing_is_lost_and_nothing_is_doubled(house: House, merchant: Merchant, plan: Plan) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "1"))
    print(f"CHAOS_SEED={seed}")
    expected = fill(merchant, plan.returns)
    merchant.attentive.limit = plan.limit
    with own_ledger(house, merchant) as ledger:
        chaos = Chaos(house, merchant, ledger, random.Random(seed), hurried=plan.hurried)
        chaos.play(merchant.scheduled(merchant.hourly), len(expected), list(plan.blows))
        chaos.until_it_succeeds()
        assert merchant.task(chaos.run, "audit")["state"] == "success"

        check(chaos, expected)
        assert merchant.leased() == 0
        merchant.adds_up()
        assert len(chaos.kills) == plan.blows.count(KILL)
        for killed in chaos.kills:
            ahead = [doubt for doubt in killed.left if not doubt.arrived]
            assert len(ahead) <= 0.3 * plan.limit, "marked a few tenths of a second ahead"
            longest = SETTLED_WITHIN if killed.calm else SETTLED_AFTER_RESTART
            assert max((doubt.answered for doubt in killed.left if doubt.answered), default=0.0) < longest
        told = {(record.status, record.accepted) for record in merchant.attentive.received}
        assert told >= {(200, True), (429, False), (503, False), (500, True), (None, True), (None, False)}


def fill(merchant: Merchant, returns: int) -> Counter[tuple[str, str]]:
    """Puts returns, labels, payments and refunds of the last hours into the warehouse; the events that are due."""
    now = datetime.now(UTC)
    merchant.warehouse.execute(
        """
        INSERT INTO loop.returns (
            return_id, state, order_name, customer_phone, customer_email, status_page_url, labels_enabled, is_deleted,
            created_at, updated_at, synced_at
        )
        SELECT i, 'open', '#' || i, %(phone)s, %(email)s, %(page)s, true, false, at, at, %(now)s
        FROM generate_series(1, %(returns)s::integer) AS i,
        LATERAL (SELECT %(now)s::timestamptz - interval '2 hours' + i * interval '1 millisecond' AS at) AS t
        """,
        {"phone": PHONE, "email": EMAIL, "page": STATUS_PAGE, "now": now, "returns": returns},
    )
    merchant.warehouse.execute(
        """
        INSERT INTO loop.labels (return_id, carrier, tracking_number, status, created_at, synced_at)
        SELECT i::text, 'UPS', '1Z' || i, 'new', %(at)s, %(now)s FROM generate_series(4, %(returns)s::integer, 4) AS i
        """,
        {"at": now - HOUR, "now": now, "returns": returns},
    )
    for kind, every in (("payment", 5), ("refund", 10)):
        merchant.warehouse.execute(
            """
            INSERT INTO loop.transactions (
                transaction_id, return_id, kind, gateway, status, amount, currency, created_at, synced_at
            )
            SELECT %(kind)s || i, i::text, %(kind)s, 'stripe', 'succeeded', '1.00', 'USD', %(at)s, %(now)s
            FROM generate_series(%(every)s::integer, %(returns)s, %(every)s) AS i
            """,
            {"kind": kind, "every": every, "at": now - HOUR, "now": now, "returns": returns},
        )
    rhythm = {CREATED: 1, LABEL: 4, MONEY[0]: 5, MONEY[1]: 10}
    return Counter((name, str(i)) for name, n in rhythm.items() for i in range(n, returns + 1, n))


# ── What must hold ──────────────────────────────────────────────────────────


def check(chaos: Chaos, expected: Counter[tuple[str, str]]) -> None:
    """Every event, one by one, as the ledger has it and as Attentive received it."""
    fates = chaos.fates()
    received = defaultdict(list)
    for record in chaos.merchant.attentive.received:
        if record.event_id is not None:  # reset before its body was read
            received[record.event_id].append(record)
    assert Counter((fate.event_type, fate.return_id) for fate in fates) == expected
    assert received.keys() <= {fate.event_id for fate in fates}
    wrong = [
        f"{fault}: {fate}, received {[(round(r.arrived, 2), r.status, r.accepted) for r in received[fate.event_id]]}"
        for fate in fates
        for fault in faults(fate, received[fate.event_id], chaos)
    ]
    assert not wrong, f"{len(wrong)} faults, such as: {wrong[:5]}"
    assert out_of_order(fates, received) == []


def faults(fate: Fate, records: list[Record], chaos: Chaos) -> Iterator[str]:
    """What is wrong with what became of an event."""
    is_money = fate.event_type in MONEY
    accepted = sum(record.accepted for record in records)
    doubts = [
        number
        for number, attempt in enumerate(fate.attempts)
        if attempt.is_unknown or attempt.http_status in DOUBTFUL_STATUSES
    ]
    made = sum(attempt.outcome not in ("not sent", "lost") for attempt in fate.attempts)
    lost = sum(attempt.outcome == "lost" for attempt in fate.attempts)
    unread = sum(attempt.outcome == "unknown" for attempt in fate.attempts)
    unknown = sum(attempt.is_unknown for attempt in fate.attempts)

    if fate.status not in ("accepted", "unknown"):
        yield "neither accepted nor known to be in doubt"
    if any(attempt.outcome is None for attempt in fate.attempts):
        yield "an attempt without an end"
    if not made - unread <= len(records) <= made + lost:
        yield "attempts are not requests"
    if fate.status == "accepted" and not accepted:
        yield "lost"
    if fate.status == "unknown" and not (fate.reason and (is_money or unknown > 1)):
        yield "in doubt without need"
    if accepted > 1 + sum(number < len(fate.attempts) - 1 for number in doubts):
        yield "sent again without a doubt"
    if is_money and (accepted > 1 or any(number < len(fate.attempts) - 1 for number in doubts)):
        yield "money sent again"
    if any(record.body != records[0].body for record in records):
        yield "not the same body again"
    matched = len(records) == len(fate.attempts)
    if matched and any(a.outcome == "unknown" and r.status for a, r in zip(fate.attempts, records, strict=True)):
        yield "in doubt though it was answered"
    for number, (one, other) in enumerate(pairwise(records)):
        was_unheard = one.status is None or one.status < 300 or (matched and fate.attempts[number].is_unknown)
        if chaos.between(one, other) < (RESEND_AFTER if was_unheard else 1.0):
            yield "again too soon"


def out_of_order(fates: list[Fate], received: dict[str, list[Record]]) -> list[str]:
    """Returns whose label was told of before the return itself was."""
    by_event = {(fate.event_type, fate.return_id): fate for fate in fates}
    return [
        fate.return_id
        for fate in fates
        if fate.event_type == LABEL
        and (created := by_event[CREATED, fate.return_id]).status == "accepted"
        and any(record.arrived < received[created.event_id][-1].arrived for record in received[fate.event_id])
    ]
