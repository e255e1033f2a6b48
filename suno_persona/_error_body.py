"""Reads the body of a response: text, success or failure, message, code and ids, in each way that gateways write them.

Pure; raises nothing; its work is linear in the size of the body.
"""

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import attrs

WRAPPERS = ("persona", "data", "result", "response")
"""The members of an envelope that hold its content."""

_PIECE = 64 * 1024


def decompress(data: bytes, encoding: str, limit: int) -> tuple[bytes, str]:
    """Undo a `Content-Encoding` (RFC 9110, section 8.4). Returns at most `limit + 1` bytes, and the flaw, if any.

    Of broken data, returns the part that could be decompressed, or else the data itself.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return data, ""
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return data, f"its Content-Encoding is {one_line(encoding)}, which was not asked for"
    # 47: gzip or zlib, by the header. Some servers send raw deflate (section 8.4.1.2).
    output, is_whole = _inflate(data, 47, limit)
    if not output and encoding == "deflate":
        output, is_whole = _inflate(data, -15, limit)
    return output or data, "" if is_whole or len(output) > limit else "it cannot be decompressed"


def _inflate(data: bytes, wbits: int, limit: int) -> tuple[bytes, bool]:
    """Return the decompressed bytes up to the first error, and whether they are complete."""
    inflater, output = zlib.decompressobj(wbits), bytearray()
    for start in range(0, len(data), _PIECE):
        piece, before = data[start : start + _PIECE], inflater.copy()
        try:
            output += inflater.decompress(piece, limit + 1 - len(output))
        except zlib.error:  # zlib drops the good part of the piece
            with suppress(zlib.error):
                for index in range(len(piece)):
                    output += before.decompress(piece[index : index + 1])
            return bytes(output[: limit + 1]), False
        if len(output) > limit:
            break
    return bytes(output), inflater.eof


_CHARSET = re.compile(r"(?i)charset\s*=\s*[\"']?([\w.:-]+)")


def decode(data: bytes, content_type: str) -> tuple[str, str]:
    """Return the text of a body, and its charset: the one that its bytes show or that it declares, or UTF-8."""
    charset: str = json.detect_encoding(data)  # a byte order mark, or NUL bytes where UTF-16 and UTF-32 have them
    if charset == "utf-8":
        declared = _CHARSET.search(content_type)
        if declared is None and data.lstrip()[:1] == b"<":
            declared = _CHARSET.search(data[:1024].decode("latin-1"))
        charset = declared[1] if declared else charset
    try:
        return data.decode(charset, "replace"), charset
    except (LookupError, ValueError):
        return data.decode("utf-8", "replace"), "utf-8"


def member(value: object, name: str) -> object:
    """Return a member of an object, and `None` of anything else."""
    return value.get(name) if isinstance(value, dict) else None


def usable_id(value: object) -> str | None:
    """Return the id in a value: non-empty text, or an integer as its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


_SUCCESS = re.compile(r"(?i)0|ok|success|succeeded|completed?|done|true|2[0-9][0-9]")
_UNFINISHED = re.compile(
    r"(?i).*(?:pend|queue|process|progress|running|submit|start|wait|sched|fail|error|cancel|abort|reject|time).*"
)
# Members that only personas have, and all members that mark a persona.
_PERSONA_ONLY = {"root_clip_id", "clip", "persona_clips", "persona_type", "vox_audio_id", "user_handle", "image_s3_id"}
_PERSONA_MEMBERS = {"name", "description", *_PERSONA_ONLY}


def is_failure(document: object) -> bool:
    """Return whether a body has a sign of failure: an `error`, `success: false`, or a `code` that is no success."""
    if not isinstance(document, dict):
        return False
    code = document.get("code")
    is_code = type(code) in (int, str) and code != ""
    return bool(document.get("error")) or document.get("success") is False or (is_code and not _means_success(code))


def _is_success(document: object) -> bool:
    """Return whether a body has a sign of success and none of failure."""
    return not is_failure(document) and any(
        _means_success(member(document, name)) for name in ("success", "code", "status")
    )


