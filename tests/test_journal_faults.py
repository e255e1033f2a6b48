"""When the record fails: a clear error, nothing sent without its claim, and no outcome lost."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.calls import requests
from support.command import COMMAND, run
from support.databases import Databases
from support.held_service import HeldService, client

from suno_persona import ConfigurationError, JournalError, Outcome, PersonaAPI
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno


async def take(api: PersonaAPI, journal: Journal, outcomes: list[Outcome], count: int = 50) -> None:
    """Run a batch, and keep the outcomes that come before it fails."""
    async for outcome in api.create_many(requests(count), journal=journal):
        outcomes.append(outcome)  # noqa: PERF401 - they are wanted also where it fails


async def fails(fake: FakeSuno, api: PersonaAPI, url: str, reason: str) -> None:
    """The batch fails for this reason before anything is sent."""
    with pytest.raises(JournalError, match=reason) as caught:
        await take(api, Journal(url), [])
    assert not caught.value.may_have_created
    assert fake.requests == []


async def test_a_file_that_is_no_database_is_refused(
    fake_suno: FakeSuno, persona_api: PersonaAPI, tmp_path: Path
) -> None:
    """Such as the input in place of the journal; it stays as it is."""
    file = tmp_path / "personas.csv"
    text = "root_clip_id,name,description\n" * 100
    file.write_text(text)
    await fails(fake_suno, persona_api, str(file), "personas.csv: .*not a database")
    assert file.read_text() == text


async def test_a_database_of_something_else_is_refused(
    fake_suno: FakeSuno, persona_api: PersonaAPI, tmp_path: Path
) -> None:
    """An SQLite file with other tables gets no tables of ours."""
    file = tmp_path / "mail.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE letters (text)")
    connection.close()
    await fails(fake_suno, persona_api, str(file), "mail.db: must be a journal or a new file; got .*'letters'")
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("letters",)]
    connection.close()


async def test_a_postgresql_database_may_hold_other_tables(postgres_url: str, persona_api: PersonaAPI) -> None:
    """A journal may live beside the tables of an application."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE letters (text text)")
    outcomes: list[Outcome] = []
    await take(persona_api, Journal(postgres_url), outcomes, count=1)
    assert outcomes[0].persona is not None


async def test_a_newer_journal_is_refused(fake_suno: FakeSuno, persona_api: PersonaAPI, tmp_path: Path) -> None:
    """Its rules are not known here."""
    file = tmp_path / "personas.db"
    async with Journal(file):
        pass
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE suno_persona_schema SET version = 3")
    connection.close()
    await fails(fake_suno, persona_api, str(file), "the journal must have version 1 to 2; got 3")


async def test_a_folder_that_is_not_there_is_told(fake_suno: FakeSuno, persona_api: PersonaAPI, tmp_path: Path) -> None:
    """The message names the path."""
    await fails(fake_suno, persona_api, str(tmp_path / "none" / "personas.db"), "none/personas.db: .*unable to open")


async def test_a_folder_is_no_journal(fake_suno: FakeSuno, persona_api: PersonaAPI, tmp_path: Path) -> None:
    """The message says so."""
    await fails(fake_suno, persona_api, str(tmp_path), f"{tmp_path}: the journal must be a file; got a folder")


async def test_a_link_names_the_same_journal(persona_api: PersonaAPI, fake_suno: FakeSuno, tmp_path: Path) -> None:
    """Whichever of the two names a run uses."""
    (tmp_path / "link.db").symlink_to(tmp_path / "personas.db")
    await take(persona_api, Journal(tmp_path / "link.db"), [], count=1)
    await take(persona_api, Journal(tmp_path / "personas.db"), [], count=2)
    assert len(fake_suno.requests) == 2
    assert (tmp_path / "link.db").is_symlink()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no umask")
