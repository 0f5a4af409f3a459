"""Few-shot examples: balanced over the labels, the same for all rows, never the row itself."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import UsageError
from batchllm.job import Job, assemble
from batchllm.tokens import counter
from tests.command import Command
from tests.request_jobs import body_of, builder_of, built, make_row

PAIRS = [
    {"text": "charged twice", "label": "billing"},
    {"text": "wrong VAT", "label": "Billing"},
    {"text": "refund please", "label": "billing"},
    {"text": "parcel never came", "label": "shipping"},
    {"text": "where is my box", "label": "shipping"},
]


def job_of(examples: Any = PAIRS, task: str = "classify", **flags: Any) -> Job:
    flags = {"input": "rows.csv", "provider": "simulator", "examples": examples, **flags}
    if task == "classify":
        flags.setdefault("labels", "billing,shipping,other")
    return assemble(task, flags, {})


def shots_of(job: Job, **values: Any) -> list[tuple[str, str]]:
    """Question and answer of each example in a row's request; the row's own turn stands last."""
    messages = body_of(job, make_row(**(values or {"text": "hello"})))["messages"]
    roles = [message["role"] for message in messages]
    assert roles == ["system", *["user", "assistant"] * ((len(roles) - 2) // 2), "user"]
    texts = [message["content"].rpartition("\n")[2] for message in messages[1:-1]]
    return list(zip(texts[::2], texts[1::2], strict=True))


def test_examples_are_earlier_turns_one_of_each_label_in_turn() -> None:
    assert shots_of(job_of(shots=3)) == [
        ("charged twice", "billing"),
        ("parcel never came", "shipping"),
        ("wrong VAT", "billing"),
    ]
    assert Counter(answer for _, answer in shots_of(job_of())) == {"billing": 3, "shipping": 2}


def test_a_row_that_is_an_example_gets_another_instead() -> None:
    for text in ("charged twice", "  charged\n twice "):
        found = shots_of(job_of(shots=2), text=text)
        assert found == [("wrong VAT", "billing"), ("parcel never came", "shipping")]
    only = job_of([PAIRS[0]])
    assert shots_of(only, text="charged twice") == []


def test_a_text_that_is_cut_is_still_the_row_itself() -> None:
    long = {"text": "charged " * 200, "label": "billing"}
    job = job_of([long, PAIRS[3]], max_input_tokens=20, on_long="truncate")
    assert [answer for _, answer in shots_of(job, text=long["text"])] == ["shipping"]
    assert builder_of(job, make_row(text="x")).truncated == 0


@given(
    st.lists(
        st.tuples(st.text("abc ", min_size=1), st.sampled_from(["a", "b", "c"])), min_size=1, max_size=12
    ),
    st.integers(1, 8),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_whatever_the_examples_are_they_are_balanced_and_never_the_row(
    pairs: list[tuple[str, str]], count: int, data: st.DataObject
) -> None:
    examples = [{"text": f"x{text}", "label": label} for text, label in pairs]
    job = job_of(examples, labels="a,b,c", shots=count)
    row = data.draw(st.sampled_from(examples))
    messages = body_of(job, make_row(text=row["text"]))["messages"][1:]
    questions = [" ".join(message["content"].split()) for message in messages[::2]]
    assert questions[-1] not in questions[:-1] and len(set(questions)) == len(questions)
    answers = Counter(message["content"] for message in messages[1::2])
    distinct: dict[str, str] = {}
    for each in examples:
        distinct.setdefault(" ".join(each["text"].split()), each["label"])
    distinct.pop(" ".join(row["text"].split()))
    there = Counter(distinct.values())
    assert answers.total() == min(count, there.total())
    for label, number in answers.items():  # nobody has two more than a label that has some left
        assert all(number <= answers[other] + 1 or answers[other] == there[other] for other in there), label


def test_all_rows_share_the_beginning_of_their_messages() -> None:
    builder = builder_of(job_of(shots=4), make_row(text="x"))
    bodies = [builder.build(make_row(text=text)).body for text in ("hello", "the box was broken")]  # type: ignore[union-attr]
    shared = next(n for n, (one, other) in enumerate(zip(*bodies, strict=False)) if one != other)
    assert bodies[0][:shared].endswith(b"Classify this text:\\n\\n")


def test_the_tokens_of_the_examples_are_counted() -> None:
    count = counter("gpt-4")
    tokens = [
        built(job, make_row(text="hello"), count=count).prompt_tokens
        for job in (job_of(shots=1), job_of(shots=5))
    ]
    assert tokens[1] > tokens[0] + 40


def test_an_answer_is_written_as_the_task_asks_for_it() -> None:
    code = job_of([{"text": "add", "code": "a + b\n"}], "codegen")
    assert body_of(code, make_row(text="x"))["messages"][2]["content"] == "```\na + b\n```"
    fields = [{"text": "t", "topic": "x", "score": "4", "tags": "a; b", "urgent": "True", "note": ""}]
    schema = "topic, score 1..5, tags list, urgent bool, note?"
    data = job_of(fields, "run", prompt="{{ text }}", schema=schema)
    said = body_of(data, make_row(text="x"))["messages"][2]["content"]
    assert said == '{"topic":"x","score":4,"tags":["a","b"],"urgent":true,"note":null}'
    several = job_of(
        [{"text": "t", "label": "shipping; billing"}, {"text": "u", "label": "none"}], multi_label=True
    )
    assert [answer for _, answer in shots_of(several)] == ["billing; shipping", "none"]


def test_examples_may_call_their_text_text() -> None:
    job = job_of(column="Review Text")
    row = make_row({"Review Text": "charged twice", "id": "1"})
    assert "charged twice" not in str(body_of(job, row)["messages"][:-1])


@pytest.mark.parametrize(
    ("examples", "flags", "said"),
    [
        (
            [{"text": "x", "label": "returns"}],
            {},
            "--examples, row 1: 'returns' is none of the labels billing",
        ),
        ([*PAIRS, {"text": "x"}], {}, "row 6: there is no column 'label'"),
        ([{"text": "x", "label": ""}], {}, "row 1: the answer in column 'label' is empty"),
        ([{"label": "billing"}], {}, "row 1: the row has no 'text'"),
        ([], {}, "there are no examples"),
        (None, {"shots": 3}, "--shots needs --examples"),
        (PAIRS, {"image": ["photo"]}, "rows with images cannot have examples"),
    ],
)
def test_examples_that_cannot_be_used_are_refused_before_the_first_request(
    examples: Any, flags: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        builder_of(job_of(examples, **flags), make_row(text="x", photo=""))


def test_an_answer_that_breaks_the_schema_is_refused() -> None:
    job = job_of([{"text": "t", "score": "9"}], "run", prompt="{{ text }}", schema="score 1..5")
    with pytest.raises(UsageError, match="row 1: the answer does not fit the schema"):
        builder_of(job, make_row(text="x"))


def test_examples_are_part_of_what_is_asked_and_are_named_before_the_run(
    batchllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("text\ncharged twice\nhello\n")
    Path("ex.csv").write_text("text,label\n" + "".join(f"{pair['text']},{pair['label']}\n" for pair in PAIRS))
    words = (
        "classify",
        "rows.csv",
        "--labels",
        "billing,shipping",
        "--provider",
        "simulator",
        "-o",
        "out.csv",
    )
    said = batchllm(*words, "--examples", "ex.csv", "-k", "2")
    assert said.status == 0 and "2 examples" in said.err
    refused = batchllm(*words, "--examples", "ex.csv", "-k", "3")
    assert refused.status == 2 and "--shots" in refused.err and "--accept-change" in refused.err
    listed = batchllm(*words, "--examples", "ex.csv", "-k", "2", "--dry-run").out
    assert "5 rows" in listed and "2 answered already" in listed


@pytest.mark.parametrize("name", ["mine.toml", "classify.toml"])
def test_a_job_with_a_template_of_its_own_is_exported_as_it_was_read(
    name: str, batchllm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("text\nI love it\nI hate it\n")
    Path(name).write_text('[[messages]]\ncontent = "Review: {{ text }}"\n')
    words = ("classify", "rows.csv", "-t", name, "--provider", "simulator", "-o", "out.csv")
    assert batchllm(*words).status == 0
    assert batchllm("export", "out.csv", "-o", "again.csv").status == 0
    assert Path("again.csv").read_bytes() == Path("out.csv").read_bytes()
