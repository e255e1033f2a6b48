"""One call on its way: attempts, with the waits between them, until there is an answer to keep."""

import logging
import time
from collections.abc import Callable, Mapping

import aiohttp
import attrs
from yarl import URL

from suno_persona import _transport as transport
from suno_persona._admission import Pacing
from suno_persona._error_body import request_id
from suno_persona._response import Response, read_persona, slash_redirect, without_secret
from suno_persona._retry import RetryPolicy, cools_all, is_repeated, wait_after
from suno_persona._secret import Secret
from suno_persona.conversion import dump_request
from suno_persona.errors import (
    InvalidRequestError,
    NotCreatedError,
    OutcomeUnknownError,
    PersonaError,
    RateLimitedError,
    RejectedError,
    ServiceUnavailableError,
)
from suno_persona.models import CreatePersonaRequest, Persona

_log = logging.getLogger("suno_persona")


class Call:
    """A request on its way. Raises `InvalidRequestError` for what is no request."""

    __slots__ = ("body", "comes_again", "key", "may_have_created", "may_repeat", "request")

    def __init__(self, request: CreatePersonaRequest) -> None:
        if not isinstance(request, CreatePersonaRequest):
            message = f"request: expected a CreatePersonaRequest, found a {type(request).__name__}"
            raise InvalidRequestError(message=message)
        self.request: CreatePersonaRequest = request
        self.body: bytes = dump_request(request)
        self.key: str = ""
        """Under which a journal has it."""
        self.comes_again: Callable[[BaseException], bool] = _never
        """Whether somebody else will send it, where this error ended it before there was a persona."""
        self.may_repeat: bool = True
        """Whether another attempt may follow a failed one."""
        self.may_have_created: bool = False
        """Whether the request is out, or was, and no answer said that there is no persona."""


def _never(_: BaseException) -> bool:
    return False


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Sender:
    """What every call of a client is sent with."""

    session: Callable[[], aiohttp.ClientSession]
    """Gives the open session; raises `UsageError` where there is none."""

    url: URL
    headers: Mapping[str, str]
    key: Secret
    timeout: aiohttp.ClientTimeout
    """The bounds of one HTTP request."""

    max_response_size: int
    retry: RetryPolicy
    pacing: Pacing

    async def send(self, call: Call) -> Persona:
        """Try until there is an answer to keep. The caller holds a turn."""
        url = self.url
        attempt = 0
        unknown: OutcomeUnknownError | None = None
        try:
            while True:
                try:
                    place = await self.pacing.start()
                    attempt += 1
                    call.may_have_created = True
                    answer = await self._attempt(place, url, call.body, attempt)
                except (NotCreatedError, OutcomeUnknownError) as error:
                    error.attempts = attempt
                    if isinstance(error, OutcomeUnknownError):
                        unknown = error
                    call.may_have_created = unknown is not None
                    if not call.may_repeat:
                        raise
                    await self._wait_for_next(error, attempt)
                else:
                    if isinstance(answer, Persona):
                        return answer
                    url, attempt = answer, attempt - 1  # the same attempt goes on there
                    call.may_have_created = unknown is not None
        except PersonaError as error:
            if unknown is None or error is unknown:
                raise
            # With `retry_unknown` an earlier attempt may have created a persona, whatever became of the last one.
            unknown.attempts = attempt
            raise unknown from error

    async def _attempt(self, place: int, url: URL, body: bytes, attempt: int) -> Persona | URL:
        """Send the request once, and give the place back; the result is that of `_exchange`."""
        answered = False
        try:
            answer = await self._exchange(url, body, attempt)
            answered = True
        except (RateLimitedError, ServiceUnavailableError) as refusal:
            if cools_all(refusal):
                self.pacing.cool(refusal, wait_after(self.retry, refusal, attempt))
            raise
        except (RejectedError, OutcomeUnknownError) as error:
            answered = error.status is not None
            raise
        else:
            return answer
        finally:
            self.pacing.end(place, answered=answered)

    async def _exchange(self, url: URL, body: bytes, attempt: int) -> Persona | URL:
        """Give the persona, or the address to send the request to instead."""
        response: Response | None = None
        started = time.perf_counter()
        try:
            response = await transport.post(
                self.session(),
                url,
                headers=self.headers,
                body=body,
                timeout=self.timeout,
                max_response_size=self.max_response_size,
                secret=self.key,
            )
            if url is self.url and (target := slash_redirect(url, response)):
                return target
            try:
                return read_persona(response)
            except PersonaError:
                # Read again without the key, so that neither the error nor a frame of its traceback holds an echo.
                response = without_secret(response, self.key)
            return read_persona(response)
        finally:
            if _log.isEnabledFor(logging.DEBUG):
                self._log_attempt(attempt, response, time.perf_counter() - started)

    async def _wait_for_next(self, error: NotCreatedError | OutcomeUnknownError, attempt: int) -> None:
        """Wait as long as the error asks for, or raise it."""
        if not is_repeated(self.retry, error, attempt):
            raise error
        shared = cools_all(error)
        wait = self.pacing.cooling() if shared else wait_after(self.retry, error, attempt)
        _log.info("attempt %d of %d in %.2f s, after: %s", attempt + 1, self.retry.attempts, wait, error)
        if not shared:  # the next attempt waits for the cool-down, as those of all other calls do
            await self.pacing.rest(wait)

    def _log_attempt(self, attempt: int, response: Response | None, elapsed: float) -> None:
        status, ident = "no answer", None
        if response is not None:
            status, ident = f"HTTP {response.status}", request_id(without_secret(response, self.key).headers)
        _log.debug("attempt %d: %s, request id %s, %.3f s", attempt, status, ident, elapsed)
