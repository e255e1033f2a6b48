"""Journals to export, filled without a service."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from suno_persona import (
    Clip,
    ConnectionLostError,
    CreatePersonaRequest,
    NotCreatedError,
    NotFoundError,
    OutcomeUnknownError,
    Persona,
)
from suno_persona._engine import Account
from suno_persona._response import Ended
from suno_persona.conversion import dump_request
from suno_persona.journal import Journal

from .command import COMMAND, Done, run
from .rows import HEADER

_Result: TypeAlias = Persona | NotCreatedError | OutcomeUnknownError | None
ACCOUNT = Account("https://gateway.example/suno/persona/create", lambda salt: salt.hex())
HOSTILE = """<img src=x onerror="alert('1')">"""
SONGS = {
    "Neon Drive": "Night drive: bright synths, a low calm voice",
    "Harbour Fog": "Slow folk, close whisper, brushed drums",
    "Paper Lanterns": "Airy pop, two voices in thirds",
    "Iron Choir": "Heavy guitars under a wide choir",
    "Lost Tape": "Lo-fi soul, a voice from the next room",
    "Glass Orchard": "Chamber pop, harp and a clear alto",
}


def a_request(name: str, description: str = "Airy pop", clip: str = "54834687") -> CreatePersonaRequest:
    """Return a request with this name."""
    return CreatePersonaRequest(root_clip_id=clip, name=name, description=description)


def a_persona(
    number: int, request: CreatePersonaRequest, *, audio_url: str | None = None, image_url: str | None = None
) -> Persona:
    """Return the persona that a service creates from a request."""
    clip = request.root_clip_id
    urls = {kind: f"https://cdn.example/{kind}/{clip}" for kind in ("audio", "image", "video")}
    return Persona(
        id=f"{number:08x}-ac1c-4822-9802-c1c0ea45e77b",
        name=request.name,
        description=request.description,
        root_clip_id=clip,
        clip=Clip(
            id=clip,
            audio_url=audio_url or urls["audio"],
            image_url=image_url or urls["image"],
            video_url=urls["video"],
        ),
    )


async def fill(path: Path, *results: tuple[CreatePersonaRequest, _Result]) -> str:
    """Record requests with their results in a journal, as a batch does, and return its path. `None` leaves a claim."""
    async with Journal(path) as journal:
        run = await journal.begin(ACCOUNT)

        async def record(request: CreatePersonaRequest, result: _Result) -> None:
            body = dump_request(request)
            key = run.key(body)
            assert await run.claim(key, body) is None
            if result is not None:
                await run.settle(key, Ended(result, "5d5f0a9e"))

        await asyncio.gather(*(record(request, result) for request, result in results))
    return str(path)


async def sample(folder: Path) -> tuple[str, str]:
    """Record a small batch with an outcome of each kind, and return the paths of the journal and of the input file."""
    requests = [
        a_request(name, description, f"{number}b6f7c1e-6a52-4c0e-9a3d-3d1f0a9f2c11")
        for number, (name, description) in enumerate(SONGS.items())
    ]
    results: list[_Result] = [a_persona(0x6F1D20C4 + n * 0x0B3A9D51, each) for n, each in enumerate(requests)]
    results[2] = ConnectionLostError(message="the connection broke after the request started to leave")
    results[4] = NotFoundError(message="the clip does not exist", status=404, code="clip_not_found")
    results[5] = None
    file = folder / "personas.csv"
    file.write_text(HEADER + "".join(f'{each.root_clip_id},{each.name},"{each.description}",,\n' for each in requests))
    return await fill(folder / "personas.csv.journal", *zip(requests, results, strict=True)), str(file)


async def export(journal: str, kind: str, *options: str) -> Done:
    """Run the command that exports a journal."""
    return await run(COMMAND, "journal", "export", "--journal", journal, "--format", kind, *options, env={})


def many(count: int) -> Iterable[tuple[CreatePersonaRequest, Persona]]:
    """Yield this many requests with their personas."""
    for number in range(count):
        request = a_request(f"Voice {number}", clip=f"clip-{number}")
        yield request, a_persona(number, request)
