"""An echo of the key is masked wherever a service puts it, even in a persona."""

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.calls import ONCE

from suno_persona import CreatePersonaRequest, PersonaAPI, dumps
from suno_persona._secret import Secret
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno, Fault

KEY = "sk-Ab3/dEf6+hIj9lMn2_pQr5&tUv8"

# How an echo may be written within a text of a JSON document.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda key: key,
    "slashes escaped": lambda key: key.replace("/", "\\/"),
    "escaped for HTML": lambda key: key.replace("&", "\\u0026").replace("+", "\\u002B"),
    "JSON escapes": lambda key: "".join(f"\\u{ord(character):04x}" for character in key),
    "JSON in JSON": lambda key: json.dumps(json.dumps(key).replace("/", "\\/"))[1:-1],
    "URL": lambda key: quote(key, safe=""),
    "URL, in lower case": lambda key: key.replace("/", "%2f").replace("+", "%2b"),
    "URL, all of it": lambda key: "".join(f"%{ord(character):02X}" for character in key),
}
spellings = pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)


def assert_masked(shown: str) -> None:
    for spell in SPELLINGS.values():
        assert spell(KEY) not in shown
    assert "hIj9lMn2" not in shown


@spellings
@pytest.mark.parametrize("before", ["", "a", "\\\\", "\\\\\\\\", "\\n", '\\"'])
def test_nothing_but_the_echo_is_masked(spell: Callable[[str], str], before: str) -> None:
    """What surrounds it stays, and a document stays one."""
    text = f'{{"name": "{before}{spell(KEY)} is bad", "note": "b"}}'
    masked = Secret(KEY).mask(text)
    assert_masked(masked)
    assert json.loads(masked)["name"].replace('"', "").endswith("*** is bad")
    assert json.loads(masked)["note"] == "b"


@spellings
async def test_an_echo_in_a_persona_is_masked(
    spell: Callable[[str], str], request_: CreatePersonaRequest, tmp_path: Path
) -> None:
    """It is masked in fields, in `extra`, in names and in the journal, even if a later member hides it."""
    echo = spell(KEY)
    bodies = [
        f'{{"id": "fd213afd", "name": "Neon", "token": "got {echo}!", "{echo}": [1], "description": "{echo}"}}',
        f'{{"id": "fd213afd", "description": "got {echo}!", "name": "{echo}", "name": "Neon"}}',
    ]
    for number, body in enumerate(bodies):
        async with FakeSuno(api_key=KEY) as fake, PersonaAPI(KEY, retry=ONCE, base_url=fake.base_url) as api:
            fake.script(Fault.response(200, body.encode(), headers={"X-Request-Id": f"r-{KEY}"}))
            journal = Journal(tmp_path / f"{number}.db")
            (outcome,) = [outcome async for outcome in api.create_many([request_], journal=journal)]
        persona = outcome.result()
        assert (persona.id, persona.name, outcome.request_id) == ("fd213afd", "Neon", "r-***")
        assert_masked(repr(outcome) + dumps(persona).decode())
    for file in tmp_path.iterdir():
        assert_masked(file.read_bytes().decode("latin-1"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "***",
        KEY[:-1],
        KEY.upper(),
        "a page of text with \\n, \\u00e9, %20 and 100% of nothing",
        '{"id": "54834687-5e79-4f08-8e14-cf188f15b598"}',
    ],
)
def test_text_without_an_echo_is_unchanged(text: str) -> None:
    """Only the whole key is an echo."""
    assert Secret(KEY).mask(text) == text


@given(st.text("abc019/+-_.~%\\u&=é", min_size=8, max_size=40), st.text(max_size=30))
def test_any_key_is_masked_in_any_text(key: str, text: str) -> None:
    """Whatever characters they have."""
    assert key not in Secret(key).mask(f"{text} {key} {text}").replace("***", "")


@pytest.mark.parametrize("key", ["a", "clip", "unknown"])
def test_a_key_that_may_be_a_word_is_not_masked(key: str) -> None:
    """It has less than 8 characters, and is no real key: masking it would make messages unreadable."""
    assert Secret(key).mask(f"no such {key}") == f"no such {key}"


def test_a_fingerprint_depends_on_key_and_salt() -> None:
    """It is the same for the same key and salt, and shows neither."""
    fingerprint = Secret(KEY).fingerprint(b"salt")
    assert fingerprint == Secret(KEY).fingerprint(b"salt")
    assert fingerprint != Secret(KEY).fingerprint(b"pepper")
    assert fingerprint != Secret(f"{KEY}1").fingerprint(b"salt")
