"""The picture in the README is a recording of `suno-persona demo`; `pytest --write-docs` records it again."""

import re
from html import unescape
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from support.command import COMMAND
from support.terminal import terminal

COLUMNS = 63  # the minimum for its sentences, so that letters are large enough on a phone
ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "demo.svg"
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


async def test_the_picture_in_the_readme_shows_the_demo(pytestconfig: pytest.Config) -> None:
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


def test_the_picture_is_self_contained() -> None:
    """It is well-formed, loads nothing, and has an alternative text in the README."""
    svg = PICTURE.read_text(encoding="utf-8")
    ElementTree.fromstring(svg)
    assert set(re.findall(r"\w+://[^\"']+", svg)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\((?!#)|href|@import|@font-face", svg)
    assert re.search(r"^!\[[^\]]{30,}\]\(docs/demo\.svg\)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
