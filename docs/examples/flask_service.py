"""A Flask application that creates personas with one client for the whole process.

Start it with `flask --app docs/examples/flask_service.py run --port 8001`.
"""
# Needs: pip install suno-persona flask
# Set SUNO_API_KEY and SUNO_BASE_URL: `suno-persona fake` runs a service to try this
# with, and prints both.

import atexit

from blocking_client import BlockingClient
from flask import Flask, request
from flask.typing import ResponseReturnValue
from suno_persona import (
    ConnectionFailedError,
    CreatePersonaRequest,
    InvalidRequestError,
    OutcomeUnknownError,
    PersonaError,
    RateLimitedError,
    RejectedError,
    ServiceUnavailableError,
)


def explain(error: PersonaError) -> ResponseReturnValue:
    body = {"detail": str(error), "may_have_created": error.may_have_created}
    match error:
        case InvalidRequestError():
            return body, 400
        case OutcomeUnknownError():
            return body | {"persona_id": error.persona_id}, 502
        case RateLimitedError() | ServiceUnavailableError():
            return body, 503, {"Retry-After": str(round(error.retry_after or 10))}
        case ConnectionFailedError():
            return body, 503
        case RejectedError(status=200 | 400 | 403 | 404 | 422):
            return body, 422
        case _:
            # For example a wrong key or address, which the caller cannot fix.
            raise error


def create_app() -> Flask:
    app = Flask(__name__)
    client = BlockingClient()
    atexit.register(client.close)
    app.register_error_handler(PersonaError, explain)

    @app.post("/personas")
    def create() -> ResponseReturnValue:
        match request.get_json():
            case {"clip_id": clip, "name": name, "description": description}:
                wanted = CreatePersonaRequest(
                    root_clip_id=clip, name=name, description=description
                )
            case _:
                return {"detail": "clip_id, name and description must be given"}, 400
        return {"persona_id": client.create(wanted).id}, 201

    return app
