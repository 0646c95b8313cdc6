"""The payload: every sentence of what is sent, and that nothing else ever is."""

import json
import random
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from email_validator import EmailNotValidError, validate_email

from loop_attentive import contacts
from loop_attentive.catalogue import CATALOGUE, EventType
from loop_attentive.payload import shape

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

WHOLE: dict[str, Any] = {
    "event_type": "Loop Out Of Stock Resolved",
    "return_id": "1001",
    "occurred_at": NOW - timedelta(hours=1),
    "status": "open",
    "outcome": "exchange+refund",
    "order_name": "#4711",
    "customer_email": "Ann.Lee@Example.COM",
    "customer_phone": "(678) 999-8212",
    "status_page_url": "https://acme.loopreturns.com/#/return/0a1b-2c?x=1&y=%20",
    "labels_enabled": True,
    "has_label": True,
    "label_url": "https://labels.example.com/1.pdf",
    "tracking_number": "9400100000000000000000",
    "tracking_url": "https://track.example.com/9400",
    "tracking_status": "in_transit",
    "tracking_carrier": "USPS",
    "out_of_stock_outcome": "credit",
}
BARE: dict[str, Any] = dict.fromkeys(WHOLE) | {
    "event_type": "Loop Return Created",
    "return_id": "1001",
    "occurred_at": NOW,
    "customer_phone": "+16789998212",
    "has_label": False,
}


def shaped(*rows: dict[str, Any], region: str = "US", now: datetime = NOW) -> pd.DataFrame:
    facts = pd.DataFrame(list(rows), columns=list(WHOLE)).astype(dict.fromkeys(WHOLE, object))
    facts["occurred_at"] = pd.to_datetime(facts["occurred_at"], utc=True)
    return shape(facts, region=region, now=now)


def one(**changes: object) -> pd.Series:
    """What becomes of the bare row with these changes."""
    return shaped(BARE | changes).iloc[0]


def properties(**changes: object) -> dict[str, Any]:
    return json.loads(one(**changes)["body"])["properties"]


def user(**changes: object) -> dict[str, str]:
    return json.loads(one(**changes)["body"])["user"]


def test_a_whole_row_has_exactly_the_fields_of_the_table() -> None:
    row = shaped(WHOLE).iloc[0]
    assert json.loads(row["body"]) == {
        "user": {"phone": "+16789998212", "email": "Ann.Lee@example.com"},
        "properties": {
            "returnId": 1001,
            "returnStatus": "open",
            "order": "#4711",
            "statusPageUrl": "https://acme.loopreturns.com/#/return/0a1b-2c?x=1&y=%20",
            "labelsEnabled": True,
            "label": "https://labels.example.com/1.pdf",
            "trackingNumber": "9400100000000000000000",
            "trackingUrl": "https://track.example.com/9400",
            "trackingStatus": "in_transit",
            "trackingCarrier": "USPS",
            "returnOutcome": "exchange+refund",
            "outOfStockOutcome": "credit",
        },
    }
    assert row["body"] == json.dumps(json.loads(row["body"]), separators=(",", ":"))
    assert (row["phone"], row["email"]) == ("+16789998212", "Ann.Lee@example.com")
    assert row["invalid_reason"] is None
    assert not row["outcome_omitted"]
    assert row["occurred_at"] == WHOLE["occurred_at"]


def test_a_bare_row_has_what_it_must_and_no_more() -> None:
    assert one()["body"] == '{"user":{"phone":"+16789998212"},"properties":{"returnId":1001}}'


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, pd.NaT, "", "  ", "N/A", "n/a", " N/a\t", "\0"])
def test_what_is_absent_is_left_out(nothing: object) -> None:
    columns = [
        "status",
        "outcome",
        "order_name",
        "customer_email",
        "status_page_url",
        "label_url",
        "tracking_number",
        "tracking_url",
        "tracking_status",
        "tracking_carrier",
        "out_of_stock_outcome",
    ]
    row = shaped(WHOLE | dict.fromkeys(columns, nothing) | {"labels_enabled": None, "has_label": False}).iloc[0]
    assert row["body"] == one()["body"]
    assert not row["outcome_omitted"]


