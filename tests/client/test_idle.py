"""`idle`, on which other tests rely, returns once nothing more happens by itself, and not earlier."""

import asyncio

import pytest
from support.broken_service import BrokenService
from support.calls import calls
from support.clock import Clock
from support.held_service import client
from support.idle import idle


async def test_idle_waits_for_a_chain_of_callbacks_of_any_length() -> None:
    """A fixed number of loop turns that is enough for today's code may not be enough for tomorrow's."""
    done = False

    async def work() -> None:
        nonlocal done
        for _ in range(1000):
            await asyncio.sleep(0)
        done = True

    task = asyncio.create_task(work())
    await idle()
    assert done
    await task


@pytest.mark.parametrize("count", [1, 8])
async def test_idle_waits_for_calls_over_loopback(count: int) -> None:
    """`idle` waits until connections are accepted, requests are sent and responses are read."""
    for _ in range(5):
        async with BrokenService() as service, client(service) as api:
            tasks = calls(api, count)
            await idle()
            assert all(task.done() for task in tasks)


async def test_idle_waits_for_a_connection_to_be_closed_on_both_sides() -> None:
    """A server sees the end of a connection that its client closed, before `idle` returns."""
    ended = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(await reader.read())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        for number in range(20):
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"last words")
            writer.close()
            await idle()
            assert len(ended) == number + 1


async def test_idle_waits_for_timers_that_are_due_and_for_no_others(advance: Clock) -> None:
    """A timer that is not due yet does not block `idle`."""
    soon, late = (asyncio.create_task(asyncio.sleep(seconds)) for seconds in (5, 3600))
    await idle()
    assert not soon.done()
    advance(5.1)
    await idle()
    assert soon.done()
    assert not late.done()
    late.cancel()
