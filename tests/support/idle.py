"""Waiting until nothing more happens unless time passes or the test acts."""

import asyncio
import socket

# A connection on loopback takes three packets, each sent when the previous one was processed; then the server can
# accept it. One pass more, because a callback just before the first quiet pass may have sent the first packet.
_QUIET_PASSES = 4


async def idle() -> None:
    """Wait until the running loop has no callback to run and no I/O to process.

    A pass of the loop polls the selector for I/O, then runs the ready callbacks. A pass that ran only this coroutine
    had nothing to do. Whatever earlier passes sent over loopback is readable by then: the kernel delivers loopback
    packets in order, and this coroutine sends a packet of its own behind them and receives it before it starts a pass.

    Timers that are not due do not count, and neither does work of another thread or process: wait for its effects
    instead. Only for asyncio's own loops; uvloop does not expose its ready callbacks.
    """
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]  # no public name says whether a loop is idle
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver:
            quiet = 0
            while quiet < _QUIET_PASSES:
                sender.send(b"\0")
                receiver.recv(1)
                await asyncio.sleep(0)
                quiet = 0 if ready else quiet + 1


async def turns(count: int) -> None:
    """Let the loop make this many passes: for tests that interrupt at an arbitrary moment."""
    for _ in range(count):
        await asyncio.sleep(0)
