"""The endpoint of a run: a client that opens when it is needed, the simulator where it is asked for by name."""

import asyncio
import logging
import resource
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from batchllm.errors import Unavailable, UsageError
from batchllm.job import Job
from batchllm.job.endpoints import JobEndpoint, endpoints_of, with_model
from batchllm.presets import SIMULATOR
from batchllm.records import ChatRequest, Endpoint, Failure, Response

if TYPE_CHECKING:
    from batchllm.client import Client
    from batchllm.client.batches import BatchApi


log = logging.getLogger("batchllm.runner")

OPEN_FILES = 8192
"""Enough for every connection that the limiter may ever want at once, and for the files of a run."""


class LazyClient:
    """A client that the first request opens: a job with nothing left to send loads no transport.

    Args:
        job: Whose endpoint.
        stack: Closes the client at the end of the run.
        endpoint: Which of its endpoints; by default the only one.
    """

    def __init__(self, job: Job, stack: AsyncExitStack, endpoint: JobEndpoint | None = None) -> None:
        self._job = job
        self._stack = stack
        self._endpoint = endpoint

    def send(self, request: ChatRequest) -> Coroutine[Any, Any, Response | Failure]:
        """Sends one request; every outcome is data."""
        return self._client.send(request)

    async def batches(self) -> "BatchApi":
        """Returns the calls for files and batches."""
        return self._client.batches

    @cached_property
    def _client(self) -> "Client":
        from batchllm.client import Client

        own, timeout_s = self._endpoint, self._job.pace.timeout_s
        if own is None:
            client = Client(self._job.endpoint, timeout_s=timeout_s)
        else:
            client = Client(own.endpoint, timeout_s=timeout_s, names=own.names)
        self._stack.push_async_exit(client)
        return client


def raise_open_files() -> None:
    """Raises the soft limit of open files as far as the hard limit allows; each connection is a file.

    It is a setting of the whole process, so only the command line does it.
    """
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
    """Yields the job with the URLs of its endpoints; starts a simulator for each that is asked for by name."""
    with ExitStack() as stack:
        if not job.endpoints:
            yield replace(job, endpoint=_served(job.endpoint, stack))
            return
        several = tuple(replace(each, endpoint=_served(each.endpoint, stack)) for each in job.endpoints)
        is_first = job.endpoint == job.endpoints[0].endpoint
        yield replace(job, endpoints=several, endpoint=several[0].endpoint if is_first else job.endpoint)


def _served(endpoint: Endpoint, stack: ExitStack) -> Endpoint:
    if endpoint.preset != SIMULATOR or endpoint.base_url:
        return endpoint
    from batchllm.simulator import SimulatorSettings, start_in_thread

    return replace(endpoint, base_url=stack.enter_context(start_in_thread(SimulatorSettings())).base_url)


@contextmanager
def reachable(job: Job) -> Iterator[Job]:
    """Yields the job with URLs and a model to send to.

    Raises:
        UsageError: No model is named, and the endpoint has not exactly one; or the environment's proxy or
            certificates cannot be used.
    """
    from batchllm.client import check_route

    with served(job) as job:
        for endpoint in endpoints_of(job):
            check_route(endpoint.base_url)
        if not job.endpoint.model and not job.per_row:
            yield with_model(job, asyncio.run(_only_model(endpoints_of(job))))
        else:
            yield job


async def _only_model(endpoints: Sequence[Endpoint]) -> str:
    """Returns the only model of the first endpoint that can be reached."""
    from batchllm.client import Client

    for endpoint in endpoints:
        try:
            async with Client(endpoint) as client:
                return only(await client.models(), endpoint.base_url)
        except Unavailable:
            if endpoint is endpoints[-1]:
                raise
    raise AssertionError("there is at least one endpoint")


def only(models: Sequence[str], base_url: str) -> str:
    """Returns the only model of an endpoint.

    Raises:
        UsageError: It has several, or none.
    """
    if len(models) == 1:
        return models[0]
    if not models:
        raise UsageError(f"{base_url} lists no models; name one with --model")
    some = ", ".join(models[:8]) + (", …" if len(models) > 8 else "")
    raise UsageError(f"{base_url} has {len(models)} models; name one with --model: {some}")
