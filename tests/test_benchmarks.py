"""The benchmarks work: a cheap one yields its figures, peers send what they say, the tables are rewritten."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks import kit, pace, peers
from benchmarks.airflow import Run, moment, union
from benchmarks.endpoint import Endpoint, endpoint
from benchmarks.kit import Figure

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def to() -> Iterator[Endpoint]:
    with endpoint() as running:
        yield running


IN_MINUTES = [pytest.param(name, marks=pytest.mark.long) for name in ("sending", "pace", "disturbed")]


@pytest.mark.parametrize("name", ["ledger", "purge", "hour", "enqueue", "first_look", *IN_MINUTES])
def test_each_comes_to_its_end_in_a_small_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'plugins'}:{ROOT}")
    assert bench.run(name, quick=True, file=tmp_path / "figures.json")
    _, figures = kit.read(tmp_path / "figures.json")
    assert figures


def test_a_task_that_skips_itself_ends_when_airflow_says_so() -> None:
    at = "2026-03-01T12:00:0{}+00:00"
    tasks = [
        {"task_id": "extract", "state": "success", "start_date": at.format(1), "end_date": at.format(4), "duration": 3},
        {"task_id": "ask", "state": "skipped", "start_date": at.format(5), "end_date": at.format(7), "duration": 2},
    ]
    steps = [
        {"run": "r", "task": task, "at": moment(at.format(second)), "processor": processor}
        for task, second, processor in (("extract", 2, 1.0), ("extract", 3, 1.5), ("ask", 6, 1.0))
    ]
    run = Run({"dag_run_id": "r", "run_after": at.format(0), "end_date": at.format(9)}, tasks, steps)
    assert (run.tasks, run.waited, run.scheduled_to_done) == (1, 1.0, 9.0)
    assert (run.own, run.own_at_once, run.own_processor) == (2.0, 2.0, 0.5)


def test_latency_tells_its_figures(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    sizes = "--backlogs 100 200 --repeats 2 --seconds 1"  # more new returns than one person may hear of in a day
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT}"}
    command = [sys.executable, "-m", "benchmarks.latency", "--json", str(file), *sizes.split()]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, figures = kit.read(file)
    values = {figure.name: figure.value for figure in figures}
    assert 0 < values["to its request, no backlog"] < 60
    assert values["behind 100 due events, 150 a second"] > 0.6
    assert values["memory of a sending task, 200 due events"] > 20
    assert "to its request, no backlog" in done.stdout


def test_peers_send_each_event_once(to: Endpoint) -> None:
    to.reset(0.02)
    peers.requests_loop(to.url, 5)
    alone = to.stats()
    to.reset(0.02)
    peers.aiohttp_loop(10, to.url, 50)
    together = to.stats()
    assert (alone["requests"], alone["most_under_way"]) == (5, 1)
    assert (together["requests"], together["most_under_way"]) == (50, 10)
    assert alone["rate"] <= 1 / 0.02
    assert together["rate"] > alone["rate"]


def test_events_are_those_of_the_wire() -> None:
    [event] = peers.events(1)
    assert json.loads(peers.encode(event)) == event
    assert event.keys() == {"type", "externalEventId", "occurredAt", "user", "properties"}


def test_figures_survive_their_file(tmp_path: Path) -> None:
    figures = [Figure("a", 1.5, "s", "at most 2", True, "noted"), Figure("b", 0.0, "")]
    kit.write(tmp_path / "f.json", "Title", figures)
    assert kit.read(tmp_path / "f.json") == ("Title", figures)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.01234, "0.0123"), (2.5, "2.50"), (12, "12"), (148.7, "149"), (12345.6, "12,346")]
)
def test_numbers_have_three_figures(value: float, text: str) -> None:
    assert kit.number(value) == text


def test_a_missed_goal_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    figures = [Figure("slow", 1, "s", "less", False), Figure("none", 2, "s"), Figure("- share", 1, "%", "any", True)]
    bench.conclude({"sending": ("Sending", figures)})
    out = capsys.readouterr().out
    assert "1 of 2 met" in out
    assert re.search(r"sending: slow +1 +s +less +MISSED", out)
    assert re.search(r"sending: none: share +1 +% +any +met", out)
    assert len(re.findall("sending:", out)) == 2


def test_tables_of_the_document_are_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = tmp_path / "document.md"
    document.write_text(
        "A\n<!-- figures: ledger -->\nold\n<!-- end -->\nB\n<!-- figures: hour -->\nkept\n<!-- end -->\n"
    )
    monkeypatch.setattr(bench, "DOCUMENT", document)
    bench.rewrite({"ledger": ("Ledger", [Figure("claim", 5100, "events/s", "at least 5,000", True)])}, "2 cores")
    text = document.read_text()
    assert "| claim | 5,100 events/s | at least 5,000: met | |" in text
    assert "old" not in text
    assert "kept" in text


def test_the_document_has_a_table_for_each_benchmark() -> None:
    named = [name for _, name, _ in bench.TABLE.findall(bench.DOCUMENT.read_text())]
    assert sorted(named) == sorted(["machine", *bench.PARTS])


def test_spans_that_overlap_count_once() -> None:
    assert union([(0, 2), (1, 3), (5, 6), (5.5, 5.7)]) == 4


def test_what_the_stand_in_could_not_tell_is_told_apart() -> None:
    full, too_full = [100 + n / 150 for n in range(150)], [200 + n / 200 for n in range(200)]
    lagged = pace.Run(full + too_full, throttled=[200.9], late={200}, seconds=101)
    _, busiest, throttled = pace.figures("at 80 ms", [lagged], at_least=None)
    assert (busiest.value, busiest.met, busiest.note) == (150, True, "200 with the 1 late seconds")
    assert (throttled.value, throttled.met, throttled.note) == (0, True, "1 with the late seconds")
    on_time = pace.Run(full + too_full, throttled=[200.9], late=set(), seconds=101)
    _, busiest, throttled = pace.figures("at 80 ms", [on_time], at_least=None)
    assert (busiest.value, busiest.met) == (200, False)
    assert (throttled.value, throttled.met) == (1, False)


def test_what_a_late_second_costs_the_sender_is_told_apart() -> None:
    """The stand-in was late in second 105 and gave a 429 for it nearly a second later; the sender heard of it half a
    second after that, and sat out one.
    """
    steady = (second + number / 150 for second in range(100, 120) for number in range(150))
    arrivals = [at for at in steady if not 107.4 <= at < 108.4]
    lagged = pace.Run(arrivals, throttled=[106.9], late={105}, seconds=20)
    rate, *_ = pace.figures("at 500 ms", [lagged], at_least=148)
    assert (rate.value, rate.met, rate.note) == (150, True, "lowest 150.0 of 1, 142.5 with the late seconds")
    on_time = pace.Run(arrivals, throttled=[106.9], late=set(), seconds=20)
    rate, *_ = pace.figures("at 500 ms", [on_time], at_least=148)
    assert (rate.value, rate.met) == (142.5, False)
    all_late = pace.Run(arrivals, throttled=[], late=set(range(100, 120)), seconds=20)
    rate, *_ = pace.figures("at 500 ms", [all_late], at_least=148)
    assert (rate.value, rate.met) == (0, None)
