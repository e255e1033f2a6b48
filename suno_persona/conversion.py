"""JSON to models and back: the rules of reading and writing, and the cattrs converter behind them. Knows no HTTP.

Reading is tolerant and never coerces: a value that does not fit its field is kept in `extra`, so that one odd member
never costs the persona. Writing returns every member that was read and was not null.
"""

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache, partial
from types import UnionType
from typing import Any, cast, get_args

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_unstructure_fn, override

from suno_persona._checks import REQUEST_MEMBERS, REQUIRED_MEMBERS
from suno_persona.errors import InvalidRequestError
from suno_persona.models import Clip, ClipMetadata, CreatePersonaRequest, Persona, PersonaClip

try:
    from suno_persona._fast_json import convert, decode, encode, read_persona, write_persona
except ModuleNotFoundError:

    def _decline(*_: object) -> None: ...

    convert = decode = encode = read_persona = write_persona = _decline  # type: ignore[assignment]  # what the shortcut may do, too

_MODELS: tuple[type, ...] = (ClipMetadata, Clip, PersonaClip, Persona)


_Hook = Callable[[object, type], object]


def loads(data: bytes | str) -> Persona:
    """Return the persona in a JSON document.

    Raises `ValueError` where the document is not a JSON object with a non-empty text `id`, and only there; the message
    names the path. Any other member may be missing, null or of another type.

    >>> persona = loads(b'{"id": "fd213afd", "name": null, "user_handle": 12}')
    >>> persona.id, persona.name, persona.user_handle, persona.extra
    ('fd213afd', None, None, {'user_handle': 12})
    >>> loads(b'{"id": null}')
    Traceback (most recent call last):
    ValueError: $.id must be non-empty text; got null
    """
    return load_usual(data) or to_persona(parse_json(data))


def dumps(persona: Persona) -> bytes:
    """Return a persona as a JSON document in UTF-8.

    It holds every member that was read and was not null, equal in value; times are the same instant.

    >>> dumps(loads('{"id": "fd213afd", "name": null, "mood": "blue"}'))
    b'{"id":"fd213afd","persona_clips":[],"mood":"blue"}'
    """
    return dump_usual(persona) or dump_json(converter.unstructure(persona))


def load_usual(data: bytes | str) -> Persona | None:
    """Return the persona in a document, or `None` where anything in it is unusual, or where a user's hook reads it."""
    return read_persona(data) if _is_unchanged(converter) else None


def as_written(data: bytes) -> bytes | None:
    """Return a document that `load_usual` could read, for `dumps` of its persona; `None` if a user's hook writes it."""
    return data if _writes_as_made(converter) else None


def dump_usual(persona: Persona) -> bytes | None:
    """Return the document of a persona, or `None` where anything in it is unusual, or where a user's hook writes it."""
    return write_persona(persona) if type(persona) is Persona and _writes_as_made(converter) else None


def to_persona(document: object) -> Persona:
    """Return the persona in a JSON value; raises `ValueError` as `loads` does."""
    return converter.structure(document, Persona)