@pytest.mark.parametrize(
    ("return_id", "integer"), [("1", 1), (" 42 ", 42), ("007", 7), ("9" * 18, 10**18 - 1), (1001, 1001), ("0", 0)]
)
def test_the_return_id_becomes_an_integer(return_id: object, integer: int) -> None:
    assert properties(return_id=return_id) == {"returnId": integer}


@pytest.mark.parametrize(
    "return_id", ["RMA-1", "1.0", "-1", "1e3", "", None, "N/A", "9" * 19, "9" * 5000, "٣", "²", "1_0", "0x1"]
)
def test_a_return_id_that_is_none_is_invalid(return_id: object) -> None:
    row = one(return_id=return_id)
    assert row["invalid_reason"] == "returnId: not an integer"
    assert row["body"] is None


@pytest.mark.parametrize("status", ["open", "closed", "canceled", "expired"])
def test_a_return_status_of_the_table_is_told(status: str) -> None:
    assert properties(status=status)["returnStatus"] == status


@pytest.mark.parametrize("status", ["review", "cancelled", "Open", "opened"])
def test_another_return_status_is_invalid(status: str) -> None:
    row = one(status=status)
    assert row["invalid_reason"] == "returnStatus: not one of open, closed, canceled, expired"
    assert row["body"] is None


@pytest.mark.parametrize("outcome", ["exchange", "upsell", "refund", "credit", "exchange+refund", "exchange+credit"])
def test_a_return_outcome_of_the_table_is_told(outcome: str) -> None:
    assert properties(outcome=outcome)["returnOutcome"] == outcome


def test_another_return_outcome_is_left_out_and_counted() -> None:
    row = one(outcome="credit+refund")
    assert "returnOutcome" not in row["body"]
    assert row["outcome_omitted"]
    assert row["invalid_reason"] is None


@pytest.mark.parametrize(
    "status", ["new", "pre_transit", "in_transit", "out_for_delivery", "delivered", "canceled", "unknown"]
)
def test_a_tracking_status_of_the_table_is_told(status: str) -> None:
    assert properties(tracking_status=status)["trackingStatus"] == status


def test_another_tracking_status_is_left_out() -> None:
    assert "trackingStatus" not in properties(tracking_status="return_to_sender")


@pytest.mark.parametrize(
    ("labels_enabled", "has_label", "told"),
    [
        (True, False, True),
        (False, True, False),
        (None, True, True),
        (None, False, None),
        (pd.NA, True, True),
        (np.nan, None, None),
    ],
)
def test_labels_enabled_is_told_or_follows_from_a_label(
    labels_enabled: object, has_label: object, told: bool | None
) -> None:
    assert properties(labels_enabled=labels_enabled, has_label=has_label).get("labelsEnabled") is told


@pytest.mark.parametrize("event", CATALOGUE, ids=lambda event: event.slug)
def test_the_out_of_stock_outcome_is_only_on_resolved(event: EventType) -> None:
    told = "outOfStockOutcome" in properties(event_type=event.name, out_of_stock_outcome="refund")
    assert told == (event.name == "Loop Out Of Stock Resolved")


def test_another_out_of_stock_outcome_is_left_out() -> None:
    assert "outOfStockOutcome" not in properties(event_type="Loop Out Of Stock Resolved", out_of_stock_outcome="gift")


@pytest.mark.parametrize(
    ("written", "region", "e164"),
    [
        ("+1-678-999-8212", "US", "+16789998212"),
        ("6789998212", "US", "+16789998212"),
        (" (678) 999.8212 ", "US", "+16789998212"),
        (6789998212, "US", "+16789998212"),
        ("+44 7400 123456", "US", "+447400123456"),
        ("07400 123456", "GB", "+447400123456"),
        ("6789998212", "GB", None),
        ("+1 555 123 4567", "US", None),  # possible, but no such area
        ("678-999-8212 ext. 5", "US", None),
        ("+6789998212;ext=5", "US", None),
        ("8888888888", "US", None),
        ("000-000-0000", "US", None),
        ("1 (234) 567-8901", "US", None),  # valid, and what people type who give none
        ("+91 98765 43210", "US", None),
        ("１２１２５５５０１２３", "US", "+12125550123"),
        ("tel:+1-212-555-0123", "GB", "+12125550123"),
        ("212-555-0123 / 917-555-0199", "US", None),
        ("089/123456-123456", "DE", None),  # valid in the library, and longer than E.164 allows
        ("12345", "US", None),  # a short code
        ("N/A", "US", None),
        ("call me", "US", None),
        ("6789998212" * 40, "US", None),
        (None, "US", None),
    ],
)
def test_phones_become_e164_or_count_as_none(written: object, region: str, e164: str | None) -> None:
    row = shaped(BARE | {"customer_phone": written, "customer_email": "ann@example.com"}, region=region).iloc[0]
    assert row["phone"] == e164 if e164 else pd.isna(row["phone"])
    expected = {"email": "ann@example.com"} | ({"phone": e164} if e164 else {})
    assert json.loads(row["body"])["user"] == expected


