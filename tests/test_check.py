"""Preflight: what is said of a source before anything is sent, and that nothing of it is kept."""

from typing import Any

import pytest

from loop_attentive import check
from loop_attentive.source import Source
from tests import connectors as landing
from tests.connectors import LANDINGS, land, told
from tests.floor import DAY, HOUR, T0, Floor


def report(floor: Floor, at: Any = T0) -> check.Report:
    return check.check(floor.conn, Source(floor.engine, floor.shop), at=at)


def test_it_tells_what_the_last_days_would_have_made_and_keeps_nothing(floor: Floor) -> None:
    for number in range(5):
        floor.ret(str(number), created_at=T0 - DAY, synced_at=T0 - HOUR)
    floor.ret("9", created_at=T0 - 22 * DAY, labels_enabled=True)
    floor.label("1", status="new", created_at=T0 - DAY, synced_at=T0 - 3 * HOUR)
    found = report(floor)
    assert found.problems == []
    assert found.events["Loop Return Created"] == "5"
    assert found.events["Loop Label Created"] == "1"
    assert found.events["Loop Return Expiring"] == "1"
    assert found.events["Loop Return Status Updated"].startswith("0, where a look")
    assert "returns: synced 1.0 hours ago" in str(found)
    for table in ("look", "mirror_return", "event", "source_cursor", "shop"):
        assert floor.one(f"SELECT count(*) FROM {table}") == (0,), table


def test_it_counts_what_is_known_already_too(floor: Floor) -> None:
    floor.start()
    floor.ret("1", created_at=T0 + HOUR)
    floor.run(T0 + 2 * HOUR)
    before = floor.events()
    assert report(floor, T0 + 3 * HOUR).events["Loop Return Created"] == "1"
    assert floor.events() == before


def test_who_can_be_reached_is_told_in_numbers_and_never_by_name(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - DAY, customer_phone="+14155552671", customer_email=None)
    floor.ret("2", created_at=T0 - DAY, customer_phone="12", customer_email="ann@example.com")
    floor.ret("3", created_at=T0 - DAY, customer_phone=None, customer_email="no-reply@example.com")
    floor.ret("4", created_at=T0 - DAY, customer_phone=None, customer_email=None)
    text = str(report(floor))
    assert "50% of the 4 returns created in the last 30 days have a usable phone (25%) or e-mail (25%)" in text
    assert "4155552671" not in text
    assert "example.com" not in text


def test_instant_exchanges_without_a_charge_time_are_counted_while_no_window_is_set(floor: Floor) -> None:
    floor.ret("1", created_at=T0 - DAY, is_instant_exchange=True)
    assert "1 instant exchanges have no charge_at" in str(report(floor))
    floor.settings(instant_exchange_window_days=14)
    assert "have no charge_at" not in str(report(floor))


def test_times_that_are_ahead_are_told(floor: Floor) -> None:
    floor.ret("1", created_at=T0 + 5 * HOUR)
    assert "created_at up to 5.0 hours in the future" in str(report(floor))


def test_what_keeps_a_run_from_working_is_a_problem(floor: Floor) -> None:
    floor.conn.execute("ALTER TABLE loop.returns DROP COLUMN state")
    found = report(floor)
    assert "table loop.returns lacks state" in found.problems[0]
    assert "loop.returns has no column state" in str(found)


def test_a_stale_source_is_told(floor: Floor) -> None:
    floor.settings(freshness_hours=26)
    floor.ret("1", created_at=T0 - 3 * DAY, synced_at=T0 - 2 * DAY)
    floor.label("1", status="new", synced_at=T0 - 2 * DAY)
    assert "no reminders for now: returns or labels were last synced" in str(report(floor))


def test_a_limit_that_the_connector_usually_misses_is_told(floor: Floor) -> None:
    at, shop = list(told())[2]
    for hours, is_told in ((3, True), (26, False)):
        floor.settings(**landing.settings("fivetran") | {"freshness_hours": hours})
        land(floor.engine, LANDINGS["fivetran"](shop, at))
        assert ("usually syncs every 6 hours, and freshness_hours is 3" in str(report(floor, at))) is is_told


@pytest.mark.parametrize("connector", [name for name in LANDINGS if name != "canonical"])
def test_a_connectors_gaps_and_what_its_tables_lack_are_named(floor: Floor, connector: str) -> None:
    floor.settings(**landing.settings(connector) | {"stripe": None, "shopify": None})
    at, shop = list(told())[2]
    land(floor.engine, LANDINGS[connector](shop, at))
    found = report(floor, at)
    assert found.problems == []
    text = str(found)
    assert "instant exchanges: neither which returns are one" in text
    assert "nothing tells of transactions" in text
    assert "phones: Loop's tables hold none" in text
    main = "return_list" if connector == "fivetran" else "returns"
    assert f"land.{main} has no column " in text
    assert found.events["Loop Return Created"] == "51"
