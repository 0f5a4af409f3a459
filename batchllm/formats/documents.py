"""Documents as inputs: each file is one row, with its name in the column ``file``.

The text is read when the row is asked (``request.documents``), and is not in the output.
"""

import hashlib
import os
from collections.abc import Iterator

from batchllm.formats.format import Format, Source
from batchllm.formats.input_file import InputFile
from batchllm.formats.scan import InputStatistics
from batchllm.records import Row

FILE = "file"
"""The column with the name of a document."""


class DocumentSource(Source):
    """A document.

    Args:
        file: The file.
        suffix: Its suffix.
        encoding: The encoding of text; used where the text is read.
    """

    kind = "pdf"

    def __init__(self, file: InputFile, suffix: str, encoding: str | None = None) -> None:
        super().__init__(file)
        self._suffix = suffix
        self._encoding = encoding
        self.columns = (FILE,)

    def scan(self) -> InputStatistics:
        """Reads nothing; see ``Source``. The name identifies the input, since a text is kept once it is read."""
        rows = tuple(self.rows())
        return InputStatistics(1, 0, self.digest(), self.columns, rows)

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Yields the one row; see ``Source``."""
        if start == 0:
            row = Row(0, 1, {}, self.file)
            yield row._replace(values={FILE: self.file_of(row)})
        self._digest = hashlib.sha256(identity(self.name)).hexdigest()

    def reading(self) -> str:
        """Returns what the text depends on beside the file; see ``Source``."""
        return self._encoding or ""

    def describe(self) -> str:
        """Returns the format."""
        return f"a {self._suffix.removeprefix('.').upper()} document"


def identity(name: str) -> bytes:
    """Returns what identifies a document in the life of a job: its absolute path, or its URL."""
    path = name if "://" in name else os.path.abspath(name)  # noqa: PTH100 - it keeps links
    return path.encode("utf-8", "surrogateescape")


def _format(suffixes: tuple[str, ...], *libraries: str) -> Format:
    return Format(
        suffixes=suffixes,
        source=DocumentSource,
        options=("encoding",),
        output=".csv",
        documents=True,
        libraries=libraries,
        extra="documents" if libraries else "",
    )


FORMATS = (
    _format((".pdf",), "pypdf"),
    _format((".docx",), "docx"),
    _format((".html", ".htm", ".md", ".txt")),
)
