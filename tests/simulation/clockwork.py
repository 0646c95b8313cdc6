"""An event loop whose time is made up, and processes in it that can be stopped, continued and killed."""

import asyncio
import random
import selectors
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

PROCESS: ContextVar["Process | None"] = ContextVar("process", default=None)


class Violation(AssertionError):
    """What must never happen has happened."""


class Turn:
    """One callback of the loop. While its process is stopped, it is held back."""

    handle: asyncio.Handle

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._callback = callback
        self._args = args

    def __call__(self) -> None:
        process = PROCESS.get()
        if process is not None and process.is_stopped:
            process.held_back.append(self)
        elif not self.handle.cancelled():
            self._callback(*self._args)

    def again(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon(self, context=self.handle._context)  # type: ignore[attr-defined]


class VirtualLoop(asyncio.SelectorEventLoop):
    """When everybody waits, it is at once the moment that somebody waits for. network: what connections lead to."""

    network: Any

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_NoWaiting(self))
        self.errors: list[str] = []
        self.set_task_factory(_owned_task)
        self.set_exception_handler(lambda _, context: self.errors.append(_described(context)))

    def time(self) -> float:
        return self._now

    def pass_time(self, seconds: float | None) -> None:
        if seconds is None:
            raise Violation("everybody waits for ever")
        self._now += seconds

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        turn = Turn(callback, args)
        turn.handle = super().call_soon(turn, context=context)
        return turn.handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        turn = Turn(callback, args)
        turn.handle = handle = super().call_at(when, turn, context=context)
        return handle

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await self.network.connect(present())

    async def create_connection(self, protocol_factory: Any, *_: Any, sock: Any = None, **__: Any) -> Any:
        sock.close()
        protocol = protocol_factory()
        return self.network.wire(present(), protocol), protocol


class _NoWaiting(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        self._loop.pass_time(timeout)
        return []


def _described(context: dict[str, Any]) -> str:
    if error := context.get("exception"):
        return "".join(traceback.format_exception(error))
    return str(context["message"])


def _owned_task(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    if (process := PROCESS.get()) is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
    return task


def present() -> "Process":
    process = PROCESS.get()
    assert process is not None, "only processes connect"
    return process


class Process:
    """A worker with a clock of its own.

    number: shown as its map_index. mishaps: by the name of a point and how often it was reached, what happens there.
    reached: how often each point was. gone: event ids and attempts whose requests are just being written, have left, or
    surely never will.
    told_to_stop_at: the loop's time.
    """

    def __init__(self, loop: VirtualLoop, number: int, rng: random.Random, tell: Callable[[str], None]) -> None:
        self.number = number
        self.is_alive = True
        self.is_stopped = False
        self.held_back: list[Turn] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self.mishaps: dict[tuple[str, int], Callable[[Process], None]] = {}
        self.on_kill: list[Callable[[], None]] = []
        self.stop_told = asyncio.Event()
        self.told_to_stop_at: float | None = None
        self.held_up = 0.0
        self.gone: set[tuple[str, int]] = set()
        self._loop = loop
        self._tell = tell
        self._clock_offset = rng.uniform(0, 1e6)
        self._clock_rate = 1 + rng.uniform(-1e-4, 1e-4)
        self.reached: Counter[str] = Counter()
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    def monotonic(self) -> float:
        return self._clock_offset + self._loop.time() * self._clock_rate

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return self.context.run(lambda: self._loop.create_task(work))

    def hit(self, point: str) -> None:
        """The process is at a point of its work: whatever was to happen here happens."""
        self.reached[point] += 1
        if self.is_alive and (mishap := self.mishaps.pop((point, self.reached[point]), None)):
            self._tell(f"process {self.number} at “{point}”:")
            mishap(self)

    async def reaches(self, point: str) -> None:
        """As hit, for code of the process itself: it goes no further when it was stopped or killed."""
        self.hit(point)
        self.must_be_alive()
        if self.is_stopped or self.held_up:
            held_up, self.held_up = self.held_up, 0.0
            await asyncio.sleep(held_up)
            self.must_be_alive()

    def must_be_alive(self) -> None:
        if not self.is_alive:
            raise asyncio.CancelledError

    def kill(self) -> None:
        """SIGKILL: nothing that it does from now on has any effect."""
        if not self.is_alive:
            return
        self._tell(f"process {self.number} is killed")
        for look in self.on_kill:
            look()
        self.is_alive = self.is_stopped = False
        for task in list(self.tasks):
            task.cancel()
        self._go_on()

    def hold_up(self, seconds: float) -> None:
        """Only what it is doing at this point takes so long."""
        self._tell(f"process {self.number} is held up for {seconds:.3f} s")
        self.held_up = seconds

    def stop(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        if not self.is_alive or self.is_stopped:
            return
        self._tell(f"process {self.number} is stopped for {seconds:.3f} s")
        self.is_stopped = True
        self._loop.call_later(seconds, self._continue, context=Context())

    def _continue(self) -> None:
        if self.is_stopped:
            self._tell(f"process {self.number} goes on")
            self.is_stopped = False
            self._go_on()

    def _go_on(self) -> None:
        held_back, self.held_back = self.held_back, []
        for turn in held_back:
            turn.again(self._loop)

    def terminate(self) -> None:
        """SIGTERM."""
        self._tell(f"process {self.number} is told to stop")
        self.told_to_stop_at = self.told_to_stop_at or self._loop.time()
        self.stop_told.set()
