"""Turns image cells into URLs: web and data URLs unchanged, local files from one folder only.

A table may come from anywhere, so a cell must not be able to send ``/etc/passwd`` to an endpoint. A local file is
read only under ``--media-root``: its real path must lie in that folder, each part of the path is opened without
following links (so a link created after the check has no effect), it must be a regular file of at most
``MAX_BYTES``, and it must begin like an image.
"""

import base64
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchllm.request.outcome import InvalidRow

MAX_BYTES = 20_000_000
_AS_THEY_ARE = re.compile(r"(?:https?://|data:)", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NO_FOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

# Tokens of an image in the estimate, as OpenAI counts them: low detail is fixed; for the others, whose size is
# unknown, a square of 1024 pixels at high detail stands in.
LOW_TOKENS = 85
HIGH_TOKENS = 765


class Media:
    """Turns image cells into URLs.

    Args:
        root: The folder that local files may come from; ``None`` allows none.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = None if root is None else os.path.realpath(root)

    def url(self, cell: str) -> str:
        """Returns the URL to send for a cell: the cell itself, or a data URL with the file's content.

        Raises:
            InvalidRow: It is neither a web nor a data URL nor an image under the root.
        """
        text = cell.strip()
        if _AS_THEY_ARE.match(text):
            return text
        scheme = _SCHEME.match(text)
        if scheme or "://" in text:
            name = scheme.group() if scheme else text[:20]
            raise InvalidRow(
                "image",
                f"the image {_short(text)} has the scheme {name}; only http(s) and data URLs are sent",
            )
        if self._root is None:
            raise InvalidRow(
                "image", f"the image {_short(text)} is a local file; --media-root DIR says where they may be"
            )
        content = self._content(text)
        kind = image_kind(content)
        if kind is None:
            raise InvalidRow("image", f"the image {_short(text)} is not PNG, JPEG, GIF or WebP")
        return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"

    def part(self, cell: str, detail: str) -> dict[str, Any]:
        """Returns the content part for a cell."""
        return {"type": "image_url", "image_url": {"url": self.url(cell), "detail": detail}}

    def _content(self, text: str) -> bytes:
        assert self._root is not None
        try:
            real = os.path.realpath(os.path.join(self._root, text))  # noqa: PTH118 - text may be anything
            inside = os.path.relpath(real, self._root)
            if os.path.commonpath((real, self._root)) != self._root or inside == ".":
                raise InvalidRow(
                    "image", f"the image {_short(text)} lies outside of --media-root {self._root}"
                )
            content = _read(_open_beneath(self._root, Path(inside).parts), text)
        except (OSError, ValueError) as error:
            if isinstance(error, InvalidRow):
                raise
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
            raise InvalidRow("image", f"the image {_short(text)} cannot be read: {reason}") from error
        if len(content) > MAX_BYTES:
            raise InvalidRow("image", f"the image {_short(text)} is larger than {MAX_BYTES // 1_000_000} MB")
        return content


def image_kind(content: bytes) -> str | None:
    """Returns the subtype of ``image/…`` by the first bytes; ``None`` for kinds that endpoints do not accept."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if content.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return None


def _open_beneath(root: str, names: Sequence[str]) -> int:
    """Opens the file from the root down; fails where a part of the path is a link."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names[:-1]:
            inner = os.open(name, _NO_FOLLOW | os.O_DIRECTORY, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(names[-1], _NO_FOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


def _read(descriptor: int, text: str) -> bytes:
    """Reads a regular file, at most one byte more than allowed; closes the descriptor."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InvalidRow("image", f"the image {_short(text)} is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def image_tokens(part: dict[str, Any]) -> int:
    """Returns the tokens of an image part for the estimate."""
    image = part.get("image_url")
    return LOW_TOKENS if isinstance(image, dict) and image.get("detail") == "low" else HIGH_TOKENS


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:79] + "…")
