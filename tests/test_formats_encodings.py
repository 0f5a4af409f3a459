"""The error for a wrong byte says where it is; the encoding that is named reads the file."""

from pathlib import Path

import pytest

from batchllm.errors import InputError, UsageError
from batchllm.formats import open_source, text_codec
from tests.command import Command

TEXTS = {
    "cp1252": "Le café était fermé, « désolé », dit-il — 20 € de moins.",
    "gb18030": "这家餐厅的服务非常好，我们下次还会再来。价格也很便宜！",
    "big5": "這家餐廳的服務非常好，我們下次還會再來。價格也很便宜！",
    "shift_jis": "このレストランのサービスはとても良かったです。また来ます。",
    "euc_jp": "このレストランのサービスはとても良かったです。また来ます。",
    "euc_kr": "이 식당의 서비스는 매우 좋았습니다. 다음에 또 오겠습니다.",
    "cp1251": "Обслуживание в этом ресторане было очень хорошим.",
}


@pytest.mark.parametrize("encoding", TEXTS)
@pytest.mark.parametrize("newline", ["\n", "\r"])
def test_the_error_names_line_and_byte_and_the_option(tmp_path: Path, encoding: str, newline: str) -> None:
    head = "id,text\n" + ("0," + "plain" * 1000 + "\n") * 300
    path = tmp_path / "in.csv"
    path.write_bytes(
        (head.encode() + f'1,"{TEXTS[encoding]}"\n'.encode(encoding)).replace(b"\n", newline.encode())
    )
    with pytest.raises(InputError, match="is not UTF-8; .* add --encoding ") as caught:
        open_source(path).scan()
    assert caught.value.line == 302
    first = next(at for at, byte in enumerate(path.read_bytes()) if byte > 127)
    assert f"byte {first} (0x{path.read_bytes()[first]:02x}) " in str(caught.value)
    assert [row.values["text"] for row in open_source(path, encoding=encoding).rows()][-1] == TEXTS[encoding]


ADVISED = [
    *(("latin-1", text) for text in ("descrição", "El niño comió mañana", "Schöne Grüße aus München")),
    *(("iso8859-2", text) for text in ("Zażółć gęślą jaźń i wszystko dobrze", "Příliš žluťoučký kůň úpěl")),
    *(("koi8-r", text) for text in ("Обслуживание было очень хорошим", "Привет, мир")),
    *(("cp1253", text) for text in ("Η εξυπηρέτηση ήταν πολύ καλή", "Καλημέρα κόσμε")),
    *(("cp1254", text) for text in ("Şirketin müşteri hizmetleri çok iyiydi", "Işık ve güneş")),
    *(("cp874", text) for text in ("บริการดีมากและอาหารอร่อย", "สวัสดีครับ")),
    *(("cp1255", "השירות במסעדה היה טוב מאוד"), ("cp1256", "كانت الخدمة جيدة جدا في هذا المطعم")),
    *(("cp866", "Обслуживание было очень хорошим"), ("mac-roman", "Le café était fermé très tôt")),
    *(("gb18030", "你好，世界"), ("shift_jis", "日本語テキスト"), ("euc_kr", "안녕하세요")),
]


def test_the_advice_shows_the_line_as_it_would_read(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    wrong = []
    for encoding, text in ADVISED:
        path.write_bytes(f"id,text\n1,{text}\n".encode(encoding))
        with pytest.raises(InputError) as caught:
            open_source(path).scan()
        if text not in str(caught.value):
            wrong.append((encoding, str(caught.value)))
    assert len(wrong) <= 1, wrong


def test_a_damaged_line_among_lines_of_utf8_gets_no_advice_to_reread_them_all(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"id,text\n" + "1,café crème\n".encode() * 20 + b"2,caf\xe9\n")
    with pytest.raises(
        InputError, match="other lines with such characters are UTF-8, so this one is damaged"
    ):
        open_source(path).scan()


@pytest.mark.parametrize(
    "name",
    ["punycode", "idna", "unicode_escape", "raw_unicode_escape", "undefined", "base64", "zlib", "hex", "rot13", "uu",
     "quopri", "bz2", "a\0b", "", "utf-99", "mbcs", "oem"],
)  # fmt: skip
def test_what_is_no_encoding_of_a_text_file_is_wrong_use(
    tmp_path: Path, name: str, batchllm: Command
) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"text\nhello\n")
    with pytest.raises(UsageError, match="no encoding"):
        open_source(path, encoding=name)
    assert batchllm("classify", path, "--provider", "simulator", "--encoding", name).status == 2


@pytest.mark.parametrize(
    "name", ["utf-7", "cp037", "hz", "iso2022_jp", "utf-8-sig", "latin-1", "utf_16", "UTF8"]
)
def test_every_encoding_of_text_files_is_taken(name: str) -> None:
    assert text_codec(name)


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["hello", "Привет, мир", "这家餐厅的服务非常好", "שלום עולם", "Καλημέρα"])
def test_utf_16_and_32_without_a_mark_are_named(tmp_path: Path, codec: str, text: str) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(f"id,text\n1,{text}\n".encode(codec))
    with pytest.raises(InputError, match=f"--encoding {codec}$"):
        open_source(path)


def test_a_text_that_is_not_in_the_named_encoding_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,text\n1,𠮷野家の牛丼はおいしい\n", "utf-8")
    with pytest.raises(
        InputError, match="byte 10 .0xf0. is not euc_jp; in UTF-8 this line reads .* leave --encoding out"
    ) as caught:
        open_source(path, encoding="euc_jp").scan()
    assert caught.value.line == 2


def test_a_file_cut_inside_a_character_is_an_error_at_that_character(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes('{"a":"猫"}\n{"a":"猫"}\n'.encode("utf-16-le")[:-1])
    with pytest.raises(InputError, match="byte 38 .0x0a. is not UTF-16-LE") as caught:
        open_source(path, encoding="utf-16-le").scan()
    assert caught.value.line == 2
