"""`PersonaAPI`: its options, its life cycle, and the requests that it sends."""

import asyncio
import copy
import json
import pickle
from collections.abc import Coroutine
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses
from support.contract import CONTRACT_EXAMPLE
from yarl import URL

from suno_persona import (
    ConfigurationError,
    ConnectionLostError,
    CreatePersonaRequest,
    InvalidRequestError,
    PersonaAPI,
    RejectedError,
    UsageError,
    loads,
)
from suno_persona.testing import FakeSuno, Fault

KEY = "sk-0123456789"
BASE = "https://gateway.example"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of the environment."""
    monkeypatch.delenv("SUNO_API_KEY", raising=False)
    monkeypatch.delenv("SUNO_BASE_URL", raising=False)


async def test_the_example_of_the_contract_is_returned(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """`create` returns the persona as the service sent it."""
    fake_suno.script(Fault.response(200, CONTRACT_EXAMPLE))
    assert await persona_api.create(request_) == loads(CONTRACT_EXAMPLE)


async def test_the_request_follows_the_contract(fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """It is a POST to the contract's path, with its headers and all five members under the contract's names."""
    await persona_api.create(
        CreatePersonaRequest(root_clip_id="54834687", name="Néon", description="Night drive", clips=["a", "b"])
    )
    (received,) = fake_suno.requests
    assert (received.method, received.path) == ("POST", "/suno/persona/create/")
    assert received.headers["Authorization"] == f"Bearer {fake_suno.api_key}"
    assert received.headers["Content-Type"] == "application/json"
    assert received.json() == {
        "root_clip_id": "54834687",
        "name": "Néon",
        "description": "Night drive",
        "clips": ["a", "b"],
        "is_public": False,
    }


@pytest.mark.slow
async def test_a_thousand_concurrent_calls_share_one_client(fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """Each call gets its own persona."""
    requests = [CreatePersonaRequest(root_clip_id="c", name=f"Voice {n}", description="D") for n in range(1000)]
    personas = await asyncio.gather(*map(persona_api.create, requests))
    assert [persona.name for persona in personas] == [request.name for request in requests]
    assert len({persona.id for persona in personas}) == len(fake_suno.requests) == 1000


@pytest.mark.parametrize(
    ("base_url", "create_path", "target"),
    [
        (BASE, "/suno/persona/create/", f"{BASE}/suno/persona/create/"),
        (f"{BASE}/", "/suno/persona/create/", f"{BASE}/suno/persona/create/"),
        (f"{BASE}/v1", "/suno/persona/create/", f"{BASE}/v1/suno/persona/create/"),
        (f"{BASE}/v1/", "/create", f"{BASE}/v1/create"),
        (f"{BASE}:8443", "/create", f"{BASE}:8443/create"),
    ],
)
async def test_base_url_may_have_a_path_and_a_slash(
    base_url: str, create_path: str, target: str, mocked: aioresponses, request_: CreatePersonaRequest
) -> None:
    """`create_path` is appended to the path of `base_url`."""
    mocked.post(target, body=CONTRACT_EXAMPLE)
    async with PersonaAPI(KEY, base_url=base_url, create_path=create_path) as api:
        assert await api.create(request_) == loads(CONTRACT_EXAMPLE)


@pytest.mark.parametrize("key", [KEY, f"Bearer {KEY}", f"bearer {KEY}"])
@pytest.mark.parametrize("environment", [False, True])
async def test_key_and_base_url_come_from_arguments_or_the_environment(
    key: str, environment: bool, mocked: aioresponses, request_: CreatePersonaRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leading `Bearer ` in the key is dropped in either case."""
    mocked.post(f"{BASE}/suno/persona/create/", body=CONTRACT_EXAMPLE)
    if environment:
        monkeypatch.setenv("SUNO_API_KEY", key)
        monkeypatch.setenv("SUNO_BASE_URL", BASE)
    async with PersonaAPI() if environment else PersonaAPI(key, base_url=BASE) as api:
        await api.create(request_)
    ((call,),) = mocked.requests.values()
    assert call.kwargs["headers"]["Authorization"] == f"Bearer {KEY}"


