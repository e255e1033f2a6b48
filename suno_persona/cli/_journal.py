"""`suno-persona journal`: show what a batch has recorded, and resolve unknown outcomes."""

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from suno_persona.cli._running import journal_arguments, run

if TYPE_CHECKING:
    from suno_persona.journal import Entry, State

_JOURNAL_HELP = "The journal: an SQLite file or a database URL."


class _ShowByDefault(TyperGroup):
    """Reads `journal JOURNAL` as `journal show JOURNAL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)


journal_app: typer.Typer = typer.Typer(
    cls=_ShowByDefault,
    help="Show and resolve what a batch has recorded.\n\n`suno-persona journal JOURNAL` is short for show.",
    rich_markup_mode=None,
)


@journal_app.command()
def show(
    journal: Annotated[str, typer.Argument(envvar="SUNO_JOURNAL_URL", metavar="JOURNAL", help=_JOURNAL_HELP)],
    unknown: Annotated[
        bool, typer.Option("--unknown", help="List the requests whose outcome is unknown, with the reason.")
    ] = False,
) -> None:
    """Count the requests in each state."""
    run(_list_unknown(journal) if unknown else _count(journal))


@journal_app.command()
def resolve(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key of the request, as --unknown lists it.")],
    journal: Annotated[str, typer.Option(envvar="SUNO_JOURNAL_URL", metavar="JOURNAL", help=_JOURNAL_HELP)],
    persona_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The persona was created; this is its id.")
    ] = None,
    not_created: Annotated[
        bool, typer.Option("--not-created", help="No persona was created; the next run sends the request again.")
    ] = False,
) -> None:
    """Resolve a request whose outcome is unknown.

    Check your account for its persona first; then pass either --persona-id or --not-created.
    """
    if (persona_id is None) is not not_created:
        found = "both" if not_created else "neither"
        raise typer.BadParameter(f"the decision must be either --persona-id ID or --not-created; got {found}")

    async def work() -> None:
        from suno_persona.journal import Journal

        async with Journal.existing(journal) as record:
            if persona_id is None:
                await record.resolve(key, not_created=True)
            else:
                await record.resolve(key, persona_id=persona_id)

    run(work())


async def _count(journal: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from suno_persona.journal import Journal

    async with Journal.existing(journal) as record:
        counts = await record.counts()
    table = Table()
    table.add_column("state")
    table.add_column("requests", justify="right")
    table.add_column("meaning")
    meanings: dict[State, str] = {
        "queued": "waiting for a worker",
        "created": "the persona exists",
        "not_created": "there is no persona; the next run sends the request again",
        "unknown": "a persona may exist: check",
        "claimed": "in flight now, or its process was stopped: check",
    }
    for state, meaning in meanings.items():
        table.add_row(state, str(counts.get(state, 0)), meaning)
    Console().print(table)


async def _list_unknown(journal: str) -> None:
    from suno_persona.journal import Journal

    entry = None
    async with Journal.existing(journal) as record:
        async for entry in record.entries("unknown", "claimed"):
            print(_description(entry))
    if entry is not None:
        command = ["suno-persona", "journal", "resolve", entry.key, *journal_arguments(journal, "--journal")]
        print(f"\nTo resolve one after you checked: {shlex.join(command)} --persona-id ID (or --not-created)")


def _description(entry: "Entry") -> str:
    request = entry.request
    when = entry.claimed_at.isoformat(sep=" ", timespec="seconds")
    return (
        f"{entry.key}\n"
        f"  {request.name!r} from {request.root_clip_id!r}\n"
        f"  claimed at {when} by {entry.claimed_by}\n"
        f"  {entry.reason or 'no outcome was recorded'}"
    )