def test_no_file_has_more_permissions_than_the_umask_leaves(tmp_path: Path) -> None:
    """Neither the journal nor the files that SQLite puts beside it."""
    code = f"""if True:
        import asyncio, os, pathlib
        from suno_persona.journal import Journal
        async def main():
            async with Journal({str(tmp_path / "personas.db")!r}) as journal:
                await journal.counts()
                for file in pathlib.Path({str(tmp_path)!r}).iterdir():
                    print(file.name, oct(file.stat().st_mode & 0o777))
        os.umask(0o077)
        asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert "personas.db 0o600" in lines
    assert {line.split()[1] for line in lines} == {"0o600"}


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
async def test_a_claim_that_the_database_drops_is_not_sent(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request: pytest.FixtureRequest, tmp_path: Path, database: str
) -> None:
    """As under a trigger of somebody else's: nothing is sent without its claim."""
    connect: Any
    if database == "sqlite":
        url, connect = str(tmp_path / "personas.db"), sqlite3.connect
        drop = "CREATE TRIGGER drop_it BEFORE INSERT ON suno_persona_requests BEGIN SELECT RAISE(IGNORE); END"
    else:
        url, connect = request.getfixturevalue("postgres_url"), psycopg.connect
        drop = """
            CREATE FUNCTION drop_it() RETURNS trigger AS 'BEGIN RETURN NULL; END' LANGUAGE plpgsql;
            CREATE TRIGGER drop_it BEFORE INSERT ON suno_persona_requests FOR EACH ROW EXECUTE FUNCTION drop_it()
        """
    async with Journal(url):
        with closing(connect(url)) as connection:
            connection.execute(drop)
            connection.commit()
    await fails(fake_suno, persona_api, url, "the database did not keep the record of [0-9a-f]{64}:1")


async def test_a_file_that_another_process_is_making_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes may begin at the same moment."""
    file = tmp_path / "personas.db"
    waits = 0
    sleep = time.sleep

    def count(seconds: float) -> None:
        nonlocal waits
        waits += 1
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", count)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    opening = asyncio.create_task(Journal(file).__aenter__())
    while waits < 3:
        await asyncio.sleep(0)
    other.close()
    journal = await opening
    assert await journal.counts() == {}
    await journal.__aexit__(None, None, None)


async def test_a_server_that_is_not_there_is_told_without_the_password(
    fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """The message names the address."""
    url = "postgresql://user:hunter22@127.0.0.1:1/personas"
    await fails(fake_suno, persona_api, url, "user:\\*\\*\\*@127.0.0.1:1/personas: .*refused")
    with pytest.raises(JournalError) as caught:
        await take(persona_api, Journal(url), [])
    assert "hunter22" not in f"{caught.value}{caught.value.__cause__}{Journal(url)!r}"
    assert "hunter22" not in repr(Journal("postgresql://user@host/x?password=hunter22"))


async def test_an_existing_journal_is_not_made(tmp_path: Path, postgres_url: str) -> None:
    """Who wants to look at one makes no tables in a database that was named by mistake."""
    (tmp_path / "empty.db").touch()
    for url in (str(tmp_path / "none.db"), str(tmp_path / "empty.db"), f"sqlite:///{tmp_path}/none.db", postgres_url):
        with pytest.raises(JournalError, match=r"the journal must exist; got (no such file|a database without one)"):
            async with Journal.existing(url):
                pass
    assert not (tmp_path / "none.db").exists()
    async with Journal(postgres_url), Journal.existing(postgres_url) as journal:
        assert await journal.find("none") is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "in memory"),
        (":memory:", "in memory"),
        ("sqlite://", "in memory"),
        ("sqlite+pysqlite:///:memory:", "in memory"),
        ("file::memory:", "in memory"),
        ("sqlite:///file::memory:?uri=true", "in memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "in memory"),
        ("sqlite:///file:/x?vfs=memdb&uri=true", "in memory"),
        ("sqlite:///file:?uri=true", "in memory"),
        ("postgresql://host:port:hunter22/x", "a URL that cannot be read"),
        ("postgres+nothing://host/x", "nothing"),
        ("nosuchdatabase://host/x", "nosuchdatabase"),
        ("mssql+pyodbc://host/x", "got one of mssql; SQLite and PostgreSQL are supported"),
        ("sqlite+nothing:///x.db", "sqlite.nothing"),
        ("postgresql+asyncpg://host/x", "asyncpg is not installed"),
        (12, "got a int"),
        (b"personas.db", "got a bytes"),
        ("postgresql:/user:hunter22@host/x", "got neither"),
        ("host=127.0.0.1 password=hunter22", "got neither"),
    ],
)
async def test_an_address_that_cannot_be_used_is_refused(url: str, reason: str) -> None:
    """The error says what was found, and shows no password."""
    with pytest.raises(ConfigurationError, match=reason) as caught:
        async with Journal(url):
            pass
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize("name", ["retry_unknown", "accept_new_key"])
def test_a_flag_is_true_or_false(name: str) -> None:
    """Nothing that is merely true sends anything again, or to another account."""
    with pytest.raises(ConfigurationError, match=f"{name} must be True or False; got 'no'"):
        Journal("personas.db", **{name: "no"})  # type: ignore[arg-type]  # what is tried here


async def test_what_is_no_journal_is_refused(persona_api: PersonaAPI) -> None:
    """A path is the likely mistake."""
    with pytest.raises(ConfigurationError, match="journal must be a Journal; got a str"):
        await take(persona_api, "personas.db", [])  # type: ignore[arg-type]  # what is tried here


@pytest.mark.parametrize("module", ["sqlalchemy", "psycopg"])
def test_a_missing_extra_is_named(module: str, tmp_path: Path) -> None:
    """Who uses a journal without its packages is told what to install."""
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


@pytest.mark.parametrize("change", ["persona = '{}'", "persona = NULL", "state = 'lost'", "body = '{}'"])
async def test_a_record_that_cannot_be_read_is_told(persona_api: PersonaAPI, tmp_path: Path, change: str) -> None:
    """Somebody wrote into the file; nothing is guessed from what is left."""
    file = tmp_path / "personas.db"
    await take(persona_api, Journal(file), [], count=1)
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE suno_persona_requests SET {change}")
    connection.close()
    with pytest.raises(JournalError, match=r"record of [0-9a-f]{64}:1 cannot be read: "):
        await take(persona_api, Journal(file), [], count=1)


async def test_a_database_that_goes_away_stops_the_batch(
    service: HeldService, databases: Databases, postgres_url: str
) -> None:
    """What is out is finished and given, nothing more is sent, and then the error comes."""
    async with client(service, max_connections=3) as api:
        outcomes: list[Outcome] = []
        batch = asyncio.create_task(take(api, Journal(postgres_url), outcomes))
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


async def test_a_database_that_was_restarted_between_two_uses_is_no_error(
    databases: Databases, postgres_url: str, persona_api: PersonaAPI
) -> None:
    """A connection that the server closed while it was idle is replaced."""
    async with Journal(postgres_url) as journal:
        await take(persona_api, journal, [], count=1)
        databases.end_connections(postgres_url)
        await take(persona_api, journal, [], count=2)
        assert await journal.counts() == {"created": 2}


def can_mount() -> bool:
    """Whether this machine lets a process have a disk of its own."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rm", "true"], check=False).returncode == 0


