"""A response is a persona or exactly one error, which its status decides, whatever the body."""

import gzip
import json
import string
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.calls import KEY
from support.contract import CONTRACT_EXAMPLE
from support.exchanges import ended, error, exchange, persona
from yarl import URL

from suno_persona import Persona, RejectedError, ServerError, UnreadableResponseError, errors, loads
from suno_persona._response import slash_redirect

SPECIAL: dict[int, type[Any]] = {
    401: errors.AuthenticationError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    429: errors.RateLimitedError,
    503: errors.ServiceUnavailableError,
}

# shape: the message and code of its error, and whether it is a rejection under a 2xx
SHAPES: dict[bytes, tuple[str | None, str | int | None, bool]] = {
    b'{"error": {"message": "no clip", "type": "bad", "param": "clips", "code": "c1"}}': ("no clip", "c1", True),
    b'{"error": {"message": {"text": 1}, "code": {}}}': (None, None, True),
    b'{"error": "no clip"}': ("no clip", None, True),
    b'{"error": null, "message": "no clip"}': ("no clip", None, False),
    b'{"error": [{"message": "one"}, "two"]}': ("one; two", None, True),
    b'{"code": 40001, "message": "no clip", "data": null}': ("no clip", 40001, True),
    b'{"code": "no_clip", "msg": "no clip"}': ("no clip", "no_clip", True),
    b'{"code": 200, "message": "fine", "data": {}}': ("fine", 200, False),
    b'{"code": "", "message": "no clip"}': ("no clip", None, False),
    b'{"errors": [{"code": "c1", "message": "no clip"}]}': ("no clip", "c1", False),
    b'{"error_type": "c1", "message": "no clip"}': ("no clip", "c1", False),
    b'{"detail": {"message": "no clip", "error_code": "c1"}}': ("no clip", "c1", False),
    b'{"detail": "no clip"}': ("no clip", None, False),
    b'{"detail": [{"loc": ["body", "name"], "msg": "field required"}]}': ("body.name: field required", None, False),
    b'[{"message": "one"}, {"message": "two"}, 3, null]': ("one; two", None, False),
    b'"no clip"': ("no clip", None, False),
    b"no\r\n\x1b[31mclip": ("no [31mclip", None, False),
    b"<html><head><title>502 Bad Gateway</title></head></html>": ("502 Bad Gateway", None, False),
    b"<h1>Bad gateway</h1><p>nginx</p>": ("Bad gateway nginx", None, False),
    b"": (None, None, False),
    b'{"error": {"message": "no\\u001b]0;clip\\u0007", "code": "c\\n1"}}': ("no ]0;clip", "c 1", True),
    b"\xff\xfe\x00": (None, None, False),
    b"[" * 900 + b'"no clip"' + b"]" * 900: (None, None, False),
    b"{" * 100_000: (None, None, False),
}


@pytest.mark.parametrize("body", SHAPES, ids=lambda body: body[:40].decode("latin-1"))
def test_the_status_decides_the_class_of_an_error(body: bytes) -> None:
    """The body's shape does not matter, from 300 to 599; the error has its code, its message and the body.

    Under a 2xx, a sign of failure without a possible persona is a rejection; anything else may hide a persona.
    """
    words, code, is_rejection = SHAPES[body]
    for status in range(200, 600) if len(body) < 200 else (200, 300, 400, 500, *SPECIAL):
        raised = error(body, status)
        under_2xx = RejectedError if is_rejection else UnreadableResponseError
        kind = under_2xx if status < 300 else RejectedError if status < 500 else ServerError
        assert type(raised) is SPECIAL.get(status, kind)
        assert (raised.status, raised.code, raised.body) == (status, code, body)
        assert raised.message
        assert words is None or words in raised.message


@settings(deadline=None)  # the machine may be busy
@given(
    status=st.integers(100, 999),
    body=st.binary(max_size=60)
    | st.text(string.printable, max_size=40).map(lambda text: b'{"data": {' + text.encode())
    | st.sampled_from([shape for shape in [*SHAPES, CONTRACT_EXAMPLE] if len(shape) < 9999]),
    headers=st.dictionaries(
        st.sampled_from(["Retry-After", "Date", "Location", "X-Request-Id", "Content-Type"]) | st.text(max_size=9),
        st.text(max_size=30) | st.integers().map(str),
        max_size=4,
    ),
)
def test_any_response_is_a_persona_or_an_error_of_its_status(status: int, body: bytes, headers: dict[str, str]) -> None:
    """Whatever bytes and headers arrive, no other exception is raised."""
    found = exchange(body, status, headers)
    slash_redirect(found)
    result = ended(found).result
    if isinstance(result, Persona):
        assert 200 <= status < 300
        assert result == loads(body)
        return
    assert isinstance(result, RejectedError | UnreadableResponseError | ServerError)
    assert str(result)
    if not 200 <= status < 300:  # one that HTTP does not define may come from any kind of server
        assert isinstance(result, errors.OutcomeUnknownError) is (status < 200 or (status >= 500 and status != 503))


