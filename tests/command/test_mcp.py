"""`suno-persona mcp`: what an agent gets from a tool, and what the same call costs again."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from support.calls import KEY, ONCE
from support.command import COMMAND, environment, run
from support.held_service import HeldService
from support.held_service import client as client_of

from suno_persona import JournalError, PersonaAPI
from suno_persona.cli._mcp import opened_server
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno, Fault

NEON = {"root_clip_id": "54834687", "name": "Neon", "description": "Night drive"}


@pytest.fixture
def journal(tmp_path: Path) -> str:
    """Return the location of the journal."""
    return str(tmp_path / "personas.db")


@asynccontextmanager
async def serving(api: PersonaAPI, journal: str, **options: Any) -> AsyncIterator[Client]:
    """Serve the tools, and yield a client of them in the same process."""
    async with opened_server(api, Journal(journal), journal) as server, Client(server, **options) as agent:
        yield agent


async def create(agent: Client, **arguments: object) -> dict[str, Any]:
    """Call `create_persona`, and return the structured output."""
    result = await agent.call_tool("create_persona", {**NEON, **arguments})
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def listed(agent: Client, tool: str, **arguments: object) -> list[dict[str, Any]]:
    """Call a tool that reads the journal, and return the records."""
    result = await agent.call_tool(tool, arguments)
    assert isinstance(result.structured_content, dict), result.content
    records: list[dict[str, Any]] = result.structured_content["result"]
    return records


async def test_a_call_creates_a_persona(once: PersonaAPI, fake_suno: FakeSuno, journal: str) -> None:
    """The structured output has the id, and what the next request needs."""
    async with serving(once, journal) as agent:
        record = await create(agent, is_public=True, extra={"persona_type": "vox"}, clips=["54834687", "2"])
        (persona,) = fake_suno.personas
        assert (record["state"], record["persona_id"], record["recorded"]) == ("created", persona.id, False)
        assert record["music_fields"] == persona.music_fields()
        sent = {**NEON, "clips": ["54834687", "2"], "is_public": True, "persona_type": "vox"}
        assert fake_suno.requests[0].json() == sent


async def test_the_same_call_again_returns_the_persona(once: PersonaAPI, fake_suno: FakeSuno, journal: str) -> None:
    """The same arguments are sent once, also by a server that is started anew."""
    async with serving(PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url), journal) as agent:
        first = await create(agent)
        assert await create(agent, clips=[NEON["root_clip_id"]]) == {**first, "recorded": True}
    async with serving(once, journal) as agent:
        assert await create(agent) == {**first, "recorded": True}
    assert len(fake_suno.requests) == 1


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_cancelled_request_lets_what_was_sent_finish(service: HeldService, journal: str, mode: str) -> None:
    """The persona is recorded, and the same call again returns it."""
    async with serving(client_of(service), journal, mode=mode) as agent:
        cancelled = asyncio.create_task(create(agent))
        await service.until(1)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        service.respond(0)
        assert (await create(agent))["state"] == "created"
    assert len(service.received) == 1


async def test_two_calls_at_once_send_one_request(service: HeldService, journal: str) -> None:
    """The second waits for the first; other arguments are another request."""
    async with serving(client_of(service), journal) as agent:
        calls = [asyncio.create_task(create(agent)) for _ in range(2)]
        await service.receives(1)
        other = asyncio.create_task(create(agent, name="Other"))
        await service.until(2)
        service.respond_to_all()
        first, second = await asyncio.gather(*calls)
        assert first == second
        assert (await other)["key"] != first["key"]


async def test_what_was_not_created_is_sent_again(once: PersonaAPI, fake_suno: FakeSuno, journal: str) -> None:
    """A rejection is a result with its reason, and no error of the tool."""
    async with serving(once, journal) as agent:
        fake_suno.script(Fault.response(402, b'{"error": {"message": "no credits"}}'))
        rejected = await create(agent)
        assert (rejected["state"], rejected["persona_id"]) == ("not_created", None)
        assert rejected["reason"].startswith("HTTP 402: no credits")
        assert (await create(agent))["state"] == "created"
        assert len(fake_suno.requests) == 2


async def test_an_unknown_outcome_is_never_sent_again(once: PersonaAPI, fake_suno: FakeSuno, journal: str) -> None:
    """The result says that a persona may exist, and which command a person runs then; no tool and no argument does."""
    async with serving(once, journal) as agent:
        fake_suno.script(Fault.lost_response())
        unknown = await create(agent)
        assert (unknown["state"], unknown["music_fields"]) == ("unknown", None)
        assert "a persona may exist" in unknown["reason"]
        command = f"suno-persona journal resolve {unknown['key'][:12]}:1 --journal {journal} --persona-id ID"
        assert command in unknown["next_step"]
        assert (await create(agent))["state"] == "unknown"
        assert [each["key"] for each in await listed(agent, "unknown_outcomes")] == [unknown["key"]]
        resolve = command.replace(" ID", f" {fake_suno.personas[0].id}").split()[1:]
        assert (await run(COMMAND, *resolve, env={})).status == 0
        assert (await create(agent))["persona_id"] == fake_suno.personas[0].id
        assert len(fake_suno.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": " "}, "name must be text that is not blank; got ' '"),
        ({"clips": []}, "clips"),
        ({"root_clip_id": "https://suno.com/song/5"}, "pass only the clip id"),
        ({"extra": {"name": "Other"}}, "extra"),
        ({"description": 12}, "description"),
    ],
)
async def test_bad_arguments_send_nothing(
    once: PersonaAPI, fake_suno: FakeSuno, journal: str, arguments: dict[str, object], message: str
) -> None:
    """The tool's error says what is wrong."""
    async with serving(once, journal) as agent:
        result = await agent.call_tool("create_persona", {**NEON, **arguments})
        assert result.is_error
        assert message in str(result.content)
        assert not fake_suno.requests


