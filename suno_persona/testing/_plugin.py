"""The pytest fixtures `fake_suno` and `persona_api`, which pytest finds by itself.

Their scope is one test. For another scope, open `FakeSuno` in a fixture of your own.
"""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from suno_persona._client import PersonaAPI
from suno_persona.testing._fake import FakeSuno


@pytest.fixture
def fake_suno() -> Iterator[FakeSuno]:
    """A `FakeSuno` for one test, on a loopback port."""
    with FakeSuno() as fake:
        yield fake


def async_fixture(function: Callable[[FakeSuno], AsyncIterator[PersonaAPI]]) -> object:
    """Make a pytest-asyncio fixture, or one that fails if pytest-asyncio is not installed."""
    try:
        import pytest_asyncio
    except ModuleNotFoundError:
        # pytest loads this module in every project that has the package: only a test that uses the fixture may fail.
        def missing() -> None:
            pytest.fail(f"{function.__name__} needs pytest-asyncio: pip install 'suno-persona[testing]'")

        return pytest.fixture(missing, name=function.__name__)
    return pytest_asyncio.fixture(function)


@async_fixture
async def persona_api(fake_suno: FakeSuno) -> AsyncIterator[PersonaAPI]:
    """A `PersonaAPI` for `fake_suno`."""
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url) as api:
        yield api
