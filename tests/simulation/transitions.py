"""Judges the decisions of the ledger by what really happened; its own table shows the rest (`test_ledger.py`)."""

from typing import TYPE_CHECKING

from simulation.invariants import Checks, Fate, named
from suno_persona.journal._states import Claim, Enqueue, Event, Record, Refusal, Settle, is_granted

if TYPE_CHECKING:
    from simulation.world import Process

_DOUBTFUL = ("claimed", "unknown")


def check(checks: Checks, process: "Process", event: Event, before: Record | None, made: Record | Refusal) -> None:
    """Judge the decision of the ledger on an event, and note what it means for the request."""
    fate = checks.fate(event.key)
    complaint = None
    match event:
        case Claim() if is_granted(made):
            complaint = _granted(event, before, fate, clocks_agree=checks.world.clocks_agree)
            fate.holders[event.holder] = process
        case Claim() if isinstance(made, Record):
            fate.was_given_up = True
            if before is None or before.claimed_at >= event.stale_before:
                complaint = "it gives up what may be at work"
        case Settle() if event.holder:
            complaint = _settled(process, event, before, made, fate)
        case Settle() if isinstance(made, Record):
            is_outdated = len(fate.holders) > fate.claims_seen
            is_guess = fate.was_sendable or fate.may_be_sent() or is_outdated
            fate.was_guessed = made.state == "not_created" and is_guess
            fate.repeats += made.state == "not_created"
        case _:
            complaint = _rejected(event, before) if isinstance(made, Refusal) else None
    if complaint is not None:
        checks.fail(f"{process}: {type(event).__name__} of {named(event.key)}: {complaint}")


def _rejected(event: Event, before: Record | None) -> str | None:
    """Judge a rejection: what may be sent must be granted."""
    state = None if before is None else before.state
    match event:
        case Claim() if state in (None, "queued"):
            return "what is new or queued is rejected"
        case Claim() if before is not None and state == "claimed" and before.claimed_at < event.stale_before:
            return "the claim of a process that was stopped stays"
        case Enqueue() if state == "not_created" and event.retry_not_created:
            return "what was not created is rejected"
    return None


def _granted(event: Claim, before: Record | None, fate: Fate, *, clocks_agree: bool) -> str | None:
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


def _settled(
    process: "Process", event: Settle, before: Record | None, made: Record | Refusal, fate: Fate
) -> str | None:
    """Judge a report: what is known is recorded, and what was certainly not created is not called unknown."""
    if isinstance(made, Refusal):
        is_own = before is not None and before.holder == event.holder and before.state in _DOUBTFUL
        is_lost = before is not None and before.state != "created" and event.state == "created"
        return "a persona is not recorded" if is_lost else "an outcome is not recorded" if is_own else None
    is_doubtful = before is None or before.doubt is not None or "cancelled" in str(made.reason)
    was_refused = all(attempt.is_refused for attempt in fate.attempts if attempt.process is process)
    if made.state == "unknown" and was_refused and not is_doubtful:
        return "certainly nothing was created, and its outcome is unknown"
    return None
