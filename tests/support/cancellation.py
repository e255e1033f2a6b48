"""Cancelling a coroutine at one of its suspension points, of the test's choice."""

import asyncio
import itertools
import types
from collections.abc import Coroutine, Generator
from typing import Any


@types.coroutine
def cancelled_at(point: int, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Run a coroutine, and cancel its task where it suspends for the time of this number."""
    task = asyncio.current_task()
    assert task is not None
    value, error = None, None
    for number in itertools.count():
        try:
            waits_for = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            return stop.value
        if number == point:
            task.cancel()
        value, error = None, None
        try:
            value = yield waits_for
        except BaseException as raised:
            error = raised
