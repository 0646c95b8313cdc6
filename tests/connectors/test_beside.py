"""What other connectors bring beside Loop's data: Shopify's contacts and stock, Stripe's money and whose it is."""

import json
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from loop_attentive.errors import NeedsMending
from tests.connectors import Row, Tables, land, settings
from tests.floor import DAY, HOUR, T0, Floor

PAYMENT, REFUND = "Loop Payment Transaction", "Loop Refund Transaction"


def ret(connector: str, number: int, at: datetime, **row: Any) -> Row:
    """A return as a connector lands it, read by it at the same time."""
    told: Row = {"id": str(number), "state": "open", "order_name": f"#{number}", "created_at": at, "updated_at": at}
    stamps: dict[str, Row] = {
        "dlt": {"_dlt_id": f"r{number}", "_dlt_load_id": str(at.timestamp())},
        "posthog": {"created_at": at.replace(tzinfo=None), "updated_at": at.replace(tzinfo=None)},
        "airbyte": {"_airbyte_extracted_at": at},
        "fivetran": {"_fivetran_synced": at},
    }
    return told | {"customer": f"c{number}@example.com"} | stamps[connector] | row


def returns(connector: str, *rows: Row) -> Tables:
    table = "land.return_list" if connector == "fivetran" else "land.returns"
    loads = {row["_dlt_load_id"] for row in rows if "_dlt_load_id" in row}
    log = [
        {"load_id": load, "status": 0, "inserted_at": datetime.fromtimestamp(float(load), T0.tzinfo)} for load in loads
    ]
    return {table: list(rows)} | ({"land._dlt_loads": log} if log else {})


def refunded(connector: str, *refunds: tuple[int, int]) -> dict[int, Row]:
    """Columns of returns (by number) that were refunded in Shopify (number, Shopify's refund)."""
    objects: dict[int, list[Row]] = {}
    for number, refund in refunds:
        objects.setdefault(number, []).append({"id": 1, "provider_refund_id": str(refund), "return_id": str(number)})
    return {number: {"shopify_refund_object": json.dumps(rows)} for number, rows in objects.items()}


def charge(key: str, at: datetime, **row: Any) -> Row:
    return {"id": key, "amount": 1250, "currency": "usd", "status": "succeeded", "captured": True, "livemode": True,
            "created": at, "_fivetran_synced": at} | row  # fmt: skip


def refund(key: str, charge: str, at: datetime, **row: Any) -> Row:
    return {"id": key, "charge_id": charge, "amount": 1250, "currency": "usd", "status": "succeeded", "created": at,
            "_fivetran_synced": at} | row  # fmt: skip


def shopify_refund(key: int, charge: str, at: datetime, *, graphql: bool = False, **row: Any) -> Row:
    spelt = {"kind": "REFUND", "authorization_code": charge} if graphql else {"kind": "refund", "authorization": charge}
    return {"id": key, "refund_id": key, "status": "success", "test": False, "_fivetran_synced": at} | spelt | row


def money(floor: Floor) -> dict[str, str]:
    """The return of each transaction that made an event."""
    return {event.key: event.return_id for event in floor.events() if event.event_type in (PAYMENT, REFUND)}


def start(
    floor: Floor, connector: str, warehouse: sa.Engine | None = None, *, by: str = "fivetran", **stripe: Any
) -> None:
    told = settings(connector)
    told["stripe"] = {"schema": "stripe", "connector": by, "return_id_in": "loop_return"} | stripe
    floor.settings(**told)
    floor.engine = warehouse or floor.engine
    land(floor.engine, returns(connector, ret(connector, 1, T0 - HOUR)) | {
        "stripe.charge": [charge("ch_0", T0 - DAY)], "stripe.refund": [refund("re_0", "ch_0", T0 - DAY)],
        "shopify.transaction": [shopify_refund(0, "ch_0", T0 - DAY)],
    })  # fmt: skip
    floor.run(T0)


# ── Shopify ─────────────────────────────────────────────────────────────────


