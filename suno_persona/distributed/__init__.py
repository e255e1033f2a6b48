"""Batches on many machines: a procrastinate job for each request, guarded by a journal in the same database.

The queue delivers a job at least once; the journal ensures that its request is sent once. `suno-persona worker` runs a
worker, and so does procrastinate's own command with an app of your own.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import cast

from suno_persona import _options as options
from suno_persona._batch import each
from suno_persona._client import PersonaAPI
from suno_persona._engine import Call
from suno_persona.conversion import dump_request
from suno_persona.journal import Journal
from suno_persona.models import CreatePersonaRequest, Outcome

try:
    from suno_persona.distributed._app import PersonaApp
    from suno_persona.journal._states import Enqueue, Keys
    from suno_persona.journal._writer import here
except ModuleNotFoundError as _error:
    _message = "batches on many machines need the distributed extra: pip install 'suno-persona[distributed]'"
    raise ModuleNotFoundError(_message, name=_error.name) from _error

__all__ = ["PersonaApp", "enqueue", "make_app", "outcomes"]

_PART = 1000  # requests in a transaction


async def enqueue(
    app: PersonaApp,
    requests: Iterable[CreatePersonaRequest] | AsyncIterable[CreatePersonaRequest],
    *,
    retry_not_created: bool = False,
) -> int:
    """Enqueue a batch for the workers. Returns how many jobs that made.

    It makes the tables of the journal and of the queue if there are none.

    `requests` is any iterable or async iterable; it is consumed lazily and written in parts. A request with an outcome
    or a job is not enqueued again, so a batch can be enqueued again whatever happened; `retry_not_created` enqueues
    requests that were settled as not created. Raises `JournalError` if the database fails, and `InvalidRequestError`
    for an item that is not a request: the parts before it are enqueued then.
    """
    keys, by, made = Keys(), here(), 0
    part: list[Enqueue] = []
    async with Journal(app.journal_url) as journal, aclosing(each(requests)) as source:
        index = 0
        async for request in source:
            body = dump_request(Call(request).request)
            part.append(Enqueue(keys.next(body), body.decode(), index, by, retry_not_created))
            index += 1
            if len(part) == _PART:
                made += await journal.enqueue(part, app.defer_requests)
                part.clear()
        return made + await journal.enqueue(part, app.defer_requests)


async def outcomes(app: PersonaApp, *, poll_interval: float = 1.0) -> AsyncGenerator[Outcome, None]:
    """Yield an outcome for each enqueued request: first the recorded ones, then others as they are settled.

    It polls the journal every `poll_interval` seconds, and ends when every request has one. An error in an outcome is a
    `NotCreatedError` or an `OutcomeUnknownError` with the recorded reason. Raises `JournalError`.
    """
    async with Journal(app.journal_url) as journal:
        async for entry in journal.settled(poll_interval=poll_interval):
            yield entry.outcome(cast("int", entry.index))


def make_app(
    journal_url: str,
    *,
    make_client: Callable[[], PersonaAPI] = PersonaAPI,
    concurrency: int = 32,
    stalled_worker_timeout: int = 300,
) -> PersonaApp:
    """Make a procrastinate app with the task `create_persona`: for `enqueue`, `outcomes` and procrastinate's workers.

    Procrastinate's own command takes it as `--app`, from a module of yours.

    - `journal_url`: the PostgreSQL database that holds both the journal and the queue.
    - `make_client`: makes the one `PersonaAPI` of a worker process, when the worker starts.
    - `concurrency`: how many jobs a worker has in flight, unless its `--concurrency` says otherwise.
    - `stalled_worker_timeout`: seconds without a heartbeat after which other workers take over a worker's jobs. A
      worker sends none during a graceful shutdown, so this must be longer than any call.

    Raises `ConfigurationError` for an unusable argument.
    """
    return PersonaApp(
        journal_url,
        make_client,
        concurrency=options.count("concurrency", concurrency),
        stalled_worker_timeout=options.count("stalled_worker_timeout", stalled_worker_timeout),
    )
