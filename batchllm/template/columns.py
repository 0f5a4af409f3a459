"""Chooses the column that ``{{ text }}`` means."""

import re
from collections.abc import Iterable, Sequence

from batchllm.errors import UsageError, did_you_mean, listed
from batchllm.records import Row

# The better sign first.
USUAL_NAMES = (
    "text", "content", "body", "review", "review_text", "comment", "message", "document", "article", "prompt",
    "instruction", "question", "query", "input", "description", "abstract", "transcript", "feedback", "post",
    "tweet", "sentence", "passage", "task",
    "文本", "内容", "正文", "评论", "评价", "留言", "文章", "问题", "描述", "原文",
)  # fmt: skip
_WORD_GAP = re.compile(r"\s")
_NO_ALPHABET = re.compile(r"[぀-ヿ㐀-鿿가-힯]{4}")


def text_column(columns: Sequence[str], sample_rows: Iterable[Row], wanted: str | None) -> str | None:
    """Returns the column that ``{{ text }}`` means.

    That is ``wanted`` where it is given, else the only column, else the first of the usual names, else the only
    column whose values in the sample read like text. ``None`` where that leaves no column or several.

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
    by_name = {_plain(column): column for column in reversed(columns)}
    for name in USUAL_NAMES:
        if name in by_name:
            return by_name[name]
    rows = list(sample_rows)
    readable = [column for column in columns if _reads_like_text([row.values.get(column) for row in rows])]
    return readable[0] if len(readable) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def _reads_like_text(values: list[object]) -> bool:
    """Returns whether most filled cells hold several words; numbers, dates, codes and names do not."""
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    worded = [
        text for text in texts if len(_WORD_GAP.findall(text.strip())) >= 3 or _NO_ALPHABET.search(text)
    ]
    return len(worded) * 2 > len(texts)
