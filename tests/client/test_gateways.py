"""Gateways wrap the persona in envelopes: a success is read, and distinguished from a failure."""

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.exchanges import ended, exchange, persona

from suno_persona import (
    CreatePersonaRequest,
    PersonaAPI,
    PersonaError,
    RejectedError,
    UnreadableResponseError,
    loads,
)
from suno_persona._response import slash_redirect
from suno_persona.testing import FakeSuno, Fault

P: dict[str, Any] = {"id": "fd213afd-ac1c-4822-9802-c1c0ea45e77b", "name": "Neon", "clip": {"id": "54834687"}}
ID = P["id"]


def failure(body: object) -> PersonaError:
    """Return the error that a 200 with a JSON value raises."""
    with pytest.raises(PersonaError) as caught:
        persona(exchange(body))
    return caught.value


def found_in(body: bytes) -> str | None:
    """Return the id on the error of a response that breaks off."""
    return ended(exchange(body, is_whole=False, ending="lost")).persona_id


SUCCESSES: list[dict[str, Any]] = [
    {"data": P},
    {"persona": P},
    {"result": P},
    {"response": P},
    {"code": "success", "data": P},
    {"code": "SUCCESS", "data": P},
    {"code": "Success", "message": "", "data": P},
    {"code": "success", "message": "", "result": P},
    {"code": "succeeded", "persona": P},
    {"code": "ok", "response": P},
    {"code": 0, "data": P},
    {"code": "0", "data": P},
    {"code": 200, "data": P},
    {"code": "200", "msg": "fine", "data": P},
    {"code": 201, "data": P},
    {"code": 200, "message": "fine", "result": P},
    {"code": None, "data": P},
    {"code": "", "data": P},
    {"success": True, "data": P},
    {"success": True, "code": 200, "message": "fine", "persona": P},
    {"error": None, "data": P},
    {"error": "", "data": P},
    {"error": {}, "data": P},
    {"error": False, "code": 0, "data": P},
    {"status": "SUCCESS", "data": P},
    {"code": "success", "data": P, "persona": None},
    {"code": "success", "data": None, "result": P},
    {"code": "success", "data": {}, "response": P},
    {"code": "success", "data": "created", "persona": P},
    {"code": "success", "request_id": "r1", "data": P},
    {"id": "req-1", "code": "success", "data": P},
    {"id": "req-1", "object": "persona", "persona": P},
    {"code": "success", "data": [P]},
    {"status": 200, "task_id": "t", "data": P},
    {"status": True, "result": [P]},
]


@pytest.mark.parametrize("body", SUCCESSES, ids=json.dumps)
def test_a_persona_in_a_success_envelope_is_returned(body: dict[str, Any]) -> None:
    """The wrapper may have any of its names, and success any of its spellings."""
    assert persona(exchange(body)) == loads(json.dumps(P))


UNREADABLE: list[tuple[object, str | None]] = [
    # a success without a persona, with its id where there is one
    ({"code": "success", "data": ID}, ID),
    ({"code": "success", "data": "fd213afd"}, "fd213afd"),
    ({"code": "success", "data": [None, {"id": "p"}]}, "p"),
    ({"code": "success", "data": [P, P]}, ID),
    ({"status": "unknown", "data": P}, ID),
    ({"code": "success", "data": [ID]}, ID),
    ({"data": {"personaId": "p"}}, "p"),
    ({"code": "success", "data": {"data": {"id": "p"}}}, "p"),
    ({"personaId": "p"}, "p"),
    ([P], ID),
    (ID, ID),
    ({"code": "success", "data": None}, None),
    ({"code": "success", "data": {}}, None),
    ({"code": "success", "data": []}, None),
    ({"code": "success", "data": "created"}, None),
    ({"code": "success", "data": {"id": ""}}, None),
    ({"code": "success", "data": {"clip": {"id": "c"}}}, None),
    ({"code": "success", "clip": {"id": "c"}}, None),
    ({"code": "success"}, None),
    ({"message": "fine"}, None),
    ({}, None),
    # a failure with a possible persona
    ({"code": 1, "data": P}, ID),
    ({"code": "00000", "data": P}, ID),
    ({"output": {"items": [{"persona_id": "p"}]}}, "p"),
    ({"text": json.dumps({"persona": {"id": "p"}})}, "p"),
    ({"data": {"result": {"metadata": {"persona_id": "that of the clip"}}}}, None),
    ({"code": "00000", "data": {"personaId": "p"}}, "p"),
    ({"code": 1, "data": [P]}, ID),
    ({"code": 1, "data": ID}, ID),
    ({"code": 1, "personaId": "p", "data": None}, "p"),
    ({"code": 1, "data": {"task": "t"}}, None),
    ({"code": 1, "data": [12]}, None),
    ({"code": 1, "data": 12}, None),
    ({"success": False, "data": P}, ID),
    ({"error": "slow", "data": P}, ID),
    ({"error": {"message": "slow"}, "result": P}, ID),
    ({"error": {"message": "slow"}, **P}, ID),
    ({"code": 1, **P}, ID),
]


