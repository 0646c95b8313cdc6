"""The steps of a backfill by date range, as Airflow sees them: thin, each calls the logic."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

import psycopg
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

from loop_attentive import decisions, people, removal
from loop_attentive.decision_operators import STILL_ASKED, answered, asker_of, is_asked, start_run
from loop_attentive.operators import StepOperator, account_of, same_connection, source_of
from loop_attentive.settings import Shop

PREVIEW, SEND = "preview", "send"


def range_of(context: Context) -> Any:
    """What the form was filled in with, as a backfill.Range."""
    from loop_attentive import backfill  # pandas: a second that no other task need wait for

    given = context["params"]
    return backfill.Range(date.fromisoformat(given["from"]), date.fromisoformat(given["to"]), given["events"] or ())


class PreviewOperator(StepOperator):
    """Makes the plan; its result is what people read, in Markdown."""

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> str:
        from loop_attentive import backfill

        asker, wanted = asker_of(context, shop), range_of(context)
        start_run(conn, asker, wanted.window(shop))
        if is_asked(context) and not decisions.is_decided(conn, asker):
            self.log.warning(STILL_ASKED)
            text = backfill.kept(conn, shop, asker, wanted)
        else:
            with source_of(shop) as source:
                text = backfill.preview(conn, source, asker, wanted, account=account_of(shop))
        self.log.info("%s", text)
        return text


class OnlyToSendOperator(StepOperator):
    """Ends a run that has nothing to ask: a preview, or a plan without events to send."""

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> int:
        from loop_attentive import backfill

        if context["params"]["mode"] != SEND:
            raise AirflowSkipException("Mode preview: nothing is sent. The plan is the result of the task preview.")
        asker = asker_of(context, shop)
        if planned := backfill.planned(conn, asker):
            return planned
        with to_take_in(conn, shop) as (source, account):
            recorded = backfill.record_unsent(conn, source, asker, range_of(context), account=account)
        raise AirflowSkipException(
            f"The plan holds no event to send: nobody is asked, nothing is sent. {recorded} were recorded that are too "
            "late, or from before the shop began: a person can release them."
        )


class EnqueueOperator(StepOperator):
    """Brings the approved plan's events into the ledger. answer: of the ApproveOperator."""

    template_fields: Sequence[str] = ("shop", "answer")

    def __init__(self, *, answer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.answer = answer

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> dict[str, int]:
        from loop_attentive import backfill

        asker, wanted = asker_of(context, shop), range_of(context)
        _, who = answered(self.answer)
        plan_id = backfill.approve(conn, asker, wanted, who=who)
        with to_take_in(conn, shop) as (source, account):
            outcomes = backfill.enqueue(conn, source, asker, wanted, plan_id, account=account)
        told = ", ".join(f"{events} {outcome}" for outcome, events in outcomes.items())
        self.log.info("Of the plan's events: %s.", told or "there were none")
        return outcomes


@contextmanager
def to_take_in(conn: psycopg.Connection[Any], shop: Shop) -> Iterator[tuple[Any, str | None]]:
    """The shop's source for a look that is kept, and its Attentive account; who said no is kept out of it."""
    account = account_of(shop)
    if account:
        people.know_account(conn, same_connection(shop), account)
    with source_of(shop) as source:
        yield source, account
    removal.catch_up(conn, shop)
