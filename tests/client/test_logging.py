"""The log shows what happened to each attempt, at no level above INFO."""

import logging
import re
from collections.abc import Callable

import pytest
from support.calls import REQUEST, failure

from suno_persona import PersonaAPI
from suno_persona.testing import FakeSuno, Fault


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[int], list[str]]:
    """Return what the package logs at a level or above."""
    caplog.set_level(logging.DEBUG, logger="suno_persona")
    return lambda level: [line for name, at, line in caplog.record_tuples if name == "suno_persona" and at >= level]


async def test_each_attempt_is_one_debug_line_and_each_retry_one_info_line(
    fake_suno: FakeSuno, persona_api: PersonaAPI, lines: Callable[[int], list[str]]
) -> None:
    """It has the root clip, the attempt, the status, the request id and the seconds; or the reason and the backoff."""
    fake_suno.script(Fault.unavailable(0))
    await persona_api.create(REQUEST)
    first, retry, second = lines(logging.DEBUG)
    assert re.fullmatch(r"54834687: attempt 1: HTTP 503, request id [0-9a-f]{32}, \d+\.\d{3} s", first)
    assert retry.startswith("attempt 2 of 4 in 0.00 s, after: HTTP 503 (unavailable): ")
    assert re.fullmatch(r"54834687: attempt 2: HTTP 200, request id [0-9a-f]{32}, \d+\.\d{3} s", second)
    assert lines(logging.INFO) == [retry]


async def test_an_error_that_is_raised_is_not_logged_as_an_error(
    fake_suno: FakeSuno, persona_api: PersonaAPI, lines: Callable[[int], list[str]]
) -> None:
    """Nothing is logged above DEBUG: the caller who catches the error decides what it means."""
    fake_suno.script(Fault.dropped(), Fault.response(400), Fault.response(200, b"<html>"))
    for _ in range(3):
        await failure(persona_api)
    assert lines(logging.DEBUG)[0].startswith("54834687: attempt 1: no response, request id None, ")
    assert lines(logging.INFO) == []
