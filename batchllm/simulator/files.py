"""The files endpoint: uploads go to a folder on disk, never through memory whole."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from aiohttp import BodyPartReader, web

from batchllm.simulator.problem import ApiError

PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
_PIECE = 1 << 18
_MONTH_S = 30 * 86_400  # OpenAI's term for files of batches


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file on the server.

    Attributes:
        id: ``file-…``.
        path: Where its bytes are.
        filename: What the uploader called it.
        purpose: ``batch``, ``batch_output``, …
        bytes: Its size.
        created_at: Seconds since the epoch.
    """

    id: str
    path: Path
    filename: str
    purpose: str
    bytes: int
    created_at: int

    def object(self) -> dict[str, Any]:
        """The file object of the API."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.created_at + _MONTH_S if self.purpose.startswith("batch") else None,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class FileStore:
    """The files of one server, in one folder."""

    def __init__(self, folder: Path, largest: int) -> None:
        self._folder = folder
        self._largest = largest
        self._files: dict[str, StoredFile] = {}
        self._number = 0

    def __getitem__(self, file_id: str) -> StoredFile:
        """The file of that id.

        Raises:
            ApiError: 404, there is none.
        """
        try:
            return self._files[file_id]
        except KeyError:
            raise ApiError(404, f"No such File object: {file_id}", param="id") from None

    def all(self, purpose: str | None = None) -> list[dict[str, Any]]:
        """File objects, newest first."""
        found = (file for file in reversed(self._files.values()) if purpose in (None, file.purpose))
        return [file.object() for file in found]

    def open(self) -> tuple[Path, BinaryIO]:
        """A new file to write into, not listed yet."""
        self._number += 1
        path = self._folder / f"{self._number:06}"
        return path, path.open("wb")

    def add(self, path: Path, filename: str, purpose: str) -> StoredFile:
        """List a file that was written."""
        file = StoredFile(
            f"file-simulator{path.name}", path, filename, purpose, path.stat().st_size, int(time.time())
        )
        self._files[file.id] = file
        return file

    def delete(self, file_id: str) -> dict[str, Any]:
        """Take a file off the list; its bytes stay with the server for batches that read them."""
        del self._files[self[file_id].id]
        return {"id": file_id, "object": "file", "deleted": True}

    async def upload(self, request: web.BaseRequest) -> StoredFile:
        """Receive a multipart form with ``purpose`` and ``file``.

        Raises:
            ApiError: The form is not what the endpoint takes, or the file is too large.
        """
        if not request.content_type.startswith("multipart/"):
            raise ApiError(400, "The request must be multipart/form-data with 'file' and 'purpose'.")
        fields: dict[str, str] = {}
        path: Path | None = None
        filename = "upload"
        try:
            async for part in await request.multipart():
                if not isinstance(part, BodyPartReader):
                    continue
                if part.name == "file":
                    filename = part.filename or filename
                    path = await self._receive(part)
                else:
                    fields[part.name or ""] = (await part.read(decode=True)).decode("utf-8", "replace")
            return self.add(_checked(path, fields, filename), filename, fields["purpose"])
        except BaseException:
            if path is not None:
                path.unlink(missing_ok=True)
            raise

    async def _receive(self, part: BodyPartReader) -> Path:
        path, sink = self.open()
        size = 0
        with sink:
            while piece := await part.read_chunk(_PIECE):
                size += len(piece)
                if size > self._largest:
                    path.unlink()
                    raise ApiError(
                        413,
                        f"File is too large: at most {self._largest} bytes.",
                        "file_too_large",
                        param="file",
                    )
                sink.write(piece)
        return path


def _checked(path: Path | None, fields: Mapping[str, str], filename: str) -> Path:
    if path is None:
        raise ApiError(400, "Missing required parameter: 'file'.", "missing_required_parameter", param="file")
    if "purpose" not in fields:
        raise ApiError(
            400, "Missing required parameter: 'purpose'.", "missing_required_parameter", param="purpose"
        )
    if fields["purpose"] not in PURPOSES:
        listed = ", ".join(f"'{purpose}'" for purpose in PURPOSES)
        raise ApiError(400, f"'{fields['purpose']}' is not one of [{listed}] - 'purpose'", param="purpose")
    if fields["purpose"] == "batch" and not filename.endswith(".jsonl"):
        raise ApiError(400, "Invalid file format for Batch API. Must be .jsonl", param="file")
    return path


def paged(objects: list[dict[str, Any]], query: Mapping[str, str], default: int) -> dict[str, Any]:
    """One page of a list by the query's ``after`` and ``limit``.

    Raises:
        ApiError: 400, the limit is no number from 1 to 10,000.
    """
    limit = query.get("limit", str(default))
    if not limit.isdigit() or not 1 <= int(limit) <= 10_000:
        raise ApiError(
            400, f"Invalid 'limit': expected an integer from 1 to 10000, but got {limit}.", param="limit"
        )
    start = 0
    if after := query.get("after"):
        start = next((at + 1 for at, each in enumerate(objects) if each["id"] == after), len(objects))
    page = objects[start : start + int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + len(page) < len(objects),
    }
