"""What an error body says, in every shape that gateways use: message, code and ids. Pure; raises nothing."""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus


def member(value: object, name: str) -> object:
    """Return a member of an object, and `None` of anything else."""
    return value.get(name) if isinstance(value, dict) else None


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
    found = next((headers[name] for name in _REQUEST_ID_HEADERS if name in headers), member(document, "request_id"))
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
            return one_line("; ".join(filter(None, (message_of(item, depth - 1) for item in value[:20]))))
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


# Also matches a quote that is not closed, so that the search is linear, whatever the bytes.
_LEXEME = r'(?s)"((?:[^"\\]|\\.)*+)("?)|[{}\[\],:]'
_WRAPPERS = {"data", "persona", "response", "result"}


def find_persona_id(body: bytes) -> str | None:
    """Return the persona's id in a response that is not a persona: wrapped in another object, cut off or broken.

    Only the persona's own id counts, never that of a clip.

    >>> find_persona_id(b'{"code": 0, "data": {"id": "fd213afd"}}')
    'fd213afd'
    >>> find_persona_id(b'{"clip": {"id": "54834687"}, "id": "fd213') is None
    True
    """
    text = body.decode("utf-8", "replace")
    if not text.lstrip("\ufeff \t\r\n").startswith("{"):
        return None
    foreign: list[bool] = []  # for each open object or list, whether it is part of something other than the persona
    name, named = "", False  # the last string, and whether a colon followed it
    for token in re.finditer(_LEXEME, text):
        match token[0]:
            case "{" | "[":
                foreign.append(bool(foreign) and (foreign[-1] or not named or name not in _WRAPPERS))
                name, named = "", False
            case "}" | "]":
                del foreign[-1:]
                name, named = "", False
            case ",":
                name, named = "", False
            case ":":
                named = True
            case _ if not named:
                name = token[1]
            case _ if name in ("id", "persona_id") and token[2] and foreign[-1:] == [False]:
                try:
                    value = json.loads(token[0])
                except ValueError:
                    continue
                if isinstance(value, str) and value:
                    return value
            case _:
                pass  # another string
    return None
