"""JSON to models and back: the only module that knows cattrs and msgspec. It knows nothing of HTTP.

Reading is tolerant and never coerces: what does not fit its field is kept in `extra`, so that one odd
member never costs the persona. Writing gives back every member that was read and was not null.
"""

import json
import re
from collections.abc import Callable
from datetime import datetime
from functools import cache, partial
from types import UnionType
from typing import Annotated, Any, cast, get_args

import attrs
import msgspec
from cattrs import Converter

from suno_persona.errors import InvalidRequestError
from suno_persona.models import Clip, ClipMetadata, CreatePersonaRequest, Persona, PersonaClip

_MODELS: tuple[type, ...] = (ClipMetadata, Clip, PersonaClip, Persona)

REQUEST_MEMBERS: tuple[str, ...] = tuple(field.name for field in attrs.fields(CreatePersonaRequest))
REQUIRED_MEMBERS: tuple[str, ...] = REQUEST_MEMBERS[:3]

_Hook = Callable[[object, type], object]


def loads(data: bytes | str) -> Persona:
    """Read a persona from a JSON document.

    Raises `ValueError` where the document is not a JSON object with a non-empty text `id`, and only
    there; the message names the path. Any other member may be missing, null or of another type.

    >>> persona = loads(b'{"id": "fd213afd", "name": null, "user_handle": 12}')
    >>> persona.id, persona.name, persona.user_handle, persona.extra
    ('fd213afd', None, None, {'user_handle': 12})
    >>> loads(b'{"id": null}')
    Traceback (most recent call last):
    ValueError: $.id: expected non-empty text, found null
    """
    return read_at_once(data) or to_persona(parse_json(data))


def dumps(persona: Persona) -> bytes:
    """Write a persona as a JSON document in UTF-8.

    Every member that was read and was not null is in it, equal in value; times are the same instant.

    >>> dumps(loads('{"id": "fd213afd", "name": null, "mood": "blue"}'))
    b'{"id":"fd213afd","persona_clips":[],"mood":"blue"}'
    """
    return dump_json(converter.unstructure(persona))


def dump_json(document: object) -> bytes:
    """Write any JSON value, in one line."""
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        # A lone surrogate, which JSON can only write as an escape.
        return json.dumps(document, separators=(",", ":")).encode()


def dump_request(request: CreatePersonaRequest) -> bytes:
    """Write a request as the contract's body: always its five members, always in the same order."""
    return msgspec.json.encode(
        {
            "root_clip_id": request.root_clip_id,
            "name": request.name,
            "description": request.description,
            "clips": request.clips,
            "is_public": request.is_public,
        }
    )


def to_request(document: object) -> CreatePersonaRequest:
    """Make a request of a JSON value; raises `InvalidRequestError`, which names the member."""
    if type(document) is not dict:
        raise InvalidRequestError(message=f"expected an object, found {_shown(document)}")
    if unknown := document.keys() - REQUEST_MEMBERS:
        message = f"{min(unknown)!r}: expected one of {', '.join(REQUEST_MEMBERS)}, found an unknown member"
        raise InvalidRequestError(message=message)
    for name in REQUIRED_MEMBERS:
        if name not in document:
            raise InvalidRequestError(message=f"{name}: expected non-empty text, found no such member")
    if "clips" in document and type(document["clips"]) is not list:
        raise InvalidRequestError(message=f"clips: expected a list of clip ids, found {_shown(document['clips'])}")
    return CreatePersonaRequest(**document)


def to_persona(document: object) -> Persona:
    """Make a persona of a JSON value; raises `ValueError` as `loads` does."""
    return converter.structure(document, Persona)


