"""Templates as frozen data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from batchllm.errors import UsageError
from batchllm.records import AnswerSpec

LEADING_ROLES = ("system", "developer")
"""The roles of messages that give instructions."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a template.

    Attributes:
        role: ``system``, ``developer``, ``user`` or ``assistant``.
        content: Jinja source, or content parts whose strings are Jinja sources.
        name: The participant's name, where the template gives one.
    """

    role: str
    content: str | tuple[Mapping[str, Any], ...]
    name: str | None = None


def literal(text: str) -> str:
    """Returns the Jinja source that renders as ``text``, whatever braces are in it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'{{{{ "{escaped}" }}}}'


@dataclass(frozen=True, slots=True)
class Combine:
    """How the answers of a long text's parts become one: a template's ``[combine]`` table.

    Attributes:
        prompt: Jinja source of the user message; it reads ``{{ answers }}``.
        system: Jinja source of the system message; ``None`` is the template's own.
        parameters: Request parameters that override the template's.
    """

    prompt: str
    system: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Template:
    """A task: what is asked of each row, and how the answer is read.

    Attributes:
        name: Name of the built-in task, stem of the file, or ``run`` for a prompt of one line.
        description: One line for ``batchllm templates``.
        messages: In the order in which they are sent.
        parameters: Request parameters; a string with a placeholder is rendered for each row.
        variables: Defaults of the names that the messages use beside columns.
        answer: How the answer is read.
        combine: How the answers of a long text's parts become one (``--on-long split``).
        source: The TOML text it came from.
    """

    name: str
    description: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    answer: AnswerSpec = field(default_factory=lambda: AnswerSpec("response"))
    combine: Combine | None = None
    source: str = ""

    def combining(self, combine: Combine) -> "Template":
        """Returns the template that asks for one answer out of several."""
        system = self._leading if combine.system is None else Message("system", combine.system)
        return replace(
            self,
            messages=(*([system] if system else ()), Message("user", combine.prompt)),
            parameters={**self.parameters, **combine.parameters},
        )

    def with_system(self, system: str) -> "Template":
        """Returns a copy with ``system`` as its system message, first where there was none."""
        return self._with_leading(Message("system", system))

    def with_system_end(self, source: str) -> "Template":
        """Returns a copy with ``source`` as the last paragraph of its system message."""
        message = self._leading
        if message is None:
            return self.with_system(source)
        if isinstance(message.content, str):
            content: Any = message.content.rstrip() + literal("\n\n") + source
        else:
            content = (*message.content, {"type": "text", "text": source})
        return self._with_leading(replace(message, content=content))

    @property
    def _leading(self) -> Message | None:
        """The first message that gives instructions."""
        return next((message for message in self.messages if message.role in LEADING_ROLES), None)

    def _with_leading(self, new: Message) -> "Template":
        """Returns a copy with another message instead of the leading one, first where there was none."""
        at = self.messages.index(self._leading) if self._leading else 0
        return replace(self, messages=(*self.messages[:at], new, *self.messages[at + bool(self._leading) :]))

    def read_as(self, task: "Template") -> "Template":
        """Returns a copy whose answers are read as a task's, with the parameters that it does not set itself.

        Raises:
            UsageError: It reads its answers in another way.
        """
        if self.answer.read not in ("text", task.answer.read):
            raise UsageError(
                f"template {self.name} reads its answers as {self.answer.read}, and {task.name} as "
                f"{task.answer.read}; use batchllm run -t"
            )
        parameters = dict(task.parameters)
        if "max_completion_tokens" in self.parameters:
            parameters.pop("max_tokens", None)
        parameters |= self.parameters
        known = {
            name: value
            for name, value in task.variables.items()
            if task.answer.read == "label" or re.search(rf"\b{name}\b", f"{self.source} {parameters}")
        }
        if self.answer.labels:
            known["labels"] = list(self.answer.labels)
        answer = replace(task.answer, labels=self.answer.labels or task.answer.labels)
        return replace(self, answer=answer, parameters=parameters, variables={**known, **self.variables})

    def with_variables(self, variables: Mapping[str, Any]) -> "Template":
        """Returns a copy with other values of its variables; ``labels`` and ``multi_label`` also go into the answer."""
        labels, several = variables.get("labels"), variables.get("multi_label")
        answer = self.answer
        if labels is not None and answer.read == "label":
            answer = replace(answer, labels=tuple(labels))
        if several is not None and answer.read == "label":
            answer = replace(answer, multi_label=several is True)
        return replace(self, variables={**self.variables, **variables}, answer=answer)
