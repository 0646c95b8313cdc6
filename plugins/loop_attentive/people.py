"""People as the ledger remembers them: by keyed hashes of their phones and e-mail addresses.

Who said no gets nothing any more, and nothing that tells who they are is kept: see removal.py for what is held already.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, LiteralString, cast

import psycopg

from loop_attentive import contacts, db
from loop_attentive.settings import Shop


def hash_key(conn: psycopg.Connection[Any]) -> bytes:
    """The key of this ledger's hashes."""
    return bytes(cast(tuple[bytes], conn.execute("SELECT key FROM hash_key").fetchone())[0])


def hashed(contact: str, key: bytes) -> int:
    """64 bits, signed, of a phone in E.164 or an e-mail address; who writes the latter in capitals is the same."""
    return int.from_bytes(blake2b(contact.lower().encode(), key=key, digest_size=8).digest(), signed=True)


def hashes(column: Iterable[Any], key: bytes) -> list[int | None]:
    """Of each contact in a column; None for what is no text."""
    return [hashed(contact, key) if isinstance(contact, str) else None for contact in column]


class SaidNo:
    """The people of a shop who said no, and whether a return is one of theirs.

    given, shared: hashes of contacts that were named by a person, and of those that share a return with one.
    shares: what a return with a named contact showed besides it, by hash; those that were not known yet are in `found`.
    """

    def __init__(self, shop: Shop, key: bytes, given: set[int], shared: set[int]) -> None:
        self.given = given
        self.shared = shared
        self.shares: dict[int, str] = {}
        self.found: set[int] = set()
        self._region = shop.phone_region
        self._key = key

    def __bool__(self) -> bool:
        return bool(self.given or self.shared)

    @property
    def digest(self) -> str:
        """Tells one list from another."""
        return f"{len(self.given)} {sum(self.given)} {len(self.shared)} {sum(self.shared)}"

    def owns(self, phone: str | None, email: str | None) -> bool:
        """Whether a return with this contact is one of theirs: then the other half of it is theirs too.

        One that is written so that nothing can be sent to it tells whose the return is, and is itself nobody's.
        """
        written = ((phone, phone and contacts.phone(phone, self._region)), (email, email and contacts.email(email)))
        usable = {hashed(one, self._key): one for _, one in written if one}
        unusable = [text for text, one in written if text and not one]
        named = {hashed(one, self._key) for text in unusable for one in contacts.named(text, self._region)}
        shown = usable.keys() | named
        if self.given.isdisjoint(shown):
            return not self.shared.isdisjoint(shown)
        shares = {one: text for one, text in usable.items() if one not in self.given}
        self.found |= shares.keys() - self.shared
        self.shared |= shares.keys()
        self.shares |= shares
        return True


def said_no(conn: psycopg.Connection[Any], shop: Shop) -> SaidNo:
    """The list as it holds for a shop: its own, and that of the shops of the same Attentive account."""
    rows = conn.execute(db.sql("people/said_no"), {"shop": shop.name}).fetchall()
    given = {person for person, is_given in rows if is_given}
    return SaidNo(shop, hash_key(conn), given, {person for person, _ in rows} - given)


def opt_out(conn: psycopg.Connection[Any], shop: str, people: Iterable[int], *, given: bool) -> int:
    """Puts hashes on a shop's list; how many of them were not there yet."""
    parameters = {"shop": shop, "hashes": sorted(people), "given": given}
    return conn.execute(db.sql("people/opt_out"), parameters).rowcount


def know_account(conn: psycopg.Connection[Any], shops: Iterable[str], account: str) -> None:
    """Remembers the Attentive account of some shops that have been looked at; shops of one account share their list."""
    conn.execute(db.sql("people/know_account"), {"shops": list(shops), "account": account})


def owned(conn: psycopg.Connection[Any], who: SaidNo, query: LiteralString, parameters: dict[str, Any]) -> list[Any]:
    """What belongs to those who said no. query: yields an id, phone and e-mail; read in a transaction of the caller's.

    What shows only a contact that is found to be shared further on is passed over: another reading finds it.
    """
    with psycopg.ServerCursor(conn, "contacts") as cur:
        cur.itersize = 10_000
        return [one for one, *contact in cur.execute(query, parameters) if who.owns(*contact)]
