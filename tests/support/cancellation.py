"""Cancels a coroutine at each of its suspension points, and names what it was waiting for there.

A sweep over the suspension points of a call is a proof only if it reaches every phase of the call. So it collects the
names of the phases, and its test asserts them: a refactoring that hides a phase from the sweep fails the test.
"""

import asyncio
import gc
import itertools
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

PHASES = {  # by the function of aiohttp in which a coroutine waits
    "aiohttp.connector.BaseConnector.connect": "connecting",
    "aiohttp.client_reqrep.ClientResponse.start": "waiting for the response",
    "aiohttp.streams.StreamReader.readany": "reading the response",
}
OWN = "waiting in the package"
"""For a slot, a backoff, a cool-down, the rate limit or a journal: the test determines which."""


async def cancelled_at(
    point: int,
    coroutine: Coroutine[Any, Any, Any],
    reached: set[tuple[str, int]] | None = None,
    count: Callable[[], int] = lambda: 0,
) -> Any:
    """Run a coroutine, and cancel its task at one of its suspensions, which are numbered from 0.

    Add to `reached` what it was waiting for, one of `PHASES` or `OWN`, with the value of `count` at that moment, such
    as the number of requests that a service had received. A coroutine with fewer suspensions is not cancelled.
    """
    return await _cancelled_at(point, coroutine, reached, count)


@types.coroutine
def _cancelled_at(
    point: int, coroutine: Coroutine[Any, Any, Any], reached: set[tuple[str, int]] | None, count: Callable[[], int]
) -> Generator[Any, Any, Any]:
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
    """Return what a suspended coroutine is waiting for."""
    return next((PHASES[name] for name in _functions(coroutine) if name in PHASES), OWN)


def _functions(awaited: object) -> Iterator[str]:
    """Yield the functions in which a coroutine is suspended, outermost first.

    An object that `__await__` returned exposes its coroutine only to the garbage collector. The traceback of the
    cancellation is no substitute: the package removes frames that hold the key from it.
    """
    while awaited is not None:
        if type(awaited).__name__ == "coroutine_wrapper":
            (awaited,) = gc.get_referents(awaited)
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
