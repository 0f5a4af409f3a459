"""The files endpoint: uploads go to a folder on disk, never through memory whole."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from aiohttp import BodyPartReader, web

from batchllm.simulator.errors import ApiError, missing, unsupported

PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
_CHUNK_BYTES = 1 << 18
_MONTH_S = 30 * 86_400  # after which OpenAI deletes files of batches


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file on the server: the object that the API shows, and where its bytes are."""

    state: dict[str, Any]
    path: Path


class FileStore:
    """The files of one server, in one folder."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._files: dict[str, StoredFile] = {}
        self._number = 0

    def __getitem__(self, file_id: str) -> StoredFile:
        if file_id not in self._files:
            raise ApiError(404, f"No such File object: {file_id}", param="id")
        return self._files[file_id]

    def states(self, purpose: str | None = None) -> list[dict[str, Any]]:
        """Returns file objects, newest first."""
        states = (file.state for file in reversed(self._files.values()))
        return [state for state in states if purpose in (None, state["purpose"])]

    def open(self) -> tuple[Path, BinaryIO]:
        """Opens a new file to write into, not listed yet."""
        self._number += 1
        path = self._folder / f"{self._number:06}"
        return path, path.open("wb")

    def add(self, path: Path, filename: str, purpose: str) -> dict[str, Any]:
        """Lists a file that was written."""
        now = int(time.time())
        state: dict[str, Any] = {
            "id": f"file-simulator{path.name}",
            "object": "file",
            "bytes": path.stat().st_size,
            "created_at": now,
            "expires_at": now + _MONTH_S if purpose.startswith("batch") else None,
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
        }
        self._files[state["id"]] = StoredFile(state, path)
        return state

    def delete(self, file_id: str) -> dict[str, Any]:
        """Takes a file off the list; its bytes stay on the disk for batches that read them."""
        del self._files[self[file_id].state["id"]]
        return {"id": file_id, "object": "file", "deleted": True}

    async def upload(self, request: web.BaseRequest) -> dict[str, Any]:
        """Receives a multipart form with ``purpose`` and ``file``.

        Raises:
            ApiError: The form is not what the endpoint takes, or the file is too large.
        """
        if not request.content_type.startswith("multipart/"):
            raise ApiError(400, "The request must be multipart/form-data with 'file' and 'purpose'.")
        purpose: str | None = None
        path: Path | None = None
        filename = ""
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.name == "file":
                filename = part.filename or "upload"
                path = await self._receive(part)
            elif isinstance(part, BodyPartReader) and part.name == "purpose":
                purpose = (await part.read(decode=True)).decode("utf-8", "replace")
        if path is None:
            raise missing("file")
        if purpose not in PURPOSES:
            raise unsupported("purpose", purpose, PURPOSES)
        if purpose == "batch" and not filename.endswith(".jsonl"):
            raise ApiError(400, "Invalid file format for Batch API. Must be .jsonl", param="file")
        return self.add(path, filename, purpose)

    async def _receive(self, part: BodyPartReader) -> Path:
        path, sink = self.open()
        size = 0
        with sink:
            while chunk := await part.read_chunk(_CHUNK_BYTES):
                size += len(chunk)
                if size > self._max_bytes:
                    message = f"File is too large: at most {self._max_bytes} bytes."
                    raise ApiError(413, message, "file_too_large", param="file")
                sink.write(chunk)
        return path


def page_of(objects: list[dict[str, Any]], query: Mapping[str, str], default: int) -> dict[str, Any]:
    """Returns one page of a list by the query's ``after`` and ``limit``.

    Raises:
        ApiError: 400, the limit is no number above 0.
    """
    limit = query.get("limit", str(default))
    if not limit.isdigit() or int(limit) == 0:
        raise ApiError(400, f"Invalid 'limit': expected an integer, but got {limit}.", param="limit")
    identities = [each["id"] for each in objects]
    start = identities.index(query["after"]) + 1 if query.get("after") in identities else 0
    page = objects[start : start + int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + len(page) < len(objects),
    }
