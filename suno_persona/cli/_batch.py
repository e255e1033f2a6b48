"""`suno-persona batch`: many personas from a file, resumable at any moment."""

import asyncio
import os
import shlex
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from suno_persona._batch import Batch
from suno_persona._client import PersonaAPI
from suno_persona.cli._client_options import ClientOptions, SendingCommand, client_options
from suno_persona.cli._duplicates import Digests, Found, duplicates_option
from suno_persona.cli._output import STDOUT, Output, opened_output, output_option, require_different_files
from suno_persona.cli._records import InputRow, database_file, state_of
from suno_persona.cli._rows import STDIN, CheckedRows, Row, checked_rows, file_argument, ignore_option
from suno_persona.cli._running import counted, journal_arguments, printable, report, status_of, typed_again
from suno_persona.cli._stopping import again, ended_at_once, stopping
from suno_persona.errors import ConfigurationError, JournalError
from suno_persona.models import CreatePersonaRequest, Outcome

if TYPE_CHECKING:
    from suno_persona.journal import Journal, State

_COUNT = click.IntRange(min=1)
_TICK = 0.5  # seconds between looks at what the batch waits for

accept_option = click.option(
    "--accept-new-key", is_flag=True, help="Bind the journal to this API key, which was rotated in the account."
)


@click.command(cls=SendingCommand)
@file_argument
@click.option(
    "--journal",
    envvar="SUNO_JOURNAL_URL",
    show_envvar=True,
    type=click.Path(),
    metavar="PATH_OR_URL",
    show_default="FILE.journal",
    help="The journal that makes the batch resumable: an SQLite file or a database URL.",
)
@output_option
@click.option("--check", is_flag=True, help="Send nothing; show what a run would do, and what looks like a duplicate.")
@click.option("--limit", type=_COUNT, metavar="N", help="Stop after N new personas.")
@click.option(
    "--max-failures", type=_COUNT, metavar="N", default=20, show_default=True, help="Stop after N failures in a row."
)
@duplicates_option
@click.option("--retry-unknown", is_flag=True, help="Retry unknown outcomes. This may create a second persona.")
@ignore_option
@accept_option
@client_options
@click.pass_context
def batch(
    context: click.Context,
    *,
    client: ClientOptions,
    file: Path,
    journal: str | None,
    output: Path | None,
    check: bool,
    limit: int | None,
    max_failures: int,
    allow_duplicates: bool,
    retry_unknown: bool,
    ignore_other_columns: bool,
    accept_new_key: bool,
) -> int:
    """Create a persona for each row of a file.

    Run the same command again to resume it. Every row is checked before anything is sent. The columns, or members of
    JSON, are root_clip_id, name, description and, optionally, clips (ids, separated by spaces, commas or semicolons),
    is_public (true or false), custom_id (not sent; returned in the output) and extra.NAME (sent as NAME). The key is
    read from SUNO_API_KEY.
    """
    from suno_persona.journal import Journal  # SQLAlchemy would double the start-up time of every other command

    if file == STDIN and not journal:
        raise click.UsageError("--journal is missing; stdin has no name for a journal of its own", context)
    url = journal or f"{file}.journal"
    client.log()
    api, digests, path = client.client(), Digests(), database_file(url)
    require_different_files(file, path, output)
    existing = Journal(url) if not path or os.path.exists(path) else None
    record = Journal(url, retry_unknown=retry_unknown, accept_new_key=accept_new_key)
    # Not --retry-unknown: requests that were just cut off should be checked first.
    command = typed_again(context, without=("retry_unknown", "accept_new_key"))
    resume = f"to resume{', with the same stdin' if file == STDIN else ''}: {command}"
    list_unknown = f"to list unknown outcomes: {_of_journal('unknown', url)}"

    async def work(rows: CheckedRows) -> int:
        run = _Run(rows, limit, max_failures, [list_unknown, resume])
        with run.stoppable():
            found = await look_up(digests, existing, api, accept_new_key=accept_new_key)
            if check:
                for line in _plan(rows.total, found, retry_unknown=retry_unknown):
                    print(line)
            if not allow_duplicates:
                require_no_duplicates(rows, found)
            if check:
                return 0
            with opened_output(output) as opened:
                await run.work(api, record, opened)
        counts = run.display.counts
        if counts or run.failure is None:
            run.display.print_summary(None if output in (None, STDOUT) else str(output))
        for why in filter(None, (run.failure, run.stopped)):
            report(why)
        if run.signals or run.stopped or (run.failure is not None and counts):
            report(resume)
        if counts["unknown"]:
            report(list_unknown)
        if opened.is_discarded and counts:
            report(f"to export the outcomes: {_of_journal('export', url)} --format jsonl")
        return run.status()

    with checked_rows(file, ignore_others=ignore_other_columns, on_row=digests.add) as rows:
        return asyncio.run(work(rows))


def _of_journal(command: str, url: str) -> str:
    return shlex.join(["suno-persona", "journal", command, *journal_arguments(url)])


async def look_up(
    digests: Digests, journal: "Journal | None", api: PersonaAPI | None, *, accept_new_key: bool = False
) -> Found:
    """Look up the rows of a file in the journal, if there is one.

    Raises `JournalError` if the journal cannot be read, or belongs to another account than that of `api`.
    """
    async with AsyncExitStack() as stack:
        if journal is not None:
            await stack.enter_async_context(journal)
            if api is not None and not accept_new_key:
                await journal.begin(api.account)
        return await digests.look_up(journal)


