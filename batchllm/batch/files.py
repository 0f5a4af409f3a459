"""Rows become files of requests on disk, cut where the endpoint's limits are; nothing of them stays in memory.

A file is one model's. It has no name on disk and is its owner's alone, so a run that dies leaves none behind; a
batch that was not uploaded is written anew. Room in the endpoint's queue is counted in estimated prompt tokens,
and is known only once the endpoint has refused a batch for want of it.
"""

import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from batchllm.batch.lines import request_line
from batchllm.formats import storage_error
from batchllm.journal import new_name
from batchllm.presets import BatchFacts
from batchllm.records import ChatRequest

MARGIN = 0.95
"""Share of the endpoint's byte limit that is used: some count the form around the file, or megabytes of 10^6."""


@dataclass(slots=True)
class BatchFile:
    """A file of requests that is being written.

    Attributes:
        name: The name of the batch it will be.
        model: Of all its requests.
        file: Its bytes; closing it removes them.
        requests: The journal's ids of its requests, in the order of its lines.
        size: Its bytes so far.
        tokens: Prompt tokens that it is estimated to hold.
    """

    name: str
    model: str
    file: IO[bytes]
    requests: "array[int]" = field(default_factory=lambda: array("q"))
    size: int = 0
    tokens: int = 0
    digest: Any = field(default_factory=sha256)

    def add(self, request_id: int, line: bytes, tokens: int) -> None:
        """Writes a line."""
        self.file.write(line)
        self.digest.update(line)
        self.requests.append(request_id)
        self.size += len(line)
        self.tokens += tokens


@dataclass(slots=True)
class Caps:
    """What this endpoint was found to take, beside what its preset says; kept in the journal.

    Attributes:
        requests, size: Most lines and bytes of a file, where it refused a longer one.
        tokens: By model, most estimated tokens that may be queued at once.
    """

    requests: int | None = None
    size: int | None = None
    tokens: dict[str, int] = field(default_factory=dict)


class BatchFileWriter:
    """Cuts requests into files.

    Args:
        facts: The endpoint's limits.
        caps: What it was found to take.
        queued: By model, the tokens in batches that are under way.
        folder: Where files are written: on the disk that has room for the journal.

    Attributes:
        held: Some requests have no room in the queue now.
    """

    def __init__(self, facts: BatchFacts, caps: Caps, queued: dict[str, int], folder: Path) -> None:
        self._facts = facts
        self._caps = caps
        self._queued = queued
        self._folder = folder
        self._most_requests = min(facts.max_requests, caps.requests or facts.max_requests)
        self._most_bytes = min(int(facts.max_bytes * MARGIN), caps.size or facts.max_bytes)
        self._batch_files: dict[str, BatchFile] = {}
        self.held = False

    def put(self, request_id: int, request: ChatRequest) -> BatchFile | None:
        """Adds a request to its model's file.

        Returns:
            The file before, where this request had to begin a new one: it is full, and goes off first.

        Raises:
            RequestTooLarge: The request alone is longer than a file may be.
            QueueFull: It has to wait for room in the queue; ``held`` says so from now on.
        """
        tokens = tokens_of(request)
        batch_file = self._batch_files.get(request.model) or self._new(request.model)
        line = request_line(batch_file.name, len(batch_file.requests), self._facts.endpoint, request.body)
        if len(line) > self._most_bytes:
            raise RequestTooLarge(f"the request has {len(line):,} bytes; a batch takes {self._most_bytes:,}")
        cap = self._caps.tokens.get(request.model)
        queued = self._queued.get(request.model, 0)
        if cap is not None and queued + batch_file.tokens + tokens > cap and (queued or batch_file.tokens):
            self.held = True
            raise QueueFull
        full = None
        if len(batch_file.requests) >= self._most_requests or batch_file.size + len(line) > self._most_bytes:
            full = self.take(request.model)
            batch_file = self._new(request.model)
            line = request_line(batch_file.name, 0, self._facts.endpoint, request.body)
        with storage(self._folder):
            batch_file.add(request_id, line, tokens)
        return full

    def take(self, model: str) -> BatchFile | None:
        """The file of a model, to be sent off; its tokens count as queued from now on."""
        batch_file = self._batch_files.pop(model, None)
        if batch_file is None or not batch_file.requests:
            return None
        self._queued[model] = self._queued.get(model, 0) + batch_file.tokens
        with storage(self._folder):
            batch_file.file.flush()
        return batch_file

    def rest(self) -> Iterator[BatchFile]:
        """The files that are left at the end."""
        for model in list(self._batch_files):
            if (batch_file := self.take(model)) is not None:
                yield batch_file

    def close(self) -> None:
        """Removes what was not taken."""
        for batch_file in self._batch_files.values():
            batch_file.file.close()

    def _new(self, model: str) -> BatchFile:
        with storage(self._folder):
            file = tempfile.TemporaryFile(dir=self._folder, prefix=".batchllm-")  # noqa: SIM115 - the batch_file closes it
        batch_file = self._batch_files[model] = BatchFile(new_name(), model, file)
        return batch_file


class RequestTooLarge(Exception):
    """A request is longer than a file may be."""


class QueueFull(Exception):
    """The endpoint's queue has no room for a request now."""


def tokens_of(request: ChatRequest) -> int:
    """Prompt tokens of a request, counted or estimated as endpoints do it: a quarter of the bytes."""
    return request.prompt_tokens or len(request.body) // 4


@contextmanager
def storage(folder: Path) -> Iterator[None]:
    """Lets errors of the disk leave as errors of the job."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, folder, "a batch's file cannot be written here") from error
