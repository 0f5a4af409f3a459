"""What a job does with a large file, without a network: a scan, a pass for requests, and the output.

``python -m tests.parquet_scale make FILE ROWS`` makes a file, in one row group where that is Parquet; ``python -m
tests.parquet_scale run FILE OUTPUT`` prints seconds of CPU and peak memory in bytes as JSON.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from batchllm.formats import Outcome, format_of, open_source, plan_columns, write_output
from batchllm.records import Answer, Usage

KINDS = {"attempts": int, "prompt_tokens": int, "completion_tokens": int, "total_tokens": int}


def make(path: Path, rows: int) -> None:
    """Writes a table of a number, a text and a float."""
    texts = (f"a review of usual length with number {number * 7919 % rows}" for number in range(rows))
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        scores = [number / 7 for number in range(rows)]
        table = pa.table({"id": list(range(rows)), "text": list(texts), "score": scores})
        pq.write_table(table, path, row_group_size=rows)
        return
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text,score\n")
        file.writelines(f"{number},{text},{number / 7}\n" for number, text in enumerate(texts))


def run(path: Path, output: Path) -> None:
    """Reads a file as a job does, and writes it with answers."""
    begin = time.process_time()
    source = open_source(path)
    statistics = source.scan()
    for row in source.rows():
        assert row.values["text"]

    def outcomes() -> Iterator[Outcome]:
        usage = Usage(10, 5, 15)
        for index in range(statistics.rows):
            answer = Answer({"summary": f"a summary {index}"}, finish_reason="stop", model="m", usage=usage)
            yield Outcome(index, answer, 1)

    columns = replace(plan_columns(statistics.columns, ("summary",)), kinds=KINDS)
    written = write_output(
        source, outcomes(), path=output, columns=columns, output_format=format_of(output).name
    )
    assert written.rows == statistics.rows
    used = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps({"cpu_s": time.process_time() - begin, "peak_bytes": used.ru_maxrss * unit}))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        run(Path(sys.argv[2]), Path(sys.argv[3]))
