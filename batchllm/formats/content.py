"""Recognizes files whose content is not what their name says, so that nobody pays for the lines of a login page.

Binary kinds are known by their first bytes: some here, with advice of their own, the others by chardet. Text kinds
(HTML, XML, Git LFS pointers, JSON documents, …) are known by how their text begins.
"""

import json
import re
from collections.abc import Callable
from html import unescape

from batchllm.errors import InputError
from batchllm.formats.compression import COMPRESSIONS

_BINARY: tuple[tuple[bytes, str], ...] = (
    (b"\x04\x22\x4d\x18", "is compressed with lz4; unpack it first (lz4cat FILE | batchllm TASK -)"),
    (b"PARE", "is an encrypted Parquet file; decrypt it and save it as CSV or JSONL"),
    (
        b"SQLite format 3\0",
        "is a SQLite database; name it .db, or add --input-format db, with --query 'select …'",
    ),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "is an old Excel workbook, or a Word document; name a workbook .xls, or add --input-format xls",
    ),
    (b"FEA1\0", "is a Feather file; save it as CSV or JSONL"),
    (b"Obj\x01", "is an Avro file; save it as CSV or JSONL"),
    (b"ORC\n", "is an ORC file; save it as CSV or JSONL"),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file; save the table as CSV"),
    (b"\x93NUMPY", "is a NumPy array; save it as CSV"),
    (b"RDX", "is an R data file; save the table with write.csv()"),
    (b"$FL", "is an SPSS file; save it as CSV"),
    (b"<stata_dta>", "is a Stata file; save it as CSV"),
    (b"bplist00", "is a binary property list; save it as CSV or JSONL"),
    (b"%PDF-", "is a PDF document; name it .pdf, or save the table in it as CSV"),
    (b"{\\rtf", "is a rich text document; save it as CSV"),
    (b"%!PS", "is a PostScript document; save the table as CSV"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05][\x80-\x95(\[}\]cX]")
_ZIPPED = (
    ("spreadsheetml", "is an Excel workbook; name it .xlsx, or add --input-format xlsx"),
    ("opendocument.spreadsheet", "is a spreadsheet of LibreOffice; name it .ods, or add --input-format ods"),
    ("wordprocessingml", "is a Word document; name it .docx, or save the table in it as CSV"),
    ("zip", "is a zip archive; unpack it, or add --input-format xlsx if it is an Excel workbook"),
    ("tar", "is a tar archive; unpack it first (tar xf FILE)"),
    ("image/", "is an image; rows that name images are sent with --image COLUMN"),
    ("audio/", "is an audio file; name a table of rows"),
    ("video/", "is a video; name a table of rows"),
    ("parquet", "is a Parquet file; name it .parquet, or add --input-format parquet"),
    ("arrow", "is an Arrow file; save it as CSV or JSONL"),
)
_CONTROLS = bytes({*range(1, 9), *range(14, 27), *range(28, 32), 127})
_SHARE_OF_CONTROLS = 0.01

