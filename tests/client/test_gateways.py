"""What a 2xx means: a persona in an envelope, only its id, a task, a rejection, or an id in whatever was received."""

import json
from typing import Any

import pytest
from support.exchanges import error, id_in, persona

from suno_persona import Persona, RejectedError, UnreadableResponseError, loads

P: dict[str, Any] = {"id": "fd213afd-ac1c-4822-9802-c1c0ea45e77b", "name": "Neon", "clip": {"id": "54834687"}}
ID = P["id"]
NOTHING: list[object] = [None, {}, [], "", "created"]

SUCCESSES: list[dict[str, Any]] = [
    *({wrapper: P} for wrapper in ("data", "persona", "result", "response")),
    *({"code": code, "data": P} for code in ("SUCCESS", "succeeded", "ok", 0, "0", 200, None, "")),
    {"success": True, "code": 200, "message": "fine", "persona": P},
    *({"error": nothing, "data": P} for nothing in NOTHING[:-1]),
    {"status": "SUCCESS", "data": P},
    {"code": "success", "data": {}, "response": P},
    {"id": "req-1", "code": "success", "request_id": "r1", "data": P},
    {"code": "success", "data": [P]},
    {"status": 200, "task_id": "t", "data": P},
]


@pytest.mark.parametrize("body", SUCCESSES, ids=json.dumps)
def test_a_persona_in_a_success_envelope_is_returned(body: dict[str, Any]) -> None:
    """The wrapper may have any of its names, and success any of its spellings."""
    assert persona(body) == loads(json.dumps(P))


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        ({"success": True, "task_id": "5a1c", "data": {"persona_id": "p"}}, {"success": True, "task_id": "5a1c"}),
        ({"code": "success", "data": {"personaId": "p"}}, {"code": "success"}),
        ({"code": 200, "persona_id": 5483, "mood": "blue"}, {"code": 200, "mood": "blue"}),
        ({"status": "ok", "data": [{"persona_id": "p"}]}, {"status": "ok"}),
    ],
    ids=str,
)
def test_a_success_that_has_only_the_id_is_a_persona(body: dict[str, Any], extra: dict[str, Any]) -> None:
    """Its `id` is that id, and the rest is in `extra`."""
    found = persona(body)
    assert found.id in ("p", "5483")
    assert found == Persona(id=found.id, extra=extra)


TASKS: list[dict[str, Any]] = [
    {"id": "t", "object": "audio.generation.task", "progress": 0, "status": "pending"},
    {"id": "t", "object": "job", "status": "failed", "fail_reason": "clip not found"},
    {"code": "success", "message": "", "data": {"id": "t", "task_id": "t", "status": "NOT_START", "progress": "0%"}},
    {"id": "t", "status": "IN_PROGRESS", "name": "Neon"},
    {"success": True, "data": [{"id": "t", "status": "submitted"}]},
    {"task_id": "t"},
]


@pytest.mark.parametrize("body", TASKS, ids=json.dumps)
def test_a_task_is_no_persona(body: dict[str, Any]) -> None:
    """The error says that this gateway works with tasks, and has no `persona_id`."""
    raised = error(body)
    assert type(raised) is UnreadableResponseError
    assert "this gateway works with tasks" in raised.message
    assert raised.persona_id is None


@pytest.mark.parametrize(
    "body",
    [
        {"id": "p", "status": "complete"},
        {"id": "p", "status": "active", "name": "Neon"},
        {"id": "p", "status": "pending", "root_clip_id": "c"},
        {"id": "p", "progress": None},
        {"id": "p", "object": "persona"},
        {"id": 5483},
    ],
    ids=json.dumps,
)
def test_a_persona_with_members_of_gateways_is_no_task(body: dict[str, Any]) -> None:
    """An object with an id and no sign of a task is a persona, and so is one with what only personas have."""
    assert persona(body).id == str(body["id"])


REJECTED: list[dict[str, Any]] = [
    *({"code": 1, "data": nothing} for nothing in NOTHING),
    {"code": "insufficient_quota", "data": "insufficient_quota", "persona": None},
    {"success": False, "code": 200, "data": ""},
    {"error": "no credits", "data": None},
    {"error": {"message": "no credits", "id": "fd213afd"}, "clip": {"id": "54834687"}},
]


@pytest.mark.parametrize("body", REJECTED, ids=json.dumps)
def test_a_sign_of_failure_without_a_possible_persona_is_a_rejection(body: dict[str, Any]) -> None:
    """Certainly nothing was created: `data` and its like are absent, null, empty or plain text."""
    assert type(error(body)) is RejectedError


