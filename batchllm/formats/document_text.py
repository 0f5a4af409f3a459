"""The text of a document: PDF (pypdf), DOCX (python-docx), HTML, and plain text such as Markdown.

PDF and DOCX are read in a process of their own, with limits of time and memory, because both can be made so that their
reading does not end or fills the memory.
"""

import codecs
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import groupby
from operator import itemgetter

from batchllm.document_reader import LIMIT_S, MAX_BYTES, NO_TEXT, DocumentError
from batchllm.errors import InputError
from batchllm.formats.content import foreign_bytes
from batchllm.formats.encodings import BYTE_ORDER_MARKS, marked_codec

READER = "batchllm.document_reader"
_PDF, _ZIP = b"%PDF-", b"PK\3\4"
_HEAD_BYTES = 1 << 20
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_MEANT = {
    "iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932",
    "euc_kr": "cp949", "big5": "big5hkscs", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
}  # fmt: skip
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
        is_text = b"\0" not in content[:_HEAD_BYTES] and not content.startswith(b"PK")
        found = (foreign or ("is text" if is_text else "is damaged")).partition(";")[0]
        what = f"{found} and no {suffix[1:].upper()}" if suffix in (".pdf", ".docx") else found
        if content.startswith(_PDF):
            raise DocumentError(f"{what}; name it .pdf")
        raise DocumentError(f"{what}; documents are PDF, DOCX, HTML, Markdown and plain text")
    is_marked = content.startswith(tuple(mark for mark, _ in BYTE_ORDER_MARKS))
    if encoding is None and is_html and not is_marked and (declared := _META.search(content[:4096])):
        encoding = _declared(declared[1].decode("ascii"))
    try:
        bom, codec = marked_codec("the document", content[:_HEAD_BYTES], encoding)
    except InputError as error:
        raise DocumentError(error.reason) from None
    try:
        text = content[len(bom) :].decode(codec)
    except UnicodeDecodeError as error:
        raise DocumentError(
            f"is not {codec.upper()} at byte {error.start + len(bom):,}; save it as UTF-8 (iconv -t utf-8)"
        ) from None
    return html_text(text) if is_html else text


def _declared(encoding: str) -> str | None:
    """What a page means by the encoding that it declares, as browsers do (WHATWG Encoding); ``None`` is UTF-8."""
    try:
        codec = codecs.lookup(encoding).name
        "".encode(codec)
    except LookupError:
        return None
    return None if codec.startswith(("utf-16", "utf-32")) else _MEANT.get(codec, codec)


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
    """Collects what a browser shows: no scripts, no styles, nothing hidden; a line for each block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[tuple[bool, str]] = []  # whether blanks count, and a text
        self._hidden: list[str] = []
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden and _ends_unsaid(self._hidden[0], tag):
            self._hidden.clear()
        is_hidden = tag in _HIDDEN or bool(self._hidden) or _says_hidden(attrs)
        if is_hidden and tag not in _WITHOUT_END:
            self._hidden.append(tag)
        elif is_hidden:
            return
        elif tag in _BLOCKS:
            self.parts.append((False, "\n"))
        elif tag in ("td", "th"):
            self.parts.append((False, "\t"))
        self._preformatted += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            while self._hidden.pop() != tag:
                pass
        elif self._hidden and self._hidden[0] in _END_UNSAID and tag not in _WITHOUT_END:
            self._hidden.clear()  # what surrounds it ends
        if not self._hidden and tag in _BLOCKS:
            self.parts.append((False, "\n"))
        self._preformatted -= tag == "pre" and self._preformatted > 0

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            is_pre = self._preformatted > 0
            self.parts.append((is_pre, data if is_pre else _BLANKS.sub(" ", data)))


def _says_hidden(attrs: list[tuple[str, str | None]]) -> bool:
    """Whether an element's own attributes hide it."""
    given = dict(attrs)
    return "hidden" in given or _NO_DISPLAY.search(given.get("style") or "") is not None


def _ends_unsaid(open_tag: str, tag: str) -> bool:
    """Whether an element whose end tag may be left out ends where another one begins."""
    if open_tag == "p":
        return tag in _BLOCKS
    return open_tag in _END_UNSAID and tag in _END_UNSAID[open_tag]


_NO_DISPLAY = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)\b", re.IGNORECASE)
_END_UNSAID: dict[str, frozenset[str]] = {
    "p": frozenset(),
    "li": frozenset({"li"}),
    "dt": frozenset({"dt", "dd"}),
    "dd": frozenset({"dt", "dd"}),
    "tr": frozenset({"tr"}),
    "td": frozenset({"td", "th", "tr"}),
    "th": frozenset({"td", "th", "tr"}),
    "option": frozenset({"option"}),
}
_WITHOUT_END = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"}
)
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
    runs = (
        (is_pre, "".join(text for _, text in parts)) for is_pre, parts in groupby(parser.parts, itemgetter(0))
    )
    shown = "".join(text if is_pre else "\n".join(map(str.strip, text.split("\n"))) for is_pre, text in runs)
    return re.sub(r"\n{3,}", "\n\n", shown).strip("\n")
