"""The steps of a run as Airflow sees them: thin, each finds its shop, connections and run, and calls the logic."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import psycopg
import sqlalchemy as sa
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk import BaseAsyncOperator, BaseHook, BaseOperator, Context, RetryDecision, RetryPolicy
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowRescheduleException,
    AirflowSkipException,
)

from loop_attentive import (
    audit,
    db,
    decisions,
    delivery,
    mirror,
    notify,
    people,
    punctual,
    removal,
    retention,
    revision,
    rules,
    runs,
    settings,
    switch,
)
from loop_attentive.attentive import AttentiveHook
from loop_attentive.catalogue import BY_NAME
from loop_attentive.errors import NeedsMending
from loop_attentive.pace import Pace
from loop_attentive.settings import Shop
from loop_attentive.source import Source

PATIENCE = 15.0
"""Seconds that a sending task holds its slot for an event that is not due yet."""

PATIENCE_TO_CONNECT = 20
"""Seconds for the log-in to a warehouse of which the connection does not say it."""

LONGEST_RUN = timedelta(minutes=30)
"""How long after it began a sending task still comes back for events that wait; later the next run has them."""

EVENTS_PER_BATCH = 5_000
MOST_BATCHES = 4
"""A sending task starts in seconds and shares the account's pace with the others: few fat ones, not many thin ones."""


@contextmanager
def told_once() -> Iterator[None]:
    """What a person must mend fails the task in one line, without retry; no error of the ledger shows a row of it."""
    try:
        yield
    except NeedsMending as error:
        raise AirflowFailException(str(error)) from None
    except psycopg.Error as error:
        told = db.refused(error)
        if isinstance(told, NeedsMending):
            raise AirflowFailException(str(told)) from None
        raise told.with_traceback(error.__traceback__) from None


def connection(conn_id: str) -> Any:
    """An Airflow connection; raises NeedsMending when there is none of that id."""
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise NeedsMending(
            f"There is no connection {conn_id}: create it under Admin > Connections (only tasks see it there), "
            f"or set AIRFLOW_CONN_{conn_id.upper()}."
        ) from None


@contextmanager
def ledger() -> Iterator[psycopg.Connection[Any]]:
    """A connection to the migrated ledger."""
    with db.connect(db.conninfo(connection(db.CONNECTION_ID)), autocommit=True) as conn:
        revision.check(conn)
        yield conn


@asynccontextmanager
async def stop_on_sigterm() -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM sets, in place of the signal's usual effect: to break off where the task stands."""
    stop = asyncio.Event()
    before = signal.getsignal(signal.SIGTERM)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


def warehouse_engine(warehouse: Any) -> sa.Engine:
    """An engine for an Airflow connection; raises NeedsMending when no installed provider reads its type with SQL."""
    try:
        hook = warehouse.get_hook()
    except AirflowException:  # its only word for a type that nothing installed knows
        hook = None
    if not isinstance(hook, DbApiHook):
        raise NeedsMending(
            f"Connection {warehouse.conn_id} is of type {warehouse.conn_type!r}, which no installed provider reads "
            "with SQL: mend its type, or install the provider of that SQL engine."
        )
    # Of these connections' extra (sslmode, host; read_only, memory_limit ...) the hook tells its engine nothing.
    options: dict[str, Any] = {}
    if warehouse.conn_type == "postgres":
        # A server that names no encoding (SQL_ASCII) would give bytes for text; and one that never answers is told as
        # such soon, and not after the minutes that TCP tries.
        options = {"client_encoding": "UTF8", "connect_timeout": PATIENCE_TO_CONNECT} | db.libpq_options(warehouse)
    elif warehouse.conn_type == "duckdb":
        duckdb = cast(Any, hook)
        options = {"read_only": duckdb.read_only, "config": duckdb.get_connect_config()}
    return hook.get_sqlalchemy_engine({"connect_args": options} if options else None)


