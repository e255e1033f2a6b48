"""The pages and pictures in `docs/explanation` agree with the package; `pytest --write-docs` draws and writes them."""

import ast
import re
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from support import pictures

import suno_persona
from suno_persona import PersonaError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "explanation"
DESIGN = DOCS / "design.md"
PACKAGE = Path(suno_persona.__file__).parent
FILES = sorted(file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py"))
SVG = "{http://www.w3.org/2000/svg}"

pictured = pytest.mark.parametrize(
    ("name", "draw"), [("error-tree", pictures.error_tree), ("call", pictures.call)], ids=["error-tree", "call"]
)


def written(file: Path, text: str, config: pytest.Config) -> str:
    """Return the content of a file of the docs, after writing it with `--write-docs`."""
    if config.getoption("write_docs"):
        file.write_text(text, encoding="utf-8")
    return file.read_text(encoding="utf-8")


def names(picture: str) -> list[tuple[str, int]]:
    """Return the names in a picture, from top to bottom, and the offset of each from the left."""
    root = ET.parse(DOCS / f"{picture}.svg").getroot()
    return [(part.text or "", int(part.attrib["x"])) for part in root.iter() if part.get("class") == "name"]


@pictured
def test_the_pictures_are_up_to_date(name: str, draw: Callable[[], str], pytestconfig: pytest.Config) -> None:
    """The docs show what the program draws from the current classes."""
    assert written(DOCS / f"{name}.svg", draw(), pytestconfig) == draw()


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
    for name, x in names("error-tree"):
        while above and above[-1][1] >= x:
            above.pop()
        drawn[name] = above[-1][0] if above else None
        above.append((name, x))
    errors = [kind for kind in vars(suno_persona).values() if isinstance(kind, type) and issubclass(kind, PersonaError)]
    public = {kind.__name__: kind for kind in errors}
    assert drawn == {
        name: next((base.__name__ for base in kind.__mro__[1:] if base.__name__ in public), None)
        for name, kind in public.items()
    }
    assert len(names("error-tree")) == len(public)


def test_the_picture_of_a_call_names_what_exists() -> None:
    """Each box is a module, a package or a public name; the rest is the user's code and the service."""
    shown = [name for name, _ in names("call")]
    outside = {"your code", "the service"}
    assert outside <= set(shown)
    for name in set(shown) - outside:
        assert (PACKAGE / name).exists() or hasattr(suno_persona, name)


def opening(file: str) -> str:
    """Return the first sentence of a module's docstring."""
    docstring = ast.get_docstring(ast.parse((PACKAGE / file).read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=\.)\s", docstring)[0].replace("\n", " ")


def test_the_design_lists_every_file(pytestconfig: pytest.Config) -> None:
    """The page has the first sentence of each module's docstring."""
    rows = "\n".join(f"| `{file}` | {opening(file)} |" for file in FILES)
    before, marker, rest = DESIGN.read_text(encoding="utf-8").partition("| file | what it is for |\n| --- | --- |\n")
    _, heading, after = rest.partition("\n## ")
    text = f"{before}{marker}{rows}\n{heading}{after}"
    assert written(DESIGN, text, pytestconfig) == text


def test_each_rule_lives_where_the_design_says() -> None:
    """The files that the page names exist, and define the names that it puts in them."""
    page = DESIGN.read_text(encoding="utf-8")
    places = re.findall(r"`((?:\w+/)*\w+\.py)`(?:: `(\w+)`)?", page)
    assert {name for _, name in places} > {"FAILURES", "Reader"}
    for file, name in places:
        assert file in FILES
        if name:
            code = (PACKAGE / file).read_text(encoding="utf-8")
            assert re.search(rf"^ *(?:(?:async )?def |class |){name}\b(?= *[(:=])", code, re.MULTILINE), name


def test_the_design_has_a_reason_for_each_dependency() -> None:
    """The page lists the dependencies of the package and of its extras, and no others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stated = {
        re.split(r"[\[><=~! ]", requirement)[0].lower()
        for requirements in [project["dependencies"], *project["optional-dependencies"].values()]
        for requirement in requirements
    }
    _, _, table = DESIGN.read_text(encoding="utf-8").partition("## Dependencies")
    assert set(re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE)) == stated - {"suno-persona"}
