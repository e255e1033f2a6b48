"""Closing ends what waits at once, and is finished whatever is cancelled meanwhile."""

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest
from aiolimiter import AsyncLimiter
from support.broken_service import BrokenService
from support.calls import KEY, calls, requests
from support.cancellation import cancelled_at
from support.held_service import HeldService, client
from support.idle import idle

from suno_persona import PersonaAPI, UsageError
from suno_persona._shield import finish


async def test_closing_ends_the_calls_that_wait_for_the_rate_limit(service: HeldService) -> None:
    """At once, and without taking from a limiter that others share."""
    limit = AsyncLimiter(1, 3600)
    async with client(service, rate_limit=limit) as api:
        tasks = calls(api, 3)
        await service.receives(1)
        service.respond(0)
        await tasks[0]
        await api.close()
        results = await asyncio.gather(*tasks[1:], return_exceptions=True)
    assert [type(result) for result in results] == [UsageError, UsageError]
    assert len(service.received) == 1
    assert not limit.has_capacity(0.01)
    assert limit.has_capacity(0)


def sockets() -> int:
    """Count the file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


async def twice_cancelled(first: int, second: int, work: Callable[[], Awaitable[None]]) -> None:
    """Cancel a coroutine at two of its suspension points."""
    await cancelled_at(first, _wrapped(second, work))


async def _wrapped(second: int, work: Callable[[], Awaitable[None]]) -> None:
    await cancelled_at(second, work())  # type: ignore[arg-type]  # a coroutine


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts file descriptors where Linux lists them")
@pytest.mark.parametrize("points", [(first, second) for first in range(3) for second in range(first, 4)])
async def test_a_close_that_is_cancelled_closes_the_connections_all_the_same(points: tuple[int, int]) -> None:
    """Once or twice, as cancel scopes do, at every pair of points at which it suspends."""
    async with BrokenService() as service:
        before = sockets()
        api = PersonaAPI(KEY, base_url=service.base_url)
        await asyncio.gather(*(api.create(request) for request in requests(3)))
        assert sockets() > before
        closing = asyncio.create_task(twice_cancelled(*points, api.close))
        await asyncio.wait([closing])
        await idle()
        assert sockets() == before


async def test_what_is_finished_raises_its_own_error_and_the_cancellation_after_its_end() -> None:
    """Nothing is swallowed: neither a failure nor a cancellation."""

    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await finish(fail())

    gate = asyncio.Event()
    task = asyncio.create_task(finish(gate.wait()))
    for _ in range(2):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
