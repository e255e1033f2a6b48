"""Cancelling a coroutine at each of its suspension points in turn, and naming what it waited for there.

A sweep over the points of a call proves what it promises only where it reaches the phases of a call. So it collects
their names, and its test asserts them: a refactoring that hides a wait from the sweep fails.
"""

import asyncio
import gc
import itertools
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

PHASES = {  # by the functions of aiohttp in which a coroutine waits
    "aiohttp.connector.BaseConnector.connect": "connecting",
    "aiohttp.client_reqrep.ClientResponse.start": "waiting for the response",
    "aiohttp.streams.StreamReader.readany": "reading the response",
}
OWN = "waiting in the package"
"""For a slot, a backoff, a cool-down, the rate limit or a journal: for which of them, the test arranges."""


@types.coroutine
def cancelled_at(
    point: int,
    coroutine: Coroutine[Any, Any, Any],
    reached: set[tuple[str, int]] | None = None,
    count: Callable[[], int] = lambda: 0,
) -> Generator[Any, Any, Any]:
    """Run a coroutine, and cancel its task when it suspends for the time of this number, from 0.

    Add to `reached` what it waited for, which is one of `PHASES` or `OWN`, with what `count` returned at that moment,
    such as the number of requests that a service had received. A coroutine that suspends less often is not cancelled.
    """
    task = asyncio.current_task()
    assert task is not None
    value, error = None, None
    for number in itertools.count():
        try:
            waits_for = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            return stop.value
        if number == point:
            if reached is not None:
                reached.add((_phase(coroutine), count()))
            task.cancel()
        value, error = None, None
        try:
            value = yield waits_for
        except BaseException as raised:
            error = raised


def _phase(coroutine: Coroutine[Any, Any, Any]) -> str:
    """Return what a suspended coroutine waits for."""
    return next((PHASES[name] for name in _functions(coroutine) if name in PHASES), OWN)


def _functions(awaited: object) -> Iterator[str]:
    """Yield the functions in which a coroutine is suspended, from the outermost to the innermost.

    What `__await__` returned does not show its coroutine, except to the garbage collector. The error of a cancellation
    would not do: the package takes frames that hold the key out of its traceback.
    """
    while awaited is not None:
        if type(awaited).__name__ == "coroutine_wrapper":
            (awaited,) = gc.get_referents(awaited)
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
