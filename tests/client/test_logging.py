"""The log shows what happened to each attempt, at no level above INFO."""

import logging
import re

import pytest

from suno_persona import CreatePersonaRequest, PersonaAPI, PersonaError
from suno_persona.testing import FakeSuno, Fault


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return a `caplog` that captures everything that the package logs."""
    caplog.set_level(logging.DEBUG, logger="suno_persona")
    return caplog


def lines(log: pytest.LogCaptureFixture, level: int) -> list[str]:
    """Return what the package logged at this level."""
    return [record.getMessage() for record in log.records if record.name == "suno_persona" and record.levelno == level]


async def test_each_attempt_is_one_debug_line(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest, log: pytest.LogCaptureFixture
) -> None:
    """The line has the root clip, the number of the attempt, the status, the request id and the seconds."""
    fake_suno.script(Fault.rate_limited(0))
    await persona_api.create(request_)
    first, second = lines(log, logging.DEBUG)
    assert re.fullmatch(r"54834687: attempt 1: HTTP 429, request id [0-9a-f]{32}, \d+\.\d{3} s", first)
    assert re.fullmatch(r"54834687: attempt 2: HTTP 200, request id [0-9a-f]{32}, \d+\.\d{3} s", second)


async def test_an_attempt_without_a_response_is_logged_too(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest, log: pytest.LogCaptureFixture
) -> None:
    """The line says that there was no response."""
    fake_suno.script(Fault.dropped())
    with pytest.raises(PersonaError):
        await persona_api.create(request_)
    (line,) = lines(log, logging.DEBUG)
    assert line.startswith("54834687: attempt 1: no response, request id None, ")


async def test_each_retry_is_one_info_line(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest, log: pytest.LogCaptureFixture
) -> None:
    """The line has the reason and the backoff."""
    fake_suno.script(Fault.unavailable(0))
    await persona_api.create(request_)
    (line,) = lines(log, logging.INFO)
    assert line.startswith("attempt 2 of 4 in 0.00 s, after: HTTP 503 (unavailable): ")


async def test_an_error_that_is_raised_is_not_logged_as_an_error(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request_: CreatePersonaRequest, log: pytest.LogCaptureFixture
) -> None:
    """Nothing is logged at WARNING or above: the caller who catches the error decides what it means."""
    fake_suno.script(Fault.response(400), Fault.lost_answer(), Fault.response(200, b"<html>"))
    for _ in range(3):
        with pytest.raises(PersonaError):
            await persona_api.create(request_)
    ours = [record for record in log.records if record.name == "suno_persona"]  # asyncio may warn on a slow machine
    assert [record for record in ours if record.levelno >= logging.WARNING] == []


async def test_a_call_that_succeeds_logs_nothing_at_info(
    fake_suno: FakeSuno,
    persona_api: PersonaAPI,
    request_: CreatePersonaRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only DEBUG shows a call that succeeds."""
    caplog.set_level(logging.INFO)
    await persona_api.create(request_)
    assert [record for record in caplog.records if record.name == "suno_persona"] == []
