"""What is held of people who said no is removed: from the mirror, and from the ledger.

Nothing of theirs leaves any more, since a mark asks the list. The ledger comes first; it is worked on in small steps
that wait for nobody, while senders run. The mirror is cleaned when no look is under way, since one that began earlier
may still bring in what is to go; and before the ledger, where only that tells which returns are theirs.
"""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from loop_attentive import db, mirror, people
from loop_attentive.catalogue import CATALOGUE
from loop_attentive.people import SaidNo
from loop_attentive.settings import Shop

log = logging.getLogger(__name__)

STEP = 500
"""Events that are locked at once."""

LOOK_AGAIN = 0.25
"""Seconds after which events that a sender had in hand are tried again."""


@dataclass
class Removed:
    """What was removed of a shop.

    returns: of the mirror. events: of the ledger; stopped: those of them that might still have gone out.
    shared: contacts that were found to share a return with one that was named. on_their_way: events that were still
    being sent when patience ended; they are not removed yet.
    """

    returns: int = 0
    events: int = 0
    stopped: int = 0
    shared: int = 0
    on_their_way: int = 0

    def __str__(self) -> str:
        return (
            f"{self.shared} more found that share a return with one of the list; removed from {self.returns} returns "
            f"and {self.events} events, {self.stopped} of which will not be sent any more"
            + (f"; {self.on_their_way} are still on their way" if self.on_their_way else "")
        )


@dataclass
class Work:
    """One shop's part in a removal. decision_id: the decision that it follows from. shares: as of SaidNo; a look that
    comes in between leaves nothing by which they could be found once more.
    """

    shop: Shop
    decision_id: int | None = None
    removed: Removed = field(default_factory=Removed)
    digest: str | None = None
    shares: dict[int, str] = field(default_factory=dict, repr=False)


BeforeRemoval = Callable[[Shop, SaidNo], None]


def catch_up(conn: psycopg.Connection[Any], shop: Shop) -> Removed | None:
    """Removes what is held of people who came onto the shop's list since this was last done; None if nobody did.

    For after a look, which keeps out what it reads; what is on its way just now is left to the next one.
    """
    row = conn.execute("SELECT cleaned_of FROM shop WHERE shop = %s", (shop.name,)).fetchone()
    who = people.said_no(conn, shop)
    if row is None or row[0] == who.digest or not (row[0] or who):
        return None
    work = Work(shop)
    remove(conn, [work])
    return work.removed


def remove(
    conn: psycopg.Connection[Any],
    works: Sequence[Work],
    *,
    patience: float = 0.0,
    before_removal: BeforeRemoval | None = None,
) -> None:
    """Removes what is held of everybody on the lists of some shops, and commits in steps; it may be done again.

    patience: seconds to wait for what is on its way. before_removal: called for each shop when none of the events goes
    out any more and the contacts are still known; what it raises leaves the mirrors as they are.
    """
    for work in works:
        work.digest = _find_shared(conn, work)
    until = time.monotonic() + patience
    for work in works:
        _clean_by_events(conn, work)
        _stop_events(conn, work, until)
    for work in works:
        _clean_mirror(conn, work, before_removal)
    for work in works:
        _wait_for_judgements(conn, work.shop)
        _stop_events(conn, work, until)
    if again := [work for work in works if people.said_no(conn, work.shop).digest != work.digest]:
        remove(conn, again, patience=patience, before_removal=before_removal)
    for work in works:
        if not work.removed.on_their_way:
            conn.execute("UPDATE shop SET cleaned_of = %s WHERE shop = %s", (work.digest, work.shop.name))


def _wait_for_judgements(conn: psycopg.Connection[Any], shop: Shop) -> None:
    """What was judged meanwhile knew the mirror as it was."""
    for event in CATALOGUE:  # one at a time: a preview takes one after the other, and keeps them
        with conn.transaction():
            conn.execute("SELECT FROM rule WHERE (shop, event_type) = (%s, %s) FOR SHARE", (shop.name, event.name))
    for what in (db.JUDGES_AGAIN, db.DECIDES):
        with conn.transaction():
            db.wait_for_turn(conn, what.format(shop.name))


