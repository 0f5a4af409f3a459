import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.evaluate.agreement import Agreement, AgreementCounter

ANSWERS = st.one_of(st.none(), st.sampled_from("abcd"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ANSWERS, ANSWERS), min_size=1, max_size=60))
def test_agreement_and_kappa_are_those_of_scikit_learn_on_rows_that_both_answered(
    rows: list[tuple[str | None, str | None]],
) -> None:
    from sklearn.metrics import cohen_kappa_score

    counter = AgreementCounter(has_gold=False)
    same = [counter.add(*row) for row in rows]
    assert same == [first == second for first, second in rows]
    found = counter.agreement()
    both = [(first, second) for first, second in rows if first is not None and second is not None]
    assert (found.rows, found.both_answered) == (len(rows), len(both))
    assert found.p_value is None
    if not both:
        assert found.agreement is None
        assert found.kappa is None
        return
    firsts, seconds = zip(*both, strict=True)
    assert found.agreement == sum(a == b for a, b in both) / len(both)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = cohen_kappa_score(firsts, seconds)
    assert (found.kappa is None and theirs != theirs) or found.kappa == pytest.approx(theirs)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_p_value_is_that_of_the_rows_that_one_has_right(rows: list[tuple[bool, bool]]) -> None:
    from scipy.stats import binomtest

    counter = AgreementCounter(has_gold=True)
    for row in rows:
        counter.add_correct(*row)
    found = counter.agreement()
    first, second = rows.count((True, False)), rows.count((False, True))
    assert (found.only_first_correct, found.only_second_correct) == (first, second)
    theirs = binomtest(first, first + second).pvalue if first + second else 1.0
    assert found.p_value == pytest.approx(theirs)


def verdict(only_first: int | None, only_second: int | None) -> str:
    agreement = Agreement(
        rows=100,
        both_answered=100,
        agreed=90,
        kappa=0.8,
        only_first_correct=only_first,
        only_second_correct=only_second,
    )
    return agreement.verdict("a.csv", "b.csv")


def test_the_verdict_says_what_the_figures_allow_and_what_not() -> None:
    assert verdict(1, 20).startswith("b.csv is better on these rows")
    assert verdict(20, 1).startswith("a.csv is better on these rows")
    for counts in ((4, 6), (6, 4), (5, 5), (0, 0)):
        assert "do not show that either is better" in verdict(*counts)
        assert "equally good" in verdict(*counts)
    assert "does not say which" in verdict(None, None)