_GIT_LFS = re.compile(r"version https://(?:git-lfs|hawser)\.github\.com/spec/")
_ANNEX = re.compile(r"/annex/objects/\S+|(?:\.\./)*\.git/annex/objects/\S+")
_DVC = re.compile(r"outs:\s*\n\s*- (?:md5|etag|checksum|hash):")
_HTML = re.compile(
    r"(?:<!--.*?-->\s*|<\?xml[^>]*>\s*)*<(?:!doctype\s+html|(?:html|head|body|meta|title|script|style|table|div|p|h1|br"
    r"|span|center|iframe|form|ul|ol)\b[^>]*>)",
    re.IGNORECASE | re.DOTALL,
)
_XML = re.compile(
    r"<(?:\?xml\s|!doctype\s|!--|[A-Za-z_][\w.:-]*(?:\s+[\w:.-]+\s*=\s*[\"'][^\"'<]*[\"'])*\s*/?>\s*<)", re.I
)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_OBJECT = re.compile(r'\{\s*(?:\}|"(?:[^"\\\n]|\\.)*"\s*:)')
_ARRAY = re.compile(r"\[\s*(?:\{|\[|$)")
_SQL = re.compile(
    r"-- (?:MySQL|MariaDB|PostgreSQL|phpMyAdmin|SQLite|Dump)[^\n]*|PRAGMA \w+\s*=\s*\w+;|"
    r"(?:CREATE TABLE|INSERT INTO|DROP TABLE|BEGIN TRANSACTION)\b[^\n]*[(;]",
    re.IGNORECASE,
)
_DRAWN = re.compile(
    r"\+-[-+]*\+[ \r]*\n[ \t]*\|"  # mysql
    r"|\|[^\n]*\|[ \r]*\n[ \t]*\|[ :|-]*--[ :|-]*\|[ \r]*\n"  # Markdown
    r"|[^\n|]+\|[^\n]*\n-+\+[-+]+[ \r]*\n"  # psql
)
_MAIL = re.compile(r"MIME-Version: 1\.0\r?\n|From: [^\n]*\r?\n(?:Subject|Date|Snapshot-Content-Location): ")
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]+-----|age-encryption\.org/v1")
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, strict=False)
_NOTEBOOK = re.compile(r'\{\s*"(?:cells|nbformat|metadata)"\s*:')


def foreign_bytes(head: bytes, tail: bytes) -> str | None:
    """Returns what a binary file is and what to do, by its first mebibyte and its last bytes; ``None`` for text."""
    for start, reason in _BINARY:
        if head.startswith(start):
            return reason
    if head.startswith(b"PAR1") and tail == b"PAR1":
        return dict(_ZIPPED)["parquet"]
    for compression in COMPRESSIONS.values():
        if compression.begins_with.match(head):
            return f"is compressed with {compression.name}; unpack it first"
    if _PICKLE.match(head):
        return "is a pickle of Python; save the table as CSV (DataFrame.to_csv)"
    if head[8:12] == b"DUCK":
        return "is a DuckDB database; export the table as CSV (COPY … TO)"
    if head.startswith((b"PK\3\4", b"PK\5\6")) or _has_binary_parts(head):
        return _by_magic(head)
    return None


def _has_binary_parts(head: bytes) -> bool:
    """Whether bytes are there that no text has in any usual encoding, or NULs, which UTF-16 and UTF-32 have too."""
    return b"\0" in head or len(head) - len(head.translate(None, _CONTROLS)) > _SHARE_OF_CONTROLS * len(head)


def _by_magic(head: bytes) -> str | None:
    import chardet  # a tenth of a second, and ordinary files do not need it

    found = chardet.detect(head[: 1 << 16])
    kind = found["mime_type"] or ""
    if found["encoding"] is not None or kind.startswith("text/"):
        return None
    for part, reason in _ZIPPED:
        if part in kind:
            return reason
    if kind not in ("", "application/octet-stream"):
        return f"is no text but {kind}; name a table of rows"
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if controls > _SHARE_OF_CONTROLS * len(head) and not _is_utf8(head):
        return "is binary data and no text; save the table as CSV or JSONL"
    return None


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4
    return True


def foreign_text(text: str, kind: str) -> str | None:
    """Returns what a text file is instead of the named format, and what to do; ``None`` where it may be that.

    Args:
        text: Its beginning, decoded.
        kind: Name of the format that it should have: ``csv`` or ``jsonl``.
    """
    text = text.lstrip("\ufeff \t\r\n")
    for pattern, reason in _TEXTS:
        if pattern.match(text):
            return reason(text) if callable(reason) else reason
    return _json_document(text, kind)


