"""The simulated database: the real ledger decides, in transactions that may fail before or after their commit."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from simulation import transitions
from simulation.queue import Queue
from suno_persona._engine import Account
from suno_persona.errors import JournalError
from suno_persona.journal import _states as ledger
from suno_persona.journal._states import Binding, Claim, Decision, Event, Record, Refusal, Settle, State

if TYPE_CHECKING:
    from simulation.world import World


class Store:
    """The committed state."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.records: dict[str, Record] = {}
        self.binding: Binding | None = None
        self.bindings: set[Binding] = set()
        """What its users meant to bind it to."""
        self.queue = Queue(world)
        self.failing = 0.0
        """The share of transactions that fail."""

    def commit(
        self, events: Sequence[Event], then: Callable[[Any, Any], None] | None, bound: set[Binding]
    ) -> list[Decision]:
        """Decide on events in their order, in one step. `bound` holds the accounts that the process knows as bound."""
        self._may_fail("before its commit")
        process, records = self.world.running, self.records
        changes: dict[str, Record] = {}
        decisions: list[Decision] = []
        for number, event in enumerate(events):
            at = ledger.text(process.wall_clock() + timedelta(microseconds=number))
            before = changes.get(event.key) or records.get(event.key)
            if isinstance(event, Claim) and event.binding is not None and event.binding not in bound:
                refusal = self._bind(event.binding)
                if refusal is not None:
                    decisions.append(refusal)
                    continue
                bound.add(event.binding)
            made = ledger.decide(before, event, at)
            decisions.append(made)
            if self.world.history is not None:
                self.world.note(process, "commits {}: {}", _shown(event), _shown(made))
            if isinstance(made, Record):
                changes[event.key] = made
            elif isinstance(event, Claim):
                process.ambushed()
                if self.world.meddle is not None and before is not None and before.state == "claimed":
                    self.world.meddle(process)
            transitions.check(self.world.checks, process, event, before, made)
        if then is not None:
            then(self, decisions)
        for key, record in changes.items():
            records[key] = record
            self.world.checks.recorded(key, record)
        self._may_fail("after its commit")
        return decisions

    def begin(self, binding: Binding, bound: set[Binding], *, accept_new_key: bool) -> None:
        """Begin a run."""
        self._may_fail("before its commit")
        if self.binding is not None:
            if (refusal := self._bind(binding, accept_new_key=accept_new_key)) is not None:
                raise JournalError(message=refusal.reason)
            bound.add(binding)

    def _bind(self, binding: Binding, *, accept_new_key: bool = False) -> Refusal | None:
        before = self.binding
        made = ledger.bind(before, binding, accept_new_key=accept_new_key)
        is_meant = before is None or (accept_new_key and before.endpoint == binding.endpoint)
        if isinstance(made, Refusal):
            self.world.note(self.world.running, "is rejected: {}", made.reason)
            if is_meant or before == binding:
                self.world.checks.fail(f"{self.world.running} is denied the journal of its own account")
            return made
        if is_meant:
            self.bindings.add(binding)
        self.binding = made
        return None

    def _may_fail(self, when: str) -> None:
        if self.failing and self.world.random() < self.failing / 2:
            self.world.note(self.world.running, "its transaction fails {}", when)
            raise JournalError(message=f"the transaction fails {when}")


class Storage:
    """One process's connection: replaces the journal's `Storage`."""

    name = "journal"
    store: Store  # of the current world

    def __init__(self, url: object) -> None:
        self._bound: set[Binding] = set()

    def open(self, *, create: bool) -> None:
        """Connect."""

    def close(self) -> None:
        """Disconnect."""

    def now(self) -> datetime:
        """Return the time of the process's clock."""
        return self.store.world.running.wall_clock()

    def break_off(self) -> float:
        """Do nothing: every transaction of this store ends."""
        return 60.0

    def begin(self, account: Account, *, accept_new_key: bool) -> tuple[Binding, str]:
        """Begin a run after everything that is recorded."""
        binding = Binding(account.endpoint, account.fingerprint(b"salt"))
        self.store.begin(binding, self._bound, accept_new_key=accept_new_key)
        times = (max(record.claimed_at, record.settled_at or "") for record in self._records())
        return binding, max(ledger.text(self.now()), *times, "")

    def commit(self, events: Sequence[Event], then: Callable[[Any, Any], None] | None = None) -> list[Decision]:
        """Decide on events in their order."""
        return self.store.commit(events, then, self._bound)

    def counts(self, *, enqueued: bool = False) -> dict[State, int]:
        """Count the enqueued requests in each state."""
        return Counter(record.state for record in self._records() if record.index is not None)

    def page(
        self, after: str, states: Sequence[State], *, prefix: str = "", settled_since: str | None = None
    ) -> list[Record]:
        """Return records in the order of their keys."""
        records = (record for record in self._records() if not states or record.state in states)
        if settled_since is None:
            return list(records)
        return [record for record in records if record.index is not None and (record.settled_at or "") > settled_since]

    def _records(self) -> list[Record]:
        return [record for _, record in sorted(self.store.records.items())]


def _shown(thing: Event | Record | Refusal) -> str:
    if isinstance(thing, Refusal):
        return f"rejected: {thing.reason}"
    name = thing.key[:3] + thing.key[-2:]
    if isinstance(thing, Record):
        return f"{name} is {thing.state}{'' if thing.persona_id is None else f' {thing.persona_id}'}"
    words = [type(thing).__name__, name]
    words += [flag for flag in ("retry_unknown", "retry_not_created") if getattr(thing, flag, False)]
    if isinstance(thing, Settle):
        words += [thing.state if thing.holder else f"by hand {thing.state}"]
        words += [str(thing.reason)]
    return " ".join(words)
