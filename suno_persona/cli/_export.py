"""`suno-persona journal export`: the records of a batch as a table, as JSON Lines, or as a page to look at."""

import asyncio
import csv
import io
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import click

from suno_persona.cli import _records as records
from suno_persona.cli._output import STDOUT, require_different_files
from suno_persona.cli._records import InputRow, input_option, journal_option
from suno_persona.cli._running import json_line
from suno_persona.errors import ConfigurationError

if TYPE_CHECKING:
    from suno_persona.journal import Entry

_FORMULA = re.compile("[=+\\-@\t\r]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_KIND, _PATH = click.Choice(["csv", "jsonl", "html"]), click.Path(path_type=Path)


@click.command()
@journal_option
@click.option(
    "--format",
    "kind",
    type=_KIND,
    required=True,
    help="A table, JSON Lines with all that is known, or a page to look at.",
)
@click.option(
    "--output", type=_PATH, metavar="FILE", default=STDOUT, show_default=True, help="A file, or - for stdout."
)
@input_option
def export(*, journal: str, kind: str, output: Path, input_file: Path | None) -> None:
    """Export the records of a batch.

    Requests are in the order of the input file with --input, otherwise in the order in which they were claimed. In CSV,
    an apostrophe precedes text that a spreadsheet would take for a formula; JSON Lines have the exact text.
    """

    async def work() -> None:
        require_different_files(input_file, records.database_file(journal), output)
        rows, counts, index = records.input_rows(input_file), Counter[str](), list[tuple[int, str, str, int, int]]()
        form = _form(kind, journal, input_file)
        with tempfile.TemporaryFile() as chunks:  # they come in another order; memory stays flat
            async with records.opened(journal) as record:
                async for entry in record.entries():
                    row = rows.get(entry.key, InputRow())
                    counts[entry.state] += 1
                    data = form.chunk(entry, row).encode()
                    order = (row.line or sys.maxsize, entry.claimed_at.isoformat(), entry.key)
                    index.append((*order, chunks.tell(), len(data)))
                    chunks.write(data)
            with _writing(output) as file:
                for text in form.document(_sorted(chunks, index), counts):
                    file.write(text.encode())
                file.flush()

    asyncio.run(work())


class _Form(NamedTuple):
    """How an export is written: each record as a chunk of text, and the document that they are in."""

    chunk: Callable[["Entry", InputRow], str]
    document: Callable[[Iterable[str], Counter[str]], Iterable[str]]


def _form(kind: str, journal: str, input_file: Path | None) -> _Form:
    if kind == "html":
        from suno_persona.cli._page import Page

        # Not the URL of a database, which may have a password.
        page = Page(
            input_file.name if input_file else "a database" if "://" in journal else Path(journal).name, journal
        )
        return _Form(page.item, page.document)
    if kind == "jsonl":
        return _Form(lambda entry, row: f"{json_line(records.document_of(entry, row))}\n", lambda chunks, _: chunks)
    return _Form(
        lambda entry, row: _csv_line(records.cells_of(records.document_of(entry, row)).values()),
        lambda chunks, _: chain([_csv_line(records.COLUMNS)], chunks),
    )


def _csv_line(cells: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(map(_cell, cells))  # with CRLF (RFC 4180); a cell with either is quoted
    return line.getvalue()


def _cell(value: object) -> object:
    """Return a cell that a spreadsheet shows and no terminal obeys."""
    if isinstance(value, str):
        value = _CONTROL.sub("\ufffd", value)
        return f"'{value}" if _FORMULA.match(value) else value
    return str(value).lower() if isinstance(value, bool) else value


def _sorted(chunks: IO[bytes], index: list[tuple[int, str, str, int, int]]) -> Iterator[str]:
    for *_, offset, size in sorted(index):
        chunks.seek(offset)
        yield chunks.read(size).decode()


@contextmanager
def _writing(output: Path) -> Iterator[IO[bytes]]:
    """Open the output. Raises `ConfigurationError` if it cannot be written."""
    if output == STDOUT:
        if sys.stdout is None:
            raise ConfigurationError(message="the output must be writable; got a stdout that is closed")
        yield sys.stdout.buffer
        return
    try:
        with output.open("wb") as file:
            yield file
    except OSError as error:
        message = f"--output must be a writable file; got {output} ({error.strerror})"
        raise ConfigurationError(message=message) from error
