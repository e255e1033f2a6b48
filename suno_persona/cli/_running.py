"""Shared by all commands: print, report an error in one line, and print commands that can be pasted."""

import io
import json
import os
import re
import shlex
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from suno_persona.conversion import dump_json
from suno_persona.errors import InvalidRequestError, NotCreatedError, OutcomeUnknownError, PersonaError, UsageError

if TYPE_CHECKING:
    from rich.console import Console


class OrderedGroup(click.Group):
    """A group of commands in the order in which a user meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)


# JSON allows these in text, although a terminal may obey them: DEL, C1 controls, and marks of direction.
_OBEYED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def report(text: str) -> None:
    """Print one line on stderr."""
    print(f"suno-persona: {printable(text)}", file=sys.stderr)


def printable(text: str) -> str:
    """Escape line breaks and control characters, which a file name may contain."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the singular or the plural."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def json_line(document: object) -> str:
    """Return a document as a line of JSON, without anything that a terminal obeys."""
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", dump_json(document).decode())


def print_json(document: object) -> None:
    """Print a document as a line of JSON, in whatever encoding stdout has."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json_line(document) if is_unicode else json.dumps(document).replace("\x7f", r"\u007f"), flush=True)


def console(*, stderr: bool = False) -> "Console":
    """Return a console that prints text as it is: neither markup nor emoji codes."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to `main`, as for any other output."""
            raise  # rich calls this while it handles the error

    return Plain(stderr=stderr, markup=False, emoji=False, highlight=False)


class _Tolerant(io.FileIO):
    """A file whose reader may be gone, and whose disk may be full: it drops bytes that it cannot write."""

    def write(self, data: Any, /) -> int:
        """Write, and ignore errors."""
        with suppress(OSError):
            if (written := super().write(data)) is not None:
                return written
        return memoryview(data).nbytes


def prepare_streams() -> None:
    """Let no text and no error of stderr end a command: its exit status must be that of the personas."""
    if sys.stderr is None:  # the shell closed it
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    else:
        file = io.BufferedWriter(_Tolerant(sys.stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(file, sys.stderr.encoding, "backslashreplace", line_buffering=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an ASCII terminal must not lose an id


def discard_stdout() -> None:
    """Drop the buffer of stdout: Python flushes it at exit, which would fail again."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def journal_arguments(url: str) -> list[str]:
    """Return how a printed command names the journal: not if the environment does, or if the URL has a password."""
    from suno_persona.journal import Journal

    has_password = Journal(url).has_password
    return [] if has_password or url == os.environ.get("SUNO_JOURNAL_URL") else ["--journal", url]


def typed_again(context: click.Context, *, without: Collection[str] = ()) -> str:
    """Return the command as it was typed, to be pasted. Variables are left out: they are still set."""
    words = context.command_path.split()
    for parameter in context.command.params:
        name, value = parameter.name or "", context.params.get(parameter.name or "")
        if name in without or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if name == "journal":
            words += journal_arguments(str(value))
        elif isinstance(parameter, click.Argument):
            words.append(f"./{value}" if str(value).startswith("-") and value != Path("-") else str(value))
        else:
            option = max(parameter.opts, key=len)
            words += [option] if value is True else [option, _typed(value)]
    return shlex.join(words)


def _typed(value: object) -> str:
    """Return the value of an option as text, without the password of a URL."""
    text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return re.sub(r"(?<=://)[^/@]*@", "***@", text)


def status_of(counts: Mapping[str, int]) -> int:
    """Return the exit status of a batch. 0: all created; 1: some were not created; 3: some are unknown."""
    return 3 if counts["unknown"] else 1 if counts["not_created"] else 0


def status_of_error(error: PersonaError) -> int:
    """Return the exit status of a command that an error ended."""
    match error:
        case InvalidRequestError() | UsageError():
            return 2
        case NotCreatedError():
            return 1
        case OutcomeUnknownError():
            return 3
        case _:
            return 2