@pytest.mark.parametrize(("body", "found"), UNREADABLE, ids=json.dumps)
def test_a_possible_persona_is_unreadable_and_its_id_is_on_the_error(body: object, found: str | None) -> None:
    """A persona may exist, and the error has its id if one is found."""
    error = failure(body)
    assert type(error) is UnreadableResponseError
    assert error.persona_id == found


REJECTED: list[dict[str, Any]] = [
    {"code": 1},
    {"code": 1, "data": None},
    {"code": 1, "data": {}},
    {"code": 1, "data": []},
    {"code": 1, "data": ""},
    {"code": 1, "data": "no credits"},
    {"code": "insufficient_quota", "data": "insufficient_quota", "persona": None},
    {"code": "00000", "message": "no credits", "result": None},
    {"code": -1, "response": "no credits"},
    {"code": 401, "message": "no credits", "data": {}},
    {"code": "fail", "data": False},
    {"success": False},
    {"success": False, "message": "no credits", "data": None},
    {"success": False, "code": 200, "data": ""},
    {"error": "no credits"},
    {"error": "no credits", "data": None},
    {"error": ["no credits"]},
    {"error": {"message": "no credits", "id": "fd213afd"}},
    {"error": {"message": "no credits"}, "clip": {"id": "54834687"}},
]


@pytest.mark.parametrize("body", REJECTED, ids=json.dumps)
def test_a_sign_of_failure_without_a_possible_persona_is_a_rejection(body: dict[str, Any]) -> None:
    """Certainly nothing was created: `data` and its like are absent, null, empty or plain text."""
    assert type(failure(body)) is RejectedError


envelopes = st.builds(
    lambda code, others, wrapper: (code | others, wrapper),
    st.sampled_from([{}, *({"code": code} for code in ("success", "SUCCESS", 0, 200, "200", "0", None, ""))]),
    st.fixed_dictionaries(
        {},
        optional={
            "message": st.none() | st.text(max_size=9),
            "msg": st.text(max_size=9),
            "error": st.sampled_from([None, "", {}, []]),
            "success": st.just(True),
            "request_id": st.text(max_size=9),
            "time": st.integers(),
        },
    ),
    st.sampled_from(["data", "persona", "result", "response"]),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)
personas = st.builds(
    lambda members, ident: {**members, "id": ident},
    st.dictionaries(st.sampled_from(["name", "clip", "persona_clips", "mood", "code", "error", "data"]), values),
    st.text(min_size=1),
)


@given(personas, envelopes)
def test_any_persona_in_any_success_envelope_is_returned_whole(
    document: dict[str, Any], envelope: tuple[dict[str, Any], str]
) -> None:
    """The persona has all its members, whatever else the envelope holds."""
    others, wrapper = envelope
    assert persona(exchange(others | {wrapper: document})) == loads(json.dumps(document))


@given(values, st.text(string.printable, max_size=40))
def test_no_body_makes_the_search_for_an_id_fail(document: object, broken: str) -> None:
    """The search returns an id or None for any JSON value, wherever the text breaks off."""
    text = json.dumps({"data": document, "result": [document]})
    for body in (text, text[: len(broken)], text[: len(broken)] + broken, "{" + broken):
        assert found_in(body.encode()) != ""


