"""The job: every decision of a run as one frozen value, made before anything is read or sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchllm.records import Endpoint, Pace

if TYPE_CHECKING:
    from batchllm.template import Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to send, where, how fast, and what to write.

    Nothing in it is read later: template, tools, schema and key are contents here, not paths. Paths are
    absolute or relative to the working directory; those of a job file were relative to that file.

    Attributes:
        task: ``summarize``, ``classify``, ``codegen`` or ``run``.
        template: Makes the messages of a row; ``None`` only where ``per_row``.
        input: The file of rows; ``None`` is standard input.
        output: The file to write; ``None`` is standard output.
        journal: The journal; ``None`` only where it was not named and the output is standard output: the
            runner then puts it into the user's state folder, named after the fingerprint and the input.
        endpoint: Where requests go. With the simulator of ``--provider simulator`` its ``base_url`` is
            empty until the runner has started it.
        pace: Limits, attempts and deadlines.
        variables: Template variables that override the template's own (``bullets``, ``labels``, …).
        parameters: Request parameters that override the template's own (``temperature``, ``max_tokens``, …).
        system: Replaces the template's system message, or goes before the messages.
        column: The text column; ``None`` lets the template's rules choose.
        delimiter: Delimiter of the input; ``None`` finds it in the header.
        encoding: Encoding of the input; ``None`` is UTF-8, or what a byte order mark says.
        input_format: ``csv`` or ``jsonl``; ``None`` only for standard input without ``--input-format``.
        output_format: ``csv`` or ``jsonl``; ``None`` is the format that the input turns out to have.
        per_row: Rows carry their own ``messages``, ``task`` or ``body``.
        images: Columns with images to add to the last user message.
        detail: How closely images are looked at: ``low``, ``high``, ``auto``.
        media_root: Folder that local images may come from; ``None`` allows none.
        tools: Tool definitions for every request.
        tool_choice: ``auto``, ``none``, ``required`` or an object that names one tool.
        schema: JSON Schema that the answer must satisfy; its fields become columns.
        reask: How often an answer that does not validate is asked for once more.
        conversation: Column whose equal values make rows one conversation.
        max_input_tokens: The most tokens the text column may have.
        on_long: ``fail`` the row or ``truncate`` the text when it has more.
        reasoning_effort: For models that reason; ``None`` takes the lowest that the model knows.
        columns: Answer columns to write, ``None`` for the usual ones.
        add: Answer columns on top of the usual ones.
        prefix: Put before the name of every answer column.
        limit: Only the first N rows are sent and written.
        sample: Only N random rows, chosen by ``seed``, are sent and written.
        seed: Seed of the sample.
        dedupe: Equal requests are sent once.
        reuse: Outputs of other jobs whose journals may answer equal requests.
        max_cost: Budget in US dollars.
        max_requests: Budget in requests.
        max_total_tokens: Budget in tokens.
        prices: A price table in LiteLLM's JSON format.
        early_stop: Stop when the first answers are all of no use.
        via: ``online`` or ``batch``.
        force: An output that batchllm did not write may be overwritten.
        restart: Start over and keep the old journal aside.
        accept_change: Rows may be paid again after the job was changed.
        retry_failed: Rows whose answer was a failure are sent again.
        allow_failed: Share of rows, from 0 to 1, that may fail without exit status 1.
        summary: File that gets the run's figures as JSON.
        grace_s: How long requests in flight may go on after a signal.
        wait_lock_s: How long to wait for another run of the same job.
        sources: Setting to where its value came from, for ``--dry-run``; what is not in it is a default.
    """

    task: str
    template: Template | None
    input: Path | None
    output: Path | None
    journal: Path | None = None
    endpoint: Endpoint
    pace: Pace = field(default_factory=Pace)
    variables: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    column: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    input_format: str | None = None
    output_format: str | None = None
    per_row: bool = False
    images: tuple[str, ...] = ()
    detail: str = "auto"
    media_root: Path | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    schema: Mapping[str, Any] | None = None
    reask: int = 1
    conversation: str | None = None
    max_input_tokens: int | None = None
    on_long: str = "fail"
    reasoning_effort: str | None = None
    columns: tuple[str, ...] | None = None
    add: tuple[str, ...] = ()
    prefix: str = ""
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    dedupe: bool = False
    reuse: tuple[Path, ...] = ()
    max_cost: Decimal | None = None
    max_requests: int | None = None
    max_total_tokens: int | None = None
    prices: Path | None = None
    early_stop: bool = True
    via: str = "online"
    force: bool = False
    restart: bool = False
    accept_change: bool = False
    retry_failed: bool = False
    allow_failed: float = 0.0
    summary: Path | None = None
    grace_s: float = 30.0
    wait_lock_s: float = 0.0
    sources: Mapping[str, str] = field(default_factory=dict)

    def fingerprint(self) -> dict[str, Any]:
        """What shapes every request of this job, as JSON-able values; compared when a job goes on.

        The effective values count: an option that repeats the template's own value changes nothing, and
        neither do comments of a template or the way its answers are read. Pace, paths, columns and the host
        are not in it, since they change no request.
        """
        template = self.template
        return {
            "preset": self.endpoint.preset,
            "model": self.endpoint.model,
            "per_row": self.per_row,
            "messages": plain(template.messages) if template else None,
            "variables": plain({**(template.variables if template else {}), **self.variables}),
            "parameters": plain({**(template.parameters if template else {}), **self.parameters}),
            "system": self.system,
            "column": self.column,
            "images": list(self.images),
            "detail": self.detail,
            "tools": plain(self.tools),
            "tool_choice": plain(self.tool_choice),
            "schema": plain(self.schema),
            "conversation": self.conversation,
            "max_input_tokens": self.max_input_tokens,
            "on_long": self.on_long,
            "reasoning_effort": self.reasoning_effort,
        }


def plain(value: Any) -> Any:
    """A value made of records, mappings and tuples as what JSON has: objects, lists, strings, numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