def parse_json(data: bytes | str) -> object:
    """Return any JSON value; raises `ValueError` for everything else."""
    if (value := decode(data)) is not None:
        return value
    try:
        return json.loads(data, parse_constant=_reject_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("$ must not be nested so deep") from None
    except json.JSONDecodeError as error:
        found = f"an error at offset {error.pos}: {error.msg}" if data else "nothing"
    except ValueError as error:
        found = str(error)
    raise ValueError(f"$ must be a JSON document; got {found}")


def dump_json(document: object) -> bytes:
    """Return any JSON value as a document, in one line."""
    if (data := encode(document)) is not None:
        return data
    try:
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can only write as an escape
        return json.dumps(document, separators=(",", ":")).encode()


def dump_request(request: CreatePersonaRequest) -> bytes:
    """Return the wire body of a request: always the contract's five members in their order, then those of `extra`.

    Equal requests have the same bytes, with and without the shortcut: a journal's key is a hash of them.
    """
    body = dump_json(
        {
            "root_clip_id": request.root_clip_id,
            "name": request.name,
            "description": request.description,
            "clips": request.clips,
            "is_public": request.is_public,
        }
    )
    if not request.extra:
        return body
    extra = json.dumps(request.extra, separators=(",", ":"), ensure_ascii=False).encode()
    return b"%b,%b" % (body[:-1], extra[1:])


def to_request(document: object) -> CreatePersonaRequest:
    """Return the request whose wire body a JSON value is; members that are not the contract's go to `extra`.

    Raises `InvalidRequestError`, which names the member.
    """
    if type(document) is not dict:
        raise InvalidRequestError(message=f"a request must be an object; got {_shown(document)}")
    for name in REQUIRED_MEMBERS:
        if name not in document:
            raise InvalidRequestError(message=f"{name} must be non-empty text; got no such member")
    if "clips" in document and type(document["clips"]) is not list:
        raise InvalidRequestError(message=f"clips must be a list of clip ids; got {_shown(document['clips'])}")
    own = {name: document[name] for name in REQUEST_MEMBERS if name in document}
    extra = {name: value for name, value in document.items() if name not in own}
    return CreatePersonaRequest(**own, extra=extra)


def make_converter() -> Converter:
    """Return a converter that reads and writes as `loads` and `dumps` do."""
    made = Converter()
    configure_converter(made)
    return made


def configure_converter(converter: Converter) -> None:
    """Teach a converter of your own the rules of this module.

    It becomes strict about `str`, `int`, `float` and `bool` everywhere: a value of another type is a `ValueError`, and
    is never converted. Register hooks of your own before the converter is first used.
    """
    for kind, accepted in ((str, (str,)), (int, (int,)), (float, (float, int)), (bool, (bool,))):
        converter.register_structure_hook(kind, partial(_as_is, accepted))
    converter.register_structure_hook(datetime, _instant)
    converter.register_unstructure_hook(datetime, _rfc_3339)
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
            raise ValueError(f"$ must be an object; got {_shown(document)}")
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
                raise ValueError(f"$.{name} must be non-empty text; got {_shown(document.get(name))}")
        return model(**known, extra=extra)

    return partial(_read_model, model, read) if all(_is_ours(hook) for hook, _ in readers.values()) else read


def _read_model(model: type, read: _Hook, document: object, kind: type) -> object:
    return convert(document, model) or read(document, kind)


@cache
def _is_unchanged(converter: Converter) -> bool:
    """Return whether no hook of a user's takes part in reading a persona."""
    return _is_ours(converter.get_structure_hook(Persona))


def _is_ours(hook: object) -> bool:
    return hook is _instant or (isinstance(hook, partial) and hook.func in (_as_is, _read_model, _persona_clips))


def _model_writer(model: type, converter: Converter) -> Callable[[object], dict[str, object]]:
    """Write what a model has, and then what is in `extra`; an empty list yields to a value there that did not fit."""
    how: dict[str, Any] = {
        field.name: override(omit=field.name == "extra", omit_if_default=field.default != ())
        for field in attrs.fields(model)
    }
    write_fields: Callable[[object], dict[str, object]] = make_dict_unstructure_fn(model, converter, **how)

    def write(instance: Any) -> dict[str, object]:
        members = write_fields(instance)
        document = {name: members[name] for name in how if name in members}  # in the order of the fields
        for name, value in instance.extra.items():
            if document.get(name, []) == []:
                document[name] = value
        return document

    return write


def _bare(kind: type[Any] | None) -> type[Any]:
    """Return the type of a field that may be `None`: `str` for `str | None`."""
    return get_args(kind)[0] if isinstance(kind, UnionType) else cast("type[Any]", kind)


def _as_is(accepted: tuple[type, ...], value: object, _: type) -> object:
    # By exact type: `True` is an `int` to `isinstance`, and to no gateway.
    if type(value) not in accepted:
        raise ValueError(f"$ must be {accepted[0].__name__}; got {_shown(value)}")
    return value


_FINER_THAN_MICROSECONDS = re.compile(r"[.,]\d{6}\d*[1-9]")


def _instant(value: object, _: type) -> datetime:
    if type(value) is not str or _FINER_THAN_MICROSECONDS.search(value):
        raise ValueError(f"$ must be an RFC 3339 time in microseconds; got {_shown(value)}")
    time = datetime.fromisoformat(value.upper())  # RFC 3339, section 5.6: `t` and `z` too
    if (offset := time.utcoffset()) is None or offset % timedelta(minutes=1):
        raise ValueError(f"$ must be a time with its zone, in hours and minutes; got {_shown(value)}")
    return time


def _rfc_3339(time: datetime) -> str:
    return re.sub(r"\+00:00\Z", "Z", time.isoformat())


@cache
def _writes_as_made(converter: Converter) -> bool:
    """Return whether no hook of a user's takes part in writing a persona."""
    made = make_converter()
    kinds = {field.type for model in _MODELS for field in attrs.fields(model) if field.name != "extra"}
    hooks = [
        (converter.get_unstructure_hook(kind), made.get_unstructure_hook(kind))
        for kind in kinds.union(map(_bare, kinds), _MODELS)
    ]
    return all(getattr(hook, "__code__", hook) is getattr(own, "__code__", own) for hook, own in hooks)


def _persona_clips_reader(_: type, converter: Converter) -> _Hook:
    read = converter.get_structure_hook(PersonaClip)
    read_all = partial(_persona_clips, read)
    return read_all if _is_ours(read) else lambda value, kind: read_all(value, kind)


def _persona_clips(read: _Hook, value: object, _: type) -> tuple[object, ...]:
    if type(value) is not list:
        raise ValueError(f"$ must be a list; got {_shown(value)}")
    return tuple([read(item, PersonaClip) for item in value])


def _shown(value: object) -> str:
    """Return a JSON value as an error shows it."""
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


def _reject_number(literal: str) -> float:
    raise ValueError(f"{literal}, which is not a JSON number")


def _finite(literal: str) -> float:
    number = float(literal)
    return number if abs(number) != float("inf") else _reject_number(literal)


converter: Converter = make_converter()
"""The converter behind `loads` and `dumps`. Register hooks on it before its first use."""
