"""
### Loop returns to Attentive, every hour

Looks at the shop's Loop data and sends what happened since: returns created and changed, labels, out-of-stock
exchanges, Stripe payments and refunds, and the notice a day before an instant exchange is charged.

**Root of:** the customer messages that Attentive's Journeys send on these events.

**If it fails:** nothing is lost. Mend what the failed task's log says and clear the task, or wait for the next run:
each run catches up on whatever is due. An event still goes out up to 24 hours after it happened, then it is `expired`.

**If it holds events** (more than usual, or too many for one person) it asks under *Required Actions* of
`loop_attentive_resolve` whether to send or to discard them.

**To look again at past dates:** `airflow backfill create --dag-id loop_attentive_hourly --from-date … --to-date …`,
with `--reprocess-behavior completed` for those that have had their run; or by days with `loop_attentive_backfill`.
It finds what came late or was judged by a rule that has been mended since; what the ledger holds is never sent again.

**Why did somebody (not) get a message?** `SELECT * FROM loop_attentive.audit_event WHERE return_id = '…'`.
"""

from airflow.sdk import DAG  # noqa: F401  (Airflow looks for the word in a file before it reads it)

from loop_attentive.catalogue import CATALOGUE
from loop_attentive.pipeline import pipeline
from loop_attentive.settings import sound

for shop in sound().values():
    pipeline(
        "loop_attentive_hourly",
        cron="0 * * * *",
        shop=shop,
        events=[event for event in CATALOGUE if not event.daily],
        doc=__doc__,
        follows_sync=True,
    )
