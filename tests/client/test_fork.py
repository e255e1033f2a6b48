"""`except NotCreatedError` and `except OutcomeUnknownError` together catch everything that `create` raises."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from support.broken_service import BrokenService, Exchange
from support.calls import KEY, ONCE

import suno_persona
from suno_persona import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    ConnectionLostError,
    CreatePersonaRequest,
    InvalidRequestError,
    JournalError,
    NotCreatedError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    Persona,
    PersonaAPI,
    PersonaError,
    RateLimitedError,
    RejectedError,
    ResponseTimeoutError,
    ServerError,
    ServiceUnavailableError,
    UnreadableResponseError,
    UsageError,
    conversion,
)
from suno_persona.testing import FakeSuno

Way = Callable[[CreatePersonaRequest], Awaitable[Any]]


@asynccontextmanager
async def client(service: BrokenService, **options: Any) -> AsyncIterator[PersonaAPI]:
    """Open a client that makes one attempt of each call."""
    async with service, PersonaAPI(KEY, base_url=service.base_url, **{"retry": ONCE, **options}) as api:
        yield api


def responding(status: int, body: bytes = b"{}", headers: bytes = b"") -> Way:
    """Return a call to a service that sends this response."""

    async def respond(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body))

    return served_by(respond)


def served_by(act: Callable[[Exchange], Awaitable[None]], **options: Any) -> Way:
    """Return a call to a service that acts in this way."""

    async def way(request: CreatePersonaRequest) -> None:
        async with client(BrokenService(act), **options) as api:
            await api.create(request)

    return way


async def reset(exchange: Exchange) -> None:
    exchange.reset()


async def no_http(exchange: Exchange) -> None:
    await exchange.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")


async def half(exchange: Exchange) -> None:
    await exchange.send(exchange.response()[:-3])
    exchange.close()


async def silence(exchange: Exchange) -> None:
    await exchange.until_the_client_leaves()


async def closed(request: CreatePersonaRequest) -> None:
    """Use a client after it was closed."""
    api = PersonaAPI(KEY, base_url="https://gateway.example")
    await api.close()
    await api.create(request)


async def closed_session(request: CreatePersonaRequest) -> None:
    """Use a client whose session its owner has closed."""
    async with aiohttp.ClientSession() as session:
        pass
    await PersonaAPI(KEY, base_url="https://gateway.example", session=session).create(request)


async def other_loop(request: CreatePersonaRequest) -> None:
    """Use a client in an event loop other than its own."""
    api = PersonaAPI(KEY, base_url="https://gateway.example")

    async def use() -> None:
        async with api:
            pass

    await asyncio.to_thread(asyncio.run, use())
    await api.create(request)


async def no_request(_: CreatePersonaRequest) -> None:
    """Pass something other than a request."""
    async with client(BrokenService()) as api:
        await api.create({"name": "Neon"})  # type: ignore[arg-type]  # what the test is about


async def nobody_listens(request: CreatePersonaRequest) -> None:
    """Connect to a port on which nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with PersonaAPI(KEY, base_url=url, retry=ONCE) as api:
            await api.create(request)


async def no_tls(request: CreatePersonaRequest) -> None:
    """Connect with TLS to a service without TLS."""
    async with FakeSuno() as fake:
        url = fake.base_url.replace("http:", "https:")
        async with PersonaAPI(KEY, base_url=url, retry=ONCE) as api:
            await api.create(request)


async def no_connection(request: CreatePersonaRequest) -> None:
    """Connect with a timeout that is too short."""
    timeout = aiohttp.ClientTimeout(total=60, connect=1e-9)
    async with client(BrokenService(), timeout=timeout) as api:
        await api.create(request)


async def closed_in_flight(request: CreatePersonaRequest) -> None:
    """Close the client while a call is in flight."""
    service = BrokenService(silence)
    async with client(service) as api:
        call = asyncio.create_task(api.create(request))
        while not service.requests:
            await asyncio.sleep(0)
        await api.close()
        await call


def hooked(error: Exception) -> Way:
    """Return a call through a session whose middleware fails before anything is sent."""

    async def fail(*_: object) -> aiohttp.ClientResponse:
        raise error

    async def way(request: CreatePersonaRequest) -> None:
        async with (
            aiohttp.ClientSession(middlewares=[fail]) as session,
            client(BrokenService(), session=session) as api,
        ):
            await api.create(request)

    return way


