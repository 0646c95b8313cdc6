"""Loop's returns from its API into the merchant's warehouse, by dlt: the tables that connector `dlt` reads.

Only what the rules and the payload need is landed: no address, no product, no price.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast

import dlt
from dlt.common.destination.exceptions import DestinationException
from dlt.common.schema import Schema
from dlt.common.schema.utils import new_table
from dlt.pipeline.exceptions import PipelineStepFailed

from loop_attentive.errors import NeedsMending
from loop_attentive.loop_api import LoopApi, LoopAway, Row, utc
from loop_attentive.settings import Shop
from loop_attentive.source import DUCKDB_IS_BUSY

OVERLAP = timedelta(minutes=15)
"""So much is asked for again: clocks differ, and a list may be a little behind what it lists."""

NOTICES_BACK = timedelta(days=2)
"""The report of notices does not say which of their times its days are of."""

STATES_KEPT = 10
"""What dlt remembers it writes anew with each sync, and never deletes: so many of a shop's stay, and the newest."""

# dlt would tell its makers of every run, look for settings of its own among Airflow's variables, and log what a
# database said of a row that it did not take, which quotes the row.
os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
os.environ.setdefault("PROVIDERS__ENABLE_AIRFLOW_SECRETS", "false")
os.environ["RUNTIME__LOG_LEVEL"] = "CRITICAL"

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
RETURN_KEY, NOTICE_KEY = ("id",), ("id", "return_line_item_id")
TIMES = frozenset(["created_at", "updated_at", "label_updated_at"])


@dataclass
class Landed:
    """What a sync brought, in rows that are new or have changed."""

    returns: int = 0
    notices: int = 0
    without_id: int = 0


class SyncFailed(Exception):
    """The rows could not be landed; a retry may help. Names the step and the kind of error, never a row."""


def sync(
    api: LoopApi,
    destination: Any,
    shop: Shop,
    *,
    now: datetime,
    since: datetime | None = None,
    still_alone: Callable[[], None] = lambda: None,
) -> Landed:
    """Lands what Loop has changed since the last sync, which the warehouse itself remembers.

    destination: dlt's. now: aware. since: from then, where the last sync did not end earlier. The first sync reaches
    back as far as the mirror. How far a sync has come counts with the row in `_dlt_loads` that ends it, so one that
    dies is repeated whole by the next. Two at once would spoil each other's work: the caller keeps them apart, and
    still_alone raises where it no longer does.

    Raises LoopAway, SyncFailed, and NeedsMending when Loop refuses.
    """
    landed = Landed()
    with _folder() as folder:
        pipeline = dlt.pipeline(
            f"loop_attentive_sync_{shop.name}",
            destination=destination,
            dataset_name=shop.source_schema,
            pipelines_dir=str(folder),
        )
        try:
            source = _loop(api, shop, now, since, landed)
            _make_children(source.schema)
            pipeline.sync_destination()  # what the last sync remembered
            _prepare_place(pipeline, source.schema.state_table_name, shop)
            pipeline.extract(source)
            pipeline.normalize()
            with pipeline.sql_client():  # a DuckDB file is ours for the whole of the load
                still_alone()
                pipeline.sync_schema()  # every table, also those that nothing came for
                pipeline.load()
        except (PipelineStepFailed, DestinationException) as failed:
            raise _cause(failed, shop) from None
    return landed


@contextmanager
def _folder() -> Iterator[Path]:
    """Where dlt keeps rows until they are loaded. What a killed process left there goes with the next sync."""
    folders = Path(tempfile.gettempdir())
    for left in folders.glob("loop-sync-*"):
        with _held(left) as is_mine:
            if is_mine:
                shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix="new-loop-sync-"))
    with _held(new):
        folder = new.rename(folders / new.name.removeprefix("new-"))  # held before anybody can take it for a left one
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Locks a folder while this process lives, at most; whether it could."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # another user's, or gone
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        is_mine = False
    else:
        is_mine = True
    try:
        yield is_mine
    finally:
        os.close(descriptor)


def _prepare_place(pipeline: dlt.Pipeline, states: str, shop: Shop) -> None:
    """Forgets what is remembered for too long: before the load, whose success nothing may turn into a failure.

    states: the table in which dlt remembers; it is there, and empty, where no sync has come to its end yet. Raises
    NeedsMending where somebody else's table of returns would be changed into dlt's.
    """
    with cast(Any, pipeline.destination_client()) as client:
        looked_for = client.get_storage_tables(["returns", states])
        found = {name for name, columns in looked_for if columns}
        landed_by: set[str] = set()
        if states in found:
            landed_by = _pipelines(client.sql_client, states)
            _forget_old_states(client.sql_client, states, pipeline.pipeline_name)
    is_ours = pipeline.pipeline_name in landed_by or (states in found and not landed_by)
    if "returns" in found and not is_ours:
        raise NeedsMending(
            f"The schema {shop.source_schema} of connection {shop.warehouse} holds a table returns that the sync did "
            "not make, and must not change: give the shop a `schema` of its own, such as loop_synced."
        )


