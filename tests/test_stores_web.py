"""Files behind web addresses are read whole, from servers of every kind, or refused."""

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from batchllm import stores
from batchllm.errors import InputError, StorageFailure
from batchllm.stores import ObjectUrl, object_url, web
from batchllm.stores import objects as objects_module

CONTENT = b"text\n" + b"".join(b"row %d\n" % number for number in range(500))


class Handler(BaseHTTPRequestHandler):
    """A server whose kind the path tells; ``requests`` has what it was asked for."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Range"), self.headers.get("If-Match")))
        self.server.answer(self)

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def send_part(self, body: bytes, etag: str) -> None:
        """Answers as nginx does for a file on disk."""
        if self.headers.get("If-Match", etag) != etag:
            return self.send(412)
        if "Range" not in self.headers:
            return self.send(200, body, ETag=etag)
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        part = body[int(first) : int(last) + 1]
        where = f"bytes {first}-{int(first) + len(part) - 1}/{len(body)}"
        return self.send(206, part, ETag=etag, Content_Range=where)


class Server(ThreadingHTTPServer):
    answer: Callable[[Handler], None]
    requests: list[tuple[str, str | None, str | None]]


@contextmanager
def serving(answer: Callable[[Handler], None]) -> Iterator[tuple[Server, ObjectUrl]]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.answer, server.requests = answer, []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server, object_url(f"http://127.0.0.1:{server.server_port}/a.csv?X-Amz-Signature=hunter2")
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_WAITS_S", (0, 0))


def content_of(url: ObjectUrl, start: int = 0) -> bytes:
    found = stores.head(url)
    assert found is not None
    return b"".join(stores.stream(found, start))


def test_a_server_with_strong_etags_is_read_in_parts_of_one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects_module, "PIECE_BYTES", 1000)
    etag = ['"v1"']
    with serving(lambda request: request.send_part(CONTENT, etag[0])) as (server, url):
        assert content_of(url) == CONTENT
        assert content_of(url, 4001) == CONTENT[4001:]
        assert ("/a.csv?X-Amz-Signature=hunter2", "bytes=1000-1999", '"v1"') in server.requests
        found = stores.head(url)
        assert found is not None and (found.size_bytes, found.etag) == (len(CONTENT), '"v1"')
        etag[0] = '"v2"'
        with pytest.raises(InputError, match=r"/a\.csv\?\*\*\*: it changed while it was read"):
            list(stores.stream(found))


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_a_server_without_parts_or_strong_etags_is_read_in_one_stream(etag: str | None) -> None:
    with serving(lambda request: request.send(200, CONTENT, **({"ETag": etag} if etag else {}))) as (_, url):
        found = stores.head(url)
        assert found is not None and found.etag is None
        assert content_of(url) == CONTENT
        assert content_of(url, 700) == CONTENT[700:]


def test_a_stream_without_a_length_is_read() -> None:
    def answer(request: Handler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(CONTENT), CONTENT))

    with serving(answer) as (_, url):
        assert content_of(url) == CONTENT


def test_the_compression_of_the_transport_is_undone_and_that_of_the_file_is_kept() -> None:
    packed = gzip.compress(CONTENT)
    with serving(lambda request: request.send(200, packed, Content_Encoding="gzip")) as (_, url):
        assert content_of(url) == CONTENT
        assert content_of(url.with_name("a.csv.gz")) == packed
    members = gzip.compress(CONTENT[:900]) + gzip.compress(CONTENT[900:])
    with serving(lambda request: request.send(200, members, Content_Encoding="gzip")) as (_, url):
        assert content_of(url) == CONTENT
    with serving(lambda request: request.send(200, packed[:-9], Content_Encoding="gzip")) as (_, url):
        with pytest.raises(StorageFailure, match="the connection was lost"):
            content_of(url)
    with serving(lambda request: request.send(200, packed, Content_Encoding="br")) as (_, url):
        with pytest.raises(InputError, match="'br', which cannot be read"):
            content_of(url)


def test_an_empty_file_is_read() -> None:
    def answer(request: Handler) -> None:
        request.send(416 if request.headers.get("Range") else 200)

    with serving(answer) as (_, url):
        assert content_of(url) == b""


def test_a_missing_file_is_none_and_a_refusal_names_the_url_without_its_signature() -> None:
    with serving(lambda request: request.send(404)) as (_, url):
        assert stores.head(url) is None
    with serving(lambda request: request.send(403, b"<Error>hunter2</Error>")) as (_, url):
        with pytest.raises(
            InputError, match=r"/a\.csv\?\*\*\*: the server refuses to send it \(HTTP 403\)"
        ) as raised:
            stores.head(url)
        assert "hunter2" not in str(raised.value)


def test_a_busy_server_is_asked_again() -> None:
    statuses = iter((503, 500))

    def answer(request: Handler) -> None:
        status = next(statuses, None)
        request.send(status) if status else request.send(200, CONTENT)

    with serving(answer) as (_, url):
        assert content_of(url) == CONTENT
    with serving(lambda request: request.send(503)) as (_, url):
        with pytest.raises(StorageFailure, match=r"cannot be reached \(HTTP 503\)"):
            stores.head(url)


def test_a_connection_that_breaks_in_the_middle_is_no_end_of_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cut(request: Handler) -> None:
        request.send(200, CONTENT[:1000], Content_Length=str(len(CONTENT)))
        request.close_connection = True

    with serving(cut) as (_, url):
        with pytest.raises(StorageFailure, match="the connection was lost"):
            content_of(url)

    cuts = iter(range(2))
    monkeypatch.setattr(objects_module, "PIECE_BYTES", 1000)

    def cut_part(request: Handler) -> None:
        if request.headers["Range"] == "bytes=1000-1999" and next(cuts, None) is not None:
            where = f"bytes 1000-1999/{len(CONTENT)}"
            request.send(206, CONTENT[1000:1100], ETag='"v1"', Content_Range=where, Content_Length="1000")
            request.close_connection = True
        else:
            request.send_part(CONTENT, '"v1"')

    with serving(cut_part) as (_, url):
        assert content_of(url) == CONTENT


def test_redirects_are_followed_but_not_to_plain_http_of_the_internet() -> None:
    with serving(lambda request: request.send(200, CONTENT)) as (_, target):
        moved = f"http://127.0.0.1:{target.bucket.partition(':')[2]}/b.csv"
        with serving(lambda request: request.send(302, Location=moved)) as (_, url):
            assert content_of(url) == CONTENT
    with serving(lambda request: request.send(302, Location="http://example.com/b.csv?sig=hunter2")) as (
        _,
        url,
    ):
        with pytest.raises(InputError, match="redirects to plain http") as raised:
            stores.head(url)
        assert "hunter2" not in str(raised.value)
    with serving(lambda request: request.send(302, Location="ftp://example.com/b.csv")) as (_, url):
        with pytest.raises(InputError, match="redirects to another scheme"):
            stores.head(url)
    with serving(lambda request: request.send(302, Location="file:///etc/passwd")) as (_, url):
        with pytest.raises(InputError, match="refuses to send it"):
            stores.head(url)


def test_a_server_that_is_not_there_is_a_failure_that_passes(tmp_path: Path) -> None:
    with serving(lambda request: request.send(200)) as (_, url):
        pass
    with pytest.raises(StorageFailure, match=r"cannot be reached \(Connection refused\)"):
        stores.head(url)
