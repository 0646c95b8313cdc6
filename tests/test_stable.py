"""What others build on: names, shapes and times that a later version must not change."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from loop_attentive import settings
from loop_attentive.settings import Shop
from tests.floor import DAY, HOUR

DAGS = Path(__file__).parents[1] / "dags"

VIEWS = {
    "audit_event": "event_id shop event_type return_id key occurred_at fact_at detected_at status reason attempts "
    "http_status sent_at restamped run_id dag_id",
    "audit_attempt": "event_id attempt dag_id run_id task_id map_index try_number started_at finished_at outcome "
    "http_status error",
    "audit_run": "run_id dag_id shop window_start window_end as_of started_at finished_at extracted changed yielded "
    "known qualified requests pending held sending accepted rejected invalid expired suppressed unknown",
}


@pytest.mark.parametrize(("view", "columns"), VIEWS.items())
def test_views_have_exactly_these_columns(ledger: str, view: str, columns: str) -> None:
    with psycopg.connect(ledger) as connection:
        described = connection.execute(f"SELECT * FROM loop_attentive.{view}").description or ()
    assert [column.name for column in described] == columns.split()


@pytest.fixture
def dags_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """The DAGs of such shops, by their ids."""
    from airflow.dag_processing.dagbag import DagBag  # seconds

    def dags_of(*shops: Shop) -> dict[str, Any]:
        for read in ("load", "sound"):
            monkeypatch.setattr(settings, read, lambda: {shop.name: shop for shop in shops})
        bag = DagBag(DAGS, bundle_path=DAGS)
        assert bag.import_errors == {}
        return bag.dags

    return dags_of


def test_dags_and_their_parameters_of_every_shop(dags_of: Callable[..., dict[str, Any]]) -> None:
    dags = dags_of(*(Shop(name=name, loop_api="loop_api") for name in ("default", "outlet")))
    stems = {"hourly", "daily", "backfill", "check", "resolve", "stop", "sync"}
    assert set(dags) == {f"loop_attentive_{stem}{suffix}" for stem in stems for suffix in ("", "__outlet")}
    for dag_id in ("loop_attentive_backfill", "loop_attentive_backfill__outlet"):
        params = dags[dag_id].params
        assert list(params) == ["from", "to", "events", "mode"]
        for name in ("from", "to"):
            schema = params.get_param(name).schema
            assert (schema["type"], schema["format"]) == ("string", "date")
        assert params["events"] == []
        assert params["mode"] == "preview"
        assert params.get_param("mode").schema["enum"] == ["preview", "send"]


@pytest.mark.parametrize("loop_api", [None, "loop_api"])
def test_every_hour_and_at_16_in_the_shops_time_zone_in_winter_and_summer(
    dags_of: Callable[..., dict[str, Any]], loop_api: str | None
) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    dags = dags_of(Shop(name="default", time_zone="America/New_York", loop_api=loop_api))
    noon = datetime(2026, 3, 7, 12, tzinfo=UTC)  # the clocks go forward in the night that follows

    def runs(dag_id: str, since: datetime) -> list[datetime]:
        """When the scheduler would run it, UTC, for the intervals that begin between then and noon of the next day."""
        scheduled = DagSerialization.from_dict(DagSerialization.to_dict(dags[dag_id]))
        return [run.run_after for run in scheduled.iter_dagrun_infos_between(since, noon + DAY)]

    assert runs("loop_attentive_daily", noon - DAY) == [noon + 9 * HOUR, noon + DAY + 8 * HOUR]
    assert runs("loop_attentive_hourly", noon) == [noon + hour * HOUR for hour in range(1, 26)]


def test_one_rule_that_fails_keeps_nothing_from_being_sent_or_asked_and_every_run_is_summed_up_whatever_happened(
    dags_of: Callable[..., dict[str, Any]],
) -> None:
    dags = dags_of(Shop(name="default"))
    for dag_id in ("loop_attentive_hourly", "loop_attentive_daily"):
        tasks = dags[dag_id].task_dict
        rules = {name for name in tasks if name.startswith("qualify.")}
        for task_id in ("plan", "ask"):
            assert rules <= tasks[task_id].get_flat_relative_ids(upstream=True)
            assert tasks[task_id].trigger_rule == "all_done_min_one_success", task_id
    audits = {dag_id: dag.task_dict["audit"] for dag_id, dag in dags.items() if "audit" in dag.task_dict}
    assert set(audits) == {f"loop_attentive_{stem}" for stem in ("hourly", "daily", "backfill", "resolve", "stop")}
    assert {audit.trigger_rule for audit in audits.values()} == {"all_done"}
