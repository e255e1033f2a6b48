"""The models and the request: their fields, their checks, and how they can be used."""

import copy
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from suno_persona import (
    Clip,
    ClipMetadata,
    CreatePersonaRequest,
    InvalidRequestError,
    Outcome,
    Persona,
    PersonaClip,
    loads,
)

MODELS = (Persona, Clip, ClipMetadata, PersonaClip)

copies = pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["copy", "deep", "pickle"],
)


@pytest.fixture
def persona() -> Persona:
    """Return a persona with a value at every level, `extra` included."""
    return loads(
        b'{"id": "fd213afd", "name": 12, "clip": {"created_at": "2024-12-23T10:34:30.144Z", "likes": [1]},'
        b' "persona_clips": [{"id": 1, "clip": {"metadata": {"bpm": 120}}}], "mood": {"tone": "blue"}}'
    )


def test_the_models_have_every_field_of_the_contract(example: dict[str, Any]) -> None:
    """Each member of the contract's example is a field of the same name, and the others are typed extensions."""
    documents = (example, example["clip"], example["clip"]["metadata"], example["persona_clips"][0])
    for model, document in zip(MODELS, documents, strict=True):
        assert {field.name for field in attrs.fields(model)} >= {*document, "extra"}


@copies
def test_models_survive_pickle_and_copy(copied: Any, persona: Persona) -> None:
    """A copy equals the original, and so does its `extra`, at every level."""
    assert copied(persona) == persona
    assert copied(persona).extra == persona.extra


def test_models_are_hashable_whatever_their_extra(persona: Persona) -> None:
    """Every persona has a hash, and `extra` does not change it."""
    assert hash(attrs.evolve(persona, extra={})) == hash(persona)
    assert attrs.evolve(persona, extra={}) != persona


@pytest.mark.parametrize("model", MODELS)
def test_models_are_frozen(model: type[Any]) -> None:
    """No field can be set, and no attribute can be added."""
    instance = model(id="fd213afd") if model is Persona else model()
    for name in ("extra", "anything"):
        with pytest.raises(AttributeError):
            setattr(instance, name, None)


def test_extra_is_read_only(persona: Persona) -> None:
    """`extra` is a read-only mapping with a useful `repr`."""
    assert dict(persona.extra) == {"name": 12, "mood": {"tone": "blue"}}
    assert repr(persona.extra) == "{'name': 12, 'mood': {'tone': 'blue'}}"
    assert len(persona.extra) == 2
    changes: list[Callable[[Any], object]] = [
        lambda extra: extra.__setitem__("name", 13),
        lambda extra: extra.pop("name"),
        lambda extra: extra.update(name=13),
        lambda extra: extra.clear(),
        lambda extra: extra.__ior__({"name": 13}),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="read-only"):
            change(persona.extra)


def test_extra_is_a_copy_of_the_mapping_it_was_made_from() -> None:
    """Changing the mapping later changes no model."""
    members: dict[str, object] = {"mood": "blue"}
    persona = Persona(id="fd213afd", extra=members)
    members["mood"] = "red"
    assert persona.extra == {"mood": "blue"}


def test_models_work_with_the_functions_of_attrs(persona: Persona) -> None:
    """`asdict` converts every level; `evolve` changes one field and copies the others."""
    document = attrs.asdict(persona)
    assert document["clip"]["created_at"] == datetime(2024, 12, 23, 10, 34, 30, 144000, UTC)
    assert document["persona_clips"][0]["clip"]["metadata"]["extra"] == {"bpm": 120}
    assert json.loads(json.dumps(document, default=str))["extra"] == {"name": 12, "mood": {"tone": "blue"}}
    assert attrs.evolve(persona, name="Neon").name == "Neon"
    assert attrs.evolve(persona, name="Neon").extra == persona.extra


def test_a_request_defaults_to_the_root_clip_and_to_private() -> None:
    """`clips` defaults to the root clip, and publishing is a choice."""
    request = CreatePersonaRequest(root_clip_id="54834687", name="Neon", description="Night drive")
    assert (request.clips, request.is_public) == (("54834687",), False)


