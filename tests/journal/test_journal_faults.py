"""When the journal fails, the error is clear, nothing is sent without its claim, and no outcome is lost.

First what every database does, then PostgreSQL alone. Files that are not whole are in `test_whole_journals.py`.
"""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url
from support.calls import requests
from support.command import COMMAND, run
from support.databases import Databases, frozen, needs_linux, needs_pgbouncer, own_server, pooler
from support.held_service import HeldService, client
from support.journals import run_batch, take

from suno_persona import ConfigurationError, JournalError, Outcome, PersonaAPI
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno


def execute(file: Path, *statements: str) -> None:
    """Run statements on an SQLite file."""
    with closing(sqlite3.connect(file)) as database, database:
        for statement in statements:
            database.execute(statement)


def content(file: Path) -> bytes | None:
    """Return what is in a file: of a database, all but the header, which SQLite changes as it opens it."""
    if not file.is_file():
        return None
    found = file.read_bytes()
    return found[100:] if found.startswith(b"SQLite") else found


async def newer(file: Path) -> None:
    async with Journal(file):
        pass
    execute(file, "UPDATE suno_persona_schema SET version = 3")


UNUSABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a text": (lambda file: file.write_text("root_clip_id,name,description\n" * 100), "personas.db: .*not a database"),
    "another application's": (
        lambda file: execute(file, "CREATE TABLE letters (text)"),
        "personas.db: must be a journal or a new file; got one with the table 'letters'",
    ),
    "a newer version's": (newer, "the journal must have version 2; got 3"),
    "a folder": (Path.mkdir, "the journal must be a file; got a folder"),
    "in a missing folder": (lambda file: file.parent.rmdir(), "folder/personas.db: .*unable to open"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
async def test_a_file_that_is_no_journal_is_an_error(
    fake_suno: FakeSuno, persona_api: PersonaAPI, tmp_path: Path, kind: str
) -> None:
    """It names the file, nothing is sent, and the file stays as it was: it may be the input, or somebody else's."""
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "personas.db"
    prepare, reason = UNUSABLE[kind]
    if asyncio.iscoroutine(preparing := prepare(file)):
        await preparing
    before = content(file)
    with pytest.raises(JournalError, match=reason) as caught:
        await run_batch(persona_api, requests(1), Journal(file))
    assert not caught.value.may_have_created
    assert fake_suno.requests == []
    assert content(file) == before


async def test_existing_creates_no_journal(tmp_path: Path, postgres_url: str) -> None:
    """`Journal.existing` creates neither a file nor tables if the database was named by mistake."""
    (tmp_path / "empty.db").touch()
    for url in (str(tmp_path / "none.db"), str(tmp_path / "empty.db"), f"sqlite:///{tmp_path}/none.db", postgres_url):
        with pytest.raises(JournalError, match=r"the journal must exist; got (no such file|a database without one)"):
            async with Journal.existing(url):
                pass
    assert not (tmp_path / "none.db").exists()
    async with Journal(postgres_url), Journal.existing(postgres_url) as journal:
        assert await journal.find("none") is None


async def test_a_link_names_the_same_journal(persona_api: PersonaAPI, fake_suno: FakeSuno, tmp_path: Path) -> None:
    """Runs may use either name of the file."""
    (tmp_path / "link.db").symlink_to(tmp_path / "personas.db")
    await run_batch(persona_api, requests(1), Journal(tmp_path / "link.db"))
    await run_batch(persona_api, requests(2), Journal(tmp_path / "personas.db"))
    assert len(fake_suno.requests) == 2
    assert (tmp_path / "link.db").is_symlink()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "in memory"),
        ("sqlite+pysqlite:///:memory:", "in memory"),
        ("postgresql://host:port:hunter22/x", "a URL that cannot be read"),
        ("mssql+pyodbc://host/x", "got one of mssql; SQLite and PostgreSQL are supported"),
        ("sqlite+nothing:///x.db", "sqlite.nothing"),
        ("postgresql+asyncpg://host/x", "asyncpg is not installed"),
        (b"personas.db", "got a bytes"),
        ("postgresql:/user:hunter22@host/x", "got neither"),
        ("host=127.0.0.1 password=hunter22", "got neither"),
    ],
)
async def test_an_invalid_address_is_a_configuration_error(url: str, reason: str) -> None:
    """The error says what it got, and shows no password."""
    with pytest.raises(ConfigurationError, match=reason) as caught:
        async with Journal(url):
            pass
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize("name", ["retry_unknown", "accept_new_key"])
def test_a_flag_must_be_true_or_false(name: str) -> None:
    """A value that is merely truthy does not send anything again, or to another account."""
    with pytest.raises(ConfigurationError, match=f"{name} must be True or False; got 'no'"):
        Journal("personas.db", **{name: "no"})  # type: ignore[arg-type]  # what is tried here


