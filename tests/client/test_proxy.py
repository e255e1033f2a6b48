"""Requests through a proxy: which one is used, what its failures mean, and that its password is nowhere."""

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from support.broken_service import reset
from support.calls import BASE, KEY, ONCE, REQUEST, failure
from support.shown import in_rich, in_structlog

from suno_persona import ConfigurationError, ConnectionFailedError, PersonaAPI
from suno_persona.testing import FakeSuno

PASSWORD = "hunter2-of-the-proxy"
REJECT = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"


@asynccontextmanager
async def proxy(
    response: bytes = b"", end: Callable[[asyncio.StreamWriter], None] = asyncio.StreamWriter.close
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a proxy that responds so to the head of a request; yield its URL and the heads."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(response)
        end(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://me:{PASSWORD}@127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


def shown(error: BaseException) -> str:
    """Return an error as Python, rich and structlog show it, with the variables of our frames."""
    return "".join([*traceback.format_exception(error), repr(vars(error)), in_rich(error), in_structlog(error)])


@pytest.mark.parametrize(
    ("response", "end"),
    [
        (b"", asyncio.StreamWriter.close),
        (b"", reset),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", asyncio.StreamWriter.close),
        (REJECT, asyncio.StreamWriter.close),
    ],
    ids=["closes", "resets", "sends garbage", "rejects"],
)
async def test_a_proxy_that_opens_no_tunnel_means_that_nothing_was_sent(
    response: bytes, end: Callable[[asyncio.StreamWriter], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The error is a `ConnectionFailedError`, which is retried; neither it nor the log shows the password."""
    caplog.set_level(logging.DEBUG, "suno_persona")
    async with proxy(response, end) as (url, heads), PersonaAPI(KEY, base_url=BASE, proxy=url, retry=ONCE) as api:
        error = await failure(api)
    assert type(error) is ConnectionFailedError
    assert heads[0].startswith(b"CONNECT gateway.example:443 HTTP/1.1\r\n")
    assert b"\r\nProxy-Authorization: Basic " in heads[0]
    assert PASSWORD not in shown(error) + repr(api) + caplog.text


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_the_environment_may_name_the_proxy(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `trust_env`, the client uses the variables that Python's `urllib.request` reads; otherwise it does not."""
    async with proxy(REJECT) as (url, heads):
        monkeypatch.setenv(variable, url)
        for trust_env, exempt, count in ((True, "", 1), (False, "", 1), (True, "gateway.invalid", 1)):
            monkeypatch.setenv("NO_PROXY", exempt)
            api = PersonaAPI(KEY, base_url="https://gateway.invalid", trust_env=trust_env, retry=ONCE)
            async with api:
                assert type(await failure(api)) is ConnectionFailedError
            assert len(heads) == count


async def test_a_loopback_host_is_reached_without_the_proxy(fake_suno: FakeSuno) -> None:
    """A proxy elsewhere could not reach it."""
    async with proxy(REJECT) as (url, heads):
        async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, proxy=url) as api:
            await api.create(REQUEST)
        assert not heads


@pytest.mark.parametrize("name", ["proxy", "HTTPS_PROXY"])
def test_the_error_of_an_unusable_proxy_hides_its_password(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the argument or the variable, and does not show the address."""
    bad = f"me:{PASSWORD}@host"
    monkeypatch.setenv("HTTPS_PROXY", bad)
    with pytest.raises(ConfigurationError, match=f"^{name} must be the URL of an HTTP proxy") as caught:
        PersonaAPI(KEY, base_url=BASE, proxy=bad if name == "proxy" else None, trust_env=True)
    assert PASSWORD not in shown(caught.value)
