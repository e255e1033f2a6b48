"""`suno-persona journal`: show the records of a batch, and resolve unknown outcomes."""

import asyncio
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from suno_persona.cli import _records as records
from suno_persona.cli._export import export
from suno_persona.cli._records import InputRow, input_option, journal_option
from suno_persona.cli._rows import INPUT
from suno_persona.cli._running import OrderedGroup, console, print_json, printable

if TYPE_CHECKING:
    from suno_persona.journal import Entry, State

_MEANINGS: "dict[State, str]" = {
    "queued": "waiting for a worker",
    "created": "the persona exists",
    "not_created": "there is no persona; the next run sends the request again",
    "unknown": "a persona may exist: check",
    "claimed": "in flight now, or its process was stopped: check",
}
_FROM = "Resolve many: the lines of a CSV file, each KEY,PERSONA_ID or KEY,not_created. - is stdin."


@click.group(cls=OrderedGroup, no_args_is_help=False)
def journal() -> None:
    """Show, resolve and export records."""


@journal.command()
@click.argument("key", nargs=-1, help="Show these records: keys, or unambiguous beginnings of keys.")
@journal_option
@input_option
@click.option("--json", "as_json", is_flag=True, help="Print the counts, or each record, as a line of JSON.")
@click.pass_context
def show(context: click.Context, *, key: tuple[str, ...], journal: str, input_file: Path | None, as_json: bool) -> None:
    """Count the requests in each state, or show some."""
    if input_file is not None and not key:
        raise click.UsageError("--input requires at least one KEY", context)

    async def work() -> None:
        rows = records.input_rows(input_file)
        async with records.opened(journal) as record:
            if not key:
                _print_counts(await record.counts(), as_json=as_json)
            for entry in [await records.find(record, each) for each in key]:
                _print(entry, rows.get(entry.key, InputRow()), as_json=as_json)

    asyncio.run(work())


@journal.command()
@journal_option
@input_option
@click.option("--json", "as_json", is_flag=True, help="Print each record as a line of JSON.")
def unknown(*, journal: str, input_file: Path | None, as_json: bool) -> None:
    """List the requests whose outcome is unknown.

    Each has its key, and the reason. Those that are claimed are listed, too: they are in flight now, or their process
    was stopped.
    """

    async def work() -> None:
        rows = records.input_rows(input_file)
        entry = None
        async with records.opened(journal) as record:
            async for entry in record.entries("unknown", "claimed"):
                row = rows.get(entry.key, InputRow())
                if as_json:
                    _print(entry, row, as_json=True)
                else:
                    print(_summary(entry, row))
        if entry is not None and not as_json:
            command = shlex.join(records.resolve_command(entry.key, journal))
            print(f"\nTo resolve one after you checked: {command} --persona-id ID (or --not-created)")

    asyncio.run(work())


@journal.command()
@click.argument("key", required=False, help="The key of the request, or its unambiguous beginning.")
@journal_option
@click.option("--persona-id", metavar="ID", help="The persona was created; this is its id.")
@click.option("--not-created", is_flag=True, help="No persona was created; the next run sends the request again.")
@click.option("--from", "from_file", type=INPUT, metavar="FILE", help=_FROM)
@click.pass_context
def resolve(
    context: click.Context,
    *,
    journal: str,
    key: str | None,
    persona_id: str | None,
    not_created: bool,
    from_file: Path | None,
) -> None:
    """Resolve requests whose outcome is unknown.

    Check your account for the personas first. Then pass KEY with either --persona-id or --not-created, or resolve many
    with --from.
    """
    if from_file is not None and (key is not None or persona_id is not None or not_created):
        raise click.UsageError("--from cannot be combined with KEY, --persona-id or --not-created", context)
    if from_file is None and key is None:
        raise click.UsageError("KEY or --from FILE is missing", context)
    if from_file is None and (persona_id is None) is not not_created:
        found = "both" if not_created else "neither"
        raise click.UsageError(f"pass either --persona-id ID or --not-created; got {found}", context)

    async def work() -> None:
        async with records.opened(journal) as record:
            if from_file is not None:
                await records.resolve_many(record, from_file)
                return
            entry = await records.find(record, key or "")
            await record.resolve(entry.key, persona_id=persona_id, not_created=not_created)

    asyncio.run(work())


journal.add_command(export)


def _print_counts(counts: "dict[State, int]", *, as_json: bool) -> None:
    if as_json:
        print_json({state: counts.get(state, 0) for state in _MEANINGS})
        return
    from rich.table import Table

    table = Table()
    table.add_column("state")
    table.add_column("requests", justify="right")
    table.add_column("meaning")
    for state, meaning in _MEANINGS.items():
        table.add_row(state, str(counts.get(state, 0)), meaning)
    console().print(table)


def _print(entry: "Entry", row: InputRow, *, as_json: bool) -> None:
    document = records.document_of(entry, row)
    if as_json:
        print_json(document)
        return
    cells: dict[str, Any] = {name: cell for name, cell in records.cells_of(document).items() if cell is not None}
    width = max(map(len, cells))
    print("".join(f"{name:{width}}  {printable(str(cell))}\n" for name, cell in cells.items()))


def _summary(entry: "Entry", row: InputRow) -> str:
    name, clip = entry.request.name, entry.request.root_clip_id
    lines = [
        f"{name!r} from {clip!r}",
        f"claimed at {entry.claimed_at.isoformat(sep=' ', timespec='seconds')} by {entry.claimed_by}",
        entry.reason or "no outcome was recorded",
    ]
    if row.line is not None:
        lines.insert(1, f"line {row.line}" + (f", custom_id {row.custom_id!r}" if row.custom_id else ""))
    return "\n".join([records.short(entry.key), *(f"  {printable(line)}" for line in lines)])
