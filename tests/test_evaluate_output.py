"""``batchllm evaluate``, and ``--gold`` of a run: from files to figures."""

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import UsageError
from batchllm.evaluate.answered import open_output
from batchllm.evaluate.evaluation import Evaluation
from batchllm.evaluate.files import evaluate_answered
from batchllm.simulator import ScriptedResponse, Simulator, SimulatorSettings, start_in_thread
from tests.command import Command
from tests.fakes import chat_body
from tests.tables import read_csv, write_csv, write_jsonl

ASKED: list[str] = []


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    """Answers with the word behind the last ``=>`` of the prompt, and with nothing usable where there is none."""

    def script(body: dict[str, Any]) -> ScriptedResponse:
        prompt = body["messages"][-1]["content"]
        ASKED.append(prompt)
        return ScriptedResponse(body=chat_body(prompt.rpartition("=>")[2].strip() or "who knows"))

    with start_in_thread(SimulatorSettings(), script=script) as running:
        yield running


def evaluate_output(path: Path, gold: Any, **more: Any) -> Evaluation:
    return evaluate_answered(open_output(path), gold, **more)


def at(server: Simulator) -> tuple[str, ...]:
    return ("--base-url", server.base_url, "-m", "any", "-q")


LABELS = st.sampled_from(["a", "b", "c d", "积极", "1"])


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=30))
def test_the_json_of_a_file_has_the_figures_of_scikit_learn(
    rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from sklearn import metrics

    path = write_csv(tmp_path_factory.mktemp("e") / "o.csv", ["gold", "label", "finish_reason"], [
        (gold, label, "stop") for gold, label in rows
    ])  # fmt: skip
    found = evaluate_output(path, "gold").to_json()
    gold, answers = zip(*rows, strict=True)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(gold, answers))
    assert found["macro_f1"] == pytest.approx(
        metrics.f1_score(gold, answers, average="macro", zero_division=0)
    )
    report = metrics.classification_report(gold, answers, output_dict=True, zero_division=0)
    for label, score in found["labels"].items():
        theirs = report[label]
        assert score["f1"] == pytest.approx(theirs["f1-score"])
        assert score["precision"] == pytest.approx(theirs["precision"])
        assert score["recall"] == pytest.approx(theirs["recall"])
        assert score["support"] == theirs["support"]
    names = sorted({*gold, *answers})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one label everywhere
        matrix = metrics.confusion_matrix(gold, answers, labels=names)
    assert [[found["confusion"][one][other] for other in names] for one in names] == matrix.tolist()


def test_a_run_with_gold_shows_the_figures_and_counts_failed_rows_as_wrong(
    batchllm: Command, server: Simulator, tmp_path: Path
) -> None:
    rows = write_csv(tmp_path / "r.csv", ["text", "truth"], [
        ("x =>good", "good"), ("y =>bad", "good"), ("z =>", "bad"), ("w =>bad", "bad"), ("v =>bad", ""), ("", "good"),
    ])  # fmt: skip
    words = (
        "classify",
        rows,
        "--labels",
        "good,bad",
        "--gold",
        "truth",
        "--base-url",
        server.base_url,
        "-m",
        "any",
    )
    said = batchllm(*words)
    assert said.status == 1, said.err
    assert "5 rows with a known answer (truth); 1 row without one left out" in said.err
    assert "Accuracy: 40.0 %" in said.err
    assert "No answer: 40.0 % (2 rows), counted as wrong" in said.err
    found = json.loads(batchllm("evaluate", tmp_path / "r.classify.csv", "--gold", "truth", "--json").out)
    assert (found["rows"], found["unanswered"], found["accuracy"], found["without_gold"]) == (5, 2, 0.4, 1)
    assert found["confusion"]["bad"] == {"bad": 1, "good": 0, "": 1}


def test_no_prompt_sees_the_known_answers(batchllm: Command, server: Simulator, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "r.csv", ["text", "gold"], [("x", "SECRET one"), ("y", "SECRET two")])
    ASKED.clear()
    said = batchllm("run", rows, "-p", "{{ row }} =>a", "--gold", "gold", *at(server))
    assert said.status == 0, said.err
    assert len(ASKED) == 2
    assert not any("SECRET" in prompt or "gold" in prompt for prompt in ASKED)
    assert [row["gold"] for row in read_csv(tmp_path / "r.run.csv")] == ["SECRET one", "SECRET two"]


