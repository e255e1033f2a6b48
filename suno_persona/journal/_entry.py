"""What a journal holds of one request, as people see it: the record of the ledger, parsed."""

from datetime import datetime
from typing import Any, Self, get_args

import attrs

from suno_persona._batch import outcome_of
from suno_persona._response import Ended
from suno_persona.conversion import loads, parse_json, to_request
from suno_persona.errors import JournalError, NotCreatedError, OutcomeUnknownError
from suno_persona.journal._states import Record, State
from suno_persona.models import CreatePersonaRequest, Outcome, Persona


@attrs.frozen(kw_only=True)
class Entry:
    """What a journal holds of one request."""

    key: str
    """The SHA-256 of its wire body, a colon, and its ordinal, from 1, among identical requests."""

    state: State
    """`"created"`, `"not_created"` or `"unknown"`; `"claimed"`: in flight, or its process was stopped before it
    recorded an outcome; `"queued"`: it waits for a worker."""

    request: CreatePersonaRequest
    """The request."""

    claimed_at: datetime
    """When it was enqueued or last claimed, in UTC."""

    claimed_by: str
    """The host and the process that did."""

    settled_at: datetime | None
    """When its outcome was recorded, in UTC."""

    persona: Persona | None
    """The persona; `None` unless it was created."""

    persona_id: str | None
    """The persona's id, also where it was found in a response that could not be read otherwise."""

    request_id: str | None
    """The service's id of the exchange, for its support."""

    reason: str | None
    """Why there is no persona, or why the outcome is unknown."""

    index: int | None
    """Its index in the batch, where it was enqueued."""

    by_hand: bool
    """Whether it was resolved by hand, and can be resolved again."""

    @classmethod
    def of(cls, record: Record) -> Self:
        """Parse a record. Raises `JournalError` where somebody wrote something else into the database."""
        try:
            if record.state not in get_args(State) or (record.state == "created") is (record.persona is None):
                raise ValueError(f"its state is {record.state!r}, and its persona {record.persona!r}")  # noqa: TRY301
            fields = vars(record).copy()
            del fields["holder"], fields["doubt"]
            fields["request"] = to_request(parse_json(fields.pop("body")))
            fields["claimed_at"] = datetime.fromisoformat(record.claimed_at)
            fields["settled_at"] = record.settled_at and datetime.fromisoformat(record.settled_at)
            fields["persona"] = record.persona and loads(record.persona)
            return cls(by_hand=record.by_hand, **fields)
        except ValueError as error:
            raise JournalError(message=f"the journal's record of {record.key} cannot be read: {error}") from error

    def result(self) -> Persona:
        """Return the persona, or raise an error that says when the request was claimed and by whom.

        It is a `NotCreatedError` where there is certainly none, and an `OutcomeUnknownError` otherwise.
        """
        if self.persona is not None:
            return self.persona
        when = self.claimed_at.isoformat(sep=" ", timespec="seconds")
        if self.state == "queued":
            message = f"queued at {when}: {self.reason or 'it waits for a worker'}"
        else:
            reason = self.reason or "no outcome was recorded: it is in flight, or its process was stopped"
            message = f"claimed at {when} by {self.claimed_by}: {reason}"
        known: dict[str, Any] = {"message": message, "request": self.request, "request_id": self.request_id}
        if self.state in ("queued", "not_created"):
            raise NotCreatedError(**known)
        raise OutcomeUnknownError(persona_id=self.persona_id, **known)

    def ended(self) -> Ended:
        """Return how the call ended, as far as it is recorded."""
        try:
            return Ended(self.result(), self.request_id)
        except (NotCreatedError, OutcomeUnknownError) as error:
            return Ended(error, self.request_id)

    def outcome(self, index: int) -> Outcome:
        """Return the same as the outcome of a request with this index in its batch."""
        return outcome_of(self.ended(), index, self.request, self.key)
