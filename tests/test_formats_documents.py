"""The text of documents that other programs wrote, and of those that have none."""

import re
from io import BytesIO
from typing import Any

import docx
import openpyxl
import pypdf
import pytest

from batchllm import document_reader
from batchllm.document_reader import DocumentError, docx_text, pdf_text
from batchllm.formats import document_text as module
from batchllm.formats.document_text import document_text, html_text
from tests.document_files import pdf, with_part, word

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def test_the_pages_of_a_pdf_follow_each_other() -> None:
    assert pdf_text(pdf(["One line", "and another"], ["Page two"])) == "One line\nand another\n\nPage two"
    assert document_text(pdf(["One line"]), ".pdf") == "One line"
    assert pdf_text(pdf(["open to all"], password="")) == "open to all"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pdf([], []), "has no text: its pages are pictures; put them through OCR first"),
        (pdf(["secret"], password="key"), "is encrypted; save it without a password"),
        (pdf(["cut"])[:600], "is a damaged PDF|has no text|cannot be read"),
        (b"%PDF-1.7\n" + bytes(range(256)) * 4, "is a damaged PDF|cannot be read"),
    ],
)
def test_a_pdf_without_text_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        pdf_text(content)


def looped_pdf() -> bytes:
    """A PDF whose tree of pages is its own child."""
    writer = pypdf.PdfWriter(clone_from=BytesIO(pdf(["a"], ["b"])))
    pages: Any = writer.root_object["/Pages"].get_object()
    kids = pages["/Kids"]
    kids.append(writer.root_object.raw_get("/Pages"))
    made = BytesIO()
    writer.write(made)
    return made.getvalue()


def test_a_pdf_that_is_its_own_page_ends() -> None:
    try:
        document_text(looped_pdf(), ".pdf")
    except DocumentError as error:
        assert re.search("damaged PDF|cannot be read", str(error))


def test_a_document_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_S", 0.001)
    with pytest.raises(DocumentError, match="took more than 0.001 seconds to read"):
        document_text(pdf(["a"]), ".pdf")


def test_paragraphs_and_tables_of_a_word_document_come_in_their_order() -> None:
    content = word("Before", [["a", "b"], ["c", "d\ne"]], "After")
    assert docx_text(content) == "Before\na\tb\nc\td e\nAfter"
    assert document_text(content, ".docx") == docx_text(content)


def test_content_controls_and_insertions_are_text_and_deletions_are_none() -> None:
    body = (
        f'<?xml version="1.0"?><w:document {W}><w:body>'
        "<w:sdt><w:sdtContent><w:p><w:r><w:t>control</w:t></w:r></w:p></w:sdtContent></w:sdt>"
        "<w:p><w:r><w:t>a</w:t><w:tab/><w:t>b</w:t></w:r><w:ins><w:r><w:t>new</w:t></w:r></w:ins>"
        "<w:del><w:r><w:delText>old</w:delText></w:r></w:del><w:hyperlink><w:r><w:t>link</w:t></w:r></w:hyperlink></w:p>"
        "<w:tbl><w:tr><w:tc><w:tbl><w:tr><w:tc><w:p><w:r><w:t>in</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
        "<w:p><w:r><w:t>out</w:t></w:r></w:p></w:tc><w:tc><w:p/></w:tc></w:tr></w:tbl></w:body></w:document>"
    )
    content = with_part(word("x"), "word/document.xml", body.encode())
    assert docx_text(content) == "control\na\tbnewlink\nin out"


def test_a_word_document_that_unpacks_to_much_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_reader, "MAX_BYTES", 3_000_000)
    content = with_part(word("x"), "word/media/image1.png", bytes(3_000_000))
    assert len(content) < 100_000
    with pytest.raises(DocumentError, match=r"unpacks to 4 MB; divide it first"):
        docx_text(content)


@pytest.mark.parametrize("content", [word("x")[:300], with_part(word("x"), "word/document.xml", b"<no")])
def test_a_damaged_word_document_fails_alone(content: bytes) -> None:
    with pytest.raises(DocumentError, match="is a damaged Word document"):
        document_text(content, ".docx")


def test_a_document_of_python_docx_itself_is_read_as_it_reads_it() -> None:
    made = docx.Document()
    made.add_heading("Title")
    made.add_paragraph("one ").add_run("bold").bold = True
    made.add_paragraph("two", style="List Bullet")
    content = BytesIO()
    made.save(content)
    assert docx_text(content.getvalue()).splitlines() == [each.text for each in made.paragraphs]


