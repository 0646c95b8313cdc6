"""The steps of a run as Airflow sees them. Each is thin: it finds its shop, connections and run, and calls the logic."""

import asyncio
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
from airflow.sdk import BaseAsyncOperator, BaseHook, BaseOperator, Context
from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowRescheduleException,
    AirflowSkipException,
)

from loop_attentive import audit, db, migrate, mirror, qualify, runs, settings
from loop_attentive.catalogue import BY_NAME
from loop_attentive.errors import NeedsMending
from loop_attentive.settings import Shop
from loop_attentive.source import Source

EVENTS_PER_BATCH = 5_000
MOST_BATCHES = 4
"""A sending task starts in seconds and shares the account's pace with the others: few fat ones, not many thin ones."""


@contextmanager
def told_once() -> Iterator[None]:
    """What a person must mend fails the task in one line, without retry."""
    try:
        yield
    except NeedsMending as error:
        raise AirflowFailException(str(error)) from None


def connection(conn_id: str) -> Any:
    """An Airflow connection; raises NeedsMending when there is none of that id."""
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise NeedsMending(
            f"There is no connection {conn_id}: create it under Admin > Connections, "
            f"or set AIRFLOW_CONN_{conn_id.upper()}."
        ) from None


def ledger_conninfo() -> str:
    return db.conninfo(connection(db.CONNECTION_ID))


@contextmanager
def ledger() -> Iterator[psycopg.Connection[Any]]:
    """A connection to the migrated ledger."""
    conninfo = ledger_conninfo()
    migrate.check(conninfo)
    with db.connect(conninfo, autocommit=True) as conn:
        yield conn


@contextmanager
def source_of(shop: Shop) -> Iterator[Source]:
    engine = connection(shop.warehouse).get_hook().get_sqlalchemy_engine()
    try:
        yield Source(engine, shop)
    finally:
        engine.dispose()


class StepOperator(BaseOperator):
    """A step of one shop's run. shop: its name in include/shops.yaml."""

    template_fields = ("shop",)

    def __init__(self, *, shop: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shop = shop

    def execute(self, context: Context) -> Any:
        with told_once(), ledger() as conn:
            return self.step(context, conn, settings.load()[self.shop])

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> Any:
        raise NotImplementedError


def run_of(context: Context, conn: psycopg.Connection[Any], shop: Shop) -> runs.Run:
    dag_run = context["dag_run"]
    return runs.find(conn, dag_id=dag_run.dag_id, run_id=dag_run.run_id, shop=shop.name)


class LookOperator(StepOperator):
    """Looks at the source. A backfill's run looks at all of it, and is narrowed to its own interval."""

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> dict[str, Any]:
        dag_run = context["dag_run"]
        window = None
        if dag_run.run_type == "backfill" and dag_run.data_interval_start and dag_run.data_interval_end:
            window = (dag_run.data_interval_start, dag_run.data_interval_end)
        with source_of(shop) as source:
            look = mirror.look(conn, source, whole=window is not None)
        runs.start(conn, dag_id=dag_run.dag_id, run_id=dag_run.run_id, shop=shop.name, look=look, window=window)
        return {"as_of": look.as_of.isoformat(), "extracted": look.extracted, "changed": look.changed}


class QualifyOperator(StepOperator):
    """Judges one rule. event_type: its name without prefix."""

    template_fields = ("shop", "event_type")

    def __init__(self, *, event_type: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event_type = event_type

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> dict[str, Any]:
        result = qualify.qualify(conn, shop, BY_NAME[self.event_type], run_of(context, conn, shop))
        if result.asleep:
            self.log.warning("No reminder is judged: %s.", result.asleep)
        self.log.info(
            "%s: %d rows, %d known, %d new: %s.",
            self.event_type, result.yielded, result.known, result.created,
            ", ".join(f"{count} {state}" for state, count in result.states.items()) or "nothing",
        )  # fmt: skip
        return {"yielded": result.yielded, "known": result.known, "new": result.created} | result.states


class PlanOperator(StepOperator):
    """Splits what is to be sent into batches by return, so that no batch waits for another."""

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> list[dict[str, int]]:
        run_of(context, conn, shop)
        if again := qualify.judge_again(conn, shop):
            self.log.info("%d events of earlier runs may go out after all.", again)
        row = conn.execute(db.sql("ledger/plan"), {"shop": shop.name}).fetchone()  # type: ignore[arg-type]
        waiting = row[0] if row else 0
        batches = min(MOST_BATCHES, -(-waiting // EVENTS_PER_BATCH))
        self.log.info("%d events to send, in %d batches.", waiting, batches)
        return [{"index": index, "of": batches} for index in range(batches)]


class WaitAsTold(RetryPolicy):
    """Retries a task after as long as the exception says, and tells why on the task instance."""

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        if isinstance(exception, delivery.NothingSent):
            return RetryDecision.retry(timedelta(seconds=exception.retry_after), str(exception))
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> "WaitAsTold":
        return cls()


class SendOperator(BaseAsyncOperator):
    """Sends one batch. batch: index and number of the batches that the plan made.

    When the rest of the batch has to wait for longer than a task should hold its slot, the task is put off until then;
    what would be due only long after the run began is left to the next run.
    """

    template_fields = ("shop", "batch")

    def __init__(self, *, shop: str, batch: dict[str, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shop = shop
        self.batch = batch

    async def aexecute(self, context: Context) -> dict[str, int]:
        with told_once():
            result = await self.deliver(context)
        self.log.info("%s", result)
        if result.stopped:
            raise Interrupted("Told to stop: what is left stays pending, for the next try.")
        if result.come_back_at and result.come_back_at < context["dag_run"].start_date + LONGEST_RUN:
            self.log.info("Waiting until %s for what is not due yet.", result.come_back_at.isoformat())
            raise AirflowRescheduleException(result.come_back_at)
        return result.counts

    async def deliver(self, context: Context) -> "delivery.Delivered":
        ...


class AuditOperator(StepOperator):
    """Sums the run up, and fails when it does not add up. event_types: the rules it had to judge."""

    def __init__(self, *, event_types: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event_types = event_types

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> dict[str, int]:
        try:
            run = run_of(context, conn, shop)
        except LookupError:
            raise AirflowSkipException("No look completed in this run: there is nothing to sum up.") from None
        summary = audit.audit(conn, run.run_key, [BY_NAME[name] for name in self.event_types])
        self.log.info("This run, by event type:\n%s", summary.table())
        self.log.info("%d requests; %d attempts lost their process.", summary.requests, summary.lost)
        totals = summary.totals
        if left := {state: totals[state] for state in ("pending", "held", "sending", "unknown") if totals[state]}:
            self.log.warning("Left for later: %s.", ", ".join(f"{count} {state}" for state, count in left.items()))
        if summary.problems:
            raise AirflowFailException("The run does not add up: " + "; ".join(summary.problems) + ".")
        return totals | {"requests": summary.requests}
