"""Ways to read and write the contract's example, and to build a request; `instructions.py conversions` counts them."""

import gc
import json
from collections.abc import Callable

import cattrs.preconf.json
import msgspec
from contenders import REQUEST, counted, pydantic_persona
from service import EXAMPLE

from suno_persona import CreatePersonaRequest, Persona, dumps, loads

NUMBER = 500

data, document = EXAMPLE, json.loads(EXAMPLE)
# The members that CometAPI and DeerAPI document.
metadata = {**document["clip"]["metadata"], "can_remix": True, "is_remix": False, "priority": 10}
clip_members = {"entity_type": "song_schema", "flag_count": 0, "display_tags": "electronic pop", "allow_comments": True}
clip = {**document["clip"], **clip_members, "metadata": metadata}
more = {**document, "image_s3_id": f"image_{clip['id']}", "clip": clip, "persona_clips": [{"clip": clip}]}
more_data = json.dumps(more, indent=4).encode()

stock = cattrs.preconf.json.make_converter()
typed = msgspec.json.Decoder(Persona)
pydantic_model = pydantic_persona()
persona, pydantic = loads(data), pydantic_model.model_validate_json(data)

Ways = dict[str, Callable[[], object]]
WAYS: dict[str, Ways] = {
    "reading the contract's example": {
        "`json.loads`, a dict": lambda: json.loads(data),
        "`suno_persona.loads`": lambda: loads(data),
        "cattrs' stock JSON converter": lambda: stock.loads(data, Persona),
        "msgspec straight to attrs": lambda: typed.decode(data),
        "pydantic's `model_validate_json`": lambda: pydantic_model.model_validate_json(data),
    },
    "reading it with members that gateways add": {
        "`json.loads`, a dict": lambda: json.loads(more_data),
        "`suno_persona.loads`": lambda: loads(more_data),
    },
    "writing it": {
        "`json.dumps` of a dict": lambda: json.dumps(document),
        "`suno_persona.dumps`": lambda: dumps(persona),
        "cattrs' stock JSON converter": lambda: stock.dumps(persona),
        "msgspec straight from attrs": lambda: msgspec.json.encode(persona),
        "pydantic's `model_dump_json`": lambda: pydantic.model_dump_json(),
    },
    "building a request": {
        "a dict": lambda: dict(REQUEST),
        "`CreatePersonaRequest`, checked": lambda: CreatePersonaRequest(**REQUEST),  # type: ignore[arg-type]  # of both
    },
}

if __name__ == "__main__":
    gc.freeze()  # a collection must not traverse what the packages above have made
    for ways in WAYS.values():
        for way in ways.values():
            for _ in range(NUMBER // 5):
                way()  # to warm up
            with counted():
                for _ in range(NUMBER):
                    way()
