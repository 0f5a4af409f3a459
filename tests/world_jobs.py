"""Jobs of random worlds: inputs in any format, and everything that a row can need."""

import csv
import gzip
import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.document_files import pdf, word

KINDS = ("plain", "classify", "schema", "samples", "steps", "split", "conversation", "dedupe")
DOCUMENTS = ("documents", "text_from")
SUFFIXES = ("csv", "jsonl", "parquet", "csv.gz", "jsonl.gz")

STEPS = """
[[steps]]
name = "kind"
template = "classify"
labels = ["positive", "negative", "neutral"]

[[steps]]
name = "reply"
when = "{{ kind != 'neutral' }}"
prompt = "Answer: {{ text }}"
max_tokens = 20

[[steps]]
name = "check"
when = "{{ reply }}"
prompt = "Check: {{ reply }}"
schema = "sort [a|b], score 1..5"
max_tokens = 20
"""

ECHO = {"prompt": "Say: {{ text }}", "max_tokens": 20}
OPTIONS: Mapping[str, dict[str, Any]] = {
    "plain": ECHO,
    "classify": {"task": "classify"},
    "schema": {"prompt": "Judge: {{ text }}", "schema": "sort [a|b], score 1..5", "max_tokens": 20},
    "samples": {"task": "classify", "samples": 3},
    "steps": {},
    "split": {"task": "summarize", "on_long": "split", "max_input_tokens": 60},
    "conversation": {**ECHO, "conversation": "thread"},
    "dedupe": {**ECHO, "dedupe": True},
    "documents": {**ECHO, "column": None},
    "text_from": {**ECHO, "column": None, "text_from": "path", "media_root": "."},
}


@dataclass(frozen=True)
class WorldJob:
    """A job.

    Attributes:
        kind: Of ``KINDS`` or ``DOCUMENTS``.
        inputs: Its files.
        rows: What is in them.
        suffix: Of its output.
    """

    kind: str
    inputs: tuple[Path, ...]
    rows: tuple[dict[str, str], ...]
    suffix: str

    @classmethod
    def drawn(
        cls, folder: Path, chance: random.Random, most_rows: int, kinds: Sequence[str] = KINDS
    ) -> "WorldJob":
        """Draws one, and writes its inputs."""
        kind = chance.choice(kinds)
        count = chance.randint(25, most_rows if kind in ("plain", "classify", "dedupe") else most_rows // 2)
        rows = tuple(_row(number, kind, chance) for number in range(count))
        suffix = chance.choice(SUFFIXES)
        if kind in DOCUMENTS:
            paths = tuple(_document(folder, number, row["text"], chance) for number, row in enumerate(rows))
            if kind == "documents":
                return cls(kind, paths, rows, chance.choice(SUFFIXES))
            rows = tuple({**row, "path": path.name} for row, path in zip(rows, paths, strict=True))
        cut = sorted(chance.sample(range(1, count), chance.choice((0, 0, 1, 2))))
        inputs = []
        for part, (start, end) in enumerate(zip([0, *cut], [*cut, count], strict=True)):
            inputs.append(folder / f"in-{part}.{suffix}")
            inputs[-1].write_bytes(encoded([_written(row, kind) for row in rows[start:end]], suffix))
        return cls(kind, tuple(inputs), rows, chance.choice((suffix, suffix, *SUFFIXES)))

    def text(self, url: str, **options: Any) -> str:
        """Returns the job file."""
        table = {
            "input": [str(path) for path in self.inputs],
            "model": "gpt-4o-mini",
            "column": "text",
            "no_early_stop": True,
            **OPTIONS[self.kind],
            **options,
        }
        lines = [f"{name} = {json.dumps(value)}" for name, value in table.items() if value is not None]
        return "\n".join(["[job]", *lines, url, STEPS if self.kind == "steps" else ""])


def _row(number: int, kind: str, chance: random.Random) -> dict[str, str]:
    named = chance.randrange(6) if kind == "dedupe" and chance.random() < 0.7 else number
    words = f"This is row {named} of the table."
    if kind == "split":
        words = " ".join(
            f"Item {item} of row {number} says something long." for item in range(chance.randint(1, 30))
        )
    luck = chance.random()
    text = "" if luck < 0.08 and kind not in DOCUMENTS else f"refused {words}" if luck < 0.12 else words
    return {
        "id": f"{number:05}",
        "text": text,
        "thread": f"t{number // 10}{chance.choice('ab')}" if number % 7 else "",
    }


def _written(row: dict[str, str], kind: str) -> dict[str, str]:
    return {name: text for name, text in row.items() if kind != "text_from" or name != "text"}


def _document(folder: Path, number: int, text: str, chance: random.Random) -> Path:
    suffix = chance.choice(("pdf", "docx", "html", "md", "txt"))
    path = folder / f"document-{number:05}.{suffix}"
    made = {"pdf": lambda: pdf([text]), "docx": lambda: word(text), "html": lambda: f"<p>{text}</p>".encode()}
    path.write_bytes(made.get(suffix, text.encode)())
    return path


def encoded(rows: Sequence[Mapping[str, str]], suffix: str) -> bytes:
    """Returns the rows as a file."""
    if suffix == "parquet":
        made = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows)), made, row_group_size=17)
        return made.getvalue()
    text = io.StringIO(newline="")
    if suffix.startswith("csv"):
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    else:
        text.writelines(json.dumps(row) + "\n" for row in rows)
    data = text.getvalue().encode()
    return gzip.compress(data) if suffix.endswith("gz") else data


def decoded(path: Path) -> list[dict[str, str]]:
    """Reads an output without the program; every value is text."""
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    else:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        if ".csv" in path.suffixes:
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
        else:
            rows = [json.loads(line) for line in text.splitlines()]
    return [{name: _text(value) for name, value in row.items()} for row in rows]


def _text(value: Any) -> str:
    """Returns a value as CSV has it."""
    if isinstance(value, list):
        return json.dumps(value, separators=(",", ":"))
    return "" if value is None else str(value)
