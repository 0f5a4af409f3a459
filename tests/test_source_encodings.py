"""The error for a wrong byte names where it is and the encoding to try."""

from pathlib import Path

import pytest

from batchllm.errors import InputError
from batchllm.source import open_source
from batchllm.source.encodings import likely_encoding

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
def test_the_error_names_the_encoding_the_text_has(tmp_path: Path, encoding: str) -> None:
    head = "id,text\n" + ("0," + "plain" * 1000 + "\n") * 300
    path = tmp_path / "in.csv"
    path.write_bytes(head.encode() + f'1,"{TEXTS[encoding]}"\n'.encode(encoding))
    with pytest.raises(InputError, match=f"say --encoding {encoding}$") as caught:
        open_source(path).check()
    assert caught.value.line == 302
    first = next(at for at, byte in enumerate(path.read_bytes()) if byte > 127)
    assert f"byte {first} " in str(caught.value)
    assert [row.values["text"] for row in open_source(path, encoding=encoding).rows()][-1] == TEXTS[encoding]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("naïve,text", "cp1252"),
        ("Grüße aus Köln", "cp1252"),
        ("£20", "cp1252"),
        ("Žluťoučký kůň úpěl", "cp1250"),
        ("很好", "gb18030"),
        ("很好吃，值得再来", "gb18030"),
        ("テスト", "shift_jis"),
        ("좋았습니다", "euc_kr"),
        ("Привет", "cp1251"),
    ],
)
def test_a_few_words_are_enough(text: str, encoding: str) -> None:
    assert likely_encoding(f"id,{text}\n".encode(encoding)) == encoding


def test_a_text_in_utf8_that_was_called_something_else_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,text\n1,𠮷野家の牛丼はおいしい\n", "utf-8")
    with pytest.raises(InputError, match="not euc_jp; if it is utf-8"):
        open_source(path, encoding="euc_jp").check()


def test_where_nothing_fits_nothing_is_named() -> None:
    assert likely_encoding(b"") is None
    assert likely_encoding(b"a\x81b\x9d") is None


def test_a_region_may_end_inside_a_character() -> None:
    assert likely_encoding(TEXTS["gb18030"].encode("gb18030")[:-1]) == "gb18030"
