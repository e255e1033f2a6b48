"""The meaning of an exchange: the facts of a request, and how it ended, become a persona or the right error.

Pure: no aiohttp, no awaits. `read` alone decides whether a persona exists.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeAlias

import attrs
from cattrs import Converter
from multidict import CIMultiDict
from yarl import URL

from suno_persona import _error_body as says
from suno_persona._secret import Secret
from suno_persona.conversion import parse_json, read_usual, to_persona
from suno_persona.errors import (
    AuthenticationError,
    ConnectionFailedError,
    ConnectionLostError,
    NotCreatedError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    RateLimitedError,
    RejectedError,
    ResponseTimeoutError,
    ServerError,
    ServiceUnavailableError,
    UnreadableResponseError,
    UsageError,
)
from suno_persona.models import CreatePersonaRequest, Outcome, Persona

Ending: TypeAlias = Literal["complete", "timeout", "lost", "unreadable", "too large", "closed", "cancelled", "raised"]
"""How an exchange ended: with a response, at a bound, by a connection that broke, by a response that is not HTTP or
exceeds `max_response_size`, by closing the client, by cancellation, or by an exception that aiohttp does not raise."""

Failure: TypeAlias = NotCreatedError | OutcomeUnknownError


class Exchange:
    """The known facts of one HTTP request: filled while it happens, and read once it has ended."""

    sent: bool = False
    """Whether any of the request may have been sent. `False` is certain."""

    status: int | None = None
    headers: Mapping[str, str] = CIMultiDict[str]()
    received: bytes = b""
    """The body as received, with its `Content-Encoding`."""

    is_whole: bool = False
    """Whether the end of the body was received."""

    ending: Ending = "complete"
    reason: str = ""
    """How it ended, in words; empty if it is complete."""

    cause: BaseException | None = None
    """The exception that ended it, unless it is aiohttp's."""

    cancellation: BaseException | None = None
    """The cancellation that ended it."""

    def __init__(self, url: URL) -> None:
        self.url = url


