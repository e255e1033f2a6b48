"""Finish cleanup and commits despite cancellation."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")


async def uncancelled(work: Awaitable[_T]) -> tuple[_T, asyncio.CancelledError | None]:
    """Return the result of `work`, which runs to its end, and the last cancellation of the caller meanwhile, if any.

    Raise that cancellation once what must not be lost is safe.
    """
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancellation = error
    return task.result(), cancellation


async def finish(work: Awaitable[_T]) -> _T:
    """Return the result of `work`, which runs to its end, however often the caller is cancelled meanwhile.

    The cancellation is raised after that.
    """
    result, cancellation = await uncancelled(work)
    if cancellation is not None:
        raise cancellation
    return result
