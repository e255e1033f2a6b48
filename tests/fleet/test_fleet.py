"""Worker processes that are killed, or lose their database, send nothing twice and lose nothing.

They run with procrastinate's own command, and an app of the user's.
"""

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest
from support.calls import requests
from support.command import COMMAND, run
from support.databases import own_server
from support.idle import turns
from support.workers import worker

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
    """Four workers share 400 requests; each is killed with SIGKILL and replaced."""
    rng = random.Random(5)
    many = requests(400)
    env = worker_env | {"SUNO_JOURNAL_URL": postgres_url}
    await prepare(postgres_url, env)
    await enqueue(make_app(postgres_url), many)
    async with AsyncExitStack() as stack:
        fleet = [await stack.enter_async_context(worker(*WORKER, env=env)) for _ in range(4)]
        for index in range(4):
            await fake_suno.wait_for_requests(len(fake_suno.requests) + rng.randrange(10, 50))
            await turns(rng.randrange(300))
            fleet[index].kill()
            fleet[index] = await stack.enter_async_context(worker(*WORKER, env=env))
        found = await checked_outcomes(fake_suno, postgres_url, many)
    assert [process.returncode for process in fleet] == [0] * 4
    assert any(outcome.persona is not None for outcome in found)


async def test_workers_continue_after_a_restart_of_the_database(
    fake_suno: FakeSuno, worker_env: dict[str, str]
) -> None:
    """Requests in flight during the restart are recorded when the database is back."""
    many = requests(300)
    with own_server() as server:
        url = server.get_uri()
        env = worker_env | {"SUNO_JOURNAL_URL": url}
        await prepare(url, env)
        await enqueue(make_app(url), many)
        async with (
            worker(*WORKER, env=env) as first,
            worker(*WORKER, env=env) as second,
            worker(*WORKER, env=env) as third,
        ):
            with psycopg.connect(url, autocommit=True) as connection:
                while connection.execute("SELECT count(*) FROM procrastinate_workers").fetchone() != (3,):
                    await asyncio.sleep(0.1)
            await fake_suno.wait_for_requests(50)
            await asyncio.to_thread(server.stop)
            third.terminate()
            await asyncio.to_thread(server.ensure_postgres_running)
            assert await third.wait() == 0  # it received SIGTERM, and does not restart
            await checked_outcomes(fake_suno, url, many)
            assert (first.returncode, second.returncode) == (None, None)


async def test_a_worker_that_cannot_work_says_why(worker_env: dict[str, str], postgres_url: str) -> None:
    """It exits, and the error names the command that creates the tables, or the variable of the key."""
    env = worker_env | {"SUNO_JOURNAL_URL": postgres_url}
    early = await run(PROCRASTINATE, APP, "worker", env=env)
    assert early.status == 1
    assert "suno-persona enqueue" in early.errors
    await prepare(postgres_url, env)
    keyless = await run(PROCRASTINATE, APP, "worker", env={**env, "SUNO_API_KEY": ""})
    assert keyless.status == 1
    assert "in SUNO_API_KEY; got none" in keyless.errors
