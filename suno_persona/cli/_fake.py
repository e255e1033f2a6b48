"""`suno-persona demo` and `suno-persona fake`: the fake service, to look at and for clients in any language."""

import asyncio
from importlib.resources import files
from typing import TYPE_CHECKING

import click

from suno_persona._client import PersonaAPI
from suno_persona._options import invalid
from suno_persona.cli._rows import Row, read_rows
from suno_persona.cli._running import console, counted, report

if TYPE_CHECKING:
    from suno_persona.testing import FakeSuno

_PORT, _SECONDS = click.IntRange(0, 65535), click.FloatRange(min=0)


@click.command()
def demo() -> None:
    """Create a few personas on the fake service.

    It needs no key and no network.
    """
    from rich.table import Table
    from rich.text import Text

    from suno_persona.testing import FakeSuno

    async def work() -> None:
        with files("suno_persona").joinpath("personas.csv").open("rb") as file:
            requests = [row.request for row in read_rows(file, is_json=False) if isinstance(row, Row)]
        async with FakeSuno() as service, PersonaAPI(service.api_key, base_url=service.base_url) as api:
            outcomes = [outcome async for outcome in api.create_many(requests)]
        table = Table(title=f"{counted(len(requests), 'request')} sent with create_many to a fake service")
        table.add_column("name", no_wrap=True)
        table.add_column("persona id or error", overflow="fold")
        for outcome in sorted(outcomes, key=lambda outcome: outcome.index):
            error = Text(str(outcome.error), style="red")
            table.add_row(Text(outcome.request.name), outcome.persona.id if outcome.persona else error)
        screen = console()
        screen.print(table)
        created = next(outcome.persona.id for outcome in outcomes if outcome.persona)
        screen.print("Next step: pass an id as persona_id when you generate music:")
        screen.print(f'  {{"persona_id": "{created}", ...}}')

    asyncio.run(work())


@click.command()
@click.option(
    "--port", type=_PORT, metavar="PORT", default=8000, show_default=True, help="The port; 0 picks a free one."
)
@click.option("--latency", type=_SECONDS, metavar="SECONDS", default=0, show_default=True, help="Time to a response.")
@click.option(
    "--fail",
    "faults",
    multiple=True,
    metavar="KIND=SHARE",
    help="Share of the requests that meet a fault, such as lost-response=0.1. Use it once for each kind.",
)
@click.option("--seed", type=int, metavar="N", help="Seed for reproducible faults.")
def fake(*, port: int, latency: float, faults: tuple[str, ...], seed: int | None) -> None:
    """Run the fake service on a loopback port.

    Use it from curl or a client in any language. Ctrl-C stops it. It shows each persona that it creates on stderr.
    """

    async def work() -> None:
        from suno_persona.testing import FakeSuno

        async with FakeSuno(port=port, latency=latency, failures=_shares(faults), seed=seed) as service:
            print(_introduction(service), flush=True)
            requests, shown = 0, 0
            while True:
                await service.wait_for_requests(requests := requests + 1)
                for persona in service.personas[shown:]:
                    shown += 1
                    report(f"created {persona.id}, {persona.name!r} from {persona.root_clip_id!r}")

    asyncio.run(work())


def _shares(texts: tuple[str, ...]) -> dict[str, float]:
    from suno_persona.testing._faults import NAMED, check_shares

    shares: dict[str, float] = {}
    for text in texts:
        kind, _, share = text.partition("=")
        try:
            shares[kind] = float(share)
        except ValueError:
            required = f"KIND=SHARE, with one of {', '.join(NAMED)} and a number from 0 to 1"
            raise invalid("--fail", required, repr(text)) from None
    check_shares("--fail", shares)
    return shares


def _introduction(service: "FakeSuno") -> str:
    from suno_persona.testing._faults import NAMED

    *names, last = (f"{name}-" for name in NAMED)
    return (
        f"export SUNO_BASE_URL={service.base_url} SUNO_API_KEY={service.api_key}\n"
        "# The fake service runs at this base URL with this key. Stop it with Ctrl-C. Try it with:\n"
        "#   suno-persona create --root-clip-id 54834687 --name Neon --description 'Night drive'\n"
        "# A clip id that starts with unknown-, uploaded- or foreign- is rejected. One that starts with\n"
        f"# {', '.join(names[:4])},\n# {', '.join(names[4:])} or {last} meets that fault once."
    )
