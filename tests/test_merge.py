"""Outputs of shards put together: what one run would have written, and nothing that is missing, double or changed."""

import json
import random
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import InputError, UsageError
from batchllm.inspect.merge import merge_outputs
from batchllm.job import assemble
from batchllm.runner import run_job
from tests.command import Command
from tests.test_shards import run

ROWS, SHARDS = 19, 4


def output_of(source: Path, shard: str | None, **more: Any) -> Path:
    output = run(source, shard, **more).output
    assert output is not None
    return output


def write_source(path: Path) -> Path:
    if path.suffix == ".jsonl":
        lines = [f'{{"text": "row {n}",  "n": {n}.50, "x": {10**25 + n}}}\n' for n in range(ROWS)]
        path.write_text("".join(lines))
    else:
        mark = "\ufeff" if path.stem == "marked" else ""
        text = "".join(f'{n},"row {n}","a ""b""\n{n}"\r\n' for n in range(ROWS))
        path.write_bytes((f"{mark}n,text,note\r\n{text}").encode())
    return path


@cache
def shards_of(name: str) -> Path:
    """A folder with an input, the outputs of its shards, their journals, and the output of one whole run."""
    folder = Path(mkdtemp())
    source = write_source(folder / name)
    for number in range(1, SHARDS + 1):
        output_of(source, f"{number}/{SHARDS}")
    output_of(source, None, output=str(folder / f"whole{source.suffix}"))
    return folder


def outputs_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.shard-*")) if path.suffix in (".csv", ".jsonl")]


def copied(name: str, to: Path, *, journals: bool) -> list[Path]:
    shutil.copytree(shards_of(name), to, dirs_exist_ok=True)
    if not journals:
        for path in to.glob("*.journal*"):
            path.unlink()
    return outputs_in(to)


