"""Makes the bytes that are sent out of a row."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from batchllm import presets, prices
from batchllm.answer import Reader
from batchllm.errors import UsageError
from batchllm.job import Job
from batchllm.job.gold import gold_columns
from batchllm.records import Answer, AnswerSpec, ChatRequest, Row
from batchllm.request.condition import Condition
from batchllm.request.documents import Documents
from batchllm.request.images import Media
from batchllm.request.limits import LengthLimits, MeasuredRequest
from batchllm.request.messages import TokenCount, reask, with_images
from batchllm.request.outcome import InvalidRow, Messages, RowRequest, Skipped, Unsendable, request_key
from batchllm.request.parameters import fit_to_model, max_tokens, merge_layers
from batchllm.request.shots import Shots
from batchllm.request.spec import (
    answer_spec,
    check_names,
    job_columns,
    job_parameters,
    prepared,
    schema_in_words,
    with_tools,
)
from batchllm.request.tasks import RowTasks, Task, image_cells, is_batch_line
from batchllm.template import TEXT, RenderError, Template, dumps, text_column, text_like, to_json

NO_PARAMETERS: Mapping[str, Any] = {}

_Fitted = tuple[str, dict[str, Any], int | None]  # model, parameters, max_tokens


class RequestBuilder:
    """Makes the request of each row.

    Args:
        job: What to ask, of which model.
        columns: The columns of the input; ``None`` for an input without rows, whose columns nobody knows.
        sample: Some rows, to find the text column.
        count: Counts the tokens of a text; ``None`` where ``prompt_tokens`` is not needed.
        context_window: Tokens of a model's context, ``None`` where unknown; by default the published one.

    Attributes:
        column: The text column; ``None`` where none is read.
        used_columns: The columns that requests read.
        answer_columns: The columns that answers fill.
        documents: Reads the texts that are in files; ``None`` where the rows have them.

    Raises:
        UsageError: The job does not fit the columns, or cannot be asked at all.
    """

    def __init__(
        self,
        job: Job,
        columns: Sequence[str] | None,
        sample: Iterable[Row],
        count: Callable[[str], int] | None,
        *,
        context_window: Callable[[str], int | None] | None = None,
    ) -> None:
        self._job = job
        self._model = job.endpoint.model
        self._preset = presets.load(job.endpoint.preset)
        self._count = None if count is None else TokenCount(count)
        self._count_text = count
        published = partial(prices.context_window, job.endpoint.base_url)
        self._limits = LengthLimits(job, context_window or published)
        spec = answer_spec(job)
        self._schema = spec.schema if spec.read == "json" and isinstance(spec.schema, Mapping) else None
        self._reader = Reader(spec)
        self._media = Media(job.media_root)
        self.documents = None if job.text_from is None else Documents(job)
        if self.documents is not None and columns is not None and TEXT not in columns:
            columns = [*columns, TEXT]
        self._task: Task | None = None
        self._rows: RowTasks | None = None
        self.answer_columns = job_columns(job)
        self.used_columns: frozenset[str] = frozenset(job.images)
        self._gold = gold_columns(job.gold, columns)
        self._columns, self._sample, self._published = columns, list(sample), context_window
        self._text_column: str | None = job.column
        columns = None if columns is None else [name for name in columns if name not in self._gold]
        check_names(job, self._gold, columns)
        if job.template is None or job.per_row:
            self.column = job.column
            forced = self._schema is not None
            self._rows = RowTasks(job, self._media, self._reader, forced=forced, hidden=self._gold)
        else:
            self.column = self._text_column = (
                job.column or "text" if columns is None else text_column(columns, self._sample, job.column)
            )
            self._task = self._only_task(prepared(job, job.template), columns)
            self.used_columns |= self._task.renderer.used_columns
            if not self._task.renderer.reads_text:
                self.column = job.column
        self._shots = self._shots_of(spec)
        self._own_layer = job_parameters(job, self._schema, asks_schema=self._preset.json_schema is not False)
        self._fixed = self._checked_parameters()

    def _only_task(self, template: Template, columns: Sequence[str] | None) -> Task:
        """Makes the task that all rows have."""
        candidates = () if self.column or columns is None else text_like(columns, self._sample)
        task = Task(template, columns, self.column, self._media, self._reader, candidates, self._gold)
        if not (self.used_columns or task.renderer.used_columns):
            raise UsageError(
                f"template {template.name} reads no column, so every row would ask the same; "
                "put {{ text }} where the row's text belongs"
            )
        return task

    @property
    def same_for_all_rows(self) -> bool:
        """Whether the requests of all rows have the same model and parameters."""
        return self._fixed is not None

    @property
    def truncated(self) -> int:
        """Returns how many times a text was cut to ``--max-input-tokens``."""
        return self._limits.truncated

    def build(
        self, row: Row, earlier: Sequence[Mapping[str, Any]] = (), earlier_tokens: int = 0
    ) -> ChatRequest | Skipped | Unsendable:
        """Makes the request of a row.

        Args:
            row: The row.
            earlier: Messages of the earlier turns of its conversation, as ``turn`` gives them, and their answers.
            earlier_tokens: The tokens of those, as ``count`` says.
        """
        try:
            row_request = self._row_request(row)
            if row_request is None:
                return Skipped(row.index)
            return self._request(row, row_request, earlier, earlier_tokens)
        except RenderError as error:
            return Unsendable(row.index, str(error), error.reason)

    def of_step(
        self, job: Job, columns: Sequence[str] = (), text_column: str | None = None
    ) -> "RequestBuilder":
        """Returns the builder of a step: of a job over the same input, and over columns of earlier answers.

        ``text_column`` is the column that ``{{ text }}`` means there, if it is another.

        Raises:
            UsageError: The step does not fit the columns.
        """
        known = None if self._columns is None else [*dict.fromkeys((*self._columns, *columns))]
        job = replace(job, column=text_column or self._text_column or job.column)
        return RequestBuilder(job, known, self._sample, self._count_text, context_window=self._published)

    def condition(self, name: str, source: str) -> Condition:
        """Compiles the condition of a step.

        Raises:
            UsageError: It reads no column, or one that does not exist.
        """
        return Condition(name, source, self._columns, self._text_column, self._gold, self._shown)

    def reask(self, request: ChatRequest, answer: Answer) -> ChatRequest:
        """Makes the request that asks again for an answer that does not validate."""
        return reask(request, answer, self._count_text)

    def count(self, messages: Messages) -> int:
        """Counts the tokens that messages add to a request; 0 where nobody needs them."""
        return 0 if self._count is None else self._count.prompt(messages, {})

    @property
    def reads_text(self) -> bool:
        """Whether the prompt reads ``{{ text }}``."""
        return self._task is not None and self._task.renderer.reads_text

    def unlimited(self, *, windows: bool = True) -> "RequestBuilder":
        """Returns the builder of the same requests without ``--max-input-tokens``, or that knows no context either."""
        found = self.of_step(replace(self._job, max_input_tokens=None, on_long="fail"))
        if not windows:
            found._limits.window = cache(lambda model: None)
        return found

    def text_of(self, row: Row) -> str | None:
        """Returns the text of a row that ``{{ text }}`` stands for; ``None`` where there is none."""
        text = row.values.get(self.column or "text") if self.reads_text else None
        return text if isinstance(text, str) else None

    def with_text(self, row: Row, text: str) -> Row:
        """Returns a row with another text."""
        return row._replace(values={**row.values, self.column or "text": text})

    def measured(self, row: Row) -> MeasuredRequest:
        """Counts the prompt of a row exactly, whatever its length.

        Raises:
            RenderError: The row cannot be sent; ``build`` returns this as data.
        """
        row_request = self._row_request(row) or RowRequest([], 0)
        model, parameters, bound = self._fixed or self._fitted(row_request)
        return self._limits.measured(model, row_request.messages, parameters, bound)

    @property
    def shots(self) -> int:
        """Returns how many examples a request carries."""
        return 0 if self._shots is None else len(self._shots.usual)

    def turn(self, row: Row) -> Messages:
        """Returns what a row adds to its conversation: its messages without the leading instructions.

        Raises:
            RenderError: The row cannot be sent; ``build`` returns this as data.
        """
        row_request = self._row_request(row)
        return [] if row_request is None else row_request.messages[row_request.own :]

    def reader(self, row: Row) -> Reader:
        """Returns the reader of a row's answer; the same for all rows unless they bring their own tasks or tools."""
        if self._rows is None:
            return self._reader
        try:
            task = self._rows.task(row)
        except InvalidRow:
            return self._reader
        reader = self._reader if task is None else task.reader
        own = row.values["body"] if is_batch_line(row.values) else row.values
        if isinstance(own, Mapping) and (own.get("tools") or own.get("tool_choice")):
            spec = with_tools(reader.spec, own)
            return reader.with_tools(spec.tools, spec.tool_choice)
        return reader

    def _shown(self, row: Row) -> Row:
        """Returns a row without the known answers."""
        if not self._gold:
            return row
        return row._replace(
            values={name: value for name, value in row.values.items() if name not in self._gold}
        )

    def _row_request(self, row: Row) -> RowRequest | None:
        row = self._shown(row)
        if self.documents is not None:
            row = self.documents.filled(row)
        task = self._task if self._rows is None else self._rows.task(row)
        cells = image_cells(row.values, self._job.images) if self._job.images else []
        if self._job.images and not cells and task is not None and not task.renderer.used_columns:
            return None  # the images are all that a row has
        if task is not None and not cells and task.is_empty(row):
            return None
        if self._rows is None:
            row_request = self._ask(row)
            if self._shots is not None:
                row_request = self._shots.before(row, row_request)
        else:
            row = row if task is None else self._within_limit(row, task)
            row_request = self._rows.row_request(row, task)
            if task is None:
                self._limits.own_messages(row_request.messages)
        if cells:
            parts = [self._media.part(cell, self._job.detail) for cell in cells]
            row_request = row_request._replace(messages=with_images(row_request.messages, parts))
        if self._schema is not None and self._preset.json_schema is False:
            words = schema_in_words(self._schema, to_json(self._schema))
            messages = [words, *row_request.messages]
            row_request = row_request._replace(messages=messages, own=row_request.own + 1)
        return row_request

    def _ask(self, row: Row) -> RowRequest:
        """Fills the job's template with a row."""
        assert self._task is not None
        return self._task.row_request(self._within_limit(row, self._task))

    def _within_limit(self, row: Row, task: Task) -> Row:
        """Holds the text of a row to ``--max-input-tokens``."""
        if task.renderer.reads_text and self._job.max_input_tokens is not None:
            return self._limits.text(row, self.column or "text")
        return row

    def _shots_of(self, spec: AnswerSpec) -> Shots | None:
        if self._job.examples is None or self._task is None:
            return None
        examples = [self._example(values) for values in self._job.examples]
        read = self.column if self._task.renderer.reads_text else None
        shots = Shots(examples, self._job.shots, spec, self._ask, read)
        self._limits.truncated = 0
        return shots

    def _example(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the values of an example; its text may be in a column called ``text`` whatever the job's is."""
        if self.column is None or self.column in values or "text" not in values:
            return values
        return {**values, self.column: values["text"]}

    def _request(
        self, row: Row, row_request: RowRequest, earlier: Sequence[Mapping[str, Any]], earlier_tokens: int
    ) -> ChatRequest:
        model, parameters, bound = self._fixed or self._fitted(row_request)
        messages = row_request.messages
        if earlier:
            messages = [*messages[: row_request.own], *map(dict, earlier), *messages[row_request.own :]]
        try:
            body = dumps({"model": model, "messages": messages, **parameters})
        except ValueError as error:
            raise InvalidRow("bad_text", f"the row cannot be written as JSON: {error}") from error
        self._limits.context(model, len(body), messages, parameters, bound or 0)
        prompt_tokens = (
            0
            if self._count is None
            else self._count.prompt(row_request.messages, parameters) + earlier_tokens
        )
        key = request_key(self._preset.name, body)
        is_raised, raised = False, self._job.raised_max_tokens
        if raised is not None:
            model, parameters, higher = self._fitted(row_request, {"max_tokens": raised})
            is_raised = bound is None or (higher or 0) > bound
            if is_raised:
                body, bound = dumps({"model": model, "messages": messages, **parameters}), higher
                self._limits.context(model, len(body), messages, parameters, bound or 0)
        return ChatRequest(row.index, key, body, model, prompt_tokens, bound, is_raised)

    def _fitted(self, row_request: RowRequest, more: Mapping[str, Any] = NO_PARAMETERS) -> _Fitted:
        """Merges the parameters of the template, the job and the row, and fits them to the model."""
        own = merge_layers(self._own_layer, more) if more else self._own_layer
        layers = (row_request.template_parameters, own, row_request.row_parameters)
        named = [layer["model"] for layer in layers if isinstance(layer.get("model"), str)]
        model = named[-1] if named else self._model
        parameters = merge_layers(*layers)
        parameters.pop("model", None)
        parameters.pop("messages", None)
        parameters = fit_to_model(model, parameters)
        return model, parameters, max_tokens(parameters)

    def _checked_parameters(self) -> _Fitted | None:
        """Checks the job's parameters before any row is read; returns them where they are the same for all rows."""
        fixed = self._task is not None and self._task.renderer.has_fixed_parameters
        own = self._task.renderer.parameters(Row(0, 0, {}, [])) if self._task is not None and fixed else {}
        try:
            fitted_parameters = self._fitted(RowRequest([], 0, own))
        except InvalidRow as error:
            raise UsageError(f"the parameters of the job: {error}") from error
        return fitted_parameters if fixed else None
