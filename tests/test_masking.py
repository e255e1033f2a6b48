"""Echoes of the key are masked wherever a service puts them, even in a persona."""

import base64
import copy
import json
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.calls import ONCE

from suno_persona import CreatePersonaRequest, PersonaAPI, dumps
from suno_persona._secret import Secret
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno, Fault

KEY = "sk-Ab3/dEf6+hIj9lMn2_pQr5&tUv8"
CONTRACT_EXAMPLE = Path(__file__).with_name("contract_example.json").read_bytes()


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def split(text: str, separator: str, every: int) -> str:
    return separator.join(text[start : start + every] for start in range(0, len(text), every))


# How an echo may be spelled within a text of a JSON document.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda key: key,
    "upper case": str.upper,
    "hex": lambda key: key.encode().hex(),
    "HEX": lambda key: key.encode().hex().upper(),
    "base64": base64_of,
    "base64 of the header": lambda key: base64_of(f"Bearer {key}"),
    "base64 of name and key": lambda key: base64_of(f"me:{key}"),
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(f"{key}??>".encode()).decode(),
    "slashes escaped": lambda key: key.replace("/", "\\/"),
    "JSON escapes": lambda key: "".join(f"\\u{ord(character):04x}" for character in key),
    "JSON in JSON": lambda key: json.dumps(json.dumps(key).replace("/", "\\/"))[1:-1],
    "URL": lambda key: key.replace("/", "%2F").replace("+", "%2b").replace("&", "%26"),
    "URL, all of it": lambda key: "".join(f"%{ord(character):02X}" for character in key),
    "HTML": lambda key: key.replace("/", "&#47;").replace("+", "&#x2B;").replace("&t", "&amp;t"),
    "two lines": lambda key: split(key, "\\n", 17),
    "many lines": lambda key: split(key, "\\r\\n", 4),
    "base64 in lines": lambda key: split(base64_of(key), "\\n", 16),
    "hex in lines": lambda key: split(key.encode().hex(), "\\n", 16),
    "beginning and dots": lambda key: f"{key[:6]}...",
    "beginning and an ellipsis": lambda key: f"{key[:9]}\\u2026",
    "beginning and a UTF-8 ellipsis": lambda key: f"{key[:9]}…",
    "beginning and end": lambda key: f"{key[:7]}****{key[-4:]}",
    "half": lambda key: key[:20],
}


def parts(key: str) -> set[str]:
    """Return every run of 4 characters of the key, and of 6 characters of its encodings."""
    found = {key[start : start + 4].lower() for start in range(3, len(key) - 3)}
    for text in (key.encode().hex(), base64_of(key), base64_of(f"Bearer {key}")[10:]):
        found |= {text[start : start + 6].lower() for start in range(len(text) - 8)}
    return found


def assert_masked(shown: str) -> None:
    assert not [part for part in parts(KEY) if part in shown.lower()]


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_an_echo_is_masked_in_text_and_in_bytes(spell: Callable[[str], str]) -> None:
    """Nothing but the echo is masked."""
    echo = spell(KEY)
    for text in (f"the key {echo} is bad", f'{{"name": "a\\\\{echo}", "note": "b {echo} c"}}'):
        masked = Secret(f"Bearer {KEY}").mask(text)
        assert_masked(masked)
        assert Secret(KEY).masked(text.encode()) == masked.encode()
        for kept in ("the key ", " is bad") if text.startswith("the") else ('{"name": "a\\\\', 'note": "b ', ' c"}'):
            assert kept in masked
    assert json.loads(masked)["name"].startswith("a\\")


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
async def test_an_echo_in_a_persona_is_masked(spell: Callable[[str], str], request_: CreatePersonaRequest) -> None:
    """It is masked in fields, in `extra` and in its names; everything else is as the service sent it."""
    echo = spell(KEY)
    persona = f'{{"id": "fd213afd", "name": "Neon", "token": "got {echo}!", "{echo}": [1], "description": "{echo}"}}'
    async with FakeSuno(api_key=KEY) as fake, PersonaAPI(KEY, retry=ONCE, base_url=fake.base_url) as api:
        fake.script(Fault.response(200, persona.encode(), headers={"X-Request-Id": "r"}))
        created = await api.create(request_)
    assert (created.id, created.name) == ("fd213afd", "Neon")
    assert str(created.extra["token"]).startswith("got ")
    assert str(created.extra["token"]).endswith("!")
    for shown in (repr(created), dumps(created).decode()):
        assert "***" in shown
        assert_masked(shown)


