"""Judges the decisions of the ledger by what really happened."""

from typing import TYPE_CHECKING

from msgspec.structs import replace

from simulation.invariants import Checks, Fate, named
from suno_persona.journal._states import Claim, Enqueue, Event, Record, Refusal, Settle, is_granted

if TYPE_CHECKING:
    from simulation.world import Process

_DOUBTFUL = ("claimed", "unknown")


def check(checks: Checks, process: "Process", event: Event, before: Record | None, made: Record | Refusal) -> None:
    """Judge the decision of the ledger on an event."""
    fate = checks.fate(event.key)
    complaint = _rejected(event, before) if isinstance(made, Refusal) else _changed(event, before, made)
    if isinstance(made, Record) and complaint is None:
        match event:
            case Claim() if is_granted(made):
                complaint = _granted(event, before, made, fate, clocks_agree=checks.world.clocks_agree)
                fate.holders[event.holder] = process
            case Claim():
                complaint = _given_up(event, before, made)
                fate.was_given_up = True
            case Settle() if event.holder:
                complaint = _settled(process, event, before, made, fate)
            case Settle():
                complaint = _resolved(event, made)
                is_outdated = len(fate.holders) > fate.claims_seen
                is_guess = fate.was_sendable or fate.may_be_sent() or is_outdated
                fate.was_guessed = made.state == "not_created" and is_guess
                fate.repeats += made.state == "not_created"
            case Enqueue():
                complaint = _enqueued(event, before, made)
    if complaint is not None:
        checks.fail(f"{process}: {type(event).__name__} of {named(event.key)}: {complaint}")


def _rejected(event: Event, before: Record | None) -> str | None:
    """Judge a rejection: known outcomes must be recorded, and permitted requests must be granted."""
    state = None if before is None else before.state
    match event:
        case Claim() if state in (None, "queued"):
            return "what is new or queued is rejected"
        case Claim() if before is not None and state == "claimed" and before.claimed_at < event.stale_before:
            return "the claim of a process that was stopped stays"
        case Settle() if not event.holder:
            if before is not None and (state in ("queued", *_DOUBTFUL) or before.by_hand):
                return "a person cannot resolve it"
        case Settle() if before is not None and state != "created":
            if event.state == "created":
                return "a persona is not recorded"
            if before.holder == event.holder and state in _DOUBTFUL:
                return "the outcome of its claim is not recorded"
        case Enqueue() if before is None:
            return "what is new is rejected"
        case Enqueue() if state == "not_created" and event.retry_not_created:
            return "what was not created is rejected"
    return None


def _changed(event: Event, before: Record | None, after: Record) -> str | None:
    """Judge a change, whatever the event."""
    if before is None:
        return None
    if (before.key, before.body) != (after.key, after.body) or before.index not in (None, after.index):
        return f"it is about something else: {before} became {after}"
    may_change = before.state != "created" or (before.by_hand and isinstance(event, Settle) and not event.holder)
    if not may_change and replace(before, index=after.index) != after:
        return "it is written over a persona"
    return None


def _granted(event: Claim, before: Record | None, after: Record, fate: Fate, *, clocks_agree: bool) -> str | None:
    if after.holder != event.holder:
        return "it is granted to another"
    if before is None or before.state == "queued":
        return None
    if before.state == "not_created":
        if not event.since:
            return "a worker sends what was not created, and was not enqueued again"
        is_later = str(before.settled_at) > event.since
    elif not event.retry_unknown:
        return f"it was {before.state}, and nobody asked to retry that"
    else:
        is_later = before.claimed_at > event.since
        fate.repeats += 1
    return "the run retries what happened since it began" if is_later and clocks_agree else None


def _settled(process: "Process", event: Settle, before: Record | None, after: Record, fate: Fate) -> str | None:
    if before is None:
        return "it was never claimed"
    if after.by_hand:
        return "it looks as if a person had resolved it"
    if event.state == "created":
        return None
    if before.holder != event.holder:
        return "it is another's claim"
    if after.state == "queued" and before.state == "unknown":
        return "a job that has ended is to be delivered again"
    is_doubtful = before.doubt is not None or "cancelled" in str(after.reason)
    was_refused = all(attempt.is_refused for attempt in fate.attempts if attempt.process is process)
    if after.state == "unknown" and was_refused and not is_doubtful:
        return "certainly nothing was created, and its outcome is unknown"
    return None


def _given_up(event: Claim, before: Record | None, after: Record) -> str | None:
    if before is None or before.state != "claimed" or before.claimed_at >= event.stale_before:
        return "it gives up what may be at work"
    if before.holder != after.holder:
        return "it takes the claim from its holder"
    return None if after.state == "unknown" else f"the outcome of a claim that is given up is {after.state}"


def _resolved(event: Settle, after: Record) -> str | None:
    if after.state != event.state or not after.by_hand:
        return "it does not show what the person said"
    return None


def _enqueued(event: Enqueue, before: Record | None, after: Record) -> str | None:
    if after.index is None:
        return "it has no index"
    if before is None or before.state == after.state:
        return None
    return None if before.state == "not_created" and event.retry_not_created else f"what was {before.state} is enqueued"
