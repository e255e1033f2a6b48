"""A service on a loopback port that behaves as the contract says."""

import asyncio
import concurrent.futures
import contextlib
import threading
import uuid
from collections import deque
from collections.abc import Generator, Mapping
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from multidict import CIMultiDict

from suno_persona import _options as options
from suno_persona.conversion import loads
from suno_persona.errors import ConfigurationError, UsageError
from suno_persona.models import Persona
from suno_persona.testing import _contract
from suno_persona.testing._contract import ReceivedRequest
from suno_persona.testing._faults import Failures, Fault


class Arrival(concurrent.futures.Future[None]):
    """The arrival of requests: `await` it, or call `result(timeout)` in synchronous code."""

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.wrap_future(self).__await__()


class FakeSuno:
    """A fake service for your tests. It checks each request as the contract says, and creates its persona.

    It rejects a clip whose id starts with `unknown-`, `uploaded-` or `foreign-` as one that does not exist, came from
    the uploader or belongs to another account. Every other clip exists. A clip whose id starts with the name of a
    fault, such as `lost-response-1` or `rate-limited-2`, meets that fault the first time that it is sent.

    - `latency`: seconds from a request to its response; its persona is created at once.
    - `failures`: shares of the requests that meet a fault, by its name: `{"lost-response": 0.01}`. The names are
      `rate-limited`, `unavailable`, `server-error`, `dropped`, `lost-response`, `truncated-response` and `hang`.
    - `seed`: seed for reproducible faults.

    Use it with `with` or `async with`: it runs in a thread of its own, so that it also serves synchronous code, other
    event loops and subprocesses.

    >>> import asyncio
    >>> from suno_persona import CreatePersonaRequest, PersonaAPI
    >>> async def main():
    ...     request = CreatePersonaRequest(
    ...         root_clip_id="54834687", name="Neon", description="Night drive"
    ...     )
    ...     async with FakeSuno() as fake:
    ...         async with PersonaAPI(fake.api_key, base_url=fake.base_url) as api:
    ...             await api.create(request)
    ...         return fake.personas[0].name, fake.requests[0].method
    >>> asyncio.run(main())
    ('Neon', 'POST')
    """

    def __init__(
        self,
        *,
        api_key: str = "sk-fake-0123456789",
        create_path: str = "/suno/persona/create/",
        port: int = 0,
        latency: float = 0.0,
        failures: Mapping[str, float] | None = None,
        seed: int | None = None,
    ) -> None:
        options.seconds("latency", latency)
        self.api_key: str = api_key
        """The key that a request must have."""
        self.requests: list[ReceivedRequest] = []
        """Every request received, in order, the rejected ones included."""
        self.personas: list[Persona] = []
        """Every persona created, in order, those included whose response was lost."""
        self._create_path = create_path
        self._port = port
        self._latency = latency
        self._faults: deque[Fault] = deque()
        self._failures = Failures(failures or {}, seed)
        self._arrivals: list[tuple[int, Arrival]] = []
        self._lock = threading.Lock()  # for the faults, the requests and their arrivals
        self._thread: threading.Thread | None = None

    def script(self, *faults: Fault) -> None:
        """Fail the next requests with these faults, one each, in order."""
        for fault in faults:
            if not isinstance(fault, Fault):
                raise UsageError(message=f"faults must be Fault objects; got {fault!r}")
        with self._lock:
            self._faults.extend(faults)

    def clear_script(self) -> None:
        """Discard the faults that no request has met yet."""
        with self._lock:
            self._faults.clear()

    def wait_for_requests(self, count: int) -> Arrival:
        """Wait until `requests` has this many, and `personas` those of them that were created.

        Use `await fake.wait_for_requests(2)`, or `fake.wait_for_requests(2).result(timeout=10)` in synchronous code.
        """
        arrival = Arrival()
        with self._lock:
            self._arrivals.append((count, arrival))
            self._announce()
        return arrival

    @property
    def base_url(self) -> str:
        """The base URL of the service. Raises `UsageError` if it is not running."""
        if self._thread is None:
            raise UsageError(message="FakeSuno must be running; got one that is not: use `with FakeSuno() as fake`")
        return self._base_url

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise UsageError(message="FakeSuno must not be running yet; got one that is: make another one")
        started: concurrent.futures.Future[str] = concurrent.futures.Future()
        thread = threading.Thread(target=asyncio.run, args=[self._run(started)], name="FakeSuno", daemon=True)
        thread.start()
        try:
            self._base_url = started.result()
        except OSError as error:
            thread.join()
            raise ConfigurationError(message=f"port must be free; got {self._port} ({error.strerror})") from error
        self._thread = thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
            self._thread = None

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)  # blocks for milliseconds, and cannot be cancelled half-way

    async def _run(self, started: "concurrent.futures.Future[str]") -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self._port).start()
            host, port = runner.addresses[0][:2]
            started.set_result(f"http://{host}:{port}")
            await self._stopping.wait()
        except Exception as error:
            started.set_exception(error)
        finally:
            # A server that closes while it accepts a connection leaks it (github.com/python/cpython/issues/109564).
            for _ in range(3):
                await asyncio.sleep(0)
            await runner.cleanup()
            await asyncio.sleep(0)  # until the transports are closed

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        request = ReceivedRequest(
            method=http.method, path=http.path_qs, headers=CIMultiDict(http.headers), body=await http.read()
        )
        with self._lock:
            fault = self._fault(request)
            status, body = self._create(request) if fault.creates else (200, b"")
            self.requests.append(request)  # after its persona: a reader of the request sees both
            self._announce()
        if self._latency:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._latency)
        if fault.status is not None:
            status, body = fault.status, fault.body
        headers = CIMultiDict({"Content-Type": "application/json", "X-Request-Id": uuid.uuid4().hex})
        headers.update(fault.headers)
        match fault.ending:
            case "hanging":
                await self._stopping.wait()
                http.protocol.force_close()
            case "closed":
                http.protocol.force_close()
            case "cut":
                headers["Content-Length"] = str(len(body))
                response = web.StreamResponse(status=status, headers=headers)
                await response.prepare(http)
                await response.write(body[: len(body) // 2])
                http.protocol.force_close()
                return response
        return web.Response(status=status, body=body, headers=headers)

    def _fault(self, request: ReceivedRequest) -> Fault:
        """Return the fault of a request. The caller holds the lock."""
        if self._faults:
            return self._faults.popleft()
        document = _contract.json_object(request) or {}
        return self._failures.next(document.get("root_clip_id")) or Fault(creates=True)

    def _create(self, request: ReceivedRequest) -> tuple[int, bytes]:
        number = len(self.personas) + 1
        try:
            body = _contract.create(request, api_key=self.api_key, create_path=self._create_path, number=number)
        except _contract.RejectedError as error:
            return error.status, error.body
        self.personas.append(loads(body))
        return 200, body

    def _announce(self) -> None:
        """Complete the arrivals that are due. The caller holds the lock."""
        due = [arrival for count, arrival in self._arrivals if count <= len(self.requests)]
        self._arrivals = [(count, arrival) for count, arrival in self._arrivals if count > len(self.requests)]
        for arrival in due:
            if arrival.set_running_or_notify_cancel():
                arrival.set_result(None)
