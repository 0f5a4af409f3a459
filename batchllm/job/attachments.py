"""Reads the files that a job names: tool definitions and the schema of an answer."""

import importlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchllm.errors import JobError, UsageError

_TOOL_CHOICES = ("auto", "none", "required")


def read_tools(source: Path | list[Any], called: str) -> list[dict[str, Any]]:
    """Returns tool definitions, of a JSON file or a list: ``{"type": "function", "function": {"name": …}}`` each.

    Raises:
        UsageError: They are something else; the message names the tool.
    """
    tools = _json_of(source, called) if isinstance(source, Path) else source
    where = f"{called} {source}" if isinstance(source, Path) else called
    if not isinstance(tools, list) or not tools:
        raise UsageError(f"{where}: expected a JSON list of tools")
    names = [_tool_name(tool, f"{where}, tool {number}") for number, tool in enumerate(tools, 1)]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{where}: there are two tools named {name!r}")
    return tools


def _tool_name(tool: Any, where: str) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name or tool.get("type") != "function":
        raise UsageError(f'{where} is not of the form {{"type": "function", "function": {{"name": …}}}}')
    return name


def tool_choice(value: str | None, tools: list[dict[str, Any]] | None, called: str) -> Any:
    """Returns ``auto``, ``none``, ``required``, or the object that asks for the tool of that name.

    Raises:
        UsageError: There is no such tool, or there are no tools at all.
    """
    if value is None:
        return None
    if not tools:
        raise UsageError(f"{called} needs --tools FILE")
    if value in _TOOL_CHOICES:
        return value
    names = [tool["function"]["name"] for tool in tools]
    if value not in names:
        raise UsageError(
            f"{called} must be {', '.join(_TOOL_CHOICES)} or one of {', '.join(names)}, not {value!r}"
        )
    return {"type": "function", "function": {"name": value}}


def read_schema(text: str | Mapping[str, Any], called: str, *, may_import: bool = True) -> Mapping[str, Any]:
    """Returns a JSON Schema: as it is, from a file, from JSON, of a pydantic model, or of ``answer.schema_of``.

    Args:
        text: The schema, or ``module:Model``, or the short form, or the path of a JSON file.
        called: What an error calls the option.
        may_import: Whether ``module:Model`` may run the module; a file that is passed around may not.

    Raises:
        UsageError: It is none of them.
    """
    from batchllm import answer

    if isinstance(text, Mapping):
        return answer.schema_of(text)
    path = Path(text)
    if path.suffix.lower() == ".json":
        schema = _json_of(path, called)
    elif text.lstrip().startswith("{"):
        schema = _parsed(text, called)
    elif found := _MODEL.fullmatch(text.strip()):
        if not may_import:
            raise UsageError(
                f"{called}: {text} would run code; give it as --schema {text}, or as a JSON Schema file"
            )
        schema = _model_schema(found[1], found[2], f"{called} {text}")
    else:
        return answer.schema_of(text)
    if not isinstance(schema, dict):
        raise UsageError(f"{called} {text}: a JSON Schema is an object")
    return answer.schema_of(schema)


_MODEL = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", re.ASCII)


def _model_schema(module: str, name: str, where: str) -> Any:
    """Returns the schema of a pydantic model in a module that is installed or lies in the working folder."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        model = getattr(importlib.import_module(module), name, None)
        if model is None:
            raise UsageError(f"{where}: the module {module} has no {name}")
        return model if isinstance(model, dict) else model.model_json_schema()
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{where}: there is no module {error.name} here; a field with a description is written '{module}: {name}'"
        ) from None
    except AttributeError:
        raise UsageError(f"{where}: {name} is neither a pydantic model nor a JSON Schema") from None
    except (Exception, SystemExit) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{where}: importing {module} failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)


def read_instructions(text: str | None, called: str) -> str | None:
    """Returns instructions: the content of a file of that name, or the text itself.

    Raises:
        UsageError: The file cannot be read or is empty, or the text is the name of a file that is not there.
    """
    if text is None:
        return None
    is_name = len(text) < _LONGEST_NAME and not any(sign in text for sign in "\n\0")
    path = Path(text)
    if not (is_name and path.is_file()):
        if is_name and path.suffix.lower() in _TEXT_FILES and " " not in text:
            raise UsageError(f"{called} {text}: there is no such file")
        return text
    found = text_of(path, called).strip()
    if not found:
        raise UsageError(f"{called} {path}: the file is empty")
    return found


def read_examples(source: Path | list[Any], called: str) -> tuple[Mapping[str, Any], ...]:
    """Returns the rows of a file of examples, or of a list of tables.

    Raises:
        UsageError: The file cannot be read, or there are no rows, or more than ``MOST_EXAMPLES``.
    """
    rows = rows_of(source, called) if isinstance(source, Path) else source
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise UsageError(
            f"{called}: there are no examples; each is a row with the prompt's columns and the answer's"
        )
    if len(rows) > MOST_EXAMPLES:
        raise UsageError(f"{called}: there are {len(rows):,} examples; give at most {MOST_EXAMPLES:,}")
    return tuple(dict(row) for row in rows)


MOST_EXAMPLES = 10_000


def rows_of(path: Path, called: str) -> list[Any]:
    """Returns the rows of a table, each as a mapping.

    Raises:
        UsageError: The file cannot be read.
    """
    from batchllm.formats import open_source

    try:
        source = open_source(path)
        source.scan()
        return [row.values for row in source.rows()]
    except JobError as error:
        raise UsageError(f"{called}: {error}") from error


_LONGEST_NAME = 1000
_TEXT_FILES = (".txt", ".md", ".markdown", ".rst", ".text")


def _json_of(path: Path, called: str) -> Any:
    return _parsed(text_of(path, called), f"{called} {path}")


def text_of(path: Path, called: str) -> str:
    """Returns the text of a file.

    Raises:
        UsageError: It cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{called} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{called} {path}: this is not UTF-8") from None


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: this is not JSON: {error}") from None
