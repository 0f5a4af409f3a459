"""Reads, writes, lists and removes objects."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from batchllm.errors import CannotWrite, StorageFailure
from batchllm.stores.driver import ask, background
from batchllm.stores.failures import changed, is_no_bucket, status_of
from batchllm.stores.url import ObjectUrl

if TYPE_CHECKING:
    from concurrent.futures import Future

    from obstore.store import ObjectStore

T = TypeVar("T")

PIECE_BYTES = 4 << 20
"""Bytes of one request for a part of an object."""
SINGLE_PUT_BYTES = 32 << 20
"""The largest object that is put with one request, of which a killed run leaves nothing behind."""
_PART_BYTES = 8 << 20
_MAX_PARTS = 9_000
_WAITS_S = (0.2, 2.0)
_DIGEST = "batchllmsha256"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object.

    Attributes:
        url: The object.
        size_bytes: Its size; ``None`` where its server does not say.
        etag: What identifies its content, and allows to read it in parts; ``None`` where its server has nothing such.
        sha256: The digest of its content that ``put`` noted on it; of objects in a listing always ``None``.
    """

    url: ObjectUrl
    size_bytes: int | None
    etag: str | None
    sha256: str | None = None


class _Probe(Exception):
    """Ends an upload before its first part."""


def head(url: ObjectUrl) -> ObjectInfo | None:
    """Returns what is known of an object, ``None`` if there is none.

    Raises:
        UsageError: The credentials are refused.
        InputError: There is no such bucket, or no permission.
        StorageFailure: The store cannot be reached.
    """
    if not url.is_writable:
        from batchllm.stores import web

        found = web.probe(url)
        return found and ObjectInfo(url, *found)
    return ask(url, _if_there(lambda bucket: _head(url, bucket)))


def _head(url: ObjectUrl, bucket: "ObjectStore") -> ObjectInfo:
    try:
        found = bucket.get(url.key, options={"head": True})
    except Exception as error:
        if status_of(error) not in (403, 404):
            raise
        # The error of a GET has a body, which tells a missing bucket from a missing object; that of a HEAD has none.
        found = bucket.get(url.key)
    meta, noted = found.meta, dict(found.attributes).get(_DIGEST)
    return ObjectInfo(url, meta["size"], meta["e_tag"], noted)


def _if_there(request: "Callable[[ObjectStore], T]") -> "Callable[[ObjectStore], T | None]":
    """Makes a request return ``None`` where there is no such object in the bucket."""

    def attempt(bucket: "ObjectStore") -> T | None:
        try:
            return request(bucket)
        except FileNotFoundError as error:
            if is_no_bucket(error):
                raise
            return None

    return attempt


def read(url: ObjectUrl, start: int, stop: int, *, etag: str | None) -> bytes:
    """Returns bytes ``start`` to ``stop`` (exclusive) of an object, fewer at its end.

    Args:
        url: The object.
        start, stop: The part; there is at least one byte from ``start`` on.
        etag: That of ``head``: another object is an error.

    Raises:
        InputError: It is another object by now, or cannot be read.
        UsageError, StorageFailure: As ``head``.
    """
    if not url.is_writable:
        from batchllm.stores import web

        return web.read(url, start, stop, etag=etag)

    def part(bucket: "ObjectStore") -> bytes:
        options: Any = {"range": (start, stop), **({"if_match": etag} if etag else {})}
        return bytes(bucket.get(url.key, options=options).bytes())

    return ask(url, part)


def stream(info: ObjectInfo, start: int = 0) -> Iterator[bytes]:
    """Yields the content of an object in pieces of some mebibytes, each asked for while the one before is used.

    Where the object has no ETag or no known size, it comes in one stream, which a lost connection ends.

    Args:
        info: The object, as ``head`` found it.
        start: Offset of the first byte.

    Raises:
        InputError, UsageError, StorageFailure: As ``read``.
    """
    if info.size_bytes is None or (info.etag is None and not info.url.is_writable):
        from batchllm.stores import web

        yield from web.stream(info.url, start)
        return
    begins = iter(range(start, info.size_bytes, PIECE_BYTES))
    following = _begun(info, next(begins, None))
    while following is not None:
        piece = following.result()
        following = _begun(info, next(begins, None))
        yield piece


def _begun(info: ObjectInfo, offset: int | None) -> "Future[bytes] | None":
    return None if offset is None else background(lambda: _whole_piece(info, offset))


def _whole_piece(info: ObjectInfo, offset: int) -> bytes:
    assert info.size_bytes is not None, "only an object of known size comes in pieces"
    stop = min(offset + PIECE_BYTES, info.size_bytes)
    piece = read(info.url, offset, stop, etag=info.etag)
    if len(piece) != stop - offset:
        raise changed(info.url)
    return piece


def whole(url: ObjectUrl) -> bytes | None:
    """Returns the content of a small object in a bucket, ``None`` if there is none.

    It is one request, so that an object that others replace at any time is read in one version.

    Raises:
        UsageError, InputError, StorageFailure: As ``head``.
    """

    return ask(url, _if_there(lambda bucket: bytes(bucket.get(url.key).bytes())))


