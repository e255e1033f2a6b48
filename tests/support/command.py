"""The `suno-persona` command and other programs, run as a user runs them."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs

COMMAND = str(Path(sys.executable).with_name("suno-persona"))
CREATE = ("create", "--root-clip-id", "54834687", "--name", "Neon", "--description", "Night drive")


@attrs.frozen
class Done:
    """The exit status of a command, and what it printed."""

    status: int
    output: str
    errors: str


def environment() -> dict[str, str]:
    """Return the tests' environment, without the variables that change what the command does or prints."""
    ours = ("COLUMNS", "FORCE_COLOR", "NO_COLOR")
    return {name: value for name, value in os.environ.items() if not name.startswith("SUNO_") and name not in ours}


async def start(*command: str, env: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Start a program that only the test configures."""
    return await asyncio.create_subprocess_exec(
        *command,
        env={**environment(), "COLUMNS": "80", **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(*command: str, env: Mapping[str, str]) -> Done:
    """Run a program to completion."""
    process = await start(*command, env=env)
    output, errors = await process.communicate()
    return Done(process.returncode or 0, output.decode(), errors.decode())


async def until(words: bytes, stream: asyncio.StreamReader | None) -> bytes:
    """Read a stream until it contains these words, and return what was read."""
    assert stream is not None
    read = b""
    while words not in read:
        line = await stream.readline()
        assert line, read
        read += line
    return read
