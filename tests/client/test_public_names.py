"""The public names are those that are promised, and importing them imports no extra."""

import subprocess
import sys
import types

import suno_persona
import suno_persona.testing

NAMES = [
    *("AuthenticationError", "Clip", "ClipMetadata", "ConfigurationError", "ConnectionFailedError"),
    *("ConnectionLostError", "CreatePersonaRequest", "InvalidRequestError", "JournalError", "NotCreatedError"),
    *("NotFoundError", "Outcome", "OutcomeUnknownError", "PermissionDeniedError", "Persona", "PersonaAPI"),
    *("PersonaClip", "PersonaError", "RateLimitedError", "RejectedError", "ResponseTimeoutError", "RetryPolicy"),
    *("ServerError", "ServiceUnavailableError", "UnreadableResponseError", "UsageError", "dumps", "loads", "to_dict"),
]
EXTRAS = {"click", "rich", "jinja2", "pytest", "pytest_asyncio", "aiohttp.web", "aiolimiter", "sqlalchemy", "psycopg"}


def test_the_public_names_are_these() -> None:
    """`__all__` is complete and sorted, and the package has no other public name."""
    assert suno_persona.__all__ == NAMES == sorted(NAMES)
    public = {name: value for name, value in vars(suno_persona).items() if not name.startswith("_")}
    assert {name for name, value in public.items() if not isinstance(value, types.ModuleType)} == set(NAMES)
    assert suno_persona.testing.__all__ == ["FakeSuno", "Fault", "ReceivedRequest"]


def test_importing_the_package_imports_no_extra() -> None:
    """An extra that is not used need not be installed."""
    code = "import sys, suno_persona; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not EXTRAS & set(done.stdout.split())
