"""``--on-long split``: what is asked about the parts of long texts, how answers are combined, and what is refused."""

import csv
import json
import random
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batchllm import tokens
from batchllm.api import run
from batchllm.api.results import TableResult
from batchllm.budget.estimate import forecast_job
from batchllm.budget.forecast import Forecast
from batchllm.budget.usage import counted_upper_bound
from batchllm.cli.terminal import line_before
from batchllm.errors import BudgetStop, JobChanged, UsageError
from batchllm.inspect.dry_run import dry_run
from batchllm.inspect.show import show_row
from batchllm.job import assemble
from batchllm.journal import JournalReader
from batchllm.prepare.job_paths import job_paths
from batchllm.prepare.prepared_job import prepare_job
from batchllm.request.messages import TokenCount
from batchllm.runner import run_job
from tests import mortal_runs
from tests.batch_jobs import BatchJob, simulated
from tests.batch_kills import killed_call, points_of
from tests.fakes import Notes
from tests.split_jobs import COUNT, KINDS, LIMIT, MODEL, SplitEndpoint, SplitJob, text_of, total

USED = 8
"""Tokens that an answer of ``SplitEndpoint`` says it used."""
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


def test_a_long_text_of_blanks_is_empty(tmp_path: Path) -> None:
    job = SplitJob(tmp_path, [" \n" * 5000, SHORT, "\u3000\t" * 5000])
    assert job.run().exit_status == 0
    assert len(job.endpoint.sent) == 1
    assert [row["error"] for row in job.answers] == ["", "", ""]


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


def test_an_estimate_whose_sample_is_the_file_knows_every_part(tmp_path: Path) -> None:
    texts = [text_of("english", times) for times in (3, 9, 4)] + ["\n" * 9000, SHORT, text_of("chinese", 3)]
    job = SplitJob(tmp_path, texts).job()
    with prepare_job(job, job_paths(job)) as prepared:
        found = forecast_job(prepared, rows=len(texts), left=len(texts))
    exact = dry_run(job).forecast
    assert found.parts == exact.parts
    assert found.requests_upper_bound == exact.requests_upper_bound


def test_a_part_without_a_label_is_not_said_to_be_tried_again(tmp_path: Path) -> None:
    job = SplitJob(tmp_path, [text_of("english", 5)], SplitEndpoint("text"))
    result = job.run("classify")
    assert result.exit_status == 1
    assert result.summary.failed_by_reason == {"no_label": 1}
    assert not result.summary.retries
    assert len(job.endpoint.sent) == len({chat.body for chat in job.endpoint.sent})


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


def test_a_refusal_without_numbers_halves_a_text_until_its_parts_are_taken(tmp_path: Path) -> None:
    texts = [text_of("english", 14), SHORT, text_of("chinese", 9)]
    job = SplitJob(tmp_path, texts, max_input_tokens=None)
    job.endpoint.context, job.endpoint.words = 300, "Input is too long for requested model."
    job.run(max_tokens=40)
    job.check_sums()
    assert set(job.endpoint.paid.values()) == {1}


def test_halving_ends_where_no_part_is_short_enough(tmp_path: Path) -> None:
    job = SplitJob(tmp_path, [text_of("english", 3)], max_input_tokens=None)
    job.endpoint.context, job.endpoint.words = 20, "Input is too long for requested model."
    job.run(max_tokens=40)
    assert "too long" in job.answers[0]["error"]
    assert len(job.endpoint.sent) < 100


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


def test_a_new_version_of_the_splitter_changes_nothing_that_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = SplitJob(tmp_path, [text_of("english", 6)])
    mortal_runs.run_killed(job.endpoint, 3, after=False, work=lambda: job.run(concurrency=1))
    begun = [chat.body for chat in job.endpoint.sent]
    assert len(begun) == 3
    monkeypatch.setattr("batchllm.splitting.split", lambda *args: pytest.fail("it is cut once"))
    mortal_runs.run_killed(job.endpoint, None, after=False, work=lambda: job.run(concurrency=1))
    assert set(job.endpoint.paid.values()) == {1}
    monkeypatch.setattr("batchllm.flows.combining.groups_of", lambda *args: pytest.fail("it is kept"))
    job.output.unlink()
    job.run()
    assert job.answers[0]["error"] == ""


def test_equal_rows_share_all_their_requests(tmp_path: Path) -> None:
    text = text_of("english", 3)
    job = SplitJob(tmp_path, [text, SHORT, text, SHORT])
    job.run(dedupe=True)
    job.check_sums()
    assert set(job.endpoint.paid.values()) == {1}
    assert job.answers[0]["summary"] == job.answers[2]["summary"]


