"""A job in a folder of its own: its input, its files, the oracle's ledger."""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# One of each disposition: plain, equal to another, empty, refused by the filter, rejected, busy once, lost once.
TEXTS = (
    "one", "two", "busy three", "two", "", "bad six", "seven", "lost eight", "filtered nine", "ten",
    "eleven", "twelve, with \"quotes\"\nand a second line", "thirteen", "fourteen", "fünfzehn", "sixteen",
    "two", "eighteen", "nineteen", "twenty", "twenty-one", "twenty-two", "twenty-three", "twenty-four",
    "twenty-five", "two", "twenty-seven", "twenty-eight", "twenty-nine", "thirty", "thirty-one", "thirty-two",
)  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """The files of one job."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, texts: Sequence[str] = TEXTS) -> "Scenario":
        folder.mkdir(parents=True)
        write_input(folder / "input.csv", texts)
        return cls(folder)

    def copy(self, folder: Path) -> "Scenario":
        shutil.copytree(self.folder, folder)
        return Scenario(folder)

    @property
    def input(self) -> Path:
        return self.folder / "input.csv"

    @property
    def output(self) -> Path:
        return self.folder / "output.csv"

    @property
    def journal(self) -> Path:
        return self.folder / "output.csv.journal"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.jsonl"

    def notes(self) -> list[dict[str, Any]]:
        """What the oracle noted, in order."""
        if not self.ledger.exists():
            return []
        return [json.loads(line) for line in self.ledger.read_bytes().splitlines()]

    def rows(self) -> list[list[str]]:
        """The input's cells, without the header."""
        return read_csv(self.input)[1:]

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def write_input(path: Path, texts: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "text", "unused"])
        writer.writerows([str(i), text, f"{i % 3:03d}"] for i, text in enumerate(texts))


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, strict=True))
