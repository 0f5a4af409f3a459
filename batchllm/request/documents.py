"""The text of a row that is in a file: a document that is the input, or one that a column names (``--text-from``)."""

from collections import OrderedDict
from pathlib import Path

from batchllm.document_reader import MAX_BYTES, DocumentError
from batchllm.errors import InputError, StorageFailure
from batchllm.formats.document_text import document_text
from batchllm.formats.documents import identity
from batchllm.formats.files import input_file
from batchllm.formats.input_file import InputFile
from batchllm.job import Job
from batchllm.job.texts import are_documents
from batchllm.job.values import location
from batchllm.records import Row
from batchllm.request.local_files import LocalFiles, short
from batchllm.request.outcome import InvalidRow
from batchllm.template import TEXT

_REMEMBERED_CHARACTERS = 16_000_000


class Documents:
    """Reads the texts of rows, and remembers the last ones.

    Args:
        job: Its ``text_from`` is set. Where its input is a document, the user named the file; otherwise a cell did, and
            only a file under the job's ``media_root`` is read.

    Attributes:
        column: The column that names the file.
    """

    def __init__(self, job: Job) -> None:
        assert job.text_from is not None, "the texts are in files"
        self.column = job.text_from
        self._is_input = are_documents(job.inputs, job.input_format)
        self._encoding = job.encoding if self._is_input else None
        self._local = LocalFiles(job.media_root, "document", MAX_BYTES)
        self._remembered: OrderedDict[str, str | InvalidRow] = OrderedDict()
        self._characters = 0

    def name(self, row: Row) -> str | None:
        """Returns the name of a row's file; ``None`` where the row names none."""
        value = row.values.get(self.column)
        return None if value is None else str(value).strip() or None

    def subject(self, name: str) -> bytes:
        """Returns what identifies a file in the life of the job."""
        return identity(name) if self._is_input else name.encode("utf-8", "surrogateescape")

    def text(self, row: Row, name: str) -> str:
        """Returns the text of a row's file.

        Raises:
            InvalidRow: It cannot be read, or it has no text.
        """
        found = self._remembered.get(name)
        if found is None:
            found = self._remembered[name] = self._read(row, name)
            self._characters += len(str(found))
            while self._characters > _REMEMBERED_CHARACTERS and len(self._remembered) > 1:
                _, oldest = self._remembered.popitem(last=False)
                self._characters -= len(str(oldest))
        if isinstance(found, InvalidRow):
            raise InvalidRow(found.reason, str(found))
        return found

    def _read(self, row: Row, name: str) -> str | InvalidRow:
        try:
            return document_text(self._content(row, name), Path(name).suffix.lower(), self._encoding)
        except DocumentError as error:
            return InvalidRow("document", f"the document {short(name)} {error}")
        except InvalidRow as error:
            return error

    def _content(self, row: Row, name: str) -> bytes:
        if not self._is_input:
            return self._local.read(name)
        file = row.origin if isinstance(row.origin, InputFile) else input_file(location(name), name)
        content = bytearray()
        try:
            for chunk in file.chunks():
                content += chunk
                if len(content) > MAX_BYTES:
                    break
        except (InputError, StorageFailure) as error:
            raise InvalidRow("document", f"the document {error}") from None
        return bytes(content)

    def filled(self, row: Row) -> Row:
        """Returns a row with its text, which is empty where the row names no file.

        Raises:
            InvalidRow: The file cannot be read, or it has no text.
        """
        if TEXT in row.values:
            return row
        name = self.name(row)
        return with_text(row, "" if name is None else self.text(row, name))


def with_text(row: Row, text: str) -> Row:
    """Returns a row with a text."""
    return row._replace(values={**row.values, TEXT: text})
