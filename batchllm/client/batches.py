"""Calls for files and batches: each is made once, returns data, and raises ``CallFailed`` with a verdict.

Nothing is retried here, and no file is held in memory. Replies are read as JSON and not by the SDK's models, because
endpoints differ: statuses in upper case, empty file ids, missing counts. A batch is found again by the name in its
metadata or, where an endpoint keeps no metadata, by its input file.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import IO, Any

import httpx2
import openai
import orjson

from batchllm.client.failures import Destination, meaning
from batchllm.client.route import proxy_of
from batchllm.client.secrets import Mask
from batchllm.printable import one_line
from batchllm.records import Failure, FailureKind, Paid, Response
from batchllm.retry import Verdict, classify

NAME = "batchllm"
"""The key of a batch's metadata that holds the name that batchllm gives it."""

PAGE = 100
SLACK_S = 86_400.0
"""A search for a file ends at files this much older than its intent; the slack covers clock differences."""

FINAL = frozenset({"completed", "failed", "expired", "cancelled"})
_OTHER_SPELLINGS = {"canceled": "cancelled", "canceling": "cancelling", "timeout_exceeded": "expired"}


class CallFailed(Exception):
    """A call failed.

    Attributes:
        verdict: The verdict, as for a chat request; with ``UNKNOWN`` the call may have succeeded.
        status: HTTP status; ``None`` where no HTTP answer came.
    """

    def __init__(self, verdict: Verdict, status: int | None) -> None:
        self.verdict = verdict
        self.status = status
        super().__init__(verdict.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBatch:
    """A batch as the endpoint reports it.

    Attributes:
        id: The endpoint's id.
        status: In lower case, as OpenAI spells it.
        name: The name that batchllm gave it, from its metadata; ``None`` where the endpoint keeps none.
        input_file_id: Its file of requests.
        output_file_id, error_file_id: Files of results; ``None`` where there is none.
        total, completed, failed: Its ``request_counts``; ``None`` where it has none.
        errors: Why validation failed: the objects of ``errors.data``.
    """

    id: str
    status: str
    name: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int | None = None
    completed: int | None = None
    failed: int | None = None
    errors: tuple[dict[str, Any], ...] = ()

    @property
    def is_final(self) -> bool:
        """Returns whether the status is final."""
        return self.status in FINAL


class BatchApi:
    """The calls that a batch needs; each raises ``CallFailed``.

    Args:
        sdk: The SDK's client, its retries off.
        mask: Hides secrets in what the endpoint says.
    """

    def __init__(self, sdk: openai.AsyncOpenAI, mask: Mask) -> None:
        self._sdk = sdk
        self._files, self._batches = sdk.files.with_raw_response, sdk.batches.with_raw_response
        self._mask = mask
        base_url = str(sdk.base_url)
        self._destination = Destination(base_url, proxy_of(base_url))

    async def upload(self, file: IO[bytes], filename: str) -> str:
        """Uploads a file of requests in pieces; returns the file's id."""
        file.seek(0)
        data = await self._json_of(self._files.create(file=(filename, file), purpose="batch"))
        return str(self._field(data, "id"))

    async def create(self, file_id: str, *, endpoint: str, window: str, name: str) -> RemoteBatch:
        """Creates a batch with a name in its metadata."""
        created = self._batches.create(
            input_file_id=file_id,
            endpoint=endpoint,  # type: ignore[arg-type]  # Azure has its own, and so may others
            completion_window=window,  # type: ignore[arg-type]  # Groq has longer ones
            metadata={NAME: name},
        )
        return self._remote(await self._json_of(created))

    async def retrieve(self, batch_id: str) -> RemoteBatch:
        """Returns the current state of a batch; ``CallFailed.status`` is 404 where there is none."""
        return self._remote(await self._json_of(self._batches.retrieve(batch_id)))

    async def cancel(self, batch_id: str) -> RemoteBatch:
        """Requests the cancellation of a batch."""
        return self._remote(await self._json_of(self._batches.cancel(batch_id)))

    async def find(self, name: str, file_id: str | None) -> RemoteBatch | None:
        """Returns the batch with a name or an input file; ``None`` where there is none.

        The whole list is searched, because a batch that is missed would be created and billed twice.

        Args:
            name: The name in its metadata.
            file_id: Its input file, which no other batch has.
        """
        async for data in self._pages(self._batches.list):
            found = self._remote(data)
            if found.name == name or (file_id is not None and found.input_file_id == file_id):
                return found
        return None

    async def probe(self) -> None:
        """Asks for the newest batch, to see whether the endpoint has a Batch API."""
        await self._json_of(self._batches.list(limit=1))

    async def find_file(self, filename: str, since: float) -> tuple[str, int | None] | None:
        """Returns id and size of a file that was uploaded for batches; ``None`` where there is none."""
        async for data in self._pages(self._files.list, purpose="batch"):
            if data.get("filename") == filename:
                return str(data.get("id")), _count(data.get("bytes"))
            created_at = data.get("created_at")
            if isinstance(created_at, (int, float)) and created_at < since - SLACK_S:
                return None
        return None

    async def delete_file(self, file_id: str) -> None:
        """Deletes a file."""
        await self._json_of(self._files.delete(file_id))

    async def has_file(self, file_id: str) -> bool:
        """Returns whether the endpoint has a file."""
        try:
            await self._json_of(self._files.retrieve(file_id))
        except CallFailed as failed:
            if failed.status == 404:
                return False
            raise
        return True

    def masked(self, outcome: Response | Failure) -> Response | Failure:
        """Returns the outcome of a line of a file without the secrets of this endpoint."""
        return self._mask.reply(outcome)

    async def download(self, file_id: str, to: IO[bytes]) -> int:
        """Downloads a file in pieces into another; returns its size."""
        to.seek(0)
        to.truncate()
        try:
            async with self._sdk.files.with_streaming_response.content(file_id) as reply:
                async for piece in reply.iter_bytes():
                    to.write(piece)
        except (openai.APIError, httpx2.HTTPError) as error:
            raise self._failed(error) from error
        return to.tell()

    async def _pages(
        self, listed: Callable[..., Awaitable[Any]], **more: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Yields every object of a list, newest first where the endpoint sorts as OpenAI does."""
        while True:
            page = await self._json_of(listed(limit=PAGE, **more))
            objects = page.get("data") if isinstance(page, dict) else page
            if not isinstance(objects, list) or not objects:
                return
            for each in objects:
                if isinstance(each, dict):
                    yield each
            last = objects[-1].get("id") if isinstance(objects[-1], dict) else None
            if not (isinstance(page, dict) and page.get("has_more")) or more.get("after") == last:
                return
            more["after"] = last

    async def _json_of(self, call: Awaitable[Any]) -> Any:
        """Returns the JSON of a call's reply; ``None`` where it is not JSON."""
        try:
            reply = await call
        except openai.APIError as error:
            raise self._failed(error) from error
        try:
            return orjson.loads(reply.content)
        except orjson.JSONDecodeError:
            return None

    def _remote(self, data: Any) -> RemoteBatch:
        """Reads a batch object of any dialect."""
        if isinstance(data, dict) and "id" not in data and isinstance(data.get("job"), dict):
            data = data["job"]
        status = str(self._field(data, "status")).lower()
        counts = data.get("request_counts")
        counts = counts if isinstance(counts, dict) else {}
        metadata = data.get("metadata")
        errors = data.get("errors")
        listed = errors.get("data") if isinstance(errors, dict) else errors
        return RemoteBatch(
            id=str(self._field(data, "id")),
            status=_OTHER_SPELLINGS.get(status, status),
            name=metadata.get(NAME) if isinstance(metadata, dict) else None,
            input_file_id=data.get("input_file_id") or None,
            output_file_id=data.get("output_file_id") or None,
            error_file_id=data.get("error_file_id") or None,
            total=_count(counts.get("total")),
            completed=_count(counts.get("completed")),
            failed=_count(counts.get("failed")),
            errors=tuple(self._mask.value(each) for each in listed if isinstance(each, dict))
            if isinstance(listed, list)
            else (),
        )

    def _failed(self, error: Exception) -> CallFailed:
        """Classifies a failure as a chat request's; a call that was sent and has no reply may have succeeded."""
        if isinstance(error, openai.APIStatusError):
            headers = {name.lower(): value for name, value in error.response.headers.items()}
            response = Response(error.status_code, headers, error.response.content, 0.0)
            return CallFailed(classify(self._mask.reply(response)), error.status_code)
        cause = error.__cause__ or error
        words = one_line(f"{error}: {cause}" if cause is not error else str(error))
        unknown = FailureKind.RESET, Paid.MAYBE, self._mask.text(words)
        kind, paid, message = meaning(error, self._destination) or unknown
        return CallFailed(classify(Failure(kind, message, paid, 0.0)), None)

    def _field(self, data: Any, name: str) -> Any:
        if isinstance(data, dict) and data.get(name):
            return data[name]
        message = (
            f"{self._sdk.base_url} answered with something that is no file and no batch (it has no {name})"
        )
        raise CallFailed(classify(Failure(FailureKind.CUT, message, Paid.MAYBE, 0.0)), None)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
