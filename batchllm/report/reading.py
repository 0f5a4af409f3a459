"""Reads an output in one pass and flat memory: what came, and which rows are worth a look."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from batchllm.evaluate.answered import AnsweredRows, Values
from batchllm.evaluate.usage import CUT_OFF
from batchllm.evaluate.values import LABEL, LABELS, NUMBER, TEXT, AnswerField, is_missing, read_value, shown
from batchllm.flows.samples import AGREEMENT, SAMPLES
from batchllm.printable import one_line
from batchllm.report.distribution import Distribution
from batchllm.report.picks import RowPicks

MOST_LABELS = 1_000
"""Different values of an answer column that are counted; a column with more of them holds texts."""
_LONGEST_LABEL = 200
_MOST_REASONS = 50
_ANY = AnswerField("")
_OTHER = "other reasons"
_VARIABLE = re.compile(r"'[^']*'|\"[^\"]*\"|\b[0-9a-f-]{12,}\b|(?<!HTTP )\d[\d.,]*")


@dataclass(frozen=True, slots=True)
class FailureReason:
    """Rows that failed for the same reason.

    Attributes:
        reason: The reason, its numbers and quotations left out.
        rows: How many there are.
        example_row: One of them, from 1.
        example: Its error.
    """

    reason: str
    rows: int
    example_row: int
    example: str


@dataclass(frozen=True, slots=True)
class FieldFigures:
    """What the answers have in one column.

    Attributes:
        name: The column.
        kind: ``label``, ``labels``, ``number`` or ``text``.
        rows: Rows with a value in it.
        counts: Rows by label, the most frequent first; empty for numbers and texts.
        numbers: The numbers; of texts, their lengths in characters.
    """

    name: str
    kind: str
    rows: int
    counts: Mapping[str, int]
    numbers: Distribution | None

    def to_json(self) -> dict[str, Any]:
        """Returns the figures by name."""
        found: dict[str, Any] = {"kind": self.kind, "rows": self.rows}
        if self.kind in (LABEL, LABELS):
            return {**found, "counts": dict(self.counts)}
        numbers = None if self.numbers is None else self.numbers.to_json()
        return {**found, "values" if self.kind == NUMBER else "characters": numbers}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFigures:
    """What came.

    Attributes:
        rows: All rows of the output.
        answered, failed, skipped: Rows with an answer, with an error, and with nothing to ask.
        cut_off: Answers that ended at their limit of tokens; ``None`` where no column says it.
        reasons: Why rows failed, the most frequent reason first.
        fields: The answer columns.
        tokens: Tokens of a row by name of the column.
        cost: US dollars of a row with an answer; ``None`` is unknown.
        agreement: How much the samples of a row agree; ``None`` without samples.
        models: Rows by the model that answered.
    """

    rows: int
    answered: int
    failed: int
    skipped: int
    cut_off: int | None
    reasons: tuple[FailureReason, ...]
    fields: tuple[FieldFigures, ...]
    tokens: Mapping[str, Distribution]
    cost: Distribution | None
    agreement: Distribution | None
    models: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Returns the figures by name; ``None`` is unknown."""
        return {
            "rows": self.rows,
            "answered": self.answered,
            "failed": self.failed,
            "skipped": self.skipped,
            "cut_off": self.cut_off,
            "failed_by_reason": [asdict(it) for it in self.reasons],
            "fields": {it.name: it.to_json() for it in self.fields},
            "tokens": {name: found.to_json() for name, found in self.tokens.items()},
            "cost": None if self.cost is None else self.cost.to_json(),
            "samples_agreement": None if self.agreement is None else self.agreement.to_json(),
            "models": dict(self.models),
        }


def read_output(rows: AnsweredRows, picks: RowPicks) -> OutputFigures:
    """Reads an output once; tells ``picks`` of each row."""
    reader = _OutputReader(rows, picks)
    for index, row in enumerate(rows.read()):
        reader.add(index, row)
    return reader.figures()


def agreement_columns(rows: AnsweredRows) -> tuple[str, str] | None:
    """Returns the columns with the agreement of a row's samples and with all samples; ``None`` without samples."""
    found = [rows.beside[name] for name in (AGREEMENT, SAMPLES) if name in rows.beside]
    return (found[0], found[1]) if len(found) == 2 else None


def row_state(rows: AnsweredRows, row: Values) -> str:
    """Returns ``failed``, ``cut off``, ``answered`` or ``skipped``: a row without anything to ask."""
    if rows.cell(row, "error") is not None:
        return "failed"
    finish_reason = rows.cell(row, "finish_reason")
    if finish_reason == CUT_OFF:
        return "cut off"
    answered = finish_reason is not None or any(not is_missing(row.get(it.name)) for it in rows.fields)
    return "answered" if answered else "skipped"


