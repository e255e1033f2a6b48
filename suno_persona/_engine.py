"""One call from request to outcome: its slot, its attempts, and the retries between them.

`create`, `create_many` and the workers all come through `Engine.create`. It knows no aiohttp and no journal.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
import attrs
from multidict import CIMultiDict
from yarl import URL

from suno_persona import _transport as transport
from suno_persona._admission import Admission
from suno_persona._error_body import one_line, request_id
from suno_persona._response import Response, read_persona, read_usual, slash_redirect, without_secret
from suno_persona._retry import RetryPolicy, backoff, cools_down_all, should_retry
from suno_persona._secret import Secret
from suno_persona.conversion import as_written, dump_request
from suno_persona.errors import InvalidRequestError, NotCreatedError, OutcomeUnknownError, PersonaError
from suno_persona.models import CreatePersonaRequest, Persona

_log = logging.getLogger("suno_persona")


class Call:
    """One request on its way, and what is known of it so far."""

    __slots__ = (
        "_body",
        "attempts",
        "body_request_id",
        "document",
        "headers",
        "may_have_created",
        "may_retry",
        "request",
    )

    def __init__(self, request: CreatePersonaRequest) -> None:
        if not isinstance(request, CreatePersonaRequest):
            message = f"request must be a CreatePersonaRequest; got a {type(request).__name__}"
            raise InvalidRequestError(message=message, request=request)
        self.request: CreatePersonaRequest = request
        self.attempts: int = 0
        """How many attempts were made."""
        self.may_retry: bool = True
        """Whether another attempt may follow a failed one."""
        self.may_have_created: bool = False
        """Whether an attempt is in flight, or one has failed with an unknown outcome."""
        self.headers: Mapping[str, str] = {}
        """The headers of the response that holds the persona."""
        self.body_request_id: str | None = None
        """The `request_id` in the body of that response."""
        self.document: bytes | None = None
        """The body of that response, where it is the persona's document and nothing else."""
        self._body: bytes | None = None

    @property
    def body(self) -> bytes:
        """The wire body; written when it is first needed, so that a call that waits holds less memory."""
        if self._body is None:
            self._body = dump_request(self.request)
        return self._body


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

    open_session: Callable[[], aiohttp.ClientSession]
    """Return the open session; raises `UsageError` where there is none, or where it belongs to another event loop."""

    url: URL
    """The endpoint; changes to the path that the service redirected to."""

    headers: CIMultiDict[str]
    key: Secret
    timeout: aiohttp.ClientTimeout
    """The bounds of one HTTP request."""

    max_response_size: int
    retry: RetryPolicy
    admission: Admission

    @property
    def account(self) -> Account:
        """Which service and which account this is."""
        url = self.url
        endpoint = f"{url.scheme}://{url.host_port_subcomponent}{url.raw_path.rstrip('/')}"
        return Account(endpoint, self.key.fingerprint)

    async def create(self, call: Call, claim: Callable[[], Awaitable[Persona | None]] | None = None) -> Persona:
        """Return the persona of a call, once a slot is free.

        `claim` is awaited before that: what it returns or raises is the outcome, and nothing is sent, unless it returns
        `None`.

        Raises `NotCreatedError` or `OutcomeUnknownError`, with the call's `request` and `attempts`; and what `claim`
        raises.
        """
        try:
            self.open_session()
            if claim is None:
                return await self._send(call)
            async with self.admission.claims:
                recorded = await claim()
                return await self._send(call) if recorded is None else recorded
        except PersonaError as error:
            error.request = call.request
            if isinstance(error, NotCreatedError | OutcomeUnknownError):
                error.attempts = call.attempts
            raise
        except Exception as error:  # of a hook, or a bug: what is known of the call decides all the same
            kind = OutcomeUnknownError if call.may_have_created else NotCreatedError
            message = one_line(self.key.mask(f"unexpected {type(error).__name__}: {error}"))
            raise kind(message=message, request=call.request, attempts=call.attempts) from error.with_traceback(None)

    async def _send(self, call: Call) -> Persona:
        """Make attempts in a slot, until one succeeds, or fails with an error that is not retried."""
        async with self.admission.slots:
            return await self._send_in_slot(call)

    async def _send_in_slot(self, call: Call) -> Persona:
        unknown: OutcomeUnknownError | None = None
        is_redirected = False
        while True:
            try:
                async with self.admission.attempt(call.attempts + 1):
                    persona = await self._attempt(call, may_redirect=not is_redirected)
            except (NotCreatedError, OutcomeUnknownError) as error:
                if isinstance(error, OutcomeUnknownError):
                    unknown = error
                call.may_have_created = unknown is not None
                if call.may_retry and should_retry(self.retry, error, call.attempts):
                    await self._back_off(error, call.attempts)
                elif unknown is None or error is unknown:
                    raise
                else:  # with `retry_unknown`: an earlier attempt may have created a persona
                    raise unknown from error
            else:
                if persona is not None:
                    return persona
                is_redirected = True
                call.attempts -= 1  # the same attempt goes on there
                call.may_have_created = unknown is not None

    async def _attempt(self, call: Call, *, may_redirect: bool) -> Persona | None:
        """Send the request, and return its persona, or `None` where the service redirected the endpoint."""
        call.attempts += 1
        call.may_have_created = True
        response = await self._exchange(call)
        if may_redirect and (target := slash_redirect(self.url, response)):
            self.url = target  # for later calls too
            return None
        persona = read_usual(response)
        if persona is None or self.key.begins_in(response.body):
            response = without_secret(response, self.key)  # so that no model, error or frame holds an echo of it
            persona, call.body_request_id = read_persona(response)
        else:
            call.document = as_written(response.body)
        call.headers = response.headers
        return persona

    async def _exchange(self, call: Call) -> Response:
        """Send one HTTP request."""
        response: Response | None = None
        started = time.perf_counter()
        try:
            response = await transport.post(
                self.open_session(),
                self.url,
                headers=self.headers,
                body=call.body,
                timeout=self.timeout,
                max_response_size=self.max_response_size,
                secret=self.key,
            )
            return response
        finally:
            if _log.isEnabledFor(logging.DEBUG):
                self._log_attempt(call.attempts, response, time.perf_counter() - started)

    def request_id(self, call: Call) -> str | None:
        """Return the service's id of the exchange that created a call's persona."""
        return self._masked(request_id(call.headers) or call.body_request_id)

    def _masked(self, text: str | None) -> str | None:
        return None if text is None else self.key.mask(text)

    async def _back_off(self, error: NotCreatedError | OutcomeUnknownError, attempt: int) -> None:
        shared = cools_down_all(error)
        wait = self.admission.remaining() if shared else backoff(self.retry, error, attempt)
        _log.info("attempt %d of %d in %.2f s, after: %s", attempt + 1, self.retry.attempts, wait, error)
        if not shared:  # the cool-down delays the next attempt of every call, this one included
            await self.admission.sleep(wait)

    def _log_attempt(self, attempt: int, response: Response | None, elapsed: float) -> None:
        status, ident = "no response", None
        if response is not None:
            status, ident = f"HTTP {response.status}", self._masked(request_id(response.headers))
        _log.debug("attempt %d: %s, request id %s, %.3f s", attempt, status, ident, elapsed)