def test_a_page_shows_its_visible_text() -> None:
    page = (
        "<!doctype html><html><head><title>T</title><style>p {}</style><script>if (a < b) '<p>no'</script></head><body>"
        "<h1>Head &amp; <b>more</b></h1><p>one\n two<p>three<br>four<noscript>no</noscript><ul><li>a<li>b</ul>"
        "<table><tr><td>1</td><td>2</td></tr></table><pre>x\n  y</pre><template>no</template></body></html>"
    )
    assert html_text(page).split() == [
        "Head",
        "&",
        "more",
        "one",
        "two",
        "three",
        "four",
        "a",
        "b",
        "1",
        "2",
        "x",
        "y",
    ]
    assert "1\t2" in html_text(page)
    assert "three\nfour" in html_text(page)
    assert html_text("<script>never closed") == ""


@pytest.mark.parametrize(
    ("content", "suffix", "text"),
    [
        ("é".encode(), ".txt", "é"),
        ("é".encode("utf-16"), ".txt", "é"),
        (b"\xef\xbb\xbf# T", ".md", "# T"),
        (b'<meta charset="windows-1252"><p>\x93hi\x94', ".html", "“hi”"),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1"><p>\x80 5', ".htm", "€ 5"),
        ("<p>é".encode(), ".html", "é"),
        (b"<meta charset=nonsense><p>x", ".html", "x"),
        ("<meta charset=gb2312><p>镕".encode("gbk"), ".html", "镕"),
        ("<meta charset=Shift_JIS><p>①".encode("cp932"), ".html", "①"),
        ("<meta charset=utf-16><p>é".encode(), ".html", "é"),
        ("<meta charset=iso-8859-1><p>é".encode("utf-8-sig"), ".html", "é"),
        (b"plain", ".log", "plain"),
    ],
)
def test_the_encoding_is_what_the_document_says(content: bytes, suffix: str, text: str) -> None:
    assert document_text(content, suffix) == text


@pytest.mark.parametrize(
    ("content", "suffix", "reason"),
    [
        (b"", ".txt", "is empty"),
        (b" \n ", ".md", "is empty"),
        (b"<p></p>", ".html", "has no text"),
        (b"caf\xe9", ".txt", "is not UTF-8 at byte 3; save it as UTF-8"),
        (
            "a text of a few words".encode("utf-16-le"),
            ".txt",
            "seems to be UTF-16-LE without a byte-order mark",
        ),
        (b"hello", ".pdf", "is text and no PDF; documents are PDF, DOCX, HTML"),
        (b"<html>", ".docx", "is text and no DOCX"),
        (bytes(100), ".pdf", "is damaged and no PDF"),
        (b"PK\5\6" + bytes(18), ".docx", "is damaged and no DOCX"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), ".txt", "is an image; documents are"),
        (b"PK\3\4" + bytes(50), ".pdf", "no PDF; documents are"),
        (b"%PDF-1.7\n", ".txt", "is a PDF document; name it .pdf"),
        (b"{\\rtf1 hello}", ".rtf", "is a rich text document; documents are"),
    ],
)
def test_what_is_no_document_says_so(content: bytes, suffix: str, reason: str) -> None:
    with pytest.raises(DocumentError, match=re.escape(reason)):
        document_text(content, suffix)
    if suffix == ".txt" and content.startswith(b"caf"):
        assert document_text(content, suffix, "latin-1") == "café"


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p hidden>no<p>yes", "yes"),
        ("<div style='color: red; DISPLAY : none'>no<div>no</div>no<br></div>yes", "yes"),
        ("<ul><li hidden>no<b>no</b><li>yes</ul>", "yes"),
        ("<ul><li hidden>no</ul>yes", "yes"),
        ("<table><tr hidden><td>no<td>no<tr><td>yes</table>", "yes"),
        ("<table><tr><td hidden>no<td>yes</table>", "yes"),
        ("<input hidden>yes<br hidden>also", "yesalso"),
        ("<p style='display:inline'>yes", "yes"),
        ("<script>no</script><p>yes</p></div>also", "yes\n\nalso"),
        ("a<pre>def f():\n    return  1\n</pre>b   c", "a\ndef f():\n    return  1\n\nb c"),
    ],
)
def test_what_html_hides_is_left_out_and_preformatted_text_keeps_its_blanks(page: str, text: str) -> None:
    assert html_text(page) == text


def test_another_office_document_is_named() -> None:
    book = openpyxl.Workbook()
    content = BytesIO()
    book.save(content)
    with pytest.raises(DocumentError, match="is another Office document and no DOCX"):
        docx_text(content.getvalue())
