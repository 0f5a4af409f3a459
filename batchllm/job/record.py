"""The job: every decision of a run as one frozen value, made before anything is read or sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchllm.formats import SUFFIXES, written_name
from batchllm.formats.suffixes import format_suffix
from batchllm.job.options import OPTIONS
from batchllm.records import Endpoint, Pace

if TYPE_CHECKING:
    from batchllm.job.endpoints import JobEndpoint
    from batchllm.template import Template


STEPS = "steps"
SPLIT = "split"

DEFAULTS: dict[str, Any] = {name: option.default_value for name, option in OPTIONS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to send, where, how fast, and what to write.

    Nothing in it is read later: template, tools, schema and key are contents here, not paths. Paths are
    absolute or relative to the working directory; those of a job file were relative to that file.

    A field that is not described here holds the value of the option of its name (``job.options``), or of the
    option that names it as its ``field``.

    Attributes:
        task: ``summarize``, ``classify``, ``codegen`` or ``run``.
        template: Makes the messages of a row; ``None`` only where ``per_row``.
        inputs: Where the rows come from, as the user named it: files, folders, patterns; empty is standard input.
        output: The file to write, or a folder that gets one for each input; ``None`` is standard output.
        journal: The journal; ``None`` only where it was not named and the output is standard output: the
            runner then puts it into the user's state folder, named after the fingerprint and the input.
        endpoint: Where requests go. With ``--provider simulator`` its ``base_url`` is empty until the runner has
            started the simulator.
        endpoints: All endpoints, where there are several, or one with settings of its own; else empty. ``endpoint``
            is then the first, whose preset shapes the requests.
        pace: Rate limits, attempts and deadlines; of several endpoints, what holds for each that has no own.
        variables: Template variables that override the template's own (``bullets``, ``labels``, …).
        parameters: Request parameters that override the template's own (``temperature``, ``max_tokens``, …).
        input_format: ``csv``, ``tsv``, ``jsonl`` … as ``--input-format`` names it; ``None``: the suffix of each input
            decides, or the bytes of standard input.
        output_format: ``csv``, ``jsonl`` …; ``None`` is the format that the input turns out to have.
        into_parts: The output is a folder that gets a file for each shard of a job on many machines.
        raised_max_tokens: The limit of an answer that requests are sent with instead of their own lower one; what a
            request is known by does not depend on it (``--retry-cut-off``).
        per_row: Rows carry their own ``messages``, ``task`` or ``body``.
        tools: Tool definitions for every request.
        tool_choice: ``auto``, ``none``, ``required`` or an object that names one tool.
        schema: JSON Schema that the answer must satisfy; its fields become columns.
        steps: What each row is asked, one step after the other; empty where one request says it all. ``template``,
            ``parameters`` and ``schema`` are then those of the first step.
        job_file: The job file; ``None`` if there is none.
        sources: Name of an option, or ``param.NAME``, to where its value came from; what is not in it is a default.
    """

    task: str
    template: Template | None
    inputs: tuple[Path, ...]
    output: Path | None
    journal: Path | None = None
    endpoint: Endpoint
    endpoints: tuple[JobEndpoint, ...] = ()
    pace: Pace = field(default_factory=Pace)
    variables: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    output_format: str | None = None
    into_parts: bool = False
    per_row: bool = False
    raised_max_tokens: int | None = None
    steps: tuple[JobStep, ...] = ()
    job_file: Path | None = field(default=None, compare=False)
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    input_format: str | None = DEFAULTS["input_format"]
    delimiter: str | None = DEFAULTS["delimiter"]
    quote: str | None = DEFAULTS["quote"]
    escape: str | None = DEFAULTS["escape"]
    skip_lines: int | None = DEFAULTS["skip_lines"]
    sheet: str | None = DEFAULTS["sheet"]
    query: str | None = DEFAULTS["query"]
    bad_rows: str | None = DEFAULTS["bad_rows"]
    encoding: str | None = DEFAULTS["encoding"]
    gold: tuple[str, ...] = DEFAULTS["gold"]
    on: str | None = DEFAULTS["on"]
    text_from: str | None = DEFAULTS["text_from"]
    column: str | None = DEFAULTS["column"]
    columns: tuple[str, ...] | None = DEFAULTS["columns"]
    add: tuple[str, ...] = DEFAULTS["add"]
    prefix: str = DEFAULTS["prefix"]
    keep: tuple[str, ...] | None = DEFAULTS["keep"]
    drop: tuple[str, ...] | None = DEFAULTS["drop"]
    rename: Mapping[str, str] | None = DEFAULTS["rename"]
    output_encoding: str | None = DEFAULTS["output_encoding"]
    escape_formulas: bool = DEFAULTS["escape_formulas"]
    summary: Path | None = DEFAULTS["summary"]
    log_file: Path | None = DEFAULTS["log_file"]
    force: bool = DEFAULTS["force"]
    system: str | None = DEFAULTS["system"]
    instructions: str | None = DEFAULTS["instructions"]
    examples: tuple[Mapping[str, Any], ...] | None = DEFAULTS["examples"]
    shots: int = DEFAULTS["shots"]
    images: tuple[str, ...] = DEFAULTS["image"]
    detail: str = DEFAULTS["detail"]
    media_root: Path | None = DEFAULTS["media_root"]
    tools: list[dict[str, Any]] | None = DEFAULTS["tools"]
    tool_choice: Any = DEFAULTS["tool_choice"]
    schema: Mapping[str, Any] | None = DEFAULTS["schema"]
    reask: int | None = DEFAULTS["reask"]
    samples: int = DEFAULTS["samples"]
    conversation: str | None = DEFAULTS["conversation"]
    confidence: bool = DEFAULTS["confidence"]
    max_input_tokens: int | None = DEFAULTS["max_input_tokens"]
    on_long: str = DEFAULTS["on_long"]
    overlap: int = DEFAULTS["overlap"]
    combine: str = DEFAULTS["combine"]
    reasoning_effort: str | None = DEFAULTS["reasoning_effort"]
    limit: int | None = DEFAULTS["limit"]
    sample: int | None = DEFAULTS["sample"]
    seed: int = DEFAULTS["seed"]
    shard: tuple[int, int] | None = DEFAULTS["shard"]
    max_cost: Decimal | None = DEFAULTS["max_cost"]
    max_requests: int | None = DEFAULTS["max_requests"]
    max_total_tokens: int | None = DEFAULTS["max_total_tokens"]
    prices: Path | Mapping[str, Any] | None = DEFAULTS["prices"]
    dedupe: bool = DEFAULTS["dedupe"]
    reuse: tuple[Path, ...] = DEFAULTS["reuse"]
    via: str = DEFAULTS["via"]
    no_early_stop: bool = DEFAULTS["no_early_stop"]
    retry_failed: bool = DEFAULTS["retry_failed"]
    retry_cut_off: bool = DEFAULTS["retry_cut_off"]
    accept_change: bool = DEFAULTS["accept_change"]
    restart: bool = DEFAULTS["restart"]
    allow_failed: float = DEFAULTS["allow_failed"]
    grace_s: float = DEFAULTS["grace"]
    max_time_s: float | None = DEFAULTS["max_time"]
    wait_lock_s: float = DEFAULTS["wait_lock"]
    engine: str | None = DEFAULTS["engine"]
    ray_address: str = DEFAULTS["ray_address"]
    workers: int | None = DEFAULTS["workers"]
    work: Path | None = DEFAULTS["work"]

    @staticmethod
    def from_file(path: str | PathLike[str], **options: Any) -> Job:
        """Makes the job of a job file.

        Args:
            path: A TOML file with a ``[job]`` table.
            options: Options that go before those of the file: ``input="rows.csv"``, ``model="…"``.

        Raises:
            UsageError: The file or an option is wrong.
        """
        from batchllm.job.assembly import assemble

        return assemble("run", {"job_file": str(path), **options})

    @property
    def input_name(self) -> str:
        """What messages call the input."""
        return named(self.inputs) if self.inputs else "standard input"

    @property
    def into_folder(self) -> bool:
        """Whether the output is a folder that gets an output for each input, or parts."""
        return self.output is not None and (self.into_parts or format_suffix(self.output) not in SUFFIXES)

    def written(self, name: str) -> str:
        """Returns what an answer column, or one beside it, is called in the output."""
        return written_name(name, self.prefix, self.rename)

    @property
    def reasks(self) -> int:
        """How often an answer that does not validate is re-asked; in batch mode each time is one more batch."""
        if self.reask is not None:
            return self.reask
        return 0 if self.via == "batch" else 1

    @property
    def splits(self) -> bool:
        """Whether long texts are asked about in parts (``--on-long split``)."""
        return self.on_long == SPLIT

    @property
    def all_variables(self) -> dict[str, Any]:
        """Every variable of the template, with the values of this job."""
        return {**(self.template.variables if self.template else {}), **self.variables}

    @property
    def all_parameters(self) -> dict[str, Any]:
        """The parameters of the template and of this job."""
        return {**(self.template.parameters if self.template else {}), **self.parameters}

    def fingerprint(self) -> dict[str, Any]:
        """Returns what shapes every request of this job, JSON-able; compared when a job goes on.

        The effective values count: an option that repeats the template's own value changes nothing, and
        neither do comments of a template or the way its answers are read. Pace, paths, columns and the host
        are not in it, since they change no request.
        """
        if self.steps:
            return {
                STEPS: {
                    step.name: {**step.job.fingerprint(), "when": step.when, "number": number}
                    for number, step in enumerate(self.steps, 1)
                }
            }
        fields = {option.attribute for option in OPTIONS.values() if option.in_request} & _FIELDS - {"task"}
        return {
            "preset": self.endpoint.preset,
            "model": self.endpoint.model,
            "per_row": self.per_row,
            "messages": plain(self.template.messages) if self.template else None,
            **({"combine_prompt": plain(self.template.combine)} if self.splits and self.template else {}),
            **{name: plain(getattr(self, name)) for name in sorted(fields)},
            "variables": plain(self.all_variables),
            "parameters": plain(self.all_parameters),
        }


def named(inputs: Sequence[Path]) -> str:
    """Returns what messages call one input or several: the first one, and how many there are beside it."""
    more = len(inputs) - 1
    return f"{inputs[0]} and {more:,} more" if more else str(inputs[0])


@dataclass(frozen=True, slots=True)
class JobStep:
    """A step of a job: one request of each row.

    Attributes:
        name: Its name, which is also its answer's column.
        job: What it asks, as a job of its own over the same input.
        when: Template that says whether a row takes the step; ``None``: every row does.
    """

    name: str
    job: Job
    when: str | None = None

    @classmethod
    def named(cls, name: str, job: Job, when: str | None) -> JobStep:
        """Returns a step whose answer is in the column of its name."""
        assert job.template is not None, "a step has a template"
        answer = dataclasses.replace(job.template.answer, column=name)
        template = dataclasses.replace(job.template, answer=answer)
        return cls(name, dataclasses.replace(job, template=template), when)


_FIELDS = {field.name for field in dataclasses.fields(Job)}


def plain(value: Any) -> Any:
    """Turns records, mappings, tuples, paths and amounts into what JSON has: objects, lists, strings, numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
