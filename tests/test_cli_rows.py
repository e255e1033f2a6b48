"""The input files of `suno-persona batch`: CSV and JSON Lines, checked row by row before anything is sent."""

import re
import sys
from pathlib import Path

import pytest
from support.command import COMMAND, run
from support.rows import HEADER, read_outcomes, write_file
from typer.testing import CliRunner

from suno_persona.cli import app
from suno_persona.testing import FakeSuno

pytestmark = pytest.mark.slow

NEON = '{"root_clip_id": "c", "name": "Neon", "description": "Night drive", "clips": ["c", "d"], "is_public": true}'
FORMS = {
    "CSV": (HEADER + "c,Neon,Night drive,c d,TRUE\nc,Fog,Folk,,\n", "rows.csv"),
    "CSV with a byte order mark and CRLF": (
        "\ufeff" + (HEADER + "c,Neon,Night drive,c d,true\n\nc,Fog,Folk,,false\n").replace("\n", "\r\n"),
        "rows.CSV",
    ),
    "CSV in another order": (
        "name,clips,root_clip_id,is_public,description\nNeon,c d,c,true,Night drive\nFog,,c,,Folk\n",
        "rows.csv",
    ),
    "CSV with the rows that spreadsheets leave": (
        HEADER + "c,Neon,Night drive,c d,true\n,,,,\nc,Fog,Folk,,",
        "rows.csv",
    ),
    "JSON Lines": (
        NEON + '\n\n{"root_clip_id": "c", "name": "Fog", "description": "Folk"}',
        "rows.jsonl",
    ),
    "JSON Lines with a byte order mark and CRLF": (
        f'\ufeff{NEON}\r\n{{"root_clip_id": "c", "name": "Fog", "description": "Folk", "is_public": false}}\r\n',
        "rows.ndjson",
    ),
}


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_a_file_is_read_alike(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path, form: str
) -> None:
    """CSV and JSON Lines hold the same requests, also with byte order marks, CRLF and empty spreadsheet rows."""
    content, name = FORMS[form]
    done = await run(COMMAND, "batch", write_file(tmp_path, content, name), "--max-connections", "1", env=env)
    assert done.status == 0, done.errors
    assert [request.json() for request in fake_suno.requests] == [
        {"root_clip_id": "c", "name": "Neon", "description": "Night drive", "clips": ["c", "d"], "is_public": True},
        {"root_clip_id": "c", "name": "Fog", "description": "Folk", "clips": ["c"], "is_public": False},
    ]


