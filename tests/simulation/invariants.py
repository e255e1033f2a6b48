"""What must be true after every step: of the personas at the service and of the records in the journal."""

from typing import TYPE_CHECKING

import attrs

from suno_persona import JournalError, NotCreatedError, Outcome
from suno_persona.journal._states import Record

if TYPE_CHECKING:
    from simulation.world import Process, World


class Violation(AssertionError):  # noqa: N818 - no error of the program
    """An invariant is broken."""


@attrs.define(eq=False)
class Attempt:
    """One HTTP request."""

    process: "Process"
    is_refused: bool = False
    """Whether its process knows that it created nothing."""
    persona_id: str | None = None
    """The persona that the service created."""
    is_over: bool = False
    """Whether it can no longer create anything."""


@attrs.define(eq=False)
class Fate:
    """What really happened to a request, whatever the journal records."""

    attempts: list[Attempt] = attrs.field(factory=list)
    repeats: int = 0
    """How often the user asked to retry it although it may have created something."""
    was_guessed: bool = False
    """Whether the user resolved it as not created while it might still be sent, or without seeing its last claim."""
    was_sendable: bool = False
    """Whether a process might still have sent it when a person looked."""
    claims_seen: int = 0
    """How many claims of it had been granted when a person looked."""
    was_given_up: bool = False
    """Whether a claim of it was given up."""
    holders: "dict[str, Process]" = attrs.field(factory=dict)
    """The processes whose claims of it were granted, by the claim's holder."""

    @property
    def personas(self) -> list[str]:
        """The personas that exist at the service."""
        return [attempt.persona_id for attempt in self.attempts if attempt.persona_id is not None]

    def may_be_sent(self) -> bool:
        """Return whether a live process has a granted claim of it, or a request for it is in flight."""
        return any(process.is_alive for process in self.holders.values()) or not all(
            attempt.is_over for attempt in self.attempts
        )


class Checks:
    """The invariants, and the state that they need."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.violation: str | None = None
        self.fates: dict[str, Fate] = {}

    def fail(self, message: str) -> None:
        """Record the first violation. It is raised later, where the code under test cannot catch it."""
        if self.violation is None:
            self.violation = message
            self.world.note("VIOLATION", "{}", message)

    def fate(self, key: str) -> Fate:
        """Return what happened to a request."""
        if key not in self.fates:
            self.fates[key] = Fate()
        return self.fates[key]

    def sending(self, process: "Process", key: str | None, *, may_repeat: bool) -> Attempt:
        """Check that a request is claimed before it is sent, and that no other attempt may have created a persona."""
        attempt = Attempt(process)
        if key is None or key not in self.world.store.records:
            self.fail(f"{process} sends a request that is not recorded")
            return attempt
        fate = self.fate(key)
        if process not in fate.holders.values():
            self.fail(f"{process} sends {named(key)} without a claim")
        doubtful = [one for one in fate.attempts if not one.is_refused]
        if may_repeat and any(one.process is process for one in doubtful):
            fate.repeats += 1
        if len(doubtful) > fate.repeats:
            self.fail(
                f"{process} sends {named(key)} again, which may have created a persona, and nobody asked for that"
            )
        fate.attempts.append(attempt)
        return attempt

    def recorded(self, key: str, record: Record | None) -> None:
        """Compare the personas at the service with the record, after either has changed."""
        fate = self.fate(key)
        personas = fate.personas
        if personas and not fate.was_guessed and (record is None or record.state in ("queued", "not_created")):
            self.fail(
                f"{named(key)}: {personas} exist, and its record is {'missing' if record is None else record.state}"
            )
        if record is not None and record.state == "created" and record.persona_id not in personas:
            self.fail(f"{named(key)}: its record has {record.persona_id}, which does not exist")

    def outcome(self, process: "Process", outcome: Outcome) -> None:
        """Compare an outcome that a run yields with the personas that exist."""
        key = str(outcome.key)
        self.world.note(process, "yields {}: {!r}", named(key), outcome.persona or outcome.error)
        fate = self.fate(key)
        if outcome.persona is not None:
            if outcome.persona.id not in fate.personas:
                self.fail(f"{process} yields {outcome.persona.id}, which does not exist")
            if not self.world.store.failing and self.world.store.records[key].state != "created":
                self.fail(f"{process} yields {outcome.persona.id}, which is not recorded")
        if isinstance(outcome.error, NotCreatedError) and not fate.was_guessed and not self.world.store.failing:
            own = [number for number, attempt in enumerate(fate.attempts, start=1) if attempt.process is process]
            if any(attempt.persona_id for attempt in fate.attempts[: own[-1] if own else 0]):
                self.fail(f"{process} yields {outcome.error!r}, and there is {fate.personas}")

    def process_ended(self, process: "Process", error: BaseException | None) -> None:
        """Check how a process ended by itself."""
        if error is not None and not isinstance(error, JournalError):
            self.fail(f"{process} raised {error!r}")

    def ended(self) -> None:
        """Check that every process has ended once nothing more can happen."""
        for process in self.world.processes:
            self.fail(f"{process} never ends")

    def after_the_last_run(self, before: dict[str, Record], count: int, *, retry_unknown: bool) -> None:
        """Check that a run without faults has sent every request that was free, and no other."""
        records = self.world.store.records
        if len(records) != count:
            raise Violation(f"there are {len(records)} records of {count} requests")
        for key, record in records.items():
            earlier = before.get(key)
            is_doubtful = earlier is not None and earlier.state in ("claimed", "unknown")
            is_free = earlier is None or earlier.state in ("queued", "not_created") or (is_doubtful and retry_unknown)
            if is_free and record.state != "created":
                raise Violation(f"{named(key)} was free, and is {record.state} after the last run")
            if not is_free and record != earlier:
                raise Violation(f"{named(key)} was not free, and is {record.state} after the last run")


def named(key: str) -> str:
    """Return a key as histories show it."""
    return key[:3] + key[-2:]
