"""Reads templates from TOML: the built-in tasks, a user's file, a one-line prompt.

::

    description = "What the task is for"
    [variables]                 # names that the messages use beside columns
    bullets = 3
    [[messages]]                # any number of them
    role = "user"
    content = "Summarize in {{ bullets }} bullet points: {{ text }}"
    [parameters]                # of the request; a value may read a column: "{{ temperature }}"
    temperature = 0.3
    [answer]
    column = "summary"
    read = "text"               # text, label (with labels = [...]), code, json (with schema = ...)
    [combine]                   # how the answers of a long text's parts become one (--on-long split)
    prompt = "These are summaries of the parts of one text. Make one of them: {{ answers }}"

A job file is the same with a ``[job]`` table, and perhaps ``[[endpoints]]``, which are not read here.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchllm.errors import UsageError, did_you_mean, listed, refuse_unknown
from batchllm.records import AnswerSpec
from batchllm.template.model import Combine, Message, Template
from batchllm.template.values import KNOWN_PARAMETERS

PROMPT_NAME = "run"
_TASKS = Path(__file__).parents[1] / "tasks"
_TOP = ("name", "description", "variables", "messages", "parameters", "answer", "combine", "job", "endpoints")
_MESSAGE = ("role", "content", "name")
_ANSWER = ("column", "read", "labels", "schema")
_COMBINE = ("prompt", "system", "parameters")
_ROLES = ("system", "developer", "user", "assistant")
_READS = ("text", "label", "code", "json")
_MAX_FILE_BYTES = 10_000_000


def builtin_names() -> list[str]:
    """Returns the names of the built-in tasks."""
    return sorted(path.stem for path in _TASKS.glob("*.toml"))


def load(name_or_path: str | Path) -> Template:
    """Loads a built-in task by its name, or a template file.

    Raises:
        UsageError: There is no such task or file, or it is not a template.
    """
    name = str(name_or_path)
    if name in builtin_names():
        return parse((_TASKS / f"{name}.toml").read_text("utf-8"), name)
    path = Path(name_or_path)
    try:
        if path.stat().st_size > _MAX_FILE_BYTES or not path.is_file():
            raise UsageError(f"{path} is not a template: it is no regular file of less than 10 MB")
        text = path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        tasks = builtin_names()
        hint = did_you_mean(name, tasks)
        reason = "is not UTF-8" if isinstance(error, UnicodeError) else "cannot be read as a template file"
        raise UsageError(f"{name} {reason}{hint}; the built-in templates are: {listed(tasks)}") from error
    return parse(text, path.stem, path)


def from_prompt(prompt: str) -> Template:
    """Returns the template of ``run -p``: one user message; temperature and limit are the model's own."""
    quoted = json.dumps(prompt, ensure_ascii=False).replace("\x7f", "\\u007f")
    source = (
        'description = "A prompt of one line"\n\n'
        '[[messages]]\nrole = "system"\ncontent = "You are a helpful assistant."\n\n'
        f'[[messages]]\nrole = "user"\ncontent = {quoted}\n\n'
        '[answer]\ncolumn = "response"\nread = "text"\n'
    )
    try:
        return parse(source, PROMPT_NAME)
    except UnicodeError as error:
        raise UsageError("the prompt of -p is not text: it holds half of a UTF-16 pair") from error


def parse(text: str, name: str, path: Path | None = None) -> Template:
    """Parses a template.

    Args:
        text: The TOML.
        name: The template's name unless the text gives one.
        path: The file, for messages.

    Raises:
        UsageError: The text is not TOML, or has an unknown key or a value of the wrong kind.
    """
    where = str(path or f"template {name}")
    try:
        data = tomllib.loads(text.replace("\r\n", "\n"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{where}: this is not TOML: {error or 'nested too deeply'}") from error
    refuse_unknown(data, _TOP, where)
    variables = _table(data, "variables", where)
    parameters = _parameters(data, where, "parameters")
    return Template(
        name=_string(data, "name", where, name),
        description=_string(data, "description", where, ""),
        messages=_messages(data.get("messages"), where),
        parameters=parameters,
        variables=variables,
        answer=_answer(_table(data, "answer", where), variables, where),
        combine=_combine(data, where),
        source=text,
    )


def _parameters(data: Mapping[str, Any], where: str, called: str) -> Mapping[str, Any]:
    parameters = _table(data, "parameters", where)
    for parameter in parameters:
        if parameter not in KNOWN_PARAMETERS:
            raise UsageError(
                f"{where}: [{called}] has the unknown key {parameter}{did_you_mean(parameter, KNOWN_PARAMETERS)}; "
                f"what only this endpoint knows goes into [{called}.extra_body]"
            )
    return parameters


def _combine(data: Mapping[str, Any], where: str) -> Combine | None:
    if "combine" not in data:
        return None
    table, place = _table(data, "combine", where), f"{where}, [combine]"
    refuse_unknown(table, _COMBINE, place)
    prompt, system = table.get("prompt"), table.get("system")
    if not isinstance(prompt, str) or "answers" not in prompt:
        raise UsageError(
            f"{place}: prompt must be text with {{{{ answers }}}}, where the answers of the parts go"
        )
    if not (system is None or isinstance(system, str)):
        raise UsageError(f"{place}: system must be text")
    return Combine(prompt, system, _parameters(table, place, "combine.parameters"))


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise UsageError(f"{where}: there is no [[messages]] table; a template needs at least one message")
    messages = []
    for number, table in enumerate(value, 1):
        place = f"{where}, message {number}"
        if not isinstance(table, dict):
            raise UsageError(f"{place}: a message is a table with role and content")
        refuse_unknown(table, _MESSAGE, place)
        role = _string(table, "role", place, "user")
        if role not in _ROLES:
            raise UsageError(
                f"{place}: there is no role {role!r}{did_you_mean(role, _ROLES)}; the roles are {listed(_ROLES)}"
            )
        content = table.get("content")
        if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
            content = tuple(content)
        elif not isinstance(content, str):
            raise UsageError(f"{place}: content must be text, or a list of content parts")
        messages.append(Message(role, content, _string(table, "name", place, "") or None))
    return tuple(messages)


def _answer(table: Mapping[str, Any], variables: Mapping[str, Any], where: str) -> AnswerSpec:
    place = f"{where}, [answer]"
    refuse_unknown(table, _ANSWER, place)
    read = _string(table, "read", place, "json" if "schema" in table else "text")
    if read not in _READS:
        raise UsageError(f"{place}: read is {read!r}{did_you_mean(read, _READS)}; it may be {listed(_READS)}")
    labels = table.get("labels", variables.get("labels") if read == "label" else None) or []
    if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise UsageError(f"{place}: labels must be a list of words")
    if read == "label" and len(labels) < 2:
        raise UsageError(f'{place}: read = "label" needs at least two labels')
    schema = table.get("schema")
    if not (schema is None or isinstance(schema, str | dict)):
        raise UsageError(f"{place}: schema must be a JSON Schema as a table, or its short form as text")
    several = read == "label" and variables.get("multi_label") is True
    column = _string(table, "column", place, "response")
    return AnswerSpec(column, read, tuple(labels), schema, multi_label=several)


def _table(data: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = data.get(key, {})
    if not isinstance(value, dict):
        raise UsageError(f"{where}: {key} must be a table, [{key}]")
    return value


def _string(table: Mapping[str, Any], key: str, where: str, default: str) -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or (default and not value.strip()):
        raise UsageError(f"{where}: {key} must be text")
    return value
