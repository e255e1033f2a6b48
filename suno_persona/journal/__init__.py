"""The record that makes a batch resumable: which request was claimed, when and by whom, and what became of it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

import attrs
from msgspec.structs import asdict

from suno_persona import _options as options
from suno_persona._response import Ended
from suno_persona.conversion import parse_json, to_request
from suno_persona.errors import InvalidRequestError, JournalError, UsageError
from suno_persona.models import CreatePersonaRequest, Outcome, Persona

try:
    from suno_persona.journal import _states as ledger
    from suno_persona.journal._database import database_url, shown
    from suno_persona.journal._states import Decision, Record, State
    from suno_persona.journal._storage import PAGE, Storage
    from suno_persona.journal._writer import Run, Writer, here
except ModuleNotFoundError as _error:
    _message = "a journal needs the journal extra: pip install 'suno-persona[journal]'"
    raise ModuleNotFoundError(_message, name=_error.name) from _error

if TYPE_CHECKING:
    from suno_persona._engine import Account

__all__ = ["Entry", "Journal", "State"]

_LOOK_BACK = timedelta(minutes=5)


@attrs.frozen(kw_only=True)
class Entry:
    """The journal's record of one request."""

    key: str
    """The SHA-256 of its wire body, a colon, and its ordinal, from 1, among identical requests."""

    state: State
    """`"created"`, `"not_created"` or `"unknown"`; `"claimed"`: in flight, or its process was stopped before it
    recorded an outcome; `"queued"`: it waits for a worker."""

    request: CreatePersonaRequest
    """The request."""

    claimed_at: datetime
    """When it was enqueued or last claimed, in UTC."""

    claimed_by: str
    """The host and the process that did."""

    settled_at: datetime | None
    """When its outcome was recorded, in UTC."""

    persona: Persona | None
    """The persona; `None` unless it was created."""

    persona_id: str | None
    """The persona's id, even if the rest of its response could not be read."""

    request_id: str | None
    """The service's id of the exchange, for its support."""

    reason: str | None
    """Why there is no persona, or why the outcome is unknown."""

    index: int | None
    """Its index in the batch that was enqueued; `None` if it was not."""

    by_hand: bool
    """Whether it was resolved by hand, and can be resolved again."""

    _ended: Ended = attrs.field(alias="ended", eq=False, repr=False)

    @classmethod
    def of(cls, record: Record) -> Self:
        """Parse a record. Raises `JournalError` if somebody else wrote what cannot be read into the database."""
        ended = record.ended()
        fields = {name: value for name, value in asdict(record).items() if name not in ("body", "holder", "doubt")}
        fields["claimed_at"] = datetime.fromisoformat(record.claimed_at)
        fields["settled_at"] = record.settled_at and datetime.fromisoformat(record.settled_at)
        fields["persona"] = ended.result if isinstance(ended.result, Persona) else None
        request = to_request(parse_json(record.body))
        return cls(request=request, by_hand=record.by_hand, ended=ended, **fields)

    def outcome(self, index: int) -> Outcome:
        """Return the recorded outcome, for a request with this index in its batch.

        Its error says when the request was claimed and by whom: a `NotCreatedError` if there is certainly no persona,
        and an `OutcomeUnknownError` otherwise.
        """
        return self._ended.outcome(index, self.request, self.key)


class _RollBack(Exception):  # noqa: N818 - it is no error
    """Ends a transaction without a commit."""


