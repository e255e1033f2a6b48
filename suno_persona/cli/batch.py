"""`suno-persona batch`: many personas from a file, resumable at any moment."""

import asyncio
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import attrs
import typer

from suno_persona.batch import Outcome
from suno_persona.cli.display import Display
from suno_persona.cli.output import Output
from suno_persona.cli.rows import SUFFIXES, Row, read_rows
from suno_persona.cli.running import ending_well, forget_stdout, say
from suno_persona.client import PersonaAPI
from suno_persona.conversion import dump_request
from suno_persona.errors import ConfigurationError, InvalidRequestError, JournalError
from suno_persona.models import CreatePersonaRequest

if TYPE_CHECKING:
    from suno_persona.journal import Journal, Keys


def batch(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The requests: CSV with a header row, or JSON Lines.")],
    journal: Annotated[
        str | None,
        typer.Option(
            envvar="SUNO_JOURNAL_URL",
            metavar="PATH_OR_URL",
            help="The record that makes the batch resumable: an SQLite file, or the URL of a database. "
            "FILE.journal unless given.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.jsonl",
            help="Where a JSON line for each outcome goes; continued where it is there. stdout unless given.",
        ),
    ] = None,
    resend_unknown: Annotated[
        bool,
        typer.Option(
            "--resend-unknown", help="Send those again of which nobody knows the outcome. There may be two then."
        ),
    ] = False,
    max_connections: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many requests are under way at once.")
    ] = 32,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The service's address; SUNO_BASE_URL unless given.")
    ] = None,
) -> None:
    """Create a persona for each row of a file, and go on where it was when run again.

    All rows are checked before anything is sent. The columns of CSV, and the members of a line of JSON, are
    root_clip_id, name, description and, where needed, clips (in CSV separated by spaces) and is_public (true or false).
    """
    # Not at the top: SQLAlchemy would be half of what starting any other command costs.
    from suno_persona.database import database_url, shown
    from suno_persona.journal import Journal, Keys

    with ending_well("nothing was sent"), _opened(file) as rows:
        record = journal or f"{file}.journal"
        total = _check(rows, file)
        work = _Batch(
            api=PersonaAPI(base_url=base_url, max_connections=max_connections),
            journal=Journal(record, resend_unknown=resend_unknown),
            keys=Keys(),
            path=file,
            rows=read_rows(rows, file.suffix.lower()),
            output=Output.open(output),
            display=Display(total),
        )
        status = asyncio.run(work.run())
    record = shown(database_url(record))  # without a password
    if work.failure is not None:
        say(work.failure)
    if work.stopped is not None or 0 < work.display.counts.total() < total:
        options = {"--journal": journal and record, "--output": output, "--base-url": base_url}
        given = [word for option, value in options.items() if value for word in (option, str(value))]
        flags = ["--resend-unknown"] if resend_unknown else []
        say(f"to go on: {shlex.join(['suno-persona', 'batch', str(file), *given, *flags])}")
    if work.display.counts["unknown"]:
        say(f"to see what is unknown: {shlex.join(['suno-persona', 'journal', record, '--unknown'])}")
    raise typer.Exit(status)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise _refuse(path, "a file whose name ends in .csv or .jsonl", f"{suffix or 'neither'}")
    try:
        file = path.open("rb")
    except OSError as error:
        raise _refuse(path, "a file", f"an error: {error.strerror}") from error
    with file:
        if not file.seekable():
            raise _refuse(path, "a file, which is read twice", "a pipe")
        yield file


def _refuse(path: Path, expected: str, found: str) -> ConfigurationError:
    return ConfigurationError(message=f"{path}: expected {expected}, found {found}")


def _check(file: IO[bytes], path: Path) -> int:
    """Count the rows. Those that cannot be used are told, all of them, and refused."""
    total = bad = 0
    for line, request in read_rows(file, path.suffix.lower()):
        total += 1
        if isinstance(request, InvalidRequestError):
            bad += 1
            print(f"{path}:{line}: {request}", file=sys.stderr)
    if bad:
        raise ConfigurationError(message=f"nothing was sent: {bad} of {total} rows cannot be used")
    file.seek(0)
    return total


@attrs.define(eq=False)
class _Batch:
    """The work itself: from rows to lines of output, until all are through or it is stopped."""

    api: PersonaAPI
    journal: "Journal"
    keys: "Keys"
    path: Path
    rows: Iterator[Row]
    output: Output
    display: Display
    stopped: signal.Signals | None = None
    failure: str | None = None
    _places: dict[int, tuple[int, str]] = attrs.field(init=False, factory=dict)

    async def run(self) -> int:
        """Give the exit status."""
        self._stop_on_signals()
        try:
            async with self.api, self.journal:
                outcomes = self.api.create_many(self._feed(), journal=self.journal)
                async with aclosing(outcomes):
                    with self.display:
                        async for outcome in outcomes:
                            self._take(outcome)
        except asyncio.CancelledError:
            self.stopped = self.stopped or signal.SIGINT
        except (JournalError, InvalidRequestError) as error:
            self.failure = str(error)
        return self._status()

    def _stop_on_signals(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop(which: signal.Signals) -> None:
            if self.stopped is not None and task is not None:
                task.cancel()
                return
            self.stopped = which
            self.display.say("finishing what is under way; Ctrl-C again stops at once")

        for which in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # on Windows, where Ctrl-C cancels the task
                loop.add_signal_handler(which, stop, which)

    def _feed(self) -> Iterator[CreatePersonaRequest]:
        for index, (line, request) in enumerate(self.rows):
            if isinstance(request, InvalidRequestError):
                raise InvalidRequestError(message=f"{self.path}:{line}: the file was changed meanwhile: {request}")
            if self.stopped is not None or self.failure is not None:
                return
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

    def _status(self) -> int:
        if self.failure is not None:
            return 2
        if self.stopped is not None:
            return 128 + self.stopped
        counts = self.display.counts
        return 3 if counts["unknown"] else 1 if counts["not_created"] else 0
