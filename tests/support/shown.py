"""What printers of tracebacks show of an exception, without the tests' own frames."""

import io
import json
import types
from collections.abc import Iterator

import structlog
from rich.console import Console
from rich.traceback import Traceback


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
