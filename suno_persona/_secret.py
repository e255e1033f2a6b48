"""The API key: aiohttp gets it as it is, and nothing else shows it.

`Secret` is no `str`, because printers of tracebacks slice a `str` before they ask for its `repr`. It holds the key
under a substitution, so that a walk over attributes does not find it either. The plain text exists only while a
function of this module runs; none of them raises or suspends meanwhile.
"""

import hashlib
import re
from base64 import b64encode
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from random import SystemRandom
from typing import NoReturn
from urllib.parse import unquote_to_bytes

_SHORT = 8
"""No real key is shorter; masking a shorter one within words would make every text unreadable."""


class _Covered:
    """Bytes that are held under a random substitution."""

    __slots__ = ("_cover", "_uncover")

    def __init__(self, plain: bytes) -> None:
        every = bytes(range(256))
        substitutes = bytes(SystemRandom().sample(every, 256))
        self._cover = plain.translate(substitutes)
        self._uncover = bytes.maketrans(substitutes, every)

    def __len__(self) -> int:
        return len(self._cover)

    def plain(self) -> bytes:
        return self._cover.translate(self._uncover)


class Secret:
    """An API key, without a `Bearer` before it."""

    __slots__ = ("_key", "_probes")

    def __init__(self, text: str) -> None:
        key = text.encode("utf-8", "surrogatepass")
        if key[:7].lower() in (b"bearer", b"bearer "):
            key = key[7:]
        self._key = _Covered(key)
        self._probes = _Covered(b"\n".join(_probes(key)))

    def __len__(self) -> int:
        return len(self._key)

    def __repr__(self) -> str:
        return "'***'"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")

    def flaw(self) -> str | None:
        """Describe the first character that no header may carry; `None` if all are visible ASCII."""
        text = self._key.plain().decode("utf-8", "surrogatepass")
        for position, character in enumerate(text, start=1):
            if not "!" <= character <= "~":
                what = "a character that is not ASCII" if character > "\x7f" else "a space or control character"
                return f"{what} at position {position} of {len(text)}"
        return None

    def authorization(self) -> str:
        """Return the value of the `Authorization` header: pass it on at once, and keep it in no variable."""
        return f"Bearer {self._key.plain().decode()}"

    def fingerprint(self, salt: bytes) -> str:
        """Return a slow salted hash of the key, in hex. It takes tens of milliseconds: call it in a thread."""
        return hashlib.pbkdf2_hmac("sha256", self._key.plain(), salt, 60_000).hex()

    def mask(self, text: str) -> str:
        """Return the text with `***` for each echo of the key.

        An echo is the key itself, in hex or in base64, upper or lower case, split over lines, and escaped as in JSON,
        URLs or HTML; also its beginning: 16 characters of it, 8 at the end of the text, or 6 before `...` or `***`. A
        key of less than 8 characters is not masked: it may be any word.
        """
        data = text.encode("utf-8", "surrogatepass")
        masked = self.masked(data)
        return text if masked is data else masked.decode("utf-8", "surrogatepass")

    def masked(self, data: bytes) -> bytes:
        """Return the bytes with each echo masked, as `mask` does; the same object where there is none."""
        if not self.may_be_in(data):
            return data
        masked = _masked(data, self._key.plain())
        return data if masked == data else masked

    def begins_in(self, data: bytes) -> bool:
        """Whether a JSON document holds the beginning of the key, as it is or escaped."""
        if len(self) < _SHORT:
            return False
        head = self._key.plain()[:_HEAD]
        return head in data or (b"\\" in data and head in _JSON_ESCAPE.sub(_unescaped, data))

    def may_be_in(self, data: bytes) -> bool:
        """Whether there may be an echo; takes microseconds where there is none."""
        if len(self) < _SHORT:
            return False
        lower = data.lower()
        probes = self._probes.plain().split(b"\n")
        for probe in probes:
            if probe in lower:
                return True
        if b"&" in data and (b"&#" in data or b"&amp;" in lower):
            return True
        # In a JSON document a text has no line breaks but escaped ones.
        separators = b"\\" if data.startswith(b"{") else b"\\ \t\r\n="
        if b"%" not in data and not any(separator in data for separator in separators):
            return False
        if data.count(b"%") > _MOST_ESCAPES:
            return True
        if b"\\" in data:
            if _ESCAPED_ASCII.search(lower):
                return True
            lower = lower.replace(b"\\n", b"").replace(b"\\r", b"").replace(b"\\t", b"")
        unquoted = unquote_to_bytes(lower).lower()
        joined = unquoted.translate(None, separators)
        return any(probe in unquoted or probe in joined for probe in probes)


_JSON_ESCAPE = re.compile(rb"\\(?:u00([2-7][0-9a-fA-F])|([/\"\\]))")  # of visible ASCII
_ESCAPED_ASCII = re.compile(rb"\\(?:u00[2-7]|x[2-7])")
_HEAD = 6
_PROBE = 24  # long ones are found faster


def _unescaped(escape: re.Match[bytes]) -> bytes:
    return escape[2] or bytes.fromhex(escape[1].decode())


def _probes(key: bytes) -> set[bytes]:
    """What is found, in lower case, in all unescaped data that holds an echo."""
    hexadecimal, *cores = [encoded[:_PROBE] for encoded in (key.hex().encode(), *_base64_of(key))]
    urlsafe = [core.translate(bytes.maketrans(b"+/", b"-_")) for core in cores]
    heads = key[:_HEAD], _Decoded(key).text[:_HEAD]
    return {probe.lower() for probe in (*heads, hexadecimal, *cores, *urlsafe)}


