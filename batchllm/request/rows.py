"""Rows that bring their own request: ``messages``, a ``task``, a ``text``, or a line of the Batch API.

====================  =================================================================================
``body``              a line of OpenAI's Batch API; the body is the request
``messages``          the messages as they are
``task``              a built-in task or a template file, filled with the row; a relative path is the input's
``text`` alone        one user message
====================  =================================================================================

Beside the last three, the names of chat-completions parameters are the row's parameters, ``extra_body`` goes
into the body unchanged, and every other name is a column.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchllm.answer import Reader
from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.records import Row
from batchllm.request.images import Media
from batchllm.request.messages import checked, own_start
from batchllm.request.outcome import InvalidRow, RowRequest
from batchllm.request.spec import ROW_COLUMN, prepared
from batchllm.request.task import Task
from batchllm.template import (
    KNOWN_PARAMETERS,
    Template,
    builtin_names,
    dumps,
    from_prompt,
    load,
    parameter_value,
)

_MAX_TASKS = 256
_URL = "/chat/completions"


class RowTasks:
    """Finds what each row asks for.

    Args:
        job: Its variables and system message go into the templates of ``task`` rows.
        media: Makes image URLs.
        reader: Reads the answers of rows without a task.
        forced: Whether ``reader`` reads the answers of every row (a schema of the job).
    """

    def __init__(self, job: Job, media: Media, reader: Reader, *, forced: bool) -> None:
        self._job = job
        self._media = media
        self._reader = reader
        self._forced = forced
        self._column = job.column
        self._folder = job.input.parent if job.input else Path()
        self._tasks: OrderedDict[str, Task] = OrderedDict()

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
        return self._compiled(name, values)

    def row_request(self, row: Row, task: Task | None) -> RowRequest:
        """Returns what the row asks for.

        Raises:
            InvalidRow, RenderError: It cannot be sent.
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
        if self._job.system is not None and messages[0]["role"] not in ("system", "developer"):
            messages = [{"role": "system", "content": self._job.system}, *messages]
        return RowRequest(messages, own_start(messages), {}, parameters)

    def _compiled(self, name: str, values: Mapping[str, Any]) -> Task:
        """Returns the task of that name with the variables that the row sets; keeps the last ones used."""
        given = {
            key: values[key] for key in ("bullets", "labels", "language", "answer_language") if key in values
        }
        key = f"{name}\0{dumps(given).decode()}" if given else name
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = self._compile(name, given)
            if len(self._tasks) > _MAX_TASKS:
                self._tasks.popitem(last=False)
        else:
            self._tasks.move_to_end(key)
        return task

    def _compile(self, name: str, given: Mapping[str, Any]) -> Task:
        try:
            template = prepared(self._job, self._load(name))
            own = {
                key: value for key, value in given.items() if key in template.variables and value is not None
            }
            if isinstance(own.get("labels"), str):
                own["labels"] = [label.strip() for label in own["labels"].split(",") if label.strip()]
            template = template.with_variables(own)
            reader = self._reader if self._forced else Reader(replace(template.answer, column=ROW_COLUMN))
            return Task(template, None, self._column, self._media, reader)
        except (UsageError, TypeError) as error:
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
