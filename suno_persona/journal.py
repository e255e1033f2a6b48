"""The record that makes a batch resumable: which request was claimed, when and by whom, and what became of it.

It says what may be sent. How that is kept in a database is the business of `store.py`.
"""

import asyncio
import hashlib
import os
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from types import TracebackType
from typing import NoReturn, Self, get_args

import attrs

from suno_persona import options
from suno_persona.batch import Outcome
from suno_persona.conversion import dumps, loads, parse_json, to_request
from suno_persona.database import Database, database_url, shown
from suno_persona.errors import JournalError, NotCreatedError, OutcomeUnknownError, PersonaError, UsageError
from suno_persona.models import CreatePersonaRequest, Persona
from suno_persona.sending import Call
from suno_persona.store import Row, Settled, State, Store, now


@attrs.frozen(kw_only=True)
class Entry:
    """What a journal holds of one request."""

    key: str
    """Its key: the SHA-256 of its wire body, a colon, and its place, from 1 on, among identical ones of the batch."""

    state: State
    """`"created"`, `"not_created"`, `"unknown"`, or `"claimed"`: sent, or about to be, with no outcome recorded."""

    request: CreatePersonaRequest
    """The request."""

    claimed_at: datetime
    """When it was last claimed, in UTC, by the clock of the process that did."""

    claimed_by: str
    """The host and the process that claimed it."""

    settled_at: datetime | None
    """When its outcome was recorded."""

    persona: Persona | None
    """The persona; `None` unless it was created."""

    persona_id: str | None
    """The id of the persona, also where it was found in an answer that could not be read otherwise."""

    reason: str | None
    """Why there is no persona, or nobody knows."""

    def result(self) -> Persona:
        """Give the persona, or raise an error that says when the request was claimed and by whom.

        It is a `NotCreatedError` where there is certainly none, and an `OutcomeUnknownError` otherwise.
        """
        if self.persona is not None:
            return self.persona
        when = self.claimed_at.isoformat(sep=" ", timespec="seconds")
        outcome = self.reason or "no outcome was recorded, because it is at work still or was stopped"
        message = f"claimed at {when} by {self.claimed_by}: {outcome}"
        if self.state == "not_created":
            raise NotCreatedError(message=message, request=self.request, attempts=0)
        raise OutcomeUnknownError(message=message, persona_id=self.persona_id, request=self.request, attempts=0)

    def outcome(self, index: int) -> Outcome:
        """The same, as the outcome of a request with this place in its batch."""
        try:
            return Outcome(index, self.request, self.result(), None)
        except PersonaError as error:
            return Outcome(index, self.request, None, error)


class Journal:
    """The record of a batch: `api.create_many(requests, journal=Journal("personas.db"))`.

    A request is committed to it before it is sent, and its outcome before you see it, so that the batch may be killed
    at any moment and run again. Of a request that the journal knows, a later run gives the recorded persona, or an
    `OutcomeUnknownError`; it sends again what was certainly not created. Any number of processes may share a journal.

    - `url`: the path of an SQLite file, which is made where there is none, or a database as SQLAlchemy names it:
      `postgresql://user@host/database`. The tables are called `suno_persona_...`.
    - `resend_unknown`: send those again of which nobody knows whether there is a persona. There may be two then.

    Use it with `async with`, or let `create_many` open and close it. Raises `ConfigurationError` for a URL that cannot
    be used, and `JournalError` when it is opened or used and the database fails.

    >>> import asyncio
    >>> from suno_persona import PersonaAPI
    >>> from suno_persona.testing import FakeSuno
    >>> async def main(path):
    ...     request = CreatePersonaRequest(root_clip_id="54834687", name="Neon", description="Night drive")
    ...     async with FakeSuno() as fake, PersonaAPI(fake.api_key, base_url=fake.base_url) as api:
    ...         for _ in range(2):
    ...             async for outcome in api.create_many([request], journal=Journal(path)):
    ...                 print(outcome.result().name, len(fake.requests))
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     asyncio.run(main(pathlib.Path(folder, "personas.db")))
    Neon 1
    Neon 1
    """

    def __init__(self, url: str | os.PathLike[str], *, resend_unknown: bool = False) -> None:
        self._url = database_url(url)
        self._resend_unknown = options.flag("resend_unknown", resend_unknown)
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
                self._store = Store(await Database.open(self._url, make=self._may_be_made))
            self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._users -= 1
        if not self._users and self._store is not None:
            store, self._store = self._store, None
            await store.close()

    def __enter__(self) -> NoReturn:
        raise TypeError("Journal is asynchronous: write `async with`, not `with`")

    def __exit__(self, *_: object) -> None: ...

    def __repr__(self) -> str:
        return f"<Journal {shown(self._url)}>"

    def run(self) -> "Run":
        """Begin one run over the requests of a batch. The journal is open meanwhile."""
        return Run(self._open_store(), resend_unknown=self._resend_unknown)

    async def counts(self) -> dict[State, int]:
        """How many requests are in which state."""
        return await self._open_store().counts()

    async def entries(self, *states: State) -> AsyncIterator[Entry]:
        """Give what it holds, in the order of the keys: all of it, or those in one of these states."""
        async for row in self._open_store().rows(states):
            yield _entry(row)

    async def find(self, key: str) -> Entry | None:
        """What it holds of one request, if anything."""
        row = await self._open_store().find(key)
        return None if row is None else _entry(row)

    async def resolve(self, key: str, *, persona_id: str | None = None) -> None:
        """Settle a request that is unknown or claimed, after you looked: created with this id, or not created.

        A later run gives a `Persona` with this id and nothing else, or sends the request again. Raises a `JournalError`
        where there is no such request, or where it has an outcome.
        """
        if persona_id is None:
            settled = Settled("not_created", reason="resolved by hand")
        else:
            settled = _created(Persona(id=persona_id))
        await self._open_store().resolve(key, settled)

    def _open_store(self) -> Store:
        if self._store is None:
            raise UsageError(message="the journal is not open: use `async with` around what you do with it")
        return self._store


