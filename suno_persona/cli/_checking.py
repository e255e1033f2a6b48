"""`suno-persona batch --check`: what a run would do, and which rows look like duplicates; nothing is sent."""

from collections import Counter
from collections.abc import Iterator

import attrs

from suno_persona._client import PersonaAPI, engine_of
from suno_persona.cli._rows import CheckedRows, Row
from suno_persona.cli._running import printable
from suno_persona.conversion import dump_request
from suno_persona.journal import Journal, State
from suno_persona.journal._states import Keys

_SHOWN = 20  # rows that look like duplicates


@attrs.frozen
class _Recorded:
    """What a journal has of a batch, in little memory."""

    states: dict[str, State]
    """By the keys."""

    created: dict[tuple[str, str], tuple[str, str | None]]
    """The key and the persona id of what was created, by root clip and name."""


async def check(
    rows: CheckedRows, api: PersonaAPI, journal: Journal | None, *, retry_unknown: bool, accept_new_key: bool
) -> None:
    """Print what a run would do; `journal` is the one that is there, if any.

    Raises `JournalError` where the journal cannot be read, or belongs to another account.
    """
    recorded = _Recorded({}, {})
    if journal is not None:
        async with api, journal:
            if not accept_new_key:
                await journal.begin(engine_of(api).account)
            async for entry in journal.entries():
                recorded.states[entry.key] = entry.state
                if entry.state == "created":
                    recorded.created[entry.request.root_clip_id, entry.request.name] = entry.key, entry.persona_id
    counts: Counter[State | None] = Counter()
    duplicates: list[str] = []
    keys, first = Keys(), dict[str, int]()
    for row in rows:
        key = keys.next(dump_request(row.request))
        state = recorded.states.get(key)
        counts[state] += 1
        if state in (None, "queued", "not_created") and (why := _duplicate(row, key, first, recorded)):
            duplicates.append(f"{rows.name}:{row.line}: {why}")
        first.setdefault(key.partition(":")[0], row.line)
    for line in _report(rows.total, counts, len(duplicates), retry_unknown=retry_unknown):
        print(line)
    for line in duplicates[:_SHOWN]:
        print(printable(line))
    if len(duplicates) > _SHOWN:
        print(f"and {len(duplicates) - _SHOWN} more")


def _duplicate(row: Row, key: str, first: dict[str, int], recorded: _Recorded) -> str | None:
    """Say why a row that would be sent looks like a duplicate, if it does."""
    digest = key.partition(":")[0]
    if digest in first:
        return f"looks like a duplicate: the same row as in line {first[digest]}"
    name = row.request.name
    created, persona_id = recorded.created.get((row.request.root_clip_id, name), (key, None))
    if created.partition(":")[0] != digest:
        return f"looks like a duplicate: {name!r} was created from this clip with other members: {persona_id}"
    return None


def _report(total: int, counts: Counter[State | None], duplicates: int, *, retry_unknown: bool) -> Iterator[str]:
    again = "to send again (--retry-unknown)" if retry_unknown else "not sent again: check"
    lines = [
        (counts[None] + counts["queued"], "to send"),
        (counts["not_created"], "not created: to send again"),
        (counts["created"], "created: not sent again"),
        (counts["unknown"], f"unknown: {again}"),
        (counts["claimed"], f"claimed, without an outcome: {again}"),
        (duplicates, "possible duplicates among those to send"),
    ]
    yield f"{total} rows; nothing was sent"
    width = len(str(total))
    yield from (f"  {count:{width}} {what}" for count, what in lines if count or what == "to send")
