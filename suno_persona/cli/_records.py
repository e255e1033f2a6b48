"""What a journal holds, as the `journal` commands read and print it. It knows no command."""

import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self, TypeAlias

import attrs
import typer

from suno_persona.cli._rows import checked_rows
from suno_persona.conversion import converter, dump_json, dump_request, parse_json
from suno_persona.errors import InvalidRequestError, JournalError

if TYPE_CHECKING:
    from suno_persona.journal import Entry, Journal

JournalOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--journal",
        envvar="SUNO_JOURNAL_URL",
        metavar="PATH_OR_URL",
        help="The journal: an SQLite file or a database URL.",
    ),
]
"""The journal of a command that needs one that is there."""

InputOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--input", metavar="FILE", help="The input file of the batch; adds the line of each request in it."),
]
"""The input file of a command that can do without."""

_SHOWN = 12  # characters of a key: enough for millions of requests
# What JSON allows in text although a terminal may obey it: DEL, C1 controls, and marks that change the direction.
_OBEYED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@attrs.frozen
class InputRow:
    """Where the input file of a batch has a request."""

    line: int
    custom_id: str | None = None


def input_rows(file: Path | None) -> dict[str, InputRow]:
    """Return the rows of an input file by the keys that a journal has for them; without a file, none.

    Raises `ConfigurationError` where the file cannot be read, or has invalid rows, which are printed.
    """
    from suno_persona.journal._states import Keys

    if file is None:
        return {}
    keys = Keys()
    with checked_rows(file) as rows:
        return {keys.next(dump_request(row.request)): InputRow(row.line, row.custom_id) for row in rows}


@asynccontextmanager
async def opened(url: str) -> AsyncIterator["Journal"]:
    """Open a journal that must be there. The error hints at one beside the file that is none."""
    from suno_persona.journal import Journal

    async with AsyncExitStack() as stack:
        try:
            journal = await stack.enter_async_context(Journal.existing(url))
        except JournalError as error:
            raise JournalError(message=f"{error}{_hint(url)}") from error
        yield journal


def _hint(url: str) -> str:
    beside = f"{url}.journal"
    return f" (did you mean {beside}?)" if os.path.isfile(beside) else ""


async def find(journal: "Journal", key: str) -> "Entry":
    """Return the one record whose key begins so; after a colon, the ordinal must be exact.

    Raises `InvalidRequestError` where there is none, or more than one.
    """
    digest, colon, ordinal = key.lower().partition(":")
    found: list[Entry] = []
    if digest:
        async for entry in journal.entries(prefix=digest):
            if not colon or entry.key.endswith(f":{ordinal}"):
                found.append(entry)
            if len(found) > 1:
                some = ", ".join(short(entry.key) for entry in found)
                raise InvalidRequestError(message=f"KEY must be unambiguous; got {key!r}, which begins {some}")
    if not found:
        raise InvalidRequestError(message=f"KEY must be the beginning of a recorded key; got {key!r}")
    return found[0]


def short(key: str) -> str:
    """Return a key as people read it: the beginning of its hash, and its ordinal. `find` takes it."""
    digest, _, ordinal = key.partition(":")
    return f"{digest[:_SHOWN]}:{ordinal}"


@attrs.frozen(kw_only=True)
class Cells:
    """A record as the cells of a table, in the order of its columns."""

    line: int | None
    custom_id: str | None
    state: str
    name: str
    persona_id: str | None
    reason: str | None
    description: str
    root_clip_id: str
    clips: str
    is_public: bool
    extra: str | None
    key: str
    request_id: str | None
    claimed_at: str
    claimed_by: str
    settled_at: str | None
    by_hand: bool
    audio_url: str | None
    video_url: str | None
    image_url: str | None

    @classmethod
    def of(cls, entry: "Entry", row: InputRow | None) -> Self:
        """Return the cells of a record, and of its row in the input file."""
        request, clip = entry.request, None if entry.persona is None else entry.persona.clip
        return cls(
            line=None if row is None else row.line,
            custom_id=None if row is None else row.custom_id,
            state=entry.state,
            name=request.name,
            persona_id=entry.persona_id,
            reason=entry.reason,
            description=request.description,
            root_clip_id=request.root_clip_id,
            clips=" ".join(request.clips),
            is_public=request.is_public,
            extra=dump_json(dict(request.extra)).decode() if request.extra else None,
            key=entry.key,
            request_id=entry.request_id,
            claimed_at=entry.claimed_at.isoformat(),
            claimed_by=entry.claimed_by,
            settled_at=None if entry.settled_at is None else entry.settled_at.isoformat(),
            by_hand=entry.by_hand,
            audio_url=None if clip is None else clip.audio_url,
            video_url=None if clip is None else clip.video_url,
            image_url=None if clip is None else clip.image_url,
        )


def json_line(entry: "Entry", row: InputRow | None) -> str:
    """Return a record as a line of JSON: all that is known of it, and nothing that a terminal obeys."""
    document = {
        "key": entry.key,
        "line": row and row.line,
        "custom_id": row and row.custom_id,
        "state": entry.state,
        "persona_id": entry.persona_id,
        "request_id": entry.request_id,
        "request": parse_json(dump_request(entry.request)),
        "persona": entry.persona and converter.unstructure(entry.persona),
        "reason": entry.reason,
        "claimed_at": entry.claimed_at.isoformat(),
        "claimed_by": entry.claimed_by,
        "settled_at": entry.settled_at and entry.settled_at.isoformat(),
        "by_hand": entry.by_hand,
    }
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", dump_json(document).decode())
