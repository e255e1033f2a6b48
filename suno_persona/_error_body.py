"""What the body of a response says beside a persona, in every shape that gateways use: success or failure, message,
code and ids. Pure; raises nothing; its work is bounded, whatever the body.
"""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from itertools import islice

WRAPPERS = ("persona", "data", "result", "response")
"""The members of an envelope that hold what was asked for."""

_SUCCESS = re.compile(r"0|ok|success|succeeded|2[0-9][0-9]", re.IGNORECASE)


def member(value: object, name: str) -> object:
    """Return a member of an object, and `None` of anything else."""
    return value.get(name) if isinstance(value, dict) else None


def is_failure(document: object) -> bool:
    """Return whether a body has a sign of failure: an `error`, `success: false`, or a `code` that is no success."""
    if not isinstance(document, dict):
        return False
    code = document.get("code")
    is_code = type(code) in (int, str) and code != ""
    return bool(
        document.get("error") or document.get("success") is False or (is_code and not _SUCCESS.fullmatch(str(code)))
    )


def has_id(value: object) -> bool:
    """Return whether a value is an object with a non-empty text `id`, as every persona is."""
    found = member(value, "id")
    return isinstance(found, str) and bool(found)


def unwrapped(document: object) -> object:
    """Return what an envelope wraps, where that may be a persona; otherwise the document itself.

    >>> unwrapped({"code": 0, "data": {"id": "fd213afd"}})
    {'id': 'fd213afd'}
    """
    inner = next(filter(has_id, (member(document, name) for name in WRAPPERS)), document)
    is_persona = has_id(document) and not _PERSONA_MEMBERS.isdisjoint(document)  # type: ignore[arg-type]  # a dict
    return document if is_persona else inner


# The envelope may have an id of its own, but none of these.
_PERSONA_MEMBERS = {"name", "description", "root_clip_id", "clip", "persona_clips"}


def code_of(document: object) -> str | int | None:
    """Return the `code` of an error body, as the service wrote it."""
    for holder in (member(document, "error"), document, member(document, "detail")):
        code = member(holder, "code")
        if isinstance(code, str | int) and not isinstance(code, bool):
            return one_line(code) if isinstance(code, str) else code
    return None


_REQUEST_ID_HEADERS = ("X-Request-Id", "Request-Id", "X-Oneapi-Request-Id", "CF-Ray")


def request_id(headers: Mapping[str, str], document: object = None) -> str | None:
    """Return the service's id of the exchange, from a header or else from the body."""
    found = next(filter(None, map(headers.get, _REQUEST_ID_HEADERS)), member(document, "request_id"))
    return one_line(found) if isinstance(found, str) else None


_MESSAGE_MEMBERS = ("message", "msg", "error", "errors", "detail", "error_description", "title", "reason")


def message_of(value: object, depth: int = 5) -> str:
    """Return the message in an error body of any shape; empty where there is none."""
    if depth == 0:
        return ""
    match value:
        case str():
            return one_line(value)
        case list():
            return one_line("; ".join(filter(None, (message_of(item, depth - 1) for item in value[:10]))))
        case dict():
            message = next(filter(None, (message_of(value.get(name), depth - 1) for name in _MESSAGE_MEMBERS)), "")
            # FastAPI names the path of an invalid member beside its message.
            path = _path(value.get("loc"))
            return f"{one_line(path)}: {message}" if path and message else message
        case _:
            return ""


def text_of(status: int, body: bytes) -> str:
    """Return a body that is not JSON, or JSON without a message, as one line of text."""
    text = body[:4096].decode("utf-8", "replace")
    if text.lstrip().startswith("<"):
        title = re.search(r"(?i)<title[^>]*>([^<]*)", text)
        text = title[1] if title else re.sub(r"<[^>]*>", " ", text)
    if line := one_line(text):
        return line
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "the response is empty"


def _path(loc: object) -> str:
    parts = loc if isinstance(loc, list) else []
    return ".".join(str(part) for part in parts if isinstance(part, str | int))


def one_line(text: str) -> str:
    """Return text from outside as one printable line of at most 500 characters; all of it is in `body`."""
    text = " ".join("".join(character if character.isprintable() else " " for character in text[:2000]).split())
    return text if len(text) <= 500 else f"{text[:499]}…"


_ID_MEMBERS = ("persona_id", "personaId", "id")
_BARE_ID = re.compile(r"(?=[^0-9]*[0-9])[\w-]{8,64}", re.ASCII)  # words such as "insufficient_quota" are no ids


def find_persona_id(body: bytes, document: object = None) -> str | None:
    """Return the persona's id in a response that is not a persona; `document` is its JSON value, where it has one.

    Only the persona's own id counts, never that of a clip. It may be under another name, bare, in a list, in an
    envelope, or in JSON that is cut off or broken.

    >>> find_persona_id(b"", {"code": 0, "data": ["fd213afd"]})
    'fd213afd'
    >>> find_persona_id(b'{"code": 0, "data": {"id": "fd213afd", "cl')
    'fd213afd'
    >>> find_persona_id(b'{"clip": {"id": "54834687"}, "id": "fd213') is None
    True
    """
    return _id_in_text(body) if document is None else _id_in(document)


def _id_in(value: object, depth: int = 5) -> str | None:
    match value:
        case str() if _BARE_ID.fullmatch(value):
            return value
        case dict():
            named = (value.get(name) for name in _ID_MEMBERS)
            if found := next((text for text in named if isinstance(text, str) and text), None):
                return found
            inner = [value.get(name) for name in WRAPPERS]
        case list():
            inner = value[:5]
        case _:
            return None
    return next(filter(None, (_id_in(item, depth - 1) for item in inner)), None) if depth else None


# A string, also one that is not closed, so that the search is linear, whatever the bytes.
_STRING = rb'"([^"\\]*+(?:\\.?[^"\\]*+)*+)'
# The name of a member with its text or the bracket that opens its value; any other string; any other bracket; the end.
_LEXEME = re.compile(
    rb'(?s)[^"{}\[\]]*+(?:%b(?:"\s*+(?::\s*+(?:%b("?)|([{\[]))?)?|\Z)|([{\[])|[}\]]|\Z)' % (_STRING, _STRING)
)
_NAMES_OF_ID = {name.encode() for name in _ID_MEMBERS}
_NAMES_OF_WRAPPER = {name.encode() for name in WRAPPERS}
_SEARCHED, _LEXEMES = 64 * 1024, 4_000  # a few milliseconds at most


def _id_in_text(body: bytes) -> str | None:
    text = body[:_SEARCHED].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text.startswith((b"{", b"[")):
        return None
    foreign: list[bool] = []  # for each open object or list, whether it is part of something other than the persona
    for name, literal, quote, opens, opens_unnamed in map(re.Match.groups, islice(_LEXEME.finditer(text), _LEXEMES)):
        if opens or opens_unnamed:
            foreign.append(bool(foreign) and (foreign[-1] or name not in (None, *_NAMES_OF_WRAPPER)))
        elif name is None:
            del foreign[-1:]
        elif not quote or not literal or foreign[-1:] != [False]:
            continue
        elif name in _NAMES_OF_ID:
            return _decoded(literal)
        elif name in _NAMES_OF_WRAPPER and _BARE_ID.fullmatch(literal.decode("latin-1")):
            return literal.decode()
    return None


def _decoded(literal: bytes) -> str | None:
    """Return a text from between its quotes in JSON."""
    try:
        return str(json.loads(b'"%b"' % literal))
    except ValueError:
        return None
