"""The progress of a batch and its summary, if stderr is not a terminal."""

import re

import attrs
import pytest
from support.calls import requests

from suno_persona import NotCreatedError, Outcome, OutcomeUnknownError, Persona, PersonaError
from suno_persona.cli._progress import Display

(REQUEST,) = requests(1)


class Now:
    """A clock that the test advances."""

    time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def now() -> Now:
    """Return a stopped clock."""
    return Now()


def outcome(number: int, error: PersonaError | None = None) -> Outcome:
    """Return an outcome."""
    return Outcome(number, REQUEST, None if error else Persona(id="p"), error)


def test_a_log_gets_a_line_every_ten_seconds(now: Now, capsys: pytest.CaptureFixture[str]) -> None:
    """The line has counts, rate, time left, and what the batch waits for, even while nothing happens."""
    with Display(30, clock=now) as display:
        for number in range(10):
            now.time += 4
            display.add(outcome(number, None if number else NotCreatedError(message="no")), 2, is_recorded=False)
            display.wait("")
        now.time += 300
        display.wait("rate limited: goes on in 12 s")
    assert capsys.readouterr().err.splitlines() == [
        "3 of 30: 2 created now, 1 not created, 0 unknown; 0.2/s, 1 min 48 s left",
        "6 of 30: 5 created now, 1 not created, 0 unknown; 0.2/s, 1 min 36 s left",
        "9 of 30: 8 created now, 1 not created, 0 unknown; 0.2/s, 1 min 24 s left",
        "10 of 30: 9 created now, 1 not created, 0 unknown; 0.2/s, 1 min 20 s left; rate limited: goes on in 12 s",
    ]


@pytest.mark.parametrize(("limit", "left"), [(None, "2 h 46 min"), (11, "10 s")])
def test_rate_and_time_left_count_only_requests_to_send(
    now: Now, capsys: pytest.CaptureFixture[str], limit: int | None, left: str
) -> None:
    """Personas of an earlier run take no time, and a limit may end the run before its last row."""
    with Display(10_099, limit=limit, clock=now) as display:
        for number in range(99):
            display.add(outcome(number), 2, is_recorded=True)
        for number in (100, 101):
            now.time += 5
            display.add(outcome(number), 2, is_recorded=False)
        now.time += 1
        for _ in range(2):
            display.wait("")
        display.add(outcome(102), 2, is_recorded=False)
    (line,) = capsys.readouterr().err.splitlines()
    counts = "2 created now, 99 already there, 0 not created, 0 unknown"
    assert line.startswith(f"101 of 10099: {counts}; 0.2/s, ")
    assert line.endswith("h 53 min left" if limit is None else "45 s left")


def test_names_are_shown_as_they_are(now: Now, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither markup nor emoji codes mean anything."""
    display = Display(1, clock=now)
    request = attrs.evolve(REQUEST, name="Sing :smile: [bold]")
    error = NotCreatedError(message="no :boom: [red]")
    display.add(Outcome(0, request, None, error), 2, is_recorded=False)
    display.print_summary(None)
    assert "  line 2, 'Sing :smile: [bold]': no :boom: [red]\n" in capsys.readouterr().err


def test_the_failures_of_this_run_are_named_first(now: Now, capsys: pytest.CaptureFixture[str]) -> None:
    """They come first however many failures an earlier run left."""
    display = Display(20, clock=now)
    for number in range(9):
        display.add(outcome(number, OutcomeUnknownError(message="lost")), number + 2, is_recorded=number < 8)
    display.print_summary("out.jsonl")
    lines = re.findall(r"^  line (\d+),", capsys.readouterr().err, re.MULTILINE)
    assert lines == ["10", "2", "3", "4", "5"]


def test_the_summary_separates_new_outcomes_and_names_the_first_failures(
    now: Now, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each failure has its line, its name and the reason; a service's escape sequences do not reach the terminal."""
    display = Display(20, clock=now)
    lost = OutcomeUnknownError(message="lost\x1b[2J\n", request_id="\x9b1m")
    for number in range(7):
        display.add(outcome(number, NotCreatedError(message="no")), number + 2, is_recorded=False)
    display.add(outcome(7), 9, is_recorded=True)
    display.add(outcome(8), 10, is_recorded=False)
    display.add(outcome(9, lost), 11, is_recorded=False)
    display.add(outcome(10, lost), 12, is_recorded=True)
    display.print_summary("out.jsonl")
    shown = capsys.readouterr().err
    rows = [[cell.strip() for cell in line.split("│")[1:3]] for line in shown.splitlines() if "│" in line]
    assert rows == [
        ["created now", "1"],
        ["already there", "1"],
        ["not created: NotCreatedError", "7"],
        ["unknown: OutcomeUnknownError", "1"],
        ["unknown: since an earlier run", "1"],
        ["not sent", "9"],
    ]
    _, lines = shown.split("┘\n")
    assert lines.splitlines() == [
        "not created:",
        *(f"  line {line}, {REQUEST.name!r}: no" for line in range(2, 7)),
        "  and 2 more: see out.jsonl",
        "unknown:",
        *(
            f"  line {line}, {REQUEST.name!r}: {lost}".replace("\x1b", r"\x1b")
            .replace("\n", r"\n")
            .replace("\x9b", r"\x9b")
            for line in (11, 12)
        ),
    ]
