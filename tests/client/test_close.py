"""Closing ends waiting calls at once, and completes whatever is cancelled meanwhile."""

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiolimiter import AsyncLimiter
from support.broken_service import BrokenService
from support.calls import KEY, calls, requests
from support.cancellation import cancelled_at
from support.held_service import HeldService, client
from support.idle import idle
from support.journals import run_batch, states

from suno_persona import PersonaAPI, UsageError
from suno_persona._shield import finish
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno


async def test_closing_ends_the_calls_that_wait_for_the_rate_limit(service: HeldService) -> None:
    """They end at once, and take no capacity from a limiter that other clients share."""
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


async def twice_cancelled(
    first: int,
    second: int,
    work: Callable[[], Coroutine[Any, Any, object]],
    reached: set[tuple[str, int]] | None = None,
    count: Callable[[], int] = lambda: 0,
) -> None:
    """Cancel a coroutine at two of its suspension points."""

    async def once_cancelled() -> None:
        await cancelled_at(second, work(), reached, count)

    await cancelled_at(first, once_cancelled())


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts file descriptors where Linux lists them")
@pytest.mark.parametrize("points", [(first, second) for first in range(3) for second in range(first, 4)])
async def test_a_cancelled_close_still_closes_the_connections(points: tuple[int, int]) -> None:
    """It may be cancelled once or twice, as cancel scopes do, at every pair of its suspension points."""
    async with BrokenService() as service:
        before = sockets()
        api = PersonaAPI(KEY, base_url=service.base_url)
        await asyncio.gather(*(api.create(request) for request in requests(3)))
        assert sockets() > before
        closing = asyncio.create_task(twice_cancelled(*points, api.close))
        await asyncio.wait([closing])
        await idle()
        assert sockets() == before


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts file descriptors where Linux lists them")
async def test_a_cancelled_batch_still_closes_its_journal(
    tmp_path: Path, fake_suno: FakeSuno, once: PersonaAPI
) -> None:
    """It may be cancelled once or twice, at every pair of its suspension points; every request has an outcome."""
    reached: set[tuple[str, int]] = set()
    for first, second in itertools.combinations_with_replacement(range(12), 2):
        url, sent = str(tmp_path / f"{first}-{second}.db"), len(fake_suno.requests)
        batch = partial(run_batch, once, requests(2), Journal(url))
        count = partial(lambda sent: len(fake_suno.requests) - sent, sent)
        await asyncio.wait([asyncio.create_task(twice_cancelled(first, second, batch, reached, count))])
        while any(thread.name.startswith("suno-persona-journal") for thread in threading.enumerate()):
            await asyncio.sleep(0)
        open_files = (os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink())
        assert not [file for file in open_files if file.startswith(str(tmp_path))]
        if os.path.exists(url):
            assert "claimed" not in await states(url)
    assert {number for _, number in reached} >= {0, 2}, "before its requests, and after them"


async def test_finish_raises_the_error_or_a_deferred_cancellation() -> None:
    """It swallows neither a failure nor a cancellation, and completes its work before it raises."""

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
