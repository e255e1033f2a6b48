"""Ends that no cancellation cuts off: what was opened is closed."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")


async def until_done(task: "asyncio.Future[_T]") -> asyncio.CancelledError | None:
    """Wait for the end of a task, and return the last cancellation of the caller meanwhile, if any."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


async def finish(work: Awaitable[_T]) -> _T:
    """Return the result of `work`, which runs to its end, however often the caller is cancelled meanwhile.

    The cancellation is raised after that.
    """
    task = asyncio.ensure_future(work)
    if (cancelled := await until_done(task)) is not None:
        raise cancelled
    return task.result()
