"""What became of a batch: how many requests have which outcome, and the first failures with their reasons."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from suno_persona.cli._output import state_of
from suno_persona.cli._running import printable, requests_in_words
from suno_persona.models import Outcome

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN = 5  # failures of each kind
_FAILURES = {"not_created": "not created", "unknown": "unknown"}

BATCH: Mapping[str, str] = {"created": "created now", "recorded": "already there", **_FAILURES}
"""What the summary of a run calls the states; it keeps apart what was created before."""

RESULTS: Mapping[str, str] = {"created": "created", **_FAILURES}
"""What the summary of other processes' work calls them."""


class Summary:
    """Counts outcomes, and what the journal had apart from what is new."""

    def __init__(self, total: int, clock: Callable[[], float], labels: Mapping[str, str] = BATCH) -> None:
        self.total: int = total
        """The number of requests."""
        self.counts: Counter[str] = Counter()
        """The number of requests in each state."""
        self.recorded: int = 0
        """How many of them the journal had before."""
        self._shown: Counter[str] = Counter()
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._failures: dict[tuple[str, bool], list[str]] = defaultdict(list)  # by state, and whether it is old
        self._labels = labels
        self._clock = clock
        self._started = clock()

    def __str__(self) -> str:
        return ", ".join(
            f"{self._shown[label]} {text}"
            for label, text in self._labels.items()
            if label != "recorded" or self.recorded
        )

    def add(self, outcome: Outcome, line: int | None, *, is_recorded: bool) -> None:
        """Count an outcome; `line` is the line of the input that has the request, if it is known."""
        state = state_of(outcome)
        self.counts[state] += 1
        self.recorded += is_recorded
        keeps_apart = "recorded" in self._labels  # otherwise all of it was recorded by others
        is_recorded = is_recorded and keeps_apart
        label = "recorded" if state == "created" and is_recorded else state
        self._shown[label] += 1
        error = outcome.error
        if error is None:
            self._reasons[label, ""] += 1
            return
        reason = "since an earlier run" if is_recorded else type(error).__name__
        self._reasons[label, reason if keeps_apart else ""] += 1
        if len(failures := self._failures[state, is_recorded]) < _SHOWN:
            failures.append(printable(f"{'' if line is None else f'line {line}, '}{outcome.request.name!r}: {error}"))

    def table(self) -> "Table":
        """Return the counts as a table."""
        from rich.table import Table

        title = f"{requests_in_words(self.total)}, {self._clock() - self._started:.1f} s"
        table = Table(title=title, title_justify="left")
        table.add_column("outcome", overflow="fold")
        table.add_column("requests", justify="right", no_wrap=True)
        for label, text in self._labels.items():
            for (of, reason), count in sorted(self._reasons.items()):
                if of == label:
                    table.add_row(f"{text}{f': {reason}' if reason else ''}", str(count))
        if left := self.total - self.counts.total():
            table.add_row("not sent", str(left))
        return table

    def failures(self, rest: str) -> Iterator[str]:
        """Yield the first failures of each kind, those of this run first, and where to find the rest."""
        for state in _FAILURES:
            if lines := [*self._failures[state, False], *self._failures[state, True]][:_SHOWN]:
                yield f"{self._labels[state]}:"
                yield from (f"  {line}" for line in lines)
                if more := self.counts[state] - len(lines):
                    yield f"  and {more} more: see {rest}"
