"""JSON to models and back: the rules of reading and writing, and the cattrs converter behind them. Knows no HTTP.

Reading is tolerant and never coerces: a value that does not fit its field is kept in `extra`, so that one odd member
never costs the persona. Writing returns every member that was read and was not null.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache, partial
from math import isfinite
from types import UnionType
from typing import Any, get_args

import attrs
import msgspec
from cattrs import Converter

from suno_persona._checks import REQUEST_MEMBERS, REQUIRED_MEMBERS, shown
from suno_persona.errors import InvalidRequestError
from suno_persona.models import Clip, ClipMetadata, CreatePersonaRequest, Persona, PersonaClip

try:
    from suno_persona._fast_json import read_usual as read_usual
except ModuleNotFoundError:

    def read_usual(data: bytes | str) -> Persona | None:
        """Return `None`: without the shortcut, no document is a usual one."""


_MODELS: tuple[type, ...] = (ClipMetadata, Clip, PersonaClip, Persona)

_Hook = Callable[[Any, type], object]


def loads(data: bytes | str) -> Persona:
    """Return the persona in a JSON document.

    Raises `ValueError` if the document is not a JSON object with a usable `id`, and only then; the message names the
    path. A usable id is non-empty text, or an integer, which is read as its digits. Any other member may be missing,
    null or of another type.

    >>> persona = loads(b'{"id": "fd213afd", "name": null, "user_handle": 12}')
    >>> persona.id, persona.name, persona.user_handle, persona.extra
    ('fd213afd', None, None, {'user_handle': 12})
    >>> loads(b'{"id": null}')
    Traceback (most recent call last):
    ValueError: $.id must be non-empty text or an integer; got null
    """
    return read_usual(data) or to_persona(parse_json(data))


def dumps(persona: Persona) -> bytes:
    """Return a persona as a JSON document in UTF-8.

    It holds every member that was read and was not null, equal in value; times are the same instant.

    >>> dumps(loads('{"id": "fd213afd", "name": null, "mood": "blue"}'))
    b'{"id":"fd213afd","persona_clips":[],"mood":"blue"}'
    """
    return dump_json(to_dict(persona))


def to_dict(persona: Persona) -> dict[str, object]:
    """Return a persona as the JSON values that `dumps` writes, ready for `json.dumps`.

    >>> to_dict(Persona(id="fd213afd", name="Neon"))
    {'id': 'fd213afd', 'name': 'Neon', 'persona_clips': []}
    """
    return dict(_own().unstructure(persona))


def to_persona(document: object, converter: Converter | None = None) -> Persona:
    """Return the persona in a JSON value, read by a converter of the caller's, if there is one.

    Raises `ValueError` as `loads` does, and whatever the caller's hooks for `Persona` itself raise.
    """
    return (converter or _own()).structure(document, Persona)


def parse_json(data: bytes | str) -> object:
    """Return any JSON value; raises `ValueError` for everything else."""
    # msgspec rejects some JSON: with a byte order mark, in UTF-16, with lone surrogates, deeply nested.
    with suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
        return msgspec.json.decode(data)
    try:
        return json.loads(data, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("$ must not be nested so deep") from None
    except json.JSONDecodeError as error:
        found = f"an error at offset {error.pos}: {error.msg}" if data else "nothing"
    except ValueError as error:
        found = str(error)
    raise ValueError(f"$ must be a JSON document; got {found}")


def dump_json(document: object) -> bytes:
    """Return any JSON value as a document, in one line."""
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:  # a lone surrogate, which JSON can only write as an escape
        return json.dumps(document, separators=(",", ":")).encode()


def dump_request(request: CreatePersonaRequest) -> bytes:
    """Return the wire body of a request: always the contract's five members in their order, then those of `extra`.

    Equal requests have the same bytes: a journal's key is a hash of them.
    """
    return msgspec.json.encode(
        {
            "root_clip_id": request.root_clip_id,
            "name": request.name,
            "description": request.description,
            "clips": request.clips,
            "is_public": request.is_public,
            **request.extra,
        }
    )


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
    """Return a new cattrs converter that reads and writes as `loads` and `dumps` do; add hooks of your own to it.

    It is strict about `str`, `int`, `float` and `bool` everywhere: a value of another type is a `ValueError`, and is
    never converted. A value whose hook raises goes to `extra`.

    >>> converter = make_converter()
    >>> converter.register_structure_hook(str, lambda value, _: value.strip())
    >>> converter.structure({"id": "fd213afd", "name": " Neon ", "title": 12}, Persona)
    Persona(id='fd213afd', name='Neon', extra={'title': 12})
    """
    converter = Converter()
    for kind, accepted in ((str, (str,)), (int, (int,)), (float, (float, int)), (bool, (bool,))):
        converter.register_structure_hook(kind, partial(_as_is, accepted))
    converter.register_structure_hook(datetime, _read_time)
    converter.register_unstructure_hook(datetime, lambda time: re.sub(r"\+00:00\Z", "Z", time.isoformat()))
    converter.register_structure_hook_factory(lambda kind: kind == tuple[PersonaClip, ...], _persona_clips_reader)
    converter.register_structure_hook_factory(_MODELS.__contains__, _model_reader)
    converter.register_unstructure_hook_factory(_MODELS.__contains__, _model_writer)
    return converter


def _model_reader(model: Any, converter: Converter) -> _Hook:
    """Read an object into a model; members without a field, or that do not fit it, go to `extra`."""
    kinds = {field.name: _bare(field.type) for field in attrs.fields(model) if field.name != "extra"}
    is_persona = model == Persona
    readers = {name: (converter.get_structure_hook(kind), kind) for name, kind in kinds.items()}

    def read(document: object, _: type) -> object:
        if type(document) is not dict:
            raise ValueError(f"$ must be an object; got {_shown(document)}")
        if is_persona and type(document.get("id")) is int:  # the id must not be lost
            document = document | {"id": str(document["id"])}
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
        if is_persona and not known.get("id"):
            raise ValueError(f"$.id must be non-empty text or an integer; got {_shown(document.get('id'))}")
        return model(**known, extra=extra)

    return read


def _model_writer(model: Any, converter: Converter) -> Callable[[Any], dict[str, object]]:
    """Write the fields and then `extra`; an empty list yields to a value in `extra` that did not fit."""
    kinds = {field.name: _bare(field.type) for field in attrs.fields(model) if field.name != "extra"}
    writers = [(name, converter.get_unstructure_hook(kind)) for name, kind in kinds.items()]

    def write(instance: Any) -> dict[str, object]:
        values = ((name, hook, getattr(instance, name)) for name, hook in writers)
        document = {name: hook(value) for name, hook, value in values if value is not None}
        return document | {name: value for name, value in instance.extra.items() if document.get(name, []) == []}

    return write


def _bare(kind: Any) -> Any:
    """Return the type of a field that may be `None`: `str` for `str | None`."""
    return get_args(kind)[0] if isinstance(kind, UnionType) else kind


def _as_is(accepted: tuple[type, ...], value: object, _: type) -> object:
    # By exact type: `True` is an `int` to `isinstance`, and to no gateway.
    if type(value) not in accepted:
        raise ValueError(f"$ must be {accepted[0].__name__}; got {_shown(value)}")
    return value


_FINER_THAN_MICROSECONDS = re.compile(r"[.,]\d{6}\d*[1-9]")


def _read_time(value: object, _: type) -> datetime:
    if type(value) is not str or _FINER_THAN_MICROSECONDS.search(value):
        raise ValueError(f"$ must be an RFC 3339 time in microseconds; got {_shown(value)}")
    time = datetime.fromisoformat(value.upper())  # RFC 3339, section 5.6: `t` and `z` too
    if (offset := time.utcoffset()) is None or offset % timedelta(minutes=1):
        raise ValueError(f"$ must be a time with its zone, in hours and minutes; got {_shown(value)}")
    return time


def _persona_clips_reader(_: type, converter: Converter) -> _Hook:
    read = converter.get_structure_hook(PersonaClip)

    def read_all(value: object, _: type) -> tuple[object, ...]:
        if type(value) is not list:
            raise ValueError(f"$ must be a list; got {_shown(value)}")
        return tuple([read(item, PersonaClip) for item in value])

    return read_all


def _shown(value: object) -> str:
    """Return a JSON value as an error shows it."""
    return {dict: "an object", list: "a list", type(None): "null"}.get(type(value)) or shown(value)


def _finite(literal: str) -> float:
    number = float(literal)
    if not isfinite(number):
        raise ValueError(f"{literal}, which is not a JSON number")
    return number


@cache
def _own() -> Converter:
    """Return the package's own converter, made when it is first needed: usual responses do without."""
    return make_converter()
