"""A request as it is recorded: found in a journal, resolved, and written as a document. It knows no command."""

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from suno_persona._checks import REQUEST_MEMBERS
from suno_persona.cli._rows import INPUT, STDIN, checked_rows, opened_input, read_cells
from suno_persona.cli._running import counted, journal_arguments, printable
from suno_persona.conversion import dump_json, dump_request, parse_json, to_dict
from suno_persona.errors import ConfigurationError, InvalidRequestError, JournalError
from suno_persona.models import Outcome

if TYPE_CHECKING:
    from suno_persona.journal import Entry, Journal

journal_option = click.option(
    "--journal",
    required=True,
    envvar="SUNO_JOURNAL_URL",
    show_envvar=True,
    type=click.Path(),
    metavar="PATH_OR_URL",
    help="The journal: an SQLite file or a database URL.",
)
input_option = click.option(
    "--input",
    "input_file",
    type=INPUT,
    metavar="FILE",
    help="The input file of the batch, to show the line of each row.",
)

COLUMNS = (
    *("line", "custom_id", "state", "name", "persona_id", "reason", "description", "root_clip_id", "clips"),
    *("is_public", "extra", "key", "request_id", "claimed_at", "claimed_by", "settled_at", "by_hand"),
    *("audio_url", "video_url", "image_url"),
)
"""The columns of a table of records."""

_SHOWN = 12  # characters of a key: enough for millions of requests


class InputRow(NamedTuple):
    """The row of a request in the input file of a batch."""

    line: int | None = None
    custom_id: str | None = None


def input_rows(file: Path | None) -> dict[str, InputRow]:
    """Return the rows of an input file by their keys, if there is a file. Raises `ConfigurationError`."""
    from suno_persona.journal._states import Keys

    if file is None:
        return {}
    keys = Keys()
    with checked_rows(file, ignore_others=True) as rows:
        return {keys.next(dump_request(row.request)): InputRow(row.line, row.custom_id) for row in rows}


def database_file(url: str) -> str:
    """Return the SQLite file that a journal's URL or path names, without links; empty if it is another database."""
    from suno_persona.journal._database import database_url

    parsed = database_url(url)
    name = (parsed.database or "").removeprefix("file:").partition("?")[0]
    return os.path.realpath(name) if parsed.get_backend_name() == "sqlite" else ""


@asynccontextmanager
async def opened(url: str) -> AsyncIterator["Journal"]:
    """Open a journal that must exist. For the path of an input file, the error suggests the journal beside it."""
    from suno_persona.journal import Journal

    journal, beside = Journal.existing(url), f"{url}.journal"
    try:
        await journal.__aenter__()
    except JournalError as error:
        hint = f" (did you mean {beside}?)" if os.path.isfile(beside) else ""  # noqa: ASYNC240
        raise JournalError(message=f"{error}{hint}") from error
    try:
        yield journal
    finally:
        await journal.__aexit__(None, None, None)


async def find(journal: "Journal", key: str) -> "Entry":
    """Return the one record whose key begins with this text; after a colon, the ordinal must be exact.

    Raises `InvalidRequestError` if there is no such record, or more than one.
    """
    digest, colon, ordinal = key.lower().partition(":")
    entries = journal.entries(prefix=digest) if digest else None
    found = [each async for each in entries if not colon or each.key.endswith(f":{ordinal}")] if entries else []
    if len(found) > 1:
        some = ", ".join(short(entry.key) for entry in found[:2])
        raise InvalidRequestError(message=f"KEY must be unambiguous; got {key!r}, which begins {some}")
    if not found:
        raise InvalidRequestError(message=f"KEY must be the beginning of a recorded key; got {key!r}")
    return found[0]


def short(key: str) -> str:
    """Return a key as people read it: the beginning of its hash, and its ordinal. `find` takes it."""
    digest, _, ordinal = key.partition(":")
    return f"{digest[:_SHOWN]}:{ordinal}"


def resolve_command(key: str, url: str) -> list[str]:
    """Return the command that resolves a request of a journal, but for the decision."""
    return ["suno-persona", "journal", "resolve", short(key), *journal_arguments(url)]


def state_of(outcome: Outcome) -> Literal["created", "not_created", "unknown"]:
    """Return the state of a request, as the journal calls it."""
    if outcome.error is None:
        return "created"
    return "unknown" if outcome.error.may_have_created else "not_created"


