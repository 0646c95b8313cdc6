"""Loop's own API, as far as a sync needs it: returns and shipping notices of a stretch of time, a page at a time.

From Loop's public reference (docs.loopreturns.com, `/warehouse/return/list` and `/warehouse/reporting/asn`): a stretch
is at most 120 days (else 422); one request asks for one state, and without one cancelled returns and those in review
stay away; the link to the next page does not repeat what was asked for, so only its cursor is used; 300 requests a
minute. A date that the report of notices cannot read counts as 1970, so it gets plain days.

A return that is changed while a list is read leaves that list, and may move another one from a page that is not read
yet to one that was. So a list of more than a page is not paged through: its stretch is divided.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from loop_attentive.errors import NeedsMending

STATES = ("open", "closed", "cancelled", "expired", "review")
LONGEST_WINDOW = timedelta(days=120)
SHORTEST_WINDOW = timedelta(seconds=1)
"""Loop's times of a stretch are whole seconds."""

PAGE_SIZE = 500
"""Of 750 at most: a row holds its items, exchanges and labels."""

APART = 60 / 300 * 1.05
"""Seconds from one request to the next: 300 a minute, and a margin for what lies between."""

ATTEMPTS = 6
LONGEST_WAIT = 60.0
TIMEOUT = httpx.Timeout(60.0, connect=10.0)

NO_NEXT_PAGE = "Loop's list of returns links to a next page that is none: the list would be cut short."

Row = dict[str, Any]


class LoopAway(Exception):
    """Loop's API does not answer as it should just now; a retry may help. Holds nothing of what was answered."""


