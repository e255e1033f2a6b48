"""Every setting of a client can be set for the command and for workers, by an option or by a variable."""

import logging
import re
from pathlib import Path

import pytest
from support.broken_service import BrokenService, Exchange
from support.command import COMMAND, CREATE, Done, run
from support.held_service import HeldService

from suno_persona._environment import SETTINGS, Setting, read_settings
from suno_persona.errors import ConfigurationError
from suno_persona.testing import FakeSuno, Fault

NAMES = [setting.name for setting in SETTINGS]
GOOD = {
    "base_url": ("http://127.0.0.1:1/x", "http://127.0.0.1:1/x"),
    "create_path": ("/v2/persona", "/v2/persona"),
    "allow_insecure": ("true", True),
    "trust_env": ("1", True),
    "timeout": ("1.5", 1.5),
    "max_connections": ("7", 7),
    "rate_limit": ("10/2", (10, 2)),
    "attempts": ("9", 9),
    "wait_max": ("0", 0.0),
    "verbose": ("off", False),
}
BAD = [
    ("base_url", "", "the service's address; got none"),
    ("base_url", "gateway", "an address such as 'https://gateway.example'; got something else"),
    ("base_url", "https://user:secret@host", "an address without user name and password; got some before 'host'"),
    ("base_url", "http://host", "https://, which keeps the key from others on the way, unless "),
    ("create_path", "persona", "a path that begins with '/', without "),
    ("allow_insecure", "maybe", "true or false; got 'maybe'"),
    ("trust_env", "2", "true or false; got '2'"),
    ("timeout", "-1", "non-negative seconds; got '-1'"),
    ("timeout", "nan", "non-negative seconds; got 'nan'"),
    ("max_connections", "0", "an integer >= 1; got '0'"),
    ("rate_limit", "10", "requests/seconds, such as 60/60; got '10'"),
    ("attempts", "1.5", "an integer >= 1; got '1.5'"),
    ("wait_max", "long", "non-negative seconds; got 'long'"),
    ("verbose", "very", "true or false; got 'very'"),
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set no variable but the key and an address."""
    for setting in SETTINGS:
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setenv("SUNO_API_KEY", "sk-secret-0123456789")
    monkeypatch.setenv("SUNO_BASE_URL", "https://gateway.example")


def test_every_setting_is_tested() -> None:
    """The names of the variables follow from those of the options."""
    assert list(GOOD) == NAMES
    assert {setting.option: setting.variable for setting in SETTINGS}["--wait-max"] == "SUNO_WAIT_MAX"


@pytest.mark.parametrize("setting", SETTINGS, ids=NAMES)
def test_an_option_and_its_variable_mean_the_same(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option takes precedence."""
    text, value = GOOD[setting.name]
    assert read_settings({setting.name: text}).values[setting.name] == value
    monkeypatch.setenv(setting.variable, text)
    assert read_settings().values[setting.name] == value
    monkeypatch.setenv(setting.variable, "no such value")
    assert read_settings({setting.name: text}).values[setting.name] == value


@pytest.mark.parametrize(("name", "text", "reason"), BAD)
def test_the_error_of_an_invalid_value_names_its_option(name: str, text: str, reason: str) -> None:
    """The error says what the value must be and what it got, and shows no password."""
    (setting,) = [setting for setting in SETTINGS if setting.name == name]
    with pytest.raises(ConfigurationError) as caught:
        read_settings({name: text}).client()
    assert re.match(rf"{setting.option}( or SUNO_BASE_URL)? must be {re.escape(reason)}", str(caught.value))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("name", "text", "reason"), BAD)
