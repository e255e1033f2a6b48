"""The `suno-persona` command in this process, and programs in their own, run as a user runs them."""

import asyncio
import io
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import attrs
import pytest

from suno_persona.cli import main

COMMAND = str(Path(sys.executable).with_name("suno-persona"))
CREATE = ("create", "--root-clip-id", "54834687", "--name", "Neon", "--description", "Night drive")

_one_at_a_time = threading.Lock()


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


async def run_process(*command: str, env: Mapping[str, str]) -> Done:
    """Run a program to completion in a process of its own."""
    process = await start(*command, env=env)
    output, errors = await process.communicate()
    return Done(process.returncode or 0, output.decode(), errors.decode())


async def run(*command: str, env: Mapping[str, str], stdin: bytes = b"") -> Done:
    """Run a program to completion: `COMMAND` in a thread, which saves a second each time, others in a process.

    The thread has the streams, environment and loggers of a process. Signals do not reach it, and one runs at a time:
    use `start` or `run_process` for signals, for commands that run at the same time, and for how an interpreter ends.
    """
    if command[0] != COMMAND:
        return await run_process(*command, env=env)
    assert not [name for name in env if name.startswith("PYTHON")], "only a new interpreter reads it: use run_process"
    return await asyncio.get_running_loop().run_in_executor(None, _run, command, env, stdin)


def _run(command: tuple[str, ...], env: Mapping[str, str], stdin: bytes) -> Done:
    with (
        _one_at_a_time,
        tempfile.TemporaryFile() as output,  # the command also uses the descriptors of its streams
        tempfile.TemporaryFile() as errors,
        os.fdopen(os.dup(output.fileno()), "w", encoding="utf-8") as stdout,
        os.fdopen(os.dup(errors.fileno()), "w", encoding="utf-8") as stderr,
        pytest.MonkeyPatch.context() as patch,
        _loggers(),
    ):
        wanted = {**environment(), "COLUMNS": "80", **env}
        for name in os.environ.keys() - wanted.keys():
            patch.delenv(name)
        for name, value in wanted.items():
            if os.environ.get(name) != value:
                patch.setenv(name, value)
        patch.setattr(sys, "argv", list(command))
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        patch.setattr(signal, "signal", lambda *_: None)  # only the main thread may call it
        patch.setitem(sys.modules, "__main__", ModuleType("__main__"))  # under `python -m pytest`, help would name it
        status: object = "the command did not exit"
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        finally:
            sys.stderr.flush()  # the command has replaced it
            stdout.flush()
        assert isinstance(status, int), status
        for file in (output, errors):
            file.seek(0)
        return Done(status, output.read().decode(), errors.read().decode())


@contextmanager
def _loggers() -> Iterator[None]:
    """Let the command log as in a process of its own, and remove the handlers that it adds."""
    changed = [logging.getLogger(name) for name in ("suno_persona", "procrastinate", "psycopg.pool")]
    before = [(logger.handlers[:], logger.level) for logger in changed]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging, "lastResort", _LastResort(logging.root.handlers))
        patch.setattr(logging.root, "handlers", [])
        try:
            yield
        finally:
            for logger, (handlers, level) in zip(changed, before, strict=True):
                logger.handlers[:] = handlers
                logger.setLevel(level)


class _LastResort(logging.Handler):
    """Handles records that have no other handler: a test's as pytest does, a command's on stderr as Python does."""

    def __init__(self, of_test: list[logging.Handler]) -> None:
        super().__init__()
        self._of_test = of_test

    def emit(self, record: logging.LogRecord) -> None:
        """Handle a record as the thread's process would."""
        if threading.current_thread() is threading.main_thread():
            for handler in self._of_test:
                if record.levelno >= handler.level:
                    handler.handle(record)
        elif record.levelno >= logging.WARNING:
            print(self.format(record), file=sys.stderr)


async def until(words: bytes, stream: asyncio.StreamReader | None) -> bytes:
    """Read a stream until it contains these words, and return what was read."""
    assert stream is not None
    read = b""
    while words not in read:
        line = await stream.readline()
        assert line, read
        read += line
    return read
