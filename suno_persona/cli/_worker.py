"""`suno-persona worker`: creates what was enqueued, on any number of machines, and ends within its grace time."""

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suno_persona._client import PersonaAPI, engine_of
from suno_persona.cli._distributed import DatabaseOption, needing_the_extra
from suno_persona.cli._running import report, reporting_errors, requests_in_words
from suno_persona.cli._settings import AcceptNewKeyOption, Settings, log_to_stderr, takes_settings
from suno_persona.cli._stopping import again, ended_at_once, stopping

if TYPE_CHECKING:
    from suno_persona.distributed import PersonaApp

_GRACE = 90.0  # seconds: longer than an attempt may take
_TICK = 1.0  # seconds between looks at what is in flight during the shutdown


@takes_settings
def worker(
    journal: DatabaseOption,
    settings: Settings,
    grace: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long the shutdown waits for the requests in flight.")
    ] = _GRACE,
    accept_new_key: AcceptNewKeyOption = False,
) -> None:
    """Create the personas that were enqueued.

    Run it on any number of machines; each request is sent once. It waits for more until it is stopped: Ctrl-C, SIGTERM
    and SIGHUP let the requests in flight finish, a second signal cancels them. The key is read from SUNO_API_KEY.
    """
    with needing_the_extra():
        from suno_persona.distributed import make_app

    with reporting_errors():
        client = settings.client()
        app = make_app(journal, make_client=lambda: client, concurrency=settings.max_connections)
        if not settings.is_verbose:
            log_to_stderr("suno_persona", logging.ERROR)
        log_to_stderr("procrastinate", logging.ERROR)
        log_to_stderr("psycopg.pool", logging.ERROR)  # what it warns of, the others report
        # Psycopg's asynchronous connections work with no other loop on Windows.
        loop_factory = asyncio.SelectorEventLoop if sys.platform == "win32" else None
        started = f"worker started: at most {requests_in_words(settings.max_connections)} in flight"
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            status = runner.run(_until_stopped(app, _serve(app, client, started, accept_new_key=accept_new_key), grace))
    raise typer.Exit(status)


async def _serve(app: "PersonaApp", client: PersonaAPI, started: str, *, accept_new_key: bool) -> None:
    """Run the worker. Raises `JournalError` where there is no queue, or where it belongs to another account."""
    from suno_persona.distributed._queue import count_workers
    from suno_persona.journal import Journal

    async with Journal(app.journal_url, accept_new_key=accept_new_key) as journal:
        await journal.enqueue([], count_workers)
        await journal.begin(engine_of(client).account)
    async with app.open_async():
        report(started)
        await app.run_worker_async(install_signal_handlers=False)


async def _until_stopped(app: "PersonaApp", serving: Coroutine[None, None, None], grace: float) -> int:
    """Run the worker until a signal stops it, and what is in flight has finished. Returns the exit status."""
    call_soon = asyncio.get_running_loop().call_soon_threadsafe
    worker = asyncio.create_task(serving)
    cancelled: set[asyncio.Task[Any]] = set()
    shown = 0  # requests in flight

    def drain(which: signal.Signals) -> None:
        nonlocal shown
        shown = len(app.in_flight)
        worker.cancel()
        report(
            f"finishing {requests_in_words(shown)} in flight, for {grace:g} s at most; {again(which)} to cancel them"
        )

    def cancel() -> None:
        cancelled.update(app.in_flight)
        app.cancel_in_flight()

    def abandoned() -> tuple[int, list[str]]:
        return 128 + signals[0], [ended_at_once(len(app.in_flight))]

    with stopping(lambda which: call_soon(drain, which), lambda: call_soon(cancel), abandoned, grace) as signals:
        while not worker.done():
            await asyncio.wait([worker], timeout=_TICK)
            if signals and not worker.done() and len(app.in_flight) != shown:
                shown = len(app.in_flight)
                report(f"{requests_in_words(shown)} in flight")
    if not worker.cancelled():
        worker.result()
    if cancelled:
        report(f"finished; cancelled in flight: {requests_in_words(len(cancelled))}; those that were sent are unknown")
        return 128 + signals[0]
    report("finished: no request is in flight")
    return 0