class Journal:
    """The record of a batch: `api.create_many(requests, journal=Journal("personas.db"))`.

    A request is committed to it before it is sent, and its outcome before you see it, so that the batch may be killed
    at any moment and run again. For a request that the journal knows, a later run yields the recorded persona, or an
    `OutcomeUnknownError`; it sends again only requests that certainly created nothing. Any number of processes may
    share a journal.

    A journal belongs to one service and one account: the first claim binds it to the client's endpoint and key. A run
    of another client raises a `JournalError` before anything is sent.

    - `url`: the path of an SQLite file, which is created if it does not exist, or the URL of a database as SQLAlchemy
      reads it: `postgresql://user@host/database`. The tables are called `suno_persona_...`.
    - `retry_unknown`: send requests again whose outcome is unknown. There may be two personas then.
    - `accept_new_key`: accept another API key, which was rotated within the account, and bind the journal to it.

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

    def __init__(
        self, url: str | os.PathLike[str], *, retry_unknown: bool = False, accept_new_key: bool = False
    ) -> None:
        self._url = database_url(url)
        self._retry_unknown = options.flag("retry_unknown", retry_unknown)
        self._accept_new_key = options.flag("accept_new_key", accept_new_key)
        self._may_create = True
        self._writer: Writer | None = None
        self._opening = asyncio.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def existing(cls, url: str | os.PathLike[str]) -> Self:
        """Return a journal that must exist already, or opening it raises `JournalError`."""
        journal = cls(url)
        journal._may_create = False
        return journal

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self._users and loop is not self._loop:
            raise UsageError(message="the journal is open in another event loop: make one Journal for each")
        self._loop = loop
        async with self._opening:
            if self._writer is None:
                writer = Writer(Storage(self._url))
                try:
                    await writer.call(writer.storage.open, create=self._may_create)
                except BaseException:
                    await writer.close()
                    raise
                self._writer = writer
            self._users += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._users -= 1
        if not self._users and self._writer is not None:
            writer, self._writer = self._writer, None
            await writer.close()

    @property
    def has_password(self) -> bool:
        """Whether its URL has a password, which must not be printed."""
        return "***" in shown(self._url)

    def __enter__(self) -> NoReturn:
        raise TypeError("Journal is asynchronous: write `async with`, not `with`")

    def __exit__(self, *_: object) -> None: ...

    def __repr__(self) -> str:
        return f"<Journal {shown(self._url)}>"

    async def begin(self, account: "Account", *, retry_not_created: bool = True) -> Run:
        """Begin one run over the requests of a batch, which ends before the journal is closed.

        Requests that earlier runs settled as not created are sent again, unless `retry_not_created` is `False`. Raises
        `JournalError` if the journal belongs to another endpoint, or to another key.
        """
        writer = self._open()
        binding, since = await writer.call(writer.storage.begin, account, accept_new_key=self._accept_new_key)
        terms = {
            "by": here(),
            "since": since if retry_not_created else "",
            "retry_unknown": self._retry_unknown,
            "binding": binding,
        }
        return Run(writer=writer, terms=terms)

    async def counts(self, *, enqueued: bool = False) -> dict[State, int]:
        """Count the requests in each state: all of them, or those that were enqueued for workers."""
        writer = self._open()
        return await writer.call(writer.storage.counts, enqueued=enqueued)

    async def entries(self, *states: State, prefix: str = "", settled_since: str | None = None) -> AsyncIterator[Entry]:
        """Yield the entries in the order of their keys: all, or those in these states whose keys have this prefix.

        With `settled_since`, only those that were enqueued, and settled after this time, as text in ISO format.
        """
        writer, after = self._open(), ""
        while True:
            page = await writer.call(writer.storage.page, after, states, prefix=prefix, settled_since=settled_since)
            for record in page:
                yield Entry.of(record)
            if len(page) < PAGE:
                return
            after = page[-1].key

    async def find(self, key: str) -> Entry | None:
        """Return the entry with this key; `None` if there is none."""
        found = [entry async for entry in self.entries(prefix=key)]
        return found[0] if found and found[0].key == key else None

    async def settled(self, *, poll_interval: float = 1.0) -> AsyncIterator[Entry]:
        """Yield each enqueued request once it is settled, until every one is.

        It polls the database every `poll_interval` seconds.
        """
        seen, newest = set[str](), datetime.min.replace(tzinfo=UTC)
        while True:
            counts = await self.counts(enqueued=True)
            pending = any(counts.get(state) for state in ledger.PENDING)
            # Clocks differ, and the first to settle may be the last to commit: look back a while, and then at all.
            since = (newest - _LOOK_BACK).isoformat() if pending and seen else ""
            async for entry in self.entries(*ledger.SETTLED, settled_since=since):
                newest = max(newest, entry.settled_at or newest)
                if entry.key not in seen:
                    seen.add(entry.key)
                    yield entry
            if not pending:
                return
            await asyncio.sleep(poll_interval)

    async def enqueue(
        self, batch: Sequence[ledger.Enqueue], defer: Callable[[object, Sequence[Record], Sequence[Record]], int]
    ) -> int:
        """Queue requests for the workers of `suno_persona.distributed`. Returns how many jobs that made.

        `defer` makes the jobs in the same transaction: it is called in the journal's thread, with the driver's
        connection, the records that this queues, and those that were pending before. It returns how many jobs it made.
        """
        made = 0

        def then(connection: object, decisions: Sequence[Decision]) -> None:
            nonlocal made
            queued = [one for one in decisions if isinstance(one, Record) and one.state == "queued"]
            known = [
                d.record if isinstance(d, ledger.Refusal) else d
                for d in decisions
                if getattr(d, "state", None) != "queued"
            ]
            made = defer(connection, queued, [one for one in known if one is not None and one.state in ledger.PENDING])

        writer = self._open()
        await writer.call(writer.storage.commit, batch, then)
        return made

    async def resolve(self, key: str, *, persona_id: str | None = None, not_created: bool = False) -> None:
        """Settle a request after you looked: created with this id, or not created.

        A later run yields a `Persona` with this id and nothing else, or sends the request again. A request that was
        resolved by hand can be resolved again. Raises `InvalidRequestError` unless exactly one of the two is passed,
        and for a blank id; and `JournalError` if there is no such request, or if the service itself settled it.
        """
        if (persona_id is None) is not not_created:
            found = "both" if not_created else "neither"
            raise InvalidRequestError(message=f"resolve must have either persona_id or not_created=True; got {found}")
        _resolution(key, persona_id)
        for reason in (await self.resolve_all({key: persona_id})).values():
            raise JournalError(message=f"{self._open().storage.name}: {key!r} cannot be resolved: {reason}")

    async def resolve_all(self, resolutions: Mapping[str, str | None], *, dry_run: bool = False) -> dict[str, str]:
        """Resolve many requests, or none of them: each key as created with this id, or with `None` as not created.

        Returns why a request cannot be resolved, by its key. If any cannot, or with `dry_run`, nothing is written.
        """
        writer, reasons, events = self._open(), dict[str, str](), list[ledger.Settle]()
        for key, persona_id in resolutions.items():
            try:
                events.append(_resolution(key, persona_id))
            except InvalidRequestError as error:
                reasons[key] = error.message

        def then(_: object, decisions: Sequence[Decision]) -> None:
            for event, decision in zip(events, decisions, strict=True):
                if isinstance(decision, ledger.Refusal):
                    reasons[event.key] = decision.reason
            if reasons or dry_run:
                raise _RollBack

        with suppress(_RollBack):
            await writer.call(writer.storage.commit, events, then)
        return reasons

    def _open(self) -> Writer:
        if self._writer is None:
            raise UsageError(message="the journal is not open: use it inside `async with`")
        return self._writer


def _resolution(key: str, persona_id: str | None) -> ledger.Settle:
    """Return the event of a resolution by hand. Raises `InvalidRequestError` for an id that cannot be one."""
    if persona_id is None:
        return ledger.Settle(key, "", "not_created", reason="resolved by hand")
    if isinstance(persona_id, str) and persona_id.split() == [persona_id]:
        return ledger.settlement(key, "", Ended(Persona(id=persona_id)))
    raise InvalidRequestError(message=f"persona_id must be an id without white space; got {persona_id!r}")
