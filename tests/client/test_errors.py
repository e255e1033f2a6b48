"""The error tree, and its first fork: may a persona exist now? `create` raises nothing outside of it."""

import asyncio
import copy
import pickle
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from support.broken_service import Act, BrokenService, Exchange
from support.calls import BASE, KEY, ONCE, REQUEST
from support.held_service import client

import suno_persona
from suno_persona import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    ConnectionLostError,
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

# class: its parents
TREE: dict[type[PersonaError], tuple[type[BaseException], ...]] = {
    PersonaError: (Exception,),
    NotCreatedError: (PersonaError,),
    OutcomeUnknownError: (PersonaError,),
    ConfigurationError: (PersonaError, ValueError),
    InvalidRequestError: (NotCreatedError, ValueError),
    UsageError: (NotCreatedError, RuntimeError),
    JournalError: (PersonaError,),
    ConnectionFailedError: (NotCreatedError,),
    RejectedError: (NotCreatedError,),
    AuthenticationError: (RejectedError,),
    PermissionDeniedError: (RejectedError,),
    NotFoundError: (RejectedError,),
    RateLimitedError: (RejectedError,),
    ServiceUnavailableError: (RejectedError,),
    ResponseTimeoutError: (OutcomeUnknownError, TimeoutError),
    ConnectionLostError: (OutcomeUnknownError,),
    ServerError: (OutcomeUnknownError,),
    UnreadableResponseError: (OutcomeUnknownError,),
}
everywhere = pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)


def full(kind: type[PersonaError]) -> Any:
    """Return an error of this class with a value in every field."""
    fields: dict[str, Any] = {"message": "no such clip", "request": REQUEST}
    if issubclass(kind, NotCreatedError | OutcomeUnknownError):
        fields |= {"status": 404, "code": "clip_not_found", "request_id": "r-1", "attempts": 2}
        fields |= {"headers": {"X-Request-Id": "r-1"}, "body": b"{}"}
    if kind in (RateLimitedError, ServiceUnavailableError):
        fields["retry_after"] = 1.5
    if issubclass(kind, OutcomeUnknownError):
        fields["persona_id"] = "fd213afd"
    return kind(**fields)


@everywhere
def test_each_error_has_its_parents_and_says_whether_a_persona_may_exist(error: type[PersonaError]) -> None:
    """`except` with a parent's name catches it; `may_have_created` is on the class and on every instance."""
    assert all(issubclass(error, parent) for parent in TREE[error])
    assert error.may_have_created is error(message="x").may_have_created is issubclass(error, OutcomeUnknownError)


def test_the_tree_is_complete() -> None:
    """Every error that the package exports is in the tree."""
    assert {name for name in suno_persona.__all__ if name.endswith("Error")} == {kind.__name__ for kind in TREE}


