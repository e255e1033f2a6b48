"""`PersonaAPI`: what users hold. It checks its options, owns the session and composes the parts below."""

import asyncio
import logging
import time
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

import aiohttp
from yarl import URL

from suno_persona import options, transport
from suno_persona.body import request_id
from suno_persona.conversion import dump_request
from suno_persona.errors import (
    InvalidRequestError,
    NotCreatedError,
    OutcomeUnknownError,
    PersonaError,
    RateLimitedError,
    RejectedError,
    ServiceUnavailableError,
    UsageError,
)
from suno_persona.models import CreatePersonaRequest, Persona
from suno_persona.pacing import Pacing
from suno_persona.response import Response, read_persona, slash_redirect, without_secret
from suno_persona.retry import RetryPolicy, cools_all, is_repeated, wait_after
from suno_persona.secret import Secret

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

_log = logging.getLogger("suno_persona")

# Shorter than the shortest that servers commonly keep an idle connection (5 seconds), so that a request seldom
# meets one that is being closed: nobody could tell whether it was received.
_KEEP_ALIVE = 4.0


class PersonaAPI:
    """A client of one service that creates personas; one object for the life of your application.

    Many tasks may share it. It opens its connections at first use, in the event loop that runs then, and
    belongs to that loop. Close it with `async with` or `await api.close()`.

    - `api_key`: the service's key; `SUNO_API_KEY` where it is `None`. A leading `Bearer ` is dropped.
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
    ...     async with FakeSuno() as fake, PersonaAPI(fake.api_key, base_url=fake.base_url) as api:
    ...         return await api.create(
    ...             CreatePersonaRequest(root_clip_id="54834687", name="Neon", description="Night drive")
    ...         )
    >>> asyncio.run(main()).name
    'Neon'
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_headers",
        "_key",
        "_loop",
        "_max_connections",
        "_max_response_size",
        "_owns_session",
        "_pacing",
        "_retry",
        "_session",
        "_timeout",
        "_total",
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
        self._key = options.key(masked)
        self._headers = {"Authorization": Secret(f"Bearer {self._key}"), "Content-Type": "application/json"}
        self._url = options.endpoint(base_url, create_path, allow_insecure=allow_insecure)
        self._max_connections = options.count("max_connections", max_connections)
        self._max_response_size = options.count("max_response_size", max_response_size)
        self._total, self._timeout = options.timeouts(timeout)
        self._retry = options.instance("retry", retry, RetryPolicy)
        self._pacing = Pacing(self._max_connections, retry.longest_wait, options.rate_limit(rate_limit))
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
        if not isinstance(request, CreatePersonaRequest):
            message = f"request: expected a CreatePersonaRequest, found a {type(request).__name__}"
            raise InvalidRequestError(message=message)
        body = dump_request(request)
        url = self._url
        attempt = 0
        unknown: OutcomeUnknownError | None = None
        try:
            self._open_session()
            async with self._pacing.turns:
                while True:
                    try:
                        place = await self._pacing.start()
                        attempt += 1
                        answer = await self._attempt(place, url, body, attempt)
                    except (NotCreatedError, OutcomeUnknownError) as error:
                        error.attempts = attempt
                        if isinstance(error, OutcomeUnknownError):
                            unknown = error
                        await self._wait_for_next(error, attempt)
                    else:
                        if isinstance(answer, Persona):
                            return answer
                        url, attempt = answer, attempt - 1  # the same attempt goes on there
        except PersonaError as error:
            error.request = request
            if unknown is None or error is unknown:
                raise
            # With `repeat_unknown` an earlier attempt may have created a persona, whatever became of the last one.
            unknown.request, unknown.attempts = request, attempt
            raise unknown from error

    async def close(self) -> None:
        """Close the connections, unless the session is yours.

        Calls that are under way end with a `ConnectionLostError`, those that wait with a `UsageError`.
        """
        if self._closed:
            return
        if self._loop is not None:
            self._check_loop()
        self._closed = True
        self._pacing.close()
        if self._owns_session and self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> Self:
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

    async def _attempt(self, place: int, url: URL, body: bytes, attempt: int) -> Persona | URL:
        """Send the request once, and give the place back; the result is that of `_exchange`."""
        answered = False
        try:
            answer = await self._exchange(url, body, attempt)
            answered = True
        except (RateLimitedError, ServiceUnavailableError) as refusal:
            if cools_all(refusal):
                self._pacing.cool(refusal, wait_after(self._retry, refusal, attempt))
            raise
        except (RejectedError, OutcomeUnknownError) as error:
            answered = error.status is not None
            raise
        else:
            return answer
        finally:
            self._pacing.end(place, answered=answered)

    async def _exchange(self, url: URL, body: bytes, attempt: int) -> Persona | URL:
        """Give the persona, or the address to send the request to instead."""
        response: Response | None = None
        started = time.perf_counter()
        try:
            response = await transport.post(
                self._open_session(),
                url,
                headers=self._headers,
                body=body,
                total=self._total,
                timeout=self._timeout,
                max_response_size=self._max_response_size,
                secret=self._key,
            )
            if url is self._url and (target := slash_redirect(url, response)):
                return target
            try:
                return read_persona(response)
            except PersonaError:
                # Read again without the key, so that neither the error nor a frame of its traceback holds an echo.
                response = without_secret(response, self._key)
            return read_persona(response)
        finally:
            if _log.isEnabledFor(logging.DEBUG):
                self._log_attempt(attempt, response, time.perf_counter() - started)

    async def _wait_for_next(self, error: NotCreatedError | OutcomeUnknownError, attempt: int) -> None:
        """Wait as long as the error asks for, or raise it."""
        if not is_repeated(self._retry, error, attempt):
            raise error
        shared = cools_all(error)
        wait = self._pacing.cooling() if shared else wait_after(self._retry, error, attempt)
        _log.info("attempt %d of %d in %.2f s, after: %s", attempt + 1, self._retry.attempts, wait, error)
        if not shared:  # the next attempt waits for the cool-down, as those of all other calls do
            await self._pacing.rest(wait)

    def _log_attempt(self, attempt: int, response: Response | None, elapsed: float) -> None:
        status, ident = "no answer", None
        if response is not None:
            status, ident = f"HTTP {response.status}", request_id(without_secret(response, self._key).headers)
        _log.debug("attempt %d: %s, request id %s, %.3f s", attempt, status, ident, elapsed)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise UsageError(message="the client is closed: make a new PersonaAPI")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._check_loop()
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=_KEEP_ALIVE),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        elif self._session.closed:
            raise UsageError(message="the session that was passed as session= is closed: pass an open one")
        return self._session

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError(message="the client belongs to another event loop: make one PersonaAPI per loop")
