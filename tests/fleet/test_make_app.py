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


def test_a_missing_extra_is_named() -> None:
    """Importing `suno_persona.distributed` without procrastinate raises an error that names the extra."""
    code = "import sys; sys.modules['procrastinate'] = None; import suno_persona.distributed"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'suno-persona[distributed]'" in done.stderr.splitlines()[-1]