@attrs.define(eq=False, repr=False)
class Ended:
    """How a call ended."""

    result: Persona | Failure
    request_id: str | None = None
    """The service's id of the exchange, also of a success."""

    document: bytes | Mapping[str, Any] | None = None
    """The persona as received: the body, if that is all of it, or else the JSON object."""

    cancellation: BaseException | None = None
    """The cancellation of the call, for the caller to raise; the result is as known by then."""

    is_recorded: bool = False
    """Whether a journal had the result before."""

    @property
    def persona_id(self) -> str | None:
        """The id of the persona, as far as it was received."""
        return self.result.id if isinstance(self.result, Persona) else getattr(self.result, "persona_id", None)

    def outcome(self, index: int, request: CreatePersonaRequest, key: str | None = None) -> Outcome:
        """Return this as the outcome of a request of a batch."""
        persona, error = (self.result, None) if isinstance(self.result, Persona) else (None, self.result)
        return Outcome(index, request, persona, error, key, self.request_id, self.is_recorded)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Reader:
    """Reads exchanges, by the rules of one client."""

    secret: Secret
    max_response_size: int
    wait_max: float
    """A longer `Retry-After` fails at once, and the message says so."""

    converter: Converter | None = None
    """The caller's converter of personas, if any."""

    def read(self, exchange: Exchange, request: CreatePersonaRequest, attempts: int) -> Ended:
        """Decide what an exchange means; `attempts` is its number within the call.

        Nothing sent means not created. A whole persona is a persona, however the exchange ended. A status other than
        2xx decides, whatever the body. Otherwise the outcome is unknown, with the persona's id if it was received.
        """
        known: dict[str, Any] = {"request": request, "attempts": attempts}
        try:
            return self._read(exchange, known)
        except Exception as error:  # a bug, which must not cost the id
            exchange.ending, exchange.cause = "raised", error
            exchange.reason = self.secret.mask(says.one_line(f"unexpected {type(error).__name__}: {error}"))
            if exchange.status is not None:
                known["status"] = exchange.status
                text = self.secret.mask(exchange.received.decode(errors="replace"))
                known["persona_id"] = says.find_persona_id(text)
            return Ended(_without_response(exchange, known), cancellation=exchange.cancellation)

    def _read(self, exchange: Exchange, known: dict[str, Any]) -> Ended:
        status, received = exchange.status, exchange.received
        is_success = status is not None and 200 <= status < 300
        if is_success and self.converter is None and not self.secret.may_be_in(received):
            persona = read_usual(received)
            if persona is not None:
                request_id = says.request_id(exchange.headers)
                request_id = request_id and self.secret.mask(request_id)
                return Ended(persona, request_id, received, exchange.cancellation)
        if status is None:
            return Ended(_without_response(exchange, known), cancellation=exchange.cancellation)
        body = self._body(exchange)
        known |= {"status": status, "headers": body.headers, "body": body.shown}
        known |= {"code": says.code_of(body.document), "request_id": body.request_id}
        if not is_success:
            return Ended(self._unsuccessful(exchange, body, known), body.request_id, cancellation=exchange.cancellation)
        found = says.persona_in(body.document)
        return Ended(self._successful(exchange, body, known, found), body.request_id, found, exchange.cancellation)

    def _body(self, exchange: Exchange) -> "_Body":
        headers = CIMultiDict(
            (self.secret.mask(name), self.secret.mask(text)) for name, text in exchange.headers.items()
        )
        limit = self.max_response_size
        data, flaw = says.decompress(exchange.received[: limit + 1], headers.get("Content-Encoding", ""), limit)
        if len(data) > limit:
            data, flaw = data[:limit], f"it is larger than max_response_size, {limit} bytes"
        text, charset = says.decode(data, headers.get("Content-Type", ""))
        masked = self.secret.mask(text)
        shown = exchange.received[:limit] if flaw.startswith("it cannot") else data
        if masked != text:
            shown = masked.encode(charset, "replace")
        try:
            document, reason = parse_json(masked), ""
        except ValueError as error:
            document, reason = None, str(error)
        request_id = says.request_id(headers, document)
        return _Body(masked, document, flaw or reason, shown, headers, request_id)

    def _successful(
        self, exchange: Exchange, body: "_Body", known: dict[str, Any], found: dict[str, Any] | None
    ) -> Persona | Failure:
        """Return the persona or error that a 2xx means; `found` is the persona in its document, if any."""
        document = body.document
        if found is not None:
            try:
                return to_persona(found, self.converter)
            except Exception as error:  # a hook of the caller's may raise anything
                flaw = self.secret.mask(says.one_line(f"{type(error).__name__}: {error}"))
                unreadable = UnreadableResponseError(
                    message=f"the persona cannot be read ({flaw})",
                    persona_id=says.usable_id(says.member(found, "id")),
                    **known,
                )
                unreadable.__cause__ = error
                return unreadable
        is_page = says.is_web_page(body.text)
        if not exchange.is_whole:
            return _unknown(exchange, persona_id=says.find_persona_id(body.text, explicit=is_page), **known)
        if says.is_task(document):
            message = "the response is a task, not a persona: this gateway works with tasks, which this client does not"
            return UnreadableResponseError(message=message, **known)
        said = says.message_of(document) or says.summary(known["status"], body.text)
        persona_id = says.find_persona_id(body.text, explicit=is_page)
        if says.is_failure(document) and persona_id is None and not says.may_hold_persona(document):
            return RejectedError(message=said, **known)
        message = f"the response is not a persona ({body.flaw or 'it has no id'}); it says: {said}"
        if is_page:
            message = _web_page(exchange.url, said)
        return UnreadableResponseError(message=message, persona_id=persona_id, **known)

    def _unsuccessful(self, exchange: Exchange, body: "_Body", known: dict[str, Any]) -> Failure:
        """Return the error that a status other than 2xx means."""
        status: int = known["status"]
        message = says.message_of(body.document) or says.summary(status, body.text)
        if status in (404, 405) and says.is_web_page(body.text):
            message = _web_page(exchange.url, message)
        if status < 200:
            return UnreadableResponseError(message=message, **known)
        if status < 400:
            if location := body.headers.get("Location"):
                message = (
                    f"the service redirects to {says.one_line(location)}, which is not followed; "
                    "set base_url to the address that serves the endpoint"
                )
            return RejectedError(message=message, **known)
        error = says.member(body.document, "error")
        if 500 <= status < 600 and says.member(error, "code") == "invalid_request":
            return RejectedError(message=message, **known)  # the request was malformed: nothing ran
        if status in (429, 503):
            wait = _retry_after(body.headers)
            if wait is not None and wait > self.wait_max:
                message += f"; its Retry-After is {wait:.0f} s, longer than wait_max, {self.wait_max:g} s"
            kind = RateLimitedError if status == 429 else ServiceUnavailableError
            return kind(message=message, retry_after=wait, **known)
        if status < 500:
            return _REJECTIONS.get(status, RejectedError)(message=message, **known)
        return ServerError(message=message, persona_id=says.find_persona_id(body.text, explicit=True), **known)


