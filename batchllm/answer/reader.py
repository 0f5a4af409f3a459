"""Reads responses into answers.

A 2xx is an answer only if its body is a JSON object with a choice and without an error. The choice is then read as
text, a label, code or data. A field that is missing or has another type becomes an empty cell; the row fails only
if there is nothing to put into it.
"""

import logging
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

from batchllm.answer.code import code_block
from batchllm.answer.confidence import confidence
from batchllm.answer.json_text import NotJson, json_values, unwrapped
from batchllm.answer.label import Labels
from batchllm.answer.schema import Schema
from batchllm.answer.several_labels import SeveralLabels, labels_in
from batchllm.answer.text import content_text, visible_text
from batchllm.answer.tools import Tools, with_read_arguments
from batchllm.error_body import ErrorBody, error_within, read_error
from batchllm.errors import UsageError
from batchllm.event_stream import parse_reply
from batchllm.finish_reason import finish_word
from batchllm.printable import one_line
from batchllm.records import Answer, AnswerSpec, Usage

log = logging.getLogger("batchllm.answer")

# Failures that a re-ask with the validator's message can correct.
ASK_AGAIN = frozenset({"not_json", "schema"})
_MAX_COUNT = 2**53
_NO_USAGE = Usage()
_PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details")  # OpenAI and most others
# DeepSeek; Moonshot; Anthropic and LiteLLM; Gemini; Mistral.
_CACHED = {
    "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens", "cached_content_token_count",
    "cachedContentTokenCount", "num_cached_tokens",
}  # fmt: skip

_JSON_CUT = "the answer was cut before its JSON ended; raise --max-tokens"

Reading = tuple[Mapping[str, Any], str | None, str | None]  # columns, error, reason
About = tuple[Usage, str | None, str | None, int | None]  # usage, model, response_id, created


def answer_columns(spec: AnswerSpec) -> tuple[str, ...]:
    """Returns the columns that an answer fills: one, or one for each field of the schema."""
    return (_schema(spec).fields if spec.read == "json" and spec.schema else ()) or (spec.column,)


class Reader:
    """Reads responses as one kind of answer.

    Args:
        spec: What kind, and into which column.

    Attributes:
        spec: The same.

    Raises:
        UsageError: The labels or the schema cannot be used, or the kind is unknown.
    """

    def __init__(self, spec: AnswerSpec) -> None:
        self.spec = spec
        self._column = spec.column
        self._tools = None if spec.tools is None else Tools(spec.tools, spec.tool_choice)
        self._plain = spec.read == "text"
        self._reads_labels = spec.read == "label"
        self._read: Callable[[str, str | None], Reading]
        if spec.read == "text":
            self._read = self._as_text
        elif spec.read == "code":
            self._read = self._as_code
        elif spec.read == "label":
            self._labels = SeveralLabels(spec.labels) if spec.multi_label else Labels(spec.labels)
            self._read = self._as_label
        elif spec.read == "json":
            self._schema = _schema(spec) if spec.schema else None
            self._read = self._as_json
        else:
            raise UsageError(
                f"an answer cannot be read as {spec.read!r}; it may be text, label, code or json"
            )

    def with_tools(self, tools: tuple[Any, ...] | None, choice: Any) -> "Reader":
        """Returns a reader of the same answers for a request that offers these tools."""
        other = copy(self)
        other._tools = None if tools is None else Tools(tools, choice)
        return other

    def read(self, status: int, body: bytes) -> Answer:
        """Reads the answer in a response; never raises.

        Args:
            status: HTTP status.
            body: The whole body.
        """
        try:
            return self._answer(status, body)
        except Exception as trouble:  # noqa: BLE001 - a paid reply must never stop its job
            log.warning("a reply with status %s cannot be read: %r", status, trouble)
            what = type(trouble).__name__
            return Answer(error=f"the response cannot be read ({what})", reason="unreadable")

    def _answer(self, status: int, body: bytes) -> Answer:
        if not 200 <= status < 300:
            found = read_error(body)
            said = _said(found) or f"HTTP {status} without a message"
            return Answer(error=f"HTTP {status}: {said}", reason=found.row_fault(status) or f"http_{status}")
        try:
            data = parse_reply(body)
        except ValueError:
            start = one_line(body[:200].decode("utf-8", "replace"))[:80]
            said = f"begins {start!r}" if start else "is empty"
            return Answer(error=f"the response is not JSON: it {said}", reason="bad_json")
        if isinstance(data, list) and len(data) == 1:  # Gemini's errors
            data = data[0]
        if not isinstance(data, dict):
            return Answer(error="the response is JSON, but not an object", reason="bad_json")
        return self._of_object(data)

    def _of_object(self, data: dict[str, Any]) -> Answer:
        choices = data.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        fault = error_within(data)
        if fault and (fault.message or fault.code or fault.type):
            said = _said(fault) or fault.type
            error = f"the endpoint answered with an error: {said}"
            return Answer({}, "", None, *_about(data), error=error, reason=fault.row_fault(200) or "error")
        if isinstance(choice, dict):
            return self._of_choice(choice, _about(data))
        error = "the response has no choices"
        return Answer({}, "", None, *_about(data), error=error, reason="no_choices")

    def _of_choice(self, choice: dict[str, Any], about: About) -> Answer:
        raw = choice.get("finish_reason")
        finish = finish_word(raw)
        message = choice.get("message")
        if not isinstance(message, dict):
            message = {"content": choice.get("text")}  # the older completions
        content = content_text(message.get("content"))
        text = visible_text(content)
        calls = _calls(message)
        reading: Reading
        calls_fault = self._tools.fault(calls, text, finish) if self._tools else None
        if not text and (refusal := _refusal(message)) is not None:
            reading = {}, f"the model refused: {one_line(refusal)}", "refusal"
        elif not text and finish == "content_filter":
            reading = {}, "the content filter of the endpoint removed the answer", "content_filter"
        elif calls_fault is not None:
            reading = {}, *calls_fault
        elif text:
            reading = self._read(text, finish)
        elif calls:
            reading = {self._column: ""} if self._plain else {}, None, None
        else:
            reading = {}, *_nothing(message, content, finish, about[0])
        columns, error, reason = reading
        labels = labels_in(columns.get(self._column, ""), self.spec) if self._reads_labels else ()
        logprobs = choice.get("logprobs") if labels else None
        return Answer(
            columns,
            text,
            finish,
            *about,
            calls,
            error,
            reason,
            _string(raw),
            None if logprobs is None else confidence(logprobs, labels),
            labels,
        )

    def _as_text(self, text: str, finish: str | None) -> Reading:
        return {self._column: text}, None, None

    def _as_code(self, text: str, finish: str | None) -> Reading:
        code = code_block(text)
        if code is None:
            return {}, f"no code: {one_line(text)}", "no_code"
        return {self._column: code}, None, None

    def _as_label(self, text: str, finish: str | None) -> Reading:
        if self.spec.multi_label and finish == "length":
            return {}, "the answer was cut before its last label; raise --max-tokens", "cut"
        label = self._labels.find(text)
        if label is None:
            return {}, f"no label: {one_line(text)[:100]}", "no_label"
        return {self._column: label}, None, None

    def _as_json(self, text: str, finish: str | None) -> Reading:
        try:
            found = json_values(text)
        except NotJson as error:
            if finish == "length":
                return {}, _JSON_CUT, "cut"
            return {}, f"the answer is not JSON: {error}", "not_json"
        if finish == "length":
            found = [one for one in found[-1:] if isinstance(one.value, dict | list) and one.is_last]
            if not found:
                return {}, _JSON_CUT, "cut"
        value = max(found, key=lambda one: one.length).value
        if self._schema:
            last_first = [one.value for one in reversed(found)]
            inner = [part for whole in last_first for part in unwrapped(whole)]
            for one in (*last_first, *inner):
                if self._schema.fault(one) is None:
                    return self._filled(one)
            return {}, f"the answer does not fit the schema: {self._schema.fault(value)}", "schema"
        return {self._column: value}, None, None

    def _filled(self, value: Any) -> Reading:
        """Puts a value into the columns of the schema's fields."""
        if self._schema and self._schema.fields and isinstance(value, dict):
            return {name: value.get(name) for name in self._schema.fields}, None, None
        return {self._column: value}, None, None


