"""A shop moves here from Loop's own integration; a ledger comes back from a backup: none twice, none missed."""

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from loop_attentive import db, decisions, mirror, qualify, restored, rules, runs
from loop_attentive.catalogue import CATALOGUE
from loop_attentive.decisions import Asker, Selection
from loop_attentive.source import Source
from sandbox.attentive import Standin, running_standin
from tests.floor import DAY, HOUR, T0, Floor
from tests.sending import KEY, Book, Sending

CREATED, LABEL = "Loop Return Created", "Loop Label Created"
MISSING = "Loop Exchange Out Of Stock"

RESTORE = Path(__file__).parents[1] / "docs" / "restore.md"

_numbers = count(1)


class Place:
    """Where a shop's runs happen: a ledger, the floor's source, and an Attentive. clock: the moment it is."""

    def __init__(self, floor: Floor, standin: Standin, conninfo: str) -> None:
        self.floor, self.standin, self.conninfo = floor, standin, conninfo
        self.clock = T0
        self.runs = 0

    def run(self, at: datetime) -> None:
        """What a run of both scheduled DAGs does."""
        self.clock, shop = at, self.floor.shop
        self.runs += 1
        with db.connect(self.conninfo, autocommit=True) as conn:
            look = mirror.look(conn, Source(self.floor.engine, shop), at=at)
            run = runs.start(conn, dag_id="moving", run_id=f"run {self.runs} {at}", shop=shop.name, look=look)
            for event in CATALOGUE:
                qualify.qualify(conn, shop, event, run, now=at)
            qualify.judge_again(conn, shop, run=run, now=at)
        if shop.mode == "live":
            self.deliver(run.run_key)

    def deliver(self, run_key: int) -> None:
        book = Book(self.conninfo, self.floor.shop)
        book.run_key = run_key
        with book.connection:
            asyncio.run(
                Sending(book, self.standin.url)(
                    now=lambda: self.clock, still_due=rules.still_due_sql, requests_per_second=2000
                )
            )
            book.check_sums()

    def received(self) -> Counter[tuple[str, str]]:
        """Events that Attentive took in, by type and return."""
        return Counter(
            (record.body["type"], str(record.body["properties"]["returnId"]))
            for record in self.standin.received
            if record.accepted and record.body
        )


@pytest.fixture
def place(floors: Callable[..., Floor]) -> Iterator[Place]:
    floor = floors()
    here: Place
    with running_standin(key=KEY, limit=None, now=lambda: here.clock) as standin:
        here = Place(floor, standin, floor.conninfo)
        yield here


# ── Cut-over ────────────────────────────────────────────────────────────────


def test_from_loops_own_integration_to_this_one(place: Place) -> None:
    floor = place.floor
    floor.settings(mode="shadow")
    floor.ret("old", created_at=T0 - DAY)
    place.run(T0)
    for hours in range(6, 7 * 24, 6):  # the dry week
        floor.ret(f"{hours}", created_at=T0 + hours * HOUR - HOUR)
        place.run(T0 + hours * HOUR)
    switched_off = T0 + 7 * DAY
    floor.ret("1001", created_at=switched_off - HOUR)
    floor.ret("1002", created_at=switched_off + timedelta(minutes=10))
    place.run(switched_off + HOUR)
    assert set(floor.outcomes().values()) == {("suppressed", "baseline"), ("suppressed", "shadow")}
    assert place.received() == Counter()

    floor.settings(mode="live", enabled_at=switched_off.isoformat())
    floor.ret("1003", created_at=switched_off - HOUR)  # Loop sent it, we see it late
    floor.ret("1004", created_at=switched_off + HOUR)
    for hours in (2, 3, 27):
        place.run(switched_off + hours * HOUR)
    assert place.received() == Counter({(CREATED, "1002"): 1, (CREATED, "1004"): 1})
    assert floor.outcomes()["1001"] == ("suppressed", "shadow")
    assert floor.outcomes()["1003"] == ("suppressed", "baseline")


