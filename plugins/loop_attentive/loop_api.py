"""Loop's own API, as far as a sync needs it: returns and shipping notices of a stretch of time, a page at a time.

From Loop's public reference (docs.loopreturns.com, `/warehouse/return/list` and `/warehouse/reporting/asn`): a stretch
is at most 120 days (else 422); one request asks for one state, and without one cancelled returns and those in review
stay away; the link to the next page does not repeat what was asked for, so only its cursor is used; 300 requests a
minute. A date that the report of notices cannot read counts as 1970, so it gets plain days.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from loop_attentive.errors import NeedsMending

STATES = ("open", "closed", "cancelled", "expired", "review")
LONGEST_WINDOW = timedelta(days=120)
PAGE_SIZE = 250
"""Of 750 at most: a row holds its items, exchanges and labels."""

APART = 60 / 300 * 1.05
"""Seconds from one request to the next: 300 a minute, and a margin for what lies between."""

ATTEMPTS = 6
LONGEST_WAIT = 60.0
TIMEOUT = httpx.Timeout(60.0, connect=10.0)

Row = dict[str, Any]


class LoopAway(Exception):
    """Loop's API does not answer as it should just now; a retry may help. Holds nothing of what was answered."""


class LoopApi:
    """Loop's API with one key. url: such as https://api.loopreturns.com/api/v1; sleep, monotonic: seconds."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = httpx.Client(base_url=url, headers={"X-Authorization": key}, timeout=TIMEOUT)
        self._sleep = sleep
        self._monotonic = monotonic
        self._next_at = float("-inf")

    def close(self) -> None:
        self._http.close()

    def returns(self, since: datetime, until: datetime) -> Iterator[list[Row]]:
        """What was updated from since to until, in every state; a return that changes its state meanwhile may come
        twice, or not at all, and then it was updated after until was asked for.

        Raises LoopAway, and NeedsMending for a key that Loop refuses.
        """
        for state in STATES:
            for start, end in windows(since, until):
                asked = {
                    "from": _moment(start),
                    "to": _moment(end),
                    "filter": "updated_at",
                    "state": state,
                    "paginate": "true",
                    "pageSize": PAGE_SIZE,
                }
                yield from self._pages(asked)

    def notices(self, since: datetime, until: datetime) -> Iterator[list[Row]]:
        """The shipping notices of the days from since to until. Raises as returns does."""
        for start, end in windows(since, until):
            answer = self._get("warehouse/reporting/asn", {"from": f"{start:%Y-%m-%d}", "to": f"{end:%Y-%m-%d}"})
            yield _rows(answer)

    def _pages(self, asked: Mapping[str, Any]) -> Iterator[list[Row]]:
        cursors: set[str | None] = {None}
        cursor: str | None = None
        while True:
            answer = self._get("warehouse/return/list", dict(asked) | ({"cursor": cursor} if cursor else {}))
            if not isinstance(answer, dict):
                raise LoopAway("Loop's list of returns is not the object that its reference describes.")
            yield _rows(answer.get("returns"))
            link = answer.get("nextPageUrl")
            if not link:
                return
            [cursor] = parse_qs(urlsplit(str(link)).query).get("cursor", [""])
            if not cursor or cursor in cursors:
                raise LoopAway("Loop's list of returns links to a next page that is none: the list would be cut short.")
            cursors.add(cursor)

    def _get(self, path: str, params: Mapping[str, Any]) -> Any:
        for attempt in range(1, ATTEMPTS + 1):
            self._sleep(max(0.0, self._next_at - self._monotonic()))
            self._next_at = self._monotonic() + APART
            try:
                response = self._http.get(path, params=dict(params))
                if response.is_success:
                    return response.json()
            except (httpx.TransportError, ValueError) as error:
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