UNREADABLE: list[tuple[object, str | None]] = [
    # a success without a persona, with its id where there is one
    *(({"code": "success", "data": found}, ID) for found in (ID, [ID], [P, P])),
    ({"code": "success", "data": [None, {"id": "p"}]}, "p"),
    ({"status": "unknown", "data": P}, ID),
    ({"personaId": "p"}, "p"),
    *(([P], ID), (ID, ID), ({}, None), ({"message": "fine"}, None)),
    *(({"code": "success", "data": nothing}, None) for nothing in (*NOTHING, {"id": ""})),
    ({"code": "success", "data": {"clip": {"id": "c"}}}, None),
    # a failure with a possible persona
    *(({"code": 1, "data": found}, ID) for found in (P, [P], ID)),
    ({"code": 1, "personaId": "p", "data": None}, "p"),
    *(({"code": 1, "data": found}, None) for found in ({"task": "t"}, [12], 12)),
    ({"output": {"items": [{"persona_id": "p"}]}}, "p"),
    ({"text": json.dumps({"persona": {"id": "p"}})}, "p"),
    ({"data": {"result": {"metadata": {"persona_id": "that of the clip"}}}}, None),
    *(({**failure, **P}, ID) for failure in ({"code": 1}, {"success": False}, {"error": {"message": "slow"}})),
    ({"error": "slow", "data": P}, ID),
    ({"code": 1, "junk": "x" * 256 * 1024, "data": {"id": "p"}}, "p"),  # to the end of a large document
]


@pytest.mark.parametrize(("body", "found"), UNREADABLE, ids=lambda value: json.dumps(value)[:60])
def test_a_possible_persona_is_unreadable_and_its_id_is_on_the_error(body: object, found: str | None) -> None:
    """A persona may exist, and the error has its id if one is found."""
    raised = error(body)
    assert type(raised) is UnreadableResponseError
    assert raised.persona_id == found


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"data": {"persona": {"persona_id": "p"}}}', "p"),
        (b'\xef\xbb\xbf {"result":{"clip":{"id":"c"},"id":"p"}}', "p"),
        (b'{"name": "\\"id\\": 1", "id": "p\\u00e4", "clip": {"id": "c', "pä"),
        (b'{"id": "p", "clips": [{"id": "c"}', "p"),
        (b'{"clip": {"id": "c"}}', None),
        (b'{"id": "cut o', None),
        (b'{"id": 12, "x": "id"', "12"),
        (b'<script>{"id": "p"}</script>', None),
        (b'data: {"type": "progress", "id": "e", "progress": 5}\n\ndata: {"persona": {"id": "p"}}\n\n', "p"),
        (b')]}\',\n{"id": "p"}', "p"),
        (b'{"result": "{\\"id\\": \\"p\\", \\"na', "p"),
        (b'{"id": "t", "object": "audio.task", "sta', None),
        (b'}}]"id":"p"', None),
        (b'{"code": 0, "data": "fd213afd"', "fd213afd"),
        (b'{"code": 0, "data": "created", "personaId" : "p\\u0031"', "p1"),
        (b'[{"id": "p"}', "p"),
        (b'{"data": [{"clip": {"id": "c"}, "clips": [{"id": "c"}], "id": "p"', "p"),
        (b'{"data": {"id": "", "persona_id": "p"', "p"),
        (b'{"error": {"id": "e"', None),
    ],
)
def test_an_id_is_found_in_a_body_that_breaks_off(body: bytes, found: str | None) -> None:
    """In any envelope, bare, in lists and under each of its names; a clip's id or part of an id never is."""
    assert id_in(body) == found


SIZE = 64 * 1024
HUGE = {
    "brackets": b"{" + b"[" * SIZE,
    "ids": b'{"data":{' + b'"id":"",' * (SIZE // 8),
    "backslashes": b'{"' + b"\\" * (SIZE - 1),
    "not UTF-8": b"{" + b"\xff" * SIZE,
    "digits": b"{" + b"1" * SIZE,
}


@pytest.mark.parametrize("body", HUGE.values(), ids=HUGE)
def test_an_id_is_found_before_any_flaw_of_a_large_body(body: bytes) -> None:
    """There is none in the flaw itself."""
    assert id_in(body) is None
    assert id_in(b'{"data": {"id": "p"}, ' + body) == "p"


@pytest.mark.parametrize("large", ["x" * SIZE, '\n"' * SIZE, [[1, {"id": "c"}]] * (SIZE // 16)], ids=["a", "b", "c"])
def test_an_id_is_found_behind_any_large_value(large: object) -> None:
    """The search is not limited to the beginning of a body that is cut off."""
    text = json.dumps({"description": large, "persona_clips": large, "id": "p", "name": "Neon"})
    assert id_in(text[:-5].encode()) == "p"
