"""A warehouse that goes on living, and the list of what Attentive is to be told of it."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from sandbox.warehouse import people
from sandbox.warehouse.events import DAILY, Due, Event, Verdict, properties, verdict
from sandbox.warehouse.returns import RETURN_STATUS, Return, folded, load_waiting, save
from sandbox.warehouse.scenes import ARRIVALS, COMINGS_OF_AGE, SCENES, arrive
from sandbox.warehouse.stage import MILLISECOND, News, Stage
from sandbox.warehouse.tables import FIRST_ID, Connection

DAY = timedelta(days=1)
TOO_LATE = DAY

TRUE_TIME = timedelta(hours=11, minutes=25)
"""Events keep their own time for 11.5 hours. Within the last five minutes of that nothing is claimed about it."""

TOUCHED_BY_A_SYNC = 25

NUMBERS_APART = 10**6
"""A world that is opened on the warehouse of an earlier one gives nothing a number that the earlier one has given."""


class World:
    """`looked`, then `step`, `looked`, `step`, `looked`: what happens, and what Attentive is to be told of it.

    The first look is the baseline and comes after `fill`. An hourly look must see each step before the next; daily
    looks may come between or after. `due` grows with each look.

    conn: a warehouse that `create` made. seed: makes all choices of the story. size: how often a step plays each scene.
    The shop has no instant-exchange window in its settings, and its phones are American.
    """

    def __init__(self, conn: Connection, seed: int, size: int = 1) -> None:
        self.due: list[Due] = []
        self._cast = load_waiting(conn)
        self._last_id = _last_id(conn)
        self._stage = Stage(seed, last_number=self._last_id + NUMBERS_APART)
        self._size = size
        self._news: list[News] = []
        self._enabled_at: datetime | None = None
        self._looked_at: datetime | None = None

    def step(self, conn: Connection, now: datetime) -> None:
        """Let things happen between the last look and `now` (aware), and write them, all at once.

        Raises RuntimeError when no hourly look has seen the last step, or `now` is not after the last look.
        """
        if self._looked_at is None or self._news:
            raise RuntimeError("no hourly look has seen the last step: call looked() with its as_of")
        if now <= self._looked_at + MILLISECOND:
            raise RuntimeError(f"the story cannot go on at {now}: the last look was at {self._looked_at}")
        self._stage.set_time(self._looked_at, now)
        touched = [*self._changes(), *self._arrivals()]
        with conn.transaction():
            save(conn, touched, synced_at=now)
            _touch_equal_rows(conn, self._ids_to_touch(), synced_at=now)
        for r in touched:
            r.older_picture = None

    def looked(self, as_of: datetime, *, daily: bool = False) -> None:
        """A run has looked, and judged its rules: the daily ones or the hourly ones. as_of: aware, of that look."""
        self._enabled_at = self._enabled_at or as_of
        self._looked_at = as_of
        for news in self._news:
            _see(news, as_of)
        for r in self._cast:
            self._news.extend(_notice(r, as_of))
        if not daily:
            for news in self._news:
                self._tell(news, as_of)
            self._news.clear()
        for r in self._cast:
            for news, occurred_at in _reminders(r, as_of, daily):
                r.reminded.add(news.event_type)
                self._tell(news, as_of, occurred_at)

    def verdict(self, received: Iterable[Mapping[str, Any]]) -> Verdict:
        """Hold the JSON bodies that the stand-in accepted so far against what is due so far."""
        return verdict(self.due, received)

    def _changes(self) -> Iterator[Return]:
        """Each scene happens to somebody, as long as there is somebody; nobody has two in one step."""
        scenes, free = list(SCENES * self._size), list(self._cast)
        self._stage.rng.shuffle(scenes)
        self._stage.rng.shuffle(free)
        for scene in scenes:
            r = next((r for r in free if scene.suits(self._stage, r)), None)
            if r:
                free.remove(r)
                self._news.extend(scene.play(self._stage, r))
                yield r

    def _arrivals(self) -> Iterator[Return]:
        for arrival in (*ARRIVALS, *COMINGS_OF_AGE) * self._size:
            r, news = arrive(arrival, self._stage)
            self._news.extend(news)
            self._cast.append(r)
            yield r

    def _ids_to_touch(self) -> list[int]:
        if self._last_id == FIRST_ID:
            return []
        return [self._stage.rng.randint(FIRST_ID + 1, self._last_id) for _ in range(TOUCHED_BY_A_SYNC)]

    def _tell(self, news: News, as_of: datetime, occurred_at: datetime | None = None) -> None:
        """Add the event to what is due, unless it is older than the baseline, too late, or nobody can be reached."""
        r, fact_at = news.about, news.fact_at or as_of
        is_reminder = occurred_at is not None
        if self._enabled_at is None or fact_at <= self._enabled_at or (as_of - fact_at >= TOO_LATE and not is_reminder):
            return
        user = people.user(r.customer_email, r.customer_phone)
        if not user:
            r.unsent.append(news.event_type)
            return
        occurred_at = occurred_at or fact_at
        self.due.append(
            Due(
                event_type=news.event_type,
                return_id=r.return_id,
                subject=_subject(news),
                cadence="daily" if news.event_type in DAILY else "hourly",
                occurred_at=occurred_at if as_of - occurred_at < TRUE_TIME else None,
                properties=properties(r, news.label, outOfStockOutcome=news.out_of_stock_outcome),
                user=user,
            )
        )


def _see(news: News, as_of: datetime) -> None:
    """The first look after it happened dates what has no date of its own."""
    if news.seen_at:
        return
    news.seen_at = as_of
    news.fact_at = news.fact_at or as_of
    if news.event_type is Event.STATUS_UPDATED and news.about.state == "expired":
        news.about.expired_at = news.fact_at
    if news.event_type is Event.OUT_OF_STOCK:
        news.about.out_of_stock_since = as_of


def _notice(r: Return, as_of: datetime) -> Iterator[News]:
    """What a look makes of a return besides its news: shipped for good, and the episodes that nobody began just now."""
    r.ever_shipped = r.ever_shipped or any(label.shipped for label in r.numbered)
    if r.is_out_of_stock and r.out_of_stock_since is None:
        r.out_of_stock_since = as_of  # since before the baseline
    if r.out_again and r.out_of_stock_since and as_of - r.out_of_stock_since >= DAY:
        r.out_again, r.out_of_stock_since = False, as_of
        yield News(Event.OUT_OF_STOCK, r, as_of, seen_at=as_of)


def _reminders(r: Return, as_of: datetime, daily: bool) -> Iterator[tuple[News, datetime]]:
    """What the mere passing of time makes due, with its occurredAt. Each kind comes once in a return's life."""
    for event_type, fact_at, occurred_at in (*_by_age(r, as_of), *_by_status(r, as_of)):
        if (event_type in DAILY) is daily and event_type not in r.reminded:
            yield News(event_type, r, fact_at), occurred_at