def parse_json(data: bytes | str) -> object:
    """Read any JSON value; raises `ValueError` for everything else."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass  # The second reader is slower, and takes what the first does not: a byte order mark, lone surrogates.
    try:
        return json.loads(data, parse_constant=_refuse_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("$: nested too deep") from None
    except json.JSONDecodeError as error:
        found = f"an error at character {error.pos + 1}: {error.msg}" if data else "nothing"
    except ValueError as error:
        found = str(error)
    raise ValueError(f"$: expected a JSON document, found {found}")


def make_converter() -> Converter:
    """Make a converter that reads and writes as `loads` and `dumps` do."""
    made = Converter()
    configure_converter(made)
    return made


def configure_converter(converter: Converter) -> None:
    """Teach a converter of your own the rules of this module.

    It becomes strict about `str`, `int`, `float` and `bool` everywhere: a value of another type is a
    `ValueError`, never converted. Register hooks of your own before the converter is first used.
    """
    for kind, accepted in ((str, (str,)), (int, (int,)), (float, (float, int)), (bool, (bool,))):
        converter.register_structure_hook(kind, partial(_as_it_is, accepted))
    converter.register_structure_hook(datetime, _instant)
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    converter.register_structure_hook_factory(lambda kind: kind == tuple[PersonaClip, ...], _persona_clips_reader)
    converter.register_structure_hook_factory(_MODELS.__contains__, _model_reader)
    converter.register_unstructure_hook_factory(_MODELS.__contains__, _model_writer)


def _model_reader(model: type, converter: Converter) -> _Hook:
    """Read an object into a model: what has no field, or does not fit it, goes to `extra`."""
    fields = [field for field in attrs.fields(model) if field.name != "extra"]
    readers = {field.name: (converter.get_structure_hook(_bare(field.type)), _bare(field.type)) for field in fields}
    required = [field.name for field in fields if field.default is attrs.NOTHING]

    def read(document: object, _: type) -> object:
        if type(document) is not dict:
            raise ValueError(f"$: expected an object, found {_shown(document)}")
        known: dict[str, object] = {}
        extra: dict[str, object] = {}
        for name, value in document.items():
            if value is None:
                continue
            if name not in readers:
                extra[name] = value
                continue
            hook, kind = readers[name]
            try:
                known[name] = hook(value, kind)
            except Exception:  # a hook that a user registered may raise anything
                extra[name] = value
        for name in required:
            if not known.get(name):
                raise ValueError(f"$.{name}: expected non-empty text, found {_shown(document.get(name))}")
        return model(**known, extra=extra)

    if all(_is_ours(hook) for hook, _ in readers.values()):
        return partial(_read_at_once, _shape(model), model, read)
    return read


def _read_at_once(shape: type, model: type, read: _Hook, document: object, kind: type) -> object:
    """Leave to msgspec what it reads as the hooks here do, at a fifth of their price."""
    try:
        msgspec.convert(document, shape)
        return msgspec.convert(document, model)
    except msgspec.ValidationError:
        return read(document, kind)


def read_at_once(data: bytes | str) -> Persona | None:
    """The persona in a JSON document; `None` where anything in it is unusual, or a hook of the user's is to read it."""
    if (decoders := _decoders(converter)) is None:
        return None
    check, read = decoders
    try:
        check(data)
        return read(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


@cache
def _decoders(converter: Converter) -> tuple[Callable[[bytes | str], object], Callable[[bytes | str], Persona]] | None:
    if not _is_ours(converter.get_structure_hook(Persona)):
        return None
    return msgspec.json.Decoder(_shape(Persona)).decode, msgspec.json.Decoder(Persona).decode


@cache
def _shape(model: type) -> type:
    """What msgspec and the hooks here read alike: a document without a member that has no field."""
    members: list[tuple[str, Any] | tuple[str, Any, None]] = []
    for field in attrs.fields(model):
        if field.default is attrs.NOTHING:
            members.append((field.name, Annotated[str, msgspec.Meta(min_length=1)]))
        elif field.name != "extra":
            members.append((field.name, _shape_of(_bare(field.type)) | None, None))
    return msgspec.defstruct(model.__name__, members, forbid_unknown_fields=True, gc=False)


def _shape_of(kind: Any) -> Any:
    if kind in _MODELS:
        return _shape(kind)
    if kind == tuple[PersonaClip, ...]:
        return list[_shape(PersonaClip)]  # type: ignore[misc]  # a type that is made here
    if kind is float:  # msgspec makes floats of integers, which are exact up to here
        return float | Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
    if kind is datetime:  # msgspec takes times without a zone, and rounds to microseconds
        return Annotated[str, msgspec.Meta(pattern=_TIME)]
    return kind


_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})\Z"


def _is_ours(hook: object) -> bool:
    """Whether a hook is of this module, and not one that a user registered."""
    return hook is _instant or (isinstance(hook, partial) and hook.func in (_as_it_is, _read_at_once, _persona_clips))


def _model_writer(model: type, converter: Converter) -> Callable[[object], dict[str, object]]:
    fields = [field for field in attrs.fields(model) if field.name != "extra"]
    writers = [(field.name, converter.get_unstructure_hook(_bare(field.type))) for field in fields]

    def write(instance: Any) -> dict[str, object]:
        extra: dict[str, object] = instance.extra
        document: dict[str, object] = {}
        for name, hook in writers:
            value = getattr(instance, name)
            # An empty list gives way to the value that did not fit it; other fields are `None` then.
            if value is not None and (value != () or name not in extra):
                document[name] = hook(value)
        for name, value in extra.items():
            document.setdefault(name, value)
        return document

    return write


def _bare(kind: type[Any] | None) -> type[Any]:
    """The type of a field that may be `None`: `str` for `str | None`."""
    return get_args(kind)[0] if isinstance(kind, UnionType) else cast("type[Any]", kind)


def _as_it_is(accepted: tuple[type, ...], value: object, _: type) -> object:
    # By exact type: `True` is an `int` to `isinstance`, and to no gateway.
    if type(value) not in accepted:
        raise ValueError(f"$: expected {accepted[0].__name__}, found {_shown(value)}")
    return value


_FINER_THAN_MICROSECONDS = re.compile(r"[.,]\d{6}\d*[1-9]")


def _instant(value: object, _: type) -> datetime:
    if type(value) is not str or _FINER_THAN_MICROSECONDS.search(value):
        raise ValueError(f"$: expected an RFC 3339 time in whole microseconds, found {_shown(value)}")
    time = datetime.fromisoformat(value.upper())  # RFC 3339, section 5.6: `t` and `z` too
    if time.tzinfo is None:
        raise ValueError(f"$: expected a time with its zone, found {_shown(value)}")
    return time


def _persona_clips_reader(_: type, converter: Converter) -> _Hook:
    read = converter.get_structure_hook(PersonaClip)
    read_all = partial(_persona_clips, read)
    return read_all if _is_ours(read) else lambda value, kind: read_all(value, kind)


def _persona_clips(read: _Hook, value: object, _: type) -> tuple[object, ...]:
    if type(value) is not list:
        raise ValueError(f"$: expected a list, found {_shown(value)}")
    return tuple([read(item, PersonaClip) for item in value])


def _shown(value: object) -> str:
    """A JSON value as an error names it."""
    match value:
        case None:
            return "null"
        case dict():
            return "an object"
        case list():
            return "a list"
        case str() if len(value) > 40:
            return f"a text of {len(value)} characters"
        case _:
            return repr(value)


def _refuse_number(literal: str) -> float:
    raise ValueError(f"{literal} is not a JSON number")


def _finite(literal: str) -> float:
    number = float(literal)
    return number if abs(number) != float("inf") else _refuse_number(literal)


converter: Converter = make_converter()
"""The converter behind `loads` and `dumps`. Register hooks on it before its first use."""
