"""Finds any number of labels in an answer, for ``--multi-label``.

The answer, or one block of its lines, has to consist of labels and what joins them: ``a; b``, ``a, b and c``, a list
in JSON, one label a line. Labels that are only mentioned in a sentence do not count. ``none`` says that no label
applies, unless that is a label itself.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from batchllm.answer.label import Labels, json_of
from batchllm.errors import UsageError
from batchllm.records import AnswerSpec

JOINED_BY = "; "
NONE = "none"
"""The cell of a row to which no label applies."""


def labels_in(cell: str, spec: AnswerSpec) -> tuple[str, ...]:
    """Returns the labels in a cell of the answer's column: one, or several with ``--multi-label``."""
    if not cell:
        return ()
    return tuple(cell.split(JOINED_BY)) if spec.multi_label else (cell,)


_MAX_READ = 20_000
_NONE_WORDS = re.compile(
    r"(?:none|no labels?|n/?a|nothing|null)(?: of (?:them|these|the labels|these labels))?(?: appl(?:y|ies))?"
    r"|无|没有|都不|不适用",
    re.IGNORECASE,
)
_SEPARATORS = tuple(map(re.compile, (r"[;；]", r"[;；,，、|/]", r"[;；,，、|/&+]|\band\b|\bor\b|和|及")))
_BULLET = re.compile(r"^\s*(?:[-*•+–—#]+|\(?\d{1,3}[.):])\s+")
_AROUND = " \t\r\n*_`~\"'“”‘’()[]{}.。!,;；:"


class SeveralLabels:
    """Finds all labels that an answer names.

    Args:
        labels: Spelled and ordered as ``find`` returns them.

    Raises:
        UsageError: There are none, two differ in case or width only, or one contains a semicolon.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._one = Labels(labels)
        self._order = {label: position for position, label in enumerate(labels)}
        for label in labels:
            if ";" in label:
                raise UsageError(
                    f"--multi-label joins labels by '; ', so the label {label!r} cannot contain one"
                )

    def find(self, text: str) -> str | None:
        """Returns the labels joined by ``; ``, ``none`` where none applies, ``None`` where that cannot be read."""
        text = text[:_MAX_READ].strip()
        for read in (self._of_json, self._of_line, self._of_lines):
            found = read(text)
            if found is not None:
                return JOINED_BY.join(sorted(found, key=self._order.__getitem__)) or NONE
        return None

    def _of_line(self, text: str) -> set[str] | None:
        """Returns the labels that a text consists of; an empty set where it says that there is none."""
        text = _BULLET.sub("", text)
        whole = self._alone(text)
        if whole is not None:
            return {whole}
        if _NONE_WORDS.fullmatch(text.strip(_AROUND)) or text in ("", "[]"):
            return set()
        for separator in _SEPARATORS:
            parts = [part for part in separator.split(text) if part.strip(_AROUND)]
            if len(parts) > 1 and (found := self._all(parts)) is not None:
                return found
        before, colon, after = text.partition(":")
        is_lead = colon and after.strip() and len(before) < 120 and "\n" not in before.strip()
        return self._of_line(after) if is_lead else None

    def _of_lines(self, text: str) -> set[str] | None:
        """Returns the labels of the only block of lines that consists of labels."""
        lines = [line for line in text.splitlines() if line.strip(_AROUND)]
        read = [self._of_line(line) for line in lines]
        blocks = [list(block) for is_read, block in groupby(read, lambda found: found is not None) if is_read]
        if len(blocks) != 1:
            return None
        found = [labels for labels in blocks[0] if labels is not None]
        if len(found) > 1 and not all(found):  # "none" beside labels
            return None
        return set().union(*found)

    def _of_json(self, text: str) -> set[str] | None:
        value = json_of(text)
        if isinstance(value, dict):
            chosen = [key for key, yes in value.items() if yes is True]
            if value and all(isinstance(yes, bool) for yes in value.values()):
                return self._all(chosen)
            value = next((item for item in value.values() if isinstance(item, list | str)), None)
        if isinstance(value, str):
            return self._of_line(value)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return self._all(value)
        return None

    def _all(self, parts: Iterable[str]) -> set[str] | None:
        found = [self._alone(part) for part in parts]
        return None if None in found else {label for label in found if label is not None}

    @property
    def _alone(self) -> Callable[[str], str | None]:
        return self._one.whole
