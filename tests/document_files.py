"""Documents by other hands."""

import zipfile
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import docx
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas


def pdf(*pages: Sequence[str], password: str | None = None) -> bytes:
    """A PDF by reportlab: the lines of each page."""
    made = BytesIO()
    options = {} if password is None else {"encrypt": StandardEncryption(password, "owner")}
    canvas = Canvas(made, **options)
    for lines in pages:
        for number, line in enumerate(lines):
            canvas.drawString(72, 720 - 14 * number, line)
        canvas.showPage()
    canvas.save()
    return made.getvalue()


def word(*parts: Any) -> bytes:
    """A DOCX by python-docx: a text is a paragraph, a list of lists a table."""
    made = docx.Document()
    for part in parts:
        if isinstance(part, str):
            made.add_paragraph(part)
            continue
        table = made.add_table(len(part), len(part[0]))
        for row, cells in enumerate(part):
            for column, text in enumerate(cells):
                table.cell(row, column).text = text
    content = BytesIO()
    made.save(content)
    return content.getvalue()


def with_part(archive: bytes, name: str, content: bytes) -> bytes:
    """The archive with one part replaced or added."""
    made = BytesIO()
    with zipfile.ZipFile(BytesIO(archive)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.namelist():
            if part != name:
                new.writestr(part, old.read(part))
        new.writestr(name, content)
    return made.getvalue()
