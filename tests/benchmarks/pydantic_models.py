"""The contract's response as pydantic models, as a generated SDK has them: every field optional, extra ones allowed."""

import json
from datetime import datetime
from typing import Any

from nginx import EXAMPLE
from openai import BaseModel  # pydantic's name for it, and the only one that openai's client accepts
from pydantic import create_model


def type_of(name: str, value: Any) -> Any:
    """Return the type of a member of the example."""
    if isinstance(value, dict):
        fields: dict[str, Any] = {member: (type_of(member, each) | None, None) for member, each in value.items()}
        return create_model(name, __base__=BaseModel, **fields)
    if isinstance(value, list):
        return list[type_of(name, value[0])]  # type: ignore[misc]  # no checker knows it
    return datetime if name == "created_at" else type(value)


Persona = type_of("Persona", json.loads(EXAMPLE.read_bytes()))