def _base64_of(key: bytes) -> Iterator[bytes]:
    """The characters that encode the key alone, as it begins at any byte of three."""
    for shift in range(3):
        encoded = b64encode(bytes(shift) + key)
        yield encoded[(0, 2, 3)[shift] : (shift + len(key)) * 8 // 6]


# Whatever else than itself may stand for a character, or between two of them. Ellipses count as asterisks.
_ESCAPE = re.compile(
    rb"\\+(?:u00(?P<json>[0-9a-f]{2})|x(?P<c>[0-9a-f]{2})|(?P<dots>u20(?:22|26))|[nrt])?"
    rb"|%(?P<url>[0-9a-f]{2})|&#x0*(?P<hex>[0-9a-f]{2});|&#0*(?P<decimal>[0-9]{2,3});"
    rb"|&(?P<name>amp|apos|gt|lt|quot);|(?P<utf8>\xe2\x80[\xa2\xa6])|=?\s+",
    re.IGNORECASE,
)
_NAMES = {b"amp": b"&", b"apos": b"'", b"gt": b">", b"lt": b"<", b"quot": b'"'}
_MOST_ESCAPES = 10_000
"""So many are decoded of one document: it takes tens of milliseconds at most."""


def _character(escape: re.Match[bytes]) -> bytes:
    """The character that an escape stands for."""
    match escape.lastgroup:
        case "dots" | "utf8":
            return b"*"
        case "name":
            return _NAMES[escape["name"].lower()]
        case "decimal":
            return b"%c" % (int(escape["decimal"]) & 0x7F)
        case group:
            return b"%c" % int(escape[group or 0], 16)


class _Decoded:
    """Data without escapes and separators, and where each of its characters was."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        # Stretches: their first character here, the same in the data, and how many bytes each character takes there.
        self._starts: list[int] = []
        self._origins: list[int] = []
        self._widths: list[int] = []
        parts: list[bytes] = []
        size = origin = 0
        for escape in islice(_ESCAPE.finditer(data), _MOST_ESCAPES):
            start, end = escape.span()
            if start > origin:
                parts.append(data[origin:start])
                self._note(size, origin, 1)
                size += start - origin
            if escape.lastgroup:
                backslashes = end - start - len(escape[0].lstrip(b"\\"))
                if backslashes % 2:  # all but the last are escaped backslashes before it
                    start += backslashes - 1
                parts.append(_character(escape))
                self._note(size, start, end - start)
                size += 1
            origin = end
        parts.append(data[origin:])
        self._note(size, origin, 1)
        self.text = b"".join(parts).translate(_CANONICAL)

    def _note(self, start: int, origin: int, width: int) -> None:
        self._starts.append(start)
        self._origins.append(origin)
        self._widths.append(width)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where in the data the characters from `start` to `end` are."""
        first = bisect_right(self._starts, start) - 1
        last = bisect_right(self._starts, end - 1) - 1
        begin = self._origins[first] + start - self._starts[first]
        # A backslash that escapes the first character belongs to it; one that is escaped itself does not.
        before = begin
        while before and self._data[before - 1 : before] == b"\\":
            before -= 1
        return begin - (begin - before) % 2, self._origins[last] + end - 1 - self._starts[last] + self._widths[last]


_UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CANONICAL = bytes.maketrans(_UPPER + b"-_", _UPPER.lower() + b"+/")  # one spelling for both alphabets of base64
_ENOUGH = 16
_MOST_HEADS = 1_000
_CUT = re.compile(rb"(?:\*|\.\.|xxx|###)[*.x#]*")


def _masked(data: bytes, key: bytes) -> bytes:
    decoded = _Decoded(data)
    plain = {key, _Decoded(key).text}  # a key may hold what looks like an escape
    spans = [
        decoded.span(start, end)
        for spelling in [*plain, key.hex().encode(), *_base64_of(key)]
        for start, end in _echoes(decoded.text, spelling.translate(_CANONICAL), is_plain=spelling in plain)
    ]
    parts, done = [], 0
    for start, end in sorted(spans):
        if start >= done:
            parts += [data[done:start], b"***"]
        done = max(done, end)
    return b"".join([*parts, data[done:]])


def _echoes(text: bytes, spelling: bytes, *, is_plain: bool) -> Iterator[tuple[int, int]]:
    """Where a text holds the spelling, or enough of its beginning."""
    head = spelling[: _HEAD if is_plain else _SHORT]
    start, found = text.find(head), 0
    while start >= 0:
        end = start + _common(spelling, text[start : start + len(spelling)])
        length = end - start
        if length < len(spelling) and (cut := _CUT.match(text, end)):
            end = cut.end() + _tail(spelling, text[cut.end() : cut.end() + _ENOUGH])
        elif length < min(_ENOUGH, len(spelling)) and (end < len(text) or length < _SHORT):
            end = start
        if end > start:
            yield start, end
        start, found = text.find(head, max(end, start + 1)), found + 1
        if found == _MOST_HEADS and start >= 0:
            yield start, len(text)
            return


def _common(one: bytes, other: bytes) -> int:
    """How many bytes they begin with in common."""
    if one == other:
        return len(one)
    return next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))


def _tail(spelling: bytes, text: bytes) -> int:
    """How many bytes of the end of a spelling a text begins with: what is shown behind the dots."""
    return next((length for length in range(_ENOUGH, 1, -1) if text.startswith(spelling[-length:])), 0)
