"""A TCP proxy that cuts connections in the middle of what a client sends, or of what it receives."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class CuttingProxy:
    """A running proxy.

    Attributes:
        port: Where it listens on 127.0.0.1.
        target: The port that it passes connections to.
        sent_bytes: Bytes of a client after which its connection is cut, ``None`` for no cut.
        received_bytes: The same of what a client receives.
        stalls: Holds a connection open where it would be cut, and passes nothing more.
        cuts_left: How many connections are still cut.
        cuts: How many were cut.
    """

    port: int
    target: int
    sent_bytes: int | None = None
    received_bytes: int | None = None
    stalls: bool = False
    cuts_left: int = 10**9
    cuts: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        for source, sink, is_request in ((client, server, True), (server, client, False)):
            threading.Thread(target=self._pass, args=(source, sink, is_request), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(1 << 16):
                passed += len(data)
                limit = self.sent_bytes if is_request else self.received_bytes
                if limit is not None and passed > limit and self._may_cut():
                    sink.sendall(data[: max(0, len(data) - (passed - limit))])
                    while self.stalls and source.recv(1 << 16):
                        continue
                    break
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _may_cut(self) -> bool:
        with self._lock:
            if not self.cuts_left:
                return False
            self.cuts_left -= 1
            self.cuts += 1
            return True


@contextmanager
def cutting_proxy(target: int) -> Iterator[CuttingProxy]:
    """Runs a proxy to a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = CuttingProxy(listener.getsockname()[1], target)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    proxy.serve(listener.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