def refuse_foreign(name: str, head: bytes, tail: bytes, magic: tuple[bytes, ...] = ()) -> None:
    """Raises ``InputError`` where the content is of another binary kind.

    Args:
        name: What messages call the file.
        head, tail: Its first mebibyte and its last bytes.
        magic: The first bytes of the binary format that it should have; none where it should be text.
    """
    if magic and head.startswith(magic):
        return
    reason = foreign_bytes(head, tail) if head else "is empty"
    if reason is None and magic:
        text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
        reason = _TABLE_PAGE if _HTML.match(text) else foreign_text(text, "csv") or _TABLE_TEXT
    if reason is not None and (head or magic):
        raise InputError(name, reason)


_TABLE_PAGE = (
    "is an HTML page; if it shows a table, open it in Excel or LibreOffice and save it as .xlsx; if it is a login or "
    "error page, download the file again"
)
_TABLE_TEXT = "is text, such as CSV; name it .csv, or add --input-format csv"


def _html(text: str) -> str:
    title = _TITLE.search(text)
    called = " ".join(unescape(title[1]).split())[:60] if title else ""
    shown = f" ({called!r})" if called else ""
    return (
        f"is an HTML page{shown} and no table; it may be a login or error page that was saved instead of the file: "
        "open it in a browser, and download the file again"
    )


_TEXTS: tuple[tuple[re.Pattern[str], str | Callable[[str], str]], ...] = (
    (
        _GIT_LFS,
        "is a Git LFS pointer and not the file itself; fetch the file with `git lfs pull`, or download it again",
    ),
    (_ANNEX, "is a git-annex pointer and not the file itself; fetch the file with `git annex get FILE`"),
    (_DVC, "is a DVC pointer and not the file itself; fetch the file with `dvc pull`"),
    (_HTML, _html),
    (_XML, "is XML and no table; save its rows as CSV or JSONL"),
    (
        _DRAWN,
        "is a table drawn with lines, as databases and Markdown show it; export it as CSV"
        " (mysql --batch, psql --csv)",
    ),
    (_SQL, "is a dump of SQL; export the table as CSV"),
    (_MAIL, "is an e-mail or a saved web page (MHTML); save its table as CSV"),
    (_PEM, "is an encrypted file or a key; decrypt it, or name a table of rows"),
)


def _json_document(text: str, kind: str) -> str | None:
    """What a JSON document is that is no JSONL, and JSONL that is named CSV."""
    is_jsonl = kind == "jsonl"
    if text.startswith("["):
        nested = _ARRAY.match(text) is not None and (is_jsonl or _is_json(text))
        if nested or (not is_jsonl and _is_one_value(text)):
            return "is one JSON array; make JSONL of it first (jq -c '.[]' FILE > FILE.jsonl)"
        return None
    if not _OBJECT.match(text):
        return None
    if _NOTEBOOK.match(text) and '"cell_type"' in text:
        return "is a Jupyter notebook; save its table as CSV"
    first, _, rest = text.partition("\n")
    if _is_one_value(first):
        if is_jsonl:
            return None
        if _OBJECT.match(rest.lstrip()):
            return "is JSONL; name it .jsonl, or add --input-format jsonl"
        return (
            "is one JSON object; name it .jsonl if it is one row, or take the rows out of it "
            "(jq -c '.NAME[]' FILE > FILE.jsonl)"
        )
    if not _is_json(text) or (is_jsonl and first.strip() != "{"):
        return None
    return (
        "has JSON objects over several lines; make one line a row first (jq -c . FILE > FILE.jsonl, or "
        "jq -c '.NAME[]' for a list in it)"
    )


def _is_json(text: str) -> bool:
    """Whether a text begins with a JSON value, also one that continues behind the text's end."""
    try:
        _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        return len(text) > 1024 and (error.pos >= len(text) - 1024 or error.msg.startswith("Unterminated"))
    except RecursionError:
        pass
    return True


def _is_one_value(text: str) -> bool:
    """Whether a text is exactly one JSON value."""
    try:
        _DECODER.decode(text)
    except (json.JSONDecodeError, RecursionError):
        return False
    return True
