"""The record that makes a batch resumable: which request was claimed, when and by whom, and what became of it.

It keeps what may be sent and what became of it in a database; `run.py` goes by it.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import NoReturn, Self

from suno_persona import _options as options
from suno_persona.errors import UsageError
from suno_persona.models import Persona

try:
    from suno_persona.journal.claims import Claims
    from suno_persona.journal.database import Database, database_url, shown
    from suno_persona.journal.entry import Entry, created, entry_of
    from suno_persona.journal.run import Keys, Run
    from suno_persona.journal.store import Settled, State, Store
except ModuleNotFoundError as _error:
    _message = "a journal needs the journal extra: pip install 'suno-persona[journal]'"
    raise ModuleNotFoundError(_message, name=_error.name) from _error

__all__ = ["Entry", "Journal", "Keys", "Run", "State"]

_LOOK_BACK = timedelta(minutes=5)


class Journal:
    """The record of a batch: `api.create_many(requests, journal=Journal("personas.db"))`.

    A request is committed to it before it is sent, and its outcome before you see it, so that the batch may be killed
    at any moment and run again. Of a request that the journal knows, a later run gives the recorded persona, or an
    `OutcomeUnknownError`; it sends again what was certainly not created. Any number of processes may share a journal.

    - `url`: the path of an SQLite file, which is made where there is none, or a database as SQLAlchemy names it:
      `postgresql://user@host/database`. The tables are called `suno_persona_...`.
    - `retry_unknown`: send those again of which nobody knows whether there is a persona. There may be two then.

    Use it with `async with`, or let `create_many` open and close it. Raises `ConfigurationError` for a URL that cannot
    be used, and `JournalError` when it is opened or used and the database fails.

    >>> import asyncio
    >>> from suno_persona import CreatePersonaRequest, PersonaAPI
    >>> from suno_persona.testing import FakeSuno
    >>> async def main(path):
    ...     request = CreatePersonaRequest(
    ...         root_clip_id="54834687", name="Neon", description="Night drive"
    ...     )
    ...     async with FakeSuno() as fake:
    ...         async with PersonaAPI(fake.api_key, base_url=fake.base_url) as api:
    ...             for _ in range(2):
    ...                 journal = Journal(path)
    ...                 async for outcome in api.create_many([request], journal=journal):
    ...                     print(outcome.result().name, len(fake.requests))
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     asyncio.run(main(pathlib.Path(folder, "personas.db")))
    Neon 1
    Neon 1
    """

    def __init__(self, url: str | os.PathLike[str], *, retry_unknown: bool = False) -> None:
        self._url = database_url(url)
        self._resend_unknown = options.flag("retry_unknown", retry_unknown)
        self._store: Store | None = None
        self._users = 0
        self._opening = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._may_be_made = True

    @classmethod
    def existing(cls, url: str | os.PathLike[str]) -> Self:
        """A journal that is there: a `JournalError` when it is opened, where there is none."""
        journal = cls(url)
        journal._may_be_made = False
        return journal

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self._users and loop is not self._loop:
            raise UsageError(message="the journal is open in another event loop: make one Journal for each")
        self._loop = loop
        async with self._opening:
            if self._store is None:
                database = await Database.open(self._url, make=self._may_be_made)
                self._store, self._claims = Store(database), Claims(database)
            self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._users -= 1
        if not self._users and self._store is not None:
            store, self._store = self._store, None
            await self._claims.close()
            await store.close()

    def __enter__(self) -> NoReturn:
        raise TypeError("Journal is asynchronous: write `async with`, not `with`")

    def __exit__(self, *_: object) -> None: ...

    def __repr__(self) -> str:
        return f"<Journal {shown(self._url)}>"

    def run(self, *, resend_refused: bool = True) -> Run:
        """Begin one run over the requests of a batch. The journal is open meanwhile.

        It sends again what was certainly not created in earlier runs, unless told otherwise.
        """
        self._open_store()
        return Run(self._claims, resend_refused=resend_refused, retry_unknown=self._resend_unknown)

    async def counts(self) -> dict[State, int]:
        """How many requests are in which state."""
        return await self._open_store().counts()

    async def entries(self, *states: State) -> AsyncIterator[Entry]:
        """Give what it holds, in the order of the keys: all of it, or those in one of these states."""
        async for row in self._open_store().rows(states):
            yield entry_of(row)

    async def settled(self, *, poll_interval: float = 1.0) -> AsyncIterator[Entry]:
        """Give what was enqueued and has an outcome, each once, and go on with what comes, until nothing lacks one.

        It looks again `poll_interval` so many seconds.
        """
        store, seen, newest = self._open_store(), set[str](), ""
        while True:
            waiting = await store.waiting()
            # Clocks differ, and who settled first may commit last: so look back a while, and at the end at everything.
            since = (datetime.fromisoformat(newest) - _LOOK_BACK).isoformat() if waiting and newest else ""
            async for row in store.settled(since):
                newest = max(newest, row.settled_at or "")
                if row.key not in seen:
                    seen.add(row.key)
                    yield entry_of(row)
            if not waiting:
                return
            await asyncio.sleep(poll_interval)

    async def enqueue(
        self,
        batch: Mapping[str, tuple[int, str]],
        defer: Callable[[object, Sequence[str]], Awaitable[int]],
        *,
        retry_not_created: bool,
    ) -> int:
        """Record keys, each with its place and its wire body, as queued; for `suno_persona.distributed`.

        `defer` makes the jobs, within the same transaction: it is called with the driver's connection and the keys that
        have no outcome, and gives how many jobs it made.
        """
        return await self._open_store().enqueue(batch, defer, retry_not_created=retry_not_created)

    async def find(self, key: str) -> Entry | None:
        """What it holds of one request, if anything."""
        row = await self._open_store().find(key)
        return None if row is None else entry_of(row)

    async def resolve(self, key: str, *, persona_id: str | None = None) -> None:
        """Settle a request that is unknown or claimed, after you looked: created with this id, or not created.

        A later run gives a `Persona` with this id and nothing else, or sends the request again. Raises a `JournalError`
        where there is no such request, or where it has an outcome.
        """
        if persona_id is None:
            settled = Settled("not_created", reason="resolved by hand")
        else:
            settled = created(Persona(id=persona_id))
        await self._open_store().resolve(key, settled)

    def _open_store(self) -> Store:
        if self._store is None:
            raise UsageError(message="the journal is not open: use `async with` around what you do with it")
        return self._store
