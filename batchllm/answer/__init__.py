"""Turns the bytes of a response into the columns of a row.

Nothing here raises because of what an endpoint sent: every response becomes an ``Answer``, and what is wrong with
it is the answer's ``error``.
"""

from batchllm.answer.code import code_block
from batchllm.answer.fields import fields_text, schema_of
from batchllm.answer.label import Labels
from batchllm.answer.reader import ASK_AGAIN, Reader, answer_columns
from batchllm.answer.several_labels import SeveralLabels, labels_in
from batchllm.answer.text import visible_text

__all__ = [
    "ASK_AGAIN",
    "Labels",
    "Reader",
    "SeveralLabels",
    "answer_columns",
    "code_block",
    "fields_text",
    "labels_in",
    "schema_of",
    "visible_text",
]
