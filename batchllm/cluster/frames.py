"""The format of an answer log: frames of entries, each complete or not there.

A frame is eight bytes, the length and the CRC-32 of what follows, both little-endian, and then the compressed entries
(zlib). These are a line of JSON with the fields of each entry, where a value of bytes is its length, and after the line
the bytes themselves, one after the other.
"""

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from batchllm.journal import AttemptEntry, Entry, KeptEntry, StoredReply

_HEAD = struct.Struct("<II")
_ATTEMPT, _KEPT = 0, 1
_REFUSED, _IN_FLIGHT, _ANSWERED = 0, 1, 2

_Request = tuple[bytes, int, str | None, bytes | None]
"""The key and ordinal of a row's first request, and of a later one its path and what it asks."""


def encode(entries: Sequence[Entry]) -> bytes:
    """Returns one frame."""
    blobs: list[bytes] = []
    lines = [_fields(entry, blobs) for entry in entries]
    payload = zlib.compress(b"".join([json.dumps(lines).encode(), b"\n", *blobs]), 1)
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def decode(data: bytes) -> Iterator[list[Entry]]:
    """Yields the entries of each frame that is complete; what follows a broken one is not read."""
    start = 0
    while start + _HEAD.size <= len(data):
        length, crc = _HEAD.unpack_from(data, start)
        payload = data[start + _HEAD.size : start + _HEAD.size + length]
        start += _HEAD.size + length
        if len(payload) < length or zlib.crc32(payload) != crc:
            return
        yield list(_entries(zlib.decompress(payload)))


def most_sent(frames: Sequence[Sequence[Entry]]) -> int:
    """Returns how many attempts of a log were new in one frame, at most."""
    known: set[int] = set()
    most = 0
    for frame in frames:
        sent = {entry.attempt_id for entry in frame if isinstance(entry, AttemptEntry)} - known
        most = max(most, len(sent))
        known |= sent
    return most


def lost_rows(logs: Sequence[Sequence[Sequence[Entry]]]) -> tuple[set[int], list[list[int]]]:
    """Returns the rows of a shard that are paid twice, or may be.

    What a worker that died sent after its log was written last, the next attempts sent again, unless nobody did. A
    worker that ends in order writes an empty frame last.

    Args:
        logs: What the logs of all attempts have, oldest attempt first.

    Returns:
        The rows of requests that two attempts sent, that were in flight when the log of a worker that died was written
        last, or of rows that it had begun and not finished. And for each worker that died the rows that it may have
        begun after that, in the order in which the next attempts began them.
    """
    lost: set[int] = set()
    begun_after = []
    for number, log in enumerate(logs):
        again: dict[_Request, int] = {}
        for later in logs[number + 1 :]:
            again |= {name: row for name, (row, _) in _sent(later).items()}
        sent = _sent(log)
        lost |= {again[name] for name, (_, state) in sent.items() if state == _ANSWERED and name in again}
        if log and not log[-1]:
            continue
        lost |= {row for row, state in sent.values() if state == _IN_FLIGHT}
        last = max((row for row, _ in sent.values()), default=-1)
        lost |= {row for row in again.values() if row <= last}
        begun_after.append([row for row in dict.fromkeys(again.values()) if row > last])
    return lost, begun_after


def _sent(frames: Sequence[Sequence[Entry]]) -> dict[_Request, tuple[int, int]]:
    """Returns the requests that an attempt at a shard sent, in order, with their rows and the most that is known."""
    last = {entry.attempt_id: entry for frame in frames for entry in frame if isinstance(entry, AttemptEntry)}
    found: dict[_Request, tuple[int, int]] = {}
    for entry in last.values():
        if entry.row_index is not None and entry.sent_at is not None:
            status = 0 if entry.reply is None else entry.reply[2] or 0
            state = _IN_FLIGHT if entry.reply is None else _ANSWERED if 200 <= status < 300 else _REFUSED
            name = (entry.key, entry.ordinal, entry.path, entry.identity)
            found[name] = entry.row_index, max(state, found.get(name, (0, _REFUSED))[1])
    return found


def _fields(entry: Entry, blobs: list[bytes]) -> list[Any]:
    def size(blob: bytes | None) -> int | None:
        if blob is not None:
            blobs.append(blob)
        return None if blob is None else len(blob)

    if isinstance(entry, KeptEntry):
        return [_KEPT, size(entry.key), size(entry.value)]
    reply = None if entry.reply is None else [*entry.reply[:-1], size(entry.reply[-1])]
    sizes = [size(entry.key), size(entry.body_key), size(entry.identity)]
    return [
        _ATTEMPT, reply, *sizes, entry.attempt_id, entry.row_index, entry.ordinal, entry.path, entry.sent_at,
        entry.state, entry.attempts,
    ]  # fmt: skip


def _entries(data: bytes) -> Iterable[Entry]:
    line, _, rest = data.partition(b"\n")
    at = 0

    def take(size: int | None) -> bytes | None:
        nonlocal at
        if size is None:
            return None
        at += size
        return rest[at - size : at]

    for kind, *fields in json.loads(line):
        if kind == _KEPT:
            yield KeptEntry(take(fields[0]) or b"", take(fields[1]) or b"")
            continue
        reply, key, body_key, identity, attempt_id, row_index, ordinal, path, sent_at, state, attempts = (
            fields
        )
        found = None if reply is None else StoredReply._make((*reply[:-1], take(reply[-1])))
        yield AttemptEntry(
            attempt_id,
            row_index,
            take(key) or b"",
            ordinal,
            take(body_key),
            path,
            take(identity),
            sent_at,
            found,
            state,
            attempts,
        )
