"""JSONL keeps the bytes of its lines, and its numbers remember how they were written."""

import copy
import pickle
from pathlib import Path

import pytest

from batchllm.errors import InputError
from batchllm.formats import Source, WrittenNumber, open_source


def opened(folder: Path, content: str | bytes, **options: str) -> Source:
    path = folder / "in.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_source(path, **options)


def only_values(folder: Path, line: str) -> dict[str, object]:
    source = opened(folder, line + "\n")
    assert source.scan().rows == 1
    (row,) = source.rows()
    assert row.origin == line.encode()
    return dict(row.values)


def test_rows_keep_their_bytes_and_know_their_lines(tmp_path: Path) -> None:
    source = opened(tmp_path, ' {"a": 1}  \r\n\n   \n{"b":"x"}')
    assert [(row.index, row.line, row.origin, dict(row.values)) for row in source.rows()] == [
        (0, 1, b' {"a": 1}  ', {"a": 1}),
        (1, 4, b'{"b":"x"}', {"b": "x"}),
    ]
    assert source.scan().rows == 2


def test_columns_are_all_keys_in_the_order_of_first_sight(tmp_path: Path) -> None:
    source = opened(tmp_path, '{"b":1}\n{"a":1,"b":2}\n{}\n{"c":null}\n')
    assert source.scan().columns == ("b", "a", "c")
    assert source.columns == ("b", "a", "c")


def test_the_digest_is_that_of_the_statistics(tmp_path: Path) -> None:
    source = opened(tmp_path, "".join(f'{{"a":{n}}}\n' for n in range(1000)))
    statistics = source.scan()
    rows = list(source.rows())
    assert source.digest() == statistics.sha256
    assert len(statistics.sample) == 100
    assert all(row == rows[row.index] for row in statistics.sample)


@pytest.mark.parametrize(
    "number",
    [
        "1e5",
        "1.50",
        "-0",
        "-0.0",
        "1E+2",
        "9007199254740993",
        "0.1",
        "1e400",
        "0.30000000000000004",
        "7" * 5000,
    ],
)
def test_a_number_reads_as_it_was_written(tmp_path: Path, number: str) -> None:
    value = only_values(tmp_path, f'{{"n": {number}, "deep": [{number}]}}')
    assert str(value["n"]) == number
    assert f"{value['n']}" == number
    assert str(value["deep"]) == f"[{number}]"


def test_a_number_that_python_writes_alike_is_a_plain_one(tmp_path: Path) -> None:
    found = only_values(tmp_path, '{"a":0.2,"b":12,"c":1e5}')
    assert [type(value) for value in found.values()] == [float, int, WrittenNumber]


def test_a_written_number_is_a_float() -> None:
    number = WrittenNumber("1.50")
    assert number == 1.5
    assert f"{number:.3f}" == "1.500"
    for twin in (copy.deepcopy(number), pickle.loads(pickle.dumps(number))):
        assert str(twin) == "1.50"


def test_half_a_surrogate_pair_is_a_visible_escape_in_the_value(tmp_path: Path) -> None:
    found = only_values(tmp_path, r'{"a":"cut \ud83d","b\udc00":["\ud83d\ude00"]}')
    assert found == {"a": "cut \\ud83d", "b\\udc00": ["😀"]}


def test_of_two_equal_keys_the_last_one_counts(tmp_path: Path) -> None:
    assert only_values(tmp_path, '{"a":1,"a":2}') == {"a": 2}


def test_nul_and_separators_of_unicode_are_data(tmp_path: Path) -> None:
    assert only_values(tmp_path, '{"a":"\\u0000\u2028\x85"}') == {"a": "\0\u2028\x85"}


def test_deep_objects_are_read_up_to_the_limit(tmp_path: Path) -> None:
    assert only_values(tmp_path, '{"a":' + "[" * 199 + "]" * 199 + "}")
    assert only_values(tmp_path, '{"a":"' + "[" * 5000 + '"}')


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a":1', "not JSON: Expecting ',' delimiter at character 7"),
        ("{'a':1}", "not JSON"),
        ('{"a":1} x', "Extra data"),
        ('{"a":NaN}', "NaN is no JSON value"),
        ('{"a":-Infinity}', "-Infinity is no JSON value"),
        ("[1]", "an array where an object is expected"),
        ('"a"', "a string where"),
        ("null", "null where"),
        ("1", "a number where"),
        ('{"a":' + "[" * 10_000 + "]" * 10_000 + "}", "deeper than 200"),
        ('{"a":' * 10_000, "deeper than 200"),
        ('{"a":"caf\udce9"}', "byte 23 .0xe9. is not UTF-8; .* add --encoding"),
        ('{"a":\0}', "NUL"),
    ],
)
def test_a_bad_line_is_an_error_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    content = '{"first": 1}\n\n' + line + '\n{"last": 1}\n'
    with pytest.raises(InputError, match=message) as checked:
        opened(tmp_path, content.encode("utf-8", "surrogateescape")).scan()
    with pytest.raises(InputError, match=message) as read:
        list(open_source(tmp_path / "in.jsonl").rows())
    assert checked.value.line == read.value.line == 3


def test_a_json_array_gets_the_command_that_makes_jsonl(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="jq -c"):
        opened(tmp_path, '[\n{"a":1}\n]\n').scan()


@pytest.mark.parametrize("encoding", ["utf-16", "gb18030", "shift_jis"])
def test_other_encodings_are_read_as_utf8_lines(tmp_path: Path, encoding: str) -> None:
    options = {} if encoding == "utf-16" else {"encoding": encoding}
    source = opened(tmp_path, '{"a":"日本"}\n{"a":"b"}\n'.encode(encoding), **options)
    assert source.scan().rows == 2
    assert [row.origin for row in source.rows()] == ['{"a":"日本"}'.encode(), b'{"a":"b"}']


def test_a_byte_order_mark_and_cr_are_understood(tmp_path: Path) -> None:
    source = opened(tmp_path, b'\xef\xbb\xbf{"a":1}\r{"a":2}\r')
    assert [row.origin for row in source.rows()] == [b'{"a":1}', b'{"a":2}']


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    source = opened(tmp_path, b"")
    assert (source.scan().rows, source.scan().columns, list(source.rows())) == (0, (), [])


def test_lines_may_lie_across_the_pieces_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchllm.formats.input_file.CHUNK_BYTES", 3)
    source = opened(tmp_path, '\ufeff{"猫":1}\r\n\r\n{"a":"😀"}')
    assert [(row.line, dict(row.values)) for row in source.rows()] == [(1, {"猫": 1}), (3, {"a": "😀"})]
