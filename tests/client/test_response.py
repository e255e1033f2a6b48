"""Every response is a persona or exactly one error, whatever its shape."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contract import CONTRACT_EXAMPLE
from support.exchanges import ended, exchange, persona
from yarl import URL

from suno_persona import (
    AuthenticationError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    Persona,
    PersonaError,
    RateLimitedError,
    RejectedError,
    ServerError,
    ServiceUnavailableError,
    UnreadableResponseError,
    loads,
)
from suno_persona._response import Exchange, slash_redirect

SPECIAL: dict[int, type[PersonaError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitedError,
    503: ServiceUnavailableError,
}

# shape: the message and code of its error, and whether it is a rejection under a 2xx
SHAPES: dict[bytes, tuple[str | None, str | int | None, bool]] = {
    b'{"error": {"message": "no clip", "type": "bad", "param": "clips", "code": "c1"}}': ("no clip", "c1", True),
    b'{"error": {"message": "no clip", "type": "bad", "code": null}}': ("no clip", None, True),
    b'{"error": {"message": {"text": 1}, "code": {}}}': (None, None, True),
    b'{"error": {"code": 7}}': (None, 7, True),
    b'{"error": "no clip"}': ("no clip", None, True),
    b'{"error": null, "message": "no clip"}': ("no clip", None, False),
    b'{"error": {}}': (None, None, False),
    b'{"error": [{"message": "one"}, "two"]}': ("one; two", None, True),
    b'{"code": 40001, "message": "no clip", "data": null}': ("no clip", 40001, True),
    b'{"code": "no_clip", "msg": "no clip"}': ("no clip", "no_clip", True),
    b'{"code": -1}': (None, -1, True),
    b'{"code": 200, "message": "fine", "data": {}}': ("fine", 200, False),
    b'{"code": 0, "message": "fine"}': ("fine", 0, False),
    b'{"code": "SUCCESS", "message": "fine"}': ("fine", "SUCCESS", False),
    b'{"code": null, "message": "no clip"}': ("no clip", None, False),
    b'{"code": "", "message": "no clip"}': ("no clip", None, False),
    b'{"errors": [{"code": "c1", "message": "no clip"}]}': ("no clip", "c1", False),
    b'{"error_type": "c1", "message": "no clip"}': ("no clip", "c1", False),
    b'{"detail": {"message": "no clip", "error_code": "c1"}}': ("no clip", "c1", False),
    b'{"code": true, "message": "no clip"}': ("no clip", None, False),
    b'{"detail": "no clip"}': ("no clip", None, False),
    b'{"detail": {"message": "no clip", "code": "c1"}}': ("no clip", "c1", False),
    b'{"detail": [{"loc": ["body", "name"], "msg": "field required"}]}': ("body.name: field required", None, False),
    b'{"detail": [{"loc": ["body", 0], "type": "x"}]}': (None, None, False),
    b'[{"message": "one"}, {"message": "two"}, 3, null]': ("one; two", None, False),
    b"[]": (None, None, False),
    b"12": (None, None, False),
    b"null": (None, None, False),
    b'"no clip"': ("no clip", None, False),
    b"no clip": ("no clip", None, False),
    b"no\r\n\x1b[31mclip": ("no [31mclip", None, False),
    b"<html><head><title>502 Bad Gateway</title></head></html>": ("502 Bad Gateway", None, False),
    b"<h1>Bad gateway</h1><p>nginx</p>": ("Bad gateway nginx", None, False),
    b"<br>": (None, None, False),
    b"": (None, None, False),
    b'{"detail": [{"loc": ' + b"[" * 480 + b"]" * 480 + b', "msg": "no clip"}]}': ("no clip", None, False),
    b'{"code": ' + b"9" * 4000 + b', "message": "no clip"}': ("no clip", int("9" * 4000), True),
    b'{"error": {"message": "no\\u001b]0;clip\\u0007", "code": "c\\n1"}}': ("no ]0;clip", "c 1", True),
    b"\xff\xfe\x00": (None, None, False),
    b'{"message": "no clip", "nested": ' + b"[" * 500 + b"]" * 500 + b"}": ("no clip", None, False),
    b"[" * 900 + b'"no clip"' + b"]" * 900: (None, None, False),
    b"{" * 100_000: (None, None, False),
}

shapes = pytest.mark.parametrize("body", SHAPES, ids=lambda body: body[:40].decode("latin-1"))


def failure(found: Exchange) -> Any:
    """Return the error that an exchange means; the test states its class."""
    with pytest.raises(PersonaError) as caught:
        persona(found)
    return caught.value


@shapes
def test_the_status_of_an_error_response_decides_its_class(body: bytes) -> None:
    """The body's shape does not matter, from 300 to 599; the error has its code, its message and the body."""
    words, code, _ = SHAPES[body]
    for status in range(300, 600):
        error = failure(exchange(body, status))
        expected: type[PersonaError] = SPECIAL.get(status, RejectedError if status < 500 else ServerError)
        assert (error.status, error.code, error.body) == (status, code, body)
        assert type(error) is expected
        assert error.message
        assert words is None or words in error.message


