"""The page of `suno-persona journal export --format html`, in Chromium: what it shows, and that it loads nothing.

`pytest --write-docs` retakes the README's screenshot.
"""

import json
import re
import shlex
import shutil
import struct
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.command import COMMAND, run
from support.exports import HOSTILE, SONGS, a_persona, a_request, export, fill, many, sample
from support.journals import entries

from suno_persona import Clip, ConnectionLostError, CreatePersonaRequest, Persona

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page, Request, Route

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PICTURE = Path(__file__).parents[2] / "docs" / "exported-page.png"
COVER = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96"><linearGradient id="g" x2="1" y2="1">\
<stop stop-color="hsl({0} 65% 62%)"/><stop offset="1" stop-color="hsl({1} 55% 28%)"/></linearGradient>\
<rect width="96" height="96" fill="url(#g)"/><circle cx="66" cy="34" r="17" fill="hsl({1} 75% 78%)"/></svg>"""


class Tab:
    """A page that is open in Chromium, with its requests and its console messages."""

    def __init__(self, page: "Page") -> None:
        self.page = page
        self.requested: list[str] = []
        self.complaints: list[str] = []
        page.on("request", self._note)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(error.message))

    def _note(self, request: "Request") -> None:
        if not request.url.startswith("file:"):
            self.requested.append(request.url)

    async def open(self, journal: str, *options: str) -> None:
        """Export a journal, and open the page."""
        file = Path(journal).with_name("page.html")
        done = await export(journal, "html", "--output", str(file), *options)
        assert (done.status, done.errors) == (0, "")
        await self.page.add_init_script(
            "addEventListener('securitypolicyviolation', event => console.error(event.violatedDirective))"
        )
        await self.page.goto(file.as_uri())

    async def names(self) -> list[str]:
        """Return the names of the requests that are visible."""
        return await self.page.locator("h3:visible").all_text_contents()


@pytest.fixture
async def context() -> "AsyncIterator[BrowserContext]":
    """Yield a headless browser in which nothing reaches the network."""
    async_api = pytest.importorskip("playwright.async_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    async with async_api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context(permissions=["clipboard-read", "clipboard-write"])

        async def cover(route: "Route") -> None:
            hue = int(route.request.url[-36], 16) * 47 + 200
            await route.fulfill(body=COVER.format(hue, hue + 70), content_type="image/svg+xml")

        await context.route(re.compile("^(?!file:)"), cover)
        yield context
        await browser.close()


@pytest.fixture
async def tab(context: "BrowserContext") -> Tab:
    """Return an empty page."""
    return Tab(await context.new_page())


async def test_a_request_is_shown_with_its_outcome(tab: Tab, tmp_path: Path) -> None:
    """Requests are shown in input order with name, description and state, and with the reason of a failure."""
    journal, file = await sample(tmp_path)
    await tab.open(journal, "--input", file)
    assert await tab.names() == list(SONGS)
    assert await tab.page.locator("h1").inner_text() == "Personas"
    assert await tab.page.locator(".state").all_inner_texts() == [
        *("Created", "Created", "Unknown", "Created", "Not created", "Claimed"),
    ]
    items = await tab.page.locator(".item").all_inner_texts()
    assert all(description in item for description, item in zip(SONGS.values(), items, strict=True))
    assert all(f"line {line}" in item for line, item in enumerate(items, start=2))
    assert "ConnectionLostError: the connection broke" in items[2]
    (command,) = re.findall(r"suno-persona (journal resolve [0-9a-f]{12}:1 --journal \S+)", items[2])
    assert (await run(COMMAND, *shlex.split(command), "--not-created", env={})).status == 0
    assert "NotFoundError, HTTP 404: the clip does not exist" in items[4]
    assert "No outcome was recorded" in items[5]
    links = tab.page.get_by_role("link", name="Audio of Neon Drive")
    assert re.fullmatch("https://cdn.example/audio/0b.+", str(await links.get_attribute("href")))
    assert await links.get_attribute("rel") == "noreferrer noopener"
    assert (tab.requested, tab.complaints) == ([], [])


async def test_a_button_copies_what_it_names(tab: Tab, tmp_path: Path) -> None:
    """The buttons copy the persona's id and the JSON of the next request."""
    journal, file = await sample(tmp_path)
    await tab.open(journal, "--input", file)
    (persona,) = [entry.persona for entry in await entries(journal) if entry.request.name == "Harbour Fog"]
    assert persona is not None
    await tab.page.get_by_role("button", name="Copy id of Harbour Fog").click()
    await tab.page.get_by_text("Copied").first.wait_for()
    assert await tab.page.evaluate("navigator.clipboard.readText()") == persona.id
    assert await tab.page.get_by_role("status").last.inner_text() == "Copied"
    await tab.page.get_by_role("button", name="Copy JSON of Harbour Fog").click()
    await tab.page.wait_for_function("navigator.clipboard.readText().then(text => text.startsWith('{'))")
    assert json.loads(await tab.page.evaluate("navigator.clipboard.readText()")) == persona.music_fields()
    await tab.page.get_by_text("Next request with Harbour Fog").click()
    shown = await tab.page.locator("details[open] pre").inner_text()
    assert json.loads(shown) == persona.music_fields()
    assert (tab.requested, tab.complaints) == ([], [])


async def test_a_failed_copy_is_reported(tab: Tab, context: "BrowserContext", tmp_path: Path) -> None:
    """If the browser forbids copying, the button says so."""
    journal, _ = await sample(tmp_path)
    await tab.open(journal)
    await tab.page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error()))")
    await tab.page.get_by_role("button", name="Copy id of Neon Drive").click()
    await tab.page.get_by_text("Cannot copy").first.wait_for()


