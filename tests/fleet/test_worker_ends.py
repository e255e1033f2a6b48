"""Workers that are stopped, cut off or without their database lose nothing and send nothing twice."""

import asyncio

import psycopg
import pytest
from support.calls import requests
from support.databases import Databases
from support.held_service import HeldService, client
from support.idle import idle, turns
from support.journals import entries, states
from support.workers import jobs, work

from suno_persona.distributed import PersonaApp, enqueue, make_app

pytestmark = pytest.mark.slow


def start(app: PersonaApp) -> "asyncio.Task[None]":
    """Start a worker without a grace time."""
    return asyncio.create_task(app.run_worker_async(shutdown_graceful_timeout=0, install_signal_handlers=False))


async def assert_stopping_loses_nothing(worker: "asyncio.Task[None]", app: PersonaApp) -> None:
    """Stop the worker; assert that its one request is queued or unknown, and has a job."""
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    assert await states(app.journal_url) in (["queued"], ["unknown"])
    assert [job.status for job in await jobs(app)] == ["todo"]


@pytest.mark.parametrize("point", range(0, 150, 10))
async def test_cutting_a_worker_off_leaves_no_request_without_outcome_or_job(
    queue_url: str, service: HeldService, point: int
) -> None:
    """The worker may be cut off at any moment after a 429."""
    app = make_app(queue_url, make_client=lambda: client(service))
    async with app.open_async():
        await enqueue(app, requests(1))
        worker = start(app)
        await service.receives(1)
        service.reject(0, retry_after=120)
        await turns(point)
        await assert_stopping_loses_nothing(worker, app)


@pytest.mark.parametrize("point", range(0, 100, 10))
async def test_stopping_a_worker_at_once_leaves_no_request_without_outcome_or_job(
    queue_url: str, service: HeldService, point: int
) -> None:
    """The worker may be stopped at any moment after its start."""
    app = make_app(queue_url, make_client=lambda: client(service))
    async with app.open_async():
        worker = start(app)
        await enqueue(app, requests(1))
        await turns(point)
        await assert_stopping_loses_nothing(worker, app)


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
        await app.connector.execute_query_async(
            "UPDATE procrastinate_jobs SET status = 'todo', attempts = 1, scheduled_at = NULL, worker_id = NULL"
        )
        await work(app)
        assert await states(queue_url) == ["unknown"]
        await service.receives(1)


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
        worker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await worker
        assert await states(queue_url) == (["queued", "unknown"] if sent else ["queued"] * 2)
        assert len(await jobs(app)) == (1 if sent else 2)
        last = asyncio.create_task(work(app))
        for number in range(1, 2 if sent else 3):
            await service.until(number + 1)
            service.respond(number)
        await last
        assert await states(queue_url) == (["created", "unknown"] if sent else ["created"] * 2)
        assert await jobs(app) == []


async def test_a_worker_that_is_cut_off_while_it_claims_sends_nothing(
    queue_url: str, service: HeldService, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker waits for the claim, and leaves its request to a redelivery."""
    caplog.set_level("INFO", "procrastinate")
    app = make_app(queue_url, make_client=lambda: client(service))
    async with app.open_async():
        await enqueue(app, requests(1))
        with psycopg.connect(queue_url) as other:
            other.execute("LOCK TABLE suno_persona_requests IN EXCLUSIVE MODE")
            worker = asyncio.create_task(
                app.run_worker_async(shutdown_graceful_timeout=0, install_signal_handlers=False)
            )
            waits = "SELECT 1 FROM pg_locks WHERE relation = 'suno_persona_requests'::regclass AND NOT granted"
            while not other.execute(waits).fetchone():
                await asyncio.sleep(0)
            worker.cancel()
            while not any("Aborting them" in line for line in caplog.messages):
                await asyncio.sleep(0)
            await idle()
            assert not worker.done()
        with pytest.raises(asyncio.CancelledError):
            await worker
        assert await states(queue_url) == ["queued"]
        assert [job.status for job in await jobs(app)] == ["todo"]
        await service.receives(0)


async def test_a_worker_that_lost_its_database_continues(
    queue_url: str, databases: Databases, service: HeldService, caplog: pytest.LogCaptureFixture
) -> None:
    """It records the request in flight, logs that it restarts, and runs jobs that are enqueued later."""
    app = make_app(queue_url, make_client=lambda: client(service))
    async with app.open_async():
        await enqueue(app, requests(1))
        worker = asyncio.create_task(app.run_worker_async(install_signal_handlers=False))
        await service.receives(1)
        with databases.away(queue_url):
            while not any("stopping worker" in line for line in caplog.messages):
                await asyncio.sleep(0)
        service.respond(0)
        while "the worker lost its database, and restarts" not in caplog.messages:
            await asyncio.sleep(0)
        await enqueue(make_app(queue_url), requests(2))
        await service.until(2)
        service.respond(1)
        while await states(queue_url) != ["created"] * 2:
            await asyncio.sleep(0)
        worker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await worker
        await service.receives(2)


async def test_a_worker_whose_query_is_cut_off_continues(
    queue_url: str, service: HeldService, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs that it restarts, and runs the job that was enqueued."""
    app = make_app(queue_url, make_client=lambda: client(service))
    async with app.open_async():
        await enqueue(app, requests(1))
        with psycopg.connect(queue_url) as other:
            other.execute("LOCK TABLE procrastinate_workers")
            worker = asyncio.create_task(app.run_worker_async(install_signal_handlers=False))
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
        worker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await worker
        await service.receives(1)


async def test_a_job_that_is_aborted_by_hand_is_not_redelivered(queue_url: str, service: HeldService) -> None:
    """Its request is recorded as not created or unknown."""
    app = make_app(queue_url, make_client=lambda: client(service))
    async with app.open_async():
        await enqueue(app, requests(1))
        worker = asyncio.create_task(app.run_worker_async(install_signal_handlers=False))
        await service.receives(1)
        (job,) = await jobs(app)
        assert job.id is not None
        await app.job_manager.cancel_job_by_id_async(job.id, abort=True)
        while [job.status for job in await jobs(app)] != ["aborted"]:
            await asyncio.sleep(0)
        assert await states(queue_url) == ["unknown"]
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
