"""`suno-persona enqueue` and `results`: a batch for workers on many machines, and what came of it."""

from collections import Counter
from typing import Annotated

import typer

from suno_persona.cli._output import Output, OutputOption, state_of
from suno_persona.cli._rows import FileArgument, check, opened, read_checked
from suno_persona.cli._running import forget_stdout, run, say, status_of
from suno_persona.errors import ConfigurationError

_Database = Annotated[
    str,
    typer.Option(
        "--journal",
        envvar="SUNO_JOURNAL_URL",
        metavar="URL",
        help="The PostgreSQL database of the journal and of the queue.",
    ),
]


def enqueue(
    file: FileArgument,
    journal: _Database,
    retry_not_created: Annotated[
        bool, typer.Option("--retry-not-created", help="Enqueue those again that were settled as not created.")
    ] = False,
) -> None:
    """Give the rows of a file to workers.

    All rows are checked first. Those that the workers have already are not enqueued again. A worker is started with:

    procrastinate --app=suno_persona.distributed.app worker
    """
    try:
        from suno_persona.distributed import enqueue, make_app
    except ModuleNotFoundError as error:
        say(str(error))
        raise typer.Exit(2) from None

    async def work() -> None:
        with opened(file) as rows:
            total = check(rows, file)
            requests = (request for _, request in read_checked(rows, file, total))
            added = await enqueue(make_app(journal), requests, retry_not_created=retry_not_created)
        print(f"{added} of {total} requests enqueued{'' if added == total else '; the others were before'}")

    run(work())


def results(
    journal: _Database,
    output: OutputOption = None,
) -> None:
    """Write what came of the enqueued requests.

    A line of JSON for each outcome, as they come, until all are there. The exit status is that of batch.
    """
    from suno_persona.journal import Journal

    async def work() -> Counter[str]:
        lines, counts = Output.open(output), Counter[str]()
        async with Journal.existing(journal) as record:
            async for entry in record.settled():
                outcome = entry.outcome(0)
                counts[state_of(outcome)] += 1
                try:
                    lines.add(entry.key, None, outcome)
                except OSError as error:
                    forget_stdout()
                    message = f"the output cannot be written: {error.strerror or error}"
                    raise ConfigurationError(message=message) from error
        return counts

    counts = run(work())
    say(f"{counts['created']} created, {counts['not_created']} not created, {counts['unknown']} unknown")
    raise typer.Exit(status_of(counts))
