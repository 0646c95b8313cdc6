"""What the tests of the sender share: a ledger with events, and a delivery to a stand-in."""

import asyncio
import random
import uuid
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from loop_attentive import db
from loop_attentive.attentive import AttentiveTransport, Endpoint, Transport
from loop_attentive.catalogue import BY_NAME, EventType
from loop_attentive.delivery import Batch, Delivered, Origin, deliver
from loop_attentive.ledger import Ledger
from loop_attentive.pace import Pace
from loop_attentive.settings import Shop
from sandbox.attentive import Fault, Standin

KEY = "a-key-that-nobody-may-see"
CREATED, UPDATED, EXPIRING = "Loop Return Created", "Loop Return Status Updated", "Loop Return Expiring"
EXPIRED, NOTICE, REFUND = "Loop Return Expired", "Loop Instant Exchange Notice", "Loop Refund Transaction"


class Chance(random.Random):
    """As a seed has it, but for the bits that a sender draws for its lease: in no process may two have the same."""

    def getrandbits(self, k: int, /) -> int:
        super().getrandbits(k)
        return random.SystemRandom().getrandbits(k)


def event_body(return_id: str) -> dict[str, Any]:
    return {
        "user": {"phone": "+12125550123", "email": f"jane.doe.{return_id}@example.com"},
        "properties": {"returnId": int(return_id), "returnStatus": "open", "order": f"#{return_id}"},
    }


def connect(conninfo: str) -> psycopg.Connection[Any]:
    return db.connect(conninfo, autocommit=True)


