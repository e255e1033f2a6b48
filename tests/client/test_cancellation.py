"""Cancelling is safe at every suspension point of a call: it releases everything, and blocks no other call."""

import asyncio
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from aiolimiter import AsyncLimiter
from support.broken_service import Act, BrokenService, Exchange
from support.calls import REQUEST, requests
from support.cancellation import OWN, cancelled_at
from support.clock import Clock
from support.held_service import client
from support.idle import idle, turns
from support.journals import run_batch, states

from suno_persona import PersonaAPI, RetryPolicy
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno


def responds(line: str, *headers: str) -> Act:
    """Respond with a status and no body."""

    async def act(exchange: Exchange) -> None:
        await exchange.send("\r\n".join([f"HTTP/1.1 {line}", *headers, "Content-Length: 0", "", ""]).encode())

    return act


async def create_in_two_parts(exchange: Exchange) -> None:
    """Respond with a persona, and send the body only once the client waits for it."""
    head, _, body = exchange.response().partition(b"\r\n\r\n")
    await exchange.send(head + b"\r\n\r\n")
    await turns(20)
    await exchange.send(body)


async def drop(exchange: Exchange) -> None:
    """Close the connection instead of responding."""
    exchange.close()


@attrs.frozen
class Scenario:
    """How the service responds, and the phases in which the sweep must have cancelled the call.

    A phase is what the call was waiting for, and how many requests of the client had arrived by then.
    """

    acts: list[Act]
    phases: set[tuple[str, int]]
    options: Callable[[], dict[str, Any]] = dict


CONNECTING = ("connecting", 0)
RESPONSE = "waiting for the response"
SCENARIOS = {
    "a slow response": Scenario([create_in_two_parts], {CONNECTING, (RESPONSE, 0), ("reading the response", 1)}),
    "a cool-down": Scenario(
        [responds("429 Slow", "Retry-After: 5"), responds("503 Busy", "Retry-After: 5")],
        {CONNECTING, (RESPONSE, 0), (OWN, 1), (RESPONSE, 1), (OWN, 2), (RESPONSE, 2)},
    ),
    "a backoff": Scenario(
        [responds("503 Busy"), drop],
        {CONNECTING, (RESPONSE, 0), (OWN, 1), (RESPONSE, 1), (OWN, 2), ("connecting", 2), (RESPONSE, 2)},
        lambda: {"retry": RetryPolicy(wait_initial=5, retry_unknown=True)},
    ),
    "a redirect": Scenario(
        [responds("308 Moved", "Location: /suno/persona/create")], {CONNECTING, (RESPONSE, 0), (RESPONSE, 1)}
    ),
    "a rate limit": Scenario(
        [responds("503 Busy")],
        {CONNECTING, (RESPONSE, 0), (OWN, 1), (RESPONSE, 1)},
        lambda: {"rate_limit": AsyncLimiter(1, 5), "retry": RetryPolicy(wait_initial=0)},
    ),
}


async def finish(call: asyncio.Task[Any], advance: Clock) -> None:
    """Advance time until a call is done."""
    await idle()
    while not call.done():
        advance(5)
        await idle()


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_call_can_be_cancelled_wherever_it_suspends(name: str, advance: Clock) -> None:
    """Afterwards a client with one slot and one connection makes its next call, and no task is left."""
    scenario = SCENARIOS[name]
    before = asyncio.all_tasks()
    reached: set[tuple[str, int]] = set()
    cancelled, point = True, -1
    while cancelled:
        point += 1
        service = BrokenService(*scenario.acts)
        async with service, client(service, max_connections=1, **scenario.options()) as api:
            count = partial(len, service.requests)
            call = asyncio.create_task(cancelled_at(point, api.create(REQUEST), reached, count))
            await finish(call, advance)
            received = len(service.requests)
            service.acts.clear()  # a cancelled call may have left some
            following = asyncio.create_task(api.create(REQUEST))
            await finish(following, advance)
            assert following.result().name == "Neon"
            assert len(service.requests) == received + 1
        await idle()
        assert asyncio.all_tasks() == before
        cancelled = call.cancelled()
    assert scenario.phases <= reached


@pytest.mark.slow
async def test_a_cancelled_batch_still_closes_its_journal(
    tmp_path: Path, fake_suno: FakeSuno, once: PersonaAPI
) -> None:
    """It may be cancelled twice, at every one of its suspension points; every request has an outcome."""
    reached: set[tuple[str, int]] = set()
    for point in range(12):
        url = str(tmp_path / f"{point}.db")
        fake_suno.requests.clear()
        running = run_batch(once, requests(2), Journal(url))
        batch = cancelled_at(point, running, reached, partial(len, fake_suno.requests))
        await asyncio.wait([asyncio.create_task(cancelled_at(point, batch))])
        while any(thread.name.startswith("suno-persona-journal") for thread in threading.enumerate()):
            await asyncio.sleep(0)
        if os.path.exists(url):
            assert "claimed" not in await states(url)
    assert {number for _, number in reached} >= {0, 2}, "before its requests, and after them"
