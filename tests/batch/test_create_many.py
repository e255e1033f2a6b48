"""`create_many`: many requests, read lazily, with one outcome each. How it ends is in `test_ends.py`."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import attrs
import pytest
from support.broken_service import BrokenService
from support.calls import requests
from support.clock import Clock
from support.held_service import HeldService, client, first_outcome, opened
from support.idle import idle
from tqdm.asyncio import tqdm

from suno_persona import (
    ConnectionLostError,
    CreatePersonaRequest,
    InvalidRequestError,
    NotCreatedError,
    NotFoundError,
    Outcome,
    Persona,
    PersonaAPI,
    UsageError,
)
from suno_persona.testing import FakeSuno, Fault

PERSONA = Persona(id="fd213afd")
ERROR = NotCreatedError(message="no such clip")


async def read(api: PersonaAPI, source: Any) -> list[Outcome]:
    """Run a batch to its end."""
    return [outcome async for outcome in api.create_many(source)]


@pytest.mark.parametrize("count", [0, 100])
async def test_each_request_has_one_outcome(count: int, fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """However many there are, each outcome is yielded once, with its index, its request and its persona."""
    many = requests(count)
    outcomes = await read(persona_api, many)
    assert sorted(outcome.index for outcome in outcomes) == list(range(count))
    assert all(outcome.request is many[outcome.index] for outcome in outcomes)
    assert {outcome.result().name for outcome in outcomes} == {request.name for request in many}
    assert len(fake_suno.requests) == count


async def test_a_failure_is_an_outcome_among_others(fake_suno: FakeSuno, once: PersonaAPI) -> None:
    """A failing call ends neither the others nor the batch; its error is what `create` would have raised."""
    fake_suno.script(Fault.lost_response())
    many = [*requests(3), CreatePersonaRequest(root_clip_id="unknown-1", name="N", description="D")]
    outcomes = {outcome.index: outcome for outcome in await read(once, many)}
    assert isinstance(outcomes[3].error, NotFoundError)
    assert outcomes[3].error.request is many[3]
    assert [type(outcome.error) for outcome in outcomes.values()].count(ConnectionLostError) == 1
    assert sum(outcome.persona is not None for outcome in outcomes.values()) == 2


async def test_outcomes_are_yielded_as_calls_complete(service: HeldService) -> None:
    """A slow request does not delay the others."""
    async with client(service) as api, aclosing(api.create_many(opened(requests(3), 3))) as outcomes:
        found = [await first_outcome(service, outcomes, 3)]
        for number in (2, 1):
            service.respond(number)
            found.append(await anext(outcomes))
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)
    names = [json.loads(exchange.body)["name"] for exchange in service.received]
    assert [outcome.result().name for outcome in found] == [names[0], names[2], names[1]]


async def test_the_source_is_read_no_further_than_needed() -> None:
    """Backpressure: an endless source is read as calls start and outcomes are read, plus a bounded buffer."""
    taken = 0

    def endless() -> Iterator[CreatePersonaRequest]:
        nonlocal taken
        while True:
            taken += 1
            yield CreatePersonaRequest(root_clip_id="c", name=str(taken), description="D")

    async with (
        BrokenService() as service,
        client(service, max_connections=4) as api,
        aclosing(api.create_many(endless())) as outcomes,
    ):
        for number in range(20):
            await anext(outcomes)
            assert taken <= number + 1 + 3 * 4
        await idle()
        assert len(service.requests) == 20 + 2 * 4  # the buffer: outcomes that wait to be read


async def test_a_batch_and_single_calls_share_the_slots(service: HeldService) -> None:
    """At most `max_connections` calls of a client are in flight, whoever made them."""
    async with client(service, max_connections=3) as api:
        batch = asyncio.create_task(read(api, opened(requests(5), 3)))
        await service.receives(3)
        single = asyncio.create_task(api.create(requests(1)[0]))
        await idle()
        for number in range(6):
            await service.receives(min(3 + number, 6))
            service.respond(number)
        assert all(outcome.persona for outcome in await batch)
        assert (await single).name == "0"


async def test_a_slow_source_holds_no_slot(service: HeldService) -> None:
    """While the next request is awaited, other calls of the client proceed, even with one slot."""

    async def never() -> AsyncIterator[CreatePersonaRequest]:
        await asyncio.Event().wait()
        yield requests(1)[0]

    async with client(service, max_connections=1) as api:
        batch = asyncio.create_task(read(api, never()))
        await idle()
        single = asyncio.create_task(api.create(requests(1)[0]))
        await service.receives(1)
        service.respond(0)
        await single
        batch.cancel()


async def test_a_slow_reader_causes_no_timeout(advance: Clock) -> None:
    """Timeouts do not run while outcomes wait to be read."""
    async with BrokenService() as service, client(service, max_connections=1) as api:
        async for outcome in api.create_many(requests(10)):
            await idle()
            advance(100)
            assert outcome.persona is not None


async def test_requests_may_come_from_an_async_iterator(fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """It need not be a generator: it may be a queue, or rows that are read from a database."""

    class Queue:
        def __init__(self) -> None:
            self.left = requests(3)

        def __aiter__(self) -> "Queue":
            return self

        async def __anext__(self) -> CreatePersonaRequest:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    assert len(await read(persona_api, Queue())) == len(fake_suno.personas) == 3


@pytest.mark.parametrize(
    ("error", "kind"),
    [(LookupError, "iterable"), (LookupError, "async iterable"), (asyncio.CancelledError, "async iterable")],
)
async def test_an_error_of_the_source_is_raised_at_the_end(
    service: HeldService, error: type[BaseException], kind: str
) -> None:
    """Calls in flight finish, and their outcomes are yielded first."""

    def source() -> Iterator[CreatePersonaRequest]:
        yield from opened(requests(2), 2)
        raise error("the file ends here")

    async def async_source() -> AsyncIterator[CreatePersonaRequest]:
        for request in source():
            yield request

    async with client(service) as api:
        outcomes = api.create_many(source() if kind == "iterable" else async_source())
        await first_outcome(service, outcomes, 2)
        service.respond(1)
        await anext(outcomes)
        with pytest.raises(error):
            await anext(outcomes)


async def test_an_item_of_the_wrong_type_has_an_outcome(persona_api: PersonaAPI) -> None:
    """It does not affect other items."""
    outcomes = {outcome.index: outcome for outcome in await read(persona_api, [*requests(1), {"name": "Neon"}])}
    assert isinstance(outcomes[1].error, InvalidRequestError)
    assert "got a dict" in str(outcomes[1].error)
    assert outcomes[0].result().name == "0"


async def test_requests_must_be_an_iterable(persona_api: PersonaAPI, request_: CreatePersonaRequest) -> None:
    """Passing a single request is a likely mistake."""
    with pytest.raises(InvalidRequestError, match=r"requests must be an iterable of .*; got a Crea"):
        await read(persona_api, request_)


async def test_a_closed_client_starts_no_batch(persona_api: PersonaAPI) -> None:
    """It raises `UsageError`, and reads nothing from the source."""
    source = iter(requests(1))
    await persona_api.close()
    with pytest.raises(UsageError, match="closed"):
        await read(persona_api, source)
    assert len(list(source)) == 1


async def test_it_works_under_tqdm(persona_api: PersonaAPI) -> None:
    """A progress bar takes one call around the batch."""
    bar = tqdm(persona_api.create_many(requests(20)), total=20, disable=True)
    assert len([outcome async for outcome in bar]) == 20


def test_result_returns_the_persona_or_raises_the_error() -> None:
    """Code written for `create` also works with an outcome, which cannot be changed."""
    (request,) = requests(1)
    created = Outcome(0, request, PERSONA, None)
    assert created.result() is PERSONA
    with pytest.raises(NotCreatedError) as caught:
        Outcome(0, request, None, ERROR).result()
    assert caught.value is ERROR
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        created.index = 1  # type: ignore[misc]  # this is what is tested


@pytest.mark.parametrize(("persona", "error"), [(None, None), (PERSONA, ERROR)], ids=["neither", "both"])
def test_an_outcome_has_either_a_persona_or_an_error(persona: Persona | None, error: NotCreatedError | None) -> None:
    """It cannot be made with both or neither."""
    with pytest.raises(UsageError, match="either a persona or an error"):
        Outcome(0, requests(1)[0], persona, error)
