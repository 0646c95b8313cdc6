"""What people decided: recorded with who, when and why."""

from typing import Any, LiteralString, cast

import psycopg
from psycopg.types.json import Json

from loop_attentive import db


def record(
    conn: psycopg.Connection[Any],
    *,
    shop: str,
    action: str,
    who: str,
    why: str,
    dag_id: str | None = None,
    run_id: str | None = None,
    scope: dict[str, Any] | None = None,
    events: int = 0,
) -> int:
    """Records a decision in the caller's transaction; its decision_id. who: a user's name. scope: nothing private."""
    row = conn.execute(
        cast(LiteralString, db.sql("ledger/decide")),
        {
            "shop": shop, "action": action, "who": who, "why": why, "dag_id": dag_id, "run_id": run_id,
            "scope": Json(scope or {}), "events": events,
        },
    ).fetchone()  # fmt: skip
    return cast(tuple[int], row)[0]