def shopify(schema: str, at: datetime, available: int) -> Tables:
    """An order with its customer, and a variant in two places, as each connector lands them."""
    if "airbyte" in schema:
        stamp: Row = {"_airbyte_emitted_at" if schema == "old airbyte" else "_airbyte_extracted_at": at}
        return {
            "shopify.orders": [{"id": 71, "name": "#2", "email": "Ann@Example.com", "phone": ""} | stamp],
            "shopify.customers": [{"id": 81, "email": "ann@example.com", "phone": "+14155552672"} | stamp],
            "shopify.product_variants": [{"id": 52, "inventory_item_id": 62} | stamp],
            "shopify.inventory_levels": [
                {"inventory_item_id": 62, "location_id": place, "available": available * place, "updated_at": at}
                | stamp
                for place in (0, 1)
            ],
        }
    stamp = {"_fivetran_synced": at}
    places = [{"inventory_item_id": 62, "updated_at": at} | stamp for _ in (0, 1)]
    stock: Tables = {
        "shopify.inventory_level": [level | {"available": available * n} for n, level in enumerate(places)]
    }
    if schema == "graphql":
        stock = {
            "shopify.inventory_level": [level | {"location_id": n} for n, level in enumerate(places)],
            "shopify.inventory_quantity": [
                level | {"name": name, "quantity": quantity * n}
                for n, level in enumerate(places)
                for name, quantity in (("available", available), ("on_hand", 5), ("committed", 5))
            ],
        }
    return stock | {
        "shopify.order": [{"id": 71, "name": "#2", "customer_id": 81} | stamp],
        "shopify.customer": [{"id": 81, "email": "ann@example.com", "phone": "+14155552672"} | stamp],
        "shopify.product_variant": [{"id": 52, "inventory_item_id": 62} | stamp],
    }


def dlt_beside_shopify(floor: Floor, warehouse: sa.Engine, schema: str) -> None:
    shopify = {"schema": "shopify", "connector": "airbyte" if "airbyte" in schema else "fivetran"}
    floor.settings(connector="dlt", schema="land", shopify=shopify)
    floor.engine = warehouse


of_each_schema = pytest.mark.parametrize("schema", ["rest", "graphql", "airbyte", "old airbyte"])


@of_each_schema
def test_contacts_and_stock_are_read_from_each_of_shopifys_schemas(
    floor: Floor, warehouse: sa.Engine, schema: str
) -> None:
    dlt_beside_shopify(floor, warehouse, schema)
    land(warehouse, returns("dlt", ret("dlt", 1, T0 - HOUR)))
    floor.run(T0)
    item = {"exchange_id": "9", "out_of_stock": True, "_dlt_parent_id": "r2", "variant_id": "52"}
    second = returns("dlt", ret("dlt", 2, T0 + HOUR, provider_order_id="71", customer=None))
    land(warehouse, second | {"land.returns__exchanges": [item]} | shopify(schema, T0 + HOUR, 0))
    created, missing = floor.run(T0 + 2 * HOUR)
    assert created.body
    assert created.body["user"]["phone"] == "+14155552672"
    assert created.body["user"]["email"].lower() == "ann@example.com"
    assert missing.event_type == "Loop Exchange Out Of Stock"
    land(warehouse, shopify(schema, T0 + 9 * HOUR, 3))
    [resolved] = floor.run(T0 + 10 * HOUR)
    assert (resolved.event_type, resolved.occurred_at) == ("Loop Out Of Stock Resolved", T0 + 9 * HOUR)
    for day, available in enumerate((0, 5), start=2):  # others buy it, and it comes in again: settled is settled
        land(warehouse, shopify(schema, T0 + day * DAY, available))
        assert floor.run(T0 + day * DAY + HOUR) == []


@pytest.mark.parametrize(
    ("order", "customer", "phone"),
    [
        ({"email": ""}, {"email": ""}, None),
        ({"email": " "}, {"email": " "}, None),
        ({"email": "", "contact_email": "Ann@Example.com"}, {"email": "ann@example.com "}, "+14155552672"),
        ({"email": "ann@example.com", "contact_email": "b@example.com"}, {"email": "ann@example.com"}, "+14155552672"),
    ],
)
def test_an_empty_email_is_nobodys(
    floor: Floor, warehouse: sa.Engine, order: Row, customer: Row, phone: str | None
) -> None:
    """Airbyte's orders have their customer by the e-mail."""
    dlt_beside_shopify(floor, warehouse, "airbyte")
    tables = shopify("airbyte", T0, 0)
    land(warehouse, returns("dlt", ret("dlt", 2, T0, provider_order_id="71")) | {
        "shopify.orders": [tables["shopify.orders"][0] | order],
        "shopify.customers": [tables["shopify.customers"][0] | customer],
    })  # fmt: skip
    floor.look(T0)
    assert floor.one("SELECT customer_phone FROM mirror_return") == (phone,)