def test_who_takes_a_day_to_go_live_texts_nobody_about_yesterday(place: Place) -> None:
    floor = place.floor
    floor.settings(mode="shadow")
    place.run(T0)
    floor.ret("1", created_at=T0 + HOUR)
    place.run(T0 + 2 * HOUR)
    floor.settings(mode="live", enabled_at=T0.isoformat())
    place.run(T0 + 26 * HOUR)
    assert place.received() == Counter()
    assert floor.outcomes()["1"] == ("expired", "too late")


# ── Restore ─────────────────────────────────────────────────────────────────


@pytest.fixture
def back_up(postgres: str, place: Place) -> Iterator[Callable[[], str]]:
    """Copies the ledger as it is; the copy's conninfo."""
    names: list[str] = []

    def copy() -> str:
        floor = place.floor
        names.append(f"backup_{next(_numbers)}")
        floor.close()
        template = str(conninfo_to_dict(floor.conninfo)["dbname"])
        with psycopg.connect(postgres, autocommit=True) as server:
            server.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(names[-1]), sql.Identifier(template))
            )
        floor.conn = db.connect(floor.conninfo, autocommit=True)
        return make_conninfo(floor.conninfo, dbname=names[-1])

    yield copy
    with psycopg.connect(postgres, autocommit=True) as server:
        for name in names:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_after_a_restore_nothing_is_sent_twice_and_what_lies_between_is_listed(
    place: Place, back_up: Callable[[], str]
) -> None:
    floor = place.floor
    place.run(T0)
    floor.ret("1", created_at=T0 + HOUR)
    place.run(T0 + 2 * HOUR)
    floor.ret("2", created_at=T0 + 2 * HOUR)
    floor.ret("3", created_at=T0 + 2 * HOUR, customer_phone=None, customer_email=None)
    floor.qualify(floor.look(T0 + 3 * HOUR))  # found, not sent yet: the backup has it pending
    backup = back_up()
    floor.ret("3", customer_phone="+14155550123")
    floor.ret("4", created_at=T0 + 3 * HOUR)
    floor.label("4", "1Z4", created_at=T0 + 4 * HOUR)
    place.run(T0 + 5 * HOUR)
    floor.ret("6", created_at=T0 + 2 * HOUR)  # lands late, after the last run
    floor.item("1", "9", out_of_stock=True)  # after the last run: nobody was told
    sent = place.received()
    assert sent == Counter({(CREATED, n): 1 for n in "1234"} | {(LABEL, "4"): 1})

    place.conninfo = backup
    back = T0 + 6 * HOUR
    with db.connect(backup, autocommit=True) as conn:
        told = restored.make_safe(conn, floor.shop, who="ann", now=back)
        assert told.last_look == T0 + 3 * HOUR
        assert [tuple(line) for line in told.waiting] == [(CREATED, "held", 1), (CREATED, "suppressed", 1)]
        assert "1 held" in str(told)
    floor.ret("5", created_at=T0 + 7 * HOUR)
    for hours in (8, 9, 30):
        place.run(T0 + hours * HOUR)
    assert place.received() == sent + Counter({(CREATED, "5"): 1})

    with db.connect(backup, autocommit=True) as conn:
        restored.make_safe(conn, floor.shop, who="ann", now=back)  # it may be repeated, and counts nothing twice
        [listing] = re.findall(r"```sql\n(.*?);\n", RESTORE.read_text(encoding="utf-8"), re.DOTALL)
        between = [row[:4] for row in conn.execute(listing).fetchall()]
        assert between == [
            (MISSING, "suppressed", "baseline", 1),
            (LABEL, "suppressed", "baseline", 1),
            (CREATED, "held", "restored", 1),
            (CREATED, "suppressed", "baseline", 2),
            (CREATED, "suppressed", "restored", 1),
        ]
        asker = Asker("default", "loop_attentive_resolve", "r1")
        choice = Selection(action="send", states=["held"], why="it did not arrive", reason="restored")
        decisions.propose(conn, floor.shop, asker, choice)
        assert decisions.decide(conn, floor.shop, asker, choice, who="ann").events == 1


