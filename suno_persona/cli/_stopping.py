"""How signals end a command: the first gracefully, the second by cancelling, a third at once."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from suno_persona.cli._running import counted, printable

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def stopping(
    first: Callable[[signal.Signals], object],
    second: Callable[[], object] | None,
    abandoned: Callable[[], tuple[int, list[str]]],
    *,
    is_last: bool = False,
) -> Iterator[list[signal.Signals]]:
    """Call a function on the first signal, and one on the second, if any; yield the signals that were received so far.

    The next signal ends the process: `abandoned` returns its exit status, and the lines that describe the rest. A
    signal that is ignored, as SIGHUP is under nohup, stays ignored. After a block that is the last, all are ignored.
    """
    received: list[signal.Signals] = []

    # Unlike `loop.add_signal_handler`, `signal.signal` works on Windows, too.
    def receive(number: int, _: FrameType | None) -> None:
        received.append(signal.Signals(number))
        if len(received) == 1:
            first(received[0])
        elif len(received) == 2 and second is not None:
            second()
        else:
            abandon(*abandoned())

    handlers = {which: handler for which in _SIGNALS if (handler := signal.getsignal(which)) != signal.SIG_IGN}
    for which in handlers:
        signal.signal(which, receive)
    try:
        yield received
    finally:
        for which, handler in handlers.items():
            signal.signal(which, signal.SIG_IGN if is_last else handler)


def again(which: signal.Signals) -> str:
    """Say how to send a signal again."""
    return "press Ctrl-C again" if which is signal.SIGINT else f"send {which.name} again"


def abandon(status: int, lines: list[str]) -> None:
    """End the process at once: neither threads nor buffers are waited for."""
    shows_cursor = "\x1b[?25h" if os.isatty(2) and os.environ.get("TERM") != "dumb" else ""
    text = "".join(f"suno-persona: {printable(line)}\n" for line in lines)
    with suppress(OSError):
        encoding = getattr(sys.__stderr__, "encoding", "utf-8")
        os.write(2, f"{shows_cursor}\n{text}".encode(encoding, "backslashreplace"))
    os._exit(status)


def ended_at_once(in_flight: int) -> str:
    """Describe the requests in flight when the process ends before they have an outcome."""
    return f"ended at once with {counted(in_flight, 'request')} in flight: claimed in the journal, outcome unknown"
