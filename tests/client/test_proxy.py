"""Requests through a proxy: which one is used, what its failures mean, and that its password is nowhere."""

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.broken_service import reset
from support.calls import KEY, ONCE
from support.shown import in_rich, in_structlog

from suno_persona import ConfigurationError, ConnectionFailedError, CreatePersonaRequest, PersonaAPI
from suno_persona.testing import FakeSuno

PASSWORD = "hunter2-of-the-proxy"
Act = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def proxy(act: Act) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a proxy that acts so after it read the head of a request; yield its URL and the heads."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        await act(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://me:{PASSWORD}@127.0.0.1:{port}", heads


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def break_off(writer: asyncio.StreamWriter) -> None:
    reset(writer)


async def garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    writer.close()


async def reject(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    writer.close()


async def create(writer: asyncio.StreamWriter) -> None:
    body = b'{"id": "persona-1"}'
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    writer.close()


def shown(error: BaseException) -> str:
    """Return an error as Python, rich and structlog show it, with the variables of our frames."""
    return "".join([*traceback.format_exception(error), repr(vars(error)), in_rich(error), in_structlog(error)])


@pytest.mark.parametrize("act", [close, break_off, garbage, reject])
async def test_a_proxy_that_opens_no_tunnel_means_that_nothing_was_sent(
    act: Act, request_: CreatePersonaRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """The error is a `ConnectionFailedError`, which is retried; neither it nor the log shows the password."""
    caplog.set_level(logging.DEBUG, "suno_persona")
    async with (
        proxy(act) as (url, heads),
        PersonaAPI(KEY, base_url="https://gateway.example", proxy=url, retry=ONCE) as api,
    ):
        with pytest.raises(ConnectionFailedError) as caught:
            await api.create(request_)
        assert heads[0].startswith(b"CONNECT gateway.example:443 HTTP/1.1\r\n")
        assert b"\r\nProxy-Authorization: Basic " in heads[0]
        for text in (shown(caught.value), repr(api), caplog.text):
            assert PASSWORD not in text


async def test_plain_requests_go_through_the_proxy_too(request_: CreatePersonaRequest) -> None:
    """The proxy gets them with the whole address, and responds for the service."""
    async with (
        proxy(create) as (url, heads),
        PersonaAPI(KEY, base_url="http://gateway.example", proxy=url, allow_insecure=True) as api,
    ):
        assert (await api.create(request_)).id == "persona-1"
    assert heads[0].startswith(b"POST http://gateway.example/suno/persona/create/ HTTP/1.1\r\n")


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_the_environment_may_name_the_proxy(
    variable: str, request_: CreatePersonaRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `trust_env`, the client uses the variables that Python's `urllib.request` reads; otherwise it does not."""
    async with proxy(reject) as (url, heads):
        monkeypatch.setenv(variable, url)
        for trust_env, count in ((True, 1), (False, 0)):
            heads.clear()
            api = PersonaAPI(KEY, base_url="https://gateway.invalid", trust_env=trust_env, retry=ONCE)
            async with api:
                with pytest.raises(ConnectionFailedError):
                    await api.create(request_)
            assert len(heads) == count
        monkeypatch.setenv("NO_PROXY", "gateway.invalid")
        async with PersonaAPI(KEY, base_url="https://gateway.invalid", trust_env=True, retry=ONCE) as api:
            with pytest.raises(ConnectionFailedError):
                await api.create(request_)
        assert not heads


async def test_a_loopback_host_is_reached_without_the_proxy(
    fake_suno: FakeSuno, request_: CreatePersonaRequest
) -> None:
    """A proxy elsewhere could not reach it."""
    async with proxy(reject) as (url, heads):
        async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, proxy=url) as api:
            await api.create(request_)
        assert not heads


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ({"proxy": f"socks5://me:{PASSWORD}@host"}, {}, "proxy must be the URL of an HTTP proxy"),
        ({"proxy": f"me:{PASSWORD}@host:3128"}, {}, "proxy must be the URL of an HTTP proxy"),
        ({"proxy": 3128}, {}, "proxy must be the URL of an HTTP proxy"),
        ({"trust_env": 1}, {}, "trust_env must be True or False"),
        ({"trust_env": True}, {"HTTPS_PROXY": f"me:{PASSWORD}@host"}, "HTTPS_PROXY must be the URL of an HTTP proxy"),
    ],
)
def test_an_unusable_proxy_fails_at_once(
    arguments: dict[str, Any], variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the argument or the variable, and does not show the address, which may hold a password."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        PersonaAPI(KEY, base_url="https://gateway.example", **arguments)
    assert caught.value.message.startswith(message)
    assert PASSWORD not in shown(caught.value)
