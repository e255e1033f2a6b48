"""The ledger: what a journal records of a request, and every transition of a record.

It is pure: it knows no database, no clock and no event loop. Nothing else decides what may be sent or recorded.
"""

import hashlib
from collections import Counter
from typing import Literal, TypeAlias, assert_never

import attrs

from suno_persona.conversion import dumps
from suno_persona.errors import PersonaError
from suno_persona.models import Persona

State: TypeAlias = Literal["queued", "claimed", "created", "not_created", "unknown"]

PENDING: tuple[State, ...] = ("queued", "claimed")
SETTLED: tuple[State, ...] = ("created", "not_created", "unknown")


@attrs.frozen(kw_only=True, slots=False)  # as fast again as with slots
class Record:
    """What a journal records of one request; each field is a column.

    Times are in UTC, as text that sorts by time.
    """

    key: str
    body: str
    state: State
    claimed_at: str
    claimed_by: str
    holder: str = ""
    """The run that claimed it; empty where none did, and after a resolution by hand."""

    settled_at: str | None = None
    persona: str | None = None
    persona_id: str | None = None
    request_id: str | None = None
    reason: str | None = None
    index: int | None = None
    doubt: str | None = None
    """Why an earlier claim may have created a persona, where this one was granted all the same."""

    @property
    def by_hand(self) -> bool:
        """Whether it was resolved by hand."""
        return self.state in SETTLED and not self.holder


@attrs.frozen
class Refusal:
    """Why an event changes nothing, and the record that stays."""

    reason: str
    record: Record | None = None


@attrs.frozen(kw_only=True, slots=False)
class Settlement:
    """What became of a request."""

    state: State
    persona: str | None = None
    persona_id: str | None = None
    request_id: str | None = None
    reason: str | None = None


@attrs.frozen
class Binding:
    """The service and the account that a journal belongs to."""

    endpoint: str
    fingerprint: str


@attrs.frozen
class Bind:
    """A run binds the journal to its account, before or with its first claim."""

    binding: Binding
    accept_new_key: bool


@attrs.frozen(kw_only=True, slots=False)
class Claim:
    """A run is about to send a request."""

    key: str
    body: str
    holder: str
    at: str
    by: str
    since: str
    """When the run began: it retries only what others did before."""

    retry_unknown: bool = False
    bind: Bind | None = None
    """What the journal must be bound to first."""


@attrs.frozen(kw_only=True, slots=False)
class Settle:
    """A run reports what became of its claim. To settle as `queued` is to leave the request to a later delivery."""

    key: str
    holder: str
    at: str
    settlement: Settlement


@attrs.frozen(kw_only=True)
class GiveUp:
    """A redelivered job no longer waits for the outcome of this holder's claim."""

    key: str
    holder: str
    at: str


@attrs.frozen(kw_only=True)
class Resolve:
    """A person looked, and says what became of a request."""

    key: str
    at: str
    settlement: Settlement


@attrs.frozen(kw_only=True)
class Enqueue:
    """A batch gives a request to the workers."""

    key: str
    body: str
    index: int
    at: str
    by: str
    retry_not_created: bool = False


Decision: TypeAlias = Record | Refusal
Event: TypeAlias = Claim | Settle | GiveUp | Resolve | Enqueue


def decide(record: Record | None, event: Event) -> Decision:
    """Apply an event to a record. Returns the new record, or a refusal where it stays as it is."""
    match event:
        case Claim():
            return claim(record, event)
        case Settle():
            return settle(record, event)
        case GiveUp():
            return give_up(record, event)
        case Resolve():
            return resolve(record, event)
        case Enqueue():
            return enqueue(record, event)
        case _:  # pragma: no cover - for type checkers
            assert_never(event)


def claim(record: Record | None, event: Claim) -> Decision:
    """Grant a request that is new or queued, and one that earlier runs left without a persona.

    What was not created in this run is not retried. What may have been created is retried only on demand, and the
    doubt stays with the record.
    """
    doubt = persona_id = None
    match record:
        case None | Record(state="queued"):
            granted = True
        case Record(state="not_created"):
            granted = record.settled_at is not None and record.settled_at <= event.since
        case Record(state="claimed" | "unknown"):
            granted = event.retry_unknown and record.claimed_at <= event.since
            doubt = record.doubt or record.reason or f"no outcome was recorded: {record.claimed_by} was stopped"
            persona_id = record.persona_id
        case _:
            granted = False
    if not granted:
        return Refusal("it has an outcome, or another run may be sending it", record)
    return Record(
        key=event.key,
        body=event.body,
        state="claimed",
        claimed_at=event.at,
        claimed_by=event.by,
        holder=event.holder,
        persona_id=persona_id,
        index=None if record is None else record.index,
        doubt=doubt,
    )


