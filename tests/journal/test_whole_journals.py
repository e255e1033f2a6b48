"""A journal that is not whole is an error before anything is sent, and one that was killed opens again."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support.calls import requests
from support.held_service import HeldService, client
from support.journals import run_batch, states, take

from suno_persona import JournalError, Outcome, PersonaAPI
from suno_persona.journal import Journal

LARGE = 12_000
"""Requests that take more of the write-ahead log than a checkpoint waits for."""


def copy(source: Path, target: Path, *suffixes: str) -> str:
    """Copy a journal, and those of its files beside it that have these suffixes."""
    for suffix in ("", *suffixes):
        shutil.copy(f"{source}{suffix}", f"{target}{suffix}")
    return str(target)


async def test_a_journal_in_use_that_is_copied_without_its_log_is_an_error(
    tmp_path: Path, service: HeldService
) -> None:
    """The message names the missing file; with that file, the copy has every claim and every outcome."""
    url = tmp_path / "personas.db"
    async with client(service) as api:
        batch = asyncio.create_task(run_batch(api, requests(2), Journal(url)))
        await service.receives(1)
        alone = copy(url, tmp_path / "alone.db")
        whole = copy(url, tmp_path / "whole.db", "-wal")
        service.respond_to_all()
        await batch
        with pytest.raises(JournalError, match=r"alone\.db-wal, which holds a part of it, is missing"):
            await run_batch(api, requests(2), Journal(alone))
    assert len(service.received) == 2
    assert await states(whole) == ["claimed"]


async def test_a_journal_is_marked_as_long_as_one_process_uses_it(tmp_path: Path, persona_api: PersonaAPI) -> None:
    """Others may open and close it meanwhile, in any order. Once it is closed, there is no log, and a copy is whole."""
    url = tmp_path / "personas.db"
    async with Journal(url) as first:
        async with Journal(url), Journal(url):
            await run_batch(persona_api, requests(3), Journal(url))
        await run_batch(persona_api, requests(4), first)
        with pytest.raises(JournalError, match="is missing"):
            await states(copy(url, tmp_path / "copy.db"))
    assert not Path(f"{url}-wal").exists()
    assert await states(copy(url, tmp_path / "copy.db")) == ["created"] * 4


@pytest.mark.slow
async def test_a_journal_stays_marked_however_much_is_written(tmp_path: Path) -> None:
    """The write-ahead log is moved into the main file now and then, and stays small."""
    from suno_persona.journal._states import Enqueue

    url = tmp_path / "personas.db"
    events = [Enqueue(f"{number:064}:1", "{}" * 200, number, "host") for number in range(LARGE)]
    async with Journal(url) as journal, Journal(url) as other:
        for start in range(0, LARGE, 500):
            writer = (journal, other)[start // 500 % 2]
            await writer.enqueue(events[start : start + 500], lambda _, queued, pending: len(queued))
            with pytest.raises(JournalError, match="is missing"):
                async with Journal(copy(url, tmp_path / "copy.db")):
                    pass
            assert Path(f"{url}-wal").stat().st_size < 10_000_000
        assert url.stat().st_size > 5_000_000
    async with Journal(copy(url, tmp_path / "copy.db")) as journal:
        assert await journal.counts() == {"queued": LARGE}


def killed(url: Path, after: str) -> None:
    """Run a process that claims a request, and is killed once SQLite has begun a statement with these words."""
    code = f"""if True:
        import asyncio, os, signal, sqlite3
        from suno_persona._engine import Account
        from suno_persona.journal import Journal
        connect, after = sqlite3.connect, {after!r}

        class Connection(sqlite3.Connection):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.is_look = "uri" in kwargs
                self.set_trace_callback(self.trace)
            def trace(self, statement):
                if statement.strip().startswith(after.strip("+")) and not after.endswith("+"):
                    os.kill(os.getpid(), signal.SIGKILL)
            def close(self):
                super().close()
                if after == "close+" and not self.is_look and not os.path.exists({f"{url}-wal"!r}):
                    os.kill(os.getpid(), signal.SIGKILL)

        def connect_traced(*args, **kwargs):
            return connect(*args, factory=Connection, **kwargs)

        sqlite3.connect = sqlite3.dbapi2.connect = connect_traced

        async def main():
            async with Journal({str(url)!r}) as journal:
                run = await journal.begin(Account("https://gateway.example", lambda salt: "fingerprint"))
                await run.claim("0" * 64 + ":1", b'{{"root_clip_id":"c","name":"N","description":"D"}}')
                if after == "claimed":
                    os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL


STEPS = [
    "PRAGMA journal_mode",
    "PRAGMA wal_autocheckpoint",
    "BEGIN IMMEDIATE",
    "CREATE TABLE",
    "INSERT INTO suno_persona_schema",
    "COMMIT",
    "PRAGMA user_version=",
    "PRAGMA wal_checkpoint",
    "PRAGMA user_version=0",
    "INSERT INTO suno_persona_requests",
    "claimed",
    "close+",
]


@pytest.mark.slow
@pytest.mark.posix
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "used before"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_journal_that_was_killed_at_any_step_opens_again(tmp_path: Path, step: str, is_new: bool) -> None:
    """It opens with all that was committed, and without its log it is an error or has all of that, too."""
    url = tmp_path / "personas.db"
    if not is_new:
        async with Journal(url):
            pass
        if step in ("CREATE TABLE", "INSERT INTO suno_persona_schema"):
            return
    killed(url, step)
    committed = ["claimed"] if step in ("claimed", "close+") else []
    if url.exists() and url.stat().st_size:
        with suppress(JournalError):
            assert await states(copy(url, tmp_path / "alone.db")) == committed
    for _ in range(2):
        assert await states(str(url)) == committed


@pytest.mark.slow
@pytest.mark.posix
async def test_a_killed_journal_can_be_looked_at_with_other_tools(tmp_path: Path) -> None:
    """SQLite moves the log into the main file then, which is whole after that."""
    url = tmp_path / "personas.db"
    killed(url, "claimed")
    with closing(sqlite3.connect(url)) as connection:
        assert connection.execute("SELECT state FROM suno_persona_requests").fetchall() == [("claimed",)]
    assert not Path(f"{url}-wal").exists()
    assert await states(str(url)) == ["claimed"]


@pytest.mark.posix
@pytest.mark.parametrize(
    "deleted",
    [("",), ("", "-wal", "-shm"), ("-wal",), ()],
    ids=["the file is deleted", "all its files are", "its log is", "the file is replaced"],
)
async def test_a_journal_that_is_deleted_or_replaced_while_open_ends_the_batch(
    tmp_path: Path, service: HeldService, deleted: tuple[str, ...]
) -> None:
    """Nothing more is claimed or sent, and the outcome of the request in flight is yielded."""
    url = tmp_path / "personas.db"
    outcomes: list[Outcome] = []
    async with client(service) as api:
        batch = asyncio.create_task(take(api, requests(9), Journal(url), outcomes))
        await service.receives(1)
        for suffix in deleted:
            Path(f"{url}{suffix}").unlink()
        if not deleted:
            os.replace(shutil.copy(url, f"{url}.new"), url)
        service.respond(0)
        with pytest.raises(JournalError, match=r"the journal's file was (deleted|replaced) while it was open"):
            await batch
        assert len(service.received) == 1
    assert [outcome.result().id for outcome in outcomes] == ["persona-1"]
