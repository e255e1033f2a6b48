"""However a call fails, nothing that prints its traceback or walks over its objects finds the key."""

import asyncio
import base64
import random
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from support.broken_service import BrokenService, Exchange
from support.calls import ONCE
from support.cancellation import cancelled_at
from support.clock import Clock
from support.shown import frames, functions, in_reach, in_rich, in_structlog

from suno_persona import ConfigurationError, CreatePersonaRequest, PersonaAPI, PersonaError
from suno_persona.testing import FakeSuno, Fault

pytestmark = pytest.mark.slow

REQUEST = CreatePersonaRequest(root_clip_id="54834687", name="Neon", description="Night drive")
KEYS = {
    length: "sk-" + "".join(random.Random(length).choices("abcdefghijkmnopqrstuvwxyz0123456789/+_", k=length - 3))
    for length in (20, 80, 164, 2000)
}


def parts(key: str) -> set[str]:
    """Return every run of 8 characters of the key and of its encodings."""
    spellings = (key, key.encode().hex(), base64.b64encode(key.encode()).decode())
    return {text[start : start + 8] for text in spellings for start in range(3, len(text) - 8)}


def assert_hidden(key: str, error: BaseException) -> None:
    """Assert that no part of the key is printed or in reach."""
    printed = in_rich(error), in_structlog(error)
    assert all("suno_persona" in shown for shown in printed), "our frames are in it"
    for shown in (*printed, in_reach(error)):
        assert not [part for part in parts(key) if part in shown]


async def failure(api: PersonaAPI) -> BaseException:
    """Return the exception that a call raises."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011  # a cancellation, too
        await api.create(REQUEST)
    return caught.value


def echo(key: str) -> bytes:
    return b'{"error": {"message": "bad key %b, or %b"}}' % (key.encode(), base64.b64encode(f"Bearer {key}".encode()))


def test_a_key_that_is_held_plainly_is_found() -> None:
    """The checks of the other tests do look into frames, slots and closures."""
    key = KEYS[80]

    class Holder:
        __slots__ = ("hooks",)

        def __init__(self) -> None:
            self.hooks = {"hook": [lambda: key]}

    assert [part for part in parts(key) if part in in_reach(ValueError(Holder()))]
    with pytest.raises(PersonaError) as caught:
        CreatePersonaRequest(root_clip_id=f"{key}\n", name="n", description="d")
    for shown in (in_rich(caught.value), in_structlog(caught.value)):
        assert [part for part in parts(key) if part in shown]


Faults = Callable[[str], Fault]
FAULTS: dict[str, Faults] = {
    "rejected": lambda key: Fault.response(401, echo(key), headers={"X-Echo": key, "X-Request-Id": key}),
    "failed": lambda key: Fault.response(500, key.encode()),
    "no persona": lambda key: Fault.response(200, echo(key), headers={"X-Echo": key}),
    "too large": lambda key: Fault.response(200, echo(key) + b" " * 100_000),
    "redirected": lambda key: Fault.redirect(f"https://other.example/?key={key}"),
    "dropped": lambda _: Fault.dropped(),
    "lost": lambda _: Fault.lost_answer(),
    "cut": lambda key: Fault(status=200, body=echo(key) * 2, ending="cut"),
    "rejected and cut": lambda key: Fault(status=400, body=echo(key) * 2, ending="cut"),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_an_error_response_hides_the_key(fault: Faults, key: str) -> None:
    """The error hides the key even if the service echoes it."""
    async with FakeSuno(api_key=key) as fake:
        fake.script(fault(key))
        async with PersonaAPI(key, retry=ONCE, base_url=fake.base_url, max_response_size=50_000) as api:
            error = await failure(api)
    assert isinstance(error, PersonaError)
    assert_hidden(key, error)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("response", [b"Authorization: Bearer %b\r\n\r\n", b"HTTP/1.1 200 OK\r\n%b\r\n\r\n", b"%b"])
async def test_a_response_that_is_not_http_hides_the_key(response: bytes, key: str) -> None:
    """Aiohttp quotes the bytes that it cannot read."""

    async def send(exchange: Exchange) -> None:
        await exchange.send(response % key.encode())
        exchange.close()

    async with BrokenService(send) as service, PersonaAPI(key, base_url=service.base_url) as api:
        assert_hidden(key, await failure(api))


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
async def test_a_failed_connection_hides_the_key(key: str) -> None:
    """The service no longer runs."""
    async with FakeSuno() as fake:
        base_url = fake.base_url
    async with PersonaAPI(key, retry=ONCE, base_url=base_url) as api:
        assert_hidden(key, await failure(api))


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
async def test_a_timeout_hides_the_key(key: str, advance: Clock) -> None:
    """The timeout strikes while the request is in flight."""
    async with FakeSuno(api_key=key) as fake, PersonaAPI(key, retry=ONCE, base_url=fake.base_url) as api:
        fake.script(Fault.hang())
        call = asyncio.create_task(failure(api))
        while not fake.requests:
            await asyncio.sleep(0)
        advance(61)
        assert_hidden(key, await call)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
async def test_closing_the_client_in_flight_hides_the_key(key: str) -> None:
    """Closing the client makes aiohttp end the call."""
    async with FakeSuno(api_key=key) as fake, PersonaAPI(key, retry=ONCE, base_url=fake.base_url) as api:
        fake.script(Fault.hang())
        call = asyncio.create_task(failure(api))
        while not fake.requests:
            await asyncio.sleep(0)
        await api.close()
        assert_hidden(key, await call)


class _RejectedError(Exception):
    """An error of a caller's middleware, which holds the request."""


