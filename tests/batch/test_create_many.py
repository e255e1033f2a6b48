"""`create_many`: many requests, read lazily, with one outcome each."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import attrs
import pytest
from support.broken_service import BrokenService
from support.calls import calls, cancel, requests
from support.clock import Clock
from support.held_service import OPENING, HeldService, client, first_outcome, opened
from support.idle import idle, turns
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
    """However many there are, each outcome is yielded once, with its index, its request and its persona."""
    many = requests(100)
    outcomes = [outcome async for outcome in persona_api.create_many(many)]
    assert sorted(outcome.index for outcome in outcomes) == list(range(100))
    assert all(outcome.request is many[outcome.index] for outcome in outcomes)
    assert {outcome.result().name for outcome in outcomes} == {request.name for request in many}
    assert len(fake_suno.requests) == 100


async def test_a_failure_is_an_outcome_among_others(fake_suno: FakeSuno, once: PersonaAPI) -> None:
    """A failing call ends neither the others nor the batch; its error is what `create` would have raised."""
    fake_suno.script(Fault.lost_answer())
    many = [*requests(3), CreatePersonaRequest(root_clip_id="unknown-1", name="N", description="D")]
    outcomes = {outcome.index: outcome async for outcome in once.create_many(many)}
    assert isinstance(outcomes[3].error, NotFoundError)
    assert outcomes[3].error.request is many[3]
    assert [type(outcome.error) for outcome in outcomes.values()].count(ConnectionLostError) == 1
    assert sum(outcome.persona is not None for outcome in outcomes.values()) == 2


async def test_outcomes_are_yielded_as_calls_complete(service: HeldService) -> None:
    """A slow request does not delay the others."""
    async with client(service) as api, aclosing(api.create_many(opened(requests(3), 3))) as outcomes:
        first = await first_outcome(service, outcomes, 3)
        assert first.result().name == _name(service, 0)
        service.respond(2)
        assert (await anext(outcomes)).result().name == _name(service, 2)
        service.respond(1)
        assert (await anext(outcomes)).result().name == _name(service, 1)
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)


def _name(service: HeldService, number: int) -> str:
    """Return the name in a received request."""
    return str(json.loads(service.received[number].body)["name"])


async def test_the_source_is_read_no_further_than_needed() -> None:
    """Backpressure: an endless source is read as calls start and outcomes are read, plus a bounded buffer."""
    read = 0

    def endless() -> Iterator[CreatePersonaRequest]:
        nonlocal read
        while True:
            read += 1
            yield CreatePersonaRequest(root_clip_id="c", name=str(read), description="D")

    async with (
        BrokenService() as service,
        client(service, max_connections=4) as api,
        aclosing(api.create_many(endless())) as outcomes,
    ):
        for number in range(20):
            await anext(outcomes)
            assert read <= number + 1 + 3 * 4
        await idle()
        assert len(service.requests) == 20 + 2 * 4  # the buffer: outcomes that wait to be read


async def test_a_batch_and_single_calls_share_the_slots(service: HeldService) -> None:
    """At most `max_connections` calls of a client are in flight, whoever made them."""
    async with client(service, max_connections=3) as api:
        batch = asyncio.create_task(_all(api, opened(requests(5), 3)))
        await service.receives(3)
        single = asyncio.create_task(api.create(requests(1)[0]))
        await idle()
        for number in range(6):
            await service.receives(min(3 + number, 6))
            service.respond(number)
        assert len(await batch) == 5
        assert (await single).name == "0"


async def _all(api: PersonaAPI, source: Any, **options: Any) -> list[Outcome]:
    outcomes = [outcome async for outcome in api.create_many(source, **options)]
    return [outcome for outcome in outcomes if not getattr(outcome.request, "name", "").startswith(OPENING)]


async def test_requests_may_come_from_an_async_iterable(fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """They may be rows that are read from a database."""

    async def source() -> AsyncIterator[CreatePersonaRequest]:
        for request in requests(40):
            await asyncio.sleep(0)
            yield request

    assert len(await _all(persona_api, source())) == 40


async def test_a_slow_source_holds_no_slot(service: HeldService) -> None:
    """While the next request is awaited, other calls of the client proceed, even with one slot."""

    async def never() -> AsyncIterator[CreatePersonaRequest]:
        await asyncio.Event().wait()
        yield requests(1)[0]

    async with client(service, max_connections=1) as api:
        batch = asyncio.create_task(_all(api, never()))
        await idle()
        single = asyncio.create_task(api.create(requests(1)[0]))
        await service.receives(1)
        service.respond(0)
        await single
        batch.cancel()


async def test_an_empty_batch_has_no_outcome(persona_api: PersonaAPI) -> None:
    """It ends at once."""
    assert await _all(persona_api, []) == []


@pytest.mark.parametrize("kind", ["iterable", "async iterable"])
async def test_an_error_of_the_source_is_raised_at_the_end(service: HeldService, kind: str) -> None:
    """Calls in flight finish, and their outcomes are yielded first."""

    def source() -> Iterator[CreatePersonaRequest]:
        yield from opened(requests(2), 2)
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


async def test_an_item_of_the_wrong_type_has_an_outcome(fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """It does not affect other items."""
    outcomes = {outcome.index: outcome for outcome in await _all(persona_api, [*requests(1), {"name": "Neon"}])}
    assert isinstance(outcomes[1].error, InvalidRequestError)
    assert "got a dict" in str(outcomes[1].error)
    assert outcomes[0].result().name == "0"


async def test_requests_must_be_an_iterable(persona_api: PersonaAPI, request_: CreatePersonaRequest) -> None:
    """Passing a single request is a likely mistake."""
    with pytest.raises(InvalidRequestError, match=r"requests must be an iterable of .*; got a Crea"):
        await _all(persona_api, request_)


async def test_a_closed_client_starts_no_batch(persona_api: PersonaAPI) -> None:
    """It raises `UsageError`, and reads nothing from the source."""
    source = iter(requests(1))
    await persona_api.close()
    with pytest.raises(UsageError, match="closed"):
        await _all(persona_api, source)
    assert len(list(source)) == 1


async def test_closing_the_client_ends_the_batch(service: HeldService) -> None:
    """Calls in flight have an unknown outcome, the others are not sent, and every request has an outcome."""
    async with client(service, max_connections=2) as api:
        batch = asyncio.create_task(_all(api, opened(requests(5), 2)))
        await service.receives(2)
    kinds = sorted(type(outcome.error).__name__ for outcome in await batch)
    assert kinds == ["ConnectionLostError"] * 2 + ["UsageError"] * 3


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


async def test_a_reader_that_stops_early_does_not_wait_for_a_cool_down(service: HeldService) -> None:
    """Calls that wait for a retry end at once."""
    async with client(service) as api:
        outcomes = api.create_many(opened(requests(3), 3))
        await first_outcome(service, outcomes, 3)
        service.reject(1, retry_after=20)
        service.reject(2, retry_after=20)
        await idle()
        await outcomes.aclose()
        await service.receives(3)


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
        service.respond(1)
        service.respond(2)
        await idle()
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


async def test_a_reader_that_stops_early_retries_nothing(service: HeldService) -> None:
    """A 429 that arrives after the stop is final."""
    async with client(service) as api:
        outcomes = api.create_many(opened(requests(2), 2))
        await first_outcome(service, outcomes, 2)
        closing = asyncio.create_task(outcomes.aclose())
        await idle()
        service.reject(1, retry_after=0)
        await closing
        await service.receives(2)


async def test_a_cancelled_source_does_not_end_the_batch_silently(persona_api: PersonaAPI) -> None:
    """A `CancelledError` from the source is raised like any other error."""

    async def source() -> AsyncIterator[CreatePersonaRequest]:
        yield requests(1)[0]
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await _all(persona_api, source())


@pytest.mark.parametrize("inside", ["async for", "aclosing"])
async def test_a_cancelled_reader_cancels_its_calls(service: HeldService, inside: str) -> None:
    """The batch ends at once, and releases slots and connections."""
    async with client(service, max_connections=2) as api:

        async def read() -> None:
            async with aclosing(api.create_many(opened(requests(9), 2))) as outcomes:
                async for outcome in outcomes:
                    if not outcome.request.name.startswith(OPENING):
                        await asyncio.Event().wait()

        reader: asyncio.Task[Any]
        reader = asyncio.create_task(read() if inside == "aclosing" else _all(api, opened(requests(9), 2)))
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


async def test_a_slow_reader_causes_no_timeout(advance: Clock) -> None:
    """Timeouts do not run while outcomes wait to be read."""
    async with BrokenService() as service, client(service, max_connections=1) as api:
        async for outcome in api.create_many(requests(10)):
            await idle()
            advance(100)
            assert outcome.persona is not None


async def test_a_cool_down_pauses_the_batch(service: HeldService, advance: Clock) -> None:
    """A rate limited call is retried as in `create`, and no other attempt starts meanwhile."""
    async with client(service, max_connections=2) as api:
        batch = asyncio.create_task(_all(api, opened(requests(3), 2)))
        await service.receives(2)
        service.reject(0, retry_after=10)
        await idle()
        service.respond(1)
        await service.receives(2)
        advance(11)
        await service.receives(3)
        service.respond(2)
        await service.receives(4)
        service.respond(3)
        assert all(outcome.persona for outcome in await batch)


async def test_it_works_under_tqdm(fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """A progress bar takes one call around the batch."""
    bar = tqdm(persona_api.create_many(requests(20)), total=20, disable=True)
    assert len([outcome async for outcome in bar]) == 20


def test_result_returns_the_persona_or_raises_the_error() -> None:
    """Code written for `create` also works with an outcome."""
    (request,) = requests(1)
    assert Outcome(0, request, PERSONA, None).result() is PERSONA
    with pytest.raises(NotCreatedError) as caught:
        Outcome(0, request, None, ERROR).result()
    assert caught.value is ERROR


@pytest.mark.parametrize(("persona", "error"), [(None, None), (PERSONA, ERROR)], ids=["neither", "both"])
def test_an_outcome_has_either_a_persona_or_an_error(persona: Persona | None, error: NotCreatedError | None) -> None:
    """It cannot be made with both or neither."""
    with pytest.raises(UsageError, match="either a persona or an error"):
        Outcome(0, requests(1)[0], persona, error)


def test_an_outcome_cannot_be_changed() -> None:
    """It can be shared safely."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Outcome(0, requests(1)[0], PERSONA, None).index = 1  # type: ignore[misc]  # this is what is tested
