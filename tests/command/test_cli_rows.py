"""The input files of `suno-persona batch`: CSV and JSON Lines, checked row by row before anything is sent."""

import re
import sys
from pathlib import Path

import pytest
from support.command import COMMAND, run
from support.databases import needs_linux
from support.rows import HEADER, read_outcomes, write_file

from suno_persona.testing import FakeSuno

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
    "nothing": (b"", [":1: the file has no request"]),
    "a header alone": (HEADER.encode(), [":1: the file has no request"]),
    "no header": (b"c,Neon,Night drive\n", [":1: a column of the header must be one of root_clip_id, name"]),
    "an unknown column": (
        b"root_clip_id,name,description,mood\nc,N,D,x\n",
        [r":1: a column .*; got 'mood' \(--ignore-other-columns ignores it\)"],
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
    "a control character": (HEADER.encode() + b"c\x07,N,D,,\n", [":2: root_clip_id contains "]),
    "an open quote": (
        b'root_clip_id,name,description\nc,N,D\nc,"N,D\n',
        [":3: the row is not valid CSV: unexpected"],
    ),
    "text after a quote": (
        b'root_clip_id,name,description\nc,"N"x,D\n',
        [":2: the row is not valid CSV: "],
    ),
    "another encoding": (HEADER.encode() + b"c,N\xe9on,D,,\n", [":2: the file must be UTF-8; got the byte 0xe9"]),
    "UTF-16 without a byte order mark": (HEADER.encode("utf-16-le"), [":1: a column of the header must be one of "]),
    "UTF-16 that ends within a character": (HEADER.encode("utf-16")[:-1], [":1: the file is not valid UTF-16: "]),
    "many": (
        b'root_clip_id,name,description\n,N,D\n"c\n",N,D\nc,N,D\nc,N\n',
        [
            ":2: root_clip_id must be non-empty",
            ":3: root_clip_id contains ",
            ":6: the row must",
        ],
    ),
}
GOOD = b'{"root_clip_id": "c", "name": "N", "description": "D"}\n'
BAD_JSON = {
    "nothing": (b"\n\n", [":1: the file has no request"]),
    "bad JSON": (GOOD + b'{"name": \n', [r":2: \$ must be a JSON document; got an error at offset \d+"]),
    "a list": (b"[1]\n", [":1: a request must be an object; got a list"]),
    "an unknown member": (
        b'{"root_clip_id": "c", "names": "N"}',
        [r":1: the members .*; got 'names' \(--ignore-other-columns ignores it\)"],
    ),
    "a missing member": (b'{"root_clip_id": "c", "name": "N"}\n', [":1: description must be non-empty text"]),
    "a number": (GOOD.replace(b'"N"', b"12"), [":1: name must be non-empty text; got 12"]),
    "null": (GOOD.replace(b'"N"', b"null"), [":1: name must be non-empty text; got no such member"]),
    "text for clips": (GOOD.replace(b"}", b', "clips": "c"}'), [":1: clips must be a list of clip ids; got 'c'"]),
    "an object for clips": (GOOD.replace(b"}", b', "clips": {"c": 1}}'), [":1: clips must be a list"]),
    "no clips": (GOOD.replace(b"}", b', "clips": []}'), [":1: clips is empty"]),
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
async def test_a_file_with_bad_rows_sends_nothing(
    tmp_path: Path, name: str, content: bytes, reasons: list[str]
) -> None:
    """All bad rows are reported, each with its line and the reason, and the status is 2."""
    file = write_file(tmp_path, content, name)
    done = await run(COMMAND, "batch", file, env={"SUNO_API_KEY": "k", "SUNO_BASE_URL": "http://127.0.0.1:1"})
    *reported, last = done.errors.splitlines()
    assert (done.status, done.output) == (2, "")
    assert len(reported) == len(reasons)
    for line, reason in zip(reported, reasons, strict=True):
        assert line.startswith(file)
        assert re.match(reason, line.removeprefix(file)), line
    assert last.startswith("suno-persona: nothing was sent: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


READ = {
    "semicolons": "\ufeffroot_clip_id;name;description\r\n54834687;Neon;Night drive, airy\r\n",
    "a line that names the delimiter": "sep=;\r\nroot_clip_id;name;description\r\n54834687;Neon;Night drive\r\n",
    "tabs": "root_clip_id\tname\tdescription\n54834687\tNeon\tNight drive, airy; slow\n",
    "empty trailing columns": "root_clip_id,name,description,,\n54834687,Neon,Night drive,,\n,,,,\n",
    "empty first lines": "\n\nroot_clip_id;name;description\n54834687;Neon;Night drive\n",
    "spaces in the header": "root_clip_id; name; description\n54834687;Neon;Night drive\n",
    "line ends of an old Mac": "root_clip_id,name,description\r54834687,Neon,Night drive\r",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("form", READ)
async def test_csv_is_read_as_spreadsheets_write_it(
    form: str, encoding: str, fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """Any common delimiter and encoding will do, and empty columns and rows are ignored."""
    text = READ[form] if encoding == "utf-8" else READ[form].removeprefix("\ufeff")
    done = await run(COMMAND, "batch", write_file(tmp_path, text.encode(encoding)), env=env)
    assert done.status == 0, done.errors
    (request,) = fake_suno.requests
    received = request.json()
    assert isinstance(received, dict)
    assert (received["root_clip_id"], received["name"]) == ("54834687", "Neon")
    assert str(received["description"]).startswith("Night drive")


async def test_lines_are_counted_from_the_top_of_the_file(env: dict[str, str], tmp_path: Path) -> None:
    """A line that names the delimiter, and empty lines, count."""
    file = write_file(tmp_path, "\nsep=;\nroot_clip_id;name;description\nc;;D\n")
    done = await run(COMMAND, "batch", file, env=env)
    assert done.errors.startswith(f"{file}:4: name must be non-empty text")


CLIPS = """\
root_clip_id,name,description,clips
c1,spaces,d,c1 c2
c1,commas,d,"c1, c2"
c1,semicolons,d,"c1;c2;"
c1,json,d,"[""c1"",""c2""]"
c1,python,d,"['c1', 'c2']"
"""


async def test_clips_are_separated_or_a_list(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """Spaces, commas and semicolons separate them; a list of JSON or Python is read, too."""
    done = await run(COMMAND, "batch", write_file(tmp_path, CLIPS), env=env)
    assert done.status == 0, done.errors
    assert [request.json()["clips"] for request in fake_suno.requests] == [["c1", "c2"]] * 5  # type: ignore[index]  # JSON


async def test_a_list_of_clips_that_is_broken_is_an_error(env: dict[str, str], tmp_path: Path) -> None:
    """The error shows the cell."""
    content = "root_clip_id,name,description,clips\nc1,N,D,[c1\n"
    done = await run(COMMAND, "batch", write_file(tmp_path, content), env=env)
    assert ":2: clips must be ids or a list of ids; got '[c1'\n" in done.errors


async def test_a_null_member_is_absent(fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path) -> None:
    """The request has the five members of the contract."""
    optional = '"clips":null,"is_public":null,"custom_id":null,"extra.vox_audio_id":null'
    file = write_file(tmp_path, f'{{"root_clip_id":"c1","name":"n","description":"d",{optional}}}\n', "nulls.jsonl")
    assert (await run(COMMAND, "batch", file, env=env)).status == 0
    assert fake_suno.requests[0].json() == {
        "root_clip_id": "c1",
        "name": "n",
        "description": "d",
        "clips": ["c1"],
        "is_public": False,
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", ",root_clip_id,name,mood,description\n0,c1,n,sad,d\n"),
        ("rows.jsonl", '{"root_clip_id":"c1","name":"n","mood":"sad","description":"d","a":[1]}\n'),
    ],
)
async def test_other_columns_are_ignored_on_demand(
    name: str, content: str, fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """Otherwise the error names the option."""
    file = write_file(tmp_path, content, name)
    rejected = await run(COMMAND, "batch", file, env=env)
    assert rejected.status == 2
    assert "(--ignore-other-columns ignores it)" in rejected.errors
    assert fake_suno.requests == []
    assert (await run(COMMAND, "batch", file, "--ignore-other-columns", env=env)).status == 0
    received = fake_suno.requests[0].json()
    assert isinstance(received, dict)
    assert received.keys() == {"root_clip_id", "name", "description", "clips", "is_public"}


SPREADSHEET_IDS = '''\
root_clip_id,name,description
"=""54834687""",formula,d
5.4834687E+07,scientific,d
#N/A,missing,d
NaN,not a number,d
“54834687”,curly quotes,d
54834687.0,float,d
'''


async def test_what_a_spreadsheet_made_of_an_id_is_not_sent(
    fake_suno: FakeSuno, env: dict[str, str], tmp_path: Path
) -> None:
    """Each row is named, with its reason."""
    file = write_file(tmp_path, SPREADSHEET_IDS)
    done = await run(COMMAND, "batch", file, env=env)
    *reasons, last = done.errors.splitlines()
    assert [reason.partition(": ")[0] for reason in reasons] == [f"{file}:{line}" for line in range(2, 8)]
    assert all(": root_clip_id " in reason for reason in reasons)
    assert last == "suno-persona: nothing was sent: 6 of 6 rows are not valid requests"
    assert (done.status, fake_suno.requests) == (2, [])


@needs_linux
@pytest.mark.slow
async def test_rows_are_checked_in_little_memory(env: dict[str, str], tmp_path: Path) -> None:
    """A row takes a few bytes, however long it is."""
    code = """if True:
        from pathlib import Path
        from suno_persona.__main__ import main
        try:
            main()
        finally:
            print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    """
    peaks = []
    for count in (10, 20_000):
        lines = (f"clip,Voice {number},{'Airy pop ' * 200}\n" for number in range(count))
        file = write_file(tmp_path, "root_clip_id,name,description\n" + "".join(lines))
        done = await run(sys.executable, "-c", code, "batch", file, "--check", env=env)
        assert done.status == 0
        peaks.append(int(done.output.splitlines()[-1]) * 1024)
    assert peaks[1] - peaks[0] < 400 * 20_000 < Path(file).stat().st_size
