"""Phones and e-mail addresses as Attentive takes them: one that may not be sent counts as none."""

import re
from functools import lru_cache
from typing import Any, cast

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from phonenumbers import PhoneMetadata

# Stand-ins that several people share: Attentive would merge those people into one profile.
PLACEHOLDER_LOCAL_PARTS = frozenset(
    {
        "noreply", "no-reply", "no_reply", "no.reply", "donotreply", "do-not-reply", "noemail", "no-email", "none",
        "null", "undefined", "unknown", "anonymous", "placeholder", "notprovided", "not-provided",
    }
)  # fmt: skip
PLACEHOLDER_ADDRESSES = frozenset(f"{word}@{word}.com" for word in ("a", "abc", "email", "guest", "na", "test", "xxx"))
DIGITS_IN_A_ROW = "01234567890123456789 98765432109876543210"
FEWEST_IN_A_ROW = 9
"""Shorter ones may be somebody's, where numbers have seven digits."""

# What nearly every address looks like before its @, and how long RFC 5321 lets the whole be.
ORDINARY_LOCAL_PART = re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*")
LONGEST_ADDRESS = 254

LONGEST_PHONE = len("+") + 15
"""By E.164; the library holds longer ones valid in some countries, such as two that are written together."""

BESIDE_AN_ADDRESS = re.compile(r"[\s<>()\[\]:;,\"']+")
"""What parts an address from others, and from whatever else is written with it."""

# How nearly every North American number is written, and what the library holds for a valid one of the United States.
ORDINARY_AMERICAN = re.compile(r"(?P<code>\+?1)?[ .-]*\(?([2-9][0-9]{2})\)?[ .-]*([0-9]{3})[ .-]*([0-9]{4})")
VALID_AMERICAN = re.compile(cast(Any, PhoneMetadata.metadata_for_region("US")).fixed_line.national_number_pattern)


def phone(text: str, region: str) -> str | None:
    """The number in E.164, or None where it is not a valid one.

    region: two-letter country code that a number without a country code belongs to.
    A number with an extension is a switchboard's, and one digit repeated, or digits in a row, a stand-in: they count as
    none.
    """
    return _ordinary_american(text, region) or _of_anywhere(text, region)


def _ordinary_american(text: str, region: str) -> str | None:
    """What _of_anywhere would find as well, but at a tenth of its cost; None where only that can tell."""
    ordinary = ORDINARY_AMERICAN.fullmatch(text)
    if ordinary is None or (region != "US" and ordinary["code"] != "+1"):
        return None
    number = "".join(ordinary.groups()[1:])
    return f"+1{number}" if VALID_AMERICAN.fullmatch(number) and not _is_stand_in(number) else None


def _of_anywhere(text: str, region: str) -> str | None:
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if number.extension or _is_stand_in(str(number.national_number)) or not phonenumbers.is_valid_number(number):
        return None
    told = _e164(number)
    return told if len(told) <= LONGEST_PHONE else None


def _e164(number: phonenumbers.PhoneNumber) -> str:
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _is_stand_in(number: str) -> bool:
    in_a_row = len(number) >= FEWEST_IN_A_ROW and number in DIGITS_IN_A_ROW
    return in_a_row or len(set(number)) == 1


def email(text: str) -> str | None:
    """The address with its domain in lower case, or None where it cannot be one. Asks no DNS."""
    local_part, _, domain = text.rpartition("@")
    if local_part.lower() in PLACEHOLDER_LOCAL_PARTS or text.lower() in PLACEHOLDER_ADDRESSES:
        return None
    if ORDINARY_LOCAL_PART.fullmatch(local_part) and domain.isascii() and len(text) <= LONGEST_ADDRESS:
        # Many addresses share few domains, and checking the domain is what takes the time.
        known_domain = _domain(domain)
        return f"{local_part}@{known_domain}" if known_domain else None
    return _validated(text)


@lru_cache(maxsize=65_536)
def _domain(domain: str) -> str | None:
    address = _validated(f"x@{domain}")
    return address.removeprefix("x@") if address else None


def _validated(address: str) -> str | None:
    try:
        return validate_email(address, check_deliverability=False).normalized
    except EmailNotValidError:
        return None


def named(text: str, region: str) -> set[str]:
    """The contacts within a text that cannot be sent to as it stands: one with an extension or a name, or several.

    region: as for a phone. Whose they are can be told by them; nothing is ever sent to them.
    """
    phones = (match.number for match in phonenumbers.PhoneNumberMatcher(text, region))
    emails = (email(word) for word in BESIDE_AN_ADDRESS.split(text) if "@" in word)
    return {_e164(number) for number in phones} | {one for one in emails if one}
