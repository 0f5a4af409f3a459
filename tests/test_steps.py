"""Jobs of several steps, from a job file: what is asked, what is written, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from batchllm.errors import BudgetStop, JobChanged, UsageError
from batchllm.evaluate.answered import answer_fields
from batchllm.flows.flow import step_of
from batchllm.inspect.dry_run import dry_run
from batchllm.inspect.show import show_row
from batchllm.prepare.saved_job import restored, saved
from batchllm.progress import Quiet
from batchllm.request.condition import NO
from tests.command import Command
from tests.step_jobs import CHAIN, ROWS, StepJob


@pytest.fixture
def chain(tmp_path: Path) -> StepJob:
    return StepJob(tmp_path, CHAIN, ROWS)


def test_each_step_reads_the_answers_before_it_and_fills_its_own_columns(chain: StepJob) -> None:
    chain.run()
    assert chain.columns == [
        "id", "text", "name", "kind", "reply", "fits", "grade", "finish_reason", "prompt_tokens",
        "completion_tokens", "total_tokens", "model", "attempts", "error",
    ]  # fmt: skip
    for row in chain.answers:
        chain.check(row)
    assert {row["kind"] for row in chain.answers} == {"praise", "complaint"}


def test_a_step_whose_condition_does_not_hold_is_not_sent_and_leaves_its_cell_empty(chain: StepJob) -> None:
    chain.run()
    praised = [row for row in chain.answers if row["kind"] == "praise"]
    assert praised
    assert all((row["reply"], row["fits"], row["attempts"]) == ("", "", "1") for row in praised)
    assert len(chain.endpoint.sent) == len(ROWS) + 2 * (len(ROWS) - len(praised))


def test_the_same_command_again_sends_nothing(chain: StepJob) -> None:
    chain.run()
    sent = len(chain.endpoint.sent)
    chain.run()
    chain.output.unlink()
    chain.run()
    assert len(chain.endpoint.sent) == sent
    for row in chain.answers:
        chain.check(row)


def test_parameters_of_the_command_apply_to_the_steps_that_set_none(chain: StepJob) -> None:
    chain.run(temperature=0.7, model="other", max_tokens=77)
    found = {step: bodies[0] for step, bodies in chain.endpoint.by_step().items()}
    assert found["kind"]["temperature"] == 0.7
    assert found["reply"]["temperature"] == 0.9, "its own"
    assert found["reply"]["model"] == "writer"
    assert found["check"]["model"] == "other"
    assert found["check"]["max_tokens"] == 77


def test_a_changed_step_needs_consent_and_asks_itself_and_the_later_ones(chain: StepJob) -> None:
    chain.run()
    chain.endpoint.sent.clear()
    changed = chain.with_text(CHAIN.replace("Answer kindly", "Answer briefly"))
    with pytest.raises(JobChanged, match="step reply: prompt changed from 'Answer kindly.*--accept-change"):
        changed.run()
    assert not chain.endpoint.sent
    changed.run(accept_change=True)
    assert set(chain.endpoint.by_step()) == {"reply", "check"}
    for row in changed.answers:
        changed.check(row)


def test_a_last_step_that_is_added_keeps_all_answers_before_it(chain: StepJob) -> None:
    chain.with_text(CHAIN[: CHAIN.index('[[steps]]\nname = "check"')]).run()
    chain.endpoint.sent.clear()
    chain.with_text(CHAIN).run()
    assert set(chain.endpoint.by_step()) == {"check"}


def test_rows_whose_first_requests_are_equal_never_exchange_answers(tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": "the same", "name": f"name {n}"} for n in range(12)]
    job = StepJob(tmp_path, CHAIN, rows)
    job.run()
    job.with_rows(rows[::-1]).run(accept_change=True)
    for row in job.answers:
        job.check(row)
    assert len(job.endpoint.sent) <= 36


def test_a_failure_names_its_step_and_keeps_what_the_steps_before_it_answered(chain: StepJob) -> None:
    chain.endpoint.refuses = "reply"
    chain.run()
    failed = [row for row in chain.answers if row["error"]]
    assert failed
    assert all(row["error"].startswith("reply: ") and row["kind"] == "complaint" for row in failed)
    chain.endpoint.refuses = ""
    chain.endpoint.sent.clear()
    chain.run(retry_failed=True)
    assert set(chain.endpoint.by_step()) == {"reply", "check"}
    assert not any(row["error"] for row in chain.answers)


def test_a_later_request_that_cannot_be_made_fails_the_row_in_its_step(tmp_path: Path) -> None:
    text = CHAIN.replace("Answer kindly, {{ name }}", "Answer kindly, {{ name }}{{ name.no.such }}")
    job = StepJob(tmp_path, text, ROWS)
    job.run()
    failed = [row for row in job.answers if row["error"]]
    assert all(row["error"].startswith("reply: ") and row["kind"] for row in failed)
    assert len(failed) == sum(row["kind"] == "complaint" for row in job.answers)


def test_an_answer_that_does_not_validate_is_asked_again_within_its_step(chain: StepJob) -> None:
    chain.endpoint.malformed = 2
    chain.run()
    again = [body for body in chain.endpoint.by_step()["check"] if len(body["messages"]) > 2]
    assert len(again) == 2
    assert not any(row["error"] for row in chain.answers)


def test_a_row_without_text_is_skipped_and_one_without_the_text_of_a_step_skips_that_step(
    tmp_path: Path,
) -> None:
    rows = [*ROWS[:2], {"id": "x", "text": "", "name": ""}]
    job = StepJob(tmp_path, CHAIN, rows)
    result = job.run()
    assert result.summary.skipped == 1
    assert job.answers[-1]["kind"] == job.answers[-1]["error"] == ""


def test_texts_that_are_truncated_are_counted_once_a_row(tmp_path: Path) -> None:
    rows = [{**row, "text": f"{row['text']} {'long ' * 50}"} for row in ROWS]
    result = StepJob(tmp_path, CHAIN, rows).run(max_input_tokens=10, on_long="truncate")
    assert result.summary.truncated == len(ROWS)


def test_a_trial_tries_the_whole_chain(chain: StepJob) -> None:
    chain.run(limit=3)
    assert set(chain.endpoint.by_step()) == {"kind", "reply", "check"}
    assert len({body["messages"][-1]["content"] for body in chain.endpoint.by_step()["kind"]}) == 3


def test_the_first_20_answers_of_each_step_are_judged(tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": f"bad {n}", "name": f"name {n}"} for n in range(200)]
    job = StepJob(tmp_path, CHAIN, rows)
    job.endpoint.refuses = "reply"
    with pytest.raises(BudgetStop, match="none of the first 20 answers of reply is usable"):
        job.run(no_early_stop=False, concurrency=4)
    assert len(job.endpoint.by_step()["reply"]) < 40


def test_a_step_whose_prompt_is_an_answer_of_any_length_is_counted_before_there_are_answers(
    tmp_path: Path,
) -> None:
    steps = [("first", "{{ text }}"), ("second", "{{ first }}"), ("third", "{{ second }}")]
    text = '[job]\ninput = "rows.csv"\noutput = "out.csv"\nprovider = "simulator"\n' + "".join(
        f'[[steps]]\nname = "{name}"\nprompt = "Say: {prompt}"\n' for name, prompt in steps
    )
    forecast = dry_run(StepJob(tmp_path, text, [{"text": "one"}, {"text": "two"}]).job()).forecast
    assert (forecast.requests, forecast.requests_upper_bound) == (6, 6)


def test_the_dry_run_counts_the_requests_of_every_step_and_their_upper_bound(chain: StepJob) -> None:
    forecast = dry_run(chain.job()).forecast
    assert (forecast.rows, forecast.requests, forecast.requests_upper_bound) == (8, 24, 32)
    chain.run()
    assert dry_run(chain.job()).forecast.requests == 0


def test_show_prints_the_chain(chain: StepJob) -> None:
    chain.run()
    kinds = {row["kind"]: number for number, row in enumerate(chain.answers)}
    shown = list(show_row(chain.output, kinds["complaint"]))
    assert [line.split()[1] for line in shown if line.startswith("request ")] == ["kind", "reply", "check"]
    shown = list(show_row(chain.output, kinds["praise"]))
    assert "step reply: not asked" in shown


def test_the_journal_gives_the_job_back_with_its_steps(chain: StepJob) -> None:
    job = chain.job()
    again = restored(json.loads(json.dumps(saved(job))))
    assert again.fingerprint() == job.fingerprint()
    assert [step.name for step in again.steps] == ["kind", "reply", "check"]
    names = ["kind", "reply", "fits", "grade"]
    assert [field.name for field in answer_fields(again, names)] == names


def test_a_budget_and_a_second_run_hold_the_chain_together(chain: StepJob) -> None:
    with pytest.raises(BudgetStop):
        chain.run(max_requests=7)
    assert len(chain.endpoint.sent) == 7
    chain.run(max_requests=100)
    for row in chain.answers:
        chain.check(row)
    assert len(chain.endpoint.sent) == sum(int(row["attempts"]) for row in chain.answers)


def edit(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edit('name = "reply"', 'name = "id"'), "step id: it would write the column id, and the input has"),
        (edit('name = "reply"', 'name = "model"'), "the output has a column of that name"),
        (edit("fits bool", "reply bool"), "step check: it would write the column reply, and step reply writes"),
        (edit('name = "reply"', 'name = "kind"'), "there are two steps called kind"),
        (edit('name = "reply"', 'name = "a reply"'), "must be one word"),
        (edit('name = "reply"', 'name = "text"'), "none of row, text"),
        (edit('name = "reply"', 'nam = "reply"'), "unknown key nam .did you mean name"),
        (edit("{{ reply }}", "{{ repli }}"), "names no column .did you mean reply"),
        (edit("kind == 'complaint'", "kinds == 'complaint'"), "step reply, when.*names no column"),
        (edit("{{ kind == 'complaint' }}", "kind == 'complaint'"), "when must be a template that reads a column"),
        (edit("{{ kind == 'complaint' }}", "{{ 1 == 1 }}"), "reads no column"),
        (edit('prompt = "Answer', 'system = "Answer'), "does not say what to ask"),
        (edit('name = "reply"', 'name = "reply"\ntemplate = "classify"'), "only one can say what to ask"),
        (edit("[job]", '[job]\nprompt = "{{ text }}"'), "belongs to one step"),
        (edit("[job]", '[job]\nschema = "a"'), "schema in .* belongs to one step"),
        (edit("[job]", "[job]\nsamples = 3"), r"samples in .* and the \[\[steps\]\] of .* do not go together"),
        (edit("[job]", '[job]\nconversation = "name"'), "do not go together"),
        (edit("[[steps]]", '[[messages]]\ncontent = "{{ text }}"\n[[steps]]'), "messages belongs to a step"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_sentence(
    change: Callable[[str], str], said: str, tmp_path: Path
) -> None:
    job = StepJob(tmp_path, change(CHAIN), ROWS)
    with pytest.raises(UsageError, match=f"(?s){said}"):
        job.run()
    assert not job.endpoint.sent


def test_no_step_sees_the_known_answers(tmp_path: Path) -> None:
    rows = [{**row, "gold": "praise"} for row in ROWS]
    job = StepJob(tmp_path, CHAIN.replace("{{ kind == 'complaint' }}", "{{ gold }}"), rows)
    with pytest.raises(UsageError, match="known answers"):
        job.run(gold=["kind=gold"])


@pytest.mark.parametrize("value", sorted(NO))
def test_a_condition_says_no_with_the_usual_words(value: str, tmp_path: Path) -> None:
    text = CHAIN.replace("{{ kind == 'complaint' }}", "{{ name }}")
    job = StepJob(tmp_path, text, [{"id": "1", "text": "bad", "name": f" {value.title()} "}])
    job.run()
    assert set(job.endpoint.by_step()) == {"kind"}


def test_a_step_may_be_called_anything_that_ends_like_a_re_ask() -> None:
    assert step_of("do_reask") == "do_reask"
    assert step_of("do_reask/reask/1") == "do_reask"
    assert step_of("reask/2") == ""
    assert step_of("sample/3/reask/1") == "sample"


def test_a_first_step_may_have_a_condition_on_the_input(tmp_path: Path) -> None:
    text = CHAIN.replace('name = "kind"', 'name = "kind"\nwhen = "{{ name != \'name 1\' }}"')
    text = text.replace("{{ kind == 'complaint' }}", "{{ kind != 'praise' }}")
    job = StepJob(tmp_path, text, ROWS)
    job.run()
    row = job.answers[1]
    assert (row["kind"], row["error"]) == ("", "")
    assert row["reply"].startswith("reply ")
    sent = len(job.endpoint.sent)
    job.run()
    assert len(job.endpoint.sent) == sent


def test_the_line_before_the_run_says_the_requests_and_the_bar_names_the_job(
    tmp_path: Path, batchllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []

    def shown(title: str, *, quiet: bool) -> Quiet:
        titles.append(title)
        return Quiet()

    monkeypatch.setattr("batchllm.progress.progress_for", shown)
    job = StepJob(tmp_path, CHAIN, ROWS)
    said = batchllm("run", str(job.file), "--provider", "simulator", "--dry-run")
    assert "To send: 24 requests, at most 32" in said.out
    assert "Step 2: reply, writer, when {{ kind == 'complaint' }}" in said.out
    said = batchllm("run", str(job.file), "--provider", "simulator", "--dry-run", "--json")
    found = json.loads(said.out)
    assert (found["rows"], found["requests"], found["requests_upper_bound"]) == (8, 24, 32)
    said = batchllm("run", str(job.file), "--provider", "simulator", "-n", "4")
    assert "4 rows, at most 16 requests in 3 steps" in said.err
    assert said.status == 0
    assert titles == [job.file.stem], "and not its first step"
