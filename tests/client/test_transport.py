"""Errors distinguish "never sent" from "may have been received"."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from support.calls import ONCE
from support.resolver import Resolver

from suno_persona import (
    ConnectionFailedError,
    ConnectionLostError,
    CreatePersonaRequest,
    NotCreatedError,
    PersonaAPI,
    PersonaError,
    RejectedError,
    ResponseTimeoutError,
    UnreadableResponseError,
)
from suno_persona.testing import FakeSuno, Fault


async def failure(api: PersonaAPI, request: CreatePersonaRequest) -> Any:
    """Return the error that a call raises."""
    with pytest.raises(PersonaError) as caught:
        await api.create(request)
    return caught.value


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


async def test_connection_refused_means_that_nothing_was_sent(request_: CreatePersonaRequest) -> None:
    """Nothing listens: there is certainly no persona."""
    async with PersonaAPI("sk-0123456789", retry=ONCE, base_url=f"http://127.0.0.1:{free_port()}") as api:
        assert type(await failure(api, request_)) is ConnectionFailedError


async def test_a_failed_handshake_sent_nothing(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """The service speaks no TLS: there is certainly no persona."""
    async with PersonaAPI("sk-0123456789", retry=ONCE, base_url=fake_suno.base_url.replace("http:", "https:")) as api:
        assert type(await failure(api, request_)) is ConnectionFailedError
    assert fake_suno.requests == []


async def test_a_connection_that_times_out_sent_nothing(
    request_: CreatePersonaRequest, advance: Callable[[float], None]
) -> None:
    """The host does not respond: `sock_connect` strikes, and there is certainly no persona."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for other in (first, second):  # they fill the backlog
            other.setblocking(False)
            other.connect_ex(server.getsockname())
        base_url = f"http://127.0.0.1:{server.getsockname()[1]}"
        timeout = aiohttp.ClientTimeout(sock_connect=10)
        async with PersonaAPI("sk-0123456789", retry=ONCE, base_url=base_url, timeout=timeout) as api:
            call = asyncio.create_task(failure(api, request_))
            while not call.done():
                advance(1)
                await asyncio.sleep(0)
            error = await call
    assert type(error) is ConnectionFailedError
    assert "Connection timeout" in error.message


@pytest.fixture
def resolver() -> Resolver:
    """Return a resolver that knows no name."""
    return Resolver(forever=False)