async def test_the_filter_hides_what_does_not_match(tab: Tab, tmp_path: Path) -> None:
    """The filter matches words in any order and without accents, ids and states; the count is announced."""
    journal, file = await sample(tmp_path)
    await tab.open(journal, "--input", file)
    count = tab.page.get_by_role("status").first
    assert await count.inner_text() == "6 shown"
    await tab.page.keyboard.press("/")
    await tab.page.keyboard.type("VOICE  néon")
    assert await tab.names() == ["Neon Drive"]
    assert await count.inner_text() == "1 of 6 shown"
    await tab.page.keyboard.press("Control+A")
    await tab.page.keyboard.type("90ccf8b7")
    assert await tab.names() == ["Iron Choir"]
    await tab.page.keyboard.press("Control+A")
    await tab.page.keyboard.type("a/b")
    assert await tab.names() == []
    assert await tab.page.get_by_text("Nothing matches this filter.").is_visible()
    await tab.page.get_by_label("Filter").fill("")
    await tab.page.get_by_role("radio", name="Not created 1").check()
    assert await tab.names() == ["Lost Tape"]
    await tab.page.get_by_role("radio", name="All 6").check()
    await tab.page.get_by_label("Filter").press("Enter")
    assert await tab.names() == list(SONGS)
    assert (tab.requested, tab.complaints) == ([], [])


async def test_covers_are_loaded_on_demand(tab: Tab, tmp_path: Path) -> None:
    """Covers are loaded one by one or all together; a second click hides them."""
    journal, file = await sample(tmp_path)
    await tab.page.set_viewport_size({"width": 1000, "height": 2000})  # only visible covers are loaded
    await tab.open(journal, "--input", file)
    assert await tab.page.locator("img").count() == 0
    async with tab.page.expect_response(re.compile("image")):
        await tab.page.get_by_role("button", name="Show cover of Neon Drive").click()
    assert len(tab.requested) == 1
    async with tab.page.expect_response(re.compile("image")):
        await tab.page.get_by_role("button", name="Show covers").click()
    await tab.page.wait_for_function("[...document.images].filter(image => image.naturalWidth).length == 3")
    assert len(set(tab.requested)) == 3
    await tab.page.get_by_role("button", name="Show covers").click()
    assert await tab.page.locator("img").count() == 0
    assert tab.complaints == []


