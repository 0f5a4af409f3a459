"""``batchllm compare``: outputs of the same rows side by side."""

import json
import random
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchllm as library
from batchllm.errors import UsageError
from batchllm.evaluate.answered import AnsweredRows, open_output
from batchllm.evaluate.compare import compare_outputs
from batchllm.evaluate.files import compare_answered, majority
from batchllm.evaluate.usage import median_and_p95
from batchllm.evaluate.values import AnswerField
from tests.command import Command
from tests.tables import read_csv, write_csv

LABELS = st.sampled_from(["a", "b", "c"])


def output(path: Path, texts: Sequence[str], labels: Sequence[str], **more: Sequence[Any]) -> Path:
    columns = ["text", *more, "label", "finish_reason", "completion_tokens", "latency_s", "error"]
    return write_csv(path, columns, [
        (text, *extra, label, "stop", 2, 0.5, "" if label else "failed")
        for text, label, *extra in zip(texts, labels, *more.values(), strict=True)
    ])  # fmt: skip


def in_memory(
    name: str, rows: Sequence[Mapping[str, Any]], prompt: frozenset[str] | None = None
) -> AnsweredRows:
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    return AnsweredRows(name, columns, (AnswerField("label", "label"),), {}, lambda: iter(rows), prompt)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(LABELS, LABELS, LABELS), min_size=1, max_size=30), st.randoms(use_true_random=False)
)
def test_shuffled_outputs_compare_like_sorted_ones(
    rows: list[tuple[str, str, str]], random_: random.Random
) -> None:
    from scipy.stats import binomtest
    from sklearn.metrics import accuracy_score, cohen_kappa_score

    first = [{"id": str(n), "gold": gold, "label": one} for n, (gold, one, _) in enumerate(rows)]
    second = [{"id": str(n), "gold": gold, "label": other} for n, (gold, _, other) in enumerate(rows)]
    random_.shuffle(second)
    found = library.compare(first, second, gold="gold").to_json()
    gold, ones, others = zip(*rows, strict=True)
    assert found["rows"] == len(rows)
    assert found["agreement"] == pytest.approx(accuracy_score(ones, others))
    if found["kappa"] is not None:
        assert found["kappa"] == pytest.approx(cohen_kappa_score(ones, others))
    assert [each["accuracy"] for each in found["outputs"]] == pytest.approx(
        [accuracy_score(gold, ones), accuracy_score(gold, others)]
    )
    better = sum(one == g != other for g, one, other in rows)
    worse = sum(other == g != one for g, one, other in rows)
    theirs = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert found["mcnemar"]["p_value"] == pytest.approx(theirs)


def test_equal_rows_are_matched_by_their_order() -> None:
    first = in_memory("a", [{"text": "x", "label": label} for label in "abc"])
    second = in_memory("b", [{"text": "x", "label": label} for label in "abd"])
    found = compare_outputs([first, second])
    assert (found.rows, found.differences) == (3, 1)


def test_rows_are_matched_by_what_prompts_read_and_not_by_other_columns() -> None:
    read = frozenset({"text"})
    first = in_memory("a", [{"text": "x", "run": "1", "label": "a"}], read)
    second = in_memory("b", [{"text": "x", "run": "2", "label": "a"}], read)
    found = compare_outputs([first, second])
    assert (found.matched_by, found.agreement) == (("text",), 1)


def test_rows_that_one_output_lacks_are_left_out_and_counted() -> None:
    first = in_memory("a", [{"text": text, "label": "a"} for text in "xyz"])
    second = in_memory("b", [{"text": text, "label": "a"} for text in "yzw"])
    found = compare_outputs([first, second])
    assert (found.rows, found.unmatched) == (2, (1, 1))
    with pytest.raises(UsageError, match="no row in common"):
        compare_outputs([first, in_memory("c", [{"text": "q", "label": "a"}])])


