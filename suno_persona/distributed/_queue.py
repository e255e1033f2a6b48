"""Procrastinate's tables in the journal's database, as transactions of the journal see them. It knows no worker."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import psycopg
from procrastinate import SyncPsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from procrastinate.manager import JobManager
from procrastinate.schema import SchemaManager

from suno_persona.errors import JournalError

if TYPE_CHECKING:
    from suno_persona.journal._states import Record

_HINT = "; `suno-persona enqueue` makes its tables"
# `to_regclass` would remember that there were none, whatever another transaction has committed meanwhile.
_TABLES = "SELECT FROM pg_class WHERE relname = 'procrastinate_jobs' AND pg_table_is_visible(oid)"
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('suno_persona.queue'))"
_LIVE = """
    SELECT queueing_lock, status FROM procrastinate_jobs WHERE status = 'todo' AND queueing_lock = ANY(%(keys)s)
    UNION ALL
    SELECT queueing_lock, status FROM procrastinate_jobs WHERE status = 'doing' AND queueing_lock = ANY(%(keys)s)
"""
# Three times the interval of the heartbeats: one late heartbeat does not mean a stalled worker.
_ALIVE = "SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat > now() - interval '30 seconds'"


def defer(connection: object, job: Job, queued: "Sequence[Record]", pending: "Sequence[Record]") -> int:
    """Make jobs like this one for records, if they have none, in the transaction of psycopg's connection.

    For those that are `queued` in this transaction, a job that a worker has fetched does not count: it is about to end.
    Makes the tables if there are none. Returns how many jobs that made. Raises `JournalError`.
    """
    transaction = cast("psycopg.Connection", connection)
    try:
        _create_tables(transaction)
        live = set(transaction.execute(_LIVE, {"keys": [record.key for record in (*queued, *pending)]}))
        missing = [record for record in queued if (record.key, "todo") not in live]
        missing += [record for record in pending if not live & {(record.key, "todo"), (record.key, "doing")}]
        jobs = [
            job.evolve(queueing_lock=record.key, task_kwargs={"key": record.key, "body": record.body})
            for record in missing
        ]
        if jobs:
            JobManager(SyncPsycopgConnector()).batch_defer_jobs(jobs, connection=transaction)
    except (ConnectorException, psycopg.Error) as error:
        raise failure(error) from error
    return len(jobs)


def count_workers(conninfo: str) -> int:
    """Count the workers with a heartbeat in the last 30 seconds. Raises `JournalError`, also if there is no queue."""
    try:
        with psycopg.connect(conninfo, connect_timeout=10) as connection:
            ((count,),) = connection.execute(_ALIVE)
    except psycopg.Error as error:
        raise failure(error) from error
    return int(count)


def failure(error: BaseException) -> JournalError:
    """Return the error to raise if the queue fails; it says how to make missing tables."""
    cause = error.__cause__ or error
    hint = _HINT if isinstance(cause, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedFunction) else ""
    return JournalError(message=f"the queue cannot be read or written: {str(cause).partition(chr(10))[0]}{hint}")


def _create_tables(transaction: psycopg.Connection) -> None:
    if transaction.execute(_TABLES).fetchone() is None:
        transaction.execute(_LOCK)  # another enqueue waits here, and then finds them
        if transaction.execute(_TABLES).fetchone() is None:
            transaction.execute(SchemaManager.get_schema())
