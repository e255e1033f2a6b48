"""The progress of `batch` on stderr: a bar on a terminal, and a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from suno_persona.cli._summary import BATCH, Summary
from suno_persona.models import Outcome

_LOG_INTERVAL = 10.0  # seconds between lines


class Display:
    """Shows how many requests have which outcome, the rate, the time left, and what the batch waits for.

    Rate and time left count only what is sent: what the journal has takes no time.
    """

    def __init__(
        self,
        total: int,
        *,
        limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        labels: Mapping[str, str] = BATCH,
    ) -> None:
        self.summary: Summary = Summary(total, clock, labels)
        self._limit = limit
        self._console = Console(stderr=True)
        self._bar = _Bar(
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            console=self._console,
            disable=not (self._console.is_interactive and self._console.file.isatty()),  # FORCE_COLOR is for colours
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
            get_time=clock,
        )
        self._rows = self._bar.add_task("", total=total, pace="")
        self._clock = clock
        self._next_line = clock() + _LOG_INTERVAL
        self._began = clock()  # to send: what the journal has comes first
        self._pace = ""
        self._waiting = ""

    def __enter__(self) -> Self:
        self._bar.below = self._status()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.wait("")
        self._bar.stop()

    def expect(self, total: int) -> None:
        """Change the number of requests."""
        self.summary.total = total
        self._bar.update(self._rows, total=total)

    def add(self, outcome: Outcome, line: int | None, *, is_recorded: bool) -> None:
        """Count an outcome and show it; `is_recorded` says that the journal had it before."""
        self.summary.add(outcome, line, is_recorded=is_recorded)
        if is_recorded and not self._sent():
            self._began = self._clock()
        else:
            self._pace = self._measured()
        self._bar.update(self._rows, advance=1, pace=self._pace)
        self._bar.below = self._status()

    def wait(self, waiting: str, *, is_news: bool = False) -> None:
        """Show what the batch waits for, if anything; where there is no bar, in a line now and then, and for news."""
        self._waiting = waiting
        self._bar.below = self._status()
        if self._bar.disable and (is_news or self._clock() >= self._next_line):
            self._next_line = self._clock() + _LOG_INTERVAL
            done = self.summary.counts.total()
            parts = [f"{done} of {self.summary.total}: {self.summary}", self._pace, waiting]
            self.print("; ".join(filter(None, parts)))

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def print_summary(self, rest: str) -> None:
        """Print what became of the batch; `rest` says where all outcomes are."""
        self._console.print(self.summary.table())
        for line in self.summary.failures(rest):
            self.print(line)

    def _to_send(self) -> int:
        left = self.summary.total - self.summary.recorded
        return left if self._limit is None else min(left, self._limit)

    def _sent(self) -> int:
        return self.summary.counts.total() - self.summary.recorded

    def _measured(self) -> str:
        """Return the rate so far, and the time left; nothing where no time has passed."""
        sent, elapsed = self._sent(), self._clock() - self._began
        left = elapsed / sent * (self._to_send() - sent)
        return f"{sent / elapsed:.1f}/s, {_duration(left)} left" if elapsed > 0 else ""

    def _status(self) -> Text:
        return Text("\n".join(filter(None, [str(self.summary), self._waiting])))


class _Bar(Progress):
    """A progress bar with a text below it, which wraps: what does not fit into a line of a narrow terminal."""

    below = Text()

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bar and the text."""
        yield from super().get_renderables()
        yield self.below


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
