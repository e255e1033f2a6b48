"""The models: a field for each member that gateways send, and what can be done with a persona."""

import copy
import json
import pickle
from typing import Any

import attrs
import pytest

from suno_persona import Clip, ClipMetadata, Persona, PersonaClip, dumps, loads
from suno_persona.conversion import read_usual

MODELS = (Persona, Clip, ClipMetadata, PersonaClip)
ADDED: dict[type, dict[str, object]] = {  # by gateways, beyond the contract
    Persona: {
        "image_s3_id": "image_54834687",
        "is_public": True,
        "is_owned": True,
        "is_trashed": False,
        "clip_count": 1,
        "persona_type": "vox",
        "vox_audio_id": "9e196fa1-20f3-43c1-8066-06a2a6b6bea9",
        "vocal_start_s": 0,
        "vocal_end_s": 23.24,
        "user_input_styles": "pop",
    },
    Clip: {"entity_type": "song_schema", "flag_count": 0, "display_tags": "folk, spoken-word", "allow_comments": True},
    ClipMetadata: {"can_remix": True, "is_remix": False, "priority": 10},
    PersonaClip: {},
}


@pytest.fixture
def persona() -> Persona:
    """Return a persona with a value at every level, `extra` included."""
    return loads(
        b'{"id": "fd213afd", "name": 12, "clip": {"created_at": "2024-12-23T10:34:30.144Z", "likes": [1]},'
        b' "persona_clips": [{"id": 1, "clip": {"metadata": {"bpm": 120}}}], "mood": {"tone": "blue"}}'
    )


def test_every_field_is_a_member_of_the_contract_or_one_that_gateways_add(example: dict[str, Any]) -> None:
    """A new field needs a row in `ADDED`."""
    documents = (example, example["clip"], example["clip"]["metadata"], example["persona_clips"][0])
    for model, document in zip(MODELS, documents, strict=True):
        assert {field.name for field in attrs.fields(model)} == {*document, *ADDED[model], "extra"}


def test_added_members_are_fields_and_take_the_fast_path(example: dict[str, Any]) -> None:
    """Each is in its field, and `extra` is empty."""
    clip = example["clip"] | ADDED[Clip] | {"metadata": example["clip"]["metadata"] | ADDED[ClipMetadata]}
    document = json.dumps(example | ADDED[Persona] | {"clip": clip, "persona_clips": [{"clip": clip}]})
    persona = loads(document)
    assert read_usual(document) == persona == loads(dumps(persona))
    assert persona.clip is not None
    assert persona.clip.metadata is not None
    for model in (persona, persona.clip, persona.clip.metadata):
        assert {name: getattr(model, name) for name in ADDED[type(model)]} == ADDED[type(model)]
        assert model.extra == {}


def test_a_copy_equals_the_original(persona: Persona) -> None:
    """Its `extra`, too, at every level, and its hash, which `extra` does not change."""
    for copied in (copy.copy(persona), copy.deepcopy(persona), pickle.loads(pickle.dumps(persona))):
        assert copied == persona
        assert copied.extra == persona.extra
        assert hash(copied) == hash(persona) == hash(attrs.evolve(persona, extra={}))
    assert attrs.evolve(persona, extra={}) != persona


def test_models_are_frozen(persona: Persona) -> None:
    """No field can be set, and no attribute can be added."""
    for model in (persona, persona.clip, *persona.persona_clips):
        for name in ("extra", "anything"):
            with pytest.raises(AttributeError):
                setattr(model, name, None)


def test_extra_is_a_read_only_copy(persona: Persona) -> None:
    """It cannot be changed, neither itself nor through the mapping that it was made from."""
    assert repr(persona.extra) == "{'name': 12, 'mood': {'tone': 'blue'}}"
    changes: dict[str, tuple[Any, ...]] = {
        "__setitem__": ("name", 13),
        "pop": ("name",),
        "update": (),
        "__ior__": ({},),
    }
    for change, arguments in changes.items():
        with pytest.raises(TypeError, match="read-only"):
            getattr(persona.extra, change)(*arguments)
    members: dict[str, object] = {"mood": "blue"}
    made = Persona(id="fd213afd", extra=members)
    members["mood"] = "red"
    assert made.extra == {"mood": "blue"}


def test_a_repr_shows_what_is_set() -> None:
    """It leaves out fields that are `None` or empty, at every level, and keeps `False` and 0."""
    clip = Clip(play_count=0, is_public=False, title="", metadata=ClipMetadata(prompt="", duration=190))
    persona = Persona(id="fd213afd", clip=clip, persona_clips=(PersonaClip(id=1),), extra={"mood": "blue"})
    assert repr(persona) == (
        "Persona(id='fd213afd', clip=Clip(metadata=ClipMetadata(duration=190), play_count=0, is_public=False), "
        "persona_clips=(PersonaClip(id=1),), extra={'mood': 'blue'})"
    )


@pytest.mark.parametrize("root", ["54834687", None, "", "00000000-0000-0000-0000-000000000000"])
def test_music_fields_name_the_persona_and_its_root_clip(root: str | None) -> None:
    """They are merged into the body of the music request; gateways send the zero UUID for a persona of a voice."""
    expected = {"task": "artist_consistency", "persona_id": "fd213afd"}
    if root == "54834687":
        expected["artist_clip_id"] = root
    assert Persona(id="fd213afd", root_clip_id=root).music_fields() == expected
