"""The API key: text that passes through aiohttp as it is, and shows nowhere."""

import hashlib
import re
from functools import cached_property
from typing import NoReturn


class Secret(str):
    """A text whose `repr` is masked, and which masks itself in other texts."""

    def __repr__(self) -> str:
        return "'***'"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")

    def fingerprint(self, salt: bytes) -> str:
        """Return a slow, salted hash of the secret."""
        return hashlib.scrypt(self.encode(), salt=salt, n=2**14, r=8, p=1, dklen=16).hex()

    def mask(self, text: str) -> str:
        """The text without this secret, in whatever spelling JSON, URLs and HTML have for it.

        At the end of the text the beginning of the secret is enough: an answer may be cut within an echo.
        """
        text = self._spellings.sub("***", text)
        for length in range(len(self) - 1, 7, -1):
            if text.endswith(self[:length]):
                return f"{text[:-length]}***"
        return text

    @cached_property
    def _spellings(self) -> re.Pattern[str]:
        pattern = "".join(
            rf"(?:\\?{re.escape(character)}|\\u00{ord(character):02x}|%{ord(character):02x}"
            rf"|&#0*{ord(character)};|&#x0*{ord(character):x};)"
            for character in self
        )
        # No real key is this short; masking it within words would tear every text up.
        return re.compile(pattern if len(self) >= 8 else rf"\b{pattern}\b", re.IGNORECASE)
