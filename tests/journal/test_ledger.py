"""The ledger makes the transitions that the docs show, and none that breaks its rules."""

import itertools
import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from msgspec.structs import replace
from support.written import assert_shown

from suno_persona import (
    ConnectionFailedError,
    NotCreatedError,
    OutcomeUnknownError,
    Persona,
    RejectedError,
    ServerError,
    dumps,
    loads,
)
from suno_persona._response import Ended, Failure
from suno_persona.journal import State
from suno_persona.journal import _states as ledger
from suno_persona.journal._states import (
    Binding,
    Claim,
    Enqueue,
    Event,
    Keys,
    Record,
    Refusal,
    Settle,
    bind,
    is_granted,
    settlement,
)

EARLIER, BEGAN, LATER, NOW = "2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"
KEY, BODY = "0" * 64 + ":1", "{}"
OLD = Record(key=KEY, body=BODY, state="claimed", claimed_at=EARLIER, claimed_by="host", holder="holder", index=7)

CREATED = {"state": "created", "persona": dumps(Persona(id="p")).decode(), "persona_id": "p", "request_id": "r"}
NOT_CREATED = {"state": "not_created", "reason": "no"}
UNKNOWN = {"state": "unknown", "reason": "lost"}
QUEUED = {"state": "queued", "reason": "429"}


def settled(members: dict[str, Any], **changes: object) -> Record:
    """Return a record with an outcome."""
    return replace(OLD, **{"settled_at": EARLIER, **members, **changes})


RECORDS: dict[str, Record | None] = {
    "no record": None,
    "queued": replace(OLD, state="queued"),
    "claimed": OLD,
    "claimed, in doubt": replace(OLD, doubt="lost", persona_id="seen"),
    "unknown": settled(UNKNOWN),
    "not created": settled(NOT_CREATED),
    "not created, by hand": settled(NOT_CREATED, holder=""),
    "created": settled(CREATED),
    "created, by hand": settled(CREATED, holder=""),
}
"""A record in each state; all of them were changed by `holder` before the run began."""


def decide(record: Record | None, event: Event) -> ledger.Decision:
    return ledger.decide(record, event, NOW)


def claim(since: str = BEGAN, **options: Any) -> Claim:
    return Claim(key=KEY, body=BODY, holder="run", by="host", since=since, **options)


def settle(members: dict[str, Any], holder: str = "holder") -> Settle:
    return Settle(key=KEY, holder=holder, **members)


def enqueue(*, retry_not_created: bool = False) -> Enqueue:
    return Enqueue(KEY, BODY, 7, "host", retry_not_created)


EVENTS: dict[str, Event] = {
    "claim": claim(),
    "claim, `retry_unknown`": claim(retry_unknown=True),
    "claim, by a job": claim(""),
    "claim, by a job, of what is stale": claim("", stale_before=NOW),
    "settle: created": settle(CREATED),
    "settle: not created": settle(NOT_CREATED),
    "settle: unknown": settle(UNKNOWN),
    "settle: deliver again": settle(QUEUED),
    "settle, by another holder: created": settle(CREATED, "another"),
    "settle, by another holder: not created": settle(NOT_CREATED, "another"),
    "settle, by another holder: unknown": settle(UNKNOWN, "another"),
    "settle, by another holder: deliver again": settle(QUEUED, "another"),
    "resolve: created": settle(CREATED, ""),
    "resolve: not created": settle(NOT_CREATED, ""),
    "enqueue": enqueue(),
    "enqueue, `retry_not_created`": enqueue(retry_not_created=True),
}


def described(record: Record) -> str:
    """Return the state of a record, as the page names it."""
    in_doubt = record.state == "claimed" and record.doubt is not None
    return record.state.replace("_", " ") + (", by hand" if record.by_hand else ", in doubt" if in_doubt else "")


def transitions() -> str:
    """Return the transitions that each event makes, a line each: the new state, and from where."""
    lines = ""
    for name, event in EVENTS.items():
        sources: dict[str, list[str]] = {}
        for before, record in RECORDS.items():
            if isinstance(result := decide(record, event), Record):
                sources.setdefault(described(result), []).append(before)
        made = "; ".join(f"{after} from {' / '.join(states)}" for after, states in sources.items())
        lines += f"- **{name}**: {made}\n" if made else ""
    return lines


def pairs() -> Iterator[tuple[Record | None, Event, Record | Refusal]]:
    """Yield each event in each state, with its result."""
    for record, event in itertools.product(RECORDS.values(), EVENTS.values()):
        yield record, event, decide(record, event)


def test_the_docs_show_every_transition(pytestconfig: pytest.Config) -> None:
    """The list shows what the ledger does; `pytest --write-docs` writes it."""
    assert_shown(pytestconfig, "explanation/ledger.md", transitions(), start="<!-- transitions -->\n\n", end="\n## ")


