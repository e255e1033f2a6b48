"""The ledger with one of its rules broken: the simulation must notice each."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import attrs
from msgspec.structs import replace

from suno_persona._response import Ended
from suno_persona.journal import _states as ledger
from suno_persona.journal._states import (
    Binding,
    Claim,
    Decision,
    Enqueue,
    Keys,
    Record,
    Refusal,
    Settle,
    is_granted,
)

_claim, _settle, _resolve, _enqueue = ledger.claim, ledger.settle, ledger._resolve, ledger.enqueue
_bind, _settlement = ledger.bind, ledger.settlement


def _state(record: Record | None) -> str:
    return "none" if record is None else record.state


def _rejects(function: Callable[..., Decision], *states: str) -> Callable[..., Decision]:
    """Reject events for records in these states."""

    def decide(record: Record | None, event: Any, at: str) -> Decision:
        return Refusal("it is a mutant", record) if _state(record) in states else function(record, event, at)

    return decide


def _changes(function: Callable[..., Decision], *states: str, **changes: Any) -> Callable[..., Decision]:
    """Change the new record if it is in these states."""

    def decide(record: Record | None, event: Any, at: str) -> Decision:
        made = function(record, event, at)
        if isinstance(made, Record) and (not states or made.state in states):
            return replace(made, **changes)
        return made

    return decide


def _misreads(function: Callable[..., Decision], *states: str, **changes: Any) -> Callable[..., Decision]:
    """Change the old record if it is in these states, before the ledger decides."""

    def decide(record: Record | None, event: Any, at: str) -> Decision:
        if record is not None and record.state in states:
            record = replace(record, **changes)
        return function(record, event, at)

    return decide


def _retries_at_once(record: Record | None, event: Claim, at: str) -> Decision:
    is_doubtful = _state(record) in ("claimed", "unknown")
    return _claim(record, replace(event, since="9") if is_doubtful else event, at)


def _settles(change: Callable[[Record, Settle], Settle | None]) -> Callable[..., Decision]:
    """Settle with another outcome than a run reports, or reject it; resolutions by hand are unchanged."""

    def settle(record: Record | None, event: Settle, at: str) -> Decision:
        changed = change(record, event) if record is not None and event.holder else event
        return Refusal("it is a mutant", record) if changed is None else _settle(record, changed, at)

    return settle


_for_anybody = _settles(lambda record, event: replace(event, holder=record.holder or event.holder))
_for_the_holder = _settles(lambda record, event: event if record.holder == event.holder else None)
_not_unknown = _settles(lambda record, event: None if record.state == "unknown" else event)
_not_not_created = _settles(lambda record, event: None if record.state == "not_created" else event)


def _queues_what_was_given_up(record: Record | None, event: Settle, at: str) -> Decision:
    made = _settle(record, event, at)
    if event.state == "queued" and isinstance(made, Record):
        return replace(made, state="queued")
    return made


def _gives_up_what_is_at_work(record: Record | None, event: Claim, at: str) -> Decision:
    return _claim(record, replace(event, stale_before="9"), at)


def _gives_up_nothing(record: Record | None, event: Claim, at: str) -> Decision:
    return _claim(record, replace(event, stale_before=""), at)


def _gives_up(**changes: Any) -> Callable[..., Decision]:
    """Give up a claim with these changes to its record."""

    def claim(record: Record | None, event: Claim, at: str) -> Decision:
        made = _claim(record, event, at)
        return replace(made, **changes) if isinstance(made, Record) and not is_granted(made) else made

    return claim


def _resolves_the_service(record: Record | None, event: Settle, at: str) -> Decision:
    return _resolve(None if record is None else replace(record, holder=""), event, at)


def _requeues(state: str) -> Callable[..., Decision]:
    def enqueue(record: Record | None, event: Enqueue, at: str) -> Decision:
        if record is not None and record.state == state:
            return replace(record, state="queued", index=event.index if record.index is None else record.index)
        return _enqueue(record, event, at)

    return enqueue


def _moves_the_index(record: Record | None, event: Enqueue, at: str) -> Decision:
    return _enqueue(None if record is None else replace(record, index=None), event, at)


def _never_requeues(record: Record | None, event: Enqueue, at: str) -> Decision:
    return _enqueue(record, replace(event, retry_not_created=False), at)


def _accepts_keys(bound: Binding | None, wanted: Binding, *, accept_new_key: bool = False) -> Binding | Refusal:
    return _bind(bound, wanted, accept_new_key=True)


def _accepts_endpoints(bound: Binding | None, wanted: Binding, *, accept_new_key: bool = False) -> Binding | Refusal:
    return _bind(bound and attrs.evolve(bound, endpoint=wanted.endpoint), wanted, accept_new_key=accept_new_key)


def _accepts_no_new_key(bound: Binding | None, wanted: Binding, *, accept_new_key: bool = False) -> Binding | Refusal:
    return _bind(bound, wanted)


def _accepts_one_run(bound: Binding | None, wanted: Binding, *, accept_new_key: bool = False) -> Binding | Refusal:
    return wanted if bound is None else Refusal("it is a mutant")


def _settles_as(change: Callable[..., Any]) -> Callable[..., Settle]:
    """Record another outcome of a call; `change` returns its state, or `None` for no change."""

    def settlement(key: str, holder: str, ended: Ended, *, requeue: bool = False) -> Settle:
        event = _settlement(key, holder, ended, requeue=requeue)
        state = change(ended, event.state, requeue)
        return replace(event, state=state, persona=None) if state else event

    return settlement


def _key_without_ordinal(_: Keys, body: bytes) -> str:
    return f"{hashlib.sha256(body).hexdigest()}:1"


def _key_of_this_run(_: Keys, body: bytes) -> str:
    return f"{os.urandom(32).hex()}:1"


MUTANTS: dict[str, tuple[object, str, object]] = {
    "claim grants what is new alone": (ledger, "claim", _rejects(_claim, "queued", "not_created")),
    "claim rejects what is new": (ledger, "claim", _rejects(_claim, "none")),
    "claim rejects what is queued": (ledger, "claim", _rejects(_claim, "queued")),
    "claim rejects what was not created": (ledger, "claim", _rejects(_claim, "not_created")),
    "claim rejects what is claimed, on demand": (ledger, "claim", _rejects(_claim, "claimed")),
    "claim rejects what is unknown, on demand": (ledger, "claim", _rejects(_claim, "unknown")),
    "claim grants what was created": (ledger, "claim", _misreads(_claim, "created", state="queued")),
    "claim grants what is claimed": (ledger, "claim", _misreads(_claim, "claimed", state="queued")),
    "claim grants what is unknown": (ledger, "claim", _misreads(_claim, "unknown", state="queued")),
    "claim grants what was not created since": (ledger, "claim", _misreads(_claim, "not_created", state="queued")),
    "claim grants what is in doubt since, on demand": (ledger, "claim", _retries_at_once),
    "claim keeps the holder": (ledger, "claim", _changes(_claim, holder="another")),
    "claim forgets the index": (ledger, "claim", _changes(_claim, index=None)),
    "claim forgets the doubt": (ledger, "claim", _changes(_claim, doubt=None)),
    "settle for anybody": (ledger, "settle", _for_anybody),
    "settle for the holder alone": (ledger, "settle", _for_the_holder),
    "settle over a persona": (ledger, "settle", _misreads(_settle, "created", state="claimed")),
    "settle rejects what was given up": (ledger, "settle", _not_unknown),
    "settle rejects what was not created": (ledger, "settle", _not_not_created),
    "settle queues what was given up": (ledger, "settle", _queues_what_was_given_up),
    "settle queues what was not created": (ledger, "settle", _changes(_settle, "not_created", state="queued")),
    "settle calls what is unknown not created": (ledger, "settle", _changes(_settle, "unknown", state="not_created")),
    "settle forgets the doubt": (ledger, "settle", _misreads(_settle, "claimed", "unknown", doubt=None)),
    "settle forgets the index": (ledger, "settle", _changes(_settle, index=None)),
    "settle forgets the holder": (ledger, "settle", _changes(_settle, holder="")),
    "give up nothing": (ledger, "claim", _gives_up_nothing),
    "give up what is at work": (ledger, "claim", _gives_up_what_is_at_work),
    "give up as not created": (ledger, "claim", _gives_up(state="not_created")),
    "give up to the queue": (ledger, "claim", _gives_up(state="queued")),
    "give up for another holder": (ledger, "claim", _gives_up(holder="another")),
    "resolve no claim": (ledger, "_resolve", _rejects(_resolve, "claimed")),
    "resolve nothing unknown": (ledger, "_resolve", _rejects(_resolve, "unknown")),
    "resolve nothing twice": (ledger, "_resolve", _rejects(_resolve, "created", "not_created")),
    "resolve what the service settled": (ledger, "_resolve", _resolves_the_service),
    "resolve for a holder": (ledger, "_resolve", _changes(_resolve, holder="another")),
    "enqueue nothing new": (ledger, "enqueue", _rejects(_enqueue, "none")),
    "enqueue what was created": (ledger, "enqueue", _requeues("created")),
    "enqueue what is claimed": (ledger, "enqueue", _requeues("claimed")),
    "enqueue what is unknown": (ledger, "enqueue", _requeues("unknown")),
    "enqueue what was not created": (ledger, "enqueue", _requeues("not_created")),
    "enqueue nothing again": (ledger, "enqueue", _never_requeues),
    "enqueue with another index": (ledger, "enqueue", _moves_the_index),
    "bind to any key": (ledger, "bind", _accepts_keys),
    "bind to any endpoint": (ledger, "bind", _accepts_endpoints),
    "bind to no new key": (ledger, "bind", _accepts_no_new_key),
    "bind to one run": (ledger, "bind", _accepts_one_run),
    "a persona is unknown": (
        ledger,
        "settlement",
        _settles_as(lambda ended, state, requeue: "unknown" if state == "created" else None),
    ),
    "a failure is unknown": (
        ledger,
        "settlement",
        _settles_as(lambda ended, state, requeue: "unknown" if state == "not_created" else None),
    ),
    "an unknown outcome is not created": (
        ledger,
        "settlement",
        _settles_as(
            lambda ended, state, requeue: "not_created" if state == "unknown" and ended.cancellation is None else None
        ),
    ),
    "what is cancelled in flight is not created": (
        ledger,
        "settlement",
        _settles_as(
            lambda ended, state, requeue: (
                "not_created" if state == "unknown" and ended.cancellation is not None else None
            )
        ),
    ),
    "what is to be delivered again is not queued": (
        ledger,
        "settlement",
        _settles_as(lambda ended, state, requeue: "not_created" if state == "queued" else None),
    ),
    "identical requests have one key": (Keys, "next", _key_without_ordinal),
    "each run has its own keys": (Keys, "next", _key_of_this_run),
}
"""For each mutant: the object, the attribute that it replaces, and the replacement."""


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Break one rule."""
    holder, attribute, function = MUTANTS[name]
    with mock.patch.object(holder, attribute, function):
        yield
