"""`suno-persona journal`: what the record of a batch holds, and the settling of what needs a look."""

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from suno_persona.cli._running import named, run

if TYPE_CHECKING:
    from suno_persona.journal import Entry, Journal, State


class _ShowUnlessTold(TyperGroup):
    """`journal JOURNAL` is `journal show JOURNAL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)


journal_app: typer.Typer = typer.Typer(
    cls=_ShowUnlessTold,
    help="Show and settle what a batch has recorded.\n\n`suno-persona journal JOURNAL` counts it, as show does.",
    rich_markup_mode=None,
)


@journal_app.command()
def show(
    journal: Annotated[
        str,
        typer.Argument(envvar="SUNO_JOURNAL_URL", metavar="JOURNAL", help="The SQLite file, or the database's URL."),
    ],
    unknown: Annotated[
        bool, typer.Option("--unknown", help="List the requests whose outcome is unknown, with what is known of each.")
    ] = False,
) -> None:
    """Count the requests in each state."""
    run(_list_unknown(journal) if unknown else _count(journal))


@journal_app.command()
def resolve(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The request's key, as --unknown lists it.")],
    journal: Annotated[
        str,
        typer.Option(envvar="SUNO_JOURNAL_URL", metavar="JOURNAL", help="The SQLite file, or the database's URL."),
    ],
    persona_id: Annotated[str | None, typer.Option(metavar="ID", help="There is a persona; this is its id.")] = None,
    not_created: Annotated[
        bool, typer.Option("--not-created", help="There is none; the next run sends the request again.")
    ] = False,
) -> None:
    """Settle a request whose outcome is unknown.

    Look in your account for its persona first; then give either --persona-id or --not-created.
    """
    if (persona_id is None) is not not_created:
        raise typer.BadParameter("expected either --persona-id ID or --not-created")

    async def work() -> None:
        async with _existing(journal) as record:
            await record.resolve(key, persona_id=persona_id)

    run(work())


async def _count(name: str) -> None:
    from rich.console import Console
    from rich.table import Table

    async with _existing(name) as record:
        counts = await record.counts()
    table = Table()
    table.add_column("state")
    table.add_column("requests", justify="right")
    table.add_column("meaning")
    meanings: dict[State, str] = {
        "queued": "it waits for a worker",
        "created": "there is a persona",
        "not_created": "there is none; the next run sends it again",
        "unknown": "there may be one: look",
        "claimed": "being sent at this moment, or its process was stopped: look",
    }
    for state, meaning in meanings.items():
        table.add_row(state, str(counts.get(state, 0)), meaning)
    Console().print(table)


async def _list_unknown(name: str) -> None:
    async with _existing(name) as record:
        entry = None
        async for entry in record.entries("unknown", "claimed"):
            print(_described(entry))
    if entry is not None:
        settle = shlex.join(["suno-persona", "journal", "resolve", entry.key, *named(name, "--journal")])
        print(f"\nWhen you have looked: {settle} --persona-id ID (or --not-created)")


def _described(entry: "Entry") -> str:
    request = entry.request
    when = entry.claimed_at.isoformat(sep=" ", timespec="seconds")
    return (
        f"{entry.key}\n"
        f"  {request.name!r} from {request.root_clip_id!r}\n"
        f"  claimed at {when} by {entry.claimed_by}\n"
        f"  {entry.reason or 'no outcome was recorded'}"
    )


def _existing(name: str) -> "Journal":
    from suno_persona.journal import Journal

    return Journal.existing(name)
