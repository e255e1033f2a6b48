"""A request is checked when it is made: what a service would reject, or a spreadsheet has changed, costs no call."""

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command import COMMAND, run

from suno_persona import CreatePersonaRequest, InvalidRequestError
from suno_persona.conversion import dump_request, parse_json, to_request
from suno_persona.testing import FakeSuno

UUID = "54834687-5e79-4f08-8e14-cf188f15b598"
ALLOWED = "only ASCII letters, digits and - _ . ~ are allowed"
MISSING = "which spreadsheets and data frames write for a missing value; pass a clip id"
NUMBER = "which a spreadsheet or data frame made of an id by reading it as a number; read it as text"
OWN: dict[str, Any] = {"root_clip_id": "54834687", "name": "Neon", "description": "Night drive"}
BODY = b'{"root_clip_id":"54834687","name":"Neon","description":"Night drive","clips":["54834687"],"is_public":false}'


def request(**fields: Any) -> CreatePersonaRequest:
    """Return a request with these fields."""
    return CreatePersonaRequest(**OWN | fields)


def reason(**fields: Any) -> str:
    """Return why a request with these fields is invalid."""
    with pytest.raises(InvalidRequestError) as caught:
        request(**fields)
    return str(caught.value)


def test_a_request_defaults_to_the_root_clip_and_to_private() -> None:
    """The body always has the five members, in this order, before those of `extra`: a journal's key is its hash."""
    assert (request().clips, request().is_public) == (("54834687",), False)
    assert dump_request(request()) == dump_request(request(extra={})) == BODY
    assert dump_request(request(extra={"persona_type": "vox"})) == BODY[:-1] + b',"persona_type":"vox"}'


def test_a_request_takes_any_iterable_of_clips_and_text_in_any_script() -> None:
    """The clips become a tuple, and the root clip need not be among them."""
    made = request(clips=(clip for clip in ("a", "b")), name="夜のドライブ", description="🌃")
    assert (made.clips, made.name) == (("a", "b"), "夜のドライブ")
    assert '"name":"夜のドライブ","description":"🌃","clips":["a","b"]'.encode() in dump_request(made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root_clip_id": ""}, "root_clip_id must be non-empty text; got '' (str)"),
        ({"root_clip_id": 12}, "root_clip_id must be non-empty text; got 12 (int)"),
        ({"name": " \t\n"}, "name must be text that is not blank; got ' \\t\\n' (str)"),
        ({"name": "\ud83d"}, "name must be text without lone surrogates; got '\\ud83d' (str)"),
        ({"name": b"x" * 99}, f"name must be non-empty text; got b'{'x' * 57}… (bytes)"),
        ({"clips": ()}, "clips is empty; pass at least one clip id"),
        ({"clips": "54834687"}, "clips must be a list of clip ids; got '54834687' (str)"),
        ({"clips": ["a", ""]}, "clips[1] must be non-empty text; got '' (str)"),
        ({"is_public": "false"}, "is_public must be True or False; got 'false' (str)"),
    ],
)
def test_a_request_that_cannot_be_sent_cannot_be_made(change: dict[str, Any], message: str) -> None:
    """The error names the field, what it must be, and what it got."""
    assert reason(**change) == message


@pytest.mark.parametrize("clip", [UUID, UUID.upper(), "54834687", "548346e7", "12e45678", "c1", "none.1", "a_1.v2~"])
def test_an_id_is_made_of_unreserved_characters(clip: str) -> None:
    """Also an id that could be read as a number without a fraction."""
    assert request(root_clip_id=clip, clips=[clip, UUID]).clips == (clip, UUID)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ('="54834687"', f"contains '=' (EQUALS SIGN) at position 1; {ALLOWED}; pass '54834687' instead of "),
        ("“54834687”", f"contains '“' (LEFT DOUBLE QUOTATION MARK) at position 1; {ALLOWED}; pass '54834687' "),
        ("a\u200bb", f"contains '\\u200b' (ZERO WIDTH SPACE) at position 2; {ALLOWED}; remove it from 'a\\u200bb'"),
        ("['c1',", f"contains '[' (LEFT SQUARE BRACKET) at position 1; {ALLOWED}; pass 'c1' instead of "),
        ("c1,c2", f"contains ',' (COMMA) at position 3; {ALLOWED}; remove it from 'c1,c2'"),
        ("a\n", f"contains '\\n' (U+000A) at position 2; {ALLOWED}; pass 'a' instead of 'a\\n'"),
        ("“NaN”", f"contains '“' (LEFT DOUBLE QUOTATION MARK) at position 1; {ALLOWED}; remove it from '“NaN”'"),
        *((clip, f"is {clip!r}, {MISSING}") for clip in ("nan", "-NAN", "NaT", "null", "None", "n.a.", "<NA>", "#N/A")),
        *((clip, f"is {clip!r}, {NUMBER}") for clip in ("5.48E+07", "5.48e", "5,48E+07", "-54834687.0", "12.", "inf")),
    ],
)
def test_an_id_that_a_spreadsheet_changed_is_invalid(clip: str, message: str) -> None:
    """The error names the first character that is not allowed, its position, and the id if that is clear."""
    assert reason(root_clip_id=clip).startswith(f"root_clip_id {message}")
    assert reason(clips=[UUID, clip]).startswith(f"clips[1] {message}")


