"""A call becomes a job: of a file, of a job that was made before, or of rows in memory.

Rows in memory are written to a file (Parquet where the output has types, else JSONL), since a job reads its input
several times, and goes on in another process. Only the columns that prompts read are in it, unless ``output`` names a
file that is to have all of them. Where neither output nor journal is named, both lie in the user's state folder, and
their name is a hash of these rows and of what is asked: another question is another job.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchllm.api.messages import in_python
from batchllm.api.options import are_paths, is_path, options_of, parsed_options
from batchllm.api.results import answer_columns, parsed_of, with_table
from batchllm.api.tables import FilesTable, Table, table_of
from batchllm.errors import UsageError
from batchllm.formats import format_of, kept_columns
from batchllm.formats.columns import SOURCE_FILE
from batchllm.formats.memory import put_rows
from batchllm.job import Job, assemble
from batchllm.job.assembly import NOTHING_ASKED, check_task
from batchllm.job.endpoints import with_keys
from batchllm.job.gold import gold_columns
from batchllm.job.options import INPUT, OPTIONS
from batchllm.job.paths import are_several
from batchllm.journal import check_folder, remove, state_path
from batchllm.prepare.job_paths import job_paths, journal_beside, rows_path
from batchllm.prepare.prepared_job import output_columns
from batchllm.progress import Progress
from batchllm.request import RequestBuilder
from batchllm.runner import FinishedRow, Result, RowFeed, run_job
from batchllm.stopping import StopSwitch
from batchllm.stores import located

log = logging.getLogger("batchllm.api")

ASKING_COLUMNS = frozenset({"messages", "task", "body"})
"""Columns of a frame, one of which says what to ask where no prompt and no template does."""

_UNNAMED = "rows.jsonl"
_READING = {name for name, option in OPTIONS.items() if option.panel == INPUT} - {"input", "column"}
"""Options that say how a file is read."""


@dataclass(frozen=True, slots=True)
class JobCall:
    """A job that is ready to run.

    Attributes:
        job: The job.
        table: Its rows, where they are in memory.
        content: These rows as they are written to the job's input, JSONL or Parquet.
        model: The pydantic model of the answers.
        keep: Keep journal and copies after success.
        is_unnamed: Its output lies in the state folder.
        gold: Where the known answers are in the table, if the run does not evaluate them itself.
        on: See ``Job.on``.
        own: The columns of the table that the result has, by position; ``None`` is all of them.
    """

    job: Job
    table: Table | None = None
    content: bytes = b""
    model: Any = None
    keep: bool = True
    is_unnamed: bool = False
    gold: tuple[str, ...] = ()
    on: str | None = None
    own: tuple[int, ...] | None = None

    def run(
        self,
        *,
        progress: Progress | None,
        wait: bool,
        stops: StopSwitch,
        deliver: Callable[[FinishedRow], None] | None,
        has_room: Callable[[], bool],
    ) -> Result:
        """Runs the job in this thread.

        Args:
            progress: Shows the progress.
            wait: Wait for batches.
            stops: What may stop it.
            deliver: Called with each row as it finishes; ``None`` for nobody.
            has_room: Whether its receiver takes more.
        """
        rows: list[FinishedRow] = []
        collects = self.table is not None or self.model is not None

        def hand_out(row: FinishedRow) -> None:
            if "--" in (row.error or ""):
                words = in_python(row.error or "")
                told = {name: words if value == row.error else value for name, value in row.answers.items()}
                row = replace(row, answers=told, error=words)
            if collects:
                rows.append(row if deliver is None else replace(row, values={}))
            if deliver is not None:
                values = row.values if self.table is None else self.table.row(row.index)
                deliver(replace(row, values=values))

        feed = RowFeed(
            hand_out if collects or deliver else None,
            live=deliver is not None,
            values=self.table is None and deliver is not None,
            has_room=has_room,
        )
        name = self.job.input_name
        log.info("a run of %s begins: %s", name, self.job.endpoint.base_url or self.job.endpoint.preset)
        shown: dict[str, Any] = {"progress": progress, "feed": feed, "bring_input": self._bring_input}
        if self.job.engine is None:
            result = run_job(self.job, **shown, wait=wait, stops=stops)
        else:
            from batchllm.cluster.driver import run_cluster

            result = run_cluster(self.job, **shown, stops=stops)
        summary = result.summary
        log.info("the run of %s ended: %d of %d rows answered", name, summary.answered, summary.rows)
        result = self._result(result, feed, sorted(rows, key=lambda row: row.index))
        if not self.keep and result.exit_status == 0:
            result = self._forget(result)
        return result

    def _bring_input(self) -> None:
        if self.table is None:
            return
        if self.job.engine is None:
            put_rows(self.job.inputs[0], self.content)
            return
        from batchllm.cluster.work import open_work

        open_work(str(self.job.work)).create(self.job.inputs[0].name, self.content)

    def _result(self, result: Result, feed: RowFeed, rows: list[FinishedRow]) -> Result:
        parsed = None
        if self.model is not None:
            parsed = parsed_of(self.model, rows)
        if self.table is None:
            return replace(result, models=parsed)
        answers = answer_columns(feed.columns, self.job, [row.answers for row in rows])
        indices = [row.index for row in rows]
        whole = len(indices) == len(self.table)
        joined = self.table.joined(None if whole else indices, answers, self.own)
        found = with_table(result, joined, parsed)
        return replace(found, evaluation=found.evaluate(self.gold, on=self.on)) if self.gold else found

    def _forget(self, result: Result) -> Result:
        """Removes what the job left beside a named output."""
        paths = job_paths(self.job)
        remove(paths.journal)
        left = [*paths.locks]
        if self.table is not None and self.job.engine is None:
            left += self.job.inputs
        if self.is_unnamed and self.job.output is not None:
            left.append(self.job.output)
        for path in left:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        return replace(result, output=None) if self.is_unnamed else result


def job_call(
    rows: Any, task: str, options: Mapping[str, Any], *, keep: bool | str | Sequence[str] = True
) -> JobCall:
    """Returns the job of a call; see ``run``.

    Raises:
        UsageError: Rows or options are wrong.
        InputError: A row cannot be read.
    """
    if not isinstance(keep, bool):
        options, keep = {**options, "keep": keep}, True
    if isinstance(rows, Job):
        others = set(options) - {"api_key"}
        if others:
            raise TypeError("a Job has its options already; use dataclasses.replace to change one")
        key = options_of("run", options)[1]
        return JobCall(with_keys(rows, os.environ, key), keep=keep)
    check_task(task)
    found, key, model = options_of(task, options)
    if "input" in found:
        raise UsageError("the rows are the first argument; leave out input=")
    if are_paths(rows) and ("output" in found or any(map(_is_several, rows))):
        job = assemble(task, {"input": [os.fspath(path) for path in rows], **found}, os.environ, api_key=key)
        return JobCall(job, model=model, keep=keep)
    if are_paths(rows):
        reading = {name: found.pop(name) for name in _READING if name in found}
        table = FilesTable(rows, parsed_options(reading))
        return _table_call(table, task, found, key, model, keep)
    if is_path(rows):
        path = os.fspath(rows)
        which = {"job_file" if path.lower().endswith(".toml") else "input": path}
        job = assemble(task, {**which, **found}, os.environ, api_key=key)
        return JobCall(job, model=model, keep=keep)
    return _table_call(table_of(rows), task, found, key, model, keep)


def _is_several(path: Any) -> bool:
    """Whether a path means any number of files, which are one job and need an output."""
    return are_several((located(os.fspath(path)),))


def _table_call(
    table: Table, task: str, options: dict[str, Any], key: str | None, model: Any, keep: bool
) -> JobCall:
    for name in options:
        if name in _READING:
            raise UsageError(f"{name}= is for files; rows in memory have none")
    named = "output" in options
    job = assemble(
        task,
        {**options, "input": _UNNAMED, "output": options.get("output", f"{task}-{_UNNAMED}")},
        os.environ,
        api_key=key,
    )
    _check_table_job(job, table)
    builder = RequestBuilder(job, table.columns or None, table.sample(), None)
    output_columns(job, builder, table.columns)
    own = None
    if job.keep or job.drop:
        wanted = kept_columns(table.columns, job.keep, job.drop)
        positions = table.positions(wanted)
        own = tuple(positions[name] for name in wanted)
    names = set(table.columns) if named or job.per_row else set(builder.used_columns)
    names |= {name for name in (builder.column, job.conversation) if name is not None}
    gold = () if named else job.gold  # of rows in the state folder it is no part of the job
    names -= gold_columns(gold, table.columns)
    content, suffix = _content(table, names, job.output if named and not job.into_folder else None)
    job = replace(job, column=builder.column if builder.column in table.columns else job.column)
    on = job.on
    if not named and job.retry_cut_off and "journal" not in options:
        raise UsageError(
            "retry_cut_off= finds the answers in a journal; name the job's with output= or journal="
        )
    if not named:
        job = replace(job, gold=(), on=None, keep=None, drop=None)
        question = json.dumps([job.fingerprint(), hashlib.sha256(content).hexdigest()], sort_keys=True)
        output = state_path(f"{task}-{hashlib.sha256(question.encode()).hexdigest()[:16]}.jsonl")
        usual = None if "journal" in options else journal_beside(output)
        job = replace(job, output=output, journal=usual or job.journal)
    journal = job_paths(job).journal
    check_folder(journal)
    place = rows_path(journal, suffix).absolute()
    if job.engine is not None and job.work is not None:  # which all machines see
        place = job.work.absolute() / f"rows-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    job = replace(job, inputs=(place,))
    return JobCall(job, table, content, model, keep, is_unnamed=not named, gold=gold, on=on, own=own)


def _check_table_job(job: Job, table: Table) -> None:
    """Refuses what a job of rows in memory cannot be.

    Raises:
        UsageError: Nothing is asked, or an option is one of files.
    """
    if job.per_row and not table.nested and not ASKING_COLUMNS & set(table.columns):
        raise UsageError(
            f"{NOTHING_ASKED}, or rows with one of the columns {', '.join(sorted(ASKING_COLUMNS))}"
        )
    if SOURCE_FILE in (*job.add, *(job.columns or ())):
        raise UsageError("add= source_file: rows in memory have no file; name an output for those of files")
    if job.output is None:
        raise UsageError("output= must name a file; frame() has the answers of rows in memory")


def _content(table: Table, names: set[str], output: Path | None) -> tuple[bytes, str]:
    """Returns the rows as a file, and its suffix: Parquet where the output has types, which JSONL has not."""
    typed = table.parquet(names) if output is not None and format_of(output).magic else None
    return (table.content(names), ".jsonl") if typed is None else (typed, ".parquet")
