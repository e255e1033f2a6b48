"""`PersonaAPI`: what users hold. It checks its options, owns the session and composes the parts below."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

import aiohttp
from multidict import CIMultiDict

from suno_persona import _options as options
from suno_persona._admission import Pacing
from suno_persona._batch import Batch, Outcome
from suno_persona._engine import Call, Sender
from suno_persona._retry import RetryPolicy
from suno_persona._secret import Secret
from suno_persona.errors import PersonaError, UsageError
from suno_persona.models import CreatePersonaRequest, Persona

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

    from suno_persona.journal import Journal

# Shorter than the shortest that servers commonly keep an idle connection (5 seconds), so that a request seldom
# meets one that is being closed: nobody could tell whether it was received.
_KEEP_ALIVE = 4.0


class PersonaAPI:
    """A client of one service that creates personas; one object for the life of your application.

    Many tasks may share it. It opens its connections at first use, in the event loop that runs then, and
    belongs to that loop. Close it with `async with` or `await api.close()`.

    - `api_key`: the service's key; `SUNO_API_KEY` where it is `None`. The word `Bearer` before it is dropped.
    - `base_url`: the service's address, with or without a path; `SUNO_BASE_URL` where it is `None`. There is
      no default: the key goes to no host that you did not name. Plain `http://` needs a loopback host or
      `allow_insecure=True`.
    - `max_connections`: how many connections its pool holds, and how many calls are under way at once. The others
      wait for their turn; first come, first served.
    - `timeout`: `total` bounds each HTTP request, in seconds, from the moment at which it starts: waiting for a turn
      does not count. The other bounds of aiohttp's class hold too.
    - `retry`: what is repeated, how often and after how long.
    - `rate_limit`: an `aiolimiter.AsyncLimiter`, of which each HTTP request takes one; clients may share it.
    - `session`: a session of your own, for proxies, CAs or tracing. It is used and never closed.
    - `max_response_size`: how many bytes of an answer are read at most, after decompression.
    - `create_path`: where the endpoint stands below `base_url`.

    Raises `ConfigurationError` for an argument that cannot be used.

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
        "_loop",
        "_max_connections",
        "_owns_session",
        "_pacing",
        "_sender",
        "_session",
        "_url",
    )

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        max_connections: int = 32,
        timeout: aiohttp.ClientTimeout = aiohttp.ClientTimeout(total=60, sock_connect=10),
        retry: RetryPolicy = RetryPolicy(),
        rate_limit: "AsyncLimiter | None" = None,
        session: aiohttp.ClientSession | None = None,
        max_response_size: int = 4 * 1024 * 1024,
        allow_insecure: bool = False,
        create_path: str = "/suno/persona/create/",
    ) -> None:
        masked = options.mask(api_key)
        del api_key  # first of all, so that no frame of a traceback shows it
        key = options.key(masked)
        self._url = options.endpoint(base_url, create_path, allow_insecure=allow_insecure)
        self._max_connections = options.count("max_connections", max_connections)
        options.count("max_response_size", max_response_size)
        options.timeouts(timeout)
        options.instance("retry", retry, RetryPolicy)
        self._pacing = Pacing(self._max_connections, retry.wait_max, options.rate_limit(rate_limit))
        self._sender = Sender(
            session=self._open_session,
            url=self._url,
            headers=CIMultiDict({"Authorization": Secret(f"Bearer {key}"), "Content-Type": "application/json"}),
            key=key,
            timeout=timeout,
            max_response_size=max_response_size,
            retry=retry,
            pacing=self._pacing,
        )
        self._session = options.session(session)
        self._owns_session = session is None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def create(self, request: CreatePersonaRequest) -> Persona:
        """Create a persona and return it, as the service describes it; its `id` is always there.

        Raises a `NotCreatedError` where there is certainly no persona, an `OutcomeUnknownError` where there
        may be one, and a `UsageError` where the client is closed or belongs to another event loop. An
        `InvalidRequestError` says that `request` is no `CreatePersonaRequest`. What is repeated first is said by
        `RetryPolicy`: unless told otherwise, nothing that may have created a persona.
        """
        try:
            self._join_loop()
            await self._pacing.turns.acquire()
            try:
                return await self._sender.send(Call(request))
            finally:
                self._pacing.turns.release()
        except PersonaError as error:
            error.request = request
            raise

    async def create_many(
        self,
        requests: Iterable[CreatePersonaRequest] | AsyncIterable[CreatePersonaRequest],
        *,
        journal: "Journal | None" = None,
    ) -> AsyncGenerator[Outcome, None]:
        """Create a persona for each request, and yield one `Outcome` each, in the order in which they are completed.

        `requests` is any iterable or async iterable. It is read as calls get their turn, and never more than
        `2 * max_connections + 1` ahead of the reader. With a `journal`, a batch that was stopped or killed is run again
        without sending anything twice.

        An error of a call is in its outcome. Raised are what `requests` itself raises, and a `JournalError` where the
        record fails: both after the calls under way are finished and their outcomes are yielded. Also a `UsageError`
        where the client is closed or belongs to another event loop.

        A reader that stops early sends nothing more, and waits for the requests that are out: write
        `async with contextlib.aclosing(api.create_many(...)) as outcomes:` to do so at a place of your choice. A reader
        that is cancelled cancels them.

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
        async with self._batch(requests, journal) as batch:
            async for outcome in batch:
                yield outcome

    def _batch(
        self,
        requests: Iterable[CreatePersonaRequest] | AsyncIterable[CreatePersonaRequest],
        journal: "Journal | None",
    ) -> Batch:
        self._join_loop()
        self._open_session()
        return Batch(
            requests,
            self._sender.send,
            turns=self._pacing.turns,
            ahead=2 * self._max_connections,
            journal=options.journal(journal),
        )

    async def close(self) -> None:
        """Close the connections, unless the session is yours.

        Calls that are under way end with a `ConnectionLostError`, those that wait with a `UsageError`.
        """
        if self._closed:
            return
        if self._loop is not None:
            self._join_loop()
        self._closed = True
        self._pacing.close()
        if self._owns_session and self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> Self:
        self._join_loop()
        self._open_session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __enter__(self) -> NoReturn:
        raise TypeError("PersonaAPI is asynchronous: write `async with`, not `with`")

    def __exit__(self, *_: object) -> None: ...

    def __repr__(self) -> str:
        # Also for one whose arguments were refused: crash reporters print it as a variable of `__init__`.
        url = getattr(self, "_url", "without an address")
        return f"<PersonaAPI {url}{' closed' if getattr(self, '_closed', False) else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("PersonaAPI cannot be pickled or copied: it holds connections and a key. Make one per process")

    def _join_loop(self) -> None:
        """Belong to the running loop from the first use on."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise UsageError(message="the client belongs to another event loop: make one PersonaAPI per loop")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise UsageError(message="the client is closed: make a new PersonaAPI")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=_KEEP_ALIVE),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        elif self._session.closed:
            raise UsageError(message="the session that was passed as session= is closed: pass an open one")
        return self._session
