"""The list of the how-to pages is complete, and every page on it exists."""

import re

from support.pages import BLOCKS, PAGES, ROOT

INDEX = "docs/how-to/index.md"
THERE = sorted(path.stem for path in (ROOT / "docs" / "how-to").glob("*.md") if path.stem != "index")
PROMISED = {
    "asyncio.gather": "gather",
    "large batches and resuming": "batches",
    "looking at what a batch created": "look-at-a-batch",
    "settings of the command, scripts and pipes": "command-line",
    "what to do with an unknown outcome": "unknown-outcomes",
    "rate limits": "rate-limits",
    "timeouts": "timeouts",
    "proxies, custom CAs and own sessions": "connections",
    "FastAPI and aiohttp.web with one client per process": "web-applications",
    "synchronous callers: scripts, Flask, Celery and Django": "synchronous-code",
    "notebooks": "notebooks",
    "logging": "logging",
    "tracing with OpenTelemetry": "tracing",
    "testing with the fake service": "testing",
    "many machines": "many-machines",
    "many accounts": "many-accounts",
    "pandas and DuckDB on the output": "pandas-duckdb",
    "moving from hand-written aiohttp": "from-aiohttp",
    "persona_id in the next step": "persona-id",
    "what gateways vary": "gateways",
}


def test_the_list_has_every_page() -> None:
    """Each page is listed once, with the problem that it solves."""
    assert sorted(re.findall(r"^- \[.+\]\(([\w-]+)\.md\): .+\.$", PAGES[INDEX], re.MULTILINE)) == THERE


def test_the_navigation_has_the_pages_in_the_order_of_the_list() -> None:
    """The next page in the navigation is the next one on the list."""
    (tree,) = [block.code for block in BLOCKS[INDEX] if block.language == "{toctree}"]
    assert re.findall(r"^[\w-]+$", tree, re.MULTILINE) == re.findall(r"\]\(([\w-]+)\.md\)", PAGES[INDEX])


def test_every_promised_page_exists() -> None:
    """Each promised topic has a page."""
    assert sorted(PROMISED.values()) == THERE
