"""Finish cleanup and commits despite cancellation."""

import asyncio
from collections.abc import Awaitable
from typing import TypeAlias, TypeVar

_T = TypeVar("_T")

Cancellation: TypeAlias = BaseException | None
"""A cancellation of the caller, to be raised once its work is finished."""


async def uncancelled(work: Awaitable[_T]) -> tuple[_T, Cancellation]:
    """Return the result of `work`, which runs to its end, and the last cancellation of the caller meanwhile, if any."""
    future = asyncio.ensure_future(work)
    cancellation: Cancellation = None
    while True:
        try:
            return await asyncio.shield(future), cancellation
        except asyncio.CancelledError as error:
            if future.cancelled():
                raise
            cancellation = error


async def finish(work: Awaitable[_T]) -> _T:
    """Return the result of `work`, which runs to its end, however often the caller is cancelled meanwhile.

    The cancellation is raised after that.
    """
    result, cancellation = await uncancelled(work)
    if cancellation is not None:
        raise cancellation
    return result
