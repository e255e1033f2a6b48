"""The shortcut through msgspec: delete this file, and nothing changes but speed.

Each function returns `None` for what it does not read or write exactly as `conversion.py` does; that is slower then.
"""

from datetime import datetime, timedelta
from functools import cache
from types import UnionType
from typing import Annotated, Any, get_args

import attrs
import msgspec

from suno_persona.models import Clip, ClipMetadata, Persona, PersonaClip

_MODELS: tuple[type, ...] = (ClipMetadata, Clip, PersonaClip, Persona)

# `json` reads what these are raised for, or says what is wrong: a byte order mark, lone surrogates (also in the name of
# a member), deep nesting.
_FAILURES = (msgspec.MsgspecError, UnicodeError, RecursionError)


def decode(data: bytes | str) -> object:
    """Return the JSON value in a document."""
    try:
        return msgspec.json.decode(data)
    except _FAILURES:
        return None


def encode(document: object) -> bytes | None:
    """Return the document of a JSON value."""
    try:
        return msgspec.json.encode(document)
    except UnicodeError:
        return None


def read_persona(data: bytes | str) -> Persona | None:
    """Return the persona in a document that has no member without a field, and no value of another type."""
    try:
        return msgspec.convert(_decoder().decode(data), Persona, from_attributes=True)
    except _FAILURES:
        return None


def convert(document: object, model: type) -> object:
    """Return the model of a JSON value, with the same limits."""
    try:
        return msgspec.convert(msgspec.convert(document, _shape(model)), model, from_attributes=True)
    except _FAILURES:
        return None


def write_persona(persona: Persona) -> bytes | None:
    """Return the document of a persona without anything in `extra`, and with no value of another type."""
    clips = (persona.clip, *(part.clip for part in persona.persona_clips))
    if any(clip and clip.created_at and _has_seconds(clip.created_at.utcoffset()) for clip in clips):
        return None
    try:
        return msgspec.json.encode(msgspec.convert(persona, _shape(Persona, is_written=True), from_attributes=True))
    except _FAILURES:
        return None


def _has_seconds(offset: timedelta | None) -> bool:
    """Return whether msgspec would round the offset of a time."""
    return offset is not None and bool(offset % timedelta(minutes=1))


@cache
def _decoder() -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(_shape(Persona))


@cache
def _shape(model: type, *, is_written: bool = False) -> Any:
    """Return a struct for what msgspec and `conversion.py` read or write alike: nothing in `extra`, no coercion.

    It has a value for every field: msgspec makes the model of a struct faster than of JSON where members are missing.
    """
    members: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for field in attrs.fields(model):
        if field.name == "extra":
            if is_written:
                members.append((field.name, Annotated[dict[str, object], msgspec.Meta(max_length=0)], {}))
            continue
        kind = _shape_of(field.type, is_written)
        if field.default is attrs.NOTHING:
            members.append((field.name, Annotated[str, msgspec.Meta(min_length=1)]))
        elif field.default is None:
            members.append((field.name, kind | None, None))
        else:  # an empty list is written
            members.append((field.name, kind) if is_written else (field.name, kind, []))
    return msgspec.defstruct(
        model.__name__, members, forbid_unknown_fields=True, gc=False, kw_only=True, omit_defaults=is_written
    )


def _shape_of(kind: Any, is_written: bool) -> Any:
    kind = get_args(kind)[0] if isinstance(kind, UnionType) else kind  # `str` of `str | None`
    if kind in _MODELS:
        return _shape(kind, is_written=is_written)
    if kind == tuple[PersonaClip, ...]:
        return list[_shape(PersonaClip, is_written=is_written)]  # type: ignore[misc]  # a type that is made at run time
    if kind is float and is_written:
        return float | int
    if kind is float:  # msgspec makes floats of integers, which are exact up to here
        return float | Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
    if kind is datetime and not is_written:  # msgspec accepts times without a zone, and rounds to microseconds
        return Annotated[str, msgspec.Meta(pattern=_TIME)]
    return kind


_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})\Z"
