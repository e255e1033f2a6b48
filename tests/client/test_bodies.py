"""The status decides, whatever the body; a body is decompressed and decoded before it is read."""

import gzip
import json
import zlib
from typing import Any

import pytest
from support.calls import KEY
from support.exchanges import ended, exchange, persona

from suno_persona import (
    AuthenticationError,
    OutcomeUnknownError,
    PermissionDeniedError,
    Persona,
    PersonaAPI,
    PersonaError,
    RateLimitedError,
    RejectedError,
    ServerError,
    UnreadableResponseError,
)
from suno_persona.testing import FakeSuno, Fault

BODY = json.dumps({"id": "persona-1", "name": "Néon", "mood": "blue"}, ensure_ascii=False).encode()
RAW_DEFLATE = zlib.compressobj(wbits=-15)
RAW = RAW_DEFLATE.compress(BODY) + RAW_DEFLATE.flush()


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("x-gzip", gzip.compress(BODY, mtime=0)),
        ("GZIP", gzip.compress(BODY, mtime=0)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", RAW),
        ("deflate, gzip", gzip.compress(zlib.compress(BODY), mtime=0)),
        ("identity", BODY),
        ("gzip", BODY),  # some gateways say so of what is not compressed
        ("br", BODY),
        ("gzip", gzip.compress(BODY, mtime=0)[:-4]),  # without its end
        ("gzip", gzip.compress(BODY, mtime=0)[:-8] + b"\0" * 8),  # with a wrong checksum
    ],
)
def test_a_compressed_persona_is_read(encoding: str, data: bytes) -> None:
    """Whatever of it can be decompressed counts."""
    assert persona(exchange(data, headers={"Content-Encoding": encoding})).name == "Néon"


STATUSES: list[tuple[int, type[PersonaError]]] = [
    (200, UnreadableResponseError),
    (401, AuthenticationError),
    (403, PermissionDeniedError),
    (429, RateLimitedError),
    (500, ServerError),
    (503, PersonaError),
]


@pytest.mark.parametrize(("status", "kind"), STATUSES)
@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", b"\x1f\x8b\x08\0 broken"),
        ("gzip", b"no gzip at all"),
        ("br", b"\x8b\x02\x80"),
        ("deflate", b"\xff" * 9),
    ],
)
async def test_a_body_that_cannot_be_decompressed_hides_no_status(
    status: int,
    kind: type[PersonaError],
    encoding: str,
    data: bytes,
    once: PersonaAPI,
    request_: Any,
    fake_suno: FakeSuno,
) -> None:
    """The error has the class of its status, and the raw bytes in `body`."""
    fake_suno.script(Fault.response(status, data, headers={"Content-Encoding": encoding}))
    error = (await once.outcome(request_)).error
    assert isinstance(error, kind)
    assert isinstance(error, RejectedError | OutcomeUnknownError)
    assert error.status == status
    assert error.body == data


def test_the_id_in_a_body_whose_compression_breaks_off_is_found() -> None:
    """What precedes the error is decompressed, to the last byte."""
    data = gzip.compress(json.dumps({"id": "persona-1", "name": "x" * 9, "description": "Night drive"}).encode())
    for end in range(45, len(data) - 8):
        result = ended(exchange(data[:end] + b"\xff" * 20, headers={"Content-Encoding": "gzip"}))
        assert result.persona_id == "persona-1", end


def test_a_response_is_bounded_after_decompression() -> None:
    """A small body that inflates to more than `max_response_size` is cut off there, and searched for the id."""
    data = gzip.compress(b'{"id": "persona-1", "name": "' + b"x" * 5_000_000 + b'"}')
    error = ended(exchange(data, headers={"Content-Encoding": "gzip"})).result
    assert isinstance(error, UnreadableResponseError)
    assert error.persona_id == "persona-1"
    assert len(error.body) == 4 * 1024 * 1024
    assert "max_response_size" in error.message


MESSAGE = "Ünzureichend, 余额不足"


