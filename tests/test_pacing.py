"""Turns, the rate limit, and the cool-down that all calls share."""

import asyncio
from typing import Any

import pytest
from aiolimiter import AsyncLimiter
from support.broken_service import BrokenService, Exchange
from support.calls import calls, cancel, requests
from support.clock import Clock
from support.held_service import HeldService, client
from support.idle import turns

from suno_persona import (
    ConfigurationError,
    CreatePersonaRequest,
    PersonaAPI,
    PersonaError,
    RateLimitedError,
    RetryPolicy,
    ServiceUnavailableError,
)
from suno_persona.testing import FakeSuno, Fault


async def test_no_more_calls_are_under_way_than_there_are_connections(service: HeldService) -> None:
    """The others come as turns get free, in the order in which they were made."""
    async with client(service, max_connections=3) as api:
        tasks = calls(api, 6)
        await service.receives(3)
        for number in range(3):
            service.respond(number)
        await service.receives(6)
        for number in range(3, 6):
            service.respond(number)
        personas = await asyncio.gather(*tasks)
    assert {persona.name for persona in personas[:3]} == set(service.personas[:3])
    assert service.connections == 3


async def test_waiting_for_a_turn_is_no_timeout(service: HeldService, advance: Clock) -> None:
    """Each call's time starts with its turn: here the last one starts after four minutes of a timeout of one."""
    async with client(service, max_connections=1) as api:
        tasks = calls(api, 5)
        for number in range(5):
            await service.receives(number + 1)
            advance(50)
            service.respond(number)
        assert len(await asyncio.gather(*tasks)) == 5


async def test_a_turn_is_given_back_after_every_outcome(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """With one turn only, each call would wait for ever for that of the one before."""
    fake_suno.script(Fault.answer(400), Fault.lost_answer())
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, max_connections=1) as api:
        for _ in range(2):
            with pytest.raises(PersonaError):
                await api.create(request_)
        await api.create(request_)
        fake_suno.script(Fault.unavailable(3600))
        for _ in range(2):
            with pytest.raises(ServiceUnavailableError):
                await api.create(request_)


@pytest.mark.parametrize("status", [429, 503])
async def test_one_refusal_cools_all(service: HeldService, advance: Clock, status: int) -> None:
    """Nobody starts until the wait is over; then one goes first, and each answer lets twice as many follow."""
    async with client(service, max_connections=8) as api:
        tasks = calls(api, 30)
        await service.receives(8)
        service.reject(0, status)
        await turns()
        for number in range(1, 8):  # those that were under way already
            service.respond(number)
        await service.receives(8)
        advance(4.9)
        await service.receives(8)
        advance(0.2)
        await service.receives(9)
        service.respond(8)
        await service.receives(11)
        service.respond(9)
        await service.receives(14)  # 4 places: one is still taken, three are new
        service.respond(10)
        await service.receives(19)  # all 8 places
        for number in range(11, 31):
            await service.receives(min(31, number + 8))
            service.respond(number)
        await asyncio.gather(*tasks)
    assert len(service.received) == 31
    assert len(service.personas) == 30


async def test_a_refusal_of_the_first_one_cools_all_again(service: HeldService, advance: Clock) -> None:
    """Each round costs one refusal, not as many as there are calls."""
    async with client(service, max_connections=8, retry=RetryPolicy(attempts=50)) as api:
        tasks = calls(api, 8)
        await service.receives(8)
        for number in range(8):
            service.reject(number)
        for arrived in range(9, 20):
            await turns()
            advance(5.1)
            await service.receives(arrived)
            service.reject(arrived - 1)
        await cancel(tasks)


async def test_a_refusal_without_a_time_cools_all_by_the_backoff(service: HeldService, advance: Clock) -> None:
    """429 always asks all to wait; here for at most `wait_initial`."""
    async with client(service, max_connections=4, retry=RetryPolicy(wait_initial=2.0)) as api:
        tasks = calls(api, 4)
        await service.receives(4)
        for number in range(4):
            service.reject(number, retry_after=None)
        advance(2.1)
        while len(service.received) < 5:
            await asyncio.sleep(0)
            advance(2.1)
        await cancel(tasks)


async def test_a_shorter_wait_does_not_end_a_longer_one(service: HeldService, advance: Clock) -> None:
    """The latest end counts, whichever refusal named it."""
    async with client(service, max_connections=3) as api:
        tasks = calls(api, 3)
        await service.receives(3)
        service.reject(0, retry_after=20)
        await turns()
        service.reject(1, retry_after=1)
        await turns()
        service.reject(2, retry_after=25)
        await turns()
        advance(24.5)
        await service.receives(3)
        advance(1)
        await service.receives(4)
        await cancel(tasks)


async def test_a_wait_that_is_too_long_is_raised_for_all_and_nobody_sends(service: HeldService, advance: Clock) -> None:
    """Those that wait, and those that come later, get the refusal with the seconds that are left."""
    async with client(service, max_connections=2) as api:
        tasks = calls(api, 3)
        await service.receives(2)
        service.reject(0, retry_after=10)
        await turns()
        service.reject(1, retry_after=100)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        advance(60)
        with pytest.raises(RateLimitedError) as caught:
            await api.create(requests(1)[0])
        assert caught.value.retry_after == pytest.approx(40, abs=5)
        assert caught.value.attempts == 0
        advance(20)  # what is left now is not too long
        late = asyncio.create_task(api.create(requests(1)[0]))
        await service.receives(2)
        advance(25)
        await service.receives(3)
        service.respond(2)
        assert (await late).name == "0"
    assert all(isinstance(result, RateLimitedError) for result in results)
    assert [result.attempts for result in results if isinstance(result, RateLimitedError)] == [1, 1, 0]