def test_the_error_of_an_invalid_value_names_its_variable(
    name: str, text: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has no options, so the error names none."""
    monkeypatch.setenv(f"SUNO_{name.upper()}", text)
    with pytest.raises(ConfigurationError) as caught:
        read_settings().client()
    assert str(caught.value).startswith(f"SUNO_{name.upper()} must be {reason}")
    assert "--" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "Bearer ", "sk-0123456789 x"])
def test_the_error_of_an_invalid_key_names_its_variable(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key has no option, and is not shown."""
    monkeypatch.setenv("SUNO_API_KEY", key)
    with pytest.raises(ConfigurationError, match=r"^SUNO_API_KEY must be (?!.*0123)"):
        read_settings({}).client()


def test_options_are_printed_as_they_are_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables are left out, since they are still set when the command runs again."""
    monkeypatch.setenv("SUNO_ATTEMPTS", "2")
    settings = read_settings({"timeout": "90", "trust_env": "true", "rate_limit": None})
    assert settings.arguments() == ["--trust-env", "--timeout", "90"]
    assert read_settings().arguments() == []


@pytest.mark.parametrize("variables", [False, True])
async def test_the_settings_reach_the_service(variables: bool, env: dict[str, str], fake_suno: FakeSuno) -> None:
    """The call uses the path, the attempts and the `wait_max` that were set."""
    values = {"create_path": "/v2/persona/", "attempts": "2", "wait_max": "0", "rate_limit": "100/1", "timeout": "0"}
    words = [word for name, text in values.items() for word in (f"--{name.replace('_', '-')}", text)]
    own = {f"SUNO_{name.upper()}": text for name, text in values.items()}
    fake_suno.script(Fault.unavailable(), Fault.unavailable())
    done = await run(COMMAND, *CREATE, *([] if variables else words), env=env | own if variables else env)
    assert done.status == 1
    assert "HTTP 503" in done.errors
    assert [request.path for request in fake_suno.requests] == ["/v2/persona/"] * 2


async def test_the_timeout_limits_a_slow_service(service: HeldService) -> None:
    """With a short timeout the outcome is unknown, although a longer one would have shown it."""
    done = await run(COMMAND, *CREATE, "--timeout", "0.05", env=service.env)
    assert done.status == 3
    assert "a persona may exist" in done.errors


async def test_the_proxies_of_the_environment_are_used_on_demand(
    env: dict[str, str], fake_suno: FakeSuno, tmp_path: Path
) -> None:
    """The service gets its key, whatever a .netrc says, and the proxy gets its own credentials."""
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    proxy = fake_suno.base_url.replace("http://", "http://user:word@")
    env |= {"SUNO_BASE_URL": "http://gateway.example", "http_proxy": proxy, "no_proxy": "localhost"}
    env |= {"NETRC": str(tmp_path / "netrc"), "SUNO_ALLOW_INSECURE": "yes"}
    done = await run(COMMAND, *CREATE, "--trust-env", env=env)
    assert done == Done(0, f"{fake_suno.personas[0].id}\n", "")
    (request,) = fake_suno.requests
    assert request.headers["Proxy-Authorization"].startswith("Basic ")
    assert request.headers["Authorization"] == f"Bearer {fake_suno.api_key}"


async def test_a_proxy_for_https_does_not_see_the_key() -> None:
    """The command asks the proxy for a tunnel; if the proxy rejects that, nothing is sent."""

    async def reject(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")

    async with BrokenService(then=reject) as proxy:
        env = {"https_proxy": proxy.base_url, "no_proxy": "", "SUNO_TRUST_ENV": "true", "SUNO_ATTEMPTS": "1"}
        env |= {"SUNO_BASE_URL": "https://gateway.example", "SUNO_API_KEY": "sk-secret-0123456789"}
        done = await run(COMMAND, *CREATE, env=env)
    assert done.status == 1
    assert proxy.requests[0].startswith(b"CONNECT gateway.example:443 ")
    assert b"secret" not in proxy.requests[0]


async def test_hosts_in_no_proxy_are_reached_directly(env: dict[str, str], fake_suno: FakeSuno) -> None:
    """NO_PROXY names hosts that are reached without a proxy."""
    env |= {"http_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.1", "SUNO_TRUST_ENV": "true"}
    assert (await run(COMMAND, *CREATE, env=env)).status == 0
    env |= {"no_proxy": "", "SUNO_ATTEMPTS": "1"}
    assert (await run(COMMAND, *CREATE, env=env)).status == 1
    assert len(fake_suno.requests) == 1


@pytest.mark.parametrize("proxy", ["socks5://user:secret@proxy.example", "http://user:secret@[", "proxy:3128"])
def test_the_address_of_an_invalid_proxy_is_not_shown(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable, not the address, which may have a password."""
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(ConfigurationError, match=r"^HTTPS_PROXY must be an address such as (?!.*secret)"):
        read_settings({"trust_env": "true"}).client()


async def test_attempts_and_backoffs_are_logged_on_demand(env: dict[str, str], fake_suno: FakeSuno) -> None:
    """With -v, each is one line on stderr that describes the exchange; without it, stderr is empty."""
    fake_suno.script(Fault.rate_limited(retry_after=0))
    done = await run(COMMAND, *CREATE, "-v", env=env)
    assert done == Done(0, f"{fake_suno.personas[0].id}\n", done.errors)
    first, wait, second = done.errors.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d attempt 1: HTTP 429, request id [0-9a-f]{32}, \d\.\d{3} s", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d attempt 2 of 4 in 0\.00 s, after: HTTP 429 .+", wait)
    assert re.search("attempt 2: HTTP 200", second)
    assert (await run(COMMAND, *CREATE, env=env)).errors == ""


async def test_responses_are_logged_without_control_characters(env: dict[str, str]) -> None:
    """No escape sequence of a request id or a reason reaches the terminal."""
    head = b"HTTP/1.1 429 No\r\nRetry-After: 0\r\nX-Request-Id: \xc2\x9b31m\r\nContent-Length: 11\r\n\r\n"

    async def reject(exchange: Exchange) -> None:
        await exchange.send(head + b"\x1b[2Jwait\r\n\x07")

    async with BrokenService(then=reject) as service:
        env |= {"SUNO_BASE_URL": service.base_url}
        done = await run(COMMAND, *CREATE, "--verbose", "--attempts", "2", env=env)
    assert "HTTP 429" in done.errors
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.errors)


def test_a_verbose_worker_logs_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Procrastinate decides where the log goes."""
    from suno_persona import distributed

    logger = logging.getLogger("suno_persona")
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    monkeypatch.setenv("SUNO_JOURNAL_URL", "postgresql://host/x")
    monkeypatch.setenv("SUNO_VERBOSE", "true")
    monkeypatch.delitem(vars(distributed), "app", raising=False)
    assert distributed.app.journal_url == "postgresql://host/x"
    delattr(distributed, "app")
    assert logger.isEnabledFor(logging.DEBUG)
