"""What the Makefile runs: python -m sandbox demo | loop | picture | migrate [REVISION] | forget OPTIONS |
restored OPTIONS | check OPTIONS | airflow ARGUMENTS"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType

import psycopg
from psycopg.conninfo import make_conninfo

from loop_attentive.errors import NeedsMending
from loop_attentive.migrate import migrate
from sandbox import loop
from sandbox.airflow import LEDGER, WAREHOUSE, command, prepare, settings
from sandbox.demo import HOURLY, Demo, demo
from sandbox.postgres import postgres
from sandbox.processes import API_KEY, HOME, ROOT, Failed, end, log, standin, wait_until
from sandbox.warehouse import create, fill

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

OWN_LEDGER = "AIRFLOW_CONN_LOOP_ATTENTIVE_DB"
OWN_METADATA = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


def main() -> int:
    for number in ENDING:
        signal.signal(number, _interrupt)
    try:
        match sys.argv[1:]:
            case ["demo"]:
                return demo()
            case ["loop"]:
                return loop.live(API_KEY)
            case ["picture"]:
                return picture()
            case ["migrate", *revision]:
                return migrate_to(*revision)
            case ["check", *options]:
                return on_ledger("check_operators", options)
            case ["forget" | "restored" as command, *options]:
                return on_ledger(command, options)
            case ["airflow", *arguments]:
                return airflow(arguments)
        print(__doc__, file=sys.stderr)
        return 2
    except (Failed, NeedsMending) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Everything that runs is ended on the way out, and nothing may interrupt that."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    print("\nEnding ...", file=sys.stderr, flush=True)
    raise KeyboardInterrupt


def picture() -> int:
    """The pictures of the UI in docs, anew."""
    # Of the development's requirements:
    from sandbox.browser import picture_backfills, picture_form, picture_question, take_picture

    backfill, docs = "loop_attentive_backfill", ROOT / "docs"

    def take(played: Demo) -> None:
        airflow, now = played.airflow, datetime.now(UTC)
        take_picture(airflow, HOURLY, docs / "ui.png")
        picture_form(airflow, backfill, docs / "backfill-form.png")

        played.goes_on()
        days = {"from": str((now - timedelta(days=1)).date()), "to": str(now.date())}
        run = airflow.trigger(backfill, mode="send", **days)
        wait_until(lambda: airflow.asks(run, "approve"), "the backfill asks", seconds=300, every=1)
        picture_question(airflow, run, "approve", docs / "backfill-approval.png")

        made = airflow.backfill(HOURLY, now - timedelta(hours=4), now)
        wait_until(lambda: airflow.is_backfilled(made), "the backfill ends", seconds=600, every=2)
        picture_backfills(airflow, HOURLY, docs / "backfill-runs.png")

    return demo(afterwards=take)


def migrate_to(revision: str = "head") -> int:
    """Migrate the database of the connection loop_attentive_db, or the sandbox's when there is no such variable."""
    command_line = [sys.executable, "-m", "loop_attentive.migrate", "--to", revision]
    if _is_own_ledger():
        return run(command_line, {"AIRFLOW_HOME": str(HOME / "airflow")} | os.environ)
    with postgres(HOME / "pg") as server:
        prepare(server)
        return run(command_line, settings(server, "") | os.environ)


def on_ledger(module: str, options: list[str]) -> int:
    """Run a module of the project on the ledger of the connection loop_attentive_db, or on the sandbox's."""
    command_line = [sys.executable, "-m", f"loop_attentive.{module}", *options]
    if _is_own_ledger():
        return run(command_line, {"AIRFLOW_HOME": str(HOME / "airflow")} | os.environ)
    with postgres(HOME / "pg") as server, standin() as attentive:
        ours = settings(server, attentive)
        if module != "check_operators" and (own := sorted(_connections(ours) & os.environ.keys())):
            raise NeedsMending(
                f"{' and '.join(own)} is set and {OWN_LEDGER} is not: set it too, so that what is done there is known "
                "to your ledger, or neither."
            )
        _tell_of_a_mixture(ours)
        prepare(server)
        migrate(make_conninfo(server, dbname=LEDGER))
        _fill(server)
        return run(command_line, ours | os.environ)


def _is_own_ledger() -> bool:
    """Whether the environment names a ledger; says so where it does not."""
    if OWN_LEDGER in os.environ:
        return True
    print(
        f"{OWN_LEDGER} is not set: the sandbox's ledger and warehouse stand in, and yours stay as they are. "
        "A connection in Airflow's UI is not seen here.",
        file=sys.stderr,
    )
    return False


def airflow(arguments: list[str]) -> int:
    """Run an Airflow command in the sandbox; what the environment already sets wins over the sandbox's settings.

    Whoever brings Airflow's database brings the connections in it: there the sandbox's would hide them.
    """
    with postgres(HOME / "pg") as server, standin() as attentive:
        prepare(server)
        migrate(make_conninfo(server, dbname=LEDGER))
        _fill(server)
        port = int(os.environ.get("AIRFLOW__API__PORT", "8080"))
        ours = settings(server, attentive, port)
        if OWN_METADATA in os.environ:
            ours = {name: value for name, value in ours.items() if not name.startswith("AIRFLOW_CONN_")}
        else:
            _tell_of_a_mixture(ours)
            _read_dags_for(arguments, ours | os.environ)
        return run(command(*arguments), ours | os.environ)


def _read_dags_for(arguments: list[str], environment: Mapping[str, str]) -> None:
    """Most commands know only those DAGs that something has read into Airflow's database; here nothing else may run."""
    match arguments:
        case ["dags", "test" | "reserialize", *_]:
            return
        case ["dags" | "tasks" | "backfill", _, *_]:
            with log("reserialize") as output:
                subprocess.run(
                    command("dags", "reserialize"), check=False, cwd=ROOT, env=environment, stdout=output, stderr=output
                )


def _fill(server: str) -> None:
    """Makes the warehouse up, if nobody has yet."""
    with psycopg.connect(make_conninfo(server, dbname=WAREHOUSE), autocommit=True) as warehouse:
        if warehouse.execute("SELECT to_regnamespace('loop')").fetchone() == (None,):
            create(warehouse)
            fill(warehouse, returns=2000, now=datetime.now(UTC), seed=1)


def _tell_of_a_mixture(ours: Mapping[str, str]) -> None:
    """One's own ledger must not be filled from a made-up warehouse, nor its events go to the stand-in, unnoticed."""
    if _connections(ours) & os.environ.keys():
        for name in sorted(_connections(ours) - os.environ.keys()):
            print(f"{name} is not set: the sandbox stands in for it.", file=sys.stderr)


def _connections(ours: Mapping[str, str]) -> set[str]:
    return {name for name in ours if name.startswith("AIRFLOW_CONN_")}


def run(command_line: list[str], environment: Mapping[str, str]) -> int:
    """Run it as if typed here, yet end whatever it started when we are interrupted; its exit status."""
    # `airflow standalone` looks for `airflow` there.
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    process = subprocess.Popen(command_line, cwd=ROOT, env={**environment, "PATH": path}, start_new_session=True)
    try:
        return process.wait()
    finally:
        end(process, patience=15)


sys.exit(main())
