"""`create_many`: many requests, read lazily, with one outcome each."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import attrs
import pytest
from support.calls import requests
from support.clock import Clock
from support.held_service import HeldService, client, first_outcome
from support.idle import turns
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


async def test_each_request_has_one_outcome(fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """Whatever their number, each comes back once, with its place, its request and its persona."""
    many = requests(100)
    outcomes = [outcome async for outcome in persona_api.create_many(many)]
    assert sorted(outcome.index for outcome in outcomes) == list(range(100))
    assert all(outcome.request is many[outcome.index] for outcome in outcomes)
    assert {outcome.result().name for outcome in outcomes} == {request.name for request in many}
    assert len(fake_suno.requests) == 100


async def test_a_failure_is_an_outcome_among_others(fake_suno: FakeSuno, once: PersonaAPI) -> None:
    """A call that fails ends neither the others nor the batch; its error is what `create` would have raised."""
    fake_suno.script(Fault.lost_answer())
    many = [*requests(3), CreatePersonaRequest(root_clip_id="unknown-1", name="N", description="D")]
    outcomes = {outcome.index: outcome async for outcome in once.create_many(many)}
    assert isinstance(outcomes[3].error, NotFoundError)
    assert outcomes[3].error.request is many[3]
    assert [type(outcome.error) for outcome in outcomes.values()].count(ConnectionLostError) == 1
    assert sum(outcome.persona is not None for outcome in outcomes.values()) == 2


async def test_outcomes_come_as_they_are_completed(service: HeldService) -> None:
    """A request that takes long holds up no other."""
    async with client(service) as api, aclosing(api.create_many(requests(3))) as outcomes:
        first = asyncio.ensure_future(anext(outcomes))
        await service.receives(3)
        service.respond(2)
        assert (await first).result().name == _name(service, 2)
        service.respond(0)
        assert (await anext(outcomes)).result().name == _name(service, 0)
        service.respond(1)
        assert (await anext(outcomes)).result().name == _name(service, 1)
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)


def _name(service: HeldService, number: int) -> str:
    """The name in a request that arrived."""
    return str(json.loads(service.received[number].body)["name"])


async def test_no_more_requests_are_read_than_can_be_used(fake_suno: FakeSuno) -> None:
    """An endless source is read as far as calls are under way and outcomes are read, and a little further."""
    read = 0

    def endless() -> Iterator[CreatePersonaRequest]:
        nonlocal read
        while True:
            read += 1
            yield CreatePersonaRequest(root_clip_id="c", name=str(read), description="D")

    async with (
        PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, max_connections=4) as api,
        aclosing(api.create_many(endless())) as outcomes,
    ):
        for number in range(20):
            await anext(outcomes)
            assert read <= number + 1 + 3 * 4
        while len(fake_suno.requests) < 20 + 8:  # those whose outcomes wait to be read
            await asyncio.sleep(0)
        await turns(500)
        assert len(fake_suno.requests) <= 20 + 8


async def test_no_more_calls_are_under_way_than_connections(service: HeldService) -> None:
    """A batch and single calls share the turns of their client."""
    async with client(service, max_connections=3) as api:
        batch = asyncio.create_task(_all(api, requests(5)))
        await service.receives(3)
        single = asyncio.create_task(api.create(requests(1)[0]))
        await turns()
        for number in range(6):
            await service.receives(min(3 + number, 6))
            service.respond(number)
        assert len(await batch) == 5
        assert (await single).name == "0"


async def _all(api: PersonaAPI, source: Any, **options: Any) -> list[Outcome]:
    return [outcome async for outcome in api.create_many(source, **options)]


async def test_requests_may_come_from_an_async_iterable(fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """Such as rows that are read from a database."""

    async def source() -> AsyncIterator[CreatePersonaRequest]:
        for request in requests(40):
            await asyncio.sleep(0)
            yield request

    assert len(await _all(persona_api, source())) == 40


async def test_a_slow_source_takes_no_turn(service: HeldService) -> None:
    """While the next request is not there yet, the client's other calls go on, though it has one connection."""

    async def never() -> AsyncIterator[CreatePersonaRequest]:
        await asyncio.Event().wait()
        yield requests(1)[0]

    async with client(service, max_connections=1) as api:
        batch = asyncio.create_task(_all(api, never()))
        await turns()
        single = asyncio.create_task(api.create(requests(1)[0]))
        await service.receives(1)
        service.respond(0)
        await single
        batch.cancel()


