"""Gateways add members to those of the contract: known ones are typed fields, and any other goes to `extra`."""

import copy
import json
import pickle
from typing import Any

import attrs
import pytest

from suno_persona import Clip, ClipMetadata, Persona, dumps, loads
from suno_persona.conversion import read_usual

ADDED: dict[type, dict[str, object]] = {
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
}


def with_added(example: dict[str, Any]) -> dict[str, Any]:
    """Return the contract's persona with every member that CometAPI, DeerAPI and other gateways add."""
    clip = example["clip"] | ADDED[Clip] | {"metadata": example["clip"]["metadata"] | ADDED[ClipMetadata]}
    return example | ADDED[Persona] | {"clip": clip, "persona_clips": [{"clip": clip}]}


def test_added_members_are_fields_and_take_the_fast_path(example: dict[str, Any]) -> None:
    """Each is in its field, `extra` is empty, and the fast path reads the response."""
    document = with_added(example)
    persona = read_usual(json.dumps(document))
    assert persona is not None
    assert persona == loads(json.dumps(document))
    assert persona.clip is not None
    assert persona.clip.metadata is not None
    for model in (persona, persona.clip, persona.clip.metadata):
        assert {name: getattr(model, name) for name in ADDED[type(model)]} == ADDED[type(model)]
        assert model.extra == {}
    assert json.loads(dumps(persona))["clip"]["metadata"]["priority"] == 10
    assert loads(dumps(persona)) == persona


def test_every_field_is_in_the_contract_or_listed_here(example: dict[str, Any]) -> None:
    """A new field needs a row in `ADDED`."""
    documents = {Persona: example, Clip: example["clip"], ClipMetadata: example["clip"]["metadata"]}
    for model, document in documents.items():
        assert {field.name for field in attrs.fields(model)} == {*document, *ADDED[model], "extra"}


@pytest.mark.parametrize("name", sorted(ADDED[Persona]))
def test_an_added_member_of_another_type_is_kept_in_extra(name: str) -> None:
    """The field is `None`, as for any member of the wrong type."""
    persona = loads(json.dumps({"id": "fd213afd", name: [1]}))
    assert (getattr(persona, name), persona.extra) == (None, {name: [1]})


def test_music_fields_name_the_persona_and_its_root_clip() -> None:
    """They are merged into the body of the music request; unknown values are left out."""
    persona = Persona(id="fd213afd", root_clip_id="54834687")
    expected = {"task": "artist_consistency", "persona_id": "fd213afd", "artist_clip_id": "54834687"}
    assert persona.music_fields() == expected
    assert Persona(id="fd213afd").music_fields() == {"task": "artist_consistency", "persona_id": "fd213afd"}


@pytest.mark.parametrize(
    "document",
    [
        r'{"id": "fd213afd", "\ud83d": 1}',
        r'{"id": "fd213afd", "clip": {"\ud83d": 1}}',
        r'{"id": "fd213afd", "clip": {"metadata": {"\ud83d": "\ud83d"}}}',
        r'{"id": "fd213afd", "persona_clips": [{"\ud83d": {"\ud83d": 1}}]}',
        r'{"id": "fd213afd", "name": "\ud83d", "mood": {"\ud83d": 1}}',
        r'{"id": "\ud83d"}',
    ],
)
def test_a_lone_surrogate_anywhere_loses_no_persona(document: str) -> None:
    """The same holds for member names; the persona can be written, hashed, copied and pickled."""
    persona = loads(document)
    assert json.loads(dumps(persona)) == {"persona_clips": []} | json.loads(document)
    assert loads(dumps(persona)) == persona
    assert copy.deepcopy(persona) == pickle.loads(pickle.dumps(persona)) == persona
    assert hash(copy.copy(persona)) == hash(persona)
