"""A schedule: who sends what, and what goes wrong when, all drawn from one seed."""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from loop_attentive import db, people
from loop_attentive.attentive import AttentiveTransport, Endpoint
from loop_attentive.catalogue import BY_NAME, CATALOGUE
from loop_attentive.db import DatabaseAway
from loop_attentive.delivery import Batch, CalledBack, NothingSent, deliver
from loop_attentive.errors import NeedsMending
from loop_attentive.ledger import Origin
from loop_attentive.pace import Pace
from loop_attentive.settings import Shop
from tests.sending import event_body, still_due_of
from tests.simulation.attentive import ATTEMPT, FOUL, NEVER, REFUSED, SLOW, Attentive, Fate, Weather
from tests.simulation.clockwork import Process, Violation, VirtualLoop, present
from tests.simulation.database import Database
from tests.simulation.judge import Judge, must

BEGINNING = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""The ledger's clock when a schedule begins."""

FIRST_OF_ALL = datetime(1970, 1, 1, tzinfo=UTC)
"""The place of Created among the events of its return."""

FOUL_UNTIL = 300.0
"""Seconds after which the weather is fair."""

WHEN_DUE_AGAIN = (115.0, 220.0)
"""When those begin that come for what is in doubt: it is sent again two minutes later at the soonest."""

ROUNDS = 40
"""Runs in fair weather after which nothing may be left."""


def _points(*names: str) -> tuple[str, ...]:
    """The four moments of some questions to the database."""
    return tuple(f"{name}: {moment}" for name in names for moment in ("asked", "heard", "done", "told"))


UNDER_WAY = (*_points("mark", "settle"), "connecting", "connected", "written", "received", "answered")
WHEN_TOLD_TO_STOP = _points("unmark", "release")
WHEN_CUT_OFF = _points("restoring")
AT_THE_END = _points("came_to_nothing_but")
SELDOM = (
    *_points("by_key", "judge_reminders_again", "refused_before", "freshness", "still_due"),
    *_points("renew", "pace_open", "pace_now"),
    *AT_THE_END,
    *WHEN_TOLD_TO_STOP,
    *WHEN_CUT_OFF,
)
POINTS = (
    "database: connect",
    "inside a transaction",
    *_points("transaction", "pace_take", "next_due"),
    *UNDER_WAY,
    *SELDOM,
    *(AT_THE_END + WHEN_TOLD_TO_STOP) * 2,
)
"""Where a process waits, or has just done something that cannot be undone; where it seldom comes, more than once.
SELDOM: it may not come there twice.
"""

SAID_NO = "somebody said no in time"
"""What kept an event from leaving; no mishap, but it comes when it likes as well."""

MISHAPS = ("killed", "killed", "stopped", "stopped", "told to stop", "held up", "cut off", "hung up", "database away")

Mishap = Callable[[Process], None]

WHAT_IT_EVER_SAID = """
    CREATE TABLE IF NOT EXISTS told (event_id uuid, status text, attempts smallint);
    CREATE INDEX IF NOT EXISTS told_event ON told (event_id);
    CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO told VALUES (NEW.event_id, NEW.status, NEW.attempts); RETURN NULL; END';
    CREATE OR REPLACE TRIGGER tell AFTER UPDATE ON event FOR EACH ROW WHEN (NEW.status = 'unknown')
        EXECUTE FUNCTION tell();

    CREATE TABLE IF NOT EXISTS doubted (event_id uuid, attempt smallint, started_at timestamptz, outcome text);
    CREATE INDEX IF NOT EXISTS doubted_event ON doubted (event_id);
    CREATE OR REPLACE FUNCTION doubt() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO doubted VALUES (NEW.event_id, NEW.attempt, NEW.started_at, NEW.outcome); RETURN NULL; END';
    CREATE OR REPLACE TRIGGER doubt AFTER UPDATE ON attempt FOR EACH ROW WHEN (NEW.outcome IN ('unknown', 'lost'))
        EXECUTE FUNCTION doubt();

    CREATE TABLE IF NOT EXISTS overtaken (event_id uuid, by_event uuid, by_attempt smallint, started_at timestamptz);
    CREATE INDEX IF NOT EXISTS overtaken_by ON overtaken (by_event);
    CREATE OR REPLACE FUNCTION overtake() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO overtaken
            SELECT earlier.event_id, e.event_id, NEW.attempt, NEW.started_at
            FROM event AS e
            JOIN event AS earlier USING (shop, return_id)
            WHERE e.event_id = NEW.event_id
            AND (earlier.order_at, earlier.order_no, earlier.event_id) < (e.order_at, e.order_no, e.event_id)
            AND (earlier.status IN ('pending', 'sending') OR earlier.resend_at IS NOT NULL);
            RETURN NULL;
        END $$;
    CREATE OR REPLACE TRIGGER overtake AFTER INSERT ON attempt FOR EACH ROW EXECUTE FUNCTION overtake();
"""
"""What the ledger ever said to be unknown; which attempts were in doubt; which events stood in line when a later one
of their return was marked."""


