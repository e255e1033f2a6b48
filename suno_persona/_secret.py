"""The API key: aiohttp gets it as it is, and nothing else shows it."""

import re
from functools import cached_property
from typing import NoReturn


class Secret(str):
    """A text with a masked `repr`, which can be masked in other texts."""

    def __repr__(self) -> str:
        return "'***'"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")

    def mask(self, text: str) -> str:
        """Return the text without this secret, however JSON, URLs or HTML spell it.

        At the end of the text the beginning of the secret is masked too: a response may be cut within an echo.
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
        # No real key is this short; masking it within words would make every text unreadable.
        return re.compile(pattern if len(self) >= 8 else rf"\b{pattern}\b", re.IGNORECASE)