@attrs.frozen
class _Body:
    """The body of a response, without the key, and the headers."""

    text: str
    document: object
    """The JSON value; `None` if there is none."""

    flaw: str
    """Why it is no JSON value; empty if it is one."""

    shown: bytes
    headers: Mapping[str, str]
    request_id: str | None


_REJECTIONS: dict[int, type[RejectedError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
}


def _without_response(exchange: Exchange, known: dict[str, Any]) -> Failure:
    if exchange.sent or exchange.status is not None:
        return _unknown(exchange, **known)
    kind: type[NotCreatedError] = NotCreatedError
    if exchange.ending == "closed":
        kind = UsageError
    elif exchange.ending in ("timeout", "lost", "unreadable"):
        kind = ConnectionFailedError
    error = kind(message=exchange.reason, **known)
    error.__cause__ = exchange.cause
    return error


_UNKNOWN: dict[Ending, type[OutcomeUnknownError]] = {
    "timeout": ResponseTimeoutError,
    "lost": ConnectionLostError,
    "closed": ConnectionLostError,
    "unreadable": UnreadableResponseError,
    "too large": UnreadableResponseError,
}


def _unknown(exchange: Exchange, **known: Any) -> OutcomeUnknownError:
    error = _UNKNOWN.get(exchange.ending, OutcomeUnknownError)(message=exchange.reason, **known)
    error.__cause__ = exchange.cause
    return error


def _web_page(url: URL, said: str) -> str:
    return f"{url} responded with a web page ({said}) instead of JSON: check base_url and create_path"


def slash_redirect(exchange: Exchange) -> URL | None:
    """Return the target of the one redirect that is followed, and `None` for any other exchange.

    That is a 307 or 308, which keep method and body (RFC 9110, sections 15.4.8 and 15.4.9), to the same origin and a
    path that differs only by its trailing slash.
    """
    if exchange.status not in (307, 308):
        return None
    url, path = exchange.url, exchange.url.raw_path
    other = url.with_path(path.removesuffix("/") if path.endswith("/") else f"{path}/", encoded=True)
    try:
        target = url.join(URL(exchange.headers.get("Location", ""))).with_fragment(None)
        is_same = target.with_port(target.port) == other.with_port(other.port)  # whether the default is written or not
    except (ValueError, IndexError):  # which yarl raises, too
        return None
    return other if is_same else None


_A_YEAR = 366 * 24 * 3600.0


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a `Retry-After`, a number or a date (RFC 9110, section 10.2.3); `None` of anything else."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,10})?", value):
        wait = float(value)
    elif until := _http_date(value):
        # The date is by the service's clock, and so is `Date`, if it is sent.
        now = _http_date(headers.get("Date", "")) or datetime.now(UTC)
        wait = max(0.0, (until - now).total_seconds())
    else:
        return None
    return wait if wait <= _A_YEAR else None  # a longer one is a timestamp, not a delay


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
