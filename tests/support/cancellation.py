"""Cancelling a coroutine at each of its suspension points in turn, and naming what it waited for there.

A sweep over the points of a call proves what it promises only where it reaches the phases of a call. So it collects
their names, and its test asserts them: a refactoring that hides a wait from the sweep fails.
"""

import asyncio
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
    value, error, cancellation, counted = None, None, None, 0
    try:
        for number in itertools.count():
            try:
                waits_for = coroutine.send(value) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            if number == point:
                counted = count()
                task.cancel()
            value, error = None, None
            try:
                value = yield waits_for
            except BaseException as raised:
                error = raised
                if number == point:
                    cancellation = raised
    finally:
        if cancellation is not None and reached is not None:
            reached.add((_phase(cancellation), counted))


def _phase(cancellation: BaseException) -> str:
    """Return what a coroutine waited for when it was cancelled: its traceback has every frame that it suspended in."""
    return next((PHASES[name] for name in _functions(cancellation.__traceback__) if name in PHASES), OWN)


def _functions(traceback: types.TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        frame = traceback.tb_frame
        yield f"{frame.f_globals['__name__']}.{frame.f_code.co_qualname}"
        traceback = traceback.tb_next
