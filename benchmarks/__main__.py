"""All benchmarks, one after the other: `make bench`, an hour or two; some: `make bench ARGS="--only sending hour"`.

Prints each one's figures and at the end which goals were met; keeps them as JSON in .sandbox/benchmarks, and draws
docs/benchmarks.png from what is there. --write puts them into the tables of docs/benchmarks.md as well. --quick: small
sizes, to see that everything works; its figures say little, so they are kept apart, not judged and not drawn.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.kit import Figure, number, read, report, verdict
from sandbox.processes import HOME, ROOT


@dataclass(frozen=True)
class Part:
    """A benchmark. quick: arguments that make it so. always: its arguments in any case. module: if not its name."""

    quick: str
    always: str = ""
    module: str = ""


PARTS = {
    "sending": Part("--events 2000 --seconds 1 --repeats 1 --tasks 0"),
    "pace": Part("--seconds 3 --latency 0.08 --senders 1 2"),
    "disturbed": Part("killed next --seconds 6", "--disturb", "pace"),
    "ledger": Part("--settled 20000 --events 2000 --turns 1"),
    "purge": Part("--old 60000 --events 500 --turns 1"),
    "latency": Part("--backlogs 300 3000 --repeats 1 --seconds 2"),
    "hour": Part("--returns 1000 2000 --changes 0 100 --repeats 1"),
    "enqueue": Part("--rows 5000 --settled 20000 --repeats 1"),
    "first_look": Part("--returns 2000"),
    "airflow": Part("--runs 1 --once"),
}
"""In their order."""

NEVER_QUICK = {"airflow"}
"""Left out of the quick ones: an Airflow takes its time to start."""

DOCUMENT = ROOT / "docs" / "benchmarks.md"
PICTURE = ROOT / "docs" / "benchmarks.png"
TABLE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Told = Mapping[str, tuple[str, list[Figure]]]
"""Title and figures by benchmark."""


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}, "
        f"Airflow {version('apache-airflow')}, load before it began {os.getloadavg()[0]:.1f}"
    )


def run(name: str, quick: bool, file: Path) -> bool:
    """Whether it came to its end; its figures are in the file then."""
    part = PARTS[name]
    file.unlink(missing_ok=True)
    began = time.monotonic()
    arguments = [*part.always.split(), *(part.quick.split() if quick else [])]
    command = [sys.executable, "-m", f"benchmarks.{part.module or name}", "--json", str(file), *arguments]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # it was told to stop as well, and has a database to take down
            raise
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return status == 0 and file.exists()


def kept(directory: Path) -> Told:
    """The figures in a directory, in the benchmarks' order."""
    return {name: read(file) for name in PARTS if (file := directory / f"{name}.json").exists()}


def conclude(told: Told) -> None:
    """Prints every figure that had a goal; a detail is named after what it is a detail of."""
    judged = []
    for name, (_, figures) in told.items():
        whole = ""
        for figure in figures:
            whole = whole if figure.is_detail else figure.name
            full = f"{whole}: {figure.plain_name}" if figure.is_detail else figure.name
            if figure.met is not None:
                judged.append(replace(figure, name=f"{name}: {full}"))
    if judged:
        report(f"Goals: {sum(bool(figure.met) for figure in judged)} of {len(judged)} met", judged)


# ── docs/benchmarks.md ───────────────────────────────────────────────────────


def rewrite(told: Told, conditions: str) -> None:
    """Puts the figures into the document's tables, between their marks."""

    def table(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        if name == "machine":
            return f"{begin}{conditions}.\n{end}"
        return begin + markdown(told[name][1]) + end if name in told else found[0]

    DOCUMENT.write_text(TABLE.sub(table, DOCUMENT.read_text()))


def markdown(figures: Sequence[Figure]) -> str:
    lines = ["|  | measured | goal |  |", "|---|--:|---|---|"]
    for figure in figures:
        goal = f"{figure.goal}: {verdict(figure)}" if figure.met is not None else figure.goal
        name = f"– {figure.plain_name}" if figure.is_detail else figure.name
        lines.append(f"| {name} | {number(figure.value)} {figure.unit} | {goal} | {figure.note} |")
    return "\n".join(re.sub(r" +", " ", line) for line in lines) + "\n"


def main() -> int:
    options = parsed()
    names = options.only or [name for name in PARTS if not (options.quick and name in NEVER_QUICK)]
    directory = HOME / ("benchmarks-quick" if options.quick else "benchmarks")
    directory.mkdir(parents=True, exist_ok=True)
    conditions = machine()
    print(conditions, flush=True)
    failed = []
    for name in names:
        if not run(name, options.quick, directory / f"{name}.json"):
            failed.append(name)
    told = kept(directory)
    if not options.quick:
        conclude({name: told[name] for name in names if name in told})
        from benchmarks.picture import draw  # matplotlib: of requirements-bench

        draw(told, PICTURE)
        print(f"Drawn: {PICTURE.relative_to(ROOT)}")
    if options.write:
        rewrite(told, conditions)
    if failed:
        print(f"Did not come to their end: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("quick figures say too little to be written down")
    return options


if __name__ == "__main__":
    sys.exit(main())
