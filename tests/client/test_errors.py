"""The error tree, and its first fork: may a persona exist now?"""

import copy
import pickle
from inspect import signature
from typing import Any

import pytest
from support.calls import REQUEST

import suno_persona
from suno_persona import ConnectionFailedError, ConnectionLostError, OutcomeUnknownError, RejectedError, ServerError

TREE = {  # class: its parents
    "PersonaError": "Exception",
    "NotCreatedError": "PersonaError",
    "OutcomeUnknownError": "PersonaError",
    "ConfigurationError": "PersonaError ValueError",
    "InvalidRequestError": "NotCreatedError ValueError",
    "UsageError": "NotCreatedError RuntimeError",
    "JournalError": "PersonaError",
    "ConnectionFailedError": "NotCreatedError",
    "RejectedError": "NotCreatedError",
    "AuthenticationError": "RejectedError",
    "PermissionDeniedError": "RejectedError",
    "NotFoundError": "RejectedError",
    "RateLimitedError": "RejectedError",
    "ServiceUnavailableError": "RejectedError",
    "ResponseTimeoutError": "OutcomeUnknownError TimeoutError",
    "ConnectionLostError": "OutcomeUnknownError",
    "ServerError": "OutcomeUnknownError",
    "UnreadableResponseError": "OutcomeUnknownError",
}
VALUES: dict[str, Any] = {
    "message": "no such clip",
    "request": REQUEST,
    "status": 404,
    "code": "clip_not_found",
    "request_id": "r-1",
    "attempts": 2,
    "headers": {"X-Request-Id": "r-1"},
    "body": b"{}",
    "retry_after": 1.5,
    "persona_id": "fd213afd",
}
everywhere = pytest.mark.parametrize("name", TREE)


def full(kind: Any) -> Any:
    """Return an error of this class with a value in every field."""
    return kind(**{name: value for name, value in VALUES.items() if name in signature(kind).parameters})


def test_the_tree_is_complete() -> None:
    """Every error that the package exports is in the tree."""
    assert {name for name in suno_persona.__all__ if name.endswith("Error")} == TREE.keys()


@everywhere
def test_each_error_has_its_parents_and_says_whether_a_persona_may_exist(name: str) -> None:
    """`except` with a parent's name catches it; `may_have_created` is on the class and on every instance."""
    error = getattr(suno_persona, name)
    assert set(TREE[name].split()) <= {parent.__name__ for parent in error.__mro__}
    assert error.may_have_created is error(message="x").may_have_created is issubclass(error, OutcomeUnknownError)


@everywhere
def test_errors_are_made_with_keywords_and_survive_pickle_and_copy(name: str) -> None:
    """A copy is of the same class and equal in every attribute, notes included."""
    error = getattr(suno_persona, name)
    with pytest.raises(TypeError):
        error("no such clip")
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
