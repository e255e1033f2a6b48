"""Which failures are retried, how often, and after which backoff."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suno_persona import (
    ConfigurationError,
    ConnectionFailedError,
    ConnectionLostError,
    CreatePersonaRequest,
    NotFoundError,
    PersonaAPI,
    RateLimitedError,
    RejectedError,
    ResponseTimeoutError,
    RetryPolicy,
    ServerError,
    ServiceUnavailableError,
    UnreadableResponseError,
)
from suno_persona._retry import backoff, cools_down_all, should_retry
from suno_persona.testing import FakeSuno, Fault

SAFE = [ConnectionFailedError, RateLimitedError, ServiceUnavailableError]
UNKNOWN = [ConnectionLostError, ResponseTimeoutError, ServerError, UnreadableResponseError]
FINAL = [RejectedError, NotFoundError]

POLICY = RetryPolicy(attempts=4, wait_initial=0.5, wait_max=3.0)


@pytest.mark.parametrize("kind", SAFE)
def test_a_failure_that_certainly_created_nothing_is_retried(kind: type[Any]) -> None:
    """There are up to `attempts` attempts in all."""
    assert [should_retry(POLICY, kind(message="x"), attempt) for attempt in (1, 2, 3, 4)] == [True, True, True, False]


@pytest.mark.parametrize("kind", [*UNKNOWN, *FINAL])
def test_no_other_failure_is_retried(kind: type[Any]) -> None:
    """Rejections are final, and unknown outcomes may have created a persona."""
    assert not should_retry(POLICY, kind(message="x"), 1)


@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_outcomes_are_retried_with_retry_unknown_only(kind: type[Any]) -> None:
    """`retry_unknown` is for callers who would rather have two personas than none."""
    policy = RetryPolicy(retry_unknown=True)
    assert should_retry(policy, kind(message="x"), 1)
    assert not should_retry(policy, kind(message="x"), 4)
    assert not should_retry(policy, RejectedError(message="x"), 1)


@pytest.mark.parametrize("kind", [RateLimitedError, ServiceUnavailableError])
def test_retry_after_is_the_backoff(kind: type[Any]) -> None:
    """The backoff is `retry_after`, up to `wait_max`; beyond that the error is raised at once."""
    assert backoff(POLICY, kind(message="x", retry_after=2.0), 1) == 2.0
    assert should_retry(POLICY, kind(message="x", retry_after=3.0), 1)
    assert not should_retry(POLICY, kind(message="x", retry_after=3.1), 1)


def test_the_bound_of_the_backoff_doubles_up_to_wait_max() -> None:
    """Full jitter: the backoff is between zero and the bound, which starts at `wait_initial`."""
    error = ConnectionFailedError(message="x")
    assert [backoff(POLICY, error, attempt, lambda: 1.0) for attempt in (1, 2, 3, 4, 5)] == [0.5, 1, 2, 3, 3]
    assert backoff(POLICY, error, 3, lambda: 0.5) == 1.0
    assert backoff(POLICY, error, 3, lambda: 0.0) == 0.0


@settings(deadline=None)  # the machine may be busy
@given(attempt=st.integers(1, 10_000), error=st.sampled_from(SAFE))
def test_no_backoff_exceeds_wait_max(attempt: int, error: type[Any]) -> None:
    """The number of attempts does not matter."""
    assert 0 <= backoff(POLICY, error(message="x"), attempt) <= 3.0


def test_which_errors_cool_down_all_calls() -> None:
    """A 429 always does, a 503 with `Retry-After` does, and nothing else."""
    assert cools_down_all(RateLimitedError(message="x"))
    assert cools_down_all(ServiceUnavailableError(message="x", retry_after=1.0))
    assert not cools_down_all(ServiceUnavailableError(message="x"))
    assert not cools_down_all(ConnectionFailedError(message="x"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attempts": 0}, "attempts must be an integer >= 1; got 0"),
        ({"attempts": 2.5}, "attempts must be an integer >= 1; got 2.5"),
        ({"wait_initial": -1}, "wait_initial must be non-negative seconds; got -1"),
        ({"wait_initial": "1"}, "wait_initial must be non-negative seconds; got '1'"),
        ({"wait_max": float("inf")}, "wait_max must be non-negative seconds; got inf"),
        ({"wait_max": float("nan")}, "wait_max must be non-negative seconds; got nan"),
        ({"wait_max": True}, "wait_max must be non-negative seconds; got True"),
        ({"retry_unknown": "yes"}, "retry_unknown must be True or False; got 'yes'"),
    ],
)
def test_a_policy_that_cannot_work_is_a_configuration_error(arguments: dict[str, Any], message: str) -> None:
    """The error names the field, what it must be, and what it got."""
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(**arguments)
    assert str(caught.value) == message


async def test_a_temporary_rejection_is_retried_until_the_call_succeeds(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """Three attempts are rate limited or unavailable; the fourth creates the only persona."""
    fake_suno.script(
        Fault.rate_limited(0), Fault.unavailable("Thu, 01 Jan 1970 00:00:00 GMT"), Fault.rate_limited("0.0")
    )
    assert (await persona_api.create(request_)).name == "Neon"
    assert len(fake_suno.requests) == 4
    assert len(fake_suno.personas) == 1
    assert len({request.body for request in fake_suno.requests}) == 1


async def test_the_last_error_is_raised_with_the_number_of_attempts(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """After `attempts` attempts the call fails."""
    fake_suno.script(*[Fault.rate_limited(0)] * 9)
    with pytest.raises(RateLimitedError) as caught:
        await persona_api.create(request_)
    assert caught.value.attempts == len(fake_suno.requests) == 4
    assert caught.value.request is request_


async def test_a_long_retry_after_is_raised_at_once(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """The error has the seconds that the service asks for."""
    fake_suno.script(Fault.unavailable(3600))
    with pytest.raises(ServiceUnavailableError) as caught:
        await persona_api.create(request_)
    assert (caught.value.retry_after, caught.value.attempts) == (3600.0, 1)


async def test_retrying_an_unknown_outcome_may_create_two(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """`retry_unknown` accepts that two personas may exist."""
    fake_suno.script(Fault.lost_answer(), Fault.server_error())
    policy = RetryPolicy(wait_initial=0, retry_unknown=True)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, retry=policy) as api:
        await api.create(request_)
    assert len(fake_suno.requests) == 3
    assert len(fake_suno.personas) == 2


@pytest.mark.parametrize("last", [Fault.response(400), Fault.rate_limited(3600)])
async def test_an_unknown_outcome_outlasts_a_later_rejection(
    last: Fault, fake_suno: FakeSuno, request_: CreatePersonaRequest
) -> None:
    """With `retry_unknown`, a rejected attempt does not undo what an earlier one may have created."""
    fake_suno.script(Fault.lost_answer(), last)
    policy = RetryPolicy(wait_initial=0, retry_unknown=True)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, retry=policy) as api:
        with pytest.raises(ConnectionLostError) as caught:
            await api.create(request_)
    assert caught.value.may_have_created
    assert (caught.value.attempts, caught.value.request) == (2, request_)
    assert isinstance(caught.value.__cause__, RejectedError)


async def test_a_followed_redirect_is_not_an_attempt(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """`attempts` does not count the request that is redirected."""
    fake_suno.script(Fault.redirect("/suno/persona/create"), Fault.rate_limited(0), Fault.response(200, b'{"id": "x"}'))
    policy = RetryPolicy(attempts=2)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, retry=policy) as api:
        assert (await api.create(request_)).id == "x"


async def test_a_failed_connection_is_retried(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """Every attempt counts, and nothing was sent."""
    async with FakeSuno() as gone:
        base_url = gone.base_url
    policy = RetryPolicy(attempts=3, wait_initial=0)
    async with PersonaAPI("sk-0123456789", base_url=base_url, retry=policy) as api:
        with pytest.raises(ConnectionFailedError) as caught:
            await api.create(request_)
    assert caught.value.attempts == 3
