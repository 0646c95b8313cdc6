"""Who the customers are, how sources spell their phones, and what of it reaches Attentive."""

import random
import re

AREA_CODES = [
    "202", "206", "207", "208", "210", "212", "213", "214", "215", "216", "217", "218", "225", "301",
    "302", "303", "305", "307", "310", "312", "313", "314", "401", "402", "404", "405", "406", "412",
    "415", "503", "512", "602", "603", "612", "615", "617", "678", "702", "801", "802",
]  # fmt: skip
NAMES = ["ada", "bela", "chen", "dina", "emil", "fatou", "gus", "hana", "ines", "jo"]

PHONE_SPELLINGS = ["+1-%s-555-%s", "%s555%s", "(%s) 555-%s", "+1%s555%s", "1 %s.555.%s"]
"""Area code and line. Outside 0100 to 0199, 555 numbers are valid by their form and belong to nobody."""

NO_EMAIL = ["N/A", "", None]
NO_PHONE = ["N/A", "", None, "+1-123-456-7890"]
"""The last one is possible, but no area code starts with 1: not valid, so it counts as none."""


def email(rng: random.Random) -> str:
    return f"{rng.choice(NAMES)}.{rng.randrange(10**9)}@example.com"


def phone(rng: random.Random) -> str:
    return rng.choice(PHONE_SPELLINGS) % (rng.choice(AREA_CODES), rng.randrange(2000, 10000))


def user(customer_email: str | None, customer_phone: str | None) -> dict[str, str]:
    """The `user` that Attentive must be sent: empty when there is no way to reach this person."""
    reached = {}
    if customer_phone not in NO_PHONE:
        reached["phone"] = "+1" + re.sub(r"\D", "", customer_phone or "")[-10:]
    if customer_email not in NO_EMAIL:
        reached["email"] = customer_email or ""
    return reached
