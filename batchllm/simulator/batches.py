"""The batches endpoint: one task a batch takes it through its statuses.

``validating`` reads the whole file and may end in ``failed``, long after creation succeeded; ``in_progress``
answers the lines as the chat endpoint would; then ``finalizing`` and ``completed``, or ``expired`` with
the rest as ``batch_expired``, or ``cancelling`` and ``cancelled`` with what was done. Lines are found again
by their offset, so that a batch of 50,000 requests costs a list of numbers.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, BinaryIO

import orjson

from batchllm.simulator.batch_input import BatchInput, new_batch
from batchllm.simulator.completion import CompletionBuilder
from batchllm.simulator.errors import ApiError
from batchllm.simulator.faults import injected_error, random_of
from batchllm.simulator.files import FileStore
from batchllm.simulator.ledger import Ledger
from batchllm.simulator.settings import SimulatorSettings
from batchllm.simulator.validation import check

FINAL = frozenset({"completed", "failed", "expired", "cancelled"})
_LINES_AT_ONCE = 50  # before other requests get their turn
_EXPIRED = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}


@dataclass(slots=True)
class SimulatedBatch:
    """A batch while it lives; ``state`` is the object that the API shows."""

    state: dict[str, Any]
    source: Path
    input: BatchInput = field(default_factory=BatchInput)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self, status: str) -> None:
        """Sets the status and its time."""
        self.state["status"] = status
        self.state[f"{status}_at"] = int(time.time())

    async def wait(self, seconds: float) -> None:
        """Waits, unless the batch is cancelled; always lets other requests have their turn."""
        await asyncio.sleep(0)
        if seconds > 0:
            try:
                await asyncio.wait_for(self.cancelled.wait(), seconds)
            except TimeoutError:
                pass


class SimulatedBatches:
    """All batches of one server."""

    def __init__(
        self,
        settings: SimulatorSettings,
        files: FileStore,
        builder: CompletionBuilder,
        ledger: Ledger,
    ) -> None:
        self._seed = settings.seed
        self._models = settings.models
        self._settings = settings.batches
        self._files = files
        self._builder = builder
        self._ledger = ledger
        self._batches: dict[str, SimulatedBatch] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Creates a batch; what is in its file is checked later.

        Raises:
            ApiError: The request itself is wrong, or its file does not exist.
        """
        state = new_batch(request, f"batch_simulator{self._ledger.batches + 1:06}")
        batch = SimulatedBatch(state, self._files.path(state["input_file_id"]))
        self._ledger.batches += 1
        self._batches[state["id"]] = batch
        self._tasks.append(asyncio.create_task(self._run(batch)))
        return self._settings.show(batch.state)

    def retrieve(self, batch_id: str) -> dict[str, Any]:
        """Returns the batch object.

        Raises:
            ApiError: 404, there is none.
        """
        return self._settings.show(self._find(batch_id).state)

    def states(self) -> list[dict[str, Any]]:
        """Returns batch objects, newest first."""
        return [self._settings.show(batch.state) for batch in reversed(self._batches.values())]

    def cancel(self, batch_id: str) -> dict[str, Any]:
        """Asks a batch to stop.

        Raises:
            ApiError: 404, there is none; 409, it has ended.
        """
        batch = self._find(batch_id)
        if batch.state["status"] in FINAL:
            raise ApiError(409, f"Cannot cancel a batch with status '{batch.state['status']}'.")
        if not batch.cancelled.is_set():
            batch.enter("cancelling")
            batch.cancelled.set()
        return self._settings.show(batch.state)

    async def close(self) -> None:
        """Stops all work."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _find(self, batch_id: str) -> SimulatedBatch:
        if batch_id not in self._batches:
            raise ApiError(404, f"No batch found with id '{batch_id}'.", param="batch_id")
        return self._batches[batch_id]

    async def _run(self, batch: SimulatedBatch) -> None:
        seconds = self._settings.seconds
        await batch.wait(seconds / 10)
        await batch.input.read(batch.source, self._settings.max_requests)
        batch.state["model"] = batch.input.model
        errors = batch.input.errors or self._enqueued_too_much(batch)
        if errors and not batch.cancelled.is_set():
            batch.state["errors"] = {"object": "list", "data": errors}
            batch.enter("failed")
            return
        batch.state["request_counts"]["total"] = len(batch.input.offsets)
        if not batch.cancelled.is_set():
            batch.enter("in_progress")
        ended = await self._work(batch, seconds * 0.8)
        if ended == "cancelled":
            await asyncio.sleep(self._settings.cancel_s)
        elif not batch.cancelled.is_set():
            batch.enter("finalizing")
            await asyncio.sleep(seconds / 10)
        batch.enter(ended)

    def _enqueued_too_much(self, batch: SimulatedBatch) -> list[dict[str, Any]]:
        limit = self._settings.enqueued_tokens
        alive = [each for each in self._batches.values() if each.state["status"] not in FINAL]
        waiting = sum(each.input.tokens for each in alive if each.input.model == batch.input.model)
        if limit is None or waiting <= limit:
            return []
        batch.input.tokens = 0
        message = (
            f"Enqueued token limit reached for {batch.input.model} in organization org-sim. "
            f"Limit: {limit:,} enqueued tokens. Please try again once some in_progress batches have been "
            "completed."
        )
        return [{"code": "token_limit_exceeded", "line": None, "message": message, "param": None}]

    async def _work(self, batch: SimulatedBatch, seconds: float) -> str:
        """Answers the lines in a shuffled order; returns the final status."""
        order = list(batch.input.offsets)
        Random(self._seed).shuffle(order)
        fraction = self._settings.expire_after_fraction
        allowed = len(order) if fraction is None else int(len(order) * fraction)
        ended = "completed" if fraction is None else "expired"
        paths = {"output": self._files.new_path(), "error": self._files.new_path()}
        with (
            batch.source.open("rb") as source,
            paths["output"].open("wb") as output,
            paths["error"].open("wb") as errors,
        ):
            for at, offset in enumerate(order):
                if at % _LINES_AT_ONCE == 0:
                    await batch.wait(seconds * min(_LINES_AT_ONCE, len(order) - at) / len(order))
                if batch.cancelled.is_set():
                    ended = "cancelled"
                    break
                source.seek(offset)
                self._finish(batch, source.readline(), output, errors, at, expired=at >= allowed)
        for name, path in paths.items():
            if path.stat().st_size:
                kept = self._files.add(path, f"{batch.state['id']}_{name}.jsonl", "batch_output")
                batch.state[f"{name}_file_id"] = kept["id"]
        return ended

    def _finish(
        self, batch: SimulatedBatch, raw: bytes, output: BinaryIO, errors: BinaryIO, at: int, *, expired: bool
    ) -> None:
        """Answers one line into the output or the error file."""
        line = orjson.loads(raw)
        self._ledger.batch_requests += not expired
        number = self._ledger.batch_requests
        result = {
            "id": f"batch_req_{number:06}",
            "custom_id": line["custom_id"],
            "response": None,
            "error": None,
        }
        status = 0
        if expired:
            result["error"] = _EXPIRED
        else:
            status, body = self._answer(batch, line["body"], raw, number, at)
            result["response"] = {"status_code": status, "request_id": f"req_{number}", "body": body}
        batch.state["request_counts"]["completed" if status == 200 else "failed"] += 1
        (output if status == 200 else errors).write(orjson.dumps(result) + b"\n")

    def _answer(
        self, batch: SimulatedBatch, request: dict[str, Any], raw: bytes, number: int, at: int
    ) -> tuple[int, dict[str, Any]]:
        try:
            check(request, self._models)
            if random_of(self._seed, at, "failure").random() < self._settings.failure_rate:
                raise injected_error(500, 0.0)
            body = self._builder.build(request, raw, number, int(time.time()))
        except ApiError as error:
            return error.status, error.body()
        usage = batch.state["usage"]
        for name, source in (("input", "prompt"), ("output", "completion"), ("total", "total")):
            usage[f"{name}_tokens"] += body["usage"][f"{source}_tokens"]
        self._ledger.charge(body["usage"])
        return 200, body
