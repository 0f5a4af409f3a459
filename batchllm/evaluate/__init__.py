"""Figures against known answers, and between outputs of the same rows.

The figures are formulas of a line or two, held equal to those of scikit-learn, scipy and sacrebleu by the tests.
"""

from batchllm.evaluate.figures import Figures, LabelScore
from batchllm.evaluate.label_sets import LabelSetCounter, LabelSetFigures
from batchllm.evaluate.labels import NO_ANSWER, LabelCounter, LabelFigures
from batchllm.evaluate.numbers import NumberCounter, NumberFigures
from batchllm.evaluate.text import TextCounter, TextFigures

__all__ = [
    "NO_ANSWER",
    "Figures",
    "LabelCounter",
    "LabelFigures",
    "LabelScore",
    "LabelSetCounter",
    "LabelSetFigures",
    "NumberCounter",
    "NumberFigures",
    "TextCounter",
    "TextFigures",
]
