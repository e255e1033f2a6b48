"""`suno-persona fake`: the fake service on a port, for curl and for clients in any language."""

from typing import TYPE_CHECKING, Annotated

import typer

from suno_persona._options import invalid
from suno_persona.cli._running import report, run

if TYPE_CHECKING:
    from suno_persona.testing import FakeSuno


def fake(
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="The port; 0 picks a free one.")] = 8000,
    latency: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, max=1e6, help="How long it takes to respond.", show_default=False)
    ] = 0,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND=SHARE",
            help="The share of the requests that meet a fault, such as lost-answer=0.1; may be used more than once.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Makes the requests that do the same in each run.")
    ] = None,
) -> None:
    """Run the fake service on a loopback port.

    Use it from curl or a client in any language. Ctrl-C stops it. It shows each persona that it creates on stderr.
    """

    async def work() -> None:
        from suno_persona.testing import FakeSuno

        async with FakeSuno(port=port, latency=latency, failures=_shares(fail or []), seed=seed) as service:
            print(_introduction(service), flush=True)
            requests, shown = 0, 0
            while True:
                await service.wait_for_requests(requests := requests + 1)
                for persona in service.personas[shown:]:
                    shown += 1
                    report(f"created {persona.id}, {persona.name!r} from {persona.root_clip_id!r}")

    run(work())


def _shares(texts: list[str]) -> dict[str, float]:
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
