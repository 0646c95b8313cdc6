"""A look: what becomes a change, what is not applied, and that it happens whole or not at all."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue
from typing import Any

import psycopg
import pytest

from loop_attentive import canonical, db, mirror, source
from loop_attentive.catalogue import CATALOGUE
from loop_attentive.errors import NeedsMending
from tests.floor import DAY, HOUR, T0, Floor

CREATED = "Loop Return Created"
MIRROR = ("mirror_return", "mirror_label", "mirror_item", "mirror_episode", "mirror_transaction", "mirror_waiting",
          "change", "source_cursor", "look", "shop", "rule")  # fmt: skip


def contents(floor: Floor) -> dict[str, list[Any]]:
    return {table: floor.conn.execute(f"SELECT * FROM {table} AS t ORDER BY t::text").fetchall() for table in MIRROR}


def held(floor: Floor, columns: str = "return_id", table: str = "mirror_return") -> list[Any]:
    rows = floor.conn.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()
    return [row[0] if len(row) == 1 else row for row in rows]


# ── Changes ─────────────────────────────────────────────────────────────────


def everything(floor: Floor, **times: Any) -> None:
    """One row in each table, each column filled."""
    floor.ret(outcome="refund", customer_email="ann@example.com", status_page_url="https://s/#/1", labels_enabled=True,
              is_instant_exchange=True, charge_at=T0 + DAY, created_at=T0 - DAY, **times)  # fmt: skip
    floor.label(
        carrier="UPS", tracking_url="https://t", label_url="https://l", status="new", created_at=T0 - DAY, **times
    )
    floor.item(out_of_stock=True, **times)
    floor.transaction(kind="payment", gateway="stripe", status="succeeded", amount="1.10", currency="USD",
                      created_at=T0 - DAY, synced_at=times.get("synced_at"))  # fmt: skip


def test_a_touched_but_equal_row_is_no_change(floor: Floor) -> None:
    everything(floor, updated_at=T0 - DAY, synced_at=T0)
    assert floor.look(T0).changed == 4
    everything(floor, updated_at=T0 + HOUR, synced_at=T0 + HOUR)
    look = floor.look(T0 + HOUR)
    assert (look.extracted, look.changed) == (4, 0)
    assert held(floor, "seen_at", "change") == []


def test_numbers_and_words_that_are_only_spelt_otherwise_are_no_change(floor: Floor) -> None:
    everything(floor)
    floor.look(T0)
    floor.ret(state=" OPEN", outcome="Refund ", order_name=" #1001 ")
    floor.label(status="New ")
    floor.transaction(amount="1.100", status="SUCCEEDED")
    assert floor.look(T0 + HOUR).changed == 0


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("returns", {"state": "closed"}),
        ("returns", {"customer_phone": "+14155550000"}),
        ("returns", {"charge_at": T0 + 2 * DAY}),
        ("labels", {"carrier": "USPS"}),
        ("labels", {"status": "in_transit"}),
        ("exchange_items", {"resolution": "credit"}),
        ("transactions", {"amount": "2"}),
    ],
)
def test_a_row_that_differs_is_a_change_with_or_without_a_newer_updated_at(
    floor: Floor, table: str, change: dict[str, Any]
) -> None:
    everything(floor, updated_at=T0 - DAY)
    floor.look(T0)
    keys = {"returns": "return_id", "labels": "tracking_number", "exchange_items": "exchange_id",
            "transactions": "transaction_id"}  # fmt: skip
    (key,) = floor.one(f"SELECT {keys[table]} FROM loop.{table}")
    floor.put(table, **{"return_id": "1", keys[table]: key}, **change)
    assert floor.look(T0 + HOUR).changed == 1
    (logged,) = floor.conn.execute("SELECT source_table, return_id, seen_at, fields, updated_at FROM change").fetchall()
    assert logged[:3] == (table, "1", T0 + HOUR)
    assert set(change) <= set(logged[3])
    assert logged[4] is None  # it did not move with the change


def test_a_row_older_than_the_mirrors_is_not_applied_and_one_of_the_same_age_is(floor: Floor) -> None:
    everything(floor, updated_at=T0)
    floor.start()
    for before in (timedelta(microseconds=1), DAY):
        floor.ret(state="closed", updated_at=T0 - before)
        floor.label(status="delivered", updated_at=T0 - before)
        floor.item(resolution="refund", updated_at=T0 - before)
        assert floor.look(T0 + HOUR + before).changed == 0
    floor.ret(state="closed", updated_at=T0)
    floor.label(updated_at=T0)
    floor.item(updated_at=T0)
    assert floor.look(T0 + 2 * DAY).changed == 3
    assert held(floor, "state") == ["closed"]


def test_a_row_without_a_readable_updated_at_is_always_applied(floors: Callable[..., Floor]) -> None:
    floor = floors(times="text")
    floor.ret(updated_at="2026-03-01T12:00:00Z")
    floor.look(T0)
    for hours, (state, unreadable) in enumerate([("closed", None), ("open", "N/A"), ("expired", ""), ("open", "soon")]):
        floor.ret(state=state, updated_at=unreadable)
        assert floor.look(T0 + (hours + 1) * HOUR).changed == 1
        assert held(floor, "state, updated_at") == [(state, T0)]  # what it was when somebody could read it
    floor.ret(state="closed", updated_at="2026-03-01T11:59:59Z")
    assert floor.look(T0 + 5 * HOUR).changed == 0


def test_of_two_rows_with_one_id_the_newest_counts(floor: Floor) -> None:
    floor.conn.execute("ALTER TABLE loop.returns DROP CONSTRAINT returns_return_id_key")
    for state, updated_at in (("closed", T0 - HOUR), ("expired", T0), ("open", None)):
        floor.conn.execute(
            "INSERT INTO loop.returns (return_id, state, updated_at) VALUES (' 1', %s, %s)", (state, updated_at)
        )
    assert floor.look(T0).changed == 1
    assert held(floor, "return_id, state") == [("1", "expired")]


def test_the_log_of_changes_holds_no_private_value(floor: Floor) -> None:
    everything(floor)
    floor.look(T0)
    floor.ret(customer_phone="+442079460000", customer_email="bob@example.com")
    floor.look(T0 + HOUR)
    logged = str(floor.conn.execute("SELECT * FROM change").fetchall())
    assert "customer_phone" in logged
    assert not any(value in logged for value in ("+442079460000", "bob@", "ann@", "+1415"))


def test_a_row_that_vanishes_from_the_source_is_no_change(floor: Floor) -> None:
    everything(floor)
    floor.start()
    before = contents(floor)
    for table in canonical.TABLES:
        floor.conn.execute(f"DELETE FROM loop.{table.name}")
    assert floor.run(T0 + HOUR) == []
    after = contents(floor)
    assert {name for name in MIRROR if before[name] != after[name]} <= {"source_cursor", "look", "rule"}


def test_deleted_and_back_and_deleted(floor: Floor) -> None:
    everything(floor)
    floor.start()
    for hours, is_deleted in enumerate([True, False, True, None], start=1):
        floor.ret(is_deleted=is_deleted)
        assert floor.run(T0 + hours * HOUR) == []
        assert held(floor, "is_deleted") == [bool(is_deleted)]


# ── Children, old returns ───────────────────────────────────────────────────


def test_children_wait_for_their_return_and_come_in_with_their_last_state(floor: Floor) -> None:
    floor.label(status="new", updated_at=T0)
    floor.item(out_of_stock=True)
    floor.transaction(kind="payment", gateway="stripe", status="pending")
    floor.start()
    assert len(held(floor, "subject", "mirror_waiting")) == 3
    floor.label(status="in_transit", updated_at=T0 + HOUR)
    floor.look(T0 + HOUR)
    floor.label(status="pre_transit", updated_at=T0 - HOUR)
    floor.look(T0 + 2 * HOUR)
    for table in ("labels", "exchange_items", "transactions"):
        floor.conn.execute(f"DELETE FROM loop.{table}")
    floor.ret(created_at=T0 + 2 * HOUR)
    assert floor.look(T0 + 3 * HOUR).changed == 4
    assert held(floor, "tracking_status, first_status", "mirror_label") == [("in_transit", "in_transit")]
    assert held(floor, "subject", "mirror_waiting") == []


def test_what_waited_gives_way_to_what_is_read_again_with_its_return(floor: Floor) -> None:
    """Rows without an updated_at, or synced_at: the source as it stands now counts."""
    floor.label(status="new")
    floor.item(out_of_stock=True)
    floor.transaction(kind="payment", gateway="stripe", status="succeeded")
    floor.start()
    floor.label(status="pre_transit")
    floor.item(out_of_stock=False)
    floor.transaction(status="failed")
    floor.ret(created_at=T0 + HOUR)
    events = floor.run(T0 + 2 * HOUR)
    assert [(e.event_type, e.properties.get("trackingStatus")) for e in events] == [
        (CREATED, "pre_transit"),
        ("Loop Label Created", "pre_transit"),
    ]
    assert floor.run(T0 + 3 * HOUR) == []


def test_returns_neither_created_nor_changed_for_mirror_days_are_skipped_with_all_their_children(floor: Floor) -> None:
    old = T0 - 120 * DAY
    tick = timedelta(microseconds=1)
    floor.ret("old", created_at=old - DAY, updated_at=old - tick)
    floor.ret("changed", created_at=old - DAY, updated_at=old)
    floor.ret("created", created_at=old)
    floor.ret("dateless")
    for number in ("old", "changed"):
        floor.label(number, "1Z1", status="new")
        floor.item(number, out_of_stock=True)
        floor.transaction(number, number, kind="payment", gateway="stripe", status="succeeded")
    floor.start()
    assert held(floor) == ["changed", "created", "dateless"]
    assert held(floor, table="mirror_label") == ["changed"]
    assert held(floor, "return_id", "mirror_waiting") == []
    assert {event.return_id for event in floor.events()} == {"changed", "created", "dateless"}


def test_mirror_days_is_a_setting_and_what_grows_older_is_forgotten_but_never_told_again(floor: Floor) -> None:
    floor.settings(mirror_days=40)
    floor.start()
    everything(floor, synced_at=T0)
    floor.ret(created_at=T0 + HOUR, updated_at=T0 + HOUR)
    floor.item(out_of_stock=False)
    floor.ret("2", created_at=T0 - 41 * DAY)
    told = [event.key for event in floor.run(T0 + 2 * HOUR)]
    floor.look(T0 + 40 * DAY)
    assert held(floor) == ["1"]
    floor.look(T0 + 41 * DAY)
    assert not any(contents(floor)[table] for table in MIRROR if table.startswith("mirror_"))
    floor.ret(outcome="credit", updated_at=T0 + 42 * DAY)
    floor.ret("2", updated_at=T0 + 42 * DAY)
    assert not {event.key for event in floor.run(T0 + 42 * DAY)} & set(told)
    assert floor.outcomes(CREATED) == {"1": ("pending", None), "2": ("suppressed", "baseline")}


@pytest.mark.parametrize("was_held", [True, False])
@pytest.mark.parametrize("others", [0, source.MOST_BY_ID])
def test_an_old_return_that_is_touched_comes_with_its_labels_which_the_cursor_has_passed(
    floor: Floor, was_held: bool, others: int
) -> None:
    """Its package has long arrived: nobody may be told that the return expired."""
    floor.settings(mirror_days=40)
    for number in ("shipped", "kept"):
        floor.ret(number, state="open", created_at=T0 - DAY, updated_at=T0 - DAY)
        floor.label(number, number, status="delivered" if number == "shipped" else "new", updated_at=T0 - DAY)
    more = [f"other {number}" for number in range(others)]
    for number in more:
        floor.ret(number, created_at=T0 - DAY, updated_at=T0 - DAY)
    floor.start(at=T0 if was_held else T0 + 50 * DAY)
    floor.ret("new", created_at=T0 + 60 * DAY, updated_at=T0 + 60 * DAY)
    floor.label("new", "new", status="new", updated_at=T0 + 60 * DAY)
    floor.look(T0 + 60 * DAY)
    assert held(floor) == ["new"]
    touched = ["shipped", "kept", *more]
    for number in touched:
        floor.ret(number, state="open", updated_at=T0 + 61 * DAY)
    floor.look(T0 + 61 * DAY)
    for number in touched:
        floor.ret(number, state="expired", updated_at=T0 + 62 * DAY)
    told = {event.return_id for event in floor.run(T0 + 62 * DAY, "Loop Return Expired")}
    assert {"shipped", "kept"} & told == {"kept"}


def test_an_old_return_comes_with_its_labels_however_their_table_spells_its_id(floors: Callable[..., Floor]) -> None:
    floor = floors(ids="numeric", mirror_days=40)
    floor.ret("1.00", state="open", created_at=T0 - DAY, updated_at=T0 - DAY)
    floor.label("1.00", "1Z1", status="delivered", updated_at=T0 - DAY)
    floor.start(T0)
    floor.ret("2.00", created_at=T0 + 60 * DAY, updated_at=T0 + 60 * DAY)
    floor.label("2.00", "2Z", status="new", updated_at=T0 + 60 * DAY)
    floor.look(T0 + 60 * DAY)
    floor.ret("1.00", state="open", updated_at=T0 + 61 * DAY)
    floor.look(T0 + 61 * DAY)
    floor.ret("1.00", state="expired", updated_at=T0 + 62 * DAY)
    told = {event.event_type for event in floor.run(T0 + 62 * DAY)}
    assert "Loop Return Status Updated" in told
    assert "Loop Return Expired" not in told, "its package has long arrived"


def test_what_a_larger_mirror_may_hold_comes_back_untouched(floor: Floor) -> None:
    floor.settings(mirror_days=40)
    floor.ret("1", created_at=T0 - 60 * DAY, updated_at=T0 - 50 * DAY)
    floor.ret("2", created_at=T0 - 130 * DAY, updated_at=T0 - 121 * DAY)
    floor.ret("3", created_at=T0, updated_at=T0)
    floor.start(T0)
    floor.look(T0 + HOUR, whole=True)
    floor.settings(mirror_days=120)
    at = T0 + 1.1 * HOUR
    assert floor.look(at, whole=True).as_of == at, "no look by the smaller one serves"
    assert held(floor) == ["1", "3"]


def test_what_happens_to_a_return_that_came_back_into_a_larger_mirror_is_told(floor: Floor) -> None:
    floor.settings(mirror_days=40)
    floor.ret("1", created_at=T0 - 60 * DAY, updated_at=T0 - 50 * DAY)
    floor.ret("2", created_at=T0, updated_at=T0)
    floor.start(T0)
    floor.settings(mirror_days=120)
    assert {event.status for event in floor.run(T0 + DAY)} == {"suppressed"}
    floor.transaction(
        "t1", "1", kind="refund", gateway="stripe", status="succeeded", created_at=T0 + DAY, synced_at=T0 + DAY
    )
    [told] = floor.run(T0 + DAY + HOUR)
    assert (told.event_type, told.status) == ("Loop Refund Transaction", "pending")
    assert floor.look(T0 + DAY + 2 * HOUR).extracted == 2, "by its cursors again"


def test_a_return_that_a_larger_mirror_may_hold_comes_with_its_labels(floor: Floor) -> None:
    """mirror_days was raised: what the looks before have passed over belongs to it. All is read anew, once."""
    floor.settings(mirror_days=40)
    seen = {"synced_at": T0 - DAY}
    floor.ret("1", created_at=T0 - 60 * DAY, updated_at=T0 - 50 * DAY, **seen)
    floor.label("1", "1Z1", status="delivered", updated_at=T0 - 50 * DAY, **seen)
    floor.label("1", "1Z2", status="new", updated_at=T0 - 50 * DAY, **seen)
    floor.label("1", "1Z3", status="new", **seen)
    floor.item("1", "10", out_of_stock=True, **seen)
    floor.ret("2", created_at=T0, synced_at=T0)
    floor.label("2", "2Z", status="new", synced_at=T0)
    floor.item("2", "20", out_of_stock=False, synced_at=T0)
    floor.start(T0)
    floor.settings(mirror_days=120)
    floor.ret("1", state="open", updated_at=T0 + DAY, synced_at=T0 + DAY)
    assert floor.look(T0 + DAY + HOUR).extracted == 8
    floor.ret("1", state="expired", updated_at=T0 + DAY + HOUR, synced_at=T0 + DAY + HOUR)
    floor.label("1", "1Z2", status="new", carrier="UPS", updated_at=T0 + DAY + HOUR, synced_at=T0 + DAY + HOUR)
    told = floor.run(T0 + DAY + 2 * HOUR)
    assert {event.event_type for event in told if event.status == "pending"} == {"Loop Return Status Updated"}
    assert floor.look(T0 + DAY + 3 * HOUR).extracted == 3


def test_a_return_that_was_deleted_when_it_was_first_seen_comes_back_with_its_pages(floor: Floor) -> None:
    floor.start()
    floor.ret("1", created_at=T0 + HOUR, is_deleted=True, synced_at=T0 + HOUR)
    floor.label("1", "1Z1", status="new", label_url="https://l", tracking_url="https://t", synced_at=T0 + HOUR)
    floor.run(T0 + 2 * HOUR)
    floor.ret("2", created_at=T0 + 4 * HOUR, synced_at=T0 + 4 * HOUR)
    floor.label("2", "2Z", status="new", synced_at=T0 + 4 * HOUR)
    floor.run(T0 + 5 * HOUR)
    floor.ret("1", is_deleted=False, updated_at=T0 + 7 * HOUR, synced_at=T0 + 7 * HOUR)
    [label] = [event for event in floor.run(T0 + 8 * HOUR) if event.event_type == "Loop Label Created"]
    assert (label.properties["label"], label.properties["trackingUrl"]) == ("https://l", "https://t")


def test_what_is_out_of_stock_for_long_is_not_news_when_its_old_return_is_touched(floor: Floor) -> None:
    floor.settings(mirror_days=40)
    floor.ret(created_at=T0 - DAY, updated_at=T0 - DAY)
    floor.start()
    floor.item(out_of_stock=True)
    assert len(floor.run(T0 + HOUR)) == 1
    floor.look(T0 + 60 * DAY)
    floor.ret(outcome="credit", updated_at=T0 + 61 * DAY)
    assert floor.run(T0 + 61 * DAY) == []


# ── Whole or not at all, one at a time ──────────────────────────────────────


def test_a_look_that_dies_half_way_leaves_nothing(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(floor, synced_at=T0)
    floor.start()
    before = contents(floor)
    floor.ret(state="closed", synced_at=T0 + HOUR)
    read = source.Source.read

    def failing(self: source.Source, table: canonical.Table, since: source.Cursor) -> Iterator[source.Raw]:
        yield from read(self, table, since)
        if table is canonical.TRANSACTIONS:
            raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr(source.Source, "read", failing)
        with pytest.raises(ConnectionResetError):
            floor.look(T0 + HOUR)
    assert contents(floor) == before
    assert [event.event_type for event in floor.run(T0 + 2 * HOUR)] == ["Loop Return Status Updated"]


def test_a_look_whose_database_session_is_killed_leaves_nothing(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(floor)
    floor.start()
    before = contents(floor)
    floor.ret(state="closed")
    doomed = db.connect(floor.conninfo, autocommit=True)
    killed: SimpleQueue[tuple[bool] | None] = SimpleQueue()

    def killing(self: source.Source, table: canonical.Table, since: source.Cursor) -> Iterator[source.Raw]:
        if table is canonical.LABELS:
            killed.put(floor.conn.execute("SELECT pg_terminate_backend(%s)", (doomed.info.backend_pid,)).fetchone())
        yield source.Raw([])

    with monkeypatch.context() as patch:
        patch.setattr(source.Source, "read", killing)
        with pytest.raises(psycopg.OperationalError):
            mirror.look(doomed, source.Source(floor.engine, floor.shop), at=T0 + HOUR)
    assert killed.get(timeout=30) == (True,)
    assert contents(floor) == before
    assert len(floor.run(T0 + 2 * HOUR)) == 1


def test_two_looks_at_once_take_turns_and_each_reads_only_after_it_has_its_turn(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one has read the older picture when the second begins; the newer picture must win."""
    floor.ret(state="open")
    floor.look(datetime.now(UTC) - DAY)
    has_read, may_go_on, looks = threading.Event(), threading.Event(), []
    read = source.Source.read

    def slow(self: source.Source, table: canonical.Table, since: source.Cursor) -> Iterator[source.Raw]:
        yield from read(self, table, since)
        if table is canonical.RETURNS and not has_read.is_set():
            has_read.set()
            assert may_go_on.wait(20)

    def look() -> None:
        with db.connect(floor.conninfo, autocommit=True) as conn:
            looks.append(mirror.look(conn, source.Source(floor.engine, floor.shop)))

    monkeypatch.setattr(source.Source, "read", slow)
    first, second = threading.Thread(target=look), threading.Thread(target=look)
    first.start()
    assert has_read.wait(20)
    floor.ret(state="closed")
    second.start()
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while floor.conn.execute(waiting).fetchone() == (0,):
        assert second.is_alive()
    may_go_on.set()
    first.join(20)
    second.join(20)
    assert [look.changed for look in looks] == [0, 1]
    assert looks[0].as_of < looks[1].as_of
    assert held(floor, "state") == ["closed"]


