"""However a call fails, nothing that prints its traceback shows the key."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from support.broken_service import BrokenService, Exchange
from support.calls import ONCE
from support.cancellation import cancelled_at
from support.clock import Clock
from support.shown import frames, functions, in_rich, in_structlog

from suno_persona import ConfigurationError, CreatePersonaRequest, PersonaAPI, PersonaError
from suno_persona.testing import FakeSuno, Fault

REQUEST = CreatePersonaRequest(root_clip_id="54834687", name="Neon", description="Night drive")
KEY = "sk-ab/cd+ef_" + "".join(random.Random(1).choices("abcdefghijkmnopqrstuvwxyz0123456789", k=40))


def assert_hidden(error: BaseException) -> None:
    """Assert that no printer of tracebacks shows the key."""
    for printed in (in_rich(error), in_structlog(error)):
        assert "suno_persona" in printed, "our frames are in it"
        assert KEY not in printed
        assert KEY[12:] not in printed


async def failure(api: PersonaAPI) -> BaseException:
    """Return the exception that a call raises."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011  # a cancellation, too
        await api.create(REQUEST)
    return caught.value


ECHO = f'{{"error": {{"message": "bad key {KEY}"}}}}'.encode()


def test_a_key_that_is_held_plainly_is_found() -> None:
    """The checks of the other tests do look into frames."""
    with pytest.raises(PersonaError) as caught:
        CreatePersonaRequest(root_clip_id=f"{KEY}\n", name="n", description="d")
    for shown in (in_rich(caught.value), in_structlog(caught.value)):
        assert KEY in shown


FAULTS: dict[str, Fault] = {
    "rejected": Fault.response(401, ECHO, headers={"X-Echo": KEY, "X-Request-Id": KEY}),
    "rejected, escaped": Fault.response(401, ECHO.replace(b"/", b"\\/").replace(b"+", b"\\u002B")),
    "failed": Fault.response(500, KEY.encode()),
    "no persona": Fault.response(200, ECHO, headers={"X-Echo": KEY}),
    "too large": Fault.response(200, ECHO + b" " * 100_000),
    "redirected": Fault.redirect(f"https://other.example/?key={quote(KEY)}"),
    "dropped": Fault.dropped(),
    "lost": Fault.lost_answer(),
    "cut": Fault(status=200, body=ECHO * 2, ending="cut"),
    "rejected and cut": Fault(status=400, body=ECHO * 2, ending="cut"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_an_error_response_hides_the_key(fault: Fault) -> None:
    """The error hides the key even if the service echoes it."""
    async with FakeSuno(api_key=KEY) as fake:
        fake.script(fault)
        async with PersonaAPI(KEY, retry=ONCE, base_url=fake.base_url, max_response_size=50_000) as api:
            error = await failure(api)
    assert isinstance(error, PersonaError)
    assert_hidden(error)


@pytest.mark.parametrize("response", [b"Authorization: Bearer %b\r\n\r\n", b"HTTP/1.1 200 OK\r\n%b\r\n\r\n", b"%b"])
async def test_a_response_that_is_not_http_hides_the_key(response: bytes) -> None:
    """Aiohttp quotes the bytes that it cannot read."""

    async def send(exchange: Exchange) -> None:
        await exchange.send(response % KEY.encode())
        exchange.close()

    async with BrokenService(send) as service, PersonaAPI(KEY, base_url=service.base_url) as api:
        assert_hidden(await failure(api))


async def test_a_failed_connection_hides_the_key() -> None:
    """The service no longer runs."""
    async with FakeSuno() as fake:
        base_url = fake.base_url
    async with PersonaAPI(KEY, retry=ONCE, base_url=base_url) as api:
        assert_hidden(await failure(api))


async def test_a_timeout_hides_the_key(advance: Clock) -> None:
    """The timeout strikes while the request is in flight."""
    async with FakeSuno(api_key=KEY) as fake, PersonaAPI(KEY, retry=ONCE, base_url=fake.base_url) as api:
        fake.script(Fault.hang())
        call = asyncio.create_task(failure(api))
        while not fake.requests:
            await asyncio.sleep(0)
        advance(61)
        assert_hidden(await call)


async def test_closing_the_client_in_flight_hides_the_key() -> None:
    """Closing the client makes aiohttp end the call."""
    async with FakeSuno(api_key=KEY) as fake, PersonaAPI(KEY, retry=ONCE, base_url=fake.base_url) as api:
        fake.script(Fault.hang())
        call = asyncio.create_task(failure(api))
        while not fake.requests:
            await asyncio.sleep(0)
        await api.close()
        assert_hidden(await call)


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


@pytest.mark.parametrize(
    "options",
    [
        {"middlewares": [_middleware]},
        {"raise_for_status": True},
        *map(_traced, (_trace, _group, _stop, _stop_meanwhile)),
    ],
)
async def test_a_failing_session_of_the_caller_hides_the_key(options: dict[str, Any]) -> None:
    """The session's hooks see the request's headers, and may put them into their exceptions."""
    async with FakeSuno(api_key=KEY) as fake, aiohttp.ClientSession(**options) as session:
        fake.script(Fault.response(400))
        api = PersonaAPI(KEY, retry=ONCE, base_url=fake.base_url, session=session)
        assert_hidden(await failure(api))


async def test_a_cancelled_call_hides_the_key() -> None:
    """The call is cancelled at each point at which it suspends."""
    depth = 0
    error: BaseException | None = None
    for point in range(100):
        async with FakeSuno(api_key=KEY) as fake, PersonaAPI(KEY, base_url=fake.base_url) as api:
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
            assert_hidden(error)
            depth += "post" in functions(error)
    assert depth >= 2, "the exchange was cancelled at several points"
    assert error is None, "the call was cancelled at every point"


@pytest.mark.parametrize(
    "options", [{"base_url": "nowhere"}, {"max_connections": 0}, {"retry": 1}, {"session": 1}, {"timeout": "1"}]
)
def test_an_invalid_option_hides_the_key(options: dict[str, Any]) -> None:
    """The client knows the key by then."""
    with pytest.raises(ConfigurationError) as caught:
        PersonaAPI(KEY, **{"base_url": "https://gateway.example", **options})
    assert_hidden(caught.value)


@pytest.mark.parametrize("spoil", ["{}\n", "Bearer {} ", "é{}"])
def test_a_key_that_no_header_can_carry_is_hidden(spoil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is hidden as an argument and in the environment."""
    with pytest.raises(ConfigurationError, match=r"^api_key contains") as caught:
        PersonaAPI(spoil.format(KEY), base_url="https://gateway.example")
    assert_hidden(caught.value)
    monkeypatch.setenv("SUNO_API_KEY", spoil.format(KEY))
    with pytest.raises(ConfigurationError, match=r"^SUNO_API_KEY contains") as caught:
        PersonaAPI(base_url="https://gateway.example")
    assert_hidden(caught.value)