def _means_success(sign: object) -> bool:
    return isinstance(sign, int | str) and _SUCCESS.fullmatch(str(sign)) is not None


def is_task(document: object) -> bool:
    """Return whether a body is a task, which may create a persona later, or wraps one."""
    return any(_is_task(found) for _, found in _candidates(document))


def _is_task(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _PERSONA_ONLY.isdisjoint(value)
        and any(_is_sign_of_task(name, item) for name, item in value.items())
    )


def _is_sign_of_task(name: object, value: object) -> bool:
    match name, value:
        case (("task_id" | "taskId" | "progress"), _):
            return value is not None
        case "object", str():
            return "task" in value.lower() or "job" in value.lower()
        case "status", str():
            return bool(_UNFINISHED.fullmatch(value))
        case _:
            return False


def _candidates(document: object) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield each object that may be the persona, with the name of its wrapper: also the only item of a list."""
    if isinstance(document, dict):
        for name in WRAPPERS:
            match document.get(name):
                case [dict() as found] | (dict() as found):
                    yield name, found
        yield "", document


def persona_in(document: object) -> dict[str, Any] | None:
    """Return the document of the persona that a success holds, or `None`.

    If only its id is known, that is a document with the id and all that surrounds it.

    >>> persona_in({"code": 0, "data": {"id": "fd213afd"}})
    {'id': 'fd213afd'}
    >>> persona_in({"success": True, "data": {"personaId": "fd213afd"}})
    {'success': True, 'id': 'fd213afd'}
    """
    if not isinstance(document, dict) or is_failure(document):
        return None
    personas = [found for _, found in _candidates(document) if usable_id(found.get("id")) and not _is_task(found)]
    # An envelope may have an id of its own, but no other member of a persona.
    if document in personas and not _PERSONA_MEMBERS.isdisjoint(document):
        return document
    status = document.get("status")
    if personas and (personas[0] is document or not isinstance(status, int | str) or _means_success(status)):
        return personas[0]
    if _is_success(document):
        for wrapper, found in _candidates(document):
            for name in _PERSONA_ID_MEMBERS:
                if persona_id := usable_id(found.get(name)):
                    around = {key: value for key, value in document.items() if key != wrapper} | found
                    del around[name]
                    return around | {"id": persona_id}
    return None


def may_hold_persona(document: object) -> bool:
    """Return whether an envelope wraps more than text or nothing."""
    inner = (member(document, name) for name in WRAPPERS)
    return any(value and not isinstance(value, str) for value in inner)


def code_of(document: object) -> str | int | None:
    """Return the `code` of an error body, as the service wrote it."""
    error, detail, errors = (member(document, name) for name in ("error", "detail", "errors"))
    first = errors[0] if isinstance(errors, list) and errors else None
    codes = [member(holder, "code") for holder in (error, document, detail, first)]
    for code in (*codes, member(document, "error_type"), member(detail, "error_code")):
        if isinstance(code, str | int) and not isinstance(code, bool) and code != "":
            return one_line(code) if isinstance(code, str) else code
    return None


_REQUEST_ID_HEADERS = ("X-Request-Id", "Request-Id", "X-Oneapi-Request-Id", "CF-Ray")
_REQUEST_ID_MEMBERS = ("request_id", "trace_id", "clerk_trace_id")


def request_id(headers: Mapping[str, str], document: object = None) -> str | None:
    """Return the service's id of the exchange, from a header or else from the body."""
    for name in _REQUEST_ID_HEADERS:
        if found := headers.get(name):
            return one_line(found)
    values = [document.get(name) for name in _REQUEST_ID_MEMBERS] if isinstance(document, dict) else []
    for value in values:
        if isinstance(value, str) and value:
            return one_line(value)
    return None


_MESSAGE_MEMBERS = ("message", "msg", "error", "errors", "detail", "error_description", "title", "reason")


