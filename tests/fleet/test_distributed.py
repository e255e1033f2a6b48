"""Batches on procrastinate's workers: each request is sent once, and has an outcome.

What happens when workers stop or stall is in `test_redelivery.py`, and when their processes are killed in
`test_fleet.py`; the commands are in `test_fleet_commands.py` and `test_worker_command.py`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any, cast

import psycopg
import pytest
from support.calls import requests
from support.held_service import HeldService, client
from support.journals import entries, run_batch, states
from support.workers import jobs, results, work

from suno_persona import (
    ConfigurationError,
    CreatePersonaRequest,
    InvalidRequestError,
    JournalError,
    NotCreatedError,
    PersonaAPI,
)
from suno_persona.distributed import PersonaApp, enqueue, make_app, outcomes
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno, Fault

pytestmark = pytest.mark.slow


async def test_workers_create_the_enqueued_personas(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """Each request has an outcome with its index, and its job is deleted."""
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
    """Neither waiting nor completed requests are added again; a longer batch adds only the new ones."""
    many = [*requests(10), *requests(2)]
    assert (await enqueue(app, many), await enqueue(app, many)) == (12, 0)
    await work(app)
    assert await enqueue(app, many) == 0
    assert await enqueue(app, [*many, *requests(11)]) == 11
    await work(app)
    assert len(fake_suno.requests) == 23


async def test_several_callers_may_enqueue_a_batch_at_once(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """They share it, and each request has one job."""
    assert sum(await asyncio.gather(*(enqueue(app, requests(50)) for _ in range(4)))) == 50
    await work(app)
    assert len(fake_suno.requests) == 50


async def test_a_large_batch_is_read_and_written_in_parts(app: PersonaApp) -> None:
    """If one of its items is no request, the parts before the error are enqueued, and the next call adds the rest."""

    async def source() -> AsyncIterator[CreatePersonaRequest]:
        for request in requests(1500):
            yield request
        yield cast("CreatePersonaRequest", {"name": "Neon"})

    with pytest.raises(InvalidRequestError, match="got a dict"):
        await enqueue(app, source())
    assert len(await jobs(app)) == 1000
    assert await enqueue(app, requests(1500)) == 500


async def test_retry_not_created_enqueues_a_rejected_request_again(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """For example after the user has bought credits."""
    fake_suno.script(Fault.response(402))
    await enqueue(app, requests(2))
    await work(app)
    assert await enqueue(app, requests(2), retry_not_created=True) == 1
    await work(app)
    assert all(outcome.persona for outcome in (await results(app)).values())
    assert len(fake_suno.requests) == 3


async def test_enqueueing_again_adds_missing_jobs(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """Jobs may have been deleted or cancelled by hand, or have failed."""
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


async def test_a_queue_that_outlives_its_journal_gets_no_duplicate_jobs(app: PersonaApp, fake_suno: FakeSuno) -> None:
    """A request has one job at a time."""
    await enqueue(app, requests(3))
    await app.connector.execute_query_async("DELETE FROM suno_persona_requests")
    await enqueue(app, requests(4))
    assert len(await jobs(app)) == 4
    await work(app)
    assert len(fake_suno.requests) == 4


async def test_a_batch_and_workers_may_share_a_journal(
    app: PersonaApp, fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """A worker does not send what `create_many` has created, and vice versa."""
    await run_batch(persona_api, requests(2), Journal(app.journal_url))
    assert await enqueue(app, requests(4)) == 2
    await run_batch(persona_api, requests(3), Journal(app.journal_url))
    await work(app)
    assert sorted(await results(app)) == [0, 1, 2, 3]
    last = await run_batch(persona_api, requests(4), Journal(app.journal_url))
    assert all(outcome.persona for outcome in last.values())
    assert len(fake_suno.requests) == 4


async def test_a_worker_of_another_account_ends_at_once(
    app: PersonaApp, fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """It raises a clear error before it takes a job."""
    await enqueue(app, requests(2))
    await run_batch(persona_api, requests(1), Journal(app.journal_url))
    for key, url in ((fake_suno.api_key, "https://gateway.example"), ("sk-another-one", fake_suno.base_url)):
        other = make_app(app.journal_url, make_client=partial(PersonaAPI, key, base_url=url))
        with pytest.raises(JournalError, match="the journal belongs to "):
            await other.run_worker_async(install_signal_handlers=False)
    assert await states(app.journal_url) == ["created", "queued"]


async def test_outcomes_are_yielded_while_others_are_in_flight(queue_url: str, service: HeldService) -> None:
    """A reader need not wait for the last one."""
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


async def test_an_unusable_queue_is_an_error(postgres_url: str) -> None:
    """It has the message of the database, and nothing is recorded."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE procrastinate_jobs (id integer)")
    with pytest.raises(JournalError, match=r"the queue cannot be read or written: column .* does not exist$"):
        await enqueue(make_app(postgres_url), requests(1))
    assert await entries(postgres_url) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"journal_url": "personas.db"}, "must be the URL of a PostgreSQL database; got personas.db"),
        ({"concurrency": 0}, "concurrency must be an integer >= 1; got 0"),
        ({"stalled_worker_timeout": 0.5}, "stalled_worker_timeout must be an integer >= 1; got 0.5"),
    ],
)
def test_an_invalid_argument_is_a_configuration_error(arguments: dict[str, Any], reason: str) -> None:
    """The error says what the argument must be, and what it got."""
    with pytest.raises(ConfigurationError, match=reason):
        make_app(**{"journal_url": "postgresql://host/x", **arguments})


async def test_the_key_is_nowhere_in_the_database(app: PersonaApp, fake_suno: FakeSuno, queue_url: str) -> None:
    """It is neither in the journal nor in the queue."""
    fake_suno.script(Fault.response(503))
    await enqueue(app, requests(2))
    await work(app)
    with psycopg.connect(queue_url) as connection:
        for table in ("suno_persona_requests", "procrastinate_jobs", "procrastinate_events"):
            rows = connection.execute(f"SELECT * FROM {table}".encode()).fetchall()
            assert rows
            assert fake_suno.api_key not in str(rows)
