"""What printers of tracebacks show of an exception, without the tests' own frames."""

import io
import json
import types
from pathlib import Path

import structlog
from rich.console import Console
from rich.traceback import Traceback

TESTS = Path(__file__).parents[1]


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


def is_ours(file: str) -> bool:
    """Return whether a file is one of the tests."""
    return Path(file).is_relative_to(TESTS)


def frames(error: BaseException) -> types.TracebackType | None:
    """Return the traceback from the first frame that is not the tests' own."""
    traceback = error.__traceback__
    while traceback is not None and is_ours(traceback.tb_frame.f_code.co_filename):
        traceback = traceback.tb_next
    return traceback
