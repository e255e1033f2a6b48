"""`suno-persona enqueue`, `worker` and `results`: a batch on many machines."""

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from suno_persona._client import PersonaAPI
from suno_persona.cli._batch import accept_option, look_up, require_no_duplicates
from suno_persona.cli._client_options import ClientOptions, SendingCommand, client_options, log_to_stderr
from suno_persona.cli._duplicates import Digests, duplicates_option
from suno_persona.cli._output import STDOUT, Output, opened_output, output_option
from suno_persona.cli._records import InputRow, input_rows
from suno_persona.cli._rows import INPUT, CheckedRows, checked_rows, file_argument, ignore_option
from suno_persona.cli._running import counted, report, status_of, typed_again
from suno_persona.cli._stopping import abandon, again, ended_at_once, stopping
from suno_persona.errors import ConfigurationError, JournalError

if TYPE_CHECKING:
    from suno_persona.cli._progress import Display
    from suno_persona.distributed import PersonaApp
    from suno_persona.journal import Journal

_GRACE = 90.0  # seconds: longer than an attempt may take
_LAST_WAIT = 2.0  # seconds for a cancelled request to be recorded, after the grace time
_TICK = 1.0  # seconds between looks at the requests in flight
_NO_WORKER = "no worker is running: start one with suno-persona worker"

database_option = click.option(
    "--journal",
    required=True,
    envvar="SUNO_JOURNAL_URL",
    show_envvar=True,
    metavar="URL",
    help="The PostgreSQL database of the journal and the queue.",
)


