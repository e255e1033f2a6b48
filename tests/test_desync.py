"""A response belongs to its request: data that arrives between two requests is the response to neither."""

import asyncio
import select
import ssl
import sys
from typing import Any

import aiohttp
import attrs
import pytest
import trustme
from support.broken_service import BrokenService, Exchange
from support.calls import ONCE, requests
from support.clock import Clock
from support.command import run
from support.idle import idle

from suno_persona import (
    ConnectionFailedError,
    ConnectionLostError,
    CreatePersonaRequest,
    PersonaAPI,
    RetryPolicy,
    UnreadableResponseError,
)
from suno_persona._connector import Connector

KEY = "sk-0123456789"
TWICE = RetryPolicy(attempts=2, wait_initial=0)


def response(status: str, body: bytes = b'{"id": "stray"}') -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


WHOLE = {
    "200": response("200 OK"),
    "201": response("201 Created"),
    "408": response("408 Request Timeout"),
    "408, closing": response("408 Request Timeout\r\nConnection: close"),
    "429": response("429 Too Many Requests\r\nRetry-After: 0"),
    "503": response("503 Service Unavailable"),
    "two": response("200 OK") * 2,
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
}
HALVES = {
    "a letter": b"H",
    "half a status line": b"HTTP/1.1 20",
    "a status line": b"HTTP/1.1 200 OK\r\n",
    "half a header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a header's value": b"HTTP/1.1 200 OK\r\nX-Request-Id: ",
    "half a body": response("200 OK")[:-5],
    "half a body without a length": b"HTTP/1.1 200 OK\r\n\r\n{",
}
STRAYS = WHOLE | HALVES
MOMENTS = ("with the response", "after it", "while idle", "before the next request")


class Service(BrokenService):
    """Sends stray data after its first response, on the same connection, at a moment that the test chooses."""

    def __init__(self, stray: bytes, moment: str, **options: Any) -> None:
        super().__init__(self._respond, **options)
        self._stray = stray
        self._moment = moment

    async def _respond(self, exchange: Exchange) -> None:
        if self._moment == "with the response":
            await exchange.send(exchange.response() + self._stray)
            return
        await exchange.send(exchange.response())
        if self._moment == "after it":
            await exchange.send(self._stray)
        self._exchange = exchange

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


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("stray", STRAYS.values(), ids=STRAYS)
async def test_a_stray_response_belongs_to_no_request(stray: bytes, moment: str) -> None:
    """The next call uses another connection, and no attempt fails."""
    async with Service(stray, moment) as service, PersonaAPI(KEY, retry=ONCE, base_url=service.base_url) as api:
        await assert_own_personas(api, service)
        assert service.connections == 2


@pytest.mark.parametrize("moment", ["with the response", "while idle"])
async def test_a_truncated_stray_response_is_noticed(moment: str) -> None:
    """It is noticed whichever byte it ends at."""
    whole = b"HTTP/1.1 200 OK\r\nX-Request-Id: 7\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}   \r\n0\r\n\r\n"
    for end in range(1, len(whole) + 1):
        service = Service(whole[:end], moment)
        async with service, PersonaAPI(KEY, retry=ONCE, base_url=service.base_url) as api:
            await assert_own_personas(api, service)
            assert service.connections == 2, whole[:end]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("stray", WHOLE.values(), ids=WHOLE)
