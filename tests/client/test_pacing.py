"""Slots, the rate limit, and the cool-down that all calls of a client share, also under every mix of outcomes."""

import asyncio
from typing import Any

import attrs
import pytest
from aiolimiter import AsyncLimiter
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from multidict import CIMultiDict
from support.calls import BASE, KEY, REQUEST, calls, failure
from support.clock import Clock
from support.held_service import HeldService, client
from support.idle import idle
from support.virtual_loop import VirtualLoop

from suno_persona import (
    NotCreatedError,
    OutcomeUnknownError,
    PersonaAPI,
    RateLimitedError,
    RetryPolicy,
    UsageError,
)
from suno_persona._response import Exchange as HTTPExchange
from suno_persona._transport import Transport
from suno_persona.testing import FakeSuno, Fault


async def test_at_most_max_connections_calls_are_in_flight(service: HeldService) -> None:
    """The others get slots as they become free, in the order of the calls; one that is cancelled blocks none."""
    async with client(service, max_connections=3) as api:
        tasks = calls(api, 6)
        await service.receives(3)
        tasks[3].cancel()
        for number in range(3):
            service.respond(number)
        await service.receives(5)
        service.respond_to_all()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert tasks[3].cancelled()
    assert set(service.personas[:3]) == {"0", "1", "2"}
    assert set(service.personas[3:]) == {"4", "5"}
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


@pytest.mark.parametrize("status", [429, 503])
async def test_one_rate_limited_call_pauses_all(service: HeldService, advance: Clock, status: int) -> None:
    """No attempt starts during the cool-down; then one starts alone, and each response doubles how many may follow."""
    async with client(service, max_connections=8) as api:
        tasks = calls(api, 30)
        await service.receives(8)
        for number in (0, 1):  # one cool-down
            service.reject(number, status)
            await idle()
        for number in range(2, 8):  # those that were in flight already
            service.respond(number)
        await service.receives(8)
        advance(4.9)
        await service.receives(8)
        advance(0.2)
        await service.receives(9)
        service.reject(8, status)
        await service.receives(9)
        advance(5.1)
        await service.receives(10)
        service.respond(9)
        await service.receives(12)
        service.respond(10)
        await service.receives(15)  # a limit of 4, and one is still in flight
        service.respond(11)
        await service.receives(20)  # the limit is max_connections again
        service.respond_to_all()
        await asyncio.gather(*tasks)
    assert (len(service.received), len(service.personas)) == (33, 30)


async def test_a_cool_down_beyond_wait_max_is_raised_in_every_call(service: HeldService, advance: Clock) -> None:
    """Calls that wait, and later ones, raise the error with the seconds that are left, and send nothing."""
    async with client(service, max_connections=2) as api:
        tasks = calls(api, 3)
        await service.receives(2)
        service.reject(0, retry_after=10)
        await idle()
        service.reject(1, retry_after=100)
        results: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
        assert [(type(error), error.attempts) for error in results] == [(RateLimitedError, n) for n in (1, 1, 0)]
        advance(60)
        error = await failure(api)
        assert (error.retry_after, error.attempts) == (pytest.approx(40, abs=5), 0)
        advance(20)  # what is left now is within wait_max
        late = asyncio.create_task(api.create(REQUEST))
        await service.receives(2)
        advance(25)
        await service.receives(3)
        service.respond(2)
        assert (await late).name == "Neon"


async def test_each_attempt_counts_against_the_rate_limit(fake_suno: FakeSuno) -> None:
    """Retries count too, and those of every client that shares it; a redirect to the slash belongs to its attempt."""
    limit = AsyncLimiter(10, 3600)
    fake_suno.script(Fault.rate_limited(0), Fault.redirect("/suno/persona/create"), Fault.response(200, b'{"id": "x"}'))
    for _ in range(2):
        async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, rate_limit=limit) as api:
            await api.create(REQUEST)
    assert len(fake_suno.requests) == 4
    assert limit.has_capacity(7)
    assert not limit.has_capacity(8)


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


async def test_closing_ends_the_calls_that_wait_for_the_rate_limit(service: HeldService) -> None:
    """They raise `UsageError`, too."""
    async with client(service, rate_limit=AsyncLimiter(1, 3600)) as api:
        tasks = calls(api, 2)
        await service.receives(1)
        await api.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["ConnectionLostError", "UsageError"]


SLOTS = 3


@attrs.frozen
class Response:
    """A response of the service, or a connection that broke before or after the request was sent."""

    status: int | None
    wait: float | None = None
    sent: bool = True


statuses = st.sampled_from([200, 200, 200, 400, 500])
waits = st.sampled_from([None, 0, 1, 5, 20, 100])
responses = st.one_of(
    *(st.builds(Response, statuses), st.builds(Response, statuses)),
    st.builds(Response, st.sampled_from([429, 503]), waits),
    st.builds(Response, st.none(), sent=st.booleans()),
)


