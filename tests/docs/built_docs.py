"""The built docs keep their promises: `nox -s docs` builds them and runs this module with the system's Chromium.

`SCREENSHOTS=folder nox -s docs` also writes a picture of every page at each screen size.
"""

import importlib
import inspect
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from sphinx.util.inventory import InventoryFile

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SITE = DOCS / "_build" / "html"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
SOURCES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)]
MODULES = ["suno_persona", "suno_persona.distributed", "suno_persona.journal", "suno_persona.testing"]

# Finds boxes whose content is wider than they are, and pictures that did not load or are not visible. Tables may
# scroll, and code on a phone; on a desktop only program output and the README's commands, which are tested verbatim.
FAULTS = """(scheme) => [
    ...[...document.querySelectorAll("*")]
        .filter(box => box.scrollWidth > box.clientWidth && !box.matches(innerWidth < 800
                ? "pre, .table-wrapper" : ".highlight-output pre, #suno-persona .highlight-sh pre, .table-wrapper") &&
            (box === document.documentElement || /auto|scroll/.test(getComputedStyle(box).overflowX)))
        .map(box => `${box.tagName} ${box.className}: ${box.scrollWidth} in ${box.clientWidth}`),
    ...[...document.images]
        .filter(image => !image.naturalWidth ||
            !image.checkVisibility() && !image.closest(scheme === "dark" ? ".only-light" : ".only-dark"))
        .map(image => image.src),
]"""


class Reader(HTMLParser):
    """Collects the links of a page, the resources that it loads, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the links, resources and anchors of an element."""
        members = dict(attrs)
        self.links.update(filter(None, (members.get("href"), members.get("src"))))
        if tag != "a":
            self.loaded.update(filter(None, (members.get("href"), members.get("src"))))
        self.places.update(filter(None, (members.get("id"), members.get("name"))))


def annotations(kind: type) -> set[str]:
    """Return the names of the annotated fields in a class's own body."""
    return set(vars(kind).get("__annotations__", {}))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start the system's Chromium, headless."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path) as browser:
        yield browser


@pytest.fixture(scope="session")
def page(browser: Browser) -> Page:
    """Open one tab for all pages."""
    return browser.new_page()


def test_every_source_is_a_page() -> None:
    """Every file in docs/ is a page of the site."""
    assert {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in SOURCES[1:]} <= set(PAGES)


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_every_public_name(module: str) -> None:
    """The reference documents each name of `__all__` and each public member that this package defines."""
    kinds = InventoryFile.loads((SITE / "objects.inv").read_bytes(), uri="").data
    there = {name for kind, names in kinds.items() if kind.startswith("py:") for name in names}
    public = importlib.import_module(module)
    missing = {name for name in public.__all__ if f"{module}.{name}" not in there}
    for kind in filter(inspect.isclass, map(vars(public).get, public.__all__)):
        ancestors = [ancestor for ancestor in inspect.getmro(kind) if ancestor.__module__.startswith("suno_persona")]
        for member in {member for ancestor in ancestors for member in (*vars(ancestor), *annotations(ancestor))}:
            names = {f"{home}.{ancestor.__name__}.{member}" for home in MODULES for ancestor in ancestors}
            if not member.startswith("_") and not names & there:
                missing.add(f"{kind.__name__}.{member}")
    assert not missing


def test_every_attribute_in_the_reference_has_a_type() -> None:
    """The type follows the name of the attribute."""
    pages = "".join((SITE / name).read_text(encoding="utf-8") for name in PAGES if name.startswith("reference/"))
    attributes = re.findall(r'<dl class="py (?:attribute|property)">\s*<dt.*? id="(.*?)">(.*?)</dt>', pages, re.DOTALL)
    assert attributes
    assert not [name for name, shown in attributes if '<span class="p"><span class="pre">:</span></span>' not in shown]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_sources_lead_to_files(source: Path) -> None:
    """Relative links lead to existing files, so that they also work where the repository is browsed."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", source.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"""\]\(([^)\s]+)|(?:src|href|srcset)="([^"]+)""", prose)
    paths = [urlsplit(link or attribute).path for link, attribute in links if "://" not in link + attribute]
    assert not [path for path in paths if not (source.parent / path).exists()]


def test_links_within_the_site_are_not_broken() -> None:
    """Each link leads to an existing file, and to an existing anchor if it names one."""
    pages = {SITE / name: Reader(SITE / name) for name in PAGES}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            places = pages[target].places if target in pages else {unquote(url.fragment)}
            if not url.scheme and not (target.exists() and unquote(url.fragment) in {"", *places}):
                broken.append(f"{path.relative_to(SITE)}: {link}")
    assert not broken


def test_no_page_loads_anything_from_another_host() -> None:
    """Pages and styles load nothing from other hosts, so that no third party learns what is read."""
    assert not {link for name in PAGES for link in Reader(SITE / name).loaded if urlsplit(link).netloc}
    styles = "".join(path.read_text(encoding="utf-8") for path in SITE.rglob("*.css"))
    assert not re.findall(r"""(?:url\(|@import)\s*["']?(?:https?:)?//[^)"']*""", styles)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_fits_the_screen(page: Page, width: int, scheme: str, name: str) -> None:
    """On a phone and on a desktop, light and dark: nothing overflows, and every picture is visible."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto((SITE / name).as_uri())
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name.replace('/', '-')}-{width}-{scheme}.png"), full_page=True)
    assert page.evaluate(FAULTS, scheme) == []
