"""What a row asks for: the job's template filled with it, or the request that it brings itself.

A row of a job without a template brings one of these:

====================  =================================================================================
``body``              a line of OpenAI's Batch API; the body is the request
``messages``          the messages as they are
``task``              a built-in task or a template file, filled with the row; a relative path is the input's
``text`` alone        one user message
====================  =================================================================================

In all but the first, names of chat-completions parameters are the row's parameters, ``extra_body`` goes into the
body unchanged, and every other name is a column.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from batchllm.answer import Reader
from batchllm.errors import UsageError
from batchllm.exact import loads
from batchllm.job import Job
from batchllm.job.options import options_in
from batchllm.job.values import split_by_commas
from batchllm.records import Row
from batchllm.request.images import Media
from batchllm.request.messages import checked, last_user, own_start, with_instructions, with_media
from batchllm.request.outcome import InvalidRow, RowRequest
from batchllm.request.spec import ROW_COLUMN, prepared, tool_layers, with_tools
from batchllm.template import (
    KNOWN_PARAMETERS,
    LEADING_ROLES,
    Renderer,
    Template,
    builtin_names,
    dumps,
    from_prompt,
    load,
    parameter_value,
)

_MAX_TASKS = 256
_URL = "/chat/completions"
_VARIABLES = options_in("variables")


class Task:
    """A template that is compiled for the columns of an input, with the reader of its answers.

    Args:
        template: The template, with the job's variables and system message in it.
        columns: The columns there are, ``None`` where nobody knows.
        column: The text column.
        media: Makes image URLs.
        reader: Reads the answers.
        candidates: The columns that may be the text column, where it is not clear.
        hidden: Columns that no prompt may show.

    Raises:
        UsageError: The template does not fit the columns.
    """

    def __init__(
        self,
        template: Template,
        columns: Iterable[str] | None,
        column: str | None,
        media: Media,
        reader: Reader,
        candidates: Sequence[str] = (),
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        self.renderer = Renderer(template, columns, column, candidates, hidden)
        self.reader = reader
        self._media = media
        self._column = (column or "text") if self.renderer.reads_text else None
        self._own = last_user([{"role": message.role} for message in template.messages])
        self._parts = [
            number for number, message in enumerate(template.messages) if not isinstance(message.content, str)
        ]

    def is_empty(self, row: Row) -> bool:
        """Returns whether the row is empty: no text, or where no text is read, no value at all."""
        values = row.values
        if self._column is not None:
            return self._column in values and _is_blank(values[self._column])
        used = self.renderer.used_columns
        return bool(used) and all(name in values and _is_blank(values[name]) for name in used)

    def row_request(self, row: Row, row_parameters: Mapping[str, Any] | None = None) -> RowRequest:
        """Fills the template with a row.

        Raises:
            RenderError: The row does not fit the template.
            InvalidRow: An image of the template cannot be sent.
        """
        messages = self.renderer.messages(row)
        for number in self._parts:
            messages[number] = with_media(messages[number], self._media)
        return RowRequest(messages, self._own, self.renderer.parameters(row), row_parameters or {})


class RowTasks:
    """Finds what each row asks for.

    Args:
        job: Its variables and system message go into the templates of ``task`` rows.
        media: Makes image URLs.
        reader: Reads the answers of rows without a task.
        forced: Whether ``reader`` reads the answers of every row (a schema of the job).
        hidden: Columns that no prompt may show.
    """

    def __init__(
        self, job: Job, media: Media, reader: Reader, *, forced: bool, hidden: frozenset[str] = frozenset()
    ) -> None:
        self._job = job
        self._media = media
        self._reader = reader
        self._forced = forced
        self._hidden = hidden
        self._column = job.column
        self._folder = job.inputs[0].parent if job.inputs else Path()
        self._compiled = lru_cache(_MAX_TASKS)(self._compile)

    def task(self, row: Row) -> Task | None:
        """Returns the template of the row; ``None`` where the row brings its messages.

        Raises:
            InvalidRow: It has neither, or its template cannot be used.
        """
        values = row.values
        if "messages" in values or is_batch_line(values):
            return None
        name = values.get("task")
        if name is None:
            if (self._column or "text") not in values:
                raise InvalidRow(
                    "bad_row", "the row has no messages, task, text or body; one of them says what to ask"
                )
            name = ""
        if not isinstance(name, str):
            raise InvalidRow(
                "bad_row", f"the task is {name!r}; it must be the name of a task or the path of a template"
            )
        given = {key: values[key] for key in _VARIABLES if values.get(key) is not None}
        try:
            written = dumps(given)
        except ValueError as error:
            raise InvalidRow("bad_text", f"the row cannot be written as JSON: {error}") from error
        return self._compiled(name, written)

    def row_request(self, row: Row, task: Task | None) -> RowRequest:
        """Returns what the row asks for.

        Raises:
            RenderError: It cannot be sent.
        """
        values = row.values
        if task is not None:
            return task.row_request(row, _parameters(values))
        if "messages" in values:
            messages, parameters = values["messages"], _parameters(values)
        else:
            url = values.get("url", _URL)
            if not (isinstance(url, str) and url.endswith(_URL)):
                raise InvalidRow("bad_row", f"the url of the line is {url!r}; only {_URL} is sent")
            body = values["body"]
            if not isinstance(body, Mapping):
                raise InvalidRow("bad_row", "the body of the line is not an object")
            messages = body.get("messages")
            parameters = {name: value for name, value in body.items() if name != "messages"}
        messages = checked(messages, self._media)
        if self._job.system is not None and messages[0]["role"] not in LEADING_ROLES:
            messages = [{"role": "system", "content": self._job.system}, *messages]
        if self._job.instructions is not None:
            messages = with_instructions(messages, self._job.instructions)
        return RowRequest(messages, own_start(messages), {}, parameters)

    def _compile(self, name: str, given: bytes) -> Task:
        """Compiles the task of that name with the variables that the row sets."""
        try:
            template = prepared(self._job, self._load(name))
            own = {key: value for key, value in loads(given).items() if key in template.variables}
            if isinstance(own.get("labels"), str):
                own["labels"] = [label for label in split_by_commas(own["labels"], "labels") if label]
            template = template.with_variables(own)
            spec = with_tools(template.answer, *tool_layers(self._job, template))
            reader = self._reader if self._forced else Reader(replace(spec, column=ROW_COLUMN))
            return Task(template, None, self._column, self._media, reader, hidden=self._hidden)
        except (UsageError, TypeError, ValueError) as error:
            raise InvalidRow("bad_task", str(error)) from error

    def _load(self, name: str) -> Template:
        if not name:
            return from_prompt("{{ text }}")
        return load(name if name in builtin_names() or "." not in name else self._folder / name)


def is_batch_line(values: Mapping[str, Any]) -> bool:
    """Returns whether a row is a line of the Batch API."""
    return "body" in values and ("custom_id" in values or isinstance(values["body"], Mapping))


def _parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: parameter_value(name, value) if isinstance(value, str) and name != "stop" else value
        for name, value in values.items()
        if name in KNOWN_PARAMETERS and value is not None
    }


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def image_cells(values: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Returns the filled image cells of a row; a JSONL cell may be a list of them."""
    cells: list[str] = []
    for column in columns:
        value = values.get(column)
        cells += [
            str(cell) for cell in (value if isinstance(value, list) else [value]) if not _is_blank(cell)
        ]
    return cells