@pytest.mark.parametrize(
    ("written", "address"),
    [
        (" Ann.Lee@Example.COM ", "Ann.Lee@example.com"),
        ("ann+loop@mail.example.co.uk", "ann+loop@mail.example.co.uk"),
        ("o'neil@example.com", "o'neil@example.com"),
        ("zoë@exämple.com", "zoë@exämple.com"),
        ("ann@", None),
        ("@example.com", None),
        ("ann@localhost", None),
        ("ann@exa mple.com", None),
        ("ann..lee@example.com", None),
        ("Ann <ann@example.com>", None),
        ("ann@example.com,ben@example.com", None),
        ("No-Reply@example.com", None),
        ("Unknown@shop.com", None),
        ("Test@Test.com", None),
        ("ann@example.com.", None),
        ('"ann lee"@example.com', None),
        (f"{'a' * 243}@example.com", None),
        ("N/A", None),
    ],
)
def test_addresses_are_checked_or_count_as_none(written: object, address: str | None) -> None:
    row = one(customer_email=written)
    assert row["email"] == address if address else pd.isna(row["email"])
    assert json.loads(row["body"])["user"].get("email") == address


def test_the_short_way_of_checking_an_address_agrees_with_the_long_one() -> None:
    def long_way(address: str) -> str | None:
        try:
            return validate_email(address, check_deliverability=False).normalized
        except EmailNotValidError:
            return None

    local_parts = [
        "a",
        "A.b",
        ".a",
        "a.",
        "a..b",
        "a+b-c_d",
        "1",
        "-",
        "a" * 64,
        "a" * 65,
        "a b",
        "a@b",
        "ä",
        '"a"',
        "",
        "a\n",
    ]
    labels = "x" * 60
    domains = ["Example.com", "example", "a.b", "-a.com", "a-.com", "a..com", "a.com.", "1.2.3.4", "[1.2.3.4]", "ä.com"]
    domains += ["xn--4ca.com", "xn--.com", "localhost", "a.test", "a_b.com", "", ".".join([labels] * 3) + ".com"]
    domains += [".".join([labels] * 3) + "." + "y" * length + ".com" for length in range(1, 60, 2)]
    addresses = [f"{local}@{domain}" for local in local_parts for domain in domains]
    assert {address: contacts.email(address) for address in addresses} == {
        address: long_way(address) for address in addresses
    }


def test_either_contact_is_enough_and_none_is_named_so() -> None:
    assert user(customer_phone="N/A", customer_email="ann@example.com") == {"email": "ann@example.com"}
    assert user(customer_email="ann@") == {"phone": "+16789998212"}
    row = one(customer_phone="+1 555 123 4567", customer_email="ann@")
    assert row["invalid_reason"] == "no recipient"
    assert row["body"] is None


def test_no_recipient_is_said_only_of_rows_that_lack_nothing_else() -> None:
    assert one(customer_phone=None, status="review")["invalid_reason"].startswith("returnStatus")


@pytest.mark.parametrize(
    ("ahead", "becomes"),
    [
        (timedelta(milliseconds=-1), timedelta(milliseconds=-1)),
        (timedelta(0), timedelta(0)),
        (timedelta(milliseconds=1), timedelta(0)),
        (timedelta(minutes=10), timedelta(0)),
    ],
)
def test_an_event_up_to_ten_minutes_ahead_happens_now(ahead: timedelta, becomes: timedelta) -> None:
    row = one(occurred_at=NOW + ahead)
    assert row["occurred_at"] == NOW + becomes
    assert row["invalid_reason"] is None


def test_an_event_further_ahead_is_invalid() -> None:
    row = one(occurred_at=NOW + timedelta(minutes=10, milliseconds=1))
    assert row["invalid_reason"] == "occurredAt: more than ten minutes ahead"
    assert row["body"] is None


