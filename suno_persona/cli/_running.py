"""How every command ends: with its output, or with one line on stderr and an exit status."""

import asyncio
import io
import os
import sys
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO, TypeVar

import typer

from suno_persona.errors import InvalidRequestError, NotCreatedError, OutcomeUnknownError, PersonaError, UsageError

_T = TypeVar("_T")


@contextmanager
def reporting_errors(interrupted: str = "") -> Iterator[None]:
    """Turn an error that ends the block into one line on stderr and an exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal must not lose a persona that was paid for
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()  # while an error can still be reported
    except KeyboardInterrupt:
        if interrupted:
            report(f"interrupted: {interrupted}")
        raise typer.Exit(130) from None
    except PersonaError as error:
        report(str(error))
        raise typer.Exit(_status_of_error(error)) from None


def run(work: Coroutine[None, None, _T], interrupted: str = "") -> _T:
    """Run the work of a command in an event loop, and return its result."""
    with reporting_errors(interrupted):
        return asyncio.run(work)


def report(text: str) -> None:
    """Print one line on stderr."""
    print(f"suno-persona: {printable(text)}", file=sys.stderr)


def printable(text: str) -> str:
    """Escape line breaks and control characters, which a file name may contain."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def requests_in_words(number: int) -> str:
    """Say how many requests."""
    return f"{number} request{'' if number == 1 else 's'}"


def json_for(stream: TextIO, text: str) -> str:
    """Escape, as JSON does it, what a stream cannot encode and what a terminal would obey."""
    encoding = stream.encoding or getattr(sys.__stdout__, "encoding", "utf-8")  # rich's stand-in for stdout has none

    def escaped(each: str) -> str:
        if each == "\n" or (each.isprintable() and each.encode(encoding, "ignore")):
            return each
        units = each.encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))

    return "".join(map(escaped, text))


class _Tolerant(io.FileIO):
    """A file whose reader may be gone, and whose disk may be full: what it cannot take is lost."""

    def write(self, data: Any, /) -> int:
        """Write what can be written."""
        with suppress(OSError):
            if (written := super().write(data)) is not None:
                return written
        return memoryview(data).nbytes


def tolerate_stderr() -> None:
    """Let no error of stderr end a command: its exit status says what became of the personas."""
    if sys.stderr is None:  # the shell closed it
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    else:
        file = io.BufferedWriter(_Tolerant(sys.stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(file, sys.stderr.encoding, "backslashreplace", line_buffering=True)


def journal_arguments(url: str, *option: str) -> list[str]:
    """Return how a printed command names the journal: not at all if the environment does, or if it has a password."""
    from suno_persona.journal import Journal

    has_password = "***" in repr(Journal(url))
    return [] if has_password or url == os.environ.get("SUNO_JOURNAL_URL") else [*option, url]


def discard_stdout() -> None:
    """Drop what stdout has buffered: Python flushes it at exit, which would fail again."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def status_of(counts: Mapping[str, int]) -> int:
    """Return the exit status of a batch. 0: all created; 1: some were not created; 3: some are unknown."""
    return 3 if counts["unknown"] else 1 if counts["not_created"] else 0


def _status_of_error(error: PersonaError) -> int:
    match error:
        case InvalidRequestError() | UsageError():
            return 2
        case NotCreatedError():
            return 1
        case OutcomeUnknownError():
            return 3
        case _:
            return 2