def test_shopifys_tables_that_are_added_later_tell_of_returns_that_were_read_before(
    floor: Floor, warehouse: sa.Engine
) -> None:
    floor.settings(connector="dlt", schema="land")
    floor.engine = warehouse
    late = ret("dlt", 2, T0 + HOUR, provider_order_id="71", customer=None)
    land(warehouse, returns("dlt", ret("dlt", 1, T0 - HOUR)) | shopify("rest", T0 - 9 * DAY, 0))
    floor.run(T0)
    land(warehouse, returns("dlt", late, ret("dlt", 3, T0 + 7 * HOUR)))
    assert [event.reason for event in floor.run(T0 + 8 * HOUR) if event.return_id == "2"] == ["no recipient"]
    dlt_beside_shopify(floor, warehouse, "rest")
    at = T0 + 9 * HOUR
    floor.look(at)
    assert floor.judge_again(at) == 1


def complete_orders(floor: Floor) -> None:
    """Beside the canonical tables each column must be there."""
    for column in ("_fivetran_deleted", "billing_address_phone", "email", "shipping_address_phone"):
        floor.conn.execute(f'ALTER TABLE shopify."order" ADD COLUMN {column} text')


def test_a_restock_that_the_table_tells_itself_counts_beside_shopify(floor: Floor, warehouse: sa.Engine) -> None:
    floor.settings(shopify={"schema": "shopify"})
    land(floor.engine, shopify("rest", T0 - DAY, 0))
    complete_orders(floor)
    floor.ret("1", created_at=T0 - DAY)
    floor.item("1", "9", out_of_stock=True)
    floor.start()
    floor.item("1", "9", out_of_stock=True, restocked_at=T0 + 30 * HOUR)
    assert [event.event_type for event in floor.run(T0 + 31 * HOUR)] == ["Loop Out Of Stock Resolved"]


@pytest.mark.parametrize("table", ["returns", "exchange_items"])
def test_times_in_text_beside_shopifys_are_named_before_anything_is_read(floor: Floor, table: str) -> None:
    """PostgreSQL compares text with no time."""
    floor.settings(shopify={"schema": "shopify"})
    land(floor.engine, shopify("rest", T0 - DAY, 0))
    complete_orders(floor)
    floor.conn.execute(f"ALTER TABLE loop.{table} ALTER COLUMN synced_at TYPE text")
    told = rf"beside/shopify/{table}\.sql does not run .* each time in loop\.{table}, .*shopify\..* be a timestamp"
    with pytest.raises(NeedsMending, match=told):
        floor.look(T0)


ITEM = {"exchange_id": "9", "out_of_stock": True, "variant_id": "52"}


def test_what_the_stock_had_settled_before_the_first_look_stays_settled(floor: Floor, warehouse: sa.Engine) -> None:
    dlt_beside_shopify(floor, warehouse, "rest")
    first = returns("dlt", ret("dlt", 1, T0 - 20 * DAY)) | {
        "land.returns__exchanges": [ITEM | {"_dlt_parent_id": "r1"}]
    }
    land(warehouse, first | shopify("rest", T0 - 9 * DAY, 3))
    floor.run(T0)
    land(warehouse, shopify("rest", T0 + 5 * DAY, 0))
    assert floor.run(T0 + 5 * DAY + HOUR) == []


def test_what_the_stock_has_settled_stays_so_when_nobody_tells_the_stock_any_more(
    floor: Floor, warehouse: sa.Engine
) -> None:
    dlt_beside_shopify(floor, warehouse, "rest")
    first = returns("dlt", ret("dlt", 1, T0 - 20 * DAY)) | {
        "land.returns__exchanges": [ITEM | {"_dlt_parent_id": "r1"}]
    }
    land(warehouse, first | shopify("rest", T0 - 9 * DAY, 3))
    floor.run(T0)
    floor.settings(connector="dlt", schema="land")
    touched = ret("dlt", 1, T0 - 20 * DAY, updated_at=T0 + DAY, _dlt_load_id=str((T0 + DAY).timestamp()))
    land(warehouse, returns("dlt", touched))
    assert floor.run(T0 + DAY + HOUR) == []
    assert floor.one("SELECT out_of_stock, settled FROM mirror_item") == (True, True)


def test_what_was_in_stock_at_the_first_look_may_run_out_of_it(floor: Floor, warehouse: sa.Engine) -> None:
    """Shopify's pipeline is hours behind Loop's."""
    dlt_beside_shopify(floor, warehouse, "rest")
    item = ITEM | {"_dlt_parent_id": "r1", "out_of_stock": False}
    first = returns("dlt", ret("dlt", 1, T0 - DAY))
    land(warehouse, first | {"land.returns__exchanges": [item]} | shopify("rest", T0 - 9 * DAY, 3))
    floor.run(T0)
    touched = ret("dlt", 1, T0 - DAY, updated_at=T0 + HOUR, _dlt_load_id=str((T0 + HOUR).timestamp()))
    land(warehouse, returns("dlt", touched) | {"land.returns__exchanges": [item | {"out_of_stock": True}]})
    assert floor.run(T0 + 2 * HOUR) == []
    land(warehouse, shopify("rest", T0 + 3 * HOUR, 0))
    assert [event.event_type for event in floor.run(T0 + 4 * HOUR)] == ["Loop Exchange Out Of Stock"]


