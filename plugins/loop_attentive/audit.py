"""One summary of a run, and whether it adds up."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import psycopg
from psycopg.rows import dict_row

from loop_attentive import db
from loop_attentive.catalogue import BY_NAME, EventType
from loop_attentive.runs import Run
from loop_attentive.settings import Shop

STATES = ("pending", "held", "sending", "accepted", "rejected", "invalid", "expired", "suppressed", "unknown")
COUNTS = ("yielded", "known", "created", *STATES)


@dataclass(frozen=True)
class Summary:
    """by_event: event type -> count by column of COUNTS. problems: sentences; none when the run adds up."""

    by_event: dict[str, dict[str, int]]
    requests: int
    lost: int
    problems: list[str]

    @property
    def totals(self) -> dict[str, int]:
        return {column: sum(counts[column] for counts in self.by_event.values()) for column in COUNTS}

    def table(self) -> str:
        """A line per event type, for a log."""
        lines = [f"{'':28}" + "".join(f"{column:>11}" for column in COUNTS)]
        for name, counts in [*self.by_event.items(), ("all", self.totals)]:
            short = name.removeprefix("Loop ")
            lines.append(f"{short:28}" + "".join(f"{counts[column]:>11}" for column in COUNTS))
        return "\n".join(lines)


def releasable(conn: psycopg.Connection[Any], shop: Shop, run: Run, event_types: Sequence[str]) -> list[str]:
    """What a person could release of a backfill's interval, a line for each event type, state and reason."""
    counts: Counter[tuple[str, str, str]] = Counter()
    parameters = {
        "shop": shop.name, "zone": shop.time_zone, "start": run.window_start, "end": run.window_end,
        "event_types": list(event_types),
    }  # fmt: skip
    for event_type, _, verdict, reason, can_be, events in conn.execute(db.sql("backfill/known"), parameters):
        if can_be:
            counts[event_type, verdict, reason] += events
    return [
        f"{events:>9,} {event_type}: {verdict} ({reason})" for (event_type, verdict, reason), events in counts.items()
    ]


def audit(conn: psycopg.Connection[Any], run_key: int, expected: Sequence[EventType]) -> Summary:
    """Closes a run and sums it up. expected: the rules that the run had to judge."""
    parameters = {"run_key": run_key}
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cur:
        cur.execute(db.sql("ledger/finish_run"), parameters)
        rows = cur.execute(db.sql("ledger/run_by_event"), parameters).fetchall()
        sent = cast(dict[str, int], cur.execute(db.sql("ledger/run_requests"), parameters).fetchone())
    judged = {row["event_type"] for row in rows if row["yielded"] is not None}
    by_event = {
        name: {column: int(row[column] or 0) for column in COUNTS}
        for name in BY_NAME
        for row in rows
        if row["event_type"] == name
    }
    problems = [f"{event.name} was not judged" for event in expected if event.name not in judged]
    for name, counts in by_event.items():
        if counts["yielded"] != counts["known"] + counts["created"]:
            problems.append(
                f"{name}: its rule yielded {counts['yielded']} rows, but {counts['known']} were known "
                f"and {counts['created']} are new"
            )
        if counts["created"] != (now := sum(counts[state] for state in STATES)):
            problems.append(f"{name}: {counts['created']} events were new, but {now} are in the ledger")
    if sent["requests"] != sent["settled"]:
        problems.append(f"{sent['requests']} requests were made, but {sent['settled']} attempts have an outcome")
    return Summary(by_event, sent["requests"], sent["lost"], problems)
