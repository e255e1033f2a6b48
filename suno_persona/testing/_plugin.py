"""The pytest fixtures `fake_suno` and `persona_api`, which pytest finds by itself.

They live in the event loop of one test. A test whose loop lives longer opens `FakeSuno` itself.
"""

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import pytest

from suno_persona._client import PersonaAPI
from suno_persona.testing._fake import FakeSuno

_T = TypeVar("_T")


def fixture(function: Callable[..., AsyncIterator[_T]]) -> object:
    """Make a fixture of pytest-asyncio, or one that says that it is missing."""
    try:
        import pytest_asyncio
    except ModuleNotFoundError:
        # pytest imports this module in every project that has the package installed: only who uses a fixture is told.
        def missing() -> None:
            pytest.fail(f"{function.__name__} needs pytest-asyncio: pip install 'suno-persona[testing]'")

        return pytest.fixture(missing, name=function.__name__)
    return pytest_asyncio.fixture(function)


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
