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

from batchllm.cluster.plan import Shard
from batchllm.cluster.work import WorkFolder, log_name
from batchllm.journal import AttemptEntry, Entry, KeptEntry, StoredReply

_HEAD = struct.Struct("<II")

_ATTEMPT, _KEPT = 0, 1


Log = Sequence[Sequence[Entry]]
"""What the answer log of an attempt has: the entries of each frame."""


def logs_of(work: WorkFolder, shard: Shard, attempts: int) -> list[Log]:
    """Returns the answer logs of the first attempts at a shard; an attempt may have none."""
    pieces = (work.log(log_name(shard, number)) for number in range(1, attempts + 1))
    return [[frame for piece in log for frame in decode(piece)] for log in pieces]


def last_entries(log: Log) -> dict[int, AttemptEntry]:
    """Returns what a log has last of each attempt at a request, by its number, in the order of the first entries."""
    return {entry.attempt_id: entry for frame in log for entry in frame if isinstance(entry, AttemptEntry)}


def has_answer(entry: AttemptEntry) -> bool:
    """Whether an answer came to an attempt at a request, which is billed."""
    status = None if entry.reply is None else entry.reply[2]
    return status is not None and 200 <= status < 300


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