def test_an_event_without_a_time_is_invalid() -> None:
    assert one(occurred_at=pd.NaT)["invalid_reason"] == "occurredAt: missing"


def test_now_in_another_zone_is_the_same_now() -> None:
    elsewhere = NOW.astimezone(datetime.fromisoformat("2026-01-01T00:00:00-05:00").tzinfo)
    row = shaped(BARE | {"occurred_at": NOW + timedelta(minutes=5)}, now=elsewhere).iloc[0]
    assert row["occurred_at"] == NOW


def test_a_now_without_zone_is_refused() -> None:
    with pytest.raises(TypeError):
        shaped(BARE, now=NOW.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ('say "hi" \\ / </script>', 'say "hi" \\ / </script>'),
        ("line\nbreak\x1f\x7f", "line\nbreak\x1f\x7f"),
        ("Zoë 🎁 \u2028", "Zoë 🎁"),
        ("#1\0\x002", "#12"),
        ("half \ud83d pair", "half  pair"),
        ("x" * 100_000, "x" * 100_000),
        ('},"user":{', '},"user":{'),
        (1001, "1001"),
    ],
)
def test_any_text_arrives_as_it_stands(written: object, sent: str) -> None:
    assert properties(order_name=written)["order"] == sent


def test_the_index_is_kept_whatever_it_is() -> None:
    facts = pd.DataFrame([BARE, BARE | {"status": "review"}, WHOLE], index=["b", "a", "a"])
    facts["occurred_at"] = pd.to_datetime(facts["occurred_at"], utc=True)
    made = shape(facts, region="US", now=NOW)
    assert list(made.index) == ["b", "a", "a"]
    assert [body is None for body in made["body"]] == [False, True, False]
    assert made["body"].iloc[2] == shaped(WHOLE)["body"].iloc[0]


def test_no_rows_make_no_rows() -> None:
    made = shaped()
    assert len(made) == 0
    assert list(made) == ["occurred_at", "body", "phone", "email", "invalid_reason", "outcome_omitted"]


def test_nothing_but_nulls_is_invalid_and_no_error() -> None:
    made = shaped(dict.fromkeys(WHOLE), dict.fromkeys(WHOLE))
    assert list(made["invalid_reason"]) == ["returnId: not an integer"] * 2


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_column_types_do_not_matter(unit: Literal["s", "ms", "us", "ns"]) -> None:
    facts = pd.DataFrame([WHOLE, BARE]).convert_dtypes()
    facts["occurred_at"] = pd.to_datetime(facts["occurred_at"], utc=True).dt.as_unit(unit)
    facts["event_type"] = facts["event_type"].astype("category")
    made = shape(facts, region="US", now=NOW)
    assert list(made["body"]) == list(shaped(WHOLE, BARE)["body"])
    assert str(made["occurred_at"].dtype) == "datetime64[us, UTC]"


def test_the_given_facts_are_left_as_they_were() -> None:
    facts = pd.DataFrame([WHOLE, BARE])
    before = facts.copy(deep=True)
    shape(facts, region="US", now=NOW)
    pd.testing.assert_frame_equal(facts, before)


# ── Whatever comes in ───────────────────────────────────────────────────────

ENUMERATIONS = {
    "returnStatus": {"open", "closed", "canceled", "expired"},
    "trackingStatus": {"new", "pre_transit", "in_transit", "out_for_delivery", "delivered", "canceled", "unknown"},
    "returnOutcome": {"exchange", "upsell", "refund", "credit", "exchange+refund", "exchange+credit"},
    "outOfStockOutcome": {"credit", "refund"},
}
TEXTS = {"order", "statusPageUrl", "label", "trackingNumber", "trackingUrl", "trackingCarrier"}
JUNK = [
    *(
        None,
        np.nan,
        pd.NA,
        "",
        " ",
        "N/A",
        "n/a",
        "null",
        "\0",
        "\ud800",
        "🎁",
        '"',
        "\\",
        "{}",
        "a\nb",
        "x" * 3000,
        -1,
        0.5,
    ),
    *("open", "new", "credit", "refund", "canceled", "cancelled", "1001", "12", "+16789998212", "ann@example.com"),
]


