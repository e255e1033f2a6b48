"""The rows of a batch file, CSV or JSON Lines, as requests; with a reason for each row that is not a request.

The file is read as a stream: a million rows take no more memory than one.
"""

import csv
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, TypeAlias, cast

import attrs
import typer

from suno_persona._checks import REQUEST_MEMBERS, REQUIRED_MEMBERS
from suno_persona.cli._running import printable
from suno_persona.conversion import parse_json, to_request
from suno_persona.errors import ConfigurationError, InvalidRequestError
from suno_persona.models import CreatePersonaRequest

FileArgument: TypeAlias = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="The requests: CSV with a header row, or JSON Lines. - is stdin, in either."),
]
"""The input file of a command."""

STDIN = Path("-")
"""The input file that is stdin."""

_CUSTOM_ID = "custom_id"
_EXTRA = "extra."
_MEMBERS = f"{', '.join(REQUEST_MEMBERS)}, {_CUSTOM_ID} or {_EXTRA}NAME"

_SUFFIXES = (".csv", ".jsonl", ".ndjson")


@attrs.frozen
class Row:
    """A row that is a request."""

    line: int
    """The line that it begins on."""

    request: CreatePersonaRequest

    custom_id: str | None
    """What the user calls it; it is not sent."""


@attrs.frozen
class BadRow:
    """A row that is none."""

    line: int
    reason: str


def read_rows(file: IO[bytes], suffix: str) -> Iterator[Row | BadRow]:
    """Yield the rows of a file in order. An empty file yields one row with that reason."""
    empty = True
    for line, found in _csv_rows(file) if suffix == ".csv" else _json_rows(file):
        empty = False
        yield BadRow(line, str(found)) if isinstance(found, InvalidRequestError) else Row(line, *found)
    if empty:
        yield BadRow(1, "the file must have at least one request; got none")


@attrs.frozen
class CheckedRows:
    """A file in which every row was found to be a request; iterate over it for the rows."""

    name: str
    total: int
    _file: IO[bytes]
    _suffix: str

    def __iter__(self) -> Iterator[Row]:
        """Read the file again. Raises `InvalidRequestError` if it has changed since it was checked."""
        number = 0
        self._file.seek(0)
        for number, row in enumerate(read_rows(self._file, self._suffix), start=1):
            if isinstance(row, BadRow):
                raise InvalidRequestError(
                    message=f"{self.name}:{row.line}: the file changed during the run: {row.reason}"
                )
            if number > self.total:
                break
            yield row
        if number != self.total:
            found = "more" if number > self.total else number
            message = f"{self.name}: the file changed during the run: it must have {self.total} rows; got {found}"
            raise InvalidRequestError(message=message)


@contextmanager
def checked_rows(path: Path) -> Iterator[CheckedRows]:
    """Open a file and check every row.

    Bad rows are printed to stderr, all of them. Raises `ConfigurationError` if there are any, or if the file cannot be
    read.
    """
    if path != STDIN and path.suffix.lower() not in _SUFFIXES:
        raise ConfigurationError(message=f"FILE must end in .csv, .jsonl or .ndjson, or be - for stdin; got {path}")
    try:
        file = _spooled_stdin() if path == STDIN else path.open("rb")
    except OSError as error:
        message = f"FILE must be a readable file; got {path} ({error.strerror})"
        raise ConfigurationError(message=message) from error
    with file:
        if not file.seekable():
            raise ConfigurationError(message=f"FILE must be a regular file, as it is read twice; got the pipe {path}")
        suffix = _suffix_of(file) if path == STDIN else path.suffix.lower()
        name = "stdin" if path == STDIN else str(path)
        yield CheckedRows(name, _check(file, suffix, name), file, suffix)


def _check(file: IO[bytes], suffix: str, name: str) -> int:
    """Return how many rows there are. Raises `ConfigurationError` where one is bad."""
    total = bad = 0
    for row in read_rows(file, suffix):
        total += 1
        if isinstance(row, BadRow):
            bad += 1
            print(printable(f"{name}:{row.line}: {row.reason}"), file=sys.stderr)
    if bad:
        raise ConfigurationError(message=f"nothing was sent: {bad} of {total} rows are not valid requests")
    return total


def _spooled_stdin() -> IO[bytes]:
    """Return what stdin has as a file, which can be read twice."""
    if sys.stdin is None:  # the shell closed it
        raise ConfigurationError(message="FILE must be a readable file; got - (stdin is closed)")
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    shutil.copyfileobj(sys.stdin.buffer, file)
    file.seek(0)
    return cast("IO[bytes]", file)


def _suffix_of(file: IO[bytes]) -> str:
    """Return the suffix that the content of a file deserves: an object opens a line of JSON, and no header of CSV."""
    start = next((line for line in file if line.strip(b"\xef\xbb\xbf \t\r\n")), b"").lstrip(b"\xef\xbb\xbf \t")
    file.seek(0)
    return ".jsonl" if start.startswith(b"{") else ".csv"


_Found: TypeAlias = tuple[CreatePersonaRequest, str | None] | InvalidRequestError


def _json_rows(file: IO[bytes]) -> Iterator[tuple[int, _Found]]:
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


def _csv_rows(file: IO[bytes]) -> Iterator[tuple[int, _Found]]:
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
        if name != _CUSTOM_ID and not _is_member(name):
            raise _bad(f"a column of the header must be one of {_MEMBERS}; got {name!r}")
        if cells.count(name) > 1:
            raise _bad(f"a column of the header must be unique; got {name!r} {cells.count(name)} times")
    for name in REQUIRED_MEMBERS:
        if name not in cells:
            raise _bad(f"the header must have the column {name}; got {', '.join(cells)}")
    return cells


def _request(columns: list[str], cells: list[str]) -> tuple[CreatePersonaRequest, str | None]:
    if len(cells) != len(columns):
        raise _bad(f"the row must have {len(columns)} cells, as the header has; got {len(cells)}")
    document: dict[str, object] = dict(zip(columns, cells, strict=True))
    document[_CUSTOM_ID] = document.get(_CUSTOM_ID) or None
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


def _from_members(document: object) -> tuple[CreatePersonaRequest, str | None]:
    """Return the request in a row's members, and its id; those with the prefix are the request's `extra`."""
    if not isinstance(document, dict):
        return to_request(document), None
    custom_id = document.pop(_CUSTOM_ID, None)
    if custom_id is not None and (not isinstance(custom_id, str) or not custom_id.strip()):
        raise _bad(f"{_CUSTOM_ID} must be text that is not blank; got {custom_id!r}")
    if unknown := [name for name in document if not _is_member(name)]:
        raise _bad(f"the members of a request must be {_MEMBERS}; got {min(unknown)!r}")
    return to_request({name.removeprefix(_EXTRA): value for name, value in document.items()}), custom_id


def _is_member(name: str) -> bool:
    extra = name.removeprefix(_EXTRA)
    return name in REQUEST_MEMBERS or (extra != name and extra not in ("", *REQUEST_MEMBERS))


def _bad(reason: str) -> InvalidRequestError:
    return InvalidRequestError(message=reason)
