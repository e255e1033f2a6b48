"""Ids that spreadsheets and data frames have changed, or that were copied with more than the id, cost no call."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suno_persona import CreatePersonaRequest, InvalidRequestError

UUID = "54834687-5e79-4f08-8e14-cf188f15b598"
ALLOWED = "only ASCII letters, digits and - _ . ~ are allowed"


def request(**fields: Any) -> CreatePersonaRequest:
    """Return a request with these fields."""
    members: dict[str, Any] = {"root_clip_id": UUID, "name": "Neon", "description": "Night drive", **fields}
    return CreatePersonaRequest(**members)


def reason(**fields: Any) -> str:
    """Return why a request with these fields is invalid."""
    with pytest.raises(InvalidRequestError) as caught:
        request(**fields)
    return str(caught.value)


@pytest.mark.parametrize(
    "clip",
    [
        UUID,
        UUID.upper(),
        "54834687",  # eight hexadecimal digits, of which none is a letter
        "548346e7",  # and these are no number
        "12e45678",
        "c1",
        "nano-7",
        "none.1",
        "clip_1.v2~",
    ],
)
def test_ids_of_unreserved_characters_are_valid(clip: str) -> None:
    """Also those that could be read as a number without a fraction."""
    assert request(root_clip_id=clip, clips=[clip, UUID]).clips == (clip, UUID)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ('="54834687"', f"contains '=' (EQUALS SIGN) at position 1; {ALLOWED}; pass '54834687' instead of "),
        (
            "5.4834687E+07",
            "is '5.4834687E+07', which a spreadsheet or data frame made of an id by reading it as a number",
        ),
        ("#N/A", "is '#N/A', which spreadsheets and data frames write for a missing value; pass a clip id"),
        ("NaN", "is 'NaN', which spreadsheets and data frames write for a missing value; pass a clip id"),
        (
            "“54834687”",
            f"contains '“' (LEFT DOUBLE QUOTATION MARK) at position 1; {ALLOWED}; pass '54834687' instead of ",
        ),
        ("54834687.0", "is '54834687.0', which a spreadsheet or data frame made of an id by reading it as a number"),
    ],
)
def test_ids_that_spreadsheets_changed_are_invalid(clip: str, message: str) -> None:
    """The error names what was found, and what to do; these are the rows of a file that was really used."""
    assert reason(root_clip_id=clip).startswith(f"root_clip_id {message}")
    assert reason(clips=[UUID, clip]).startswith(f"clips[1] {message}")


@pytest.mark.parametrize(
    "clip", ["nan", "NAN", "-nan", "NaT", "null", "NULL", "none", "None", "n/a", "N/A", "NA", "n.a.", "<NA>", "#NULL!"]
)
def test_what_stands_for_nothing_is_no_id(clip: str) -> None:
    """In upper and lower case, and with the signs that spreadsheets and data frames put around it."""
    assert "write for a missing value; pass a clip id" in reason(root_clip_id=clip)


@pytest.mark.parametrize(
    "clip", ["5.48E+07", "5.48E", "5.48e", "5E+07", "5,48E+07", "-54834687.0", "1.5e-7", "12.", "inf"]
)
def test_what_was_read_as_a_number_is_no_id(clip: str) -> None:
    """A number with a fraction or a signed exponent is what became of an id."""
    assert reason(root_clip_id=clip).endswith("made of an id by reading it as a number; read it as text")


@pytest.mark.parametrize(
    ("url", "part"),
    [
        (f"https://suno.com/song/{UUID}?sh=1", repr(UUID)),
        (f"https://cdn1.suno.ai/image_{UUID}.jpeg", repr(UUID)),
        ("https://suno.com/song/54834687", "'54834687'"),
        (f"suno.com/song/{UUID}", repr(UUID)),
        (f'=HYPERLINK("https://suno.com/song/{UUID}")', repr(UUID)),
        ("https://suno.com/s/abc", "which follows /song/ in the URL of the clip's page"),
    ],
)
def test_the_error_for_a_url_names_the_id_in_it(url: str, part: str) -> None:
    """If no part of it is the id, it says where to find it."""
    assert reason(root_clip_id=url).endswith(f", a URL; pass only the clip id, {part}")


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ("a\u200bb", f"contains '\\u200b' (ZERO WIDTH SPACE) at position 2; {ALLOWED}; remove it from 'a\\u200bb'"),
        ("\ufeffc1", f"contains '\\ufeff' (ZERO WIDTH NO-BREAK SPACE) at position 1; {ALLOWED}; pass 'c1' instead of "),
        ("['c1',", f"contains '[' (LEFT SQUARE BRACKET) at position 1; {ALLOWED}; pass 'c1' instead of "),
        (" c1", f"contains ' ' (SPACE) at position 1; {ALLOWED}; pass 'c1' instead of ' c1'"),
        ("c1 c2", f"contains ' ' (SPACE) at position 3; {ALLOWED}; remove it from 'c1 c2'"),
        ("c1,c2", f"contains ',' (COMMA) at position 3; {ALLOWED}; remove it from 'c1,c2'"),
        ("a\n", f"contains '\\n' (U+000A) at position 2; {ALLOWED}; pass 'a' instead of 'a\\n'"),
        ("“NaN”", f"contains '“' (LEFT DOUBLE QUOTATION MARK) at position 1; {ALLOWED}; remove it from '“NaN”'"),
    ],
)
def test_the_error_names_the_first_character_that_is_not_allowed(clip: str, message: str) -> None:
    """It names the character as Unicode does, since it may be invisible, its position, and the id if that is clear."""
    assert reason(root_clip_id=clip).startswith(f"root_clip_id {message}")


@given(st.text() | st.text("0123456789.,eE+-naNA/#<>"))
def test_an_id_is_valid_or_its_error_says_why(clip: str) -> None:
    """Any text either has only unreserved characters, or is an `InvalidRequestError` for the field."""
    try:
        made = request(root_clip_id=clip)
    except InvalidRequestError as error:
        assert str(error).startswith("root_clip_id ")
    else:
        assert made.clips == (clip,)
        assert set(clip) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~")
