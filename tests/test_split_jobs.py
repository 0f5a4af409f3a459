"""``--on-long split``: what is asked about the parts of long texts, how answers are combined, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import UsageError
from batchllm.inspect.dry_run import dry_run
from batchllm.inspect.show import show_row
from batchllm.job import assemble
from tests import mortal_runs
from tests.split_jobs import COUNT, KINDS, LIMIT, SplitEndpoint, SplitJob, text_of, total

SHORT = "Item N7n: a short text."
CONCURRENCY = 4


def user_text(body: bytes) -> str:
    content: str = json.loads(body)["messages"][-1]["content"]
    return content.partition(":\n\n")[2].rstrip("\n")


def is_combining(body: bytes) -> bool:
    return b"too long to" in body or b"was too long" in body


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "times", [3, pytest.param(30, marks=pytest.mark.proof), pytest.param(300, marks=pytest.mark.proof)]
)
def test_the_answers_about_all_parts_are_combined_and_every_request_fits(
    tmp_path: Path, kind: str, times: int
) -> None:
    job = SplitJob(tmp_path, [text_of(kind, times), SHORT], add="part_answers")
    job.run()
    job.check_sums()
    sizes = [COUNT(user_text(chat.body)) for chat in job.endpoint.sent]
    assert max(sizes) <= LIMIT
    long, short = job.answers
    assert int(long["parts"]) >= times
    assert len(json.loads(long["part_answers"])) == int(long["parts"])
    assert (short["parts"], short["part_answers"]) == ("1", "")
    assert int(long["attempts"]) == len(job.endpoint.sent) - 1
    assert int(long["prompt_tokens"]) == 5 * int(long["attempts"]), "usage is the sum"
    sent = len(job.endpoint.sent)
    job.output.unlink()
    job.run()
    job.check_sums()
    assert len(job.endpoint.sent) == sent


def test_texts_that_fit_are_asked_as_without_the_option(tmp_path: Path) -> None:
    job = SplitJob(tmp_path, [SHORT, text_of("english", 3)], on_long=None)
    job.run()
    assert "too_long" in str(job.run().summary.failed_by_reason)
    before = [chat.key for chat in job.endpoint.sent]
    assert len(before) == 1
    job.run(on_long="split", retry_failed=True)
    job.check_sums()
    assert job.endpoint.paid[job.endpoint.sent[0].body] == 1
    assert before[0] not in [chat.key for chat in job.endpoint.sent[1:]]


def test_answers_longer_than_parts_come_to_an_end(tmp_path: Path) -> None:
    job = SplitJob(tmp_path, [text_of("english", 9)], SplitEndpoint(length=400))
    job.run()
    job.check_sums()
    assert max(COUNT(user_text(chat.body)) for chat in job.endpoint.sent) <= LIMIT
    assert len(job.endpoint.sent) < 3 * int(job.answers[0]["parts"])


def test_a_part_that_fails_fails_the_row_and_is_the_only_one_that_is_paid_again(tmp_path: Path) -> None:
    text = text_of("english", 5)
    job = SplitJob(tmp_path, [text])
    middle = text.split("Item ")[len(text.split("Item ")) // 2]
    job.endpoint.fails = middle.strip()[:40]
    assert job.run().exit_status == 1
    parts = len(job.endpoint.sent)
    assert job.answers[0]["error"].startswith("part ")
    assert f" of {parts}: the content filter" in job.answers[0]["error"]
    job.endpoint.fails = ""
    job.endpoint.sent.clear()
    job.run(retry_failed=True)
    job.check_sums()
    again = [chat for chat in job.endpoint.sent if not is_combining(chat.body)]
    assert len(again) == 1
    assert middle.strip()[:40] in again[0].body.decode()


@pytest.mark.parametrize("via", ["ask", "vote"])
def test_labels_are_combined_by_a_request_or_by_a_vote(tmp_path: Path, via: str) -> None:
    texts = [text_of("english", 4, seed) for seed in range(4)]
    job = SplitJob(tmp_path, texts, SplitEndpoint("label"), combine=via, add="part_answers")
    job.run("classify")
    combining = [chat for chat in job.endpoint.sent if is_combining(chat.body)]
    disagreed = 0
    for row in job.answers:
        labels = json.loads(row["part_answers"])
        assert len(labels) == int(row["parts"])
        disagreed += len(set(labels)) > 1
        if via == "vote" or len(set(labels)) == 1:
            assert row["label"] == max(labels, key=labels.count), "of equally frequent ones the first"
        else:
            assert row["label"] == "negative", "the endpoint answers so to what has no number"
    assert disagreed
    assert len(combining) == (0 if via == "vote" else disagreed)


def test_fields_are_joined_agreed_on_or_asked_about(tmp_path: Path) -> None:
    text = text_of("english", 6)
    job = SplitJob(tmp_path, [text], SplitEndpoint("json"), schema="numbers list int, most int, kind, note?")
    job.options["prompt"] = "Read: {{ text }}"
    job.run("run")
    numbers = [int(each.split("n")[0]) for each in text.split("N")[1:]]
    row = job.answers[0]
    assert row["error"] == ""
    assert json.loads(row["numbers"]) == list(dict.fromkeys(numbers))
    assert row["most"] == str(max(numbers))
    assert (row["kind"], row["note"]) == ("same", "")
    combining = [json.loads(chat.body) for chat in job.endpoint.sent if is_combining(chat.body)]
    assert combining
    for body in combining:
        assert list(body["response_format"]["json_schema"]["schema"]["properties"]) == ["most"]
        assert "Part 1 of" in body["messages"][-1]["content"] or "to" in body["messages"][-1]["content"]


def test_code_is_put_together(tmp_path: Path) -> None:
    job = SplitJob(tmp_path, [text_of("english", 3)], SplitEndpoint("code"))
    job.run("codegen")
    job.check_sums("code")


TEMPLATE = """
[[messages]]
role = "user"
content = "Add up:\\n\\n{{ text }}"
"""


def test_a_template_needs_a_combine_table_and_is_told_what_to_write(tmp_path: Path) -> None:
    template = tmp_path / "mine.toml"
    template.write_text(TEMPLATE)
    job = SplitJob(tmp_path, [text_of("english", 3)], template=str(template))
    with pytest.raises(UsageError, match=r"\[combine\] that has prompt = .*\{\{ answers \}\}"):
        job.run("run")
    assert not job.endpoint.sent
    template.write_text(
        TEMPLATE + '[combine]\nprompt = "The text was too long. Add up:\\n\\n{{ answers }}"\n'
    )
    job.run("run")
    job.check_sums("response")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('[combine]\nprompt = "Add up"\n', "prompt must be text with {{ answers }}"),
        ('[combine]\nprompts = "{{ answers }}"\n', "unknown key prompts"),
        ('[combine]\nprompt = "{{ answers }} {{ text }} {{ nothing }}"\n', "nothing"),
        ('[combine]\nprompt = "{{ answers }}"\n[combine.parameters]\ntemprature = 1\n', "temprature"),
    ],
)
def test_a_wrong_combine_table_is_refused(tmp_path: Path, text: str, match: str) -> None:
    template = tmp_path / "mine.toml"
    template.write_text(TEMPLATE + text)
    job = SplitJob(tmp_path, [text_of("english", 3)], template=str(template))
    with pytest.raises(UsageError, match=match):
        job.run("run")
    assert not job.endpoint.sent


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ({"samples": 3}, "--samples"),
        ({"conversation": "id"}, "--conversation"),
        ({"image": ["id"]}, "--image"),
        ({"overlap": 100}, "at most half"),
        ({"max_input_tokens": 8}, "at least 16 tokens"),
        ({"combine": "vote"}, "counts labels"),
        ({"on_long": "truncate", "overlap": 5}, "needs --on-long split"),
        ({"on_long": None, "combine": "vote"}, "needs --on-long split"),
        ({"add": "part_answer"}, "no column"),
    ],
)
def test_what_does_not_go_together_with_parts_is_refused(
    tmp_path: Path, flags: dict[str, Any], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        SplitJob(tmp_path, [SHORT]).run(**flags)


def test_steps_and_parts_are_refused_together(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('[job]\non_long = "split"\n[[steps]]\nname = "one"\nprompt = "{{ text }}"\n')
    with pytest.raises(UsageError, match=r"split and the \[\[steps\]\]"):
        assemble("run", {"job_file": str(file), "input": "rows.csv", "provider": "simulator"}, {})


WORDS = [
    "This model's maximum context length is {limit} tokens. However, your messages resulted in {size} tokens.",
    "prompt is too long: {size} tokens > {limit} maximum",
    "request ({size} tokens) exceeds the available context size ({limit} tokens), try increasing it",
    "The input token count ({size}) exceeds the maximum number of tokens allowed ({limit}).",
    "Please reduce the length of the messages.",
]


@pytest.mark.parametrize("words", WORDS)
def test_a_row_that_the_endpoint_finds_too_long_is_split_by_what_it_says(tmp_path: Path, words: str) -> None:
    job = SplitJob(tmp_path, [text_of("english", 4), SHORT], max_input_tokens=None, parameters=None)
    job.endpoint.context, job.endpoint.words = 600, words
    job.run(max_tokens=40)
    job.check_sums()
    assert int(job.answers[0]["parts"]) >= 2
    paid = len(job.endpoint.paid)
    job.output.unlink()
    job.run(max_tokens=40)
    job.check_sums()
    assert len(job.endpoint.paid) == paid


def test_a_part_that_the_endpoint_finds_too_long_is_cut_once_more(tmp_path: Path) -> None:
    job = SplitJob(tmp_path, [text_of("chinese", 12)], max_input_tokens=600)
    job.endpoint.context = 450
    job.run(max_tokens=40)
    job.check_sums()
    assert set(job.endpoint.paid.values()) == {1}


@pytest.mark.parametrize(
    "at", [0, 2, *(pytest.param(at, marks=pytest.mark.proof) for at in (1, *range(3, 16)))]
)
@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_dies_at_any_request_pays_no_part_twice(tmp_path: Path, at: int, after: bool) -> None:
    job = SplitJob(tmp_path, [text_of("markdown", 6), SHORT, text_of("english", 3)])

    def work() -> None:
        job.run(concurrency=1)

    mortal_runs.run_killed(job.endpoint, at, after=after, work=work)
    assert mortal_runs.run_killed(job.endpoint, None, after=False, work=work)
    job.check_sums()
    paid = job.endpoint.paid.values()
    assert sum(paid) <= len(paid) + after, "only what was in flight may be paid twice"


def test_the_dry_run_knows_parts_and_levels(tmp_path: Path) -> None:
    job = SplitJob(tmp_path, [text_of("english", 9), SHORT])
    found = dry_run(job.job()).forecast
    job.run()
    assert found.parts is not None
    assert found.parts.rows == 1
    assert found.parts.parts == int(job.answers[0]["parts"])
    assert found.parts.levels_upper_bound >= found.parts.levels >= 1
    assert found.rows == 2
    assert found.requests_upper_bound is not None
    assert len(job.endpoint.sent) <= found.requests_upper_bound
    assert dry_run(job.job()).forecast.requests == 0


def test_show_prints_the_parts(tmp_path: Path) -> None:
    job = SplitJob(tmp_path, [text_of("english", 3)])
    job.run()
    said = "\n".join(show_row(job.output, 0))
    for number in range(1, int(job.answers[0]["parts"]) + 1):
        assert f"request part/{number} (" in said
    assert "request combine/1/1 (" in said
    assert f"S{total(job.texts[0])}s" in said
