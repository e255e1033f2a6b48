"""What an app for workers is made of, and what it says where that cannot be used."""

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
def test_an_argument_that_cannot_be_used_is_refused(arguments: dict[str, Any], reason: str) -> None:
    """The error says what was found and what is expected."""
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
def test_an_environment_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], reason: str
) -> None:
    """The variable is named."""
    from suno_persona import distributed

    monkeypatch.delitem(vars(distributed), "app", raising=False)  # which another test has made
    for name, value in {"SUNO_JOURNAL_URL": "postgresql://host/x", **env}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=reason):
        _ = distributed.app
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = distributed.nothing


def test_a_missing_extra_is_named() -> None:
    """Who has not procrastinate is told what to install."""
    code = "import sys; sys.modules['procrastinate'] = None; import suno_persona.distributed"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'suno-persona[distributed]'" in done.stderr.splitlines()[-1]
