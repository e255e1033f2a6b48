"""What must be true after every step, of the service and of the journal."""

from typing import TYPE_CHECKING

import attrs

from suno_persona import JournalError, NotCreatedError, Outcome, Persona
from suno_persona.journal._states import Claim, Event, Record, Resolve

if TYPE_CHECKING:
    from simulation.world import Process, World


class Violation(AssertionError):
    """An invariant is broken."""


@attrs.define(eq=False)
class Attempt:
    """One HTTP request."""

    process: "Process"
    is_refused: bool = False
    """Whether its process was told that nothing was created."""
    persona_id: str | None = None
    """What the service created."""
    is_over: bool = False
    """Whether it can create nothing any more."""


@attrs.define(eq=False)
class Fate:
    """What really happened to a request, whatever the journal says."""

    attempts: list[Attempt] = attrs.field(factory=list)
    repeats: int = 0
    """How often the user asked to send it again although it may have created something."""
    was_guessed: bool = False
    """Whether the user said `not created` while somebody might still send it."""
    holders: "list[Process]" = attrs.field(factory=list)
    """Who was granted it."""

    @property
    def personas(self) -> list[str]:
        """What exists at the service."""
        return [attempt.persona_id for attempt in self.attempts if attempt.persona_id is not None]


class Checks:
    """The invariants, and what they need to know."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.violation: str | None = None
        self.fates: dict[str, Fate] = {}

    def fail(self, message: str) -> None:
        """Note the first violation; the code under test cannot catch it."""
        if self.violation is None:
            self.violation = message
            self.world.note("VIOLATION", "{}", message)

    def fate(self, key: str) -> Fate:
        """Return what happened to a request."""
        return self.fates.setdefault(key, Fate())

    def sending(self, process: "Process", key: str | None, *, may_repeat: bool) -> Attempt:
        """A request leaves its process."""
        attempt = Attempt(process)
        record = None if key is None else self.world.store.records.get(key)
        if key is None or record is None:
            self.fail(f"{process} sends a request that is not recorded")
            return attempt
        fate = self.fate(key)
        if process not in fate.holders:
            self.fail(f"{process} sends {key[:3]} without a claim")
        doubtful = [one for one in fate.attempts if not one.is_refused]
        if may_repeat and any(one.process is process for one in doubtful):
            fate.repeats += 1
        if len(doubtful) > fate.repeats:
            self.fail(f"{process} sends {key[:3]} again, which may have created a persona, and nobody asked for that")
        fate.attempts.append(attempt)
        return attempt

    def created(self, key: str) -> None:
        """The service created a persona."""
        self.recorded(key, self.world.store.records.get(key))

    def recorded(self, key: str, record: Record | None) -> None:
        """A record was written, or a persona created."""
        fate = self.fate(key)
        if fate.personas and not fate.was_guessed and (record is None or record.state in ("queued", "not_created")):
            state = "missing" if record is None else record.state
            self.fail(f"{key[:3]}: {fate.personas} exist, and its record is {state}")
        if record is not None and record.state == "created" and record.persona_id not in fate.personas:
            self.fail(f"{key[:3]}: its record has {record.persona_id}, which does not exist")

    def decided(self, process: "Process", event: Event, before: Record | None, after: Record) -> None:
        """The ledger changed a record."""
        if before is not None and before.state == "created" and not (isinstance(event, Resolve) and before.by_hand):
            if attrs.evolve(before, index=after.index) != after:
                self.fail(f"{event.key[:3]}: {type(event).__name__} is written over a persona")
        fate = self.fate(event.key)
        match event:
            case Claim():
                self._granted(process, event, before, fate)
            case Resolve():
                fate.was_guessed = False
                if after.state == "not_created":
                    fate.repeats += 1
                    is_under_way = not all(attempt.is_over for attempt in fate.attempts)
                    fate.was_guessed = is_under_way or any(holder.is_alive for holder in fate.holders)

    def _granted(self, process: "Process", event: Claim, before: Record | None, fate: Fate) -> None:
        name = event.key[:3]
        fate.holders.append(process)
        if before is None or before.state == "queued":
            return
        if before.state == "not_created":
            if not event.since:
                self.fail(f"a worker is granted {name}, which was not created and not enqueued again")
            elif self.world.clocks_agree and str(before.settled_at) > event.since:
                self.fail(f"{process} is granted {name}, which was not created since it began")
        elif not event.retry_unknown:
            self.fail(f"{process} is granted {name}, which was {before.state}")
        elif self.world.clocks_agree and before.claimed_at > event.since:
            self.fail(f"{process} is granted {name}, which was claimed since it began")
        else:
            fate.repeats += 1

    def outcome(self, process: "Process", outcome: Outcome) -> None:
        """A batch yields an outcome."""
        assert outcome.key is not None
        self.world.note(process, "yields {}: {!r}", outcome.key[:3] + outcome.key[-2:], outcome.persona or outcome.error)
        fate = self.fate(outcome.key)
        if isinstance(outcome.persona, Persona):
            if outcome.persona.id not in fate.personas:
                self.fail(f"{process} yields {outcome.persona.id}, which does not exist")
        elif isinstance(outcome.error, NotCreatedError):
            if any(attempt.process is process and attempt.persona_id for attempt in fate.attempts):
                self.fail(f"{process} yields {outcome.error!r}, and there is {fate.personas}")

    def process_ended(self, process: "Process", error: BaseException | None) -> None:
        """A process ended by itself."""
        if error is not None and not isinstance(error, JournalError):
            self.fail(f"{process} raised {error!r}")

    def gone(self, process: "Process") -> None:
        """A process will do nothing more."""

    def ended(self) -> None:
        """Nothing can happen any more."""
        for process in self.world.processes:
            self.fail(f"{process} never ends")

    def at_the_end(self, before: dict[str, Record]) -> None:
        """A last run, during which nothing went wrong, has sent what was free, and nothing else."""
        for key, record in self.world.store.records.items():
            earlier = before.get(key)
            is_free = earlier is None or earlier.state in ("queued", "not_created")
            if is_free and record.state != "created":
                raise Violation(f"{key[:3]} was free, and is {record.state} after the last run")
            if not is_free and record != earlier:
                raise Violation(f"{key[:3]} was {earlier.state}, and is {record.state} after the last run")
