"""The key is secret: it is in nothing that a program prints, logs, raises or stores, even if a service echoes it."""

import asyncio
import copy
import json
import logging
import pickle
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.broken_service import BrokenService, Exchange
from support.calls import BASE, ONCE, REQUEST
from support.cancellation import cancelled_at
from support.clock import Clock
from support.shown import frames, in_rich, in_structlog, is_ours

from suno_persona import ConfigurationError, CreatePersonaRequest, PersonaAPI, PersonaError, dumps
from suno_persona._secret import Secret
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno, Fault

KEY = "sk-Ab3/dEf6+hIj9lMn2_pQr5&tUv8-Wx4yZa7bC1dE0fG9hJ6kL3mN"
PART = "hIj9lMn2"

# How an echo may be written within a text of a JSON document.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda key: key,
    "slashes escaped": lambda key: key.replace("/", "\\/"),
    "escaped for HTML": lambda key: key.replace("&", "\\u0026").replace("+", "\\u002B"),
    "JSON escapes": lambda key: "".join(f"\\u{ord(character):04x}" for character in key),
    "JSON in JSON": lambda key: json.dumps(json.dumps(key).replace("/", "\\/"))[1:-1],
    "URL": lambda key: quote(key, safe=""),
    "URL, in lower case": lambda key: key.replace("/", "%2f").replace("+", "%2b"),
}
spellings = pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)


def assert_masked(shown: str) -> None:
    """Assert that a text has no echo, in no spelling."""
    assert not [name for name, spell in SPELLINGS.items() if spell(KEY) in shown]
    assert PART not in shown


def assert_hidden(error: BaseException) -> None:
    """Assert that nothing that prints, logs or pickles an error shows the key, with the variables of all frames."""
    printed = in_rich(error) + in_structlog(error)
    assert "suno_persona" in printed, "our frames are in it"
    assert_masked(printed)
    if isinstance(error, PersonaError):
        assert_masked(repr(error) + str(error) + repr(attrs.asdict(error, recurse=False)))
        assert PART.encode() not in pickle.dumps(error)
    for link in chain(error):
        for frame in traceback.TracebackException.from_exception(link, capture_locals=True).stack:
            if not is_ours(frame.filename):
                assert_masked(f"{frame.name} {frame.locals}")


def chain(error: BaseException | None) -> list[BaseException]:
    """Return an exception and those that led to it."""
    return [] if error is None else [error, *chain(error.__cause__), *chain(error.__context__)]


async def raised(api: PersonaAPI) -> BaseException:
    """Return the exception that a call raises."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011  # a cancellation, too
        await api.create(REQUEST)
    return caught.value


def test_a_key_that_is_held_plainly_is_found() -> None:
    """The checks of the other tests do look into frames."""
    with pytest.raises(PersonaError) as caught:
        CreatePersonaRequest(root_clip_id=f"{KEY}\n", name="n", description="d")
    for printed in (in_rich(caught.value), in_structlog(caught.value)):
        assert KEY in printed


ECHO = f'{{"error": {{"message": "bad key Bearer {KEY}", "code": "{KEY}"}}}}'.encode()
FAULTS: dict[str, Fault] = {
    "rejected": Fault.response(401, ECHO, headers={"X-Echo": KEY, "X-Request-Id": KEY}),
    "rejected, and cut off": Fault(status=400, body=ECHO * 2, ending="cut"),
    "failed": Fault.response(500, KEY.encode()),
    "no persona": Fault.response(200, ECHO, headers={"X-Echo": KEY}),
    "cut off": Fault(status=200, body=ECHO * 2, ending="cut"),
    "redirected": Fault.redirect(f"https://other.example/?key={quote(KEY, safe='')}"),
    "dropped": Fault.dropped(),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_an_error_response_hides_the_key(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """It is not in the error's text, fields, traceback or pickle, nor in a log, even if the service echoes it."""
    caplog.set_level(logging.DEBUG)
    async with FakeSuno(api_key=KEY) as fake:
        fake.script(fault)
        async with PersonaAPI(KEY, retry=ONCE, base_url=fake.base_url) as api:
            assert_hidden(await raised(api))
    assert_masked(caplog.text)


async def test_a_response_that_is_not_http_hides_the_key() -> None:
    """Aiohttp quotes the bytes that it cannot read; the quotation is masked, and aiohttp's own error is left out."""

    async def send(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % KEY.encode())
        exchange.close()

    async with BrokenService(send) as service, PersonaAPI(KEY, base_url=service.base_url) as api:
        assert_hidden(await raised(api))


async def test_a_call_that_times_out_hides_the_key(advance: Clock) -> None:
    """The exception that ends it passes through aiohttp's frames, which hold the headers."""
    async with FakeSuno(api_key=KEY) as fake, PersonaAPI(KEY, retry=ONCE, base_url=fake.base_url) as api:
        fake.script(Fault.hang())
        call = asyncio.create_task(raised(api))
        await fake.wait_for_requests(1)
        advance(61)
        assert_hidden(await call)


