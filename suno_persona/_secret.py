"""Secrets: the API key, and the address of a proxy, which may hold a password. aiohttp gets them, and nothing else.

A `Secret` is no `str`: printers of tracebacks shorten or escape a `str` before they ask for its `repr`.
"""

import hashlib
import re
from typing import NoReturn

_SHORTEST = 8
"""No real key is shorter. Masking a shorter one, which may be any word, would make messages unreadable."""

# Letters and digits, escaped as in JSON (RFC 8259, section 7) and URLs (RFC 3986, section 2.1). Only an echo has them.
_ALPHANUMERIC = rb"(?:3[0-9]|[46][1-9a-fA-F]|[57][0-9aA])"
_IN_JSON, _IN_URLS = re.compile(rb"\\u00" + _ALPHANUMERIC), re.compile(b"%" + _ALPHANUMERIC)


class Secret:
    """A text that is shown nowhere."""

    __slots__ = ("_pattern", "_probe", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        # A serializer may escape the punctuation of a key, and never a letter or a digit.
        runs = re.findall(rb"[0-9A-Za-z]+", value.encode("utf-8", "surrogatepass"))
        self._probe: bytes = max(runs, key=len, default=b"")[:8]  # a short one is found faster
        self._pattern: re.Pattern[str] | None = None

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "'***'"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")

    def authorization(self) -> str:
        """Return the value of the `Authorization` header. Printers of headers do not show it."""
        return _Hidden(f"Bearer {self._value}")

    def reveal(self) -> str:
        """Return the text: pass it on at once, and keep it in no variable."""
        return self._value

    def flaw(self) -> str | None:
        """Describe the first character that a header must not carry; `None` if all are visible ASCII."""
        for position, character in enumerate(self._value, start=1):
            if not "!" <= character <= "~":
                kind = "a character that is not ASCII" if character > "\x7f" else "a space or control character"
                return f"contains {kind} at position {position}; only visible ASCII is allowed"
        return None

    def fingerprint(self, salt: bytes) -> str:
        """Return a slow salted hash in hex. It takes tens of milliseconds: call it in a thread."""
        return hashlib.pbkdf2_hmac("sha256", self._value.encode(), salt, 60_000).hex()

    def may_be_in(self, data: bytes) -> bool:
        """Whether text in UTF-8 may contain an echo, as it is or escaped. Takes microseconds if not."""
        if len(self._value) < _SHORTEST:
            return False
        return (
            self._probe in data
            or (b"\\" in data and b"\\u00" in data and _IN_JSON.search(data) is not None)
            or (b"%" in data and _IN_URLS.search(data) is not None)
        )

    def mask(self, text: str) -> str:
        """Return the text with `***` for each echo, as it is or with characters escaped as in JSON or URLs.

        A text shorter than 8 characters is not masked.
        """
        if not self.may_be_in(text.encode(errors="replace")):
            return text
        if self._pattern is None:  # few clients ever need it
            self._pattern = re.compile("".join(map(_spellings, self._value)))
        return self._pattern.sub("***", text)


class _Hidden(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def _spellings(character: str) -> str:
    """Return a pattern for a character, as it is or escaped."""
    code = f"(?i:{ord(character):02x})"
    escape = "" if character.isalnum() else r"\\{0,3}"  # more than one in JSON within JSON
    return rf"(?:{escape}{re.escape(character)}|\\{{1,3}}u00{code}|%{code})"