async def test_a_missing_cover_is_reported(tab: Tab, context: "BrowserContext", tmp_path: Path) -> None:
    """If a cover does not load as a picture, its button says so."""

    async def no_picture(route: "Route") -> None:
        await route.fulfill(body="none", content_type="image/png")

    await context.route(re.compile("image"), no_picture)
    journal, _ = await sample(tmp_path)
    await tab.open(journal)
    await tab.page.get_by_role("button", name="Show cover of Iron Choir").click()
    await tab.page.get_by_role("button", name="No cover of Iron Choir").wait_for()
    assert await tab.page.locator("img").count() == 0


async def test_markup_from_the_service_is_shown_as_text(tab: Tab, tmp_path: Path) -> None:
    """Markup is shown as text, only web addresses are links, and covers need HTTPS."""
    hostile = CreatePersonaRequest(root_clip_id="c", name=HOSTILE, description=f"</script>{HOSTILE}\0\x1b")
    script = "javascript:alert(1)"
    clip = Clip(audio_url=script, video_url=script, image_url=script, image_large_url=script)
    persona = Persona(id='"><script>alert(1)</script>', root_clip_id=HOSTILE, clip=clip)
    plain = a_request("Plain")
    http = a_persona(1, plain, audio_url="http://cdn.example/a", image_url="http://cdn.example/i")
    lost = ConnectionLostError(message=HOSTILE)
    others = (plain, http), (a_request("Without a clip"), Persona(id="p")), (a_request("Lost"), lost)
    journal = await fill(tmp_path / "j", (hostile, persona), *others)
    await tab.open(journal)
    assert (await tab.names())[0] == HOSTILE
    assert f"</script>{HOSTILE}\ufffd\ufffd" in await tab.page.locator(".description").first.inner_text()
    assert HOSTILE in await tab.page.locator(".reason").inner_text()
    assert await tab.page.locator("img, .item script").count() == 0
    assert await tab.page.locator("a").evaluate_all("links => links.map(link => link.href)") == [
        *("http://cdn.example/a", "https://cdn.example/video/54834687"),
    ]
    assert await tab.page.locator("[data-cover]").count() == 0
    await tab.page.get_by_role("button", name="Copy id").first.click()
    await tab.page.get_by_text("Copied").first.wait_for()
    assert await tab.page.evaluate("navigator.clipboard.readText()") == persona.id
    assert (tab.requested, tab.complaints) == ([], [])


async def test_the_content_security_policy_blocks_injected_content(tab: Tab, tmp_path: Path) -> None:
    """Injected scripts, styles, images and connections do not run, even if escaping missed them."""
    journal, _ = await sample(tmp_path)
    await tab.open(journal)
    await tab.page.evaluate("""() => {
        const markup = '<img src="data:," onerror="window.ran = 1"><p style="color: red">';
        document.body.insertAdjacentHTML("beforeend", markup);
        const script = document.createElement("script");
        script.textContent = "window.ran = 1";
        document.body.append(script);
    }""")
    assert await tab.page.evaluate("fetch('https://cdn.example').catch(() => 'stopped')") == "stopped"
    assert await tab.page.evaluate("window.ran") is None
    assert {"img-src", "script-src-elem", "style-src-attr", "connect-src"} <= set(tab.complaints)
    assert tab.requested == []


async def test_a_thousand_personas_are_filtered_at_once(tab: Tab, tmp_path: Path) -> None:
    """The page handles each keystroke in one task, then shows the matches."""
    journal = await fill(tmp_path / "j", *many(1000))
    await tab.open(journal)
    assert await tab.page.get_by_role("status").first.inner_text() == "1,000 shown"
    await tab.page.get_by_label("Filter").fill("clip-99")
    assert await tab.page.get_by_role("status").first.inner_text() == "11 of 1,000 shown"
    assert sorted(await tab.names()) == sorted(["Voice 99", *(f"Voice {number}" for number in range(990, 1000))])
    assert (tab.requested, tab.complaints) == ([], [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1200])
