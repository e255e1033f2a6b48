"""Batches on procrastinate's workers: whatever is delivered twice is sent once, and nothing is lost."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from procrastinate import App
from procrastinate.jobs import Job
from psycopg.rows import class_row
from support.calls import ONCE, requests
from support.databases import Databases
from support.held_service import HeldService, client
from support.idle import idle, turns
from support.journals import claim, entries, run_batch, states

from suno_persona import (
    ConfigurationError,
    CreatePersonaRequest,
    InvalidRequestError,
    JournalError,
    NotCreatedError,
    Outcome,
    OutcomeUnknownError,
    PersonaAPI,
)
from suno_persona.distributed import PersonaApp, enqueue, make_app, outcomes
from suno_persona.journal import Journal
from suno_persona.journal._states import Record
from suno_persona.testing import FakeSuno, Fault

pytestmark = pytest.mark.slow


@pytest.fixture
async def queue_url(postgres_url: str) -> str:
    """A database with the queue's schema."""
    app = make_app(postgres_url)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
    return postgres_url


@pytest.fixture
async def app(queue_url: str, fake_suno: FakeSuno) -> AsyncIterator[PersonaApp]:
    """An app whose workers use the fake service and try once."""
    app = make_app(queue_url, make_client=lambda: client_of(fake_suno))
    async with app.open_async():
        yield app


def client_of(fake: FakeSuno, **options: Any) -> PersonaAPI:
    """A client of the fake service that tries once."""
    return PersonaAPI(fake.api_key, base_url=fake.base_url, retry=ONCE, **options)


async def work(app: PersonaApp) -> None:
    """Run a worker until nothing is to be done now."""
    await app.run_worker_async(wait=False, install_signal_handlers=False)


async def jobs(app: App) -> list[Job]:
    """The jobs that create personas and are not at their end."""
    return list(await app.job_manager.list_jobs_async(task="suno_persona.create_persona"))


async def results(app: PersonaApp) -> dict[int, Outcome]:
    """All outcomes by their index."""
    return {outcome.index: outcome async for outcome in outcomes(app)}


