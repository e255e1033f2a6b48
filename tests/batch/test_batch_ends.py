"""However a batch ends, it ends at once, sends nothing more, and closes its source."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, cast

import pytest
from support.calls import requests
from support.held_service import OPENING, HeldService, client, opened
from support.idle import idle

from suno_persona import CreatePersonaRequest, OutcomeUnknownError, PersonaAPI
from suno_persona.testing import FakeSuno

pytestmark = pytest.mark.timeout(30)


async def test_a_source_that_swallows_cancellation_does_not_delay_the_end(
    service: HeldService,
) -> None:
    """What it yields after its cancellation is not sent."""
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

    async with client(service) as api:
        outcomes = api.create_many(stubborn())
        first = asyncio.ensure_future(anext(outcomes))
        await service.until(1)
        service.respond(0)
        await first
        await outcomes.aclose()
    assert closed.is_set()
    assert len(service.received) == 1


async def test_an_async_generator_is_closed_when_a_batch_ends_early(
    service: HeldService,
) -> None:
    """Its `finally` runs before the batch has ended, so that no file or cursor stays open."""
    closed = asyncio.Event()

    async def source() -> AsyncIterator[CreatePersonaRequest]:
        try:
            for request in requests(1000):
                yield request
        finally:
            closed.set()

    async with client(service, max_connections=1) as api:
        outcomes = api.create_many(source())
        first = asyncio.ensure_future(anext(outcomes))
        await service.until(1)
        service.respond(0)
        await first
        closing = asyncio.ensure_future(outcomes.aclose())
        await service.until(2)
        service.respond(1)
        await closing
        assert closed.is_set()


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


async def test_requests_may_come_from_an_async_iterator(fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """It need not be a generator."""

    class Queue:
        def __init__(self) -> None:
            self.left = requests(3)

        def __aiter__(self) -> "Queue":
            return self

        async def __anext__(self) -> CreatePersonaRequest:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    assert len([outcome async for outcome in persona_api.create_many(Queue())]) == len(fake_suno.personas) == 3