class _OutputReader:
    def __init__(self, rows: AnsweredRows, picks: RowPicks) -> None:
        self._rows = rows
        self._picks = picks
        self._states: Counter[str] = Counter()
        self._reasons: dict[str, list[Any]] = {}
        self._fields = [_FieldReader(it) for it in rows.fields]
        names = ("prompt_tokens", "completion_tokens", "total_tokens", "reasoning_tokens", "cached_tokens")
        self._tokens = {name: Distribution() for name in names if name in rows.beside}
        self._cost: Distribution | None = Distribution()
        found = agreement_columns(rows)
        self._agreement_column = None if found is None else found[0]
        self._agreement = Distribution()
        self._models: Counter[str] = Counter()
        self._model = rows.beside.get("model", "")

    def add(self, index: int, row: Values) -> None:
        rows = self._rows
        state = row_state(rows, row)
        self._states[state] += 1
        self._picks.see(index)
        if state == "failed":
            self._picks.failed.offer(index)
            self._count_reason(index, str(rows.cell(row, "error")))
        elif state != "skipped":
            for field in self._fields:
                field.add(row)
            model = row.get(self._model)
            if model:
                self._models[str(model)] += 1
        for name, found in self._tokens.items():
            count = rows.number(row, name)
            if count is not None and count >= 0:
                found.add(count)
        self._add_cost(rows.cost(row), answered=state in ("answered", "cut off"))
        if self._agreement_column is not None:
            self._add_agreement(index, row.get(self._agreement_column))

    def _add_cost(self, cost: Decimal | None, *, answered: bool) -> None:
        if cost is not None and self._cost is not None:
            self._cost.add(float(cost))
        elif answered:
            self._cost = None  # a sum without this row would be too small

    def _add_agreement(self, index: int, value: Any) -> None:
        share = read_value(NUMBER, value, _ANY)
        if share is not None and 0 <= share <= 1:
            self._agreement.add(share)
            self._picks.least_agreed.offer(index, share)

    def _count_reason(self, index: int, error: str) -> None:
        reason = one_line(_VARIABLE.sub("…", error[:1000]), 120)
        if reason not in self._reasons and len(self._reasons) >= _MOST_REASONS:
            reason = _OTHER
        self._reasons.setdefault(reason, [0, index + 1, one_line(error)])[0] += 1

    def figures(self) -> OutputFigures:
        states = self._states
        reasons = [FailureReason(reason, *found) for reason, found in self._reasons.items()]
        return OutputFigures(
            rows=states.total(),
            answered=states["answered"] + states["cut off"],
            failed=states["failed"],
            skipped=states["skipped"],
            cut_off=states["cut off"] if "finish_reason" in self._rows.beside else None,
            reasons=tuple(sorted(reasons, key=lambda it: -it.rows)),
            fields=tuple(field.figures() for field in self._fields),
            tokens={name: found for name, found in self._tokens.items() if found.count},
            cost=self._cost if self._cost is not None and self._cost.count else None,
            agreement=self._agreement if self._agreement.count else None,
            models=dict(self._models.most_common()),
        )


class _FieldReader:
    """Counts the values of an answer column as everything that they may be, until it is clear what they are."""

    def __init__(self, field: AnswerField) -> None:
        self._field = field
        self._rows = 0
        self._labels: Counter[str] | None = Counter() if field.kind not in (NUMBER, TEXT) else None
        self._numbers: Distribution | None = Distribution() if field.kind in (None, NUMBER) else None
        self._lengths = Distribution()

    def add(self, row: Values) -> None:
        value = row.get(self._field.name)
        if is_missing(value):
            return
        self._rows += 1
        if self._numbers is not None:
            self._add_number(self._numbers, value)
        if self._labels is not None:
            self._add_labels(self._labels, value)
        if self._field.kind in (None, TEXT) or self._labels is None:
            self._lengths.add(len(shown(value)))

    def _add_number(self, numbers: Distribution, value: Any) -> None:
        number = read_value(NUMBER, value, self._field)
        if number is not None:
            numbers.add(number)
        elif self._field.kind is None:
            self._numbers = None

    def _add_labels(self, labels: Counter[str], value: Any) -> None:
        kind = self._field.kind
        if kind == LABELS:
            labels.update(read_value(LABELS, value, self._field))
        else:
            labels[read_value(LABEL, value, self._field)] += 1
        is_long = kind is None and isinstance(value, str) and len(value) > _LONGEST_LABEL
        if is_long or len(labels) > MOST_LABELS:
            self._labels = None

    def figures(self) -> FieldFigures:
        name, kind, labels = self._field.name, self._field.kind, self._labels
        few = labels is not None and len(labels) <= max(2, min(100, self._rows // 2))
        if kind in (LABEL, LABELS) and labels is not None:
            return FieldFigures(name, kind, self._rows, dict(labels.most_common()), None)
        if kind == NUMBER or (kind is None and self._numbers is not None and self._rows):
            return FieldFigures(name, NUMBER, self._rows, {}, self._numbers)
        if kind is None and few and labels:
            return FieldFigures(name, LABEL, self._rows, dict(labels.most_common()), None)
        return FieldFigures(name, TEXT, self._rows, {}, self._lengths)