@pytest.mark.parametrize("status", [500, 502, 503, 504, 524, 599])
def test_a_malformed_request_is_rejected_under_any_5xx(status: int) -> None:
    """`invalid_request` means that nothing ran: the outcome is certain, and a retry would fail too."""
    assert type(error({"error": {"code": "invalid_request"}}, status)) is RejectedError


def test_a_message_is_one_line_and_says_what_support_needs() -> None:
    """It has at most 500 characters and ten items of a list; the text ends with the number of several attempts."""
    long = error({"message": "word " * 1000}, 400)
    assert len(long.message) == 500
    assert len(long.body) > 5000
    assert error({"error": [*"abcdefghij", "k"]}).message == "a; b; c; d; e; f; g; h; i; j"
    too_long = error({"message": "down"}, 429, {"Retry-After": "3600"})
    assert too_long.message == "down; its Retry-After is 3600 s, longer than wait_max, 30 s"
    assert str(ended(exchange({"message": "down"}, 503), attempts=4).result) == "HTTP 503: down after 4 attempts"


def test_an_error_has_the_id_of_a_persona_only_under_a_name_of_its_own() -> None:
    """The `id` of an error response is that of the error."""
    assert error({"id": "e", "persona_id": "p"}, 500).persona_id == "p"
    assert error({"id": "e"}, 500).persona_id is None


@pytest.mark.parametrize("status", [200, 404, 405])
def test_a_web_page_instead_of_json_says_what_to_check(status: int) -> None:
    """The message has the URL that was called, and names `base_url` and `create_path`."""
    message = error(b"<!DOCTYPE html><title>Welcome</title>", status).message
    for part in ("https://gateway.example/suno/persona/create/", "base_url", "create_path", "Welcome"):
        assert part in message


@pytest.mark.parametrize(
    ("headers", "members", "request_id"),
    [
        ({"X-Request-Id": "a"}, {"request_id": "b"}, "a"),
        ({"cf-ray": "a"}, {}, "a"),
        ({}, {"request_id": "b\n1"}, "b 1"),
        ({}, {"trace_id": "b"}, "b"),
        ({}, {"clerk_trace_id": "b"}, "b"),
        ({"X-Request-Id": ""}, {"request_id": 12}, None),
    ],
)
def test_the_request_id_is_found(headers: dict[str, str], members: dict[str, Any], request_id: str | None) -> None:
    """It comes from a header, or else from the body, of an error and of an envelope."""
    raised = error(members, 400, headers)
    assert (raised.request_id, raised.headers) == (request_id, headers)
    assert ended(exchange({**members, "data": {"id": "p"}}, 200, headers)).request_id == request_id


NOON = "Sun, 22 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": " 120 "}, 120.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30 GMT", "Date": NOON}, 30.0),
        ({"Retry-After": "Sun, 22 Nov 2026 13:00:30 +0100", "Date": NOON}, 30.0),
        ({"Retry-After": "Sun, 22 Nov 2026 11:00:00 GMT", "Date": NOON}, 0.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0),
        ({"Retry-After": "Sun, 22 Nov 2099 12:00:30 GMT", "Date": NOON}, None),
        *(
            ({"Retry-After": text}, None)
            for text in ("-1", "1795344029", "nan", "soon", "Sun, 99 Nov 2026 12:00:30 GMT")
        ),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    """A date is relative to the response's own `Date`; invalid values are ignored (RFC 9110, section 10.2.3)."""
    assert error(b"", 429, headers).retry_after == error(b"", 503, headers).retry_after == seconds


SLASH, NO_SLASH = URL("https://gateway.example/v1/create/"), URL("https://gateway.example/v1/create")


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("location", [str(NO_SLASH), "/v1/create", "//gateway.example:443/v1/create", "../create#x"])
def test_a_redirect_to_the_trailing_slash_is_followed(status: int, location: str) -> None:
    """It may add or drop it, and be relative or absolute, with the same origin."""
    assert slash_redirect(exchange(b"", status, {"Location": location}, url=SLASH)) == NO_SLASH
    assert slash_redirect(exchange(b"", status, {"Location": str(SLASH)}, url=NO_SLASH)) == SLASH
    assert slash_redirect(exchange(b"", 200, {"Location": location}, url=SLASH)) is None


@pytest.mark.parametrize(
    ("status", "location"),
    [
        *((status, str(NO_SLASH)) for status in (301, 302, 303)),
        (308, str(SLASH)),
        (308, "http://gateway.example/v1/create"),
        (308, "https://gateway.example:8443/v1/create"),
        (308, "https://other.example/v1/create"),
        (308, "https://someone@gateway.example/v1/create"),
        (308, "https://gateway.example/v1/create?x=1"),
        (308, "https://gateway.example/v1/create//"),
        *((307, bad) for bad in ("https://[::1", "https://gateway.example:99999/v1/create", "https://\ud800/")),
    ],
)
def test_any_other_redirect_is_a_rejection_that_names_its_target(status: int, location: str) -> None:
    """One with another status, origin, path or query, or to an invalid URL, is not followed."""
    found = exchange(b"<title>Moved</title>", status, {"Location": location}, url=SLASH)
    assert slash_redirect(found) is None
    raised = ended(found).result
    assert type(raised) is RejectedError
    assert "redirects to" in raised.message
    assert "base_url" in raised.message


