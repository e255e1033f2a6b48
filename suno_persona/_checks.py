"""What the values of a request must be. Each check raises an `InvalidRequestError` that names the field."""

import re
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

import attrs

from suno_persona.errors import InvalidRequestError

REQUEST_MEMBERS = ("root_clip_id", "name", "description", "clips", "is_public")
"""The members that every request has, in the order in which they are sent."""

REQUIRED_MEMBERS = REQUEST_MEMBERS[:3]
"""Those of them that have no default."""

_USUAL_ID = re.compile("[!-9;-~]+")  # visible ASCII without a colon
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_DEEPEST = 64


def is_text(_: object, attribute: "attrs.Attribute[str]", value: object) -> None:
    """Check for text that is not blank and can be written as UTF-8."""
    _text(attribute.name, value)


def is_id(_: object, attribute: "attrs.Attribute[str]", value: object) -> None:
    """Check for an id: text without white space or control characters that is no URL."""
    _id(attribute.name, value)


def are_ids(_: object, attribute: "attrs.Attribute[tuple[str, ...]]", value: tuple[object, ...]) -> None:
    """Check for at least one id."""
    if not value:
        raise _invalid(attribute.name, "at least one clip id", value)
    for index, item in enumerate(value):
        _id(f"{attribute.name}[{index}]", item)


def is_bool(_: object, attribute: "attrs.Attribute[bool]", value: object) -> None:
    """Check for a `bool`, and nothing that is merely truthy."""
    if type(value) is not bool:
        raise _invalid(attribute.name, "True or False", value)


def clips(values: Iterable[str]) -> tuple[str, ...]:
    """Return the items of an iterable."""
    if type(values) in (list, tuple):
        return tuple(values)
    # A str is an iterable too, of its characters.
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise _invalid("clips", "a list of clip ids", values)
    return tuple(values)


def extra_members(members: Mapping[str, object]) -> dict[str, object]:
    """Return the members that a request has beside its own, copied all the way down, and sorted by name."""
    if not isinstance(members, Mapping):
        raise _invalid("extra", "a mapping of names to JSON values", members)
    for name in members:
        if name in REQUEST_MEMBERS:
            raise _invalid("extra", f"without the request's own members, {', '.join(REQUEST_MEMBERS)}", name)
    return {name: _json(f"extra[{name!r}]", value) for name, value in _sorted("extra", members)}


def _text(field: str, value: object) -> str:
    if type(value) is not str or not value:
        is_subclass = isinstance(value, str) and bool(value)
        raise _invalid(field, "non-empty text (a plain str)" if is_subclass else "non-empty text", value)
    if value.isspace():
        raise _invalid(field, "text that is not blank", value)
    _check_encodable(field, value)
    return value


def _id(field: str, value: object) -> None:
    if type(value) is str and _USUAL_ID.fullmatch(value):
        return  # what follows is slower
    text = _text(field, value)
    if _CONTROL.search(text):
        raise _invalid(field, "an id without control characters", text)
    if any(map(str.isspace, text)):
        raise _invalid(field, "an id without white space", text)
    if "://" in text:
        raise _invalid(field, "the id of a clip, which is a part of its URL", text)


def _json(field: str, value: object, depth: int = _DEEPEST) -> object:
    if depth == 0:
        raise _invalid(field, f"nested at most {_DEEPEST} levels deep", value)
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        _check_encodable(field, str(value))
        return value
    if isinstance(value, int | float) and (isfinite(value) if kind is float else kind is int and abs(value) < 2**1024):
        return value
    if isinstance(value, list | tuple):
        return [_json(field, item, depth - 1) for item in value]
    if isinstance(value, Mapping):
        return {name: _json(field, item, depth - 1) for name, item in _sorted(field, value)}
    raise _invalid(field, "made of JSON values", value)


def _sorted(field: str, members: Mapping[Any, object]) -> list[tuple[str, object]]:
    """Return the members of an object in the order of their names: the same request has one wire body."""
    found: list[tuple[str, object]] = []
    for name, value in members.items():
        if type(name) is not str:
            raise _invalid(field, "an object, whose members have names of text", name)
        _check_encodable(field, name)
        found.append((name, value))
    return sorted(found, key=lambda member: member[0])


def _check_encodable(field: str, value: str) -> None:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _invalid(field, "text without lone surrogates", value) from None


def _invalid(field: str, required: str, found: object) -> InvalidRequestError:
    shown = repr(found)
    shown = shown if len(shown) <= 60 else f"{shown[:59]}…"
    return InvalidRequestError(message=f"{field} must be {required}; got {shown} ({type(found).__name__})")
