"""What the tests share: the contract's example, a clock that can be moved, and the bridge to aioresponses."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aioresponses import aioresponses
from desk import Desk
from postgres import Databases, server

from suno_persona import CreatePersonaRequest, PersonaAPI, RetryPolicy
from suno_persona.testing import FakeSuno

ONCE = RetryPolicy(attempts=1)
CONTRACT_EXAMPLE = Path(__file__).with_name("contract_example.json").read_bytes()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes what the docs show of the tests."""
    parser.addoption("--write-docs", action="store_true", help="write the tables and pictures in docs/ anew")


@pytest.fixture
def example() -> dict[str, Any]:
    """The persona that the contract shows, as JSON values."""
    document: dict[str, Any] = json.loads(CONTRACT_EXAMPLE)
    return document


@pytest.fixture
def request_() -> CreatePersonaRequest:
    """A request that the fake service grants."""
    return CreatePersonaRequest(root_clip_id="54834687", name="Neon", description="Night drive")


@pytest.fixture
async def once(fake_suno: FakeSuno) -> AsyncIterator[PersonaAPI]:
    """A client of the fake service that repeats nothing."""
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, retry=ONCE) as api:
        yield api


@pytest.fixture
def env(fake_suno: FakeSuno) -> dict[str, str]:
    """An environment that names the fake service."""
    return {"SUNO_API_KEY": fake_suno.api_key, "SUNO_BASE_URL": fake_suno.base_url}


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """A PostgreSQL in which tests make databases."""
    with server() as url:
        yield Databases(url)


@pytest.fixture
def postgres_url(databases: Databases) -> Iterator[str]:
    """A PostgreSQL database of the test's own."""
    with databases.new() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the test's journal is: once in an SQLite file, and once in PostgreSQL."""
    if request.param == "sqlite":
        return str(tmp_path / "personas.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """A service that keeps every request until the test answers it."""
    desk = Desk()
    async with desk.service:
        yield desk


@pytest.fixture
async def advance(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move the running loop's clock, which stands still otherwise: however slow the machine, no time passes."""
    loop = asyncio.get_running_loop()
    now = loop.time()

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(loop, "time", lambda: now)
    return advance


class _Response(aiohttp.ClientResponse):
    """aioresponses 0.7.9 does not pass the `stream_writer` that aiohttp 3.14 asks for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"stream_writer": Mock(output_size=0), **kwargs})


class _Responses(aioresponses):
    def add(self, *args: Any, **kwargs: Any) -> None:
        super().add(*args, **{"response_class": _Response, **kwargs})


@pytest.fixture
def mocked() -> Iterator[aioresponses]:
    """Aiohttp's session with its network taken out: for unit tests of the client only."""
    with _Responses() as mocked:
        yield mocked
