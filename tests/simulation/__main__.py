"""See the package."""

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg

from loop_attentive import db
from loop_attentive.migrate import migrate
from sandbox.postgres import postgres
from tests.simulation.schedule import play, prepare
from tests.simulation.wrong_senders import WRONG_SENDERS, Wrong


def search(wrong: Wrong, session: psycopg.Connection[Any], seeds: range) -> None:
    """Prints the first seed that shows what a wrong sender does."""
    for seed in seeds:
        with wrong.patched():
            violation = play(seed, session).violation
        if violation and wrong.seen in violation:
            print(f"{wrong.name}: seed {seed}: {violation[:200]}", flush=True)
            return
    print(f"{wrong.name}: no seed shows “{wrong.seen}”", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Plays schedules of mishaps.")
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("last", type=int, nargs="?")
    parser.add_argument("--wrong", help="find a seed that catches this wrong sender (or: all of them)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="la-") as directory, postgres(Path(directory) / "pg") as conninfo:
        migrate(conninfo)
        logging.disable()
        with db.connect(conninfo, autocommit=True) as session:
            session.execute("SET synchronous_commit = off")
            prepare(session)
            if options.wrong:
                for wrong in WRONG_SENDERS:
                    if options.wrong in (wrong.name, "all"):
                        search(wrong, session, range(options.first, options.last or 1000))
                return
            if options.last is None:
                outcome = play(options.first, session)
                print("\n".join(outcome.story))
                sys.exit(outcome.violation)
            began, failed, requests = time.monotonic(), 0, 0
            mishaps, resends = Counter[tuple[str, str]](), Counter[str]()
            for seed in range(options.first, options.last):
                outcome = play(seed, session)
                requests += outcome.requests
                mishaps += outcome.mishaps
                resends += outcome.resends
                if outcome.violation:
                    failed += 1
                    print(f"seed {seed}: {outcome.violation}", flush=True)
            seconds = time.monotonic() - began
            print(*mishaps.most_common(), "resends:", *resends.most_common(), sep="\n")
            print(
                f"{options.last - options.first} schedules, {requests} requests, {mishaps.total()} mishaps: "
                f"{failed} failed; {seconds:.0f} s"
            )


if __name__ == "__main__":
    main()