async def test_a_path_instead_of_a_journal_is_a_configuration_error(persona_api: PersonaAPI) -> None:
    """Passing the path of a journal is a likely mistake."""
    with pytest.raises(ConfigurationError, match="journal must be a Journal; got a str"):
        await run_batch(persona_api, requests(1), "personas.db")  # type: ignore[arg-type]  # what is tried here


@pytest.mark.parametrize("module", ["sqlalchemy", "psycopg"])
def test_a_missing_extra_is_named(module: str, tmp_path: Path) -> None:
    """Using a journal without its extra raises an error that names the extra."""
    url = "postgresql://host/x" if module == "psycopg" else str(tmp_path / "personas.db")
    code = f"""if True:
        import asyncio, sys
        sys.modules[{module!r}] = None
        from suno_persona.journal import Journal
        asyncio.run(Journal({url!r}).__aenter__())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    extra = "postgres" if module == "psycopg" else "journal"
    assert f"pip install 'suno-persona[{extra}]'" in done.stderr.splitlines()[-1]


DROPS = {
    "sqlite": """
        CREATE TRIGGER drop_it BEFORE INSERT ON suno_persona_requests BEGIN SELECT RAISE(IGNORE); END
    """,
    "postgresql": """
        CREATE FUNCTION drop_it() RETURNS trigger AS 'BEGIN RETURN NULL; END' LANGUAGE plpgsql;
        CREATE TRIGGER drop_it BEFORE INSERT ON suno_persona_requests FOR EACH ROW EXECUTE FUNCTION drop_it()
    """,
}
"""A trigger that drops every record."""


async def test_a_request_whose_claim_the_database_drops_is_not_sent(
    journal_url: str, fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """Here a trigger of another application drops the claim: nothing is sent without one."""
    is_postgresql = journal_url.startswith("postgresql")
    connection: Any = psycopg.connect(journal_url) if is_postgresql else sqlite3.connect(journal_url)
    async with Journal(journal_url):
        with closing(connection):
            connection.execute(DROPS["postgresql" if is_postgresql else "sqlite"])
            connection.commit()
    with pytest.raises(JournalError, match=r"the database did not keep the record of [0-9a-f]{64}:1"):
        await run_batch(persona_api, requests(1), Journal(journal_url))
    assert fake_suno.requests == []


@pytest.mark.parametrize("change", ["persona = '{}'", "persona = NULL", "state = 'lost'", "body = '{}'"])
async def test_an_unreadable_record_is_an_error(persona_api: PersonaAPI, tmp_path: Path, change: str) -> None:
    """If somebody edited the file, nothing is guessed from what is left."""
    file = tmp_path / "personas.db"
    await run_batch(persona_api, requests(1), Journal(file))
    execute(file, f"UPDATE suno_persona_requests SET {change}")
    with pytest.raises(JournalError, match=r"record of [0-9a-f]{64}:1 cannot be read: "):
        await run_batch(persona_api, requests(1), Journal(file))


def can_mount() -> bool:
    """Return whether this machine lets a process mount a disk."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rm", "true"], check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs `unshare -rm`, a Linux that lets a process mount a disk")
@pytest.mark.parametrize(("disk", "options"), [("full", "size=400k"), ("read-only", "ro")])
async def test_a_disk_that_cannot_be_written_stops_the_batch(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, disk: str, options: str
) -> None:
    """The command reports it in one line; nothing is sent without its claim, and no persona is lost."""
    rows, disk_folder, kept = tmp_path / "rows.csv", tmp_path / "disk", tmp_path / "kept"
    rows.write_text("root_clip_id,name,description\n" + "".join(f"c,N{number},D\n" for number in range(400)))
    disk_folder.mkdir()
    kept.mkdir()
    script = (
        f"mount -t tmpfs -o {options} none {disk_folder} && "
        f"{COMMAND} batch {rows} --journal {disk_folder}/personas.db --output {tmp_path}/out.jsonl; "
        f"status=$?; cp {disk_folder}/* {kept}; exit $status"
    )
    done = await run("unshare", "-rm", "sh", "-c", script, env=env)
    assert done.status == 2, done.errors
    assert "Traceback" not in done.errors
    assert "the journal cannot be read or written: " in done.errors
    async with Journal(kept / "personas.db") as journal:
        entries = {entry.request.name: entry async for entry in journal.entries()}
    sent = {request.json()["name"] for request in fake_suno.requests}  # type: ignore[index]  # JSON
    assert sent <= entries.keys()
    for persona in fake_suno.personas:
        recorded = entries[str(persona.name)].persona_id == persona.id
        assert recorded or persona.id in (tmp_path / "out.jsonl").read_text()
    assert bool(sent) == (disk == "full")


