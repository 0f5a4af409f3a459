"""The two servers that benchmarks talk to, each a process of its own: nginx, and the benchmarks' endpoint."""

import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import endpoint

_HERE = Path(__file__).resolve().parent
_ECHO_MODULES = (
    "/usr/lib/nginx/modules/ngx_http_echo_module.so",
    "/usr/lib64/nginx/modules/ngx_http_echo_module.so",
)
_STUB_STATUS = re.compile(r"requests\s+\d+ \d+ (\d+)")
# Debian puts nginx where only root's PATH looks.
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")


class Server:
    """A running server; ends with the ``with`` block.

    Attributes:
        name: What answers, for the report.
        base_url: What ``--base-url`` takes.
        tagged: Whether answers name their row.
    """

    def __init__(self, name: str, command: list[str], port: int, *, tagged: bool) -> None:
        self.name = name
        self.tagged = tagged
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._port = port
        self._asked = 0
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def __enter__(self) -> "Server":
        deadline = time.monotonic() + 20
        while True:
            try:
                self.requests()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.name} did not start") from None
                time.sleep(0.02)
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def requests(self) -> int:
        """Chat requests so far, or since the endpoint was last asked to forget."""
        text = self._get("/requests")
        counted = _STUB_STATUS.search(text)
        # nginx counts these questions too.
        return int(counted[1]) - self._asked if counted else int(json.loads(text)["requests"])

    def forget(self) -> dict[str, Any]:
        """What the endpoint has seen, forgotten afterwards: ``requests``, and ``first_at`` by the monotonic clock."""
        seen: dict[str, Any] = json.loads(self._get("/forget"))
        return seen

    def _get(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", path)
            self._asked += 1
            return connection.getresponse().read().decode()
        finally:
            connection.close()


def static_server(folder: Path) -> Server:
    """A static chat answer: from nginx where it is installed, else from the endpoint without latency."""
    if NGINX is None:
        return slow_server(0.0)
    port = free_port()
    place = folder / "nginx"
    place.mkdir(exist_ok=True)
    echo = next((path for path in _ECHO_MODULES if Path(path).exists()), None)
    body = endpoint.answer()
    assert not {"'", "$"} & set(body), "nginx would read a quote or a variable"
    filled = {
        "modules": f"load_module {echo};" if echo else "",
        # The echo module reads the request's body to its end; without it nginx discards the body.
        "reply": f"echo_read_request_body; echo -n '{body}';" if echo else f"return 200 '{body}';",
        "folder": str(place),
        "port": str(port),
    }
    text = re.sub(r"@(\w+)@", lambda word: filled.get(word[1], word[0]), (_HERE / "nginx.conf").read_text())
    configuration = place / "nginx.conf"
    configuration.write_text(text)
    name = "nginx with the echo module" if echo else "nginx"
    return Server(name, [NGINX, "-p", str(place), "-c", str(configuration)], port, tagged=False)


def slow_server(latency_s: float, sigma: float = 0.0) -> Server:
    """The benchmarks' own endpoint: answers after a latency, fixed or lognormal."""
    port = free_port()
    command = [sys.executable, str(_HERE / "endpoint.py"), "--port", str(port)]
    command += ["--latency", str(latency_s), "--sigma", str(sigma)]
    return Server("benchmarks/endpoint.py", command, port, tagged=True)


def free_port() -> int:
    """A port on loopback that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
