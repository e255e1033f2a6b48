"""Cancelling is safe wherever a call stands: everything is given back, and nobody else is held up."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiolimiter import AsyncLimiter
from support.calls import calls, requests
from support.cancellation import cancelled_at
from support.clock import Clock
from support.held_service import HeldService, client
from support.idle import turns

from suno_persona import CreatePersonaRequest, PersonaAPI, RetryPolicy
from suno_persona.testing import FakeSuno, Fault


async def run(point: int, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The coroutine's result, with a cancellation at this point."""
    return await cancelled_at(point, coroutine)


AGAIN = RetryPolicy(wait_initial=0, retry_unknown=True)

SCENARIOS: dict[str, tuple[list[Fault], Callable[[], dict[str, Any]]]] = {
    "a plain call": ([], dict),
    "a call that is refused first": ([Fault.rate_limited(0), Fault.unavailable(0)], dict),
    "a call that is redirected": ([Fault.redirect("/suno/persona/create")], dict),
    "a call that fails and is tried again": ([Fault.unavailable(), Fault.dropped()], lambda: {"retry": AGAIN}),
    "a call with a rate limit": ([Fault.rate_limited(0)], lambda: {"rate_limit": AsyncLimiter(100, 1)}),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_call_can_be_cancelled_wherever_it_suspends(scenario: str, request_: CreatePersonaRequest) -> None:
    """At each point in turn: the next call of a client with one turn and one connection works, and nothing is left."""
    faults, options = SCENARIOS[scenario]
    before = asyncio.all_tasks()
    point, cancelled = -1, True
    while cancelled:
        point += 1
        async with (
            FakeSuno() as fake,
            PersonaAPI(fake.api_key, base_url=fake.base_url, max_connections=1, **options()) as api,
        ):
            fake.script(*faults)
            call = asyncio.create_task(run(point, api.create(request_)))
            await asyncio.wait([call])
            await turns()
            seen = len(fake.requests)
            fake.clear_script()  # of which the cancelled call did not meet all
            assert (await api.create(request_)).name == "Neon"
            assert len(fake.requests) == seen + 1
        await turns()
        assert asyncio.all_tasks() == before
        cancelled = call.cancelled()
        assert seen == 0 or point > 0, "there was no connection yet at the first point"
    assert point >= 2, "the call was cancelled at several points"


async def test_a_call_cancelled_while_it_waits_for_its_turn_sends_nothing(service: HeldService) -> None:
    """And those behind it get theirs."""
    async with client(service, max_connections=1) as api:
        tasks = calls(api, 4)
        await service.receives(1)
        tasks[1].cancel()
        for number in (0, 1, 2):
            await service.receives(number + 1)
            service.respond(number)
        await asyncio.gather(*tasks, return_exceptions=True)
    assert tasks[1].cancelled()
    assert service.personas == ["0", "2", "3"]


@pytest.mark.parametrize("later", range(6))
async def test_a_call_cancelled_while_it_cools_holds_nobody_up(
    service: HeldService, advance: Clock, later: int
) -> None:
    """Also where it is cancelled in the very turns of the loop in which it would have gone first."""
    async with client(service, max_connections=3) as api:
        tasks = calls(api, 6)
        await service.receives(3)
        service.reject(0)
        await turns()
        service.respond(1)
        service.respond(2)
        await service.receives(3)
        advance(5.1)
        for _ in range(later):
            await asyncio.sleep(0)
        tasks[0].cancel()  # the one that was refused stands first in the queue
        number = 3
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            while number < len(service.received):
                service.respond(number)
                number += 1
    assert tasks[0].cancelled()
    assert {"1", "2", "3", "4", "5"} <= set(service.personas)


@pytest.mark.parametrize("later", range(6))
async def test_a_call_cancelled_while_it_waits_for_the_rate_limit_holds_nobody_up(
    service: HeldService, advance: Clock, later: int
) -> None:
    """It takes nothing of the limit, and the next one goes in its place."""
    async with client(service, max_connections=4, rate_limit=AsyncLimiter(1, 10)) as api:
        tasks = calls(api, 4)
        await service.receives(1)
        service.respond(0)
        await turns()
        advance(10.1)
        for _ in range(later):
            await asyncio.sleep(0)
        tasks[1].cancel()
        number = 1
        while not all(task.done() for task in tasks):
            advance(1)
            await turns(20)
            while number < len(service.received):
                service.respond(number)
                number += 1
    assert {"2", "3"} <= set(service.personas)


async def test_a_call_cancelled_between_two_attempts_sends_nothing_more(service: HeldService) -> None:
    """The wait after a failure can be cancelled like any other, and gives the turn back."""
    async with client(service, max_connections=1, retry=RetryPolicy(wait_initial=1e6, wait_max=1e6)) as api:
        call = asyncio.create_task(api.create(requests(1)[0]))
        await service.receives(1)
        service.reject(0, 503, retry_after=None)
        await turns()
        call.cancel()
        (result,) = await asyncio.gather(call, return_exceptions=True)
        assert isinstance(result, asyncio.CancelledError)
        other = asyncio.create_task(api.create(requests(1)[0]))
        await service.receives(2)
        service.respond(1)
        await other
