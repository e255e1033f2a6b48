"""Input files for the command, and the outcomes that it writes."""

import json
from pathlib import Path
from typing import Any

HEADER = "root_clip_id,name,description,clips,is_public\n"


def write_file(folder: Path, content: str | bytes, name: str = "rows.csv") -> str:
    """Write a file with this content, and return its path."""
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(file)


def rows(count: int) -> str:
    """Return this many rows of CSV."""
    return HEADER + "".join(f"clip,Voice {number},Airy pop,,\n" for number in range(count))


def read_outcomes(text: str) -> list[dict[str, Any]]:
    """Return the outcomes in an output file."""
    return [json.loads(line) for line in text.splitlines()]
