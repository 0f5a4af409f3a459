"""Merges the answers about the parts of a text without asking anybody, and groups those that have to be asked about."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from batchllm.answer.several_labels import JOINED_BY, NONE
from batchllm.flows.stand_in import STAND_IN
from batchllm.records import Answer, AnswerSpec
from batchllm.request.combination import Combination
from batchllm.template import to_json
from batchllm.tokens import Counter as TokenCounter

_BETWEEN = "\n\n"
_LONG = "word " * 4096  # stands for an answer that nothing bounds
_SEAM = 4  # tokens that two texts may have more together than apart
_SHORT = 24  # a share of the room from which on an answer is said to be of which part


class Item(NamedTuple):
    """What some consecutive parts of a text say.

    Attributes:
        first, last: The parts, from 0.
        values: Their values by column.
        text: The answer's text.
        assumed: It stands for an answer that there is not yet.
    """

    first: int
    last: int
    values: Mapping[str, Any]
    text: str
    assumed: bool = False


def item_of(first: int, last: int, answer: Answer) -> Item:
    """Returns what an answer says about some parts."""
    assumed = answer.response_id == STAND_IN
    text = _LONG if assumed and answer.finish_reason == "length" else answer.text
    return Item(first, last, answer.columns, text, assumed)


def settled(
    items: Sequence[Item], columns: Sequence[str], combination: Combination
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns the values that are clear, and the columns that are not.

    A list is joined without repeats. A value that all parts give which give one is the value. Texts and code are never
    clear, unless they come from a single answer.

    Args:
        items: What the parts say, in their order.
        columns: The columns to decide.
        combination: Knows how answers are read, and the schema.
    """
    if len(items) == 1:
        return {name: items[0].values.get(name) for name in columns}, ()
    read = combination.spec.read
    if read in ("text", "code"):
        return {}, tuple(columns)
    found: dict[str, Any] = {}
    unclear = []
    assumed = any(item.assumed for item in items)
    for name in columns:
        given = [item.values.get(name) for item in items]
        values: list[Any] = [value for value in given if value is not None]
        if assumed:
            if not (read == "json" and combination.is_list(name)):
                unclear.append(name)
        elif not values:
            found[name] = None
        elif all(isinstance(value, list) for value in values):
            joined = _distinct([element for value in values for element in value])
            if combination.fits(name, joined):
                found[name] = joined
            else:
                unclear.append(name)
        elif len(_distinct(values)) == 1:
            found[name] = values[0]
        else:
            unclear.append(name)
    return found, tuple(unclear)


def candidates(items: Sequence[Item], columns: Sequence[str], spec: AnswerSpec) -> list[Item]:
    """Returns what is asked about: items with values of these columns only, equal neighbours as one.

    Args:
        items: What the parts say, in their order.
        columns: The columns that are not clear.
        spec: How answers are read.
    """
    found: list[Item] = []
    for item in items:
        if item.assumed or spec.read in ("text", "code"):
            found.append(item)
            continue
        values = {name: item.values[name] for name in columns if item.values.get(name) is not None}
        if not values:
            continue
        text = to_json(values) if spec.read == "json" else str(values[spec.column]) or NONE
        if found and not found[-1].assumed and found[-1].text == text:
            found[-1] = found[-1]._replace(last=item.last)
        else:
            found.append(item._replace(values=values, text=text))
    return found


Group = list[tuple[int, int]]
"""Consecutive items by their numbers, each with how many characters of its text are shown."""


def groups_of(items: Sequence[Item], total: int, room: int, counter: TokenCounter) -> list[Group]:
    """Groups consecutive items so that what a group says together has at most ``room`` tokens.

    No item takes more than half of the room; what is longer is cut off. So there are at least two in each group but
    the last one, and half as many groups as items.

    Args:
        items: What is grouped, in order.
        total: How many parts the text has.
        room: The tokens of a group.
        counter: Counts the tokens of a text.
    """
    most = max(1, room // 2 - _SEAM)
    shown = [len(_cut(item, total, room, most, counter)) for item in items]
    sizes = [
        counter(_block(item, total, room, length) + _BETWEEN)
        for item, length in zip(items, shown, strict=True)
    ]
    groups: list[Group] = []
    size = room + 1
    for number, length in enumerate(shown):
        if size + sizes[number] <= room or (groups and len(groups[-1]) < 2):
            groups[-1].append((number, length))
            size += sizes[number]
        else:
            groups.append([(number, length)])
            size = sizes[number]
    return [_shortened(group, items, total, room, counter) for group in groups]


def written(group: Group, items: Sequence[Item], total: int, room: int) -> str:
    """Returns what a group of items says, each with its parts; see ``groups_of``."""
    return _BETWEEN.join(_block(items[number], total, room, length) for number, length in group)


def _shortened(group: Group, items: Sequence[Item], total: int, room: int, counter: TokenCounter) -> Group:
    """Shortens the texts of a group until it fits: put together, they may be more tokens than apart."""
    while len(group) > 1 and counter(written(group, items, total, room)) > room:
        if not any(length for _, length in group):
            break
        group = [(number, length * 9 // 10) for number, length in group]
    return group


def _cut(item: Item, total: int, room: int, most: int, counter: TokenCounter) -> str:
    if len(item.text) * 4 <= most:
        return item.text
    head = counter(_block(item, total, room, 0))
    return counter.truncate(item.text, max(0, most - head))


def _block(item: Item, total: int, room: int, length: int) -> str:
    text = item.text[:length]
    if room // 2 < _SHORT:
        return text
    return f"{parts_text(item.first, item.last, total)}:\n{text}"


def parts_text(first: int, last: int, total: int) -> str:
    """Returns the name of some parts: ``Part 3 of 17``, ``Parts 3 to 5 of 17``."""
    if first == last:
        return f"Part {first + 1} of {total}"
    return f"Parts {first + 1} to {last + 1} of {total}"


def voted(answers: Sequence[Answer], spec: AnswerSpec) -> tuple[str, tuple[str, ...]]:
    """Returns the label that most parts have, as the column has it and as labels.

    Of labels that are equally frequent, the one that comes first in the text wins. Of several labels a row
    (``--multi-label``), each that at least half of the parts have.
    """
    given = [list(answer.labels) for answer in answers]
    votes = Counter(label for labels in given for label in labels)
    if not spec.multi_label:
        label = votes.most_common(1)[0][0]
        return label, (label,)
    chosen = tuple(label for label in votes if label != NONE and 2 * votes[label] >= len(answers))
    chosen = tuple(sorted(chosen, key=spec.labels.index)) or (NONE,)
    return JOINED_BY.join(chosen), chosen


def encoded(value: Any) -> bytes:
    """Returns numbers and lists of them as the journal keeps them."""
    return json.dumps(value, separators=(",", ":")).encode()


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Returns values without repeats, in their order; ``1`` and ``true`` differ."""
    found: dict[str, Any] = {}
    for value in values:
        found.setdefault(to_json(_sorted(value)), value)
    return list(found.values())


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value
