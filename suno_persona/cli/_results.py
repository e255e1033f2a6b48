"""`suno-persona results`: the outcomes of a batch for many machines, and what it still waits for."""

import asyncio
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import attrs
import typer

from suno_persona.cli._distributed import DatabaseOption, needing_the_extra
from suno_persona.cli._output import Output, OutputOption, named
from suno_persona.cli._records import InputRow, input_rows
from suno_persona.cli._running import journal_arguments, report, run, status_of
from suno_persona.cli._stopping import stopping
from suno_persona.cli._summary import RESULTS
from suno_persona.errors import JournalError

if TYPE_CHECKING:
    from suno_persona.cli._display import Display
    from suno_persona.journal import Journal

_TICK = 1.0  # seconds between looks at what it waits for
_NO_WORKER = "no worker is alive: start one with suno-persona worker"


def results(
    journal: DatabaseOption,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="The input; adds the line and custom_id of each request. - is stdin."),
    ] = None,
    output: OutputOption = None,
) -> None:
    """Write the outcomes of the enqueued requests.

    Each outcome is written as it arrives, as one JSON line, until every request has one. It can be stopped and run
    again at any time. The exit status is that of batch.
    """
    with needing_the_extra():
        import suno_persona.distributed  # noqa: F401 - so that it is not missed later

    async def work() -> int:
        following = _Following(Output.open(output), input_rows(file))
        task, loop = cast("asyncio.Task[int]", asyncio.current_task()), asyncio.get_running_loop()
        words = ["suno-persona", "results", *([str(file)] if file else []), *journal_arguments(journal, "--journal")]
        resume = f"to resume: {shlex.join([*words, *(['--output', str(output)] if output else [])])}"

        def interrupted() -> tuple[int, list[str]]:
            return 128 + signals[0], [resume]

        with stopping(lambda _: loop.call_soon_threadsafe(task.cancel), lambda: None, interrupted, grace=0) as signals:
            try:
                await following.work(journal)
            except asyncio.CancelledError:
                status, lines = interrupted()
                report(*lines)
                return status
        return following.finish(file, named(output))

    raise typer.Exit(run(work()))


@attrs.define(eq=False)
class _Following:
    """Writes the outcomes as they arrive, and shows how many are there."""

    _output: Output
    _rows: dict[str, InputRow]
    """The rows of the input that have no outcome yet, by their keys."""

    _display: "Display" = attrs.field(init=False)

    async def work(self, journal: str) -> None:
        """Write the outcomes until every request has one. Raises `JournalError` where no request was enqueued."""
        # Not at the top: they would double the start-up time of every other command.
        from suno_persona.cli._display import Display
        from suno_persona.journal import Journal
        from suno_persona.journal._states import PENDING

        async with Journal.existing(journal) as record:
            counts = await record.counts(enqueued=True)
            if not counts:
                raise JournalError(message="no request is enqueued: enqueue a file first: suno-persona enqueue FILE")
            there = sum(count for state, count in counts.items() if state not in PENDING)
            self._display = Display(sum(counts.values()), labels=RESULTS)
            with self._display:
                waiting = asyncio.create_task(self._wait(record))
                try:
                    async for entry in record.settled():
                        row = self._rows.pop(entry.key, None)
                        place = (None, None) if row is None else (row.line, row.custom_id)
                        outcome = entry.outcome(0)
                        is_recorded = self._display.summary.counts.total() < there
                        self._display.add(outcome, place[0], is_recorded=is_recorded)
                        self._output.add(outcome, *place)
                finally:
                    waiting.cancel()
                    await asyncio.gather(waiting, return_exceptions=True)

    def finish(self, file: Path | None, rest: str) -> int:
        """Print what became of the requests. Returns the exit status."""
        counts = self._display.summary.counts
        self._display.expect(counts.total())
        self._display.print_summary(rest)
        if self._rows:
            report(f"{len(self._rows)} rows of {file} are not enqueued; to enqueue them: suno-persona enqueue {file}")
        return status_of(counts) or (1 if self._rows else 0)

    async def _wait(self, record: "Journal") -> None:
        """Show what it waits for."""
        from suno_persona.distributed._queue import count_workers
        from suno_persona.journal._states import PENDING

        was_alive = True
        while True:
            counts = await record.counts(enqueued=True)
            self._display.expect(sum(counts.values()))
            if any(counts.get(state) for state in PENDING):
                is_alive = bool(await record.enqueue([], count_workers))
                parts = [f"{counts.get('queued', 0)} queued, {counts.get('claimed', 0)} in flight"]
                parts += [] if is_alive else [_NO_WORKER]
                self._display.wait("; ".join(parts), is_news=is_alive != was_alive)
                was_alive = is_alive
            await asyncio.sleep(_TICK)
