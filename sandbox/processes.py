"""Processes of the sandbox: started with their output in a log, ended with everything that they started."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

ROOT = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("SANDBOX_HOME", ROOT / ".sandbox"))
"""Where everything is that the sandbox makes; the tests have one of their own."""

LOGS = HOME / "logs"

API_KEY = "sandbox-key"
"""What the stand-in takes; it opens nothing else."""


class Failed(Exception):
    """Something in the sandbox did not work; the message says what, and where to look."""


@contextmanager
def process(
    name: str, arguments: list[str], environment: Mapping[str, str] = os.environ
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the context; its output is in LOGS."""
    with log(name) as output:
        started = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        end(started)


def end(started: subprocess.Popen[bytes], patience: float = 5) -> None:
    """Ask a process that leads a session to end, as Ctrl-C does; after `patience` seconds end what is left of it.

    A process group would not do: Airflow gives each task a group of its own.
    """
    started.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        started.wait(patience)
    for survivor in _of_session(started.pid):
        with suppress(psutil.NoSuchProcess):
            survivor.kill()
    started.wait()


def _of_session(session: int) -> Iterator[psutil.Process]:
    for candidate in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(candidate.pid) == session:
                yield candidate


@contextmanager
def log(name: str) -> Iterator[IO[bytes]]:
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{name}.log").open("wb") as file:
        yield file


@contextmanager
def standin() -> Iterator[str]:
    """The Attentive stand-in in a process of its own; its URL."""
    port_file = HOME / f"attentive-{os.getpid()}.port"
    port_file.unlink(missing_ok=True)  # of one that was killed, whose parent had the same number
    arguments = [sys.executable, "-m", "sandbox.attentive", "--port-file", str(port_file), "--key", API_KEY]
    with process("attentive", arguments) as started:

        def is_up() -> bool:
            if started.poll() is not None:
                raise Failed(f"The Attentive stand-in ended: see {LOGS / 'attentive.log'}")
            return port_file.exists()

        wait_until(is_up, "the Attentive stand-in listens", seconds=60)
        yield f"http://127.0.0.1:{port_file.read_text().strip()}"


def free_port(preferred: int) -> int:
    """A port of 127.0.0.1 that nobody listens on: the preferred one if it is free."""
    for port in (preferred, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise Failed("No port of 127.0.0.1 is free.")


def wait_until(condition: Callable[[], bool], what: str, seconds: float, every: float = 0.3) -> None:
    """Ask again and again, for nobody tells when it is done. Raises Failed when it takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"Waited {seconds:.0f} seconds in vain until {what}. The logs are in {LOGS}.")
        time.sleep(every)


@contextmanager
def alone(name: str, or_else: str | None = None) -> Iterator[None]:
    """Hold a lock that only one process can have: wait for it, or raise Failed(or_else) at once."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if or_else else 0))
        except BlockingIOError:
            raise Failed(or_else) from None
        yield