@pytest.mark.parametrize("option", ["nonsense=1", "connect_timeout=soon"])
async def test_an_invalid_option_of_the_driver_is_an_error(option: str) -> None:
    """The message names the option."""
    with pytest.raises(JournalError, match=option.partition("=")[0]):
        async with Journal(f"postgresql://127.0.0.1:1/personas?{option}"):
            pass


async def test_the_error_of_an_unreachable_server_hides_the_password(persona_api: PersonaAPI) -> None:
    """The message names the server's address."""
    url = "postgresql://user:hunter22@127.0.0.1:1/personas"
    with pytest.raises(JournalError, match=r"user:\*\*\*@127.0.0.1:1/personas: .*refused") as caught:
        await run_batch(persona_api, requests(1), Journal(url))
    assert "hunter22" not in f"{caught.value}{caught.value.__cause__}{Journal(url)!r}"
    assert "hunter22" not in repr(Journal("postgresql://user@host/x?password=hunter22"))


async def test_a_database_that_goes_away_stops_the_batch(
    service: HeldService, databases: Databases, postgres_url: str
) -> None:
    """Requests in flight finish and are yielded, nothing more is sent, and then the error is raised."""
    outcomes: list[Outcome] = []
    async with client(service, max_connections=3) as api:
        batch = asyncio.create_task(take(api, requests(50), Journal(postgres_url), outcomes, in_flight=3))
        await service.receives(3)
        with databases.away(postgres_url):
            for number in range(3):
                service.respond(number)
            with pytest.raises(JournalError, match="the journal cannot be read or written"):
                await batch
            await service.receives(3)
    assert sorted(outcome.result().id for outcome in outcomes) == ["persona-1", "persona-2", "persona-3"]
    async with Journal(postgres_url) as journal:
        assert (await journal.counts())["claimed"] == 3


async def test_a_restart_of_the_database_between_two_uses_is_no_error(
    databases: Databases, postgres_url: str, persona_api: PersonaAPI
) -> None:
    """A connection that the server closed while it was idle is replaced."""
    async with Journal(postgres_url) as journal:
        await run_batch(persona_api, requests(1), journal)
        databases.end_connections(postgres_url)
        await run_batch(persona_api, requests(2), journal)
        assert await journal.counts() == {"created": 2}


@pytest.mark.slow
@needs_linux
async def test_a_transaction_on_a_frozen_server_times_out(
    fake_suno: FakeSuno, once: PersonaAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises a `JournalError` that says how long it took; nothing is sent, and the journal closes."""
    monkeypatch.setattr("suno_persona.journal._database.TRANSACTION", 1)
    with own_server() as server:
        async with Journal(f"{server.get_uri()}&connect_timeout=2") as journal:
            pid = server.get_pid()
            assert pid is not None
            with frozen(pid):
                with pytest.raises(JournalError, match="took longer than 1 s"):
                    await run_batch(once, requests(3), journal)
                assert fake_suno.requests == []
                with pytest.raises(JournalError, match="cannot be read or written"):
                    await journal.counts()
            assert await journal.counts() == {}


# `synchronous_commit` at the end of a transaction: a deferred trigger runs at its commit.
SPY = """
    CREATE TABLE commits (setting text);
    CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO commits VALUES (current_setting('synchronous_commit')); RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER spy AFTER INSERT OR UPDATE ON suno_persona_requests
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION spy();
"""


@pytest.mark.parametrize(
    ("default", "expected"), [("off", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")]
)
@pytest.mark.parametrize("through", ["directly", pytest.param("a pooler", marks=needs_pgbouncer)])
async def test_a_commit_survives_a_power_cut_whatever_the_servers_default(
    postgres_url: str,
    databases: Databases,
    fake_suno: FakeSuno,
    once: PersonaAPI,
    tmp_path: Path,
    default: str,
    expected: str,
    through: str,
) -> None:
    """`synchronous_commit` is at least on, also behind a pooler in transaction mode, which several batches share."""
    async with Journal(postgres_url):
        pass
    name = str(make_url(postgres_url).database)
    databases.run("ALTER DATABASE {} SET synchronous_commit = {}", name, default)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(SPY)
    if through == "directly":
        await run_batch(once, requests(5), Journal(postgres_url))
    else:
        with pooler(postgres_url, tmp_path) as url:
            await asyncio.gather(*(run_batch(once, requests(100), Journal(url)) for _ in range(3)))
        assert len(fake_suno.requests) == 100
    with psycopg.connect(postgres_url) as connection:
        settings = {setting for (setting,) in connection.execute("SELECT setting FROM commits")}
    assert settings == {expected}
