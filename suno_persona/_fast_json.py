"""The shortcut through msgspec to a usual persona: delete this file, and nothing changes but speed."""

from datetime import datetime
from functools import cache
from types import UnionType
from typing import Annotated, Any, get_args

import attrs
import msgspec

from suno_persona.models import NO_EXTRA, Persona, PersonaClip


def read_usual(data: bytes | str) -> Persona | None:
    """Return the persona in a document that has no member without a field, and no value of another type, else `None`.

    `conversion.py` reads the same persona from the same document, and explains the flaws of others.
    """
    try:
        return msgspec.convert(_decoder().decode(data), Persona, from_attributes=True)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


@cache
def _decoder() -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(_shape(Persona))


@cache
def _shape(model: Any) -> Any:
    """Return a struct of the values that msgspec and `conversion.py` read alike: without coercion.

    It has a value for every field, `extra` included, because each attribute that a struct lacks costs an
    `AttributeError` when msgspec builds the model from it.
    """
    members: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for field in attrs.fields(model):
        if field.default is attrs.NOTHING:
            members.append((field.name, Annotated[str, msgspec.Meta(min_length=1)]))
        elif field.name != "extra":
            kind = _shape_of(field.type)
            members.append((field.name, kind | None, None) if field.default is None else (field.name, kind, []))
    return msgspec.defstruct(
        model.__name__, members, namespace={"extra": NO_EXTRA}, forbid_unknown_fields=True, gc=False, kw_only=True
    )


def _shape_of(kind: Any) -> Any:
    kind = get_args(kind)[0] if isinstance(kind, UnionType) else kind  # `str` of `str | None`
    if attrs.has(kind):
        return _shape(kind)
    if kind == tuple[PersonaClip, ...]:
        return list[_shape(PersonaClip)]  # type: ignore[misc]  # a type that is made at run time
    if kind is float:  # msgspec makes floats of integers, which are exact up to here
        return float | Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
    if kind is datetime:  # msgspec accepts times without a zone, and rounds to microseconds
        return Annotated[str, msgspec.Meta(pattern=_TIME)]
    return kind


_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})\Z"