class Machine(RuleBasedStateMachine):
    """Calls of one client on a virtual loop; the rules end each HTTP exchange and advance time."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.exchanges: list[asyncio.Future[Response]] = []
        self.cool_down_ends = 0.0  # according to the service's Retry-After
        self.calls: list[asyncio.Task[Any]] = []
        self.is_closed = False
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(Transport, "post", self.exchange)
        policy = RetryPolicy(attempts=3, wait_max=30, retry_unknown=True)
        self.api = PersonaAPI(KEY, base_url=BASE, max_connections=SLOTS, retry=policy)

    async def exchange(self, exchange: HTTPExchange, *_: object) -> None:
        """Replace one HTTP exchange: check that no cool-down is active, and wait until a rule ends it."""
        assert self.loop.time() >= self.cool_down_ends, "no attempt starts within a cool-down"
        assert not self.is_closed, "no attempt starts after close"
        future: asyncio.Future[Response] = self.loop.create_future()
        self.exchanges.append(future)
        exchange.sent = True
        try:
            response = await future
        except asyncio.CancelledError as cancellation:
            exchange.ending, exchange.cancellation = "cancelled", cancellation
        else:
            exchange.status, exchange.sent, exchange.is_whole = response.status, response.sent, True
            exchange.ending = "lost" if response.status is None else "complete"
            exchange.headers = CIMultiDict({} if response.wait is None else {"Retry-After": str(response.wait)})
            exchange.received = b'{"id": "fd213afd"}' if response.status == 200 else b"{}"
        finally:
            self.exchanges.remove(future)

    @rule(count=st.integers(1, 5))
    def start(self, count: int) -> None:
        self.calls += [self.loop.create_task(self.api.create(REQUEST)) for _ in range(count)]
        self.loop.run_until_idle()

    @precondition(lambda self: self.exchanges)
    @rule(number=st.integers(0, 9), response=responses)
    def end(self, number: int, response: Response) -> None:
        future = self.exchanges[number % len(self.exchanges)]
        if response.status in (429, 503) and response.wait is not None:
            self.cool_down_ends = max(self.cool_down_ends, self.loop.time() + response.wait)
        future.set_result(response)
        self.loop.run_until_idle()

    @precondition(lambda self: self.calls)
    @rule(number=st.integers(0, 99), status=st.none() | statuses, passes=st.integers(0, 3))
    def cancel(self, number: int, status: int | None, passes: int) -> None:
        """Cancel a call, also as a response arrives, or a few passes of the loop later, while others are admitted."""
        if status is not None and self.exchanges:
            self.exchanges[0].set_result(Response(status))
        self.cancel_later(self.calls[number % len(self.calls)], passes)
        self.loop.run_until_idle()

    def cancel_later(self, call: asyncio.Task[Any], passes: int) -> None:
        if passes:
            self.loop.call_soon(self.cancel_later, call, passes - 1)
        else:
            call.cancel()

    @rule(seconds=st.sampled_from([0.1, 0.5, 1, 5, 30]))
    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)

    @precondition(lambda self: len(self.calls) > 8 and not self.is_closed)
    @rule()
    def close(self) -> None:
        """Close the client, which breaks the connections: every call ends, and no time passes."""
        self.is_closed = True
        self.loop.finish(self.api.close())
        while self.exchanges:
            self.end(0, Response(None))
        assert all(call.done() for call in self.calls)

    @invariant()
    def never_more_in_flight_than_slots(self) -> None:
        assert len(self.exchanges) <= SLOTS

    def teardown(self) -> None:
        """Let the service succeed from now on: every call ends, and the client works as if it were new."""
        for _ in range(200):
            while self.exchanges:
                self.end(0, Response(200))
            if all(call.done() for call in self.calls):
                break
            self.loop.advance(30)
        assert all(call.done() for call in self.calls), "nobody waits for ever"
        for call in self.calls:
            if not call.cancelled() and (error := call.exception()) is not None:
                assert isinstance(error, NotCreatedError | OutcomeUnknownError)
        if not self.is_closed:
            self.all_slots_are_free()
        self.loop.finish(self.api.close())
        with pytest.raises(UsageError):
            self.loop.finish(self.api.create(REQUEST))
        self.loop.run_until_idle()
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()
        self.patch.undo()

    def all_slots_are_free(self) -> None:
        """Check that, after a few successes, every slot can be in flight at once."""
        self.loop.advance(max(0.0, self.cool_down_ends - self.loop.time()) + 31)
        for _ in range(SLOTS):
            call = self.loop.create_task(self.api.create(REQUEST))
            self.loop.run_until_idle()
            self.end(0, Response(200))
            call.result()
        calls = [self.loop.create_task(self.api.create(REQUEST)) for _ in range(SLOTS + 1)]
        self.loop.run_until_idle()
        assert len(self.exchanges) == SLOTS
        while self.exchanges:
            self.end(0, Response(200))
        assert all(call.done() for call in calls)


Machine.TestCase.settings = settings(settings(), stateful_step_count=40, deadline=None)
TestAdmission = Machine.TestCase
