"""Deleting the msgspec shortcut changes nothing but speed."""

import importlib.util
import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.contract import CONTRACT_EXAMPLE

from suno_persona import Clip, ClipMetadata, CreatePersonaRequest, Persona, PersonaClip, conversion


def without_shortcut() -> ModuleType:
    """Return a second `conversion`, imported as if `_fast_json.py` were deleted."""
    spec = importlib.util.find_spec("suno_persona.conversion")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "suno_persona._fast_json", None)
        spec.loader.exec_module(module)
    return module


SLOW = without_shortcut()

texts = st.text(st.characters(exclude_categories=[]), max_size=8)  # lone surrogates too
times = st.sampled_from(
    [
        "2024-12-23T10:34:30.144Z",
        "2024-12-23T10:34:30Z",
        "2024-12-23t10:34:30z",
        "2024-12-23T10:34:30.1234567Z",
        "2024-12-23T10:34:30",
        "2024-12-23 10:34:30+01:00",
        "2024-02-30T10:34:30Z",
        "2024-12-23T24:00:00Z",
        "2024-12-23T10:34:60Z",
        "9999-12-31T23:59:59.999999-23:59",
        "0001-01-01T00:00:00+23:59",
        "2024-12-23T10:34:30+00:19:32",
        "2024-12-23T10:34:30-23:59:59",
        "2024-12-23",
    ]
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**53 + 1, -(2**63) - 1, 2**64, 10**400]),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    times,
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


def objects(model: type, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with some of a model's members, of their own or other types, and sometimes with others."""
    names = [name for name in model.__annotations__ if name != "extra"]
    typed = st.fixed_dictionaries({}, optional={name: members.get(name, values) | scalars for name in names})
    return st.builds(lambda document, others: {**others, **document}, typed, st.dictionaries(texts, values, max_size=2))


metadata = objects(ClipMetadata)
clips = objects(Clip, metadata=metadata, created_at=times)
parts = objects(PersonaClip, clip=clips, id=st.integers())
personas = objects(Persona, id=texts, clip=clips, persona_clips=st.lists(parts, max_size=2))


def result_of(function: Any, argument: object) -> object:
    """Return what a function returns, or the message of what it raises."""
    try:
        return function(argument)
    except ValueError as error:
        return str(error)


@given(personas, st.booleans())
def test_both_readers_agree_on_every_document(document: dict[str, Any], as_text: bool) -> None:
    """Both readers return equal personas, or raise errors with equal messages."""
    text = json.dumps(document)
    data = text if as_text else text.encode()
    assert result_of(conversion.loads, data) == result_of(SLOW.loads, data)


@given(personas)
def test_a_persona_has_a_read_only_extra_at_every_level(document: dict[str, Any]) -> None:
    """Both readers make the same kind of mapping."""
    persona = conversion.loads(json.dumps({**document, "id": "fd213afd"}))
    clips = [persona.clip, *[entry.clip for entry in persona.persona_clips]]
    models: list[Any] = [persona, *persona.persona_clips, *clips, *[clip.metadata for clip in clips if clip]]
    for model in filter(None, models):
        with pytest.raises(TypeError, match="read-only"):
            model.extra["mood"] = "blue"


def test_the_example_of_the_contract_is_usual() -> None:
    """The shortcut reads it, and the persona is the same."""
    assert conversion.read_usual(CONTRACT_EXAMPLE) == SLOW.loads(CONTRACT_EXAMPLE)
    assert SLOW.read_usual(CONTRACT_EXAMPLE) is None


def reject(literal: str) -> None:
    raise ValueError(literal)


@given(st.one_of(st.binary(max_size=30), st.text(max_size=30), values.map(json.dumps)))
def test_json_is_what_the_standard_library_reads_as_json(data: bytes | str) -> None:
    """Any bytes or text are read as equal values of equal types, or are an error, except numbers that JSON has not."""
    try:
        expected = repr(json.loads(data, parse_constant=reject))
    except ValueError:
        expected = "an error"
    try:
        assert repr(conversion.parse_json(data)) == expected
    except ValueError as error:
        assert str(error).startswith("$ must be a JSON document; got ")
        assert expected == "an error"


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_request_is_written_as_the_standard_library_writes_it(name: str, description: str) -> None:
    """A journal's key is a hash of these bytes."""
    try:
        request = CreatePersonaRequest(root_clip_id="54834687", name=name, description=description)
    except ValueError:
        return
    members = {
        "root_clip_id": "54834687",
        "name": name,
        "description": description,
        "clips": ["54834687"],
        "is_public": False,
    }
    expected = json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()
    assert conversion.dump_request(request) == expected


def test_the_package_works_without_the_shortcut() -> None:
    """The package reads and writes even if the file does not exist."""
    code = (
        "import sys; sys.modules['suno_persona._fast_json'] = None\n"
        "from suno_persona import dumps, loads\n"
        """print(dumps(loads('{"id": "fd213afd", "mood": "blue"}')).decode())"""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == '{"id":"fd213afd","persona_clips":[],"mood":"blue"}\n'
