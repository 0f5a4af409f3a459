"""The result of a run, as the library returns it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

from batchllm.errors import UsageError
from batchllm.evaluate.answered import AnsweredRows, open_output
from batchllm.evaluate.evaluation import Evaluation
from batchllm.evaluate.gold import GoldWords
from batchllm.evaluate.output_source import output_source
from batchllm.formats.several import SeveralSource
from batchllm.job import Job
from batchllm.printable import counted, dollars, printable
from batchllm.runner.summary import Summary


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Result:
    """A finished run.

    Attributes:
        output: The file or folder that was written; ``None`` is standard output.
        summary: The run in numbers.
        instead_of: The finished output that a trial left as it is.
        possibly_billed_rows: Rows, from 1, that a dead run possibly paid without an answer.
        samples: Up to three answers, with ``-n`` and ``--sample``.
        asked: The texts of their rows.
        failures: The first failed row of each reason, from 0, and its error.
        pace: The rate of the requests as text; empty if there is none.
        read_options: Options of ``open_source`` that the output is read with.
        models: What ``parsed`` returns, where the schema was a pydantic model.
        evaluation: The figures against known answers, where the job says where these are (``gold``).
        job: The job that ran.
        skipped: The files with the records that were left out because they cannot be read.
    """

    output: Path | None
    summary: Summary
    instead_of: Path | None = None
    possibly_billed_rows: tuple[int, ...] = ()
    samples: tuple[Mapping[str, Any], ...] = ()
    asked: tuple[str, ...] = ()
    failures: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    pace: str = ""
    read_options: Mapping[str, str] = field(default_factory=dict)
    models: tuple[Any, ...] | None = None
    evaluation: Evaluation | None = None
    job: Job | None = field(default=None, compare=False)
    skipped: tuple[Path, ...] = ()

    def evaluate(self, gold: GoldWords, *, on: str | None = None, kind: str | None = None) -> Evaluation:
        """Compares the answers with known answers.

        Args:
            gold: A column of the rows, a path to a file with the known answers, a mapping of answer columns to columns,
                or the known answers themselves, in the order of the rows.
            on: With a file: the column that both have.
            kind: What to compare answers as: ``label``, ``labels``, ``number`` or ``text``; by default what the job
                and the known answers say.

        Raises:
            UsageError: It is not clear what to compare, or no row has a known answer.
            InputError: A file cannot be read.
        """
        from batchllm.evaluate.files import evaluate_answered

        return evaluate_answered(self._answered("evaluate"), gold, on=on, kind=kind)

    def report(
        self, path: str | PathLike[str], *, gold: GoldWords | None = None, on: str | None = None
    ) -> Path:
        """Writes one HTML page to look at: what was asked, what came, whether it is any good, cost, time, and the rows.

        Args:
            path: The page; it replaces an older report.
            gold: The known answers, see ``evaluate``; by default those that the run was given.
            on: With a file of known answers: the column that both have.

        Returns:
            The path of the page.

        Raises:
            UsageError: The output went to standard output, or there is another file at ``path``.
            CannotWrite: The page cannot be written.
        """
        from batchllm.prepare.job_paths import job_paths
        from batchllm.report import check_page, report_on, write_page

        rows, path = self._answered("report"), Path(path)
        check_page(path)
        if gold is None and self.job is not None and self.job.gold:
            gold, on = self.job.gold, self.job.on
        journal = None if self.job is None else job_paths(self.job).journal
        found = journal if journal is not None and journal.exists() else None
        write_page(report_on([rows], found, self.output, gold=gold, on=on), path)
        return path

    def _answered(self, purpose: str) -> AnsweredRows:
        if self.output is None:
            raise UsageError(f"the output went to standard output; name a file to {purpose} it")
        return open_output(self.output, job=self.job, options=self.read_options)

    @property
    def parsed(self) -> tuple[Any, ...]:
        """Instances of the pydantic model that was given as ``schema``, one a row.

        ``None`` stands for a row without an answer, and for an answer that validators of the model's own refuse.

        Raises:
            UsageError: The schema was no pydantic model.
        """
        if self.models is None:
            raise UsageError("there is nothing parsed: schema= was no pydantic model")
        return self.models

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {text}" for name, text in self._lines())

    def _repr_html_(self) -> str:
        """Returns a small table, for notebooks."""
        cells = (f"<tr><th>{name}</th><td>{escape(text)}</td></tr>" for name, text in self._lines())
        return f"<table>{''.join(cells)}</table>"

    def _lines(self) -> tuple[tuple[str, str], ...]:
        """The result in three lines."""
        summary = self.summary
        reasons = ", ".join(f"{name}: {count:,}" for name, count in summary.failed_by_reason.items())
        failed = f"{summary.failed:,} failed" + (f" ({reasons})" if reasons else "")
        cost = "at an unknown price" if summary.cost is None else dollars(summary.cost)
        tokens = "unknown tokens" if summary.total_tokens is None else counted(summary.total_tokens, "token")
        before = f", {summary.answered_before:,} answered before" if summary.answered_before else ""
        return (
            (
                "rows",
                f"{summary.answered:,} of {summary.rows:,} answered, {failed}, {summary.skipped:,} empty{before}",
            ),
            ("paid", f"{counted(summary.answers, 'answer')}, {tokens}, {cost}, in {summary.seconds:.1f} s"),
            ("output", printable(str(self.output)) if self.output else "none"),
        )

    @property
    def exit_status(self) -> int:
        """0 if every row that was sent has an answer, 1 if some failed."""
        return self.summary.exit_status

    def frame(self) -> Any:
        """Returns the output as a pandas DataFrame; cells of a CSV file stay text, columns of Parquet keep their types.

        Raises:
            ValueError: The output went to standard output.
        """
        import pandas as pd

        if self.output is None:
            raise ValueError("the output went to standard output; name a file to get it as a frame")
        source = output_source(self.output, lambda path: self.read_options)
        if not isinstance(source, SeveralSource) and source.arrow_schema() is not None:
            return pd.read_parquet(source.file.local_path())
        columns = source.scan().columns
        return pd.DataFrame([row.values for row in source.rows()], columns=columns)
