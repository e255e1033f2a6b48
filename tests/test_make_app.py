"""`make_app` builds an app for workers, or raises an error that says why it cannot."""

import subprocess
import sys
from typing import Any

import pytest

from suno_persona import (
    ConfigurationError,
)
from suno_persona.distributed import make_app

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"journal_url": "personas.db"}, "must be the URL of a PostgreSQL database; got personas.db"),
        ({"concurrency": 0}, "concurrency must be an integer >= 1; got 0"),
        ({"stalled_worker_timeout": 0.5}, "stalled_worker_timeout must be an integer >= 1; got 0.5"),
    ],
)
def test_an_invalid_argument_is_a_configuration_error(arguments: dict[str, Any], reason: str) -> None:
    """The error says what the argument must be, and what it got."""
    with pytest.raises(ConfigurationError, match=reason):
        make_app(**{"journal_url": "postgresql://host/x", **arguments})


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"SUNO_JOURNAL_URL": ""}, "SUNO_JOURNAL_URL must be the URL of a PostgreSQL database; got none"),
        ({"SUNO_MAX_CONNECTIONS": "many"}, "SUNO_MAX_CONNECTIONS must be an integer >= 1; got 'many'"),
        ({"SUNO_RATE_LIMIT": "60"}, "SUNO_RATE_LIMIT must be requests/seconds, such as 60/60; got '60'"),
    ],
)
def test_an_invalid_variable_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], reason: str
) -> None:
    """The error names the variable."""
    from suno_persona import distributed

    monkeypatch.delitem(vars(distributed), "app", raising=False)  # another test may have made it
    for name, value in {"SUNO_JOURNAL_URL": "postgresql://host/x", **env}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=reason):
        _ = distributed.app
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = distributed.nothing


def test_a_missing_extra_is_named() -> None:
    """Importing `suno_persona.distributed` without procrastinate raises an error that names the extra."""
    code = "import sys; sys.modules['procrastinate'] = None; import suno_persona.distributed"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'suno-persona[distributed]'" in done.stderr.splitlines()[-1]
