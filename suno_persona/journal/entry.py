"""What a journal holds of one request, as people see it; and the same as rows of its table."""

import asyncio
from datetime import datetime
from typing import get_args

import attrs

from suno_persona._batch import Outcome
from suno_persona._engine import Call
from suno_persona.conversion import dumps, loads, parse_json, to_request
from suno_persona.errors import JournalError, NotCreatedError, OutcomeUnknownError, PersonaError
from suno_persona.journal.store import Row, Settled, State
from suno_persona.models import CreatePersonaRequest, Persona


@attrs.frozen(kw_only=True)
class Entry:
    """What a journal holds of one request."""

    key: str
    """Its key: the SHA-256 of its wire body, a colon, and its place, from 1 on, among identical ones of the batch."""

    state: State
    """`"created"`, `"not_created"`, `"unknown"`; or `"claimed"`: sent, or about to be, with no outcome recorded; or
    `"queued"`: it waits for a worker.
    """

    request: CreatePersonaRequest
    """The request."""

    claimed_at: datetime
    """When it was enqueued or last claimed, in UTC, by the clock of the process that did."""

    claimed_by: str
    """The host and the process that did."""

    settled_at: datetime | None
    """When its outcome was recorded."""

    persona: Persona | None
    """The persona; `None` unless it was created."""

    persona_id: str | None
    """The id of the persona, also where it was found in an answer that could not be read otherwise."""

    reason: str | None
    """Why there is no persona, or nobody knows."""

    place: int | None = None
    """Its place in the batch, from 0 on, where it was enqueued."""

    holder: str = attrs.field(default="", repr=False, eq=False)
    """The run that claimed it."""

    def result(self) -> Persona:
        """Give the persona, or raise an error that says when the request was claimed and by whom.

        It is a `NotCreatedError` where there is certainly none, and an `OutcomeUnknownError` otherwise.
        """
        if self.persona is not None:
            return self.persona
        when = self.claimed_at.isoformat(sep=" ", timespec="seconds")
        if self.state == "queued":
            outcome = f"queued at {when}: {self.reason or 'it waits for a worker'}"
            raise NotCreatedError(message=outcome, request=self.request, attempts=0)
        outcome = self.reason or "no outcome was recorded, because it is at work still or was stopped"
        message = f"claimed at {when} by {self.claimed_by}: {outcome}"
        if self.state == "not_created":
            raise NotCreatedError(message=message, request=self.request, attempts=0)
        raise OutcomeUnknownError(message=message, persona_id=self.persona_id, request=self.request, attempts=0)

    def outcome(self, index: int) -> Outcome:
        """The same, as the outcome of a request with this place in its batch."""
        try:
            return Outcome(index, self.request, self.result(), None)
        except PersonaError as error:
            return Outcome(index, self.request, None, error)


def created(persona: Persona) -> Settled:
    """What is recorded of a call that gave a persona."""
    return Settled("created", persona=dumps(persona).decode(), persona_id=_storable(persona.id))


def not_created(call: Call, error: BaseException) -> Settled:
    """What is recorded of a call that ended in an error."""
    is_out = error.may_have_created if isinstance(error, PersonaError) else call.may_have_created
    state: State = "unknown" if is_out else "queued" if call.comes_again(error) else "not_created"
    if not isinstance(error, PersonaError):
        what = "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__
        return Settled(state, reason=f"{what} {'while its request was out' if is_out else 'before it was sent'}")
    status = getattr(error, "status", None)
    found: str | None = getattr(error, "persona_id", None)
    return Settled(
        state,
        persona_id=found and _storable(found),
        reason=_storable(f"{type(error).__name__}{f', HTTP {status}' if status else ''}: {error.message}"),
    )


def _storable(text: str) -> str:
    """Text that every database takes: no lone surrogates, and no NUL, which PostgreSQL refuses."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def entry_of(row: Row) -> Entry:
    """The entry in a row. Raises `JournalError` where somebody wrote something else into it."""
    try:
        if row.state not in get_args(State) or (row.state == "created") is (row.persona is None):
            raise ValueError(f"its state is {row.state!r}, and its persona {row.persona!r}")  # noqa: TRY301
        return Entry(
            key=row.key,
            state=row.state,
            request=to_request(parse_json(row.body)),
            claimed_at=datetime.fromisoformat(row.claimed_at),
            claimed_by=row.claimed_by,
            settled_at=None if row.settled_at is None else datetime.fromisoformat(row.settled_at),
            persona=None if row.persona is None else loads(row.persona),
            persona_id=row.persona_id,
            reason=row.reason,
            place=row.place,
            holder=row.holder,
        )
    except ValueError as error:
        raise JournalError(message=f"the journal's record of {row.key} cannot be read: {error}") from error
