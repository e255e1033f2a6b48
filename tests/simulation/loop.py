"""The event loop of one simulated process: it runs a callback when the world decides to, and has no real time."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from simulation.world import World

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class Due(asyncio.TimerHandle):
    """A callback that is due."""

    __slots__ = ()

    def __init__(self, callback: Callable[..., object], args: tuple[object, ...], when: float) -> None:
        self._callback = callback
        self._args = args
        self._when = when
        self._cancelled = False

    def cancel(self) -> None:
        """Mark it as cancelled."""
        self._cancelled = True


class Loop(asyncio.AbstractEventLoop):
    """An event loop that belongs to one process of a world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.ready: deque[Due] = deque()
        self.tasks: list[asyncio.Task[Any]] = []
        self.is_dead = False
        self.errors: list[BaseException] = []
        """What callbacks raised, which asyncio would only log."""

    def turn(self, most: int) -> None:
        """Run at most this many callbacks."""
        asyncio._set_running_loop(self)
        try:
            ready = self.ready
            while ready and most:
                most -= 1
                due = ready.popleft()
                if not due._cancelled:
                    due._callback(*due._args)
        except Exception as error:
            self.errors.append(error)
        finally:
            asyncio._set_running_loop(None)

    def kill(self) -> None:
        """Stop for good: run nothing more."""
        self.is_dead = True
        self.ready.clear()

    def bury(self) -> None:
        """Close unfinished tasks, so that Python does not complain. This has no effect on the world."""
        self.kill()
        asyncio._set_running_loop(self)
        try:
            for task in self.tasks:
                if not task.done():
                    _close(task)
        finally:
            asyncio._set_running_loop(None)

    def time(self) -> float:
        """Return the true time."""
        return self._world.now

    def call_soon(self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None) -> Due:
        """Schedule a function for the next turn."""
        due = Due(callback, args, 0)
        if not self.is_dead:
            self.ready.append(due)
        return due

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> Due:
        """Schedule a function after this many seconds."""
        return self.call_at(self._world.now + delay, callback, *args)

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> Due:
        """Schedule a function for this time."""
        due = Due(callback, args, when)

        def fire() -> None:
            if not self.is_dead and not due._cancelled:
                self.ready.append(due)

        self._world.at(when, fire)
        return due

    def create_future(self) -> "asyncio.Future[Any]":
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[_T]:
        """Start a coroutine as a task."""
        task = asyncio.Task(coro, loop=self, name="task")  # a generated name costs more than a task
        self.tasks.append(task)
        return task

    def get_debug(self) -> bool:
        """Return False: it is not in debug mode."""
        return False

    def is_running(self) -> bool:
        """Return True: its callers run in it."""
        return True

    def is_closed(self) -> bool:
        """Return False: a process is killed, but its loop is never closed."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Ignore reports of futures whose exceptions were never retrieved."""


def _close(task: "asyncio.Task[Any]") -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    for _ in range(10):
        try:
            coroutine.close()
        except RuntimeError:  # it awaits once more in a `finally`
            continue
        except BaseException:
            return
        return
