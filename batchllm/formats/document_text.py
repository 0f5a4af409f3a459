"""The text of a document: PDF (pypdf), DOCX (python-docx), HTML, and plain text such as Markdown.

PDF and DOCX are read in a process of their own, with limits of time and memory, because both can be made so that their
reading does not end or fills the memory.
"""

import re
import subprocess
import sys
from html.parser import HTMLParser

from batchllm.document_reader import LIMIT_S, MAX_BYTES, NO_TEXT, DocumentError
from batchllm.formats.content import foreign_bytes
from batchllm.formats.encodings import marked_codec

READER = "batchllm.document_reader"
_PDF, _ZIP = b"%PDF-", b"PK\3\4"
_HEAD_BYTES = 1 << 20
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_BLANKS = re.compile(r"[ \t\r\n\f\v]+")


def document_text(content: bytes, suffix: str, encoding: str | None = None) -> str:
    """Returns the text of a document.

    Args:
        content: The file.
        suffix: Its suffix, which tells HTML from plain text; PDF and DOCX are known by their bytes.
        encoding: The codec of text; ``None`` takes what byte-order mark or ``<meta charset>`` says, or UTF-8.

    Raises:
        DocumentError: There is no text in it, or it cannot be read.
        UsageError: There is no such encoding.
    """
    head = content[:_HEAD_BYTES]
    if not content.strip():
        raise DocumentError("is empty")
    if len(content) > MAX_BYTES:
        raise DocumentError(f"has more than {MAX_BYTES // 1_000_000} MB; divide it first")
    if _PDF in head[:1024] and not suffix.startswith((".txt", ".md", ".htm")):
        text = _read_apart("pdf", content)
    elif head.startswith(_ZIP) and suffix == ".docx":
        text = _read_apart("docx", content)
    else:
        text = _plain_text(content, suffix, encoding)
    if not text.strip():
        raise DocumentError("has no text")
    return text


def _plain_text(content: bytes, suffix: str, encoding: str | None) -> str:
    is_html = suffix in (".html", ".htm", ".xhtml")
    foreign = foreign_bytes(content[:_HEAD_BYTES], content[-4:])
    if suffix in (".pdf", ".docx") or foreign is not None:
        found = (foreign or "is text").partition(";")[0]
        what = f"{found} and no {suffix[1:].upper()}" if suffix in (".pdf", ".docx") else found
        raise DocumentError(f"{what}; documents are PDF, DOCX, HTML, Markdown and plain text")
    if encoding is None and is_html and (declared := _META.search(content[:4096])):
        encoding = declared[1].decode("ascii")
    bom, codec = marked_codec("the document", content[:_HEAD_BYTES], _known(encoding))
    try:
        text = content[len(bom) :].decode(codec)
    except UnicodeDecodeError as error:
        raise DocumentError(
            f"is not {codec.upper()} at byte {error.start + len(bom):,}; save it as UTF-8 (iconv -t utf-8)"
        ) from None
    return html_text(text) if is_html else text


def _known(encoding: str | None) -> str | None:
    """A declared encoding, unless nobody knows it; browsers take Latin-1 for the Windows code page, and so do pages."""
    if encoding is None or encoding.lower() in ("iso-8859-1", "latin-1", "latin1"):
        return encoding and "cp1252"
    try:
        "".encode(encoding)
    except LookupError:
        return None
    return encoding


def _read_apart(kind: str, content: bytes) -> str:
    """Reads a document in another process, which is ended when it takes too long."""
    words = [sys.executable, "-c", f"from {READER} import read_here; read_here({kind!r})"]
    try:
        done = subprocess.run(words, input=content, capture_output=True, timeout=LIMIT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise DocumentError(f"took more than {LIMIT_S} seconds to read; save it again, or as text") from None
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "replace")
    reason = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    known = done.returncode == NO_TEXT
    raise DocumentError(
        reason if known else f"cannot be read ({reason[:200] or 'too large'}); save it again, or as text"
    )


class _VisibleText(HTMLParser):
    """Collects what a browser shows: no scripts, no styles; a line for each block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden: list[str] = []
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN:
            self._hidden.append(tag)
        elif tag in _BLOCKS:
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append("\t")
        self._preformatted += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            while self._hidden.pop() != tag:
                pass
        elif tag in _BLOCKS:
            self.parts.append("\n")
        self._preformatted -= tag == "pre" and self._preformatted > 0

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data if self._preformatted else _BLANKS.sub(" ", data))


_HIDDEN = frozenset({"script", "style", "template", "noscript", "title"})
_BLOCKS = frozenset(
    {
        "address", "article", "aside", "blockquote", "body", "br", "caption", "dd", "details", "div", "dl", "dt",
        "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr",
        "legend", "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary", "table", "tbody", "tfoot",
        "thead", "tr", "ul",
    }
)  # fmt: skip


def html_text(page: str) -> str:
    """Returns the visible text of an HTML page."""
    parser = _VisibleText()
    parser.feed(page)
    parser.close()
    lines = (line.strip() for line in "".join(parser.parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
