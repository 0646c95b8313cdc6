"""The shape that the scheduled DAGs share: extract, qualify, plan, send, audit."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, CronDataIntervalTimetable, Param, TaskGroup, TriggerRule

from loop_attentive.catalogue import EventType
from loop_attentive.decision_operators import AskOperator
from loop_attentive.operators import (
    AuditOperator,
    LookOperator,
    PlanOperator,
    PurgeOperator,
    QualifyOperator,
    SendOperator,
    WaitAsTold,
)
from loop_attentive.settings import Shop

EXTRACT = """Reads what is new in the shop's warehouse (returns, labels, exchange items, transactions) into the mirror,
in one transaction, and logs every change. The time at which it began, by the ledger's clock, is the run's **as_of**."""

QUALIFY = """One task an event: its rule (`include/sql/events/`) is asked what is due, and what the ledger does not know
yet is judged: pending, or suppressed, invalid, expired or held, each with its reason. Nothing is sent here."""

PLAN = """Suppresses what the settings have come to forbid, judges again what may go out after all, counts what is to be
sent, by this run and by earlier ones, and splits it into batches by return."""

SEND = """Each batch: lease, mark, send, settle. The ledger decides what leaves, in the order of each return and at the
pace of the Attentive account, so that a retry, a cleared task or a second run sends nothing twice."""

PURGE = """Deletes from the ledger what is older than the shop's `retention_days`, in small steps and for ten minutes at
most; their counts stay (`audit_purged`). It rests three quarters of the time, so that sending is hardly slowed."""

AUDIT = """Sums the run up in its log and fails when it does not add up: rows yielded = new + known, new events = the
sum of their states, attempts = requests. It runs whatever happened before it, and fails when a step before it did."""


ASK = """When events are held that nobody has been asked about, it triggers `loop_attentive_resolve`, which asks under
*Required Actions* whether to send or to discard them. Otherwise it is skipped."""


MOST_QUESTIONS = 1_000
"""Runs that wait for an answer must not keep the next from being asked for; they take no slot."""

LONGEST_LOOK = timedelta(hours=3)
"""A warehouse that never answers must not keep the shop's other looks waiting for ever."""


def rule_doc(event: EventType) -> str:
    return f"**{event.name}.** {event.meaning}\n\n```sql\n{event.sql_file.read_text(encoding='utf-8')}```"


def synced_returns(shop: Shop) -> Asset:
    """What loop_attentive_sync brings into the shop's warehouse; an event of it is a sync that brought something."""
    return Asset(name=f"loop_returns{shop.dag_suffix}", uri=f"loop-attentive://{shop.name}/returns")


def pipeline(
    dag_id: str,
    *,
    cron: str,
    shop: Shop,
    events: Sequence[EventType],
    doc: str | None,
    purges: bool = False,
    follows_sync: bool = False,
) -> DAG:
    """A DAG that looks at one shop's source on a schedule and sends the events that have become due.

    purges: whether it also deletes what is older than the shop's retention. follows_sync: whether it also runs as soon
    as the shop's own sync, where there is one, has brought something.
    """
    clock = CronDataIntervalTimetable(cron, timezone=shop.time_zone)
    at_once = follows_sync and shop.loop_api
    with DAG(
        dag_id=f"{dag_id}{shop.dag_suffix}",
        schedule=AssetOrTimeSchedule(timetable=clock, assets=[synced_returns(shop)]) if at_once else clock,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args={"retries": 3, "retry_delay": timedelta(seconds=30)},
        tags=["loop", "attentive", shop.name, shop.mode],
        doc_md=doc,
    ) as dag:
        extract = LookOperator(task_id="extract", shop=shop.name, execution_timeout=LONGEST_LOOK, doc_md=EXTRACT)
        with TaskGroup("qualify", doc_md=QUALIFY) as rules:
            for event in events:
                QualifyOperator(task_id=event.slug, shop=shop.name, event_type=event.name, doc_md=rule_doc(event))
        # One rule that fails keeps no other event from being sent; the run fails by its audit.
        ends = send_and_audit(shop, events, trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS, purges=purges)
        # Beside the sending: nobody should have to wait for that.
        ask = AskOperator(task_id="ask", shop=shop, trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS, doc_md=ASK)
        extract >> rules >> ends
        [rules, ends] >> ask
    return dag


def by_hand(dag_id: str, *, shop: Shop, params: dict[str, Param], doc: str | None) -> DAG:
    """A DAG that a person triggers by a form. Its runs may overlap: one may wait for an answer for days."""
    return DAG(
        dag_id=f"{dag_id}{shop.dag_suffix}",
        schedule=None,
        is_paused_upon_creation=False,  # nothing runs unless somebody triggers it, and then it must
        max_active_runs=MOST_QUESTIONS,
        default_args={"retries": 3, "retry_delay": timedelta(seconds=30)},
        tags=["loop", "attentive", shop.name, shop.mode],
        params=params,
        doc_md=doc,
    )


def send_and_audit(
    shop: Shop,
    events: Sequence[EventType] = (),
    trigger_rule: TriggerRule = TriggerRule.ALL_SUCCESS,
    *,
    purges: bool = False,
) -> PlanOperator:
    """The end of every run: what is pending is planned, sent, and summed up. The first of the tasks."""
    plan = PlanOperator(task_id="plan", shop=shop.name, trigger_rule=trigger_rule, doc_md=PLAN)
    send = SendOperator.partial(
        task_id="send",
        shop=shop.name,
        map_index_template="batch {{ task.batch['index'] + 1 }} of {{ task.batch['of'] }}",
        retry_policy=WaitAsTold(),
        doc_md=SEND,
    ).expand(batch=plan.output)
    names = [event.name for event in events]
    audit = AuditOperator(
        task_id="audit", shop=shop.name, event_types=names, trigger_rule=TriggerRule.ALL_DONE, doc_md=AUDIT
    )
    plan >> send >> audit
    if purges:
        # Before the audit, which tells when it fails; beside the sending, whatever becomes of that.
        plan >> PurgeOperator(task_id="purge", shop=shop.name, doc_md=PURGE) >> audit
    return plan
