"""What a journal holds of one request, as people see it: the record of the ledger, parsed."""

from datetime import datetime
from typing import Self, get_args

import attrs

from suno_persona.conversion import loads, parse_json, to_request
from suno_persona.errors import JournalError, NotCreatedError, OutcomeUnknownError, PersonaError
from suno_persona.journal._states import Record, State
from suno_persona.models import CreatePersonaRequest, Outcome, Persona


@attrs.frozen(kw_only=True)
class Entry:
    """What a journal holds of one request.

    - `key`: the SHA-256 of its wire body, a colon, and its ordinal, from 1, among identical requests.
    - `state`: `"created"`, `"not_created"`, `"unknown"`; or `"claimed"`: in flight, or its process was stopped
      before it recorded an outcome; or `"queued"`: it waits for a worker.
    - `claimed_at`, `claimed_by`: when it was enqueued or last claimed, in UTC, by which host and process.
    - `settled_at`: when its outcome was recorded.
    - `persona`: `None` unless it was created.
    - `persona_id`: also where an id was found in a response that could not be read otherwise.
    - `request_id`: the service's id of the exchange, for its support.
    - `reason`: why there is no persona, or why its outcome is unknown.
    - `index`: its index in the batch, where it was enqueued.
    - `by_hand`: whether it was resolved by hand, and can be resolved again.
    """

    key: str
    state: State
    request: CreatePersonaRequest
    claimed_at: datetime
    claimed_by: str
    settled_at: datetime | None
    persona: Persona | None
    persona_id: str | None
    request_id: str | None
    reason: str | None
    index: int | None
    by_hand: bool

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
        if self.state in ("queued", "not_created"):
            raise NotCreatedError(message=message, request=self.request, request_id=self.request_id, attempts=0)
        raise OutcomeUnknownError(
            message=message, persona_id=self.persona_id, request=self.request, request_id=self.request_id, attempts=0
        )

    def outcome(self, index: int) -> Outcome:
        """Return the same as the outcome of a request with this index in its batch."""
        persona, error = None, None
        try:
            persona = self.result()
        except PersonaError as raised:
            error = raised
        return Outcome(index, self.request, persona, error, self.key, self.request_id)