def document_of(entry: "Entry", row: InputRow) -> dict[str, Any]:
    """Return a record as JSON values."""
    settled_at = entry.settled_at and entry.settled_at.isoformat()
    times = {"claimed_at": entry.claimed_at.isoformat(), "claimed_by": entry.claimed_by, "settled_at": settled_at}
    known = _document(entry, row, entry.state, entry.persona_id)
    return {**known, "reason": entry.reason, **times, "by_hand": entry.by_hand}


def document_of_outcome(outcome: Outcome, row: InputRow) -> dict[str, Any]:
    """Return an outcome as JSON values: the members that a record has, and its error."""
    persona, error = outcome.persona, outcome.error
    known = _document(outcome, row, state_of(outcome), persona.id if persona else getattr(error, "persona_id", None))
    members = {name: getattr(error, name, None) for name in ("message", "status", "code", "attempts")}
    found = {name: value for name, value in members.items() if value is not None}
    return {**known, "error": error and {"type": type(error).__name__, **found}}


def _document(known: "Entry | Outcome", row: InputRow, state: str, persona_id: str | None) -> dict[str, Any]:
    return {
        "key": known.key,
        "line": row.line,
        "custom_id": row.custom_id,
        "state": state,
        "persona_id": persona_id,
        "request_id": known.request_id,
        "request": parse_json(dump_request(known.request)),  # as it is sent
        "persona": known.persona and to_dict(known.persona),
    }


def cells_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a record as the cells of a table, by `COLUMNS`."""
    request, clip = document["request"], (document["persona"] or {}).get("clip")
    extra = {name: value for name, value in request.items() if name not in REQUEST_MEMBERS}
    found = {
        **document,
        **{name: request[name] for name in REQUEST_MEMBERS},
        **({name: clip.get(name) for name in COLUMNS if name.endswith("_url")} if isinstance(clip, dict) else {}),
        "clips": " ".join(request["clips"]),
        "extra": dump_json(extra).decode() if extra else None,
    }
    return {name: found.get(name) for name in COLUMNS}


async def resolve_many(journal: "Journal", file: Path) -> None:
    """Resolve the requests that the lines of a CSV file name, all or none.

    Bad lines are printed to stderr, all of them. Raises `ConfigurationError` if there are any.
    """
    reasons: dict[int, str] = {}
    decisions: dict[str, str | None] = {}
    lines: dict[str, int] = {}
    total = 0
    for line, cells in _resolutions(file):
        total += 1
        try:
            prefix, decision = _decision(cells)
            key = (await find(journal, prefix)).key
        except InvalidRequestError as error:
            reasons[line] = error.message
            continue
        if key in lines:
            reasons[line] = f"line {lines[key]} resolves the same request"
        lines[key], decisions[key] = line, decision
    if not total:
        raise ConfigurationError(message=f"{file} has no resolution")
    rejected = await journal.resolve_all(decisions, dry_run=bool(reasons))
    reasons |= {lines[key]: reason for key, reason in rejected.items()}
    for line, reason in sorted(reasons.items()):
        print(printable(f"{'stdin' if file == STDIN else file}:{line}: {reason}"), file=sys.stderr)
    if reasons:
        are = "is not a valid resolution" if len(reasons) == 1 else "are not valid resolutions"
        raise ConfigurationError(message=f"nothing was resolved: {len(reasons)} of {counted(total, 'line')} {are}")
    created = sum(decision is not None for decision in decisions.values())
    print(f"{total} resolved: {created} created, {total - created} not created")


def _resolutions(file: Path) -> list[tuple[int, list[str] | InvalidRequestError]]:
    """Return the rows of a file of resolutions, without its header."""
    found: list[tuple[int, list[str] | InvalidRequestError]] = []
    with opened_input(file) as rows:
        try:
            for line, cells in read_cells(rows):
                found.append((line, [cell.strip() for cell in cells] if isinstance(cells, list) else cells))
        except UnicodeError as error:
            raise ConfigurationError(message=f"{file} is not valid UTF-16: {error}") from error
    return [row for row in found if row[1] != ["key", "persona_id"]]


def _decision(cells: list[str] | InvalidRequestError) -> tuple[str, str | None]:
    """Return the key and the decision of a row: the id of the persona, or `None` for not created."""
    if isinstance(cells, InvalidRequestError):
        raise cells
    if len(cells) != 2 or not all(cells):
        found = ",".join(cells)
        raise InvalidRequestError(message=f"the row must be KEY,PERSONA_ID or KEY,not_created; got {found!r}")
    return cells[0], None if cells[1] == "not_created" else cells[1]