class Quota:
    """A service that grants ten requests a second, by a clock that the test moves."""

    def __init__(self) -> None:
        self.left = 10
        self.refusals = 0

    async def __call__(self, exchange: Exchange) -> None:
        if self.left:
            self.left -= 1
            await exchange.send(exchange.response())
        else:
            self.refusals += 1
            await exchange.send(b"HTTP/1.1 429 No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")


async def test_calls_beyond_a_quota_all_succeed(advance: Clock) -> None:
    """100 calls against ten a second: nobody starves, and the service refuses less often than it grants."""
    quota = Quota()
    async with BrokenService(then=quota) as service:
        policy = RetryPolicy(attempts=20)
        async with PersonaAPI("sk-0123456789", base_url=service.base_url, retry=policy) as api:
            tasks = calls(api, 100)
            while not all(task.done() for task in tasks):
                before = -1
                while before != len(service.requests):  # until nothing more comes in this second
                    before = len(service.requests)
                    await turns()
                advance(1.0)
                quota.left = 10
            personas = await asyncio.gather(*tasks)
    assert sorted(int(persona.name or "") for persona in personas) == list(range(100))
    assert len(service.personas) == 100
    assert quota.refusals < 100


async def test_each_http_request_takes_one_of_the_rate_limit(
    fake_suno: FakeSuno, request_: CreatePersonaRequest
) -> None:
    """Repeated requests and followed redirects count too."""
    limit = AsyncLimiter(10, 3600)
    fake_suno.script(Fault.rate_limited(0), Fault.redirect("/suno/persona/create"), Fault.answer(200, b'{"id": "x"}'))
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, rate_limit=limit) as api:
        await api.create(request_)
    assert len(fake_suno.requests) == 3
    assert limit.has_capacity(7)
    assert not limit.has_capacity(8)


async def test_a_rate_limit_may_be_shared(fake_suno: FakeSuno, request_: CreatePersonaRequest, advance: Clock) -> None:
    """Two clients together stay within it."""
    limit = AsyncLimiter(3, 10)
    async with (
        PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, rate_limit=limit) as one,
        PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, rate_limit=limit) as two,
    ):
        tasks = [*calls(one, 4), *calls(two, 4)]
        while len(fake_suno.personas) < 3:
            await asyncio.sleep(0)
        await turns()
        assert len(fake_suno.requests) == 3
        while not all(task.done() for task in tasks):
            advance(3.4)
            await turns()
        await asyncio.gather(*tasks)


async def test_a_refusal_also_stops_those_who_wait_for_the_rate_limit(service: HeldService, advance: Clock) -> None:
    """A call that gets through the limit while others cool waits for the cool-down, and then for the limit again."""
    limit = AsyncLimiter(1, 10)
    async with client(service, max_connections=2, rate_limit=limit) as api:
        tasks = calls(api, 2)
        await service.receives(1)
        service.reject(0, retry_after=30)
        await turns()
        advance(11)
        await service.receives(1)
        advance(20)
        await service.receives(2)
        service.respond(1)
        await turns()
        advance(11)
        await service.receives(3)
        service.respond(2)
        await asyncio.gather(*tasks)


async def test_the_rate_limit_holds_after_a_cool_down_too(service: HeldService, advance: Clock) -> None:
    """What was taken of it meanwhile is not saved up: no burst when the service asked for calm."""
    async with client(service, max_connections=32, rate_limit=AsyncLimiter(2, 1)) as api:
        tasks = calls(api, 32)
        await service.receives(2)
        service.reject(0)
        service.respond(1)
        await turns()
        for _ in range(6):  # the cool-down, in which the limit lets two a second pass
            advance(1)
            await turns()
        number = 2
        while len(service.received) > number:  # no second passes any more
            service.respond(number)
            number += 1
            await turns()
        assert len(service.received) <= 2 + 4
        await cancel(tasks)


async def test_closing_ends_the_calls_that_cool_or_rest(service: HeldService) -> None:
    """At once, with a `UsageError`, and without another request."""
    policy = RetryPolicy(wait_initial=1e6, wait_max=1e6)
    api = client(service, max_connections=3, retry=policy)
    tasks = calls(api, 6)
    await service.receives(3)
    service.reject(0, 503, retry_after=None)  # rests on its own
    await turns()
    service.reject(1, 429, retry_after=600)  # cools all
    await turns()
    service.respond(2)
    await turns()
    await api.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result).__name__ for result in results].count("UsageError") == 5
    assert len(service.received) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate_limit": AsyncLimiter(0.5, 1)}, "rate_limit: expected one that lets a request pass"),
        ({"retry": 3}, "retry: expected an object of RetryPolicy, found 3"),
        ({"rate_limit": 10}, "rate_limit: expected an object of AsyncLimiter, found 10"),
    ],
)
def test_options_of_the_wrong_kind_are_refused(arguments: dict[str, Any], message: str) -> None:
    """The error names the option."""
    with pytest.raises(ConfigurationError, match=message):
        PersonaAPI("sk-0123456789", base_url="https://gateway.example", **arguments)


async def test_idle_connections_are_dropped_before_servers_do(advance: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is used again within four seconds, and not after them."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("aiohttp.connector.monotonic", lambda: loop.time())  # aiohttp asks no loop for this time
    async with BrokenService() as service, PersonaAPI("sk-0123456789", base_url=service.base_url) as api:
        for wait, connections in ((0, 1), (3, 1), (4.5, 2)):
            advance(wait)
            await turns()
            await api.create(requests(1)[0])
            assert service.connections == connections
