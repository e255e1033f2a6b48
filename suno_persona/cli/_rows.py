"""The rows of a batch file, CSV or JSON Lines, as requests; with a reason for each row that is not a valid request.

The file is read as a stream: a million rows take no more memory than one.
"""

import ast
import codecs
import csv
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import attrs
import click

from suno_persona._checks import REQUEST_MEMBERS, REQUIRED_MEMBERS
from suno_persona.cli._running import counted, printable
from suno_persona.conversion import parse_json, to_request
from suno_persona.errors import ConfigurationError, InvalidRequestError
from suno_persona.models import CreatePersonaRequest

INPUT = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
"""The type of an input file; `-` is stdin."""

STDIN = Path("-")

file_argument = click.argument(
    "file", type=INPUT, metavar="FILE", help="The requests: CSV with a header row, or JSON Lines. - is stdin."
)
ignore_option = click.option(
    "--ignore-other-columns", is_flag=True, help="Ignore columns and members that are not part of a request."
)

_CUSTOM_ID = "custom_id"
_EXTRA = "extra."
_COLUMNS = f"{', '.join(REQUEST_MEMBERS)}, {_CUSTOM_ID} or {_EXTRA}NAME"
_HINT = "--ignore-other-columns ignores it"
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
_JSON_LINES = (".jsonl", ".ndjson")
_DELIMITERS = ",;\t"

Cells: TypeAlias = tuple[int, list[str] | InvalidRequestError]
"""A line, and the cells of the row that begins on it, or why it has none."""


class Row(NamedTuple):
    """A row that is a valid request, and the line that it begins on."""

    line: int
    request: CreatePersonaRequest
    custom_id: str | None


class BadRow(NamedTuple):
    """A row that is not a valid request."""

    line: int
    reason: str


@attrs.frozen
class CheckedRows:
    """The rows of a file in which every row was found to be a valid request; iterate over it for them."""

    name: str
    total: int
    _read: Callable[[], Iterator[Row | BadRow]]

    def __iter__(self) -> Iterator[Row]:
        return (row for row in self._read() if isinstance(row, Row))


@contextmanager
def checked_rows(
    path: Path, *, ignore_others: bool = False, on_row: Callable[[Row], None] = lambda _: None
) -> Iterator[CheckedRows]:
    """Open a file and check every row; `on_row` is called with each that is valid.

    Bad rows are printed to stderr, all of them. Raises `ConfigurationError` if there are any, or if the file cannot be
    read.
    """
    suffix = path.suffix.lower()
    if path != STDIN and suffix not in _SUFFIXES:
        raise ConfigurationError(message=f"FILE must end in {', '.join(_SUFFIXES)}, or be - for stdin; got {path}")
    with opened_input(path) as file:
        is_json = _holds_json(file) if path == STDIN else suffix in _JSON_LINES
        name = "stdin" if path == STDIN else str(path)
        read = partial(read_rows, file, is_json=is_json, ignore_others=ignore_others)
        total = bad = 0
        for row in read():
            total += 1
            if isinstance(row, BadRow):
                bad += 1
                print(printable(f"{name}:{row.line}: {row.reason}"), file=sys.stderr)
            else:
                on_row(row)
        if bad:
            are = "is not a valid request" if bad == 1 else "are not valid requests"
            raise ConfigurationError(message=f"nothing was sent: {bad} of {counted(total, 'row')} {are}")
        yield CheckedRows(name, total, read)


def read_rows(file: IO[bytes], *, is_json: bool, ignore_others: bool = False) -> Iterator[Row | BadRow]:
    """Yield the rows of a file in order. An empty file yields one row with that reason."""
    rows = _json_rows(file, ignore_others) if is_json else _csv_rows(file, ignore_others)
    try:
        first = next(rows, None)
        yield BadRow(1, "the file has no request") if first is None else first
        yield from rows
    except UnicodeError as error:
        yield BadRow(1, f"the file is not valid UTF-16: {error}")


@contextmanager
def opened_input(path: Path) -> Iterator[IO[bytes]]:
    """Open a copy of a file or of stdin, to read the same twice. Raises `ConfigurationError`."""
    if path == STDIN and sys.stdin is None:  # the shell closed it
        raise ConfigurationError(message="stdin is closed")
    with tempfile.TemporaryFile() as copy:
        try:
            with nullcontext(sys.stdin.buffer) if path == STDIN else path.open("rb") as file:
                shutil.copyfileobj(file, copy)
        except OSError as error:
            raise ConfigurationError(message=f"{path} cannot be read: {error.strerror}") from error
        copy.flush()
        yield copy


def read_cells(file: IO[bytes]) -> Iterator[Cells]:
    """Yield the rows of a CSV file, without the empty ones.

    It is UTF-8, or UTF-16 with a byte order mark. The delimiter is what a first line `sep=;` says, or else the one of
    comma, semicolon and tab that the first row has most of.
    """
    lines = read_lines(file)
    skipped, first = 0, next(lines, "")
    while first and not first.strip():
        skipped, first = skipped + 1, next(lines, "")
    if separator := re.fullmatch(r'"?sep=(.)"?\s*', first):
        skipped, delimiter = skipped + 1, separator[1]
    else:
        lines, delimiter = chain([first], lines), max(_DELIMITERS, key=first.count)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = skipped + reader.line_num + 1
        try:
            cells = next(reader, None)
            if cells is None:
                return
            if any(cells):  # spreadsheets leave rows of commas
                _check_encoding("".join(cells))
                yield line, cells
        except csv.Error as error:
            yield line, _bad(f"the row is not valid CSV: {error}")
        except InvalidRequestError as error:
            yield line, error


