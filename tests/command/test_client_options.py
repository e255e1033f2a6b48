"""Every argument of a client is an option and a variable of the commands that send."""

import re
from pathlib import Path

import pytest
from support.broken_service import BrokenService, Exchange
from support.command import COMMAND, CREATE, Done, run
from support.rows import rows, write_file

from suno_persona.testing import FakeSuno, Fault

KEY = {"SUNO_API_KEY": "sk-secret-0123456789", "SUNO_BASE_URL": "https://gateway.example"}
ADDRESS = "--base-url must be an address such as 'https://gateway.example'"
INVALID = "Invalid value for '--"
BAD = [
    ("base_url", "https://user:secret@host", f"{ADDRESS}; got a user name or a password before 'host'"),
    ("base_url", "http://host", "--base-url must be https://, which keeps the key from others on the way, unless --al"),
    ("create_path", "persona", "--create-path must be a path that begins with '/', without "),
    ("proxy", "socks5://user:secret@proxy.example", "--proxy must be the URL of an HTTP proxy"),
    ("timeout", "-1", f"{INVALID}timeout' (env var: 'SUNO_TIMEOUT'): -1.0 is not in the range x>=0"),
    ("timeout", "nan", "timeout.total must be non-negative seconds"),
    ("rate_limit", "10", f"{INVALID}rate-limit' (env var: 'SUNO_RATE_LIMIT'): '10' is not REQUESTS/SECONDS"),
    ("attempts", "1.5", f"{INVALID}attempts' (env var: 'SUNO_ATTEMPTS'): '1.5' is not a valid integer"),
]


@pytest.mark.parametrize(("name", "text", "reason"), BAD)
async def test_an_invalid_value_is_named_in_one_line(name: str, text: str, reason: str) -> None:
    """The line has the option, also for a variable, and shows no password; nothing is sent."""
    option = f"--{name.replace('_', '-')}"
    for words, variable in (([option, text], {}), ([], {f"SUNO_{name.upper()}": text})):
        done = await run(COMMAND, *CREATE, *words, env={**KEY, **variable})
        assert (done.status, done.output, done.errors.count("\n")) == (2, "", 1)
        assert done.errors.startswith(f"suno-persona: {reason}"), done.errors
        assert "secret" not in done.errors


@pytest.mark.parametrize("variables", [False, True])
async def test_the_values_reach_the_service(variables: bool, env: dict[str, str], fake_suno: FakeSuno) -> None:
    """The call uses the path, the attempts and the waits that were set; an option comes before its variable."""
    values = {
        "create_path": "/v2/persona/",
        "attempts": "2",
        "wait_initial": "0",
        "wait_max": "0",
        "rate_limit": "100/1",
        "timeout": "0",
        "connect_timeout": "5",
        "max_response_size": "100000",
    }
    words = [word for name, text in values.items() for word in (f"--{name.replace('_', '-')}", text)]
    own = {f"SUNO_{name.upper()}": text for name, text in values.items()}
    fake_suno.script(Fault.unavailable(), Fault.unavailable())
    done = await run(
        *(COMMAND, *CREATE, *([] if variables else words)),
        env=env | (own if variables else dict.fromkeys(own, "no such value")),
    )
    assert done.status == 1
    assert "after 2 attempts" in done.errors
    assert [request.path for request in fake_suno.requests] == ["/v2/persona/"] * 2


async def test_the_password_of_a_proxy_is_not_printed(env: dict[str, str], tmp_path: Path) -> None:
    """The command to resume shows that there is one."""
    file = write_file(tmp_path, rows(2))
    proxy = "http://user:hunter22@127.0.0.1:1"
    env |= {"SUNO_BASE_URL": "https://gateway.example"}
    done = await run(COMMAND, "batch", file, "--proxy", proxy, "--attempts", "1", "--max-failures", "1", env=env)
    assert "--proxy 'http://***@127.0.0.1:1'" in done.errors
    assert "hunter22" not in done.errors + done.output


@pytest.mark.parametrize("option", ["--proxy", "--trust-env"])
async def test_a_proxy_is_used(option: str, env: dict[str, str], fake_suno: FakeSuno, tmp_path: Path) -> None:
    """The service gets its key, whatever a .netrc says, and the proxy gets its own credentials."""
    (tmp_path / "netrc").write_text("default login somebody password else\n")
    proxy = fake_suno.base_url.replace("http://", "http://user:word@")
    env |= {"SUNO_BASE_URL": "http://gateway.example", "http_proxy": proxy, "no_proxy": "localhost"}
    env |= {"NETRC": str(tmp_path / "netrc"), "SUNO_ALLOW_INSECURE": "yes"}
    words = [option, proxy] if option == "--proxy" else [option]
    assert await run(COMMAND, *CREATE, *words, env=env) == Done(0, f"{fake_suno.personas[0].id}\n", "")
    (request,) = fake_suno.requests
    assert request.headers["Proxy-Authorization"].startswith("Basic ")
    assert request.headers["Authorization"] == f"Bearer {fake_suno.api_key}"


async def test_attempts_are_logged_on_demand_without_control_characters(env: dict[str, str]) -> None:
    """Each is a line on stderr; no escape sequence of a request id or a reason reaches the terminal."""
    head = b"HTTP/1.1 429 No\r\nRetry-After: 0\r\nX-Request-Id: \xc2\x9b31m\r\nContent-Length: 11\r\n\r\n"

    async def reject(exchange: Exchange) -> None:
        await exchange.send(head + b"\x1b[2Jwait\r\n\x07")

    async with BrokenService(then=reject) as service:
        env |= {"SUNO_BASE_URL": service.base_url}
        done = await run(COMMAND, *CREATE, "--verbose", "--attempts", "2", env=env)
    assert re.search(r"^\d\d:\d\d:\d\d 54834687: attempt 2: HTTP 429, request id .*31m, ", done.errors, re.MULTILINE)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.errors)
