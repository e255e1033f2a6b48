"""The ledger: the states of a request's record, and every transition between them.

It is pure: it knows no database, no clock and no event loop. Nothing else decides what may be sent or recorded.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeGuard, get_args

import attrs
import msgspec
from msgspec.structs import asdict, replace

from suno_persona._response import Ended, Failure
from suno_persona.conversion import dumps, loads, parse_json, to_request
from suno_persona.errors import JournalError, NotCreatedError, OutcomeUnknownError
from suno_persona.models import Persona

State: TypeAlias = Literal["queued", "claimed", "created", "not_created", "unknown"]

PENDING: tuple[State, ...] = ("queued", "claimed")
SETTLED: tuple[State, ...] = ("created", "not_created", "unknown")


class Record(msgspec.Struct, frozen=True, kw_only=True):  # a fraction of the instructions of an attrs class
    """The record of one request; each field is a column.

    Times are in UTC, as text that sorts by time.
    """

    key: str
    body: str
    state: State
    claimed_at: str
    claimed_by: str
    holder: str = ""
    """The run that claimed it; empty if none did, and after a resolution by hand."""

    settled_at: str | None = None
    persona: str | None = None
    persona_id: str | None = None
    request_id: str | None = None
    reason: str | None = None
    index: int | None = None
    doubt: str | None = None
    """Why an earlier claim may have created a persona, although this one was granted."""

    @property
    def by_hand(self) -> bool:
        """Whether it was resolved by hand."""
        return self.state in SETTLED and not self.holder

    def ended(self, cancellation: BaseException | None = None) -> Ended:
        """Return how the call of the request ended, as recorded, with a cancellation of the caller.

        Raises `JournalError` if another program changed the record, so that it cannot be read.
        """
        try:
            if self.state not in get_args(State) or (self.state == "created") is (self.persona is None):
                raise ValueError(f"its state is {self.state!r}, and its persona {self.persona!r}")  # noqa: TRY301
            request = to_request(parse_json(self.body))
            persona = None if self.persona is None else loads(self.persona)
            when = datetime.fromisoformat(self.claimed_at).isoformat(sep=" ", timespec="seconds")
        except ValueError as error:
            raise JournalError(message=f"the journal's record of {self.key} cannot be read: {error}") from error
        if self.state == "queued":
            message = f"queued at {when}: {self.reason or 'it waits for a worker'}"
        else:
            reason = self.reason or "no outcome was recorded: it is in flight, or its process was stopped"
            message = f"claimed at {when} by {self.claimed_by}: {reason}"
        known: dict[str, Any] = {"message": message, "request": request, "request_id": self.request_id}
        result: Persona | Failure
        if persona is not None:
            result = persona
        elif self.state in ("queued", "not_created"):
            result = NotCreatedError(**known)
        else:
            result = OutcomeUnknownError(persona_id=self.persona_id, **known)
        return Ended(result, self.request_id, cancellation=cancellation, is_recorded=True)


@attrs.frozen
class Refusal:
    """Why an event changes nothing, and the record that stays."""

    reason: str
    record: Record | None = None


@attrs.frozen
class Binding:
    """The service and the account that a journal belongs to: an endpoint, and a salted hash of the API key."""

    endpoint: str
    fingerprint: str


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A run is about to send a request."""

    key: str
    body: str
    holder: str
    by: str
    since: str
    """When the run began: it retries only what others did before."""

    retry_unknown: bool = False
    stale_before: str = ""
    """A claim of another run before this time is given up: a job was delivered again, or nobody is at work."""

    binding: Binding | None = None
    """The account to which the journal must be bound."""


class Settle(msgspec.Struct, frozen=True):
    """A run reports the outcome of its claim; `queued` leaves it to a later delivery. Or a person resolves it."""

    key: str
    holder: str
    """Empty if a person resolves it by hand."""

    state: State
    persona: str | None = None
    persona_id: str | None = None
    request_id: str | None = None
    reason: str | None = None


