"""A FastAPI service that creates personas with one client for the whole process.

Start it with `uvicorn --app-dir docs/examples fastapi_service:app --port 8001`.
"""
# Needs: pip install suno-persona fastapi uvicorn
# Set SUNO_API_KEY and SUNO_BASE_URL: `suno-persona fake` runs a service to try this
# with, and prints both.

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, TypedDict

from fastapi import Depends, FastAPI, Request, status
from fastapi.responses import JSONResponse
from pydantic import BaseModel
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


class State(TypedDict):
    api: PersonaAPI


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    async with PersonaAPI() as api:
        yield {"api": api}


app = FastAPI(lifespan=lifespan)


def persona_api(request: Request) -> PersonaAPI:
    api: PersonaAPI = request.state.api
    return api


class NewPersona(BaseModel):
    clip_id: str
    name: str
    description: str


class Created(BaseModel):
    persona_id: str


@app.post("/personas", status_code=status.HTTP_201_CREATED)
async def create(
    new: NewPersona, api: Annotated[PersonaAPI, Depends(persona_api)]
) -> Created:
    request = CreatePersonaRequest(
        root_clip_id=new.clip_id, name=new.name, description=new.description
    )
    return Created(persona_id=(await api.create(request)).id)


@app.exception_handler(PersonaError)
async def explain(_: Request, error: PersonaError) -> JSONResponse:
    body = {"detail": str(error), "may_have_created": error.may_have_created}
    match error:
        case OutcomeUnknownError():
            return JSONResponse(body | {"persona_id": error.persona_id}, 502)
        case RateLimitedError() | ServiceUnavailableError():
            return JSONResponse(
                body,
                503,
                headers={"Retry-After": str(round(error.retry_after or 10))},
            )
        case ConnectionFailedError():
            return JSONResponse(body, 503)
        case (
            InvalidRequestError() | RejectedError(status=200 | 400 | 403 | 404 | 422)
        ):
            return JSONResponse(body, 422)
        case _:
            # For example a wrong key or address, which the caller cannot fix.
            raise error
