"""The ledger with one of its rules broken: the simulation must notice each.

These show that the simulation looks; `tests/mutants.py` breaks every rule, and the ledger's own tests notice.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from msgspec.structs import replace

from suno_persona._response import Ended
from suno_persona.journal import _states as ledger
from suno_persona.journal._states import Binding, Claim, Decision, Keys, Record, Refusal, Settle

_claim, _settle, _bind, _settlement = ledger.claim, ledger.settle, ledger.bind, ledger.settlement


def _grants(state: str) -> Callable[..., Decision]:
    """Grant a claim of records in this state, as if they were queued."""

    def claim(record: Record | None, event: Claim, at: str) -> Decision:
        is_granted = record is not None and record.state == state
        return _claim(replace(record, state="queued") if record is not None and is_granted else record, event, at)

    return claim


def _keeps_the_holder(record: Record | None, event: Claim, at: str) -> Decision:
    made = _claim(record, event, at)
    return replace(made, holder="another") if isinstance(made, Record) else made


def _gives_up_what_is_at_work(record: Record | None, event: Claim, at: str) -> Decision:
    return _claim(record, replace(event, stale_before="9"), at)


def _settles_for_the_holder_alone(record: Record | None, event: Settle, at: str) -> Decision:
    is_others = record is not None and event.holder not in (record.holder, "")
    return Refusal("it is a mutant", record) if is_others else _settle(record, event, at)


def _calls_unknown_not_created(key: str, holder: str, ended: Ended, *, requeue: bool = False) -> Settle:
    event = _settlement(key, holder, ended, requeue=requeue)
    return replace(event, state="not_created") if event.state == "unknown" else event


def _accepts_any_key(bound: Binding | None, wanted: Binding, **_: Any) -> Binding | Refusal:
    return _bind(bound, wanted, accept_new_key=True)


def _key_without_ordinal(_: Keys, body: bytes) -> str:
    return f"{hashlib.sha256(body).hexdigest()}:1"


def _key_of_this_run(_: Keys, body: bytes) -> str:
    return f"{os.urandom(32).hex()}:1"


MUTANTS: dict[str, tuple[object, str, object]] = {
    "claim grants what is claimed": (ledger, "claim", _grants("claimed")),
    "claim grants what is unknown": (ledger, "claim", _grants("unknown")),
    "claim keeps the holder": (ledger, "claim", _keeps_the_holder),
    "give up what is at work": (ledger, "claim", _gives_up_what_is_at_work),
    "settle for the holder alone": (ledger, "settle", _settles_for_the_holder_alone),
    "an unknown outcome is not created": (ledger, "settlement", _calls_unknown_not_created),
    "bind to any key": (ledger, "bind", _accepts_any_key),
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