@pytest.fixture
async def elsewhere(resolver: Resolver) -> AsyncIterator[PersonaAPI]:
    """Yield a client whose service is found by the resolver of the test."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver)) as session:
        yield PersonaAPI("sk-0123456789", retry=ONCE, base_url="https://gateway.example", session=session)


async def test_an_unknown_host_sent_nothing(elsewhere: PersonaAPI, request_: CreatePersonaRequest) -> None:
    """The name has no address: there is certainly no persona."""
    assert type(await failure(elsewhere, request_)) is ConnectionFailedError


@pytest.mark.parametrize("resolver", [Resolver(forever=True)])
async def test_a_timeout_while_connecting_sent_nothing(
    elsewhere: PersonaAPI, resolver: Resolver, request_: CreatePersonaRequest, advance: Callable[[float], None]
) -> None:
    """`timeout.total` strikes before the first byte: there is certainly no persona."""
    call = asyncio.create_task(failure(elsewhere, request_))
    await resolver.asked.wait()
    advance(61)
    error = await call
    assert type(error) is ConnectionFailedError
    assert "60 s (timeout.total)" in error.message


@pytest.mark.parametrize("creates", [False, True])
async def test_a_timeout_after_sending_leaves_the_outcome_unknown(
    fake_suno: FakeSuno,
    once: PersonaAPI,
    request_: CreatePersonaRequest,
    advance: Callable[[float], None],
    creates: bool,
) -> None:
    """The service has the request and does not respond: a persona may exist."""
    fake_suno.script(Fault.hang(creates=creates))
    call = asyncio.create_task(failure(once, request_))
    while not fake_suno.requests:
        await asyncio.sleep(0)
    advance(61)
    error = await call
    assert type(error) is ResponseTimeoutError
    assert isinstance(error, TimeoutError)
    assert "60 s (timeout.total)" in error.message
    assert len(fake_suno.requests) == 1


@pytest.mark.parametrize("fault", [Fault.dropped(), Fault.lost_answer()])
async def test_a_lost_response_leaves_the_outcome_unknown(
    fake_suno: FakeSuno, once: PersonaAPI, request_: CreatePersonaRequest, fault: Fault
) -> None:
    """The connection closes without a response: a persona may exist, and nothing is sent again."""
    fake_suno.script(fault)
    assert type(await failure(once, request_)) is ConnectionLostError
    assert len(fake_suno.requests) == 1


async def test_the_error_of_an_incomplete_response_has_what_arrived(
    fake_suno: FakeSuno, once: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """The error has the status, the part of the body that arrived, and the id that was in it."""
    fake_suno.script(Fault.truncated_response())
    error = await failure(once, request_)
    assert type(error) is ConnectionLostError
    assert error.status == 200
    assert error.body.startswith(b'{"id"')
    assert error.persona_id == fake_suno.personas[0].id


async def test_an_incomplete_rejection_is_a_rejection(
    fake_suno: FakeSuno, once: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """The status line decides; the missing part of the body does not matter."""
    fake_suno.script(Fault(status=400, body=b"no such clip, really none", ending="cut"))
    error = await failure(once, request_)
    assert type(error) is RejectedError
    assert error.message == "no such clip"


async def test_a_client_works_after_a_broken_call(
    fake_suno: FakeSuno, once: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """The next call uses a connection that works."""
    fake_suno.script(Fault.truncated_response(), Fault.dropped())
    await failure(once, request_)
    await failure(once, request_)
    assert (await once.create(request_)).name == "Neon"


def large(size: int) -> bytes:
    """Return a persona of this many bytes."""
    start = b'{"id": "fd213afd", "name": "'
    return start + b"x" * (size - len(start) - 2) + b'"}'


@pytest.mark.parametrize(
    "compress", [lambda body: (body, {}), lambda body: (gzip.compress(body, mtime=0), {"Content-Encoding": "gzip"})]
)
@pytest.mark.parametrize("status", [200, 400])
async def test_responses_are_bounded_after_decompression(
    fake_suno: FakeSuno, request_: CreatePersonaRequest, compress: Any, status: int
) -> None:
    """At most `max_response_size` bytes are ever held; the status decides what a longer response means."""
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, max_response_size=1000) as api:
        body, headers = compress(large(1000))
        fake_suno.script(Fault.response(200, body, headers=headers))
        assert (await api.create(request_)).id == "fd213afd"
        body, headers = compress(large(5_000_000))
        fake_suno.script(Fault.response(status, body, headers=headers))
        error = await failure(api, request_)
    assert error.body == large(5_000_000)[:1000]
    if status == 200:
        assert type(error) is UnreadableResponseError
        assert error.persona_id == "fd213afd"
        assert "max_response_size, 1000 bytes" in error.message
    else:
        assert type(error) is RejectedError


async def test_a_body_that_a_middleware_replaces_may_have_been_sent(
    fake_suno: FakeSuno, request_: CreatePersonaRequest, advance: Callable[[float], None]
) -> None:
    """The client cannot see when it is written, so a later timeout leaves the outcome unknown."""

    async def sign(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        body = request.body
        assert isinstance(body, aiohttp.Payload)
        await request.update_body(await body.as_bytes())
        return await handler(request)

    fake_suno.script(Fault.hang(creates=True))
    async with aiohttp.ClientSession(middlewares=[sign]) as session:
        api = PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, session=session)
        call = asyncio.create_task(failure(api, request_))
        while not fake_suno.requests:
            await asyncio.sleep(0)
        advance(61)
        assert type(await call) is ResponseTimeoutError
    assert len(fake_suno.personas) == 1


async def test_an_exception_that_the_caller_handles_keeps_its_traceback(
    fake_suno: FakeSuno, request_: CreatePersonaRequest
) -> None:
    """It has nothing to do with the call; aiohttp's own exceptions become words, and no causes."""
    fake_suno.script(Fault.dropped())
    try:
        int("the caller's own")
    except ValueError as own:
        async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url) as api:
            error = await failure(api, request_)
        assert own.__traceback__ is not None
        assert error.__cause__ is None


async def test_a_session_closed_while_it_connects_sent_nothing(request_: CreatePersonaRequest) -> None:
    """Aiohttp cancels the look-up of the address; the caller was not cancelled, and gets an error."""
    resolver = Resolver(forever=True)
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver))
    api = PersonaAPI("sk-0123456789", base_url="https://gateway.example", session=session)
    call = asyncio.create_task(failure(api, request_))
    await resolver.asked.wait()
    await session.close()
    assert not (await call).may_have_created


async def test_a_response_that_is_not_http_leaves_the_outcome_unknown(request_: CreatePersonaRequest) -> None:
    """Garbage instead of a status line may come from a service that created the persona."""

    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(b"+OK ready\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    async with (
        server,
        PersonaAPI(
            "sk-0123456789", retry=ONCE, base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ) as api,
    ):
        assert type(await failure(api, request_)) is UnreadableResponseError


async def test_a_session_of_another_loop_sends_nothing(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """Aiohttp raises before anything is sent, so there is no doubt."""

    def in_another_loop() -> aiohttp.ClientSession:
        async def make() -> aiohttp.ClientSession:
            return aiohttp.ClientSession()

        return asyncio.run(make())

    session = await asyncio.to_thread(in_another_loop)
    api = PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, session=session)
    assert type(await failure(api, request_)) is NotCreatedError
    assert fake_suno.requests == []
    await session.close()
