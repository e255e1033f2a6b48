"""The commits of a journal on PostgreSQL survive a power cut, whatever the server's default."""

from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url
from support.calls import requests
from support.databases import Databases, needs_pgbouncer, pooler
from support.journals import run_batch

from suno_persona import PersonaAPI
from suno_persona.journal import Journal

pytestmark = pytest.mark.slow

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
    ("default", "expected"),
    [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply", "remote_apply")],
)
@pytest.mark.parametrize("through", ["directly", pytest.param("a pooler", marks=needs_pgbouncer)])
async def test_a_commit_is_at_least_on(
    postgres_url: str,
    databases: Databases,
    persona_api: PersonaAPI,
    tmp_path: Path,
    default: str,
    expected: str,
    through: str,
) -> None:
    """A default of the database that is less is raised, and one that is more stays."""
    async with Journal(postgres_url):
        pass
    name = str(make_url(postgres_url).database)
    databases.run("ALTER DATABASE {} SET synchronous_commit = {}", name, default)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(SPY)
    with ExitStack() as stack:
        url = postgres_url if through == "directly" else stack.enter_context(pooler(postgres_url, tmp_path))
        await run_batch(persona_api, requests(5), Journal(url))
    with psycopg.connect(postgres_url) as connection:
        settings = {setting for (setting,) in connection.execute("SELECT setting FROM commits")}
    assert settings == {expected}
