"""The ways in which the fake service can be told to fail."""

import json
from collections.abc import Mapping
from typing import Literal, Self

import attrs


def error_envelope(code: str, message: str, *, param: str | None = None, kind: str = "invalid_request_error") -> bytes:
    """An error body as gateways send it."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}).encode()


def _no_headers() -> Mapping[str, str]:
    return {}


@attrs.frozen(kw_only=True)
class Fault:
    """One way to fail; `FakeSuno.script` takes them, and uses each once. Make one with a class method.

    >>> Fault.rate_limited(retry_after=1).status
    429
    """

    creates: bool = False
    """Whether the request is checked and carried out before the fault strikes."""

    status: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(int))
    )
    """The status of the answer; `None` for the service's own answer."""

    headers: Mapping[str, str] = attrs.field(factory=_no_headers, hash=False)
    """Headers of the answer, beside the usual ones."""

    body: bytes = b""
    """The body of the answer."""

    ending: Literal["whole", "cut", "closed", "hanging"] = attrs.field(
        default="whole", validator=attrs.validators.in_(("whole", "cut", "closed", "hanging"))
    )
    """How the answer leaves: whole, cut in its middle, as a closed connection, or never."""

    @classmethod
    def answer(
        cls, status: int, body: bytes = b"", *, headers: Mapping[str, str] | None = None, creates: bool = False
    ) -> Self:
        """Answer with this status, body and headers, whatever was asked."""
        return cls(status=status, body=body, headers=headers or {}, creates=creates)

    @classmethod
    def rate_limited(cls, retry_after: float | str | None = None) -> Self:
        """429; with `Retry-After` in seconds, or as the text given, where there is one."""
        return cls.answer(429, error_envelope("rate_limited", "too many requests"), headers=_retry_after(retry_after))

    @classmethod
    def unavailable(cls, retry_after: float | str | None = None) -> Self:
        """503; with `Retry-After` in seconds, or as the text given, where there is one."""
        return cls.answer(503, error_envelope("unavailable", "try again later"), headers=_retry_after(retry_after))

    @classmethod
    def server_error(cls, status: int = 500, *, creates: bool = False) -> Self:
        """A 5xx, before or after the persona was created."""
        return cls.answer(status, error_envelope("internal", "something broke", kind="server_error"), creates=creates)

    @classmethod
    def redirect(cls, location: str, status: int = 308) -> Self:
        """A 3xx to another address."""
        return cls.answer(status, headers={"Location": location})

    @classmethod
    def dropped(cls) -> Self:
        """Close the connection without an answer; no persona is created."""
        return cls(ending="closed")

    @classmethod
    def lost_answer(cls) -> Self:
        """Create the persona, then close the connection without an answer."""
        return cls(creates=True, ending="closed")

    @classmethod
    def truncated_answer(cls) -> Self:
        """Create the persona, then close the connection in the middle of the answer."""
        return cls(creates=True, ending="cut")

    @classmethod
    def hang(cls, *, creates: bool = False) -> Self:
        """Never answer, before or after the persona was created."""
        return cls(creates=creates, ending="hanging")


def _retry_after(wait: float | str | None) -> dict[str, str]:
    return {} if wait is None else {"Retry-After": str(wait)}