class Enqueue(msgspec.Struct, frozen=True):
    """A batch leaves a request to the workers."""

    key: str
    body: str
    index: int
    by: str
    retry_not_created: bool = False


Decision: TypeAlias = Record | Refusal
Event: TypeAlias = Claim | Settle | Enqueue


def text(time: datetime) -> str:
    """Return a time, which must be in UTC, as records have it: text that sorts by time."""
    return time.isoformat(timespec="microseconds")


def decide_all(
    records: Mapping[str, Record | None], events: Sequence[Event], now: datetime, refused: Mapping[Any, "Refusal"]
) -> tuple[list["Decision"], dict[str, Record]]:
    """Decide on the events of a transaction in their order. Returns the decisions, and the records that they change.

    Claims of a binding that has a `Refusal` are rejected. The events are a microsecond apart: records sort in order.
    """
    decisions: list[Decision] = []
    changed: dict[str, Record] = {}
    second = text(now)[:20]
    for microsecond, event in enumerate(events, now.microsecond):
        if refused and isinstance(event, Claim) and event.binding in refused:
            decisions.append(refused[event.binding])
            continue
        at, key = f"{second}{min(microsecond, 999_999):06}+00:00", event.key
        decisions.append(decision := decide(changed.get(key) or records.get(key), event, at))
        if isinstance(decision, Record):
            changed[key] = decision
    return decisions, changed


def decide(record: Record | None, event: Event, at: str) -> Decision:
    """Return the record after an event at this time, or a `Refusal` if the event changes nothing."""
    if isinstance(event, Settle):
        return settle(record, event, at)
    return claim(record, event, at) if isinstance(event, Claim) else enqueue(record, event, at)


def claim(record: Record | None, event: Claim, at: str) -> Decision:
    """Grant a request that is new or queued, and one that earlier runs left without a persona.

    A request that this run did not create is not retried in it. One that may have created a persona is retried only
    with `retry_unknown`. A stale claim becomes unknown; its holder may still report another outcome.
    """
    doubt = persona_id = None
    match record:
        case None | Record(state="queued"):
            granted = True
        case Record(state="not_created"):
            granted = record.settled_at is not None and record.settled_at <= event.since
        case Record(state="claimed" | "unknown"):
            granted = event.retry_unknown and record.claimed_at <= event.since
            doubt = record.doubt or record.reason or _stopped(record)
            persona_id = record.persona_id
        case _:
            granted = False
    if granted:
        draft = _opened(event, at, "claimed", None if record is None else record.index, event.holder)
        return draft if doubt is None else replace(draft, persona_id=persona_id, doubt=doubt)
    if record is not None and record.state == "claimed" and record.claimed_at < event.stale_before:
        return _settled(record, Settle(record.key, record.holder, "unknown", reason=_stopped(record)), at)
    return Refusal("it has an outcome, or another run may be sending it", record)


def is_granted(decision: Decision) -> TypeGuard[Record]:
    """Whether the decision on a claim lets its run send the request."""
    return isinstance(decision, Record) and decision.state == "claimed"


def settle(record: Record | None, event: Settle, at: str) -> Decision:
    """Record the outcome of the holder's claim, also after it was given up; and a persona, whoever holds the claim.

    Nothing is written over a persona. A job that was given up has ended: it cannot be queued again. If an earlier
    claim may have created a persona, the outcome stays unknown until there is one.
    """
    if not event.holder:
        return _resolve(record, event, at)
    if record is None or record.state == "created":
        return Refusal("there is no such request, or it has a persona", record)
    is_open = record.holder == event.holder and record.state in ("claimed", "unknown")
    if not is_open and event.state != "created":
        return Refusal("another run claimed it, or it was resolved by hand", record)
    if event.state == "queued" and record.state == "unknown":
        event = replace(event, state="not_created")
    return _settled(record, event, at)


def recorded_instead(event: Settle, decision: Decision) -> Record | None:
    """Return the record if a run reports that nothing was created, but another claim may have created a persona."""
    record = decision.record if isinstance(decision, Refusal) else decision
    nothing = ("queued", "not_created")
    return None if event.state not in nothing or record is None or record.state in nothing else record


