"""Slots, the rate limit, and the cool-down that all calls of a client share."""

import asyncio
from typing import Any

import pytest
from aiolimiter import AsyncLimiter
from support.broken_service import BrokenService, Exchange
from support.calls import calls, cancel, requests
from support.clock import Clock
from support.held_service import HeldService, client
from support.idle import idle

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


async def test_at_most_max_connections_calls_are_in_flight(service: HeldService) -> None:
    """The others get slots as they become free, in the order of the calls."""
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


async def test_waiting_for_a_slot_does_not_count_towards_the_timeout(service: HeldService, advance: Clock) -> None:
    """A call's timeout starts when it gets its slot: here the last one after 200 seconds, with a timeout of 60."""
    async with client(service, max_connections=1) as api:
        tasks = calls(api, 5)
        for number in range(5):
            await service.receives(number + 1)
            advance(50)
            service.respond(number)
        assert len(await asyncio.gather(*tasks)) == 5


async def test_every_outcome_releases_the_slot(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """With one slot, each call would otherwise wait for ever for the one before it."""
    fake_suno.script(Fault.response(400), Fault.lost_answer())
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
async def test_one_rate_limited_call_pauses_all(service: HeldService, advance: Clock, status: int) -> None:
    """No attempt starts during the cool-down; then one starts alone, and each response doubles how many may follow."""
    async with client(service, max_connections=8) as api:
        tasks = calls(api, 30)
        await service.receives(8)
        service.reject(0, status)
        await idle()
        for number in range(1, 8):  # those that were in flight already
            service.respond(number)
        await service.receives(8)
        advance(4.9)
        await service.receives(8)
        advance(0.2)
        await service.receives(9)
        service.respond(8)
        await service.receives(11)
        service.respond(9)
        await service.receives(14)  # a limit of 4, and one is still in flight
        service.respond(10)
        await service.receives(19)  # the limit is max_connections again
        for number in range(11, 31):
            await service.receives(min(31, number + 8))
            service.respond(number)
        await asyncio.gather(*tasks)
    assert len(service.received) == 31
    assert len(service.personas) == 30


async def test_a_rate_limited_first_attempt_pauses_all_again(service: HeldService, advance: Clock) -> None:
    """Each cool-down costs one rejected request, not one for each call."""
    async with client(service, max_connections=8, retry=RetryPolicy(attempts=50)) as api:
        tasks = calls(api, 8)
        await service.receives(8)
        for number in range(8):
            service.reject(number)
        for arrived in range(9, 20):
            await idle()
            advance(5.1)
            await service.receives(arrived)
            service.reject(arrived - 1)
        await cancel(tasks)


async def test_a_429_without_retry_after_pauses_all_by_the_backoff(service: HeldService, advance: Clock) -> None:
    """A 429 without `Retry-After` starts a cool-down too; here of at most `wait_initial`."""
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


async def test_a_shorter_cool_down_does_not_end_a_longer_one(service: HeldService, advance: Clock) -> None:
    """The latest end counts, whichever response named it."""
    async with client(service, max_connections=3) as api:
        tasks = calls(api, 3)
        await service.receives(3)
        service.reject(0, retry_after=20)
        await idle()
        service.reject(1, retry_after=1)
        await idle()
        service.reject(2, retry_after=25)
        await idle()
        advance(24.5)
        await service.receives(3)
        advance(1)
        await service.receives(4)
        await cancel(tasks)


async def test_a_cool_down_beyond_wait_max_is_raised_in_every_call(service: HeldService, advance: Clock) -> None:
    """Calls that wait, and later ones, raise the error with the seconds that are left, and send nothing."""
    async with client(service, max_connections=2) as api:
        tasks = calls(api, 3)
        await service.receives(2)
        service.reject(0, retry_after=10)
        await idle()
        service.reject(1, retry_after=100)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        advance(60)
        with pytest.raises(RateLimitedError) as caught:
            await api.create(requests(1)[0])
        assert caught.value.retry_after == pytest.approx(40, abs=5)
        assert caught.value.attempts == 0
        advance(20)  # what is left now is within wait_max
        late = asyncio.create_task(api.create(requests(1)[0]))
        await service.receives(2)
        advance(25)
        await service.receives(3)
        service.respond(2)
        assert (await late).name == "0"
    assert all(isinstance(result, RateLimitedError) for result in results)
    assert [result.attempts for result in results if isinstance(result, RateLimitedError)] == [1, 1, 0]


class Quota:
    """A service that serves ten requests a second, by a clock that the test moves."""

    def __init__(self) -> None:
        self.left = 10
        self.rejected = 0

    async def __call__(self, exchange: Exchange) -> None:
        if self.left:
            self.left -= 1
            await exchange.send(exchange.response())
        else:
            self.rejected += 1
            await exchange.send(b"HTTP/1.1 429 No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")


async def test_calls_beyond_a_quota_all_succeed(advance: Clock) -> None:
    """100 calls at ten a second: no call starves, and fewer requests are rejected than served."""
    quota = Quota()
    async with BrokenService(then=quota) as service:
        policy = RetryPolicy(attempts=20)
        async with client(service, retry=policy) as api:
            tasks = calls(api, 100)
            while not all(task.done() for task in tasks):
                await idle()
                advance(1.0)
                quota.left = 10
            personas = await asyncio.gather(*tasks)
    assert sorted(int(persona.name or "") for persona in personas) == list(range(100))
    assert len(service.personas) == 100
    assert quota.rejected < 100


async def test_each_attempt_counts_against_the_rate_limit(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """Retries count too; a redirect to the other path of the endpoint belongs to its attempt."""
    limit = AsyncLimiter(10, 3600)
    fake_suno.script(Fault.rate_limited(0), Fault.redirect("/suno/persona/create"), Fault.response(200, b'{"id": "x"}'))
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, rate_limit=limit) as api:
        await api.create(request_)
    assert len(fake_suno.requests) == 3
    assert limit.has_capacity(8)
    assert not limit.has_capacity(9)


async def test_a_rate_limit_may_be_shared(advance: Clock) -> None:
    """Two clients together stay within one limiter."""
    shared = {"rate_limit": AsyncLimiter(3, 10)}
    async with BrokenService() as service, client(service, **shared) as one, client(service, **shared) as two:
        tasks = [*calls(one, 4), *calls(two, 4)]
        await idle()
        assert len(service.requests) == 3
        for sent in range(4, 9):
            advance(3.4)
            await idle()
            assert len(service.requests) == sent
        await asyncio.gather(*tasks)


async def test_a_cool_down_also_holds_back_calls_that_wait_for_the_rate_limit(
    service: HeldService, advance: Clock
) -> None:
    """A call that passes the limit during a cool-down waits for its end, and then for the limit again."""
    limit = AsyncLimiter(1, 10)
    async with client(service, max_connections=2, rate_limit=limit) as api:
        tasks = calls(api, 2)
        await service.receives(1)
        service.reject(0, retry_after=30)
        await idle()
        advance(11)
        await service.receives(1)
        advance(20)
        await service.receives(2)
        service.respond(1)
        await idle()
        advance(11)
        await service.receives(3)
        service.respond(2)
        await asyncio.gather(*tasks)


async def test_the_rate_limit_holds_after_a_cool_down_too(service: HeldService, advance: Clock) -> None:
    """Permits that pass the limit during the cool-down do not accumulate: there is no burst after it."""
    async with client(service, max_connections=32, rate_limit=AsyncLimiter(2, 1)) as api:
        tasks = calls(api, 32)
        await service.receives(2)
        service.reject(0)
        service.respond(1)
        await idle()
        for _ in range(6):  # the cool-down, during which two a second pass the limit
            advance(1)
            await idle()
        number = 2
        while len(service.received) > number:  # the clock stands still
            service.respond(number)
            number += 1
            await idle()
        assert len(service.received) <= 2 + 4
        await cancel(tasks)


async def test_closing_ends_the_calls_that_wait(service: HeldService) -> None:
    """Calls in a backoff or a cool-down raise `UsageError` at once, and send nothing more."""
    policy = RetryPolicy(wait_initial=1e6, wait_max=1e6)
    api = client(service, max_connections=3, retry=policy)
    tasks = calls(api, 6)
    await service.receives(3)
    service.reject(0, 503, retry_after=None)  # a backoff of this call alone, which holds no slot
    await service.receives(4)
    service.reject(1, 429, retry_after=600)  # a cool-down of all
    await idle()
    service.respond(2)
    await idle()
    await api.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result).__name__ for result in results] == [
        *("UsageError", "UsageError", "Persona", "ConnectionLostError", "UsageError", "UsageError")
    ]
    assert len(service.received) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate_limit": AsyncLimiter(0.5, 1)}, "rate_limit must be a limiter with max_rate >= 1; got max_rate=0.5"),
        ({"retry": 3}, "retry must be an instance of RetryPolicy; got 3"),
        ({"rate_limit": 10}, "rate_limit must be an instance of AsyncLimiter; got 10"),
    ],
)
def test_an_option_that_cannot_be_used_is_a_configuration_error(arguments: dict[str, Any], message: str) -> None:
    """The error names the option, what it must be, and what it got."""
    with pytest.raises(ConfigurationError, match=message):
        PersonaAPI("sk-0123456789", base_url="https://gateway.example", **arguments)


async def test_idle_connections_are_closed_before_servers_close_them(
    advance: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection is reused within four seconds, and not later."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(
        "aiohttp.connector.monotonic", lambda: loop.time()
    )  # aiohttp does not take this time from the loop
    async with BrokenService() as service, client(service) as api:
        for wait, connections in ((0, 1), (3, 1), (4.5, 2)):
            advance(wait)
            await idle()
            await api.create(requests(1)[0])
            assert service.connections == connections