@shapes
@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_an_error_under_a_2xx_is_a_rejection_or_unreadable(body: bytes, status: int) -> None:
    """A sign of failure without a possible persona is a rejection; anything else may hide a persona."""
    words, code, is_rejection = SHAPES[body]
    error = failure(exchange(body, status))
    assert type(error) is (RejectedError if is_rejection else UnreadableResponseError)
    assert error.status == status
    assert error.code == code
    assert words is None or words in error.message


@settings(deadline=None)  # the machine may be busy
@given(
    status=st.integers(100, 999),
    body=st.binary(max_size=60)
    | st.sampled_from([shape for shape in [*SHAPES, CONTRACT_EXAMPLE] if len(shape) < 10_000]),
    headers=st.dictionaries(
        st.sampled_from(["Retry-After", "Date", "Location", "X-Request-Id", "Content-Type"]) | st.text(max_size=9),
        st.text(max_size=30) | st.integers().map(str),
        max_size=4,
    ),
)
def test_no_response_raises_another_error(status: int, body: bytes, headers: dict[str, str]) -> None:
    """Whatever bytes and headers arrive, the result is a persona or an error of the class that the status decides."""
    found = exchange(body, status, headers)
    slash_redirect(found)
    result = ended(found).result
    if isinstance(result, Persona):
        assert 200 <= status < 300
        assert result == loads(body)
        return
    assert isinstance(result, RejectedError | UnreadableResponseError | ServerError)
    assert str(result)
    if status >= 300:
        assert isinstance(result, OutcomeUnknownError) is (status >= 500 and status != 503)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 524, 599])
def test_a_malformed_request_is_rejected_under_any_5xx(status: int) -> None:
    """`invalid_request` means that nothing ran: the outcome is certain, and a retry would fail too."""
    assert type(failure(exchange({"error": {"code": "invalid_request"}}, status))) is RejectedError


@pytest.mark.parametrize("status", [101, 600, 999])
def test_a_status_that_http_does_not_define_is_an_unknown_outcome(status: int) -> None:
    """Such a response may come from any kind of server."""
    assert isinstance(failure(exchange(b"", status, {"Retry-After": "1"})), OutcomeUnknownError)


def test_a_response_with_extra_members_is_a_persona() -> None:
    """A `code` of success and an empty `error` beside the persona's own members do not matter."""
    body = json.dumps({**json.loads(CONTRACT_EXAMPLE), "code": 200, "error": None}).encode()
    assert persona(exchange(body)).extra == {"code": 200}


def test_a_long_message_is_shortened_and_the_body_is_whole() -> None:
    """The message is one line of at most 500 characters; `body` has everything."""
    error = failure(exchange({"message": "word " * 1000}, 400))
    assert len(error.message) == 500
    assert len(error.body) > 5000


@pytest.mark.parametrize(
    ("headers", "body", "request_id"),
    [
        ({"X-Request-Id": "a"}, b'{"request_id": "b"}', "a"),
        ({"request-id": "a"}, b"", "a"),
        ({"cf-ray": "a"}, b"", "a"),
        ({}, b'{"request_id": "b"}', "b"),
        ({}, b'{"trace_id": "b"}', "b"),
        ({}, b'{"clerk_trace_id": "b"}', "b"),
        ({}, b'{"request_id": 12}', None),
        ({}, b"", None),
    ],
)
def test_the_request_id_is_found(headers: dict[str, str], body: bytes, request_id: str | None) -> None:
    """It comes from a header, or else from the body."""
    assert failure(exchange(body, 400, headers)).request_id == request_id