@dataclass
class Outcome:
    """How a schedule went. story: what happened when, a line each. violation: what must not happen, or None.

    mishaps: what happened at which point. reached: every point at which something could have happened.
    resends: requests for what was in doubt, by the outcome of their attempts.
    """

    seed: int
    story: list[str] = field(default_factory=list)
    violation: str | None = None
    requests: int = 0
    mishaps: Counter[tuple[str, str]] = field(default_factory=Counter)
    reached: set[str] = field(default_factory=set)
    resends: Counter[str] = field(default_factory=Counter)


def prepare(session: psycopg.Connection[Any]) -> None:
    """Once for a ledger, before schedules are played on it."""
    session.execute(WHAT_IT_EVER_SAID)


def play(seed: int, session: psycopg.Connection[Any]) -> Outcome:
    """Plays one schedule on a ledger (session: in autocommit, prepared); the same seed plays the same way."""
    outcome = Outcome(seed)
    loop = VirtualLoop()
    schedule = Schedule(seed, session, loop, outcome)
    try:
        loop.run_until_complete(schedule.play())
        must(not loop.errors, f"nobody caught: {'; '.join(loop.errors)}")
    except Violation as violation:
        outcome.violation = str(violation)
        schedule.abandon()
    finally:
        loop.close()
    return outcome


