"""Says which options of a job changed since its last run, from what to what."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from batchllm.answer import fields_text
from batchllm.job.options import OPTIONS, TABLES, options_in
from batchllm.job.record import STEPS
from batchllm.printable import counted, one_line, printable

_LONGEST = 80
_OFF = (None, False)
_NOT_SET = "not set"
_TEMPLATES_OWN = "the template's own"
_PLACES = {"messages": "prompt", "combine_prompt": "template", "preset": "provider", "per_row": "template"}
_FLAGS = {option.attribute: option.name for option in OPTIONS.values()}


class Change(NamedTuple):
    """One option of a job that changed.

    Attributes:
        option: Its name in ``job.options.OPTIONS``, with ``.NAME`` for an entry of ``var`` or ``param``; ``prompt`` for
            the messages of any template.
        before, after: Its values as text of one line; ``not set`` where there is none.
    """

    option: str
    before: str
    after: str


def changes_between(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Compares two fingerprints (``Job.fingerprint``)."""
    return list(_changes(before, now))


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    for name in now:
        old, new = before.get(name), now[name]
        if old == new or _written(old) == _written(new) == _NOT_SET:
            continue
        if name == "combine_prompt" and old is None:
            continue  # it came with --on-long split
        if name in TABLES:
            yield from _entries(name, old or {}, new)
        elif name == STEPS:
            yield from _steps(old or {}, new)
        elif name == "schema":
            yield Change(name, *_schemas(old, new))
        elif name == "examples":
            yield Change(name, *_examples(old, new))
        elif name == "messages":
            yield Change(_PLACES[name], *_messages(old or (), new or ()))
        else:
            yield Change(_PLACES.get(name) or _FLAGS.get(name, name), _written(old), _written(new))


def _steps(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """The changes of each step; one that is new or gone is told by its prompt alone."""
    for step in dict.fromkeys([*old, *new]):
        before, now = old.get(step), new.get(step)
        if before is not None and now is not None:
            changes = list(_changes(before, now))
        else:
            asked = [_content(((each or {}).get("messages") or (None,))[-1]) for each in (before, now)]
            changes = [Change("prompt", *asked)]
        for change in changes:
            yield change._replace(option=f"step {step}: {change.option}")


def _entries(table: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    own = options_in(table)
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name) and not (old.get(name) in _OFF and new.get(name) in _OFF):
            option = name if name in own else f"{TABLES[table]}.{name}"
            rendered = [isinstance(each.get(name), str) and "{{" in each[name] for each in (old, new)]
            before, after = (
                _TEMPLATES_OWN
                if own_value and table == "parameters" and not all(rendered)
                else _written(each.get(name))
                for own_value, each in zip(rendered, (old, new), strict=True)
            )
            yield Change(option, before, after)


def _schemas(old: Any, new: Any) -> tuple[str, str]:
    """Returns the fields of two schemas in the short form; as JSON Schema where that does not tell them apart."""
    fields = [one_line(fields_text(schema), _LONGEST) if schema else "" for schema in (old, new)]
    if fields[0] != fields[1]:
        before, after = (_written(text or schema) for text, schema in zip(fields, (old, new), strict=True))
        return before, after
    return _written(old), _written(new)


def _examples(old: Any, new: Any) -> tuple[str, str]:
    if old and new and len(old) == len(new):
        differing = sum(one != other for one, other in zip(old, new, strict=True))
        return counted(
            len(old), "example"
        ), f"{len(new):,}, of which {counted(differing, 'differs', 'differ')}"
    before, after = (counted(len(each), "example") if each else _NOT_SET for each in (old, new))
    return before, after


def _messages(old: Any, new: Any) -> tuple[str, str]:
    """Returns the first message that differs, before and after."""
    for number in range(max(len(old), len(new))):
        one = old[number] if number < len(old) else None
        other = new[number] if number < len(new) else None
        if one != other:
            before, after = _content(one), _content(other)
            return (before, after) if before != after else _beside_difference(one, other)
    return _written(None), _written(None)


def _beside_difference(old: Any, new: Any) -> tuple[str, str]:
    """Returns two messages around where they differ, with every blank: on one short line they look alike."""
    texts = [str(each.get("content") if isinstance(each, Mapping) else each) for each in (old, new)]
    shortest = min(map(len, texts))
    same = next((n for n in range(shortest) if texts[0][n] != texts[1][n]), shortest)
    start = max(0, same - _LONGEST // 2)
    end = start + _LONGEST
    before, after = (
        ("…" if start else "") + printable(text[start:end], keep="") + ("…" if len(text) > end else "")
        for text in texts
    )
    return before, after


def _content(message: Any) -> str:
    return _written(message.get("content") if isinstance(message, Mapping) else message)


def _written(value: Any) -> str:
    if value is None or value in ("", (), [], {}):
        return _NOT_SET
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return one_line(", ".join(value), _LONGEST)
    return one_line(value if isinstance(value, str) else str(value), _LONGEST)


def change_text(change: Change) -> str:
    """Says a change in words: ``--bullets changed from 3 to 2``."""
    name, _, entry = change.option.partition(".")
    flag = OPTIONS[name].flag if name in OPTIONS else name
    called = "--prompt or --template" if name == "prompt" else f"{flag} {entry}" if entry else flag
    quote = "'" if name.endswith(("prompt", "system")) else ""
    before, after = (
        value if value == _NOT_SET else f"{quote}{value}{quote}" for value in (change.before, change.after)
    )
    return f"{called} changed from {before} to {after}"
