"""
### Reminders of Loop returns to Attentive, every day

Looks at the shop's Loop data and reminds customers of returns that are not on their way: expiring (21 days), expired
(28 days, or by status), and instant exchanges that are a week old. At 16:00 in the shop's time zone.

**Root of:** the reminder messages that Attentive's Journeys send on these events.

**If it fails:** mend what the failed task's log says and clear the task, or wait for the next run: a reminder goes out
as long as it is still true. While the warehouse's data is stale (`freshness_hours`) nobody is reminded, since a label
may be on its way already; the log says so, and the next fresh run catches up.

**If it holds events** (more than usual, or too many for one person) it asks under *Required Actions* of
`loop_attentive_resolve` whether to send or to discard them.

**To look again at past dates:** `airflow backfill create --dag-id loop_attentive_daily --from-date … --to-date …`,
with `--reprocess-behavior completed` for those that have had their run; or by days with `loop_attentive_backfill`.

**Why did somebody (not) get a message?** `SELECT * FROM loop_attentive.audit_event WHERE return_id = '…'`.
"""

from airflow.sdk import DAG  # noqa: F401  (Airflow looks for the word in a file before it reads it)

from loop_attentive.catalogue import CATALOGUE
from loop_attentive.pipeline import pipeline
from loop_attentive.settings import sound

for shop in sound().values():
    pipeline(
        "loop_attentive_daily",
        cron="0 16 * * *",
        shop=shop,
        events=[event for event in CATALOGUE if event.daily],
        doc=__doc__,
        purges=True,
    )
