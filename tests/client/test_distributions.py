"""The wheel and the sdist that nox builds in dist/, and the wheel that it installs for the tests."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest

import suno_persona
from suno_persona._version import VERSION

SESSION = os.environ.get("NOX_CURRENT_SESSION", "")
pytestmark = pytest.mark.skipif(
    not SESSION.startswith(("tests", "lowest")), reason="needs the wheel that `nox -t ci` builds and installs"
)

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME = f"suno_persona-{VERSION}"
LEFT_BY_TOOLS = {"__pycache__", "_build"}


def in_the_checkout(*paths: str) -> set[str]:
    """Return the files of the project, as paths relative to its root."""
    files = {file for path in paths for file in (ROOT / path, *(ROOT / path).rglob("*")) if file.is_file()}
    return {file.relative_to(ROOT).as_posix() for file in files if not LEFT_BY_TOOLS & set(file.parts)}


def test_the_tests_import_the_wheel() -> None:
    """Neither the tests nor the processes that they start import the checkout."""
    installed = distribution("suno-persona")
    with ZipFile(ROOT / "dist" / f"{NAME}-py3-none-any.whl") as wheel:
        modules = [name for name in wheel.namelist() if name.startswith("suno_persona/")]
        for name in modules:
            assert Path(str(installed.locate_file(name))).read_bytes() == wheel.read(name), name
    file = str(installed.locate_file("suno_persona/__init__.py"))
    assert suno_persona.__file__ == file
    show = [sys.executable, "-c", "import suno_persona; print(suno_persona.__file__)"]
    assert subprocess.check_output(show, cwd=ROOT, text=True).strip() == file


def test_the_wheel_has_only_the_package() -> None:
    """It includes `py.typed` and the demo's file; beside it are the metadata and the licence."""
    with ZipFile(ROOT / "dist" / f"{NAME}-py3-none-any.whl") as wheel:
        held = set(wheel.namelist())
    metadata = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    assert held == in_the_checkout("suno_persona") | {f"{NAME}.dist-info/{name}" for name in metadata}
    assert {"suno_persona/py.typed", "suno_persona/personas.csv"} <= held


def test_the_sdist_has_everything_to_build_and_test_the_package() -> None:
    """It has no files that tools left in the checkout."""
    with tarfile.open(ROOT / "dist" / f"{NAME}.tar.gz") as sdist:
        held = {Path(name).relative_to(NAME).as_posix() for name in sdist.getnames()}
    top = {".gitignore", "LICENSE", "README.md", "noxfile.py", "pyproject.toml"}
    assert held == in_the_checkout(".ci", ".github", "docs", "suno_persona", "tests") | top | {"PKG-INFO"}


def test_an_index_shows_the_readme_with_links_into_the_repository() -> None:
    """Links and pictures are absolute, start with the URL in `[project.urls]`, and lead to files."""
    source = PROJECT["urls"]["Source"]
    metadata = distribution("suno-persona").metadata
    assert metadata.get_all("Project-URL") == [f"Source, {source}"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    target = re.compile(r"(!\[[^\]]*)?\]\(([^)]+)\)")  # of a picture, which may be a link itself, or of a link
    links = target.findall(readme)
    assert all((ROOT / link).is_file() for _, link in links if "://" not in link)
    assert target.findall(metadata["Description"]) == [
        (picture, link if "://" in link else f"{source}/blob/HEAD/{link}{'?raw=true' if picture else ''}")
        for picture, link in links
    ]
