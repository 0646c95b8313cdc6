"""Forgets people: removes what is held of them, and keeps everything from reaching them from now on.

    python -m loop_attentive.forget [--shop NAME] [--delete-at-attentive] < contacts.txt

contacts.txt: one phone or e-mail address a line. None of them is ever shown, logged, or given to another program.
"""

import argparse
import asyncio
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import psycopg
from psycopg.types.json import Json

from loop_attentive import commands, contacts, db, decisions, people, removal, settings
from loop_attentive.attentive import Answer, AttentiveHook, AttentiveTransport
from loop_attentive.errors import NeedsMending
from loop_attentive.operators import ledger
from loop_attentive.people import SaidNo
from loop_attentive.settings import Shop

PATIENCE = 180.0
"""Seconds to wait for requests that are on their way: longer than any of them, and than the lease of a dead sender."""

ATTEMPTS = 5
"""Of one request to delete somebody."""

LONGEST_PAUSE = 30.0

WRITTEN_LIKE_A_PHONE = re.compile(r"(?:tel:)?[+\d\s().\-/]+")
"""A line that holds more than a phone holds more than one contact, perhaps: no part of it is taken for the whole."""


@dataclass
class Read:
    """What a shop makes of the lines: contacts as they are sent, and the numbers of lines that are none."""

    contacts: set[str] = field(default_factory=set)
    unusable: list[int] = field(default_factory=list)


class NotAsked(NeedsMending):
    """Attentive was not asked to delete somebody. Holds no contact."""


def read(lines: Sequence[str], shop: Shop) -> Read:
    """The contacts in some lines, empty ones left out, as a shop writes them."""
    result = Read()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if contact := _contact(text, shop):
            result.contacts.add(contact)
        elif text:
            result.unusable.append(number)
    return result


def _contact(text: str, shop: Shop) -> str | None:
    if "@" in text:
        return contacts.email(text)
    written = "".join(_plain(sign) for sign in unicodedata.normalize("NFKC", text))
    halves = [(written[: gap.start()], written[gap.end() :]) for gap in re.finditer(r"\s+", written)]
    are_two = any(all(contacts.phone(half, shop.phone_region) for half in two) for two in halves)
    if are_two or not WRITTEN_LIKE_A_PHONE.fullmatch(written):
        return None
    return contacts.phone(written, shop.phone_region)


def _plain(sign: str) -> str:
    """As phones copy a number, it has hyphens of print, and marks that nobody sees."""
    return {"Pd": "-", "Cf": ""}.get(unicodedata.category(sign), sign)


def forget(
    conn: psycopg.Connection[Any],
    shops: Mapping[str, Shop],
    given: Mapping[str, set[str]],
    *,
    who: str,
    why: str,
    deletion: "Deletion | None" = None,
    patience: float = PATIENCE,
) -> dict[str, removal.Removed]:
    """Forgets people, and commits in steps; it may be done again. What was removed, by shop.

    conn: in autocommit. shops: all that there are. given: contacts by shop, as `read` yields them. who: decides this.
    deletion: asks Attentive too. patience: see removal.remove.
    """
    key = people.hash_key(conn)
    works = {}
    for name, their_contacts in given.items():
        hashes = {people.hashed(contact, key) for contact in their_contacts}
        scope = {"contacts": len(hashes), "asked Attentive": deletion is not None}
        with conn.transaction():
            people.opt_out(conn, name, hashes, given=True)
            decision = decisions.record(conn, shop=name, action="forget", who=who, why=why, scope=scope)
        works[name] = removal.Work(shops[name], decision)
    for name in _same_account(conn, given):
        if name in shops and name not in works:
            works[name] = removal.Work(shops[name])
    before_removal = deletion.before_removal(given, _accounts(conn)) if deletion else None
    try:
        removal.remove(conn, list(works.values()), patience=patience, before_removal=before_removal)
    finally:
        for work in works.values():
            _complete(conn, work)
    return {name: work.removed for name, work in works.items()}


def _same_account(conn: psycopg.Connection[Any], names: Iterable[str]) -> list[str]:
    rows = conn.execute(db.sql("people/same_account"), {"shops": list(names)})
    return [row[0] for row in rows]


def _accounts(conn: psycopg.Connection[Any]) -> dict[str, str | None]:
    return dict(conn.execute("SELECT shop, account FROM shop").fetchall())


def _complete(conn: psycopg.Connection[Any], work: removal.Work) -> None:
    removed = work.removed
    counts = {"returns": removed.returns, "events": removed.events, "shared contacts": removed.shared}
    conn.execute(
        "UPDATE decision SET events = %s, scope = scope || %s::jsonb WHERE decision_id = %s",
        (removed.stopped, Json(counts), work.decision_id),
    )


# ── Attentive ───────────────────────────────────────────────────────────────