def message_of(value: object, depth: int = 5) -> str:
    """Return the message in an error body of any shape; empty if there is none."""
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


def is_web_page(text: str) -> bool:
    """Return whether a body is HTML or XML."""
    return text.lstrip("\ufeff \t\r\n").startswith("<")


def summary(status: int, text: str) -> str:
    """Return a body that is not JSON, or JSON without a message, as one line."""
    text = text[:4096]
    if is_web_page(text):
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


_PERSONA_ID_MEMBERS = ("persona_id", "personaId")
_CLIPS = {"clip", "clips", "persona_clips", "root_clip", "metadata", "request"}
_BARE_ID = re.compile(r"(?=[^0-9]*[0-9])[\w-]{8,64}", re.ASCII)  # words such as "insufficient_quota" are no ids
_DEEPEST = 500
# A string, also one that is cut off, and the colon that makes it a name; a bracket; a whole integer.
_TOKEN = re.compile(r'(?s)"((?:[^"\\]++|\\.)*+)("?)\s*+(:?)|([{}\[\]])|\b([0-9]++)(?=[\s,}\]])')


@attrs.define
class _Open:
    """An object or a list whose end was not read yet."""

    may_be_persona: bool
    """Whether it is the outermost one, or only wrappers lead to it."""

    has_persona_id: bool
    """Whether a `persona_id` in it is that of the new persona."""

    id: str | None = None
    is_task: bool = False


def _unescaped(string: str) -> str:
    """Return a text from between its quotes in JSON, as far as it can be read."""
    with suppress(ValueError):
        return str(json.loads(f'"{string}"'))
    return re.sub(r"(?s)\\(.)", r"\1", string)


def find_persona_id(text: str, *, explicit: bool = False, nested: int = 3) -> str | None:
    """Return the persona's id in a text that holds JSON but is no persona, or `None`.

    The text may be cut off or broken, an event stream, JSON within JSON, or behind a prefix. The id is a `persona_id`
    outside of clips; or else the `id` of the innermost object that is no task and inside wrappers only; or else a bare
    id in a wrapper. With `explicit`, only a `persona_id` counts.

    >>> find_persona_id('{"code": 0, "data": ["fd213afd"]}')
    'fd213afd'
    >>> find_persona_id('{"clip": {"id": "54834687"}, "id": "fd213') is None
    True
    """
    opened: list[_Open] = []
    name: str | None = None  # of the member whose value comes next
    inner: tuple[int, str] | None = None
    bare: str | None = None

    def close() -> None:
        nonlocal inner
        last = opened.pop()
        if last.id and not last.is_task and (inner is None or inner[0] < len(opened)):
            inner = len(opened), last.id

    for string, quote, colon, bracket, number in map(re.Match.groups, _TOKEN.finditer(text)):
        parent = opened[-1] if opened else _Open(may_be_persona=True, has_persona_id=True)
        if bracket in ("{", "["):
            if len(opened) == _DEEPEST:
                break
            is_wrapped = parent.may_be_persona and (name is None or name in WRAPPERS)
            opened.append(_Open(is_wrapped, parent.has_persona_id and name not in _CLIPS))
        elif bracket:
            if opened:
                close()
        elif colon:
            name = string
            continue
        elif quote or number or (string and string[0] in "{["):
            value = number or (_unescaped(string) if "\\" in string else string)
            parent.is_task |= _is_sign_of_task(name, value)
            if nested and value.lstrip()[:1] in ("{", "["):
                found = find_persona_id(value, explicit=explicit or not parent.may_be_persona, nested=nested - 1)
                bare = bare or found
            elif name in _PERSONA_ID_MEMBERS and value and parent.has_persona_id and opened:
                return value
            elif name == "id" and value and parent.may_be_persona and opened:
                parent.id = parent.id or value
            elif not explicit and parent.may_be_persona and (name is None or name in WRAPPERS):
                bare = bare or (value if _BARE_ID.fullmatch(string or "") else None)
        name = None
    while opened:
        close()
    return bare if explicit or inner is None else inner[1]
