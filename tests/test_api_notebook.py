"""A notebook in a real kernel: the README's lines, a plot, an interrupted cell and the same cell again."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from batchllm.simulator import Simulator, SimulatorSettings, start_in_thread

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


class Notebook:
    """A notebook whose cells are run one by one in one kernel."""

    def __init__(self, folder: Path) -> None:
        self._notebook: Any = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]
        self._client = NotebookClient(
            self._notebook, timeout=90, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )

    def __enter__(self) -> "Notebook":
        self._kernel = self._client.setup_kernel()
        self._kernel.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._kernel.__exit__(None, None, None)

    def run(self, source: str) -> list[dict[str, Any]]:
        """Runs a cell and returns its outputs."""
        cell = nbformat.v4.new_code_cell(source)  # type: ignore[no-untyped-call]
        self._notebook.cells.append(cell)
        self._client.execute_cell(cell, len(self._notebook.cells) - 1)
        return list(cell.outputs)

    def fails(self, source: str) -> str:
        with pytest.raises(CellExecutionError) as failed:
            self.run(source)
        return failed.value.ename


@pytest.fixture(scope="module")
def slow() -> Iterator[Simulator]:
    with start_in_thread(SimulatorSettings(latency_s=0.2)) as simulator:
        yield simulator


@pytest.mark.filterwarnings("ignore")  # of the libraries of Jupyter
def test_a_notebook_holds_what_the_readme_says(
    samples: Path, slow: Simulator, clean_environment: Path
) -> None:
    with Notebook(samples) as notebook:
        for lines in PYTHON:
            notebook.run(lines)
        notebook.run(
            "import pandas as pd\n"
            "from batchllm import arun, run\n"
            "frame = pd.DataFrame({'text': ['I love it', 'awful'], 'stars': [5, 1]})\n"
            "first = run(frame, 'classify', provider='simulator')\n"
            "second = run(frame, prompt='In French: {{ text }}', provider='simulator')\n"
            "assert (first.summary.attempts, second.summary.attempts) == (2, 2)\n"
            "assert run(frame, 'classify', provider='simulator').summary.attempts == 0"
        )
        (shown,) = notebook.run("first")
        assert shown["data"]["text/html"].count("<tr>") == 3
        (plotted,) = notebook.run(
            "%matplotlib inline\nfirst.frame()[['stars', 'total_tokens']].plot(x='stars', y='total_tokens');"
        )
        assert "image/png" in plotted["data"]
        assert notebook.run("result = await arun(frame, 'classify', provider='simulator', progress=True)")
        options = f"prompt='Say {{{{ text }}}}', base_url={slow.base_url!r}, model='m', concurrency=4"
        notebook.run("rows = [{'text': f'row {number}'} for number in range(40)]")
        for call in (f"run(rows, {options})", f"await arun(rows, {options}, temperature=1)"):
            before = slow.ledger.requests
            ename = notebook.fails(
                "import os, signal, threading\n"
                "threading.Timer(0.6, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n" + call
            )
            assert ename in ("KeyboardInterrupted", "CancelledError", "KeyboardInterrupt")
            paid = slow.ledger.requests - before
            assert 0 < paid < 40
            notebook.run(f"summary = ({call}).summary")
            notebook.run(f"assert (summary.answered, summary.answered_before) == (40, {paid})")
            assert slow.ledger.requests - before == 40
