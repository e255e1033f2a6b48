"""Which failures are repeated, and after how long. Pure: it waits for nothing itself."""

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


def _is_wait(_: object, attribute: "attrs.Attribute[float]", value: object) -> None:
    options.seconds(attribute.name, value)


def _is_flag(_: object, attribute: "attrs.Attribute[bool]", value: object) -> None:
    options.flag(attribute.name, value)


@attrs.frozen
class RetryPolicy:
    """How often and how patiently a call is repeated after a failure that certainly created nothing.

    Those are `ConnectionFailedError`, `RateLimitedError` (429) and `ServiceUnavailableError` (503). Raises
    `ConfigurationError` for a value that cannot be used.

    >>> RetryPolicy(attempts=10).wait_max
    30.0
    """

    attempts: int = attrs.field(default=4, validator=_is_count)
    """How often a call is tried at most; 1 never repeats."""

    wait_initial: float = attrs.field(default=0.5, validator=_is_wait)
    """Seconds: the most that is waited before the second attempt, where the service names no time. The bound
    doubles with each attempt, and the wait is drawn from zero to it ("full jitter")."""

    wait_max: float = attrs.field(default=30.0, validator=_is_wait)
    """Seconds: the longest wait of all. A `Retry-After` beyond it is raised at once, with its `retry_after`."""

    retry_unknown: bool = attrs.field(default=False, validator=_is_flag)
    """Whether an `OutcomeUnknownError` is repeated too. That may create a persona twice."""


def is_repeated(policy: RetryPolicy, error: NotCreatedError | OutcomeUnknownError, attempt: int) -> bool:
    """Whether there is another attempt after this error in the attempt of this number, the first being 1."""
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


def wait_after(
    policy: RetryPolicy,
    error: NotCreatedError | OutcomeUnknownError,
    attempt: int,
    draw: Callable[[], float] = random.random,
) -> float:
    """Seconds to wait after this error: what the service asks for, else full jitter; `draw` gives 0 to 1."""
    if isinstance(error, RateLimitedError | ServiceUnavailableError) and error.retry_after is not None:
        return error.retry_after
    # The exponent is bounded, so that the power never outgrows a float.
    return draw() * min(policy.wait_max, policy.wait_initial * 2.0 ** min(attempt - 1, 64))


def cools_all(error: NotCreatedError | OutcomeUnknownError) -> bool:
    """Whether the service asks not only this call to wait: after 429, and after 503 with `Retry-After`."""
    match error:
        case RateLimitedError():
            return True
        case ServiceUnavailableError():
            return error.retry_after is not None
        case _:
            return False
