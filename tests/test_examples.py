"""Every example in the README, the docs and the docstrings runs as it stands."""

import asyncio
import doctest
import importlib
import os
import pkgutil
import re
import shlex
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import suno_persona
from suno_persona.testing import FakeSuno, Fault

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
MODULES = [module.name for module in pkgutil.walk_packages(suno_persona.__path__, "suno_persona.")]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_the_examples_in_docstrings_are_right(name: str) -> None:
    """What an example shows is what it gives."""
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.IGNORE_EXCEPTION_DETAIL).failed == 0


async def run(*command: str, fake: FakeSuno, folder: Path) -> str:
    """What a command prints to a user whose environment names the fake service; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "SUNO_API_KEY": fake.api_key, "SUNO_BASE_URL": fake.base_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
async def test_the_examples_in_the_readme_run(code: str, fake_suno: FakeSuno, tmp_path: Path) -> None:
    """Each is a whole program, or a whole test file."""
    file = tmp_path / "test_example.py"
    file.write_text(code, encoding="utf-8")
    command = ("-m", "pytest", "-q") if "async def test_" in code else ()
    await run(sys.executable, *command, str(file), fake=fake_suno, folder=tmp_path)


async def test_the_first_example_creates_a_persona(fake_suno: FakeSuno, tmp_path: Path) -> None:
    """It prints the id of what the service created."""
    file = tmp_path / "example.py"
    file.write_text(PYTHON[0], encoding="utf-8")
    output = await run(sys.executable, str(file), fake=fake_suno, folder=tmp_path)
    assert output == f"Pass this on as persona_id: {fake_suno.personas[0].id}\n"


async def test_the_example_for_the_shell_creates_a_persona(fake_suno: FakeSuno, tmp_path: Path) -> None:
    """It prints the id of what the service created."""
    (example,) = [line for block in SHELL for line in block.splitlines() if line.startswith("suno-persona create")]
    output = await run(
        "bash", "-c", f'PATH="{Path(sys.executable).parent}:$PATH" {example}', fake=fake_suno, folder=tmp_path
    )
    assert output == f"{fake_suno.personas[0].id}\n"


async def test_the_example_of_a_batch_runs(fake_suno: FakeSuno, tmp_path: Path) -> None:
    """It creates what the example file asks for, and the command that shows the journal works on it."""
    copy = tmp_path / "docs" / "examples" / "personas.csv"
    copy.parent.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "examples" / "personas.csv", copy)
    (batch,) = [line for block in SHELL for line in block.splitlines() if line.startswith("suno-persona batch")]
    (show,) = re.findall(r"`(suno-persona journal [^`]*)`", README)
    path = f'PATH="{Path(sys.executable).parent}:$PATH"'
    script = f"cd {tmp_path} && export {path}; {batch}; [ $? = 1 ] && {show}"  # the service refuses one of them
    assert re.search(r"created +│ +4 ", await run("bash", "-c", script, fake=fake_suno, folder=tmp_path))
    assert len(fake_suno.personas) == 4
    assert len((tmp_path / "personas.jsonl").read_text().splitlines()) == 5


async def test_the_way_to_many_machines_runs(fake_suno: FakeSuno, postgres_url: str, tmp_path: Path) -> None:
    """The commands of the page, from the queue's tables to the results, and its example in Python after them."""
    page = (ROOT / "docs" / "how-to" / "many-machines.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    _install_postgresql, install, prepare, work, read = blocks
    assert re.findall(r"export (\w+)=", install) == ["SUNO_JOURNAL_URL", "SUNO_BASE_URL", "SUNO_API_KEY"]
    shutil.copy(ROOT / "docs" / "examples" / "personas.csv", tmp_path)
    (tmp_path / "example.py").write_text(example)
    script = f"""set -e
        export PATH="{Path(sys.executable).parent}:$PATH" SUNO_JOURNAL_URL={shlex.quote(postgres_url)}
        {prepare}
        {work.strip()} &
        trap 'kill $!; wait' EXIT
        {read.replace("personas.jsonl", "personas.jsonl || [ $? = 1 ]")}
        {sys.executable} example.py
    """
    output = await run("bash", "-c", script, fake=fake_suno, folder=tmp_path)
    assert "5 of 5 requests enqueued" in output
    assert "4 created, 1 not created, 0 unknown" in output
    assert re.search(r"created +│ +4 ", output)
    assert "10 enqueued" in output
    assert len(fake_suno.personas) == 14


async def test_the_commands_for_what_is_unknown_run(fake_suno: FakeSuno, tmp_path: Path) -> None:
    """As the page on batches has them, with a key that the first one lists."""
    page = (ROOT / "docs" / "how-to" / "batches.md").read_text(encoding="utf-8")
    show, created, not_created = [line for line in page.splitlines() if line.startswith("suno-persona journal ")]
    (tmp_path / "personas.csv").write_text("root_clip_id,name,description\nc,Neon,Airy pop\nc,Fog,Folk\n")
    fake_suno.script(Fault.lost_answer(), Fault.lost_answer())
    path = f'PATH="{Path(sys.executable).parent}:$PATH"'
    prepare = f"cd {tmp_path} && export {path} && {{ suno-persona batch personas.csv || true; }}"
    listed = await run("bash", "-c", f"{prepare} && {show}", fake=fake_suno, folder=tmp_path)
    first, second = re.findall(r"^([0-9a-f]{64}:1)$", listed, re.MULTILINE)
    settle = f"{created.replace('KEY', first)} && {not_created.replace('KEY', second)}"
    output = await run(
        "bash", "-c", f"{prepare} && {settle} && suno-persona batch personas.csv", fake=fake_suno, folder=tmp_path
    )
    assert len(fake_suno.requests) == 3
    assert '"persona_id":"ID"' in output


def test_ci_runs_the_test_command_of_the_readme() -> None:
    """What is promised to users is what is checked; the contributor's guide says the same."""
    (command,) = [block.strip() for block in SHELL if block.strip().endswith("nox")]
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == command
    assert command in (ROOT / "docs" / "contributing.md").read_text()


def test_the_demo_reads_the_example_that_the_docs_show() -> None:
    """The file in the package, which works from a wheel, is the one in the docs."""
    packaged = files("suno_persona").joinpath("personas.csv")
    assert packaged.read_bytes() == (ROOT / "docs" / "examples" / "personas.csv").read_bytes()
