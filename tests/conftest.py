"""The fixtures that the tests share. Fixtures that few tests need import their dependencies themselves."""

import asyncio
import gc
import json
import os
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from support.calls import ONCE, REQUEST
from support.clock import Clock, stop_clock
from support.contract import CONTRACT_EXAMPLE
from support.held_service import HeldService

from suno_persona import CreatePersonaRequest, PersonaAPI
from suno_persona.testing import FakeSuno

if TYPE_CHECKING:
    from aioresponses import aioresponses
    from support.databases import Databases

    from suno_persona.distributed import PersonaApp

# Under nohup and in CI these signals are ignored, and processes that tests start would inherit that.
_HANDLERS: dict[str, Any] = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}
for _name, _handler in _HANDLERS.items():
    if (_signal := getattr(signal, _name, None)) and signal.getsignal(_signal) == signal.SIG_IGN:
        signal.signal(_signal, _handler)

settings.register_profile("fast", max_examples=20)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that regenerates what the docs show of the tests."""
    parser.addoption("--write-docs", action="store_true", help="write the tables and pictures in docs/ anew")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests on Windows that need POSIX."""
    if os.name != "posix" and item.get_closest_marker("posix"):
        pytest.skip("needs POSIX: a shell, signals or /dev")


@pytest.hookimpl(tryfirst=True)  # before `-m "not slow"` is read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need a server as slow, and allow slow tests more time before they time out."""
    for item in items:
        if "databases" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(60))


REAPER = """
read -r _
for process in /proc/[0-9]*; do
    tr "\\0" "\\n" <"$process/environ" 2>/dev/null | grep -qx "$0" && kill -9 "${process#/proc/}"
done
"""


@pytest.fixture(scope="session", autouse=True)
def reaper() -> Iterator[None]:
    """End the processes that tests have left when this one ends, also if a hung test ended it (on Linux)."""
    if not os.path.exists("/proc/self/environ"):
        yield
        return
    run = uuid.uuid4().hex
    with subprocess.Popen(["sh", "-c", REAPER, f"TEST_RUN={run}"], stdin=subprocess.PIPE):
        os.environ["TEST_RUN"] = run  # which all processes that tests start inherit
        yield


@pytest.fixture
def example() -> dict[str, Any]:
    """Return the persona that the contract shows, as JSON values."""
    document: dict[str, Any] = json.loads(CONTRACT_EXAMPLE)
    return document


@pytest.fixture
def request_() -> CreatePersonaRequest:
    """Return a request for which the fake service creates a persona."""
    return REQUEST


@pytest.fixture
async def once(fake_suno: FakeSuno) -> AsyncIterator[PersonaAPI]:
    """Yield a client of the fake service that makes one attempt per call."""
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, retry=ONCE) as api:
        yield api


@pytest.fixture
def env(fake_suno: FakeSuno) -> dict[str, str]:
    """Return environment variables that configure the fake service."""
    return {"SUNO_API_KEY": fake_suno.api_key, "SUNO_BASE_URL": fake_suno.base_url}


@pytest.fixture(scope="session")
def databases() -> Iterator["Databases"]:
    """Start a PostgreSQL server on which tests create databases."""
    from support.databases import Databases, server

    with server() as url:
        yield Databases(url)


@pytest.fixture
def postgres_url(databases: "Databases") -> Iterator[str]:
    """Create a PostgreSQL database for the test, and yield its URL."""
    with databases.new() as url:
        yield url


@pytest.fixture
async def queue_url(postgres_url: str) -> str:
    """Return the URL of a database that has the tables of the queue and of the journal."""
    from suno_persona.distributed import enqueue, make_app

    await enqueue(make_app(postgres_url), [])
    return postgres_url


@pytest.fixture
async def app(queue_url: str, fake_suno: FakeSuno) -> AsyncIterator["PersonaApp"]:
    """Yield an app whose workers use the fake service, with one attempt per request."""
    from support.workers import client_of

    from suno_persona.distributed import make_app

    app = make_app(queue_url, make_client=lambda: client_of(fake_suno))
    async with app.open_async():
        yield app
    gc.collect()  # asyncio logs errors of jobs that lost their queue now, and not during another test


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the location of the test's journal: an SQLite file, then a PostgreSQL database."""
    if request.param == "sqlite":
        return str(tmp_path / "personas.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def service() -> AsyncIterator[HeldService]:
    """Yield a service that holds every request until the test responds."""
    async with HeldService() as service:
        yield service


@pytest.fixture
async def advance(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Stop the running loop's clock, and return a function that advances it."""
    return stop_clock(asyncio.get_running_loop(), monkeypatch)


@pytest.fixture
def mocked() -> Iterator["aioresponses"]:
    """Replace aiohttp's session by one without a network: for unit tests of the client only."""
    from support.mocked_session import MockedSession

    with MockedSession() as mocked:
        yield mocked
