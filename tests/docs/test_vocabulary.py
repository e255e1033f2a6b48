"""The package speaks one vocabulary, the field's: one word for one thing."""

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
from support import modules, pages

import suno_persona
import suno_persona.conversion
import suno_persona.distributed
import suno_persona.journal
import suno_persona.testing

PACKAGES = (
    *(suno_persona, suno_persona.conversion, suno_persona.distributed, suno_persona.journal, suno_persona.testing),
)
# Each with the word to use in its place.
RETIRED = {
    r"(giv(e|es|en|ing)|gave)(?! up)": "return, raise, yield, pass",
    r"tell(s|ing)?|told": "return, show",
    r"repeat(s|ed|ing)?|repetition|try again|tried again": "retry, attempt",
    r"under way": "in flight",
    r"(its|the|their|a|free) turns?(?! of)": "slot",
    r"longest_wait|first_wait|first wait": "wait_max, wait_initial",
    r"cooling|cools?": "cool-down",
    r"(?<!connection )refus(e|es|ed|ing)": "rejected, rate limited",
    r"answer(s|ed|ing)?": "response",
    r"comes? again": "is retried, is redelivered",
    r"places?": "ordinal, index, path, offset",
    r"sign of life|dead": "heartbeat, stalled",
    r"hurry": "cancel",
    r"whole numbers?|from [01] on": "integer >= 1",
    r"nobody knows": "unknown",
    r"look before": "check before",
    r"expected .* found": "must be ...; got ...",
}
TESTS = sorted(set(Path(__file__).parent.parent.rglob("*.py")) - {Path(__file__)})
PATTERNS = {word: re.compile(rf"\b({word})\b", re.IGNORECASE | re.DOTALL) for word in RETIRED}


def found(text: str) -> list[str]:
    """Return the retired words in a text, each with what to write instead."""
    text = re.sub(r"cool(s|ed|ing)?[-_ ]downs?", "", text)
    return [f"{match[0]!r}: {RETIRED[word]}" for word, pattern in PATTERNS.items() if (match := pattern.search(text))]


def retired(texts: Iterable[tuple[object, str]]) -> dict[object, list[str]]:
    """Return where texts hold retired words."""
    return {where: words for where, text in texts if (words := found(text))}


def names() -> Iterator[tuple[str, str]]:
    """Yield the public names, those of their members and those of their parameters."""
    for package in PACKAGES:
        for name in getattr(package, "__all__", [name for name in vars(package) if not name.startswith("_")]):
            thing = getattr(package, name)
            members = [member for member in dir(thing) if not member.startswith("_")] if inspect.isclass(thing) else []
            own = {name, *members}
            for function in (thing, *(getattr(thing, member) for member in members)):
                if inspect.isfunction(function) or (inspect.isclass(function) and attrs.has(function)):
                    own |= set(inspect.signature(function).parameters)
            yield from ((f"{package.__name__}.{name}: {each}", each.replace("_", " ")) for each in own)


def test_public_names_use_the_vocabulary() -> None:
    """Names of functions, classes, members and parameters hold no retired word."""
    assert retired(names()) == {}


def test_docstrings_messages_and_comments_use_the_vocabulary() -> None:
    """No module of the package holds a retired word."""
    lines = (((module, line), text) for module in modules.MODULES for line, text in modules.prose(module))
    assert retired(lines) == {}


def test_pages_use_the_vocabulary() -> None:
    """Neither the README nor a page of the docs holds a retired word outside its code."""
    assert retired(((page, line), text) for page in pages.PAGES for line, text in pages.prose(page)) == {}


def test_tests_use_the_vocabulary() -> None:
    """The names and docstrings of tests and their helpers, and the comments, hold no retired word."""
    assert retired(((path.name, line), text) for path in TESTS for line, text in modules.documented(path)) == {}
