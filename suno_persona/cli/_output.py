"""The outcomes that `batch` and `results` write: one JSON line each, written whole, so that others can read along."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from suno_persona.cli._records import InputRow, document_of_outcome
from suno_persona.cli._running import discard_stdout, json_line, print_json
from suno_persona.errors import ConfigurationError
from suno_persona.models import Outcome

STDOUT = Path("-")
"""The output file that is stdout."""

output_option = click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="OUT.jsonl",
    help="Write the outcomes to this file, one JSON line each; an existing file is replaced. - is stdout, the default"
    " unless it is a terminal.",
)


class Output:
    """The destination of the outcomes of one run."""

    def __init__(self, write: Callable[[object], None] | None, *, is_terminal: bool = False) -> None:
        self._write = write
        self.is_discarded: bool = write is None
        """Whether the outcomes go nowhere: stdout is a terminal, which the progress needs."""
        self.is_terminal: bool = is_terminal
        """Whether they go to a terminal."""

    def add(self, outcome: Outcome, row: InputRow) -> None:
        """Write an outcome. Raises `ConfigurationError` if that fails; a reader that has left is no failure."""
        if self._write is None:
            return
        try:
            self._write(document_of_outcome(outcome, row))
        except BrokenPipeError:
            self._write = None
            discard_stdout()
        except OSError as error:
            discard_stdout()
            raise ConfigurationError(message=f"the output cannot be written: {error.strerror or error}") from error


@contextmanager
def opened_output(path: Path | None) -> Iterator[Output]:
    """Open a file for the outcomes of one run, empty, and locked until the end; or stdout.

    Raises `ConfigurationError` if it cannot be written, or if another command writes it.
    """
    if path is None or path == STDOUT:
        is_terminal = sys.stdout is not None and sys.stdout.isatty()
        write = print_json if is_terminal else _to_stdout
        yield Output(None if is_terminal and path is None else write, is_terminal=is_terminal and path is not None)
        return
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            _lock(descriptor)
            os.ftruncate(descriptor, 0)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigurationError(message=f"another command is writing --output {path}") from error
    except OSError as error:
        message = f"--output must be a writable file; got {path} ({error.strerror})"
        raise ConfigurationError(message=message) from error
    try:
        yield Output(partial(_to_file, descriptor))
    finally:
        os.close(descriptor)


def require_different_files(file: Path | None, journal: str, output: Path | None) -> None:
    """Raise `ConfigurationError` if two of them are one file, which would be written over."""
    names = [os.path.realpath(path) for path in (file, journal, output) if path and path != STDOUT]
    if len(set(names)) < len(names):
        raise ConfigurationError(message=f"input, journal and output must be different files; got {', '.join(names)}")


def _lock(descriptor: int) -> None:
    """Lock a file until it is closed. Raises `BlockingIOError` if another process has locked it."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 2**31 - 2, os.SEEK_SET)  # a lock keeps others from reading these bytes, too
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _to_file(descriptor: int, document: object) -> None:
    rest = memoryview(f"{json_line(document)}\n".encode())
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _to_stdout(document: object) -> None:
    if sys.stdout is None:  # the shell closed it
        raise OSError("it is closed")
    sys.stdout.buffer.write(f"{json_line(document)}\n".encode())
    sys.stdout.buffer.flush()
