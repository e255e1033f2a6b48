"""A reused connection is quiet: data that arrives between two requests is the response to neither."""

import asyncio
import select
import ssl
from typing import Any

import pytest
import trustme
from support.broken_service import BrokenService, Exchange
from support.calls import ONCE, REQUEST, requests
from support.held_service import client
from support.idle import idle

from suno_persona import ConnectionLostError, PersonaAPI

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"id": "stray"}'
MOMENTS = ("with the response", "after it", "while idle", "before the next request")
CASES = [
    *((OK, moment) for moment in MOMENTS),
    (b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "while idle"),
    (b"HTTP/1.1 100 Continue\r\n\r\n", "while idle"),
    (b"what?\r\n", "before the next request"),
]


class Service(BrokenService):
    """Sends stray data after its first response, on the same connection, at a moment that the test chooses."""

    def __init__(self, stray: bytes, moment: str, **options: Any) -> None:
        super().__init__(self._respond, **options)
        self._stray = stray
        self._moment = moment

    async def _respond(self, exchange: Exchange) -> None:
        self._exchange = exchange
        await exchange.send(exchange.response() + (self._stray if self._moment == "with the response" else b""))
        if self._moment == "after it":
            await exchange.send(self._stray)

    async def send_stray(self) -> None:
        """Send the stray data if this is the moment, and let the client read it or not."""
        if self._moment == "while idle":
            await self._exchange.send(self._stray)
            await idle()
        elif self._moment == "before the next request":
            self._exchange.writer.write(self._stray)  # not read yet when the next call begins


async def assert_own_personas(api: PersonaAPI, service: Service) -> None:
    """Make three calls, one after another; each returns the persona of its request, which is sent once."""
    first, *others = requests(3)
    personas = [await api.create(first)]
    await service.send_stray()
    personas += [await api.create(request) for request in others]
    assert [persona.name for persona in personas] == service.personas == ["0", "1", "2"]
    assert [persona.id for persona in personas] == ["persona-1", "persona-2", "persona-3"]
    assert len(service.requests) == 3


@pytest.mark.parametrize(("stray", "moment"), CASES)
async def test_a_stray_response_belongs_to_no_request(stray: bytes, moment: str) -> None:
    """The next call uses another connection, which may then be reused, and no attempt fails."""
    async with Service(stray, moment) as service, client(service, retry=ONCE) as api:
        await assert_own_personas(api, service)
        assert service.connections == 2


async def test_a_stray_response_is_noticed_on_a_system_without_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, `select` checks the connection."""
    monkeypatch.delattr(select, "poll")
    async with Service(OK, "before the next request") as service, client(service, retry=ONCE) as api:
        await assert_own_personas(api, service)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_stray_response_belongs_to_no_request_with_tls(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that is not yet decrypted counts too; session tickets after a handshake are not a response."""
    authority = trustme.CA()
    server, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(trusting)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
    async with Service(OK, moment, tls=server) as service, client(service, retry=ONCE) as api:
        await assert_own_personas(api, service)
        assert service.connections == 2


async def lose(exchange: Exchange) -> None:
    """Create the persona, and close the connection without a response."""
    exchange.create()
    exchange.close()


async def test_after_a_request_is_lost_on_a_reused_connection_none_is_reused() -> None:
    """A server that closes connections under their next request costs one unknown outcome, not one in two calls."""
    seen: set[asyncio.StreamWriter] = set()

    async def serve_once(exchange: Exchange) -> None:
        if exchange.writer in seen:
            await lose(exchange)
        else:
            seen.add(exchange.writer)
            await exchange.send(exchange.response())

    async with BrokenService(then=serve_once) as service, client(service) as api:
        outcomes = [await api.outcome(request) for request in requests(20)]
    assert [type(outcome.error) for outcome in outcomes if outcome.error] == [ConnectionLostError]
    assert (service.connections, len(service.personas)) == (19, 20), "the lost request is not sent again"


async def test_a_connection_closed_while_idle_costs_nothing() -> None:
    """The next call opens a new connection."""

    async def respond_and_close(exchange: Exchange) -> None:
        await exchange.send(exchange.response())
        exchange.close()

    async with BrokenService(respond_and_close) as service, client(service, retry=ONCE) as api:
        await api.create(REQUEST)
        await idle()
        await api.create(REQUEST)
    assert (service.connections, len(service.requests), len(service.personas)) == (2, 2, 2)


async def test_a_request_lost_on_a_new_connection_ends_no_reuse() -> None:
    """Only a loss on a reused connection says that the server closes them."""
    async with BrokenService(lose) as service, client(service) as api:
        outcomes = [await api.outcome(request) for request in requests(5)]
    assert [type(outcome.error) for outcome in outcomes if outcome.error] == [ConnectionLostError]
    assert service.connections == 2