def test_what_the_stock_had_settled_of_a_return_that_was_too_old_to_be_held(floor: Floor, warehouse: sa.Engine) -> None:
    dlt_beside_shopify(floor, warehouse, "rest")
    at = T0 - 150 * DAY
    item = ITEM | {"_dlt_parent_id": "r1"}
    tables = returns("dlt", ret("dlt", 1, at), ret("dlt", 2, T0 - HOUR)) | {"land.returns__exchanges": [item]}
    land(warehouse, tables | shopify("rest", T0 - 9 * DAY, 3))
    floor.run(T0)
    land(warehouse, returns("dlt", ret("dlt", 1, at, updated_at=T0 + DAY, _dlt_load_id=str((T0 + DAY).timestamp()))))
    floor.run(T0 + DAY + HOUR)
    land(warehouse, shopify("rest", T0 + 5 * DAY, 0))
    assert floor.run(T0 + 5 * DAY + HOUR) == []


def test_what_the_stock_has_settled_stays_so_for_longer_than_the_log_of_changes(
    floor: Floor, warehouse: sa.Engine
) -> None:
    dlt_beside_shopify(floor, warehouse, "rest")
    floor.shop = floor.shop.model_copy(update={"mirror_days": 33})
    land(warehouse, returns("dlt", ret("dlt", 1, T0 - HOUR)))
    floor.run(T0)
    second = returns("dlt", ret("dlt", 2, T0 + HOUR)) | {"land.returns__exchanges": [ITEM | {"_dlt_parent_id": "r2"}]}
    land(warehouse, second | shopify("rest", T0 + HOUR, 0))
    floor.run(T0 + 2 * HOUR)
    land(warehouse, shopify("rest", T0 + 9 * HOUR, 3))
    assert [event.event_type for event in floor.run(T0 + 10 * HOUR)] == ["Loop Out Of Stock Resolved"]
    touched = ret("dlt", 2, T0 + HOUR, updated_at=T0 + 20 * DAY)
    land(warehouse, returns("dlt", touched | {"_dlt_load_id": str((T0 + 20 * DAY).timestamp())}))
    floor.run(T0 + 20 * DAY + HOUR)
    land(warehouse, shopify("rest", T0 + 36 * DAY, 0))
    assert floor.run(T0 + 36 * DAY + HOUR) == []
    assert floor.one("SELECT count(*) FROM change WHERE source_table = 'exchange_items' AND old_status = 'open'") == (
        0,
    )


def test_a_stock_that_is_looked_at_for_the_first_time_tells_nobody_that_it_is_back(
    floor: Floor, warehouse: sa.Engine
) -> None:
    """It tells when it last moved, which of a variant that sells is today."""
    floor.settings(connector="dlt", schema="land")
    floor.engine = warehouse
    land(warehouse, returns("dlt", ret("dlt", 1, T0 - HOUR)))
    floor.run(T0)
    second = returns("dlt", ret("dlt", 2, T0 + HOUR)) | {"land.returns__exchanges": [ITEM | {"_dlt_parent_id": "r2"}]}
    land(warehouse, second)
    assert "Loop Exchange Out Of Stock" in [event.event_type for event in floor.run(T0 + 2 * HOUR)]
    dlt_beside_shopify(floor, warehouse, "rest")
    land(warehouse, shopify("rest", T0 + 30 * HOUR, 3))
    [resolved] = floor.run(T0 + 31 * HOUR)
    assert (resolved.event_type, resolved.reason) == ("Loop Out Of Stock Resolved", "baseline")


def test_a_contact_whose_pipeline_is_half_a_day_behind_the_returns(floor: Floor, warehouse: sa.Engine) -> None:
    dlt_beside_shopify(floor, warehouse, "rest")
    of_another = {"shopify.order": [{"id": 70, "name": "#9", "customer_id": 80, "_fivetran_synced": T0 - DAY}]}
    land(warehouse, returns("dlt", ret("dlt", 1, T0 - HOUR)) | shopify("rest", T0 - DAY, 0) | of_another)
    floor.run(T0)
    late = ret("dlt", 2, T0 + HOUR, provider_order_id="71", customer=None)
    land(warehouse, returns("dlt", late, ret("dlt", 3, T0 + 13 * HOUR)))
    assert [event.reason for event in floor.run(T0 + 14 * HOUR) if event.return_id == "2"] == ["no recipient"]
    land(warehouse, shopify("rest", T0 + 2 * HOUR, 0))  # extracted long before it has landed
    floor.look(T0 + 15 * HOUR)
    assert floor.judge_again(T0 + 15 * HOUR) == 1


