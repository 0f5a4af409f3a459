"""Files and batches of an endpoint: each call once, its answer as data, its failure as a verdict.

Nothing is tried again here, and nothing is held whole in memory. Answers are read from their JSON, not from the
SDK's models, because compatibles differ: statuses in capitals, file ids that are an empty string, counts that
are missing. A batch is found again by the name in its metadata or, where an endpoint keeps no metadata, by the
file that it was made of.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import IO, Any

import httpx2
import openai
import orjson

from batchllm.records import Failure, FailureKind, Paid, Response
from batchllm.retry import Verdict, classify

NAME = "batchllm"
"""The key of a batch's metadata that holds our name for it."""

PAGE = 100
SLACK_S = 86_400.0
"""How much older than its intent a file may look before a search for it gives up: clocks differ."""

FINAL = frozenset({"completed", "failed", "expired", "cancelled"})
_OTHER_SPELLINGS = {"canceled": "cancelled", "canceling": "cancelling", "timeout_exceeded": "expired"}


class CallFailed(Exception):
    """A call brought no success.

    Attributes:
        verdict: What that means, as for a chat request; ``disposition`` ``UNKNOWN``: it may have worked all the same.
        status: HTTP status; ``None`` where no HTTP answer came.
    """

    def __init__(self, verdict: Verdict, status: int | None) -> None:
        self.verdict = verdict
        self.status = status
        super().__init__(verdict.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBatch:
    """A batch as the endpoint shows it.

    Attributes:
        id: The endpoint's name for it.
        status: In lower case, as OpenAI spells it.
        name: Our name for it, from its metadata; ``None`` where the endpoint keeps none.
        input_file_id: The file that it was made of.
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
        """Whether it will not change any more."""
        return self.status in FINAL


class BatchApi:
    """The calls that a batch needs; every one raises ``CallFailed``.

    Args:
        sdk: The SDK's client, its retries off.
    """

    def __init__(self, sdk: openai.AsyncOpenAI) -> None:
        self._sdk = sdk

    async def upload(self, file: IO[bytes], filename: str) -> str:
        """Uploads a file of requests from its beginning, in pieces; returns the file's id."""
        file.seek(0)
        data = await _json_of(
            lambda: self._sdk.files.with_raw_response.create(file=(filename, file), purpose="batch")
        )
        return str(_field(data, "id", self._sdk))

    async def create(self, file_id: str, *, endpoint: str, window: str, name: str) -> RemoteBatch:
        """Creates a batch that carries a name."""
        data = await _json_of(
            lambda: self._sdk.batches.with_raw_response.create(
                input_file_id=file_id,
                endpoint=endpoint,  # type: ignore[arg-type]  # Azure has its own, and so may others
                completion_window=window,  # type: ignore[arg-type]  # Groq has longer ones
                metadata={NAME: name},
            )
        )
        return self._remote(data)

    async def retrieve(self, batch_id: str) -> RemoteBatch:
        """How a batch is now; ``CallFailed.status`` is 404 where there is none."""
        return self._remote(await _json_of(lambda: self._sdk.batches.with_raw_response.retrieve(batch_id)))

    async def cancel(self, batch_id: str) -> RemoteBatch:
        """Asks a batch to stop."""
        return self._remote(await _json_of(lambda: self._sdk.batches.with_raw_response.cancel(batch_id)))

    async def find(self, name: str, file_id: str | None) -> RemoteBatch | None:
        """The batch that carries a name, or was made of a file; ``None`` where there is none.

        Args:
            name: Our name for it.
            file_id: The file; uploaded for this batch alone.

        The whole list is looked through, because a batch that is overlooked would be made and paid twice.
        """
        async for data in self._pages(self._sdk.batches.with_raw_response.list):
            found = self._remote(data)
            if found.name == name or (file_id is not None and found.input_file_id == file_id):
                return found
        return None

    async def find_file(self, filename: str, since: float) -> tuple[str, int | None] | None:
        """Id and size of the file of that name that was uploaded for batches; ``None`` where there is none."""
        async for data in self._pages(self._sdk.files.with_raw_response.list, purpose="batch"):
            if data.get("filename") == filename:
                return str(data.get("id")), _count(data.get("bytes"))
            created_at = data.get("created_at")
            if isinstance(created_at, (int, float)) and created_at < since - SLACK_S:
                return None
        return None

    async def delete_file(self, file_id: str) -> None:
        """Deletes a file."""
        await _json_of(lambda: self._sdk.files.with_raw_response.delete(file_id))

    async def has_file(self, file_id: str) -> bool:
        """Whether the endpoint has a file."""
        try:
            await _json_of(lambda: self._sdk.files.with_raw_response.retrieve(file_id))
        except CallFailed as failed:
            if failed.status == 404:
                return False
            raise
        return True

    async def download(self, file_id: str, to: IO[bytes]) -> int:
        """Writes a file's content into another, in pieces; returns its size."""
        to.seek(0)
        to.truncate()
        try:
            async with self._sdk.files.with_streaming_response.content(file_id) as reply:
                async for piece in reply.iter_bytes():
                    to.write(piece)
        except (openai.APIError, httpx2.HTTPError) as error:
            raise _failed(error) from error
        return to.tell()

    async def _pages(
        self, listed: Callable[..., Awaitable[Any]], **more: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Every object of a list, newest first where the endpoint sorts as OpenAI does."""
        while True:
            page = await _json_of(lambda more=more: listed(limit=PAGE, **more))  # type: ignore[misc]
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

    def _remote(self, data: Any) -> RemoteBatch:
        """Reads a batch object of any dialect."""
        if isinstance(data, dict) and "id" not in data and isinstance(data.get("job"), dict):
            data = data["job"]
        status = str(_field(data, "status", self._sdk)).lower()
        counts = data.get("request_counts")
        counts = counts if isinstance(counts, dict) else {}
        metadata = data.get("metadata")
        errors = data.get("errors")
        listed = errors.get("data") if isinstance(errors, dict) else errors
        return RemoteBatch(
            id=str(_field(data, "id", self._sdk)),
            status=_OTHER_SPELLINGS.get(status, status),
            name=metadata.get(NAME) if isinstance(metadata, dict) else None,
            input_file_id=data.get("input_file_id") or None,
            output_file_id=data.get("output_file_id") or None,
            error_file_id=data.get("error_file_id") or None,
            total=_count(counts.get("total")),
            completed=_count(counts.get("completed")),
            failed=_count(counts.get("failed")),
            errors=tuple(each for each in listed if isinstance(each, dict))
            if isinstance(listed, list)
            else (),
        )


async def _json_of(call: Callable[[], Awaitable[Any]]) -> Any:
    """What a call answered, as data."""
    try:
        reply = await call()
    except openai.APIError as error:
        raise _failed(error) from error
    try:
        return orjson.loads(reply.content)
    except orjson.JSONDecodeError:
        return None


def _failed(error: Exception) -> CallFailed:
    """A failure, read as a chat request's would be; no answer to a call that had left means: not known."""
    if isinstance(error, openai.APIStatusError):
        headers = {name.lower(): value for name, value in error.response.headers.items()}
        response = Response(error.status_code, headers, error.response.content, 0.0)
        return CallFailed(classify(response), error.status_code)
    cause = error.__cause__ or error
    connecting = type(cause).__name__ in ("ConnectError", "ConnectTimeout")
    kind = FailureKind.CONNECT if connecting else FailureKind.RESET
    words = f"{error}: {cause}" if cause is not error else str(error)
    failure = Failure(kind, words, Paid.NO if connecting else Paid.MAYBE, 0.0)
    return CallFailed(classify(failure), None)


def _field(data: Any, name: str, sdk: openai.AsyncOpenAI) -> Any:
    if isinstance(data, dict) and data.get(name):
        return data[name]
    message = f"{sdk.base_url} answered with something that is no file and no batch (it has no {name})"
    failure = Failure(FailureKind.CUT, message, Paid.MAYBE, 0.0)
    raise CallFailed(classify(failure), None)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
