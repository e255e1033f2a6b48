"""The rows of a batch file, CSV or JSON Lines, as requests; with a reason for each row that is not a request.

The file is read as a stream: a million rows take no more memory than one.
"""

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, TypeAlias

import attrs
import typer

from suno_persona._checks import REQUEST_MEMBERS, REQUIRED_MEMBERS
from suno_persona.cli._running import printable
from suno_persona.conversion import parse_json, to_request
from suno_persona.errors import ConfigurationError, InvalidRequestError
from suno_persona.models import CreatePersonaRequest

Row: TypeAlias = tuple[int, CreatePersonaRequest | InvalidRequestError]
"""The line that a row begins on, and its request or the reason why it is none."""

FileArgument: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FILE", help="The requests: CSV with a header row, or JSON Lines.")
]
"""The input file of a command."""

_EXTRA = "extra."
_MEMBERS = f"{', '.join(REQUEST_MEMBERS)} or {_EXTRA}NAME"

_SUFFIXES = (".csv", ".jsonl", ".ndjson")


def read_rows(file: IO[bytes], suffix: str) -> Iterator[Row]:
    """Yield the rows of a file in order. An empty file yields one row with that reason."""
    rows = _csv_rows(file) if suffix == ".csv" else _json_rows(file)
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        yield 1, _bad("the file must have at least one request; got none")


@attrs.frozen
class CheckedRows:
    """A file in which every row was found to be a request; iterate over it for the line and request of each."""

    path: Path
    total: int
    _file: IO[bytes]

    def __iter__(self) -> Iterator[tuple[int, CreatePersonaRequest]]:
        """Read the file again. Raises `InvalidRequestError` if it has changed since it was checked."""
        number = 0
        for number, (line, request) in enumerate(read_rows(self._file, self.path.suffix.lower()), start=1):
            if isinstance(request, InvalidRequestError):
                raise InvalidRequestError(message=f"{self.path}:{line}: the file changed during the run: {request}")
            if number > self.total:
                break
            yield line, request
        if number != self.total:
            found = "more" if number > self.total else number
            message = f"{self.path}: the file changed during the run: it must have {self.total} rows; got {found}"
            raise InvalidRequestError(message=message)


@contextmanager
def checked_rows(path: Path) -> Iterator[CheckedRows]:
    """Open a file and check every row.

    Bad rows are printed to stderr, all of them. Raises `ConfigurationError` if there are any, or if the file cannot be
    read.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ConfigurationError(message=f"FILE must end in .csv, .jsonl or .ndjson; got {path}")
    try:
        file = path.open("rb")
    except OSError as error:
        message = f"FILE must be a readable file; got {path} ({error.strerror})"
        raise ConfigurationError(message=message) from error
    with file:
        if not file.seekable():
            raise ConfigurationError(message=f"FILE must be a regular file, as it is read twice; got the pipe {path}")
        total = bad = 0
        for line, request in read_rows(file, suffix):
            total += 1
            if isinstance(request, InvalidRequestError):
                bad += 1
                print(printable(f"{path}:{line}: {request}"), file=sys.stderr)
        if bad:
            raise ConfigurationError(message=f"nothing was sent: {bad} of {total} rows are not valid requests")
        file.seek(0)
        yield CheckedRows(path, total, file)


def _json_rows(file: IO[bytes]) -> Iterator[Row]:
    for line, data in enumerate(file, start=1):
        if line == 1:
            data = data.removeprefix(b"\xef\xbb\xbf")
        if not data.strip():
            continue
        try:
            yield line, _from_members(parse_json(data.decode()))
        except InvalidRequestError as error:
            yield line, error
        except UnicodeDecodeError as error:
            yield line, _bad(f"the file must be UTF-8; got the byte 0x{data[error.start]:02x}")
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
            if not any(cells):  # an empty line, or the commas that a spreadsheet leaves of one
                continue
            for cell in cells:
                cell.encode()
            if columns is None:
                columns = _columns(cells)
            else:
                yield line, _request(columns, cells)
        except UnicodeEncodeError as error:
            byte = ord(error.object[error.start]) - 0xDC00  # undoes `surrogateescape`
            yield line, _bad(f"the file must be UTF-8; got the byte 0x{byte:02x}")
        except csv.Error as error:
            yield line, _bad(f"the row must be valid CSV; got an error: {error}")
        except InvalidRequestError as error:
            yield line, error
        if columns is None:
            return  # no row can be read without the header


def _text(file: IO[bytes]) -> Iterator[str]:
    for number, data in enumerate(file):
        yield data.decode("utf-8" if number else "utf-8-sig", errors="surrogateescape")


def _columns(cells: list[str]) -> list[str]:
    for name in cells:
        if not _is_member(name):
            raise _bad(f"a column of the header must be one of {_MEMBERS}; got {name!r}")
        if cells.count(name) > 1:
            raise _bad(f"a column of the header must be unique; got {name!r} {cells.count(name)} times")
    for name in REQUIRED_MEMBERS:
        if name not in cells:
            raise _bad(f"the header must have the column {name}; got {', '.join(cells)}")
    return cells


def _request(columns: list[str], cells: list[str]) -> CreatePersonaRequest:
    if len(cells) != len(columns):
        raise _bad(f"the row must have {len(columns)} cells, as the header has; got {len(cells)}")
    document: dict[str, object] = dict(zip(columns, cells, strict=True))
    if clips := document.pop("clips", ""):
        document["clips"] = str(clips).split()
    if public := document.pop("is_public", ""):
        flags = {"true": True, "false": False}
        if str(public).lower() not in flags:
            raise _bad(f"is_public must be true or false; got {public!r}")
        document["is_public"] = flags[str(public).lower()]
    for name in [name for name in columns if name.startswith(_EXTRA)]:
        if cell := document.pop(name):
            document[name] = _value(str(cell))
    return _from_members(document)


def _value(cell: str) -> object:
    """Return what the cell of an extra member says: JSON, or else text."""
    try:
        return parse_json(cell)
    except ValueError:
        return cell


def _from_members(document: object) -> CreatePersonaRequest:
    """Return the request in a row's members; those with the prefix are the request's `extra`."""
    if not isinstance(document, dict):
        return to_request(document)
    if unknown := [name for name in document if not _is_member(name)]:
        raise _bad(f"the members of a request must be {_MEMBERS}; got {min(unknown)!r}")
    return to_request({name.removeprefix(_EXTRA): value for name, value in document.items()})


def _is_member(name: str) -> bool:
    extra = name.removeprefix(_EXTRA)
    return name in REQUEST_MEMBERS or (extra != name and extra not in ("", *REQUEST_MEMBERS))


def _bad(reason: str) -> InvalidRequestError:
    return InvalidRequestError(message=reason)
