"""Texts made from the table of options: the reference page, the job file of ``init``, a job's options in a dry run.

``python -m batchllm.job.reference`` prints the reference page of the documentation, and with the word ``keywords``
the module ``job.keywords``.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from batchllm.job.options import OPTIONS, TABLE, TABLES, TASKS, Option, options_in
from batchllm.job.record import Job
from batchllm.job.steps import ONE_STEPS
from batchllm.printable import counted


def panels() -> dict[str, list[Option]]:
    """The options of the table by panel, in the order of the help."""
    found: dict[str, list[Option]] = {}
    for option in TABLE:
        found.setdefault(option.panel, []).append(option)
    return found


def option_reference() -> str:
    """Returns a page of Markdown with a table for each panel: flag, job file key and variable, default, meaning."""
    lines = [
        "# Options",
        "",
        "`python -m batchllm.job.reference > docs/reference/options.md` makes this page from the table of options.",
        "",
        "Each option is a flag, a key of a job file's `[job]` table, and an environment variable. The flag wins over",
        "the environment, the environment over the job file, the job file over the template, and that over the preset.",
        "",
    ]
    for panel, options in panels().items():
        lines += [f"## {panel}", "", "| flag | job file, environment | default | |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(_cells(option))} |" for option in options]
        lines.append("")
    return "\n".join(lines[:-1])


def _cells(option: Option) -> list[str]:
    flags = ", ".join(f"`{flag}`" for flag in sorted(option.flags, key=len)) if option.tasks else ""
    names = "" if option.switch else f"`{option.name}`, `{option.variable}`"
    only = "" if option.tasks in ((), TASKS) else f" ({', '.join(option.tasks)})"
    return [flags, names, option.default_text.replace("|", "\\|"), option.help.replace("|", "\\|") + only]


def init_text() -> str:
    """Returns a job file with every option, commented out but for what the simplest job needs."""
    lines = [
        "# A job for batchllm: `batchllm run job.toml`. Take the # from what you need; --dry-run shows what it does.",
        "# Paths are relative to this file. Flags and BATCHLLM_* variables go before what is written here.",
        "",
        "[job]",
    ]
    for panel, options in panels().items():
        lines += ["", f"# {panel}"]
        for option in options:
            if not option.switch:
                mark = "" if option.name in {"input", "task"} else "# "
                lines.append(f"{f'{mark}{option.name} = {option.toml}':<56}  # {option.full_help}")
    return "\n".join([*lines, "", *_TEMPLATE_PART.splitlines(), ""])


def job_options(job: Job, *, every: bool) -> Iterator[tuple[str, str, str]]:
    """Yields name, value and source of the options that are not at their default, or of every one."""
    for option in OPTIONS.values():
        if job.steps and option.name in ONE_STEPS:
            continue
        value, source = _entry(job, option) if option.field in TABLES else _field(job, option)
        if every:
            yield option.name, _written(value), source
        elif source != "default" and not (source == "template" and value is False):
            computed = source == "template" and isinstance(value, str) and "{{" in value
            yield option.name, "computed" if computed else _written(value), source


def _field(job: Job, option: Option) -> tuple[Any, str]:
    """Value and source of an option that a field of the job holds."""
    value: Any = job
    for name in option.attribute.split("."):
        value = getattr(value, name, None)
    if option.name == "prompt":
        value = value[-1].content if value and "prompt" in job.sources else None
    if job.endpoints and option.name in ("endpoints", "base_url", "provider"):
        name = "preset" if option.name == "provider" else "base_url"
        value = tuple(getattr(each.endpoint, name) for each in job.endpoints)
    if option.kind.merged:
        value = sorted(value)  # the values of headers may be secret
    given = [text for key, text in job.sources.items() if key.partition(".")[0] == option.name]
    return value, ", ".join(dict.fromkeys(given)) or "default"


def _entry(job: Job, option: Option) -> tuple[Any, str]:
    """Value and source of an option that is an entry of variables or parameters, or all their other entries."""
    table = getattr(job, f"all_{option.field}")
    if not option.kind.merged:
        return table.get(option.name), _entry_source(job, option.field, option.name)
    others = {name: value for name, value in table.items() if name not in options_in(option.field)}
    sources = dict.fromkeys(_entry_source(job, option.field, name) for name in others)
    return others, ", ".join(sources) or "default"


def _entry_source(job: Job, table: str, name: str) -> str:
    given = [text for key, text in job.sources.items() if key in (name, f"{TABLES[table]}.{name}")]
    return given[-1] if given else "template" if name in getattr(job.template, table, {}) else "default"


def _written(value: Any) -> str:
    """A value for people; ``-`` where there is none."""
    if value is None or value in ("", (), [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        if all(isinstance(item, dict) and "function" in item for item in value):
            return ", ".join(item["function"]["name"] for item in value)
        return counted(len(value), "row") if isinstance(value[0], dict) else ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False, default=str)
    return f"{value:g}" if isinstance(value, float) else str(value)


_TEMPLATE_PART = """\
# A template of the job's own, instead of task, template or prompt above:
#
# [variables]
# tone = "friendly"
#
# [[messages]]
# role = "system"
# content = "You answer customers in a {{ tone }} tone."
#
# [[messages]]
# role = "user"
# content = "Answer this review: {{ text }}"
#
# [parameters]
# temperature = 0.3
# max_tokens = 150
#
# [answer]
# column = "reply"
"""


def keywords_module() -> str:
    """Returns the module with the types of the library's keywords."""
    lines = _KEYWORDS.splitlines()
    for option in sorted(OPTIONS.values(), key=lambda option: option.name):
        if option.name in ("input", "task", "keep"):  # those that are no keywords, or parameters of their own
            continue
        lines.append(
            f"    {option.name}: {option.kind.annotation or option.kind.python_type.__name__} | None"
        )
    return "\n".join([*lines, ""])


_KEYWORDS = '''"""The keywords of ``run``, ``arun`` and ``astream``, typed for editors and type checkers.

``python -m batchllm.job.reference keywords > batchllm/job/keywords.py`` makes this module from the table of options.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from os import PathLike
from typing import Any, Literal, TypedDict


class Options(TypedDict, total=False):
    """Options of a call by name; one that is ``None`` is not given.

    They are those of the command line, and ``api_key``: the key, or a function that returns it when the run begins.
    """

    api_key: str | Callable[[], str] | None
'''


if __name__ == "__main__":
    print(  # noqa: T201 - this is its output
        keywords_module() if "keywords" in sys.argv else option_reference(),
        end="" if "keywords" in sys.argv else "\n",
    )
