"""The error tree, and its first fork: may a persona exist now? `create` raises nothing outside of it."""

import asyncio
import copy
import pickle
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from support.calls import BASE, KEY, ONCE, REQUEST

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
    PersonaAPI,
    PersonaError,
    RateLimitedError,
    RejectedError,
    ResponseTimeoutError,
    ServerError,
    ServiceUnavailableError,
    UnreadableResponseError,
    UsageError,
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


async def closed(session: aiohttp.ClientSession) -> None:
    """Use a client after it was closed."""
    async with PersonaAPI(KEY, base_url=BASE) as api:
        pass
    await api.create(REQUEST)


async def closed_session(session: aiohttp.ClientSession) -> None:
    """Use a client whose session its owner has closed."""
    await session.close()
    await PersonaAPI(KEY, base_url=BASE, session=session).create(REQUEST)


async def other_loop(session: aiohttp.ClientSession) -> None:
    """Use a client in an event loop other than its own."""
    api = PersonaAPI(KEY, base_url=BASE)

    async def use() -> None:
        async with api:
            pass

    await asyncio.to_thread(asyncio.run, use())
    await api.create(REQUEST)


async def session_of_another_loop(session: aiohttp.ClientSession) -> None:
    """Use a session in an event loop other than its own."""
    call = PersonaAPI(KEY, base_url=BASE, session=session).create(REQUEST)
    await asyncio.to_thread(asyncio.run, call)


async def no_request(session: aiohttp.ClientSession) -> None:
    """Pass something other than a request."""
    await PersonaAPI(KEY, base_url=BASE).create({"name": "Neon"})  # type: ignore[arg-type]  # this is what is tested


async def nobody_listens(session: aiohttp.ClientSession) -> None:
    """Connect to a port on which nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        await PersonaAPI(KEY, base_url=url, session=session, retry=ONCE).create(REQUEST)


async def failing(*_: object) -> Any:
    """A hook of the caller's, with a bug."""
    raise KeyError("a bug")


async def failing_hook(session: aiohttp.ClientSession) -> None:
    """Use a session whose middleware fails before anything is sent."""
    async with aiohttp.ClientSession(middlewares=[failing]) as session:
        await PersonaAPI(KEY, base_url=BASE, session=session).create(REQUEST)


Way = Callable[[aiohttp.ClientSession], Awaitable[None]]
WAYS: list[tuple[Way, type[PersonaError], int]] = [
    (closed, UsageError, 0),
    (closed_session, UsageError, 0),
    (other_loop, UsageError, 0),
    (no_request, InvalidRequestError, 0),
    (session_of_another_loop, NotCreatedError, 1),
    (failing_hook, NotCreatedError, 1),
    (nobody_listens, ConnectionFailedError, 1),
]


@pytest.mark.parametrize(("way", "kind", "attempts"), WAYS, ids=lambda value: getattr(value, "__name__", str(value)))
async def test_every_misuse_and_failure_before_sending_is_a_not_created_error(
    way: Way, kind: type[PersonaError], attempts: int
) -> None:
    """`except NotCreatedError` catches it, and it has the request and the number of attempts.

    What ends a call later is in `test_every_ending_at_every_moment.py` and `test_nothing_is_created_twice.py`.
    """
    async with aiohttp.ClientSession() as session:
        with pytest.raises(NotCreatedError) as caught:
            await way(session)
    assert type(caught.value) is kind
    assert caught.value.attempts == attempts
    assert caught.value.request == ({"name": "Neon"} if way is no_request else REQUEST)