def test_answers_of_another_job_are_taken_for_parts_too(tmp_path: Path) -> None:
    text = text_of("english", 4)
    job = SplitJob(tmp_path, [text, SHORT])
    job.run()
    sent = len(job.endpoint.sent)
    (tmp_path / "other").mkdir()
    other = SplitJob(tmp_path / "other", [SHORT, text], job.endpoint, reuse=[str(job.output)])
    other.run()
    other.check_sums()
    assert len(job.endpoint.sent) == sent


def test_a_changed_combining_prompt_keeps_the_answers_about_the_parts(tmp_path: Path) -> None:
    template = tmp_path / "mine.toml"
    combine = '[combine]\nprompt = "The text was too long. Add up:\\n\\n{{ answers }}"\n'
    template.write_text(TEMPLATE + combine)
    job = SplitJob(tmp_path, [text_of("english", 3), SHORT], template=str(template))
    job.run("run")
    template.write_text(TEMPLATE + combine.replace("Add up", "Sum up"))
    job.endpoint.sent.clear()
    with pytest.raises(JobChanged, match="1 row that has an answer would be paid again"):
        job.run("run")
    job.run("run", accept_change=True)
    job.check_sums("response")
    assert job.endpoint.sent
    assert all(is_combining(chat.body) for chat in job.endpoint.sent)


def test_a_budget_holds_for_parts_and_the_same_command_goes_on(tmp_path: Path) -> None:
    job = SplitJob(tmp_path, [text_of("english", 6)])
    with pytest.raises(BudgetStop, match="--max-requests 4: 4 have been sent"):
        job.run(max_requests=4)
    assert len(job.endpoint.sent) == 4
    job.run(max_requests=400)
    job.check_sums()
    assert set(job.endpoint.paid.values()) == {1}


def test_a_budget_holds_where_the_sample_knows_nothing_of_the_long_texts_and_the_line_promises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchllm.budget.sample.MOST_BYTES", 1)
    prices = {MODEL: {"input_cost_per_token": 0.001, "output_cost_per_token": 0.001}}
    (tmp_path / "prices.json").write_text(json.dumps(prices))
    job = SplitJob(tmp_path, [text_of("english", 3), *(text_of("english", 12, seed) for seed in range(3))])
    told: list[str] = []

    def tell(forecast: Forecast) -> None:
        told.append(line_before(job.job(), forecast))

    options: dict[str, Any] = {"max_cost": "0.6", "prices": str(tmp_path / "prices.json"), "concurrency": 1}
    with pytest.raises(BudgetStop, match="--max-cost"):
        run_job(job.job(**options), client=job.endpoint, confirm=tell)
    *before, last = job.endpoint.sent
    bound = counted_upper_bound(last)
    most = USED * len(before) + (bound.prompt_tokens or 0) + (bound.completion_tokens or 0)
    assert before and most <= 600, "what is spent and the most that the last request can cost"
    assert "about 4 long texts in" in told[0]
    assert "at most" not in told[0].replace("at most 150 tokens an answer", "")
    assert "at most" in line_before(job.job(), dry_run(job.job()).forecast)


def test_an_answer_about_a_part_that_does_not_validate_is_asked_again(tmp_path: Path) -> None:
    job = SplitJob(
        tmp_path,
        [text_of("english", 3)],
        SplitEndpoint("json"),
        schema="numbers list int, most int, kind, note?",
    )
    job.options["prompt"] = "Read: {{ text }}"
    job.endpoint.malformed = 2
    job.run("run", concurrency=1)
    assert job.answers[0]["error"] == ""
    assert int(job.answers[0]["attempts"]) == len(job.endpoint.sent)
    assert "reask/1" in "\n".join(show_row(job.output, 0))


def test_by_batch_the_parts_are_one_wave_and_each_level_another(tmp_path: Path) -> None:
    """The same endpoint answers the same in both modes."""
    text = text_of("english", 5)
    answers, made = {}, []
    with simulated() as server:
        for via in ("online", "batch"):
            (tmp_path / via).mkdir()
            job = BatchJob(tmp_path / via, server.base_url, rows=3, task="summarize", on_long="split",
                           max_input_tokens=LIMIT, max_tokens=40, via=via)  # fmt: skip
            with job.input.open("a", newline="") as file:
                csv.writer(file).writerow(["3", text])
            job.until_done()
            answers[via] = [(row["summary"], row["parts"], row["error"]) for row in job.answers]
            made.append(len(job.batches))
    assert answers["online"] == answers["batch"]
    assert answers["batch"][3][1:] == (str(int(answers["batch"][3][1])), "")
    assert int(answers["batch"][3][1]) >= 5
    with JournalReader.open(job.output.with_name("out.csv.journal")) as reader:
        paths = [record.path or "" for record in reader.flow_requests(reader.row(3).request_id or 0)]
    levels = {path.split("/")[1] for path in paths if path.startswith("combine/")}
    assert made == [0, 1 + len(levels)]


