"""How every command ends: with what it gives, or with one line of error and an exit status."""

import asyncio
import io
import os
import sys
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import typer

from suno_persona.errors import NotCreatedError, OutcomeUnknownError, PersonaError

_T = TypeVar("_T")


@contextmanager
def ending_well(interrupted: str = "") -> Iterator[None]:
    """Turn what stops the block into a line on stderr and an exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no terminal is too old for an answer that was paid for
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()  # while an error can still be told
    except KeyboardInterrupt:
        if interrupted:
            say(f"interrupted: {interrupted}")
        raise typer.Exit(130) from None
    except PersonaError as error:
        say(str(error))
        raise typer.Exit(exit_status(error)) from None


def run(work: Coroutine[None, None, _T], interrupted: str = "") -> _T:
    """Do a command's work."""
    with ending_well(interrupted):
        return asyncio.run(work)


def say(text: str) -> None:
    """Tell the user on stderr, in one line."""
    print(f"suno-persona: {printable(text)}", file=sys.stderr)


def printable(text: str) -> str:
    """The text without line breaks and without what a terminal would obey: the name of a file may hold either."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def named(journal: str, *option: str) -> list[str]:
    """How a printed command names a journal: not at all where the environment does, or where it has a password."""
    from suno_persona.journal.database import database_url, shown

    is_secret = "***" in shown(database_url(journal))
    return [] if is_secret or journal == os.environ.get("SUNO_JOURNAL_URL") else [*option, journal]


def forget_stdout() -> None:
    """Let what stdout did not take be lost: Python flushes it once more at the end, and would fail again."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def status_of(counts: Mapping[str, int]) -> int:
    """0: all created; 1: some were not; 3: nobody knows of some."""
    return 3 if counts["unknown"] else 1 if counts["not_created"] else 0


def exit_status(error: PersonaError) -> int:
    """1: not created; 3: nobody knows; 2: usage, configuration or input, so that nothing was sent."""
    match error:
        case NotCreatedError():
            return 1
        case OutcomeUnknownError():
            return 3
        case _:
            return 2