SIZE = 256 * 1024
HUGE = {
    "brackets": b"{" + b"[" * SIZE,
    "pairs": b"[{" + b"[]," * (SIZE // 3),
    "members": b'{"data":{' + b'"a":1,' * (SIZE // 6),
    "ids": b'{"data":{' + b'"id":"",' * (SIZE // 8),
    "words": b'{"data":{' + b'"data":"a",' * (SIZE // 11),
    "strings": b"[" + b'"a",' * (SIZE // 4),
    "quotes": b"{" + b'"' * SIZE,
    "escapes": b'{"' + b'\\"' * (SIZE // 2),
    "backslashes": b'{"' + b"\\" * (SIZE - 1),
    "open string": b'{"' + b"a" * SIZE,
    "colons": b'{"a"' + b":" * SIZE,
    "spaces": b'{"a"' + b" " * SIZE,
    "not UTF-8": b"{" + b"\xff" * SIZE,
    "digits": b"{" + b"1" * SIZE,
}


@pytest.mark.parametrize("body", HUGE.values(), ids=HUGE)
def test_an_id_is_found_whatever_the_size_of_a_broken_body(body: bytes) -> None:
    """An id before or after large values is found, and there is none in the values themselves."""
    assert found_in(body) is None
    assert found_in(b'{"data": {"id": "p"}, ' + body) == "p"


@pytest.mark.parametrize(
    "large", ["x" * SIZE, '\n"' * SIZE, [[1, {"id": "c"}]] * (SIZE // 16)], ids=["text", "escapes", "list"]
)
def test_an_id_behind_a_large_value_is_found(large: object) -> None:
    """The search is not limited to the beginning of a body that is cut off."""
    text = json.dumps({"description": large, "persona_clips": large, "id": "p", "name": "Neon"})
    assert found_in(text[:-5].encode()) == "p"


def test_an_id_at_the_end_of_a_large_document_is_found() -> None:
    """A body that is JSON is searched to its end."""
    assert failure({"code": 1, "junk": "x" * SIZE, "data": {"id": "p"}}).persona_id == "p"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"code": 0, "data": "fd213afd"', "fd213afd"),
        (b'{"code": 0, "data": "created", "personaId" : "p\\u0031"', "p1"),
        (b'[{"id": "p"}', "p"),
        (b'{"data": [[{"id": "p"', "p"),
        (b'{"data": [{"clip": {"id": "c"}, "clips": [{"id": "c"}], "id": "p"', "p"),
        (b'{"data": {"id": "", "persona_id": "p"', "p"),
        (b'{"data": "fd213', None),
        (b'{"data": {"id": "', None),
        (b'{"error": {"id": "e"', None),
    ],
)
def test_an_id_is_found_in_json_that_breaks_off(body: bytes, found: str | None) -> None:
    """The id is found bare, in lists and under each of its names; a clip's id or part of an id never is."""
    assert found_in(body) == found


def test_a_message_is_made_of_the_first_items_of_a_list() -> None:
    """The message has ten items at most, so that the work is bounded."""
    assert failure({"error": [*"abcdefghij", "k"]}).message == "a; b; c; d; e; f; g; h; i; j"


@pytest.mark.parametrize(
    ("headers", "body", "request_id"),
    [
        ({}, {"request_id": "r1", "data": P}, "r1"),
        ({}, {"request_id": "r\n1", **P}, "r 1"),
        ({}, {"request_id": 12, "data": P}, None),
        ({}, {"data": {"request_id": "r1", **P}}, None),
        ({"X-Request-Id": "r2"}, {"request_id": "r1", "data": P}, "r2"),
    ],
)
async def test_the_request_id_in_an_envelope_is_on_the_outcome(
    headers: dict[str, str],
    body: dict[str, Any],
    request_id: str | None,
    once: PersonaAPI,
    request_: CreatePersonaRequest,
    fake_suno: FakeSuno,
) -> None:
    """The outcome has the request id of the envelope, unless a header has one."""
    if not headers:
        headers = {"X-Request-Id": ""}
    fake_suno.script(Fault.response(200, json.dumps(body).encode(), headers=headers))
    (outcome,) = [outcome async for outcome in once.create_many([request_])]
    assert outcome.request_id == request_id
    assert outcome.result().id == ID


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize(
    "location", ["https://xn--gw.example/", "//[::1]@", "//[::1", "https://\ud800/", "http://a b/"]
)
def test_a_redirect_to_an_invalid_address_is_a_rejection(status: int, location: str) -> None:
    """The redirect is a rejection even if yarl raises only when the address is used."""
    redirect = exchange(b"", status, {"Location": location})
    assert slash_redirect(redirect) is None
    with pytest.raises(RejectedError, match="redirects to"):
        persona(redirect)