@contextmanager
def _needing_the_extra() -> Iterator[None]:
    """End the command with the name of the extra if an import of the block is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(message=str(error)) from error


@click.command()
@file_argument
@database_option
@click.option("--retry-not-created", is_flag=True, help="Enqueue requests again that were settled as not created.")
@duplicates_option
@ignore_option
def enqueue(
    *, file: Path, journal: str, retry_not_created: bool, allow_duplicates: bool, ignore_other_columns: bool
) -> None:
    """Enqueue the rows of a file for workers.

    Every row is checked first. Missing tables are created, and rows that were enqueued before are not enqueued again.
    Then start workers with suno-persona worker, on any number of machines.
    """
    with _needing_the_extra():
        from suno_persona.distributed import enqueue, make_app
    from suno_persona.journal import Journal

    async def work(rows: CheckedRows) -> None:
        app = make_app(journal)
        if not allow_duplicates:
            require_no_duplicates(rows, await look_up(digests, Journal(journal), None))
        added = await enqueue(app, (row.request for row in rows), retry_not_created=retry_not_created)
        rest = "" if added == rows.total else "; the others were enqueued before"
        print(f"{added} of {counted(rows.total, 'request')} enqueued{rest}")

    digests = Digests()
    with checked_rows(file, ignore_others=ignore_other_columns, on_row=digests.add) as rows:
        asyncio.run(work(rows))


@click.command(cls=SendingCommand)
@database_option
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    default=_GRACE,
    show_default=True,
    help="Longest wait for the requests in flight during the shutdown.",
)
@accept_option
@client_options
def worker(*, client: ClientOptions, journal: str, grace: float, accept_new_key: bool) -> int:
    """Create the personas that were enqueued.

    Run it on any number of machines; each request is sent once. It waits for more until it is stopped: Ctrl-C, SIGTERM
    and SIGHUP let the requests in flight finish, a second signal cancels them. The key is read from SUNO_API_KEY.
    """
    with _needing_the_extra():
        from suno_persona.distributed import make_app

    api = client.client()
    app = make_app(journal, make_client=lambda: api, concurrency=client.max_connections)
    client.log(logging.ERROR)
    log_to_stderr("procrastinate", logging.ERROR)
    log_to_stderr("psycopg.pool", logging.ERROR)  # the others report its warnings
    # Psycopg's asynchronous connections work with no other loop on Windows.
    loop_factory = asyncio.SelectorEventLoop if sys.platform == "win32" else None
    started = f"worker started: at most {counted(client.max_connections, 'request')} in flight"
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(_until_stopped(app, _serve(app, api, started, accept_new_key=accept_new_key), grace))


async def _serve(app: "PersonaApp", api: PersonaAPI, started: str, *, accept_new_key: bool) -> None:
    """Run the worker. Raises `JournalError` if there is no queue, or if it belongs to another account."""
    from suno_persona.journal import Journal

    async with Journal(app.journal_url, accept_new_key=accept_new_key) as journal:
        await app.count_workers()
        await journal.begin(api.account)
    async with app.open_async():
        report(started)
        await app.run_worker_async(install_signal_handlers=False)


async def _until_stopped(app: "PersonaApp", serving: Coroutine[None, None, None], grace: float) -> int:
    """Run the worker until a signal stops it and its requests in flight have ended. Returns the exit status."""
    loop = asyncio.get_running_loop()
    call_soon = loop.call_soon_threadsafe
    worker = asyncio.create_task(serving)
    cancelled: set[asyncio.Task[Any]] = set()
    shown = 0  # requests in flight

    def drain(which: signal.Signals) -> None:
        nonlocal shown
        shown = len(app.in_flight)
        worker.cancel()
        in_flight = f"{counted(shown, 'request')} in flight"
        report(f"finishing {in_flight}, for {grace:g} s at most; {again(which)} to cancel them")
        loop.call_later(grace, cancel)
        loop.call_later(grace + _LAST_WAIT, lambda: abandon(*abandoned()))

    def cancel() -> None:
        cancelled.update(app.in_flight)
        app.cancel_in_flight()

    def abandoned() -> tuple[int, list[str]]:
        return 128 + signals[0], [ended_at_once(len(app.in_flight))]

    with stopping(lambda which: call_soon(drain, which), lambda: call_soon(cancel), abandoned) as signals:
        while not worker.done():
            await asyncio.wait([worker], timeout=_TICK)
            if signals and not worker.done() and len(app.in_flight) != shown:
                shown = len(app.in_flight)
                report(f"{counted(shown, 'request')} in flight")
    if not worker.cancelled():
        worker.result()
    if cancelled:
        report(f"finished; cancelled in flight: {counted(len(cancelled), 'request')}; those that were sent are unknown")
        return 128 + signals[0]
    report("finished: no request is in flight")
    return 0


@click.command()
@click.argument("file", required=False, type=INPUT, help="The input; adds the line and custom_id of each request.")
@database_option
@output_option
@click.pass_context
def results(context: click.Context, *, file: Path | None, journal: str, output: Path | None) -> int:
    """Write the outcomes of the enqueued requests.

    Each outcome is written as it arrives, as one JSON line, until every request has one. It can be stopped and run
    again at any time. The exit status is that of batch.
    """
    with _needing_the_extra():
        from suno_persona.distributed import make_app
    from suno_persona.cli._progress import RESULTS, Display  # not at the top: rich takes long to import

    async def work() -> int:
        rows, display = input_rows(file), Display(0, labels=RESULTS)
        loop = asyncio.get_running_loop()

        def stop(_: signal.Signals) -> None:
            loop.call_soon_threadsafe(task.cancel)

        def interrupted() -> tuple[int, list[str]]:
            return 128 + signals[0], [f"to resume: {typed_again(context)}"]

        with opened_output(output) as opened:
            task = loop.create_task(_follow(make_app(journal), rows, display, opened))
            with stopping(stop, None, interrupted) as signals:
                await asyncio.wait([task])
        if task.cancelled():
            status, lines = interrupted()
            report(*lines)
            return status
        task.result()
        display.expect(display.counts.total())
        display.print_summary(None if output in (None, STDOUT) else str(output))
        if rows:
            are = "is not enqueued; to enqueue it" if len(rows) == 1 else "are not enqueued; to enqueue them"
            report(f"{counted(len(rows), 'row')} of {file} {are}: suno-persona enqueue {file}")
        return status_of(display.counts) or (1 if rows else 0)

    return asyncio.run(work())


async def _follow(app: "PersonaApp", rows: dict[str, InputRow], display: "Display", output: Output) -> None:
    """Write the outcomes until every request has one, and remove their rows. Raises `JournalError` if there is none."""
    from suno_persona.journal import Journal
    from suno_persona.journal._states import PENDING

    async with Journal.existing(app.journal_url) as journal:
        counts = await journal.counts(enqueued=True)
        if not counts:
            raise JournalError(message="no request is enqueued: enqueue a file first: suno-persona enqueue FILE")
        there = sum(count for state, count in counts.items() if state not in PENDING)
        display.expect(sum(counts.values()))
        display.shows_bar = not output.is_terminal
        with display:
            waiting = asyncio.create_task(_wait(app, journal, display))
            try:
                async for entry in journal.settled():
                    row, outcome = rows.pop(entry.key, InputRow()), entry.outcome(0)
                    display.add(outcome, row.line, is_recorded=display.counts.total() < there)
                    output.add(outcome, row)
            finally:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)


async def _wait(app: "PersonaApp", journal: "Journal", display: "Display") -> None:
    """Show what the requests wait for."""
    was_alive = True
    while True:
        counts = await journal.counts(enqueued=True)
        display.expect(sum(counts.values()))
        queued, claimed = counts.get("queued", 0), counts.get("claimed", 0)
        if queued or claimed:
            is_alive = bool(await app.count_workers())
            hint = "" if is_alive else f"; {_NO_WORKER}"
            display.wait(f"{queued} queued, {claimed} in flight{hint}", is_news=is_alive != was_alive)
            was_alive = is_alive
        await asyncio.sleep(_TICK)
