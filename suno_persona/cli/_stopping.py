"""How signals end a command: the first gracefully, the second at once, whatever the command waits for."""

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from suno_persona.cli._running import counted, printable

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_PATIENCE = 1.5  # seconds
_LAST_WORDS = 0.3  # seconds


@contextmanager
def stopping(
    first: Callable[[signal.Signals], object],
    second: Callable[[], object],
    abandoned: Callable[[], tuple[int, list[str]]],
    grace: float | None = None,
    *,
    is_last: bool = False,
) -> Iterator[list[signal.Signals]]:
    """Call a function on the first signal, and one on the second; yield the signals that were received so far.

    If the block has not ended soon after the second signal, or when there is a third, the process ends: `abandoned`
    returns its exit status, and the lines that say what was left. With `grace`, a process that has not ended so many
    seconds after the first signal is treated as if it had received the second. A signal that is ignored, as SIGHUP is
    under nohup, stays ignored. After a block that is the last, all are ignored: the process is about to end.
    """
    received: list[signal.Signals] = []
    # False: the block has ended. `put` may interrupt itself, as signals do.
    alarms: queue.SimpleQueue[bool] = queue.SimpleQueue()

    # Unlike `loop.add_signal_handler`, `signal.signal` works on Windows, too.
    def receive(number: int, _: FrameType | None) -> None:
        received.append(signal.Signals(number))
        if len(received) == 1:
            first(received[0])
        else:
            second()
        if len(received) > 1 or grace is not None:
            alarms.put(True)

    def next_alarm(timeout: float) -> bool | None:
        with suppress(queue.Empty):
            return alarms.get(timeout=timeout)
        return None

    def watch() -> None:
        """End the process if nothing else does. Its thread waits for nothing but the alarms."""
        alarm: bool | None = alarms.get()
        if alarm and grace is not None and (alarm := next_alarm(grace)) is None:
            second()
        if alarm is not False and next_alarm(_PATIENCE) is not False:
            _abandon(*abandoned())

    threading.Thread(target=watch, name="suno-persona-watchdog", daemon=True).start()
    handlers = {which: handler for which in _SIGNALS if (handler := signal.getsignal(which)) != signal.SIG_IGN}
    for which in handlers:
        signal.signal(which, receive)
    try:
        yield received
    finally:
        for which, handler in handlers.items():
            signal.signal(which, signal.SIG_IGN if is_last else handler)
        alarms.put(False)


def again_to_cancel(which: signal.Signals) -> str:
    """Say what a second signal does, and how to send it."""
    how = "press Ctrl-C again" if which is signal.SIGINT else f"send {which.name} again"
    return f"{how} to cancel them"


def _abandon(status: int, lines: list[str]) -> None:
    """End the process, even if stderr takes nothing."""
    shows_cursor = "\x1b[?25h" if os.isatty(2) and os.environ.get("TERM") != "dumb" else ""
    text = "".join(f"suno-persona: {printable(line)}\n" for line in lines)
    encoding = getattr(sys.__stderr__, "encoding", "utf-8")

    def write() -> None:
        with suppress(OSError):
            os.write(2, f"{shows_cursor}\n{text}".encode(encoding, "backslashreplace"))

    writing = threading.Thread(target=write, daemon=True)
    writing.start()
    writing.join(_LAST_WORDS)
    os._exit(status)


def ended_at_once(in_flight: int) -> str:
    """Say what is left of the requests in flight when the process ends before they have an outcome."""
    return f"ended at once with {counted(in_flight, 'request')} in flight: claimed in the journal, outcome unknown"