async def test_a_cell_may_contain_line_breaks_and_commas(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """It is quoted as in RFC 4180, and rows after it are reported with the right line."""
    file = write_file(tmp_path, HEADER + 'c,"Neon, ""live""","Night\r\ndrive",,\nc,Fog,Folk,,\n')
    done = await run(COMMAND, "batch", file, env=env)
    received = {request.json()["name"]: request.json() for request in fake_suno.requests}  # type: ignore[index]  # JSON
    assert received['Neon, "live"']["description"] == "Night\r\ndrive"  # type: ignore[index]  # JSON
    assert {line["request"]["name"]: line["line"] for line in read_outcomes(done.output)} == {
        'Neon, "live"': 2,
        "Fog": 4,
    }


BAD_CSV = {
    "nothing": (b"", [":1: the file must have at least one request; got none"]),
    "a header alone": (HEADER.encode(), [":1: the file must have at least one request; got none"]),
    "no header": (b"c,Neon,Night drive\n", [":1: a column of the header must be one of root_clip_id, name"]),
    "an unknown column": (
        b"root_clip_id,name,description,mood\nc,N,D,x\n",
        [":1: a column .*; got 'mood'"],
    ),
    "a missing column": (
        b"root_clip_id,name\nc,N\n",
        [":1: the header must have the column description; got"],
    ),
    "a column twice": (
        b"name,root_clip_id,name,description\n",
        [":1: a column .* must be unique; got 'name' 2 times"],
    ),
    "an empty cell": (b"root_clip_id,name,description\n\nc,,D\n", [":3: name must be non-empty text"]),
    "too few cells": (
        b"root_clip_id,name,description\nc,N\n",
        [":2: the row must have 3 cells, .*; got 2"],
    ),
    "too many cells": (b"root_clip_id,name,description\nc,N,D,x\n", [":2: the row must have 3 cells, .*; got 4"]),
    "no flag": (HEADER.encode() + b"c,N,D,,yes\n", [":2: is_public must be true or false; got 'yes'"]),
    "a control character": (HEADER.encode() + b"c\x07,N,D,,\n", [":2: root_clip_id must be an id without control"]),
    "an open quote": (
        b'root_clip_id,name,description\nc,N,D\nc,"N,D\n',
        [":3: the row must be valid CSV; got an error: unexpected"],
    ),
    "text after a quote": (
        b'root_clip_id,name,description\nc,"N"x,D\n',
        [":2: the row must be valid CSV; got"],
    ),
    "another encoding": (HEADER.encode() + b"c,N\xe9on,D,,\n", [":2: the file must be UTF-8; got the byte 0xe9"]),
    "UTF-16": (HEADER.encode("utf-16"), [":1: the file must be UTF-8; got the byte 0xf"]),
    "many": (
        b'root_clip_id,name,description\n,N,D\n"c\n",N,D\nc,N,D\nc,N\n',
        [
            ":2: root_clip_id must be non-empty",
            ":3: root_clip_id must be an id without",
            ":6: the row must",
        ],
    ),
}
GOOD = b'{"root_clip_id": "c", "name": "N", "description": "D"}\n'
BAD_JSON = {
    "nothing": (b"\n\n", [":1: the file must have at least one request; got none"]),
    "bad JSON": (GOOD + b'{"name": \n', [r":2: \$ must be a JSON document; got an error at offset \d+"]),
    "a list": (b"[1]\n", [":1: a request must be an object; got a list"]),
    "an unknown member": (
        b'{"root_clip_id": "c", "names": "N"}',
        [":1: the members .*; got 'names'"],
    ),
    "a missing member": (b'{"root_clip_id": "c", "name": "N"}\n', [":1: description must be non-empty text"]),
    "a number": (GOOD.replace(b'"N"', b"12"), [":1: name must be non-empty text; got 12"]),
    "null": (GOOD.replace(b'"N"', b"null"), [":1: name must be non-empty text; got None"]),
    "text for clips": (GOOD.replace(b"}", b', "clips": "c"}'), [":1: clips must be a list of clip ids; got 'c'"]),
    "an object for clips": (GOOD.replace(b"}", b', "clips": {"c": 1}}'), [":1: clips must be a list"]),
    "no clips": (GOOD.replace(b"}", b', "clips": []}'), [":1: clips must be at least one clip id"]),
    "text for a flag": (GOOD.replace(b"}", b', "is_public": "true"}'), [":1: is_public must be True or False"]),
    "another encoding": (GOOD + b'{"name": "\xe9"}', [":2: the file must be UTF-8; got the byte 0xe9"]),
    "a lone surrogate": (GOOD.replace(b'"N"', b'"\\ud800"'), [":1: name must be text without lone surrogates"]),
    "many": (
        b"1\n" + GOOD + b"2\n",
        [":1: a request must be an object; got 1", ":3: .* got 2"],
    ),
}


@pytest.mark.parametrize(
    ("name", "content", "reasons"),
    [("rows.csv", *case) for case in BAD_CSV.values()] + [("rows.jsonl", *case) for case in BAD_JSON.values()],
    ids=[f"CSV: {case}" for case in BAD_CSV] + [f"JSON Lines: {case}" for case in BAD_JSON],
)
def test_a_file_with_bad_rows_sends_nothing(tmp_path: Path, name: str, content: bytes, reasons: list[str]) -> None:
    """All bad rows are reported, each with its line and the reason, and the status is 2."""
    file = write_file(tmp_path, content, name)
    done = CliRunner().invoke(app, ["batch", file], env={"SUNO_API_KEY": "k", "SUNO_BASE_URL": "http://127.0.0.1:1"})
    *reported, last = done.stderr.splitlines()
    assert (done.exit_code, done.stdout) == (2, "")
    assert len(reported) == len(reasons)
    for line, reason in zip(reported, reasons, strict=True):
        assert line.startswith(file)
        assert re.match(reason, line.removeprefix(file)), line
    assert last.startswith("suno-persona: nothing was sent: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


async def test_rows_are_checked_in_constant_memory(tmp_path: Path) -> None:
    """A hundred thousand rows take less than a megabyte more than a thousand."""
    code = """if True:
        import resource, sys
        from suno_persona.cli._rows import read_rows
        class Endless:
            def __init__(self, count): self.count = count
            def __iter__(self):
                yield b"root_clip_id,name,description\\n"
                for number in range(self.count): yield b"clip,Voice %d,Airy pop\\n" % number
        peaks = []
        for count in (1_000, 100_000):
            assert sum(1 for _ in read_rows(Endless(count), ".csv")) == count
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        print(peaks[1] - peaks[0])
    """
    done = await run(sys.executable, "-c", code, env={})
    assert int(done.output) < 1024 * (1024 if sys.platform == "darwin" else 1)
