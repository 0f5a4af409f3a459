"""Turns image cells into URLs: web and data URLs unchanged, local files from one folder only.

A local file is read only under ``--media-root`` (see ``local_files``), and it must begin like an image.
"""

import base64
import re
from pathlib import Path
from typing import Any

from batchllm.request.local_files import LocalFiles, short
from batchllm.request.outcome import InvalidRow

MAX_BYTES = 20_000_000
_AS_THEY_ARE = re.compile(r"(?:https?://|data:)", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

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
        self._files = LocalFiles(root, "image", MAX_BYTES)

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
                f"the image {short(text)} has the scheme {name}; only http(s) and data URLs are sent",
            )
        content = self._files.read(text)
        kind = image_kind(content)
        if kind is None:
            raise InvalidRow("image", f"the image {short(text)} is not PNG, JPEG, GIF or WebP")
        return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"

    def part(self, cell: str, detail: str) -> dict[str, Any]:
        """Returns the content part for a cell."""
        return {"type": "image_url", "image_url": {"url": self.url(cell), "detail": detail}}


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


def image_tokens(part: dict[str, Any]) -> int:
    """Returns the tokens of an image part for the estimate."""
    image = part.get("image_url")
    return LOW_TOKENS if isinstance(image, dict) and image.get("detail") == "low" else HIGH_TOKENS
