"""An aiohttp.web service that creates personas with one client for the whole process.

Start it with `PORT=8001 python docs/examples/aiohttp_service.py`.
"""
# Needs: pip install suno-persona
# Set SUNO_API_KEY and SUNO_BASE_URL: `suno-persona fake` runs a service to try this
# with, and prints both.

import os
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler
from suno_persona import (
    ConnectionFailedError,
    CreatePersonaRequest,
    InvalidRequestError,
    OutcomeUnknownError,
    PersonaAPI,
    PersonaError,
    RateLimitedError,
    RejectedError,
    ServiceUnavailableError,
)

API = web.AppKey("api", PersonaAPI)


async def client(app: web.Application) -> AsyncIterator[None]:
    async with PersonaAPI() as api:
        app[API] = api
        yield


@web.middleware
async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except PersonaError as error:
        body = {"detail": str(error), "may_have_created": error.may_have_created}
        match error:
            case InvalidRequestError():
                return web.json_response(body, status=400)
            case OutcomeUnknownError():
                return web.json_response(
                    body | {"persona_id": error.persona_id}, status=502
                )
            case RateLimitedError() | ServiceUnavailableError():
                return web.json_response(
                    body,
                    status=503,
                    headers={"Retry-After": str(round(error.retry_after or 10))},
                )
            case ConnectionFailedError():
                return web.json_response(body, status=503)
            case RejectedError(status=200 | 400 | 403 | 404 | 422):
                return web.json_response(body, status=422)
            case _:
                # For example a wrong key or address, which the caller cannot fix.
                raise


async def create(request: web.Request) -> web.Response:
    try:
        new = await request.json()
    except ValueError as error:
        return web.json_response({"detail": f"not JSON: {error}"}, status=400)
    match new:
        case {"clip_id": clip, "name": name, "description": description}:
            wanted = CreatePersonaRequest(
                root_clip_id=clip, name=name, description=description
            )
        case _:
            detail = "clip_id, name and description must be given"
            return web.json_response({"detail": detail}, status=400)
    persona = await request.app[API].create(wanted)
    return web.json_response({"persona_id": persona.id}, status=201)


def make_app() -> web.Application:
    app = web.Application(middlewares=[explain])
    app.cleanup_ctx.append(client)
    app.router.add_post("/personas", create)
    return app


if __name__ == "__main__":
    web.run_app(
        make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8001"))
    )