class LoopApi:
    """Loop's API with one key. url: such as https://api.loopreturns.com/api/v1; sleep, monotonic: seconds.

    account: names url and key without telling them.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.account = blake2b(f"{url}\n{key}".encode(), digest_size=16).hexdigest()
        self._http = httpx.Client(base_url=url, headers={"X-Authorization": key}, timeout=TIMEOUT)
        self._sleep = sleep
        self._monotonic = monotonic
        self._next_at = monotonic() + APART  # another sync may have asked a moment ago

    def close(self) -> None:
        self._http.close()

    def returns(self, since: datetime, until: datetime) -> Iterator[list[Row]]:
        """What was updated from since to until, in every state. A row at the edge of two stretches comes twice; a
        return that changes meanwhile may come as it was, as it is, as both, or not at all: it was updated after until
        then, and comes when that is asked for.

        Raises LoopAway, and NeedsMending for a key that Loop refuses.
        """
        for state in STATES:
            for start, end in windows(since.replace(microsecond=0), until.replace(microsecond=0)):
                yield from self._listed(state, start, end)

    def notices(self, since: datetime, until: datetime) -> Iterator[list[Row]]:
        """The shipping notices of the days from since to until. Raises as returns does."""
        for start, end in windows(since, until):
            answer = self._get("warehouse/reporting/asn", {"from": f"{start:%Y-%m-%d}", "to": f"{end:%Y-%m-%d}"})
            yield _rows(answer)

    def _listed(self, state: str, start: datetime, end: datetime) -> Iterator[list[Row]]:
        """A stretch, in pieces that are each one answer and so each a picture of one moment; the earlier ones first."""
        pieces = [(start, end)]
        while pieces:
            start, end = pieces.pop()
            asked = {
                "from": _moment(start),
                "to": _moment(end),
                "filter": "updated_at",
                "state": state,
                "paginate": "true",
                "pageSize": PAGE_SIZE,
            }
            page, cursor = self._page(asked)
            if cursor is None:
                yield page
            elif end - start > SHORTEST_WINDOW:
                middle = _middle(page, start, end)
                pieces += [(middle, end), (start, middle)]
            else:
                yield from self._paged(asked)

    def _paged(self, asked: Mapping[str, Any]) -> Iterator[list[Row]]:
        """What was changed in one second, which cannot be halved: read until two readings hold the same returns."""
        before: set[str] | None = None
        for _ in range(ATTEMPTS):
            ids: set[str] = set()
            for page in self._pages(asked):
                ids.update(str(row.get("id")) for row in page)
                yield page
            if ids == before:
                return
            before = ids
        raise LoopAway("Loop's list of returns changed each time that it was read.")

    def _pages(self, asked: Mapping[str, Any]) -> Iterator[list[Row]]:
        page, cursor = self._page(asked)
        yield page
        seen: set[str] = set()
        while cursor is not None:
            if cursor in seen:
                raise LoopAway(NO_NEXT_PAGE)
            seen.add(cursor)
            page, cursor = self._page(dict(asked) | {"cursor": cursor})
            yield page

    def _page(self, asked: Mapping[str, Any]) -> tuple[list[Row], str | None]:
        """Rows, and the cursor of the next page, if there is one."""
        answer = self._get("warehouse/return/list", asked)
        if not isinstance(answer, dict):
            raise LoopAway("Loop's list of returns is not the object that its reference describes.")
        rows, link = _rows(answer.get("returns")), answer.get("nextPageUrl")
        if not link:
            return rows, None
        [cursor] = parse_qs(urlsplit(str(link)).query).get("cursor", [""])[:1]
        if not cursor:
            raise LoopAway(NO_NEXT_PAGE)
        return rows, cursor

    def _get(self, path: str, params: Mapping[str, Any]) -> Any:
        for attempt in range(1, ATTEMPTS + 1):
            self._sleep(max(0.0, self._next_at - self._monotonic()))
            self._next_at = self._monotonic() + APART
            try:
                response = self._http.get(path, params=dict(params))
                if response.is_success:
                    return response.json()
            except (httpx.RequestError, ValueError) as error:
                told, wait = type(error).__name__, None
            else:
                self._refused(response, path)
                told, wait = f"status {response.status_code}", _retry_after(response)
            self._next_at = self._monotonic() + min(LONGEST_WAIT, wait if wait is not None else 2.0**attempt)
        raise LoopAway(f"Loop's API did not answer {path} in {ATTEMPTS} attempts; the last one: {told}.")

    @staticmethod
    def _refused(response: httpx.Response, path: str) -> None:
        if response.status_code in (401, 403):
            raise NeedsMending(
                f"Loop refused the key (status {response.status_code} for {path}): mend the password of the "
                "connection, and give the key the scope Returns in Loop's admin under Developer tools."
            )
        if response.status_code != httpx.codes.TOO_MANY_REQUESTS and response.status_code < 500:
            raise NeedsMending(
                f"Loop answered {path} with status {response.status_code}: is the connection's host Loop's API, "
                "such as https://api.loopreturns.com/api/v1?"
            )


def windows(since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    """A stretch of time in pieces that Loop takes, the older first."""
    while since < until:
        end = min(until, since + LONGEST_WINDOW)
        yield since, end
        since = end


def _middle(page: list[Row], start: datetime, end: datetime) -> datetime:
    """Where to divide a stretch of two seconds or more: at half of the page's rows, in whatever order they come."""
    times = sorted(time for row in page if (time := utc(row.get("updated_at"))) is not None)
    middle = times[len(times) // 2] if times else start + (end - start) / 2
    return max(start + SHORTEST_WINDOW, min(middle, end - SHORTEST_WINDOW)).replace(microsecond=0)


def utc(value: Any) -> datetime | None:
    """A time in ISO 8601, UTC where it names no zone; None for what is none."""
    try:
        time = datetime.fromisoformat(str(value).strip())
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _rows(answer: Any) -> list[Row]:
    if not isinstance(answer, list) or not all(isinstance(row, dict) for row in answer):
        raise LoopAway("Loop's answer holds no list of rows where its reference describes one.")
    return answer


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, if it says so: a number or an HTTP date."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
