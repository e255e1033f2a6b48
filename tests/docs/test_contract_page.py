"""The page on the contract lists the members of the models, and is correct about gateways."""

import ast
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from suno_persona import Clip, ClipMetadata, CreatePersonaRequest, Persona, PersonaAPI, PersonaClip, PersonaError
from suno_persona.testing import FakeSuno, Fault

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "contract.md").read_text(encoding="utf-8")

# the page's name for the type of a field
TYPES: dict[object, str] = {
    str: "string",
    bool: "boolean",
    str | None: "string",
    int | None: "integer",
    float | None: "number",
    bool | None: "boolean",
    datetime | None: "time",
    tuple[str, ...]: "array of strings",
    Clip | None: "[Clip](#clip)",
    ClipMetadata | None: "[ClipMetadata](#clipmetadata)",
    tuple[PersonaClip, ...]: "array of [PersonaClip](#personaclip)",
}


def table(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without the header row."""
    (found,) = re.findall(rf"^###? {heading}\n\n(?:[^|#\n].*\n|\n)*((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in found.splitlines()[2:]]


def in_code(cell: str) -> list[str]:
    """Return the inline code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("Body", CreatePersonaRequest),
        ("Persona", Persona),
        ("Clip", Clip),
        ("ClipMetadata", ClipMetadata),
        ("PersonaClip", PersonaClip),
    ],
)
def test_every_member_is_on_the_page_with_its_type(heading: str, model: type[attrs.AttrsInstance]) -> None:
    """The members are in the order of the fields; `extra` is not a member."""
    fields = [(f"`{field.name}`", TYPES[field.type]) for field in attrs.fields(model) if field.name != "extra"]
    assert [(name, kind) for name, kind, *_ in table(heading)] == fields


def test_the_examples_of_members_are_those_of_the_contract(example: dict[str, Any]) -> None:
    """Every member except nested objects has one; a long one may omit its middle."""
    persona_clip = example["persona_clips"][0]
    documents = {
        "Persona": example,
        "Clip": example["clip"],
        "ClipMetadata": example["clip"]["metadata"],
        "PersonaClip": persona_clip,
    }
    for heading, document in documents.items():
        rows = [row for row in table(heading) if not row[2].endswith("(added)")]
        assert len(rows) == len(document)
        for name, kind, _, shown in rows:
            value = document[name.strip("`")]
            if "(#" in kind:
                assert isinstance(value, dict | list)
            else:
                start, _, end = shown.strip("`").partition("…")
                assert json.dumps(value).startswith(start)
                assert json.dumps(value).endswith(end)
                assert end or json.dumps(value) == start


async def test_the_example_of_the_request_creates_a_persona(fake_suno: FakeSuno, once: PersonaAPI) -> None:
    """It is sent as the page shows it: the same members, in the same order."""
    document = {name.strip("`"): json.loads(shown.strip("`")) for name, *_, shown in table("Body")}
    await once.create(CreatePersonaRequest(**document))
    assert list(json.loads(fake_suno.requests[0].body).items()) == list(document.items())
    headers = fake_suno.requests[0].headers
    assert [headers[name.strip("`")] for name, _ in table("The request")] == [
        f"Bearer {fake_suno.api_key}",
        "application/json",
        "*/*",
    ]


VARIATIONS = [(example, in_code(given)) for _, example, given in table("In the response")]
STATUSES = [(f"`{status}`", in_code(error)) for status, error in table("Errors")]


@pytest.mark.parametrize(("shown", "given"), [*VARIATIONS, *STATUSES], ids=lambda cell: str(cell)[:50])
async def test_each_example_of_a_response_has_the_stated_result(
    shown: str,
    given: list[str],
    fake_suno: FakeSuno,
    once: PersonaAPI,
    request_: CreatePersonaRequest,
) -> None:
    """If the service responds with the example, the call returns or raises that class with those values."""
    found = re.fullmatch(r"`(\d{3})(?: ([\w-]+): ([^{[<`]+))?(?: ([{[<].*))?`", shown)
    assert found is not None
    status, name, value, body = found.groups()
    fake_suno.script(Fault.response(int(status), (body or "").encode(), headers={name: value} if name else None))
    result: object
    try:
        result = await once.create(request_)
    except PersonaError as error:
        result = error
    kind, *values = given
    assert type(result).__name__ == kind
    for attribute, _, literal in (text.partition("=") for text in values):
        assert getattr(result, attribute) == ast.literal_eval(literal)
