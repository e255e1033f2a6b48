"""Workers of the tests' own process, and the jobs of their queue."""

from typing import Any

import psycopg
from procrastinate import App
from procrastinate.jobs import Job
from psycopg.rows import class_row

from suno_persona import (
    Outcome,
    PersonaAPI,
)
from suno_persona.distributed import PersonaApp, outcomes
from suno_persona.journal._states import Record
from suno_persona.testing import FakeSuno
from support.calls import ONCE


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


async def due_now(app: PersonaApp) -> None:
    """Let the waits of all jobs be over."""
    await app.connector.execute_query_async("UPDATE procrastinate_jobs SET scheduled_at = NULL")


async def deliver_again(app: PersonaApp) -> None:
    """Do what a queue does that does not know that a job was done."""
    with psycopg.connect(app.journal_url) as transaction:
        rows = transaction.cursor(row_factory=class_row(Record)).execute("SELECT * FROM suno_persona_requests")
        records = rows.fetchall()
        assert app.defer_requests(transaction, records, []) == len(records)


async def taken_up_again(app: PersonaApp) -> None:
    """Let the jobs be at their second delivery."""
    await app.connector.execute_query_async("UPDATE procrastinate_jobs SET attempts = 1")
