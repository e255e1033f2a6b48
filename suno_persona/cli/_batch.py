"""`suno-persona batch`: many personas from a file, resumable at any moment."""

import asyncio
import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

import attrs
import typer

from suno_persona._batch import Batch, Outcome
from suno_persona._client import PersonaAPI
from suno_persona.cli._output import Output, OutputOption
from suno_persona.cli._rows import FileArgument, check, opened, read_checked
from suno_persona.cli._running import ending_well, forget_stdout, named, say, status_of
from suno_persona.conversion import dump_request
from suno_persona.errors import ConfigurationError, InvalidRequestError, JournalError
from suno_persona.models import CreatePersonaRequest

if TYPE_CHECKING:
    from suno_persona.cli._display import Display
    from suno_persona.journal import Journal, Keys

_CONNECTIONS = 32

BaseUrlOption: TypeAlias = Annotated[
    str | None, typer.Option(envvar="SUNO_BASE_URL", metavar="URL", help="The service's address.")
]
"""The address of a command that sends requests."""


def batch(
    file: FileArgument,
    journal: Annotated[
        str | None,
        typer.Option(
            envvar="SUNO_JOURNAL_URL",
            metavar="PATH_OR_URL",
            help="The record that makes the batch resumable: an SQLite file, or the URL of a database; "
            "FILE.journal unless given.",
        ),
    ] = None,
    output: OutputOption = None,
    retry_unknown: Annotated[
        bool,
        typer.Option(
            "--retry-unknown", help="Send those again whose outcome is unknown; there may be two personas then."
        ),
    ] = False,
    max_connections: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many requests are under way at once.")
    ] = _CONNECTIONS,
    base_url: BaseUrlOption = None,
) -> None:
    """Create a persona for each row of a file.

    The same command run again goes on where it was. All rows are checked before anything is sent. The columns of CSV,
    and the members of a line of JSON, are root_clip_id, name, description and, where needed, clips (in CSV separated by
    spaces) and is_public (true or false). The key is read from SUNO_API_KEY.
    """
    # Not at the top: rich and SQLAlchemy would be half of what starting any other command costs.
    from suno_persona.cli._display import Display
    from suno_persona.journal import Journal, Keys

    record = journal or f"{file}.journal"
    with ending_well("nothing was sent"), opened(file) as rows:
        _check_names(file, Path(record), output)
        total = check(rows, file)
        work = _Batch(
            api=PersonaAPI(base_url=base_url, max_connections=max_connections),
            journal=Journal(record, retry_unknown=retry_unknown),
            keys=Keys(),
            rows=read_checked(rows, file, total),
            output=Output.open(output),
            display=Display(total),
        )
        status = asyncio.run(work.run())
    if work.failure is not None:
        say(work.failure)
    if work.stopped is not None or (work.failure is not None and work.display.counts):
        # Without --retry-unknown: what was cut off just now is worth a look.
        name = str(file) if str(file)[0] != "-" else f"./{file}"
        command = ["suno-persona", "batch", name, *(named(record, "--journal") if journal else [])]
        command += ["--output", str(output)] if output else []
        command += ["--max-connections", str(max_connections)] if max_connections != _CONNECTIONS else []
        command += ["--base-url", base_url] if base_url not in (None, os.environ.get("SUNO_BASE_URL")) else []
        say(f"to go on: {shlex.join(command)}")
    if work.display.counts["unknown"]:
        say(f"to see what is unknown: {shlex.join(['suno-persona', 'journal', *named(record), '--unknown'])}")
    raise typer.Exit(status)


def _check_names(file: Path, journal: Path, output: Path | None) -> None:
    """Three names, three files: SQLite would write over the other's lines."""
    names = [os.path.realpath(path) for path in (file, journal, output) if path is not None]
    if len(set(names)) < len(names):
        message = f"expected FILE, the journal and OUT to be different files, found {', '.join(names)}"
        raise ConfigurationError(message=message)


@attrs.define(eq=False)
class _Batch:
    """The work itself: from rows to lines of output, until all are through or it is stopped."""

    api: PersonaAPI
    journal: "Journal"
    keys: "Keys"
    rows: Iterator[tuple[int, CreatePersonaRequest]]
    output: Output
    display: "Display"
    stopped: signal.Signals | None = None
    failure: str | None = None
    _places: dict[int, tuple[int, str]] = attrs.field(init=False, factory=dict)
    """Of each request that has no outcome yet: its line and its key."""

    async def run(self) -> int:
        """Give the exit status."""
        try:
            async with self.api, self.journal:
                with self.display:
                    await self._work()
        except (JournalError, InvalidRequestError) as error:
            self.failure = self.failure or str(error)
        return self._status()

    async def _work(self) -> None:
        try:
            async with self.api._batch(self._feed(), self.journal) as batch:
                self._stop_on_signals(batch)
                async for outcome in batch:
                    self._take(outcome)
                    if self.failure is not None:
                        batch.stop()
        except asyncio.CancelledError:
            self.stopped = self.stopped or signal.SIGINT
            await self._take_from_journal()

    def _stop_on_signals(self, batch: Batch) -> None:
        loop, task = asyncio.get_running_loop(), cast("asyncio.Task[int]", asyncio.current_task())
        signals = (signal.SIGINT, signal.SIGTERM)

        def stop(which: signal.Signals) -> None:
            if self.stopped is None:
                self.stopped = which
                self.display.say("finishing what is under way; Ctrl-C again stops at once")
                batch.stop()
                return
            for each in signals:
                loop.remove_signal_handler(each)
                signal.signal(each, signal.SIG_IGN)  # recording what was cut off takes a moment
            task.cancel()

        for which in signals:
            with suppress(NotImplementedError):  # on Windows, where Ctrl-C cancels the task
                loop.add_signal_handler(which, stop, which)

    def _feed(self) -> Iterator[CreatePersonaRequest]:
        for index, (line, request) in enumerate(self.rows):
            self._places[index] = line, self.keys.next(dump_request(request))
            yield request

    def _take(self, outcome: Outcome) -> None:
        line, key = self._places.pop(outcome.index)
        self.display.add(outcome)
        if self.failure is None:
            try:
                self.output.add(key, line, outcome)
            except OSError as error:
                self.failure = f"the output cannot be written: {error.strerror or error}"
                forget_stdout()

    async def _take_from_journal(self) -> None:
        """Report the requests that were out when the batch was cut off."""
        for index, (_, key) in list(self._places.items()):
            entry = await self.journal.find(key)
            if entry is not None and entry.state != "not_created":
                self._take(entry.outcome(index))

    def _status(self) -> int:
        if self.failure is not None:
            return 2
        if self.stopped is not None:
            return 128 + self.stopped
        return status_of(self.display.counts)
