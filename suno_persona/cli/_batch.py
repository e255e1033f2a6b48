"""`suno-persona batch`: many personas from a file, resumable at any moment."""

import asyncio
import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import attrs
import typer

from suno_persona._batch import Batch
from suno_persona._client import PersonaAPI, open_batch
from suno_persona.cli._output import Output, OutputOption
from suno_persona.cli._rows import CheckedRows, FileArgument, checked_rows
from suno_persona.cli._running import journal_arguments, report, reporting_errors, status_of
from suno_persona.errors import ConfigurationError, InvalidRequestError, JournalError
from suno_persona.models import CreatePersonaRequest, Outcome

if TYPE_CHECKING:
    from suno_persona.cli._display import Display
    from suno_persona.journal import Journal

_CONNECTIONS = 32

BaseUrlOption: TypeAlias = Annotated[
    str | None, typer.Option(envvar="SUNO_BASE_URL", metavar="URL", help="The base URL of the service.")
]
"""The service of a command that sends requests."""


def batch(
    file: FileArgument,
    journal: Annotated[
        str | None,
        typer.Option(
            envvar="SUNO_JOURNAL_URL",
            metavar="PATH_OR_URL",
            help="The journal that makes the batch resumable: an SQLite file or a database URL. Default: FILE.journal.",
        ),
    ] = None,
    output: OutputOption = None,
    retry_unknown: Annotated[
        bool,
        typer.Option(
            "--retry-unknown", help="Retry requests whose outcome is unknown; this may create a second persona."
        ),
    ] = False,
    accept_new_key: Annotated[
        bool,
        typer.Option("--accept-new-key", help="Bind the journal to this API key: one that was rotated in the account."),
    ] = False,
    max_connections: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many requests may be in flight at once.")
    ] = _CONNECTIONS,
    base_url: BaseUrlOption = None,
) -> None:
    """Create a persona for each row of a file.

    Run the same command again to resume it. Every row is checked before anything is sent. CSV columns and JSON members
    are root_clip_id, name, description and, optionally, clips (in CSV separated by spaces) and is_public (true or
    false). The key is read from SUNO_API_KEY.
    """
    # Not at the top: rich and SQLAlchemy would double the start-up time of every other command.
    from suno_persona.cli._display import Display
    from suno_persona.journal import Journal

    journal_url = journal or f"{file}.journal"
    with reporting_errors("nothing was sent"):
        _require_different_files(file, Path(journal_url), output)
        with checked_rows(file) as rows:
            api = PersonaAPI(base_url=base_url, max_connections=max_connections)
            record = Journal(journal_url, retry_unknown=retry_unknown, accept_new_key=accept_new_key)
            run = _Run(rows, Output.open(output), Display(rows.total))
            asyncio.run(run.work(api, record))
    if run.failure is not None:
        report(run.failure)
    if run.signals or (run.failure is not None and run.display.counts):
        # Without --retry-unknown: the calls that were just cut off should be checked first.
        name = str(file) if str(file)[0] != "-" else f"./{file}"
        command = ["suno-persona", "batch", name, *(journal_arguments(journal_url, "--journal") if journal else [])]
        command += ["--output", str(output)] if output else []
        command += ["--max-connections", str(max_connections)] if max_connections != _CONNECTIONS else []
        command += ["--base-url", base_url] if base_url not in (None, os.environ.get("SUNO_BASE_URL")) else []
        report(f"to resume: {shlex.join(command)}")
    if run.display.counts["unknown"]:
        command = ["suno-persona", "journal", "unknown", *journal_arguments(journal_url, "--journal")]
        report(f"to list unknown outcomes: {shlex.join(command)}")
    raise typer.Exit(run.status())


def _require_different_files(file: Path, journal: Path, output: Path | None) -> None:
    """Raise `ConfigurationError` if two names are one file, which SQLite would overwrite."""
    names = [os.path.realpath(path) for path in (file, journal, output) if path is not None]
    if len(set(names)) < len(names):
        message = f"FILE, --journal and --output must be different files; got {', '.join(names)}"
        raise ConfigurationError(message=message)


@attrs.define(eq=False)
class _Run:
    """One run over the rows: it counts and writes outcomes until every row has one, or until it is stopped."""

    rows: CheckedRows
    output: Output
    display: "Display"
    signals: list[signal.Signals] = attrs.field(init=False, factory=list)
    failure: str | None = attrs.field(init=False, default=None)
    _lines: dict[int, int] = attrs.field(init=False, factory=dict)
    """The line of each request that has no outcome yet, by its index."""

    async def work(self, api: PersonaAPI, journal: "Journal") -> None:
        """Create the personas. What stops the run is in `failure` or `signals` afterwards."""
        try:
            async with api, open_batch(api, self._requests(), journal) as batch:
                with self.display, self._stopping_on_signals(batch):
                    async for outcome in batch:
                        self._add(outcome)
                        if self.failure is not None:
                            batch.stop()
        except (JournalError, InvalidRequestError) as error:
            self.failure = self.failure or str(error)

    def status(self) -> int:
        """Return the exit status."""
        if self.failure is not None:
            return 2
        return 128 + self.signals[0] if self.signals else status_of(self.display.counts)

    @contextmanager
    def _stopping_on_signals(self, batch: Batch) -> Iterator[None]:
        """Stop the batch gracefully on the first signal, and cancel the calls in flight on the second."""
        loop = asyncio.get_running_loop()

        def stop(which: signal.Signals) -> None:
            self.signals.append(which)
            if len(self.signals) == 1:
                self.display.print("finishing the calls in flight; press Ctrl-C again to cancel them")
                batch.stop()
            elif len(self.signals) == 2:
                batch.cancel()

        # Unlike `loop.add_signal_handler`, `signal.signal` works on Windows, too.
        def receive(number: int, _frame: object) -> None:
            loop.call_soon_threadsafe(stop, signal.Signals(number))

        handlers = {which: signal.signal(which, receive) for which in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for which, handler in handlers.items():
                signal.signal(which, handler)

    def _requests(self) -> Iterator[CreatePersonaRequest]:
        for index, (line, request) in enumerate(self.rows):
            self._lines[index] = line
            yield request

    def _add(self, outcome: Outcome) -> None:
        line = self._lines.pop(outcome.index)
        self.display.add(outcome)
        if self.failure is None:
            try:
                self.output.add(outcome, line)
            except ConfigurationError as error:
                self.failure = str(error)
