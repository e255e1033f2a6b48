"""`suno-persona batch`: many personas from a file, resumable at any moment."""

import asyncio
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from suno_persona.cli._output import Output, OutputOption, named
from suno_persona.cli._rows import STDIN, FileArgument, checked_rows
from suno_persona.cli._running import journal_arguments, report, reporting_errors
from suno_persona.cli._sending import Run
from suno_persona.cli._settings import AcceptNewKeyOption, Settings, takes_settings
from suno_persona.errors import ConfigurationError

_MAX_UNKNOWN = 20


@takes_settings
def batch(
    file: FileArgument,
    settings: Settings,
    journal: Annotated[
        str | None,
        typer.Option(
            envvar="SUNO_JOURNAL_URL",
            metavar="PATH_OR_URL",
            help="The journal that makes the batch resumable: an SQLite file or a database URL. Default: FILE.journal.",
        ),
    ] = None,
    output: OutputOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="Send nothing; show what a run would do, and what looks like a duplicate.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stop after so many new personas.", show_default=False)
    ] = None,
    max_unknown: Annotated[
        int, typer.Option(metavar="N", min=1, help="Stop after so many unknown outcomes in a row.")
    ] = _MAX_UNKNOWN,
    retry_unknown: Annotated[
        bool,
        typer.Option(
            "--retry-unknown", help="Retry requests whose outcome is unknown; this may create a second persona."
        ),
    ] = False,
    accept_new_key: AcceptNewKeyOption = False,
) -> None:
    """Create a persona for each row of a file.

    Run the same command again to resume it. Every row is checked before anything is sent. CSV columns and JSON members
    are root_clip_id, name, description and, optionally, clips (in CSV separated by spaces), is_public (true or false)
    and custom_id, which is not sent and comes back in the output. The key is read from SUNO_API_KEY.
    """
    # Not at the top: rich and SQLAlchemy would double the start-up time of every other command.
    from suno_persona.cli._display import Display
    from suno_persona.journal import Journal

    with reporting_errors("nothing was sent"):
        if file == STDIN and not journal:
            required = "must be named by --journal or SUNO_JOURNAL_URL where FILE is -: stdin has no name"
            raise ConfigurationError(message=f"the journal {required}")
        journal_url = journal or f"{file}.journal"
        _require_different_files(file, Path(journal_url), output)
        with checked_rows(file) as rows:
            api = settings.client()
            if check:
                from suno_persona.cli._checking import check as work

                there = Journal(journal_url) if "://" in journal_url or os.path.exists(journal_url) else None
                asyncio.run(work(rows, api, there, retry_unknown=retry_unknown, accept_new_key=accept_new_key))
                return
            listed = ["suno-persona", "journal", "unknown", *journal_arguments(journal_url, "--journal")]
            list_unknown = f"to list unknown outcomes: {shlex.join(listed)}"
            resume = f"to resume{', with the same stdin' if file == STDIN else ''}: " + shlex.join(
                [
                    # Without --retry-unknown: the calls that were just cut off should be checked first.
                    *("suno-persona", "batch", _name(file)),
                    *(journal_arguments(journal_url, "--journal") if journal else []),
                    *(["--output", _name(output)] if output else []),
                    *(["--limit", str(limit)] if limit else []),
                    *(["--max-unknown", str(max_unknown)] if max_unknown != _MAX_UNKNOWN else []),
                    *settings.arguments(),
                ]
            )
            display = Display(rows.total, limit=limit)
            record = Journal(journal_url, retry_unknown=retry_unknown, accept_new_key=accept_new_key)
            run = Run(rows, Output.open(output), display, limit, max_unknown, [list_unknown, resume])
            asyncio.run(run.work(api, record))
    counts = display.summary.counts
    if counts or run.failure is None:
        display.print_summary(named(output))
    for why in filter(None, (run.failure, run.stopped)):
        report(why)
    if run.signals or run.stopped or (run.failure is not None and counts):
        report(resume)
    if counts["unknown"]:
        report(list_unknown)
    raise typer.Exit(run.status())


def _name(file: Path) -> str:
    """Return a file as an argument, which no option looks like."""
    return f"./{file}" if str(file).startswith("-") and file != STDIN else str(file)


def _require_different_files(file: Path, journal: Path, output: Path | None) -> None:
    """Raise `ConfigurationError` if two names are one file, which SQLite would overwrite."""
    names = [os.path.realpath(path) for path in (file, journal, output) if path not in (None, STDIN)]
    if len(set(names)) < len(names):
        message = f"FILE, --journal and --output must be different files; got {', '.join(names)}"
        raise ConfigurationError(message=message)