def read_lines(file: IO[bytes]) -> Iterator[str]:
    """Yield the lines of a file from its beginning. A byte that is not UTF-8 becomes a lone surrogate.

    Raises `UnicodeError` for UTF-16 that cannot be decoded.
    """
    descriptor = os.dup(file.fileno())
    os.lseek(descriptor, 0, os.SEEK_SET)
    is_utf_16 = os.read(descriptor, 2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    os.lseek(descriptor, 0, os.SEEK_SET)
    encoding, errors = ("utf-16", "strict") if is_utf_16 else ("utf-8-sig", "surrogateescape")
    with open(descriptor, encoding=encoding, errors=errors, newline="") as lines:
        yield from lines


def _check_encoding(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) - 0xDC00  # undoes `surrogateescape`
        raise _bad(f"the file must be UTF-8; got the byte 0x{byte:02x}") from None


def _holds_json(file: IO[bytes]) -> bool:
    """Return whether a file has JSON Lines: no header of CSV begins with a brace."""
    with suppress(UnicodeError):
        return next((line for line in read_lines(file) if line.strip()), "").lstrip().startswith("{")
    return False


def _json_rows(file: IO[bytes], ignore_others: bool) -> Iterator[Row | BadRow]:
    for line, text in enumerate(read_lines(file), start=1):
        if not text.strip():
            continue
        try:
            _check_encoding(text)
            yield _row(line, parse_json(text), ignore_others)
        except ValueError as error:  # an `InvalidRequestError`, too
            yield BadRow(line, str(error))


def _csv_rows(file: IO[bytes], ignore_others: bool) -> Iterator[Row | BadRow]:
    columns: list[str] = []
    for line, cells in read_cells(file):
        try:
            if isinstance(cells, InvalidRequestError):
                raise cells
            if columns:
                yield _row(line, _document(columns, cells), ignore_others)
            else:
                columns = _header(cells, ignore_others)
        except InvalidRequestError as error:
            yield BadRow(line, error.message)
            if not columns:
                return  # no row can be read without the header


def _header(cells: list[str], ignore_others: bool) -> list[str]:
    columns = [cell.strip() for cell in cells]
    while not columns[-1]:  # spreadsheets leave empty columns
        columns.pop()
    for name in columns:
        if not (_is_column(name) or ignore_others):
            raise _bad(f"a column of the header must be one of {_COLUMNS}; got {name!r} ({_HINT})")
        if _is_column(name) and columns.count(name) > 1:
            raise _bad(f"a column of the header must be unique; got {name!r} {columns.count(name)} times")
    for name in REQUIRED_MEMBERS:
        if name not in columns:
            raise _bad(f"the header must have the column {name}; got {', '.join(columns)}")
    return columns


def _document(columns: list[str], cells: list[str]) -> dict[str, object]:
    """Return the members that a row of CSV has. Empty cells of optional columns are absent."""
    if len(cells) < len(columns) or any(cells[len(columns) :]):
        raise _bad(f"the row must have {counted(len(columns), 'cell')}, as the header has; got {len(cells)}")
    document: dict[str, object] = {}
    for name, cell in zip(columns, cells, strict=False):
        if cell or name in REQUIRED_MEMBERS:
            document[name] = _value(name, cell)
    return document


def _value(name: str, cell: str) -> object:
    if name == "clips":
        return _clips(cell)
    if name == "is_public":
        flags = {"true": True, "false": False}
        if cell.lower() not in flags:
            raise _bad(f"is_public must be true or false; got {cell!r}")
        return flags[cell.lower()]
    if name.startswith(_EXTRA):
        try:
            return parse_json(cell)
        except ValueError:
            return cell
    return cell


def _clips(cell: str) -> object:
    """Return the ids in a cell: separated by spaces, commas or semicolons, or as a list of JSON or Python."""
    if not cell.lstrip().startswith("["):
        return re.split(r"[\s,;]+", cell.strip(" \t\r\n,;"))
    for read in (parse_json, ast.literal_eval):
        try:
            return read(cell.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
    raise _bad(f"clips must be ids or a list of ids; got {cell!r}")


def _row(line: int, document: object, ignore_others: bool) -> Row:
    """Return the row with these members; null ones are absent, and those with the prefix are the request's `extra`."""
    if not isinstance(document, dict):
        return Row(line, to_request(document), None)
    members = {name: value for name, value in document.items() if value is not None}
    if others := [name for name in members if not _is_column(name)]:
        if not ignore_others:
            raise _bad(f"the members of a request must be {_COLUMNS}; got {min(others)!r} ({_HINT})")
        for name in others:
            del members[name]
    custom_id = members.pop(_CUSTOM_ID, None)
    if custom_id is not None and (not isinstance(custom_id, str) or not custom_id.strip()):
        raise _bad(f"{_CUSTOM_ID} must be text that is not blank; got {custom_id!r}")
    request = to_request({name.removeprefix(_EXTRA): value for name, value in members.items()})
    return Row(line, request, custom_id)


def _is_column(name: str) -> bool:
    extra = name.removeprefix(_EXTRA)
    return name in (*REQUEST_MEMBERS, _CUSTOM_ID) or (extra != name and extra not in ("", *REQUEST_MEMBERS))


def _bad(reason: str) -> InvalidRequestError:
    return InvalidRequestError(message=reason)
