"""`suno-persona journal resolve --from FILE`: many resolutions, all of which are checked before any is written."""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from suno_persona.cli._records import find
from suno_persona.cli._rows import STDIN
from suno_persona.cli._running import printable
from suno_persona.errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    from suno_persona.journal import Journal

FromOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        help="Resolve many: the lines of a CSV file, each KEY,PERSONA_ID or KEY,not_created; - reads stdin.",
    ),
]
"""The file of many resolutions."""

_NOT_CREATED = "not_created"
_HEADER = ["key", "persona_id"]


async def resolve_many(journal: "Journal", file: Path) -> None:
    """Resolve what the lines of a file name, all of it or nothing.

    Bad lines are printed to stderr, all of them. Raises `ConfigurationError` if there are any, or if the file cannot
    be read.
    """
    text = _read(file)
    reasons: dict[int, str] = {}
    decisions: dict[str, str | None] = {}
    lines: dict[str, int] = {}
    total = 0
    for line, cells in _rows(text):
        total += 1
        try:
            prefix, decision = _decision(cells)
            key = (await find(journal, prefix)).key
        except InvalidRequestError as error:
            reasons[line] = error.message
            continue
        if key in lines:
            reasons[line] = f"a request must be resolved once; got it in line {lines[key]}, too"
        lines[key] = line
        decisions[key] = decision
    if not total:
        raise ConfigurationError(message=f"--from must have at least one resolution; got none in {file}")
    rejected = await journal.resolve_all(decisions, dry_run=bool(reasons))
    reasons |= {lines[key]: reason for key, reason in rejected.items()}
    for line, reason in sorted(reasons.items()):
        print(printable(f"{file}:{line}: {reason}"), file=sys.stderr)
    if reasons:
        message = f"nothing was resolved: {len(reasons)} of {total} lines are not valid resolutions"
        raise ConfigurationError(message=message)
    created = sum(decision is not None for decision in decisions.values())
    print(f"{total} resolved: {created} created, {total - created} not created")


def _read(file: Path) -> str:
    """Return the text of a file, or of stdin. Raises `ConfigurationError`."""
    try:
        data = sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        found = f"{file} ({error.strerror})"
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{error.object[error.start]:02x} in line {line} of {file}"
    raise ConfigurationError(message=f"--from must be a readable file in UTF-8; got {found}")


def _rows(text: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield the cells of each row with its line, or why it has none; without empty lines and the header."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield line, error
            continue
        if cells is None:
            return
        cells = [cell.strip() for cell in cells]
        if any(cells) and cells != _HEADER:
            yield line, cells


def _decision(cells: list[str] | csv.Error) -> tuple[str, str | None]:
    """Return the key and the decision of a row: the id of the persona, or `None` for not created."""
    if isinstance(cells, csv.Error):
        raise InvalidRequestError(message=f"the row must be valid CSV; got an error: {cells}")
    if len(cells) != 2 or not all(cells):
        raise InvalidRequestError(
            message=f"the row must be KEY,PERSONA_ID or KEY,{_NOT_CREATED}; got {','.join(cells)!r}"
        )
    key, decision = cells
    return key, None if decision == _NOT_CREATED else decision
