"""The progress of `batch` on stderr: a bar on a terminal and lines elsewhere; at the end, a table."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from suno_persona.cli._output import state_of
from suno_persona.models import Outcome

_LOG_INTERVAL = 10.0  # seconds between lines
_LABELS = {"created": "created", "not_created": "not created", "unknown": "unknown"}


class Display:
    """Counts outcomes, and shows the counts, the rate and the time left."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: Counter[str] = Counter()
        """The number of requests in each state."""
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._total = total
        self._console = Console(stderr=True)
        self._bar = Progress(
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            _Rate(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not (self._console.is_interactive and self._console.file.isatty()),  # FORCE_COLOR is for colours
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
            get_time=clock,
        )
        self._task = self._bar.add_task(self._description(), total=total)
        self._clock = clock
        self._started = clock()
        self._next_line = self._started + _LOG_INTERVAL

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._console.print(self._summary())

    def add(self, outcome: Outcome) -> None:
        """Count an outcome and show it."""
        state = state_of(outcome)
        self.counts[state] += 1
        self._reasons[state, "" if outcome.error is None else type(outcome.error).__name__] += 1
        self._bar.update(self._task, advance=1, description=self._description())
        if self._bar.disable and self._clock() >= self._next_line:
            self._next_line = self._clock() + _LOG_INTERVAL
            self.print(self._line())

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _description(self) -> str:
        return ", ".join(f"{self.counts[state]} {label}" for state, label in _LABELS.items())

    def _line(self) -> str:
        task = self._bar.tasks[0]
        left = "" if task.time_remaining is None else f", {task.time_remaining:.0f} s left"
        return f"{self.counts.total()} of {self._total}: {self._description()}, {task.speed or 0:.1f}/s{left}"

    def _summary(self) -> Table:
        table = Table(title=f"{self._total} requests, {self._clock() - self._started:.1f} s", title_justify="left")
        table.add_column("outcome")
        table.add_column("requests", justify="right")
        for (state, reason), count in sorted(self._reasons.items()):
            table.add_row(f"{_LABELS[state]}{f': {reason}' if reason else ''}", str(count))
        if left := self._total - self.counts.total():
            table.add_row("not sent", str(left))
        return table


class _Rate(ProgressColumn):
    """Requests per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.1f}/s")
