"""The event loop of a sending task."""

import asyncio
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from loop_attentive import punctual


async def least_lateness() -> float:
    """Of timers that do not end at a whole millisecond; seconds."""
    late = []
    for _ in range(50):
        due = time.monotonic() + 0.0043
        await asyncio.sleep(0.0043)
        late.append(time.monotonic() - due)
    return min(late)


def test_timers_end_when_they_are_due() -> None:
    # asyncio's usual loop ends them at the next whole millisecond: 0.7 later, and never sooner
    assert 0 <= punctual.run(least_lateness()) < 0.0005


def test_what_comes_in_ends_the_wait() -> None:
    async def story() -> tuple[bytes, float]:
        here, there = socket.socketpair()
        with here, there:
            reader, writer = await asyncio.open_connection(sock=here)
            asyncio.get_running_loop().call_later(0.01, there.send, b"word")
            began = time.monotonic()
            async with asyncio.timeout(20):
                word = await reader.read(4)
            writer.close()
            return word, time.monotonic() - began

    word, seconds = punctual.run(story())
    assert word == b"word"
    assert seconds < 5


def test_many_open_files_do_not_stop_it() -> None:
    async def story() -> str:
        await asyncio.sleep(0.001)
        return "done"

    with many_open_files():
        assert punctual.run(story()) == "done"


@contextmanager
def many_open_files() -> Iterator[None]:
    """Every file that is opened next has a number that select does not take."""
    least = punctual.MOST_THAT_SELECT_TAKES + 16
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < least + 64:
        pytest.skip(f"this system lets a process open {hard} files at most")
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, least + 64), hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        while True:
            number = os.open(os.devnull, os.O_RDONLY)
            stack.callback(os.close, number)
            if number >= least:
                break
        yield
