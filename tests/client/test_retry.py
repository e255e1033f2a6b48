"""Which failures are retried, how often, and after which backoff."""

from typing import Any

import pytest
from support.calls import REQUEST, failure

from suno_persona import (
    ConnectionFailedError,
    ConnectionLostError,
    Persona,
    PersonaAPI,
    RejectedError,
    RetryPolicy,
    errors,
)
from suno_persona._retry import backoff, cools_down_all, should_retry, window_after
from suno_persona.testing import FakeSuno, Fault

SAFE = [ConnectionFailedError, errors.RateLimitedError, errors.ServiceUnavailableError]
UNKNOWN = [ConnectionLostError, errors.ResponseTimeoutError, errors.ServerError, errors.UnreadableResponseError]
FINAL = [RejectedError, errors.NotFoundError]
POLICY = RetryPolicy(attempts=4, wait_initial=0.5, wait_max=3.0)
RISKY = RetryPolicy(attempts=4, wait_initial=0, retry_unknown=True)


@pytest.mark.parametrize("kind", [*SAFE, *UNKNOWN, *FINAL])
def test_only_a_failure_that_certainly_created_nothing_is_retried(kind: type[Any]) -> None:
    """There are up to `attempts` attempts in all; `retry_unknown` retries what may have created a persona, too."""
    retried = {
        policy: [attempt for attempt in (1, 2, 3, 4) if should_retry(policy, kind(message="x"), attempt)]
        for policy in (POLICY, RISKY)
    }
    assert retried[POLICY] == ([1, 2, 3] if kind in SAFE else [])
    assert retried[RISKY] == ([] if kind in FINAL else [1, 2, 3])


@pytest.mark.parametrize("kind", UNKNOWN)
def test_an_unknown_outcome_with_the_id_of_its_persona_is_never_retried(kind: type[Any]) -> None:
    """A retry would create a second persona, and its error would not have the id of the first."""
    assert not should_retry(RISKY, kind(message="x", persona_id="fd213afd"), 1)


@pytest.mark.parametrize("kind", [errors.RateLimitedError, errors.ServiceUnavailableError])
def test_retry_after_is_the_backoff(kind: type[Any]) -> None:
    """The backoff is `retry_after`, up to `wait_max`; beyond that the error is raised at once."""
    assert backoff(POLICY, kind(message="x", retry_after=2.0), 1) == 2.0
    assert should_retry(POLICY, kind(message="x", retry_after=3.0), 1)
    assert not should_retry(POLICY, kind(message="x", retry_after=3.1), 1)


def test_the_bound_of_the_backoff_doubles_up_to_wait_max() -> None:
    """Full jitter: the backoff is between zero and the bound, which starts at `wait_initial`."""
    error = ConnectionFailedError(message="x")
    assert [backoff(POLICY, error, attempt, lambda: 1.0) for attempt in (1, 2, 3, 4, 10_000)] == [0.5, 1, 2, 3, 3]
    assert backoff(POLICY, error, 3, lambda: 0.5) == 1.0
    assert backoff(POLICY, error, 3, lambda: 0.0) == 0.0


def test_which_errors_cool_down_all_calls() -> None:
    """A 429 always does, a 503 with `Retry-After` does, and nothing else."""
    assert cools_down_all(errors.RateLimitedError(message="x"))
    assert cools_down_all(errors.ServiceUnavailableError(message="x", retry_after=1.0))
    assert not cools_down_all(errors.ServiceUnavailableError(message="x"))
    assert not cools_down_all(ConnectionFailedError(message="x"))


@pytest.mark.parametrize(
    ("result", "window"),
    [
        (Persona(id="p"), 10),
        *((RejectedError(message="x", status=status), 8) for status in (200, 299, 400, 404, 409, 422)),
        *((RejectedError(message="x", status=status), 4) for status in (300, 401, 402, 403, 429)),
        (errors.InvalidRequestError(message="x"), 8),
        (ConnectionFailedError(message="x"), 4),
        *((ConnectionLostError(message="x", status=status), 4) for status in (None, 200)),
        (errors.ServerError(message="x", status=500), 4),
    ],
    ids=repr,
)
def test_a_failure_that_is_not_the_rows_own_halves_the_window_of_a_batch(result: Any, window: int) -> None:
    """A persona doubles it, up to the largest; it is never less than one."""
    assert window_after(8, 10, result) == window
    assert window_after(1, 10, result) == (2 if isinstance(result, Persona) else 1)


async def test_the_last_error_has_the_number_of_attempts(fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """After `attempts` attempts the call fails; a long `Retry-After` is raised at once."""
    fake_suno.script(*[Fault.rate_limited(0)] * 4, Fault.unavailable(3600))
    error = await failure(persona_api)
    assert (type(error), error.attempts, error.request) == (errors.RateLimitedError, 4, REQUEST)
    error = await failure(persona_api)
    assert (type(error), error.attempts, error.retry_after) == (errors.ServiceUnavailableError, 1, 3600.0)
    assert len(fake_suno.requests) == 5


async def test_retrying_an_unknown_outcome_may_create_two(fake_suno: FakeSuno) -> None:
    """`retry_unknown` accepts that two personas may exist."""
    fake_suno.script(Fault.lost_response(), Fault.server_error())
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, retry=RISKY) as api:
        await api.create(REQUEST)
    assert (len(fake_suno.requests), len(fake_suno.personas)) == (3, 2)


@pytest.mark.parametrize("last", [Fault.response(400), Fault.rate_limited(3600)])
async def test_an_unknown_outcome_outlasts_a_later_rejection(last: Fault, fake_suno: FakeSuno) -> None:
    """With `retry_unknown`, a rejected attempt does not undo what an earlier one may have created."""
    fake_suno.script(Fault.lost_response(), last)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, retry=RISKY) as api:
        error = await failure(api)
    assert (type(error), error.attempts, error.request) == (ConnectionLostError, 2, REQUEST)
    assert isinstance(error.__cause__, RejectedError)
