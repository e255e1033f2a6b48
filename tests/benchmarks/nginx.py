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

EXAMPLE = Path(__file__).parents[1].joinpath("support", "contract_example.json")
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
    executable = program("nginx", "nginx-light")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # nginx's worker runs as another user if this one is root
        shutil.copy(EXAMPLE, Path(folder, "persona.json"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        file = Path(folder, "nginx.conf")
        file.write_text(CONFIGURATION.format(folder=folder, port=port))
        with subprocess.Popen([executable, "-p", folder, "-c", str(file)]) as process:
            try:
                while not Path(folder, "pid").exists():  # nginx writes it once it listens
                    if process.poll() is not None:
                        sys.exit("nginx did not start: the lines above say why")
                    time.sleep(0.01)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def program(name: str, package: str) -> str:
    """Return the path of a program that must be installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        sys.exit(f"the benchmark needs {name}: install it, with `apt-get install {package}` for one, and run it again")
    return found