@pytest.mark.parametrize(
    "prompt",
    ["{{ gold }} {{ text }}", '{{ row["gold"] }}', "{{ text }}{% if gold is defined %}{{ gold }}{% endif %}"],
)
def test_a_prompt_that_names_the_gold_column_is_refused_before_anything_is_sent(
    batchllm: Command, server: Simulator, tmp_path: Path, prompt: str
) -> None:
    rows = write_csv(tmp_path / "r.csv", ["text", "gold"], [("x", "a")])
    ASKED.clear()
    said = batchllm("run", rows, "-p", prompt, "--gold", "gold", *at(server))
    assert (said.status, ASKED) == (2, [])
    assert "--gold" in said.err


def test_the_gold_column_is_never_taken_for_the_text(
    batchllm: Command, server: Simulator, tmp_path: Path
) -> None:
    long = "a text of several words that reads like a text"
    rows = write_csv(tmp_path / "r.csv", ["q", "text"], [(f"{long} =>a", "a")] * 3)
    ASKED.clear()
    assert batchllm("classify", rows, "--labels", "a,b", "--gold", "text", *at(server)).status == 0
    assert all(long in prompt for prompt in ASKED)
    said = batchllm("classify", rows, "--labels", "a,b", "--column", "text", "--gold", "text", *at(server))
    assert said.status == 2


def test_gold_that_prompts_have_read_is_refused_afterwards_too(
    batchllm: Command, server: Simulator, tmp_path: Path
) -> None:
    rows = write_csv(tmp_path / "r.csv", ["text", "gold"], [("x", "a")])
    batchllm("run", rows, "-p", "{{ row }} =>a", *at(server))
    said = batchllm("evaluate", tmp_path / "r.run.csv", "--gold", "gold")
    assert said.status == 2
    assert "saw the known answers" in said.err


def test_gold_for_a_finished_job_pays_nothing(batchllm: Command, server: Simulator, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "r.csv", ["text", "gold"], [("x =>a", "a"), ("y =>b", "b")])
    words = ("classify", rows, "--labels", "a,b", *at(server))
    batchllm(*words)
    ASKED.clear()
    said = batchllm(*words[:-1], "--gold", "gold")
    assert (said.status, ASKED) == (0, []), said.err
    assert "Accuracy: 100.0 %" in said.err


def test_known_answers_that_cannot_be_used_are_found_before_anything_is_sent(
    batchllm: Command, server: Simulator, tmp_path: Path
) -> None:
    rows = write_csv(tmp_path / "r.csv", ["text", "gold", "none"], [("x", "4", ""), ("y", "four", "")])
    ASKED.clear()
    for words in (
        ("--gold", "glod"),
        ("--gold", "none"),
        ("--gold", "gold", "--schema", "score int"),
        ("--gold", tmp_path / "no.csv", "--on", "text"),
        ("--gold", rows),
        ("--on", "text", "--gold", "gold"),
    ):
        said = batchllm("run", rows, "-p", "{{ text }}", *words, *at(server))
        assert said.status in (2, 65), (words, said.err)
    assert ASKED == []


def test_gold_in_a_file_of_its_own_is_matched_by_the_column_of_both(
    batchllm: Command, server: Simulator, tmp_path: Path
) -> None:
    rows = write_csv(tmp_path / "r.csv", ["id", "text"], [("1", "x =>a"), ("2", "y =>b"), ("3", "z =>a")])
    gold = write_jsonl(
        tmp_path / "gold.jsonl", [{"id": 2, "human": "b"}, {"id": 1, "human": "b"}, {"id": 9, "human": "a"}]
    )
    said = batchllm("classify", rows, "--labels", "a,b", *at(server)[:-1], "--gold", gold, "--on", "id")
    assert "Accuracy: 50.0 %" in said.err, said.err
    assert "1 entry of" in said.err
    found = json.loads(
        batchllm("evaluate", tmp_path / "r.classify.csv", "--gold", gold, "--on", "id", "--json").out
    )
    assert (found["accuracy"], found["without_gold"], found["gold_without_row"]) == (0.5, 1, 1)