async def test_a_stray_response_belongs_to_no_request_of_a_callers_session(stray: bytes, moment: str) -> None:
    """The next attempt fails before it sends anything."""
    async with Service(stray, moment) as service, aiohttp.ClientSession() as session:
        api = PersonaAPI(KEY, retry=TWICE, base_url=service.base_url, session=session)
        await assert_own_personas(api, service)


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_stray_response_belongs_to_no_request_with_tls(moment: str) -> None:
    """Data that is not yet decrypted counts too; session tickets after a handshake are not a response."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    connector = Connector(limit=1, keepalive_timeout=4)
    service = Service(WHOLE["200"], moment, tls=server)
    async with service, aiohttp.ClientSession(connector=connector) as session:
        connect = connector.connect

        async def trusting(request: aiohttp.ClientRequest, *arguments: Any, **options: Any) -> Any:
            request._ssl = client
            return await connect(request, *arguments, **options)

        connector.connect = trusting  # type: ignore[method-assign, assignment]
        api = PersonaAPI(KEY, retry=ONCE, base_url=service.base_url, session=session)
        await assert_own_personas(api, service)


@pytest.mark.parametrize("moment", ["while idle", "before the next request"])
async def test_stray_data_that_is_not_http_belongs_to_no_request(moment: str) -> None:
    """Together with a response, it would make that unreadable."""
    service = Service(b"what?\r\n", moment)
    async with service, PersonaAPI(KEY, retry=ONCE, base_url=service.base_url) as api:
        await assert_own_personas(api, service)


@pytest.mark.parametrize("headers", [b"", b"Connection: upgrade\r\nUpgrade: h2c\r\n"])
async def test_a_connection_is_not_reused_after_a_101(headers: bytes) -> None:
    """The response to the request itself may still arrive on it."""

    async def switch(exchange: Exchange) -> None:
        exchange.create()
        await exchange.send(b"HTTP/1.1 101 Switching Protocols\r\n%b\r\n" % headers)

    first, second = requests(2)
    async with BrokenService(switch) as service, PersonaAPI(KEY, retry=ONCE, base_url=service.base_url) as api:
        with pytest.raises(UnreadableResponseError):
            await api.create(first)
        assert (await api.create(second)).name == "1"
    assert service.connections == 2


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_checking_a_connection_starts_no_timeout(advance: Clock, request_: CreatePersonaRequest) -> None:
    """A reused connection has as much time as a new one to write a long request."""
    paused: list[asyncio.Transport] = []

    async def respond_and_pause(exchange: Exchange) -> None:
        await exchange.send(exchange.response())
        paused.append(exchange.writer.transport)  # type: ignore[arg-type]  # it is that of a socket
        paused[0].pause_reading()

    timeout = aiohttp.ClientTimeout(sock_read=1)
    async with (
        BrokenService(respond_and_pause) as service,
        PersonaAPI(KEY, retry=ONCE, base_url=service.base_url, timeout=timeout) as api,
    ):
        await api.create(request_)
        long = attrs.evolve(request_, description="D" * 20_000_000)  # more than the buffers of a connection can hold
        calling = asyncio.create_task(api.create(long))
        await idle()
        advance(2)
        await idle()
        paused[0].resume_reading()
        assert (await calling).id == "persona-2"
    assert service.connections == 1


async def test_every_idle_connection_may_have_a_stray_response() -> None:
    """All of them are dropped, and the calls open new ones."""
    exchanges: list[Exchange] = []
    everyone = asyncio.Barrier(3)

    async def respond(exchange: Exchange) -> None:
        exchanges.append(exchange)
        await everyone.wait()
        await exchange.send(exchange.response())

    first, others = requests(6)[:3], requests(6)[3:]
    async with BrokenService(then=respond) as service, PersonaAPI(KEY, retry=ONCE, base_url=service.base_url) as api:
        await asyncio.gather(*map(api.create, first))
        for exchange in exchanges:
            exchange.writer.write(WHOLE["200"])
        personas = await asyncio.gather(*map(api.create, others))
    assert [persona.name for persona in personas] == ["3", "4", "5"]
    assert service.connections == len(service.requests) == 6


async def test_a_connection_without_a_stray_response_is_reused() -> None:
    """It may be reused many times."""
    async with BrokenService() as service, PersonaAPI(KEY, retry=ONCE, base_url=service.base_url) as api:
        for request in requests(5):
            await api.create(request)
    assert service.connections == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables", [("AIOHTTP_NO_EXTENSIONS",), ("PYTHONASYNCIODEBUG",), ("AIOHTTP_NO_EXTENSIONS", "PYTHONASYNCIODEBUG")]
)
async def test_each_parser_of_aiohttp_notices_stray_responses(variables: tuple[str, ...]) -> None:
    """The parsers in C and in Python notice the same, also in asyncio's debug mode, where they are strict."""
    tests = "test_a_truncated_stray_response_is_noticed or test_a_connection_without_a_stray_response_is_reused"
    done = await run(sys.executable, "-m", "pytest", "-q", "-k", tests, __file__, env=dict.fromkeys(variables, "1"))
    assert done.status == 0, done.output