def _about(data: Mapping[str, Any]) -> About:
    """Returns what a response says beside its choice, in the order of an answer's fields."""
    created = data.get("created")
    if type(created) is float and abs(created) < _MAX_COUNT:
        created = int(created)
    return _usage(data.get("usage")), _string(data.get("model")), _string(data.get("id")), _count(created)


def _schema(spec: AnswerSpec) -> Schema:
    return Schema(spec.schema or {})


def _said(found: ErrorBody) -> str:
    """Returns an error's message on one line, its code behind it; a number says that it is a code and no amount."""
    message, code = one_line(found.message), one_line(found.code)
    if not code or code in message:
        return message
    return f"{message} (code {code})".strip() if code.isdecimal() else f"{message} ({code})".strip()


def _refusal(message: dict[str, Any]) -> str | None:
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal.strip():
        return refusal
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and part.get("type") == "refusal":
            said = part.get("refusal")
            return said if isinstance(said, str) else ""
    return None


def _nothing(message: dict[str, Any], content: str, finish: str | None, usage: Usage) -> tuple[str, str]:
    """Returns the error and reason of an answer with neither text nor tool calls."""
    reasoned = (
        usage.reasoning_tokens
        or content.strip()
        or message.get("reasoning_content")
        or message.get("reasoning")
    )
    if finish == "length" and reasoned:
        return (
            "reasoning used up all tokens of the answer; raise --max-tokens, or lower --reasoning-effort",
            "reasoning",
        )
    if finish == "length":
        return "the answer has no text within its tokens; raise --max-tokens", "empty"
    return (
        f"the answer has neither text nor tool calls (finish_reason {one_line(finish or 'missing')[:40]})",
        "empty",
    )


def _calls(message: dict[str, Any]) -> list[dict[str, Any]] | None:
    calls = message.get("tool_calls")
    if not calls and isinstance(message.get("function_call"), dict):  # the older form
        calls = [{"type": "function", "function": message["function_call"]}]
    if not isinstance(calls, list):
        return None
    return with_read_arguments([call for call in calls if isinstance(call, dict)])


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return _NO_USAGE
    completion = usage.get("completion_tokens_details")
    return Usage(
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        _count(usage.get("total_tokens")),
        _count(completion.get("reasoning_tokens")) if isinstance(completion, dict) else None,
        _cached(usage),
    )


def _cached(usage: Mapping[str, Any]) -> int | None:
    """Returns the prompt tokens that came from the endpoint's cache, in whichever dialect it says so."""
    told = [usage[name] for name in _CACHED.intersection(usage)]
    for name in _PROMPT_DETAILS:
        details = usage.get(name)
        if isinstance(details, dict):
            told.append(details.get("cached_tokens"))
    return max([count for each in told if (count := _count(each)) is not None], default=None)


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _MAX_COUNT else None