def obeys_the_contract(row: pd.Series, facts: dict[str, Any]) -> None:
    body = json.loads(row["body"])
    assert set(body) == {"user", "properties"}
    assert body["user"]
    assert set(body["user"]) <= {"phone", "email"}
    assert re.fullmatch(r"\+[1-9][0-9]{6,14}", body["user"].get("phone", "+16789998212"))
    assert "@" in body["user"].get("email", "@")
    assert body["user"].get("phone") == (None if pd.isna(row["phone"]) else row["phone"])
    assert body["user"].get("email") == (None if pd.isna(row["email"]) else row["email"])
    told = body["properties"]
    assert type(told.pop("returnId")) is int
    assert type(told.pop("labelsEnabled", True)) is bool
    assert set(told) <= TEXTS | set(ENUMERATIONS)
    for name, value in told.items():
        assert isinstance(value, str)
        assert value.strip().lower() not in {"", "n/a"}
        assert value in ENUMERATIONS.get(name, {value})
        value.encode("utf-8")
        assert "\0" not in value
    assert "outOfStockOutcome" not in told or facts["event_type"] == "Loop Out Of Stock Resolved"
    assert row["occurred_at"] <= NOW


@pytest.mark.parametrize("seed", range(5))
def test_junk_is_sent_right_or_not_at_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(400):
        facts = {
            column: JUNK[rng.integers(len(JUNK))] if rng.random() < 0.4 else value for column, value in WHOLE.items()
        }
        facts["event_type"] = CATALOGUE[rng.integers(len(CATALOGUE))].name
        facts["occurred_at"] = NOW + timedelta(minutes=int(rng.integers(-100, 20))) if rng.random() < 0.95 else pd.NaT
        facts["labels_enabled"] = [True, False, None][rng.integers(3)]
        facts["has_label"] = bool(rng.integers(2))
        rows.append(facts)
    made = shaped(*rows)
    for facts, (_, row) in zip(rows, made.iterrows(), strict=True):
        assert (row["body"] is None) == (row["invalid_reason"] is not None)
        if row["body"] is not None:
            obeys_the_contract(row, facts)
    assert 0 < made["body"].notna().sum() < len(rows)


# ── Many ────────────────────────────────────────────────────────────────────


def test_the_ordinary_american_phone_is_what_the_library_makes_of_it() -> None:
    rng = random.Random(1)
    gaps, codes, quotes = ["", " ", "-", ".", " - "], ["", "1", "1 ", "+1", "+1-", "+ 1", "01"], ["%s", "(%s)", "%s)"]
    ordinary = 0
    for _ in range(3_000):
        area = rng.choice(quotes) % rng.choice(["678", "204", "800", "900", "472", "222", f"{rng.randrange(1000):03}"])
        local = f"{rng.randrange(1000):03}{rng.choice(gaps)}{rng.randrange(10_000):04}"
        written, region = (
            rng.choice(codes) + area + rng.choice(gaps) + local,
            rng.choice(["US", "US", "CA", "GB", "AG"]),
        )
        found = contacts._ordinary_american(written, region)
        assert found in (None, contacts._of_anywhere(written, region)), (written, region)
        ordinary += found is not None
    assert ordinary > 300


def many(count: int, people: int) -> pd.DataFrame:
    """Rows of returns with their own texts; so many different customers."""
    number = pd.Series(range(count)).astype(str)
    person = pd.Series(np.arange(count) % people).astype(str)
    facts = pd.DataFrame({column: [value] * count for column, value in WHOLE.items()})
    facts["return_id"] = number
    facts["order_name"] = "#" + number
    facts["customer_phone"] = "+44 7400 12" + person.str.zfill(4)
    facts["customer_email"] = "person" + person + "@example.com"
    return facts


def test_blocks_do_not_show() -> None:
    facts = many(120_001, people=7)
    bodies = shape(facts, region="US", now=NOW)["body"]
    assert [json.loads(body)["properties"]["order"] for body in bodies] == list(facts["order_name"])


def test_a_repeated_contact_is_parsed_once() -> None:
    def seconds(facts: pd.DataFrame) -> float:
        started = time.process_time()
        shape(facts, region="US", now=NOW)
        return time.process_time() - started

    repeated = many(9_000, people=1)
    seconds(repeated)
    # Each number takes some 30 microseconds to parse, so parsing dwarfs the rest unless it is done once.
    assert seconds(many(9_000, people=9_000)) > 2 * min(seconds(repeated) for _ in range(3))
