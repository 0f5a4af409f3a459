"""Takes the text out of PDF (pypdf) and DOCX (python-docx), as a process of its own too.

It imports nothing of the package, so that the process begins fast.
"""

import os
import resource
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import Any

MAX_BYTES = 200_000_000
"""The largest document that is read, and the largest content of a DOCX file."""

LIMIT_S = 120
_MEMORY_BYTES = 4 << 30
_OFFICE = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


class DocumentError(ValueError):
    """A document has no text that can be read; the message goes on after its name: ``is encrypted; …``."""


NO_TEXT = 9
"""Exit status of the process that reads a document which has no text."""


def read_here(kind: str) -> None:
    """Reads a document from standard input, and writes its text to standard output: the other process's work."""
    for limit, most in ((resource.RLIMIT_AS, _MEMORY_BYTES), (resource.RLIMIT_CPU, LIMIT_S)):
        try:
            resource.setrlimit(limit, (most, most))
        except (ValueError, OSError):  # the system has no such limit, or a lower one holds
            pass
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    content = sys.stdin.buffer.read()
    try:
        text = pdf_text(content) if kind == "pdf" else docx_text(content)
    except DocumentError as error:
        sys.stderr.write(str(error))
        sys.exit(NO_TEXT)
    except MemoryError:
        sys.stderr.write("it takes too much memory")
        sys.exit(1)
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))


def _end_with(parent: int) -> None:
    """Ends this process once nobody waits for the text any more."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def pdf_text(content: bytes) -> str:
    """Returns the text of a PDF, its pages separated by blank lines.

    Raises:
        DocumentError: It is encrypted, damaged, or has no text.
    """
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentError("is encrypted; save it without a password")
        pages = [page.extract_text() for page in reader.pages]
    except (PyPdfError, RecursionError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, DocumentError):
            raise
        if type(error).__name__ == "DependencyError":
            raise DocumentError("is encrypted; save it without a password") from error
        raise DocumentError(f"is a damaged PDF ({str(error)[:200]}); save it again, or as text") from error
    if not any(map(str.strip, pages)):
        raise DocumentError("has no text: its pages are pictures; put them through OCR first (ocrmypdf)")
    return "\n\n".join(page.strip() for page in pages if page.strip())


def docx_text(content: bytes) -> str:
    """Returns the text of a DOCX file: paragraphs and tables in their order, cells separated by tabs.

    Raises:
        DocumentError: It is damaged, too large when unpacked, or has no text.
    """
    from docx import Document

    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size > MAX_BYTES:
            raise DocumentError(f"unpacks to {size / 1e6:,.0f} MB; divide it first")
        body = Document(BytesIO(content)).element.body
    except DocumentError:
        raise
    except Exception as error:  # the library's own, and those of what is in the archive
        if "is not a Word file" in str(error):
            raise DocumentError(
                "is another Office document and no DOCX; save it as .docx, or as text"
            ) from error
        raise DocumentError(
            f"is a damaged Word document ({str(error)[:200]}); save it again, or as text"
        ) from error
    return "\n".join(_blocks(body)).strip()


def _blocks(parent: Any) -> Iterator[str]:
    """The paragraphs and the rows of tables below an element, also within content controls."""
    for element in parent:
        name = _name(element)
        if name == "p":
            yield "".join(_runs(element))
        elif name == "tr":
            cells = (child for child in element.iter(f"{{{_OFFICE}}}tc") if _row_of(child) is element)
            yield "\t".join(" ".join(" ".join(_blocks(cell)).split()) for cell in cells)
        elif name in ("tbl", "sdt", "sdtContent", "customXml", "ins", "moveTo"):
            yield from _blocks(element)


def _row_of(cell: Any) -> Any:
    parent = cell.getparent()
    while parent is not None and _name(parent) != "tr":
        parent = parent.getparent()
    return parent


def _runs(parent: Any) -> Iterator[str]:
    """The text of a paragraph, insertions included and deletions not; a text box is not part of it."""
    for element in parent:
        name = _name(element)
        if name == "t":
            yield element.text or ""
        elif name in ("tab", "br", "cr"):
            yield "\t" if name == "tab" else "\n"
        elif name == "noBreakHyphen":
            yield "-"
        elif name not in ("del", "moveFrom", "pPr", "rPr", "Fallback"):
            yield from _runs(element)


def _name(element: Any) -> str:
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""
