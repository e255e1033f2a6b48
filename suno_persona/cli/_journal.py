"""`suno-persona journal`: show what a batch has recorded, and resolve unknown outcomes."""

import shlex
from typing import TYPE_CHECKING, Annotated

import attrs
import typer

from suno_persona.cli import _records as records
from suno_persona.cli._export import export
from suno_persona.cli._records import InputOption, InputRow, JournalOption
from suno_persona.cli._resolutions import FromOption, resolve_many
from suno_persona.cli._running import journal_arguments, printable, run
from suno_persona.conversion import dump_json

if TYPE_CHECKING:
    from suno_persona.journal import Entry, Journal, State

_JsonOption = Annotated[bool, typer.Option("--json", help="Print each record as a line of JSON.")]
_MEANINGS: "dict[State, str]" = {
    "queued": "waiting for a worker",
    "created": "the persona exists",
    "not_created": "there is no persona; the next run sends the request again",
    "unknown": "a persona may exist: check",
    "claimed": "in flight now, or its process was stopped: check",
}

journal_app: typer.Typer = typer.Typer(
    help="Show, resolve and export what was recorded.",
    no_args_is_help=False,
    rich_markup_mode=None,
)


@journal_app.command()
def show(
    journal: JournalOption,
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY", help="Show these records: keys, or unambiguous beginnings of keys."),
    ] = None,
    input_file: InputOption = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the counts as JSON, or each record as a line of JSON.")
    ] = False,
) -> None:
    """Count the requests in each state, or show some."""
    if input_file is not None and not keys:
        raise typer.BadParameter("--input must be used with at least one KEY; got none")

    async def work() -> None:
        rows = records.input_rows(input_file)
        async with records.opened(journal) as record:
            if not keys:
                _print_counts(await record.counts(), as_json=json)
            for entry in [await records.find(record, key) for key in keys or ()]:
                row = rows.get(entry.key)
                print(records.json_line(entry, row) if json else _details(entry, row))

    run(work())


@journal_app.command()
def unknown(journal: JournalOption, input_file: InputOption = None, json: _JsonOption = False) -> None:
    """List the requests whose outcome is unknown.

    Each has its key, and the reason. Those that are claimed are listed, too: they are in flight now, or their process
    was stopped.
    """

    async def work() -> None:
        rows = records.input_rows(input_file)
        entry = None
        async with records.opened(journal) as record:
            async for entry in record.entries("unknown", "claimed"):
                row = rows.get(entry.key)
                print(records.json_line(entry, row) if json else _summary(entry, row))
        if entry is not None and not json:
            key = records.short(entry.key)
            command = ["suno-persona", "journal", "resolve", key, *journal_arguments(journal, "--journal")]
            print(f"\nTo resolve one after you checked: {shlex.join(command)} --persona-id ID (or --not-created)")

    run(work())


@journal_app.command()
def resolve(
    journal: JournalOption,
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="The key of the request, or its unambiguous beginning.")
    ] = None,
    persona_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The persona was created; this is its id.")
    ] = None,
    not_created: Annotated[
        bool, typer.Option("--not-created", help="No persona was created; the next run sends the request again.")
    ] = False,
    from_file: FromOption = None,
) -> None:
    """Resolve requests whose outcome is unknown.

    Check your account for the personas first. Then pass KEY with either --persona-id or --not-created, or resolve many
    with --from.
    """
    if from_file is not None and (key is not None or persona_id is not None or not_created):
        raise typer.BadParameter("--from must be used without KEY, --persona-id and --not-created; got both")
    if from_file is None and key is None:
        raise typer.BadParameter("the request must be named by KEY, or by --from FILE; got neither")
    if from_file is None and (persona_id is None) is not not_created:
        found = "both" if not_created else "neither"
        raise typer.BadParameter(f"the decision must be either --persona-id ID or --not-created; got {found}")

    async def work() -> None:
        async with records.opened(journal) as record:
            if from_file is not None:
                await resolve_many(record, from_file)
            else:
                await _resolve_one(record, key or "", persona_id)

    run(work())


async def _resolve_one(journal: "Journal", key: str, persona_id: str | None) -> None:
    entry = await records.find(journal, key)
    if persona_id is None:
        await journal.resolve(entry.key, not_created=True)
    else:
        await journal.resolve(entry.key, persona_id=persona_id)


journal_app.command()(export)


def _print_counts(counts: "dict[State, int]", *, as_json: bool) -> None:
    if as_json:
        print(dump_json({state: counts.get(state, 0) for state in _MEANINGS}).decode())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("state")
    table.add_column("requests", justify="right")
    table.add_column("meaning")
    for state, meaning in _MEANINGS.items():
        table.add_row(state, str(counts.get(state, 0)), meaning)
    Console().print(table)


def _details(entry: "Entry", row: InputRow | None) -> str:
    cells = {name: cell for name, cell in attrs.asdict(records.Cells.of(entry, row)).items() if cell is not None}
    width = max(map(len, cells))
    return "".join(f"{name:{width}}  {printable(str(cell))}\n" for name, cell in cells.items())


def _summary(entry: "Entry", row: InputRow | None) -> str:
    request = entry.request
    when = entry.claimed_at.isoformat(sep=" ", timespec="seconds")
    lines = [
        f"{request.name!r} from {request.root_clip_id!r}",
        f"claimed at {when} by {entry.claimed_by}",
        entry.reason or "no outcome was recorded",
    ]
    if row is not None:
        lines.insert(1, f"line {row.line}" + (f", custom_id {row.custom_id!r}" if row.custom_id else ""))
    return "\n".join([records.short(entry.key), *(f"  {printable(line)}" for line in lines)])