def _resolve(record: Record | None, event: Settle, at: str) -> Decision:
    """Record a person's decision, unless the service itself settled the request."""
    if record is None:
        return Refusal("the journal has no request with this key")
    if record.state in ("created", "not_created") and not record.by_hand:
        return Refusal(f"the service settled it as {record.state}", record)
    return _settled(record, event, at)


def enqueue(record: Record | None, event: Enqueue, at: str) -> Decision:
    """Queue a new request, or with `retry_not_created` one that was not created. Note the index if there is none."""
    if record is None:
        return _opened(event, at, "queued", event.index)
    index = event.index if record.index is None else record.index
    if record.state == "not_created" and event.retry_not_created:
        return replace(record, state="queued", index=index)
    return Refusal("it is enqueued already", record) if index == record.index else replace(record, index=index)


def bind(bound: Binding | None, wanted: Binding, *, accept_new_key: bool = False) -> Binding | Refusal:
    """Bind a journal to the account of its first claim; on demand, to another key of the same endpoint."""
    if bound is not None and bound.endpoint != wanted.endpoint:
        return Refusal(f"the journal belongs to {bound.endpoint}, and this client sends to {wanted.endpoint}")
    if bound is not None and bound != wanted and not accept_new_key:
        hint = "accept_new_key=True (--accept-new-key) is for a key that was rotated within the account"
        return Refusal(f"the journal belongs to another API key of {bound.endpoint}; {hint}")
    return wanted


def _opened(event: Claim | Enqueue, at: str, state: State, index: int | None, holder: str = "") -> Record:
    key, body, by = event.key, event.body, event.by
    return Record(key=key, body=body, state=state, claimed_at=at, claimed_by=by, holder=holder, index=index)


def _settled(record: Record, event: Settle, at: str) -> Record:
    if record.doubt is not None and event.holder and event.state != "created":
        reason = event.reason if event.state == "unknown" else f"{record.doubt}; a retry: {event.reason}"
        event = replace(event, state="unknown", reason=reason, persona_id=event.persona_id or record.persona_id)
    doubt = record.doubt if event.state == "unknown" else None
    return replace(record, **asdict(event), settled_at=at, doubt=doubt)


def _stopped(record: Record) -> str:
    return f"no outcome was recorded: {record.claimed_by} was stopped"


def settlement(key: str, holder: str, ended: Ended, *, requeue: bool = False) -> Settle:
    """Return the event that records how a call ended. With `requeue`, a call that created nothing is queued again."""
    result, persona, reason = ended.result, None, None
    state: State = "created"
    if isinstance(result, Persona):
        persona = _document(result, ended)
    else:
        status = "" if result.status is None else f", HTTP {result.status}"
        reason = _storable(f"{type(result).__name__}{status}: {result.message}")
        state = "unknown" if result.may_have_created else "queued" if requeue else "not_created"
    persona_id, request_id = _storable(ended.persona_id), _storable(ended.request_id)
    return Settle(key, holder, state, persona, persona_id, request_id, reason)


def _document(persona: Persona, ended: Ended) -> str:
    """Return the persona as JSON, which escapes the characters that databases do not store."""
    if isinstance(ended.document, bytes):
        return ended.document.decode()
    try:
        return dumps(persona).decode()
    except Exception:  # a hook of the caller's returned unwritable values: record the document as received
        return json.dumps({**(ended.document or {}), "id": str(persona.id)})


def _storable(text: str | None) -> str | None:
    """Replace characters that databases do not store: lone surrogates, and NUL in PostgreSQL."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


class Keys:
    """The keys of a batch's requests: the same whenever it runs, in any order."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def next(self, body: bytes) -> str:
        """Return the key of the next request: the SHA-256 of its wire body, and its ordinal among identical ones."""
        digest = hashlib.sha256(body).digest()
        part = int.from_bytes(digest[:15])  # enough to distinguish requests, in less memory
        self._seen[part] = ordinal = self._seen.get(part, 0) + 1
        return f"{digest.hex()}:{ordinal}"
