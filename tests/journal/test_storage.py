"""Whatever another process wrote meanwhile, the database holds what the ledger decides."""

from collections.abc import Callable
from contextlib import closing
from itertools import count, product
from typing import Any

import attrs
import pytest
from msgspec.structs import replace

from suno_persona.journal import _states as ledger
from suno_persona.journal._database import database_url
from suno_persona.journal._states import Claim, Decision, Enqueue, Event, Record, Settle
from suno_persona.journal._storage import Storage

CREATED: dict[str, Any] = {"state": "created", "persona": '{"id":"p"}', "persona_id": "p", "request_id": "r"}
NOT_CREATED: dict[str, Any] = {"state": "not_created", "reason": "no"}
OUTCOMES: tuple[dict[str, Any], ...] = (
    CREATED,
    NOT_CREATED,
    {"state": "unknown", "reason": "lost", "persona_id": "seen"},
    {"state": "queued", "reason": "429"},
)


def claim(key: str, holder: str, **terms: Any) -> Claim:
    """Return a claim of a run that began after everything else."""
    return Claim(key=key, body="{}", holder=holder, by="host", since="9999", **terms)


Events = Callable[[str], list[Event]]
"""A function from a key to the events on it."""

CHANGES: dict[str, Events] = {
    "nothing": lambda _: [],
    "a retry on demand": lambda key: [claim(key, "another", retry_unknown=True)],
    "a stale claim given up": lambda key: [claim(key, "another", stale_before="9999")],
    "a resolution as created": lambda key: [Settle(key=key, holder="", **CREATED)],
    "a resolution as not created": lambda key: [Settle(key=key, holder="", **NOT_CREATED)],
    "an index": lambda key: [Enqueue(key, "{}", 7, "host")],
}
COMPANY: dict[str, Events] = {
    "nothing": lambda _: [],
    "another outcome": lambda key: [Settle(key=f"{key}+", holder="run", **CREATED)],
    "a new claim": lambda key: [claim(f"{key}-", "run")],
    "a claim of what is claimed": lambda key: [claim(f"{key}+", "later")],
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_outcome_is_decided_on_the_current_record(journal_url: str, change: str) -> None:
    """The ledger decides on the record as another process left it, whatever else is in the commit."""
    number, own, other = count(), Storage(database_url(journal_url)), Storage(database_url(journal_url))
    with closing(own), closing(other):
        own.open(create=True)
        other.open(create=True)
        for outcome, company in product(OUTCOMES, COMPANY.values()):
            key, records = f"{next(number):064}:1", dict[str, Record]()
            outcomes = [Settle(key=key, holder="run", **outcome), *company(key)]
            commit(own, records, [claim(key, "run"), claim(f"{key}+", "run")])
            commit(other, records, CHANGES[change](key))
            commit(own, records, sorted(outcomes, key=lambda event: event.key))
            stored = own.page("", (), prefix=key)
            assert {record.key: timeless(record) for record in stored} == records


def commit(storage: Storage, records: dict[str, Record], events: list[Event]) -> None:
    """Commit events, and assert that the storage decides like the ledger; `records` are its decisions so far."""
    expected = []
    for event in events:
        decision = timeless(ledger.decide(records.get(event.key), event, "2026"))
        expected.append(decision)
        if isinstance(decision, Record):
            records[event.key] = decision
    assert [timeless(decision) for decision in storage.commit(events)] == expected


def timeless(decision: Decision) -> Decision:
    """Return the decision without the times of a process's clock."""
    if isinstance(decision, Record):
        return undated(decision)
    return attrs.evolve(decision, record=decision.record and undated(decision.record))


def undated(record: Record) -> Record:
    """Return the record with fixed times."""
    return replace(record, claimed_at="2026", settled_at=record.settled_at and "2026")
