"""What a person must mend fails at once, with one line that says what; mended and cleared, the same run completes."""

from collections import Counter

import psycopg

from sandbox.attentive import Fault
from sandbox.processes import wait_until
from tests.e2e.conftest import SHOPS
from tests.e2e.house import DAY, SHOPS_FILE, House, remove_connection, write_settings
from tests.e2e.story import story


@story
def test_a_run_that_is_mended_step_by_step_completes(house: House) -> None:
    merchant = house.merchants["mended"]
    merchant.put_delivered_label()
    merchant.put_returns(4, 22 * DAY)
    merchant.put_returns(2, 29 * DAY)
    warehouse, attentive = "warehouse_mended", "attentive_mended"

    remove_connection(house.airflow, warehouse)
    run = merchant.scheduled(merchant.daily)
    merchant.fails_once(run, "extract", tries=1, mend=f"There is no connection {warehouse}: create it")

    merchant.connect_warehouse()
    merchant.warehouse.execute("ALTER TABLE loop.returns RENAME TO returns_elsewhere")
    merchant.clear(run, only_failed=True)
    merchant.fails_once(run, "extract", tries=2, mend="there is no table loop.returns")

    merchant.warehouse.execute("ALTER TABLE loop.returns_elsewhere RENAME TO returns")
    merchant.warehouse.execute("ALTER TABLE loop.labels RENAME COLUMN status TO state")
    merchant.clear(run)
    merchant.fails_once(run, "extract", tries=3, mend="table loop.labels lacks status")
    assert not merchant.statuses()

    merchant.warehouse.execute("ALTER TABLE loop.labels RENAME COLUMN state TO status")
    remove_connection(house.airflow, attentive)
    merchant.clear(run)
    merchant.fails_once(run, "send", tries=1, mend=f"There is no connection {attentive}: create it")

    merchant.connect_attentive(key="another-canary-key")
    merchant.clear(run, task_ids=["send"], include_downstream=True)
    merchant.fails_once(run, "send", tries=2, mend=f"does not know the API key of connection {attentive}")

    merchant.connect_attentive()
    merchant.attentive.faults += [Fault(status=403)]
    merchant.clear(run, task_ids=["send"], include_downstream=True)
    merchant.fails_once(run, "send", tries=3, mend="refused every event type")
    assert merchant.statuses() == Counter(pending=6)

    merchant.attentive.faults.clear()
    merchant.clear(run, task_ids=["send"], include_downstream=True)
    merchant.succeeds(run)
    assert merchant.statuses() == Counter(accepted=6)
    merchant.each_exactly_once()
    merchant.adds_up()


def test_a_ledger_that_cannot_be_used_is_told_in_one_line(house: House) -> None:
    merchant = house.merchants["shadow"]
    remove_connection(house.airflow, "loop_attentive_db")
    try:
        house.airflow.unpause(merchant.daily)
        run = merchant.trigger(merchant.daily)
        merchant.fails_once(run, "extract", tries=1, mend="There is no connection loop_attentive_db: create it")

        with psycopg.connect(house.server, autocommit=True) as server:
            server.execute("CREATE DATABASE never_migrated")
        house.connect_ledger("never_migrated")
        merchant.clear(run)
        merchant.fails_once(run, "extract", tries=2, mend="run `make migrate`")
    finally:
        house.connect_ledger()
    merchant.clear(run)
    merchant.succeeds(run)


def test_wrong_settings_are_an_import_error_that_names_them_and_keep_no_other_shop_from_running(house: House) -> None:
    write_settings(SHOPS | {"default": {"freshness_hour": 26}})
    try:
        house.read_dags_again()
        wait_until(lambda: bool(house.airflow.import_errors()), "Airflow shows the error", seconds=60)
        [error] = house.airflow.import_errors()
        assert "freshness_hour" in error.splitlines()[-1]
        assert str(SHOPS_FILE.name) in error.splitlines()[-1]
        another = house.merchants["shadow"]
        house.airflow.unpause(another.daily)
        another.succeeds(another.trigger(another.daily))
    finally:
        write_settings(SHOPS)
        house.read_dags_again()
    wait_until(lambda: not house.airflow.import_errors(), "the errors are gone", seconds=60)