def can_remount() -> bool:
    """Whether a process may make its disk read-only afterwards: not every Linux allows that to users."""
    script = "mount -t tmpfs none /mnt && mount -o remount,ro /mnt"
    command = ["unshare", "-rm", "sh", "-c", script]
    return can_mount() and subprocess.run(command, check=False, capture_output=True).returncode == 0


mounts = pytest.mark.skipif(not can_mount(), reason="needs `unshare -rm`, a Linux that lets a process mount a disk")


remounts = pytest.mark.skipif(not can_remount(), reason="needs a Linux that lets this user remount a disk read-only")


@mounts
@pytest.mark.parametrize("disk", ["full", "read-only", pytest.param("read-only with a journal", marks=remounts)])
async def test_a_disk_that_takes_no_more_stops_the_batch(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, disk: str
) -> None:
    """The command says so in one line; nothing is sent without its claim, and no persona is lost."""
    rows = tmp_path / "rows.csv"
    rows.write_text("root_clip_id,name,description\n" + "".join(f"c,N{number},D\n" for number in range(400)))
    (disk_folder := tmp_path / "disk").mkdir()
    (kept := tmp_path / "kept").mkdir()
    async with Journal(kept / "personas.db"):
        pass
    prepare = {
        "full": f"mount -t tmpfs -o size=400k none {disk_folder}",
        "read-only": f"mount -t tmpfs -o ro none {disk_folder}",
        "read-only with a journal": f"mount -t tmpfs none {disk_folder} && cp {kept}/* {disk_folder} && "
        f"mount -o remount,ro {disk_folder}",
    }[disk]
    script = (
        f"{prepare} && {COMMAND} batch {rows} --journal {disk_folder}/personas.db --output {tmp_path}/out.jsonl; "
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
    output = (tmp_path / "out.jsonl").read_text()
    for persona in fake_suno.personas:
        assert entries[str(persona.name)].persona_id == persona.id or persona.id in output
    assert bool(sent) == (disk == "full")
