"""`PersonaAPI`, the facade: it checks its arguments and puts the parts together."""

import logging
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

import aiohttp

from suno_persona import _options as options
from suno_persona._admission import Admission
from suno_persona._batch import Batch, BatchJournal
from suno_persona._engine import Account, Call, Engine
from suno_persona._response import Ended, Reader
from suno_persona._retry import RetryPolicy
from suno_persona._transport import Transport
from suno_persona.errors import ConfigurationError, InvalidRequestError, NotCreatedError
from suno_persona.models import CreatePersonaRequest, Outcome, Persona

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter
    from cattrs import Converter

_log = logging.getLogger("suno_persona")


class PersonaAPI:
    """A client of one service that creates personas. Make one for the life of your application.

    Any number of tasks may share it. It opens its session at first use, in the running event loop, and belongs to that
    loop. Close it with `async with` or `await api.close()`.

    - `api_key`: the service's key; defaults to `SUNO_API_KEY`. A leading `Bearer` is dropped.
    - `base_url`: the service's address, with or without a path; defaults to `SUNO_BASE_URL`. There is no default
      host: the key is never sent to a host that you did not name. `http://` requires a loopback host or
      `allow_insecure=True`.
    - `max_connections`: the size of the connection pool, and the number of attempts in flight. Other calls wait for
      a slot; first come, first served.
    - `timeout`: an `aiohttp.ClientTimeout`, or seconds for its `total`. It bounds each attempt, and starts when the
      attempt starts: waiting for a slot does not count.
    - `retry`: which failures are retried, how often, and with what backoff.
    - `rate_limit`: an `aiolimiter.AsyncLimiter`, from which each attempt takes one; clients may share it.
    - `proxy`: the URL of an HTTP proxy, with or without a user and a password. Loopback hosts never go through it.
    - `trust_env`: use the proxy that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` name, as Python's
      `urllib.request` reads them.
    - `session`: a session of your own, for CAs or tracing. It is used and never closed.
    - `converter`: a cattrs converter that reads personas: `conversion.make_converter()` with hooks of your own.
    - `max_response_size`: the largest response in bytes, after decompression.
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

    __slots__ = ("__weakref__", "_engine", "_max_connections")

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        max_connections: int = options.DEFAULT_MAX_CONNECTIONS,
        timeout: aiohttp.ClientTimeout | float = options.DEFAULT_TIMEOUT,
        retry: RetryPolicy = RetryPolicy(),
        rate_limit: "AsyncLimiter | None" = None,
        proxy: str | None = None,
        trust_env: bool = False,
        session: aiohttp.ClientSession | None = None,
        converter: "Converter | None" = None,
        max_response_size: int = 4 * 1024 * 1024,
        allow_insecure: bool = False,
        create_path: str | None = None,
    ) -> None:
        # First of all, so that no frame of a traceback shows them.
        masked, masked_proxy = options.mask(api_key), options.mask(proxy)
        del api_key, proxy
        key = options.key(masked)
        url = options.endpoint(base_url, create_path, allow_insecure=allow_insecure)
        policy = options.instance("retry", retry, RetryPolicy)
        size = options.count("max_response_size", max_response_size)
        self._max_connections = options.count("max_connections", max_connections)
        self._engine = Engine(
            transport=Transport(
                headers=options.headers(options.session(session)),
                secret=key,
                max_connections=max_connections,
                max_response_size=size,
                session=session,
                proxy=options.proxy(masked_proxy, url, trust_env=trust_env),
            ),
            reader=Reader(
                secret=key,
                max_response_size=size,
                wait_max=policy.wait_max,
                converter=options.converter(converter),
            ),
            admission=Admission(max_connections, policy, options.rate_limit(rate_limit)),
            retry=policy,
            timeout=options.timeouts(timeout),
            url=url,
        )

    async def create(
        self, request: CreatePersonaRequest, *, timeout: aiohttp.ClientTimeout | float | None = None
    ) -> Persona:
        """Create a persona and return it, as the service describes it; its `id` is always there.

        `timeout` bounds each attempt of this call instead of the client's. Raises a `NotCreatedError` if there is
        certainly no persona, and an `OutcomeUnknownError` if there may be one; nothing else, but a `ConfigurationError`
        for an unusable `timeout`. First it retries as `RetryPolicy` says; by default, only after failures that
        certainly created nothing.

        If the call is cancelled after its persona was received, the id is logged at WARNING.
        """
        ended = await self._send(request, timeout)
        if isinstance(ended.result, Persona):
            return ended.result
        raise ended.result

    async def outcome(
        self, request: CreatePersonaRequest, *, timeout: aiohttp.ClientTimeout | float | None = None
    ) -> Outcome:
        """Do what `create` does, and return its persona or its error as an `Outcome`. Raises no `PersonaError`.

        >>> import asyncio
        >>> from suno_persona.testing import FakeSuno
        >>> async def main():
        ...     request = CreatePersonaRequest(
        ...         root_clip_id="unknown-1", name="Neon", description="Night drive"
        ...     )
        ...     async with FakeSuno() as fake:
        ...         async with PersonaAPI(fake.api_key, base_url=fake.base_url) as api:
        ...             return await api.outcome(request)
        >>> asyncio.run(main()).error.code
        'clip_not_found'
        """
        try:
            return (await self._send(request, timeout)).outcome(0, request)
        except InvalidRequestError as error:
            return Outcome(0, request, None, error)

    async def _send(self, request: CreatePersonaRequest, timeout: aiohttp.ClientTimeout | float | None) -> Ended:
        ended = await self._engine.send(Call(request, None if timeout is None else options.timeouts(timeout)))
        if ended.cancellation is not None:
            if ended.persona_id is not None:
                _log.warning("persona %s was created, and its call was cancelled", ended.persona_id)
            raise ended.cancellation
        return ended

    async def create_many(
        self,
        requests: Iterable[CreatePersonaRequest] | AsyncIterable[CreatePersonaRequest],
        *,
        journal: BatchJournal | None = None,
    ) -> AsyncGenerator[Outcome, None]:
        """Create a persona for each request, and yield an `Outcome` for each, in completion order.

        `requests` is any iterable or async iterable. It is consumed lazily: at most `2 * max_connections + 1` requests
        are read and not yet yielded as outcomes. With a `suno_persona.journal.Journal`, a batch that was stopped or
        killed can be run again: what was created is not sent again, and what was in flight is an unknown outcome.

        A batch opens up: one request is in flight at first. Each persona doubles the window, up to `max_connections`;
        an unknown outcome, a failed connection, or a status such as 401, 402, 403, 429 or 5xx halves it.

        The error of a call is in its outcome. Exceptions from `requests` propagate, and so does a `JournalError`: both
        after the calls in flight are finished and their outcomes are yielded. Also raises `UsageError` if the client is
        closed or belongs to another event loop.

        Stopping early starts no more requests, and waits for the calls in flight: write
        `async with contextlib.aclosing(api.create_many(...)) as outcomes:` to decide when. Cancelling the reader
        cancels them. Without a journal, the id of each persona that was not read is logged at WARNING.

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
        async with self.batch(requests, journal=journal) as batch:
            async for outcome in batch:
                yield outcome

    def batch(
        self,
        requests: Iterable[CreatePersonaRequest] | AsyncIterable[CreatePersonaRequest],
        *,
        journal: BatchJournal | None = None,
    ) -> Batch:
        """Return the batch that `create_many` iterates over, for callers that stop or cancel it."""
        self._engine.transport.open()
        if not isinstance(journal, BatchJournal | None):
            raise ConfigurationError(message=f"journal must be a Journal; got a {type(journal).__name__}")
        return Batch(requests, self._engine, max_connections=self._max_connections, journal=journal)

    async def send(self, call: Call) -> Ended:
        """Send a request, and return how its call ended; a cancellation, too, for callers that record it."""
        return await self._engine.send(call)

    @property
    def account(self) -> Account:
        """Which service this is a client of, and which account: a journal belongs to one."""
        return self._engine.account

    @property
    def cool_down(self) -> tuple[NotCreatedError, float] | None:
        """The rejection after which no attempt starts, and the seconds that are left; `None` if there is none."""
        return self._engine.admission.cool_down

    async def close(self) -> None:
        """Close the connections, unless the session is yours.

        Calls in flight end at once with a `ConnectionLostError`, those that wait with a `UsageError`.
        """
        transport = self._engine.transport
        if not transport.is_closed:
            transport.join_loop()
            self._engine.admission.close()
            await transport.close()

    async def __aenter__(self) -> Self:
        self._engine.transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __enter__(self) -> NoReturn:
        raise TypeError("PersonaAPI is asynchronous: write `async with`, not `with`")

    def __exit__(self, *_: object) -> None: ...

    def __repr__(self) -> str:
        # Also while it is made: crash reporters print it as a variable of `__init__`.
        engine = getattr(self, "_engine", None)
        if engine is None:
            return "<PersonaAPI without an address>"
        return f"<PersonaAPI {engine.url}{' closed' if engine.transport.is_closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("PersonaAPI cannot be pickled or copied: it holds connections and a key. Make one per process")
