"""When the journal fails, the error is clear, nothing is sent without its claim, and no outcome is lost."""

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
from support.held_service import OPENING, HeldService, client, opened

from suno_persona import ConfigurationError, JournalError, Outcome, PersonaAPI
from suno_persona.journal import Journal
from suno_persona.testing import FakeSuno


async def take(api: PersonaAPI, journal: Journal, outcomes: list[Outcome], count: int = 50, in_flight: int = 1) -> None:
    """Run a batch, and append the outcomes that it yields before it fails."""
    async for outcome in api.create_many(opened(requests(count), in_flight), journal=journal):
        if not outcome.request.name.startswith(OPENING):
            outcomes.append(outcome)  # noqa: PERF401 - they are needed even if it fails


async def assert_fails(fake: FakeSuno, api: PersonaAPI, url: str, reason: str) -> None:
    """Assert that the batch fails for this reason before anything is sent."""
    with pytest.raises(JournalError, match=reason) as caught:
        await take(api, Journal(url), [])
    assert not caught.value.may_have_created
    assert fake.requests == []


async def test_a_file_that_is_not_a_database_is_an_error(
    fake_suno: FakeSuno, persona_api: PersonaAPI, tmp_path: Path
) -> None:
    """Passing the input as the journal raises an error, and leaves the file unchanged."""
    file = tmp_path / "personas.csv"
    text = "root_clip_id,name,description\n" * 100
    file.write_text(text)
    await assert_fails(fake_suno, persona_api, str(file), "personas.csv: .*not a database")
    assert file.read_text() == text


async def test_a_database_of_another_application_is_an_error(
    fake_suno: FakeSuno, persona_api: PersonaAPI, tmp_path: Path
) -> None:
    """No tables are added to an SQLite file that has other tables."""
    file = tmp_path / "mail.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE letters (text)")
    connection.close()
    await assert_fails(fake_suno, persona_api, str(file), "mail.db: must be a journal or a new file; got .*'letters'")
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


async def test_a_journal_of_a_newer_version_is_an_error(
    fake_suno: FakeSuno, persona_api: PersonaAPI, tmp_path: Path
) -> None:
    """The rules of a newer version are unknown."""
    file = tmp_path / "personas.db"
    async with Journal(file):
        pass
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE suno_persona_schema SET version = 3")
    connection.close()
    await assert_fails(fake_suno, persona_api, str(file), "the journal must have version 2; got 3")


async def test_a_missing_folder_is_an_error(fake_suno: FakeSuno, persona_api: PersonaAPI, tmp_path: Path) -> None:
    """The message names the path."""
    await assert_fails(
        fake_suno, persona_api, str(tmp_path / "none" / "personas.db"), "none/personas.db: .*unable to open"
    )


async def test_a_folder_instead_of_a_journal_is_an_error(
    fake_suno: FakeSuno, persona_api: PersonaAPI, tmp_path: Path
) -> None:
    """The message says that the path is a folder."""
    await assert_fails(fake_suno, persona_api, str(tmp_path), f"{tmp_path}: the journal must be a file; got a folder")


async def test_a_link_names_the_same_journal(persona_api: PersonaAPI, fake_suno: FakeSuno, tmp_path: Path) -> None:
    """Runs may use either name of the file."""
    (tmp_path / "link.db").symlink_to(tmp_path / "personas.db")
    await take(persona_api, Journal(tmp_path / "link.db"), [], count=1)
    await take(persona_api, Journal(tmp_path / "personas.db"), [], count=2)
    assert len(fake_suno.requests) == 2
    assert (tmp_path / "link.db").is_symlink()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no umask")
def test_no_file_has_more_permissions_than_the_umask_leaves(tmp_path: Path) -> None:
    """The umask applies to the journal and to the files that SQLite puts beside it."""
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
async def test_a_request_whose_claim_the_database_drops_is_not_sent(
    fake_suno: FakeSuno, persona_api: PersonaAPI, request: pytest.FixtureRequest, tmp_path: Path, database: str
) -> None:
    """Here a trigger of another application drops the claim: nothing is sent without one."""
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
    await assert_fails(fake_suno, persona_api, url, "the database did not keep the record of [0-9a-f]{64}:1")


async def test_opening_waits_for_a_process_that_creates_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes may start at the same moment."""
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


async def test_the_error_of_an_unreachable_server_hides_the_password(
    fake_suno: FakeSuno, persona_api: PersonaAPI
) -> None:
    """The message names the server's address."""
    url = "postgresql://user:hunter22@127.0.0.1:1/personas"
    await assert_fails(fake_suno, persona_api, url, "user:\\*\\*\\*@127.0.0.1:1/personas: .*refused")
    with pytest.raises(JournalError) as caught:
        await take(persona_api, Journal(url), [])
    assert "hunter22" not in f"{caught.value}{caught.value.__cause__}{Journal(url)!r}"
    assert "hunter22" not in repr(Journal("postgresql://user@host/x?password=hunter22"))


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


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "in memory"),
        (":memory:", "in memory"),
        ("sqlite://", "in memory"),
        ("sqlite+pysqlite:///:memory:", "in memory"),
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
        await take(persona_api, "personas.db", [])  # type: ignore[arg-type]  # what is tried here


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


@pytest.mark.parametrize("change", ["persona = '{}'", "persona = NULL", "state = 'lost'", "body = '{}'"])
async def test_an_unreadable_record_is_an_error(persona_api: PersonaAPI, tmp_path: Path, change: str) -> None:
    """If somebody edited the file, nothing is guessed from what is left."""
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
    """Requests in flight finish and are yielded, nothing more is sent, and then the error is raised."""
    async with client(service, max_connections=3) as api:
        outcomes: list[Outcome] = []
        batch = asyncio.create_task(take(api, Journal(postgres_url), outcomes, in_flight=3))
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
        await take(persona_api, journal, [], count=1)
        databases.end_connections(postgres_url)
        await take(persona_api, journal, [], count=2)
        assert await journal.counts() == {"created": 2}


def can_mount() -> bool:
    """Return whether this machine lets a process mount a disk."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rm", "true"], check=False).returncode == 0


def can_remount() -> bool:
    """Return whether a process may make its disk read-only afterwards, which not every Linux allows to users."""
    script = "mount -t tmpfs none /mnt && mount -o remount,ro /mnt"
    command = ["unshare", "-rm", "sh", "-c", script]
    return can_mount() and subprocess.run(command, check=False, capture_output=True).returncode == 0


mounts = pytest.mark.skipif(not can_mount(), reason="needs `unshare -rm`, a Linux that lets a process mount a disk")


remounts = pytest.mark.skipif(not can_remount(), reason="needs a Linux that lets this user remount a disk read-only")


@mounts
@pytest.mark.parametrize("disk", ["full", "read-only", pytest.param("read-only with a journal", marks=remounts)])
async def test_a_disk_that_cannot_be_written_stops_the_batch(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, disk: str
) -> None:
    """The command reports it in one line; nothing is sent without its claim, and no persona is lost."""
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
    for persona in fake_suno.personas:
        recorded = entries[str(persona.name)].persona_id == persona.id
        assert recorded or persona.id in (tmp_path / "out.jsonl").read_text()
    assert bool(sent) == (disk == "full")
