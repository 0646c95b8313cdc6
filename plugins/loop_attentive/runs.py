"""Runs as the ledger knows them: what a DAG run looked at, found and did for one shop."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import psycopg

from loop_attentive import db
from loop_attentive.mirror import Look


@dataclass(frozen=True)
class Run:
    """One DAG run for one shop. as_of: of its look, UTC. window: a backfill's interval [start, end), else None."""

    run_key: int
    as_of: datetime
    window_start: datetime | None
    window_end: datetime | None


def start(
    conn: psycopg.Connection[Any],
    *,
    dag_id: str,
    run_id: str,
    shop: str,
    look: Look,
    window: tuple[datetime, datetime] | None = None,
) -> Run:
    """Records a run with the look that it works by, and commits; a cleared run goes on with its new look."""
    window_start, window_end = window or (None, None)
    with conn.transaction():
        row = conn.execute(
            db.sql("ledger/start_run"),
            {
                "dag_id": dag_id, "run_id": run_id, "shop": shop, "as_of": look.as_of, "extracted": look.extracted,
                "changed": look.changed, "window_start": window_start, "window_end": window_end,
            },
        ).fetchone()  # fmt: skip
    return Run(cast(tuple[int], row)[0], look.as_of, window_start, window_end)


def find(conn: psycopg.Connection[Any], *, dag_id: str, run_id: str, shop: str) -> Run:
    """The run that the look of this DAG run recorded; raises LookupError when there is none."""
    row = conn.execute(
        "SELECT run_key, as_of, window_start, window_end FROM run WHERE (dag_id, run_id, shop) = (%s, %s, %s)",
        (dag_id, run_id, shop),
    ).fetchone()
    if row is None:
        raise LookupError(f"The ledger has no run {run_id} of {dag_id} for shop {shop}: clear its extract task.")
    return Run(*row)