class Schedule:
    def __init__(self, seed: int, session: psycopg.Connection[Any], loop: VirtualLoop, outcome: Outcome) -> None:
        self._rng = rng = random.Random(seed)
        self._session = session
        self._loop = loop
        self._outcome = outcome
        self._shop = Shop(name=f"seed_{seed}", requests_per_second=rng.choice((5, 20, 150)), freshness_hours=26)
        self._run_key = self._new_shop()
        self._people = random.Random(f"people of {seed}")
        self._number = rng.randint(3, 40) if rng.random() < 0.8 else rng.randint(41, 150)
        self._fresh, self._waiting = self._fill()
        self._database = Database(session, loop, random.Random(rng.random()), self._now, self._tell)
        self._judge = Judge(session, self._shop, self._run_key, self._now, self._shop.requests_per_second)
        self._judge.events, self._judge.due, self._judge.waiting = self._number, self._fresh, self._waiting
        self._some_say_no()
        self._attentive = loop.network = Attentive(
            loop, self._weather(0.0, 0.02, 0.1, 0.3, 0.8), random.Random(rng.random()), self._tell, self._judge.arrived
        )
        loop.call_later(WHEN_DUE_AGAIN[0], self._attentive.turns, self._weather(0.0, 0.3, 0.8))
        self._processes: list[Process] = []

    def _tell(self, what: str) -> None:
        self._outcome.story.append(f"{self._loop.time():10.3f}  {what}")

    def _now(self) -> datetime:
        return BEGINNING + timedelta(seconds=self._loop.time())

    # ── What is to be sent ──

    def _new_shop(self) -> int:
        shop = {"shop": self._shop.name}
        for table in ("told", "doubted", "overtaken", "attempt"):
            self._session.execute(
                f"DELETE FROM {table} WHERE event_id IN (SELECT event_id FROM event WHERE shop = %(shop)s)", shop
            )
        for table in ("event", "run", "pace_setting", "opt_out"):
            self._session.execute(f"DELETE FROM {table} WHERE shop = %(shop)s", shop)
        self._session.execute("DELETE FROM pace WHERE account = %(account)s", {"account": self._endpoint.account})
        row = self._session.execute(
            "INSERT INTO run (dag_id, run_id, shop, as_of) VALUES ('d', 'r', %(shop)s, %(now)s) RETURNING run_key",
            shop | {"now": BEGINNING},
        ).fetchone()
        assert row is not None, "an insert returns its row"
        return int(row[0])

    @property
    def _endpoint(self) -> Endpoint:
        return Endpoint("http://127.0.0.1:1", f"key-of-{self._shop.name}")

    def _fill(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Pending events of a few returns. Which of the returns may be reminded, and which if the source were fresh."""
        rng = self._rng
        returns = [str(number) for number in range(1001, 1001 + rng.randint(1, 12 if self._number <= 40 else 150))]
        due = tuple(one for one in returns if rng.random() < 0.5)
        waiting = tuple(one for one in returns if one not in due and rng.random() < 0.3)
        with self._session.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO event (event_id, shop, event_type, key, return_id, occurred_at, fact_at, detected_at, "
                "status, body, order_at, order_no, run_key, phone_hash, email_hash) VALUES (%(id)s, %(shop)s, "
                "%(type)s, %(id)s, %(return_id)s, %(at)s, %(at)s, %(at)s, 'pending', %(body)s, %(order_at)s, "
                "%(order_no)s, %(run_key)s, %(phone)s, %(email)s)",
                [self._event(rng.choice(returns)) for _ in range(self._number)],
            )
        return due, waiting

    def _event(self, return_id: str) -> dict[str, Any]:
        rng = self._rng
        event_type = BY_NAME[rng.choice([one.name for one in CATALOGUE])]
        age = timedelta(seconds=rng.uniform(0, 3600))
        if rng.random() < 0.15:
            age = timedelta(hours=rng.choice((11.5, 24)), seconds=rng.uniform(-300, 120))
        at = (BEGINNING - age).replace(microsecond=rng.choice((0, 123000)))
        return {
            "id": uuid.UUID(int=rng.getrandbits(128), version=5), "shop": self._shop.name, "type": event_type.name,
            "return_id": return_id, "at": at, "order_at": at if event_type.order_no else FIRST_OF_ALL,
            "order_no": event_type.order_no, "body": Jsonb(event_body(return_id)), "run_key": self._run_key,
            "phone": int(return_id), "email": -int(return_id),
        }  # fmt: skip

    def _some_say_no(self) -> None:
        """In some schedules: the customers of some returns, by phone or e-mail, at some moment."""
        if self._people.random() < 0.5:
            return
        rows = self._session.execute("SELECT DISTINCT phone_hash FROM event WHERE shop = %s", [self._shop.name])
        for person in sorted(phone for (phone,) in rows):
            if self._people.random() < 0.3:
                at = self._people.choice((0.0, 0.3, 3.0, 30.0, 300.0)) * self._people.random()
                self._loop.call_later(at, self._say_no, person, self._people.choice((person, -person)))

    def _say_no(self, person: int, contact: int) -> None:
        self._tell(f"the customer of return {person} says no")
        people.opt_out(self._session, self._shop.name, [contact], given=True)
        self._judge.said_no[str(person)] = self._now()

    # ── What goes wrong ──

    def _weather(self, *shares: float) -> Weather:
        rng = self._rng
        foul: tuple[Fate, ...] = tuple(rng.sample(FOUL, rng.randint(1, 5)))
        return Weather(
            foul,
            share=rng.choice(shares),
            connecting=(REFUSED, SLOW, NEVER),
            connecting_share=rng.choice((0.0, 0.0, 0.1, 0.4)),
            until=FOUL_UNTIL,
            latency=rng.choice((0.01, 0.08, 0.5)),
        )

    def _mishap(self, point: str) -> Mishap:
        rng = self._rng
        long = rng.choice((0.2, 5.0, 20.0, 65.0, 100.0, 200.0))
        what = rng.choice(MISHAPS)
        happening: dict[str, Mishap] = {
            "killed": Process.kill,
            "stopped": partial(self._stop, seconds=long),
            "told to stop": Process.terminate,
            "held up": partial(self._hold_up, seconds=long),
            "cut off": self._cut,
            "hung up": self._hang_up,
            "database away": partial(self._away, seconds=rng.choice((0.05, 3.0, 40.0, 100.0, 250.0))),
        }

        def happen(process: Process) -> None:
            self._outcome.mishaps[point, what] += 1
            happening[what](process)

        return happen

    def _stop(self, process: Process, seconds: float) -> None:
        self._judge.hindered[process.number] += seconds
        process.stop(seconds)

    def _hold_up(self, process: Process, seconds: float) -> None:
        self._judge.hindered[process.number] += seconds
        process.hold_up(seconds)

    def _cut(self, process: Process) -> None:
        self._tell(f"process {process.number} loses its lines to the database")
        self._judge.cut_off.add(process.number)
        for line in [line for line in self._database.lines if line.process is process]:
            line.break_off(cut=True)

    def _hang_up(self, process: Process) -> None:
        self._tell(f"Attentive hangs up on process {process.number}")
        self._attentive.hangs_up(process)

    def _away(self, _: Process, seconds: float) -> None:
        for process in self._processes:
            self._judge.hindered[process.number] += seconds
        self._database.goes_away(seconds)

    # ── The play ──

    async def play(self) -> None:
        rng = self._rng
        number = rng.randint(1, 3)
        batches = [Batch()] * number if rng.random() < 0.5 else [Batch(index, number) for index in range(number)]
        starts = [(batch, rng.choice((0.0, 0.0, 0.5, 10.0, 70.0))) for batch in batches]
        starts += [(Batch(), rng.uniform(*WHEN_DUE_AGAIN)) for _ in range(rng.choice((0, 1, 2, 3, 3)))]
        tasks = [self._begin(batch, after) for batch, after in starts]
        await asyncio.wait(tasks, timeout=FOUL_UNTIL)
        await self._run_until_nothing_is_left()
        await asyncio.wait(tasks)
        await self._run_until_nothing_is_left()
        for process in self._processes:
            await self._ended(process)
        self._session.execute(db.sql("ledger/finish_run"), {"run_key": self._run_key})
        self._outcome.requests = len(self._attentive.requests)
        self._outcome.reached = {point for process in self._processes for point in process.reached}
        if dropped := self._judge.sum_up():
            self._outcome.mishaps["any time", SAID_NO] += dropped
        self._outcome.resends = self._judge.resends()

    def _begin(self, batch: Batch, after: float) -> asyncio.Task[None]:
        """A process that comes after so many seconds, and what happens to it."""
        process = self._process()
        for _ in range(self._rng.choice((0, 1, 2, 3, 4))):
            self._plan_a_mishap(process, after)
        return process.start(self._try_again(process, batch, after))

    def _plan_a_mishap(self, process: Process, after: float) -> None:
        rng = self._rng
        if rng.random() < 0.2:
            self._loop.call_later(after + rng.uniform(0, 20), self._mishap("any time"), process)
            return
        few_are_due = after >= WHEN_DUE_AGAIN[0]
        point = rng.choice(UNDER_WAY if few_are_due and rng.random() < 0.7 else POINTS)
        nth = 1 if few_are_due or point in SELDOM else rng.choice((1, 1, 2, 3, 5, 8))
        process.mishaps[point, nth] = self._mishap(point)
        if point in WHEN_TOLD_TO_STOP:
            self._loop.call_later(after + rng.uniform(0, rng.choice((0.3, 3.0))), Process.terminate, process)
        if point in WHEN_CUT_OFF:
            self._loop.call_later(after + rng.uniform(0, 3), self._cut, process)

    def abandon(self) -> None:
        """Ends what still goes on."""
        for process in self._processes:
            process.on_kill.clear()
            process.kill()
            self._loop.run_until_complete(self._ended(process))

    def _process(self) -> Process:
        process = Process(self._loop, len(self._processes), self._rng, self._tell)
        process.on_kill.append(lambda: self._killed(process))
        self._processes.append(process)
        return process

    def _killed(self, process: Process) -> None:
        self._judge.killed(process, self._loop.time())
        self._judge.silenced.add(process.number)

    async def _ended(self, process: Process) -> None:
        if tasks := [task for task in process.tasks if not task.done()]:
            await asyncio.wait(tasks)

    async def _try_again(self, process: Process, batch: Batch, after: float) -> None:
        await asyncio.sleep(after)
        times = 3 if after < WHEN_DUE_AGAIN[0] else int((FOUL_UNTIL - after) / 10)
        for _ in range(times):
            if await self._deliver(process, batch) is None or process.stop_told.is_set():
                return
            await asyncio.sleep(10)

    async def _run_until_nothing_is_left(self) -> None:
        for _ in range(ROUNDS):
            await asyncio.sleep(max(FOUL_UNTIL - self._loop.time(), 0))
            process = self._process()
            task = process.start(self._deliver(process, Batch()))
            await asyncio.wait([task])
            if self._is_done():
                return
            await asyncio.sleep(30 if task.cancelled() or task.result() is None else max(task.result(), 30))
        raise Violation("fair weather, and yet the ledger is never done")

    def _is_done(self) -> bool:
        row = self._session.execute(
            "SELECT count(*) FROM event WHERE shop = %s AND (status = 'sending' OR lease IS NOT NULL "
            "OR (status = 'pending' AND reason IS DISTINCT FROM 'waits for a fresh source') "
            "OR (status = 'unknown' AND resend_at IS NOT NULL))",
            [self._shop.name],
        ).fetchone()
        return row is not None and row[0] == 0

    async def _deliver(self, process: Process, batch: Batch) -> float | None:
        """One run of a sending task. Seconds until it should come back, or None when it need not."""
        connect = partial(self._database.connect, process)
        chance = self._rng.random()
        try:
            async with Watched(self._endpoint) as transport:
                delivered = await deliver(
                    connect,  # type: ignore[arg-type]
                    self._shop,
                    batch,
                    Origin(self._run_key, map_index=process.number, try_number=process.number + 1),
                    transport,
                    Pace(
                        connect,  # type: ignore[arg-type]
                        self._endpoint.account,
                        self._shop.name,
                        self._shop.requests_per_second,
                        monotonic=process.monotonic,
                        now=self._now,
                    ),
                    still_due=still_due_of(*self._fresh, if_fresh=self._waiting),
                    stop=process.stop_told,
                    patience=15.0,
                    rng=random.Random(chance),
                    now=self._now,
                    monotonic=process.monotonic,
                )
        except DatabaseAway as error:
            self._tell(f"process {process.number} gives up: {error}")
            self._judge.silenced.add(process.number)
            return 30.0
        except (NeedsMending, NothingSent) as error:
            self._tell(f"process {process.number} gives up: {error}")
            self._judge.ended(process, lease_by(chance))
            return error.retry_after if isinstance(error, NothingSent) else 30.0
        self._judge.ended(process, lease_by(chance))
        self._tell(f"process {process.number} is done: {delivered.counts}, {delivered.pending} pending")
        if delivered.come_back_at is None:
            return None
        return (delivered.come_back_at - self._now()).total_seconds()


def lease_by(chance: float) -> uuid.UUID:
    """Of a sender: the first that it draws."""
    return uuid.UUID(int=random.Random(chance).getrandbits(128), version=4)


class Watched(AttentiveTransport):
    """The hook's transport, which lets the server know to which attempt a request belongs."""

    async def send(self, event: dict[str, Any], departure: Any) -> Any:
        ATTEMPT.set(departure.mark.attempt)
        name = (event["externalEventId"], departure.mark.attempt)
        present().gone.discard(name)  # of a mark that was taken back, and had the same number
        try:
            answer = await super().send(event, Seen(departure, name))
        except CalledBack:
            present().gone.add(name)
            raise
        if answer.outcome == "not sent":
            present().gone.add(name)
        return answer


class Seen:
    """A departure that tells when its request is about to be written."""

    def __init__(self, departure: Any, name: tuple[str, int]) -> None:
        self._departure = departure
        self._name = name
        self.left, self.written = departure.left, departure.written

    async def cleared(self) -> None:
        await self._departure.cleared()
        present().gone.add(self._name)

    def held_up(self) -> None:
        present().gone.discard(self._name)
        self._departure.held_up()
