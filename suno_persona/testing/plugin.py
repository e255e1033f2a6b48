"""The pytest fixtures `fake_suno` and `persona_api`, which pytest finds by itself."""

from collections.abc import AsyncIterator

from suno_persona.client import PersonaAPI
from suno_persona.testing.fake import FakeSuno

try:
    from pytest_asyncio import fixture
except ModuleNotFoundError:
    # pytest imports this module in every project that has the package installed, also where another
    # plugin runs the asynchronous tests.
    import pytest

    fixture = pytest.fixture  # type: ignore[assignment]  # used like the other one


@fixture
async def fake_suno() -> AsyncIterator[FakeSuno]:
    """A fake service of the test's own, on a loopback port."""
    async with FakeSuno() as fake:
        yield fake


@fixture
async def persona_api(fake_suno: FakeSuno) -> AsyncIterator[PersonaAPI]:
    """A `PersonaAPI` that talks to `fake_suno`."""
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url) as api:
        yield api
