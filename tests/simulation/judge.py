"""What must hold whatever went wrong: looked at while requests arrive, and when all is over."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from loop_attentive.attentive import outcome_of
from loop_attentive.catalogue import JOURNEY_LATENESS, MAX_LATENESS, MONEY, REMINDERS
from loop_attentive.ledger import LEAVES_WITHIN, RESEND_AFTER
from loop_attentive.settings import Shop
from tests.sending import busiest_second, event_body
from tests.simulation.attentive import Request
from tests.simulation.clockwork import Process, Violation

AHEAD_SECONDS = 0.3
"""Of what has not left, a killed sender leaves no more in doubt than leaves in so much time (docs/architecture.md)."""

GIVEN_UP_AFTER = 40.0
"""Seconds for which a process must be kept from its work before others may give its requests up: a lease, less the time
between two renewals."""

TAKEN_THOUGH_FAILED = frozenset({408, 500, 502, 504})
"""Answers after which an event may have been taken."""

COLUMNS = """e.event_id, e.event_type, e.return_id, e.status, e.reason, e.attempts, e.occurred_at, e.sent_occurred_at,
    e.resend_at, e.order_at, e.order_no"""

LATER = TAKEN_THOUGH_FAILED | {401, 403, 429, 503}
"""Answers after which an event goes out again."""

BACK_OFF = 0.9
"""Seconds after an answer that asks for it, or that may be better next time; a clock may run a little faster."""

PAUSE_HEARD_WITHIN = 1.3
"""Seconds after which every worker keeps to an account's pause: a permit that it has may be used until then."""

STOPS_WITHIN = 0.1
"""Seconds after SIGTERM in which requests may leave still."""

IN_DOUBT = ("unknown", "lost")
"""Outcomes of attempts whose requests left, or may have, and nobody knows what became of them."""

NEVER_MADE = ("not sent", "lost", None)
"""Outcomes of attempts that need not have made a request."""


def _milliseconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def must(condition: object, violation: str) -> None:
    if not condition:
        raise Violation(violation)


def must_be_the_only_resend(name: str, event_type: str, doubts: int) -> None:
    """What is in doubt is sent again once, and never if it is about money. doubts: of earlier attempts.

    One that is answered, with a 429 perhaps, or late, is in doubt no longer: after it another may leave.
    """
    must(not doubts or event_type not in MONEY, f"{name} is about money and was sent again in doubt")
    must(doubts <= 1, f"{name} was sent again though {doubts} attempts were in doubt")