def test_stock_that_lands_after_the_item_is_out_of_it_is_told(floor: Floor, warehouse: sa.Engine) -> None:
    """What was never out of stock for this customer has not been settled by a stock of before."""
    dlt_beside_shopify(floor, warehouse, "rest")
    land(warehouse, returns("dlt", ret("dlt", 1, T0 - HOUR)))
    floor.run(T0)
    item = {"exchange_id": "9", "out_of_stock": True, "_dlt_parent_id": "r2", "variant_id": "52"}
    second = returns("dlt", ret("dlt", 2, T0 + HOUR))
    land(warehouse, second | {"land.returns__exchanges": [item]} | shopify("rest", T0 - HOUR, 3))
    assert [event.event_type for event in floor.run(T0 + 2 * HOUR)] == ["Loop Return Created"]
    land(warehouse, shopify("rest", T0 + 3 * HOUR, 0))
    assert [event.event_type for event in floor.run(T0 + 4 * HOUR)] == ["Loop Exchange Out Of Stock"]


@of_each_schema
def test_a_contact_that_lands_hours_after_its_return_makes_its_events(
    floor: Floor, warehouse: sa.Engine, schema: str
) -> None:
    dlt_beside_shopify(floor, warehouse, schema)
    tables = shopify(schema, T0 - DAY, 0)
    orders = "shopify.orders" if "airbyte" in schema else "shopify.order"
    of_another = {orders: [row | {"id": 70, "name": "#9"} for row in tables[orders]]}
    land(warehouse, returns("dlt", ret("dlt", 1, T0 - HOUR)) | tables | of_another)
    floor.run(T0)
    late = ret("dlt", 2, T0 + HOUR, provider_order_id="71", customer=None)
    land(warehouse, returns("dlt", late, ret("dlt", 3, T0 + 6 * HOUR)))
    assert [event.reason for event in floor.run(T0 + 7 * HOUR) if event.return_id == "2"] == ["no recipient"]
    land(warehouse, shopify(schema, T0 + 8 * HOUR, 0))
    at = T0 + 9 * HOUR
    floor.look(at)
    assert floor.judge_again(at) == 1


def test_a_return_that_lands_long_after_its_last_change_is_seen_beside_a_contact_that_has_just_moved(
    floor: Floor, warehouse: sa.Engine
) -> None:
    """PostHog tells no time of landing, so nothing of Shopify's says how far Loop's rows have been read."""
    floor.settings(connector="posthog", schema="land", shopify={"schema": "shopify", "connector": "fivetran"})
    floor.engine = warehouse
    another = ret("posthog", 1, T0 - HOUR, provider_order_id="70")
    tables = shopify("rest", T0 - DAY, 0)
    [order] = tables["shopify.order"]
    of_another = order | {"id": 70, "name": "#9"}
    land(warehouse, returns("posthog", another) | tables | {"shopify.order": [order, of_another]})
    floor.run(T0)
    land(warehouse, {"shopify.order": [order, of_another | {"_fivetran_synced": T0 + 7 * HOUR}]})
    floor.run(T0 + 7 * HOUR)
    land(warehouse, returns("posthog", ret("posthog", 2, T0 + 2 * HOUR, provider_order_id="71")))
    assert [event.return_id for event in floor.run(T0 + 8 * HOUR)] == ["2"]


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Tokyo"])
def test_times_without_a_zone_are_the_shops_whatever_the_warehouses_session_says(
    floor: Floor, warehouse: sa.Engine, zone: str
) -> None:
    """PostHog's updated_at has none; a contact that lands an hour after it must move the return."""
    if warehouse.dialect.name == "snowflake":
        pytest.skip("fakesnow does not know sessions' zones")
    spelt = f"SET TIME ZONE '{zone}'"

    @sa.event.listens_for(warehouse, "connect")
    def elsewhere(raw: Any, record: Any) -> None:
        cursor = raw.cursor()
        cursor.execute(spelt)
        cursor.close()

    warehouse.dispose()
    floor.settings(connector="posthog", schema="land", shopify={"schema": "shopify"})
    floor.engine = warehouse
    land(warehouse, returns("posthog", ret("posthog", 1, T0 - DAY)))
    floor.run(T0)
    both = returns(
        "posthog", ret("posthog", 2, T0 + HOUR, customer=None), ret("posthog", 3, T0 + 6 * HOUR, customer=None)
    )
    land(warehouse, both, is_complete=True)
    assert {event.reason for event in floor.run(T0 + 7 * HOUR)} == {"no recipient"}
    land(warehouse, shopify("rest", T0 + 6 * HOUR, 0))
    floor.look(T0 + 8 * HOUR)
    assert floor.one("SELECT customer_phone FROM mirror_return WHERE return_id = '2'") == ("+14155552672",)
    assert floor.one("SELECT created_at FROM mirror_return WHERE return_id = '2'") == (T0 + HOUR,)