BODY = json.dumps({"id": "persona-1", "name": "Néon", "mood": "blue"}, ensure_ascii=False).encode()
RAW_DEFLATE = zlib.compressobj(wbits=-15)
RAW = RAW_DEFLATE.compress(BODY) + RAW_DEFLATE.flush()
GZIP = gzip.compress(BODY, mtime=0)


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        *(("gzip", GZIP), ("x-gzip", GZIP), ("GZIP", GZIP), ("deflate", zlib.compress(BODY)), ("deflate", RAW)),
        *(("identity", BODY), ("gzip", BODY), ("br", BODY)),  # some gateways say so of what is not compressed
        ("gzip", GZIP[:-4]),  # without its end
        ("gzip", GZIP[:-8] + b"\0" * 8),  # with a wrong checksum
    ],
)
def test_a_compressed_persona_is_read(encoding: str, data: bytes) -> None:
    """Whatever of it can be decompressed counts."""
    assert persona(data, headers={"Content-Encoding": encoding}).name == "Néon"


@pytest.mark.parametrize(
    ("encoding", "data"),
    [("gzip", b"\x1f\x8b\x08\0 broken"), ("br", b"\x8b\x02\x80"), ("deflate", b"\xff" * 9)],
)
def test_a_body_that_cannot_be_decompressed_hides_no_status(encoding: str, data: bytes) -> None:
    """The error has the class of its status, and the raw bytes in `body`."""
    for status, kind in {200: UnreadableResponseError, **SPECIAL, 500: ServerError}.items():
        raised = error(data, status, headers={"Content-Encoding": encoding})
        assert (type(raised), raised.status, raised.body) == (kind, status, data)


def test_the_id_in_a_body_whose_compression_breaks_off_is_found() -> None:
    """What precedes the error is decompressed, to the last byte."""
    data = gzip.compress(json.dumps({"id": "persona-1", "name": "x" * 9, "description": "Night drive"}).encode())
    for end in range(45, len(data) - 8):
        result = ended(exchange(data[:end] + b"\xff" * 20, headers={"Content-Encoding": "gzip"}))
        assert result.persona_id == "persona-1", end


def test_a_response_is_bounded_after_decompression() -> None:
    """A body that inflates to more than `max_response_size` is cut off there, and searched for the id."""
    assert type(ended(exchange(b"{", is_whole=False, ending="too large")).result) is UnreadableResponseError
    data = gzip.compress(b'{"id": "persona-1", "name": "' + b"x" * 5_000_000 + b'"}')
    raised = error(data, headers={"Content-Encoding": "gzip"})
    assert type(raised) is UnreadableResponseError
    assert (raised.persona_id, len(raised.body)) == ("persona-1", 4 * 1024 * 1024)
    assert "max_response_size" in raised.message


MESSAGE = "Ünzureichend, 余额不足"


@pytest.mark.parametrize(
    ("charset", "content_type"),
    [
        *((charset, "application/json") for charset in ("utf-8-sig", "utf-16-le", "utf-32")),
        ("utf-16-be", "application/json; charset=utf-8"),
        ("gb18030", 'application/json; charset="gb18030"'),
        ("latin-1", "application/json;charset=iso-8859-1"),
        *(("utf-8", f"application/json; charset={unusable}") for unusable in ("nonsense", "hex")),
    ],
)
def test_an_error_is_decoded_by_its_charset(charset: str, content_type: str) -> None:
    """The charset is what the bytes show, or what the response declares; then UTF-8. An echo of the key is masked."""
    message = MESSAGE.encode(charset, "ignore").decode(charset)
    body = json.dumps({"error": {"message": f"{message}: {KEY}", "code": "c1"}}, ensure_ascii=False).encode(charset)
    raised = error(body, 400, {"Content-Type": content_type})
    assert (raised.message, raised.code) == (f"{message}: ***", "c1")
    assert KEY not in raised.body.decode(charset)
    assert "***" in raised.body.decode(charset)


def test_a_web_page_is_decoded_by_the_charset_that_it_declares() -> None:
    """It stands in a meta tag."""
    page = f'<html><head><meta charset="gbk"><title>{MESSAGE[-4:]}</title></head></html>'.encode("gbk")
    assert error(page, 502, {"Content-Type": "text/html"}).message == MESSAGE[-4:]


def test_a_success_is_read_whatever_its_2xx(example: dict[str, Any]) -> None:
    """A `code` of success and an empty `error` beside the persona's own members do not matter."""
    assert persona({"id": "x"}, 201) == Persona(id="x")
    assert persona({**example, "code": 200, "error": None}).extra == {"code": 200}