def test_the_table_has_every_state_and_every_event() -> None:
    """A state or an event that is added must be added to the table."""
    assert {record.state for record in RECORDS.values() if record} == set(get_args(State))
    assert {type(event) for event in EVENTS.values()} == set(get_args(Event))
    assert set(ledger.PENDING) | set(ledger.SETTLED) == set(get_args(State))


def test_a_refusal_leaves_the_record_as_it_is() -> None:
    """A `Refusal` carries the record and a reason."""
    for record, _, result in pairs():
        if isinstance(result, Refusal):
            assert result.record is record
            assert result.reason


def test_no_transition_changes_the_identity_of_a_record() -> None:
    """Its key, its body and its index in the batch stay the same."""
    for record, event, result in pairs():
        if isinstance(result, Record):
            assert (result.key, result.body) == (event.key, BODY)
            assert result.index == (record.index if record else getattr(event, "index", None))


def test_every_change_of_a_claim_changes_its_state_its_holder_or_its_index() -> None:
    """Comparing these three is enough to see that a claimed record is unchanged, and the storage compares no others."""
    claimed = [record for record in RECORDS.values() if record is not None and record.state == "claimed"]
    for record, index, event in itertools.product(claimed, (None, 7), EVENTS.values()):
        before = replace(record, index=index)
        after = decide(before, event)
        if isinstance(after, Record) and after != before:
            assert (after.state, after.holder, after.index) != (before.state, before.holder, before.index)


def test_a_persona_is_overwritten_only_if_it_was_resolved_by_hand() -> None:
    """A persona that the service created stays as it is, whatever the event."""
    for record, event, result in pairs():
        if record is not None and record.state == "created" and isinstance(result, Record):
            assert isinstance(event, Settle)
            assert not event.holder
            assert record.by_hand


def test_a_request_that_may_have_created_is_granted_only_on_demand() -> None:
    """A claimed or unknown request is granted only with `retry_unknown`, and a created one never."""
    assert is_granted(decide(None, claim()))
    for record, event, result in pairs():
        if isinstance(event, Claim) and is_granted(result) and record is not None:
            assert record.state in ("queued", "not_created") or event.retry_unknown
            assert record.state != "created"


def test_only_the_holder_or_a_person_settles_a_request_without_a_persona() -> None:
    """Other processes do not know whether the request was sent; a person may have checked."""
    for record, event, result in pairs():
        if isinstance(event, Settle) and isinstance(result, Record) and result.state != "created":
            assert record is not None
            assert event.holder in (record.holder, "")


def test_a_persona_is_recorded_whoever_reports_it() -> None:
    """It is recorded in every state, unless the record has a persona already."""
    for record, event, result in pairs():
        if not isinstance(event, Settle) or event.state != "created" or not event.holder:
            continue
        if record is not None and record.state != "created":
            assert isinstance(result, Record)
            assert (result.persona, result.persona_id, result.request_id) == (CREATED["persona"], "p", "r")
            assert not result.by_hand


def test_a_new_claim_forgets_the_last_outcome() -> None:
    """The record has only what belongs to the new claim."""
    result = decide(RECORDS["not created"], claim())
    assert result == replace(OLD, holder="run", claimed_at=NOW)


def test_a_retry_does_not_end_the_doubt() -> None:
    """A later claim that creates nothing does not end the doubt about an earlier one; only a persona does."""
    lost = settled(UNKNOWN, persona_id="seen")
    retried = decide(lost, claim(retry_unknown=True))
    assert isinstance(retried, Record)
    given_up = decide(retried, claim("", stale_before="2027-01-01"))
    assert isinstance(given_up, Record)
    for record, reported in itertools.product((retried, given_up), (NOT_CREATED, UNKNOWN, QUEUED)):
        result = decide(record, settle(reported, "run"))
        assert isinstance(result, Record)
        assert (result.state, result.persona_id, result.doubt) == ("unknown", "seen", "lost")
        assert result.reason == ("lost" if reported is UNKNOWN else f"lost; a retry: {reported['reason']}")
    created = decide(retried, settle(CREATED, "run"))
    assert created == settled(CREATED, settled_at=NOW, claimed_at=NOW, holder="run")


def test_a_stale_claim_becomes_unknown_and_keeps_its_holder() -> None:
    """The holder's process may continue later, and report another outcome. A claim of the very time is not stale."""
    assert isinstance(decide(OLD, claim("", stale_before=EARLIER)), Refusal)
    given_up = decide(OLD, claim("", stale_before=NOW))
    stopped = {"state": "unknown", "reason": "no outcome was recorded: host was stopped"}
    assert given_up == settled(stopped, settled_at=NOW)
    assert isinstance(given_up, Record)
    assert not is_granted(given_up)
    assert decide(given_up, settle(CREATED)) == settled(CREATED, settled_at=NOW)


