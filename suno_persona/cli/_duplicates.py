"""Rows that look like duplicates: found by digests, so that a million rows fit into memory."""

import hashlib
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import attrs
import click

from suno_persona.cli._rows import Row
from suno_persona.conversion import dump_request

if TYPE_CHECKING:
    from suno_persona.journal import Entry, Journal, State

duplicates_option = click.option(
    "--allow-duplicates", is_flag=True, help="Send rows that look like duplicates of others, too."
)


@attrs.frozen
class Found:
    """The rows of a file that the journal has, and those that look like duplicates."""

    counts: "Counter[State]"
    """The number of rows that it has, in each state."""

    duplicates: list[tuple[int, str]]
    """The line of each duplicate, and the reason. A recorded row is no duplicate: it is not sent again."""


class Digests:
    """Digests of the rows of a file, 32 bytes a row."""

    def __init__(self) -> None:
        self._lines = array("Q")
        self._requests = array("Q")
        self._titles = array("Q")  # of the root clip and the name
        self._custom_ids = array("Q")  # 0 for none

    def add(self, row: Row) -> None:
        """Add a row."""
        request = row.request
        self._lines.append(row.line)
        self._requests.append(_of_key(hashlib.sha256(dump_request(request)).hexdigest()))
        self._titles.append(_digest(request.root_clip_id, request.name))
        self._custom_ids.append(0 if row.custom_id is None else _digest(row.custom_id))

    async def look_up(self, journal: "Journal | None") -> Found:
        """Look up the rows in an open journal, if there is one, and find those that look like duplicates."""
        first: dict[int, int] = {}  # by the digest of the request, the index of its first row
        later: dict[tuple[int, int], int] = {}  # by the digest and the ordinal, the index of an identical row
        ordinals: dict[int, int] = {}
        for index, digest in enumerate(self._requests):
            if first.setdefault(digest, index) != index:
                ordinals[digest] = ordinals.get(digest, 1) + 1
                later[digest, ordinals[digest]] = index
        counts: Counter[State] = Counter()
        is_recorded = bytearray(len(self._lines))
        created: dict[int, str | None] = {}  # by the digest of root clip and name, the id of another row's persona
        titles = set(self._titles) if journal is not None else set()
        async for entry in _entries(journal):
            digest, ordinal = _of_key(entry.key), int(entry.key.partition(":")[2])
            found = first.get(digest) if ordinal == 1 else later.get((digest, ordinal))
            if found is not None:
                counts[entry.state] += 1
                is_recorded[found] = True
                continue
            title = _digest(entry.request.root_clip_id, entry.request.name)
            if entry.state == "created" and digest not in first and title in titles:
                created[title] = entry.persona_id
        del titles
        reasons: dict[int, str] = {}
        for index, title in enumerate(self._titles):
            if title in created:
                reasons[index] = f"persona {created[title]} was created from another version of this row"
        for index, other in self._repeated_custom_ids():
            again = other if is_recorded[index] else index
            reasons[again] = f"its custom_id is also that of line {self._lines[index + other - again]}"
        for (digest, _), index in later.items():
            reasons[index] = f"identical to line {self._lines[first[digest]]}"
        duplicates = [(self._lines[index], reasons[index]) for index in sorted(reasons) if not is_recorded[index]]
        return Found(counts, duplicates)

    def _repeated_custom_ids(self) -> Iterator[tuple[int, int]]:
        """Yield the index of each row whose `custom_id` an earlier row has, and the index of the first one."""
        first: dict[int, int] = {}
        for index, digest in enumerate(self._custom_ids):
            if digest and (other := first.setdefault(digest, index)) != index:
                yield index, other


async def _entries(journal: "Journal | None") -> "AsyncIterator[Entry]":
    if journal is not None:
        async for entry in journal.entries():
            yield entry


def _of_key(key: str) -> int:
    """Return the beginning of a key in the journal, which is the SHA-256 of a request's wire body."""
    return int(key[:16], 16)


def _digest(*texts: str) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest())
