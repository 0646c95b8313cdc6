"""An event loop whose timers end when they are due.

asyncio waits by epoll, which knows whole milliseconds only: a timer ends up to one late, and here a request that leaves
late makes all that follow it late (see pace). select knows microseconds, and can wait for an epoll.
"""

import asyncio
import select
import selectors
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

MOST_THAT_SELECT_TAKES = 1024
"""A file's number must be below (FD_SETSIZE of the C library)."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run does, in such a loop; in the usual one where the system has no epoll."""
    with asyncio.Runner(loop_factory=event_loop) as runner:
        return runner.run(main)


def event_loop() -> asyncio.AbstractEventLoop:
    """A new loop, to be closed by whoever asked for it."""
    return asyncio.SelectorEventLoop(PunctualSelector() if sys.platform == "linux" else None)


if sys.platform == "linux":

    class PunctualSelector(selectors.EpollSelector):
        """Waits as long as it is told, to the microsecond."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0 and self.fileno() < MOST_THAT_SELECT_TAKES:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)