class Deletion:
    """Asks Attentive to delete people, once for each contact and account.

    transports: by shop, not yet entered. asked, refused: contacts by account, as Attentive answered.
    """

    def __init__(self, transports: Mapping[str, AttentiveTransport]) -> None:
        self.asked: defaultdict[str, set[str]] = defaultdict(set)
        self.refused: defaultdict[str, set[str]] = defaultdict(set)
        self.why_refused: str | None = None
        self._transports = transports

    def before_removal(
        self, given: Mapping[str, set[str]], accounts: Mapping[str, str | None]
    ) -> removal.BeforeRemoval:
        """accounts: by shop, as the ledger knows them; a shop's own connection need not be here."""
        by_account = {transport.account: transport for transport in self._transports.values()}

        def ask(shop: Shop, who: SaidNo) -> None:
            transport = self._transports.get(shop.name) or by_account.get(accounts.get(shop.name) or "")
            if transport:
                asyncio.run(self._ask(transport, given.get(shop.name, set()) | set(who.shares.values())))

        return ask

    async def _ask(self, transport: AttentiveTransport, their_contacts: set[str]) -> None:
        asked, refused = self.asked[transport.account], self.refused[transport.account]
        async with transport:
            for contact in sorted(their_contacts - asked - refused):
                answer = await self._answer(transport, contact)
                if answer.outcome == "accepted":
                    asked.add(contact)
                elif _is_about_the_contact(answer, is_first=not asked and not refused):
                    refused.add(contact)
                    self.why_refused = answer.error
                else:
                    raise self._not_asked(answer)

    async def _answer(self, transport: AttentiveTransport, contact: str) -> Answer:
        for attempt in range(ATTEMPTS):
            answer = await transport.delete_person("subjectEmail" if "@" in contact else "subjectPhone", contact)
            if answer.outcome not in ("throttled", "failed", "unknown", "not sent"):
                break
            await asyncio.sleep(_pause(answer, attempt))
        return answer

    def _not_asked(self, answer: Answer) -> NotAsked:
        return NotAsked(
            f"Attentive was asked to delete {_count(self.asked)} contacts and did not take the next "
            f"({answer.error}): does its API key have the scope privacy_requests:write? They get nothing any more, but "
            "what is held of them is not removed yet. Run this again with the same contacts, and before the next look: "
            "that removes it, and with it what tells who shares a return with them and should be deleted too."
        )


def _is_about_the_contact(answer: Answer, *, is_first: bool) -> bool:
    """Whether the next one may fare better: a first request that finds nobody has come to the wrong host."""
    return answer.outcome == "rejected" or (answer.http_status == HTTPStatus.NOT_FOUND and not is_first)


def _count(contacts_by_account: Mapping[str, set[str]]) -> int:
    return sum(map(len, contacts_by_account.values()))


def _pause(answer: Answer, attempt: int) -> float:
    return min(answer.retry_after or 2.0**attempt, LONGEST_PAUSE)


# ── The command ─────────────────────────────────────────────────────────────


def main() -> int:
    parser = argparse.ArgumentParser(description="Forget the people whose phones or e-mails come in, one a line.")
    parser.add_argument("--shop", help="of include/shops.yaml; by default every shop")
    parser.add_argument("--delete-at-attentive", action="store_true", help="ask Attentive to delete them too")
    arguments = parser.parse_args()
    return commands.exit_status(lambda: run(arguments.shop, arguments.delete_at_attentive))


def run(shop: str | None, delete_at_attentive: bool) -> int:
    shops = settings.load()
    chosen = [settings.shop(shop).name] if shop else list(shops)
    with ledger() as conn:
        transports = know_accounts(conn, shops)
        if delete_at_attentive:
            _require_transports(chosen, shops, transports)
        deletion = Deletion(transports) if delete_at_attentive else None
        lines = sys.stdin.buffer.read().decode("utf-8-sig", "replace").split("\n")
        found = {name: read(lines, shops[name]) for name in chosen}
        given = {name: one.contacts for name, one in found.items() if one.contacts}
        removed = forget(conn, shops, given, who=commands.user(), why="make forget", deletion=deletion)
    tell(given, removed, deletion)
    unusable = tell_unusable(found)
    refused = deletion is not None and any(deletion.refused.values())
    return int(unusable or refused or any(one.on_their_way for one in removed.values()))


def know_accounts(conn: psycopg.Connection[Any], shops: Mapping[str, Shop]) -> dict[str, AttentiveTransport]:
    """A transport for each shop whose connection to Attentive can be used; the ledger learns the accounts."""
    transports = {}
    for name, shop in shops.items():
        with suppress(NeedsMending):
            transports[name] = AttentiveHook(shop.attentive).transport()
            people.know_account(conn, [name], transports[name].account)
    return transports


def _require_transports(
    names: Iterable[str], shops: Mapping[str, Shop], transports: Mapping[str, AttentiveTransport]
) -> None:
    """Raises NeedsMending when one of these shops has none."""
    for name in names:
        if name not in transports:
            AttentiveHook(shops[name].attentive).transport()


def tell(given: Mapping[str, set[str]], removed: Mapping[str, removal.Removed], deletion: Deletion | None) -> None:
    if not removed:
        print("No contact was given: one phone or e-mail address a line, on standard input.")
    for name, one in removed.items():
        print(f"Shop {name}: {len(given.get(name, ()))} contacts given, {one}.")
    if deletion:
        print(f"Attentive was asked to delete {_count(deletion.asked)} contacts.")
    if deletion and (refused := _count(deletion.refused)):
        print(
            f"Attentive refused to delete {refused} more ({deletion.why_refused}). They get nothing any more, and what "
            "was held of them is removed. Run this again with the same contacts, which asks for these once more, or "
            "delete them at Attentive by hand; who only shared a return with another is not known here any more.",
            file=sys.stderr,
        )
    if any(one.on_their_way for one in removed.values()):
        print("Some requests are still on their way: run this again with the same contacts.", file=sys.stderr)


def tell_unusable(found: Mapping[str, Read]) -> bool:
    """Whether some line was no contact, told by its number alone."""
    for name, one in found.items():
        if one.unusable:
            print(
                f"Shop {name}: {len(one.unusable)} lines are neither a valid phone nor an e-mail address, "
                f"and nothing was done for them: {', '.join(map(str, one.unusable))}.",
                file=sys.stderr,
            )
    return any(one.unusable for one in found.values())


if __name__ == "__main__":
    sys.exit(main())
