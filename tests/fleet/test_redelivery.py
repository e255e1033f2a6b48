"""Whatever stops a worker or its job, the request is sent once, and has an outcome or a job."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from support.calls import requests
from support.databases import Databases
from support.held_service import HeldService, client
from support.idle import idle, turns
from support.journals import claim, entries, states
from support.workers import client_of, execute, jobs, results, work

from suno_persona import OutcomeUnknownError, PersonaAPI
from suno_persona.distributed import PersonaApp, enqueue, make_app
from suno_persona.testing import FakeSuno, Fault

pytestmark = pytest.mark.slow

DUE_NOW = "UPDATE procrastinate_jobs SET scheduled_at = NULL"
REDELIVERED = "UPDATE procrastinate_jobs SET status = 'todo', attempts = 1, scheduled_at = NULL, worker_id = NULL"
"""All jobs are at their second delivery."""


def start(app: PersonaApp) -> "asyncio.Task[None]":
    """Start a worker without a grace time."""
    return asyncio.create_task(app.run_worker_async(shutdown_graceful_timeout=0, install_signal_handlers=False))


async def stop(worker: "asyncio.Task[None]") -> None:
    """Stop a worker."""
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker


@pytest.mark.parametrize(
    ("fault", "least", "most"),
    [
        (Fault.rate_limited(retry_after=120), 110, 121),
        (Fault.rate_limited(retry_after=30 * 24 * 3600), 290, 301),
        (Fault.response(503), 0, 2),
    ],
    ids=["with a time", "with a time beyond five minutes", "without"],
)
async def test_a_temporary_rejection_is_requeued(
    app: PersonaApp, fake_suno: FakeSuno, fault: Fault, least: float, most: float
) -> None:
    """The queue redelivers the job after the `Retry-After`, or else after a growing backoff; five minutes at most."""
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
    await execute(app, DUE_NOW)
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
        await execute(app, "UPDATE procrastinate_jobs SET attempts = 1000, scheduled_at = NULL")
        await work(app)
        assert all(outcome.persona for outcome in (await results(app)).values())
    assert len(fake_suno.requests) == 6


async def test_a_job_that_is_delivered_twice_creates_one_persona(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """The redelivery sends nothing, whatever the first outcome was, and neither does enqueueing what is unknown."""
    fake_suno.script(Fault.lost_response(), Fault.response(404))
    await enqueue(app, requests(5))
    await execute(app, "CREATE TABLE jobs AS SELECT * FROM procrastinate_jobs")
    await work(app)
    before = await results(app)
    assert sum(isinstance(outcome.error, OutcomeUnknownError) for outcome in before.values()) == 1
    await execute(app, "INSERT INTO procrastinate_jobs SELECT * FROM jobs")
    await work(app)
    after = await results(app)
    assert {index: outcome.persona for index, outcome in after.items()} == {
        index: outcome.persona for index, outcome in before.items()
    }
    assert await enqueue(app, requests(5), retry_not_created=True) == 1
    assert len(fake_suno.requests) == 5


async def test_a_request_that_is_requeued_before_its_job_ends_gets_another_job(
    app: PersonaApp, fake_suno: FakeSuno
) -> None:
    """A job that has recorded its outcome does not count: it would end, and leave the request without one."""
    fake_suno.script(Fault.response(404))
    await enqueue(app, requests(1))
    await execute(app, "CREATE TABLE jobs AS SELECT * FROM procrastinate_jobs")
    await work(app)
    await execute(app, "INSERT INTO procrastinate_jobs SELECT * FROM jobs")
    await execute(app, "UPDATE procrastinate_jobs SET status = 'doing'")
    assert await enqueue(app, requests(1)) == 0
    assert await enqueue(app, requests(1), retry_not_created=True) == 1
    await work(app)
    assert await states(app.journal_url) == ["created"]


async def test_a_claim_of_a_batch_postpones_its_job(
    app: PersonaApp, fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """`create_many` may be running on the same journal; if it was killed, the redelivery reports the claim."""
    await claim(app.journal_url, requests(1)[0], persona_api)
    assert await enqueue(app, requests(2)) == 2
    await work(app)
    (job,) = await jobs(app)
    assert job.scheduled_at is not None
    assert 0 < (job.scheduled_at - datetime.now(UTC)).total_seconds() <= timedelta(minutes=10).total_seconds()
    assert await states(app.journal_url) == ["claimed", "created"]
    await execute(app, REDELIVERED)
    await work(app)
    (entry,) = [entry for entry in await entries(app.journal_url) if entry.state == "unknown"]
    assert f"{entry.claimed_by} was stopped" in str((await results(app))[0].error)
    assert len(fake_suno.requests) == 1


async def test_a_worker_that_stalls_while_it_looks_for_stalled_workers_blocks_nobody(
    app: PersonaApp, fake_suno: FakeSuno
) -> None:
    """Its own job is one of those that are redelivered."""
    await enqueue(app, requests(1))
    retry_stalled = app.tasks["suno_persona.retry_stalled"]
    await retry_stalled.defer_async(timestamp=0)
    await execute(app, "UPDATE procrastinate_jobs SET status = 'doing'")
    await retry_stalled.defer_async(timestamp=1)
    await work(app)
    await work(app)  # the first one may have ended before the jobs were requeued
    assert (await results(app))[0].persona is not None


@pytest.mark.parametrize("state", ["created", "not_created"])
async def test_a_worker_that_only_seemed_stalled_records_its_outcome(
    queue_url: str, service: HeldService, state: str
) -> None:
    """Another worker got its job and sent nothing; no request is left without an outcome or a job."""
    slow, other = (make_app(queue_url, make_client=lambda: client(service)) for _ in range(2))
    async with slow.open_async(), other.open_async():
        await enqueue(slow, requests(1))
        at_work = asyncio.create_task(work(slow))
        await service.receives(1)
        await execute(other, REDELIVERED)
        await work(other)
        assert await states(queue_url) == ["unknown"]
        if state == "created":
            service.respond(0)
        else:
            service.reject(0, retry_after=120)
        await at_work
        assert await states(queue_url) == [state]
        await service.receives(1)


@pytest.mark.parametrize("after", ["its start", "a 429"])
@pytest.mark.parametrize("point", range(0, 120, 15))
async def test_stopping_a_worker_leaves_no_request_without_outcome_or_job(
    queue_url: str, service: HeldService, after: str, point: int
) -> None:
    """The worker may be stopped at any moment."""
    app = make_app(queue_url, make_client=lambda: client(service))
    async with app.open_async():
        await enqueue(app, requests(1))
        worker = start(app)
        if after == "a 429":
            await service.receives(1)
            service.reject(0, retry_after=120)
        await turns(point)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        assert await states(queue_url) in (["queued"], ["unknown"])
        assert [job.status for job in await jobs(app)] == ["todo"]


@pytest.mark.parametrize("sent", [True, False], ids=["sent", "not sent"])
async def test_a_worker_that_is_cut_off_loses_nothing(queue_url: str, service: HeldService, sent: bool) -> None:
    """A request in flight becomes unknown; one that was not sent is requeued."""
    app = make_app(queue_url, make_client=lambda: client(service, max_connections=1), concurrency=2)
    async with app.open_async():
        await enqueue(app, requests(2))
        worker = start(app)
        await service.receives(1)
        if not sent:
            service.reject(0, retry_after=20)
            await idle()
        await stop(worker)
        assert await states(queue_url) == (["queued", "unknown"] if sent else ["queued"] * 2)
        assert len(await jobs(app)) == (1 if sent else 2)
        service.respond_to_all()
        await work(app)
        assert await states(queue_url) == (["created", "unknown"] if sent else ["created"] * 2)
        assert await jobs(app) == []
    await service.receives(2 if sent else 3)


async def test_a_job_that_is_aborted_by_hand_is_not_redelivered(queue_url: str, service: HeldService) -> None:
    """Its request is recorded as not created or unknown."""
    app = make_app(queue_url, make_client=lambda: client(service))
    async with app.open_async():
        await enqueue(app, requests(1))
        worker = start(app)
        await service.receives(1)
        (job,) = await jobs(app)
        assert job.id is not None
        await app.job_manager.cancel_job_by_id_async(job.id, abort=True)
        while [job.status for job in await jobs(app)] != ["aborted"]:
            await asyncio.sleep(0)
        assert await states(queue_url) == ["unknown"]
        await stop(worker)


async def test_an_outcome_that_cannot_be_recorded_is_logged(
    queue_url: str,
    databases: Databases,
    service: HeldService,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log has its key if the database is away for too long; later its request is unknown."""
    monkeypatch.setattr("suno_persona.distributed._job.RECORD_WAITS", (0,))
    app = make_app(queue_url, make_client=lambda: client(service))
    async with app.open_async():
        await enqueue(app, requests(1))
        (entry,) = await entries(queue_url)
        worker = asyncio.create_task(app.run_worker_async(install_signal_handlers=False))
        await service.receives(1)
        with databases.away(queue_url):
            service.respond(0)
            while not any(f"the outcome of {entry.key} is not recorded" in line for line in caplog.messages):
                await asyncio.sleep(0.01)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        assert await states(queue_url) == ["claimed"]
        await execute(app, REDELIVERED)
        await work(app)
        assert await states(queue_url) == ["unknown"]
        await service.receives(1)


async def test_a_worker_whose_query_is_cut_off_continues(
    queue_url: str, service: HeldService, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs that it restarts, and runs the job that was enqueued."""
    app = make_app(queue_url, make_client=lambda: client(service))
    async with app.open_async():
        await enqueue(app, requests(1))
        with psycopg.connect(queue_url) as other:
            other.execute("LOCK TABLE procrastinate_workers")
            worker = start(app)
            while not other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks"
                " WHERE relation = 'procrastinate_workers'::regclass AND NOT granted"
            ).fetchone():
                await asyncio.sleep(0)
        await service.until(1)
        assert "the worker lost its database, and restarts" in caplog.messages
        service.respond(0)
        while await states(queue_url) != ["created"]:
            await asyncio.sleep(0)
        await stop(worker)
        await service.receives(1)
