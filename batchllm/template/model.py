"""What a template says, as frozen records."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class AnswerSpec:
    """How an answer is read, and into which column.

    Attributes:
        column: Name of the answer column.
        read: ``text`` as it is, ``label`` (one of ``labels``), ``code`` (the fenced block), ``json``.
        labels: The labels, spelled as the label column shall spell them.
        schema: For ``json``: a JSON Schema, or the short form (``"topic, urgent bool"``).
    """

    column: str
    read: str = "text"
    labels: tuple[str, ...] = ()
    schema: Mapping[str, Any] | str | None = None


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
        source: The TOML text it came from.
    """

    name: str
    description: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    answer: AnswerSpec = AnswerSpec("response")
    source: str = ""

    def with_system(self, system: str) -> "Template":
        """The same with ``system`` as its system message, put first where there was none."""
        new = Message("system", system)
        for position, message in enumerate(self.messages):
            if message.role in ("system", "developer"):
                return replace(
                    self, messages=(*self.messages[:position], new, *self.messages[position + 1 :])
                )
        return replace(self, messages=(new, *self.messages))

    def with_variables(self, variables: Mapping[str, Any]) -> "Template":
        """The same with other values for its variables; ``labels`` also says which labels are read."""
        labels = variables.get("labels")
        answer = self.answer
        if labels is not None and answer.read == "label":
            answer = replace(answer, labels=tuple(labels))
        return replace(self, variables={**self.variables, **variables}, answer=answer)