@dataclass
class Book:
    """The ledger as a test sees it."""

    conninfo: str
    shop: Shop
    run_key: int = 0
    connection: psycopg.Connection[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.connection = connect(self.conninfo)
        self.run_key = self.one(
            "INSERT INTO run (dag_id, run_id, shop, as_of) VALUES ('d', %(id)s, %(shop)s, now()) RETURNING run_key",
            id=str(uuid.uuid4()),
            shop=self.shop.name,
        )

    def one(self, query: str, **parameters: Any) -> Any:
        row = self.connection.execute(query, parameters).fetchone()
        return row and row[0]

    def all(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query, parameters).fetchall()

    def run(self, query: str, **parameters: Any) -> None:
        self.connection.execute(query, parameters)

    def add(
        self,
        event_type: str = CREATED,
        return_id: str = "1001",
        *,
        age: timedelta = timedelta(minutes=5),
        **columns: Any,
    ) -> uuid.UUID:
        """One pending event that occurred so long ago."""
        event_id = uuid.uuid4()
        occurred_at = datetime.now(UTC) - age
        values = {
            "event_id": event_id, "shop": self.shop.name, "event_type": event_type, "key": str(event_id),
            "return_id": return_id, "occurred_at": occurred_at, "fact_at": occurred_at, "detected_at": occurred_at,
            "status": "pending", "body": Jsonb(event_body(return_id)), "order_at": occurred_at,
            "order_no": BY_NAME[event_type].order_no, "run_key": self.run_key,
        } | columns  # fmt: skip
        names = ", ".join(values)
        self.run(f"INSERT INTO event ({names}) VALUES ({', '.join(f'%({name})s' for name in values)})", **values)
        return event_id

    def add_many(self, count: int, event_type: str = CREATED) -> None:
        """Pending events, each of its own return, the first the oldest."""
        self.run(
            """
            INSERT INTO event (
                event_id, shop, event_type, key, return_id, occurred_at, fact_at, detected_at, status, body,
                order_at, order_no, run_key
            )
            SELECT
                gen_random_uuid(), %(shop)s, %(event_type)s, gen_random_uuid(), (100000 + n)::text, at, at, at,
                'pending',
                jsonb_set(jsonb_set(%(body)s, '{properties,returnId}', to_jsonb(100000 + n)),
                          '{properties,order}', to_jsonb('#' || n)),
                at, %(order_no)s, %(run_key)s
            FROM generate_series(1, %(count)s) AS n,
            LATERAL (SELECT now() - interval '2 hours' + n * interval '1 millisecond' AS at) AS t
            """,
            shop=self.shop.name, event_type=event_type, body=Jsonb(event_body("1")), count=count,
            order_no=BY_NAME[event_type].order_no, run_key=self.run_key,
        )  # fmt: skip

    def event(self, event_id: uuid.UUID) -> dict[str, Any]:
        columns = """status, reason, body, occurred_at, attempts, http_status, sent_at, sent_occurred_at, restamped,
            resend_at, nullif(due_at, '-infinity') AS due_at"""
        [row] = self.all(f"SELECT {columns} FROM event WHERE event_id = %(id)s", id=event_id)
        return row

    def attempts(self, event_id: uuid.UUID) -> list[dict[str, Any]]:
        return self.all("SELECT * FROM attempt WHERE event_id = %(id)s ORDER BY attempt", id=event_id)

    def states(self) -> dict[str, int]:
        return {row["status"]: row["n"] for row in self.all("SELECT status, count(*) AS n FROM event GROUP BY status")}

    def check_sums(self) -> None:
        """Every request is an attempt with an outcome; no event is sent or leased by nobody."""
        requests = self.one("SELECT sum(requests) FROM run")
        answered = self.one("SELECT count(*) FROM attempt WHERE outcome <> 'lost'")
        assert requests == answered
        counts = "SELECT event_id, count(*) AS n FROM attempt GROUP BY event_id"
        off = f"SELECT count(*) FROM event LEFT JOIN ({counts}) AS a USING (event_id) WHERE attempts <> coalesce(n, 0)"
        assert self.one(off) == 0
        assert self.one("SELECT count(*) FROM event WHERE status = 'sending' OR lease IS NOT NULL") == 0


@asynccontextmanager
async def ledger_of(book: Book) -> AsyncIterator[Ledger]:
    """What a sender says to the ledger, without the sender."""
    line = partial(db.aconnect, book.conninfo, autocommit=True)
    ledger = Ledger(line, book.shop, Batch(), Origin(book.run_key), Chance(7), None)
    try:
        yield ledger
    finally:
        await ledger.close()


STANDS_IN = "-- Which of these returns may be reminded: stands in for a rule."


def still_due_of(*return_ids: str, if_fresh: tuple[str, ...] = ()) -> Callable[[EventType], str]:
    """Stands in for the rules: holds for these returns, and for some others if only the source were fresh."""

    def sql(_: EventType) -> str:
        return (
            f"{STANDS_IN}\nSELECT r FROM unnest(%(return_ids)s::text[]) AS r "
            f"WHERE r = ANY('{{{','.join(return_ids)}}}') OR (%(fresh)s AND r = ANY('{{{','.join(if_fresh)}}}'))"
        )

    return sql


@dataclass
class Sending:
    """Deliveries from a book to a URL."""

    book: Book
    url: str
    key: str = KEY
    read_timeout: float = 5.0
    seed: int = 1

    async def __call__(
        self,
        batch: Batch = Batch(),  # noqa: B008
        *,
        stop: asyncio.Event | None = None,
        patience: float = 0.0,
        still_due: Callable[[EventType], str] | None = None,
        requests_per_second: int | None = None,
        map_index: int = -1,
        try_number: int = 1,
        through: Callable[[AttentiveTransport], Transport] = lambda transport: transport,
        **options: Any,
    ) -> Delivered:
        line = partial(db.aconnect, self.book.conninfo, autocommit=True)
        async with self.transport() as transport:
            limit = requests_per_second or self.book.shop.requests_per_second
            pace = Pace(line, transport.account, self.book.shop.name, limit)
            origin = Origin(self.book.run_key, map_index=map_index, try_number=try_number)
            return await deliver(
                line, self.book.shop, batch, origin, through(transport), pace,
                stop=stop, patience=patience, still_due=still_due or still_due_of(), rng=Chance(self.seed),
                **options,
            )  # fmt: skip

    def transport(self) -> AbstractAsyncContextManager[AttentiveTransport]:
        return AttentiveTransport(Endpoint(self.url, self.key), read_timeout=self.read_timeout)


Story = Callable[[Standin, Sending], Coroutine[Any, Any, None]]


def tell(book: Book, story: Story, **options: Any) -> None:
    """A story of deliveries to a stand-in, and afterwards everything adds up. options: of the stand-in."""

    async def told() -> None:
        async with Standin(key=KEY, **options) as standin:
            await story(standin, Sending(book, standin.url))

    asyncio.run(told())
    book.check_sums()


def send(book: Book, *faults: Fault, **options: Any) -> tuple[Delivered, Standin]:
    """One delivery to a stand-in with these faults. options: of the delivery."""
    result: list[tuple[Delivered, Standin]] = []

    async def story(standin: Standin, sending: Sending) -> None:
        standin.faults.extend(faults)
        result.append((await sending(**options), standin))

    tell(book, story)
    return result[0]


@asynccontextmanager
async def bare_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], host: str = "127.0.0.1"
) -> AsyncIterator[str]:
    """The URL of a server that says and does what a test wants, HTTP or not."""
    server = await asyncio.start_server(serve, host, 0)
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def somebody_waits(conninfo: str) -> None:
    """Until a session waits for what another has locked."""
    with connect(conninfo) as connection:
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        async with asyncio.timeout(30):
            while connection.execute(waits).fetchone() == (0,):
                await asyncio.sleep(0.01)


def busiest_second(moments: Iterable[float]) -> int:
    """The most moments in any sliding second."""
    moments = sorted(moments)
    return max((bisect_left(moments, at + 1.0) - place for place, at in enumerate(moments)), default=0)
