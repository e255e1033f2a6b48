"""However a batch with a journal ends, each of its requests has a correct record."""

import asyncio
import contextlib
from contextlib import aclosing
from pathlib import Path

import pytest
from support.calls import requests
from support.cancellation import cancelled_at
from support.clock import Clock
from support.held_service import HeldService, client, first_outcome, opened
from support.idle import idle, turns
from support.journals import entries, run_batch, states

from suno_persona import OutcomeUnknownError, Persona, PersonaAPI, UsageError
from suno_persona._engine import Account, Call
from suno_persona._response import Ended
from suno_persona.conversion import dump_request
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno, Fault


async def test_an_outcome_is_committed_before_it_is_yielded(
    journal_url: str, fake_suno: FakeSuno, once: PersonaAPI
) -> None:
    """When a batch yields an outcome, the journal has it already."""
    fake_suno.script(Fault.response(404), Fault.lost_answer())
    async with aclosing(once.create_many(requests(6), journal=Journal(journal_url))) as outcomes:
        async for outcome in outcomes:
            by_name = {entry.request.name: entry for entry in await entries(journal_url)}
            state = "created" if outcome.error is None else ("not_created", "unknown")[outcome.error.may_have_created]
            assert by_name[outcome.request.name].state == state
            assert by_name[outcome.request.name].persona == outcome.persona


async def test_a_cancelled_batch_records_what_is_known(journal_url: str, service: HeldService, advance: Clock) -> None:
    """Requests in flight are unknown; those that wait for another attempt or for a slot were not created."""
    async with client(service, max_connections=2) as api:
        batch = asyncio.create_task(run_batch(api, requests(9), Journal(journal_url), 2))
        await service.receives(2)
        service.reject(0, retry_after=20)
        await idle()
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
    assert await states(journal_url) == ["not_created", "unknown"]


async def test_a_reader_that_stops_early_has_all_outcomes_recorded(journal_url: str, service: HeldService) -> None:
    """Requests that are in flight when the reader stops finish, and are recorded for the next run."""
    async with client(service, max_connections=3) as api:
        outcomes = api.create_many(opened(requests(9), 3), journal=Journal(journal_url))
        await first_outcome(service, outcomes, 3)
        await service.receives(4)
        closing = asyncio.create_task(outcomes.aclose())
        for number in (1, 2, 3):
            service.respond(number)
        await closing
    assert await states(journal_url) == ["created"] * 4


async def test_leaving_a_batch_with_a_journal_logs_nothing(
    journal_url: str, service: HeldService, caplog: pytest.LogCaptureFixture
) -> None:
    """The journal has the outcomes that nobody read."""
    async with client(service, max_connections=3) as api:
        outcomes = api.create_many(opened(requests(9), 3), journal=Journal(journal_url))
        await first_outcome(service, outcomes, 3)
        service.respond_to_all()
        await outcomes.aclose()
    assert [record for record in caplog.records if record.name == "suno_persona"] == []


@pytest.mark.posix
async def test_an_id_that_neither_the_journal_nor_the_reader_has_is_logged(
    tmp_path: Path, service: HeldService, caplog: pytest.LogCaptureFixture
) -> None:
    """Here somebody deletes the journal, and the reader leaves."""
    file = tmp_path / "personas.db"
    async with client(service, max_connections=2) as api:
        outcomes = api.create_many(opened(requests(9), 2), journal=Journal(file))
        await first_outcome(service, outcomes, 2)
        await service.receives(3)
        file.unlink()
        closing = asyncio.create_task(outcomes.aclose())
        await idle()
        service.respond_to_all()
        await closing
    assert {f"persona {name} was created, and its outcome was not read" for name in ("persona-2", "persona-3")} <= set(
        caplog.messages
    )


