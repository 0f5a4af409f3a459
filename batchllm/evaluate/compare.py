"""Compares outputs of the same rows in flat memory, as long as their rows are in the same order."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from batchllm.errors import UsageError, listed
from batchllm.evaluate.agreement import AgreementCounter
from batchllm.evaluate.answered import ANSWER_COLUMNS, AnsweredRows, Values
from batchllm.evaluate.comparison import Comparison
from batchllm.evaluate.figures import AnswerCounter, Figures
from batchllm.evaluate.formulas import ratio
from batchllm.evaluate.gold import Gold
from batchllm.evaluate.matching import RowMatcher, matching_columns, short_names
from batchllm.evaluate.usage import UsageCounter
from batchllm.evaluate.values import (
    TEXT,
    AnswerField,
    GoldProfile,
    check_kind,
    counter_of,
    read_value,
    shown,
)

_MARK = "\x1f"
_SAMPLE_ROWS = 1000

Texts = Mapping[str, str | None]
"""The answers of a row by the fields of the first output, as text; ``None`` where there is none."""


class ComparedRow(NamedTuple):
    """A row that is in all outputs.

    Attributes:
        row_index: The row in the first output, from 0.
        rows: The row of each output.
        answers: The answers of each output.
        gold: The known answers; empty where there are none.
        same: Whether all outputs have the same answers.
    """

    row_index: int
    rows: tuple[Values, ...]
    answers: tuple[Texts, ...]
    gold: Texts
    same: bool


def compare_outputs(
    outputs: Sequence[AnsweredRows],
    gold: Gold | None = None,
    *,
    kind: str | None = None,
    each: Callable[[ComparedRow], None] = lambda row: None,
) -> Comparison:
    """Compares outputs of the same rows.

    Args:
        outputs: Two or more of them.
        gold: The known answers of the first one.
        kind: What to compare answers as; by default what the job, gold or the answers say.
        each: Called with each row that is in all outputs.

    Raises:
        UsageError: They have no answer column or no row in common.
    """
    if len(outputs) < 2:
        raise UsageError("name two or more outputs to compare")
    return _Comparer(outputs, gold, kind).compare(each)


def common_fields(outputs: Sequence[AnsweredRows]) -> list[tuple[AnswerField, ...]]:
    """Returns the answer columns that all outputs have, each as the column of every output.

    Raises:
        UsageError: There is none.
    """
    for output in outputs:
        if not output.fields:
            raise UsageError(
                f"{output.name}: nothing says which of its columns is the answer; {listed(ANSWER_COLUMNS)} are known "
                "without its journal"
            )
    if all(len(output.fields) == 1 for output in outputs):
        return [tuple(output.fields[0] for output in outputs)]
    by_name = [{output.bare(answer.name): answer for answer in output.fields} for output in outputs]
    found = [
        tuple(names[bare] for names in by_name) for bare in by_name[0] if all(bare in it for it in by_name)
    ]
    if not found:
        raise UsageError(f"{listed([output.name for output in outputs])} have no answer column in common")
    return found


class _Comparer:
    def __init__(self, outputs: Sequence[AnsweredRows], gold: Gold | None, kind: str | None) -> None:
        check_kind(kind)
        self._outputs = outputs
        self._gold = gold
        self._fields = common_fields(outputs)
        self._kinds = [kind or self._kind(columns) for columns in self._fields]
        self._columns = matching_columns(outputs)
        positions = list(combinations(range(len(outputs)), 2))
        has_kappa = TEXT not in self._kinds
        self._pairs = {
            pair: AgreementCounter(has_gold=gold is not None, has_kappa=has_kappa) for pair in positions
        }
        self._usages = [UsageCounter(output) for output in outputs]
        self._judged = [
            {
                columns[0].name: counter_of(kind)
                for columns, kind in zip(self._fields, self._kinds, strict=True)
            }
            for _ in (outputs if gold is not None else ())
        ]

    def _kind(self, columns: tuple[AnswerField, ...]) -> str:
        """What a field is compared as: what a job says, or what gold or the first answers look like."""
        known = next((column.kind for column in columns if column.kind is not None), None)
        if known is not None:
            return known
        profile = GoldProfile()
        for index, row in enumerate(self._outputs[0].read()):
            value = (
                self._gold.values(index, row).get(columns[0].name) if self._gold else row.get(columns[0].name)
            )
            if value is not None and value != "":
                profile.add(value)
            if self._gold is None and profile.values >= _SAMPLE_ROWS:
                break
        return profile.kind()

    def compare(self, each: Callable[[ComparedRow], None]) -> Comparison:
        matcher = RowMatcher(self._outputs, self._columns)
        rows = differences = all_same = all_answered = gold_rows = 0
        agreed = dict.fromkeys((columns[0].name for columns in self._fields), 0)
        for index, found in matcher.matches():
            rows += 1
            values = [self._values(place, row) for place, row in enumerate(found)]
            texts = [_texts(answers) for answers in values]
            whole = [_whole(answers) for answers in texts]
            for (first, second), counter in self._pairs.items():
                counter.add(whole[first], whole[second])
            for usage, row, answer in zip(self._usages, found, whole, strict=True):
                usage.add(row, answered=answer is not None)
            same = len(set(whole)) == 1
            differences += not same
            if None not in whole:
                all_answered += 1
                all_same += same
                for name in agreed:
                    agreed[name] += len({answers[name] for answers in texts}) == 1
            gold = self._judge(index, found[0], values)
            gold_rows += bool(gold)
            each(ComparedRow(index, found, tuple(texts), _texts(gold), same))
        if not rows:
            by = listed(self._columns) or "their order"
            raise UsageError(
                f"{listed([o.name for o in self._outputs])} have no row in common, matched by {by}"
            )
        if self._gold is not None and not gold_rows:
            raise UsageError(f"no row that all outputs have has a known answer in {self._gold.name}")
        return Comparison(
            names=tuple(short_names(self._outputs)),
            matched_by=self._columns,
            rows=rows,
            unmatched=tuple(matcher.unmatched),
            differences=differences,
            all_same=all_same,
            all_answered=all_answered,
            pairs={pair: counter.agreement() for pair, counter in self._pairs.items()},
            fields={name: ratio(count, all_answered) for name, count in agreed.items()}
            if len(agreed) > 1
            else {},
            usages=tuple(usage.usage() for usage in self._usages),
            figures=tuple(dict(_figures(counters)) for counters in self._judged),
            gold_rows=gold_rows,
        )

    def _values(self, place: int, row: Values) -> dict[str, Any]:
        """The answers of a row of one output, by the fields of the first."""
        if self._outputs[place].cell(row, "error") is not None:
            return dict.fromkeys((columns[0].name for columns in self._fields), None)
        return {
            columns[0].name: read_value(kind, row.get(columns[place].name), columns[place])
            for columns, kind in zip(self._fields, self._kinds, strict=True)
        }

    def _judge(self, index: int, row: Values, values: list[dict[str, Any]]) -> dict[str, Any]:
        """Counts which outputs have a row right; returns its known answers."""
        if self._gold is None:
            return {}
        known = self._gold.values(index, row)
        found: dict[str, Any] = {}
        for columns, kind in zip(self._fields, self._kinds, strict=True):
            name = columns[0].name
            if name in known:
                found[name] = self._gold.read(kind, known[name], index, columns[0])
        if not found:
            return {}
        right = [
            sum(counters[name].add(gold, answers[name]) for name, gold in found.items()) == len(found)
            for counters, answers in zip(self._judged, values, strict=True)
        ]
        for (first, second), counter in self._pairs.items():
            counter.add_correct(right[first], right[second])
        return found


def _texts(answers: Mapping[str, Any]) -> dict[str, str | None]:
    return {name: None if value is None else shown(value) for name, value in answers.items()}


def _whole(answers: Texts) -> str | None:
    """All answers of a row as one text; ``None`` where there is none at all."""
    found = list(answers.values())
    return None if all(answer is None for answer in found) else _MARK.join(answer or "" for answer in found)


def _figures(counters: Mapping[str, AnswerCounter]) -> Iterator[tuple[str, Figures]]:
    for name, counter in counters.items():
        if counter.rows:
            yield name, counter.figures()
