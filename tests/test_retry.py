"""What is repeated, how often, and after how long."""

from typing import Any

import pytest
from hypothesis import given
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
from suno_persona._retry import cools_all, is_repeated, wait_after
from suno_persona.testing import FakeSuno, Fault

SAFE = [ConnectionFailedError, RateLimitedError, ServiceUnavailableError]
UNKNOWN = [ConnectionLostError, ResponseTimeoutError, ServerError, UnreadableResponseError]
FINAL = [RejectedError, NotFoundError]

POLICY = RetryPolicy(attempts=4, wait_initial=0.5, wait_max=3.0)


@pytest.mark.parametrize("kind", SAFE)
def test_only_what_certainly_created_nothing_is_repeated(kind: type[Any]) -> None:
    """Up to `attempts` times in all."""
    assert [is_repeated(POLICY, kind(message="x"), attempt) for attempt in (1, 2, 3, 4)] == [True, True, True, False]


@pytest.mark.parametrize("kind", [*UNKNOWN, *FINAL])
def test_nothing_else_is_repeated(kind: type[Any]) -> None:
    """Neither a refusal that would come again nor an outcome that nobody knows."""
    assert not is_repeated(POLICY, kind(message="x"), 1)


@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_outcomes_are_repeated_on_request_only(kind: type[Any]) -> None:
    """`retry_unknown` is the choice of who would rather have two personas than none."""
    policy = RetryPolicy(retry_unknown=True)
    assert is_repeated(policy, kind(message="x"), 1)
    assert not is_repeated(policy, kind(message="x"), 4)
    assert not is_repeated(policy, RejectedError(message="x"), 1)


@pytest.mark.parametrize("kind", [RateLimitedError, ServiceUnavailableError])
def test_what_the_service_asks_for_is_waited(kind: type[Any]) -> None:
    """`Retry-After` up to `wait_max`; beyond it the error is raised at once."""
    assert wait_after(POLICY, kind(message="x", retry_after=2.0), 1) == 2.0
    assert is_repeated(POLICY, kind(message="x", retry_after=3.0), 1)
    assert not is_repeated(POLICY, kind(message="x", retry_after=3.1), 1)


def test_the_bound_of_the_wait_doubles_up_to_the_longest() -> None:
    """Full jitter: from nothing to the bound, which starts at `wait_initial`."""
    error = ConnectionFailedError(message="x")
    assert [wait_after(POLICY, error, attempt, lambda: 1.0) for attempt in (1, 2, 3, 4, 5)] == [0.5, 1, 2, 3, 3]
    assert wait_after(POLICY, error, 3, lambda: 0.5) == 1.0
    assert wait_after(POLICY, error, 3, lambda: 0.0) == 0.0


@given(attempt=st.integers(1, 10_000), error=st.sampled_from(SAFE))
def test_no_wait_is_longer_than_the_longest(attempt: int, error: type[Any]) -> None:
    """However many attempts there are."""
    assert 0 <= wait_after(POLICY, error(message="x"), attempt) <= 3.0


def test_who_asks_all_to_wait() -> None:
    """429 always, 503 where it says how long, nothing else."""
    assert cools_all(RateLimitedError(message="x"))
    assert cools_all(ServiceUnavailableError(message="x", retry_after=1.0))
    assert not cools_all(ServiceUnavailableError(message="x"))
    assert not cools_all(ConnectionFailedError(message="x"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attempts": 0}, "attempts: expected a whole number from 1 on, found 0"),
        ({"attempts": 2.5}, "attempts: expected a whole number from 1 on, found 2.5"),
        ({"wait_initial": -1}, "wait_initial: expected seconds from 0 on, found -1"),
        ({"wait_initial": "1"}, "wait_initial: expected seconds from 0 on, found '1'"),
        ({"wait_max": float("inf")}, "wait_max: expected seconds from 0 on, found inf"),
        ({"wait_max": float("nan")}, "wait_max: expected seconds from 0 on, found nan"),
        ({"wait_max": True}, "wait_max: expected seconds from 0 on, found True"),
        ({"retry_unknown": "yes"}, "retry_unknown: expected True or False, found 'yes'"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(arguments: dict[str, Any], message: str) -> None:
    """The error names the field."""
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(**arguments)
    assert str(caught.value) == message


async def test_a_refusal_is_repeated_until_it_is_granted(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """Three refusals of both kinds, then a persona: one only."""
    fake_suno.script(
        Fault.rate_limited(0), Fault.unavailable("Thu, 01 Jan 1970 00:00:00 GMT"), Fault.rate_limited("0.0")
    )
    assert (await persona_api.create(request_)).name == "Neon"
    assert len(fake_suno.requests) == 4
    assert len(fake_suno.personas) == 1
    assert len({request.body for request in fake_suno.requests}) == 1


async def test_the_last_refusal_is_raised_with_the_number_of_attempts(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """After `attempts` it is enough."""
    fake_suno.script(*[Fault.rate_limited(0)] * 9)
    with pytest.raises(RateLimitedError) as caught:
        await persona_api.create(request_)
    assert caught.value.attempts == len(fake_suno.requests) == 4
    assert caught.value.request is request_


async def test_a_long_wait_is_raised_at_once(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest
) -> None:
    """The error says how long the service wants to be left alone."""
    fake_suno.script(Fault.unavailable(3600))
    with pytest.raises(ServiceUnavailableError) as caught:
        await persona_api.create(request_)
    assert (caught.value.retry_after, caught.value.attempts) == (3600.0, 1)


async def test_repeating_unknown_outcomes_can_create_twice(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """That is what `retry_unknown` means."""
    fake_suno.script(Fault.lost_answer(), Fault.server_error())
    policy = RetryPolicy(wait_initial=0, retry_unknown=True)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, retry=policy) as api:
        await api.create(request_)
    assert len(fake_suno.requests) == 3
    assert len(fake_suno.personas) == 2


@pytest.mark.parametrize("last", [Fault.answer(400), Fault.rate_limited(3600)])
async def test_after_an_unknown_outcome_nothing_is_certain_any_more(
    last: Fault, fake_suno: FakeSuno, request_: CreatePersonaRequest
) -> None:
    """With `retry_unknown`, a refusal of a later attempt does not undo what an earlier one may have created."""
    fake_suno.script(Fault.lost_answer(), last)
    policy = RetryPolicy(wait_initial=0, retry_unknown=True)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, retry=policy) as api:
        with pytest.raises(ConnectionLostError) as caught:
            await api.create(request_)
    assert caught.value.may_have_created
    assert (caught.value.attempts, caught.value.request) == (2, request_)
    assert isinstance(caught.value.__cause__, RejectedError)


async def test_a_redirect_is_no_attempt_of_its_own(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """Who allows two attempts has them at the address that serves."""
    fake_suno.script(Fault.redirect("/suno/persona/create"), Fault.rate_limited(0), Fault.answer(200, b'{"id": "x"}'))
    policy = RetryPolicy(attempts=2)
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, retry=policy) as api:
        assert (await api.create(request_)).id == "x"


async def test_a_connection_that_fails_is_tried_again(fake_suno: FakeSuno, request_: CreatePersonaRequest) -> None:
    """Every attempt counts, and nothing was sent."""
    async with FakeSuno() as gone:
        base_url = gone.base_url
    policy = RetryPolicy(attempts=3, wait_initial=0)
    async with PersonaAPI("sk-0123456789", base_url=base_url, retry=policy) as api:
        with pytest.raises(ConnectionFailedError) as caught:
            await api.create(request_)
    assert caught.value.attempts == 3