def test_shops_do_not_wait_for_each_other_and_hold_their_own_mirrors(floor: Floor) -> None:
    floor.ret(created_at=T0 - DAY)
    with db.connect(floor.conninfo) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('loop_attentive look at ' || 'other', 0))")
        floor.start()
    floor.settings(name="other")
    floor.start(T0 + HOUR)
    assert held(floor, "shop") == ["default", "other"]
    assert held(floor, "shop, enabled_at", "shop") == [("default", T0), ("other", T0 + HOUR)]


def test_two_looks_in_one_transaction_see_what_they_should_and_can_be_rolled_back_together(floor: Floor) -> None:
    everything(floor)
    floor.start()
    before = contents(floor)
    with psycopg.connect(floor.conninfo, autocommit=True) as merchant, floor.conn.transaction() as outer:
        merchant.execute("UPDATE loop.returns SET state = 'closed'")
        assert len(floor.run(T0 + 1 * HOUR)) == 1
        merchant.execute("UPDATE loop.returns SET state = 'open'")
        assert len(floor.run(T0 + 2 * HOUR)) == 1
        raise psycopg.Rollback(outer)
    assert contents(floor) == before  # type: ignore[unreachable]  # the block swallows its own Rollback


def test_a_ledgers_clock_that_was_set_back_hides_no_change(floor: Floor) -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=3)
    floor.ret()
    floor.start(ahead)
    floor.ret(state="closed")
    look = mirror.look(floor.conn, source.Source(floor.engine, floor.shop))
    assert look.as_of > ahead
    assert floor.qualify(look)["Loop Return Status Updated"].created == 1