@everywhere
def test_errors_are_made_with_keywords_and_survive_pickle_and_copy(error: type[PersonaError]) -> None:
    """A copy is of the same class and equal in every attribute, notes included."""
    with pytest.raises(TypeError):
        error("no such clip")  # type: ignore[call-arg]  # this is what is tested
    original = full(error)
    original.add_note("while testing")
    for twin in (copy.copy(original), copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert type(twin) is error
        assert vars(twin) == vars(original)
        assert str(twin) == str(original)


def test_an_error_shows_what_support_asks_for() -> None:
    """The text has status, code, message, request id, several attempts, and advice if the outcome is unknown."""
    text = "HTTP 404 (clip_not_found): no such clip [request id: r-1] after 2 attempts"
    assert str(full(RejectedError)) == text
    assert full(RejectedError).headers["x-request-id"] == "r-1"
    assert str(ConnectionFailedError(message="refused")) == "refused"
    assert str(ConnectionLostError(message="lost")) == "lost (a persona may exist: check before retrying)"
    assert "a persona may exist with the id fd213afd" in str(full(ServerError))
    assert len(repr(ServerError(message="broken", body=b"x" * 1_000_000))) < 200


Way = Callable[[], Awaitable[Any]]


def served(act: Act, **options: Any) -> Way:
    """Return a call to a service that acts in this way."""

    async def way() -> None:
        async with BrokenService(act) as service, client(service, **{"retry": ONCE, **options}) as api:
            await api.create(REQUEST)

    return way


def responding(status: int, body: bytes = b"{}") -> Way:
    """Return a call to a service that sends this response."""
    data = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
    return served(lambda exchange: exchange.send(data))


async def silence(exchange: Exchange) -> None:
    await exchange.until_the_client_leaves()


async def closed() -> None:
    """Use a client after it was closed."""
    api = PersonaAPI(KEY, base_url=BASE)
    await api.close()
    await api.create(REQUEST)


async def closed_session() -> None:
    """Use a client whose session its owner has closed."""
    async with aiohttp.ClientSession() as session:
        pass
    await PersonaAPI(KEY, base_url=BASE, session=session).create(REQUEST)


async def other_loop() -> None:
    """Use a client in an event loop other than its own."""
    api = PersonaAPI(KEY, base_url=BASE)

    async def use() -> None:
        async with api:
            pass

    await asyncio.to_thread(asyncio.run, use())
    await api.create(REQUEST)


async def session_of_another_loop() -> None:
    """Use a session in an event loop other than its own."""

    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    session = await asyncio.to_thread(asyncio.run, make())
    try:
        await served(silence, session=session)()
    finally:
        await session.close()


async def no_request() -> None:
    """Pass something other than a request."""
    await PersonaAPI(KEY, base_url=BASE).create({"name": "Neon"})  # type: ignore[arg-type]  # this is what is tested


async def nobody_listens() -> None:
    """Connect to a port on which nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with PersonaAPI(KEY, base_url=url, retry=ONCE) as api:
            await api.create(REQUEST)


async def closed_in_flight() -> None:
    """Close the client while a call is in flight."""
    async with BrokenService(silence) as service, client(service) as api:
        call = asyncio.create_task(api.create(REQUEST))
        while not service.requests:
            await asyncio.sleep(0)
        await api.close()
        await call


async def failing(*_: object) -> Any:
    """A hook of the caller's, with a bug."""
    raise KeyError("a bug")


async def failing_middleware() -> None:
    """Use a session whose middleware fails before anything is sent."""
    async with aiohttp.ClientSession(middlewares=[failing]) as session:
        await served(silence, session=session)()


async def failing_converter() -> None:
    """Read personas with a hook that fails."""
    made = conversion.make_converter()

    def fail(*_: object) -> Persona:
        raise KeyError("a bug")

    made.register_structure_hook(Persona, fail)
    await served(lambda exchange: exchange.send(exchange.response()), converter=made)()


SOON, AT_ONCE = aiohttp.ClientTimeout(sock_read=0.01), aiohttp.ClientTimeout(total=60, connect=1e-9)
WAYS: dict[str, tuple[Way, type[PersonaError], int]] = {
    "a closed client": (closed, UsageError, 0),
    "a closed session": (closed_session, UsageError, 0),
    "another event loop": (other_loop, UsageError, 0),
    "what is not a request": (no_request, InvalidRequestError, 0),
    "a session of another event loop": (session_of_another_loop, NotCreatedError, 1),
    "a hook fails": (failing_middleware, NotCreatedError, 1),
    "nothing listens": (nobody_listens, ConnectionFailedError, 1),
    "no time to connect": (served(silence, timeout=AT_ONCE), ConnectionFailedError, 1),
    "400": (responding(400), RejectedError, 1),
    "401": (responding(401), AuthenticationError, 1),
    "403": (responding(403), PermissionDeniedError, 1),
    "404": (responding(404), NotFoundError, 1),
    "429": (responding(429), RateLimitedError, 1),
    "503": (responding(503), ServiceUnavailableError, 1),
    "500": (responding(500), ServerError, 1),
    "200 with an error": (responding(200, b'{"error": {"message": "no"}}'), RejectedError, 1),
    "200 with something else": (responding(200, b"<html>"), UnreadableResponseError, 1),
    "a hook of the converter fails": (failing_converter, OutcomeUnknownError, 1),
    "not HTTP": (served(lambda exchange: exchange.send(b"SSH-2.0\r\n\r\n")), UnreadableResponseError, 1),
    "no response in time": (served(silence, timeout=SOON), ResponseTimeoutError, 1),
    "a client that is closed meanwhile": (closed_in_flight, ConnectionLostError, 1),
}


@pytest.mark.parametrize("name", WAYS)
async def test_every_failure_is_on_one_side_of_the_fork(name: str) -> None:
    """Each failure raises one of the two, and the error has the request and the number of attempts."""
    way, kind, attempts = WAYS[name]
    with pytest.raises((NotCreatedError, OutcomeUnknownError)) as caught:
        await way()
    assert isinstance(caught.value, kind)
    assert isinstance(caught.value, NotCreatedError) is not isinstance(caught.value, OutcomeUnknownError)
    assert caught.value.attempts == attempts
    assert caught.value.request == (REQUEST if name != "what is not a request" else {"name": "Neon"})


def test_every_class_of_error_is_raised() -> None:
    """The calls above raise every class but those for invalid configuration and for a journal."""
    elsewhere = {PersonaError, NotCreatedError, OutcomeUnknownError, ConfigurationError, JournalError}
    assert TREE.keys() - elsewhere <= {kind for _, kind, _ in WAYS.values()}
