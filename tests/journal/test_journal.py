"""A batch with a journal may be stopped at any moment and run again, and nothing is sent twice or lost.

These promises hold on SQLite and on PostgreSQL.
"""

import asyncio
import contextlib
import random
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.calls import ONCE, requests
from support.held_service import HeldService, client
from support.journals import entries, run_batch, states

from suno_persona import (
    CreatePersonaRequest,
    InvalidRequestError,
    NotCreatedError,
    NotFoundError,
    OutcomeUnknownError,
    PersonaAPI,
    RejectedError,
    UsageError,
    dumps,
    loads,
)
from suno_persona.conversion import make_converter
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno, Fault


async def test_a_batch_that_is_rerun_sends_nothing(
    journal_url: str, fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """Each request returns the whole persona that the first run created for it."""
    many = requests(20)
    first = await run_batch(persona_api, many, Journal(journal_url))
    again = await run_batch(persona_api, many, Journal(journal_url))
    assert len(fake_suno.requests) == 20
    assert {index: outcome.result() for index, outcome in again.items()} == {
        index: outcome.result() for index, outcome in first.items()
    }


async def test_the_order_of_the_rows_does_not_matter(
    journal_url: str, fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """A request is identified by its content, and identical ones by their ordinal; rows can be added anywhere."""
    many = [*requests(10), *requests(5), *requests(5)]
    first = await run_batch(persona_api, many, Journal(journal_url))
    assert len(fake_suno.personas) == 20
    random.Random(7).shuffle(many)
    again = await run_batch(persona_api, [*requests(11)[10:], *many, *requests(1)], Journal(journal_url))
    assert len(fake_suno.requests) == 22
    created = {outcome.result().id for outcome in first.values()}
    assert {again[index].result().id for index in range(1, 21)} == created
    assert all(outcome.result().name == outcome.request.name for outcome in again.values())


async def test_a_rejected_request_is_sent_again(journal_url: str, fake_suno: FakeSuno, once: PersonaAPI) -> None:
    """It certainly created no persona, so the next run sends it and records the new outcome."""
    fake_suno.script(Fault.response(404))
    first = await run_batch(once, requests(1), Journal(journal_url))
    assert isinstance(first[0].error, NotFoundError)
    (entry,) = await entries(journal_url)
    assert entry.state == "not_created"
    assert "NotFoundError" in str(entry.reason)
    again = await run_batch(once, requests(1), Journal(journal_url))
    assert again[0].persona is not None
    (entry,) = await entries(journal_url)
    assert (entry.state, entry.persona, entry.reason) == ("created", again[0].persona, None)


@pytest.mark.parametrize(
    ("fault", "reason", "persona_id"),
    [
        (Fault.lost_response(), "ConnectionLostError", None),
        (Fault.response(200, b'{"data": "fd213afd"}'), "UnreadableResponseError", "fd213afd"),
    ],
    ids=["lost", "only its id"],
)
async def test_a_request_with_an_unknown_outcome_is_not_sent_again(
    journal_url: str, fake_suno: FakeSuno, once: PersonaAPI, fault: Fault, reason: str, persona_id: str | None
) -> None:
    """The error of a later run says when it was claimed, by whom, what happened then, and the id that was found."""
    fake_suno.script(fault)
    before = datetime.now(UTC)
    await run_batch(once, requests(1), Journal(journal_url))
    (entry,) = await entries(journal_url)
    again = (await run_batch(once, requests(1), Journal(journal_url)))[0].error
    assert len(fake_suno.requests) == 1
    assert type(again) is OutcomeUnknownError
    assert (entry.state, again.request, again.attempts) == ("unknown", requests(1)[0], 0)
    assert again.persona_id == entry.persona_id == persona_id
    assert before <= entry.claimed_at <= datetime.now(UTC)
    assert entry.claimed_at.isoformat(sep=" ", timespec="seconds") in str(again)
    assert entry.claimed_by in str(again)
    assert reason in str(again)


async def test_a_request_that_another_run_claimed_is_not_sent(journal_url: str, service: HeldService) -> None:
    """The claim and the whole request are committed before it is sent, and a concurrent run reports the claim."""
    async with client(service) as api, client(service) as other:
        first = asyncio.create_task(run_batch(api, requests(2), Journal(journal_url), 2))
        await service.receives(2)
        found = await entries(journal_url)
        assert {entry.request for entry in found} == set(requests(2))
        assert [(entry.state, entry.settled_at) for entry in found] == [("claimed", None)] * 2
        second = await run_batch(other, requests(2), Journal(journal_url))
        assert [type(outcome.error) for outcome in second.values()] == [OutcomeUnknownError] * 2
        assert "no outcome was recorded" in str(second[0].error)
        service.respond(0)
        service.respond(1)
        assert all(outcome.persona for outcome in (await first).values())
        last = await run_batch(other, requests(2), Journal(journal_url))
        assert all(outcome.persona for outcome in last.values())
        await service.receives(2)


async def test_concurrent_runs_share_the_work(journal_url: str, fake_suno: FakeSuno, persona_api: PersonaAPI) -> None:
    """Each request is sent by one run, even if runs share one journal object; a last run reports all outcomes."""
    many = requests(40)
    shared = Journal(journal_url)
    shuffled = [random.Random(seed).sample(many, len(many)) for seed in range(4)]
    journals = [shared, shared, Journal(journal_url), Journal(journal_url)]
    await asyncio.gather(
        *(run_batch(persona_api, rows, journal) for rows, journal in zip(shuffled, journals, strict=True))
    )
    assert len(fake_suno.requests) == 40
    last = await run_batch(persona_api, many, Journal(journal_url))
    assert all(outcome.persona for outcome in last.values())
    assert len(fake_suno.requests) == 40


async def test_a_request_that_is_rejected_in_a_concurrent_run_is_not_sent(
    journal_url: str, service: HeldService
) -> None:
    """Concurrent runs do not retry each other's rejections; a later run does."""
    async with client(service, max_connections=1) as api, client(service, retry=ONCE) as other:
        slow = asyncio.create_task(run_batch(api, requests(2), Journal(journal_url)))
        await service.receives(1)
        fast = asyncio.create_task(run_batch(other, requests(2)[1:], Journal(journal_url)))
        await service.receives(2)
        service.reject(1, status=404)
        await fast
        service.respond(0)
        error = (await slow)[1].error
        await service.receives(2)
        assert type(error) is NotCreatedError
        assert "NotFoundError" in str(error)
        later = asyncio.create_task(run_batch(other, requests(2), Journal(journal_url)))
        await service.receives(3)
        service.respond(2)
        assert (await later)[1].persona is not None


async def test_a_record_from_the_future_delays_no_retry(tmp_path: Path, fake_suno: FakeSuno, once: PersonaAPI) -> None:
    """What was rejected before a run began is sent again, whatever time its record has: clocks differ, and jump."""
    url = str(tmp_path / "personas.db")
    fake_suno.script(Fault.response(404))
    await run_batch(once, requests(1), Journal(url))
    with closing(sqlite3.connect(url)) as database, database:
        database.execute("UPDATE suno_persona_requests SET settled_at = '2999-01-01T00:00:00.000000+00:00'")
    await run_batch(once, requests(1), Journal(url))
    assert await states(url) == ["created"]


async def test_an_unknown_outcome_is_retried_on_demand(journal_url: str, fake_suno: FakeSuno, once: PersonaAPI) -> None:
    """`retry_unknown` accepts that two personas may exist. A retry that creates none keeps both reasons.

    Here it is a 409, which says that the first attempt had created the persona.
    """
    fake_suno.script(Fault.lost_response(), Fault.response(409, b'{"error": {"message": "it already exists"}}'))
    await run_batch(once, requests(1), Journal(journal_url))
    retried = (await run_batch(once, requests(1), Journal(journal_url, retry_unknown=True)))[0].error
    assert isinstance(retried, OutcomeUnknownError)
    assert isinstance(retried.__cause__, RejectedError)
    error = (await run_batch(once, requests(1), Journal(journal_url)))[0].error
    (entry,) = await entries(journal_url)
    assert entry.state == "unknown"
    for words in (str(error), str(entry.reason)):
        assert "ConnectionLostError" in words
        assert "RejectedError, HTTP 409: it already exists" in words
    last = (await run_batch(once, requests(1), Journal(journal_url, retry_unknown=True)))[0]
    assert last.persona is not None
    assert len(fake_suno.requests) == 3
    assert await states(journal_url) == ["created"]


async def test_a_persona_that_cannot_be_written_is_recorded_as_received(journal_url: str, fake_suno: FakeSuno) -> None:
    """A hook of the user's converter made something that is no JSON: the record has the id and what was received."""
    converter = make_converter()
    converter.register_structure_hook(datetime, lambda value, _: object())
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url, converter=converter) as api:
        first = (await run_batch(api, requests(1), Journal(journal_url)))[0].result()
    with pytest.raises((AttributeError, TypeError)):
        dumps(first)
    (entry,) = await entries(journal_url)
    assert (entry.state, entry.persona_id) == ("created", first.id)
    assert entry.persona == fake_suno.personas[0]


async def test_a_journal_may_be_created_concurrently(journal_url: str) -> None:
    """The first to open it creates the tables, and the others use them."""
    async with contextlib.AsyncExitStack() as stack:
        journals = [Journal(journal_url) for _ in range(8)]
        await asyncio.gather(*(stack.enter_async_context(journal) for journal in journals))
        assert [await journal.counts() for journal in journals] == [{}] * 8


async def test_an_invalid_request_is_not_recorded(journal_url: str, persona_api: PersonaAPI) -> None:
    """It has an outcome, but no record."""
    outcomes = await run_batch(persona_api, ["Neon"], Journal(journal_url))  # type: ignore[list-item]  # what is tried
    assert isinstance(outcomes[0].error, InvalidRequestError)
    assert await entries(journal_url) == []


async def test_any_text_can_be_recorded(journal_url: str, fake_suno: FakeSuno, once: PersonaAPI) -> None:
    """Characters outside the BMP, NUL, lone surrogates and 100 KB of text are recorded, too."""
    awkward = CreatePersonaRequest(root_clip_id="c", name="N\0\U0001f3b5", description="’;--" * 15_000)
    fake_suno.script(
        Fault.response(200, b'{"id": "p-1", "name": "N\\u0000\\ud800", "mood": "\\ud800"}'),
        Fault.response(400, b'{"error": {"message": "no \\u0000 \\ud800", "code": "x"}}'),
        Fault.response(200, b'{"code": 1, "id": "p\\u0000\\ud800"}'),
    )
    await run_batch(once, [awkward, *requests(2)], Journal(journal_url))
    outcomes = await run_batch(once, [awkward, *requests(2)], Journal(journal_url))
    assert outcomes[0].result() == loads(b'{"id": "p-1", "name": "N\\u0000\\ud800", "mood": "\\ud800"}')
    assert {entry.request for entry in await entries(journal_url)} == {awkward, *requests(2)}


async def test_each_outcome_has_the_request_id_and_the_key(
    journal_url: str, fake_suno: FakeSuno, once: PersonaAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Successes have them, too, and so do the outcomes of a later run and the log."""
    caplog.set_level("DEBUG", "suno_persona")
    fake_suno.script(Fault.response(404), Fault.response(500))
    first = await run_batch(once, requests(3), Journal(journal_url))
    for entry in await entries(journal_url):
        (outcome,) = (outcome for outcome in first.values() if outcome.key == entry.key)
        assert entry.request_id == outcome.request_id
        assert f"{entry.key}: {entry.state}, request id {entry.request_id}" in caplog.messages
    created = {outcome.key: outcome.request_id for outcome in first.values() if outcome.persona}
    assert all(created.values())
    again = await run_batch(once, requests(3), Journal(journal_url))
    assert {outcome.key: outcome.request_id for outcome in again.values()}.items() >= created.items()


async def test_a_persona_is_recorded_whoever_holds_the_claim(journal_url: str, service: HeldService) -> None:
    """If a request is in flight twice, the first persona that is returned is the outcome of both."""
    async with client(service) as api, client(service) as other:
        slow = asyncio.create_task(run_batch(api, requests(1), Journal(journal_url)))
        await service.receives(1)
        impatient = asyncio.create_task(run_batch(other, requests(1), Journal(journal_url, retry_unknown=True)))
        await service.receives(2)
        service.respond(0)
        first = (await slow)[0].result()
        service.reject(1, status=404)
        assert (await impatient)[0].persona == first
    (entry,) = await entries(journal_url)
    assert entry.persona == first


async def test_the_api_key_is_not_in_the_journal(tmp_path: Path, fake_suno: FakeSuno, once: PersonaAPI) -> None:
    """The key is not recorded even if a service echoes it."""
    fake_suno.script(Fault.response(400, fake_suno.api_key.encode()), Fault.response(500, fake_suno.api_key.encode()))
    await run_batch(once, requests(3), Journal(tmp_path / "personas.db"))
    for file in tmp_path.iterdir():
        assert fake_suno.api_key.encode() not in file.read_bytes()


async def test_a_journal_belongs_to_the_loop_in_which_it_is_open(tmp_path: Path) -> None:
    """Using it in another loop raises `UsageError`; once it is closed, any loop may open it."""
    journal = Journal(tmp_path / "personas.db")

    async def elsewhere() -> None:
        async with journal:
            pass

    async with journal:
        with pytest.raises(UsageError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())
    await asyncio.to_thread(asyncio.run, elsewhere())


@pytest.mark.slow
async def test_concurrent_runs_of_rejected_requests_do_not_deadlock(
    journal_url: str, fake_suno: FakeSuno, once: PersonaAPI
) -> None:
    """Runs that claim and settle the same requests in different orders wait for each other, and all finish."""
    many = requests(40)
    for seed in range(3):
        fake_suno.script(*[Fault.response(404)] * 300)
        shuffled = [random.Random(seed * 5 + number).sample(many, len(many)) for number in range(5)]
        await asyncio.gather(*(run_batch(once, rows, Journal(journal_url)) for rows in shuffled))
    assert await states(journal_url) == ["not_created"] * 40


def test_a_plain_with_raises_a_helpful_error() -> None:
    """The `TypeError` names `async with`, as that of `PersonaAPI` does."""
    journal = Journal("personas.db")
    with pytest.raises(TypeError, match="async with"), journal:
        pass
