"""``--bad-rows skip`` from the command to the file of what is left out."""

from pathlib import Path

from tests.bench import Bench

BAD = b"id,text\r\n1,good one\r\n2\r\n3,fine\r\n4,a,b\r\n"
LEFT_OUT = b"id,text\r\n2\r\n4,a,b\r\n"


def test_rows_that_cannot_be_read_are_left_out_kept_counted_and_make_the_status_1(bench: Bench) -> None:
    words = ("classify", bench.file("in.csv", BAD), "-o", bench.folder / "out.csv", "--bad-rows", "skip")
    said = bench.run(*words, status=1)
    assert f"2 rows, in {bench.folder / 'out.skipped.csv'}\n" in said.err
    assert [row["id"] for row in bench.out("out.csv")] == ["1", "3"]
    skipped = bench.folder / "out.skipped.csv"
    assert skipped.read_bytes() == LEFT_OUT
    bench.run(*words, status=1)
    assert skipped.read_bytes() == LEFT_OUT
    bench.run(*words, "--restart", status=1)
    bench.file("in.csv", BAD.replace(b"2\r\n", b"2,mended\r\n").replace(b"a,b", b"a"))
    bench.run(*words)
    assert [row["id"] for row in bench.out("out.csv")] == ["1", "2", "3", "4"]
    assert not skipped.exists()


def test_the_files_of_rows_left_out_of_several_inputs_are_named(bench: Bench) -> None:
    paths = [bench.file(name, BAD) for name in ("a.csv", "b.csv")]
    said = bench.run("classify", *paths, "-o", bench.folder / "out.csv", "--bad-rows", "skip", status=1)
    named = said.err.partition("cannot be read: 4 rows, in ")[2].splitlines()[0].split(", ")
    assert named == [str(bench.folder / f"out.skipped.{name}") for name in ("a.csv", "b.csv")]
    assert all(Path(name).read_bytes() == LEFT_OUT for name in named)


def test_a_file_of_somebody_else_is_not_replaced_by_the_rows_left_out(bench: Bench) -> None:
    mine = bench.file("out.skipped.csv", b"mine")
    words = ("classify", bench.file("in.csv", BAD), "-o", bench.folder / "out.csv", "--bad-rows", "skip")
    said = bench.run(*words, status=2)
    assert "out.skipped.csv exists and is not this job's" in said.err
    assert mine.read_bytes() == b"mine"
    assert not bench.bodies
    bench.run(*words, "--force", status=1)
    assert mine.read_bytes() == LEFT_OUT
    mine.write_bytes(b"edited")
    bench.file("in.csv", b"id,text\r\n1,good one\r\n")
    bench.run(*words)
    assert mine.read_bytes() == b"edited"