# ── Stripe: which return ────────────────────────────────────────────────────


@pytest.mark.parametrize("graphql", [False, True], ids=["rest", "graphql"])
@pytest.mark.parametrize("connector", ["dlt", "posthog", "airbyte"])
def test_a_refund_is_linked_by_shopifys_refund_on_the_same_charge(
    floor: Floor, warehouse: sa.Engine, connector: str, graphql: bool
) -> None:
    """Also when Loop's row, or Shopify's, lands a day after Stripe's."""
    start(floor, connector, warehouse)
    at = T0 + HOUR
    stripe: Tables = {
        "stripe.charge": [charge(f"ch_{n}", T0 - DAY) for n in (2, 3, 4)],
        "stripe.refund": [refund(f"re_{n}", f"ch_{n}", at) for n in (2, 3, 4)],
    }
    land(floor.engine, returns(connector, *(ret(connector, n, at) for n in (2, 3, 4))) | stripe)
    land(floor.engine, {"shopify.transaction": [shopify_refund(902, "ch_2", at, graphql=graphql)]})
    floor.run(at)
    assert money(floor) == {}
    late = at + DAY
    ties = refunded(connector, (2, 902), (3, 903), (3, 904))
    rows = [ret(connector, n, at) | ret(connector, n, late, created_at=ret(connector, n, at)["created_at"])
            | ({} if connector == "dlt" else ties.get(n, {})) for n in (2, 3, 4)]  # fmt: skip
    tables = returns(connector, *rows)
    if connector == "dlt":
        tables["land.returns__shopify_refund_object"] = [
            {"provider_refund_id": key, "_dlt_parent_id": parent}
            for key, parent in (("902", "r2"), ("903", "r3"), ("904", "r3"))
        ]
    land(floor.engine, tables)
    floor.run(late)
    assert money(floor) == {"re_2": "2"}
    later = late + DAY
    transactions = [
        shopify_refund(902, "ch_2", at, graphql=graphql),
        shopify_refund(904, "ch_3", later, graphql=graphql),
    ]
    land(floor.engine, {"shopify.transaction": transactions})
    floor.run(later)
    assert money(floor) == {"re_2": "2", "re_3": "3"}


@pytest.mark.parametrize(
    "more",
    [
        {"shopify.transaction": [shopify_refund(903, "ch_2", T0)]},  # of no return: refunded by hand in Shopify
        {"shopify.transaction": [shopify_refund(904, "ch_2", T0)]},  # of another return
        {"stripe.refund": [refund("re_9", "ch_2", T0)]},  # refunded by hand in Stripe
    ],
    ids=["shopify", "another", "stripe"],
)
def test_a_refund_with_two_candidates_is_linked_to_none(floor: Floor, more: Tables) -> None:
    start(floor, "dlt")
    at = T0 + HOUR
    tables = returns("dlt", ret("dlt", 2, at), ret("dlt", 3, at)) | {
        "land.returns__shopify_refund_object": [
            {"provider_refund_id": "902", "_dlt_parent_id": "r2"}, {"provider_refund_id": "904", "_dlt_parent_id": "r3"}
        ],
        "shopify.transaction": [
            shopify_refund(902, "ch_2", at),
            shopify_refund(905, "ch_2", at, status="failure"),
            shopify_refund(906, "ch_2", at, test=True),
        ],
        "stripe.charge": [charge("ch_2", at)],
        "stripe.refund": [refund("re_2", "ch_2", at), refund("re_8", "ch_2", at, status="failed")],
    }  # fmt: skip
    land(floor.engine, tables | {name: tables[name] + rows for name, rows in more.items()})
    floor.run(at)
    assert money(floor) == {}
    land(floor.engine, tables)
    floor.run(at + HOUR)
    assert money(floor) == {"re_2": "2"}


