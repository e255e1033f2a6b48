"""The output of `batch` and `results`: one JSON line per outcome, each written whole, so that others can read along."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

import typer

from suno_persona.cli._running import discard_stdout, json_for
from suno_persona.conversion import converter, dump_json, dump_request, parse_json
from suno_persona.errors import ConfigurationError
from suno_persona.models import Outcome

OutputOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="OUT.jsonl",
        help="The file for the outcomes, one JSON line each; appended to if it exists. - is stdout, the default.",
    ),
]
"""The output file of a command."""

STDOUT = Path("-")
"""The output file that is stdout."""

_START = b'{"key":"'


class Output:
    """A file of outcomes, or stdout. An existing file is appended to, without the lines that it already has.

    If the outcome of a request has changed, a line is added: the last one counts.
    """

    def __init__(self, write: Callable[[bytes], object], last: dict[int, int]) -> None:
        self._write = write
        self._last = last  # the digest of each key's last line; hashes take a third of the memory

    @classmethod
    def open(cls, path: Path | None) -> Self:
        """Open the file. Raises `ConfigurationError` if it cannot be written or has other content."""
        if path is None or path == STDOUT:
            return cls(_to_stdout, {})
        try:
            if path.is_fifo() or path.is_socket() or (path.is_char_device() and str(path) != os.devnull):
                kind = "device" if path.is_char_device() else "pipe"
                message = f"--output must be a regular file, as it is read, too; got the {kind} {path}"
                raise ConfigurationError(message=message)
            file = path.open("ab+", buffering=0)
            last = _read_back(file.fileno(), path)
        except OSError as error:
            message = f"--output must be a writable file; got {path} ({error.strerror})"
            raise ConfigurationError(message=message) from error
        return cls(lambda line: _write_whole(file.fileno(), line), last)

    def add(self, outcome: Outcome, line: int | None = None, custom_id: str | None = None) -> None:
        """Write an outcome unless it was written before. Raises `ConfigurationError` if that fails.

        `line` is the line of the input that has the request, and `custom_id` what the user calls it.
        """
        error = outcome.error
        document: dict[str, object] = {
            "key": outcome.key,
            "line": line,
            "custom_id": custom_id,
            "state": state_of(outcome),
            "persona_id": outcome.persona.id if outcome.persona else getattr(error, "persona_id", None),
        }
        if _digest(document) == self._last.get(hash(outcome.key)):
            return
        document["request_id"] = outcome.request_id
        document["request"] = parse_json(dump_request(outcome.request))  # as it is sent
        if outcome.persona is not None:
            document["persona"] = converter.unstructure(outcome.persona)
        if error is not None:
            fields = ("message", "status", "code", "attempts")
            document["error"] = {
                "type": type(error).__name__,
                **{name: getattr(error, name) for name in fields if getattr(error, name, None) is not None},
            }
        try:
            self._write(dump_json(document) + b"\n")
        except OSError as failure:
            discard_stdout()
            message = f"the output cannot be written: {failure.strerror or failure}"
            raise ConfigurationError(message=message) from failure


def named(path: Path | None) -> str:
    """Return what messages call the output."""
    return "the output" if path is None or path == STDOUT else str(path)


def state_of(outcome: Outcome) -> Literal["created", "not_created", "unknown"]:
    """Return the state of a request, as the journal calls it."""
    if outcome.error is None:
        return "created"
    return "unknown" if outcome.error.may_have_created else "not_created"


def _digest(document: dict[str, object]) -> int:
    return hash((document.get("custom_id"), document["state"], document["persona_id"]))


def _read_back(file: int, path: Path) -> dict[int, int]:
    """Return the digests of the lines in a file. A torn last line, as of a power cut, is removed."""
    last: dict[int, int] = {}
    end = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n") and (line.startswith(_START) or _START.startswith(line.strip(b"\0"))):
                os.ftruncate(file, end)
                break
            document = _parsed(line)
            if document is None:
                message = f"--output must be a file that `batch` wrote; got another line at {path}:{number}"
                raise ConfigurationError(message=message)
            last[hash(document["key"])] = _digest(document)
            end += len(line)
    return last


def _parsed(line: bytes) -> dict[str, object] | None:
    try:
        document = parse_json(line)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    members = [document.get("custom_id"), *(document.get(name, 0) for name in ("key", "state", "persona_id"))]
    return document if all(isinstance(value, str | None) for value in members) else None


def _write_whole(file: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(file, rest) :]


def _to_stdout(line: bytes) -> None:
    if sys.stdout is None:  # the shell closed it
        raise OSError("it is closed")
    if sys.stdout.isatty():
        # Through rich, which keeps its progress bar below.
        print(json_for(sys.stdout, line.decode()), end="")
    else:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
