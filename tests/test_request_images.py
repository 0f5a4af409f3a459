import base64
import json
import os
from pathlib import Path

import pytest

from batchllm.records import ChatRequest
from batchllm.request import Skipped, Unsendable
from batchllm.request.images import MAX_BYTES, Media, image_kind
from batchllm.request.local_files import LocalFiles
from batchllm.request.outcome import InvalidRow
from batchllm.template import load, parse
from tests.request_jobs import body_of, built, make_job, make_row

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 20
URL = "https://example.com/image.jpg"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    (root / "inner").mkdir(parents=True)
    (root / "a.png").write_bytes(PNG)
    (root / "inner" / "b.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    return root


def test_the_body_is_the_reference_example() -> None:
    row = make_row(text="这张图片里有什么?", photo=URL)
    body = body_of(make_job(images=("photo",), detail="high", model="gpt-4-vision"), row)
    assert body["messages"][1] == {
        "role": "user",
        "content": [
            {"type": "text", "text": "这张图片里有什么?"},
            {"type": "image_url", "image_url": {"url": URL, "detail": "high"}},
        ],
    }
    assert body["max_tokens"] == 300


def test_the_bound_of_an_answer_to_an_image_is_300_unless_somebody_says_another() -> None:
    row = make_row(text="x", photo=URL)
    assert body_of(make_job(template=load("summarize"), images=("photo",)), row)["max_tokens"] == 300
    assert body_of(make_job(images=("photo",), parameters={"max_tokens": 9}), row)["max_tokens"] == 9
    own = parse('[[messages]]\ncontent = "{{ text }}"\n[parameters]\nmax_tokens = 20\n', "mine")
    assert body_of(make_job(template=own, images=("photo",)), row)["max_tokens"] == 20


def test_several_columns_and_lists_of_images_keep_their_order() -> None:
    row = make_row(text="x", one=URL + "1", two=[URL + "2", URL + "3", ""])
    parts = body_of(make_job(images=("one", "two")), row)["messages"][1]["content"]
    assert [part["image_url"]["url"][-1] for part in parts[1:]] == ["1", "2", "3"]


def test_a_prompt_may_be_about_the_image_alone() -> None:
    row = make_row(photo=URL, id="7")
    body = body_of(make_job("What is this?", images=("photo",)), row)
    assert len(body["messages"][1]["content"]) == 2
    assert built(make_job("What is this?", images=("photo",)), make_row(photo=" ")) == Skipped(0)


def test_a_row_with_a_text_and_an_empty_image_cell_is_sent_without_the_image() -> None:
    body = body_of(make_job(images=("photo",)), make_row(text="hello", photo=""))
    assert "image_url" not in json.dumps(body)
    assert "hello" in json.dumps(body)
    assert built(make_job(images=("photo",)), make_row(text=" ", photo="")) == Skipped(0)


def test_images_count_in_the_estimate() -> None:
    row = make_row(text="x", photo=URL)
    low = built(make_job(images=("photo",), detail="low"), row, count=len)
    high = built(make_job(images=("photo",), detail="high"), row, count=len)
    assert high.prompt_tokens - low.prompt_tokens == 680


def test_a_local_file_goes_out_as_a_data_uri(root: Path) -> None:
    wanted = "data:image/png;base64," + base64.b64encode(PNG).decode()
    for cell in ("a.png", " a.png ", "inner/b.png", "inner/../a.png", str(root / "a.png")):
        assert Media(root).url(cell) == wanted


@pytest.mark.parametrize("url", [URL, "http://h/x", "HTTPS://h/x", "data:image/png;base64,AAAA"])
def test_web_and_data_urls_are_sent_as_they_are(url: str, root: Path) -> None:
    assert Media(None).url(url) == url
    assert Media(root).url(url) == url


def test_without_a_media_root_no_file_is_read(root: Path) -> None:
    with pytest.raises(InvalidRow, match="--media-root"):
        Media(None).url(str(root / "a.png"))


@pytest.mark.parametrize(
    "cell",
    [
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "gopher://x/1",
        "ftp://x/a.png",
        "javascript:alert(1)",
        "C:\\a.png",
        "//etc/passwd",
        "/etc/passwd",
        "../secret.png",
        "inner/../../secret.png",
        "../media/../secret.png",
        "%2e%2e/secret.png",
        "..%2fsecret.png",
        "\\\\host\\share\\a.png",
        "/proc/self/environ",
        "/dev/zero",
        "/dev/stdin",
        "~/a.png",
        "$HOME/a.png",
        "a.png\0.txt",
        "a.png/x",
        ".",
        "",
        "/",
        "nothing.png",
        "x" * 5000,
        "a\ud800.png",
        "../media2/a.png",
    ],
)
def test_nothing_outside_the_media_root_is_read(
    cell: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root.parent / "media2").mkdir()
    (root.parent / "media2" / "a.png").write_bytes(PNG)
    read: list[str] = []

    def note(files: LocalFiles, descriptor: int, text: str) -> bytes:
        read.append(text)
        os.close(descriptor)
        return PNG

    monkeypatch.setattr(LocalFiles, "_content", note)
    row = make_row(text="x", photo=cell or "./")
    outcome = built(make_job(images=("photo",), media_root=root), row)
    assert isinstance(outcome, Unsendable)
    assert outcome.reason == "image"
    assert not read


def test_links_out_of_the_root_lead_nowhere(root: Path) -> None:
    (root / "file").symlink_to(root.parent / "secret.png")
    (root / "folder").symlink_to(root.parent)
    for cell in ("file", "folder/secret.png"):
        with pytest.raises(InvalidRow, match="outside"):
            Media(root).url(cell)


def test_a_link_that_stays_inside_is_followed(root: Path) -> None:
    (root / "link.png").symlink_to(root / "inner" / "b.png")
    assert Media(root).url("link.png").startswith("data:image/png")


def test_a_link_put_in_after_the_check_is_not_followed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.path.realpath
    media = Media(root)

    def swapped(path: str) -> str:
        found = real(path)
        (root / "a.png").unlink()
        (root / "a.png").symlink_to(root.parent / "secret.png")
        return found

    monkeypatch.setattr(os.path, "realpath", swapped)
    with pytest.raises(InvalidRow, match="cannot be read"):
        media.url("a.png")


def test_what_is_no_regular_file_is_refused_without_waiting(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    with pytest.raises(InvalidRow, match="not a regular file"):
        Media(root).url("pipe.png")
    with pytest.raises(InvalidRow, match="not a regular file"):
        Media(root).url("inner")


def test_a_file_too_large_or_not_an_image_is_refused(root: Path) -> None:
    (root / "note.png").write_text("not an image")
    with pytest.raises(InvalidRow, match="not PNG"):
        Media(root).url("note.png")
    with (root / "big.png").open("wb") as file:
        file.write(PNG)
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InvalidRow, match="larger than 20 MB"):
        Media(root).url("big.png")


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (PNG, "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"GIF89a", "gif"),
        (b"RIFF0000WEBP", "webp"),
        (b"<svg", None),
    ],
)
def test_the_kind_of_an_image_is_in_its_first_bytes(start: bytes, kind: str | None) -> None:
    assert image_kind(start) == kind


def test_an_image_in_a_template_is_held_to_the_same_rules(root: Path) -> None:
    source = '[[messages]]\ncontent = [{type = "image_url", image_url = {url = "{{ photo }}"}}]\n'
    job = make_job(template=parse(source, "mine"), media_root=root)
    url = body_of(job, make_row(photo="a.png"))["messages"][0]["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/png")
    assert isinstance(built(job, make_row(photo="/etc/passwd")), Unsendable)
    assert isinstance(built(job, make_row(photo=URL)), ChatRequest)