def test_after_a_restore_what_was_told_before_and_is_touched_again_is_not_told_again(
    place: Place, back_up: Callable[[], str]
) -> None:
    """Its row moves, so by its own time the change would be news."""
    floor, updated = place.floor, "Loop Label Updated"
    place.run(T0)
    floor.ret("1", created_at=T0 + HOUR)
    floor.label("1", "1Z1", status="new", created_at=T0 + HOUR, updated_at=T0 + HOUR)
    place.run(T0 + 2 * HOUR)
    backup = back_up()
    floor.label("1", "1Z1", status="in_transit", updated_at=T0 + 3 * HOUR)
    place.run(T0 + 4 * HOUR)
    sent = place.received()
    assert sent[updated, "1"] == 1

    place.conninfo = backup
    with db.connect(backup, autocommit=True) as conn:
        restored.make_safe(conn, floor.shop, who="ann", now=T0 + 6 * HOUR)
    floor.label("1", "1Z1", updated_at=T0 + 7 * HOUR)
    place.run(T0 + 8 * HOUR)
    assert place.received() == sent
    floor.label("1", "1Z1", status="delivered", updated_at=T0 + 9 * HOUR)
    place.run(T0 + 10 * HOUR)
    assert place.received() == sent + Counter({(updated, "1"): 1})


def test_a_shop_that_began_after_the_backup_sends_nothing_twice(place: Place, back_up: Callable[[], str]) -> None:
    floor = place.floor
    floor.settings(enabled_at=T0.isoformat())
    backup = back_up()
    floor.ret("1", created_at=T0 + HOUR)
    place.run(T0 + 2 * HOUR)
    sent = place.received()
    assert sent == Counter({(CREATED, "1"): 1})

    place.conninfo = backup
    with db.connect(backup, autocommit=True) as conn:
        assert restored.make_safe(conn, floor.shop, who="ann", now=T0 + 3 * HOUR) == (None, [])
    floor.ret("2", created_at=T0 + 4 * HOUR)
    place.run(T0 + 5 * HOUR)
    assert place.received() == sent + Counter({(CREATED, "2"): 1})


def test_what_was_being_sent_or_decided_about_waits_for_a_person(floor: Floor) -> None:
    book = Book(floor.conninfo, floor.shop)
    for n, status in enumerate(("accepted", "held", "sending", "unknown")):
        book.add(CREATED, str(n), status=status, reason="no answer" if status == "unknown" else None)
    book.add(CREATED, "4", status="unknown", reason="no answer", resend_at=None)
    book.run("UPDATE event SET resend_at = now() WHERE return_id = '3'")
    book.run("UPDATE event SET lease = gen_random_uuid(), lease_until = now() WHERE status = 'sending'")
    restored.make_safe(floor.conn, floor.shop, who="ann")
    assert restored.make_safe(floor.conn, floor.shop, who="ann").waiting == [], "again: nothing is left to do"
    rows = floor.conn.execute("SELECT return_id, status, reason, resend_at, lease FROM event ORDER BY 1").fetchall()
    assert rows == [
        ("0", "accepted", None, None, None),
        ("1", "held", "restored", None, None),
        ("2", "unknown", "restored", None, None),
        ("3", "unknown", "restored", None, None),
        ("4", "unknown", "restored", None, None),
    ]
    book.connection.close()


def test_another_shop_is_left_alone(floor: Floor) -> None:
    book = Book(floor.conninfo, floor.shop.model_copy(update={"name": "other"}))
    book.add(CREATED, "1", status="pending")
    assert restored.make_safe(floor.conn, floor.shop, who="ann").waiting == []
    assert floor.outcomes() == {"1": ("pending", None)}
    book.connection.close()


def test_the_command_tells_what_is_wrong_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["restored", "--shop", "nobody"])
    assert restored.main() == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("There is no shop nobody: include/shops.yaml has ")
