"""However a batch ends, it ends at once, sends nothing more, closes its source and releases its slots."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, cast

import pytest
from support.calls import calls, cancel, requests
from support.held_service import OPENING, HeldService, client, first_outcome, opened
from support.idle import idle, turns

from suno_persona import CreatePersonaRequest, OutcomeUnknownError, PersonaAPI

pytestmark = pytest.mark.timeout(30)


async def test_a_reader_that_stops_early_lets_calls_in_flight_finish(service: HeldService) -> None:
    """No more requests are sent, and no request in flight is cancelled."""
    async with client(service, max_connections=3) as api:
        outcomes = api.create_many(opened(requests(10), 3))
        await first_outcome(service, outcomes, 3)
        await service.receives(4)
        closing = asyncio.create_task(outcomes.aclose())
        await idle()
        assert not closing.done()
        for number in (1, 2, 3):
            service.respond(number)
        await closing
        await service.receives(4)
        assert len(service.personas) == 4


async def test_a_break_stops_a_batch_cleanly(service: HeldService) -> None:
    """Leaving the `async for` is enough: calls in flight finish in the background."""
    async with client(service, max_connections=2) as api:

        async def first_only() -> None:
            async for outcome in api.create_many(opened(requests(9), 2)):
                if not outcome.request.name.startswith(OPENING):
                    break

        reader = asyncio.create_task(first_only())
        await service.receives(2)
        service.respond(0)
        await reader
        await service.receives(3)
        service.respond_to_all()
        await service.receives(3)


async def test_a_reader_that_stops_early_retries_nothing(service: HeldService) -> None:
    """Calls that wait for a retry end at once, and a 429 that arrives later is final."""
    async with client(service) as api:
        outcomes = api.create_many(opened(requests(3), 3))
        await first_outcome(service, outcomes, 3)
        service.reject(1, retry_after=20)
        await idle()
        closing = asyncio.create_task(outcomes.aclose())
        await idle()
        service.reject(2, retry_after=0)
        await closing
        await service.receives(3)


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_stopping_a_batch_releases_its_slots(how: str) -> None:
    """Whenever it stops, later calls of the client get every slot."""
    reached = set()
    done = False
    for moment in itertools.count():
        if done:
            break
        async with HeldService() as service, client(service, max_connections=3) as api:
            service.respond_to_all()
            outcomes = api.create_many(requests(50))
            reader = asyncio.create_task(anext(outcomes))
            await turns(moment)
            done = reader.done()
            reached.add("responded" if done else "in flight" if service.requests else "before a request is sent")
            if how == "closed":
                await reader
                await turns(moment)
                await outcomes.aclose()
            else:
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
            await idle()
            service.hold()
            before = len(service.requests)
            held = calls(api, 3)
            await idle()
            assert len(service.requests) == before + 3
            await cancel(held)
    assert reached == {"before a request is sent", "in flight", "responded"}


@pytest.mark.parametrize("waits_for", ["an outcome", "something else"])
async def test_a_cancelled_reader_cancels_its_calls(service: HeldService, waits_for: str) -> None:
    """The batch ends at once, and releases slots and connections."""
    async with client(service, max_connections=2) as api:

        async def read() -> None:
            async with aclosing(api.create_many(opened(requests(9), 2))) as outcomes:
                async for outcome in outcomes:
                    if waits_for == "something else" and not outcome.request.name.startswith(OPENING):
                        await asyncio.Event().wait()

        reader = asyncio.create_task(read())
        await service.receives(2)
        service.respond(0)
        await service.receives(3)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        single = asyncio.create_task(api.create(requests(1)[0]))
        await service.receives(4)
        service.respond(3)
        await single


async def test_a_swallowed_cancellation_does_not_cancel_calls_in_flight(service: HeldService) -> None:
    """An early stop still waits for them, even if the reader's task was cancelled before."""
    async with client(service, max_connections=2) as api:

        async def read() -> None:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            async with aclosing(api.create_many(opened(requests(9), 2))) as outcomes:
                await anext(outcomes)
                await anext(outcomes)

        reader = asyncio.create_task(read())
        await asyncio.sleep(0)
        reader.cancel()
        await service.receives(2)
        service.respond(0)
        await idle()
        assert not reader.done()
        service.respond_to_all()
        await reader
    assert len(service.personas) == len(service.received)


async def test_cancelling_aclose_cancels_the_calls_in_flight(service: HeldService) -> None:
    """A reader need not wait for them."""
    async with client(service) as api:
        outcomes = api.create_many(opened(requests(2), 2))
        await first_outcome(service, outcomes, 2)
        closing = asyncio.create_task(outcomes.aclose())
        await idle()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing


async def test_a_cancelled_batch_yields_an_outcome_for_each_call_in_flight(service: HeldService) -> None:
    """The command stops at once by this, and still reports which personas may exist."""
    async with client(service, max_connections=2) as api, api.batch(opened(requests(9), 2)) as batch:
        assert (await anext(batch)).request.name.startswith(OPENING)
        first = asyncio.ensure_future(anext(batch))
        await service.until(2)
        batch.cancel()
        outcomes = [await first, *[outcome async for outcome in batch]]
    assert sorted(outcome.index for outcome in outcomes) == [1, 2]
    for outcome in outcomes:
        assert isinstance(outcome.error, OutcomeUnknownError)
        assert outcome.error.attempts == 1
    assert len(service.received) == 2


async def test_closing_the_client_ends_the_batch(service: HeldService) -> None:
    """Calls in flight have an unknown outcome, the others are not sent, and every request has an outcome."""

    async def read(api: PersonaAPI) -> list[str]:
        outcomes = [outcome async for outcome in api.create_many(opened(requests(5), 2))]
        return [type(outcome.error).__name__ for outcome in outcomes if outcome.error]

    async with client(service, max_connections=2) as api:
        batch = asyncio.create_task(read(api))
        await service.receives(2)
    assert sorted(await batch) == ["ConnectionLostError"] * 2 + ["UsageError"] * 3


async def test_a_source_is_closed_at_an_early_end(service: HeldService) -> None:
    """So no file or cursor stays open. Here it swallows cancellation: what it yields after that is not sent."""
    closed = asyncio.Event()

    async def stubborn() -> AsyncIterator[CreatePersonaRequest]:
        try:
            yield requests(1)[0]
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                yield requests(1)[0]
        finally:
            closed.set()

    service.respond_to_all()
    async with client(service) as api:
        outcomes = api.create_many(stubborn())
        await anext(outcomes)
        await outcomes.aclose()
    assert closed.is_set()
    assert len(service.received) == 1


async def test_a_journal_that_raises_ends_the_batch(service: HeldService) -> None:
    """Whatever it raises, nothing is sent without a claim."""

    class Broken:
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, kind: object, error: object, traceback: object) -> None: ...
        async def begin(self, _: object) -> "Broken":
            return self

        def key(self, body: bytes) -> str:
            return str(len(body))

        async def claim(self, key: str, body: bytes) -> None:
            raise KeyError(key)

        async def settle(self, *_: object) -> None:
            raise AssertionError("nothing was claimed")

    async with client(service) as api:
        with pytest.raises(KeyError):
            [outcome async for outcome in api.create_many(requests(2), journal=cast("Any", Broken()))]
    assert service.received == []
