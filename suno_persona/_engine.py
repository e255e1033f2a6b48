"""One call from request to outcome: its attempts, and the waits between them.

`create`, `create_many` and the workers all come through `Engine.send`. It knows no aiohttp exceptions and no journal.
"""

import asyncio
import logging
import time
from collections.abc import Callable

import attrs
from aiohttp import ClientTimeout
from yarl import URL

from suno_persona._admission import Admission
from suno_persona._response import Ended, Exchange, Failure, Reader, slash_redirect
from suno_persona._retry import RetryPolicy, backoff, cools_down_all, should_retry
from suno_persona._shield import uncancelled
from suno_persona._transport import Transport
from suno_persona.conversion import dump_request
from suno_persona.errors import InvalidRequestError, NotCreatedError, OutcomeUnknownError
from suno_persona.models import CreatePersonaRequest, Persona

_log = logging.getLogger("suno_persona")


class Call:
    """One request to be sent."""

    __slots__ = ("is_waiting", "may_retry", "request", "timeout")

    def __init__(self, request: CreatePersonaRequest, timeout: ClientTimeout | None = None) -> None:
        if not isinstance(request, CreatePersonaRequest):
            message = f"request must be a CreatePersonaRequest; got a {type(request).__name__}"
            raise InvalidRequestError(message=message, request=request)
        self.request: CreatePersonaRequest = request
        self.timeout: ClientTimeout | None = timeout
        """That of each attempt, if it is not that of the client."""
        self.may_retry: bool = True
        """Whether another attempt may follow a failed one."""
        self.is_waiting: bool = True
        """Whether it has not ended, and no attempt is in flight."""


def not_sent(request: CreatePersonaRequest, cancellation: BaseException, attempts: int = 0) -> Ended:
    """Return the end of a call that was cancelled while it waited."""
    error = NotCreatedError(message="cancelled before it was sent", request=request, attempts=attempts)
    return Ended(error, cancellation=cancellation)


def _is_large(exchange: Exchange) -> bool:
    """Return whether reading a response may take milliseconds, which would block the event loop."""
    size = len(exchange.received)
    return size > 64 * 1024 or (size > 4 * 1024 and "Content-Encoding" in exchange.headers)


@attrs.frozen(eq=False)
class Account:
    """Which service a client talks to, and as whom; a journal belongs to one."""

    endpoint: str
    """The endpoint's scheme, host and path, without a trailing slash."""

    fingerprint: Callable[[bytes], str]
    """Return a hash of the API key with this salt: the same for the same key, and useless for guessing it. Slow."""


@attrs.define(kw_only=True, eq=False, repr=False)
class Engine:
    """Creates personas with the settings of one client."""

    transport: Transport
    reader: Reader
    admission: Admission
    retry: RetryPolicy
    timeout: ClientTimeout
    url: URL
    """The endpoint. After a redirect to its path with or without the slash, that path."""

    @property
    def account(self) -> Account:
        """Which service and which account this is."""
        url = self.url
        endpoint = f"{url.scheme}://{url.host_port_subcomponent}{url.raw_path.rstrip('/')}"
        return Account(endpoint, self.reader.secret.fingerprint)

    async def send(self, call: Call) -> Ended:
        """Make attempts until one succeeds, or fails with an error that is not retried, and return how the call ended.

        A cancellation is returned too, for the caller to raise. Only exceptions that end a program are raised.
        """
        attempts = 0
        pause = 0.0
        unknown: OutcomeUnknownError | None = None
        while True:
            attempts += 1
            ended = await self._attempt(call, attempts, pause)
            error = ended.result
            if isinstance(error, Persona):
                return ended
            if isinstance(error, OutcomeUnknownError):
                unknown = error
            if ended.cancellation is not None or not call.may_retry or not should_retry(self.retry, error, attempts):
                break
            pause = self._pause(error, attempts)
            call.is_waiting = True
        if unknown is None or error is unknown:
            return ended
        # With `retry_unknown`, an earlier attempt may have created a persona.
        result = attrs.evolve(unknown, attempts=error.attempts)
        result.__cause__ = error
        return attrs.evolve(ended, result=result)

    async def _attempt(self, call: Call, number: int, pause: float) -> Ended:
        """Make one attempt, after a pause and once a slot is free."""
        admission, request = self.admission, call.request
        try:
            self.transport.open()
            if pause:
                await admission.sleep(pause)
            generation = admission.start() or await admission.wait()
        except asyncio.CancelledError as cancellation:
            return not_sent(request, cancellation, attempts=number - 1)
        except NotCreatedError as refusal:
            return Ended(attrs.evolve(refusal, request=request, attempts=number - 1))
        call.is_waiting = False
        result: object = None
        started = time.perf_counter()
        try:
            body, timeout = dump_request(request), call.timeout or self.timeout
            exchange = Exchange(self.url)
            await self.transport.post(exchange, body, timeout)
            if exchange.cancellation is None and (target := slash_redirect(exchange)) is not None:
                self.url = target  # for later calls too
                exchange = Exchange(target)
                await self.transport.post(exchange, body, timeout)
            if _is_large(exchange):
                ended, last = await uncancelled(asyncio.to_thread(self.reader.read, exchange, request, number))
                ended = attrs.evolve(ended, cancellation=last or ended.cancellation)
            else:
                ended = self.reader.read(exchange, request, number)
            result = ended.result
        finally:
            admission.end(generation, result, number)
        if _log.isEnabledFor(logging.DEBUG):
            status = "no response" if exchange.status is None else f"HTTP {exchange.status}"
            elapsed = time.perf_counter() - started
            clip = request.root_clip_id
            _log.debug("%s: attempt %d: %s, request id %s, %.3f s", clip, number, status, ended.request_id, elapsed)
        return ended

    def _pause(self, error: Failure, attempt: int) -> float:
        """Return the seconds that this call waits before its next attempt, besides a cool-down of all calls."""
        shared = cools_down_all(error)
        pause = self.admission.remaining() if shared else backoff(self.retry, error, attempt)
        _log.info("attempt %d of %d in %.2f s, after: %s", attempt + 1, self.retry.attempts, pause, error)
        return 0.0 if shared else pause
