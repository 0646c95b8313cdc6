"""The steps in which people decide, as Airflow sees them: thin, each finds its shop and run, and calls the logic."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import psycopg
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from loop_attentive import decisions, runs, settings
from loop_attentive.errors import NeedsMending
from loop_attentive.mirror import Look, ledger_time
from loop_attentive.operators import StepOperator, ledger, told_once
from loop_attentive.settings import Shop

APPROVE, DISCARD, NOTHING = "Approve", "Discard them", "Change nothing"
"""What a person may answer."""

LONGEST_RUN_ID = 250
"""Characters that Airflow takes."""

SOMEBODY = "somebody (Airflow did not say who)"


def asker_of(context: Context, shop: Shop) -> decisions.Asker:
    dag_run = context["dag_run"]
    return decisions.Asker(shop.name, dag_run.dag_id, dag_run.run_id)


def start_run(
    conn: psycopg.Connection[Any], asker: decisions.Asker, window: tuple[datetime, datetime] | None = None
) -> None:
    """Records a run that has looked at nothing: what it sends is counted by it. window: of a backfill."""
    look = Look(ledger_time(conn), 0, 0)
    runs.start(conn, dag_id=asker.dag_id, run_id=asker.run_id, shop=asker.shop, look=look, window=window)


NOT_ASKED = (None, "failed", "upstream_failed", "skipped", "removed")
"""States of the task `approve` in which nobody has been shown anything."""

STILL_ASKED = "As it was asked before; for a new question clear this task together with those after it."


def is_asked(context: Context) -> bool:
    """Whether the run's question has been put: what it shows is what the answer is about, so it is not found anew."""
    run_id = context["dag_run"].run_id
    states = context["ti"].get_task_states(dag_id=context["dag_run"].dag_id, run_ids=[run_id], task_ids=["approve"])
    return states.get(run_id, {}).get("approve") not in NOT_ASKED


def selection_of(context: Context) -> decisions.Selection:
    """What the form was filled in with."""
    given = context["params"]
    return decisions.Selection(
        action=given["action"],
        states=given["states"],
        why=given["why"],
        reason=given["reason"] or None,
        events=given["events"] or (),
        returns=[text for entry in given["returns"] or () if (text := str(entry).strip())],
        first=date.fromisoformat(given["from"]) if given["from"] else None,
        last=date.fromisoformat(given["to"]) if given["to"] else None,
        of_run=given["of_run"] or None,
        unasked=given["unasked"],
    )


def answered(answer: Any) -> tuple[str, str]:
    """What a person chose, and their name; skips the task when it is to change nothing."""
    [choice] = answer["chosen_options"]
    who = (answer["responded_by_user"] or {}).get("name") or SOMEBODY
    if choice == NOTHING:
        raise AirflowSkipException(f"{who} chose to change nothing.")
    return choice, who


class SwitchOperator(StepOperator):
    """Stops the shop's sending, or lets it go on, as the form says."""

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> dict[str, str]:
        asker, given = asker_of(context, shop), context["params"]
        who = context["dag_run"].triggering_user_name or SOMEBODY
        decisions.throw_switch(conn, asker, action=given["action"], who=who, why=given["why"])
        stop = decisions.stop_of(conn, shop.name)
        self.log.info("Sending of shop %s is %s.", shop.name, stop or "on")
        if (stop is not None) != (given["action"] == "stop"):  # a cleared run decides nothing once more
            raise NeedsMending(
                f"This run's {given['action']!r} was undone since: sending of shop {shop.name} is {stop or 'on'}. "
                "Trigger the DAG anew."
            )
        start_run(conn, asker)  # last of all: a clock that is wrong fails the run, and keeps nobody from stopping
        return {"sending": "off" if stop else "on"}


