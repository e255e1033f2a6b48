"""`suno-persona enqueue`: a batch for workers on many machines; and what the commands for such batches share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, TypeAlias

import typer

from suno_persona.cli._rows import FileArgument, checked_rows
from suno_persona.cli._running import report, requests_in_words, run

DatabaseOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--journal",
        envvar="SUNO_JOURNAL_URL",
        metavar="URL",
        help="The PostgreSQL database of the journal and the queue.",
    ),
]
"""The database of a batch for many machines."""


@contextmanager
def needing_the_extra() -> Iterator[None]:
    """End the command where the block imports what is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        report(str(error))
        raise typer.Exit(2) from None


def enqueue(
    file: FileArgument,
    journal: DatabaseOption,
    retry_not_created: Annotated[
        bool, typer.Option("--retry-not-created", help="Enqueue again the requests that were settled as not created.")
    ] = False,
) -> None:
    """Enqueue the rows of a file for workers.

    Every row is checked first. The tables are made where there are none, and rows that were enqueued before are not
    enqueued again. Then start workers with suno-persona worker, on any number of machines.
    """
    with needing_the_extra():
        from suno_persona.distributed import enqueue, make_app

    async def work() -> None:
        with checked_rows(file) as rows:
            requests = (row.request for row in rows)
            added = await enqueue(make_app(journal), requests, retry_not_created=retry_not_created)
        rest = "" if added == rows.total else "; the others were enqueued before"
        print(f"{added} of {requests_in_words(rows.total)} enqueued{rest}")

    run(work())
