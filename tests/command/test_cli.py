"""The `suno-persona` command, run as a user runs it."""

import json
import re
import signal
import sys
from pathlib import Path

import pytest
from support.command import COMMAND, CREATE, Done, run, run_process, start
from support.rows import rows, write_file

from suno_persona.testing import FakeSuno, Fault


async def test_create_prints_the_id(fake_suno: FakeSuno, env: dict[str, str]) -> None:
    """Stdout has only the id, so that a script can use it."""
    done = await run(COMMAND, *CREATE, env=env)
    assert done == Done(0, f"{fake_suno.personas[0].id}\n", "")
    assert fake_suno.requests[0].json() == {
        "root_clip_id": "54834687",
        "name": "Neon",
        "description": "Night drive",
        "clips": ["54834687"],
        "is_public": False,
    }


async def test_create_has_an_option_for_every_member(fake_suno: FakeSuno, env: dict[str, str]) -> None:
    """Options set every member of the request and the base URL."""
    options = ("--clip", "a", "--clip", "b", "--public", "--base-url", fake_suno.base_url, "--json")
    done = await run(COMMAND, *CREATE, *options, env={"SUNO_API_KEY": env["SUNO_API_KEY"]})
    assert json.loads(done.output)["id"] == fake_suno.personas[0].id
    received = fake_suno.requests[0].json()
    assert isinstance(received, dict)
    assert (received["clips"], received["is_public"]) == (["a", "b"], True)


@pytest.mark.parametrize(
    ("fault", "status"),
    [(Fault.response(400, b'{"detail": "no clip"}'), 1), (Fault.lost_response(), 3), (Fault.server_error(), 3)],
)
async def test_the_exit_status_shows_whether_a_persona_may_exist(
    fault: Fault, status: int, fake_suno: FakeSuno, env: dict[str, str]
) -> None:
    """The status is 1 if there is certainly none and 3 if the outcome is unknown; stderr has the reason on one line."""
    fake_suno.script(fault)
    done = await run(COMMAND, *CREATE, env=env)
    assert (done.status, done.output) == (status, "")
    assert re.fullmatch(r"suno-persona: .+\n", done.errors)


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        ({"SUNO_API_KEY": ""}, CREATE, "SUNO_API_KEY must be the service's key; got none"),
        ({"SUNO_BASE_URL": ""}, CREATE, "Missing option '--base-url' (env var: 'SUNO_BASE_URL')"),
        (
            {"SUNO_BASE_URL": "foo"},
            CREATE,
            "--base-url must be an address such as 'https://gateway.example'; got no https://",
        ),
        ({"SUNO_BASE_URL": "http://gateway.example"}, CREATE, "https://"),
        ({}, (*CREATE, "--name", ""), "name must be non-empty text"),
        ({}, CREATE[:-2], "--description"),
        ({}, ("sing",), "sing"),
    ],
)
async def test_a_usage_error_is_reported_before_anything_is_sent(
    change: dict[str, str], arguments: tuple[str, ...], words: str, fake_suno: FakeSuno, env: dict[str, str]
) -> None:
    """The status of a usage, configuration or input error is 2."""
    done = await run(COMMAND, *arguments, env=env | change)
    assert (done.status, done.output) == (2, "")
    assert words in done.errors
    assert "Traceback" not in done.errors
    assert fake_suno.requests == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("target", [">/dev/full", ">&-"])
async def test_an_id_that_cannot_be_written_to_stdout_is_not_lost(
    target: str, fake_suno: FakeSuno, env: dict[str, str]
) -> None:
    """The id is printed on stderr, and the status is still 0, because the persona was created."""
    command = f"{COMMAND} create --root-clip-id 54834687 --name Neon --description 'Night drive' {target}"
    done = await run("sh", "-c", command, env=env)
    assert done.status == 0
    assert fake_suno.personas[0].id in done.errors
    assert done.errors.count("\n") == 1


@pytest.mark.slow
async def test_text_outside_the_encoding_of_stdout_is_replaced(fake_suno: FakeSuno, env: dict[str, str]) -> None:
    """A persona is not lost because its text cannot be encoded."""
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    done = await run_process(COMMAND, *CREATE[:-3], "Néon", *CREATE[-2:], "--json", env=env | ascii_only)
    assert (done.status, done.errors) == (0, "")
    assert fake_suno.personas[0].id in done.output
    assert (await run_process(COMMAND, "demo", env=ascii_only)).status == 0


@pytest.mark.slow
@pytest.mark.slow
async def test_the_demo_needs_no_configuration() -> None:
    """Without a key or base URL it shows the personas, the rejected clip with its reason, and the next step."""
    done = await run(sys.executable, "-m", "suno_persona", "demo", env={})
    assert (done.status, done.errors) == (0, "")
    ids = re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", done.output)
    assert len(set(ids)) == 4
    assert "clip_not_found" in done.output
    assert f'"persona_id": "{ids[0]}"' in done.output
    assert max(map(len, done.output.splitlines())) <= 80


@pytest.mark.slow
@pytest.mark.posix
async def test_the_fake_service_serves_until_ctrl_c() -> None:
    """It prints settings that a shell can use, serves clients in other processes, and shows each persona."""
    process = await start(COMMAND, "fake", "--port", "0", env={})
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    settings = dict(re.findall(r"(SUNO_\w+)=(\S+)", line))
    assert settings.keys() == {"SUNO_API_KEY", "SUNO_BASE_URL"}
    assert (await run(COMMAND, *CREATE, env=settings)).status == 0
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    assert process.returncode == 130
    assert re.fullmatch(rb"suno-persona: created [0-9a-f-]{36}, 'Neon' from '54834687'\n", errors)


async def test_a_port_in_use_is_reported_in_one_line(fake_suno: FakeSuno) -> None:
    """The status is 2, and there is no traceback."""
    done = await run(COMMAND, "fake", "--port", fake_suno.base_url.rpartition(":")[2], env={})
    assert done.status == 2
    assert re.fullmatch(r"suno-persona: port must be free; got .+\n", done.errors)


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["click", "rich", "sqlalchemy"])
async def test_without_its_extra_the_command_names_it(missing: str, env: dict[str, str], tmp_path: Path) -> None:
    """Without the cli extra, the command prints how to install it."""
    code = f"import sys; sys.modules[{missing!r}] = None; from suno_persona.__main__ import main; main()"
    done = await run(sys.executable, "-c", code, "batch", write_file(tmp_path, rows(1)), env=env)
    assert done == Done(2, "", "suno-persona: the command needs the cli extra: pip install 'suno-persona[cli]'\n")


@pytest.mark.slow
async def test_another_missing_module_is_not_hidden() -> None:
    """A broken installation shows the missing module."""
    code = "import sys; sys.modules['suno_persona.cli'] = None; from suno_persona.__main__ import main; main()"
    done = await run(sys.executable, "-c", code, env={})
    assert "suno_persona.cli" in done.errors
    assert "cli extra" not in done.errors