async def test_the_page_fits_the_screen(tab: Tab, tmp_path: Path, width: int, scheme: str) -> None:
    """On phones and desktops, in light and dark mode, nothing overflows and the background suits the mode."""
    word = "x" * 300
    long = CreatePersonaRequest(root_clip_id=word, name=word, description=word)
    journal = await fill(tmp_path / "j", (long, a_persona(1, long)), (a_request(f"{word} 2"), None))
    await tab.page.set_viewport_size({"width": width, "height": 800})
    await tab.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await tab.open(journal)
    await tab.page.locator("summary").click()
    assert await tab.page.evaluate("document.documentElement.scrollWidth") == width
    paper = await tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 384) is (scheme == "dark")


async def test_every_state_is_visible_on_a_phone(tab: Tab, tmp_path: Path) -> None:
    """The filter and the buttons of all states fit its width, without scrolling."""
    journal, _ = await sample(tmp_path)
    await tab.page.set_viewport_size({"width": 390, "height": 844})
    await tab.open(journal)
    assert await tab.page.evaluate("document.documentElement.scrollWidth") == 390
    for control in await tab.page.locator("#filter, .states span, #covers").all():
        box = await control.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390


async def test_the_keyboard_reaches_everything_in_order(tab: Tab, tmp_path: Path) -> None:
    """Tab moves from the filter to the states, the covers and the first request, and outlines the focus."""
    journal, file = await sample(tmp_path)
    await tab.open(journal, "--input", file)
    reached = []
    for _ in range(8):
        await tab.page.keyboard.press("Tab")
        reached.append(
            await tab.page.evaluate("""() => {
                const focused = document.activeElement;
                const shown = focused.type === "radio" ? focused.nextSibling : focused;
                return [focused.textContent.trim() || focused.name || focused.id, getComputedStyle(shown).outlineStyle];
            }""")
        )
    names = ["filter", "state", "Show covers", "NShow cover of Neon Drive", "Copy id of Neon Drive"]
    names += ["Next request with Neon Drive", "Copy JSON of Neon Drive", "Audio of Neon Drive"]
    assert [name for name, _ in reached] == names
    assert {outline for _, outline in reached} == {"solid"}


async def test_the_page_reads_well_without_a_script(tmp_path: Path) -> None:
    """The page has headings in order, labels, and no button or filter that would do nothing."""
    journal, _ = await sample(tmp_path)
    html = (await export(journal, "html")).output
    assert re.findall(r"<h(\d)", html) == ["1", "2", *"333333"]
    assert re.search(r"<form [^>]*\bhidden>", html)
    assert '<label for="filter"' in html
    assert not re.findall(r"""\b(?:src|href)=["'](?!https://cdn\.example/)""", html)
    HTMLParser().feed(html)


async def test_the_page_of_an_empty_journal_says_so(tab: Tab, tmp_path: Path) -> None:
    """The page says that nothing is recorded, and has no filter."""
    await tab.open(await fill(tmp_path / "j"))
    assert await tab.page.get_by_text("Nothing is recorded yet.").is_visible()
    assert not await tab.page.get_by_label("Filter").is_visible()


async def test_the_picture_in_the_readme_is_of_this_page(tab: Tab, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """The picture is as large as desktops show it, and small enough to load on a phone."""
    width, height = 460, 720  # on a phone, its letters are still large enough
    if pytestconfig.getoption("write_docs"):
        journal, file = await sample(tmp_path)
        await tab.page.set_viewport_size({"width": width, "height": height})
        await tab.open(journal, "--input", file)
        await tab.page.get_by_role("button", name="Show covers").click()
        await tab.page.wait_for_function("[...document.images].slice(0, 2).every(image => image.naturalWidth)")
        await tab.page.evaluate("document.activeElement.blur()")
        await tab.page.screenshot(path=PICTURE)
    picture = PICTURE.read_bytes()
    assert struct.unpack(">II", picture[16:24]) == (width, height)
    assert len(picture) < 150_000
