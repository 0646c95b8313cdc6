"""
### Look again at a range of days

**Trigger** it with the first and the last day, by the shop's clock. It looks at the warehouse again, now and whole, and
takes what happened in the range and the ledger does not hold: what came late, what a rule missed that has been mended.

- Mode `preview` (the default) sends nothing. The plan is the result (XCom) of the task **preview**: what is new,
  already sent, late, invalid; what could be released; examples; how long it takes; what the range cannot show.
- Mode `send` makes that plan and asks for it to be approved, under *Required Actions*. Then exactly its events go out;
  what was sent or is no longer due by then is dropped and counted, what is new needs a new plan. What is too late is
  recorded as `expired`, also where nothing else is found: a person can release it.

Cleared, it goes on where it was. In numbers: `SELECT * FROM loop_attentive.audit_plan ORDER BY made_at`.
"""

from airflow.sdk import DAG, Param  # noqa: F401  (Airflow looks for the word DAG in a file before it reads it)

from loop_attentive.backfill_operators import PREVIEW, SEND, EnqueueOperator, OnlyToSendOperator, PreviewOperator
from loop_attentive.catalogue import BY_NAME
from loop_attentive.decision_operators import APPROVE, NOTHING, ApproveOperator
from loop_attentive.pipeline import LONGEST_LOOK, by_hand, send_and_audit
from loop_attentive.settings import Shop, sound


def form(shop: Shop) -> dict[str, Param]:
    day = f"day of what happened (not of when it was noticed), by the clock of {shop.time_zone}; it is included."
    return {
        "from": Param(type="string", format="date", description=f"The first {day}"),
        "to": Param(type="string", format="date", description=f"The last {day}"),
        "events": Param([], type="array", examples=list(BY_NAME), description="Which ones. Empty: all."),
        "mode": Param(PREVIEW, type="string", enum=[PREVIEW, SEND], description="Both make a plan; send asks first."),
    }


for shop in sound().values():
    with by_hand("loop_attentive_backfill", shop=shop, params=form(shop), doc=__doc__):
        preview = PreviewOperator(task_id="preview", shop=shop.name, execution_timeout=LONGEST_LOOK)
        only_to_send = OnlyToSendOperator(task_id="only_to_send", shop=shop.name, execution_timeout=LONGEST_LOOK)
        approve = ApproveOperator(
            task_id="approve",
            options=[APPROVE, NOTHING],
            subject="Send what happened from {{ params['from'] }} to {{ params['to'] }}?",
            body="{{ ti.xcom_pull(task_ids='preview') }}",
        )
        enqueue = EnqueueOperator(
            task_id="enqueue", shop=shop.name, answer=approve.output, execution_timeout=LONGEST_LOOK
        )
        preview >> only_to_send >> approve >> enqueue >> send_and_audit(shop)
