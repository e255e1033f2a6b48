"""`suno-persona worker` ends within its grace time, and says in one line why it cannot work."""

import asyncio
import signal

import pytest
from support.calls import requests
from support.command import COMMAND, Done, run, start, until
from support.databases import Databases, frozen, needs_linux, own_server
from support.held_service import HeldService
from support.journals import run_batch, states
from support.workers import worker

from suno_persona import PersonaAPI
from suno_persona.distributed import enqueue, make_app
from suno_persona.journal import Journal

pytestmark = pytest.mark.slow


async def working(service: HeldService, url: str, *options: str) -> asyncio.subprocess.Process:
    """Enqueue three requests, and start a worker that has two of them in flight."""
    await enqueue(make_app(url), requests(3))
    env = service.env | {"SUNO_JOURNAL_URL": url}
    process = await start(COMMAND, "worker", "--max-connections", "2", *options, env=env)
    await service.until(2)
    return process


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGHUP])
async def test_a_signal_lets_the_requests_in_flight_finish(
    which: signal.Signals, service: HeldService, postgres_url: str
) -> None:
    """The worker says what it waits for, fetches no more jobs, and exits with status 0."""
    process = await working(service, postgres_url)
    process.send_signal(which)
    how = "press Ctrl-C again" if which is signal.SIGINT else f"send {which.name} again"
    shown = await until(b"to cancel them", process.stderr)
    assert f"finishing 2 requests in flight, for 90 s at most; {how} to cancel them\n" in shown.decode()
    service.respond(0)
    await until(b"suno-persona: 1 request in flight\n", process.stderr)
    service.respond(1)
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"suno-persona: finished: no request is in flight\n")
    assert await states(postgres_url) == ["created", "created", "queued"]


@pytest.mark.parametrize("grace", ["90", "0"], ids=["a second signal", "the end of the grace time"])
async def test_the_requests_in_flight_are_cancelled_in_the_end(
    grace: str, service: HeldService, postgres_url: str
) -> None:
    """A second signal or the end of the grace time does it: requests that were sent are recorded as unknown."""
    process = await working(service, postgres_url, "--grace", grace)
    process.terminate()
    if grace != "0":
        await until(b"send SIGTERM again to cancel them\n", process.stderr)
        process.terminate()
    _, errors = await process.communicate()
    assert process.returncode == 143
    assert b"finished; cancelled in flight: 2 requests; those that were sent are unknown\n" in errors
    assert await states(postgres_url) == ["queued", "unknown", "unknown"]


@needs_linux
async def test_a_worker_whose_database_hangs_ends_after_its_grace_time(service: HeldService) -> None:
    """The claims are recorded, and the worker says so."""
    with own_server() as server:
        url, pid = server.get_uri(), server.get_pid()
        assert pid is not None
        process = await working(service, url, "--grace", "0.2")
        with frozen(pid):
            process.terminate()
            _, errors = await process.communicate()
        assert process.returncode == 143
        assert b"ended at once with 2 requests in flight: claimed in the journal, outcome unknown\n" in errors
        assert await states(url) == ["claimed", "claimed", "queued"]


async def test_a_worker_of_another_account_ends_at_once(
    persona_api: PersonaAPI, env: dict[str, str], postgres_url: str
) -> None:
    """The error is one line; a rotated key can be accepted."""
    await run_batch(persona_api, requests(1), Journal(postgres_url))
    await enqueue(make_app(postgres_url), requests(1))
    other = env | {"SUNO_JOURNAL_URL": postgres_url, "SUNO_API_KEY": "sk-rotated"}
    done = await run(COMMAND, "worker", env=other)
    assert (done.status, done.output, done.errors.count("\n")) == (2, "", 1)
    assert "the journal belongs to another API key of " in done.errors
    async with worker(COMMAND, "worker", "--accept-new-key", env=other) as accepted:
        await until(b"worker started", accepted.stderr)
    assert accepted.returncode == 0


async def test_a_worker_that_cannot_work_says_why(env: dict[str, str], postgres_url: str) -> None:
    """The error names the command that makes the tables, the variable of the key, or the unreachable database."""
    env |= {"SUNO_JOURNAL_URL": postgres_url}
    early = await run(COMMAND, "worker", env=env)
    assert (early.status, early.errors.count("\n")) == (2, 1)
    assert "`suno-persona enqueue` makes its tables" in early.errors
    keyless = await run(COMMAND, "worker", env=env | {"SUNO_API_KEY": ""})
    assert keyless == Done(2, "", "suno-persona: SUNO_API_KEY must be the service's key; got none\n")
    away = await run(COMMAND, "worker", "--journal", "postgresql://127.0.0.1:1/personas", env=env)
    assert (away.status, away.errors.count("\n")) == (2, 1)
    assert "127.0.0.1:1/personas: the journal cannot be read or written" in away.errors


async def test_a_worker_that_loses_its_database_says_so_and_continues(
    service: HeldService, databases: Databases, postgres_url: str
) -> None:
    """It logs lines without tracebacks; with -v, they include the attempts."""
    process = await working(service, postgres_url, "-v")
    with databases.away(postgres_url):
        shown = await until(b"stopping worker", process.stderr)
    service.respond_to_all()
    shown += await until(b"the worker lost its database, and restarts\n", process.stderr)
    await service.until(3)
    process.terminate()
    _, errors = await process.communicate()
    assert process.returncode == 0
    assert b"HTTP 200" in shown + errors
    assert b"Traceback" not in shown + errors
    assert await states(postgres_url) == ["created"] * 3
