"""Checks the tool calls of an answer against the tools that were offered."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from batchllm.answer.json_text import NotJson, json_values
from batchllm.answer.schema import Schema
from batchllm.errors import UsageError
from batchllm.printable import one_line

Calls = list[dict[str, Any]]
Fault = tuple[str, str]  # error, reason


class Tools:
    """The tools that a request offers.

    Args:
        offered: The request's ``tools``; of kinds other than ``function`` and ``custom`` nothing is checked.
        choice: The request's ``tool_choice``.
    """

    def __init__(self, offered: Sequence[Any], choice: Any = None) -> None:
        self._parameters: dict[str, Any] = {}
        self._knows_all = True
        for tool in offered if choice != "none" else ():
            named = _named(tool)
            name = named.get("name")
            if isinstance(name, str):
                self._parameters[name] = named.get("parameters")
            else:
                self._knows_all = False
        self._is_required = choice in ("required", "any") or isinstance(choice, Mapping)
        wanted = _named(choice).get("name")
        self._wanted = wanted if isinstance(wanted, str) else None

    @property
    def are_offered(self) -> bool:
        """Returns whether there is any."""
        return bool(self._parameters) or not self._knows_all

    def fault(self, calls: Calls | None, text: str, finish: str | None) -> Fault | None:
        """Returns what is wrong with the calls of an answer; ``None`` where nothing is."""
        if not calls:
            if self._is_required and self.are_offered:
                said = one_line(text, 100) or "nothing"
                return f"a tool call was required, and the answer has none: {said}", "no_tool_call"
            return None
        if not self.are_offered:
            return (
                None
                if text
                else (f"the model called {_names(calls)}, but no tools were offered", "tool_call")
            )
        for call in calls:
            fault = self._fault_of(call, finish)
            if fault is not None:
                return fault
        return None

    def _fault_of(self, call: Mapping[str, Any], finish: str | None) -> Fault | None:
        name = _named(call).get("name")
        if not isinstance(name, str) or not name:
            return "a tool call names no tool", "tool_call"
        shown = one_line(name, 60)
        if self._knows_all and name not in self._parameters:
            return f"the model called the tool {shown}, which was not offered", "tool_call"
        if self._wanted is not None and name != self._wanted:
            return f"the model called the tool {shown}, and {self._wanted} was required", "tool_call"
        if call.get("type") == "custom" or name not in self._parameters:
            return None
        return self._arguments_fault(name, _named(call).get("arguments"), finish)

    def _arguments_fault(self, name: str, arguments: Any, finish: str | None) -> Fault | None:
        value: Any = arguments if arguments is not None else {}
        if isinstance(arguments, str):
            try:
                value = json_values(arguments)[0].value if arguments.strip() else {}
            except NotJson as error:
                if finish == "length":
                    return f"the answer was cut within the arguments of {name}; raise --max-tokens", "cut"
                return f"the arguments of {name} are not JSON: {error}", "tool_arguments"
        if not isinstance(value, Mapping):
            return f"the arguments of {name} are not a JSON object", "tool_arguments"
        fault = self._schema_fault(name, value)
        return (
            None if fault is None else (f"the arguments of {name} do not fit it: {fault}", "tool_arguments")
        )

    def _schema_fault(self, name: str, value: Mapping[str, Any]) -> str | None:
        schema = self._parameters[name]
        if isinstance(schema, Mapping):
            try:
                schema = self._parameters[name] = Schema(schema)
            except UsageError:  # the endpoint took it: it is its dialect, and nothing is checked
                schema = self._parameters[name] = None
        return schema.fault(value) if isinstance(schema, Schema) else None


def with_read_arguments(calls: Calls | None) -> Calls | None:
    """Returns tool calls whose arguments are JSON: those that only a lenient reader understands are written anew."""
    if not calls:
        return None
    return [_with_read_arguments(call) for call in calls]


def _with_read_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(arguments, str) or not arguments.strip():
        return call
    try:
        json.loads(arguments)
        return call
    except (ValueError, RecursionError):
        pass
    try:
        value = json_values(arguments)[0].value
    except NotJson:
        return call
    return {**call, "function": {**function, "arguments": json.dumps(value, ensure_ascii=False)}}


def _named(tool: Any) -> Mapping[str, Any]:
    """Returns what holds the name of a tool, a call or a choice, in the current form and in older ones."""
    if not isinstance(tool, Mapping):
        return {}
    inner = tool.get("function") or tool.get("custom")
    return inner if isinstance(inner, Mapping) else tool


def _names(calls: Calls) -> str:
    names = [name for call in calls if isinstance(name := _named(call).get("name"), str)]
    return "the tool " + one_line(", ".join(names), 80) if names else "a tool"
