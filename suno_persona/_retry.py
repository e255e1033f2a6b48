"""Which failures are retried, and after how long. Pure: nothing here waits or sends."""

import random
from collections.abc import Callable
from typing import Any, TypeGuard

import attrs

from suno_persona import _options as options
from suno_persona.errors import (
    ConnectionFailedError,
    NotCreatedError,
    OutcomeUnknownError,
    RateLimitedError,
    ServiceUnavailableError,
)
from suno_persona.models import Persona


def _is(check: Callable[[str, object], object]) -> "Callable[[object, attrs.Attribute[Any], object], None]":
    def validate(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        check(attribute.name, value)

    return validate


@attrs.frozen
class RetryPolicy:
    """How often and how patiently a call is retried after a failure that certainly created nothing.

    Those are `ConnectionFailedError`, `RateLimitedError` (429) and `ServiceUnavailableError` (503). Raises
    `ConfigurationError` for an unusable value.

    >>> RetryPolicy(attempts=10).wait_max
    30.0
    """

    attempts: int = attrs.field(default=4, validator=_is(options.count))
    """Maximum attempts per call; 1 disables retries."""

    wait_initial: float = attrs.field(default=0.5, validator=_is(options.seconds))
    """Seconds: the upper bound of the first backoff if the service sends no `Retry-After`. It doubles with each
    attempt, and the backoff is drawn between zero and it (full jitter)."""

    wait_max: float = attrs.field(default=30.0, validator=_is(options.seconds))
    """Seconds: the upper bound of every backoff. A longer `Retry-After` is raised at once, as the error's
    `retry_after`."""

    retry_unknown: bool = attrs.field(default=False, validator=_is(options.flag))
    """Whether to retry an `OutcomeUnknownError` too, which may create a second persona; never one that has the
    persona's id."""


def should_retry(policy: RetryPolicy, error: NotCreatedError | OutcomeUnknownError, attempt: int) -> bool:
    """Return whether another attempt follows this error of this attempt; the first attempt is 1."""
    if attempt >= policy.attempts:
        return False
    match error:
        case ConnectionFailedError():
            return True
        case RateLimitedError() | ServiceUnavailableError():
            return error.retry_after is None or error.retry_after <= policy.wait_max
        case OutcomeUnknownError():
            return policy.retry_unknown and error.persona_id is None  # there is a persona to look up, not to create
        case _:
            return False


def backoff(
    policy: RetryPolicy,
    error: NotCreatedError | OutcomeUnknownError,
    attempt: int,
    draw: Callable[[], float] = random.random,
) -> float:
    """Return the seconds to wait after this error: its `Retry-After`, or else exponential with full jitter.

    `draw` returns a number from 0 to 1.
    """
    if isinstance(error, RateLimitedError | ServiceUnavailableError) and error.retry_after is not None:
        return error.retry_after
    # The exponent is bounded, so that the power never overflows a float.
    return draw() * min(policy.wait_max, policy.wait_initial * 2.0 ** min(attempt - 1, 64))


def cools_down_all(result: object) -> TypeGuard[RateLimitedError | ServiceUnavailableError]:
    """Return whether the service asks all calls to pause, not only this one: a 429, or a 503 with `Retry-After`."""
    if isinstance(result, ServiceUnavailableError):
        return result.retry_after is not None
    return isinstance(result, RateLimitedError)


_OF_THE_ROW = (400, 404, 409, 422)


def window_after(window: int, largest: int, result: Persona | NotCreatedError | OutcomeUnknownError) -> int:
    """Return how many calls of a batch may be in flight after one of them ended so.

    A persona doubles the window. A failure that is not the row's own halves it: an unknown outcome, a failed
    connection, or a status such as 401 or 429. So a wrong key costs one request.
    """
    if isinstance(result, Persona):
        return min(2 * window, largest)
    is_own = isinstance(result, NotCreatedError) and not isinstance(result, ConnectionFailedError)
    if is_own and (result.status is None or result.status < 300 or result.status in _OF_THE_ROW):
        return window
    return max(window // 2, 1)