class Judge:
    """now: the ledger's clock. events: how many there are. due: returns that may be reminded.

    waiting: returns whose reminders wait for a fresh source, and so hold nothing up.
    hindered: seconds by process for which it, or its database, was kept from its work.
    cut_off: processes whose lines to the database broke.
    silenced: processes that died, or lost their database for good, with what they had heard.
    said_no: when the customer of a return did, by the ledger's clock.
    """

    def __init__(
        self, session: psycopg.Connection[Any], shop: Shop, run_key: int, now: Callable[[], datetime], limit: int
    ) -> None:
        self.requests: dict[str, list[Request]] = defaultdict(list)
        self.all_requests: list[Request] = []
        self.events = 0
        self.due: tuple[str, ...] = ()
        self.waiting: tuple[str, ...] = ()
        self.cut_off: set[int] = set()
        self.hindered: dict[int, float] = defaultdict(float)
        self.silenced: set[int] = set()
        self.said_no: dict[str, datetime] = {}
        self.broken: list[str] = []
        self._session = session
        self._shop = shop
        self._run_key = run_key
        self._now = now
        self._limit = limit

    def _all(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        parameters |= {"shop": self._shop.name, "run_key": self._run_key}
        with self._session.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query, parameters).fetchall()

    # ── While it happens ──

    def arrived(self, request: Request) -> None:
        """A request reached the server: it had to be marked, to be in its turn, in time, and no unexplained second."""
        try:
            self._look_at(request)
        except Violation as violation:
            self.broken.append(str(violation))
        self.requests[request.event_id].append(request)
        self.all_requests.append(request)

    def _look_at(self, request: Request) -> None:
        name = request.event_id[:8]
        rows = self._all(
            f"SELECT {COLUMNS}, a.occurred_at AS told, a.started_at AS marked_at, (SELECT count(*) FROM attempt AS b "
            "WHERE b.event_id = e.event_id AND b.attempt < a.attempt AND b.outcome = ANY (%(in_doubt)s)) AS doubts, "
            "EXISTS (SELECT FROM doubted AS d WHERE d.event_id = e.event_id) AS was_in_doubt "
            "FROM event AS e JOIN attempt AS a USING (event_id) "
            "WHERE event_id = %(id)s::uuid AND attempt = %(attempt)s",
            id=request.event_id,
            attempt=request.attempt,
            in_doubt=list(IN_DOUBT),
        )
        must(rows, f"{name} left without a mark: no such event and attempt in the ledger")
        event = rows[0]
        told = datetime.fromisoformat(request.event["occurredAt"])
        must(told == event["told"], f"{name} left with another time than its attempt has")
        must(self._now() - told < timedelta(hours=12), f"{name} is {self._now() - told} old: no Journey fires")
        left_after = (self._now() - event["marked_at"]).total_seconds() - (request.at - request.left_at)
        must(left_after < LEAVES_WITHIN.total_seconds() + 0.1, f"{name} left {left_after:.1f} s after its mark")
        self._was_due(name, event, told)
        if not event["was_in_doubt"]:  # else it is as it was, see _explained
            true_to = event["occurred_at"] if self._is_young(event) else event["marked_at"]
            must(told == _milliseconds(true_to), f"{name} left with a time that is not its own")
        said = {key: request.event[key] for key in ("type", "user", "properties")}
        own = {"type": event["event_type"], **event_body(event["return_id"])}
        must(said == own, f"{name} left with what is not its own")
        told_to_stop_at = request.process.told_to_stop_at
        if told_to_stop_at is not None and not self.hindered[request.process.number]:
            after = request.left_at - told_to_stop_at
            must(after < STOPS_WITHIN, f"{name} left {after:.1f} s after its process was told to stop")
        self._in_turn(request, event)
        for earlier in self.requests[request.event_id]:
            self._explained(earlier, request, event)
        must_be_the_only_resend(name, event["event_type"], event["doubts"])

    def _was_due(self, name: str, event: dict[str, Any], told: datetime) -> None:
        """What holds no more, or is too late, leaves no more; nor again, where its own time would start no Journey."""
        if event["event_type"] in REMINDERS:
            must(event["return_id"] in self.due, f"{name} left, and does not hold")
        elif not event["was_in_doubt"]:
            must(event["marked_at"] - event["occurred_at"] <= MAX_LATENESS, f"{name} left too late")
        if event["doubts"]:
            must(event["marked_at"] - told < JOURNEY_LATENESS, f"{name} left again too late")

    def _is_young(self, event: dict[str, Any]) -> bool:
        return bool(event["marked_at"] - event["occurred_at"] <= JOURNEY_LATENESS)

    def _in_turn(self, request: Request, event: dict[str, Any]) -> None:
        """Nothing that stood before it in line when it was marked; what waited for a person then held nobody up."""
        if event["event_type"] in MONEY:
            return
        overtaken = self._all(
            "SELECT FROM overtaken AS o JOIN event AS earlier USING (event_id) JOIN attempt AS a "
            "ON (a.event_id, a.attempt, a.started_at) = (o.by_event, o.by_attempt, o.started_at) "
            "WHERE by_event = %(id)s AND by_attempt = %(attempt)s AND earlier.event_type <> ALL (%(passed_over)s) "
            "AND NOT (earlier.event_type = ANY (%(reminders)s) AND earlier.return_id = ANY (%(waiting)s))",
            id=event["event_id"], attempt=request.attempt, passed_over=[*MONEY, *self._refused_to(request.process)],
            reminders=REMINDERS, waiting=list(self.waiting),
        )  # fmt: skip
        must(not overtaken, f"{request.event_id[:8]} left before an earlier event of its return")

    def _refused_to(self, process: Process) -> set[str]:
        """Types that a sender has stopped: for it their events hold nobody up."""
        own = (one for one in self.all_requests if one.process is process)
        return {str(one.event["type"]) for one in own if one.fate.status in (403, 404)}

    def _explained(self, earlier: Request, request: Request, event: dict[str, Any]) -> None:
        name = request.event_id[:8]
        must(request.attempt != earlier.attempt, f"{name}: one attempt made two requests")
        must(request.attempt > earlier.attempt, f"{name} left after others had given it up")
        answered = earlier.fate.status if earlier.answered_at is not None else None
        was_heard_in_time = not event["was_in_doubt"]
        if was_heard_in_time and (answered in (429, 503) or answered in TAKEN_THOUGH_FAILED):
            rested = request.at - earlier.answered_at  # type: ignore[operator]
            asked = max((earlier.fate.retry_after or 0) - 0.1, BACK_OFF)
            must(rested >= asked, f"{name} came again {rested:.1f} s after {answered}")
        if not earlier.fate.taken and answered in LATER:
            return
        if answered in TAKEN_THOUGH_FAILED and event["event_type"] not in MONEY:
            return
        must(event["event_type"] not in MONEY, f"{name} is about money and was sent twice without a person")
        said_unknown = self._all(
            "SELECT FROM told WHERE event_id = %(id)s::uuid AND status = 'unknown' AND attempts = %(attempt)s",
            id=request.event_id,
            attempt=earlier.attempt,
        )
        must(said_unknown, f"{name} was sent again, and the ledger had not said unknown")
        must(request.event == earlier.event, f"{name} was sent again with another body")
        gap = request.at - earlier.at
        must(gap >= RESEND_AFTER.total_seconds() - 1, f"{name} was sent again after {gap:.1f} s")

    def ended(self, process: Process, lease: UUID) -> None:
        """A sender that ends by itself gives back what it has, unless its lines to the database were broken."""
        if self._is_well(process):
            kept = self._all("SELECT FROM event WHERE shop = %(shop)s AND lease = %(lease)s", lease=lease)
            if kept:
                self.broken.append(f"process {process.number} has ended and keeps {len(kept)} leases")

    def killed(self, process: Process, at: float) -> None:
        """What a process leaves in doubt when it is killed: what was on its way, and little more.

        at: the loop's time.
        """
        sending = self._all(
            "SELECT event_id::text AS id, attempt FROM event JOIN attempt AS a USING (event_id) "
            "WHERE shop = %(shop)s AND status = 'sending' AND attempt = attempts AND map_index = %(number)s",
            number=process.number,
        )
        names = {(row["id"], row["attempt"]) for row in sending}
        ahead = len(names - process.gone)
        most = math.ceil(self._limit * AHEAD_SECONDS)
        if ahead > most:
            self.broken.append(f"process {process.number} was killed with {ahead} marked events, more than {most}")
        late = [
            one
            for one in self.all_requests
            if (one.event_id, one.attempt) in names and one.answered_at is not None and one.is_over_by < at
        ]
        if late and not self.hindered[process.number]:
            self.broken.append(f"process {process.number} was killed before {len(late)} old answers were settled")

    # ── When all is over ──

    def sum_up(self) -> int:
        """The ledger against what the server saw and what the processes heard; events that were left for a no."""
        must(not self.broken, "; ".join(self.broken))
        self._pace()
        self._limits()
        self._pauses()
        self._sums()
        attempts = self._attempts()
        events = self._all(f"SELECT {COLUMNS} FROM event AS e WHERE shop = %(shop)s")
        must(len(events) == self.events, f"{len(events)} events, and there were {self.events}")
        for event in events:
            event_id = str(event["event_id"])
            self._one(event, self.requests[event_id], attempts[event_id])
            self._respected(event, attempts[event_id])
        return len(self._all("SELECT FROM event WHERE shop = %(shop)s AND reason = 'opted out'"))

    def resends(self) -> Counter[str]:
        """Attempts at what was in doubt, by their outcome."""
        return Counter(
            str(row["outcome"])
            for attempts in self._attempts().values()
            for number, row in enumerate(attempts)
            if any(before["outcome"] in IN_DOUBT for before in attempts[:number])
        )

    def _attempts(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self._all(
            "SELECT a.*, EXISTS (SELECT FROM doubted AS d WHERE d.outcome = 'lost' "
            "AND (d.event_id, d.attempt, d.started_at) = (a.event_id, a.attempt, a.started_at)) AS was_lost "
            "FROM attempt AS a WHERE run_key = %(run_key)s ORDER BY event_id, attempt"
        ):
            found[str(row["event_id"])].append(row)
        return found

    def _pace(self) -> None:
        # as a server counts them whose distance does not change with the weather
        busiest = busiest_second(one.at - one.distance for one in self.all_requests)
        must(busiest <= self._limit, f"{busiest} requests in one second, and the limit is {self._limit}")

    def _limits(self) -> None:
        """A lower limit that an answer names holds for every worker, once it can have heard of that."""
        well = {one.process for one in self.all_requests if self._is_well(one.process)}
        for asked in self.all_requests:
            if asked.fate.limit and asked.answered_at is not None and asked.process in well:
                begin = asked.answered_at + PAUSE_HEARD_WITHIN
                later = [
                    one.at - one.distance for one in self.all_requests if one.process in well and one.left_at > begin
                ]
                busiest = busiest_second(later) if later else 0
                must(
                    busiest <= asked.fate.limit, f"{busiest} requests in one second, and {asked.fate.limit} were named"
                )
                return

    def _pauses(self) -> None:
        """After an answer that asks for a pause no worker of the account sends, once it can have heard of that."""
        well = {one.process for one in self.all_requests if self._is_well(one.process)}
        for asked in self.all_requests:
            if asked.fate.retry_after and asked.answered_at is not None and asked.process in well:
                begin, end = asked.answered_at + PAUSE_HEARD_WITHIN, asked.answered_at + asked.fate.retry_after - 0.1
                left = sum(one.process in well and begin < one.left_at < end for one in self.all_requests)
                must(not left, f"{left} requests left while the account was to pause")

    def _is_well(self, process: Process) -> bool:
        number = process.number
        return not self.hindered[number] and number not in self.cut_off and number not in self.silenced

    def _sums(self) -> None:
        [sums] = self._all(
            "SELECT (SELECT requests FROM run WHERE run_key = %(run_key)s) AS requests, "
            "count(*) FILTER (WHERE outcome <> 'lost') AS answered FROM attempt WHERE run_key = %(run_key)s"
        )
        must(sums["requests"] == sums["answered"], f"{sums['requests']} requests, {sums['answered']} attempts answered")
        off = self._all(
            "SELECT FROM event AS e WHERE shop = %(shop)s AND attempts <> "
            "(SELECT count(*) FROM attempt AS a WHERE a.event_id = e.event_id)"
        )
        must(not off, f"{len(off)} events with another number of attempts than they tell")

    def _one(self, event: dict[str, Any], requests: Sequence[Request], attempts: Sequence[dict[str, Any]]) -> None:
        name, status = str(event["event_id"])[:8], event["status"]
        outcomes = Counter(row["outcome"] for row in attempts)
        made = {(one.attempt, one.process.number): one for one in requests}
        for row in attempts:
            self._attempt(name, row, made.pop((row["attempt"], row["map_index"]), None))
        must(not made, f"{name} made requests that are no attempts: {sorted(made)}")
        doubts = sum(row["outcome"] in IN_DOUBT for row in attempts[:-1])
        must_be_the_only_resend(name, event["event_type"], doubts)
        if status == "accepted":
            must(outcomes["accepted"], f"{name} is accepted, and no attempt of it is")
        must(status == "accepted" or not outcomes["accepted"], f"{name} is {status}, though an attempt was accepted")
        match status:
            case "accepted":
                pass
            case "rejected":
                must(attempts[-1]["outcome"] == "rejected", f"{name} is rejected, and its last attempt is not")
            case "pending":
                waits = event["event_type"] in REMINDERS and event["return_id"] in self.waiting
                must(waits and event["reason"] == "waits for a fresh source", f"{name} was never sent")
            case "expired":
                must(event["event_type"] not in REMINDERS, f"{name} expired, and is a reminder")
                must(self._now() - event["occurred_at"] > MAX_LATENESS, f"{name} expired before its time")
                self._surely_not_taken(name, status, event, requests)
            case "suppressed" if event["reason"] == "opted out":
                must(event["return_id"] in self.said_no, f"{name} was dropped, and its customer said nothing")
            case "suppressed":
                must(event["reason"] == "no longer true", f"{name} is suppressed: {event['reason']}")
                holds = event["event_type"] not in REMINDERS or event["return_id"] in (*self.due, *self.waiting)
                must(not holds, f"{name} is no longer true, and holds")
                self._surely_not_taken(name, status, event, requests)
            case "unknown":
                self._rightly_unknown(name, event, outcomes)
            case _:
                must(False, f"{name} is {status}")

    def _respected(self, event: dict[str, Any], attempts: Sequence[dict[str, Any]]) -> None:
        """Once a customer has said no, nothing of theirs is marked any more."""
        if said := self.said_no.get(event["return_id"]):
            late = [row["attempt"] for row in attempts if row["started_at"] > said]
            must(not late, f"{str(event['event_id'])[:8]} was marked after its customer had said no")

    def _attempt(self, name: str, row: dict[str, Any], made: Request | None) -> None:
        """An attempt says what was made and heard of its request; unless its process was killed before it could.

        made: the request, which has arrived by now if it was written.
        """
        silenced = row["map_index"] in self.silenced
        must(made or row["outcome"] in NEVER_MADE, f"{name}: a request is {row['outcome']}, and was never made")
        must(not made or row["outcome"] != "not sent", f"{name}: a request is not sent, and was made")
        heard = made if made and made.answered_at is not None else None
        if row["outcome"] == "accepted":
            must(heard and outcome_of(heard.fate.status) == "accepted", f"{name} was never heard to be accepted")
        must(row["outcome"], f"{name}: attempt {row['attempt']} has no end")
        if row["was_lost"]:
            well = not silenced and self.hindered[row["map_index"]] < GIVEN_UP_AFTER
            must(not well, f"{name}: attempt {row['attempt']} was given up, and its process is well")
        if heard and heard.fate.status < 600 and not silenced:
            expected = {"unauthorized": "refused"}.get(outcome := outcome_of(heard.fate.status), outcome)
            must(row["outcome"] == expected, f"{name}: an answer was {expected}, and the ledger says {row['outcome']}")

    def _surely_not_taken(self, name: str, status: str, event: dict[str, Any], requests: Sequence[Request]) -> None:
        for one in requests:
            answered_as_failed = one.answered_at is not None and one.fate.status in TAKEN_THOUGH_FAILED
            money = event["event_type"] in MONEY
            must(not one.fate.taken or (answered_as_failed and not money), f"{name} is {status}, and was taken")

    def _rightly_unknown(self, name: str, event: dict[str, Any], outcomes: Counter[str]) -> None:
        doubts = outcomes["unknown"] + outcomes["lost"]
        must(event["resend_at"] is None, f"{name} is unknown and was to be sent again")
        if event["event_type"] in MONEY:
            must(doubts + outcomes["failed"], f"{name} is unknown without a reason")
            return
        # an answer to what was in doubt comes too late to take the event from the person
        ever = self._all(
            "SELECT DISTINCT attempt FROM doubted JOIN attempt USING (event_id, attempt, started_at) "
            "WHERE event_id = %(id)s",
            id=event["event_id"],
        )
        too_late = self._now() + RESEND_AFTER + LEAVES_WITHIN - event["sent_occurred_at"] > JOURNEY_LATENESS
        must(ever and (len(ever) > 1 or too_late), f"{name} was not sent a second time")
