"""Draws the pictures of the docs: narrow, for phones, and on a white card, for light and dark pages."""

import inspect
import re
import textwrap
from collections.abc import Iterator
from html import escape

from suno_persona import PersonaError

_WIDTH = 400
_LINE = 17
_CHARACTER = 7.2  # the width of a character in the widest system font
_CARD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>{title}</title>
<desc>{words}</desc>
<style>
  text {{ font: 13px system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: #32383f }}
  .name {{ font: bold 13px ui-monospace, Menlo, Consolas, "Liberation Mono", monospace; fill: #0d1117 }}
  .question {{ font-weight: bold; fill: #0d1117 }}
  path {{ fill: none; stroke: #59636e }}
  marker path {{ fill: #59636e; stroke: none }}
  .card {{ fill: #fff; stroke: #818b98 }}
  .package {{ fill: #eaf2fc; stroke: #0969da }}
  .batch {{ fill: #fff; stroke: #0969da; stroke-dasharray: 5 3 }}
  .outside {{ fill: #eff1f3; stroke: #59636e }}
  .no {{ fill: #e6f4ea; stroke: #1a7f37 }}
  .yes {{ fill: #ffeedd; stroke: #bc4c00 }}
</style>
<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">\
<path d="M0 0L8 4L0 8z"/></marker>
{shapes}
</svg>
"""


def _card(title: str, words: str, height: int, shapes: list[str]) -> str:
    card = _box("card", 0, 0, _WIDTH, height)
    return _CARD.format(title=title, words=words, width=_WIDTH, height=height, shapes="\n".join([card, *shapes]))


def _box(kind: str, x: int, y: int, width: int, height: int) -> str:
    return f'<rect class="{kind}" x="{x}.5" y="{y}.5" width="{width - 1}" height="{height - 1}" rx="6"/>'


def _prose(words: str, x: int, y: int, width: int) -> list[str]:
    """Return lines of text, the first one below y."""
    lines = textwrap.wrap(words, int(width / _CHARACTER))
    return [f'<text x="{x}" y="{y + _LINE * row}">{escape(line)}</text>' for row, line in enumerate(lines, start=1)]


_QUESTION = "May a persona exist? "
_PANELS = {False: ("no", f"{_QUESTION}No."), True: ("yes", f"{_QUESTION}Yes.")}


def error_tree() -> str:
    """Draw each error with its built-in parent and the first sentence of its docstring."""
    y, panel = 6, None
    tops: dict[bool, int] = {}
    bottoms: dict[bool, int] = {}
    trunks: dict[type, tuple[int, int]] = {}  # where the line to the next child continues
    rows: list[str] = []
    for kind, parent, depth in _tree(PersonaError):
        x = 18 + 18 * depth
        if parent is not None and panel is not kind.may_have_created:
            panel = kind.may_have_created
            tops[panel] = y = y + 14
            y += 22
            rows.append(f'<text class="question" x="{x}" y="{y - 2}">{_PANELS[panel][1]}</text>')
        y += 22
        if parent is not None:
            left, top = trunks[parent]
            rows.append(f'<path d="M{left} {top}V{y - 4}H{x - 4}"/>')
            trunks[parent] = left, y - 4
        also = "".join(f" and {base.__name__}" for base in kind.__bases__[1:])
        rows.append(f'<text y="{y}"><tspan class="name" x="{x}">{kind.__name__}</tspan>{also}</text>')
        sentence = re.split(r"(?<=\.)\s", inspect.cleandoc(kind.__doc__ or ""))[0]
        lines = _prose(sentence, x, y, _WIDTH - 16 - x)
        rows += lines
        y += _LINE * len(lines)
        trunks[kind] = x + 5, y + 6
        bottoms[kind.may_have_created] = y
        y += 3
    panels = [_box(_PANELS[panel][0], 8, top, _WIDTH - 16, bottoms[panel] + 13 - top) for panel, top in tops.items()]
    words = ", ".join(f"{kind.__name__} below {parent.__name__}" for kind, parent, _ in _tree(PersonaError) if parent)
    return _card("The errors of suno_persona, as a tree", f"{words}.", y + 20, panels + rows)


def _tree(
    kind: type[PersonaError], parent: type[PersonaError] | None = None, depth: int = 0
) -> Iterator[tuple[type[PersonaError], type[PersonaError] | None, int]]:
    """Yield each public error with its parent; errors that rule out a persona come first."""
    yield kind, parent, depth
    for child in sorted(_below(kind), key=lambda error: error.may_have_created):
        yield from _tree(child, kind, depth + 1)


def _below(kind: type[PersonaError]) -> Iterator[type[PersonaError]]:
    for child in kind.__subclasses__():
        if child.__name__.startswith("_"):
            yield from _below(child)
        elif child.__module__ == PersonaError.__module__:
            yield child


# The steps of a call, from top to bottom: the kind of box, its name, and what happens there.
_WAY = [
    ("outside", "your code", "await api.create(request), or async for outcome in api.create_many(requests)"),
    ("package", "_client.py", "holds the session and the settings; puts the engine together"),
    ("batch", "_batch.py", "create_many only: reads your requests lazily, returns outcomes as they complete"),
    ("batch", "journal/", "with a journal only: commits a claim before the request, the outcome after it"),
    ("package", "_engine.py", "one call from request to outcome: its attempts, and the retries between them"),
    ("package", "_admission.py", "a slot for the call; for each attempt the shared cool-down, then the rate limit"),
    ("package", "_transport.py", "one POST on aiohttp; without a response: never sent, or may it have been received?"),
    ("outside", "the service", ""),
    (
        "package",
        "_response.py",
        "status, headers and bytes become a persona or an error: with _error_body.py, conversion.py",
    ),
    ("package", "_retry.py", "an error: is a retry safe, and after which backoff?"),
]
_ENDS = [
    ("package", "Persona", "It is there."),
    ("no", "NotCreatedError", "There is none."),
    ("yes", "OutcomeUnknownError", "There may be one."),
]


def call() -> str:
    """Draw the path of a call through the package, and back to admission where a retry is safe."""
    x, width, y = 14, 334, 14
    middles: dict[str, int] = {}
    shapes: list[str] = []
    for kind, name, words in _WAY:
        prose = _prose(words, x + 10, y + 21, width - 20)
        height = 32 + _LINE * len(prose)
        if shapes:
            shapes.append(f'<path d="M{x + 40} {y - 16}V{y}" marker-end="url(#tip)"/>')
        shapes += [
            _box(kind, x, y, width, height),
            f'<text class="name" x="{x + 10}" y="{y + 21}">{name}</text>',
            *prose,
        ]
        middles[name] = y + height // 2
        y += height + 16
    right = x + width
    shapes.append(
        f'<path d="M{right} {middles["_retry.py"]}H{right + 20}V{middles["_admission.py"]}H{right}" '
        'marker-end="url(#tip)"/>'
    )
    aside = (middles["_retry.py"] + middles["_admission.py"]) // 2
    shapes.append(
        f'<text x="{right + 38}" y="{aside}" text-anchor="middle" '
        f'transform="rotate(-90 {right + 38} {aside})">yes: the next attempt</text>'
    )
    shapes.append(f'<path d="M{x + 40} {y - 16}V{y}" marker-end="url(#tip)"/>')
    for kind, name, words in _ENDS:
        shapes.append(_box(kind, x, y, width, 30))
        shapes.append(
            f'<text y="{y + 20}"><tspan class="name" x="{x + 10}">{name}</tspan>'
            f'<tspan x="{x + 180}">{words}</tspan></text>'
        )
        y += 36
    words = "; ".join(f"{name}: {words}" if words else name for _, name, words in [*_WAY, *_ENDS])
    return _card("A call's way through suno_persona", words, y + 8, shapes)