def _pipelines(client: Any, states: str) -> set[str]:
    """Whose syncs remember something there."""
    rows = client.execute_sql(f"SELECT DISTINCT pipeline_name FROM {client.make_qualified_table_name(states)}")  # noqa: S608
    return {name for (name,) in rows or ()}


def _forget_old_states(client: Any, states: str, pipeline: str) -> None:
    table = client.make_qualified_table_name(states)
    newest = f"(SELECT MAX(version) FROM {table} WHERE pipeline_name = %s)"  # noqa: S608
    client.execute_sql(
        f"DELETE FROM {table} WHERE pipeline_name = %s AND version <= {newest} - {STATES_KEPT}",  # noqa: S608
        pipeline,
        pipeline,
    )


def _cause(failed: PipelineStepFailed | DestinationException, shop: Shop) -> Exception:
    """Why dlt failed, without its own words, which may quote a row."""
    error: BaseException | None = failed
    while error is not None:
        if isinstance(error, (LoopAway, NeedsMending)):
            return error
        if DUCKDB_IS_BUSY in str(error):
            return SyncFailed(
                f"The DuckDB file of connection {shop.warehouse} is open in another process, such as a look, and "
                "whoever writes must be alone with it. Nothing was landed; the next try makes up for it."
            )
        error = error.__cause__ or error.__context__
    if isinstance(failed, DestinationException):
        return SyncFailed(f"The warehouse did not take the returns: {type(failed).__name__}.")
    return SyncFailed(
        f"The sync stopped at its step {failed.step}: {type(failed.exception).__name__}. "
        "May the warehouse's login create and write tables in the shop's schema, and in that of its name with _staging?"
    )


def _columns(names: Iterable[str]) -> dict[str, Any]:
    """Their types, so that each column is there, as what it is, before it was ever filled."""
    types = dict.fromkeys(TIMES, "timestamp") | {"out_of_stock": "bool"}
    return {name: {"data_type": types.get(name, "text")} for name in sorted(names)}


CHILD: dict[str, Any] = {
    "_dlt_root_id": {"data_type": "text", "nullable": False, "root_key": True},
    "_dlt_parent_id": {"data_type": "text", "nullable": False, "parent_key": True},
    "_dlt_list_idx": {"data_type": "bigint", "nullable": False},
    "_dlt_id": {"data_type": "text", "nullable": False, "unique": True, "row_key": True},
}
"""What dlt gives each row of a nested table."""


def _make_children(schema: Schema) -> None:
    """Has dlt make the nested tables before there is a row for them.

    A look that finds a table for the first time takes what is in it for old: a shop's first exchange would go untold.
    """
    schema.update_table(new_table("returns", write_disposition="merge"))
    for part, names in PARTS.items():
        columns = [{"name": name} | hints for name, hints in (_columns(names) | CHILD).items()]
        table = new_table(f"returns__{part}", parent_table_name="returns", columns=columns)
        table["x-normalizer"] = {"seen-data": True}
        schema.update_table(table)


@dlt.source(name="loop", max_table_nesting=1)
def _loop(api: LoopApi, shop: Shop, now: datetime, since: datetime | None, landed: Landed) -> Any:
    @dlt.resource(
        write_disposition="merge",
        primary_key=RETURN_KEY,
        columns=_columns(RETURN | {"id"}) | {"updated_at": {"data_type": "timestamp", "dedup_sort": "desc"}},
    )
    def returns() -> Iterator[Any]:
        yield dlt.mark.materialize_table_schema()  # a shop without returns has the table too
        state = dlt.current.resource_state()
        seen = _Seen(state, row_from=now - OVERLAP, anew=since is not None)
        for page in api.returns(_start(state, since, shop, now), now):
            with_id = _identified(page, RETURN_KEY, landed)
            rows = [row for row in map(wanted, with_id) if seen.is_news(row["id"], row)]
            landed.returns += len(rows)
            yield rows
        seen.keep()
        state["reached"] = now.isoformat()

    @dlt.resource(write_disposition="merge", primary_key=NOTICE_KEY, columns=_columns(NOTICE))
    def advanced_shipping_notices() -> Iterator[Any]:
        state = dlt.current.resource_state()
        seen = _Seen(state, anew=since is not None)
        yield dlt.mark.materialize_table_schema()
        for page in api.notices(_start(state, since, shop, now) - NOTICES_BACK, now):
            with_id = _identified(page, NOTICE_KEY, landed)
            rows = [notice for notice in map(_notice, with_id) if seen.is_news(_key(notice), notice)]
            landed.notices += len(rows)
            yield rows
        seen.keep()
        state["reached"] = now.isoformat()

    # One row, replaced: a sync that found nothing leaves its mark in _dlt_loads too, by which its freshness is judged.
    @dlt.resource(write_disposition="replace")
    def last_sync() -> Iterator[Row]:
        yield {"began_at": now}

    return returns, advanced_shipping_notices, last_sync


