"""The command line in one call: words in; status, standard output and standard error out."""

import sys
from dataclasses import dataclass

import pytest

from batchllm.cli import main


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


class Command:
    """Runs ``batchllm`` in this process, with no terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: object) -> Said:
        self._monkeypatch.setattr(sys, "argv", ["batchllm", *map(str, words)])
        self._capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        seen = self._capsys.readouterr()
        return Said(status, seen.out, seen.err)