NOON = "Sun, 22 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": " 120 "}, 120.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30 GMT", "Date": NOON}, 30.0),
        ({"Retry-After": "Sun, 22 Nov 2026 13:00:30 +0100", "Date": NOON}, 30.0),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30 -0000", "Date": NOON}, 30.0),
        ({"Retry-After": "Sun, 22 Nov 2026 11:00:00 GMT", "Date": NOON}, 0.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "1795344029"}, None),
        ({"Retry-After": "Sun, 22 Nov 2099 12:00:30 GMT", "Date": NOON}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "1e9"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({"Retry-After": "Sun, 99 Nov 2026 12:00:30 GMT"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(status: int, headers: dict[str, str], seconds: float | None) -> None:
    """A date is relative to the response's own `Date`; invalid values are ignored (RFC 9110, section 10.2.3)."""
    assert failure(exchange(b"", status, headers)).retry_after == seconds


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"data": {"persona": {"persona_id": "p"}}}', "p"),
        (b'\xef\xbb\xbf {"result":{"clip":{"id":"c"},"id":"p"}}', "p"),
        (b'{"name": "\\"id\\": 1", "id": "p\\u00e4", "clip": {"id": "c', "pä"),
        (b'{"id": "p", "clips": [{"id": "c"}', "p"),
        (b'{"clips": ["id", "x"], "persona_clips": [{"id": "c"}]', None),
        (b'{"clip": {"id": "c"}}', None),
        (b'{"id": "cut o', None),
        (b'{"id": 12, "x": "id"', "12"),
        (b'{"id": 12', None),
        (b'{"id": ""}', None),
        (b'<script>{"id": "p"}</script>', None),
        (b'data: {"type": "progress", "id": "e", "progress": 5}\n\ndata: {"persona": {"id": "p"}}\n\n', "p"),
        (b')]}\',\n{"id": "p"}', "p"),
        (b'{"result": "{\\"id\\": \\"p\\", \\"na', "p"),
        (b'{"id": "t", "object": "audio.task", "sta', None),
        (b'}}]"id":"p"', None),
        (b"", None),
    ],
)
def test_an_unreadable_response_has_the_id_that_was_found(body: bytes, found: str | None) -> None:
    """The persona's own id is found in any envelope, and in a body that breaks off after it; a clip's never is."""
    assert ended(exchange(body, is_whole=False, ending="lost")).persona_id == found


@pytest.mark.parametrize(
    "body",
    [b'{"id": "p", "code": 1}', b'{"id": "p", "error": {"message": "warn"}}', b'{"code": 1, "data": {"id": "p"}}'],
)
def test_an_error_response_with_an_id_is_an_unknown_outcome(body: bytes) -> None:
    """If the response contradicts itself, a persona may exist, and the error has its id."""
    error = failure(exchange(body))
    assert type(error) is UnreadableResponseError
    assert error.persona_id == "p"


URLS = ("https://gateway.example/v1/create/", "https://gateway.example/v1/create")


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize(
    "location", [URLS[1], "/v1/create", "//gateway.example/v1/create", "../create", f"{URLS[1]}#x"]
)
def test_a_redirect_to_the_path_without_its_slash_is_followed(status: int, location: str) -> None:
    """The target may be relative or absolute, with the same origin."""
    assert slash_redirect(exchange(b"", status, {"Location": location}, url=URL(URLS[0]))) == URL(URLS[1])


def test_a_redirect_to_the_path_with_a_slash_is_followed() -> None:
    """The exception applies in both directions, even with an explicit port."""
    location = "https://gateway.example:443/v1/create/"
    assert slash_redirect(exchange(b"", 308, {"Location": location}, url=URL(URLS[1]))) == URL(URLS[0])


@pytest.mark.parametrize(
    ("status", "location"),
    [
        *((status, URLS[1]) for status in (200, 300, 301, 302, 303, 304, 399)),
        (308, URLS[0]),
        (308, "http://gateway.example/v1/create"),
        (308, "https://gateway.example:8443/v1/create"),
        (308, "https://other.example/v1/create"),
        (308, "https://someone@gateway.example/v1/create"),
        (308, "https://gateway.example/v1/create?x=1"),
        (308, "https://gateway.example/v1/create//"),
        (308, "https://gateway.example/v2/create"),
        (308, "mailto:someone@gateway.example"),
        (308, "https://[::1"),
        (308, "https://gateway.example:99999/v1/create"),
        (308, ""),
    ],
)
def test_no_other_redirect_is_followed(status: int, location: str) -> None:
    """A redirect with another status, origin, path or query, or to an invalid URL, is not followed."""
    assert slash_redirect(exchange(b"", status, {"Location": location}, url=URL(URLS[0]))) is None


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
def test_a_redirect_is_a_rejection_that_names_its_target(status: int) -> None:
    """The error has the target, and suggests `base_url`."""
    error = failure(exchange(b"<title>Moved</title>", status, {"Location": "https://www.gateway.example/create/"}))
    assert type(error) is RejectedError
    assert "https://www.gateway.example/create/" in error.message
    assert "base_url" in error.message


def test_a_persona_is_returned_whole() -> None:
    """A 2xx with a persona is read as that persona."""
    assert persona(exchange({"id": "x"}, 201)) == Persona(id="x")