def _identified(page: list[Row], key: tuple[str, ...], landed: Landed) -> list[Row]:
    """The rows that have each part of their key, without which no row can be landed; the others are counted."""
    with_id = [row for row in page if all(row.get(part) not in (None, "") for part in key)]
    landed.without_id += len(page) - len(with_id)
    return with_id


class _Seen:
    """What came with the last sync and comes again because stretches overlap: the updated_at and a digest of each row,
    in the pipeline's state.

    Without it each sync would land, and tell the hourly run of, rows in which nothing has changed, and a list that is
    behind would bring an older version of a return over the one that was landed. row_from: rows updated before that
    can come again only by being changed, so they need not be remembered. anew: what is remembered does not count, for
    the warehouse may have been emptied.
    """

    def __init__(self, state: dict[str, Any], row_from: datetime | None = None, *, anew: bool) -> None:
        self._state = state
        self._from = "" if row_from is None else row_from.isoformat()
        self._before = {} if anew else {key: _Version.read(told) for key, told in state.get("seen", {}).items()}
        self._now: dict[str, _Version] = {}
        self._told: set[int] = set()

    def is_news(self, key: str, row: Row) -> bool:
        digest = hashlib.blake2b(json.dumps(row, sort_keys=True, default=str).encode(), digest_size=12).hexdigest()
        version = _Version(str(row.get("updated_at") or ""), digest)
        before = self._before.get(key, NEVER)
        told = hash((key, digest))
        is_older = "" < version.updated_at < before.updated_at
        is_news = not is_older and digest != before.digest and told not in self._told
        self._told.add(told)
        self._remember(key, before if is_older else version)
        return is_news

    def _remember(self, key: str, version: "_Version") -> None:
        if version.updated_at >= max(self._from, self._now.get(key, NEVER).updated_at):
            self._now[key] = version

    def keep(self) -> None:
        self._state["seen"] = {key: str(version) for key, version in self._now.items()}


class _Version(NamedTuple):
    """updated_at: as ISO 8601 in UTC, so that text is in the order of time; empty where the row has none."""

    updated_at: str
    digest: str

    @classmethod
    def read(cls, told: str) -> "_Version":
        """Of what an earlier sync remembered; one of old remembered the digest alone."""
        updated_at, _, digest = told.rpartition(" ")
        return cls(updated_at, digest)

    def __str__(self) -> str:
        return f"{self.updated_at} {self.digest}".lstrip()


NEVER = _Version("", "")


def wanted(row: Row) -> Row:
    """What is landed of a return: each absent part as an empty list, so that dlt removes what it held before."""
    kept: Row = {"id": _text(row["id"])} | _kept(row, RETURN)
    for part, columns in PARTS.items():
        items = row.get(part)
        kept[part] = [_kept(i, columns) for i in items if isinstance(i, dict)] if isinstance(items, list) else []
    return kept


def _notice(row: Row) -> Row:
    return _kept(row, NOTICE)


def _key(notice: Row) -> str:
    return f"{notice['id']}/{notice['return_line_item_id']}"


def _kept(row: Row, columns: frozenset[str]) -> Row:
    return {name: _value(name, row[name]) for name in sorted(columns & row.keys())}


def _value(name: str, value: Any) -> Any:
    """A time as ISO 8601 in UTC, or None; anything else as it is, nested values as text that a database can store."""
    if name in TIMES:
        moment = utc(value)
        return moment.isoformat() if moment else None
    if value is None or isinstance(value, bool):
        return value
    return _text(json.dumps(value) if isinstance(value, (dict, list)) else value)


def _text(value: Any) -> str:
    """Without NUL and halves of characters, which JSON can spell and no database stores."""
    return str(value).replace("\0", "").encode(errors="replace").decode()


def _start(state: Mapping[str, Any], since: datetime | None, shop: Shop, now: datetime) -> datetime:
    """From when on to ask: since, but nothing that came after the last sync may be left out."""
    reached = datetime.fromisoformat(state["reached"]) - OVERLAP if "reached" in state else None
    moments = [moment for moment in (since, reached) if moment is not None]
    return min(moments, default=now - timedelta(days=shop.mirror_days))
