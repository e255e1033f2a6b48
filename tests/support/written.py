"""What pages of the docs show of the code: `pytest --write-docs` writes it."""

from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def assert_shown(config: pytest.Config, page: str, content: str, start: str = "", end: str = "\0") -> None:
    """Assert that a file of the docs has this content between two markers, or to its end; write it if asked to."""
    file = DOCS / page
    text = file.read_text(encoding="utf-8")
    before, marker, rest = text.partition(start) if start else ("", "", text)
    _, gap, after = rest.partition(end)
    expected = f"{before}{marker}{content}{gap}{after}"
    if config.getoption("write_docs"):
        file.write_text(expected, encoding="utf-8")
    assert marker == start
    assert file.read_text(encoding="utf-8") == expected
