"""Records how a run ended, whatever ended it: a line of ``--summary``, and the last event of ``--log-file``."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from time import monotonic
from typing import Any

from batchllm import __version__
from batchllm.errors import INTERNAL_ERROR, CannotWrite, ExitStatus, JobError, UsageError
from batchllm.job import Job
from batchllm.job.jobfile import read
from batchllm.job.layers import Given, environment_layer, flag_layer
from batchllm.job.options import OPTIONS
from batchllm.job.record import named
from batchllm.job.url import normalise
from batchllm.run_log import RunLog, now_text
from batchllm.runner.summary import Summary

_NOTHING_SENT = (
    "requests",
    "attempts",
    "answers",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cost",
)


@dataclass(eq=False)
class RunRecord:
    """What is recorded of one run.

    Attributes:
        subject: The run in words: job, input, output, provider, endpoint, model.
        summary_path: The file of ``--summary``.
        log: The file of ``--log-file``.
        figures: The run in numbers; ``None`` if it ended before anything was sent.
        time: When it began, in UTC.
    """

    subject: Mapping[str, str | None]
    summary_path: Path | None = None
    log: RunLog = field(default_factory=RunLog)
    figures: Summary | None = None
    time: str = field(default_factory=now_text)
    _began_s: float = field(default_factory=monotonic)

    def describe(self, job: Job) -> None:
        """Takes the words from a job."""
        self.subject = _subject(job)

    def begin(self) -> None:
        """Writes the first event."""
        self.log.write("start", **self.subject, version=__version__)

    def end(self, error: BaseException | None) -> None:
        """Writes the line of the summary and the last event.

        Raises:
            CannotWrite: The summary cannot be written.
        """
        record = self._to_json(error)
        self.log.write("end", began=record.pop("time"), **record)
        self.log.close()
        if self.summary_path is not None:
            write_summary({"time": self.time, **record}, self.summary_path)

    def _to_json(self, error: BaseException | None) -> dict[str, Any]:
        head = {"time": self.time, **self.subject, "version": __version__}
        if self.figures is not None:
            figures = asdict(self.figures)
        else:
            # What was found in no input and no journal is unknown; that nothing was sent is known.
            figures = {name.name: None for name in fields(Summary)} | dict.fromkeys(_NOTHING_SENT, 0)
            figures["seconds"] = round(monotonic() - self._began_s, 3)
        if error is not None:
            figures["exit_status"] = int(status_of(error))
        text = None if error is None else str(error) or type(error).__name__
        return {**head, "exit_status": figures.pop("exit_status"), "error": text, **figures}


@contextmanager
def recorded(job: Job) -> Iterator[RunRecord]:
    """Records how the run inside the ``with`` block ends.

    Raises:
        CannotWrite: The run is finished, and its summary cannot be written.
    """
    record = RunRecord(_subject(job), job.summary, RunLog(job.log_file))
    try:
        yield record
    except BaseException as error:
        with suppress(JobError):  # the error to report is the one that stopped the run
            record.end(error)
        raise
    record.end(None)


def record_refusal(
    task: str, flags: Mapping[str, Any], environ: Mapping[str, str], error: BaseException
) -> None:
    """Records what ended a run before there was a job.

    Args:
        task: The command.
        flags: Its options by name, as they were given.
        environ: The environment.
        error: What ended it.
    """
    given = _given(flags, environ)
    words = {name: _value(given, name) for name in ("input", "output", "provider", "base_url", "model")}
    words |= {name: (words[name] or (None,))[0] for name in ("provider", "base_url")}
    inputs = words["input"]
    words["input"] = inputs and named(inputs)
    texts = {name: None if value is None else str(value) for name, value in words.items()}
    url = _url(texts.pop("base_url"))
    subject = {"job": str(flags.get("job_file", task)), **texts, "endpoint": url}
    record = RunRecord(subject, _value(given, "summary"), RunLog(_value(given, "log_file")))
    with suppress(JobError):  # the error to report is the one that ended the run
        record.end(error)


def status_of(error: BaseException) -> int:
    """Returns the exit status of the process that an error ends."""
    if isinstance(error, KeyboardInterrupt) and not hasattr(error, "exit_status"):
        return ExitStatus.SIGINT
    # Errors of the library that parses the command line have an exit code.
    return int(getattr(error, "exit_status", getattr(error, "exit_code", INTERNAL_ERROR)))


def write_summary(figures: Mapping[str, Any], path: Path) -> None:
    """Writes one JSON object; if ``path`` ends in ``.jsonl``, appends it as a line.

    Raises:
        CannotWrite: The file cannot be written.
    """
    lines = path.suffix == ".jsonl"
    text = json.dumps(figures, ensure_ascii=False, indent=None if lines else 2, default=float)
    try:
        with path.open("a" if lines else "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text + "\n")
    except OSError as error:
        reason = f"the summary cannot be written ({error.strerror})"
        raise CannotWrite(f"{path}: {reason}; all answers are kept, correct that and run again") from error


def _subject(job: Job) -> dict[str, str | None]:
    endpoint = job.endpoint
    return {
        "job": job.task if job.job_file is None else str(job.job_file),
        "input": job.input_name if job.inputs else "-",
        "output": "-" if job.output is None else str(job.output),
        "provider": endpoint.preset,
        "endpoint": endpoint.base_url or None,
        "model": endpoint.model or None,
    }


def _url(text: str | None) -> str | None:
    """A URL without a password; ``None`` if it is none."""
    try:
        return None if text is None else normalise(text, "--base-url")
    except UsageError:
        return None


def _given(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Given:
    """The layers that can be read."""
    known = {name: value for name, value in flags.items() if name in OPTIONS}
    layers = [flag_layer(known)]
    with suppress(UsageError):
        layers.append(environment_layer(environ))
    if "job_file" in flags:
        with suppress(JobError):
            layers += read(Path(flags["job_file"])).layers
    return Given(tuple(layers))


def _value(given: Given, name: str) -> Any:
    try:
        return given.get(name)
    except UsageError:
        return None
