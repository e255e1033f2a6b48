"""The error tree: its shape, its first fork, and what every error can do."""

import copy
import pickle
from typing import Any

import pytest

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
    PersonaError,
    RateLimitedError,
    RejectedError,
    ResponseTimeoutError,
    ServerError,
    ServiceUnavailableError,
    UnreadableResponseError,
    UsageError,
)

# class: its parents, and whether a persona may exist
TREE: dict[type[PersonaError], tuple[tuple[type[BaseException], ...], bool]] = {
    PersonaError: ((Exception,), False),
    ConfigurationError: ((PersonaError, ValueError), False),
    InvalidRequestError: ((PersonaError, ValueError), False),
    UsageError: ((PersonaError, RuntimeError), False),
    JournalError: ((PersonaError,), False),
    NotCreatedError: ((PersonaError,), False),
    ConnectionFailedError: ((NotCreatedError,), False),
    RejectedError: ((NotCreatedError,), False),
    AuthenticationError: ((RejectedError,), False),
    PermissionDeniedError: ((RejectedError,), False),
    NotFoundError: ((RejectedError,), False),
    RateLimitedError: ((RejectedError,), False),
    ServiceUnavailableError: ((RejectedError,), False),
    OutcomeUnknownError: ((PersonaError,), True),
    ResponseTimeoutError: ((OutcomeUnknownError, TimeoutError), True),
    ConnectionLostError: ((OutcomeUnknownError,), True),
    ServerError: ((OutcomeUnknownError,), True),
    UnreadableResponseError: ((OutcomeUnknownError,), True),
}
AFTER_SENDING = [error for error in TREE if issubclass(error, NotCreatedError | OutcomeUnknownError)]

everywhere = pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)


def full(kind: type[PersonaError], request: CreatePersonaRequest) -> PersonaError:
    """Return an error of this class with a value in every field."""
    fields: dict[str, Any] = {"message": "no such clip", "request": request}
    if kind in AFTER_SENDING:
        fields |= {"status": 404, "code": "clip_not_found", "request_id": "r-1", "attempts": 2}
        fields |= {"headers": {"X-Request-Id": "r-1"}, "body": b"{}"}
    if kind in (RateLimitedError, ServiceUnavailableError):
        fields["retry_after"] = 1.5
    if issubclass(kind, OutcomeUnknownError):
        fields["persona_id"] = "fd213afd"
    return kind(**fields)


@everywhere
def test_each_error_has_its_parents(error: type[PersonaError]) -> None:
    """`except` with a parent's name catches the error, built-in parents included."""
    parents, _ = TREE[error]
    assert all(issubclass(error, parent) for parent in parents)


def test_the_tree_is_complete() -> None:
    """Every error that the package exports is in the tree."""
    exported = [getattr(suno_persona, name) for name in suno_persona.__all__ if name.endswith("Error")]
    assert set(exported) == set(TREE)


@everywhere
def test_each_error_says_whether_a_persona_may_exist(error: type[PersonaError]) -> None:
    """`may_have_created` is on the class and on every instance."""
    _, may_have_created = TREE[error]
    assert error.may_have_created is error(message="x").may_have_created is may_have_created


@everywhere
@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))],
    ids=["copy", "deep", "pickle"],
)
def test_errors_survive_pickle_and_copy(error: type[PersonaError], copied: Any, request_: CreatePersonaRequest) -> None:
    """A copy is of the same class and equal in every attribute, notes included."""
    original = full(error, request_)
    original.add_note("while testing")
    twin = copied(original)
    assert type(twin) is error
    assert vars(twin) == vars(original)
    assert str(twin) == str(original)


@everywhere
def test_errors_are_made_with_keywords_only(error: type[PersonaError]) -> None:
    """A positional argument raises `TypeError`."""
    with pytest.raises(TypeError):
        error("no such clip")  # type: ignore[call-arg]  # this is what is tested


def test_the_text_of_an_error_has_what_support_asks_for(request_: CreatePersonaRequest) -> None:
    """The text has status, code, message, request id, several attempts, and advice if the outcome is unknown."""
    assert (
        str(full(RejectedError, request_))
        == "HTTP 404 (clip_not_found): no such clip [request id: r-1] after 2 attempts"
    )
    assert str(ConnectionFailedError(message="refused")) == "refused"
    assert str(ConnectionLostError(message="lost")) == "lost (a persona may exist: check before retrying)"
    assert "a persona may exist with the id fd213afd" in str(full(ServerError, request_))


def test_headers_of_an_error_are_case_insensitive(request_: CreatePersonaRequest) -> None:
    """A header is found whatever the case of its name."""
    error = full(RejectedError, request_)
    assert isinstance(error, RejectedError)
    assert error.headers["x-request-id"] == "r-1"


def test_the_repr_of_an_error_is_short() -> None:
    """The `repr` leaves out a large body."""
    assert len(repr(ServerError(message="broken", body=b"x" * 1_000_000))) < 200
