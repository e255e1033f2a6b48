"""Test applications that create personas: a fake service, its faults and two pytest fixtures."""

from suno_persona.testing._contract import ReceivedRequest
from suno_persona.testing._fake import FakeSuno
from suno_persona.testing._faults import Fault

__all__ = ["FakeSuno", "Fault", "ReceivedRequest"]