def test_the_metadata_of_a_refund_is_asked_first_then_its_charges(floor: Floor) -> None:
    start(floor, "airbyte", by="airbyte")
    at = T0 + HOUR
    stamp = {"_airbyte_extracted_at": at, "created": int(at.timestamp())}
    told = json.dumps({"loop_return": 2, "note": "x"})
    land(floor.engine, returns("airbyte", ret("airbyte", 2, at), ret("airbyte", 3, at)) | {
        "stripe.charges": [
            charge("ch_2", at) | stamp | {"metadata": told},
            charge("ch_3", at) | stamp | {"metadata": told, "livemode": False},
            charge("ch_4", at) | stamp | {"metadata": "no JSON"},
            charge("ch_5", at) | stamp | {"metadata": json.dumps(["loop_return"])},
        ],
        "stripe.refunds": [
            refund("re_2", "", at) | stamp | {"charge": "ch_2", "metadata": json.dumps({"reason": "late"})},
            refund("re_3", "", at) | stamp | {"charge": "ch_2", "metadata": json.dumps({"loop_return": "3"})},
            refund("re_4", "", at) | stamp | {"charge": "ch_3", "metadata": told},
        ],
    })  # fmt: skip
    events = floor.run(at)
    assert money(floor) == {"ch_2": "2", "re_2": "2", "re_3": "3"}
    assert {event.occurred_at for event in events if event.event_type == PAYMENT} == {at}


def test_what_has_nothing_to_do_with_returns_does_not_leave_the_warehouse(floor: Floor) -> None:
    start(floor, "dlt")
    at = T0 + HOUR
    land(floor.engine, {
        "stripe.charge": [charge(f"ch_{n}", at, metadata='{"cart": "loop"}') for n in range(50)]
        + [charge("ch_99", at, metadata='{"loop_return": "1"}')],
    })  # fmt: skip
    assert floor.look(at).extracted == 2  # the return, and its charge
    floor.settings(**settings("dlt") | {"stripe": {"schema": "stripe"}})
    assert floor.look(at + HOUR).extracted == 1


def test_amounts_are_in_whole_units_of_their_currency(floor: Floor) -> None:
    start(floor, "dlt")
    at = T0 + HOUR
    spelt = {"usd": "12.50", "JPY": "1250", "kwd": "1.250", "eur": "12.50"}
    land(floor.engine, {
        "stripe.charge": [charge(f"ch_{c}", at, currency=c, metadata='{"loop_return": 1}') for c in spelt],
        "stripe.refund": [refund("re_JPY", "ch_JPY", at, currency="jpy")],
    })  # fmt: skip
    floor.look(at)
    rows = floor.conn.execute("SELECT transaction_id, amount FROM mirror_transaction").fetchall()
    assert dict(rows) == {f"ch_{c}": Decimal(amount) for c, amount in spelt.items()} | {"re_JPY": Decimal("1250")}


# ── Stripe: by e-mail, amount and time ──────────────────────────────────────


def upsold(number: int, at: datetime, **row: Any) -> Row:
    return ret("dlt", number, at, customer="Ann@example.com ", **{"upsell": "12.5", "currency": "USD"} | row)


def paid(key: str, at: datetime, **row: Any) -> Row:
    return charge(key, at, **{"receipt_email": "ann@Example.com"} | row)


NEAR = T0 + HOUR


@pytest.mark.parametrize(
    ("rows", "charges", "linked"),
    [
        ([upsold(2, NEAR)], [paid("ch_2", NEAR)], {"ch_2": "2"}),
        ([upsold(2, NEAR), upsold(3, NEAR, upsell="40.00")], [paid("ch_2", NEAR), paid("ch_3", NEAR, amount=4000)],
         {"ch_2": "2", "ch_3": "3"}),
        ([upsold(2, NEAR)], [paid("ch_2", NEAR, captured=False), paid("ch_3", NEAR)], {"ch_3": "2"}),
        ([upsold(2, NEAR, upsell="1250", currency="JPY")], [paid("ch_2", NEAR, currency="jpy")], {"ch_2": "2"}),
        ([upsold(2, NEAR), upsold(3, NEAR)], [paid("ch_2", NEAR)], {}),  # two returns
        ([upsold(2, NEAR)], [paid("ch_2", NEAR), paid("ch_3", NEAR)], {}),  # two charges
        ([upsold(2, NEAR)], [paid("ch_2", NEAR, amount=1251)], {}),
        ([upsold(2, NEAR)], [paid("ch_2", NEAR, currency="eur")], {}),
        ([upsold(2, NEAR)], [paid("ch_2", NEAR, receipt_email="bob@example.com")], {}),
        ([upsold(2, NEAR)], [paid("ch_2", NEAR - timedelta(minutes=61))], {}),
        ([upsold(2, NEAR, upsell="N/A")], [paid("ch_2", NEAR)], {}),
        ([upsold(2, NEAR, upsell=None, currency=None)], [paid("ch_2", NEAR)], {}),
        ([upsold(2, NEAR)], [paid("ch_2", NEAR, metadata='{"loop_return": "1"}')], {"ch_2": "1"}),  # it knows better
    ],
)  # fmt: skip
def test_a_payment_may_be_matched_where_there_is_one_candidate_on_either_side(
    floor: Floor, rows: list[Row], charges: list[Row], linked: dict[str, str]
) -> None:
    start(floor, "dlt", match_by_email="yes")
    land(floor.engine, returns("dlt", *rows) | {"stripe.charge": charges})
    floor.run(NEAR)
    assert money(floor) == linked


