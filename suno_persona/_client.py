"""`PersonaAPI`: what users hold. It checks its arguments, owns the session and puts the engine together."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from suno_persona import _options as options
from suno_persona._admission import Admission
from suno_persona._batch import Batch, BatchJournal
from suno_persona._connector import Connector
from suno_persona._engine import Call, Engine
from suno_persona._retry import RetryPolicy
from suno_persona._shield import finish
from suno_persona.errors import ConfigurationError, UsageError
from suno_persona.models import CreatePersonaRequest, Outcome, Persona

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

# Seconds. Shorter than the shortest time for which servers commonly keep an idle connection (5), so that a request
# rarely meets one that is being closed: whether it was received would be unknown.
_KEEP_ALIVE = 4.0


class PersonaAPI:
    """A client of one service that creates personas. Make one for the life of your application.

    Any number of tasks may share it. It opens its session at first use, in the running event loop, and belongs to that
    loop. Close it with `async with` or `await api.close()`.

    - `api_key`: the service's key; defaults to `SUNO_API_KEY`. A leading `Bearer` is dropped.
    - `base_url`: the service's address, with or without a path; defaults to `SUNO_BASE_URL`. There is no default
      host: the key is never sent to a host that you did not name. `http://` requires a loopback host or
      `allow_insecure=True`.
    - `max_connections`: the size of the connection pool, and the number of calls in flight. Other calls wait for a
      slot; first come, first served.
    - `timeout`: an `aiohttp.ClientTimeout`, or seconds for its `total`. It bounds each attempt, from the moment at
      which the attempt starts: waiting for a slot does not count.
    - `retry`: which failures are retried, how often, and with what backoff.
    - `rate_limit`: an `aiolimiter.AsyncLimiter`, from which each HTTP request takes one; clients may share it.
    - `session`: a session of your own, for proxies, CAs or tracing. It is used and never closed.
    - `max_response_size`: how many bytes of a response are read at most, after decompression.
    - `create_path`: the path of the endpoint below `base_url`; defaults to `SUNO_CREATE_PATH`, then to
      `/suno/persona/create/`.

    Raises `ConfigurationError` for an unusable argument.

    >>> import asyncio
    >>> from suno_persona.testing import FakeSuno
    >>> async def main():
    ...     request = CreatePersonaRequest(
    ...         root_clip_id="54834687", name="Neon", description="Night drive"
    ...     )
    ...     async with FakeSuno() as fake:
    ...         async with PersonaAPI(fake.api_key, base_url=fake.base_url) as api:
    ...             return await api.create(request)
    >>> asyncio.run(main()).name
    'Neon'
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_engine",
        "_loop",
        "_max_connections",
        "_owns_session",
        "_proxy",
        "_session",
    )

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        max_connections: int = options.DEFAULT_MAX_CONNECTIONS,
        timeout: aiohttp.ClientTimeout | float = options.DEFAULT_TIMEOUT,
        retry: RetryPolicy = RetryPolicy(),
        rate_limit: "AsyncLimiter | None" = None,
        session: aiohttp.ClientSession | None = None,
        max_response_size: int = 4 * 1024 * 1024,
        allow_insecure: bool = False,
        create_path: str | None = None,
    ) -> None:
        masked = options.mask(api_key)
        del api_key  # first of all, so that no frame of a traceback shows it
        key = options.key(masked)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._max_connections = options.count("max_connections", max_connections)
        self._session = options.session(session)
        self._owns_session = session is None
        self._proxy: URL | None = None
        policy = options.instance("retry", retry, RetryPolicy)
        headers = {"Content-Type": "application/json"}  # `post` adds the key
        self._engine = Engine(
            open_session=self._open_session,
            url=options.endpoint(base_url, create_path, allow_insecure=allow_insecure),
            headers=CIMultiDict(headers | options.user_agent(session)),
            key=key,
            timeout=options.timeouts(timeout),
            max_response_size=options.count("max_response_size", max_response_size),
            retry=policy,
            admission=Admission(max_connections, policy, options.rate_limit(rate_limit)),
        )

    async def create(self, request: CreatePersonaRequest) -> Persona:
        """Create a persona and return it, as the service describes it; its `id` is always there.

        Raises a `NotCreatedError` where there is certainly no persona, and an `OutcomeUnknownError` where there may be
        one; nothing else. `RetryPolicy` says what is retried first; by default, only what certainly created nothing.
        """
        return await self._engine.create(Call(request))

    async def create_many(
        self,
        requests: Iterable[CreatePersonaRequest] | AsyncIterable[CreatePersonaRequest],
        *,
        journal: BatchJournal | None = None,
    ) -> AsyncGenerator[Outcome, None]:
        """Create a persona for each request, and yield an `Outcome` for each, in completion order.

        `requests` is any iterable or async iterable. It is consumed lazily: at most `2 * max_connections + 1` requests
        are read and not yet yielded as outcomes. With a `suno_persona.journal.Journal`, a batch that was stopped or
        killed can be run again, and no request is sent twice.

        The error of a call is in its outcome. Raised are what `requests` itself raises, and `JournalError` where the
        journal fails: both after the calls in flight are finished and their outcomes are yielded. Also `UsageError`
        where the client is closed or belongs to another event loop.

        A reader that stops early sends nothing more, and waits for the calls in flight: write
        `async with contextlib.aclosing(api.create_many(...)) as outcomes:` to decide when. Cancelling the reader
        cancels them.

        >>> import asyncio
        >>> from suno_persona.testing import FakeSuno
        >>> async def main():
        ...     requests = (
        ...         CreatePersonaRequest(
        ...             root_clip_id=clip, name="Neon", description="Night drive"
        ...         )
        ...         for clip in ["54834687", "unknown-1"]
        ...     )
        ...     async with FakeSuno() as fake:
        ...         async with PersonaAPI(fake.api_key, base_url=fake.base_url) as api:
        ...             return [outcome async for outcome in api.create_many(requests)]
        >>> for outcome in sorted(asyncio.run(main()), key=lambda outcome: outcome.index):
        ...     print(outcome.error.code if outcome.error else outcome.persona.name)
        Neon
        clip_not_found
        """
        async with open_batch(self, requests, journal) as batch:
            async for outcome in batch:
                yield outcome

    async def close(self) -> None:
        """Close the connections, unless the session is yours.

        Calls in flight end with a `ConnectionLostError`, those that wait with a `UsageError`.
        """
        if self._closed:
            return
        if self._loop is not None:
            self._join_loop()
        self._closed = True
        self._engine.admission.close()
        if self._owns_session and self._session is not None:
            await finish(self._session.close())

    async def __aenter__(self) -> Self:
        self._open_session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    if not TYPE_CHECKING:  # for checkers, a plain `with` is an error already

        def __enter__(self):
            raise TypeError("PersonaAPI is asynchronous: write `async with`, not `with`")

        def __exit__(self, *_): ...

    def __repr__(self) -> str:
        # Also while it is made: crash reporters print it as a variable of `__init__`.
        engine = getattr(self, "_engine", None)
        url = engine.url if engine is not None else "without an address"
        return f"<PersonaAPI {url}{' closed' if getattr(self, '_closed', False) else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("PersonaAPI cannot be pickled or copied: it holds connections and a key. Make one per process")

    def _join_loop(self) -> None:
        """Bind the client to the running loop, at its first use."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise UsageError(message="the client belongs to another event loop: make one PersonaAPI per loop")

    def _open_session(self) -> aiohttp.ClientSession:
        """Return the open session of the running loop."""
        self._join_loop()
        if self._closed:
            raise UsageError(message="the client is closed: make a new PersonaAPI")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=Connector(limit=self._max_connections, keepalive_timeout=_KEEP_ALIVE),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=self._proxy,
            )
        elif self._session.closed:
            raise UsageError(message="the session that was passed as session= is closed: pass an open one")
        return self._session


def engine_of(api: PersonaAPI) -> Engine:
    """Return a client's engine, for the workers."""
    return api._engine


def use_proxy(api: PersonaAPI, proxy: URL | None) -> None:
    """Send a client's requests through a proxy, from the moment at which it opens its session: for the environment."""
    api._proxy = proxy


def open_batch(
    api: PersonaAPI,
    requests: Iterable[CreatePersonaRequest] | AsyncIterable[CreatePersonaRequest],
    journal: BatchJournal | None,
) -> Batch:
    """Return a batch of a client, for who wants to stop it: `create_many`, and the command."""
    api._open_session()
    if not isinstance(journal, BatchJournal | None):
        raise ConfigurationError(message=f"journal must be a Journal; got a {type(journal).__name__}")
    return Batch(requests, api._engine, max_buffered=2 * api._max_connections, journal=journal)
