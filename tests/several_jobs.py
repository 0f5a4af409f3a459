"""Tables that other libraries write into files, and jobs over several files that count what they pay for."""

import asyncio
import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

from batchllm.job import assemble
from batchllm.journal import Journal
from batchllm.records import ChatRequest, Response
from batchllm.runner import Result, run_job
from tests import mortal_runs
from tests.batch_kills import Killed
from tests.fakes import answered

Records = list[dict[str, str]]

WRITERS = (
    "csv", "semicolons", "tabs", "windows", "quoted", "pandas", "polars", "duckdb", "jsonl", "pandas lines",
    "polars lines", "duckdb lines",
)  # fmt: skip
"""Who writes a file, and how."""


def write_by(writer: str, folder: Path, stem: str, records: Records) -> Path:
    """Writes records, which all have the same columns, into a file; returns its path."""
    lines = writer.endswith("lines") or writer == "jsonl"
    path = folder / f"{stem}{'.jsonl' if lines else '.tsv' if writer == 'tabs' else '.csv'}"
    names = list(records[0])
    if writer == "jsonl":
        path.write_text("".join(json.dumps(it, ensure_ascii=False) + "\n" for it in records), "utf-8")
    elif "pandas" in writer:
        import pandas as pd

        frame = pd.DataFrame(records, dtype=str)
        if lines:
            frame.to_json(path, orient="records", lines=True, force_ascii=False)
        else:
            frame.to_csv(path, index=False)
    elif "polars" in writer:
        import polars as pl

        table = pl.DataFrame(records, schema=dict.fromkeys(names, pl.String))
        table.write_ndjson(path) if lines else table.write_csv(path)
    elif "duckdb" in writer:
        import duckdb
        import pyarrow as pa

        rows = pa.Table.from_pylist(records, pa.schema([(name, pa.string()) for name in names]))
        made = duckdb.from_arrow(rows)
        duckdb.sql(f"COPY made TO '{path}' (FORMAT {'json' if lines else 'csv, header'})")
        del made
    else:
        delimiter = {"semicolons": ";", "tabs": "\t"}.get(writer, ",")
        end = "\r\n" if writer == "windows" else "\n"
        with path.open("w", encoding="utf-8-sig" if writer == "windows" else "utf-8", newline="") as file:
            out = csv.DictWriter(
                file,
                names,
                delimiter=delimiter,
                lineterminator=end,
                quoting=csv.QUOTE_ALL if writer == "quoted" else csv.QUOTE_MINIMAL,
            )
            out.writeheader()
            out.writerows(records)
    return path


class Ledger:
    """An endpoint that answers with the text it was sent, counts what it was paid for, and may kill its run.

    Attributes:
        paid: Requests by their text.
    """

    def __init__(self) -> None:
        self.paid: Counter[str] = Counter()
        self.dies_at: int | None = None
        self.after = False
        self.journal: Journal | None = None

    async def send(self, request: ChatRequest) -> Response:
        if self.dies_at is not None and self.paid.total() >= self.dies_at and not self.after:
            self._die()
        await asyncio.sleep(0)
        text = json.loads(request.body)["messages"][-1]["content"]
        self.paid[text] += 1
        if self.dies_at is not None and self.paid.total() >= self.dies_at and self.after:
            self._die()
        return answered(text)

    def _die(self) -> None:
        if self.journal is not None and self.journal._writer.failure is None:
            self.journal._writer.failure = RuntimeError("dead")  # nothing reaches the disk any more
        raise Killed


class SeveralJob:
    """One job over several inputs; each ``run`` is the same command again."""

    def __init__(self, *, concurrency: int = 4, **flags: Any) -> None:
        self.ledger = Ledger()
        self._flags = {
            "prompt": "{{ text }}", "column": "text", "base_url": "http://127.0.0.1:9/v1", "model": "m",
            "no_early_stop": True, "concurrency": concurrency, **flags,
        }  # fmt: skip

    def run(self, inputs: list[Path], output: Path | str, **flags: Any) -> Result:
        given = {"input": list(map(str, inputs)), "output": str(output), **self._flags, **flags}
        return run_job(assemble("run", given, {}), client=self.ledger)

    def run_killed(self, at: int | None, *, after: bool, inputs: list[Path], output: Path | str) -> bool:
        """One run that dies at a request; returns whether it finished."""
        return mortal_runs.run_killed(self.ledger, at, after=after, work=lambda: self.run(inputs, output))
