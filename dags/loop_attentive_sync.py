"""
### Loop's returns, from Loop's own API into your warehouse

For shops that name a connection `loop_api` in their settings, and have no connector. Every five minutes it asks Loop
for what was updated since the last sync, in each state, and lands it as dlt does: `returns` with its children, and
`advanced_shipping_notices`. Where something has changed the hourly DAG follows at once; where nothing has, the task
is **skipped**.

**If it fails:** the next run takes up where the last good one ended. **To load again from an earlier day** (an older
history, a warehouse that was emptied), trigger it with `since`.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param

from loop_attentive.pipeline import LONGEST_LOOK, synced_returns
from loop_attentive.settings import sound
from loop_attentive.sync_operators import SyncOperator

for shop in sound().values():
    if not shop.loop_api:
        continue
    since = f"Load what was updated since this day, by the clock of {shop.time_zone}. Empty: since the last sync."
    with DAG(
        dag_id=f"loop_attentive_sync{shop.dag_suffix}",
        schedule="*/5 * * * *",
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
        tags=["loop", "attentive", shop.name],
        params={"since": Param(None, type=["null", "string"], format="date", description=since)},
        doc_md=__doc__,
    ):
        SyncOperator(task_id="sync", shop=shop.name, execution_timeout=LONGEST_LOOK, outlets=[synced_returns(shop)])