@pytest.mark.parametrize("journals", [True, False])
@pytest.mark.parametrize("name", ["in.csv", "marked.csv", "in.jsonl", "in.tsv"])
def test_the_merged_file_is_what_one_run_writes(tmp_path: Path, name: str, journals: bool) -> None:
    if name == "in.tsv":
        source = tmp_path / name
        source.write_text("n\ttext\n" + "".join(f"{n}\trow {n}\n" for n in range(ROWS)))
        outputs = [output_of(source, f"{n}/{SHARDS}") for n in range(1, SHARDS + 1)]
        whole, given = output_of(source, None, output=str(tmp_path / "whole.tsv")), []
    else:
        outputs = copied(name, tmp_path, journals=journals)
        whole, given = tmp_path / f"whole{Path(name).suffix}", [] if journals else [tmp_path / name]
    assert len(outputs) == SHARDS
    random.Random(1).shuffle(outputs)
    merged = tmp_path / f"merged{Path(name).suffix}"
    found = merge_outputs(outputs, merged, inputs=given)
    assert (found.rows, found.shards) == (ROWS, SHARDS)
    assert merged.read_bytes() == whole.read_bytes()
    merged.unlink()
    merge_outputs(outputs, merged, inputs=[tmp_path / name])
    assert merged.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_shards_without_rows_are_merged_without_journals_too(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"in.{suffix}"
    source.write_text("text\none\n" if suffix == "csv" else '{"text": "one"}\n')
    outputs = [output_of(source, f"{number}/3") for number in (1, 2, 3)]
    for path in tmp_path.glob("*.journal"):
        path.unlink()
    whole = output_of(source, None, output=str(tmp_path / f"whole.{suffix}"))
    merged = tmp_path / f"merged.{suffix}"
    merge_outputs(outputs, merged, inputs=[source])
    assert merged.read_bytes() == whole.read_bytes()


def test_a_merged_file_may_have_another_format_and_be_compressed(tmp_path: Path) -> None:
    outputs = copied("in.csv", tmp_path, journals=True)
    merge_outputs(outputs, tmp_path / "merged.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "merged.jsonl").read_text().splitlines()]
    assert [row["n"] for row in rows] == [str(n) for n in range(ROWS)]
    assert rows[3]["note"] == 'a "b"\n3'
    merge_outputs(outputs, tmp_path / "merged.csv.gz")
    import gzip

    assert gzip.decompress((tmp_path / "merged.csv.gz").read_bytes()) == (tmp_path / "whole.csv").read_bytes()


def test_shards_in_several_formats_are_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path / "in.csv")
    outputs = [
        output_of(source, f"{n}/2", output=str(tmp_path / f"o{n}.{kind}"))
        for n, kind in ((1, "csv"), (2, "jsonl"))
    ]
    with pytest.raises(
        InputError, match=r"o2.jsonl: is JSONL, and .*o1.csv is CSV; merge outputs of one format"
    ):
        merge_outputs(outputs, tmp_path / "merged.csv")
    assert not (tmp_path / "merged.csv").exists()


def test_shards_of_several_inputs_are_merged_without_journals_too(tmp_path: Path) -> None:
    inputs = [tmp_path / "a.csv", tmp_path / "b.jsonl", tmp_path / "c.csv"]
    inputs[0].write_text("id,text\n1,one\n2,two\n3,three\n")
    inputs[1].write_text('{"id": 4, "text": "four", "x": 1}\n{"id": 5, "text": "five"}\n')
    inputs[2].write_text('text,id,y\nsix,6,"z"\n')
    flags = {"input": [str(path) for path in inputs], "prompt": "Say {{ text }}", "provider": "simulator"}
    outputs = [tmp_path / f"o.shard-{n}-of-4.csv" for n in range(1, 5)]
    for number, output in enumerate(outputs, 1):
        run_job(assemble("run", {**flags, "shard": f"{number}/4", "output": str(output)}, {}))
    merged = tmp_path / "merged.csv"
    merge_outputs(outputs, merged)
    expected = merged.read_bytes()
    for path in tmp_path.glob("*.journal"):
        path.unlink()
    merge_outputs(outputs, merged, inputs=inputs, force=True)
    assert merged.read_bytes() == expected
    with pytest.raises(InputError, match="row 1 is not row 1"):
        merge_outputs(outputs, merged, inputs=inputs[::-1], force=True)
    with pytest.raises(InputError, match="one more than"):
        merge_outputs(outputs, merged, inputs=inputs[:2], force=True)


def test_an_input_of_the_job_is_never_overwritten(tmp_path: Path) -> None:
    outputs = copied("in.csv", tmp_path, journals=False)
    source = tmp_path / "in.csv"
    before = source.read_bytes()
    with pytest.raises(UsageError, match="is an input of the job"):
        merge_outputs(outputs, source, inputs=[source], force=True)
    own = [output_of(source, f"{n}/2", output=str(tmp_path / f"own.shard-{n}-of-2.csv")) for n in (1, 2)]
    with pytest.raises(UsageError, match="is an input of the job"):
        merge_outputs(own, source, force=True)
    assert source.read_bytes() == before


def lines_of(path: Path) -> list[str]:
    """The records of an output: lines of JSONL, or of CSV the header and two lines for each row."""
    text = path.read_bytes().decode()
    if path.suffix == ".jsonl":
        return text.splitlines(keepends=True)
    parts = text.split("\r\n")[:-1]
    return [part + "\r\n" for part in parts]


def drop(records: list[str], at: int, rng: random.Random) -> list[str]:
    return records[:at] + records[at + 1 :]


def double(records: list[str], at: int, rng: random.Random) -> list[str]:
    return records[: at + 1] + records[at:]


def edit(records: list[str], at: int, rng: random.Random) -> list[str]:
    return [*records[:at], records[at].replace("row ", "raw ", 1), *records[at + 1 :]]


def swap(records: list[str], at: int, rng: random.Random) -> list[str]:
    other = at + 1 if at + 1 < len(records) else at - 1
    changed = list(records)
    changed[at], changed[other] = changed[other], changed[at]
    return changed


@settings(max_examples=15)
@given(
    st.sampled_from(["in.csv", "in.jsonl"]),
    st.booleans(),
    st.sampled_from([drop, double, edit, swap]),
    st.integers(0, SHARDS - 1),
    st.integers(0, 10**6),
)
def test_a_row_that_is_missing_double_edited_or_elsewhere_is_found(
    name: str,
    journals: bool,
    change: Callable[[list[str], int, random.Random], list[str]],
    shard: int,
    seed: int,
) -> None:
    folder = Path(mkdtemp())
    try:
        outputs = copied(name, folder, journals=journals)
        records, first = lines_of(outputs[shard]), int(name.endswith(".csv"))
        rng = random.Random(seed)
        at = rng.randrange(first, len(records) - 1)
        outputs[shard].write_bytes("".join(change(records, at, rng)).encode())
        merged = folder / f"merged{Path(name).suffix}"
        with pytest.raises(InputError) as caught:
            merge_outputs(outputs, merged, inputs=[] if journals else [folder / name])
        assert caught.value.exit_status == 65
        assert not merged.exists()
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("journals", [True, False])
def test_a_shard_that_is_missing_or_there_twice_is_named(tmp_path: Path, journals: bool) -> None:
    outputs = copied("in.csv", tmp_path, journals=journals)
    given = [] if journals else [tmp_path / "in.csv"]
    with pytest.raises(InputError, match="of 4 shards these are missing: 2; name"):
        merge_outputs([outputs[0], *outputs[2:]], tmp_path / "m.csv", inputs=given)
    with pytest.raises(InputError, match="named twice"):
        merge_outputs([*outputs, outputs[0]], tmp_path / "m.csv", inputs=given)
    again = tmp_path / "again"
    again.mkdir()
    for path in tmp_path.glob(f"{outputs[1].name}*"):
        shutil.copy(path, again)
    with pytest.raises(InputError, match="shard 2 of 4 is there twice"):
        merge_outputs([*outputs, again / outputs[1].name], tmp_path / "m.csv", inputs=given)


def test_outputs_without_names_or_journals_are_merged_as_they_are_named(tmp_path: Path) -> None:
    outputs = copied("in.csv", tmp_path, journals=False)
    renamed = [path.rename(tmp_path / f"part{n}.csv") for n, path in enumerate(outputs)]
    merge_outputs(renamed, tmp_path / "m.csv", inputs=[tmp_path / "in.csv"])
    assert (tmp_path / "m.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    with pytest.raises(InputError, match="another order"):
        merge_outputs(renamed[::-1], tmp_path / "m2.csv", inputs=[tmp_path / "in.csv"])
    with pytest.raises(UsageError, match="no journal beside it"):
        merge_outputs(renamed, tmp_path / "m2.csv")


def test_shards_of_another_job_input_or_number_are_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path / "in.csv")
    one = output_of(source, "1/2")
    asked = output_of(source, "2/2", prompt="Cry {{ text }}", output=str(tmp_path / "asked.csv"))
    with pytest.raises(UsageError, match="was asked something else"):
        merge_outputs([one, asked], tmp_path / "m.csv")
    more = output_of(source, "2/2", add=["cost"], output=str(tmp_path / "more.csv"))
    with pytest.raises(InputError, match="its columns are not those of .*it has 'cost' more"):
        merge_outputs([one, more], tmp_path / "m.csv")
    with pytest.raises(UsageError, match="not the shards of one run"):
        merge_outputs([one, output_of(source, "2/3")], tmp_path / "m.csv")
    two = output_of(source, "2/2")
    other = tmp_path / "other.csv"
    other.write_text(source.read_text().replace("row 3", "row three"))
    with pytest.raises(InputError, match="is not the input that these outputs are of"):
        merge_outputs([one, two], tmp_path / "m.csv", inputs=[other])
    with pytest.raises(InputError, match="is that of another input"):
        merge_outputs([one, output_of(other, "2/2")], tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


def test_the_command_says_what_it_did_and_what_is_wrong(tmp_path: Path, batchllm: Command) -> None:
    outputs = copied("in.csv", tmp_path, journals=True)
    said = batchllm("merge", *outputs, "-o", tmp_path / "m.csv")
    assert said.status == 0
    assert f"{ROWS} rows of {SHARDS} shards, checked against the journals" in said.err
    assert batchllm("merge", *outputs, "-o", tmp_path / "m.csv").status == 2
    assert batchllm("merge", tmp_path / "*.shard-*", "-o", tmp_path / "p.csv").status == 0
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "m.csv").read_bytes()
    assert "no*.csv: matches no file of rows" in batchllm("merge", "no*.csv", "-o", tmp_path / "q.csv").err
    assert batchllm("merge", *outputs, "-o", tmp_path / "m.csv", "--force").status == 0
    assert batchllm("merge", *outputs[1:], "-o", tmp_path / "m2.csv").status == 65
    assert batchllm("merge", *outputs, "-o", outputs[0], "--force").status == 2
    unfinished = batchllm(
        "run",
        "-p",
        "Say {{ text }}",
        tmp_path / "in.csv",
        "--provider",
        "simulator",
        "--shard",
        "1/4",
        "-o",
        tmp_path / "x.shard-1-of-4.csv",
        "-n",
        2,
    )
    assert unfinished.status == 0
    said = batchllm("merge", tmp_path / "x.shard-1-of-4.csv", *outputs[1:], "-o", tmp_path / "m3.csv")
    assert (said.status, "shard 1 of 4 is not finished" in said.err) == (65, True), said.err