async def test_a_cancelled_call_hides_the_key() -> None:
    """The call is cancelled at each point at which it suspends; aiohttp's frames are not in the traceback."""
    in_exchange = 0
    for point in range(99):
        async with FakeSuno(api_key=KEY) as fake, PersonaAPI(KEY, base_url=fake.base_url) as api:
            fake.script(Fault.rate_limited(0))
            call = asyncio.create_task(cancelled_at(point, api.create(REQUEST)))
            await asyncio.wait([call])
        if not call.cancelled():
            break
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
        if frames(caught.value) is not None:  # the first point is before a frame of ours
            assert_hidden(caught.value)
            in_exchange += "post" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert in_exchange >= 2, "the exchange was cancelled at several points"


class _Stopped(BaseException):
    """Like `KeyboardInterrupt`, without its effect on the event loop."""


async def _trace(_: Any, __: Any, parameters: Any) -> None:
    raise LookupError(dict(parameters.headers))


async def _stop_meanwhile(_: Any, __: Any, parameters: Any) -> None:
    try:
        await _trace(None, None, parameters)
    except LookupError:
        raise _Stopped from None


@pytest.mark.parametrize("hook", [_trace, _stop_meanwhile])
async def test_a_failing_session_of_the_caller_hides_the_key(hook: Callable[..., Awaitable[None]]) -> None:
    """The session's hooks see the request's headers, and may put them into their exceptions."""
    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(hook)
    async with FakeSuno(api_key=KEY) as fake, aiohttp.ClientSession(trace_configs=[trace]) as session:
        assert_hidden(await raised(PersonaAPI(KEY, retry=ONCE, base_url=fake.base_url, session=session)))


@pytest.mark.parametrize("spoil", ["{}\n", "Bearer {} ", "é{}"])
def test_a_key_that_no_header_can_carry_is_hidden(spoil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is hidden as an argument and in the environment."""
    monkeypatch.setenv("SUNO_API_KEY", spoil.format(KEY))
    for name, arguments in (("api_key", [spoil.format(KEY)]), ("SUNO_API_KEY", [])):
        with pytest.raises(ConfigurationError, match=f"^{name} contains") as caught:
            PersonaAPI(*arguments, base_url=BASE)
        assert_hidden(caught.value)


async def test_a_client_does_not_show_its_key() -> None:
    """The `repr` of the client and of its parts hides the key, and they cannot be pickled or copied."""
    async with PersonaAPI(KEY, base_url=BASE) as api:
        held = [getattr(api, name) for name in api.__slots__ if name != "__weakref__"]
    assert not hasattr(api, "__dict__")
    assert_masked(repr(api) + str(api) + repr(held))
    for item in (api, held):
        with pytest.raises(TypeError):
            pickle.dumps(item)
        with pytest.raises(TypeError):
            copy.deepcopy(item)
    with pytest.raises(TypeError, match="one per process"):
        copy.copy(api)


@spellings
async def test_an_echo_in_a_persona_is_masked(spell: Callable[[str], str], tmp_path: Path) -> None:
    """It is masked in fields, in `extra`, in names and in the journal, even if a later member hides it."""
    echo = spell(KEY)
    body = (
        f'{{"id": "p", "token": "got {echo}!", "{echo}": [1], "description": "{echo}", "name": "{echo}", "name": "N"}}'
    )
    async with FakeSuno(api_key=KEY) as fake, PersonaAPI(KEY, retry=ONCE, base_url=fake.base_url) as api:
        fake.script(Fault.response(200, body.encode(), headers={"X-Request-Id": f"r-{KEY}"}))
        (outcome,) = [o async for o in api.create_many([REQUEST], journal=Journal(tmp_path / "personas.db"))]
    persona = outcome.result()
    assert (persona.id, persona.name, outcome.request_id) == ("p", "N", "r-***")
    assert_masked(repr(outcome) + dumps(persona).decode())
    for file in tmp_path.iterdir():
        assert_masked(file.read_bytes().decode("latin-1"))


@spellings
@pytest.mark.parametrize("before", ["", "\\\\", '\\"'])
def test_nothing_but_the_echo_is_masked(spell: Callable[[str], str], before: str) -> None:
    """What surrounds it stays, and a document stays one."""
    masked = Secret(KEY).mask(f'{{"name": "{before}{spell(KEY)} is bad", "note": "b"}}')
    assert_masked(masked)
    assert json.loads(masked)["name"].replace('"', "").endswith("*** is bad")
    assert json.loads(masked)["note"] == "b"


@pytest.mark.parametrize("text", ["", "***", KEY[:-1], KEY.upper(), "with \\n, \\u00e9, %20 and 100% of nothing"])
def test_text_without_an_echo_is_unchanged(text: str) -> None:
    """Only the whole key is an echo; one of less than 8 characters is no real key, and may be a word."""
    assert (Secret(KEY).mask(text), Secret("clip").mask("no such clip")) == (text, "no such clip")


@given(st.text("abc019/+-_.~%\\u&=é", min_size=8, max_size=40), st.text(max_size=30))
def test_any_key_is_masked_in_any_text(key: str, text: str) -> None:
    """Whatever characters they have."""
    assert key not in Secret(key).mask(f"{text} {key} {text}").replace("***", "")
