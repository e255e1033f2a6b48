"""Reading and writing: nothing is coerced, nothing is lost, and only a missing id is an error."""

import copy
import json
import pickle
import runpy
import sys
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contract import CONTRACT_EXAMPLE

from suno_persona import Clip, ClipMetadata, Persona, PersonaClip, conversion, dumps, loads, to_dict
from suno_persona.conversion import make_converter, to_persona

texts = st.text(st.characters(exclude_categories=[]), max_size=8)  # lone surrogates too
times = st.sampled_from(
    [
        *("2024-12-23T10:34:30.144Z", "2024-12-23t10:34:30z", "2024-12-23T10:34:30.1234567Z", "2024-12-23T10:34:30"),
        *("2024-12-23 10:34:30+01:00", "2024-02-30T10:34:30Z", "2024-12-23T24:00:00Z", "2024-12-23T10:34:60Z"),
        *("9999-12-31T23:59:59.999999-23:59", "0001-01-01T00:00:00+23:59", "2024-12-23T10:34:30+00:19:32"),
    ]
)
scalars = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts, times),
    st.sampled_from([2**53 + 1, -(2**63) - 1, 2**64, 10**400]),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))


def objects(model: type, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with some of a model's members, of their own or other types, and sometimes with others."""
    names = model.__annotations__  # a gateway may also send a member named "extra"
    typed = st.fixed_dictionaries({}, optional={name: members.get(name, values) | scalars for name in names})
    return st.builds(lambda document, others: {**others, **document}, typed, st.dictionaries(texts, values, max_size=2))


clips = objects(Clip, metadata=objects(ClipMetadata), created_at=times)
parts = objects(PersonaClip, clip=clips, id=st.integers())
personas = objects(Persona, id=texts, clip=clips, persona_clips=st.lists(parts, max_size=2))


def is_whole(read: Any, written: Any) -> bool:
    """Return whether the written document contains every non-null member that was read, with an equal value."""
    if isinstance(read, dict):
        return isinstance(written, dict) and all(
            name in written and is_whole(value, written[name]) for name, value in read.items() if value is not None
        )
    if isinstance(read, list):
        return isinstance(written, list) and len(read) == len(written) and all(map(is_whole, read, written))
    if isinstance(read, str) and isinstance(written, str) and read != written:
        return datetime.fromisoformat(read) == datetime.fromisoformat(written)
    return bool(read == written) and isinstance(read, bool) == isinstance(written, bool)


@settings(deadline=None)  # the machine may be busy
@given(personas)
def test_every_document_with_an_id_is_read_and_nothing_is_coerced_or_lost(document: dict[str, Any]) -> None:
    """A field is the value as received or `None`, and everything is written back, lone surrogates included."""
    document["id"] = "fd213afd"
    persona = loads(json.dumps(document))
    assert is_whole(document, json.loads(dumps(persona)))
    assert json.loads(json.dumps(to_dict(persona))) == json.loads(dumps(persona))
    assert None not in to_dict(persona).values()
    assert loads(dumps(persona)) == persona
    for field in attrs.fields(Persona):
        value = getattr(persona, field.name)
        if field.name not in ("extra", "clip", "persona_clips") and value is not None:
            assert value == document[field.name]
            assert isinstance(value, str | bool) is isinstance(document[field.name], str | bool)


def test_the_example_of_the_contract_is_read_completely(example: dict[str, Any]) -> None:
    """Every member is in its field, with its own type, and `extra` is empty."""
    persona = loads(CONTRACT_EXAMPLE)
    assert persona.id == example["id"] == "fd213afd-ac1c-4822-9802-c1c0ea45e77b"
    assert persona.clip is not None
    assert persona.clip.metadata is not None
    assert persona.clip.metadata.duration == 190
    assert persona.clip.created_at == datetime(2024, 12, 23, 10, 34, 30, 144000, UTC)
    assert persona.persona_clips == (PersonaClip(clip=persona.clip, id=11288925),)
    assert persona.extra == persona.clip.extra == persona.clip.metadata.extra == {}
    assert is_whole(example, json.loads(dumps(persona)))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("is_public", "false"),
        ("title", 12),
        ("play_count", 12.0),
        ("play_count", True),
        ("metadata", []),
        ("created_at", 1734950070),
        ("created_at", "2024-12-23T10:34:30"),  # without a time zone
        ("created_at", "2024-12-23T10:34:30.123456789Z"),  # finer than a datetime
        ("created_at", "2024-12-23T10:34:30-23:59:59"),  # RFC 3339 allows no seconds, and writers round them
    ],
)
def test_a_value_of_the_wrong_type_is_in_extra(member: str, value: object) -> None:
    """The field is `None`, and the value as received is in `extra` and is written back under the member's name."""
    persona = loads(json.dumps({"id": "x", "clip": {member: value}}))
    assert persona.clip is not None
    assert getattr(persona.clip, member) is None
    assert persona.clip.extra == {member: value}
    assert json.loads(dumps(persona))["clip"] == {member: value}


@pytest.mark.parametrize("value", [{}, "text", [{"id": 1}, None]])
def test_persona_clips_of_the_wrong_type_are_in_extra(value: object) -> None:
    """`persona_clips` is then empty, and the value is written back."""
    persona = loads(json.dumps({"id": "x", "persona_clips": value}))
    assert (persona.persona_clips, persona.extra) == ((), {"persona_clips": value})
    assert json.loads(dumps(persona)) == {"id": "x", "persona_clips": value}