@pytest.mark.parametrize("points", range(0, 60, 3))
async def test_cancelling_at_any_moment_loses_nothing(points: int, tmp_path: Path, fake_suno: FakeSuno) -> None:
    """Wherever the batch is cancelled, the next run sends only what was certainly not created."""
    url = str(tmp_path / "personas.db")
    async with PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url) as api:
        batch = asyncio.create_task(run_batch(api, requests(3), Journal(url)))
        await turns(points)
        while points > 30 and not fake_suno.requests:
            await asyncio.sleep(0)
        batch.cancel()
        await asyncio.gather(batch, return_exceptions=True)
        outcomes = await run_batch(api, requests(3), Journal(url))
    bodies = [request.body for request in fake_suno.requests]
    assert len(bodies) == len(set(bodies))
    for outcome in outcomes.values():
        assert outcome.persona or isinstance(outcome.error, OutcomeUnknownError)


ACCOUNT = Account("https://gateway.example", lambda salt: "fingerprint")


@pytest.mark.parametrize("point", range(6))
async def test_cancelling_a_call_at_any_point_settles_its_claim(journal_url: str, point: int) -> None:
    """An unsent request is recorded as not created, a sent one as unknown; no claim is left without an outcome."""
    (request,) = requests(1)
    is_sent = False

    async def send(call: Call) -> Ended:
        nonlocal is_sent
        is_sent = True
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as cancellation:
            return Ended(OutcomeUnknownError(message="cancelled", request=call.request), cancellation=cancellation)
        return Ended(Persona(id="fd213afd"))

    async def run_once(journal: Journal) -> None:
        run = await journal.begin(ACCOUNT)
        key = run.key(dump_request(request))
        ended = await run.claim(key, dump_request(request)) or await send(Call(request))
        if not ended.is_recorded:
            ended = await run.settle(key, ended)
        if ended.cancellation is not None:
            raise ended.cancellation

    async with Journal(journal_url) as journal:
        with contextlib.suppress(asyncio.CancelledError):
            await cancelled_at(point, run_once(journal))
    for entry in await entries(journal_url):
        assert entry.state in (("unknown", "created") if is_sent else ("not_created",))
    async with Journal(journal_url) as journal:  # once more, with what is recorded by now
        with contextlib.suppress(asyncio.CancelledError):
            await cancelled_at(0, run_once(journal))
    for entry in await entries(journal_url):
        assert entry.state != "claimed"


@pytest.mark.parametrize("point", range(3))
async def test_a_cancelled_read_leaves_the_journal_usable(journal_url: str, point: int) -> None:
    """Wherever the read is cancelled, its transaction keeps no lock."""
    async with Journal(journal_url) as journal:
        with contextlib.suppress(asyncio.CancelledError):
            await cancelled_at(point, journal.counts())
        assert await journal.counts() == {}


async def test_closing_a_journal_commits_pending_outcomes(journal_url: str) -> None:
    """Outcomes are committed even if nothing awaits them and the closing task is cancelled meanwhile."""

    async def settle() -> None:
        async with Journal(journal_url) as journal:
            run = await journal.begin(ACCOUNT)
            body = dump_request(requests(1)[0])
            key = run.key(body)
            assert await run.claim(key, body) is None
            settling = asyncio.create_task(run.settle(key, Ended(Persona(id="fd213afd"))))
            await asyncio.sleep(0)
            settling.cancel()
            asyncio.current_task().cancel()  # type: ignore[union-attr]  # it is in one

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(settle())
    assert await states(journal_url) == ["created"]


async def test_a_journal_is_opened_and_closed_by_the_batch_or_by_its_owner(
    journal_url: str, persona_api: PersonaAPI
) -> None:
    """Whether it is open or not, it serves one batch after another; reading a closed one raises `UsageError`."""
    journal = Journal(journal_url)
    await run_batch(persona_api, requests(1), journal)
    with pytest.raises(UsageError, match="not open"):
        await journal.counts()
    async with journal:
        await run_batch(persona_api, requests(2), journal)
        await run_batch(persona_api, requests(3), journal)
        assert await journal.counts() == {"created": 3}
