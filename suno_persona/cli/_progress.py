"""The progress of a batch on stderr: a bar on a terminal, a line now and then elsewhere; and a summary."""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, TypeAlias

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from suno_persona._client import PersonaAPI
from suno_persona.cli._records import state_of
from suno_persona.cli._running import console, counted, printable
from suno_persona.errors import RateLimitedError
from suno_persona.models import Outcome

_LOG_INTERVAL = 10.0  # seconds between lines
_SHOWN = 5  # failures of each kind
_FAILURES = {"not_created": "not created", "unknown": "unknown"}

Labels: TypeAlias = Mapping[str, str]

BATCH: Labels = {"created": "created now", "recorded": "already there", **_FAILURES}
"""Names of the states in the summary of a run; personas that were created before have their own."""

RESULTS: Labels = {"created": "created", **_FAILURES}
"""Their names in the summary of other processes' work."""


def cool_down(api: PersonaAPI) -> str:
    """Describe the cool-down that all calls of a client wait for; empty if there is none."""
    if api.cool_down is None:
        return ""
    rejection, left = api.cool_down
    what = "rate limited" if isinstance(rejection, RateLimitedError) else "the service is unavailable"
    return f"{what}: goes on in {math.ceil(left)} s"


class Display:
    """Counts outcomes, and shows the counts, the rate, the time left, and why the batch waits, if it does.

    Outcomes that the journal had before are kept apart; rate and time left count only requests that are sent.
    """

    def __init__(
        self,
        total: int,
        *,
        limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        labels: Labels = BATCH,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """The number of requests in each state."""
        self.shows_bar: bool = True
        """Whether it shows a bar, if stderr is a terminal."""
        self._total, self._limit, self._labels, self._clock = total, limit, labels, clock
        self._recorded = 0  # requests that the journal had before
        self._shown: Counter[tuple[str, str]] = Counter()  # by label and reason
        self._failures: dict[tuple[str, bool], list[str]] = defaultdict(list)  # by state, and whether it is old
        self._console = console(stderr=True)
        can_show = self._console.is_interactive and self._console.file.isatty()  # FORCE_COLOR is for colours
        columns = (BarColumn(bar_width=10), MofNCompleteColumn(), TextColumn("{task.fields[pace]}", markup=False))
        options: dict[str, Any] = {"disable": not can_show, "redirect_stdout": False, "get_time": clock}
        self._bar = _Bar(*columns, console=self._console, **options)
        self._rows = self._bar.add_task("", total=total, pace="")
        self._started = self._began = clock()  # began to send: what the journal has comes first
        self._next_line = clock() + _LOG_INTERVAL
        self._pace = self._waiting = ""

    def __str__(self) -> str:
        labels = {label: text for label, text in self._labels.items() if label != "recorded" or self._recorded}
        counts = {label: sum(n for (of, _), n in self._shown.items() if of == label) for label in labels}
        return ", ".join(f"{counts[label]} {text}" for label, text in labels.items())

    def __enter__(self) -> Self:
        self._bar.disable |= not self.shows_bar
        self._refresh()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.wait("")
        self._bar.stop()

    def expect(self, total: int) -> None:
        """Change the number of requests."""
        self._total = total
        self._bar.update(self._rows, total=total)

    def add(self, outcome: Outcome, line: int | None, *, is_recorded: bool) -> None:
        """Count an outcome and show it; `is_recorded` says that the journal had it before."""
        self._count(outcome, line, is_recorded=is_recorded and "recorded" in self._labels)
        self._recorded += is_recorded
        if is_recorded and not self._sent():
            self._began = self._clock()
        elif (elapsed := self._clock() - self._began) > 0:
            left = self._total - self._recorded
            left = (left if self._limit is None else min(left, self._limit)) - self._sent()
            self._pace = f"{self._sent() / elapsed:.1f}/s, {_duration(elapsed / self._sent() * left)} left"
        self._bar.update(self._rows, advance=1, pace=self._pace)
        self._refresh()

    def _count(self, outcome: Outcome, line: int | None, *, is_recorded: bool) -> None:
        state, error = state_of(outcome), outcome.error
        self.counts[state] += 1
        reason = ""
        if error is not None:
            reason = "since an earlier run" if is_recorded else type(error).__name__
            failures = self._failures[state, is_recorded]
            if len(failures) < _SHOWN:
                where = "" if line is None else f"line {line}, "
                failures.append(printable(f"{where}{outcome.request.name!r}: {error}"))
        label = "recorded" if state == "created" and is_recorded else state
        self._shown[label, reason if "recorded" in self._labels else ""] += 1

    def wait(self, waiting: str, *, is_news: bool = False) -> None:
        """Show why the batch waits, if it does; without a bar, in a line now and then, and for news."""
        self._waiting = waiting
        self._refresh()
        if self._bar.disable and (is_news or self._clock() >= self._next_line):
            self._next_line = self._clock() + _LOG_INTERVAL
            parts = [f"{self.counts.total()} of {self._total}: {self}", self._pace, waiting]
            self.print("; ".join(filter(None, parts)))

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, soft_wrap=True)

    def print_summary(self, rest: str | None) -> None:
        """Print the counts and the first failures of each kind; `rest` is the file that has all."""
        title = f"{counted(self._total, 'request')}, {self._clock() - self._started:.1f} s"
        table = Table(title=title, title_justify="left")
        table.add_column("outcome", overflow="fold")
        table.add_column("requests", justify="right", no_wrap=True)
        for label, text in self._labels.items():
            for (of, reason), count in sorted(self._shown.items()):
                if of == label:
                    table.add_row(f"{text}{f': {reason}' if reason else ''}", str(count))
        if left := self._total - self.counts.total():
            table.add_row("not sent", str(left))
        self._console.print(table)
        for state, text in _FAILURES.items():
            if lines := [*self._failures[state, False], *self._failures[state, True]][:_SHOWN]:
                self.print("\n".join([f"{text}:", *(f"  {line}" for line in lines)]))
                if more := self.counts[state] - len(lines):
                    self.print(f"  and {more} more{f': see {rest}' if rest else ''}")

    def _sent(self) -> int:
        return self.counts.total() - self._recorded

    def _refresh(self) -> None:
        self._bar.below = Text("\n".join(filter(None, [str(self), self._waiting])))


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