@pytest.mark.proof
@pytest.mark.parametrize("part", range(4))
def test_a_kill_at_any_step_of_the_batches_pays_no_part_twice(tmp_path: Path, part: int) -> None:
    text = text_of("chinese", 4)

    def batch_job(folder: Path, url: str) -> BatchJob:
        folder.mkdir()
        job = BatchJob(
            folder, url, rows=2, task="summarize", on_long="split", max_input_tokens=LIMIT, max_tokens=40
        )
        with job.input.open("a", newline="") as file:
            csv.writer(file).writerow(["2", text])
        return job

    with simulated() as server:
        calls = [len(passed) for passed in points_of(batch_job(tmp_path / "whole", server.base_url))]
        needed = server.ledger.batch_requests
    points = [(call, at) for call, number in enumerate(calls) for at in range(number)]
    for call, at in points[part::12]:
        with simulated() as server:
            job = batch_job(tmp_path / f"{call}-{at}", server.base_url)
            for _ in range(call):
                killed_call(job, None)
            killed_call(job, at)
            job.until_done()
            assert [row["error"] for row in job.answers] == [""] * 3
            assert server.ledger.batch_requests == needed, (call, at)


def test_the_forecast_of_the_bar_counts_requests_and_not_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchllm.runner.display.SHOW_EVERY_S", 0.0)
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({MODEL: {"input_cost_per_token": 1e-3, "output_cost_per_token": 1e-3}}))
    job = SplitJob(tmp_path, [text_of("english", 30)], prices=str(prices))
    bar = Notes()
    run_job(job.job(concurrency=1), client=job.endpoint, progress=bar)
    told = [float(found[1]) for note in bar.notes if (found := re.search(r"about \$([\d.]+) in all", note))]
    assert told
    assert all(0.5 < each / (8e-3 * len(job.endpoint.sent)) < 2 for each in told)


def test_a_frame_gets_numbers_and_lists(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["short", text_of("english", 3)]})
    with simulated() as server:
        result = run(frame, "summarize", provider="simulator", base_url=server.base_url, on_long="split",
                     max_input_tokens=LIMIT, add="part_answers", output=str(tmp_path / "out.csv"))  # fmt: skip
    assert isinstance(result, TableResult)
    found = result.table
    assert found["parts"].tolist() == [1, len(found["part_answers"][1])]
    assert found["part_answers"][0] is None


def test_a_field_called_parts_is_refused_with_parts_and_text_without(tmp_path: Path) -> None:
    job = SplitJob(tmp_path, [SHORT], prompt="{{ text }}", schema="parts")
    with pytest.raises(UsageError, match="--on-long split adds a column parts"):
        job.run("run")


def test_without_a_limit_parts_fit_the_published_context_with_the_answer(tmp_path: Path) -> None:
    text = text_of("english", 3, limit=8192)
    job = SplitJob(
        tmp_path, [text, SHORT], max_input_tokens=None, base_url="https://api.openai.com/v1", model="gpt-4"
    )
    job.options["api_key_file"] = str(key_file(tmp_path))
    job.run()
    job.check_sums()
    counter = tokens.counter("gpt-4")
    sizes = [TokenCount(counter).prompt(json.loads(chat.body)["messages"], {}) for chat in job.endpoint.sent]
    assert max(sizes) + 150 <= 8192
    assert int(job.answers[0]["parts"]) <= 5, "parts are nearly as large as they may be"


def key_file(folder: Path) -> Path:
    path = folder / "key.txt"
    path.write_text("sk-test")
    path.chmod(0o600)
    return path


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(4))
def test_random_kills_under_faults_pay_only_what_was_in_flight_twice(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    texts = [
        text_of(chance.choice(list(KINDS)), chance.choice((1, 2, 3, 8)), seed=seed * 100 + number)
        if number % 3
        else SHORT
        for number in range(24)
    ]
    job = SplitJob(tmp_path, texts, SplitEndpoint(faults=0.05, seed=seed), overlap=0)

    def work() -> None:
        job.run(concurrency=8, max_attempts=20)

    kills = 6
    for _ in range(kills):
        at = len(job.endpoint.sent) + chance.randint(1, 25)
        mortal_runs.run_killed(job.endpoint, at, after=chance.random() < 0.5, work=work)
    assert mortal_runs.run_killed(job.endpoint, None, after=False, work=work)
    job.check_sums()
    with JournalReader.open(job.output.with_name("out.csv.journal")) as reader:
        ((needed,),) = reader.select("SELECT count(*) FROM request WHERE state = 1")
    assert sum(job.endpoint.paid.values()) <= needed + 8 * kills
    sent = len(job.endpoint.sent)
    job.output.unlink()
    work()
    job.check_sums()
    assert len(job.endpoint.sent) == sent
