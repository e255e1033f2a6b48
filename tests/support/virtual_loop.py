"""An event loop without real time and I/O: it runs until nothing more can happen; only the test advances time."""

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple, Unpack

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class _Selector(selectors.DefaultSelector):
    """Never waits: when the loop would wait, it is idle and stops."""

    loop: "VirtualLoop | None" = None

    def select(self, timeout: float | None = None) -> Any:
        """Return ready events without waiting for any."""
        if timeout != 0 and self.loop is not None:
            self.loop.stop()
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still between calls of `advance`."""

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[asyncio.TimerHandle] = []
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        """Return the loop's own time in seconds."""
        return self._now

    def run_until_idle(self) -> None:
        """Run until every task is done or waiting."""
        self.run_forever()

    def advance(self, seconds: float) -> None:
        """Advance time, timer by timer, and run what becomes due."""
        end = self._now + seconds
        while (due := self._next_timer()) is not None and due <= end:
            self._now = due
            self.run_until_idle()
        self._now = end
        self.run_until_idle()

    def finish(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine to completion, without advancing time."""
        task = self.create_task(coroutine)
        self.run_until_idle()
        return task.result()

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Schedule a timer, and remember when it is due."""
        timer = super().call_at(when, callback, *args, context=context)
        self._timers = [*(each for each in self._timers if not each.cancelled()), timer]
        return timer

    def _next_timer(self) -> float | None:
        times = [timer.when() for timer in self._timers if not timer.cancelled()]
        return min((time for time in times if time > self._now), default=None)
