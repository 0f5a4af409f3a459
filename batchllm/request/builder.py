"""The one way from a row to the bytes that are sent."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import orjson

from batchllm import presets, tokens
from batchllm.answer import Reader, answer_columns
from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.records import ChatRequest, Row
from batchllm.request.draft import Draft, Task, image_cells
from batchllm.request.images import Media
from batchllm.request.messages import Messages, TokenCount, own_start, with_images
from batchllm.request.outcome import Refused, Skipped, Unsendable
from batchllm.request.parameters import fitted, max_tokens, merged
from batchllm.request.rows import RowTasks
from batchllm.request.spec import answer_spec, prepared, response_format, schema_in_words
from batchllm.template import RenderError, builtin_names, dumps, text_column, to_json

VISION_MAX_TOKENS = 300

_Fitted = tuple[str, dict[str, Any], int | None]  # model, parameters, max_tokens


class RequestBuilder:
    """Makes the request of each row.

    Args:
        job: What to ask, of which model.
        columns: The columns of the input.
        sample: Some rows, to find the text column.
        count: Counts the tokens of a text; ``None`` where nobody needs ``prompt_tokens``.
        context_window: Tokens of the model's context, or a function of the model; checked where ``count`` is there.
        truncate: Cuts a text to a number of tokens of a model.

    Attributes:
        column: The text column; ``None`` where none is read.
        used_columns: The columns that requests read.
        answer_columns: The columns that answers fill.
        truncated: How many times a text was cut.

    Raises:
        UsageError: The job does not fit the columns, or cannot be asked at all.
    """

    def __init__(
        self,
        job: Job,
        columns: Sequence[str],
        sample: Iterable[Row],
        count: Callable[[str], int] | None,
        *,
        context_window: int | Callable[[str], int | None] | None = None,
        truncate: Callable[[str, int, str], str] = tokens.truncate,
    ) -> None:
        self._job = job
        self._model = job.endpoint.model
        self._preset = presets.load(job.endpoint.preset)
        self._seed = job.endpoint.preset.encode() + b"\0"
        self._count = None if count is None else TokenCount(count)
        self._window = context_window
        self._truncate = truncate
        self.truncated = 0
        spec = answer_spec(job)
        self._schema = spec.schema if spec.read == "json" and isinstance(spec.schema, Mapping) else None
        self._reader = Reader(spec)
        self._media = Media(job.media_root)
        self._task: Task | None = None
        self._rows: RowTasks | None = None
        self.answer_columns = answer_columns(spec)
        self.used_columns: frozenset[str] = frozenset(job.images)
        self._check_names(columns)
        if job.template is None or job.per_row:
            self.column = job.column
            self._rows = RowTasks(job, self._media, self._reader, forced=self._schema is not None)
        else:
            template = prepared(job, job.template)
            self.column = text_column(columns, sample, job.column)
            self._task = Task(template, columns, self.column, self._media, self._reader)
            self.used_columns |= self._task.renderer.used_columns
            if not self.used_columns:
                raise UsageError(
                    f"template {template.name} reads no column, so every row would ask the same; "
                    "put {{ text }} where the row's text belongs"
                )
            if not self._task.renderer.reads_text:
                self.column = job.column
        self._own_layer = self._job_parameters()
        self._static: _Fitted | None = None
        self._check_parameters()

    def build(
        self, row: Row, earlier: Sequence[Mapping[str, Any]] = ()
    ) -> ChatRequest | Skipped | Unsendable:
        """The request of a row.

        Args:
            row: The row.
            earlier: Messages of the earlier turns of its conversation, as ``turn`` gives them, and their answers.
        """
        try:
            draft = self._draft(row)
            if draft is None:
                return Skipped(row.index)
            return self._request(row, draft, earlier)
        except Refused as error:
            return Unsendable(row.index, str(error), error.reason)
        except RenderError as error:
            return Unsendable(row.index, str(error), "bad_row")

    def body(self, row: Row) -> dict[str, Any]:
        """What would be sent for a row, as data.

        Raises:
            UsageError: Nothing would be; the text says why.
        """
        built = self.build(row)
        if isinstance(built, ChatRequest):
            result: dict[str, Any] = orjson.loads(built.body)
            return result
        why = built.error if isinstance(built, Unsendable) else "its text is empty"
        raise UsageError(f"row {row.index + 1} (line {row.line}) would not be sent: {why}")

    def turn(self, row: Row) -> Messages:
        """What a row adds to its conversation: its messages without those that set the scene.

        Raises:
            Refused, RenderError: The row cannot be sent; ``build`` says the same as data.
        """
        draft = self._draft(row)
        return [] if draft is None else draft.messages[draft.own :]

    def reader(self, row: Row) -> Reader:
        """What reads the answer of a row; the same for all rows unless they bring their own tasks."""
        if self._rows is None:
            return self._reader
        try:
            task = self._rows.task(row)
        except Refused:
            return self._reader
        return self._reader if task is None else task.reader

    def _draft(self, row: Row) -> Draft | None:
        task = self._task if self._rows is None else self._rows.task(row)
        cells = image_cells(row.values, self._job.images) if self._job.images else []
        if self._job.images and not cells:
            return None
        if task is not None:
            if not cells and task.is_empty(row):
                return None
            if self._job.max_input_tokens is not None and task.renderer.reads_text:
                row = self._shortened(row, self.column or "text")
        draft = task.draft(row) if self._rows is None and task else self._rows.draft(row, task)  # type: ignore[union-attr]
        if cells:
            parts = [self._media.part(cell, self._job.detail) for cell in cells]
            draft = replace(draft, messages=with_images(draft.messages, parts))
        if self._schema is not None and self._preset.json_schema is False:
            at = own_start(draft.messages)
            words = schema_in_words(self._schema, to_json(self._schema))
            draft = replace(
                draft, messages=[*draft.messages[:at], words, *draft.messages[at:]], own=draft.own + 1
            )
        return draft

    def _request(self, row: Row, draft: Draft, earlier: Sequence[Mapping[str, Any]]) -> ChatRequest:
        if draft.static:
            model, parameters, bound = self._static or self._fitted(draft)
        else:
            model, parameters, bound = self._fitted(draft)
        messages = draft.messages
        if earlier:
            messages = [*messages[: draft.own], *map(dict, earlier), *messages[draft.own :]]
        try:
            body = dumps({"model": model, "messages": messages, **parameters})
        except ValueError as error:
            raise Refused("bad_text", f"the row cannot be written as JSON: {error}") from error
        prompt_tokens = 0
        if self._count is not None:
            prompt_tokens = self._prompt_tokens(messages, parameters)
            self._check_length(model, prompt_tokens, bound, whole=draft.row_parameters and self._task is None)
        key = sha256(self._seed + body).digest()[:16]
        return ChatRequest(row.index, key, body, model, prompt_tokens, bound)

    def _fitted(self, draft: Draft) -> _Fitted:
        """The parameters that go out with a draft, those nearest to the row last."""
        layers = [draft.template_parameters, self._own_layer, draft.row_parameters]
        named = [layer["model"] for layer in layers if isinstance(layer.get("model"), str)]
        explicit = self._job.sources.get("model", "").startswith(("-", "BATCHLLM"))
        model = (
            self._model
            if explicit and not draft.row_parameters.get("model")
            else (named or [self._model])[-1]
        )
        defaults = self._preset.default_parameters if model == self._preset.default_model else {}
        parameters = merged(defaults, *layers)
        parameters.pop("model", None)
        parameters.pop("messages", None)
        parameters = fitted(model, parameters)
        result = model, parameters, max_tokens(parameters)
        if draft.static:
            self._static = result
        return result

    def _job_parameters(self) -> dict[str, Any]:
        """What the job says about parameters, beside the model."""
        job = self._job
        layer: dict[str, Any] = {}
        own_template = job.template is not None and job.template.name not in (*builtin_names(), "run")
        if job.images and not (own_template and job.template and "max_tokens" in job.template.parameters):
            layer["max_tokens"] = VISION_MAX_TOKENS
        if self._schema is not None:
            asks = self._preset.json_schema is not False
            layer["response_format"] = response_format(self._schema) if asks else {"type": "json_object"}
        if job.tools:
            layer["tools"] = job.tools
        if job.tool_choice is not None:
            layer["tool_choice"] = job.tool_choice
        if job.reasoning_effort is not None:
            layer["reasoning_effort"] = job.reasoning_effort
        return merged(layer, job.parameters)

    def _check_names(self, columns: Sequence[str]) -> None:
        for column in self._job.images:
            if column not in columns:
                text_column(columns, (), column)  # raises, naming the columns there are

    def _check_parameters(self) -> None:
        """What is wrong with the job's parameters is wrong for every row, so it is said at once."""
        fixed = self._task is not None and self._task.renderer.has_fixed_parameters
        own = self._task.renderer.parameters(Row(0, 0, {}, [])) if self._task is not None and fixed else {}
        try:
            self._fitted(Draft([], 0, own, static=fixed))
        except Refused as error:
            raise UsageError(f"the parameters of the job: {error}") from error

    def _shortened(self, row: Row, column: str) -> Row:
        """The row with a text that keeps to ``--max-input-tokens``."""
        limit, text = self._job.max_input_tokens, row.values.get(column)
        if limit is None or not isinstance(text, str) or len(text.encode("utf-8", "replace")) <= limit:
            return row  # no token is shorter than a byte
        found = tokens.counter(self._model)(text)
        if found <= limit:
            return row
        if self._job.on_long != "truncate":
            raise Refused(
                "too_long",
                f"the text has {found} tokens, and --max-input-tokens is {limit}; --on-long truncate cuts it",
            )
        self.truncated += 1
        return replace(row, values={**row.values, column: self._truncate(text, limit, self._model)})

    def _prompt_tokens(self, messages: Messages, parameters: Mapping[str, Any]) -> int:
        assert self._count is not None
        total = self._count.messages(messages)
        for name in ("tools", "response_format"):
            if name in parameters:
                total += self._count.text(to_json(parameters[name]))
        return total

    def _check_length(self, model: str, prompt_tokens: int, bound: int | None, *, whole: object) -> None:
        limit = self._job.max_input_tokens
        if whole and limit is not None and prompt_tokens > limit:
            raise Refused(
                "too_long", f"the messages have {prompt_tokens} tokens, and --max-input-tokens is {limit}"
            )
        window = self._window(model) if callable(self._window) else self._window
        if window is not None and prompt_tokens + (bound or 0) > window:
            raise Refused(
                "context_length",
                f"{prompt_tokens} tokens of prompt and {bound or 0} of answer do not fit into the {window} tokens of "
                f"{model}; --max-input-tokens and --on-long truncate shorten the text",
            )
