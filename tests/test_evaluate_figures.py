"""Every figure equals that of the library which people would compute it with.

The libraries are imported where they are used: they are large, and every worker of the suite reads this file.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.evaluate.figures import LabelScore
from batchllm.evaluate.formulas import cohen_kappa, mcnemar_exact, wilson_interval
from batchllm.evaluate.label_sets import LabelSetCounter
from batchllm.evaluate.labels import LabelCounter
from batchllm.evaluate.numbers import NumberCounter
from batchllm.evaluate.text import TextCounter, normalised

LABELS = st.sampled_from(["positive", "negative", "neutral", "积极", "Positive", "0", "none"])
ANSWERS = st.one_of(LABELS, st.none())
MISSING = ""  # how the libraries are told of a row without an answer


def equal(ours: float | None, theirs: float) -> bool:
    return math.isnan(theirs) if ours is None else ours == pytest.approx(theirs, rel=1e-9, abs=1e-9)


def assert_scores(found: Mapping[str, LabelScore], names: list[str], theirs: Any) -> None:
    for name, *figures in zip(names, *theirs, strict=True):
        assert all(map(equal, astuple(found[name]), figures)), name


def quietly(function: Any, *args: Any, **kwargs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels without predictions, undefined kappas
        return function(*args, **kwargs)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(LABELS, ANSWERS), min_size=1, max_size=60))
def test_figures_of_labels_are_those_of_scikit_learn(rows: list[tuple[str, str | None]]) -> None:
    from sklearn import metrics

    counter = LabelCounter()
    correct = [counter.add(gold, answer) for gold, answer in rows]
    found = counter.figures()
    gold = [row[0] for row in rows]
    answers = [row[1] or MISSING for row in rows]
    names = sorted({*gold, *answers} - {MISSING})
    assert sum(correct) == found.correct
    assert found.unanswered == answers.count(MISSING)
    assert equal(found.accuracy, metrics.accuracy_score(gold, answers))
    assert equal(found.balanced_accuracy, quietly(metrics.balanced_accuracy_score, gold, answers))
    assert equal(found.kappa, quietly(metrics.cohen_kappa_score, gold, answers))
    for average, ours in (("macro", found.macro_f1), ("weighted", found.weighted_f1)):
        theirs = metrics.f1_score(gold, answers, labels=names, average=average, zero_division=0)
        assert equal(ours, theirs)
    each = metrics.precision_recall_fscore_support(gold, answers, labels=names, zero_division=0)
    assert_scores(found.labels, names, each)
    matrix = metrics.confusion_matrix(gold, answers, labels=[*names, MISSING])
    confusion = found.confusion()
    for row, name in enumerate(names):
        for column, answer in enumerate([*names, MISSING]):
            assert confusion[name].get(answer, 0) == matrix[row][column]


def test_without_missing_answers_the_figures_are_those_of_scikit_learn_without_arguments() -> None:
    from sklearn import metrics

    gold, answers = ["a", "a", "b", "c", "b", "a"], ["a", "b", "b", "d", "b", "a"]
    counter = LabelCounter()
    for pair in zip(gold, answers, strict=True):
        counter.add(*pair)
    found = counter.figures()
    assert equal(found.macro_f1, quietly(metrics.f1_score, gold, answers, average="macro"))
    assert equal(found.weighted_f1, quietly(metrics.f1_score, gold, answers, average="weighted"))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_that_of_scipy(counts: tuple[int, int]) -> None:
    from scipy.stats import binomtest

    correct, rows = counts
    theirs = binomtest(correct, rows).proportion_ci(method="wilson")
    low, high = wilson_interval(correct, rows)
    assert equal(low, theirs.low)
    assert equal(high, theirs.high)
    assert 0 <= low <= correct / rows <= high <= 1


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(st.integers(0, 30), st.integers(0, 3_000)), st.one_of(st.integers(0, 30), st.integers(0, 3_000))
)
def test_mcnemars_test_is_the_binomial_test_of_scipy(first: int, second: int) -> None:
    from scipy.stats import binomtest

    theirs = binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert mcnemar_exact(first, second) == pytest.approx(theirs, rel=1e-7)


def test_mcnemars_test_takes_a_million_rows() -> None:
    from scipy.stats import binomtest

    assert mcnemar_exact(500_000, 500_000) == 1
    assert mcnemar_exact(499_500, 500_500) == pytest.approx(
        binomtest(499_500, 1_000_000, 0.5).pvalue, rel=1e-6
    )
    assert mcnemar_exact(0, 1_000_000) == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.frozensets(st.sampled_from("abcde"), max_size=4),
            st.one_of(st.none(), st.frozensets(st.sampled_from("abcdef"), max_size=4)),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_figures_of_several_labels_are_those_of_scikit_learn(
    rows: list[tuple[frozenset[str], frozenset[str] | None]],
) -> None:
    from sklearn import metrics
    from sklearn.preprocessing import MultiLabelBinarizer

    counter = LabelSetCounter()
    for gold, answer in rows:
        counter.add(gold, answer)
    found = counter.figures()
    names = sorted({name for gold, answer in rows for name in gold | (answer or set())})
    assert list(found.labels) == names
    matched = sum(gold == answer for gold, answer in rows)
    assert equal(found.accuracy, matched / len(rows))
    if not names:
        return
    binary = MultiLabelBinarizer(classes=names)
    truth = binary.fit_transform([gold for gold, _ in rows])
    said = binary.transform([answer or set() for _, answer in rows])
    if len(names) > 1 and all(answer is not None for _, answer in rows):
        assert equal(found.accuracy, metrics.accuracy_score(truth, said))
    for average, ours in (("micro", found.micro_f1), ("macro", found.macro_f1)):
        if len(names) > 1:
            assert equal(ours, metrics.f1_score(truth, said, average=average, zero_division=0))
    if len(names) > 1:
        each = metrics.precision_recall_fscore_support(truth, said, zero_division=0)
        assert_scores(found.labels, names, each)


NUMBERS = st.one_of(
    st.integers(-5, 5).map(float), st.floats(-1e9, 1e9, allow_nan=False, allow_subnormal=False)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NUMBERS, st.one_of(st.none(), NUMBERS)), min_size=1, max_size=60))
def test_figures_of_numbers_are_those_of_scikit_learn_and_scipy(
    rows: list[tuple[float, float | None]],
) -> None:
    from scipy.stats import spearmanr
    from sklearn import metrics

    counter = NumberCounter()
    for gold, answer in rows:
        counter.add(gold, answer)
    found = counter.figures()
    answered = [(gold, answer) for gold, answer in rows if answer is not None]
    assert found.unanswered == len(rows) - len(answered)
    assert equal(found.accuracy, sum(gold == answer for gold, answer in rows) / len(rows))
    if not answered:
        assert found.mae is None
        assert found.spearman is None
        return
    gold_values, answers = zip(*answered, strict=True)
    assert equal(found.mae, metrics.mean_absolute_error(gold_values, answers))
    if len(answered) > 1:
        assert equal(found.spearman, quietly(spearmanr, gold_values, answers).statistic)
    else:
        assert found.spearman is None


WORDS = st.text(st.sampled_from("abc ABC.,好 \n\u3000é"), max_size=24)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(WORDS, st.one_of(st.none(), WORDS, st.text(max_size=12))), min_size=1, max_size=12))
def test_chrf_is_that_of_sacrebleu(rows: list[tuple[str, str | None]]) -> None:
    from sacrebleu.metrics.chrf import CHRF

    counter = TextCounter()
    for gold, answer in rows:
        counter.add(gold, answer)
    found = counter.figures()
    theirs = CHRF().corpus_score([answer or "" for _, answer in rows], [[gold for gold, _ in rows]])
    assert found.chrf == pytest.approx(theirs.score, abs=1e-9)
    assert equal(found.accuracy, sum(gold == answer for gold, answer in rows) / len(rows))
    assert found.accuracy <= found.normalised_match <= 1


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("The Answer.", "the  answer", True),
        ("“Yes”", "yes!", True),
        ("Ｙｅｓ", "yes", True),
        ("(5)", "5", True),
        ("3.5", "35", False),
        ("-5", "5", False),
        ("?", "!", False),
        ("yes", "no", False),
    ],
)
def test_normalised_texts_ignore_case_width_and_punctuation_but_not_numbers(
    left: str, right: str, same: bool
) -> None:
    assert (normalised(left) == normalised(right)) is same


def test_kappa_of_one_label_everywhere_is_undefined() -> None:
    assert cohen_kappa(3, 3, [(3, 3)]) is None
