"""Being built."""

from suno_persona.journal._states import State

__all__ = ["State"]
