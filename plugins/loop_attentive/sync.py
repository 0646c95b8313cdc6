"""Loop's returns from its API into the merchant's warehouse, by dlt: the tables that connector `dlt` reads.

Only what the rules and the payload need is landed: no address, no product, no price.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationException
from dlt.pipeline.exceptions import PipelineStepFailed

from loop_attentive.errors import NeedsMending
from loop_attentive.loop_api import LoopApi, LoopAway, Row
from loop_attentive.settings import Shop

OVERLAP = timedelta(minutes=15)
"""So much is asked for again: clocks differ, and a list may be a little behind what it lists."""

NOTICES_BACK = timedelta(days=2)
"""The report of notices does not say which of their times its days are of."""

# dlt would tell its makers of every run, and look for settings of its own among Airflow's variables.
os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
os.environ.setdefault("PROVIDERS__ENABLE_AIRFLOW_SECRETS", "false")

ABOUT_THE_LABEL = ["carrier", "tracking_number", "label_status", "label_url", "label_updated_at"]
RETURN = frozenset(
    ["state", "outcome", "order_name", "provider_order_id", "customer", "status_page_url", "created_at", "updated_at"]
).union(ABOUT_THE_LABEL)
PARTS = {
    "labels": frozenset(["carrier", "tracking_number", "status", "url", "updated_at"]),
    "exchanges": frozenset(["exchange_id", "out_of_stock", "out_of_stock_resolution", "variant_id"]),
    "line_items": frozenset(["line_item_id"]),
    "shopify_refund_object": frozenset(["provider_refund_id"]),
}
NOTICE = frozenset(["id", "return_line_item_id", "integration_tracking_url"])
TIMES = frozenset(["created_at", "updated_at", "label_updated_at"])


@dataclass
class Landed:
    """What a sync brought, in rows that are new or have changed."""

    returns: int = 0
    notices: int = 0
    without_id: int = 0


class SyncFailed(Exception):
    """The rows could not be landed; a retry may help. Names the step and the kind of error, never a row."""


def sync(api: LoopApi, destination: Any, shop: Shop, *, now: datetime, since: datetime | None = None) -> Landed:
    """Lands what Loop has changed since the last sync, which the warehouse itself remembers.

    destination: dlt's. since: from then instead. The first sync reaches back as far as the mirror. How far a sync has
    come is stored with the row in `_dlt_loads` that ends it, so one that dies is repeated whole by the next.

    Raises LoopAway, SyncFailed, and NeedsMending when Loop refuses.
    """
    landed = Landed()
    with tempfile.TemporaryDirectory(prefix="loop-sync-") as folder:
        pipeline = dlt.pipeline(
            f"loop_attentive_sync_{shop.name}",
            destination=destination,
            dataset_name=shop.source_schema,
            pipelines_dir=folder,
        )
        try:
            pipeline.run(_loop(api, shop, now, since, landed))
        except PipelineStepFailed as failed:
            raise _cause(failed) from None
        except DestinationException as error:
            raise SyncFailed(f"The warehouse did not take the returns: {type(error).__name__}.") from None
    return landed


def _cause(failed: PipelineStepFailed) -> Exception:
    """Why a step failed, without dlt's own words, which may quote a row."""
    error: BaseException | None = failed
    while error is not None:
        if isinstance(error, (LoopAway, NeedsMending)):
            return error
        error = error.__cause__ or error.__context__
    return SyncFailed(
        f"The sync stopped at its step {failed.step}: {type(failed.exception).__name__}. "
        "May the warehouse's login create and write tables in the shop's schema?"
    )


def _columns(names: Iterable[str]) -> dict[str, Any]:
    """Their types, so that each column is there, as what it is, before it was ever filled."""
    types = dict.fromkeys(TIMES, "timestamp") | {"out_of_stock": "bool"}
    return {name: {"data_type": types.get(name, "text")} for name in sorted(names)}


