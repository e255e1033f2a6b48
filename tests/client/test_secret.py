"""The key is secret: it appears in nothing that a program prints, logs, raises or stores."""

import asyncio
import copy
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from support.broken_service import BrokenService, Exchange
from support.calls import ONCE
from support.cancellation import cancelled_at

from suno_persona import ConfigurationError, CreatePersonaRequest, PersonaAPI, PersonaError, UnreadableResponseError
from suno_persona.testing import FakeSuno, Fault

KEY = "sk-secret/0123456789"
SECRET = "0123456789"


@pytest.fixture
async def fake_suno() -> Any:
    """Yield a fake service that expects the key of these tests."""
    async with FakeSuno(api_key=KEY) as fake:
        yield fake


def everything(error: BaseException) -> str:
    """Return an error's text, fields and traceback with the variables of aiohttp's and our frames, causes included."""
    stack = [
        f"{frame.filename} {frame.name} {frame.locals}"
        for part in _chain(error)
        for frame in traceback.TracebackException.from_exception(part, capture_locals=True).stack
        if "/tests/" not in frame.filename
    ]
    fields = attrs.asdict(error, recurse=False) if isinstance(error, PersonaError) else {}
    return "\n".join([repr(error), str(error), repr(error.args), repr(fields), *stack])


def _chain(error: BaseException | None) -> list[BaseException]:
    if error is None:
        return []
    return [error, *_chain(error.__cause__), *_chain(error.__context__)]


ECHO = f'{{"error": {{"message": "bad key Bearer {KEY}", "code": "{KEY}"}}}}'.encode()

FAULTS = [
    Fault.response(401, ECHO),
    Fault.response(401, ECHO.replace(b"/", b"\\/")),
    Fault.response(500, KEY.encode(), headers={"X-Echo": KEY, "X-Request-Id": KEY}),
    Fault.response(200, ECHO),
    Fault.response(200, f'{{"id": "", "key": "{KEY}"}}'.encode()),
    Fault.response(401, ECHO.replace(b"0123", b"\\u00301&#50;%33")),
    Fault.response(401, ECHO[: ECHO.rindex(b"9")]),
    Fault.redirect(f"https://other.example/?key={KEY}"),
    Fault.redirect(f"https://other.example/?key={KEY.replace('/', '%2F')}"),
    Fault(status=200, body=ECHO * 2, ending="cut"),
    Fault(status=400, body=ECHO * 2, ending="cut"),
    Fault.dropped(),
    Fault.lost_answer(),
    Fault.truncated_response(),
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_error_shows_the_key(
    fault: Fault, fake_suno: FakeSuno, request_: CreatePersonaRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not in the error's text, fields, traceback or pickle, nor in a log, even if the service echoes it."""
    caplog.set_level(logging.DEBUG)
    fake_suno.script(fault)
    async with PersonaAPI(KEY, retry=ONCE, base_url=fake_suno.base_url) as api:
        with pytest.raises(PersonaError) as caught:
            await api.create(request_)
    assert SECRET not in everything(caught.value)
    assert SECRET.encode() not in pickle.dumps(caught.value)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "response", [b"Authorization: Bearer %b\r\n\r\n", b"HTTP/1.1 xyz %b\r\n\r\n", b"HTTP/1.1 200 OK\r\n%b\r\n\r\n"]
)
async def test_a_response_that_is_not_http_does_not_show_the_key(
    response: bytes, request_: CreatePersonaRequest
) -> None:
    """Aiohttp quotes what it cannot read; the quotation is masked, and aiohttp's own error is left out."""

    async def echo(exchange: Exchange) -> None:
        await exchange.send(response % KEY.encode())

    async with BrokenService(echo) as service, PersonaAPI(KEY, base_url=service.base_url) as api:
        with pytest.raises(UnreadableResponseError) as caught:
            await api.create(request_)
    assert SECRET not in everything(caught.value)
    assert SECRET.encode() not in pickle.dumps(caught.value)


async def test_a_connection_that_fails_does_not_show_the_key(request_: CreatePersonaRequest) -> None:
    """Aiohttp's own frames are not in the traceback."""
    async with FakeSuno() as fake:
        base_url = fake.base_url
    async with PersonaAPI(KEY, retry=ONCE, base_url=base_url) as api:
        with pytest.raises(PersonaError) as caught:
            await api.create(request_)
    assert SECRET not in everything(caught.value)


async def test_a_cancelled_call_does_not_show_the_key(request_: CreatePersonaRequest) -> None:
    """Wherever it suspends, aiohttp's frames, which hold the request's headers, are not in the traceback."""
    point, shown, in_exchange = -1, "x", 0
    while shown:
        point += 1
        async with FakeSuno(api_key=KEY) as fake, PersonaAPI(KEY, base_url=fake.base_url) as api:
            fake.script(Fault.rate_limited(0))

            async def cancelled(point: int = point, api: PersonaAPI = api) -> str:
                try:
                    await cancelled_at(point, api.create(request_))
                except asyncio.CancelledError as error:
                    return everything(error)
                return ""

            shown = await asyncio.create_task(cancelled())
        assert SECRET not in shown
        assert "/aiohttp/" not in shown
        in_exchange += "_transport.py" in shown
    assert in_exchange >= 2, "it was cancelled within the exchange"
    assert point >= 3, "the call was cancelled at several points"


async def test_the_last_of_many_rejections_does_not_show_the_key(
    fake_suno: FakeSuno, request_: CreatePersonaRequest
) -> None:
    """The chain of the error does not show the key through the errors of earlier attempts."""
    fake_suno.script(*[Fault.response(429, ECHO, headers={"Retry-After": "0"})] * 4)
    async with PersonaAPI(KEY, base_url=fake_suno.base_url) as api:
        with pytest.raises(PersonaError) as caught:
            await api.create(request_)
    assert SECRET not in everything(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"api_key": f"{KEY}\n"},
        {"api_key": KEY.encode()},
        {"api_key": KEY, "base_url": "nowhere"},
        {"api_key": KEY, "max_connections": 0},
        {"api_key": KEY, "timeout": "1"},
    ],
)
def test_an_invalid_configuration_does_not_show_the_key(arguments: dict[str, Any]) -> None:
    """Not even an invalid key is shown."""
    arguments = {"base_url": "https://gateway.example", **arguments}
    with pytest.raises(ConfigurationError) as caught:
        PersonaAPI(**arguments)
    assert SECRET not in everything(caught.value)


async def test_a_client_does_not_show_its_key(fake_suno: FakeSuno) -> None:
    """The `repr` of the client and of its parts hides the key, and they cannot be pickled or copied."""
    async with PersonaAPI(KEY, retry=ONCE, base_url=fake_suno.base_url) as api:
        assert not hasattr(api, "__dict__")
        others = ("__weakref__", "_loop")  # the test's own
        held = [getattr(api, name) for name in api.__slots__ if name not in others]
    assert SECRET not in repr(api) + str(api) + repr(held)
    carry_off: list[Callable[[Any], object]] = [pickle.dumps, copy.deepcopy]
    for use in carry_off:
        for item in (api, held):
            with pytest.raises(TypeError):
                use(item)


async def test_a_short_key_does_not_garble_responses(request_: CreatePersonaRequest) -> None:
    """Masking every "e" would leave no error readable."""
    async with FakeSuno(api_key="e") as fake, PersonaAPI("e", base_url=fake.base_url) as api:
        fake.script(Fault.response(400, b"the message"))
        with pytest.raises(PersonaError, match="the message"):
            await api.create(request_)
