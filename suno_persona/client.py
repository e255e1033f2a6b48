"""`PersonaAPI`: what users hold. It checks its options, owns the session and composes the parts below."""

import asyncio
from types import TracebackType
from typing import NoReturn, Self

import aiohttp
from yarl import URL

from suno_persona import options, transport
from suno_persona.conversion import dump_request
from suno_persona.errors import InvalidRequestError, PersonaError, UsageError
from suno_persona.models import CreatePersonaRequest, Persona
from suno_persona.response import Response, read_persona, slash_redirect, without_secret


class PersonaAPI:
    """A client of one service that creates personas; one object for the life of your application.

    Many tasks may share it. It opens its connections at first use, in the event loop that runs then, and
    belongs to that loop. Close it with `async with` or `await api.close()`.

    - `api_key`: the service's key; `SUNO_API_KEY` where it is `None`. A leading `Bearer ` is dropped.
    - `base_url`: the service's address, with or without a path; `SUNO_BASE_URL` where it is `None`. There is
      no default: the key goes to no host that you did not name. Plain `http://` needs a loopback host or
      `allow_insecure=True`.
    - `max_connections`: how many connections its pool holds at most.
    - `timeout`: `total` bounds each attempt, in seconds; the other bounds of aiohttp's class hold too.
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
        session: aiohttp.ClientSession | None = None,
        max_response_size: int = 4 * 1024 * 1024,
        allow_insecure: bool = False,
        create_path: str = "/suno/persona/create/",
    ) -> None:
        masked = options.mask(api_key)
        del api_key  # first of all, so that no frame of a traceback shows it
        self._key = options.key(masked)
        self._headers = {"Authorization": options.Secret(f"Bearer {self._key}")}
        self._url = options.endpoint(base_url, create_path, allow_insecure=allow_insecure)
        self._max_connections = options.count("max_connections", max_connections)
        self._max_response_size = options.count("max_response_size", max_response_size)
        self._total, self._timeout = options.timeouts(timeout)
        self._session = options.session(session)
        self._owns_session = session is None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def create(self, request: CreatePersonaRequest) -> Persona:
        """Create a persona and return it, as the service describes it; its `id` is always there.

        Raises a `NotCreatedError` where there is certainly no persona, an `OutcomeUnknownError` where there
        may be one, and a `UsageError` where the client is closed or belongs to another event loop. An
        `InvalidRequestError` says that `request` is no `CreatePersonaRequest`. Nothing is sent twice.
        """
        if not isinstance(request, CreatePersonaRequest):
            raise InvalidRequestError(
                message=f"request: expected a CreatePersonaRequest, found a {type(request).__name__}"
            )
        try:
            return self._read(await self._exchange(dump_request(request)))
        except PersonaError as error:
            error.request = request
            raise

    async def close(self) -> None:
        """Close the connections, unless the session is yours. Calls still in flight break off."""
        if self._closed:
            return
        if self._loop is not None:
            self._check_loop()
        self._closed = True
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

    async def _exchange(self, body: bytes) -> Response:
        session = self._open_session()
        response = await self._post(session, self._url, body)
        if target := slash_redirect(self._url, response):
            response = await self._post(session, target, body)
        return response

    async def _post(self, session: aiohttp.ClientSession, url: URL, body: bytes) -> Response:
        return await transport.post(
            session,
            url,
            headers=self._headers,
            body=body,
            total=self._total,
            timeout=self._timeout,
            max_response_size=self._max_response_size,
        )

    def _read(self, response: Response) -> Persona:
        try:
            return read_persona(response)
        except PersonaError:
            response = without_secret(response, self._key)
        return read_persona(response)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise UsageError(message="the client is closed: make a new PersonaAPI")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._check_loop()
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections), cookie_jar=aiohttp.DummyCookieJar()
            )
        elif self._session.closed:
            raise UsageError(message="the session that was passed as session= is closed: pass an open one")
        return self._session

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise UsageError(message="the client belongs to another event loop: make one PersonaAPI per loop")
