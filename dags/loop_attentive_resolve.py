"""
### Decide about events that wait for a person

A scheduled run that holds events **triggers it by itself**, to ask whether to send or to discard them. For all else
**trigger** it and say which events: by state, reason, type, days and return. The run counts them, asks under *Required
Actions*, and does with exactly those what is answered:

- `send` what is `held`, `unknown` or was `rejected` before something was mended. What was held is late when it would
  have been anyway; the others count from now.
- `release` what was `suppressed` or is `expired`: it is judged anew, and goes out stamped with the moment of sending.
- `discard` what is `held`, `unknown`, `rejected`, still `pending`, or `suppressed` and might be let out later: it is
  never sent.
- `delivered`: an `unknown` one of which you know that it arrived.

What was asked about and has changed since is left alone, and so is what is `expired` when the answer is *Discard
them*. Who, when and why are kept:
`SELECT * FROM loop_attentive.audit_decision ORDER BY decided_at`.
"""

from airflow.sdk import DAG, Param  # noqa: F401  (Airflow looks for the word DAG in a file before it reads it)

from loop_attentive.catalogue import BY_NAME
from loop_attentive.decision_operators import ApproveOperator, DecideOperator, ProposeOperator
from loop_attentive.decisions import STATES_FOR
from loop_attentive.pipeline import by_hand, send_and_audit
from loop_attentive.settings import Shop, sound

STATES = sorted({state for states in STATES_FOR.values() for state in states})


def form(shop: Shop) -> dict[str, Param]:
    days = (
        f"Of what happened, not of when it was noticed; in {shop.time_zone}. Both days are included. Empty: no limit."
    )
    return {
        "action": Param("send", type="string", enum=list(STATES_FOR), description="What to do; see above."),
        "states": Param(["held"], type="array", examples=STATES, description="In which state the events are."),
        "events": Param([], type="array", examples=list(BY_NAME), description="Which ones. Empty: all."),
        "from": Param(None, type=["null", "string"], format="date", description=days),
        "to": Param(None, type=["null", "string"], format="date", description=days),
        "reason": Param(None, type=["null", "string"], description="Exactly this reason, such as: shadow."),
        "returns": Param([], type="array", items={"type": "string"}, description="Return ids, one a line. Empty: all."),
        "of_run": Param(None, type=["null", "string"], description="Only what the run of this run_id found."),
        "unasked": Param(False, type="boolean", description="Only what nobody has been asked about yet."),
        "why": Param(type="string", minLength=1, description="Kept with the decision, for whoever asks later."),
    }


for shop in sound().values():
    with by_hand("loop_attentive_resolve", shop=shop, params=form(shop), doc=__doc__):
        propose = ProposeOperator(task_id="propose", shop=shop.name)
        approve = ApproveOperator(
            task_id="approve",
            subject="{{ params.action | capitalize }} events of Loop returns? ({{ params.why }})",
            body="{{ ti.xcom_pull(task_ids='propose') }}",
        )
        decide = DecideOperator(task_id="decide", shop=shop.name, answer=approve.output)
        propose >> approve >> decide >> send_and_audit(shop)
