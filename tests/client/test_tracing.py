"""OpenTelemetry's instrumentation of aiohttp traces the client, as the page on tracing says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from suno_persona import CreatePersonaRequest, PersonaAPI
from suno_persona.testing import FakeSuno

CAPTURED = {
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST": ".*",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS": "authorization",
}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Return where the spans are stored."""
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    """Return what creates the spans."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@asynccontextmanager
async def traced(fake: FakeSuno, provider: TracerProvider) -> AsyncIterator[PersonaAPI]:
    """Yield a client of an application that instrumented aiohttp when it started."""
    AioHttpClientInstrumentor().instrument(tracer_provider=provider)
    try:
        async with PersonaAPI(fake.api_key, base_url=fake.base_url) as api:
            yield api
    finally:
        AioHttpClientInstrumentor().uninstrument()


async def test_the_spans_of_a_batch_are_children_of_the_span_around_it(
    fake_suno: FakeSuno, request_: CreatePersonaRequest, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    """A trace shows to which batch a request belongs."""
    async with traced(fake_suno, provider) as api:
        with provider.get_tracer("application").start_as_current_span("batch"):
            assert [outcome.error async for outcome in api.create_many([request_] * 3)] == [None] * 3
    *requests, batch = exporter.get_finished_spans()
    assert [span.parent for span in requests] == [batch.context] * 3


@pytest.mark.parametrize("variables", [{}, CAPTURED], ids=["no headers", "all headers"])
async def test_the_key_is_in_no_span(
    variables: dict[str, str],
    fake_suno: FakeSuno,
    request_: CreatePersonaRequest,
    provider: TracerProvider,
    exporter: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is in none by default, nor if headers are captured as the page says."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with traced(fake_suno, provider) as api:
        await api.create(request_)
    (span,) = exporter.get_finished_spans()
    assert fake_suno.api_key not in span.to_json()