async def test_arguments_win_over_the_environment(
    mocked: aioresponses, request_: CreatePersonaRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is used only for missing arguments."""
    monkeypatch.setenv("SUNO_API_KEY", "sk-other-other")
    monkeypatch.setenv("SUNO_BASE_URL", "https://other.example")
    mocked.post(f"{BASE}/suno/persona/create/", body=CONTRACT_EXAMPLE)
    async with PersonaAPI(KEY, base_url=BASE) as api:
        await api.create(request_)
    ((call,),) = mocked.requests.values()
    assert call.kwargs["headers"]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"api_key": None}, "api_key must be the service's key, as api_key= or in SUNO_API_KEY; got none"),
        ({"api_key": ""}, "api_key must be the service's key, as api_key= or in SUNO_API_KEY; got none"),
        ({"api_key": "Bearer "}, "api_key must be the service's key, as api_key= or in SUNO_API_KEY; got none"),
        ({"api_key": b"sk-0123456789"}, "api_key must be a str; got a value of type bytes"),
        (
            {"api_key": "sk-0123456789\n"},
            "api_key contains a space or control character at position 14; only visible ASCII is allowed",
        ),
        (
            {"api_key": "sk-ü123456789"},
            "api_key contains a character that is not ASCII at position 4; only visible ASCII is allowed",
        ),
        ({"base_url": None}, "base_url must be the service's address, as base_url= or in SUNO_BASE_URL; got none"),
        ({"base_url": ""}, "base_url must be the service's address, as base_url= or in SUNO_BASE_URL; got none"),
        ({"base_url": URL(BASE)}, "base_url must be a str; got a value of type URL"),
        ({"base_url": "gateway.example"}, "base_url must be an address such as 'https://gateway.example'"),
        ({"base_url": KEY}, "base_url must be an address such as 'https://gateway.example'"),
        ({"base_url": "ftp://gateway.example"}, "base_url must be an address such as 'https://gateway.example'"),
        ({"base_url": "https://"}, "base_url must be an address such as 'https://gateway.example'"),
        ({"base_url": "https://[::1"}, "base_url must be an address such as 'https://gateway.example'"),
        (
            {"base_url": "https://user:pw@gateway.example"},
            "base_url must be an address without user name and password; got some",
        ),
        ({"base_url": f"{BASE}?x=1"}, "base_url must be an address without '?' and '#'; got some"),
        ({"base_url": f"{BASE}#x"}, "base_url must be an address without '?' and '#'; got some"),
        (
            {"base_url": f"{BASE}/a b"},
            "base_url must be an address without white space or control characters; got some",
        ),
        ({"base_url": "http://gateway.example"}, "base_url must be https://"),
        ({"base_url": "http://192.168.0.1"}, "base_url must be https://"),
        ({"base_url": "http://localhost.gateway.example"}, "base_url must be https://"),
        ({"allow_insecure": "no"}, "allow_insecure must be True or False; got 'no'"),
        ({"max_connections": 0}, "max_connections must be an integer >= 1; got 0"),
        ({"max_connections": True}, "max_connections must be an integer >= 1; got True"),
        ({"max_response_size": 1.5}, "max_response_size must be an integer >= 1; got 1.5"),
        ({"timeout": "30"}, "timeout must be seconds or an aiohttp.ClientTimeout; got '30'"),
        ({"timeout": -1}, "timeout must be non-negative seconds; got -1"),
        ({"timeout": True}, "timeout must be seconds or an aiohttp.ClientTimeout; got True"),
        ({"api_key": "bearer"}, "api_key must be the service's key, as api_key= or in SUNO_API_KEY; got none"),
        (
            {"base_url": "https://ex\x00ample"},
            "base_url must be an address without white space or control characters; got some",
        ),
        (
            {"base_url": "https://gateway..example"},
            "base_url must be an address with a host name; got 'gateway..example'",
        ),
        ({"base_url": f"https://{'x' * 64}.example"}, "base_url must be an address with a host name; got 'xxx"),
        ({"timeout": aiohttp.ClientTimeout(total=-1)}, "timeout.total must be non-negative seconds or None; got -1"),
        ({"timeout": aiohttp.ClientTimeout(sock_read=float("nan"))}, "timeout.sock_read must be non-negative seconds"),
        (
            {"timeout": aiohttp.ClientTimeout(sock_connect=-1)},
            "timeout.sock_connect must be non-negative seconds",
        ),
        ({"timeout": aiohttp.ClientTimeout(total=10**400)}, "timeout.total must be non-negative seconds"),
        ({"create_path": "/../create"}, "create_path must be a path that begins with '/'"),
        ({"create_path": "/a b"}, "create_path must be a path that begins with '/'"),
        ({"create_path": "/\ud800"}, "create_path must be a path that begins with '/'"),
        ({"session": "x"}, "session must be an instance of ClientSession; got 'x'"),
        ({"create_path": "create"}, "create_path must be a path that begins with '/'"),
        ({"create_path": "/create?x=1"}, "create_path must be a path that begins with '/'"),
    ],
)
def test_an_invalid_configuration_fails_at_once(arguments: dict[str, Any], message: str) -> None:
    """The error names the argument, what it must be, and what it got, but never shows a key."""
    arguments = {"api_key": KEY, "base_url": BASE, **arguments}
    with pytest.raises(ConfigurationError) as caught:
        PersonaAPI(**arguments)
    assert str(caught.value).startswith(message)
    assert "0123456789" not in str(caught.value)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "base_url",
    [
        "http://localhost:8000",
        "http://gateway.localhost",
        "http://127.8.8.8",
        "http://[::1]:8000",
        "http://localhost.",
        "http://[::ffff:127.0.0.1]",
    ],
)
def test_plain_http_is_allowed_on_loopback(base_url: str) -> None:
    """The key does not leave the machine."""
    assert repr(PersonaAPI(KEY, base_url=base_url)).startswith("<PersonaAPI http://")


def test_plain_http_to_other_hosts_must_be_allowed() -> None:
    """`allow_insecure=True` allows it."""
    assert "gateway.example" in repr(PersonaAPI(KEY, base_url="http://gateway.example", allow_insecure=True))


async def test_a_session_with_auth_is_a_configuration_error() -> None:
    """Aiohttp would send its `auth` instead of the key."""
    with pytest.warns(DeprecationWarning, match="auth"):
        session = aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b"))
    async with session:
        with pytest.raises(ConfigurationError, match=r"^session must be one without auth="):
            PersonaAPI(KEY, base_url=BASE, session=session)


async def test_a_session_with_expect_is_a_configuration_error() -> None:
    """With `Expect`, the headers and so the key are sent before the body."""
    async with aiohttp.ClientSession(headers={"Expect": "100-continue"}) as session:
        with pytest.raises(ConfigurationError, match=r"^session must be one without the header Expect"):
            PersonaAPI(KEY, base_url=BASE, session=session)


async def test_a_session_of_the_caller_is_used_and_left_open(
    fake_suno: FakeSuno, request_: CreatePersonaRequest
) -> None:
    """Its own settings apply, such as a header, `raise_for_status` and `auto_decompress`."""
    async with aiohttp.ClientSession(
        headers={"X-App": "demo", "Content-Type": "text/plain"}, raise_for_status=True, auto_decompress=False
    ) as session:
        async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, session=session) as api:
            await api.create(request_)
            fake_suno.script(Fault.response(400))
            with pytest.raises(RejectedError):
                await api.create(request_)
        assert not session.closed
    assert fake_suno.requests[0].headers["X-App"] == "demo"


async def test_a_closed_session_of_the_caller_is_a_usage_error(request_: CreatePersonaRequest) -> None:
    """The error names the argument."""
    async with aiohttp.ClientSession() as session:
        api = PersonaAPI(KEY, base_url=BASE, session=session)
    with pytest.raises(UsageError, match="session= is closed"):
        await api.create(request_)


async def test_use_after_close_is_a_usage_error(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """Closing twice is allowed; calling or entering again is not."""
    api = PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url)
    await api.create(request_)
    await api.close()
    await api.close()
    assert repr(api).endswith("closed>")
    with pytest.raises(UsageError, match="closed") as caught:
        await api.create(request_)
    assert caught.value.request is request_
    with pytest.raises(UsageError, match="closed"):
        async with api:
            pass


async def test_closing_ends_all_calls(fake_suno: FakeSuno) -> None:
    """Calls in flight may have created a persona, waiting ones have not; none raises `CancelledError`."""
    fake_suno.script(Fault.hang())
    api = PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, max_connections=1)
    requests = [CreatePersonaRequest(root_clip_id="c", name=str(number), description="D") for number in range(3)]
    calls = [asyncio.create_task(api.create(request)) for request in requests]
    while not fake_suno.requests:
        await asyncio.sleep(0)
    await api.close()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionLostError, UsageError, UsageError]
    assert len(fake_suno.requests) == 1


async def test_a_client_that_was_never_used_can_be_closed() -> None:
    """There is nothing to close."""
    await PersonaAPI(KEY, base_url=BASE).close()


async def test_a_second_event_loop_is_a_usage_error(persona_api: PersonaAPI, request_: CreatePersonaRequest) -> None:
    """Calling, entering and closing in another loop raise an error."""
    uses: list[Coroutine[Any, Any, object]] = [
        persona_api.create(request_),
        persona_api.__aenter__(),
        persona_api.close(),
    ]
    for use in uses:
        with pytest.raises(UsageError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, use)


def test_a_plain_with_is_a_type_error() -> None:
    """The error names `async with`."""
    api = PersonaAPI(KEY, base_url=BASE)
    with pytest.raises(TypeError, match="async with"), api:
        pass


async def test_create_accepts_only_a_request(fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """A dict raises `InvalidRequestError` before anything is sent."""
    with pytest.raises(InvalidRequestError, match="request must be a CreatePersonaRequest; got a dict"):
        await persona_api.create({"name": "Neon"})  # type: ignore[arg-type]  # this is what is tested
    assert fake_suno.requests == []


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_client_cannot_be_pickled_or_copied(copied: Any) -> None:
    """It holds connections and a key."""
    with pytest.raises(TypeError, match="one per process"):
        copied(PersonaAPI(KEY, base_url=BASE))


async def test_closing_leaves_no_connection_open(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """A warning about an unclosed session or connector would fail this test."""
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url) as api:
        await api.create(request_)


@pytest.mark.parametrize(("served", "asked"), [("/create", "/create/"), ("/create/", "/create")])
@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_to_the_trailing_slash_is_followed(
    served: str, asked: str, status: int, request_: CreatePersonaRequest
) -> None:
    """The same body is sent to the other path, once, with the key."""
    async with FakeSuno(create_path=served) as fake:
        fake.script(Fault.redirect(served, status))
        async with PersonaAPI(fake.api_key, base_url=fake.base_url, create_path=asked) as api:
            assert (await api.create(request_)).name == "Neon"
    assert [request.path for request in fake.requests] == [asked, served]
    assert fake.requests[0].body == fake.requests[1].body
    assert len(fake.personas) == 1


async def test_a_second_redirect_is_a_rejection(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """A redirect loop ends."""
    fake_suno.script(Fault.redirect("/suno/persona/create"), Fault.redirect("/suno/persona/create/"))
    with pytest.raises(RejectedError):
        await persona_api.create(request_)
    assert len(fake_suno.requests) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_the_key_never_goes_to_another_origin(
    status: int, fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """The other service receives nothing, whatever the redirect."""
    async with FakeSuno() as other:
        fake_suno.script(Fault.redirect(f"{other.base_url}/suno/persona/create/", status))
        with pytest.raises(RejectedError, match=other.base_url):
            await persona_api.create(request_)
    assert other.requests == []


async def test_a_call_can_be_cancelled(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """`CancelledError` is raised unchanged, and the next call works."""
    fake_suno.script(Fault.hang())
    call = asyncio.create_task(persona_api.create(request_))
    while not fake_suno.requests:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await persona_api.create(request_)).name == "Neon"


def test_a_body_has_the_contracts_members_in_order(request_: CreatePersonaRequest) -> None:
    """Every body has the five members of the contract, always in the same order."""
    from suno_persona.conversion import dump_request

    assert json.loads(dump_request(request_)) == {
        "root_clip_id": "54834687",
        "name": "Neon",
        "description": "Night drive",
        "clips": ["54834687"],
        "is_public": False,
    }
    assert list(json.loads(dump_request(request_))) == ["root_clip_id", "name", "description", "clips", "is_public"]
