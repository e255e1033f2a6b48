"""The rows of a batch file, CSV or JSON Lines, as requests; with a reason for each row that is none.

It reads as a stream: a million rows take no more memory than one.
"""

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, TypeAlias

import typer

from suno_persona.cli._running import printable
from suno_persona.conversion import REQUEST_MEMBERS, REQUIRED_MEMBERS, parse_json, to_request
from suno_persona.errors import ConfigurationError, InvalidRequestError
from suno_persona.models import CreatePersonaRequest

Row: TypeAlias = tuple[int, CreatePersonaRequest | InvalidRequestError]
"""The line that a row begins on, and its request, or why it has none."""

FileArgument: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FILE", help="The requests: CSV with a header row, or JSON Lines.")
]
"""The file of a command that takes rows."""

_SUFFIXES = (".csv", ".jsonl", ".ndjson")


def read_rows(file: IO[bytes], suffix: str) -> Iterator[Row]:
    """Give the rows of a file, in their order. A file without any has one row that says so."""
    rows = _csv_rows(file) if suffix == ".csv" else _json_rows(file)
    nothing = True
    for row in rows:
        nothing = False
        yield row
    if nothing:
        yield 1, _bad("expected at least one request, found none")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file of rows. Raises `ConfigurationError` where that cannot be."""
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise _refuse(path, "a file whose name ends in .csv or .jsonl", f"{suffix or 'neither'}")
    try:
        file = path.open("rb")
    except OSError as error:
        raise _refuse(path, "a file", f"an error: {error.strerror}") from error
    with file:
        if not file.seekable():
            raise _refuse(path, "a file, which is read twice", "a pipe")
        yield file


def _refuse(path: Path, expected: str, found: str) -> ConfigurationError:
    return ConfigurationError(message=f"{path}: expected {expected}, found {found}")


def check(file: IO[bytes], path: Path) -> int:
    """Count the rows. Those that cannot be used are told, all of them, and refused."""
    total = bad = 0
    for line, request in read_rows(file, path.suffix.lower()):
        total += 1
        if isinstance(request, InvalidRequestError):
            bad += 1
            print(printable(f"{path}:{line}: {request}"), file=sys.stderr)
    if bad:
        raise ConfigurationError(message=f"nothing was sent: {bad} of {total} rows cannot be used")
    file.seek(0)
    return total


def read_checked(file: IO[bytes], path: Path, total: int) -> Iterator[tuple[int, CreatePersonaRequest]]:
    """Give the lines and requests of a file that was checked. Raises `InvalidRequestError` where it is another one now.

    No more than the `total` that was counted are given.
    """
    number = 0
    for number, (line, request) in enumerate(read_rows(file, path.suffix.lower()), start=1):
        if isinstance(request, InvalidRequestError):
            raise InvalidRequestError(message=f"{path}:{line}: the file was changed meanwhile: {request}")
        if number > total:
            break
        yield line, request
    if number != total:
        message = f"{path}: the file was changed meanwhile: expected {total} rows, found another number"
        raise InvalidRequestError(message=message)


def _json_rows(file: IO[bytes]) -> Iterator[Row]:
    for line, data in enumerate(file, start=1):
        if line == 1:
            data = data.removeprefix(b"\xef\xbb\xbf")
        if not data.strip():
            continue
        try:
            yield line, to_request(parse_json(data.decode()))
        except InvalidRequestError as error:
            yield line, error
        except ValueError as error:
            yield line, _bad(str(error))


def _csv_rows(file: IO[bytes]) -> Iterator[Row]:
    reader = csv.reader(_text(file), strict=True)
    columns: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
            if cells is None:
                return
            if not any(cells):  # an empty line, or what spreadsheets leave of one
                continue
            for cell in cells:
                cell.encode()
            if columns is None:
                columns = _columns(cells)
            else:
                yield line, _request(columns, cells)
        except UnicodeEncodeError as error:
            byte = ord(error.object[error.start]) - 0xDC00  # as `surrogateescape` has it
            yield line, _bad(f"expected UTF-8, found the byte 0x{byte:02x}")
        except csv.Error as error:
            yield line, _bad(f"expected CSV, found an error: {error}")
        except InvalidRequestError as error:
            yield line, error
        if columns is None:
            return  # without its header no row can be read


def _text(file: IO[bytes]) -> Iterator[str]:
    for number, data in enumerate(file):
        yield data.decode("utf-8" if number else "utf-8-sig", errors="surrogateescape")


def _columns(cells: list[str]) -> list[str]:
    for name in cells:
        if name not in REQUEST_MEMBERS:
            raise _bad(f"expected a header with columns of {', '.join(REQUEST_MEMBERS)}, found the column {name!r}")
        if cells.count(name) > 1:
            raise _bad(f"expected each column once, found {name} again")
    for name in REQUIRED_MEMBERS:
        if name not in cells:
            raise _bad(f"expected a header with the column {name}, found none")
    return cells


def _request(columns: list[str], cells: list[str]) -> CreatePersonaRequest:
    if len(cells) != len(columns):
        raise _bad(f"expected {len(columns)} cells, as in the header, found {len(cells)}")
    document: dict[str, object] = dict(zip(columns, cells, strict=True))
    if clips := document.pop("clips", ""):
        document["clips"] = str(clips).split()
    if public := document.pop("is_public", ""):
        flags = {"true": True, "false": False}
        if str(public).lower() not in flags:
            raise _bad(f"is_public: expected true or false, found {public!r}")
        document["is_public"] = flags[str(public).lower()]
    return to_request(document)


def _bad(reason: str) -> InvalidRequestError:
    return InvalidRequestError(message=reason)