def test_two_different_entries_for_one_row_are_refused(tmp_path: Path) -> None:
    output = write_csv(tmp_path / "o.csv", ["id", "label"], [("1", "a")])
    gold = write_csv(tmp_path / "g.csv", ["id", "gold"], [("1", "a"), ("1", "a")])
    assert evaluate_output(output, str(gold), on="id").accuracy == 1
    write_csv(gold, ["id", "gold"], [("1", "a"), ("1", "b")])
    with pytest.raises(Exception, match="line 3: a second entry for id '1'"):
        evaluate_output(output, str(gold), on="id")


def test_fields_of_a_schema_are_compared_each_by_its_type(
    batchllm: Command, server: Simulator, tmp_path: Path
) -> None:
    answers = [
        {"topic": "x", "urgent": True, "score": 3, "tags": ["p", "q"]},
        {"topic": "y", "urgent": False, "score": 5, "tags": []},
        {"topic": "x", "urgent": True, "score": 1, "tags": ["p"]},
    ]
    gold = [
        {"topic": "x", "urgent": True, "score": 4, "tags": ["q", "p"]},
        {"topic": "x", "urgent": False, "score": 5, "tags": ["p"]},
        {"topic": "x", "urgent": False, "score": 2, "tags": ["p"]},
    ]
    rows = write_jsonl(
        tmp_path / "r.jsonl",
        [{"text": f"=>{json.dumps(a)}", "gold": g} for a, g in zip(answers, gold, strict=True)],
    )
    schema = "topic [x|y], urgent bool, score int, tags list"
    for output in ("o.jsonl", "o.csv"):
        words = ("run", rows, "-p", "{{ text }}", "--schema", schema, "-o", tmp_path / output)
        assert batchllm(*words, "--gold", "gold", *at(server)).status == 0
        found = json.loads(batchllm("evaluate", tmp_path / output, "--gold", "gold", "--json").out)
        fields = found["fields"]
        assert {name: field["kind"] for name, field in fields.items()} == {
            "topic": "label", "urgent": "label", "score": "number", "tags": "labels",
        }  # fmt: skip
        assert fields["topic"]["accuracy"] == pytest.approx(2 / 3)
        assert fields["urgent"]["accuracy"] == pytest.approx(2 / 3)
        assert fields["score"]["mae"] == pytest.approx(2 / 3)
        assert fields["tags"]["exact_match"] == pytest.approx(2 / 3)
        assert found["all_correct"] == 0


def test_one_gold_column_a_field(tmp_path: Path, batchllm: Command, server: Simulator) -> None:
    rows = write_csv(tmp_path / "r.csv", ["text", "t", "s"], [('=>{"topic": "x", "score": 2}', "x", "2.0")])
    words = ("run", rows, "-p", "{{ text }}", "--schema", "topic [x|y], score int", *at(server))
    assert batchllm(*words, "--gold", "topic=t", "--gold", "score=s").status == 0
    found = evaluate_output(tmp_path / "r.run.csv", ["topic=t", "score=s"])
    assert found.correct == 1
    with pytest.raises(UsageError, match="--gold topic=COLUMN"):
        evaluate_output(tmp_path / "r.run.csv", "t")


@pytest.mark.parametrize(
    ("gold", "answers", "kind"),
    [
        (["1", "2.5", "3"], ["1", "2", "x"], "number"),
        (["yes", "no", "yes", "no"], ["yes", "no", "no", ""], "label"),
        (['["a"]', '["a", "b"]'], ["a", "b; a"], "labels"),
        (["A sentence here.", "Another one"], ["a sentence here", "Different"], "text"),
    ],
)
def test_gold_says_what_a_free_answer_is_compared_as(
    gold: list[str], answers: list[str], kind: str, tmp_path: Path
) -> None:
    rows = list(zip(gold, answers, strict=True))
    path = write_csv(
        tmp_path / "o.csv", ["gold", "response", "finish_reason"], [(*row, "stop") for row in rows]
    )
    found = evaluate_output(path, "gold")
    assert found.figures["response"].kind == kind
    assert evaluate_output(path, "gold", kind="text").figures["response"].kind == "text"