class Keys:
    """The keys of a batch's requests, which are the same whenever it is run, in any order."""

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()

    def next(self, body: bytes) -> str:
        """The key of the next request, by its wire body: a hash, and its place among the identical ones so far."""
        digest = hashlib.sha256(body).digest()
        self._seen[digest] += 1
        return f"{digest.hex()}:{self._seen[digest]}"


class Run:
    """One run over the requests of a batch: gives each its key, and sends it if nobody did."""

    def __init__(self, store: Store, *, resend_unknown: bool) -> None:
        self._store = store
        self._holder = uuid.uuid4().hex
        self._since = now()  # what other processes do from here on, this run does not do again
        self._resend_unknown = resend_unknown
        self._keys = Keys()
        self._recording: dict[Call, asyncio.Future[None]] = {}

    def key(self, call: Call) -> str:
        """The key of the next request."""
        return self._keys.next(call.body)

    async def send(self, call: Call, send: Callable[[Call], Awaitable[Persona]]) -> Persona:
        """Send a call after its claim is committed, and begin to record its outcome; or give what is recorded of it.

        Raises a `JournalError` where the claim cannot be committed: nothing was sent.
        """
        row = await self._store.claim(
            call.key,
            call.body.decode(),
            holder=self._holder,
            since=self._since,
            resend_unknown=self._resend_unknown,
        )
        if row is not None:
            return _entry(row).result()
        try:
            persona = await send(call)
        except PersonaError as error:
            self._record(call, _not_there(error))
            raise
        except asyncio.CancelledError:
            message = "cancelled while its request was out" if call.may_have_created else "cancelled before it was sent"
            self._record(call, Settled("unknown" if call.may_have_created else "not_created", reason=message))
            raise
        self._record(call, _created(persona))
        return persona

    async def recorded(self, call: Call) -> None:
        """Wait until the outcome of a call is committed. Where it cannot be, the claim stays: a `JournalError`."""
        if (recording := self._recording.pop(call, None)) is not None:
            await asyncio.shield(recording)

    def _record(self, call: Call, settled: Settled) -> None:
        self._recording[call] = self._store.settle(call.key, settled, holder=self._holder)


def _created(persona: Persona) -> Settled:
    return Settled("created", persona=dumps(persona).decode(), persona_id=_storable(persona.id))


def _not_there(error: PersonaError) -> Settled:
    status = getattr(error, "status", None)
    found: str | None = getattr(error, "persona_id", None)
    return Settled(
        "unknown" if error.may_have_created else "not_created",
        persona_id=found and _storable(found),
        reason=_storable(f"{type(error).__name__}{f', HTTP {status}' if status else ''}: {error.message}"),
    )


def _storable(text: str) -> str:
    """Text that every database takes: no lone surrogates, and no NUL, which PostgreSQL refuses."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _entry(row: Row) -> Entry:
    try:
        if row.state not in get_args(State) or (row.state == "created") is (row.persona is None):
            raise ValueError(f"its state is {row.state!r}, and its persona {row.persona!r}")  # noqa: TRY301
        return Entry(
            key=row.key,
            state=row.state,
            request=to_request(parse_json(row.body)),
            claimed_at=datetime.fromisoformat(row.claimed_at),
            claimed_by=row.claimed_by,
            settled_at=None if row.settled_at is None else datetime.fromisoformat(row.settled_at),
            persona=None if row.persona is None else loads(row.persona),
            persona_id=row.persona_id,
            reason=row.reason,
        )
    except ValueError as error:
        raise JournalError(message=f"the journal's record of {row.key} cannot be read: {error}") from error