async def test_workers_create_what_was_enqueued(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """Each request has its outcome, with its place, and its job is gone."""
    many = [*requests(30), CreatePersonaRequest(root_clip_id="unknown-1", name="N", description="D")]
    assert await enqueue(app, many) == 31
    await work(app)
    found = await results(app)
    assert [found[index].request for index in range(31)] == many
    assert {found[index].result().id for index in range(30)} == {persona.id for persona in fake_suno.personas}
    assert isinstance(found[30].error, NotCreatedError)
    assert "clip unknown-1 does not exist" in str(found[30].error)
    assert await jobs(app) == []


async def test_enqueueing_again_adds_nothing(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """Neither while the jobs wait nor when they are done; and a longer batch adds what is new."""
    many = [*requests(10), *requests(2)]
    assert (await enqueue(app, many), await enqueue(app, many)) == (12, 0)
    await work(app)
    assert await enqueue(app, many) == 0
    assert await enqueue(app, [*many, *requests(11)]) == 11
    await work(app)
    assert len(fake_suno.requests) == 23


async def test_a_batch_may_be_enqueued_by_many_at_once(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """They share it, and each request has one job."""
    assert sum(await asyncio.gather(*(enqueue(app, requests(50)) for _ in range(4)))) == 50
    await work(app)
    assert len(fake_suno.requests) == 50


async def test_a_large_batch_is_read_and_written_in_parts(app: PersonaApp) -> None:
    """What came before its source broke off is enqueued, and the next time adds the rest."""

    async def source() -> AsyncIterator[CreatePersonaRequest]:
        for request in requests(1500):
            yield request
        raise LookupError("the file ends here")

    with pytest.raises(LookupError):
        await enqueue(app, source())
    assert len(await jobs(app)) == 1000
    assert await enqueue(app, requests(1500)) == 500


async def test_what_is_no_request_is_told(app: PersonaApp) -> None:
    """The error is that of `create`."""
    with pytest.raises(InvalidRequestError, match="got a dict"):
        await enqueue(app, [{"name": "Neon"}])  # type: ignore[list-item]  # what is tried here
    assert await enqueue(app, []) == 0
    assert await results(app) == {}


async def test_what_was_refused_is_enqueued_again_where_it_is_asked_for(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """As after credits were bought."""
    fake_suno.script(Fault.response(402))
    await enqueue(app, requests(2))
    await work(app)
    assert await enqueue(app, requests(2), retry_not_created=True) == 1
    await work(app)
    assert all(outcome.persona for outcome in (await results(app)).values())
    assert len(fake_suno.requests) == 3


@pytest.mark.parametrize(
    ("fault", "least", "most"),
    [(Fault.rate_limited(retry_after=120), 110, 121), (Fault.response(503), 0, 2)],
    ids=["with a time", "without"],
)
async def test_a_refusal_that_is_worth_another_try_is_given_back(
    app: PersonaApp, fake_suno: FakeSuno, fault: Fault, least: float, most: float
) -> None:
    """The queue delivers it again after the wait that the service asks for, or else a growing one; nothing is lost."""
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


async def due_now(app: PersonaApp) -> None:
    """Let the waits of all jobs be over."""
    await app.connector.execute_query_async("UPDATE procrastinate_jobs SET scheduled_at = NULL")


async def test_a_cool_down_costs_no_request_its_delivery(queue_url: str, fake_suno: FakeSuno) -> None:
    """However often jobs were given back unsent while the service asked all to wait, they are sent in the end."""
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
    """The job ends, and a person looks."""
    fake_suno.script(Fault.lost_answer())
    await enqueue(app, requests(1))
    await work(app)
    assert isinstance((await results(app))[0].error, OutcomeUnknownError)
    assert await jobs(app) == []
    assert await enqueue(app, requests(1), retry_not_created=True) == 0
    assert len(fake_suno.requests) == 1


async def deliver_again(app: PersonaApp) -> None:
    """Do what a queue does that does not know that a job was done."""
    with psycopg.connect(app.journal_url) as transaction:
        rows = transaction.cursor(row_factory=class_row(Record)).execute("SELECT * FROM suno_persona_requests")
        records = rows.fetchall()
        assert app.defer_requests(transaction, records, []) == len(records)


async def test_what_is_queued_again_before_its_job_has_ended_has_another_job(
    app: PersonaApp, fake_suno: FakeSuno
) -> None:
    """A job that has recorded its outcome does not count: it would end, and leave the request without one."""
    fake_suno.script(Fault.response(404))
    await enqueue(app, requests(1))
    await work(app)
    await deliver_again(app)
    await app.connector.execute_query_async("UPDATE procrastinate_jobs SET status = 'doing'")
    assert await enqueue(app, requests(1)) == 0
    assert await enqueue(app, requests(1), retry_not_created=True) == 1
    await work(app)
    assert await states(app.journal_url) == ["created"]


async def test_a_retry_after_of_a_month_postpones_a_job_by_minutes(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """The service is asked again after five minutes at most."""
    fake_suno.script(Fault.rate_limited(retry_after=30 * 24 * 3600))
    await enqueue(app, requests(1))
    await work(app)
    (job,) = await jobs(app)
    assert job.scheduled_at is not None
    assert job.scheduled_at < datetime.now(UTC) + timedelta(seconds=301)


async def test_a_job_that_is_delivered_twice_creates_one_persona(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """Whatever came of it the first time."""
    fake_suno.script(Fault.lost_answer(), Fault.response(404))
    await enqueue(app, requests(5))
    await work(app)
    before = await results(app)
    await deliver_again(app)
    await work(app)
    assert len(fake_suno.requests) == 5
    assert {index: outcome.persona for index, outcome in (await results(app)).items()} == {
        index: outcome.persona for index, outcome in before.items()
    }


async def taken_up_again(app: PersonaApp) -> None:
    """Let the jobs be at their second delivery."""
    await app.connector.execute_query_async("UPDATE procrastinate_jobs SET attempts = 1")


async def test_a_request_whose_worker_died_is_unknown(
    app: PersonaApp, fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """It was claimed and has no outcome: its job, taken up again, sends nothing and says so."""
    (request,) = requests(1)
    await enqueue(app, [request])
    await claim(app.journal_url, request, persona_api)
    await taken_up_again(app)
    await work(app)
    (entry,) = await entries(app.journal_url)
    assert entry.state == "unknown"
    assert f"{entry.claimed_by} was stopped" in str((await results(app))[0].error)
    assert fake_suno.requests == []


async def test_a_worker_that_died_while_it_looked_for_the_dead_stops_nobody(
    app: PersonaApp, fake_suno: FakeSuno
) -> None:
    """Its own job is one of those that are taken up again."""
    await enqueue(app, requests(1))
    retry_stalled = app.tasks["suno_persona.retry_stalled"]
    await retry_stalled.defer_async(timestamp=0)
    await app.connector.execute_query_async("UPDATE procrastinate_jobs SET status = 'doing'")
    await retry_stalled.defer_async(timestamp=1)
    await work(app)
    await work(app)  # the first one may have ended before the jobs were given back
    assert (await results(app))[0].persona is not None


@pytest.mark.parametrize("answer", ["granted", "refused"])
async def test_a_worker_that_only_seemed_dead_records_its_outcome(
    queue_url: str, service: HeldService, answer: str
) -> None:
    """Its job was given to another one meanwhile, which sent nothing; no request is left without outcome or job."""
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
        if answer == "granted":
            service.respond(0)
        else:
            service.reject(0, retry_after=120)
        await at_work
        assert await states(queue_url) == ["created" if answer == "granted" else "not_created"]
        await service.receives(1)


@pytest.mark.parametrize("point", range(0, 150, 10))
async def test_cutting_a_worker_off_leaves_no_request_without_outcome_or_job(
    queue_url: str, service: HeldService, point: int
) -> None:
    """At whatever moment after a refusal that is."""
    app = make_app(queue_url, make_client=lambda: client(service))
    async with app.open_async():
        await enqueue(app, requests(1))
        worker = asyncio.create_task(app.run_worker_async(shutdown_graceful_timeout=0, install_signal_handlers=False))
        await service.receives(1)
        service.reject(0, retry_after=120)
        await turns(point)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        assert await states(queue_url) in (["queued"], ["unknown"])
        assert [job.status for job in await jobs(app)] == ["todo"]


@pytest.mark.parametrize("point", range(0, 100, 10))
async def test_stopping_a_worker_at_once_leaves_no_request_without_outcome_or_job(
    queue_url: str, service: HeldService, point: int
) -> None:
    """At whatever moment after it began."""
    app = make_app(queue_url, make_client=lambda: client(service))
    async with app.open_async():
        worker = asyncio.create_task(app.run_worker_async(shutdown_graceful_timeout=0, install_signal_handlers=False))
        await enqueue(app, requests(1))
        await turns(point)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        assert await states(queue_url) in (["queued"], ["unknown"])
        assert [job.status for job in await jobs(app)] == ["todo"]


async def test_enqueueing_again_cures_a_request_without_a_job(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """As after jobs were deleted or cancelled by hand, or the code failed."""
    await enqueue(app, requests(3))
    await app.connector.execute_query_async(
        "UPDATE procrastinate_jobs SET args = jsonb_set(args, '{body}', '\"no JSON\"') WHERE id = 1"
    )
    await app.connector.execute_query_async("DELETE FROM procrastinate_jobs WHERE id = 2")
    await work(app)
    assert await states(app.journal_url) == ["created", "queued", "queued"]
    assert await enqueue(app, requests(3)) == 2
    await work(app)
    assert len(fake_suno.requests) == len(await results(app)) == 3


async def test_an_error_of_the_code_leaves_no_request_without_an_outcome(
    app: PersonaApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is unknown, with the error as its reason, and its job has ended."""

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("suno_persona._transport.post", fail)
    await enqueue(app, requests(1))
    await work(app)
    assert "unexpected RuntimeError: a bug" in str((await results(app))[0].error)
    assert await jobs(app) == []


async def test_an_outcome_that_cannot_be_recorded_is_logged(
    queue_url: str,
    databases: Databases,
    service: HeldService,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With its key, when the database is away for too long; later its request is unknown."""
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


async def test_a_job_waits_for_a_batch_that_may_be_at_work(
    app: PersonaApp, fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """`create_many` claimed the request on the same journal a moment ago: the job looks again later."""
    await claim(app.journal_url, requests(1)[0], persona_api)
    await enqueue(app, requests(1))
    await work(app)
    (job,) = await jobs(app)
    assert job.scheduled_at is not None
    assert 0 < (job.scheduled_at - datetime.now(UTC)).total_seconds() <= 600
    assert await states(app.journal_url) == ["claimed"]
    assert fake_suno.requests == []


async def test_what_a_batch_left_claimed_is_told(app: PersonaApp, fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """`create_many` was killed on the same journal: enqueueing its batch reports every request."""
    await claim(app.journal_url, requests(1)[0], persona_api)
    assert await enqueue(app, requests(2)) == 2
    await taken_up_again(app)
    await work(app)
    found = await results(app)
    assert isinstance(found[0].error, OutcomeUnknownError)
    assert found[1].persona is not None
    assert len(fake_suno.requests) == 1


async def test_a_batch_and_workers_may_share_a_journal(
    app: PersonaApp, fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """What `create_many` created is not sent by a worker, and the other way round."""
    await run_batch(persona_api, requests(2), Journal(app.journal_url))
    assert await enqueue(app, requests(4)) == 2
    await run_batch(persona_api, requests(3), Journal(app.journal_url))
    await work(app)
    assert len(fake_suno.requests) == 4
    assert sorted(await results(app)) == [0, 1, 2, 3]
    last = await run_batch(persona_api, requests(4), Journal(app.journal_url))
    assert all(outcome.persona for outcome in last.values())
    assert len(fake_suno.requests) == 4


async def test_a_worker_of_another_account_ends_at_once(
    app: PersonaApp, fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """With a clear error, before it takes a job."""
    await enqueue(app, requests(2))
    await run_batch(persona_api, requests(1), Journal(app.journal_url))
    for key, url in ((fake_suno.api_key, "https://gateway.example"), ("sk-another-one", fake_suno.base_url)):
        other = make_app(app.journal_url, make_client=partial(PersonaAPI, key, base_url=url))
        with pytest.raises(JournalError, match="the journal belongs to "):
            await other.run_worker_async(install_signal_handlers=False)
    assert await states(app.journal_url) == ["created", "queued"]


async def test_outcomes_come_while_others_are_under_way(queue_url: str, service: HeldService) -> None:
    """Who reads them need not wait for the last one."""
    app = make_app(queue_url, make_client=lambda: client(service))
    async with app.open_async():
        await enqueue(app, requests(2))
        worker = asyncio.create_task(work(app))
        async with aclosing(outcomes(app, poll_interval=0.01)) as found:
            first = asyncio.ensure_future(anext(found))
            await service.receives(2)
            service.respond(1)
            name = (await first).result().name
            service.respond(0)
            assert {name, (await anext(found)).result().name} == {"0", "1"}
            with pytest.raises(StopAsyncIteration):
                await anext(found)
        await worker


@pytest.mark.parametrize("sent", [True, False], ids=["sent", "not sent"])
async def test_a_worker_that_is_cut_off_loses_nothing(queue_url: str, service: HeldService, sent: bool) -> None:
    """What was out is unknown; what was not is given back to the queue."""
    app = make_app(queue_url, make_client=lambda: client(service, max_connections=1), concurrency=2)
    async with app.open_async():
        await enqueue(app, requests(2))
        worker = asyncio.create_task(app.run_worker_async(shutdown_graceful_timeout=0, install_signal_handlers=False))
        await service.receives(1)
        if not sent:
            service.reject(0, retry_after=20)
            await idle()
        worker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await worker
        assert await states(queue_url) == (["queued", "unknown"] if sent else ["queued"] * 2)
        assert len(await jobs(app)) == 2
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
    """The claim is waited for, and its request is left to a later delivery."""
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


async def test_a_worker_that_lost_its_database_goes_on(
    queue_url: str, databases: Databases, service: HeldService, caplog: pytest.LogCaptureFixture
) -> None:
    """It records what was out, logs that it begins again, and does what is enqueued then."""
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


async def test_a_worker_whose_query_is_cut_off_goes_on(
    queue_url: str, service: HeldService, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs that it begins again, and does what was enqueued."""
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


async def test_a_job_that_is_aborted_by_hand_is_at_its_end(queue_url: str, service: HeldService) -> None:
    """Procrastinate is asked to abort it: its request is not created, or unknown, and is not delivered again."""
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


async def test_a_queue_that_outlives_its_journal_is_not_filled_twice(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """A request has one job at a time."""
    await enqueue(app, requests(3))
    await app.connector.execute_query_async("DELETE FROM suno_persona_requests")
    await enqueue(app, requests(4))
    assert len(await jobs(app)) == 4
    await work(app)
    assert len(fake_suno.requests) == 4


async def test_a_database_without_the_queues_schema_is_told(postgres_url: str) -> None:
    """With the command that makes it; and nothing is recorded."""
    with pytest.raises(
        JournalError, match=r"the queue cannot be read or written: .*procrastinate --app=.* schema --apply"
    ):
        await enqueue(make_app(postgres_url), requests(1))
    assert await entries(postgres_url) == []


async def test_the_key_is_nowhere_in_the_database(app: PersonaApp, fake_suno: FakeSuno, queue_url: str) -> None:
    """Neither in the journal nor in the queue."""
    fake_suno.script(Fault.response(503))
    await enqueue(app, requests(2))
    await work(app)
    async with await psycopg.AsyncConnection.connect(queue_url) as connection:
        for table in ("suno_persona_requests", "procrastinate_jobs", "procrastinate_events"):
            rows = await (await connection.execute(f"SELECT * FROM {table}".encode())).fetchall()
            assert rows
            assert fake_suno.api_key not in str(rows)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"journal_url": "personas.db"}, "must be the URL of a PostgreSQL database; got personas.db"),
        ({"concurrency": 0}, "concurrency must be an integer >= 1; got 0"),
        ({"stalled_worker_timeout": 0.5}, "stalled_worker_timeout must be an integer >= 1; got 0.5"),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(arguments: dict[str, Any], reason: str) -> None:
    """The error says what was found and what is expected."""
    with pytest.raises(ConfigurationError, match=reason):
        make_app(**{"journal_url": "postgresql://host/x", **arguments})


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"SUNO_JOURNAL_URL": ""}, "SUNO_JOURNAL_URL must be the URL of a PostgreSQL database; got none"),
        ({"SUNO_MAX_CONNECTIONS": "many"}, "SUNO_MAX_CONNECTIONS must be an integer >= 1; got 'many'"),
        ({"SUNO_RATE_LIMIT": "60"}, "SUNO_RATE_LIMIT must be requests/seconds, such as 60/60; got '60'"),
    ],
)
def test_an_environment_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], reason: str
) -> None:
    """The variable is named."""
    from suno_persona import distributed

    for name, value in {"SUNO_JOURNAL_URL": "postgresql://host/x", **env}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=reason):
        _ = distributed.app
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = distributed.nothing


def test_a_missing_extra_is_named() -> None:
    """Who has not procrastinate is told what to install."""
    code = "import sys; sys.modules['procrastinate'] = None; import suno_persona.distributed"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'suno-persona[distributed]'" in done.stderr.splitlines()[-1]
