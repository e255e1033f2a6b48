"""Checks of a request's values. Each raises an `InvalidRequestError` that names the field."""

import json
import re
from collections.abc import Iterable, Mapping
from unicodedata import name as name_of

from suno_persona.errors import InvalidRequestError

REQUEST_MEMBERS = ("root_clip_id", "name", "description", "clips", "is_public")
"""The members that every request has, in the order in which they are sent."""

REQUIRED_MEMBERS = REQUEST_MEMBERS[:3]
"""Those of them that have no default."""

# Spreadsheets and data frames write these for an empty cell, or for a formula that failed: `#N/A`, `<NA>`.
_NOTHING = r"[-#<]?(?i:nan|n[./]?a\.?|nat|null|none)[>!]?"
# And these for ids that they took for numbers: `5.48E+07`, `54834687.0`. Such a number has a `.`, `,` or `+`. Without
# one, `548346e7` may well be an id: UUIDs begin with eight hexadecimal digits.
_NUMBER = r"-?(?:\d++(?:[.,]\d*(?:[Ee][+-]?\d*)?|[Ee]\+\d*)|inf)"
_ID = re.compile(rf"(?!(?:{_NOTHING}|{_NUMBER})\Z)[\w.~-]+", re.ASCII)  # unreserved: RFC 3986, section 2.3
_AROUND = re.compile(r"\A[^\w.~-]+|[^\w.~-]+\Z", re.ASCII)
_ID_IN_URL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=/song/)[\w.~-]+", re.ASCII | re.IGNORECASE)


def members(root_clip_id: object, name: object, description: object, clips: tuple[object, ...], public: object) -> None:
    """Check the members that every request has."""
    _check_id("root_clip_id", root_clip_id)
    _check_text("name", name)
    _check_text("description", description)
    if not clips:
        raise InvalidRequestError(message="clips is empty; pass at least one clip id")
    if clips != (root_clip_id,):
        for index, clip in enumerate(clips):
            _check_id(f"clips[{index}]", clip)
    if type(public) is not bool:
        raise _invalid("is_public", "True or False", public)


def clips(values: Iterable[str]) -> tuple[str, ...]:
    """Return the items of an iterable."""
    if type(values) in (list, tuple):  # nearly always; the check below is slow
        return tuple(values)
    # A str is an iterable too, of its characters.
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise _invalid("clips", "a list of clip ids", values)
    return tuple(values)


def extra_members(members: Mapping[str, object]) -> dict[str, object]:
    """Return a copy of `extra` as JSON values, sorted by name at every level: equal requests have one wire body."""
    if not isinstance(members, Mapping):
        raise _invalid("extra", "a mapping of names to JSON values", members)
    for name, value in members.items():
        if type(name) is not str:
            raise _invalid("extra", "a mapping whose names are text", name)
        if name in REQUEST_MEMBERS:
            raise _invalid("extra", f"without the request's own members, {', '.join(REQUEST_MEMBERS)}", name)
        try:
            json.dumps([name, value], allow_nan=False, sort_keys=True, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequestError(message=f"extra[{name!r}] cannot be written as JSON: {error}") from None
    copy: dict[str, object] = json.loads(json.dumps(dict(members), sort_keys=True))
    return copy


def _check_text(field: str, value: object) -> None:
    """Check for text that is not blank and can be written as UTF-8."""
    if type(value) is not str or not value:
        is_subclass = isinstance(value, str) and bool(value)
        raise _invalid(field, "non-empty text (a plain str)" if is_subclass else "non-empty text", value)
    if value.isspace():
        raise _invalid(field, "text that is not blank", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _invalid(field, "text without lone surrogates", value) from None


def _check_id(field: str, value: object) -> None:
    if type(value) is str and value and (not value.strip("0123456789abcdef-") or _ID.fullmatch(value)):
        return  # a UUID is known without the slower pattern
    _check_text(field, value)
    raise InvalidRequestError(message=f"{field} {_flaw(str(value))}")


def _flaw(text: str) -> str:
    """Describe the flaw of an id, and its remedy."""
    value = shown(text)
    if re.fullmatch(_NOTHING, text.strip()):
        return f"is {value}, which spreadsheets and data frames write for a missing value; pass a clip id"
    if re.fullmatch(_NUMBER, text.strip()):
        return f"is {value}, which a spreadsheet or data frame made of an id by reading it as a number; read it as text"
    if "/" in text:
        clip = _ID_IN_URL.search(text)
        part = repr(clip[0]) if clip else "which follows /song/ in the URL of the clip's page"
        return f"is {value}, a URL; pass only the clip id, {part}"
    index, wrong = next((index, char) for index, char in enumerate(text) if not _ID.fullmatch(char))
    inner = _AROUND.sub("", text)
    remedy = f"pass {inner!r} instead of {value}" if _ID.fullmatch(inner) else f"remove it from {value}"
    found = f"{wrong!r} ({name_of(wrong, f'U+{ord(wrong):04X}')})"
    return f"contains {found} at position {index + 1}; only ASCII letters, digits and - _ . ~ are allowed; {remedy}"


def _invalid(field: str, required: str, found: object) -> InvalidRequestError:
    return InvalidRequestError(message=f"{field} must be {required}; got {shown(found)} ({type(found).__name__})")


def shown(value: object) -> str:
    """Return a value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