class ProposeOperator(StepOperator):
    """Fixes the events that the form selects; its result is what the person is asked, in Markdown."""

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> str:
        asker, selection = asker_of(context, shop), selection_of(context)
        start_run(conn, asker)
        if decisions.is_decided(conn, asker):
            raise AirflowSkipException(
                "This run has made its decision: what it let go is sent by the next run. Trigger the DAG anew for "
                "other events."
            )
        if is_asked(context):
            self.log.warning(STILL_ASKED)
            proposal = decisions.proposal(conn, asker)
        else:
            proposal = decisions.propose(conn, shop, asker, selection)
        if not proposal.events:
            raise AirflowSkipException("The form selects no event: nobody is asked, nothing changes.")
        table = proposal.table()
        self.log.info("%d events to %s:\n%s", proposal.events, selection.action, table)
        return f"**{selection.action.capitalize()} {proposal.events:,} events** of shop {shop.name}?\n\n{table}"


class ApproveOperator(HITLOperator):
    """Asks a person, and takes no slot while it waits."""

    def __init__(self, *, options: Sequence[str] = (APPROVE, DISCARD, NOTHING), **kwargs: Any) -> None:
        super().__init__(options=list(options), **kwargs)


def is_given_up(context: Context, question: decisions.Question) -> bool:
    """Whether nobody will answer it any more: its run has failed, or somebody has ended or deleted it."""
    answered = ["success"] if question.has_ended else []
    dag_id, run_id = question.asker.dag_id, question.asker.run_id
    return not context["ti"].get_dr_count(dag_id=dag_id, run_ids=[run_id], states=["queued", "running", *answered])


class AskOperator(TriggerDagRunOperator):
    """Has a person asked about what the shop's runs have held: it triggers loop_attentive_resolve, which waits.

    One question at a time: what is held while it is open, the first run after its answer asks about.
    """

    template_fields: Sequence[str] = ("shop",)

    def __init__(self, *, shop: Shop, **kwargs: Any) -> None:
        # The same run, cleared, asks no second time, unless its question was taken away.
        super().__init__(trigger_dag_id=shop.resolve_dag, logical_date=None, skip_when_already_exists=True, **kwargs)
        self.shop = shop.name

    def execute(self, context: Context) -> None:
        with told_once(), ledger() as conn:
            shop = settings.shop(self.shop)
            given_up = [one for one in decisions.open_questions(conn, shop) if is_given_up(context, one)]
            for question in given_up:
                decisions.withdraw(conn, question.asker)
                self.log.warning("Run %s ended without an answer: its question is asked anew.", question.asker.run_id)
            held = decisions.unasked(conn, shop)
            if not held:
                raise AirflowSkipException(
                    "Nobody needs to be asked: nothing was held in the last week, or a question is open, or all that "
                    "is held has been asked about."
                )
            if context["ti"].get_dag(self.trigger_dag_id).is_paused:  # it would keep the question to itself
                raise NeedsMending(
                    f"{held} events are held, and {self.trigger_dag_id}, which would ask what to do with them, is "
                    "paused: unpause it and clear this task, or leave it to the next run."
                )
        asker = context["dag_run"]
        self.log.info("%d events are held: %s asks what to do with them.", held, self.trigger_dag_id)
        anew = f"__{context['ti'].try_number}" if given_up else ""
        self.trigger_run_id = f"{asker.dag_id}__{asker.run_id}{anew}"[-LONGEST_RUN_ID:]
        why = f"held by run {asker.run_id} of {asker.dag_id}"
        self.conf = {"action": "send", "states": ["held"], "unasked": True, "why": why}
        super().execute(context)


class DecideOperator(StepOperator):
    """Does what the person answered. answer: of the ApproveOperator."""

    template_fields: Sequence[str] = ("shop", "answer")

    def __init__(self, *, answer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.answer = answer

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> dict[str, int]:
        choice, who = answered(self.answer)
        selection = selection_of(context)
        if choice == DISCARD:
            selection = selection.instead("discard")
            if not selection.states:
                raise AirflowSkipException(f"{who} chose to discard what will never be sent anyway: nothing changes.")
        decided = decisions.decide(conn, shop, asker_of(context, shop), selection, who=who)
        self.log.info(
            "%s: %s %d events; %d stay as they are: changed since, in a sender's hands, or expired.",
            who, choice.lower(), decided.events, decided.left,
        )  # fmt: skip
        return decided._asdict()
