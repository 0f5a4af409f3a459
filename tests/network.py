"""A TLS endpoint and a proxy on loopback, for tests of the way to an endpoint."""

import asyncio
import base64
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trustme

from tests.fakes import chat_body

HOST = "endpoint.test"
"""A name that only the proxy resolves: to loopback."""


@dataclass
class Wire:
    """A server that answers every request alike.

    Attributes:
        port: Where it listens.
        heads: The heads of the requests received.
    """

    port: int = 0
    heads: list[str] = field(default_factory=list)


@contextmanager
def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> Iterator[int]:
    """Serves connections in a thread; yields the port."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await handle(reader, writer)

    server = loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        for writer in writers if tls is None else ():  # TLS closes its own, and cannot abort what is closed
            writer.transport.abort()
        loop.run_until_complete(asyncio.sleep(0.01))  # closes their sockets
        loop.close()


async def read_head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")[1:]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    return head, headers


def reply(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


@contextmanager
def endpoint(tls: ssl.SSLContext | None = None) -> Iterator[Wire]:
    """An endpoint of every kind of request, over TLS or not."""
    wire = Wire()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head, headers = await read_head(reader)
                wire.heads.append(head)
                await reader.readexactly(int(headers.get("content-length", 0)))
                chat = "/chat/completions" in head.split("\r\n")[0]
                writer.write(reply(chat_body() if chat else b'{"id":"x","status":"validating","data":[]}'))
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    with listening(handle, tls) as wire.port:
        yield wire


@contextmanager
def proxy(password: str | None = None, refuses: int | None = None) -> Iterator[Wire]:
    """A proxy that connects every host to loopback; with a password it takes ``me`` with that password alone."""
    wire = Wire()
    expected = f"Basic {base64.b64encode(f'me:{password}'.encode()).decode()}"

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head, headers = await read_head(reader)
            wire.heads.append(head)
            method, target, _ = head.split("\r\n")[0].split(" ")
            status = refuses
            if password is not None and headers.get("proxy-authorization") != expected:
                status = 407
            if status is not None:
                await reader.readexactly(int(headers.get("content-length", 0)))
                echoed = f"not with {headers.get('proxy-authorization')}".encode()
                writer.write(reply(echoed, f"{status} No", "proxy-authenticate: Basic\r\n"))
                await writer.drain()
                writer.close()
                return
            address = target if method == "CONNECT" else target.split("/")[2]
            there = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                there[1].write(head.encode())
            await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    with listening(handle) as wire.port:
        yield wire


def authority(folder: object, *, names: tuple[str, ...] = (HOST, "127.0.0.1")) -> tuple[str, ssl.SSLContext]:
    """A certificate authority: the file of its certificate, and the context of a server that it signs."""
    ca = trustme.CA()
    path = f"{folder}/ca.pem"
    ca.cert_pem.write_to_path(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return path, context
