"""`suno-persona fake`: a service that is slow and fails on demand, so that any client can be tested with it."""

import asyncio
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.command import COMMAND, CREATE, run, start

from suno_persona import ConfigurationError, CreatePersonaRequest, PersonaAPI, PersonaError
from suno_persona.testing import FakeSuno

pytestmark = pytest.mark.slow


@asynccontextmanager
async def faking(*options: str) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Run the service; yield what it printed, and the settings therein."""
    process = await start(COMMAND, "fake", "--port", "0", *options, env={})
    assert process.stdout is not None
    lines = [(await process.stdout.readline()).decode() for _ in range(6)]
    yield "".join(lines), dict(re.findall(r"(SUNO_\w+)=(\S+)", lines[0]))
    process.send_signal(signal.SIGINT)
    await process.communicate()


async def ending(api: PersonaAPI, clip: str) -> str:
    """Return how a call for a clip ends."""
    try:
        await api.create(CreatePersonaRequest(root_clip_id=clip, name="Neon", description="Night drive"))
    except PersonaError as error:
        return type(error).__name__
    return "created"


@pytest.mark.slow
async def test_a_clip_asks_for_a_fault_by_its_name() -> None:
    """The first request meets the fault, and the next one succeeds; the names are printed."""
    async with faking() as (introduction, env):
        for name, status in (("lost-response-1", 3), ("dropped-1", 3), ("server-error-1", 3)):
            command = [*CREATE[:2], name, *CREATE[3:]]
            assert (await run(COMMAND, *command, env=env)).status == status
            assert (await run(COMMAND, *command, env=env)).status == 0
    printed = set(re.findall(r"[a-z-]+-(?=[, ])", introduction))
    assert printed >= {"unknown-", "lost-response-", "rate-limited-", "hang-", "truncated-response-"}


@pytest.mark.slow
async def test_the_service_may_be_slow() -> None:
    """If a client does not wait for the response, the outcome is unknown."""
    async with faking("--latency", "30") as (_, env):
        done = await run(COMMAND, *CREATE, "--timeout", "0.1", env=env)
        assert done.status == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--fail", "lost-response"], "--fail must be KIND=SHARE, with one of rate-limited, "),
        (["--fail", "lost-response=x"], "--fail must be KIND=SHARE, with one of rate-limited, "),
        (["--fail", "fire=0.1"], "--fail must be one of rate-limited, "),
        (["--fail", "dropped=1.5"], "--fail must be a share from 0 to 1; got 1.5 for dropped"),
        (["--fail", "dropped=0.6", "--fail", "hang=0.6"], "--fail must be shares whose sum is at most 1; got 1.2"),
        (["--latency", "-1"], "'--latency'"),
    ],
)
async def test_an_unusable_option_is_reported_in_one_line(options: list[str], reason: str) -> None:
    """The line shows what the option must be and what it got."""
    done = await run(COMMAND, "fake", *options, env={})
    assert (done.status, done.output) == (2, "")
    assert reason in done.errors
    assert done.errors.count("\n") == 1


async def endings(seed: int | None) -> list[str]:
    """Return how a hundred calls of a randomly failing service end."""
    fake = FakeSuno(failures={"dropped": 0.3, "server-error": 0.2}, seed=seed)
    async with fake, PersonaAPI(fake.api_key, base_url=fake.base_url) as api:
        return [await ending(api, "54834687") for _ in range(100)]


async def test_a_share_of_the_requests_fails() -> None:
    """The share is about the one asked for; with a seed, the same requests fail in each run."""
    first, again, other = [await endings(seed) for seed in (7, 7, 8)]
    assert first == again != other
    counts = Counter(first)
    assert counts.keys() == {"created", "ConnectionLostError", "ServerError"}
    assert 15 <= counts["ConnectionLostError"] <= 45
    assert 8 <= counts["ServerError"] <= 35


async def test_every_named_fault_has_its_outcome() -> None:
    """The client has default settings and a short timeout."""
    expected = {
        "rate-limited-1": "created",
        "unavailable-1": "created",
        "server-error-1": "ServerError",
        "dropped-1": "ConnectionLostError",
        "lost-response-1": "ConnectionLostError",
        "truncated-response-1": "ConnectionLostError",
        "hang-1": "ResponseTimeoutError",
        "hang": "created",
    }
    async with FakeSuno() as fake, PersonaAPI(fake.api_key, base_url=fake.base_url, timeout=1) as api:
        found = await asyncio.gather(*(ending(api, clip) for clip in expected))
    assert dict(zip(expected, found, strict=True)) == expected


async def test_random_failures_also_hit_malformed_requests() -> None:
    """A body that is not a request meets the random failure."""
    import aiohttp

    async with FakeSuno(failures={"server-error": 1}) as fake, aiohttp.ClientSession(fake.base_url) as session:
        for body in (b"[1]", b"{"):
            async with session.post("/suno/persona/create/", data=body) as response:
                assert response.status == 500


async def test_a_latency_ends_with_the_service(request_: CreatePersonaRequest) -> None:
    """Closing the service does not wait for it; the persona was created at once."""
    async with FakeSuno(latency=1000) as fake, PersonaAPI(fake.api_key, base_url=fake.base_url) as api:
        call = asyncio.create_task(api.create(request_))
        await fake.wait_for_requests(1)
        assert len(fake.personas) == 1
        call.cancel()
        await asyncio.wait([call])


async def test_a_latency_delays_the_response(request_: CreatePersonaRequest) -> None:
    """The call waits for the response, and succeeds."""
    async with FakeSuno(latency=0.01) as fake, PersonaAPI(fake.api_key, base_url=fake.base_url) as api:
        assert (await api.create(request_)).name == request_.name


@pytest.mark.parametrize("options", [{"latency": -1}, {"failures": {"fire": 0.1}}, {"failures": {"hang": 2}}])
def test_an_unusable_argument_is_an_error(options: dict[str, object]) -> None:
    """The error names the argument."""
    with pytest.raises(ConfigurationError, match=f"{next(iter(options))} must be"):
        FakeSuno(**options)  # type: ignore[arg-type]  # that is the point
