"""What `batch` writes: a JSON line for each outcome, each written whole, so that others may read while it grows."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

import typer

from suno_persona._batch import Outcome
from suno_persona.conversion import converter, dump_json, parse_json
from suno_persona.errors import ConfigurationError

OutputOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="OUT.jsonl",
        help="The file for a JSON line of each outcome, continued where it is there; stdout unless given.",
    ),
]
"""The file that a command writes outcomes to."""

_START = b'{"key":"'


class Output:
    """A file of outcomes, or stdout. A file that is there is continued, and no line of it is written again.

    Where the outcome of a request is another one than before, a line is added: the last one counts.
    """

    def __init__(self, write: Callable[[bytes], object], last: dict[int, int]) -> None:
        self._write = write
        self._last = last  # of each key, what its last line says; hashes take a third of the memory

    @classmethod
    def open(cls, path: Path | None) -> Self:
        """Raises `ConfigurationError` where the file cannot be written, or holds something else."""
        if path is None:
            return cls(_to_stdout, {})
        try:
            if path.is_fifo() or path.is_socket():
                raise ConfigurationError(message=f"{path}: expected a file, which is read too, found a pipe")
            file = path.open("ab+", buffering=0)
            last = _continue(file.fileno(), path)
        except OSError as error:
            message = f"{path}: expected a file that can be written, found an error: {error.strerror}"
            raise ConfigurationError(message=message) from error
        return cls(lambda line: _write_whole(file.fileno(), line), last)

    def add(self, key: str, line: int | None, outcome: Outcome) -> None:
        """Write an outcome, unless it is there. Raises `OSError` where that fails."""
        document: dict[str, object] = {"key": key, "line": line, "state": state_of(outcome)}
        error = outcome.error
        document["persona_id"] = outcome.persona.id if outcome.persona else getattr(error, "persona_id", None)
        if _told(document) == self._last.get(hash(key)):
            return
        document["request"] = converter.unstructure(outcome.request)
        if outcome.persona is not None:
            document["persona"] = converter.unstructure(outcome.persona)
        if error is not None:
            fields = ("message", "status", "code", "request_id", "attempts")
            document["error"] = {
                "type": type(error).__name__,
                **{name: getattr(error, name) for name in fields if getattr(error, name, None) is not None},
            }
        self._write(dump_json(document) + b"\n")


def state_of(outcome: Outcome) -> Literal["created", "not_created", "unknown"]:
    """The state of the request, as the journal calls it."""
    if outcome.error is None:
        return "created"
    return "unknown" if outcome.error.may_have_created else "not_created"


def _told(document: dict[str, object]) -> int:
    return hash((document["state"], document["persona_id"]))


def _continue(file: int, path: Path) -> dict[int, int]:
    """What the file tells already. A last line that was cut off, as by a power cut, is taken away."""
    last: dict[int, int] = {}
    end = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n") and (line.startswith(_START) or _START.startswith(line.strip(b"\0"))):
                os.ftruncate(file, end)
                break
            document = _parsed(line)
            if document is None:
                message = f"{path}:{number}: expected an outcome that `batch` wrote, found something else"
                raise ConfigurationError(message=message)
            last[hash(document["key"])] = _told(document)
            end += len(line)
    return last


def _parsed(line: bytes) -> dict[str, object] | None:
    try:
        document = parse_json(line)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    told = (document.get(name, 0) for name in ("key", "state", "persona_id"))
    return document if all(isinstance(value, str | None) for value in told) else None


def _write_whole(file: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(file, rest) :]


def _to_stdout(line: bytes) -> None:
    if sys.stdout is None:  # as Python has it where the shell closed it
        raise OSError("it is closed")
    if sys.stdout.isatty():
        print(line.decode(), end="")  # rich may have put itself between, and keeps its bar below
    else:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