def test_nothing_is_matched_by_email_unless_the_shop_asks_for_it(floor: Floor) -> None:
    start(floor, "dlt")
    land(floor.engine, returns("dlt", upsold(2, NEAR)) | {"stripe.charge": [paid("ch_2", NEAR)]})
    floor.run(NEAR)
    assert money(floor) == {}


@pytest.mark.parametrize("connector", ["fivetran", "dlt", "posthog", "airbyte"])
def test_a_return_that_lands_after_its_payment_is_matched_too(
    floor: Floor, warehouse: sa.Engine, connector: str
) -> None:
    start(floor, connector, warehouse, match_by_email="yes")
    land(floor.engine, {"stripe.charge": [paid("ch_2", NEAR)]})
    floor.run(NEAR)
    later = ret(connector, 2, NEAR + 5 * HOUR, customer="ann@example.com", upsell="12.50")
    created = NEAR.replace(tzinfo=None) if connector == "posthog" else NEAR
    land(floor.engine, returns(connector, later | {"created_at": created}))
    [event] = [event for event in floor.run(NEAR + 5 * HOUR) if event.event_type == PAYMENT]
    assert (event.key, event.return_id, event.occurred_at) == ("ch_2", "2", NEAR)


def test_a_refund_that_lands_before_its_charge_is_as_old_as_it_is(floor: Floor, warehouse: sa.Engine) -> None:
    """As when Fivetran syncs Stripe for the first time: it is no news that the charge had succeeded long since."""
    start(floor, "posthog", warehouse)
    old = T0 - 20 * DAY
    refunded_then = ret("posthog", 2, old, **refunded("posthog", (2, 2))[2])
    land(floor.engine, returns("posthog", refunded_then) | {
        "stripe.refund": [refund("re_2", "ch_2", old)], "shopify.transaction": [shopify_refund(2, "ch_2", old)],
    })  # fmt: skip
    floor.run(T0 + HOUR)
    land(floor.engine, {"stripe.charge": [charge("ch_2", old, _fivetran_synced=T0 + 2 * HOUR)]})
    floor.run(T0 + 3 * HOUR)
    assert money(floor) == {"re_2": "2"}
    assert [e.status for e in floor.events() if e.event_type == REFUND and e.key == "re_2"] == ["suppressed"]


def test_what_links_a_refund_may_land_long_after_its_last_change(floor: Floor, warehouse: sa.Engine) -> None:
    """By PostHog, whose rows tell when they changed, and not when they landed."""
    start(floor, "posthog", warehouse)
    land(floor.engine, {
        "stripe.charge": [charge("ch_2", NEAR)], "stripe.refund": [refund("re_2", "ch_2", NEAR)],
        "shopify.transaction": [shopify_refund(2, "ch_2", NEAR)],
    })  # fmt: skip
    linked = charge("ch_3", NEAR + 5 * HOUR, metadata='{"loop_return": "1"}')
    land(floor.engine, {"stripe.charge": [charge("ch_2", NEAR), linked]})
    floor.run(NEAR + 5 * HOUR)
    returned = ret("posthog", 2, NEAR, **refunded("posthog", (2, 2))[2])
    land(floor.engine, returns("posthog", returned))
    floor.run(NEAR + 6 * HOUR)
    assert money(floor) == {"ch_3": "1", "re_2": "2"}


def test_without_stripe_the_rules_about_money_are_off(floor: Floor) -> None:
    floor.settings(connector="dlt", schema="land")
    land(floor.engine, returns("dlt", ret("dlt", 1, T0)))
    result = floor.qualify(floor.look(T0))
    assert {name: told.off for name, told in result.items() if name in (PAYMENT, REFUND)} == dict.fromkeys(
        (PAYMENT, REFUND), "connector dlt does not tell transactions"
    )
