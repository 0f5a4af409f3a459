"""The batches endpoint: one task a batch walks it through its statuses.

``validating`` reads the whole file and may end in ``failed``, long after creation succeeded; ``in_progress``
answers the lines through the same author as chat; then ``finalizing`` and ``completed``, or ``expired`` with
the rest as ``batch_expired``, or ``cancelling`` and ``cancelled`` with what was done. Lines are found again
by their offset, so that a batch of 50,000 requests costs a list of numbers.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

import orjson

from batchllm.simulator.completion import Author
from batchllm.simulator.faults import uniform
from batchllm.simulator.files import FileStore
from batchllm.simulator.intake import FINAL, Intake, check_creation, new_batch
from batchllm.simulator.ledger import Ledger, LedgerFile
from batchllm.simulator.problem import ApiError, injected
from batchllm.simulator.settings import SimulatorSettings
from batchllm.simulator.validation import check

_SLICE = 50  # lines answered before other requests get their turn
_FAILURE = 3  # the stream of draws that decides which requests fail
_EXPIRED = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}


@dataclass(slots=True)
class Batch:
    """A batch while it lives; ``state`` is the object that the API shows."""

    state: dict[str, Any]
    source: Path
    intake: Intake = field(default_factory=Intake)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Batches:
    """All batches of one server."""

    def __init__(
        self,
        settings: SimulatorSettings,
        files: FileStore,
        author: Author,
        ledger: Ledger,
        file: LedgerFile | None,
        check_model: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._behaviour = settings.batches
        self._files = files
        self._author = author
        self._ledger = ledger
        self._file = file
        self._check_model = check_model
        self._batches: dict[str, Batch] = {}

    def create(self, request: Any) -> dict[str, Any]:
        """Take a batch in; everything that is in the file is checked later.

        Raises:
            ApiError: The request itself is wrong, or its file does not exist.
        """
        check_creation(request)
        source = self._files[request["input_file_id"]].path
        self._ledger.batches += 1
        batch = Batch(new_batch(request, f"batch_simulator{self._ledger.batches:06}"), source)
        self._batches[batch.state["id"]] = batch
        batch.task = asyncio.create_task(self._live(batch))
        return self._shown(batch)

    def retrieve(self, batch_id: str) -> dict[str, Any]:
        """The batch object.

        Raises:
            ApiError: 404, there is none.
        """
        return self._shown(self._find(batch_id))

    def all(self) -> list[dict[str, Any]]:
        """Batch objects, newest first."""
        return [self._shown(batch) for batch in reversed(self._batches.values())]

    def cancel(self, batch_id: str) -> dict[str, Any]:
        """Ask a batch to stop.

        Raises:
            ApiError: 404, there is none; 409, it has ended.
        """
        batch = self._find(batch_id)
        if batch.state["status"] in FINAL:
            raise ApiError(409, f"Cannot cancel a batch with status '{batch.state['status']}'.")
        if not batch.cancelled.is_set():
            self._enter(batch, "cancelling")
            batch.cancelled.set()
        return self._shown(batch)

    async def close(self) -> None:
        """Stop all work."""
        tasks = [batch.task for batch in self._batches.values() if batch.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _find(self, batch_id: str) -> Batch:
        if batch_id not in self._batches:
            raise ApiError(404, f"No batch found with id '{batch_id}'.", param="batch_id")
        return self._batches[batch_id]

    def _shown(self, batch: Batch) -> dict[str, Any]:
        shown = dict(batch.state)
        if self._behaviour.upper_case:
            shown["status"] = shown["status"].upper()
        for name in ("output_file_id", "error_file_id"):
            if shown[name] is None:
                shown[name] = self._behaviour.empty_file_id
        return shown

    def _enter(self, batch: Batch, status: str) -> None:
        batch.state["status"] = status
        batch.state[f"{status}_at"] = int(time.time())

    async def _live(self, batch: Batch) -> None:
        seconds = self._behaviour.seconds
        await _rest(batch, seconds / 10)
        await batch.intake.read(batch.source, batch.state["endpoint"], self._behaviour.max_requests)
        batch.state["model"] = batch.intake.model
        errors = batch.intake.errors or self._enqueued_too_much(batch)
        if errors and not batch.cancelled.is_set():
            batch.state["errors"] = {"object": "list", "data": errors}
            self._enter(batch, "failed")
            return
        batch.state["request_counts"]["total"] = len(batch.intake.offsets)
        if not batch.cancelled.is_set():
            self._enter(batch, "in_progress")
        ended = await self._work(batch, seconds * 0.8)
        if ended == "cancelled":
            await asyncio.sleep(self._behaviour.cancel_s)
        elif not batch.cancelled.is_set():
            self._enter(batch, "finalizing")
            await asyncio.sleep(seconds / 10)
        self._enter(batch, ended)

    def _enqueued_too_much(self, batch: Batch) -> list[dict[str, Any]]:
        limit = self._behaviour.enqueued_tokens
        alive = [each for each in self._batches.values() if each.state["status"] not in FINAL]
        waiting = sum(each.intake.tokens for each in alive if each.intake.model == batch.intake.model)
        if limit is None or waiting <= limit:
            return []
        batch.intake.tokens = 0
        message = (
            f"Enqueued token limit reached for {batch.intake.model} in organization org-sim. "
            f"Limit: {limit:,} enqueued tokens. Please try again once some in_progress batches have been "
            "completed."
        )
        return [{"code": "token_limit_exceeded", "line": None, "message": message, "param": None}]

    async def _work(self, batch: Batch, seconds: float) -> str:
        """Answer the lines; the final status."""
        order = list(batch.intake.offsets)
        if self._behaviour.shuffle:
            Random(self._settings.seed).shuffle(order)
        fraction = self._behaviour.expire_after_fraction
        allowed = len(order) if fraction is None else int(len(order) * fraction)
        ended = "completed" if fraction is None else "expired"
        output_path, output = self._files.open()
        errors_path, errors = self._files.open()
        source = batch.source.open("rb")
        with source, output, errors:
            if self._behaviour.garbage_line and order:
                output.write(b'{"id": "batch_req_cut", "custom_id"\n')
            for at, offset in enumerate(order):
                if at % _SLICE == 0 and ended != "cancelled":
                    await _rest(batch, seconds * min(_SLICE, len(order) - at) / len(order))
                if batch.cancelled.is_set():
                    ended = "cancelled"
                    break
                source.seek(offset)
                self._finish(batch, source.readline(), output, errors, at, expired=at >= allowed)
        if not self._behaviour.missing_files:
            for name, path in (("output", output_path), ("error", errors_path)):
                if path.stat().st_size:
                    kept = self._files.add(path, f"{batch.state['id']}_{name}.jsonl", "batch_output")
                    batch.state[f"{name}_file_id"] = kept.id
        return ended

    def _finish(
        self, batch: Batch, raw: bytes, output: BinaryIO, errors: BinaryIO, at: int, *, expired: bool
    ) -> None:
        """Answer one line into the output or the error file."""
        line = orjson.loads(raw)
        number = self._ledger.batch_requests + 1
        result: dict[str, Any] = {"id": f"batch_req_{number:06}", "custom_id": line["custom_id"]}
        counts = batch.state["request_counts"]
        if expired:
            counts["failed"] += 1
            errors.write(orjson.dumps({**result, "response": None, "error": _EXPIRED}) + b"\n")
            return
        self._ledger.batch_requests = number
        status, body = self._answer(batch, line, raw, number, at)
        response = {"status_code": status, "request_id": f"req_batch{number:011}", "body": body}
        counts["completed" if status == 200 else "failed"] += 1
        sink = output if status == 200 else errors
        sink.write(orjson.dumps({**result, "response": response, "error": None}) + b"\n")

    def _answer(
        self, batch: Batch, line: Mapping[str, Any], raw: bytes, number: int, at: int
    ) -> tuple[int, dict[str, Any]]:
        prompt_tokens = completion_tokens = 0
        try:
            check(line["body"])
            self._check_model(line["body"]["model"])
            if uniform(self._settings.seed, at, _FAILURE) < self._behaviour.failure_rate:
                raise injected(500, 0.0)
            done = self._author.complete(line["body"], raw, number, int(time.time()))
            status, body = 200, done.body
            prompt_tokens, completion_tokens = done.prompt_tokens, done.completion_tokens
        except ApiError as error:
            status, body = error.status, error.body()
        usage = batch.state["usage"]
        usage["input_tokens"] += prompt_tokens
        usage["output_tokens"] += completion_tokens
        usage["total_tokens"] += prompt_tokens + completion_tokens
        self._ledger.bill(prompt_tokens, completion_tokens)
        if self._file is not None:
            self._file.write(
                kind="batch",
                identity=body.get("id", f"req_batch{number:011}"),
                body_sha256=sha256(raw.rstrip(b"\r\n")).hexdigest(),
                status=status,
                whole=True,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                custom_id=line["custom_id"],
            )
        return status, body


async def _rest(batch: Batch, seconds: float) -> None:
    """Wait, unless the batch is cancelled; always lets others have their turn."""
    await asyncio.sleep(0)
    if seconds > 0:
        try:
            await asyncio.wait_for(batch.cancelled.wait(), seconds)
        except TimeoutError:
            pass