def test_an_output_of_anybody_can_be_evaluated_by_naming_its_answer(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "o.csv", ["human", "machine"], [("a", "a"), ("b", "a"), ("a", "a"), ("b", "b")]
    )
    with pytest.raises(UsageError, match="which of its columns is the answer"):
        evaluate_output(path, "human")
    assert evaluate_output(path, "machine=human").accuracy == 0.75


def test_disagreements_have_text_gold_and_answer(
    batchllm: Command, server: Simulator, tmp_path: Path
) -> None:
    rows = write_csv(tmp_path / "r.csv", ["id", "text", "truth"], [
        ("1", "x =>a", "a"), ("2", "y =>b", "a"), ("3", "z =>", "b"),
    ])  # fmt: skip
    batchllm("classify", rows, "--labels", "a,b", *at(server))
    words = ("evaluate", tmp_path / "r.classify.csv", "--gold", "truth", "--disagreements")
    for name in ("d.csv", "d.csv", "d.jsonl"):
        assert batchllm(*words, tmp_path / name).status == 0
    found = read_csv(tmp_path / "d.csv")
    assert [(row["row"], row["text"], row["gold"], row["answer"]) for row in found] == [
        ("2", "y =>b", "a", "b"), ("3", "z =>", "b", ""),
    ]  # fmt: skip
    assert "no label" in found[1]["error"]
    assert [json.loads(line)["row"] for line in (tmp_path / "d.jsonl").read_text().splitlines()] == [2, 3]
    kept = rows.read_bytes()
    assert batchllm(*words, rows).status == 2
    assert rows.read_bytes() == kept


@pytest.mark.parametrize(("least", "status"), [("0.5", 0), ("0.51", 1), ("1.5", 2)])
def test_min_accuracy_decides_the_exit_status(
    batchllm: Command, tmp_path: Path, least: str, status: int
) -> None:
    path = write_csv(tmp_path / "o.csv", ["gold", "label"], [("a", "a"), ("b", "a")])
    assert batchllm("evaluate", path, "--gold", "gold", "--min-accuracy", least).status == status


def test_cost_is_that_of_the_rows_with_gold(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "o.jsonl", [
        {"gold": "a", "label": "a", "finish_reason": "stop", "cost": 0.25},
        {"gold": "b", "label": "a", "finish_reason": "stop", "cost": 0.75},
        {"gold": None, "label": "a", "finish_reason": "stop", "cost": 9},
    ])  # fmt: skip
    found = evaluate_output(path, "gold").to_json()
    assert (found["cost"], found["cost_per_row"], found["cost_per_correct_row"]) == (1.0, 0.5, 1.0)


def test_labels_that_differ_in_case_count_as_different_and_are_named(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "o.csv", ["gold", "label"], [("Positive", "positive"), ("Positive", "positive")]
    )
    found = evaluate_output(path, "gold")
    assert found.accuracy == 0
    assert "gold says 'Positive' where answers say 'positive'" in repr(found)


def test_hostile_text_reaches_no_terminal_and_no_notebook(tmp_path: Path, batchllm: Command) -> None:
    evil = "\x1b[31m<script>alert(1)</script>"
    path = write_csv(tmp_path / "o.csv", ["gold", "label"], [(evil, evil)])
    assert "\x1b" not in batchllm("evaluate", path, "--gold", "gold").out
    assert "<script>" not in evaluate_output(path, "gold")._repr_html_()


def test_nan_and_infinite_numbers_are_no_answers(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "o.jsonl", [{"gold": 1, "response": "inf"}, {"gold": 2, "response": "2"}])
    found = evaluate_output(path, "gold").to_json()
    assert (found["kind"], found["unanswered"], found["mae"]) == ("number", 1, 0)
    assert not any(isinstance(value, float) and math.isnan(value) for value in found.values())
