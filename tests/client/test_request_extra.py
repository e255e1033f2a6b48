"""A request's `extra` holds members that some gateways accept besides the contract's five, in the body and in files."""

import copy
import json
import math
import pickle
import tempfile
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command import COMMAND, run

from suno_persona import CreatePersonaRequest, InvalidRequestError, PersonaAPI
from suno_persona._checks import REQUEST_MEMBERS
from suno_persona.cli._rows import Row, _csv_rows, _json_rows
from suno_persona.conversion import dump_request, parse_json, to_request
from suno_persona.testing import FakeSuno

VOX = {"persona_type": "vox", "vox_audio_id": "9e196fa1", "vocal_start_s": 0, "vocal_end_s": 23.24}


def request(**fields: Any) -> CreatePersonaRequest:
    """Return a request with these fields."""
    members: dict[str, Any] = {"root_clip_id": "54834687", "name": "Neon", "description": "Night drive", **fields}
    return CreatePersonaRequest(**members)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.text(max_size=8).filter(lambda name: name not in REQUEST_MEMBERS)
extras = st.dictionaries(names, json_values, max_size=4)


async def test_extra_members_are_sent_after_the_contracts_own(once: PersonaAPI, fake_suno: FakeSuno) -> None:
    """They are sent under their own names, after the contract's five."""
    await once.create(request(extra=VOX))
    sent = json.loads(fake_suno.requests[0].body)
    assert list(sent)[:5] == ["root_clip_id", "name", "description", "clips", "is_public"]
    assert {name: sent[name] for name in list(sent)[5:]} == VOX


@given(extras)
def test_equal_requests_have_the_same_body_and_are_read_from_it(extra: dict[str, Any]) -> None:
    """The order of members does not change the body, of which a journal's key is a hash."""
    made = request(extra=extra)
    assert made.extra == extra
    body = dump_request(made)
    assert to_request(parse_json(body)) == made
    turned = json.loads(json.dumps(extra), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert dump_request(request(extra=turned)) == body


def test_a_request_without_extra_has_the_body_that_it_always_had() -> None:
    """Journals find its record by a hash of the body, which must not change."""
    body = (
        b'{"root_clip_id":"54834687","name":"Neon","description":"Night drive","clips":["54834687"],"is_public":false}'
    )
    assert dump_request(request()) == dump_request(request(extra={})) == body


def test_extra_is_a_read_only_copy() -> None:
    """Changing the caller's mapping or a value in it does not change the request."""
    members = {"singer": {"skills": ["low"]}}
    made = request(extra=members)
    members["singer"]["skills"].append("high")
    assert made.extra == {"singer": {"skills": ["low"]}}
    with pytest.raises(TypeError, match="read-only"):
        made.extra["singer"] = 1


def test_a_request_with_extra_works_like_any_other() -> None:
    """It has a hash, can be copied and pickled, and works with attrs' functions."""
    made = request(extra={"singer": {"skills": ["low"]}})
    assert hash(made) == hash(request())
    assert made != request()
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == copy.copy(made) == made
    assert attrs.evolve(made, name="Dusk").extra == made.extra
    assert attrs.asdict(made)["extra"] == {"singer": {"skills": ["low"]}}
    assert CreatePersonaRequest(**attrs.asdict(made)) == made


CYCLE: list[object] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "extra must be a mapping of names to JSON values; got [] (list)"),
        ({1: 2}, "extra must be a mapping whose names are text; got 1 (int)"),
        ({"\ud83d": 1}, "extra['\\ud83d'] cannot be written as JSON: "),
        ({"a": math.nan}, "extra['a'] cannot be written as JSON: "),
        ({"a": [1, {"b": -math.inf}]}, "extra['a'] cannot be written as JSON: "),
        ({"a": b"vox"}, "extra['a'] cannot be written as JSON: Object of type bytes is not JSON serializable"),
        ({"a": {"b": {1, 2}}}, "extra['a'] cannot be written as JSON: Object of type set is not JSON serializable"),
        ({"a": {"b": 1, 2: 3}}, "extra['a'] cannot be written as JSON: "),
        ({"a": ["\ud83d"]}, "extra['a'] cannot be written as JSON: "),
        ({"a": {"\ud83d": 1}}, "extra['a'] cannot be written as JSON: "),
        ({"b": 1, "a": CYCLE}, "extra['a'] cannot be written as JSON: Circular reference detected"),
    ],
)
def test_extra_that_json_cannot_represent_is_an_error(extra: Any, message: str) -> None:
    """The error names the member."""
    with pytest.raises(InvalidRequestError) as caught:
        request(extra=extra)
    assert str(caught.value).startswith(message)