@pytest.mark.parametrize(
    ("charset", "content_type"),
    [
        ("utf-8", "application/json"),
        ("utf-8-sig", "application/json"),
        ("utf-16", "application/json"),
        ("utf-16-le", "application/json"),
        ("utf-16-be", "application/json; charset=utf-8"),
        ("utf-32", "application/json"),
        ("gbk", "application/json; charset=GBK"),
        ("gb18030", 'application/json; charset="gb18030"'),
        ("latin-1", "application/json;charset=iso-8859-1"),
        ("utf-8", "application/json; charset=nonsense"),
        ("utf-8", "application/json; charset=hex"),
    ],
)
def test_an_error_is_decoded_by_its_charset(charset: str, content_type: str) -> None:
    """The charset is what the bytes show, or what the response declares; then UTF-8. An echo of the key is masked."""
    message = MESSAGE.encode(charset, "ignore").decode(charset)
    body = json.dumps({"error": {"message": f"{message}: {KEY}", "code": "c1"}}, ensure_ascii=False).encode(charset)
    error = ended(exchange(body, 400, {"Content-Type": content_type})).result
    assert isinstance(error, RejectedError)
    assert error.message == f"{message}: ***"
    assert error.code == "c1"
    assert KEY not in error.body.decode(charset)
    assert "***" in error.body.decode(charset)


def test_a_web_page_is_decoded_by_the_charset_that_it_declares() -> None:
    """It stands in a meta tag."""
    page = f'<html><head><meta charset="gbk"><title>{MESSAGE[-4:]}</title></head></html>'.encode("gbk")
    error = ended(exchange(page, 502, {"Content-Type": "text/html"})).result
    assert isinstance(error, ServerError)
    assert error.message == MESSAGE[-4:]


@pytest.mark.parametrize("status", [200, 404, 405])
def test_a_web_page_instead_of_json_says_what_to_check(status: int) -> None:
    """The message has the URL that was called, and names `base_url` and `create_path`."""
    error = ended(exchange(b"<!DOCTYPE html><title>Welcome</title>", status)).result
    assert isinstance(error, PersonaError)
    assert "https://gateway.example/suno/persona/create/" in error.message
    assert "base_url" in error.message
    assert "create_path" in error.message
    assert "Welcome" in error.message


def test_a_retry_after_beyond_the_limit_says_both_numbers() -> None:
    """The caller sees why it is not slept on."""
    error = ended(exchange({"message": "slow down"}, 429, {"Retry-After": "3600"})).result
    assert isinstance(error, RateLimitedError)
    assert error.message == "slow down; its Retry-After is 3600 s, longer than wait_max, 30 s"


def test_the_last_of_several_attempts_says_how_many_there_were() -> None:
    """The text of the error ends with it."""
    error = ended(exchange({"message": "down"}, 503), attempts=4).result
    assert str(error) == "HTTP 503: down after 4 attempts"


TASKS: list[dict[str, Any]] = [
    {"id": "t", "object": "audio.generation.task", "progress": 0, "status": "pending"},
    {"id": "t", "object": "job", "status": "failed", "fail_reason": "clip not found"},
    {"code": "success", "message": "", "data": {"id": "t", "task_id": "t", "status": "NOT_START", "progress": "0%"}},
    {"id": "t", "status": "queued"},
    {"id": "t", "status": "IN_PROGRESS", "name": "Neon"},
    {"id": "t", "taskId": "t"},
    {"success": True, "data": [{"id": "t", "status": "submitted"}]},
    {"task_id": "t"},
]


@pytest.mark.parametrize("body", TASKS, ids=json.dumps)
def test_a_task_is_no_persona(body: dict[str, Any]) -> None:
    """The error says that this gateway works with tasks, and has no `persona_id`."""
    error = ended(exchange(body)).result
    assert type(error) is UnreadableResponseError
    assert "this gateway works with tasks" in error.message
    assert error.persona_id is None


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
    assert persona(exchange(body)).id == str(body["id"])


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
    found = persona(exchange(body))
    assert found.id in ("p", "5483")
    assert found == Persona(id=found.id, extra=extra)
