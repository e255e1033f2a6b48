"""The arguments of a client: each is checked once, at once, and its error never shows a secret."""

from typing import Any

import aiohttp
import pytest
from aiolimiter import AsyncLimiter
from aioresponses import aioresponses
from support.calls import BASE, KEY, REQUEST
from support.contract import CONTRACT_EXAMPLE
from yarl import URL

from suno_persona import ConfigurationError, PersonaAPI, RetryPolicy, loads

ADDRESS = "base_url must be an address such as 'https://gateway.example'"
NO_SPACE = f"{ADDRESS}; got white space or a control character in it"
NO_KEY = "api_key must be the service's key, as api_key= or in SUNO_API_KEY; got none"
NO_URL = "base_url must be the service's address, as base_url= or in SUNO_BASE_URL; got none"
PATH = "create_path must be a path that begins with '/'"
PROXY = "proxy must be the URL of an HTTP proxy"
VISIBLE = "only visible ASCII is allowed"
SECONDS = "must be non-negative seconds"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of the environment."""
    for name in ("SUNO_API_KEY", "SUNO_BASE_URL", "SUNO_CREATE_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({"api_key": none}, NO_KEY) for none in (None, "", "Bearer ", "bearer")),
        ({"api_key": b"sk-0123456789"}, "api_key must be a str; got a value of type bytes"),
        ({"api_key": f"{KEY}\n"}, f"api_key contains a space or control character at position 14; {VISIBLE}"),
        ({"api_key": "sk-ü123456789"}, f"api_key contains a character that is not ASCII at position 4; {VISIBLE}"),
        *(({"base_url": none}, NO_URL) for none in (None, "")),
        ({"base_url": URL(BASE)}, "base_url must be a str; got a value of type URL"),
        *(({"base_url": url}, ADDRESS) for url in ("gateway.example", KEY, "ftp://gateway.example", "https://")),
        *(({"base_url": url}, NO_SPACE) for url in (f"{BASE}/a b", "https://ex\x00ample")),
        ({"base_url": "https://user:pw@host"}, f"{ADDRESS}; got a user name or a password before 'host'"),
        *(({"base_url": BASE + end}, f"{ADDRESS}; got '?' or '#' in it") for end in ("?x=1", "#x")),
        ({"base_url": "https://gateway..example"}, f"{ADDRESS}; got "),
        ({"base_url": f"https://{'x' * 64}.example"}, f"{ADDRESS}; got "),
        *(
            ({"base_url": f"http://{host}"}, "base_url must be https://")
            for host in ("gateway.example", "192.168.0.1", "localhost.gateway.example")
        ),
        ({"allow_insecure": "no"}, "allow_insecure must be True or False; got 'no'"),
        *(({"create_path": path}, PATH) for path in ("create", "/../create", "/a b", "/\ud800", "/create?x=1")),
        ({"max_connections": 0}, "max_connections must be an integer >= 1; got 0"),
        ({"max_response_size": 1.5}, "max_response_size must be an integer >= 1; got 1.5"),
        ({"timeout": "30"}, "timeout must be seconds or an aiohttp.ClientTimeout; got '30'"),
        ({"timeout": -1}, f"timeout {SECONDS}; got -1"),
        ({"timeout": aiohttp.ClientTimeout(total=-1)}, f"timeout.total {SECONDS} or None; got -1"),
        ({"timeout": aiohttp.ClientTimeout(total=10**400)}, f"timeout.total {SECONDS}"),
        ({"timeout": aiohttp.ClientTimeout(sock_read=float("nan"))}, f"timeout.sock_read {SECONDS}"),
        ({"session": "x"}, "session must be an instance of ClientSession; got 'x'"),
        ({"rate_limit": AsyncLimiter(0.5, 1)}, "rate_limit must be a limiter with max_rate >= 1; got max_rate=0.5"),
        *(({"proxy": proxy}, PROXY) for proxy in ("socks5://me:pw@host", "me:pw@host:3128", "http://[::1", 3128)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_invalid_configuration_fails_at_once(arguments: dict[str, Any], message: str) -> None:
    """The error names the argument, what it must be, and what it got, but never shows a key or a password."""
    with pytest.raises(ConfigurationError) as caught:
        PersonaAPI(**{"api_key": KEY, "base_url": BASE, **arguments})
    assert str(caught.value).startswith(message)
    assert "0123456789" not in str(caught.value)
    assert "pw" not in str(caught.value)


def test_a_policy_that_cannot_work_is_a_configuration_error() -> None:
    """The error names the field, what it must be, and what it got."""
    with pytest.raises(ConfigurationError, match=r"^attempts must be an integer >= 1; got 0$"):
        RetryPolicy(attempts=0)
    with pytest.raises(ConfigurationError, match=rf"^wait_initial {SECONDS}; got '1'$"):
        RetryPolicy(wait_initial="1")  # type: ignore[arg-type]  # this is what is tested
    with pytest.raises(ConfigurationError, match=rf"^wait_max {SECONDS}; got inf$"):
        RetryPolicy(wait_max=float("inf"))
    with pytest.raises(ConfigurationError, match=r"^retry_unknown must be True or False; got 'yes'$"):
        RetryPolicy(retry_unknown="yes")  # type: ignore[arg-type]  # this is what is tested


@pytest.mark.parametrize("environment_", [False, True])
@pytest.mark.parametrize("key", [KEY, f"Bearer {KEY}", f"bearer {KEY}"])
async def test_key_and_address_are_arguments_or_environment_variables(
    environment_: bool, key: str, mocked: aioresponses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments win, and a leading `Bearer` is dropped in either case."""
    mocked.post(f"{BASE}/v2/", body=CONTRACT_EXAMPLE)
    own = {"SUNO_API_KEY": key, "SUNO_BASE_URL": BASE, "SUNO_CREATE_PATH": "/v2/"}
    for name, value in own.items():
        monkeypatch.setenv(name, value if environment_ else "https://other.example")
    async with PersonaAPI() if environment_ else PersonaAPI(key, base_url=BASE, create_path="/v2/") as api:
        await api.create(REQUEST)
    ((call,),) = mocked.requests.values()
    assert call.kwargs["headers"]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("base_url", "create_path", "target"),
    [
        (BASE, None, f"{BASE}/suno/persona/create/"),
        (f"{BASE}/v1/", None, f"{BASE}/v1/suno/persona/create/"),
        (f"{BASE}/v1", "/create", f"{BASE}/v1/create"),
    ],
)
async def test_base_url_may_have_a_path_and_a_slash(
    base_url: str, create_path: str | None, target: str, mocked: aioresponses
) -> None:
    """`create_path` is appended to the path of `base_url`."""
    mocked.post(target, body=CONTRACT_EXAMPLE)
    async with PersonaAPI(KEY, base_url=base_url, create_path=create_path) as api:
        assert await api.create(REQUEST) == loads(CONTRACT_EXAMPLE)


@pytest.mark.parametrize(
    "host", ["localhost:8000", "gateway.localhost", "127.8.8.8", "[::1]:8000", "localhost.", "[::ffff:127.0.0.1]"]
)
def test_plain_http_is_allowed_on_loopback(host: str) -> None:
    """The key does not leave the machine; any other host needs `allow_insecure=True`."""
    assert repr(PersonaAPI(KEY, base_url=f"http://{host}")).startswith("<PersonaAPI http://")
    assert "gateway.example" in repr(PersonaAPI(KEY, base_url="http://gateway.example", allow_insecure=True))


async def test_a_session_that_would_send_something_else_is_a_configuration_error() -> None:
    """Aiohttp would send its `auth` instead of the key; with `Expect` the key is sent before the body."""
    with pytest.warns(DeprecationWarning, match="auth"):
        session = aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b"))
    async with session, aiohttp.ClientSession(headers={"Expect": "100-continue"}) as other:
        with pytest.raises(ConfigurationError, match=r"^session must be one without auth="):
            PersonaAPI(KEY, base_url=BASE, session=session)
        with pytest.raises(ConfigurationError, match=r"^session must be one without the header Expect"):
            PersonaAPI(KEY, base_url=BASE, session=other)
