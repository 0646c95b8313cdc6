"""The sync from Loop's own API as Airflow sees it: finds the shop and its connections, and calls the logic."""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
import sqlalchemy as sa
from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from loop_attentive import db, mirror, settings
from loop_attentive.attentive import default_scheme, is_loopback
from loop_attentive.errors import NeedsMending
from loop_attentive.loop_api import LoopApi, LoopAway
from loop_attentive.operators import connection, ledger, told_once
from loop_attentive.settings import Shop

log = logging.getLogger(__name__)


class SyncOperator(BaseOperator):
    """Lands what Loop has changed in the shop's warehouse; skipped where nothing has, so that nothing follows.

    shop: its name in include/shops.yaml.
    """

    def __init__(self, *, shop: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shop = shop

    def execute(self, context: Context) -> dict[str, int]:
        from loop_attentive.sync import sync  # dlt takes seconds to import, and the DAGs are read again and again

        with told_once(), ledger() as conn:
            shop = settings.load()[self.shop]
            since = first_moment(context["params"].get("since"), shop)
            warehouse = connection(shop.warehouse)
            with closing(loop_api(connection(str(shop.loop_api)))) as api, alone(conn, api, warehouse, shop):
                landed = sync(api, destination(warehouse), shop, now=mirror.ledger_time(conn), since=since)
        if landed.without_id:
            self.log.warning("Left out %d rows without an id.", landed.without_id)
        if not landed.returns and not landed.notices:
            raise AirflowSkipException("Loop has changed nothing since the last sync.")
        self.log.info(
            "Landed %d returns and %d shipping notices that are new or have changed.", landed.returns, landed.notices
        )
        return {"returns": landed.returns, "notices": landed.notices}


def check(shop: Shop) -> None:
    """Raises NeedsMending where the shop's sync cannot work, as far as connections and a question to Loop tell."""
    warehouse = connection(shop.warehouse)
    check_type(warehouse)
    now = datetime.now(UTC)
    with closing(loop_api(connection(str(shop.loop_api)))) as api:
        try:
            next(api.notices(now - timedelta(minutes=1), now))
        except LoopAway as error:
            raise NeedsMending(f"{error} Is the host of connection {shop.loop_api} right, and Loop's API up?") from None


@contextmanager
def alone(conn: psycopg.Connection[Any], api: LoopApi, warehouse: Any, shop: Shop) -> Iterator[None]:
    """Waits for its turn among the syncs that ask with this key, so that they keep Loop's limit together; and among
    those that land in this schema, for dlt's staging tables are one for all. Airflow lets one run at a time, but is
    not asked by `dags test`, nor by a task that it has given up.
    """
    place = f"{warehouse.host}:{warehouse.port}/{warehouse.schema}/{shop.source_schema}"
    takes = "SELECT pg_try_advisory_lock(hashtextextended('loop_attentive sync ' || %s, 0))"
    waits = "SELECT pg_advisory_lock(hashtextextended('loop_attentive sync ' || %s, 0))"
    for whose in (api.account, place):
        if conn.execute(takes, (whose,)).fetchone() == (False,):
            log.info("Another sync of this account or schema is at work: waiting for its end.")
            conn.execute(waits, (whose,))
    yield  # closing the connection gives both back


def first_moment(day: str | None, shop: Shop) -> datetime | None:
    """When a day of the form begins, by the shop's clock."""
    if not day:
        return None
    first = date.fromisoformat(day)
    return datetime(first.year, first.month, first.day, tzinfo=shop.zone).astimezone(UTC)


def loop_api(conn: Any) -> LoopApi:
    """Reads an Airflow connection of type http: host = Loop's API with its version, password = the key."""
    url = (conn.host or "").strip()
    if "://" not in url:
        url = f"{conn.schema or default_scheme(url)}://{url}"
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise NeedsMending(
            f"The host of connection {conn.conn_id} is no URL: make it https://api.loopreturns.com/api/v1."
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise NeedsMending(f"Connection {conn.conn_id} would send the key over plain http: give an https URL.")
    if not conn.password:
        raise NeedsMending(f"Connection {conn.conn_id} has no password: it is Loop's API key, with the scope Returns.")
    if conn.port and parts.port is None:
        parts = parts._replace(netloc=f"{parts.netloc}:{conn.port}")
    return LoopApi(parts.geturl(), conn.password.strip())


def check_type(warehouse: Any) -> None:
    if warehouse.conn_type not in ("postgres", "postgresql"):
        raise NeedsMending(
            f"Connection {warehouse.conn_id} is of type {warehouse.conn_type!r}: loop_attentive_sync loads into "
            "PostgreSQL. For another warehouse run a dlt pipeline of your own, and take loop_api out of shops.yaml."
        )


def destination(warehouse: Any) -> Any:
    """dlt's destination for a PostgreSQL connection, whose host may be a socket directory."""
    import dlt

    check_type(warehouse)
    options = {name: str(value) for name, value in db.libpq_options(warehouse).items()}
    host = warehouse.host or options.pop("host", None) or "localhost"
    if host.startswith("/"):
        options["host"], host = host, "localhost"  # dlt wants a name there, libpq takes the later one
    url = sa.URL.create(
        "postgresql", warehouse.login, warehouse.password or "", host, warehouse.port or 5432, warehouse.schema, options
    )
    return dlt.destinations.postgres(credentials=url.render_as_string(hide_password=False))
