"""Workers, in the tests' own process or in theirs, and the jobs of their queue."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, LiteralString

from procrastinate.jobs import Job

from suno_persona import Outcome, PersonaAPI
from suno_persona.distributed import PersonaApp, outcomes
from suno_persona.testing import FakeSuno
from support.calls import ONCE
from support.command import start


def client_of(fake: FakeSuno, **options: Any) -> PersonaAPI:
    """Return a client of the fake service that makes one attempt."""
    return PersonaAPI(fake.api_key, base_url=fake.base_url, retry=ONCE, **options)


async def work(app: PersonaApp) -> None:
    """Run a worker until no job is due."""
    await app.run_worker_async(wait=False, install_signal_handlers=False)


async def jobs(app: PersonaApp) -> list[Job]:
    """Return the jobs that create personas and have not ended."""
    return list(await app.job_manager.list_jobs_async(task="suno_persona.create_persona"))


async def results(app: PersonaApp) -> dict[int, Outcome]:
    """Return all outcomes by index."""
    return {outcome.index: outcome async for outcome in outcomes(app)}


async def execute(app: PersonaApp, statement: LiteralString) -> None:
    """Change the jobs, as time, a person or another worker does."""
    await app.connector.execute_query_async(statement)


@asynccontextmanager
async def worker(*command: str, env: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a worker process, and stop it at the end as an operator does."""
    process = await start(*command, env=env)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
