"""Workers in the tests' own process, and the jobs of their queue."""

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
    """Return a client of the fake service that makes one attempt."""
    return PersonaAPI(fake.api_key, base_url=fake.base_url, retry=ONCE, **options)


async def work(app: PersonaApp) -> None:
    """Run a worker until no job is due."""
    await app.run_worker_async(wait=False, install_signal_handlers=False)


async def jobs(app: App) -> list[Job]:
    """Return the jobs that create personas and have not ended."""
    return list(await app.job_manager.list_jobs_async(task="suno_persona.create_persona"))


async def results(app: PersonaApp) -> dict[int, Outcome]:
    """Return all outcomes by index."""
    return {outcome.index: outcome async for outcome in outcomes(app)}


async def due_now(app: PersonaApp) -> None:
    """Make all jobs due now."""
    await app.connector.execute_query_async("UPDATE procrastinate_jobs SET scheduled_at = NULL")


async def redeliver(app: PersonaApp) -> None:
    """Defer all jobs again, as a queue does that does not know that a job has ended."""
    with psycopg.connect(app.journal_url) as transaction:
        rows = transaction.cursor(row_factory=class_row(Record)).execute("SELECT * FROM suno_persona_requests")
        records = rows.fetchall()
        assert app.defer_requests(transaction, records, []) == len(records)


async def as_redelivery(app: PersonaApp) -> None:
    """Mark the jobs as being at their second delivery."""
    await app.connector.execute_query_async("UPDATE procrastinate_jobs SET attempts = 1")
