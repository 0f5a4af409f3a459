"""The endpoint of a run: opened when the first request needs it, started where it is the simulator."""

import asyncio
import logging
import resource
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.presets import SIMULATOR
from batchllm.records import ChatRequest, Failure, Response

if TYPE_CHECKING:
    from batchllm.client.batches import BatchApi


log = logging.getLogger("batchllm.runner")

OPEN_FILES = 8192
"""Enough for every connection that the limiter may ever want at once, and for the files of a run."""


class LazyClient:
    """A client that is opened by the first request: a job with nothing left to send needs none.

    Args:
        job: Whose endpoint.
        stack: Closes the client at the end of the run.
    """

    def __init__(self, job: Job, stack: AsyncExitStack) -> None:
        self._job = job
        self._stack = stack
        self._opening: asyncio.Task[Any] | None = None
        self.send = self._send_first
        """Sends one request, every outcome is data: by way of opening the client, and once it is open, by itself."""

    async def _send_first(self, request: ChatRequest) -> Response | Failure:
        client = await self._client()
        self.send = client.send
        outcome: Response | Failure = await client.send(request)
        return outcome

    async def batches(self) -> "BatchApi":
        """Files and batches."""
        client = await self._client()
        found: BatchApi = client.batches
        return found

    async def _client(self) -> Any:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return self._opening.result() if self._opening.done() else await asyncio.shield(self._opening)

    async def _open(self) -> Any:
        from batchllm.client import Client

        raise_open_files()
        client = Client(self._job.endpoint, timeout_s=self._job.pace.timeout_s)
        return await self._stack.enter_async_context(client)


def raise_open_files() -> None:
    """Raises the soft limit of open files, where the hard one lets it: a connection is a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        log.debug("the limit of open files stays at %d", soft)


@contextmanager
def served(job: Job) -> Iterator[Job]:
    """The job with the URL of its endpoint: the simulator is started where it is asked for by name."""
    if job.endpoint.preset == SIMULATOR and not job.endpoint.base_url:
        from batchllm.simulator import SimulatorSettings, start_in_thread

        with start_in_thread(SimulatorSettings()) as simulator:
            yield replace(job, endpoint=replace(job.endpoint, base_url=simulator.base_url))
    else:
        yield job


@contextmanager
def reachable(job: Job) -> Iterator[Job]:
    """The job with an endpoint that can be sent to: served, and with a model.

    Raises:
        UsageError: No model is named, and the endpoint has not exactly one.
    """
    with served(job) as job:
        if not job.endpoint.model and not job.per_row:
            yield replace(job, endpoint=replace(job.endpoint, model=asyncio.run(_only_model(job))))
        else:
            yield job


async def _only_model(job: Job) -> str:
    from batchllm.client import Client

    async with Client(job.endpoint) as client:
        models = await client.models()
    return only(models, job.endpoint.base_url)


def only(models: Sequence[str], base_url: str) -> str:
    """The one model that an endpoint has.

    Raises:
        UsageError: It has several, or none.
    """
    if len(models) == 1:
        return models[0]
    some = ", ".join(models[:8]) + (", …" if len(models) > 8 else "")
    raise UsageError(f"{base_url} has {len(models)} models; name one with --model: {some}")