def settle(record: Record | None, event: Settle) -> Decision:
    """Record the outcome of the holder's claim, also after it was given up; and a persona, whoever holds the claim.

    Nothing is written over a persona. A job that was given up has ended: it cannot be queued again. Where an earlier
    claim may have created a persona, the outcome stays unknown until there is one.
    """
    settlement = event.settlement
    if record is None or record.state == "created":
        return Refusal("there is no such request, or it has a persona", record)
    is_holder = record.holder == event.holder
    if not (settlement.state == "created" or (is_holder and record.state in ("claimed", "unknown"))):
        return Refusal("another run claimed it, or it was resolved by hand", record)
    if settlement.state == "queued" and record.state == "unknown":
        settlement = attrs.evolve(settlement, state="not_created")
    if settlement.state != "created" and record.doubt is not None:
        reason = settlement.reason if settlement.state == "unknown" else record.doubt
        ident = settlement.persona_id or record.persona_id
        settlement = attrs.evolve(settlement, state="unknown", reason=reason, persona_id=ident)
    return _settled(record, settlement, event.at, event.holder, doubt=record.doubt)


def give_up(record: Record | None, event: GiveUp) -> Decision:
    """Call the outcome of a claim unknown, if the same holder still has it."""
    if record is None or record.state != "claimed" or record.holder != event.holder:
        return Refusal("its claim ended, or is another one", record)
    reason = f"no outcome was recorded: {record.claimed_by} was stopped"
    settlement = Settlement(state="unknown", reason=reason, persona_id=record.persona_id)
    return _settled(record, settlement, event.at, event.holder, doubt=record.doubt)


def resolve(record: Record | None, event: Resolve) -> Decision:
    """Record what a person found, unless the service itself settled the request."""
    if record is None:
        return Refusal("the journal has no request with this key")
    if record.state in ("created", "not_created") and not record.by_hand:
        return Refusal(f"the service settled it as {record.state}", record)
    return _settled(record, event.settlement, event.at, holder="")


def enqueue(record: Record | None, event: Enqueue) -> Decision:
    """Queue what is new, and on demand what was not created. Note the index of what has none."""
    if record is None:
        return Record(
            key=event.key,
            body=event.body,
            state="queued",
            claimed_at=event.at,
            claimed_by=event.by,
            index=event.index,
        )
    index = event.index if record.index is None else record.index
    if record.state == "not_created" and event.retry_not_created:
        return attrs.evolve(record, state="queued", index=index)
    return Refusal("it is enqueued already", record) if index == record.index else attrs.evolve(record, index=index)


def bind(bound: Binding | None, event: Bind) -> Binding | Refusal:
    """Bind a journal to the account of its first claim; on demand, to another key of the same endpoint."""
    wanted = event.binding
    if bound is None or bound == wanted:
        return wanted
    if bound.endpoint != wanted.endpoint:
        return Refusal(f"the journal belongs to {bound.endpoint}, and this client sends to {wanted.endpoint}")
    if not event.accept_new_key:
        hint = "accept_new_key=True (--accept-new-key) is for a key that was rotated within the account"
        return Refusal(f"the journal belongs to another API key of {bound.endpoint}; {hint}")
    return wanted


def _settled(record: Record, settlement: Settlement, at: str, holder: str, *, doubt: str | None = None) -> Record:
    return Record(
        key=record.key,
        body=record.body,
        state=settlement.state,
        claimed_at=record.claimed_at,
        claimed_by=record.claimed_by,
        holder=holder,
        settled_at=at,
        persona=settlement.persona,
        persona_id=settlement.persona_id,
        request_id=settlement.request_id,
        reason=settlement.reason,
        index=record.index,
        doubt=doubt if settlement.state == "unknown" else None,
    )


def settlement_of(
    result: Persona | BaseException, *, may_have_created: bool, request_id: str | None, requeue: bool = False
) -> Settlement:
    """Say what is recorded of a call that returned a persona or raised an error.

    `may_have_created` counts where the error itself does not tell. With `requeue`, what was not created is queued.
    """
    if isinstance(result, Persona):
        return created(result, request_id)
    if not isinstance(result, PersonaError):
        what = type(result).__name__ if isinstance(result, Exception) else "cancelled"
        reason = f"{what} {'while its request was in flight' if may_have_created else 'before it was sent'}"
        persona_id = None
    else:
        may_have_created = result.may_have_created
        status: int | None = getattr(result, "status", None)
        reason = f"{type(result).__name__}{f', HTTP {status}' if status else ''}: {result.message}"
        persona_id = getattr(result, "persona_id", None)
        request_id = getattr(result, "request_id", None) or request_id
    return Settlement(
        state="unknown" if may_have_created else "queued" if requeue else "not_created",
        persona_id=_storable(persona_id),
        request_id=_storable(request_id),
        reason=_storable(reason),
    )


def created(persona: Persona, request_id: str | None = None) -> Settlement:
    """Say what is recorded of a persona."""
    return Settlement(
        state="created",
        persona=dumps(persona).decode(),
        persona_id=_storable(persona.id),
        request_id=_storable(request_id),
    )


def _storable(text: str | None) -> str | None:
    """Replace what databases refuse: lone surrogates, and NUL, which PostgreSQL does not store."""
    return text and text.replace("\0", "\ufffd").encode(errors="replace").decode()


class Keys:
    """The keys of a batch's requests: the same whenever it runs, in any order."""

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()

    def next(self, body: bytes) -> str:
        """Return the key of the next request: the SHA-256 of its wire body, and its ordinal among identical ones."""
        digest = hashlib.sha256(body)
        half = digest.digest()[:16]  # enough to tell requests apart, in less memory
        self._seen[half] += 1
        return f"{digest.hexdigest()}:{self._seen[half]}"
