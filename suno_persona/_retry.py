"""Which failures are retried, and after how long. Pure: nothing here waits or sends."""

import random
from collections.abc import Callable

import attrs

from suno_persona import _options as options
from suno_persona.errors import (
    ConnectionFailedError,
    NotCreatedError,
    OutcomeUnknownError,
    RateLimitedError,
    ServiceUnavailableError,
)


def _is_count(_: object, attribute: "attrs.Attribute[int]", value: object) -> None:
    options.count(attribute.name, value)


def _is_seconds(_: object, attribute: "attrs.Attribute[float]", value: object) -> None:
    options.seconds(attribute.name, value)


def _is_flag(_: object, attribute: "attrs.Attribute[bool]", value: object) -> None:
    options.flag(attribute.name, value)


@attrs.frozen
class RetryPolicy:
    """How often and how patiently a call is retried after a failure that certainly created nothing.

    Those are `ConnectionFailedError`, `RateLimitedError` (429) and `ServiceUnavailableError` (503). Raises
    `ConfigurationError` for an unusable value.

    >>> RetryPolicy(attempts=10).wait_max
    30.0
    """

    attempts: int = attrs.field(default=4, validator=_is_count)
    """How many attempts a call makes at most; 1 disables retries."""

    wait_initial: float = attrs.field(default=0.5, validator=_is_seconds)
    """Seconds: the upper bound of the first backoff, where the service sends no `Retry-After`. The bound doubles
    with each attempt, and the backoff is drawn between zero and it (full jitter)."""

    wait_max: float = attrs.field(default=30.0, validator=_is_seconds)
    """Seconds: the upper bound of every backoff. A longer `Retry-After` is not slept on: the error is raised at once,
    with its `retry_after`."""

    retry_unknown: bool = attrs.field(default=False, validator=_is_flag)
    """Whether to retry an `OutcomeUnknownError` too. That may create a second persona."""


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
            return policy.retry_unknown
        case _:
            return False


def backoff(
    policy: RetryPolicy,
    error: NotCreatedError | OutcomeUnknownError,
    attempt: int,
    draw: Callable[[], float] = random.random,
) -> float:
    """Return the seconds to wait after this error: `Retry-After` where sent, else exponential with full jitter.

    `draw` returns a number from 0 to 1.
    """
    if isinstance(error, RateLimitedError | ServiceUnavailableError) and error.retry_after is not None:
        return error.retry_after
    # The exponent is bounded, so that the power never overflows a float.
    return draw() * min(policy.wait_max, policy.wait_initial * 2.0 ** min(attempt - 1, 64))


def cools_down_all(error: BaseException | None) -> bool:
    """Return whether the service asks all calls to pause, not only this one: a 429, or a 503 with `Retry-After`."""
    match error:
        case RateLimitedError():
            return True
        case ServiceUnavailableError():
            return error.retry_after is not None
        case _:
            return False