def account_of(shop: Shop) -> str | None:
    """The shop's Attentive account; None while its connection cannot be used, which only a sender minds."""
    with suppress(NeedsMending):
        return AttentiveHook(shop.attentive).transport().account
    return None


def same_connection(shop: Shop) -> list[str]:
    """The shops that send through this one's connection: a new key is one for all of them."""
    return [other.name for other in settings.sound().values() if other.attentive == shop.attentive]


@contextmanager
def source_of(shop: Shop) -> Iterator[Source]:
    engine = warehouse_engine(connection(shop.warehouse))
    try:
        yield Source(engine, shop)
    finally:
        engine.dispose()


class StepOperator(BaseOperator):
    """A step of one shop's run. shop: its name in include/shops.yaml."""

    template_fields: Sequence[str] = ("shop",)

    def __init__(self, *, shop: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shop = shop

    def execute(self, context: Context) -> Any:
        with told_once(), ledger() as conn:
            return self.step(context, conn, settings.shop(self.shop))

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
        account = account_of(shop)
        if account:
            people.know_account(conn, same_connection(shop), account)
        with source_of(shop) as source:
            look = mirror.look(conn, source, whole=window is not None, account=account)
        if removed := removal.catch_up(conn, shop):
            self.log.info("The list of people who said no has changed: %s.", removed)
        runs.start(conn, dag_id=dag_run.dag_id, run_id=dag_run.run_id, shop=shop.name, look=look, window=window)
        return {"as_of": look.as_of.isoformat(), "extracted": look.extracted, "changed": look.changed}


class QualifyOperator(StepOperator):
    """Judges one rule. event_type: its name without prefix."""

    template_fields = ("shop", "event_type")

    def __init__(self, *, event_type: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event_type = event_type

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> dict[str, Any]:
        from loop_attentive import qualify  # pandas: a second that no other task need wait for

        result = qualify.qualify(conn, shop, BY_NAME[self.event_type], run_of(context, conn, shop))
        if result.off:
            self.log.warning("Not judged: %s.", result.off)
        elif result.stale:
            self.log.warning("Reminders that need a fresh source are put off: %s.", result.stale)
        self.log.info(
            "%s: %d rows, %d known, %d new: %s.",
            self.event_type, result.yielded, result.known, result.created,
            ", ".join(f"{count} {state}" for state, count in result.states.items()) or "nothing",
        )  # fmt: skip
        return {"yielded": result.yielded, "known": result.known, "new": result.created} | result.states


def why_nothing_is_sent(conn: psycopg.Connection[Any], shop: Shop) -> str | None:
    """Why what is pending has to wait, if it has."""
    if shop.mode == "shadow":
        return f"shop {shop.name} is in shadow mode"
    stop = decisions.stop_of(conn, shop.name)
    return str(stop) if stop else None


class PlanOperator(StepOperator):
    """Judges again what the settings or the mirror tell otherwise by now, and splits what is to be sent into batches by
    return, so that no batch waits for another.
    """

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> list[dict[str, int]]:
        from loop_attentive import qualify

        run = run_of(context, conn, shop)
        if forbidden := qualify.obey_settings(conn, shop):
            self.log.info(
                "%d events that were pending are suppressed: enabled_at, events_off, only_recipients.", forbidden
            )
        if again := qualify.judge_again(conn, shop, run=run):
            self.log.info("%d events of earlier runs may go out after all.", again)
        if why_not := why_nothing_is_sent(conn, shop):
            self.log.warning("Nothing is sent: %s. What is due stays pending.", why_not)
            return []
        row = conn.execute(db.sql("ledger/plan"), {"shop": shop.name}).fetchone()
        waiting = row[0] if row else 0
        batches = min(MOST_BATCHES, -(-waiting // EVENTS_PER_BATCH))
        self.log.info("%d events to send, in %d batches.", waiting, batches)
        return [{"index": index, "of": batches} for index in range(batches)]


class Interrupted(Exception):
    """A task was told to stop before it was done; it may go on in another try."""


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
        self.stop: decisions.Stop | None = None

    def execute(self, context: Context) -> Any:
        # Not in the coroutine: in `dags test` Airflow answers none that asks for a connection.
        with told_once():
            self.ledger = db.conninfo(connection(db.CONNECTION_ID))
            self.transport = AttentiveHook(settings.shop(self.shop).attentive).transport()
        # A resolve run has waited for its answer for hours, perhaps: its own start says nothing.
        self.began_at = context["ti"].get_first_reschedule_date(context) or datetime.now(UTC)
        delivery.spare_the_collector()
        return punctual.run(self.aexecute(context))

    async def aexecute(self, context: Context) -> dict[str, int]:
        with told_once():
            result = await self.deliver(context)
        self.log.info(
            "%d requests: %s. %d left pending.",
            result.requests,
            ", ".join(f"{count} {outcome}" for outcome, count in sorted(result.counts.items())) or "nothing to send",
            result.pending,
        )
        if self.stop:
            self.log.warning("Nothing more is sent: %s. What is left stays pending.", self.stop)
            return result.counts | {"requests": result.requests, "left pending": result.pending}
        if result.stopped:
            raise Interrupted("Told to stop: nothing new was sent, answers were awaited, the rest stays pending.")
        if result.come_back_at and result.come_back_at < self.began_at + LONGEST_RUN:
            self.log.info(
                "What is left waits until %s (%s): giving the slot back.",
                result.come_back_at.isoformat(timespec="seconds"), result.waits_for,
            )  # fmt: skip
            raise AirflowRescheduleException(result.come_back_at)
        if result.fruitless and result.come_back_at:
            raise AirflowFailException(
                "Attentive has answered no request of this run but with errors of its own, if at all "
                f"({result.waits_for or 'all are put off'}; see audit_attempt): is it up? "
                "What is left waits for the next run."
            )
        return result.counts | {"requests": result.requests, "left pending": result.pending}

    async def deliver(self, context: Context) -> delivery.Delivered:
        shop, task = settings.shop(self.shop), context["ti"]
        map_index = -1 if task.map_index is None else task.map_index
        with db.connect(self.ledger, autocommit=True) as conn:
            revision.check(conn)
            run = run_of(context, conn, shop)
            if shop.mode == "shadow":
                raise AirflowSkipException(str(why_nothing_is_sent(conn, shop)))
            people.know_account(conn, same_connection(shop), self.transport.account)
        connect = partial(db.aconnect, self.ledger, autocommit=True)
        async with (
            self.transport as transport,
            stop_on_sigterm() as stop,
            switch.watched(connect, shop.name, stop) as watched,
        ):
            result = await delivery.deliver(
                connect,
                shop,
                delivery.Batch(**self.batch),
                delivery.Origin(run.run_key, task.task_id, map_index, task.try_number),
                transport,
                Pace(connect, transport.account, shop.name, shop.requests_per_second),
                still_due=rules.still_due_sql,
                stop=stop,
                patience=PATIENCE,
            )
            self.stop = watched.stop
            return result


class PurgeOperator(StepOperator):
    """Deletes from the ledger what is older than the shop's retention_days, for some minutes at most."""

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> dict[str, int]:
        purged = retention.purge(conn, shop)
        self.log.info("Deleted %d events and %d attempts of more than %d days ago%s.",
                      purged.events, purged.attempts, shop.retention_days,
                      "" if purged.is_all else "; the next run goes on")  # fmt: skip
        return {"events": purged.events, "attempts": purged.attempts}


class AuditOperator(StepOperator):
    """Sums the run up, and fails when it does not add up or a step before it failed.

    event_types: the rules that the run had to judge. It is the last task and runs whatever happened, so the run's state
    is its own.
    """

    def __init__(self, *, event_types: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event_types = event_types

    def execute(self, context: Context) -> Any:
        try:
            return super().execute(context)
        except (AirflowFailException, db.DatabaseAway, db.LedgerFailed) as failure:
            task = context["ti"]
            if isinstance(failure, AirflowFailException) or task.try_number > task.max_tries:
                self.tell_of_failure(context, str(failure))
            raise

    def tell_of_failure(self, context: Context, why: str) -> None:
        dag_run = context["dag_run"]
        with suppress(NeedsMending):  # wrong settings name no connection that could be trusted
            shop = settings.shop(self.shop)
            message = notify.failed(shop, dag_run.dag_id, dag_run.run_id, why, ui())
            self.tell_somebody(shop, lambda post: notify.tell_one(post, message))

    def step(self, context: Context, conn: psycopg.Connection[Any], shop: Shop) -> dict[str, int]:
        failed, not_run = self.ended_badly_before(context)
        try:
            run = run_of(context, conn, shop)
        except LookupError:
            which = ", ".join(failed or not_run)
            raise AirflowFailException(f"No look completed in this run; failed: {which}.") from None
        summary = audit.audit(conn, run.run_key, [BY_NAME[name] for name in self.event_types])
        self.log.info("This run, by event type:\n%s", summary.table())
        self.log.info("%d requests; %d attempts lost their process.", summary.requests, summary.lost)
        if run.window_start and self.event_types:
            self.tell_of_interval(conn, shop, run)
        totals = summary.totals
        if left := {state: totals[state] for state in ("pending", "held", "sending", "unknown") if totals[state]}:
            self.log.warning("Left for later: %s.", ", ".join(f"{count} {state}" for state, count in left.items()))
        held = notify.held_by(conn, run.run_key)
        if notify.waits(held):
            self.log.warning(notify.text(shop, context["dag_run"].dag_id, context["dag_run"].run_id, held, ui()))
        self.tell_somebody(shop, lambda post: notify.tell(conn, shop, post, ui()))
        if failed:
            raise AirflowFailException(f"Failed before: {', '.join(failed)}; their logs say why.")
        if not_run:
            raise AirflowFailException(f"Did not run: {', '.join(not_run)}: clear what comes before.")
        if summary.problems:
            raise AirflowFailException("The run does not add up: " + "; ".join(summary.problems) + ".")
        return totals | {"requests": summary.requests}

    def ended_badly_before(self, context: Context) -> tuple[list[str], list[str]]:
        """Ids of the tasks before this one that failed; and of those that did not run for what comes before them."""
        dag_run, before = context["dag_run"], self.get_flat_relative_ids(upstream=True)
        states = context["ti"].get_task_states(dag_id=dag_run.dag_id, run_ids=[dag_run.run_id])
        ended: dict[str, list[str]] = {"failed": [], "upstream_failed": []}
        for task, state in sorted(states.get(dag_run.run_id, {}).items()):
            if state in ended and not before.isdisjoint({task, task.rpartition("_")[0]}):  # send_0 is the first of send
                ended[state].append(task)
        return ended["failed"], ended["upstream_failed"]

    def tell_of_interval(self, conn: psycopg.Connection[Any], shop: Shop, run: runs.Run) -> None:
        """What a backfill's interval holds that it does not send, and what it cannot hold."""
        if changes := [name for name in self.event_types if BY_NAME[name].change]:
            self.log.info(
                "Of %s only what a look has seen can be found: the source keeps no history.", ", ".join(changes)
            )
        if lines := audit.releasable(conn, shop, run, self.event_types):
            self.log.info("Of this interval loop_attentive_resolve could release:\n%s", "\n".join(lines))

    def tell_somebody(self, shop: Shop, tell: Callable[[notify.Post], int]) -> None:
        """Tells somebody where the shop says to; a run is none the worse when that fails. tell: how many messages."""
        if shop.notify is None:
            return
        try:
            told = tell(notify.webhook(connection(shop.notify)).post)
        except (NeedsMending, notify.NotTold) as error:
            self.log.warning("Nobody was notified through connection %s: %s", shop.notify, error)
        else:
            self.log.info("%d messages were posted through connection %s.", told, shop.notify)


def ui() -> str:
    """The URL of Airflow's UI, or nothing."""
    return conf.get("api", "base_url", fallback="") or ""