def put(url: ObjectUrl, content: bytes | BinaryIO) -> ObjectInfo:
    """Puts an object in place, whole or not at all; one that is there is replaced.

    What is larger than 32 MiB goes in parts, which a failure removes. A process that is killed just then leaves parts
    that nobody sees, until a lifecycle rule of the bucket removes them.

    Args:
        url: The object.
        content: The bytes, or an open file with them, which is read from its beginning.

    Returns:
        What ``head`` returns of it.

    Raises:
        UsageError: The credentials are refused.
        CannotWrite: There is no such bucket, or no permission.
        StorageFailure: The store cannot be reached.
    """
    file = BytesIO(content) if isinstance(content, bytes) else content
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # typeshed asks for readinto
    size = file.seek(0, SEEK_END)
    is_single = size <= SINGLE_PUT_BYTES

    def attempt(bucket: "ObjectStore") -> Any:
        file.seek(0)
        return bucket.put(
            url.key,
            file.read() if is_single else file,
            attributes={_DIGEST: digest},
            use_multipart=not is_single,
            chunk_size=max(_PART_BYTES, size // _MAX_PARTS),
            max_concurrency=4,
        )

    do = ask if is_single else _repeated
    done = do(_writable(url), attempt, writing=True)
    return ObjectInfo(url, size, done["e_tag"], digest)


def _repeated(url: ObjectUrl, request: "Callable[[ObjectStore], T]", *, writing: bool = False) -> T:
    """Does what the driver does not repeat where the connection breaks: begins an upload in parts, or lists objects."""
    for wait_s in _WAITS_S:
        try:
            return ask(url, request, writing=writing)
        except StorageFailure:
            time.sleep(wait_s)
    return ask(url, request, writing=writing)


def create(url: ObjectUrl, content: bytes) -> bool:
    """Puts an object in place if there is none; of several that try at once, one succeeds (a conditional put).

    A lost connection can hide the success of an attempt, which the next one then finds. So give every writer a content
    of its own, and where ``False`` is returned, read the object to see whose it is.

    Returns:
        Whether this call put it there.

    Raises:
        UsageError, CannotWrite, StorageFailure: As ``put``.
    """

    def attempt(bucket: "ObjectStore") -> bool:
        from obstore.exceptions import AlreadyExistsError

        try:
            bucket.put(url.key, content, mode="create")
        except AlreadyExistsError:
            return False
        return True

    return ask(_writable(url), attempt, writing=True)


def listed(prefix: ObjectUrl, *, deep: bool = True) -> Iterator[ObjectInfo]:
    """Yields the objects below a prefix, in the order of their keys.

    Args:
        prefix: The prefix; its last slash may be left out.
        deep: Those of every depth; otherwise those that have no further slash.

    Raises:
        UsageError: The credentials are refused.
        InputError: There is no such bucket, or no permission.
        StorageFailure: The store cannot be reached.
    """

    def every(bucket: "ObjectStore") -> list[ObjectInfo]:
        below = prefix.key.rstrip("/") or None
        chunks = (
            bucket.list(below, chunk_size=1000) if deep else [bucket.list_with_delimiter(below)["objects"]]
        )
        return [
            ObjectInfo(ObjectUrl(prefix.scheme, prefix.bucket, each["path"]), each["size"], each["e_tag"])
            for chunk in chunks
            for each in chunk
        ]

    yield from sorted(_repeated(prefix, every), key=lambda info: info.url.key)


def delete(url: ObjectUrl) -> None:
    """Removes an object, if there is one.

    Raises:
        UsageError, CannotWrite, StorageFailure: As ``put``.
    """
    ask(_writable(url), _if_there(lambda bucket: bucket.delete(url.key)), writing=True)


def check_writable(url: ObjectUrl) -> None:
    """Makes sure that an object can be put, and leaves neither a trace nor a changed object.

    It begins an upload in parts and aborts it before the first part. Azure knows no beginning of an upload, so there
    an object is put on a condition that nothing fulfils.

    Raises:
        UsageError, CannotWrite, StorageFailure: As ``put``.
    """
    if url.is_prefix:
        raise CannotWrite(f"{url} is a folder; name an object")

    def never() -> Iterator[bytes]:
        raise _Probe
        yield b""

    def attempt(bucket: "ObjectStore") -> None:
        from obstore.exceptions import PreconditionError

        try:
            if url.scheme == "az":
                bucket.put(url.key, b"", mode={"e_tag": '"0x0"'})
            else:
                bucket.put(url.key, never(), use_multipart=True)
        except (_Probe, PreconditionError):
            pass

    _repeated(_writable(url), attempt, writing=True)


def _writable(url: ObjectUrl) -> ObjectUrl:
    if not url.is_writable:
        raise CannotWrite(f"{url}: a web address cannot be written; use s3://, gs:// or az://")
    return url