@dlt.source(name="loop", max_table_nesting=1)
def _loop(api: LoopApi, shop: Shop, now: datetime, since: datetime | None, landed: Landed) -> Any:
    @dlt.resource(
        write_disposition="merge",
        primary_key="id",
        columns=_columns(RETURN | {"id"}) | {"updated_at": {"data_type": "timestamp", "dedup_sort": "desc"}},
        nested_hints={part: dlt.mark.make_nested_hints(columns=_columns(names)) for part, names in PARTS.items()},
    )
    def returns() -> Iterator[Any]:
        yield dlt.mark.materialize_table_schema()  # a shop without returns has the table too
        state = dlt.current.resource_state()
        start = since or _reached(state) or now - timedelta(days=shop.mirror_days)
        seen = _Seen(state)
        for page in api.returns(start, now):
            with_id = [row for row in page if row.get("id") not in (None, "")]
            landed.without_id += len(page) - len(with_id)
            rows = [row for row in map(wanted, with_id) if seen.is_news(row["id"], row)]
            landed.returns += len(rows)
            yield rows
        seen.keep(row_from=now - OVERLAP)
        state["reached"] = now.isoformat()

    @dlt.resource(write_disposition="merge", primary_key=("id", "return_line_item_id"), columns=_columns(NOTICE))
    def advanced_shipping_notices() -> Iterator[list[Row]]:
        state = dlt.current.resource_state()
        start = since or _reached(state) or now - timedelta(days=shop.mirror_days)
        seen = _Seen(state)
        for page in api.notices(start - NOTICES_BACK, now):
            rows = [notice for notice in map(_notice, page) if seen.is_news(_key(notice), notice)]
            landed.notices += len(rows)
            yield rows
        seen.keep()
        state["reached"] = now.isoformat()

    # One row, replaced: a sync that found nothing leaves its mark in _dlt_loads too, by which its freshness is judged.
    @dlt.resource(write_disposition="replace")
    def last_sync() -> Iterator[Row]:
        yield {"began_at": now}

    return returns, advanced_shipping_notices, last_sync


class _Seen:
    """What came with the last sync and comes again because stretches overlap: a digest a row, in the pipeline's state.

    Without it each sync would land, and tell the hourly run of, rows in which nothing has changed.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state
        self._before: Mapping[str, str] = state.get("seen", {})
        self._now: dict[str, tuple[str, str]] = {}

    def is_news(self, key: str, row: Row) -> bool:
        digest = hashlib.blake2b(json.dumps(row, sort_keys=True, default=str).encode(), digest_size=12).hexdigest()
        self._now[key] = (digest, str(row.get("updated_at") or ""))
        return self._before.get(key) != digest

    def keep(self, row_from: datetime | None = None) -> None:
        """Remembers this sync's rows; those updated before can come again only by being changed."""
        bound = "" if row_from is None else row_from.isoformat()
        self._state["seen"] = {key: digest for key, (digest, at) in self._now.items() if at >= bound}


def wanted(row: Row) -> Row:
    """What is landed of a return: each absent part as an empty list, so that dlt removes what it held before."""
    kept: Row = {"id": str(row["id"])} | _kept(row, RETURN)
    for part, columns in PARTS.items():
        kept[part] = [_kept(item, columns) for item in row.get(part) or [] if isinstance(item, dict)]
    return kept


def _notice(row: Row) -> Row:
    return _kept(row, NOTICE)


def _key(notice: Row) -> str:
    return f"{notice.get('id')}/{notice.get('return_line_item_id')}"


def _kept(row: Row, columns: frozenset[str]) -> Row:
    return {name: _value(name, row[name]) for name in sorted(columns & row.keys())}


def _value(name: str, value: Any) -> Any:
    """A time as ISO 8601 in UTC, or None; anything else as it is, nested values as text."""
    if name in TIMES:
        try:
            moment = datetime.fromisoformat(str(value).strip())
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    if value is None or isinstance(value, bool):
        return value
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)


def _reached(state: Mapping[str, Any]) -> datetime | None:
    """From where the last sync must be taken up."""
    return datetime.fromisoformat(state["reached"]) - OVERLAP if "reached" in state else None