def _find_shared(conn: psycopg.Connection[Any], work: Work) -> str:
    """Puts on the list whatever shares a return with a contact that was named; the sum of the list."""
    name = work.shop.name
    with conn.transaction():
        in_ledger = conn.execute(db.sql("people/shared_in_ledger"), {"shop": name}).rowcount
        who = people.said_no(conn, work.shop)
        _their_returns(conn, work.shop, who)
        in_mirror = people.opt_out(conn, name, who.found, given=False)
    work.removed.shared += in_ledger + in_mirror
    work.shares |= who.shares
    return who.digest


def _their_returns(conn: psycopg.Connection[Any], shop: Shop, who: SaidNo) -> list[str]:
    return people.owned(conn, who, db.sql("people/with_contact"), {"shop": shop.name}) if who else []


def _clean_by_events(conn: psycopg.Connection[Any], work: Work) -> None:
    """Cleans what only their events tell to be theirs, before these forget it."""
    query = db.sql("people/returns_by_event").replace("{their_events}", db.sql("people/their_events"))
    parameters = {"shop": work.shop.name}
    with conn.transaction():
        if not conn.execute(query, parameters).fetchone():
            return
        mirror.wait_for_turn(conn, work.shop)
        theirs = [return_id for (return_id,) in conn.execute(query, parameters)]
        _redact(conn, work, theirs)


def _stop_events(conn: psycopg.Connection[Any], work: Work, until: float) -> None:
    left = _their_events(conn, work.shop)
    while left:
        left -= _stop(conn, work, sorted(left))
        if time.monotonic() >= until:
            break
        time.sleep(LOOK_AGAIN if left else 0)
    work.removed.on_their_way = len(left)


def _their_events(conn: psycopg.Connection[Any], shop: Shop) -> set[uuid.UUID]:
    parameters = {"shop": shop.name}
    ids = {row[0] for row in conn.execute(db.sql("people/their_events"), parameters)}
    who = people.said_no(conn, shop)
    with conn.transaction():
        ids |= set(people.owned(conn, who, db.sql("people/unhashed_events"), parameters))
        people.opt_out(conn, shop.name, who.found, given=False)
    return ids


def _stop(conn: psycopg.Connection[Any], work: Work, event_ids: list[uuid.UUID]) -> set[uuid.UUID]:
    """Those of the events that nobody had in hand."""
    done = set()
    for start in range(0, len(event_ids), STEP):
        rows = conn.execute(
            db.sql("people/stop_events"),
            {"event_ids": event_ids[start : start + STEP], "decision_id": work.decision_id},
        ).fetchall()
        work.removed.events += len(rows)
        work.removed.stopped += sum(is_stopped for _, is_stopped in rows)
        done |= {event_id for event_id, _ in rows}
    return done


def _clean_mirror(conn: psycopg.Connection[Any], work: Work, before_removal: BeforeRemoval | None) -> None:
    shop = work.shop
    with conn.transaction():
        mirror.wait_for_turn(conn, shop)
        who = people.said_no(conn, shop)
        return_ids = _their_returns(conn, shop, who)
        who.shares |= work.shares
        if before_removal:
            before_removal(shop, who)
        work.removed.shared += people.opt_out(conn, shop.name, who.found, given=False)
        _redact(conn, work, return_ids)


def _redact(conn: psycopg.Connection[Any], work: Work, return_ids: Sequence[str]) -> None:
    with psycopg.ClientCursor(conn) as cur:
        db.script(cur, "people/redact_mirror", {"shop": work.shop.name, "return_ids": list(return_ids)})
    work.removed.returns += len(return_ids)
