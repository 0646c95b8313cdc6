"""The sync from Loop's own API as Airflow sees it: finds the shop and its connections, and calls the logic."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowSkipException

from loop_attentive import days, db, http_connection, mirror, settings
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
        with told_once(), ledger() as conn:
            shop = settings.shop(self.shop)
            since = first_moment(context["params"].get("since"), shop)
            destination, place = landing(connection(shop.warehouse))
            from loop_attentive.sync import sync  # imports dlt too

            with (
                closing(loop_api(connection(str(shop.loop_api)))) as api,
                alone(conn, api.account, f"{place}/{shop.source_schema}") as still_alone,
            ):
                now = mirror.ledger_time(conn)
                landed = sync(api, destination, shop, now=now, since=since, still_alone=still_alone)
        if landed.without_id:
            self.log.warning("Left out %d rows without an id.", landed.without_id)
        # What a try before this one has landed is for the hourly DAG to follow, and comes no second time.
        if not landed.returns and not landed.notices and context["ti"].try_number == 1:
            raise AirflowSkipException("Loop has changed nothing since the last sync.")
        self.log.info(
            "Landed %d returns and %d shipping notices that are new or have changed.", landed.returns, landed.notices
        )
        return {"returns": landed.returns, "notices": landed.notices}


def check(shop: Shop) -> None:
    """Raises NeedsMending where the shop's sync cannot work, as far as connections and a question to Loop tell."""
    landing(connection(shop.warehouse))
    now = datetime.now(UTC)
    with closing(loop_api(connection(str(shop.loop_api)))) as api:
        try:
            next(api.notices(now - timedelta(minutes=1), now))
        except LoopAway as error:
            raise NeedsMending(f"{error} Is the host of connection {shop.loop_api} right, and Loop's API up?") from None


def landing(warehouse: Any) -> tuple[Any, str]:
    """dlt's destination for a warehouse's connection, and what names its database whatever the connection."""
    try:
        from loop_attentive import destinations  # dlt takes seconds to import, and the DAGs are read again and again

        return destinations.destination(warehouse), destinations.place(warehouse)
    except ImportError:
        raise NeedsMending(
            f"What loop_attentive_sync needs to load into connection {warehouse.conn_id} is not installed: "
            f"`.venv/bin/python -m pip install 'dlt[{warehouse.conn_type}]'`, or in containers add it to "
            "requirements.txt (Snowflake's is in requirements-snowflake.txt)."
        ) from None


@contextmanager
def alone(conn: psycopg.Connection[Any], account: str, place: str) -> Iterator[Callable[[], None]]:
    """Waits for its turn among the syncs that ask with this key, so that they keep Loop's limit together; and among
    those that land in this place, for dlt's staging tables are one for all. Airflow lets one run at a time, but is
    not asked by `dags test`, nor by a task that it has given up.

    Yields what raises DatabaseAway when the turn was lost: PostgreSQL ends it with the connection that took it.
    """
    takes = "SELECT pg_try_advisory_lock(hashtextextended('loop_attentive sync ' || %s, 0))"
    waits = "SELECT pg_advisory_lock(hashtextextended('loop_attentive sync ' || %s, 0))"
    for whose in (account, place):
        if conn.execute(takes, (whose,)).fetchone() == (False,):
            log.info("Another sync of this account or schema is at work: waiting for its end.")
            conn.execute(waits, (whose,))

    def still_alone() -> None:
        try:
            conn.execute("SELECT")
        except psycopg.OperationalError:
            raise db.DatabaseAway(
                f"The connection to {db.CONNECTION_ID} broke, and with it the lock that keeps two syncs apart. Nothing "
                "was landed; the next try makes up for it."
            ) from None

    yield still_alone  # closing the connection gives both back


def first_moment(day: str | None, shop: Shop) -> datetime | None:
    """When a day of the form begins, by the shop's clock."""
    if not day:
        return None
    first = date.fromisoformat(day)
    days.check(first, None)
    return days.midnight(first, shop.zone)


def loop_api(conn: Any) -> LoopApi:
    """Reads an Airflow connection of type http: host = Loop's API with its version, password = the key.

    Of its extra only plain_http counts.
    """
    url = http_connection.url(conn, such_as="https://api.loopreturns.com/api/v1", carries="the key")
    key = http_connection.api_key(conn, absent="it is Loop's API key, with the scope Returns")
    return LoopApi(url.geturl(), key)