async def test_nothing_makes_no_outcome(persona_api: PersonaAPI) -> None:
    """An empty batch is over at once."""
    assert await _all(persona_api, []) == []


@pytest.mark.parametrize("kind", ["iterable", "async iterable"])
async def test_what_the_source_raises_is_passed_on_at_the_end(service: HeldService, kind: str) -> None:
    """The calls under way are finished and their outcomes come first."""

    def source() -> Iterator[CreatePersonaRequest]:
        yield from requests(2)
        raise LookupError("the file ends here")

    async def async_source() -> AsyncIterator[CreatePersonaRequest]:
        for request in source():
            yield request

    async with client(service) as api:
        outcomes = api.create_many(source() if kind == "iterable" else async_source())
        await first_outcome(service, outcomes, 2)
        service.respond(1)
        await anext(outcomes)
        with pytest.raises(LookupError, match="the file ends here"):
            await anext(outcomes)


async def test_what_is_no_request_has_an_outcome_too(fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """One wrong item costs the batch nothing else."""
    outcomes = {outcome.index: outcome for outcome in await _all(persona_api, [*requests(1), {"name": "Neon"}])}
    assert isinstance(outcomes[1].error, InvalidRequestError)
    assert "found a dict" in str(outcomes[1].error)
    assert outcomes[0].result().name == "0"


async def test_what_cannot_be_iterated_is_refused(persona_api: PersonaAPI, request_: CreatePersonaRequest) -> None:
    """A single request in place of many is the likely mistake."""
    with pytest.raises(InvalidRequestError, match=r"requests: expected an iterable of .* found a Crea"):
        await _all(persona_api, request_)


async def test_a_closed_client_takes_no_batch(persona_api: PersonaAPI) -> None:
    """It says so, and reads nothing."""
    await persona_api.close()
    with pytest.raises(UsageError, match="closed"):
        await _all(persona_api, iter(requests(1)))


async def test_closing_the_client_ends_the_batch(service: HeldService) -> None:
    """Calls under way are unknown, the others not sent, and every request has its outcome."""
    async with client(service, max_connections=2) as api:
        batch = asyncio.create_task(_all(api, requests(5)))
        await service.receives(2)
    kinds = sorted(type(outcome.error).__name__ for outcome in await batch)
    assert kinds == ["ConnectionLostError"] * 2 + ["UsageError"] * 3


async def test_a_reader_that_stops_early_lets_what_is_out_finish(service: HeldService) -> None:
    """Nothing more is sent, and nothing that was sent is torn."""
    async with client(service, max_connections=3) as api:
        outcomes = api.create_many(requests(10))
        await first_outcome(service, outcomes, 3)
        await service.receives(4)
        closing = asyncio.create_task(outcomes.aclose())
        await turns()
        assert not closing.done()
        for number in (1, 2, 3):
            service.respond(number)
        await closing
        await service.receives(4)
        assert len(service.personas) == 4


async def test_a_reader_that_stops_early_waits_for_no_cool_down(service: HeldService) -> None:
    """Calls of which nothing is out are given up at once."""
    async with client(service) as api:
        outcomes = api.create_many(requests(3))
        await first_outcome(service, outcomes, 3)
        service.reject(1, retry_after=20)
        service.reject(2, retry_after=20)
        await turns()
        await outcomes.aclose()
        await service.receives(3)


async def test_a_break_is_a_clean_end(service: HeldService) -> None:
    """Leaving the loop alone is enough: what is out finishes in the background."""
    async with client(service, max_connections=2) as api:

        async def first_only() -> None:
            async for _ in api.create_many(requests(9)):
                break

        reader = asyncio.create_task(first_only())
        await service.receives(2)
        service.respond(0)
        await reader
        await service.receives(3)
        service.respond(1)
        service.respond(2)
        while len(asyncio.all_tasks()) > 1 + len(service._tasks):
            await asyncio.sleep(0)
        await service.receives(3)


@pytest.mark.parametrize("how", ["closed", "cancelled"])
@pytest.mark.parametrize("point", range(0, 40, 4))
async def test_stopping_a_batch_takes_no_turn_away(fake_suno: FakeSuno, how: str, point: int) -> None:
    """At whatever moment it ends, all turns of the client are free again."""
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, max_connections=3) as api:
        outcomes = api.create_many(requests(50))
        reader = asyncio.create_task(anext(outcomes))
        await turns(point)
        if how == "closed":
            await reader
            await turns(point)
            await outcomes.aclose()
        else:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        fake_suno.script(*[Fault.hang()] * 3)
        held = [asyncio.create_task(api.create(request)) for request in requests(3)]
        before = len(fake_suno.requests)
        while len(fake_suno.requests) < before + 3:
            await asyncio.sleep(0)
        for task in held:
            task.cancel()