def _by_age(r: Return, as_of: datetime) -> Iterator[tuple[Event, datetime, datetime]]:
    if not r.may_be_reminded:
        return
    age = as_of - r.created_at
    if r.labels_on and 21 * DAY <= age < 28 * DAY:
        yield Event.EXPIRING, r.created_at + 21 * DAY, as_of
    if r.labels_on and 28 * DAY <= age < 31 * DAY:
        yield Event.EXPIRED, r.created_at + 28 * DAY, as_of
    if not r.is_instant_exchange or r.charge_at is None:
        return
    if age >= 7 * DAY and r.charge_at - as_of > DAY:
        yield Event.REMINDER, r.created_at + 7 * DAY, as_of
    if timedelta(0) < r.charge_at - as_of <= DAY:
        yield Event.NOTICE, r.charge_at - DAY, as_of


def _by_status(r: Return, as_of: datetime) -> Iterator[tuple[Event, datetime, datetime]]:
    if r.expired_at and as_of - r.expired_at < 3 * DAY and not r.ever_shipped:
        yield Event.EXPIRED, r.expired_at, r.expired_at


def _subject(news: News) -> str | None:
    if news.transaction_id:
        return news.transaction_id
    if news.event_type is Event.STATUS_UPDATED:
        return RETURN_STATUS[folded(news.about.state)]
    if news.label:
        return news.label.number if news.event_type is Event.LABEL_CREATED else f"{news.label.number} {news.label.told}"
    return None


def _last_id(conn: Connection) -> int:
    [(last,)] = conn.execute("SELECT max(return_id) FROM loop.returns")
    return max(last or 0, FIRST_ID)


def _touch_equal_rows(conn: Connection, ids: list[int], synced_at: datetime) -> None:
    """A sync brings settled rows again; nothing in them has changed."""
    conn.execute("UPDATE loop.returns SET synced_at = %s WHERE return_id = ANY(%s)", [synced_at, ids])
    conn.execute("UPDATE loop.labels SET synced_at = %s WHERE return_id = ANY(%s)", [synced_at, [str(i) for i in ids]])
