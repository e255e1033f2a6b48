"""The ledger with one of its rules broken, to show that the simulation looks.

`tests/mutants.py` breaks every rule of the ledger, and its own tests notice.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from msgspec.structs import replace

from suno_persona._response import Ended
from suno_persona.journal import _states as ledger
from suno_persona.journal._states import Binding, Claim, Decision, Keys, Record, Refusal, Settle

_claim, _settle, _bind, _settlement = ledger.claim, ledger.settle, ledger.bind, ledger.settlement


def _grants_what_is_claimed(record: Record | None, event: Claim, at: str) -> Decision:
    is_claimed = record is not None and record.state == "claimed"
    return _claim(replace(record, state="queued") if record is not None and is_claimed else record, event, at)


def _settles_for_the_holder_alone(record: Record | None, event: Settle, at: str) -> Decision:
    is_others = record is not None and event.holder not in (record.holder, "")
    return Refusal("it is a mutant", record) if is_others else _settle(record, event, at)


def _calls_unknown_not_created(key: str, holder: str, ended: Ended, *, requeue: bool = False) -> Settle:
    event = _settlement(key, holder, ended, requeue=requeue)
    return replace(event, state="not_created") if event.state == "unknown" else event


def _accepts_any_key(bound: Binding | None, wanted: Binding, **_: Any) -> Binding | Refusal:
    return _bind(bound, wanted, accept_new_key=True)


def _key_of_this_run(_: Keys, body: bytes) -> str:
    return f"{os.urandom(32).hex()}:1"


MUTANTS: dict[str, tuple[object, str, object]] = {
    "claim grants what is claimed": (ledger, "claim", _grants_what_is_claimed),
    "settle for the holder alone": (ledger, "settle", _settles_for_the_holder_alone),
    "an unknown outcome is not created": (ledger, "settlement", _calls_unknown_not_created),
    "bind to any key": (ledger, "bind", _accepts_any_key),
    "each run has its own keys": (Keys, "next", _key_of_this_run),
}
"""For each mutant: the object, the attribute that it replaces, and the replacement."""


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Break one rule."""
    holder, attribute, function = MUTANTS[name]
    with mock.patch.object(holder, attribute, function):
        yield
