"""Worker processes that are killed, or lose their database, send nothing twice and lose nothing."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from support.calls import requests
from support.command import COMMAND, run, start
from support.databases import own_server

from suno_persona import CreatePersonaRequest, Outcome
from suno_persona.distributed import enqueue, make_app, outcomes
from suno_persona.testing import FakeSuno

pytestmark = pytest.mark.slow

PROCRASTINATE = str(Path(COMMAND).with_name("procrastinate"))
APP = "--app=support.fleet.app"
WORKER = (PROCRASTINATE, APP, "--log-level=error", "worker")


@pytest.fixture
def worker_env(env: dict[str, str]) -> dict[str, str]:
    """Return the environment of a worker without its database."""
    return env | {"PYTHONPATH": str(Path(__file__).parent.parent)}


async def prepare(url: str, env: dict[str, str]) -> None:
    """Create the tables of the queue, as the docs say."""
    done = await run(PROCRASTINATE, APP, "schema", "--apply", env=env | {"SUNO_JOURNAL_URL": url})
    assert done.status == 0, done


@asynccontextmanager
async def worker(env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a worker process, and stop it at the end as an operator does."""
    process = await start(*WORKER, env=env)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def checked_outcomes(fake: FakeSuno, url: str, many: list[CreatePersonaRequest]) -> list[Outcome]:
    """Return all outcomes; assert that nothing was sent twice and that every persona is created or unknown."""
    found = {outcome.index: outcome async for outcome in outcomes(make_app(url), poll_interval=0.2)}
    assert [found[index].request for index in range(len(many))] == many
    sent = Counter(request.json()["name"] for request in fake.requests)  # type: ignore[index]  # it is JSON
    assert set(sent.values()) == {1}
    by_name = {outcome.request.name: outcome for outcome in found.values()}
    for persona in fake.personas:
        outcome = by_name[str(persona.name)]
        assert outcome.persona == persona or (outcome.error is not None and outcome.error.may_have_created)
    for name, outcome in by_name.items():
        assert name in sent or (outcome.error is not None and outcome.error.may_have_created)
    return list(found.values())


async def test_workers_that_are_killed_send_nothing_twice_and_lose_nothing(
    fake_suno: FakeSuno, worker_env: dict[str, str], postgres_url: str
) -> None:
    """Four workers share 2,000 requests; each worker is killed twice with SIGKILL and replaced."""
    rng = random.Random(5)
    many = requests(2000)
    env = worker_env | {"SUNO_JOURNAL_URL": postgres_url}
    await prepare(postgres_url, env)
    await enqueue(make_app(postgres_url), many)
    async with AsyncExitStack() as stack:
        fleet = [await stack.enter_async_context(worker(env)) for _ in range(4)]
        for index in [0, 1, 2, 3] * 2:
            await fake_suno.wait_for_requests(len(fake_suno.requests) + rng.randrange(20, 150))
            for _ in range(rng.randrange(300)):
                await asyncio.sleep(0)
            fleet[index].kill()
            fleet[index] = await stack.enter_async_context(worker(env))
        found = await checked_outcomes(fake_suno, postgres_url, many)
    assert [process.returncode for process in fleet] == [0] * 4
    assert any(outcome.persona is not None for outcome in found)


async def test_workers_continue_after_a_restart_of_the_database(
    fake_suno: FakeSuno, worker_env: dict[str, str]
) -> None:
    """Requests in flight during the restart are recorded when the database is back."""
    many = requests(600)
    with own_server() as server:
        url = server.get_uri()
        env = worker_env | {"SUNO_JOURNAL_URL": url}
        await prepare(url, env)
        await enqueue(make_app(url), many)
        async with worker(env) as first, worker(env) as second, worker(env) as third:
            with psycopg.connect(url, autocommit=True) as connection:
                while connection.execute("SELECT count(*) FROM procrastinate_workers").fetchone() != (3,):
                    await asyncio.sleep(0.1)
            await fake_suno.wait_for_requests(100)
            await asyncio.to_thread(server.stop)
            third.terminate()
            await asyncio.to_thread(server.ensure_postgres_running)
            assert await third.wait() == 0  # it received SIGTERM, and does not restart
            await checked_outcomes(fake_suno, url, many)
            assert (first.returncode, second.returncode) == (None, None)


async def test_a_worker_without_its_queue_says_so(worker_env: dict[str, str], postgres_url: str) -> None:
    """The worker exits, and the error says what creates the tables."""
    done = await run(PROCRASTINATE, APP, "worker", env=worker_env | {"SUNO_JOURNAL_URL": postgres_url})
    assert done.status == 1
    assert "suno-persona enqueue" in done.errors


async def test_a_worker_without_a_key_says_so(worker_env: dict[str, str], postgres_url: str) -> None:
    """The worker exits with an error, and fetches no job."""
    env = worker_env | {"SUNO_JOURNAL_URL": postgres_url}
    await prepare(postgres_url, env)
    done = await run(PROCRASTINATE, APP, "worker", env={**env, "SUNO_API_KEY": ""})
    assert done.status == 1
    assert "in SUNO_API_KEY; got none" in done.errors
