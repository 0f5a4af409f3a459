"""Chooses the column that ``{{ text }}`` means."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from batchllm.errors import UsageError, did_you_mean, listed
from batchllm.records import Row

TEXT = "text"

# Names of columns that hold text, however short: a column of such a name is never passed over in silence.
_USUAL_NAMES = frozenset(
    {
        "text", "content", "body", "review", "review_text", "comment", "message", "document", "article", "prompt",
        "instruction", "question", "answer", "query", "input", "output", "response", "reply", "description",
        "abstract", "transcript", "feedback", "post", "tweet", "sentence", "passage", "task",
        "文本", "内容", "正文", "评论", "评价", "留言", "文章", "问题", "回答", "答案", "描述", "原文",
    }
)  # fmt: skip
_WORD_GAP = re.compile(r"\s")
_LETTER = re.compile(r"[^\W\d_]")
_LOOKED_AT = 1000
_NO_ALPHABET = re.compile(r"[぀-ヿ㐀-鿿가-힯]{4}")


def text_column(columns: Sequence[str], sample_rows: Iterable[Row], wanted: str | None) -> str | None:
    """Returns the column that ``{{ text }}`` means; ``None`` where that is not clear.

    That is ``wanted`` where it is given, else the only column, else the column that is called exactly ``text``, else
    the only one that reads like text.

    Raises:
        UsageError: ``wanted`` is not a column.
    """
    if wanted is not None:
        if wanted in columns:
            return wanted
        raise UsageError(
            f"the input has no column {wanted!r}{did_you_mean(wanted, columns)}; its columns are: {listed(columns)}"
        )
    if len(columns) == 1:
        return columns[0]
    if TEXT in columns:
        return TEXT
    found = text_like(columns, sample_rows)
    return found[0] if len(found) == 1 else None


def text_like(columns: Sequence[str], sample_rows: Iterable[Row]) -> list[str]:
    """Returns the columns that read like text: by most of their cells, or by a usual name and cells with words.

    Where no cell is longer than a few words, every column with several words in most cells reads like text.
    """
    rows = list(sample_rows)
    texts = [cell_texts(row.values) for row in rows]
    cells = {column: [each[column] for each in texts if column in each] for column in columns}
    named = [
        column
        for column in columns
        if _plain(column) in _USUAL_NAMES and (not rows or _mostly(cells[column], _LETTER.search))
    ]
    prose = [column for column in columns if _mostly(cells[column], _is_prose)]
    found = {*named, *prose} or {column for column in columns if _mostly(cells[column], _WORD_GAP.search)}
    return [column for column in columns if column in found]


def cell_texts(values: Mapping[str, object]) -> dict[str, str]:
    """Returns what ``text_column`` looks at of a row: the beginnings of the cells that are texts."""
    texts = ((name, value.strip()) for name, value in values.items() if isinstance(value, str))
    return {name: text[:_LOOKED_AT].rstrip() for name, text in texts if text}


def _mostly(texts: list[str], test: Callable[[str], object]) -> bool:
    return sum(bool(test(text)) for text in texts) * 2 > len(texts)


def _is_prose(text: str) -> bool:
    """Whether a cell holds several words; numbers, dates, codes and names do not."""
    return len(_WORD_GAP.findall(text)) >= 3 or _NO_ALPHABET.search(text) is not None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())
