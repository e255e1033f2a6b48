"""The pages of the docs as the tests read them: their blocks of code, and a page's commands as one script for bash.

A block of Python is a whole program or a whole test file. A block that begins with `# name.py` is a file of that name
if the page's commands use it; blocks that await outside a function are the cells of a notebook. The commands of a page
run in order and unchanged, unless one of the `RULES` replaces them. A block of output shows what the preceding block
prints, except for ids, ports and fractions of a second.
"""

import re
import shlex
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs
from markdown_it import MarkdownIt
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "_build" not in path.parts
}
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "suno_persona").rglob("*.py"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


@attrs.frozen
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name of its file, if the page's commands use it as one."""
        named = re.match(r"# ((\w+)\.py)\n", self.code)
        return named[1] if named and re.search(rf"\b{named[2]}\b", commands(self.page)) else None


def inline(page: str) -> list[str]:
    """Return the inline code in the sentences and tables of a page."""
    tokens = MarkdownIt().enable("table").parse(PAGES[page])
    return [part.content for token in tokens for part in token.children or [] if part.type == "code_inline"]


def prose(page: str) -> list[tuple[int, str]]:
    """Return the paragraphs, headings and cells of a page without their code, each with its line."""
    return [
        (token.map[0] + 1, " ".join(part.content for part in token.children or [] if part.type == "text"))
        for token in MarkdownIt().enable("table").parse(PAGES[page])
        if token.type == "inline" and token.map
    ]


def _blocks(page: str) -> list[Block]:
    tokens = MarkdownIt().parse(PAGES[page])
    return [
        Block(page, token.map[0] + 1, (token.info.removeprefix("{code-block}").split() or ["none"])[0], token.content)
        for token in tokens
        if token.type in ("fence", "code_block") and token.map is not None
    ]


BLOCKS = {page: _blocks(page) for page in PAGES}


def programs(page: str) -> list[Block]:
    """Return the Python of a page, except files that its commands use. The cells of a notebook are one program."""
    blocks = [block for block in BLOCKS[page] if block.language == "python" and not block.file]
    if any(re.search(r"^\S.*(?<!\w)await ", block.code, re.MULTILINE) for block in blocks):
        cells = "".join(block.code for block in blocks)
        return [attrs.evolve(blocks[0], code=_NOTEBOOK.format(cells=cells))]
    return blocks


_NOTEBOOK = """import ast, asyncio
cells = compile({cells!r}, "cells", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
asyncio.run(eval(cells, {{}}))
"""


def commands(page: str) -> str:
    """Return the shell commands of a page."""
    return "".join(block.code for block in BLOCKS[page] if block.language == "sh")


def missing(code: str) -> list[str]:
    """Return the packages of the dependency group `recipes` that the code imports and that are not installed."""
    optional = {Requirement(line).name for line in PROJECT["dependency-groups"]["recipes"]}
    imported = set(re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE))
    return sorted(name for name in imported & optional if find_spec(name) is None)


def output_after(block: Block) -> str | None:
    """Return what a block prints according to its page."""
    after = next((after for after in BLOCKS[block.page] if after.line > block.line), None)
    return after.code if after is not None and after.language == "output" else None


def plain(output: str) -> str:
    """Mask what differs from run to run in output: ids, ports and decimal fractions, but not integers."""
    output = re.sub(r"\b(?:[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b", "ID", output)
    output = re.sub(r"(?<=\b127\.0\.0\.1):\d+\b", ":PORT", output)
    output = re.sub(r"(?<![\d.])\d+\.\d+(?!\.?\d)", "FRACTION", output)
    return "\n".join(line.rstrip() for line in output.strip().splitlines())