@pytest.mark.parametrize("spelling", ["plain", "slashes escaped", "JSON escapes", "two lines", "beginning and dots"])
async def test_an_echo_in_a_usual_persona_is_masked(
    spelling: str, request_: CreatePersonaRequest, tmp_path: Path
) -> None:
    """It is masked in a document that has nothing else unusual, and in the journal even if a later member hides it."""
    echo, path = SPELLINGS[spelling](KEY), tmp_path / "personas.db"
    persona = f'{{"id": "fd213afd", "description": "got {echo}!", "name": "{echo}", "name": "Neon"}}'
    async with FakeSuno(api_key=KEY) as fake, PersonaAPI(KEY, retry=ONCE, base_url=fake.base_url) as api:
        fake.script(Fault.response(200, persona.encode()))
        (outcome,) = [outcome async for outcome in api.create_many([request_], journal=Journal(path))]
    assert outcome.result().name == "Neon"
    assert_masked(repr(outcome))
    for file in tmp_path.iterdir():
        assert_masked(file.read_bytes().decode("latin-1"))


@pytest.mark.parametrize(
    "text", [KEY[:8], f"<p>{split(KEY, chr(10), 9)}</p>", f"{split(base64_of(KEY), '=' + chr(10), 7)}"]
)
def test_an_echo_in_a_text_may_be_cut_or_broken(text: str) -> None:
    """An echo is masked even if the end of the text cuts it off, or if it is broken into lines."""
    assert "***" in Secret(KEY).mask(text)
    assert_masked(Secret(KEY).mask(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-Ab3",  # six characters of it, without dots
        "sk-Ab4... is another",
        "the key sk-Ab3/d and more",
        "naïve \ud800 text\n with = \\n \\/ %41 &amp; &#65; escapes",
        CONTRACT_EXAMPLE.decode(),
    ],
)
def test_text_without_an_echo_is_unchanged(text: str) -> None:
    """`mask` returns the same object, so that it costs next to nothing."""
    assert Secret(KEY).mask(text) is text
    data = text.encode("utf-8", "surrogatepass")
    assert Secret(KEY).masked(data) is data


@given(st.text(), st.sampled_from(list(SPELLINGS.values())), st.text())
@example("a\\", SPELLINGS["plain"], "")
def test_masking_keeps_a_document_readable(before: str, spell: Callable[[str], str], after: str) -> None:
    """Whatever surrounds the echo, the document stays JSON, and everything else in it stays the same."""
    texts = [json.dumps(text)[1:-1] for text in (before, after)]
    document = f'{{"before": "{texts[0]} ", "echo": "{texts[0]} {spell(KEY)} or {texts[1]}", "after": "{texts[1]}"}}'
    masked = json.loads(Secret(KEY).masked(document.encode("utf-8", "surrogatepass")))
    assert masked["before"] == f"{before} "
    assert masked["after"] == after
    assert "***" in masked["echo"]
    assert masked["echo"].startswith(f"{before} ")
    assert masked["echo"].endswith(f" or {after}")


@pytest.mark.parametrize("key", ["a%41bcdefgh", "a\\nbcdefgh", "a&amp;bcdefgh"])
def test_a_key_may_look_like_an_escape(key: str) -> None:
    """Its echo is masked both verbatim and escaped once more."""
    for echo in (key, "".join(f"%{ord(character):02x}" for character in key)):
        assert Secret(key).mask(f"the key {echo} is bad") == "the key *** is bad"


@pytest.mark.parametrize("key", ["", "e", "message"])
def test_a_short_key_is_not_masked(key: str) -> None:
    """It might be any word of a document; no real key is so short."""
    assert Secret(key).mask("the message") == "the message"


@pytest.mark.parametrize("piece", [b"%41", b"\\u0041", b"sk-Ab3 ", b"sk-Ab3... ", KEY.encode(), b"&amp;", b" \n"])
def test_a_hostile_response_costs_little_time(piece: bytes) -> None:
    """The expensive part of the work is bounded, whatever the size."""
    data = piece * (1_000_000 // len(piece))
    started = time.process_time()
    Secret(KEY).masked(data)
    masked = Secret(KEY).masked(data + KEY.encode())
    assert time.process_time() - started < 4
    assert KEY.encode() not in masked


def test_a_fingerprint_depends_on_key_and_salt() -> None:
    """A prefix such as `Bearer` does not change it; another key or salt does."""
    assert Secret(KEY).fingerprint(b"salt") == Secret(f"Bearer {KEY}").fingerprint(b"salt")
    assert len({Secret(key).fingerprint(salt) for key in (KEY, "other") for salt in (b"salt", b"pepper")}) == 4
    assert_masked(Secret(KEY).fingerprint(b"salt"))


def test_a_secret_cannot_be_pickled_or_copied() -> None:
    """Both raise `TypeError`, and the `repr` does not show it."""
    secret = Secret(KEY)
    for carry_off in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            carry_off(secret)
    assert repr(secret) == str(secret) == "'***'"