async def test_a_stray_response_is_noticed_on_a_system_without_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, `select` checks the connection."""
    monkeypatch.delattr(select, "poll")
    service = Service(WHOLE["200"], "before the next request")
    async with service, PersonaAPI(KEY, retry=ONCE, base_url=service.base_url) as api:
        await assert_own_personas(api, service)


class Waiting:
    """A trace that waits at one point of each request until the service has sent something."""

    def __init__(self, point: str) -> None:
        self.sent = asyncio.Event()
        self.config = aiohttp.TraceConfig()
        getattr(self.config, point).append(self._wait)

    async def _wait(self, *_: object) -> None:
        await self.sent.wait()
        await idle()

    async def send(self, exchange: Exchange) -> None:
        """Send a persona that was not requested."""
        await exchange.send(WHOLE["200"])
        self.sent.set()


@pytest.mark.parametrize(
    ("point", "connector"),
    [
        ("on_connection_create_end", lambda: Connector(limit=1, keepalive_timeout=4)),
        ("on_connection_create_end", aiohttp.TCPConnector),
        ("on_request_headers_sent", aiohttp.TCPConnector),
    ],
)
async def test_a_response_before_the_request_is_not_its_response(
    point: str, connector: Any, request_: CreatePersonaRequest
) -> None:
    """The request is not sent on that connection, and the next attempt opens another one."""
    waiting = Waiting(point)
    async with (
        BrokenService(on_connect=waiting.send) as service,
        aiohttp.ClientSession(connector=connector(), trace_configs=[waiting.config]) as session,
    ):
        once = PersonaAPI(KEY, retry=ONCE, base_url=service.base_url, session=session)
        with pytest.raises(ConnectionFailedError, match="before the request"):
            await once.create(request_)
        assert service.requests == []
        persona = await once.create(request_)
    assert persona.id == "persona-1"
    assert service.connections == 2


async def test_a_middleware_may_respond_by_itself(request_: CreatePersonaRequest) -> None:
    """There is no connection then, and its response counts."""
    async with BrokenService() as service, aiohttp.ClientSession() as other:

        async def forward(request: aiohttp.ClientRequest, _: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            body = request.body
            assert isinstance(body, aiohttp.Payload)
            return await other.post(request.url, data=await body.as_bytes())

        async with aiohttp.ClientSession(middlewares=[forward]) as session:
            api = PersonaAPI(KEY, retry=ONCE, base_url=service.base_url, session=session)
            assert (await api.create(request_)).id == "persona-1"


async def retry_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Make a second attempt if the first one fails, as a middleware may."""
    try:
        return await handler(request)
    except aiohttp.ClientError:
        return await handler(request)


async def test_a_middleware_may_retry() -> None:
    """If its first attempt sent nothing, its second one counts."""
    service = Service(WHOLE["200"], "before the next request")
    async with service, aiohttp.ClientSession(middlewares=[retry_once]) as session:
        api = PersonaAPI(KEY, retry=ONCE, base_url=service.base_url, session=session)
        await assert_own_personas(api, service)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="aiohttp returns a response before it writes the request")
async def test_a_stray_response_from_a_middleware_is_an_unknown_outcome() -> None:
    """The middleware may have sent the request in its own way."""
    service = Service(WHOLE["200"], "while idle")
    async with service, aiohttp.ClientSession(middlewares=[retry_once]) as session:
        api = PersonaAPI(KEY, retry=ONCE, base_url=service.base_url, session=session)
        with pytest.raises(ConnectionLostError, match="a response arrived before the request"):
            await assert_own_personas(api, service)
    assert len(service.requests) == 1
