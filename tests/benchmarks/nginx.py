"""An nginx in its own process that responds to every POST with the contract's example."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

EXAMPLE = Path(__file__).parent.with_name("contract_example.json")
CONFIGURATION = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log crit;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {folder};
        default_type application/json;
        location / {{
            rewrite ^ /persona.json break;
            error_page 405 =200 /persona.json;  # nginx takes no POST to a file, and says so with the file
        }}
    }}
}}
"""


@contextmanager
def nginx() -> Iterator[str]:
    """Run nginx, and yield its address."""
    program = _program()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # nginx's worker runs as another user if this one is root
        shutil.copy(EXAMPLE, Path(folder) / "persona.json")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        file = Path(folder) / "nginx.conf"
        file.write_text(CONFIGURATION.format(folder=folder, port=port))
        url = f"http://127.0.0.1:{port}"
        with subprocess.Popen([program, "-p", folder, "-c", str(file)]) as process:
            try:
                _wait_for(url, process)
                yield url
            finally:
                process.terminate()


def version() -> str:
    """Return the name and version of nginx."""
    return subprocess.run([_program(), "-v"], capture_output=True, text=True, check=True).stderr.split(": ")[-1].strip()


def _program() -> str:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        sys.exit("the benchmark needs nginx: install it, with `apt-get install nginx-light` for one, and run it again")
    return program


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            with urlopen(f"{url}/suno/persona/create/", data=b"{}") as response:
                if response.read() == EXAMPLE.read_bytes():
                    return
            sys.exit(f"another server is at {url}: run it again")
        except URLError:
            time.sleep(0.01)
    sys.exit("nginx did not start: the lines above say why")