async def test_personas_are_listed_in_pages(once: PersonaAPI, journal: str) -> None:
    """The key of the last one leads to the next page; what was not created is not listed."""
    async with serving(once, journal) as agent:
        created = {(await create(agent, name=name))["key"] for name in ("A", "B", "C")}
        await create(agent, root_clip_id="unknown-1")
        first = await listed(agent, "list_personas", limit=2)
        second = await listed(agent, "list_personas", limit=2, after=first[-1]["key"])
        assert [len(first), len(second)] == [2, 1]
        assert {each["key"] for each in first + second} == created


async def test_annotations_are_true(once: PersonaAPI, journal: str) -> None:
    """Only `create_persona` reaches the service, and its description says that it costs money."""
    async with serving(once, journal) as agent:
        tools = {tool.name: tool for tool in (await agent.list_tools()).tools}
        assert set(tools) == {"create_persona", "list_personas", "unknown_outcomes"}
        hints = {name: each.annotations for name, each in tools.items() if each.annotations and each.annotations.title}
        reads = {name for name, each in hints.items() if each.read_only_hint and not each.open_world_hint}
        assert reads == {"list_personas", "unknown_outcomes"}
        assert [each.destructive_hint for each in hints.values()] == [False] * 3
        assert hints["create_persona"].idempotent_hint
        assert "Costs money" in (tools["create_persona"].description or "")


async def test_progress_says_what_a_call_waits_for(fake_suno: FakeSuno, journal: str) -> None:
    """While the service rejects all calls for a while, the notification says so."""
    heard: list[str | None] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)

    fake_suno.script(Fault.rate_limited(retry_after=1.5))
    async with serving(PersonaAPI(fake_suno.api_key, base_url=fake_suno.base_url), journal) as agent:
        await agent.call_tool("create_persona", NEON, progress_callback=hear)
    assert heard[0] == "waiting for the response"
    assert "rate limited: goes on in 1 s" in heard


async def test_the_key_is_in_nothing_that_an_agent_sees(once: PersonaAPI, fake_suno: FakeSuno, journal: str) -> None:
    """Not even if the service echoes it in an error."""
    async with serving(once, journal) as agent:
        echo = f'{{"error": {{"message": "bad key {fake_suno.api_key}"}}}}'.encode()
        fake_suno.script(Fault.response(401, echo), Fault.response(500, echo))
        seen = [await create(agent), await create(agent), await listed(agent, "unknown_outcomes")]
        assert "bad key" in str(seen)
        assert fake_suno.api_key not in str([seen, await agent.list_tools(), agent.instructions])


async def test_a_server_that_cannot_pay_once_does_not_start(
    env: dict[str, str], fake_suno: FakeSuno, once: PersonaAPI, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs a journal, the journal of this account, and the SDK."""
    async with serving(once, journal) as agent:
        done = await run(COMMAND, "mcp", env=env)
        assert (done.status, "'--journal'" in done.errors) == (2, True)
        await create(agent)
        with pytest.raises(JournalError, match="belongs to another"):
            async with serving(PersonaAPI(KEY, base_url=fake_suno.base_url, retry=ONCE), journal):
                raise AssertionError("it started")
        monkeypatch.setitem(sys.modules, "mcp.server", None)
        done = await run(COMMAND, "mcp", "--journal", journal, env=env)
        assert (done.status, done.errors) == (
            2,
            "suno-persona: mcp needs the mcp extra: pip install 'suno-persona[mcp]'\n",
        )


@pytest.mark.slow
async def test_the_command_serves_over_stdio(env: dict[str, str], fake_suno: FakeSuno, journal: str) -> None:
    """A client starts it as a process of its own; its logs stay out of the protocol."""
    server = StdioServerParameters(command=COMMAND, args=["mcp", "--journal", journal, "--verbose"], env=env)
    async with Client(stdio_client(server)) as agent:
        assert (await create(agent))["state"] == "created"
        assert (await create(agent))["recorded"]
    assert len(fake_suno.requests) == 1


@pytest.mark.slow
@pytest.mark.posix
async def test_a_signal_ends_the_command_once_its_call_is_recorded(service: HeldService, journal: str) -> None:
    """Also while it waits for its client's next line, in a thread."""
    info = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "create_persona", "arguments": NEON}},
    ]
    process = await asyncio.create_subprocess_exec(
        COMMAND, "mcp", "--journal", journal, env={**environment(), **service.env}, stdin=-1, stdout=-1
    )
    assert process.stdin is not None
    process.stdin.writelines(json.dumps(message).encode() + b"\n" for message in messages)
    await service.until(1)
    process.send_signal(signal.SIGTERM)
    service.respond(0)
    assert await process.wait() == 128 + signal.SIGTERM
    await process.communicate()
    async with Journal(journal) as record:
        assert await record.counts() == {"created": 1}
