"""Calls work in task groups, with timeouts, on uvloop and in eager tasks."""

import asyncio
import sys
from collections.abc import Callable

import pytest

from suno_persona import CreatePersonaRequest, Persona, PersonaAPI, RejectedError, RetryPolicy
from suno_persona.testing import FakeSuno, Fault


async def many() -> int:
    """Make a hundred calls with ten slots and some faults, and return how many personas were created."""
    requests = [CreatePersonaRequest(root_clip_id="c", name=f"Voice {n}", description="D") for n in range(100)]
    async with FakeSuno() as fake:
        fake.script(Fault.rate_limited(0), Fault.lost_answer(), Fault.redirect("/suno/persona/create/"))
        async with PersonaAPI(fake.api_key, base_url=fake.base_url, max_connections=10) as api:
            results = await asyncio.gather(*map(api.create, requests), return_exceptions=True)
        created = [result for result in results if isinstance(result, Persona)]
        assert len(fake.personas) == len(created) + 1
    return len(created)


def eager() -> asyncio.AbstractEventLoop:
    """Return a loop whose tasks start at once."""
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def uv() -> asyncio.AbstractEventLoop:
    """Return a uvloop."""
    uvloop = pytest.importorskip("uvloop")
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, eager, uv])
def test_calls_work_on_every_loop(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The same calls have the same results."""
    with asyncio.Runner(debug=True, loop_factory=loop_factory) as runner:
        assert runner.run(many()) == 98


async def test_a_task_group_works(fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest) -> None:
    """An error of one call cancels the others, and the group raises it unchanged."""
    fake_suno.script(Fault.response(400), Fault.hang(), Fault.hang())

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(persona_api.create(request_))

    with pytest.raises(ExceptionGroup) as caught:
        await together()
    (error,) = caught.value.exceptions
    assert isinstance(error, RejectedError)
    assert (await persona_api.create(request_)).name == "Neon"


async def test_a_timeout_of_the_caller_works(
    fake_suno: FakeSuno,
    persona_api: PersonaAPI,
    request_: CreatePersonaRequest,
    advance: Callable[[float], None],
) -> None:
    """The caller's own `TimeoutError` is raised, not one of the package's."""
    fake_suno.script(Fault.hang())

    async def bounded() -> None:
        async with asyncio.timeout(5):
            await persona_api.create(request_)

    call = asyncio.create_task(bounded())
    while not fake_suno.requests:
        await asyncio.sleep(0)
    advance(6)
    (result,) = await asyncio.gather(call, return_exceptions=True)
    assert type(result) is TimeoutError
    assert (await persona_api.create(request_)).name == "Neon"


async def test_a_call_that_need_not_wait_is_admitted_at_once() -> None:
    """With a free slot, no cool-down and no rate limit, admission costs no turn of the loop."""
    from suno_persona._admission import Admission

    admission = Admission(1, RetryPolicy(), None)
    assert admission.start()
    assert not admission.start()
