"""Create personas at once with `asyncio.gather`; others continue after an error."""
# Needs: pip install suno-persona
# Set SUNO_API_KEY and SUNO_BASE_URL: `suno-persona fake` runs a service to try this
# with, and prints both.

import asyncio

from suno_persona import CreatePersonaRequest, Persona, PersonaAPI, PersonaError

REQUESTS = [
    CreatePersonaRequest(
        root_clip_id="54834687",
        name="Neon Drive",
        description="Bright synths, a low calm voice",
    ),
    CreatePersonaRequest(
        root_clip_id="0b6f7c1e",
        name="Harbour Fog",
        description="Slow folk, close whisper",
    ),
    CreatePersonaRequest(
        root_clip_id="unknown-4f0e",
        name="Lost Tape",
        description="The service lacks its clip",
    ),
]


async def main() -> None:
    async with PersonaAPI() as api:
        results = await asyncio.gather(
            *(api.create(request) for request in REQUESTS), return_exceptions=True
        )
    for request, result in zip(REQUESTS, results, strict=True):
        match result:
            case Persona():
                print(f"{request.name}: created, {result.id}")
            case PersonaError(may_have_created=True):
                print(f"{request.name}: check before retrying: {result}")
            case PersonaError():
                print(f"{request.name}: not created: {result}")
            case _:
                raise result


asyncio.run(main())