def test_a_worker_whose_clock_is_more_than_five_minutes_off_does_not_look(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fast(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "datetime":  # type: ignore[override]
            return datetime.now(tz) + timedelta(minutes=6)

    floor.look(T0 - timedelta(minutes=1), whole=True)
    monkeypatch.setattr(mirror, "datetime", Fast)
    for whole in (False, True):  # also where another look would serve
        with pytest.raises(NeedsMending, match="clock of this worker"):
            floor.look(T0, whole=whole)
    assert held(floor, "as_of", "look") == [T0 - timedelta(minutes=1)]


def test_a_usual_look_is_stamped_by_the_ledgers_clock_when_it_has_its_turn(floor: Floor) -> None:
    (before,) = floor.one("SELECT clock_timestamp()")
    look = mirror.look(floor.conn, source.Source(floor.engine, floor.shop))
    (after,) = floor.one("SELECT clock_timestamp()")
    assert before < look.as_of < after
    assert held(floor, "as_of", "look") == [look.as_of]


def test_what_changed_while_a_long_look_read_is_not_undone_by_an_older_version(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began at ten, read the row as of seven past at ten past, and ended at a quarter past."""
    floor.ret("1", state="open", created_at=T0 - DAY, updated_at=T0 - DAY)
    floor.start(T0)
    floor.ret("1", state="closed", updated_at=T0 + HOUR + timedelta(minutes=7))
    now = mirror.ledger_time
    with monkeypatch.context() as slowly:
        slowly.setattr(mirror, "ledger_time", lambda conn: now(conn) - timedelta(minutes=15))
        slowly.setattr(mirror, "CLOCK_TOLERANCE", timedelta(hours=1))  # of the source's clock
        floor.run(T0 + HOUR)
    floor.ret("1", state="open", updated_at=T0 + HOUR - timedelta(minutes=10))
    assert floor.run(T0 + 2 * HOUR) == []
    assert floor.one("SELECT status FROM mirror_return") == ("closed",)


# ── A backfill's whole look ─────────────────────────────────────────────────


def test_a_whole_look_reads_without_the_cursor_and_serves_for_15_minutes(floor: Floor) -> None:
    for number in range(3):
        floor.ret(str(number), synced_at=T0 - number * DAY)
    floor.start()
    assert floor.look(T0 + HOUR).extracted == 1
    whole = floor.look(T0 + 2 * HOUR, whole=True)
    assert whole.extracted == 3
    assert floor.look(T0 + 2 * HOUR + timedelta(minutes=15), whole=True) == whole
    assert floor.look(T0 + 2 * HOUR + timedelta(minutes=16), whole=True) != whole


@pytest.mark.parametrize("mended", ["a rule", "how it is read"])
def test_a_whole_look_serves_no_more_when_it_was_followed_by_a_mend(
    floor: Floor, monkeypatch: pytest.MonkeyPatch, mended: str
) -> None:
    """Whoever looks again at a range of days has often mended something just before."""
    floor.ret()
    floor.start(T0)
    whole = floor.look(T0 + HOUR, whole=True)
    if mended == "a rule":
        newer = tuple(replace(event, version=event.version + 1) for event in CATALOGUE)
        monkeypatch.setattr(mirror, "CATALOGUE", newer)
    else:
        monkeypatch.setattr(source, "fingerprint", lambda _: "another")
        floor.look(T0 + HOUR + timedelta(seconds=30))
    assert floor.look(T0 + HOUR + timedelta(minutes=1), whole=True) != whole


def test_a_usual_look_does_not_serve_a_backfill_nor_a_whole_one_a_usual_run(floor: Floor) -> None:
    usual = floor.look(T0)
    whole = floor.look(T0 + timedelta(minutes=1), whole=True)
    assert usual != whole != floor.look(T0 + timedelta(minutes=2))


@pytest.mark.parametrize("change", [{"warehouse": "other_warehouse"}, {"connector": "dlt"}])
def test_a_whole_look_at_another_source_serves_nobody(floor: Floor, change: dict[str, str]) -> None:
    floor.ret()
    floor.conn.execute("ALTER TABLE loop.returns ADD COLUMN id text, ADD COLUMN _dlt_id text")
    whole = floor.look(T0, whole=True)
    floor.settings(**change)
    assert floor.look(T0 + timedelta(minutes=1), whole=True) != whole


# ── Another source ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("change", [{"warehouse": "other_warehouse"}, {"schema": "moved"}])
def test_another_connection_or_schema_is_read_from_its_beginning_and_seen_for_the_first_time(
    floor: Floor, change: dict[str, str]
) -> None:
    floor.ret("1", created_at=T0 - DAY, synced_at=T0 - DAY)
    floor.ret("2", created_at=T0 - DAY, synced_at=T0)
    floor.start()
    assert floor.look(T0 + 1 * HOUR).extracted == 1
    floor.conn.execute("ALTER SCHEMA loop RENAME TO moved" if "schema" in change else "SELECT 1")
    floor.settings(**change)
    floor.conn.execute(f"UPDATE {floor.shop.source_schema}.returns SET state = 'closed' WHERE return_id = '1'")
    floor.conn.execute(f"INSERT INTO {floor.shop.source_schema}.returns (return_id) VALUES ('3')")
    look = floor.look(T0 + 2 * HOUR)
    assert look.extracted == 3
    floor.qualify(look)
    assert {(e.event_type, e.return_id): e.reason for e in floor.events() if e.detected_at == look.as_of} == {
        ("Loop Return Status Updated", "1"): "baseline",  # when it changed, nobody can tell
        (CREATED, "3"): "baseline",
    }


def test_another_source_without_labels_is_not_trusted_for_what_the_old_one_knew(floor: Floor) -> None:
    floor.label("elsewhere", "OTHER", status="new", synced_at=T0)
    floor.ret(synced_at=T0)
    floor.start()
    assert floor.fresh(T0 + HOUR, freshness_hours=26) == (True, None)
    floor.conn.execute("DROP TABLE loop.labels")
    floor.settings(warehouse="other_warehouse")
    floor.look(T0 + HOUR)
    assert floor.fresh(T0 + HOUR, freshness_hours=26)[0] is False


def test_a_mirror_that_was_emptied_makes_no_old_news(floor: Floor) -> None:
    everything(floor)
    floor.start()
    for table in MIRROR:
        if table not in ("shop", "rule"):
            floor.conn.execute(f"TRUNCATE {table}")
    floor.ret("2")
    floor.label("2", "2", status="in_transit")
    events = floor.run(T0 + 2 * DAY)
    assert {(e.event_type, e.return_id, e.reason) for e in events} == {
        (CREATED, "2", "baseline"),
        ("Loop Label Created", "2", "baseline"),
        ("Loop Exchange Out Of Stock", "1", "baseline"),
    }


@pytest.mark.parametrize("most_by_id", [1_000, 0])
def test_what_the_cursors_have_passed_of_an_old_return_comes_with_it(
    floor: Floor, monkeypatch: pytest.MonkeyPatch, most_by_id: int
) -> None:
    """Else it would come as news with whatever touches it next. Of too many all is read, and nothing else is kept."""
    monkeypatch.setattr(source, "MOST_BY_ID", most_by_id)
    old, seen = T0 - 130 * DAY, {"synced_at": T0 - DAY}
    floor.ret("1", created_at=old, updated_at=old, **seen)
    floor.item("1", "10", out_of_stock=True, **seen)
    floor.transaction("t1", "1", kind="refund", gateway="stripe", status="succeeded", **seen)
    floor.ret("2", created_at=old, updated_at=old, **seen)
    floor.item("2", "20", out_of_stock=True, **seen)
    floor.start()
    floor.run(T0 + HOUR)
    floor.ret("1", state="closed", updated_at=T0 + DAY, synced_at=T0 + DAY)
    told = floor.run(T0 + DAY + HOUR)
    assert floor.one("SELECT count(*) FROM mirror_waiting") == (0,)
    floor.item("1", "10", out_of_stock=True, synced_at=T0 + 5 * DAY)
    floor.transaction("t1", "1", kind="refund", gateway="stripe", status="succeeded", synced_at=T0 + 5 * DAY)
    told += floor.run(T0 + 5 * DAY + HOUR)
    assert {event.reason for event in told} == {"baseline"}
    assert {"Loop Exchange Out Of Stock", "Loop Refund Transaction"} <= {event.event_type for event in told}


def test_what_an_old_return_brings_along_when_it_is_touched_is_no_news(floor: Floor) -> None:
    old = T0 - 130 * DAY
    floor.ret("1", created_at=old, updated_at=old)
    floor.label("1", "1Z1", status="in_transit")
    floor.item("1", "10", out_of_stock=True)
    floor.transaction("t1", "1", kind="refund", gateway="stripe", status="succeeded")
    floor.start()
    floor.run(T0 + HOUR)
    floor.ret("1", state="closed", updated_at=T0 + HOUR)
    events = floor.run(T0 + 2 * HOUR)
    assert {event.event_type: (event.status, event.reason) for event in events} == dict.fromkeys(
        ("Loop Return Created", "Loop Label Created", "Loop Exchange Out Of Stock", "Loop Refund Transaction"),
        ("suppressed", "baseline"),
    )
    floor.label("1", "1Z2", status="new")
    assert [(e.event_type, e.status) for e in floor.run(T0 + 3 * HOUR)] == [("Loop Label Created", "pending")]