@pytest.mark.parametrize(
    ("url", "part"),
    [
        (f"https://suno.com/song/{UUID}?sh=1", repr(UUID)),
        (f"https://cdn1.suno.ai/image_{UUID}.jpeg", repr(UUID)),
        (f'=HYPERLINK("https://suno.com/song/{UUID}")', repr(UUID)),
        ("https://suno.com/s/abc", "which follows /song/ in the URL of the clip's page"),
    ],
)
def test_the_error_for_a_url_names_the_id_in_it(url: str, part: str) -> None:
    """If no part of it is the id, it says where to find it."""
    assert reason(root_clip_id=url).endswith(f", a URL; pass only the clip id, {part}")


@given(st.text() | st.text("0123456789.,eE+-naNA/#<>"))
def test_an_id_is_valid_or_its_error_says_why(clip: str) -> None:
    """Any text either has only unreserved characters, or is an `InvalidRequestError` for the field."""
    try:
        assert request(root_clip_id=clip).clips == (clip,)
    except InvalidRequestError as error:
        assert str(error).startswith("root_clip_id ")
    else:
        assert set(clip) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.text(max_size=8).filter(lambda name: name not in {*OWN, "clips", "is_public"})


@given(st.dictionaries(names, json_values, max_size=4))
def test_equal_requests_have_the_same_body_and_are_read_from_it(extra: dict[str, Any]) -> None:
    """The order of members does not change the body, of which a journal's key is a hash."""
    made = request(extra=extra)
    assert to_request(parse_json(dump_request(made))) == made
    turned = json.loads(json.dumps(extra), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert dump_request(request(extra=turned)) == dump_request(made)


def test_a_request_can_be_copied_hashed_and_evolved() -> None:
    """Its `extra` is a read-only copy, at every level."""
    members = {"singer": {"skills": ["low"]}}
    made = request(extra=members)
    members["singer"]["skills"].append("high")
    assert made.extra == {"singer": {"skills": ["low"]}}
    with pytest.raises(TypeError, match="read-only"):
        made.extra["singer"] = 1
    assert hash(made) == hash(request())
    assert made != request()
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == copy.copy(made) == made
    assert CreatePersonaRequest(**attrs.asdict(attrs.evolve(made, name="Dusk"))).extra == made.extra


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "extra must be a mapping of names to JSON values; got [] (list)"),
        ({1: 2}, "extra must be a mapping whose names are text; got 1 (int)"),
        ({"\ud83d": 1}, "extra['\\ud83d'] cannot be written as JSON: "),
        ({"a": [-math.inf]}, "extra['a'] cannot be written as JSON: "),
        ({"a": b"vox"}, "extra['a'] cannot be written as JSON: Object of type bytes is not JSON serializable"),
        *(({name: "x"}, "extra must be without the request's own members") for name in (*OWN, "clips", "is_public")),
    ],
)
def test_extra_that_cannot_be_sent_is_an_error(extra: Any, message: str) -> None:
    """It names the member that JSON cannot represent, or that has a field."""
    assert reason(extra=extra).startswith(message)


CSV = """\
root_clip_id,name,description,extra.persona_type,extra.vocal_start_s,extra.singer
54834687,Neon,A,vox,1.5,"{""skills"": [""low""]}"
54834687,Neon,B,\"""12\""",true,null
54834687,Neon,C,,,NaN
"""


async def test_columns_with_the_prefix_extra_are_sent(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """A cell is JSON if possible, or else text; an empty cell and a null are no members."""
    file = tmp_path / "personas.csv"
    file.write_text(CSV)
    done = await run(COMMAND, "batch", str(file), "--allow-duplicates", "--max-connections", "1", env=env)
    assert done.status == 0, done.errors
    assert [dict(list(json.loads(each.body).items())[5:]) for each in fake_suno.requests] == [
        {"persona_type": "vox", "vocal_start_s": 1.5, "singer": {"skills": ["low"]}},
        {"persona_type": "12", "vocal_start_s": True},
        {"singer": "NaN"},
    ]


@pytest.mark.parametrize("name", ["extra.name", "Extra.mood"])
async def test_a_column_with_a_wrong_prefix_is_an_error(name: str, env: dict[str, str], tmp_path: Path) -> None:
    """A misspelt one is not sent by accident, and one of the contract's is not sent twice."""
    file = tmp_path / "personas.csv"
    file.write_text(f"{','.join(OWN)},{name}\n{','.join(OWN.values())},x\n")
    done = await run(COMMAND, "batch", str(file), env=env)
    assert done.status == 2
    assert f"custom_id or extra.NAME; got {name!r} (--ignore-other-columns ignores it)" in done.errors