async def failing_hook(request: CreatePersonaRequest) -> None:
    """Read personas with a caller's converter hook that fails."""
    made = conversion.make_converter()

    def fail(*_: object) -> Persona:
        raise KeyError("no such hook")

    made.register_structure_hook(Persona, fail)
    async with client(BrokenService(), converter=made) as api:
        await api.create(request)


WAYS: dict[str, tuple[Way, type[PersonaError], int]] = {
    "a closed client": (closed, UsageError, 0),
    "a closed session": (closed_session, UsageError, 0),
    "another event loop": (other_loop, UsageError, 0),
    "what is not a request": (no_request, InvalidRequestError, 0),
    "nothing listens": (nobody_listens, ConnectionFailedError, 1),
    "no TLS": (no_tls, ConnectionFailedError, 1),
    "no time to connect": (no_connection, ConnectionFailedError, 1),
    "a hook fails with ValueError": (hooked(ValueError("no")), NotCreatedError, 1),
    "a hook fails with TypeError": (hooked(TypeError("no")), NotCreatedError, 1),
    "a hook fails with RuntimeError": (hooked(RuntimeError("no")), NotCreatedError, 1),
    "a hook fails with KeyError": (hooked(KeyError("no")), NotCreatedError, 1),
    "400": (responding(400), RejectedError, 1),
    "401": (responding(401), AuthenticationError, 1),
    "403": (responding(403), PermissionDeniedError, 1),
    "404": (responding(404), NotFoundError, 1),
    "429": (responding(429), RateLimitedError, 1),
    "503": (responding(503), ServiceUnavailableError, 1),
    "500": (responding(500), ServerError, 1),
    "504": (responding(504), ServerError, 1),
    "500 for an invalid request": (responding(500, b'{"error": {"code": "invalid_request"}}'), RejectedError, 1),
    "a redirect to elsewhere": (responding(301, headers=b"Location: https://other.example/\r\n"), RejectedError, 1),
    "a redirect to a host that is none": (
        responding(307, headers=b"Location: https://xn--gw.example/\r\n"),
        RejectedError,
        1,
    ),
    "a redirect to a user without a name": (responding(308, headers=b"Location: //[::1]@\r\n"), RejectedError, 1),
    "200 with an error": (responding(200, b'{"error": {"message": "no"}}'), RejectedError, 1),
    "200 with something else": (responding(200, b"<html>"), UnreadableResponseError, 1),
    "200 without a body": (responding(200, b""), UnreadableResponseError, 1),
    "a response that is too large": (
        served_by(lambda exchange: exchange.send(exchange.response(b" " * 99)), max_response_size=9),
        UnreadableResponseError,
        1,
    ),
    "a hook of the converter fails": (failing_hook, OutcomeUnknownError, 1),
    "not HTTP": (served_by(no_http), UnreadableResponseError, 1),
    "half a response": (served_by(half), ConnectionLostError, 1),
    "a reset connection": (served_by(reset), ConnectionLostError, 1),
    "no response in time": (served_by(silence, timeout=aiohttp.ClientTimeout(sock_read=0.01)), ResponseTimeoutError, 1),
    "a client that is closed meanwhile": (closed_in_flight, ConnectionLostError, 1),
}


@pytest.mark.parametrize("name", WAYS)
async def test_every_failure_is_on_one_side_of_the_fork(name: str, request_: CreatePersonaRequest) -> None:
    """Each failure raises one of the two, and the error has the request and the number of attempts."""
    way, kind, attempts = WAYS[name]
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its class is asserted below
        await way(request_)
    error = caught.value
    assert isinstance(error, kind)
    assert isinstance(error, NotCreatedError) is not isinstance(error, OutcomeUnknownError)
    assert error.may_have_created is isinstance(error, OutcomeUnknownError)
    assert isinstance(error, NotCreatedError | OutcomeUnknownError)
    assert error.attempts == attempts
    assert error.request == (request_ if name != "what is not a request" else {"name": "Neon"})


def test_every_class_of_error_is_raised() -> None:
    """The calls above raise every class but those for invalid configuration and for a journal."""
    classes = {value for value in vars(suno_persona).values() if isinstance(value, type)}
    raised = {kind for kind in classes if issubclass(kind, PersonaError)}
    abstract = {PersonaError, NotCreatedError, OutcomeUnknownError}
    assert raised - abstract - {ConfigurationError, JournalError} <= {kind for _, kind, _ in WAYS.values()}
