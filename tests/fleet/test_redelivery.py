"""A request whose job is redelivered is sent once, and nothing is lost."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from support.calls import requests
from support.held_service import HeldService, client
from support.journals import claim, entries, states
from support.workers import as_redelivery, client_of, due_now, jobs, redeliver, results, work

from suno_persona import (
    OutcomeUnknownError,
    PersonaAPI,
)
from suno_persona.distributed import PersonaApp, enqueue, make_app
from suno_persona.testing import FakeSuno, Fault

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("fault", "least", "most"),
    [(Fault.rate_limited(retry_after=120), 110, 121), (Fault.response(503), 0, 2)],
    ids=["with a time", "without"],
)
async def test_a_temporary_rejection_is_requeued(
    app: PersonaApp, fake_suno: FakeSuno, fault: Fault, least: float, most: float
) -> None:
    """The queue redelivers the job after the service's `Retry-After`, or else after a growing backoff."""
    fake_suno.script(fault)
    await enqueue(app, requests(1))
    before = datetime.now(UTC)
    await work(app)
    (job,) = await jobs(app)
    (entry,) = await entries(app.journal_url)
    assert job.scheduled_at is not None
    assert least <= (job.scheduled_at - before).total_seconds() <= most + (datetime.now(UTC) - before).total_seconds()
    assert entry.state == "queued"
    assert "HTTP" in str(entry.outcome(0).error)
    await due_now(app)
    await work(app)
    assert (await results(app))[0].persona is not None
    assert len(fake_suno.requests) == 2


async def test_a_cool_down_loses_no_request(queue_url: str, fake_suno: FakeSuno) -> None:
    """However often a cool-down requeues unsent jobs, their requests are sent in the end."""
    app = make_app(queue_url, make_client=lambda: client_of(fake_suno, max_connections=1))
    fake_suno.script(Fault.rate_limited(retry_after=120))
    async with app.open_async():
        await enqueue(app, requests(5))
        await work(app)
        assert await states(app.journal_url) == ["queued"] * 5
        await app.connector.execute_query_async("UPDATE procrastinate_jobs SET attempts = 1000")
        await due_now(app)
        await work(app)
        assert all(outcome.persona for outcome in (await results(app)).values())
    assert len(fake_suno.requests) == 6


async def test_an_unknown_outcome_is_recorded_and_not_sent_again(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """The job ends, and a person has to check whether the persona exists."""
    fake_suno.script(Fault.lost_response())
    await enqueue(app, requests(1))
    await work(app)
    assert isinstance((await results(app))[0].error, OutcomeUnknownError)
    assert await jobs(app) == []
    assert await enqueue(app, requests(1), retry_not_created=True) == 0
    assert len(fake_suno.requests) == 1


async def test_a_request_that_is_requeued_before_its_job_ends_gets_another_job(
    app: PersonaApp, fake_suno: FakeSuno
) -> None:
    """A job that has recorded its outcome does not count: it would end, and leave the request without one."""
    fake_suno.script(Fault.response(404))
    await enqueue(app, requests(1))
    await work(app)
    await redeliver(app)
    await app.connector.execute_query_async("UPDATE procrastinate_jobs SET status = 'doing'")
    assert await enqueue(app, requests(1)) == 0
    assert await enqueue(app, requests(1), retry_not_created=True) == 1
    await work(app)
    assert await states(app.journal_url) == ["created"]


async def test_a_retry_after_of_a_month_postpones_a_job_by_minutes(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """The job is redelivered after five minutes at most."""
    fake_suno.script(Fault.rate_limited(retry_after=30 * 24 * 3600))
    await enqueue(app, requests(1))
    await work(app)
    (job,) = await jobs(app)
    assert job.scheduled_at is not None
    assert job.scheduled_at < datetime.now(UTC) + timedelta(seconds=301)


async def test_a_job_that_is_delivered_twice_creates_one_persona(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """The redelivery sends nothing, whatever the first outcome was."""
    fake_suno.script(Fault.lost_response(), Fault.response(404))
    await enqueue(app, requests(5))
    await work(app)
    before = await results(app)
    await redeliver(app)
    await work(app)
    assert len(fake_suno.requests) == 5
    assert {index: outcome.persona for index, outcome in (await results(app)).items()} == {
        index: outcome.persona for index, outcome in before.items()
    }


async def test_a_request_of_a_stalled_worker_is_unknown(
    app: PersonaApp, fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """Its claim has no outcome, so the redelivered job sends nothing, and the outcome is unknown."""
    (request,) = requests(1)
    await enqueue(app, [request])
    await claim(app.journal_url, request, persona_api)
    await as_redelivery(app)
    await work(app)
    (entry,) = await entries(app.journal_url)
    assert entry.state == "unknown"
    assert f"{entry.claimed_by} was stopped" in str((await results(app))[0].error)
    assert fake_suno.requests == []


async def test_a_worker_that_stalls_while_it_looks_for_stalled_workers_blocks_nobody(
    app: PersonaApp, fake_suno: FakeSuno
) -> None:
    """Its own job is one of those that are redelivered."""
    await enqueue(app, requests(1))
    retry_stalled = app.tasks["suno_persona.retry_stalled"]
    await retry_stalled.defer_async(timestamp=0)
    await app.connector.execute_query_async("UPDATE procrastinate_jobs SET status = 'doing'")
    await retry_stalled.defer_async(timestamp=1)
    await work(app)
    await work(app)  # the first one may have ended before the jobs were requeued
    assert (await results(app))[0].persona is not None


@pytest.mark.parametrize("result", ["granted", "rejected"])
async def test_a_worker_that_only_seemed_stalled_records_its_outcome(
    queue_url: str, service: HeldService, result: str
) -> None:
    """Another worker got its job and sent nothing; no request is left without an outcome or a job."""
    slow, other = (make_app(queue_url, make_client=lambda: client(service)) for _ in range(2))
    async with slow.open_async(), other.open_async():
        await enqueue(slow, requests(1))
        at_work = asyncio.create_task(work(slow))
        await service.receives(1)
        await other.connector.execute_query_async(
            "UPDATE procrastinate_jobs SET status = 'todo', attempts = 1, worker_id = NULL"
        )
        await work(other)
        assert await states(queue_url) == ["unknown"]
        if result == "granted":
            service.respond(0)
        else:
            service.reject(0, retry_after=120)
        await at_work
        assert await states(queue_url) == ["created" if result == "granted" else "not_created"]
        await service.receives(1)


async def test_a_job_waits_for_a_batch_that_may_be_running(
    app: PersonaApp, fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """`create_many` claimed the request on the same journal a moment ago, so the job is postponed."""
    await claim(app.journal_url, requests(1)[0], persona_api)
    await enqueue(app, requests(1))
    await work(app)
    (job,) = await jobs(app)
    assert job.scheduled_at is not None
    assert 0 < (job.scheduled_at - datetime.now(UTC)).total_seconds() <= 600
    assert await states(app.journal_url) == ["claimed"]
    assert fake_suno.requests == []


async def test_an_abandoned_claim_of_a_batch_is_reported(
    app: PersonaApp, fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """After `create_many` was killed on the same journal, enqueueing its batch reports every request."""
    await claim(app.journal_url, requests(1)[0], persona_api)
    assert await enqueue(app, requests(2)) == 2
    await as_redelivery(app)
    await work(app)
    found = await results(app)
    assert isinstance(found[0].error, OutcomeUnknownError)
    assert found[1].persona is not None
    assert len(fake_suno.requests) == 1