def test_long_numbers_are_sent_as_they_are() -> None:
    """They are digits in the body, whatever their length."""
    made = request(extra={"a": 2**1024})
    assert to_request(parse_json(dump_request(made))) == made


@pytest.mark.parametrize("name", ["root_clip_id", "name", "description", "clips", "is_public"])
def test_extra_cannot_hold_a_member_of_the_contract(name: str) -> None:
    """Each of these members has a field."""
    with pytest.raises(InvalidRequestError, match=f"^extra must be without the request's own members.*; got '{name}'"):
        request(extra={name: "x"})


def rows(text: str, suffix: str) -> list[Any]:
    """Return the requests in a file, or the reasons why its rows are invalid."""
    read = _csv_rows if suffix == ".csv" else _json_rows
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        return [row.request if isinstance(row, Row) else row.reason for row in read(file, False)]


def test_columns_with_the_prefix_are_extra_members() -> None:
    """A cell is JSON if possible, or else text; an empty cell and a null are no members."""
    found = rows(
        "root_clip_id,name,description,extra.persona_type,extra.vocal_start_s,extra.singer\n"
        '54834687,Neon,Night drive,vox,1.5,"{""skills"": [""low""]}"\n'
        '54834687,Neon,Night drive,"""12""",true,null\n'
        "54834687,Neon,Night drive,,,NaN\n",
        ".csv",
    )
    assert found == [
        request(extra={"persona_type": "vox", "vocal_start_s": 1.5, "singer": {"skills": ["low"]}}),
        request(extra={"persona_type": "12", "vocal_start_s": True}),
        request(extra={"singer": "NaN"}),
    ]


def test_members_with_the_prefix_are_extra_members() -> None:
    """In JSON Lines they keep their values."""
    line = json.dumps(
        {"root_clip_id": "54834687", "name": "Neon", "description": "Night drive", "extra.persona_type": "12"}
    )
    assert rows(line, ".jsonl") == [request(extra={"persona_type": "12"})]


MEMBERS = "root_clip_id, name, description, clips, is_public, custom_id or extra.NAME"


@pytest.mark.parametrize("name", ["mood", "extra", "extra.", "extra.name", "Extra.mood"])
def test_other_columns_and_members_are_errors(name: str) -> None:
    """A misspelt one is not sent by accident, and one of the contract's is not sent twice."""
    own = {"root_clip_id": "54834687", "name": "Neon", "description": "Night drive"}
    assert rows(json.dumps({**own, name: {}}), ".jsonl") == [
        f"the members of a request must be {MEMBERS}; got {name!r} (--ignore-other-columns ignores it)"
    ]
    assert rows(f"{','.join(own)},{name}\n{','.join(own.values())},x\n", ".csv") == [
        f"a column of the header must be one of {MEMBERS}; got {name!r} (--ignore-other-columns ignores it)"
    ]


async def test_a_batch_sends_the_extra_members_of_its_file(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """They are sent with the other members of their row."""
    file = tmp_path / "personas.csv"
    file.write_text("root_clip_id,name,description,extra.persona_type\n54834687,Neon,Night drive,vox\n")
    done = await run(COMMAND, "batch", str(file), env=env)
    assert done.status == 0, done.errors
    assert json.loads(fake_suno.requests[0].body)["persona_type"] == "vox"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": " \t\n"}, "name must be text that is not blank; got ' \\t\\n' (str)"),
        ({"description": "\u3000\u00a0"}, "description must be text that is not blank; got '\\u3000\\xa0' (str)"),
        ({"root_clip_id": " "}, "root_clip_id must be text that is not blank; got ' ' (str)"),
    ],
)
def test_blank_text_is_an_error(fields: dict[str, Any], message: str) -> None:
    """`InvalidRequestError` is raised before the request costs a call."""
    with pytest.raises(InvalidRequestError) as caught:
        request(**fields)
    assert str(caught.value) == message
