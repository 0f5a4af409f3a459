"""What a command says after a run, on standard error: the samples of a trial, the summary, and why rows failed.

Text of a model or a file goes through ``printable`` before a terminal sees it.
"""

import shlex
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from batchllm.cli.streams import say
from batchllm.cli.terminal import possibly_billed_text
from batchllm.job import Job
from batchllm.prepare.job_paths import is_disk_folder, job_paths
from batchllm.printable import counted, dollars, duration, one_line, printable
from batchllm.retry import reason_text
from batchllm.runner import Result, Summary
from batchllm.screen import Tone

SHOWN = 150
"""Characters of a text or an answer that the samples of a trial show."""

MOST_REASONS = 3
"""The most reasons of failures whose words the summary shows."""


def show_result(job: Job, result: Result) -> None:
    """The summary of a finished run, what matters most first."""
    for asked, sample in zip(result.asked, result.samples, strict=True):
        say(f"  asked: {one_line(asked, SHOWN)}")
        say("    " + " · ".join(f"{name}: {one_line(str(value), SHOWN)}" for name, value in sample.items()))
    head, *lines = summary_lines(result.summary, result.pace)
    say(head, tone=None if result.summary.failed else Tone.DONE)
    if result.output is not None:
        say(f"Written: {result.output}{'/' if is_disk_folder(result.output) else ''}")
    if result.instead_of is not None:
        say(f"{result.instead_of} holds the finished job and stays as it is")
    if result.summary.failed:
        show_failures(job, result)
    for line in lines:
        say(line)
    if bad_rows := result.summary.bad_rows:
        say(f"Left out because they cannot be read: {counted(bad_rows, 'row')}{_in_files(result.skipped)}")
    if job.engine is not None and result.possibly_billed_rows:
        say(possibly_billed_text(result.possibly_billed_rows, "Workers"))
    if job.confidence and (note := confidence_note(result.summary)):
        say(note)
    if result.evaluation is not None:
        say("")
        for line in result.evaluation.lines():
            say(line)


def _in_files(paths: Sequence[Path]) -> str:
    """Says in which files something is; nothing without any."""
    more = f" and {counted(len(paths) - 3, 'more file')}" if len(paths) > 3 else ""
    return f", in {', '.join(map(str, paths[:3]))}{more}" if paths else ""


def confidence_note(summary: Summary) -> str:
    """Says where the column ``confidence`` is empty because no logprobs came; empty if it is full."""
    missing = summary.answered - summary.with_confidence
    if not missing:
        return ""
    if not summary.with_confidence:
        return "The endpoint gave no logprobs, so the column confidence is empty"
    return f"The endpoint gave no logprobs for {counted(missing, 'answer')}; there the column confidence is empty"


def show_failures(job: Job, result: Result) -> None:
    """How many rows failed and why, in the endpoint's words, and the commands to look at them and to ask again."""
    summary, paths = result.summary, job_paths(job)
    say(f" ({reasons(summary.failed_by_reason)})", lead=f"Failed: {summary.failed:,}", tone=Tone.FAILED)
    most = sorted(result.failures, key=lambda reason: -summary.failed_by_reason.get(reason, 0))
    for reason in most[:MOST_REASONS]:
        row, message = result.failures[reason]
        say(f"  row {row + 1:,}: {message}")
    if most and not job.into_parts:
        where = paths.journal if paths.output is None or paths.journal_lock else paths.output
        say(f"  to look: batchllm show {shlex.quote(str(where))} {result.failures[most[0]][0] + 1}")
    say("  to ask again: the same command with --retry-failed")


def summary_lines(summary: Summary, pace: str) -> list[str]:
    """The counters, tokens and costs of a run in a few plain lines."""
    head = f"{summary.answered:,} of {counted(summary.rows, 'row')} answered"
    if summary.skipped:
        head += f", {summary.skipped:,} empty"
    if before := min(summary.answered, summary.answered_before):  # rows that failed are found there too
        head += f", {before:,} of them found in the journal"
    lines = [f"{head}, in {duration(summary.seconds)}"]
    if cut_off := summary.finish_reasons.get("length"):
        lines.append(
            f"Cut off at the limit of an answer: {counted(cut_off, 'answer')}; the same command with "
            "--retry-cut-off --max-tokens N asks again for those rows alone, with a higher limit N"
        )
    if summary.labels:
        lines.append(f"Labels: {counts(summary.labels)}")
    if summary.finish_reasons:
        lines.append(f"Finish reasons: {counts(summary.finish_reasons)}")
    if summary.attempts:
        known = f"{summary.prompt_tokens or 0:,} + {summary.completion_tokens or 0:,}"
        tokens = "unknown" if summary.total_tokens is None else known
        lines.append(
            f"Paid in this run: {counted(summary.answers, 'request')}, {tokens} tokens, {paid(summary.cost)}"
        )
    lines += money_lines(summary)
    if summary.rate_limited:
        lines.append(f"Refused for a limit: {counted(summary.rate_limited, 'time')}")
    if summary.retries:
        lines.append(f"Tried again: {reasons(summary.retries)}")
    if summary.truncated:
        lines.append(f"Cut to --max-input-tokens: {counted(summary.truncated, 'text')}")
    if summary.possibly_billed_twice:
        lines.append(
            f"Possibly billed without an answer: {counted(summary.possibly_billed_twice, 'request')}"
        )
    if pace:
        lines.append(f"Pace: {pace}")
    asked = any(each.attempts for each in summary.endpoints)
    return lines + [f"  {printable(each.to_text())}" for each in summary.endpoints if asked]


def money_lines(summary: Summary) -> list[str]:
    """What was not paid in this run, and what equal rows cost; empty where neither applies."""
    lines = []
    if summary.cached_tokens:
        share = f" ({summary.cached_tokens / summary.prompt_tokens:.0%})" if summary.prompt_tokens else ""
        lines.append(
            f"Saved by the endpoint's cache: {counted(summary.cached_tokens, 'prompt token')}{share}, "
            f"{paid(summary.saved_by_cache)}"
        )
    if summary.answered_before:
        lines.append(
            f"Saved by the journal: {counted(summary.answered_before, 'answer')}, {paid(summary.saved_by_journal)}"
        )
    if summary.duplicate_rows and summary.deduplicated_rows:
        lines.append(
            f"Saved by equal rows: {counted(summary.deduplicated_rows, 'request')}, {paid(summary.saved_by_dedupe)}"
        )
    elif summary.duplicate_rows:
        lines.append(
            f"Equal to an earlier row: {counted(summary.duplicate_rows, 'row')}, {paid(summary.duplicate_rows_cost)}; "
            "--dedupe sends equal requests once"
        )
    return lines


def paid(cost: Decimal | None) -> str:
    """An amount, or that it is not known."""
    return "price unknown" if cost is None else dollars(cost)


def counts(values: Mapping[str, int]) -> str:
    """``stop 98, length 2``, the most frequent first."""
    most_first = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{printable(name)} {count:,}" for name, count in most_first)


def reasons(values: Mapping[str, int]) -> str:
    """``HTTP 500 12, timeout 2``, the most frequent first."""
    return counts({reason_text(name): count for name, count in values.items()})
