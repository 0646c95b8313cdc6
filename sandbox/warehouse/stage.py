"""What a scene of the story has at hand: chance, the time since the last look, and things never seen before."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.warehouse import people
from sandbox.warehouse.events import OUTCOMES, Event
from sandbox.warehouse.returns import NOTHING, Item, Label, Return, Transaction, stamp

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
FOUR_SECONDS = timedelta(seconds=4)

LONGEST_SILENCE = timedelta(hours=2)
"""Nothing is dated earlier than this before a step, so that after a long pause the news is still fresh."""


@dataclass
class News:
    """Something happened that Attentive is to be told, if somebody can be reached and it is not too late by then.

    fact_at: when; None when only the look that sees it can say.
    """

    event_type: Event
    about: Return
    fact_at: datetime | None = None
    label: Label | None = None
    transaction_id: str | None = None
    out_of_stock_outcome: str | None = None
    seen_at: datetime | None = None  # the first look after it


class Stage:
    """seed: makes all choices. last_number: what things are numbered after."""

    def __init__(self, seed: int, last_number: int) -> None:
        self.rng = random.Random(seed)
        self._last_number = last_number
        self.now = self.since = EPOCH

    def set_time(self, since: datetime, now: datetime) -> None:
        """Things happen after `since`, the last look, and not after `now`."""
        self.since, self.now = max(since, now - LONGEST_SILENCE), now

    def moment(self) -> datetime:
        """When something happens: a whole millisecond."""
        first, last = (self.since - EPOCH) // MILLISECOND + 1, (self.now - EPOCH) // MILLISECOND
        return EPOCH + self.rng.randint(first, max(first, last)) * MILLISECOND

    def new_return(self, age: timedelta = timedelta(0), **traits: Any) -> Return:
        number = self.number()
        created_at = self.moment() - age
        columns: dict[str, Any] = {
            "return_id": number,
            "state": "open",
            "outcome": self.rng.choice(OUTCOMES),
            "order_name": f"#{number}",
            "customer_email": people.email(self.rng),
            "customer_phone": people.phone(self.rng),
            "status_page_url": f"https://sandbox.loopreturns.com/#/return/{self._uuid()}",
            "labels_enabled": True,
            "is_instant_exchange": False,
            "charge_at": None,
            "created_at": created_at,
            "updated_at": created_at,
        }
        return Return(**(columns | traits))

    def first_label(self, r: Return) -> Label:
        """Made four seconds after its return."""
        latest = self.now - (self.now - EPOCH) % MILLISECOND
        return self.new_label(min(r.created_at + FOUR_SECONDS, latest))

    def new_label(self, made_at: datetime) -> Label:
        number = self.number()
        return Label(
            carrier="USPS",
            tracking_number=f"92055{number:017d}",
            tracking_url=f"https://track.example.com/92055{number}",
            label_url=f"https://labels.example.com/{self._uuid()}.pdf",
            status="new",
            created_at=made_at,
            updated_at=stamp(made_at),
        )

    def new_item(self, updated_at: datetime | None) -> Item:
        return Item(
            exchange_id=self.number(),
            out_of_stock=True,
            resolution=self.rng.choice(NOTHING),
            restocked_at=None,
            updated_at=updated_at,
        )

    def new_transaction(self, kind: str, gateway: str, status: str) -> Transaction:
        sign, prefix = ("", "ch_") if kind == "payment" else ("-", "re_")
        return Transaction(
            transaction_id=f"{prefix}{self.number()}",
            kind=kind,
            gateway=gateway,
            status=status,
            amount=f"{sign}{self.rng.randrange(500, 20000) / 100:.2f}",
            currency="USD",
            created_at=self.moment(),
        )

    def number(self) -> int:
        """One that nothing else bears."""
        self._last_number += 1
        return self._last_number

    def _uuid(self) -> str:
        digits = f"{self.rng.getrandbits(128):032x}"
        return "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]])
