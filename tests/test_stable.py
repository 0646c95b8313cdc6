"""What others build on: names and shapes that a later version must not change."""

from pathlib import Path

import psycopg
import pytest

from loop_attentive import settings
from loop_attentive.settings import Shop

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


def test_dags_and_their_parameters_of_every_shop(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag  # seconds

    shops = {name: Shop(name=name, loop_api="loop_api") for name in ("default", "outlet")}
    for read in ("load", "sound"):
        monkeypatch.setattr(settings, read, lambda: shops)
    bag = DagBag(DAGS, bundle_path=DAGS)
    assert bag.import_errors == {}
    stems = {"hourly", "daily", "backfill", "check", "resolve", "stop", "sync"}
    assert set(bag.dags) == {f"loop_attentive_{stem}{suffix}" for stem in stems for suffix in ("", "__outlet")}
    for dag_id in ("loop_attentive_backfill", "loop_attentive_backfill__outlet"):
        params = bag.dags[dag_id].params
        assert list(params) == ["from", "to", "events", "mode"]
        for name in ("from", "to"):
            schema = params.get_param(name).schema
            assert (schema["type"], schema["format"]) == ("string", "date")
        assert params["events"] == []
        assert params["mode"] == "preview"
        assert params.get_param("mode").schema["enum"] == ["preview", "send"]
