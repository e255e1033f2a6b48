"""A call sends the request that the contract asks for, and returns its persona; a client lives from first use to close.

Read this first. `test_nothing_is_created_twice.py` has what may go wrong in the service,
`test_every_ending_at_every_moment.py` what may end a call, and `test_received_ids.py` how its id outlives that.
"""

import asyncio
import os
from typing import Any

import aiohttp
import pytest
from support.broken_service import BrokenService
from support.calls import BASE, KEY, REQUEST, failure, requests
from support.cancellation import cancelled_at
from support.contract import CONTRACT_EXAMPLE
from support.idle import idle

from suno_persona import InvalidRequestError, NotCreatedError, Persona, PersonaAPI, RejectedError, UsageError, loads
from suno_persona.testing import FakeSuno, Fault


async def test_a_call_returns_the_persona_that_the_service_created(
    fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """It is the contract's example, as the service sent it."""
    fake_suno.script(Fault.response(200, CONTRACT_EXAMPLE))
    assert await persona_api.create(REQUEST) == loads(CONTRACT_EXAMPLE)


async def test_the_request_follows_the_contract(fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """It is a POST to the contract's path, with its headers, all five members, and a `User-Agent` of our own."""
    await persona_api.create(REQUEST)
    (received,) = fake_suno.requests
    assert (received.method, received.path) == ("POST", "/suno/persona/create/")
    assert received.headers["Authorization"] == f"Bearer {fake_suno.api_key}"
    assert received.headers["Content-Type"] == "application/json"
    assert received.headers["User-Agent"].startswith("suno-persona/")
    own = {"root_clip_id": "54834687", "name": "Neon", "description": "Night drive"}
    assert received.json() == {**own, "clips": ["54834687"], "is_public": False}


@pytest.mark.parametrize(("served", "asked"), [("/create", "/create/"), ("/create/", "/create")])
async def test_a_redirect_to_the_trailing_slash_is_followed(served: str, asked: str) -> None:
    """The same body is sent to the other path, within one attempt; later calls go straight there. A loop ends."""
    async with FakeSuno(create_path=served) as fake:
        fake.script(Fault.redirect(served, 308))
        async with PersonaAPI(fake.api_key, base_url=fake.base_url, create_path=asked) as api:
            for _ in range(2):
                assert (await api.create(REQUEST)).name == "Neon"
            assert [request.path for request in fake.requests] == [asked, served, served]
            assert fake.requests[0].body == fake.requests[1].body
            assert len(fake.personas) == 2
            fake.script(Fault.redirect(asked), Fault.redirect(served))
            error = await failure(api)
    assert (type(error), error.attempts, len(fake.requests)) == (RejectedError, 1, 5)


async def test_a_session_of_the_caller_is_used_and_left_open(fake_suno: FakeSuno) -> None:
    """Its own settings apply, such as a header, `raise_for_status` and `auto_decompress`."""
    headers = {"X-App": "demo", "User-Agent": "demo", "Content-Type": "text/plain"}
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True, auto_decompress=False) as session:
        async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, session=session) as api:
            await api.create(REQUEST)
            fake_suno.script(Fault.response(400))
            assert type(await failure(api)) is RejectedError
        assert not session.closed
    received = fake_suno.requests[0].headers
    assert (received["X-App"], received["User-Agent"], received["Content-Type"]) == ("demo", "demo", "application/json")


async def a_hundred_calls() -> None:
    """Make the calls with ten slots, among some faults."""
    async with FakeSuno() as fake:
        fake.script(Fault.rate_limited(0), Fault.lost_response(), Fault.redirect("/suno/persona/create/"))
        async with PersonaAPI(fake.api_key, base_url=fake.base_url, max_connections=10) as api:
            results = await asyncio.gather(*map(api.create, requests(100)), return_exceptions=True)
        created = {result.id for result in results if isinstance(result, Persona)}
        assert (len(created), len(fake.personas)) == (98, 99)


def test_calls_work_on_uvloop() -> None:
    """It reads and writes in another order than asyncio's own loop."""
    with asyncio.Runner(loop_factory=pytest.importorskip("uvloop").new_event_loop) as runner:
        runner.run(a_hundred_calls())


async def test_use_after_close_is_a_usage_error(fake_suno: FakeSuno) -> None:
    """Closing twice is allowed, and so is closing a client that was never used; calling or entering again is not."""
    await PersonaAPI(KEY, base_url=BASE).close()
    api = PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url)
    await api.create(REQUEST)
    await api.close()
    await api.close()
    assert repr(api).endswith("closed>")
    with pytest.raises(UsageError, match="closed") as caught:
        await api.create(REQUEST)
    assert (caught.value.request, caught.value.attempts) == (REQUEST, 0)
    with pytest.raises(UsageError, match="closed"):
        async with api:
            pass


async def test_a_second_event_loop_is_a_usage_error(persona_api: PersonaAPI) -> None:
    """Calling, entering and closing in another loop raise an error."""
    uses: list[Any] = [
        persona_api.create(REQUEST),
        persona_api.__aenter__(),
        persona_api.close(),
    ]
    for use in uses:
        with pytest.raises(UsageError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, use)


async def test_a_session_that_cannot_be_used_is_a_not_created_error() -> None:
    """It is of another loop, or its owner closed it."""
    async with aiohttp.ClientSession() as session:
        api = PersonaAPI(KEY, base_url=BASE, session=session)
        with pytest.raises(NotCreatedError):
            await asyncio.to_thread(asyncio.run, api.create(REQUEST))
    assert type(await failure(PersonaAPI(KEY, base_url=BASE, session=session))) is UsageError


async def test_something_other_than_a_request_is_an_invalid_request(persona_api: PersonaAPI) -> None:
    """The error holds it."""
    wrong: Any = {"name": "Neon"}
    with pytest.raises(InvalidRequestError, match="must be a CreatePersonaRequest; got a dict") as caught:
        await persona_api.create(wrong)
    assert caught.value.request is wrong


def test_a_plain_with_is_a_type_error() -> None:
    """The error names `async with`."""
    api = PersonaAPI(KEY, base_url=BASE)
    with pytest.raises(TypeError, match="async with"), api:
        pass


@pytest.mark.posix
@pytest.mark.parametrize("points", [(first, second) for first in range(3) for second in range(first, 4)])
async def test_a_cancelled_close_still_closes_the_connections(points: tuple[int, int]) -> None:
    """It may be cancelled once or twice, as cancel scopes do, at every pair of its suspension points."""
    first, second = points
    async with BrokenService() as service:
        before = os.listdir("/dev/fd")
        api = PersonaAPI(KEY, base_url=service.base_url)
        await asyncio.gather(*(api.create(request) for request in requests(3)))
        assert len(os.listdir("/dev/fd")) > len(before)
        closing = cancelled_at(first, cancelled_at(second, api.close()))
        await asyncio.wait([asyncio.create_task(closing)])
        await idle()
        assert len(os.listdir("/dev/fd")) == len(before)
