"""The error for a wrong byte says where it is; the encoding that is named reads the file."""

from pathlib import Path

import pytest

from batchllm.errors import InputError
from batchllm.formats import open_source

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
    with pytest.raises(InputError, match="is not UTF-8; name the file's encoding with --encoding$") as caught:
        open_source(path).scan()
    assert caught.value.line == 302
    first = next(at for at, byte in enumerate(path.read_bytes()) if byte > 127)
    assert f"byte {first} (0x{path.read_bytes()[first]:02x}) " in str(caught.value)
    assert [row.values["text"] for row in open_source(path, encoding=encoding).rows()][-1] == TEXTS[encoding]


def test_a_text_that_is_not_in_the_named_encoding_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,text\n1,𠮷野家の牛丼はおいしい\n", "utf-8")
    with pytest.raises(InputError, match="byte 10 .0xf0. is not euc_jp; name the file's encoding") as caught:
        open_source(path, encoding="euc_jp").scan()
    assert caught.value.line == 2


def test_a_file_cut_inside_a_character_is_an_error_at_that_character(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes('{"a":"猫"}\n{"a":"猫"}\n'.encode("utf-16-le")[:-1])
    with pytest.raises(InputError, match="byte 38 .0x0a. is not UTF-16-LE") as caught:
        open_source(path, encoding="utf-16-le").scan()
    assert caught.value.line == 2