def test_a_request_takes_any_iterable_of_clips() -> None:
    """The clips become a tuple, and the root clip need not be among them."""
    clips = (clip for clip in ("a", "b"))
    assert CreatePersonaRequest(root_clip_id="54834687", name="N", description="D", clips=clips).clips == ("a", "b")


@copies
def test_requests_survive_pickle_and_copy(copied: Any, request_: CreatePersonaRequest) -> None:
    """A copy equals the original and has the same hash."""
    assert copied(request_) == request_
    assert hash(copied(request_)) == hash(request_)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root_clip_id": ""}, "root_clip_id must be non-empty text; got '' (str)"),
        ({"root_clip_id": 12}, "root_clip_id must be non-empty text; got 12 (int)"),
        ({"name": ""}, "name must be non-empty text; got '' (str)"),
        ({"name": None}, "name must be non-empty text; got None (NoneType)"),
        ({"name": "\ud83d"}, "name must be text without lone surrogates; got '\\ud83d' (str)"),
        ({"name": b"x" * 99}, f"name must be non-empty text; got b'{'x' * 57}… (bytes)"),
        ({"description": ""}, "description must be non-empty text; got '' (str)"),
        ({"clips": ()}, "clips is empty; pass at least one clip id"),
        ({"clips": "54834687"}, "clips must be a list of clip ids; got '54834687' (str)"),
        ({"clips": None}, "clips must be a list of clip ids; got None (NoneType)"),
        ({"clips": ["a", ""]}, "clips[1] must be non-empty text; got '' (str)"),
        ({"is_public": "false"}, "is_public must be True or False; got 'false' (str)"),
        ({"is_public": 1}, "is_public must be True or False; got 1 (int)"),
    ],
)
def test_a_request_that_cannot_be_sent_cannot_be_made(change: dict[str, Any], message: str) -> None:
    """The error names the field, what it must be, and what it got."""
    fields: dict[str, Any] = {"root_clip_id": "54834687", "name": "Neon", "description": "Night drive"}
    with pytest.raises(InvalidRequestError) as caught:
        CreatePersonaRequest(**fields | change)
    assert str(caught.value) == message


def test_a_repr_shows_what_is_set() -> None:
    """It leaves out fields that are `None` or empty, at every level, and keeps `False` and 0."""
    clip = Clip(play_count=0, is_public=False, title="", metadata=ClipMetadata(prompt="", duration=190))
    persona = Persona(id="fd213afd", clip=clip, persona_clips=(PersonaClip(id=1),), extra={"mood": "blue"})
    assert repr(persona) == (
        "Persona(id='fd213afd', clip=Clip(metadata=ClipMetadata(duration=190), play_count=0, is_public=False), "
        "persona_clips=(PersonaClip(id=1),), extra={'mood': 'blue'})"
    )


@pytest.mark.parametrize("root", [None, "", "00000000-0000-0000-0000-000000000000"])
def test_music_fields_have_no_clip_if_there_is_none(root: str | None) -> None:
    """Gateways send the zero UUID as the root clip of a persona that was created from a voice."""
    persona = Persona(id="9e196fa1", persona_type="vox", root_clip_id=root)
    assert persona.music_fields() == {"task": "artist_consistency", "persona_id": "9e196fa1"}


def test_an_outcome_was_not_recorded_before_unless_a_journal_says_so(request_: CreatePersonaRequest) -> None:
    """`recorded` is false by default."""
    outcome = Outcome(0, request_, persona=Persona(id="fd213afd"))
    assert not outcome.recorded
    assert attrs.evolve(outcome, recorded=True).recorded


def test_names_may_be_in_any_script() -> None:
    """Text need not be ASCII."""
    assert CreatePersonaRequest(root_clip_id="a", name="夜のドライブ", description="🌃").name == "夜のドライブ"
