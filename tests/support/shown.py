"""What traceback printers and object walkers find in an exception, without the tests' own frames."""

import asyncio
import io
import json
import types
from collections.abc import Iterator, Mapping
from typing import Any

import structlog
from rich.console import Console
from rich.traceback import Traceback

_ENDS = (type, types.ModuleType, types.CodeType, asyncio.AbstractEventLoop, asyncio.Future, types.CoroutineType)
"""A walk stops at these types: they lead to the test itself, and to calls in flight."""


def in_rich(error: BaseException) -> str:
    """Return the traceback as rich prints it, with locals."""
    text = io.StringIO()
    traceback = Traceback.from_exception(type(error), error, frames(error), width=500, show_locals=True)
    Console(file=text, width=500).print(traceback)
    return text.getvalue()


def in_structlog(error: BaseException) -> str:
    """Return the traceback as structlog puts it into a log record, with locals."""
    transform = structlog.tracebacks.ExceptionDictTransformer(show_locals=True)
    return json.dumps(transform((type(error), error, frames(error))))


def in_reach(error: BaseException) -> str:
    """Return every string that a walk over locals, attributes, items, closures and causes reaches."""
    found: list[str] = []
    seen: dict[int, Any] = {}  # keeps the objects alive, so that no `id` is reused
    waiting: list[Any] = [error]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, _ENDS):
            continue
        seen[id(item)] = item
        if isinstance(item, str):
            found.append(str.__str__(item))
        elif isinstance(item, bytes | bytearray | memoryview):
            found.append(bytes(item).decode("latin-1"))
        else:
            waiting += _held(item)
    return "\n".join(found)


def _held(item: Any) -> Iterator[Any]:
    if isinstance(item, BaseException):
        yield from (item.args, item.__cause__, item.__context__)
        for frame in _frames(frames(item)):
            yield frame.f_locals
    if isinstance(item, Mapping):
        yield from item.keys()
        yield from item.values()
    elif isinstance(item, list | tuple | set | frozenset):
        yield from item
    if isinstance(item, types.FunctionType):
        yield from (item.__defaults__, item.__kwdefaults__)
        for cell in item.__closure__ or ():
            yield cell.cell_contents
    if isinstance(item, types.MethodType):
        yield from (item.__self__, item.__func__)
    yield getattr(item, "__dict__", None)
    for kind in type(item).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            yield getattr(item, name, None)


def frames(error: BaseException) -> types.TracebackType | None:
    """Return the traceback from the package's first frame on."""
    traceback = error.__traceback__
    while traceback is not None and "/tests/" in traceback.tb_frame.f_code.co_filename:
        traceback = traceback.tb_next
    return traceback


def functions(error: BaseException) -> list[str]:
    """Return the names of the functions that the error passed through, from the package's first one on."""
    return [frame.f_code.co_name for frame in _frames(frames(error))]


def _frames(traceback: types.TracebackType | None) -> Iterator[types.FrameType]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next