def test_outputs_in_the_same_order_take_no_memory_for_their_rows() -> None:
    def rows() -> Iterator[Mapping[str, Any]]:
        return ({"text": f"row {number}" + "x" * 200, "label": "ab"[number % 2]} for number in range(20_000))

    outputs = [
        AnsweredRows(name, ("text", "label"), (AnswerField("label", "label"),), {}, rows) for name in "ab"
    ]
    tracemalloc.start()
    found = compare_outputs(outputs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.rows == 20_000
    assert peak < 500_000


def test_the_command_shows_accuracy_cost_and_a_verdict(batchllm: Command, tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(40)]
    gold = ["a", "b"] * 20
    one = output(tmp_path / "one.csv", texts, gold, gold=gold)
    other = output(tmp_path / "other.csv", texts, ["a"] * 39 + [""], gold=gold)
    words = ("compare", one, other, "--gold", "gold")
    said = batchllm(*words, "--differences", tmp_path / "d.csv", "--vote", tmp_path / "v.csv")
    assert said.status == 0, said.err
    assert "one.csv is better on these rows" in said.out
    assert "100.0 %" in said.out
    assert "latency, median" in said.out
    differences = read_csv(tmp_path / "d.csv")
    assert len(differences) == 20
    assert differences[0] == {"row": "2", "text": "text 1", "gold": "b", "one.csv": "b", "other.csv": "a"}
    assert differences[-1]["other.csv"] == ""
    votes = read_csv(tmp_path / "v.csv")
    assert [row["label"] for row in votes] == gold  # ties go to the first output
    assert (votes[0]["agreement"], votes[1]["agreement"], votes[39]["agreement"]) == ("1.0", "0.5", "1.0")
    assert "19 ties" in said.err
    found = json.loads(batchllm(*words, "--json").out)
    assert (found["agreement"], found["both_answered"], found["differences"]) == (
        pytest.approx(20 / 39),
        39,
        20,
    )
    assert [each["accuracy"] for each in found["outputs"]] == [1, 0.5]


def test_three_outputs_are_compared_in_pairs(tmp_path: Path) -> None:
    texts = list("wxyz")
    paths = [
        output(tmp_path / f"{name}.csv", texts, labels)
        for name, labels in (("one", "aabb"), ("two", "aabc"), ("three", "acbc"))
    ]
    found, ties = compare_answered([open_output(path) for path in paths], vote=tmp_path / "v.csv")
    assert (found.agreement, len(found.pairs), ties) == (0.5, 3, 0)
    assert [row["label"] for row in read_csv(tmp_path / "v.csv")] == ["a", "a", "b", "c"]


def test_outputs_of_other_tasks_are_compared_by_their_only_answer(tmp_path: Path) -> None:
    one = write_csv(
        tmp_path / "one.csv", ["text", "label", "finish_reason"], [("x", "a", "stop"), ("y", "b", "stop")]
    )
    other = write_csv(tmp_path / "other.csv", ["text", "response"], [("x", "a"), ("y", "a")])
    found = compare_outputs([open_output(one), open_output(other)])
    assert found.agreement == 0.5


def test_one_output_alone_is_refused(batchllm: Command, tmp_path: Path) -> None:
    one = output(tmp_path / "one.csv", ["x"], ["a"])
    assert batchllm("compare", one).status == 2
    assert batchllm("compare", one, tmp_path / "none.csv").status == 65


@given(st.lists(st.one_of(st.none(), LABELS), max_size=7))
def test_the_majority_is_the_most_frequent_answer_and_the_first_of_equals(answers: list[str | None]) -> None:
    answer, share, tie = majority(answers)
    given_ = [each for each in answers if each is not None]
    if not given_:
        assert (answer, share, tie) == (None, None, False)
        return
    most = max(map(given_.count, given_))
    assert answer == next(each for each in given_ if given_.count(each) == most)
    assert share == most / len(given_)
    assert tie == (len({each for each in given_ if given_.count(each) == most}) > 1)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_are_those_of_numpy(values: list[float]) -> None:
    assert median_and_p95(values) == pytest.approx(tuple(np.percentile(values, (50, 95))))


def test_a_folder_is_called_by_its_name_with_a_slash_or_without(batchllm: Command, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.csv").write_text("text,response,error\nq,yes,\n")
    said = batchllm("compare", f"{tmp_path}/a/", f"{tmp_path}/b/")
    assert "1 row in a and b" in said.out, said.out + said.err