class _Stopped(BaseException):
    """Like `KeyboardInterrupt`, without its effect on the event loop."""


async def _middleware(request: aiohttp.ClientRequest, _: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    raise _RejectedError(request)


async def _trace(_: Any, __: Any, parameters: Any) -> None:
    raise LookupError(dict(parameters.headers))


async def _group(_: Any, __: Any, parameters: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_trace(None, None, parameters))


async def _stop(*_: Any) -> None:
    raise _Stopped


async def _stop_meanwhile(_: Any, __: Any, parameters: Any) -> None:
    try:
        await _trace(None, None, parameters)
    except LookupError:
        raise _Stopped from None


def _traced(hook: Callable[..., Awaitable[None]]) -> dict[str, Any]:
    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(hook)
    return {"trace_configs": [trace]}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize(
    "options",
    [
        {"middlewares": [_middleware]},
        {"raise_for_status": True},
        *map(_traced, (_trace, _group, _stop, _stop_meanwhile)),
    ],
)
async def test_a_failing_session_of_the_caller_hides_the_key(options: dict[str, Any], key: str) -> None:
    """The session's hooks see the request's headers, and may put them into their exceptions."""
    async with FakeSuno(api_key=key) as fake, aiohttp.ClientSession(**options) as session:
        fake.script(Fault.response(400))
        api = PersonaAPI(key, retry=ONCE, base_url=fake.base_url, session=session)
        assert_hidden(key, await failure(api))


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
async def test_a_cancelled_call_hides_the_key(key: str) -> None:
    """The call is cancelled at each point at which it suspends."""
    depth = 0
    error: BaseException | None = None
    for point in range(100):
        async with FakeSuno(api_key=key) as fake, PersonaAPI(key, base_url=fake.base_url) as api:
            fake.script(Fault.rate_limited(0))

            async def call(point: int = point, api: PersonaAPI = api) -> BaseException | None:
                try:
                    await cancelled_at(point, api.create(REQUEST))
                except asyncio.CancelledError as cancellation:
                    return cancellation
                return None

            error = await asyncio.create_task(call())
        if error is None:
            break
        if frames(error) is not None:  # the first point is before a frame of ours
            assert_hidden(key, error)
            depth += "post" in functions(error)
    assert depth >= 2, "the exchange was cancelled at several points"
    assert error is None, "the call was cancelled at every point"


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize(
    "options", [{"base_url": "nowhere"}, {"max_connections": 0}, {"retry": 1}, {"session": 1}, {"timeout": "1"}]
)
def test_an_invalid_option_hides_the_key(options: dict[str, Any], key: str) -> None:
    """The client knows the key by then."""
    with pytest.raises(ConfigurationError) as caught:
        PersonaAPI(key, **{"base_url": "https://gateway.example", **options})
    assert_hidden(key, caught.value)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("spoil", ["{}\n", "Bearer {} ", "é{}"])
def test_a_key_that_no_header_can_carry_is_hidden(spoil: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is hidden as an argument and in the environment."""
    with pytest.raises(ConfigurationError, match="api_key must be") as caught:
        PersonaAPI(spoil.format(key), base_url="https://gateway.example")
    assert_hidden(key, caught.value)
    monkeypatch.setenv("SUNO_API_KEY", spoil.format(key))
    with pytest.raises(ConfigurationError, match="SUNO_API_KEY must be") as caught:
        PersonaAPI(base_url="https://gateway.example")
    assert_hidden(key, caught.value)
