"""The log shows what happened to each attempt, at no level above INFO; OpenTelemetry traces it."""

import logging
import re
from collections.abc import Iterator

import pytest
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.calls import REQUEST, failure

from suno_persona import PersonaAPI
from suno_persona.testing import FakeSuno, Fault


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return a `caplog` that captures everything that the package logs."""
    caplog.set_level(logging.DEBUG, logger="suno_persona")
    return caplog


def lines(log: pytest.LogCaptureFixture, level: int) -> list[str]:
    """Return what the package logged at this level or above."""
    return [record.getMessage() for record in log.records if record.name == "suno_persona" and record.levelno >= level]


async def test_each_attempt_is_one_debug_line_and_each_retry_one_info_line(
    fake_suno: FakeSuno, persona_api: PersonaAPI, log: pytest.LogCaptureFixture
) -> None:
    """It has the root clip, the attempt, the status, the request id and the seconds; or the reason and the backoff."""
    fake_suno.script(Fault.unavailable(0))
    await persona_api.create(REQUEST)
    first, retry, second = lines(log, logging.DEBUG)
    assert re.fullmatch(r"54834687: attempt 1: HTTP 503, request id [0-9a-f]{32}, \d+\.\d{3} s", first)
    assert retry.startswith("attempt 2 of 4 in 0.00 s, after: HTTP 503 (unavailable): ")
    assert re.fullmatch(r"54834687: attempt 2: HTTP 200, request id [0-9a-f]{32}, \d+\.\d{3} s", second)
    assert lines(log, logging.INFO) == [retry]


async def test_an_error_that_is_raised_is_not_logged_as_an_error(
    fake_suno: FakeSuno, persona_api: PersonaAPI, log: pytest.LogCaptureFixture
) -> None:
    """Nothing is logged above DEBUG: the caller who catches the error decides what it means."""
    fake_suno.script(Fault.dropped(), Fault.response(400), Fault.response(200, b"<html>"))
    for _ in range(3):
        await failure(persona_api)
    assert lines(log, logging.DEBUG)[0].startswith("54834687: attempt 1: no response, request id None, ")
    assert lines(log, logging.INFO) == []


@pytest.fixture
def spans() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    """Yield the provider of an application that instrumented aiohttp, and where the spans are stored."""
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    AioHttpClientInstrumentor().instrument(tracer_provider=provider)
    yield provider, exporter
    AioHttpClientInstrumentor().uninstrument()


@pytest.mark.parametrize("captured", ["", ".*"], ids=["no headers", "all headers"])
async def test_the_spans_of_a_batch_are_children_of_the_span_around_it(
    captured: str,
    spans: tuple[TracerProvider, InMemorySpanExporter],
    persona_api: PersonaAPI,
    fake_suno: FakeSuno,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The key is in none by default, nor if headers are captured as the page about tracing says."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST", captured)
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS", "authorization")
    provider, exporter = spans
    with provider.get_tracer("application").start_as_current_span("batch"):
        assert [outcome.error async for outcome in persona_api.create_many([REQUEST] * 3)] == [None] * 3
    *requests, batch = exporter.get_finished_spans()
    assert [span.parent for span in requests] == [batch.context] * 3
    assert not [span for span in requests if fake_suno.api_key in span.to_json()]
