"""The faults of the fake service."""

import json
import random
from collections.abc import Callable, Mapping
from typing import Literal, Self

import attrs

from suno_persona.errors import ConfigurationError


def error_envelope(code: str, message: str, *, param: str | None = None, kind: str = "invalid_request_error") -> bytes:
    """Return an error body as gateways send it."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}).encode()


def _no_headers() -> Mapping[str, str]:
    return {}


@attrs.frozen(kw_only=True)
class Fault:
    """One failure of the service, used once by `FakeSuno.script`. Make it with a class method.

    >>> Fault.rate_limited(retry_after=1).status
    429
    """

    creates: bool = False
    """Whether the request is checked and its persona created before the failure."""

    status: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(int))
    )
    """The status of the response; `None` for that of the service."""

    headers: Mapping[str, str] = attrs.field(factory=_no_headers, hash=False)
    """Headers of the response, added to those of the service."""

    body: bytes = b""
    """The body of the response."""

    ending: Literal["whole", "cut", "closed", "hanging"] = attrs.field(
        default="whole", validator=attrs.validators.in_(("whole", "cut", "closed", "hanging"))
    )
    """How the response ends: sent whole, cut in the middle, replaced by a closed connection, or never sent."""

    @classmethod
    def response(
        cls, status: int, body: bytes = b"", *, headers: Mapping[str, str] | None = None, creates: bool = False
    ) -> Self:
        """Return this status, body and headers, whatever the request."""
        return cls(status=status, body=body, headers=headers or {}, creates=creates)

    @classmethod
    def rate_limited(cls, retry_after: float | str | None = None) -> Self:
        """Return 429, with `retry_after` as the `Retry-After` header: seconds, or any text."""
        return cls._after(429, error_envelope("rate_limited", "too many requests"), retry_after)

    @classmethod
    def unavailable(cls, retry_after: float | str | None = None) -> Self:
        """Return 503, with `retry_after` as the `Retry-After` header: seconds, or any text."""
        return cls._after(503, error_envelope("unavailable", "retry later"), retry_after)

    @classmethod
    def server_error(cls, status: int = 500, *, creates: bool = False) -> Self:
        """Return a 5xx, before or after the persona is created."""
        return cls.response(status, error_envelope("internal", "internal error", kind="server_error"), creates=creates)

    @classmethod
    def redirect(cls, location: str, status: int = 308) -> Self:
        """Return a 3xx to this location."""
        return cls.response(status, headers={"Location": location})

    @classmethod
    def dropped(cls) -> Self:
        """Close the connection without a response; no persona is created."""
        return cls(ending="closed")

    @classmethod
    def lost_response(cls) -> Self:
        """Create the persona, then close the connection without a response."""
        return cls(creates=True, ending="closed")

    @classmethod
    def truncated_response(cls) -> Self:
        """Create the persona, then close the connection in the middle of the response."""
        return cls(creates=True, ending="cut")

    @classmethod
    def hang(cls, *, creates: bool = False) -> Self:
        """Send no response, before or after the persona is created."""
        return cls(creates=creates, ending="hanging")

    @classmethod
    def _after(cls, status: int, body: bytes, retry_after: float | str | None) -> Self:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return cls.response(status, body, headers=headers)


NAMED: Mapping[str, Callable[[], Fault]] = {
    "rate-limited": lambda: Fault.rate_limited(retry_after=1),
    "unavailable": lambda: Fault.unavailable(retry_after=1),
    "server-error": Fault.server_error,
    "dropped": Fault.dropped,
    "lost-response": Fault.lost_response,
    "truncated-response": Fault.truncated_response,
    "hang": Fault.hang,
}
"""Faults by name, for users who do not write Python."""


class Failures:
    """Faults that no test scripted: those named by a clip's id, and those of a share of all requests."""

    def __init__(self, shares: Mapping[str, float], seed: int | None) -> None:
        check_shares("failures", shares)
        self._shares = dict(shares)
        self._random = random.Random(seed)  # noqa: S311 - chance, not secrecy
        self._met: set[str] = set()

    def next(self, clip_id: object) -> Fault | None:
        """Return the fault of the next request, if it meets one. A clip meets its fault once."""
        if isinstance(clip_id, str) and clip_id not in self._met:
            for name, make in NAMED.items():
                if clip_id.startswith(f"{name}-"):
                    self._met.add(clip_id)
                    return make()
        drawn = self._random.random() if self._shares else 1.0
        for name, share in self._shares.items():
            if drawn < share:
                return NAMED[name]()
            drawn -= share
        return None


def check_shares(name: str, shares: Mapping[str, float]) -> None:
    """Check that these are shares of named faults, with a sum of at most 1."""
    for kind, share in shares.items():
        if kind not in NAMED:
            raise ConfigurationError(message=f"{name} must be one of {', '.join(NAMED)}; got {kind!r}")
        if not 0 <= share <= 1:
            raise ConfigurationError(message=f"{name} must be a share from 0 to 1; got {share:g} for {kind}")
    if (total := sum(shares.values())) > 1 + 1e-9:
        raise ConfigurationError(message=f"{name} must be shares whose sum is at most 1; got {total:g}")
