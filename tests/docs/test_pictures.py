"""The pictures of the docs agree with the package; `pytest --write-docs` draws and records them again."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html import unescape
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from support import pictures
from support.command import COMMAND
from support.pages import PROJECT
from support.terminal import terminal
from support.written import DOCS, assert_shown

import suno_persona
from suno_persona import PersonaError

SVG = "{http://www.w3.org/2000/svg}"
pictured = pytest.mark.parametrize(
    ("name", "draw"), [("error-tree", pictures.error_tree), ("call", pictures.call)], ids=["error-tree", "call"]
)


def names(draw: Callable[[], str]) -> list[tuple[str, int]]:
    """Return the names in a picture, from top to bottom, and the offset of each from the left."""
    return [
        (part.text or "", int(part.attrib["x"])) for part in ET.fromstring(draw()).iter() if part.get("class") == "name"
    ]


@pictured
def test_the_pictures_are_up_to_date(name: str, draw: Callable[[], str], pytestconfig: pytest.Config) -> None:
    """The docs show what the program draws from the current classes."""
    assert_shown(pytestconfig, f"explanation/{name}.svg", draw())


@pictured
def test_the_pictures_can_be_read_on_a_phone(name: str, draw: Callable[[], str]) -> None:
    """At a width of 350 pixels no text is smaller than 11 pixels; the picture has its own background."""
    root = ET.fromstring(draw())
    sizes = [int(size) for size in re.findall(r"font: (?:bold )?(\d+)px", draw())]
    assert min(sizes) * 350 / int(root.attrib["width"]) >= 11, name
    card = root.find(f"{SVG}rect")
    assert card is not None
    assert card.attrib["class"] == "card"
    assert ".card { fill: #fff;" in draw()


def test_the_tree_in_the_picture_is_the_tree_of_the_classes() -> None:
    """The picture has each error once, one step to the right of its parent."""
    drawn: dict[str, str | None] = {}
    above: list[tuple[str, int]] = []
    for name, x in names(pictures.error_tree):
        while above and above[-1][1] >= x:
            above.pop()
        assert name not in drawn
        drawn[name] = above[-1][0] if above else None
        above.append((name, x))
    errors = [kind for kind in vars(suno_persona).values() if isinstance(kind, type) and issubclass(kind, PersonaError)]
    public = {kind.__name__: kind for kind in errors}
    assert drawn == {
        name: next((base.__name__ for base in kind.__mro__[1:] if base.__name__ in public), None)
        for name, kind in public.items()
    }


def test_the_picture_of_a_call_names_what_exists() -> None:
    """Each box is a module, a package or a public name; the rest is the user's code and the service."""
    shown = {name for name, _ in names(pictures.call)}
    outside = {"your code", "the service"}
    assert outside <= shown
    package = Path(suno_persona.__file__).parent
    assert all((package / name).exists() or hasattr(suno_persona, name) for name in shown - outside)


COLUMNS = 57  # the minimum for its ids, so that letters are large enough on a phone
PICTURE = DOCS / "demo.svg"
# rich's own template loads fonts from other hosts.
TEMPLATE = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font: {char_height}px/{line_height}px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}}
{styles}
</style>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


@pytest.mark.slow
async def test_the_picture_in_the_readme_is_a_recording_of_the_demo(pytestconfig: pytest.Config) -> None:
    """It has the text of the demo, except for the ids, which change with each run."""
    async with terminal(COMMAND, "demo", env={}, columns=COLUMNS) as (screen, process):
        pass
    assert process.returncode == 0
    if pytestconfig.getoption("write_docs"):
        console = Console(record=True, file=StringIO(), width=COLUMNS)
        recording = screen.shown.decode().replace("\r\n", "\n").rstrip()
        console.print(Text.from_ansi(f"$ suno-persona demo\n{recording}"))
        svg = console.export_svg(title="", theme=MONOKAI, code_format=TEMPLATE, unique_id="demo")
        svg = re.sub(r' clip-path="[^"]*"', "", svg)  # it would cut off underscores
        PICTURE.write_text("".join(f"{line.strip()}\n" for line in svg.splitlines() if line.strip()), encoding="utf-8")
    svg = PICTURE.read_text(encoding="utf-8")
    shown = "".join(unescape(text) for text in re.findall(r"<text[^>]*>(.*?)</text>", svg))
    assert without_ids(shown) == without_ids(f"$ suno-persona demo{screen.text}")


def without_ids(text: str) -> str:
    """Return the text without white space and with its ids, which may be wrapped, masked."""
    return re.sub(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", "ID", re.sub(r"\s", "", text))


def test_the_picture_in_the_readme_is_self_contained() -> None:
    """It is well-formed, loads nothing, and has an alternative text in the README."""
    svg = PICTURE.read_text(encoding="utf-8")
    ET.fromstring(svg)
    assert set(re.findall(r"\w+://[^\"']+", svg)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\((?!#)|href|@import|@font-face", svg)
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^!\[[^\]]{30,}\]\(docs/demo\.svg\)$", readme, re.MULTILINE)


def test_the_badges_are_true() -> None:
    """They are drawn here, by no service: the Pythons and the licence that the project declares."""
    pythons = [line.split(" :: ")[-1] for line in PROJECT["project"]["classifiers"] if " :: 3." in line]
    assert f">{pythons[0]} to {pythons[-1]}<" in (DOCS / "python.svg").read_text(encoding="utf-8")
    assert f">{PROJECT['project']['license']}<" in (DOCS / "licence.svg").read_text(encoding="utf-8")
