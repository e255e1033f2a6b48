"""A service in its own process that responds to every POST with the contract's example, at once or after a delay."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXAMPLE = Path(__file__).parents[1].joinpath("support", "contract_example.json").read_bytes()
HEAD = b"""HTTP/1.1 200 OK
Server: nginx/1.22.1
Date: Tue, 01 Dec 2026 13:08:15 GMT
Content-Type: application/json
Content-Length: %d
Last-Modified: Tue, 01 Dec 2026 13:08:15 GMT
Connection: keep-alive
ETag: "6b0ec6bf-c4f"
Accept-Ranges: bytes

"""


@contextmanager
def service(seconds: float = 0.0) -> Iterator[str]:
    """Run the service, and yield its address."""
    command = [sys.executable, __file__, str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


async def serve(seconds: float) -> None:
    """Respond to requests until stdin closes."""
    loop = asyncio.get_running_loop()
    response = HEAD.replace(b"\n", b"\r\n") % len(EXAMPLE) + EXAMPLE

    class Service(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            if data.endswith(b"}"):  # the body has arrived
                loop.call_later(seconds, self.transport.write, response)  # type: ignore[attr-defined]  # it is a stream's

    server = await loop.create_server(Service, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
