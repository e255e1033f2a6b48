"""`suno-persona enqueue` and `results`: a batch for workers on many machines, and its outcomes."""

from collections import Counter
from typing import Annotated

import typer

from suno_persona.cli._output import Output, OutputOption, state_of
from suno_persona.cli._rows import FileArgument, checked_rows
from suno_persona.cli._running import report, run, status_of

_Database = Annotated[
    str,
    typer.Option(
        "--journal",
        envvar="SUNO_JOURNAL_URL",
        metavar="URL",
        help="The PostgreSQL database of the journal and the queue.",
    ),
]


def enqueue(
    file: FileArgument,
    journal: _Database,
    retry_not_created: Annotated[
        bool, typer.Option("--retry-not-created", help="Enqueue again the requests that were settled as not created.")
    ] = False,
) -> None:
    """Enqueue the rows of a file for workers.

    Every row is checked first. Rows that were enqueued before are not enqueued again. Start a worker with:

    procrastinate --app=suno_persona.distributed.app worker
    """
    try:
        from suno_persona.distributed import enqueue, make_app
    except ModuleNotFoundError as error:
        report(str(error))
        raise typer.Exit(2) from None

    async def work() -> None:
        with checked_rows(file) as rows:
            requests = (row.request for row in rows)
            added = await enqueue(make_app(journal), requests, retry_not_created=retry_not_created)
        rest = "" if added == rows.total else "; the others were enqueued before"
        print(f"{added} of {rows.total} requests enqueued{rest}")

    run(work())


def results(journal: _Database, output: OutputOption = None) -> None:
    """Write the outcomes of the enqueued requests.

    Each outcome is written as it arrives, as one JSON line, until every request has one. The exit status is that of
    batch.
    """
    from suno_persona.journal import Journal

    async def work() -> Counter[str]:
        lines, counts = Output.open(output), Counter[str]()
        async with Journal.existing(journal) as record:
            async for entry in record.settled():
                outcome = entry.outcome(0)
                counts[state_of(outcome)] += 1
                lines.add(outcome)
        return counts

    counts = run(work())
    report(f"{counts['created']} created, {counts['not_created']} not created, {counts['unknown']} unknown")
    raise typer.Exit(status_of(counts))