async def test_a_reader_that_stops_early_repeats_nothing(service: HeldService) -> None:
    """A refusal that comes after it stopped is final."""
    async with client(service) as api:
        outcomes = api.create_many(requests(2))
        await first_outcome(service, outcomes, 2)
        closing = asyncio.create_task(outcomes.aclose())
        await turns()
        service.reject(1, retry_after=0)
        await closing
        await service.receives(2)


async def test_a_source_that_is_cancelled_is_no_quiet_end(persona_api: PersonaAPI) -> None:
    """What it raises is passed on, also where that is a `CancelledError`."""

    async def source() -> AsyncIterator[CreatePersonaRequest]:
        yield requests(1)[0]
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await _all(persona_api, source())


@pytest.mark.parametrize("inside", ["async for", "aclosing"])
async def test_a_cancelled_reader_cancels_its_calls(service: HeldService, inside: str) -> None:
    """It ends at once, and turns and connections are free again."""
    async with client(service, max_connections=2) as api:

        async def read() -> None:
            async with aclosing(api.create_many(requests(9))) as outcomes:
                async for _ in outcomes:
                    await asyncio.Event().wait()

        reader: asyncio.Task[Any]
        reader = asyncio.create_task(read() if inside == "aclosing" else _all(api, requests(9)))
        await service.receives(2)
        if inside == "aclosing":
            service.respond(0)
            await service.receives(3)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        arrived = len(service.received)
        single = asyncio.create_task(api.create(requests(1)[0]))
        await service.receives(arrived + 1)
        service.respond(arrived)
        await single


async def test_cancelling_a_reader_that_is_closing_hurries_it(service: HeldService) -> None:
    """Who does not want to wait for what is out can say so."""
    async with client(service) as api:
        outcomes = api.create_many(requests(2))
        await first_outcome(service, outcomes, 2)
        closing = asyncio.create_task(outcomes.aclose())
        await turns()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing


async def test_a_slow_reader_is_waited_for(fake_suno: FakeSuno) -> None:
    """A timeout does not run while outcomes wait to be read."""
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, max_connections=1) as api:
        async for outcome in api.create_many(requests(10)):
            await turns(500)
            assert outcome.persona is not None


async def test_a_cool_down_holds_the_batch_back(service: HeldService, advance: Clock) -> None:
    """A refusal is repeated as with `create`, and no other call is started meanwhile."""
    async with client(service, max_connections=2) as api:
        batch = asyncio.create_task(_all(api, requests(3)))
        await service.receives(2)
        service.reject(0, retry_after=10)
        await turns()
        service.respond(1)
        await service.receives(2)
        advance(11)
        await service.receives(3)
        service.respond(2)
        await service.receives(4)
        service.respond(3)
        assert all(outcome.persona for outcome in await batch)


async def test_it_works_under_tqdm(fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """A progress bar is one word around it."""
    bar = tqdm(persona_api.create_many(requests(20)), total=20, disable=True)
    assert len([outcome async for outcome in bar]) == 20


def test_the_result_of_an_outcome_is_the_persona_or_raises_the_error() -> None:
    """So that code written for `create` takes an outcome as well."""
    (request,) = requests(1)
    assert Outcome(0, request, PERSONA, None).result() is PERSONA
    with pytest.raises(NotCreatedError) as caught:
        Outcome(0, request, None, ERROR).result()
    assert caught.value is ERROR


@pytest.mark.parametrize(("persona", "error"), [(None, None), (PERSONA, ERROR)], ids=["neither", "both"])
def test_an_outcome_has_either_a_persona_or_an_error(persona: Persona | None, error: NotCreatedError | None) -> None:
    """Nobody can make one that has both or neither."""
    with pytest.raises(UsageError, match="either a persona or an error"):
        Outcome(0, requests(1)[0], persona, error)


def test_an_outcome_cannot_be_changed() -> None:
    """It may be handed around."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Outcome(0, requests(1)[0], PERSONA, None).index = 1  # type: ignore[misc]  # what is tried here
