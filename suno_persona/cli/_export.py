"""`suno-persona journal export`: what a batch has recorded, as a table, as JSON Lines, or as a page to look at."""

import csv
import io
import os
import re
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Annotated, Self

import attrs
import typer

from suno_persona.cli._output import STDOUT
from suno_persona.cli._records import Cells, InputOption, InputRow, JournalOption, input_rows, json_line, opened
from suno_persona.cli._running import run
from suno_persona.errors import ConfigurationError

if TYPE_CHECKING:
    from suno_persona.journal import Entry

_FORMULA = re.compile("[=+\\-@\t\r]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Format(StrEnum):
    """What an export is written as."""

    csv = "csv"
    jsonl = "jsonl"
    html = "html"


def export(
    journal: JournalOption,
    kind: Annotated[
        Format,
        typer.Option(
            "--format",
            metavar="csv|jsonl|html",
            help="A table, JSON Lines with all that is known, or a page to look at.",
        ),
    ],
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="The file to write, or - for stdout; an existing file is replaced.")
    ] = STDOUT,
    input_file: InputOption = None,
) -> None:
    """Export what a batch has recorded.

    Requests are in the order of the input file with --input, otherwise in the order in which they were claimed. In CSV,
    an apostrophe precedes text that a spreadsheet would take for a formula; JSON Lines have the exact text.
    """

    async def work() -> None:
        _require_another_file(output, journal, input_file)
        rows, counts = input_rows(input_file), Counter[str]()
        form = _form(kind, title=_title(journal, input_file))
        with _Chunks() as chunks:
            async with opened(journal) as record:
                async for entry in record.entries():
                    row = rows.get(entry.key)
                    counts[entry.state] += 1
                    order = (sys.maxsize if row is None else row.line, entry.claimed_at.isoformat(), entry.key)
                    chunks.add(order, form.chunk(entry, row))
            with _writing(output) as file:
                for text in form.document(chunks, counts):
                    file.write(text.encode())

    run(work())


@attrs.frozen
class _Form:
    """How an export is written: each record as a chunk of text, and the document that they are in."""

    chunk: Callable[["Entry", InputRow | None], str]
    document: Callable[[Iterable[str], Counter[str]], Iterable[str]]


def _form(kind: Format, title: str) -> _Form:
    if kind is Format.csv:
        header = _csv_line(attrs.fields_dict(Cells))
        return _Form(_row, lambda chunks, _: chain([header], chunks))
    if kind is Format.jsonl:
        return _Form(lambda entry, row: f"{json_line(entry, row)}\n", lambda chunks, _: chunks)
    from suno_persona.cli._page import Page

    page = Page(title)
    return _Form(page.item, page.document)


def _row(entry: "Entry", row: InputRow | None) -> str:
    return _csv_line(attrs.astuple(Cells.of(entry, row)))


def _csv_line(cells: Iterable[str | int | bool | None]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(_cell(cell) for cell in cells)  # with CRLF (RFC 4180); a cell with either is quoted
    return line.getvalue()


def _cell(value: str | int | bool | None) -> str | int | None:
    """Return a cell that a spreadsheet shows and no terminal obeys."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        value = _CONTROL.sub("\ufffd", value)
        return f"'{value}" if _FORMULA.match(value) else value
    return value


class _Chunks:
    """Chunks of text that come in any order, and are read back in theirs. They wait in a file: memory stays flat."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the chunks
        self._index: list[tuple[tuple[int, str, str], int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, order: tuple[int, str, str], text: str) -> None:
        """Add a chunk."""
        data = text.encode()
        self._index.append((order, self._file.tell(), len(data)))
        self._file.write(data)

    def __iter__(self) -> Iterator[str]:
        for _, offset, size in sorted(self._index):
            self._file.seek(offset)
            yield self._file.read(size).decode()


@contextmanager
def _writing(output: Path) -> Iterator[IO[bytes]]:
    """Open stdout, or a file that is replaced when it is whole. Raises `ConfigurationError`."""
    if output == STDOUT:
        if sys.stdout is None:
            raise ConfigurationError(message="the output must be writable; got a stdout that is closed")
        yield sys.stdout.buffer
        return
    try:
        if output.exists() and not output.is_file():  # a device or a pipe, which must not be replaced
            with output.open("wb") as file:
                yield file
        else:
            with _replacing(output.resolve()) as file:
                yield file
    except OSError as error:
        message = f"--output must be a writable file; got {output} ({error.strerror})"
        raise ConfigurationError(message=message) from error


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _require_another_file(output: Path, *others: str | Path | None) -> None:
    """Raise `ConfigurationError` if the output is the journal or the input, which it would replace."""
    same = [other for other in others if other is not None and os.path.realpath(other) == os.path.realpath(output)]
    if same and output != STDOUT:
        message = f"--output must be another file than --journal and --input; got {output}"
        raise ConfigurationError(message=message)


def _title(journal: str, input_file: Path | None) -> str:
    """Return what the page is about: the name of a file, but not a URL, which may hold a password."""
    if input_file is not None:
        return input_file.name
    return "a database" if "://" in journal else Path(journal).name