def test_a_set_field_is_written_instead_of_its_value_in_extra() -> None:
    """A field that was corrected with `evolve` is in the document."""
    persona = loads(b'{"id": "x", "name": 12, "clip": {"is_public": "no", "play_count": "1", "title": 7}}')
    assert persona.clip is not None
    clip = attrs.evolve(persona.clip, is_public=False, play_count=0, title="")
    written = json.loads(dumps(attrs.evolve(persona, name="Neon", clip=clip)))
    assert written["name"] == "Neon"
    assert written["clip"] == {"is_public": False, "play_count": 0, "title": ""}


@pytest.mark.parametrize("time", ["2024-12-23T10:34:30Z", "2024-12-23t10:34:30z", "2024-12-23T11:34:30+01:00"])
def test_times_are_read_in_each_form_of_rfc_3339(time: str) -> None:
    """They may have an offset, and be in lower case (section 5.6)."""
    clip = loads(json.dumps({"id": "x", "clip": {"created_at": time}})).clip
    assert clip == Clip(created_at=datetime(2024, 12, 23, 10, 34, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "$ must be a JSON document; got nothing"),
        (b"[]", "$ must be an object; got a list"),
        (b"{}", "$.id must be non-empty text or an integer; got null"),
        (b'{"id": ""}', "$.id must be non-empty text or an integer; got ''"),
        (b'{"id": 12.0}', "$.id must be non-empty text or an integer; got 12.0"),
        (b'"' + b"x" * 99 + b'"', f"$ must be an object; got '{'x' * 58}…"),
        (b"[" * 100_000, "$ must not be nested so deep"),
        (b'{"id": "x"', "$ must be a JSON document"),
        (b'{"id": "x", "n": NaN}', "$ must be a JSON document"),
        (b'{"id": "x", "n": 1e999}', "$ must be a JSON document"),  # no double can represent it (RFC 8259, section 6)
    ],
    ids=lambda text: str(text)[:40],
)
def test_loads_names_the_path_of_an_invalid_value(document: bytes, message: str) -> None:
    """The error has the path, what must be there, and what it got."""
    with pytest.raises(ValueError, match=r"^\$") as caught:
        loads(document)
    assert str(caught.value).startswith(message)


def test_an_id_that_is_an_integer_is_read_as_its_digits() -> None:
    """It must not be lost, however long; only the persona's own id is read so."""
    persona = loads(json.dumps({"id": 2**64, "clip": {"id": 2**64}}))
    assert persona == Persona(id=str(2**64), clip=Clip(extra={"id": 2**64}))
    assert loads(dumps(persona)) == persona


@pytest.mark.parametrize(
    "document",
    [
        b'{"id": "x", "name": "cut \\ud83d", "n": 1.5}',  # an emoji cut in half
        '{"id": "x", "name": "Ärger"}'.encode("utf-16"),
        rb'{"id": "x", "clip": {"metadata": {"\ud83d": "\ud83d"}}, "persona_clips": [{"\ud83d": {"\ud83d": 1}}]}',
        rb'{"id": "\ud83d", "\ud83d": 1}',
    ],
)
def test_unusual_json_is_accepted(document: bytes) -> None:
    """Lone surrogates and UTF-16 are read, written, hashed and copied without loss."""
    persona = loads(document)
    assert is_whole(json.loads(document), json.loads(dumps(persona)))
    assert loads(dumps(persona)) == copy.deepcopy(persona) == pickle.loads(pickle.dumps(persona)) == persona
    assert hash(copy.copy(persona)) == hash(persona)


def failing(value: object, _: object) -> Any:
    """A hook of a user's, with a bug."""
    raise KeyError(value)


def test_a_hook_for_a_field_that_raises_costs_only_the_field() -> None:
    """The value as received is in `extra`, whatever the hook raises; one for the persona itself propagates."""
    converter = make_converter()
    converter.register_structure_hook(Clip, failing)
    persona = to_persona({"id": "x", "clip": {"id": "c"}, "persona_clips": [{"id": 1, "clip": {}}]}, converter)
    part = PersonaClip(id=1, extra={"clip": {}})
    assert persona == Persona(id="x", extra={"clip": {"id": "c"}}, persona_clips=(part,))
    converter.register_structure_hook(Persona, failing)
    with pytest.raises(KeyError):
        to_persona({"id": "x"}, converter)


def test_a_converter_is_strict_everywhere() -> None:
    """A class of the user's is not coerced either."""
    with pytest.raises(ValueError, match="must be int; got '1'"):
        make_converter().structure("1", int)


with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sys.modules, "suno_persona._fast_json", None)  # as if it were deleted
    SLOW_LOADS = runpy.run_path(conversion.__file__)["loads"]


def result_of(function: Any, argument: object) -> object:
    """Return what a function returns, or the message of what it raises."""
    try:
        return function(argument)
    except ValueError as error:
        return str(error)


@settings(deadline=None)  # the machine may be busy
@given(personas, st.booleans())
def test_deleting_the_fast_path_changes_nothing_but_speed(document: dict[str, Any], as_text: bool) -> None:
    """Both readers return equal personas, or raise errors with equal messages."""
    text = json.dumps(document)
    data = text if as_text else text.encode()
    assert result_of(loads, data) == result_of(SLOW_LOADS, data)