def test_a_record_that_others_changed_since_the_run_began_is_not_retried() -> None:
    """Neither a request that was not created is retried nor, with `retry_unknown`, one in flight."""
    for time, granted in ((BEGAN, True), (LATER, False)):
        assert is_granted(decide(settled(NOT_CREATED, settled_at=time), claim())) is granted
        assert is_granted(decide(replace(OLD, claimed_at=time), claim(retry_unknown=True))) is granted


@pytest.mark.parametrize("reported", [CREATED, NOT_CREATED, UNKNOWN, QUEUED], ids=lambda members: members["state"])
def test_a_run_that_created_nothing_learns_of_another_persona(reported: dict[str, Any]) -> None:
    """What is recorded counts instead of its own outcome, if there may be a persona, and never otherwise."""
    for record in RECORDS.values():
        event = settle(reported, "another")
        found = ledger.recorded_instead(event, Refusal("no", record))
        may_exist = record is not None and record.state in ("claimed", "unknown", "created")
        assert found is (record if reported in (NOT_CREATED, QUEUED) and may_exist else None)
        if record is not None:
            assert ledger.recorded_instead(event, record) is found


def test_an_index_is_recorded_once() -> None:
    """Enqueueing a batch over a journal adds the index; a second batch does not change it."""
    added = decide(replace(OLD, index=None), enqueue())
    assert isinstance(added, Record)
    assert added == OLD
    assert isinstance(decide(replace(OLD, index=3), enqueue()), Refusal)


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (RejectedError(message="no\0 \ud800", status=400), "not_created", "RejectedError, HTTP 400: no\ufffd ?"),
        (ServerError(message="lost", persona_id="p"), "unknown", "ServerError: lost"),
        (OutcomeUnknownError(message="cancelled"), "unknown", "OutcomeUnknownError: cancelled"),
        (NotCreatedError(message="cancelled before it was sent"), "not_created", "cancelled before it was sent"),
    ],
)
def test_an_error_is_recorded_with_its_reason(error: Failure, state: State, reason: str) -> None:
    """The error itself shows whether a persona may exist."""
    event = settlement(KEY, "holder", Ended(error, "r"))
    assert (event.state, event.request_id) == (state, "r")
    assert reason in str(event.reason)
    assert event.persona_id == getattr(error, "persona_id", None)


def test_only_a_request_that_was_not_created_is_requeued() -> None:
    """A job that ends without a persona leaves its request to a redelivery."""
    unsent, lost = ConnectionFailedError(message="refused"), ServerError(message="lost")
    assert settlement(KEY, "holder", Ended(unsent), requeue=True).state == "queued"
    assert settlement(KEY, "holder", Ended(lost), requeue=True).state == "unknown"


@pytest.mark.parametrize(
    ("name", "received", "recorded"),
    [
        ("N\ud800", None, {"id": "p\0", "name": "N\ud800"}),
        ("N", b'{"id":"p"}', {"id": "p"}),
        (object(), None, {"id": "p\0"}),
        (object(), {"mood": "blue"}, {"id": "p\0", "mood": "blue"}),
    ],
)
def test_a_persona_is_recorded_whole(name: Any, received: Any, recorded: dict[str, str]) -> None:
    """As `dumps` writes it, or as received: a hook of the user's may have made what is no JSON, here an object."""
    event = settlement(KEY, "holder", Ended(Persona(id="p\0", name=name), document=received))
    assert (event.state, event.persona_id) == ("created", "p\ufffd")
    assert loads(str(event.persona)) == loads(json.dumps(recorded))


def test_identical_requests_have_ordinals() -> None:
    """The key is the hash of the body, and its ordinal among identical ones, whatever comes between them."""
    keys = Keys()
    a, b, again = (keys.next(body) for body in (b"a", b"b", b"a"))
    assert a.split(":")[0] == again.split(":")[0] == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert [key.split(":")[1] for key in (a, b, again)] == ["1", "1", "2"]


@pytest.mark.parametrize(
    ("bound", "accept_new_key", "reason"),
    [
        (None, False, None),
        (Binding("https://a/", "1"), False, None),
        (Binding("https://a/", "2"), True, None),
        (Binding("https://a/", "2"), False, "another API key of https://a/; accept_new_key=True"),
        (Binding("https://b/", "1"), True, "belongs to https://b/, and this client sends to https://a/"),
    ],
)
def test_a_journal_belongs_to_one_account(bound: Binding | None, accept_new_key: bool, reason: str | None) -> None:
    """The first claim binds it; a rotated key is accepted on demand, another endpoint never."""
    result = bind(bound, wanted := Binding("https://a/", "1"), accept_new_key=accept_new_key)
    if reason is None:
        assert result == wanted
    else:
        assert isinstance(result, Refusal)
        assert reason in result.reason
