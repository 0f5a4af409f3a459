"""Errors in Python's words: the command line's flags become keywords of ``run``.

Messages are written once, for the command line. An option has one name, so its flag says which keyword is meant.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from batchllm import presets
from batchllm.errors import JobError
from batchllm.job.options import TABLE, Option

_OPTIONS: dict[str, Option] = {flag: option for option in TABLE for flag in option.flags if option.tasks}
_FLAG = re.compile(
    r"(?<![\w-])(?P<flag>--[a-z][a-z-]*|-[a-z])(?![\w-])(?P<value>[ =](?:'[^']*'|[\w.%/|-]+))?"
)
_WORDS = (
    ("the same command", "the same call"),
    ("The same command", "The same call"),
)


def in_python(message: str) -> str:
    """Returns a message with keywords for flags: ``accept_change=True`` for ``--accept-change``."""
    text = _FLAG.sub(_keyword, message)
    for words, ours in _WORDS:
        text = text.replace(words, ours)
    return text


def _keyword(found: re.Match[str]) -> str:
    option = _OPTIONS.get(found["flag"])
    if option is None or option.switch:
        return "wait=True" if found["flag"] == "--wait" else found[0]
    written = found["value"] or ""
    if option.kind.python_type is bool:
        return f"{option.name}=True{written}"
    value = written[1:].rstrip(".")
    rest = written[1 + len(value) :]
    if value.isupper() or "|" in value:  # what stands for a value
        return f"{option.name}={rest}"
    if value.startswith("'"):
        return f"{option.name}={value}"
    if re.fullmatch(r"[\d.]+", value):
        return f"{option.name}={value}{rest}"
    known = (*option.kind.metavar.split("|"), *(presets.names() if option.name == "provider" else ()))
    if value in known or value.endswith("_"):
        return f'{option.name}="{value}"{rest}'
    return f"{option.name}={written}"


@contextmanager
def python_words() -> Iterator[None]:
    """Puts the errors of a ``with`` block into Python's words."""
    try:
        yield
    except JobError as error:
        error.args = (in_python(str(error)),)
        raise
