"""The files endpoint: uploads go to a folder on disk."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from batchllm.simulator.errors import ApiError, missing

_MONTH_S = 30 * 86_400  # after which OpenAI deletes files of batches


class FileStore:
    """The files of one server, in one folder, each under its id."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._files: dict[str, dict[str, Any]] = {}
        self._number = 0

    def __getitem__(self, file_id: str) -> dict[str, Any]:
        if file_id not in self._files:
            raise ApiError(404, f"No such File object: {file_id}", param="id")
        return self._files[file_id]

    def path(self, file_id: str) -> Path:
        """Returns where the bytes of a file are.

        Raises:
            ApiError: 404, there is no such file.
        """
        return self._folder / str(self[file_id]["id"])

    def listed(self) -> list[dict[str, Any]]:
        """Returns file objects, newest first."""
        return list(reversed(self._files.values()))

    def new_path(self) -> Path:
        """Returns a path to write a file to, which ``add`` lists."""
        self._number += 1
        return self._folder / f"file-simulator{self._number:06}"

    def add(self, path: Path, filename: str, purpose: str) -> dict[str, Any]:
        """Lists a file that was written, and returns its object."""
        now = int(time.time())
        self._files[path.name] = {
            "id": path.name,
            "object": "file",
            "bytes": path.stat().st_size,
            "created_at": now,
            "expires_at": now + _MONTH_S,
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
        }
        return self._files[path.name]

    def delete(self, file_id: str) -> dict[str, Any]:
        """Takes a file off the list; its bytes stay on the disk for batches that read them."""
        del self._files[self[file_id]["id"]]
        return {"id": file_id, "object": "file", "deleted": True}

    async def upload(self, request: web.BaseRequest) -> dict[str, Any]:
        """Receives a multipart form with ``purpose`` and ``file``, which may be larger than memory.

        Raises:
            ApiError: The form is not what the endpoint takes, or the file is too large.
        """
        form = await request.post()
        upload, purpose = form.get("file"), form.get("purpose")
        if not isinstance(upload, web.FileField):
            raise missing("file")
        if purpose != "batch" or not upload.filename.endswith(".jsonl"):
            raise ApiError(400, "Only .jsonl files for the purpose 'batch' are taken.", param="purpose")
        path = self.new_path()
        with path.open("wb") as sink:
            shutil.copyfileobj(upload.file, sink)
        if path.stat().st_size > self._max_bytes:
            message = f"File is too large: at most {self._max_bytes} bytes."
            raise ApiError(413, message, "file_too_large", param="file")
        return self.add(path, upload.filename, purpose)


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
    has_more = start + len(page) < len(objects)
    last_id = page[-1]["id"] if page else None
    return {"object": "list", "data": page, "last_id": last_id, "has_more": has_more}
