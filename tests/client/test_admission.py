"""Admission under every mix of outcomes: nothing leaks, no call waits for ever, no attempt starts in a cool-down."""

import asyncio
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from multidict import CIMultiDict
from support.calls import KEY, requests
from support.virtual_loop import VirtualLoop

from suno_persona import (
    NotCreatedError,
    OutcomeUnknownError,
    PersonaAPI,
    RetryPolicy,
    UsageError,
)
from suno_persona._response import Exchange
from suno_persona._transport import Transport

SLOTS = 3
ROUNDS = 200

waits = st.one_of(st.none(), st.sampled_from([0, 1, 5, 20, 100]))
statuses = st.sampled_from([200, 200, 200, 400, 500])


@attrs.frozen
class Response:
    """A response of the service, or a connection that broke before or after the request was sent."""

    status: int | None
    wait: float | None = None
    sent: bool = True


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
        self.api = PersonaAPI(KEY, base_url="https://gateway.example", max_connections=SLOTS, retry=policy)

    async def exchange(self, exchange: Exchange, *_: object) -> None:
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

    def end(self, number: int, response: Response) -> None:
        """End one of the exchanges in flight."""
        future = self.exchanges[number % len(self.exchanges)]
        if response.status in (429, 503) and response.wait is not None:
            self.cool_down_ends = max(self.cool_down_ends, self.loop.time() + response.wait)
        future.set_result(response)
        self.loop.run_until_idle()

    @rule(count=st.integers(1, 5))
    def start(self, count: int) -> None:
        """Start some calls at once."""
        self.calls += [self.loop.create_task(self.api.create(request)) for request in requests(count)]
        self.loop.run_until_idle()

    @precondition(lambda self: self.exchanges)
    @rule(number=st.integers(0, 9), status=statuses)
    def respond(self, number: int, status: int) -> None:
        """Let the service create, reject or fail."""
        self.end(number, Response(status))

    @precondition(lambda self: self.exchanges)
    @rule(number=st.integers(0, 9), status=st.sampled_from([429, 503]), wait=waits)
    def reject(self, number: int, status: int, wait: float | None) -> None:
        """Let the service rate limit or be unavailable."""
        self.end(number, Response(status, wait))

    @precondition(lambda self: self.exchanges)
    @rule(number=st.integers(0, 9), sent=st.booleans())
    def lose(self, number: int, sent: bool) -> None:
        """Break a connection, before or after the request was sent."""
        self.end(number, Response(None, sent=sent))

    @precondition(lambda self: self.calls)
    @rule(number=st.integers(0, 99))
    def cancel(self, number: int) -> None:
        """Cancel one of the calls, whatever its phase."""
        self.calls[number % len(self.calls)].cancel()
        self.loop.run_until_idle()

    @precondition(lambda self: self.exchanges and self.calls)
    @rule(number=st.integers(0, 99), status=statuses, passes=st.integers(0, 3))
    def cancel_as_a_response_arrives(self, number: int, status: int, passes: int) -> None:
        """Cancel a call as a response arrives, or a few passes of the loop later, while others are admitted."""
        self.exchanges[0].set_result(Response(status))
        pending = [call for call in self.calls if not call.done()]
        self.cancel_later(pending[number % len(pending)], passes)
        self.loop.run_until_idle()

    def cancel_later(self, call: asyncio.Task[Any], passes: int) -> None:
        """Cancel a call after this many passes of the loop."""
        if passes:
            self.loop.call_soon(self.cancel_later, call, passes - 1)
        else:
            call.cancel()

    @rule(seconds=st.sampled_from([0.1, 0.5, 1, 5, 30]))
    def advance(self, seconds: float) -> None:
        """Advance time."""
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
        """Never exceed `max_connections`."""
        assert len(self.exchanges) <= SLOTS

    def teardown(self) -> None:
        """Let the service succeed from now on: every call ends, and the client works as if it were new."""
        for _ in range(ROUNDS):
            while self.exchanges:
                self.end(0, Response(200))
            if all(call.done() for call in self.calls):
                break
            self.loop.advance(30)
        assert all(call.done() for call in self.calls), "nobody waits for ever"
        for call in self.calls:
            if not call.cancelled() and (error := call.exception()) is not None:
                assert isinstance(error, NotCreatedError | OutcomeUnknownError)
        if self.is_closed:
            with pytest.raises(UsageError):
                self.loop.finish(self.api.create(requests(1)[0]))
        else:
            self.all_slots_are_free()
        self.loop.finish(self.api.close())
        self.loop.run_until_idle()
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()
        self.patch.undo()

    def all_slots_are_free(self) -> None:
        """Check that, after a few successes, every slot can be in flight at once."""
        self.loop.advance(max(0.0, self.cool_down_ends - self.loop.time()) + 31)
        for _ in range(SLOTS):
            call = self.loop.create_task(self.api.create(requests(1)[0]))
            self.loop.run_until_idle()
            self.end(0, Response(200))
            call.result()
        calls = [self.loop.create_task(self.api.create(request)) for request in requests(SLOTS + 1)]
        self.loop.run_until_idle()
        assert len(self.exchanges) == SLOTS
        while self.exchanges:
            self.end(0, Response(200))
        assert all(call.done() for call in calls)


Machine.TestCase.settings = settings(settings(), stateful_step_count=40, deadline=None)
TestAdmission = Machine.TestCase