def require_no_duplicates(rows: CheckedRows, found: Found) -> None:
    """Print the rows that look like duplicates to stderr. Raises `ConfigurationError` if there are any."""
    for line, reason in found.duplicates:
        print(printable(f"{rows.name}:{line}: looks like a duplicate: {reason}"), file=sys.stderr)
    if count := len(found.duplicates):
        look, it = ("looks like a duplicate", "it") if count == 1 else ("look like duplicates", "them")
        message = f"nothing was sent: {count} of {counted(rows.total, 'row')} {look}; --allow-duplicates sends {it}"
        raise ConfigurationError(message=message)


def _plan(total: int, found: Found, *, retry_unknown: bool) -> Iterator[str]:
    """Yield the lines that describe a run without sending."""
    counts: Counter[State] = found.counts
    retried = "retried (--retry-unknown)" if retry_unknown else "not sent: check"
    lines = [
        (total - counts.total() + counts["queued"], "new: sent"),
        (counts["not_created"], "not created: sent again"),
        (counts["created"], "created: not sent"),
        (counts["unknown"], f"unknown: {retried}"),
        (counts["claimed"], f"claimed, without an outcome: {retried}"),
    ]
    yield f"{counted(total, 'row')}; a run would do this:"
    width = len(str(total))
    yield from (f"  {count:{width}} {what}" for count, what in lines if count or what == "new: sent")


class _Run:
    """One run over the rows: it counts and writes outcomes until every row has one, or until it is stopped."""

    def __init__(self, rows: CheckedRows, limit: int | None, max_failures: int, resume: list[str]) -> None:
        from suno_persona.cli._progress import Display

        self.display = Display(rows.total, limit=limit)
        self.signals: list[signal.Signals] = []
        self.failure: str | None = None  # why it could not go on
        self.stopped: str | None = None  # why it stopped by itself
        self._rows = rows
        self._limit = limit
        self._max_failures = max_failures
        self._resume = resume
        self._pending: dict[int, Row] = {}  # the rows that have no outcome yet, by their index
        self._spent = 0  # personas that were or may have been created
        self._failures = 0  # in a row
        self._has_created = False  # since the last failure
        self._batch: Batch | None = None
        self._progressed = asyncio.Event()

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Let signals stop the run."""
        call_soon = asyncio.get_running_loop().call_soon_threadsafe

        def abandoned() -> tuple[int, list[str]]:
            in_flight = 0 if self._batch is None else self._batch.in_flight
            return self.status(), [ended_at_once(in_flight), *self._resume]

        def stop(which: signal.Signals) -> None:
            call_soon(self._stop, which)

        def cancel() -> None:
            call_soon(self._cancel)

        with stopping(stop, cancel, abandoned) as signals:
            self.signals = signals
            yield

    async def work(self, api: PersonaAPI, journal: "Journal", output: Output) -> None:
        """Create the personas. Afterwards `failure`, `stopped` or `signals` say why the run stopped, if it did."""
        self.display.shows_bar = not output.is_terminal
        try:
            async with api, api.batch(self._requests(), journal=journal) as batch:
                self._batch = batch
                if self.signals:  # before there was a batch
                    batch.stop()
                with self.display:
                    await self._follow(batch, api, output)
        except JournalError as error:
            self.failure = self.failure or str(error)

    def status(self) -> int:
        """Return the exit status."""
        if self.failure is not None:
            return 2
        return 128 + self.signals[0] if self.signals else status_of(self.display.counts)

    async def _follow(self, batch: Batch, api: PersonaAPI, output: Output) -> None:
        ticking = asyncio.create_task(self._tick(api))
        try:
            async for outcome in batch:
                self._add(outcome, output)
                if self.failure is not None or self._failures >= self._max_failures:
                    batch.stop()
        finally:
            ticking.cancel()
            await asyncio.wait([ticking])

    async def _tick(self, api: PersonaAPI) -> None:
        """Show why the batch waits, if it does."""
        from suno_persona.cli._progress import cool_down

        while True:
            self.display.wait(cool_down(api))
            await asyncio.sleep(_TICK)

    def _stop(self, which: signal.Signals) -> None:
        self.display.print(f"finishing the calls in flight; {again(which)} to cancel them")
        if self._batch is not None:
            self._batch.stop()

    def _cancel(self) -> None:
        self.display.print("cancelling the calls in flight; the next signal ends the command at once")
        if self._batch is not None:
            self._batch.cancel()

    async def _requests(self) -> AsyncIterator[CreatePersonaRequest]:
        """Yield the requests, but never more than may be sent, whatever becomes of those before."""
        for index, row in enumerate(self._rows):
            while len(self._pending) >= self._room():
                if self._limit is not None and self._spent >= self._limit:
                    self.stopped = f"stopped, as --limit is {self._limit}"
                    return
                self._progressed.clear()
                await self._progressed.wait()
            self._pending[index] = row
            yield row.request

    def _room(self) -> float:
        """Return how many requests may be without an outcome.

        As long as nothing was created since the last failure, so many that `max_failures` is kept exactly.
        """
        left = float("inf") if self._limit is None else self._limit - self._spent
        return min(left, float("inf") if self._has_created else self._max_failures - self._failures)

    def _add(self, outcome: Outcome, output: Output) -> None:
        row, state = self._pending.pop(outcome.index), state_of(outcome)
        if not outcome.recorded:
            self._spent += state != "not_created"
            self._has_created = state == "created"
            self._failures = 0 if self._has_created else self._failures + 1
        self._progressed.set()
        self.display.add(outcome, row.line, is_recorded=outcome.recorded)
        if self._failures == self._max_failures and self.stopped is None:
            several = f"{self._max_failures} failures in a row" if self._max_failures > 1 else "a failure"
            self.stopped = f"stopped after {several} (--max-failures); the last one: {outcome.error}"
        if self.failure is None:
            try:
                output.add(outcome, InputRow(row.line, row.custom_id))
            except ConfigurationError as error:
                self.failure = str(error)