def _installed(match: re.Match[str]) -> str:
    """Download nothing; check that the extras exist and that the tests declare the other packages."""
    declared = [*PROJECT["project"]["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    declared += [line for group in PROJECT["dependency-groups"].values() for line in group if isinstance(line, str)]
    for word in shlex.split(match[1]):
        wanted = Requirement(re.sub(r"^\.(?=\[|$)", "suno-persona", word))
        if wanted.name == "suno-persona":
            assert wanted.extras <= EXTRAS.keys(), word
        else:
            assert wanted.name in {Requirement(line).name for line in declared} | {"nox"}, word
    return ":"


def _checked(match: re.Match[str]) -> str:
    """Do not run the tests within the tests; check that the session exists."""
    assert match[1] is None or f"\ndef {match[1]}(" in (ROOT / "noxfile.py").read_text(encoding="utf-8")
    return ":"


def _set(match: re.Match[str]) -> str:
    """Keep the tests' own values for the variables that users fill in; check that the package reads them."""
    assert all(f'"{name}"' in SOURCES for name in re.findall(r"(\w+)=", match[0])), match[0]
    return ":"


def _database(match: re.Match[str]) -> str:
    """Keep the test's own database; check that the page uses one of this name."""
    assert any(f"export SUNO_JOURNAL_URL=postgresql:///{match[1]}\n" in page for page in PAGES.values())
    return ":"


def _fake(match: re.Match[str]) -> str:
    """Start the service on a free port, and wait until it listens there."""
    assert match[1] in (None, "8000")
    return (
        "mkfifo told; suno-persona fake --port 0 > told 2> /dev/null &\n"
        "exec 3< told; IFS= read -r told <&3; echo $told\n"
        'while read -t 0 -u 3; do IFS= read -r line <&3; echo "$line"; done\n'
        "told=${told#*127.0.0.1:}; PORT=${told%% *}"
    )


def _first_listed(match: re.Match[str]) -> str:
    """Replace KEY by one of the keys that the journal lists."""
    listed = f"suno-persona journal unknown --journal {match[3]} | grep --only-matching --max-count=1 '^[0-9a-f]*:1'"
    return f"{match[1]} $({listed}) {match[2]}"


def _all_listed(match: re.Match[str]) -> str:
    """Write the keys that the journal lists to the file."""
    listed = f"suno-persona journal unknown --journal {match[2]} | grep --only-matching '^[0-9a-f]*:1'"
    return f"{listed} | sed 's/$/,not_created/' > {match[1]}; {match[0]}"


_FILLED_IN = r"\w+=(?:\.\.\.|https://gateway\.example\S*|postgresql://\S+)"
RULES: list[tuple[str, Callable[[re.Match[str]], str]]] = [
    (r"python3 -m venv \.venv|\. \.venv/bin/activate", lambda _: ":"),  # the tests have an environment
    (r"pip install (?:--quiet )?(.+)", _installed),
    (r"nox(?: -s (\w+))?", _checked),
    (r'sudo (?:apt-get install postgresql|-u postgres createuser --createdb "\$USER")', lambda _: ":"),
    (r"createdb (\w+)", _database),
    (rf"export {_FILLED_IN}(?: {_FILLED_IN})*", _set),
    (r"suno-persona fake(?: --port (\d+))?", _fake),
    (r"suno-persona worker", lambda match: f"{match[0]} &"),
    (r"suno-persona journal resolve --from (\S+) --journal (\S+)", _all_listed),
    (r"(suno-persona journal resolve) KEY (--journal (\S+) .*)", _first_listed),
]


def script(page: str) -> str:
    """Return the bash script of a page: its commands, and the files that they use."""
    lines = [
        # Status 1 and 3 are results: some personas were not created, or some outcomes are unknown.
        "trap 'status=$?; [[ $BASH_COMMAND == *suno-persona* && $status == [13] ]] || exit $status' ERR",
        "trap 'kill $(jobs -p) 2> /dev/null || :; wait' EXIT",
    ]
    if "suno-persona fake" in commands(page):
        lines.append("unset SUNO_BASE_URL SUNO_API_KEY")  # so that the page has to set them
    for block in BLOCKS[page]:
        if block.language == "sh":
            lines += [f"echo {_MARK}{block.line}", *_ruled(block.code)]
        elif block.file:
            lines += [f"cat > {block.file} << 'END'\n{block.code}END"]
    return "\n".join([*lines, ":"])


_MARK = "@@ "


def outputs(output: str) -> dict[int, str]:
    """Return the output of each block of a page, by the line of the block."""
    parts = re.split(rf"^{_MARK}(\d+)\n", output, flags=re.MULTILINE)
    return {int(line): text for line, text in zip(parts[1::2], parts[2::2], strict=True)}


def _ruled(code: str) -> list[str]:
    """Return the commands, each replaced by its rule if it has one."""
    lines = code.replace("\\\n", " ").splitlines()
    return [_ruled_one(command) for line in lines for command in line.split(" && ")]


def _ruled_one(command: str) -> str:
    command = command.replace(".venv/bin/", "") if not command.startswith(". ") else command
    for pattern, rule in RULES:
        if match := re.fullmatch(pattern, command):
            return rule(match)
    return command.replace("127.0.0.1:8000", "127.0.0.1:$PORT")
