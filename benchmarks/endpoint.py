"""The server that every sender of the benchmarks sends to: as quick as Python allows, and the same for all.

The sandbox's stand-in examines each event as Attentive does and keeps it, which costs more than sending it: with the
limit lifted it would be what is measured. This one reads a request to its end, waits, and answers 200.

    python -m benchmarks.endpoint --port-file FILE

Its control, below /_bench/: POST latency/<seconds>, POST reset, GET stats.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from sandbox.processes import HOME, process, wait_until

LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
EMPTY = ANSWER % (2, b"{}")
CONTROL = "/_bench/"


class Counts:
    """What arrived since the last reset. Instants are seconds of the machine's monotonic clock."""

    def __init__(self, latency: float = 0.0) -> None:
        self.latency = latency
        self.requests = 0
        self.under_way = 0
        self.most_under_way = 0
        self.first_at = 0.0
        self.last_at = 0.0
        self.busy = time.process_time()

    def stats(self) -> dict[str, Any]:
        """rate: requests a second between the first arrival and the last. busy: processor seconds used."""
        took = self.last_at - self.first_at
        return {
            "requests": self.requests,
            "most_under_way": self.most_under_way,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "rate": (self.requests - 1) / took if took > 0 else 0.0,
            "busy": time.process_time() - self.busy,
        }


class Connection(asyncio.Protocol):
    """One connection; a request begins when the one before it is answered, as all senders here have it."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = LENGTH.search(self._received, 0, end)
        if len(self._received) < end + 4 + (int(length[1]) if length else 0):
            return
        path = self._received[: self._received.index(b"\r\n")].split(b" ")[1].decode()
        self._received.clear()
        if path.startswith(CONTROL):
            self._answer(self._server.control(path.removeprefix(CONTROL)))
        else:
            self._server.arrived()
            self._loop.call_later(self._server.counts.latency, self._done)

    def _done(self) -> None:
        self._server.counts.under_way -= 1
        self._answer(EMPTY)

    def _answer(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


class Server:
    def __init__(self) -> None:
        self.counts = Counts()

    def arrived(self) -> None:
        counts, now = self.counts, time.monotonic()
        counts.first_at = counts.first_at or now
        counts.last_at = now
        counts.requests += 1
        counts.under_way += 1
        counts.most_under_way = max(counts.most_under_way, counts.under_way)

    def control(self, command: str) -> bytes:
        name, _, value = command.partition("/")
        if name == "latency":
            self.counts = Counts(float(value))
        elif name == "reset":
            self.counts = Counts(self.counts.latency)
        body = json.dumps(self.counts.stats()).encode()
        return ANSWER % (len(body), body)


async def serve(port_file: Path) -> None:
    server = Server()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=4096)
    unfinished = port_file.with_suffix(".new")
    unfinished.write_text(str(listening.sockets[0].getsockname()[1]))
    unfinished.replace(port_file)
    async with listening:
        await listening.serve_forever()


class Endpoint:
    """Its control. url: its root."""

    def __init__(self, url: str) -> None:
        self.url = url

    def reset(self, latency: float) -> None:
        """Counts from here on; every answer comes so many seconds after its request."""
        self._ask("POST", f"latency/{latency}")

    def stats(self) -> dict[str, Any]:
        """See Counts.stats."""
        return self._ask("GET", "stats")

    def _ask(self, method: str, command: str) -> dict[str, Any]:
        answer = httpx.request(method, f"{self.url}{CONTROL}{command}", trust_env=False)
        return dict(answer.raise_for_status().json())


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """The server, in a process of its own."""
    HOME.mkdir(parents=True, exist_ok=True)
    port_file = HOME / f"bench-endpoint-{os.getpid()}.port"
    port_file.unlink(missing_ok=True)
    with process("bench-endpoint", [sys.executable, "-m", "benchmarks.endpoint", "--port-file", str(port_file)]):
        wait_until(port_file.exists, "the benchmark's server listens", seconds=60, every=0.05)
        yield Endpoint(f"http://127.0.0.1:{port_file.read_text()}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endpoint", description=__doc__)
    parser.add_argument("--port-file", type=Path, required=True)
    asyncio.run(serve(parser.parse_args().port_file))


if __name__ == "__main__":
    main()
