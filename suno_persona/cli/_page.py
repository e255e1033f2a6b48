"""The page that `suno-persona journal export --format html` writes: one file, to look at a batch.

It loads nothing until asked to. What comes from the service is escaped, and linked only if it is the URL of a page.
"""

import base64
import hashlib
import json
import re
import shlex
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from suno_persona.cli._records import InputRow, resolve_command, short

if TYPE_CHECKING:
    from suno_persona.journal import Entry

_LABELS = {
    "created": "Created",
    "unknown": "Unknown",
    "claimed": "Claimed",
    "not_created": "Not created",
    "queued": "Queued",
}
_TONES = 6  # of the tiles, by the name: as many as the stylesheet has
# What HTML does not allow as text (its standard on preprocessing the input stream).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Page:
    """The page of one export: made from items, each with one record."""

    def __init__(self, title: str, journal: str) -> None:
        environment = Environment(
            loader=PackageLoader("suno_persona.cli", "page"),
            autoescape=True,
            finalize=_shown,
            lstrip_blocks=True,
            trim_blocks=True,
            undefined=StrictUndefined,
        )
        self._title = title
        self._journal = journal
        self._item = environment.get_template("item.html")
        self._page = environment.get_template("page.html")

    def item(self, entry: "Entry", row: InputRow) -> str:
        """Return the part of the page that shows a record."""
        name, persona = entry.request.name, entry.persona
        clip = persona and persona.clip
        return self._item.render(
            entry=entry,
            row=row,
            key=short(entry.key),
            resolve=shlex.join(resolve_command(entry.key, self._journal)),
            label=_LABELS[entry.state],
            initial=next(filter(str.isalnum, name), "?").upper(),
            tone=zlib.crc32(name.encode()) % _TONES,
            music=persona and json.dumps(persona.music_fields(), indent=2),
            cover=clip and (_link(clip.image_url, "https") or _link(clip.image_large_url, "https")),
            links=clip and {"Audio": _link(clip.audio_url), "Video": _link(clip.video_url)},
        )

    def document(self, items: Iterable[str], counts: Mapping[str, int]) -> Iterator[str]:
        """Yield the page in parts."""
        style, script = (files("suno_persona.cli").joinpath(f"page/page.{kind}").read_text("utf-8") for kind in _INLINE)
        yield from self._page.generate(
            title=self._title,
            exported=datetime.now(UTC),
            total=sum(counts.values()),
            states=[(state, label, counts[state]) for state, label in _LABELS.items() if counts[state]],
            style=Markup(style),  # noqa: S704 - both are files of this package
            script=Markup(script),  # noqa: S704
            style_hash=_hash(style),
            script_hash=_hash(script),
            items=map(Markup, items),
        )


_INLINE = ("css", "js")


def _shown(value: object) -> object:
    """Replace the characters that HTML does not allow."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _CONTROL.sub("\ufffd", value)


def _link(url: str | None, schemes: str = "https?") -> str | None:
    """Return a URL that leads to the web, and runs nothing."""
    return url if url is not None and re.match(rf"{schemes}://[^\s/]", url, re.IGNORECASE) else None


def _hash(text: str) -> str:
    """Return the source of an inline element, as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
