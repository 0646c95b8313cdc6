"""
### Stop sending, or let it go on

**Trigger** it with `stop`: whatever is being sent for this shop ceases within a second, also in tasks that run. Nothing
is lost: everything that is due stays `pending`, and runs go on looking and judging. With `go on` sending is resumed at
once; what became too late meanwhile is `expired`, not sent.

Who, when and why are kept: `SELECT * FROM loop_attentive.audit_decision ORDER BY decided_at`.

It is this shop's alone: each has its own. To pause a DAG in Airflow stops no task that runs: it goes on sending, and
what comes after it stands still until the DAG is unpaused. Leave this one unpaused, and trigger it anew rather than
clear a run, which decides nothing a second time.
"""

from airflow.sdk import DAG, Param  # noqa: F401  (Airflow looks for the word DAG in a file before it reads it)

from loop_attentive.decision_operators import SwitchOperator
from loop_attentive.pipeline import by_hand, send_and_audit
from loop_attentive.settings import sound

FORM = {
    "action": Param("stop", type="string", enum=["stop", "go on"], description="What sending shall do."),
    "why": Param(type="string", minLength=1, description="Kept with the decision, for whoever asks later."),
}

for shop in sound().values():
    with by_hand("loop_attentive_stop", shop=shop, params=FORM, doc=__doc__):
        # Before whatever else waits for a slot.
        SwitchOperator(task_id="switch", shop=shop.name, priority_weight=1_000_000) >> send_and_audit(shop)
