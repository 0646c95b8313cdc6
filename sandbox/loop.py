"""A stand-in for Loop's API, as strict as its reference: what it would answer wrongly in silence, this one refuses.

    with running_loop(key="k") as loop: loop.put({...}); LoopApi(loop.url, "k")
    python -m sandbox loop

It listens on 127.0.0.1 only. By itself it holds a made-up shop's returns, of which some change all the time.
"""

import base64
import json
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from time import monotonic, sleep
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

STATES = ("open", "closed", "cancelled", "expired", "review")
PER_MINUTE = 300
MOST_DAYS = timedelta(days=120)
LARGEST_PAGE = 750

Row = dict[str, Any]


class Refused(Exception):
    """What is answered with a status other than 200."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Loop:
    """What the stand-in holds and has been asked. faults: statuses that the next requests are answered with."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.url = ""
        self.returns: dict[str, Row] = {}
        self.notices: list[Row] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.refused: list[str] = []
        self.faults: deque[int] = deque()
        self.page_size: int | None = None
        self._times: deque[float] = deque()
        self._lock = Lock()

    def put(self, row: Row) -> None:
        """A return as Loop has it now."""
        self.returns[str(row["id"])] = row

    def answer(self, path: str, query: dict[str, str], key: str | None) -> Any:
        with self._lock:
            self.asked.append((path, query))
            try:
                return self._answer(path, query, key)
            except Refused as refused:
                self.refused.append(f"{refused.status} {refused}")
                raise

    def _answer(self, path: str, query: dict[str, str], key: str | None) -> Any:
        if key != self.key:
            raise Refused(401, "the key is not known")
        now = monotonic()
        while self._times and self._times[0] <= now - 60:
            self._times.popleft()
        if len(self._times) >= PER_MINUTE:
            raise Refused(429, "more than 300 requests in a minute")
        self._times.append(now)
        if self.faults:
            raise Refused(self.faults.popleft(), "a fault that was asked for")
        if path == "/api/v1/warehouse/return/list":
            return self._list(query)
        if path == "/api/v1/warehouse/reporting/asn":
            if query.keys() - {"from", "to"}:
                raise Refused(422, "the report takes only from and to")
            start, end = (_read(query, name, "%Y-%m-%d") for name in ("from", "to"))
            _within(start, end)
            rows = [row for row in self.notices if start <= _time(row["created_at"]) < end + timedelta(days=1)]
            return rows
        raise Refused(404, "no such path")

    def _list(self, query: dict[str, str]) -> Any:
        if query.keys() - {"from", "to", "filter", "state", "paginate", "pageSize", "cursor"}:
            raise Refused(422, "an unknown parameter")
        start, end = (_read(query, name, "%Y-%m-%d %H:%M:%S") for name in ("from", "to"))
        _within(start, end)
        state, by = query.get("state"), query.get("filter", "created_at")
        if state not in (None, *STATES) or by not in ("created_at", "updated_at"):
            raise Refused(422, "state or filter is not one of those that there are")
        states = (state,) if state else ("open", "closed", "expired")
        found = [row for row in self.returns.values() if row["state"] in states and start <= _time(row[by]) <= end]
        found.sort(key=lambda row: (_time(row[by]), str(row["id"])))
        if query.get("paginate") != "true":
            return {"returns": found}
        size = int(query.get("pageSize", 100))
        if not 1 <= size <= LARGEST_PAGE:
            raise Refused(422, "pageSize is 750 at most")
        size = min(size, self.page_size or size)
        first = json.loads(base64.urlsafe_b64decode(query["cursor"])) if "cursor" in query else 0
        cursor = base64.urlsafe_b64encode(json.dumps(first + size).encode()).decode()
        # As the reference shows it: neither from nor state is in the link.
        link = f"{self.url}/warehouse/return/list?" + urlencode({"to": query["to"], "filter": by, "cursor": cursor})
        return {"returns": found[first : first + size], "nextPageUrl": link if first + size < len(found) else None}


def _read(query: dict[str, str], name: str, form: str) -> datetime:
    try:
        return datetime.strptime(query[name], form).replace(tzinfo=UTC)
    except (KeyError, ValueError):
        raise Refused(422, f"{name} is missing, or not like {form}") from None


def _within(start: datetime, end: datetime) -> None:
    if not timedelta(0) <= end - start <= MOST_DAYS:
        raise Refused(422, "from and to are more than 120 days apart, or the wrong way round")


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@contextmanager
def running_loop(key: str) -> Iterator[Loop]:
    """A stand-in in a thread of this process."""
    loop = Loop(key)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(address.query).items()}
            try:
                status, answer = 200, loop.answer(address.path, query, self.headers.get("X-Authorization"))
            except Refused as refused:
                status, answer = refused.status, {"error": str(refused)}
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: what was asked is in the books."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    loop.url = f"http://127.0.0.1:{server.server_port}/api/v1"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# ── A made-up shop ──────────────────────────────────────────────────────────

STEPS = ("new", "in_transit", "delivered")
EVERY = 20
"""Seconds from one change of the made-up shop to the next."""


def begin(loop: Loop, number: int, at: datetime) -> None:
    """A return is made, at this time."""
    loop.put(
        {
            "id": str(number),
            "state": "open",
            "outcome": "refund",
            "order_name": f"#{number}",
            "customer": f"customer{number}@example.com",
            "status_page_url": f"https://shop.loopreturns.com/#/return/{number}",
            "created_at": at.isoformat(),
            "updated_at": at.isoformat(),
            "labels": [],
            "exchanges": [],
            "line_items": [{"line_item_id": f"i{number}"}],
        }
    )


def go_on(row: Row, at: datetime) -> None:
    """A return gets its label, which moves on, until the return is closed."""
    label = row["labels"][0] if row["labels"] else None
    if label is None:
        row["labels"].append({"carrier": "USPS", "tracking_number": f"94{row['id']}", "url": None, "status": "new"})
    elif label["status"] != STEPS[-1]:
        label["status"] = STEPS[STEPS.index(label["status"]) + 1]
    else:
        row["state"] = "closed"
    row["labels"][0]["updated_at"] = row["updated_at"] = at.isoformat()


def live(key: str) -> int:
    """Runs until it is interrupted; says what connection leads to it."""
    rng = random.Random(0)
    with running_loop(key) as loop:
        now = datetime.now(UTC)
        for number in range(1001, 1051):
            begin(loop, number, now - timedelta(hours=rng.uniform(1, 24 * 20)))
        connection = {"conn_type": "http", "host": loop.url, "password": key}
        print(f"A stand-in for Loop's API with {len(loop.returns)} returns. In another terminal:\n")
        print(f"  export AIRFLOW_CONN_LOOP_API='{json.dumps(connection)}'\n\nCtrl-C ends it.", flush=True)
        while True:
            sleep(EVERY)
            begin(loop, 1001 + len(loop.returns), datetime.now(UTC))
            unfinished = [row for row in loop.returns.values() if row["state"] == "open"]
            go_on(rng.choice(unfinished), datetime.now(UTC))
