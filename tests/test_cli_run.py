"""The commands that run a job, from words to files, against the simulator."""

import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batchllm.job.options import TABLE
from batchllm.request.settings import AnswerSettings
from batchllm.simulator import Simulator, SimulatorSettings, start_in_thread
from tests.command import Command

SIMULATOR = ("--provider", "simulator")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def at(server: Simulator) -> tuple[str, ...]:
    return ("--base-url", server.base_url, "-m", "any")


def test_classify_writes_a_label_beside_every_row(batchllm: Command, samples: Path) -> None:
    said = batchllm("classify", samples / "reviews.csv", *SIMULATOR)
    assert said.status == 0, said.err
    rows = rows_of(samples / "reviews.classify.simulated.csv")
    assert [row["id"] for row in rows] == [f"r-{number:03}" for number in range(1, 13)]
    assert {row["label"] for row in rows if row["review"]} <= {"positive", "negative", "neutral"}
    assert rows[0]["label"] == "positive"
    assert list(rows[0]) == [
        "id", "product", "review", "stars", "label", "finish_reason", "prompt_tokens", "completion_tokens",
        "total_tokens", "model", "attempts", "error",
    ]  # fmt: skip


def test_an_empty_text_is_skipped_and_no_failure(batchllm: Command, samples: Path) -> None:
    said = batchllm("classify", samples / "reviews.csv", *SIMULATOR)
    empty = rows_of(samples / "reviews.classify.simulated.csv")[8]
    assert (empty["review"], empty["label"], empty["error"], empty["attempts"]) == ("", "", "", "0")
    assert "1 empty" in said.err


def test_the_same_command_again_sends_nothing_and_leaves_the_same_bytes(
    batchllm: Command, samples: Path, server: Simulator
) -> None:
    words = ("classify", samples / "reviews.csv", *at(server))
    batchllm(*words)
    output = samples / "reviews.classify.csv"
    before, requests = output.read_bytes(), server.ledger.requests
    said = batchllm(*words)
    assert said.status == 0
    assert server.ledger.requests == requests == 11
    assert output.read_bytes() == before
    assert "11 of them found in the journal" in said.err


def test_summaries_have_as_many_bullets_as_asked(batchllm: Command, samples: Path) -> None:
    batchllm("summarize", samples / "articles.csv", "--bullets", 2, *SIMULATOR)
    for row in rows_of(samples / "articles.summarize.simulated.csv"):
        assert row["summary"].count("\n- ") + row["summary"].startswith("- ") == 2


def test_code_is_the_content_of_the_fenced_block(batchllm: Command, samples: Path) -> None:
    batchllm("codegen", samples / "tasks.csv", *SIMULATOR)
    for row in rows_of(samples / "tasks.codegen.simulated.csv"):
        assert "\ndef " in row["code"]
        assert "```" not in row["code"]


def test_the_reference_defaults_are_what_is_sent(batchllm: Command, samples: Path, server: Simulator) -> None:
    for task, file in (("summarize", "articles.csv"), ("classify", "reviews.csv"), ("codegen", "tasks.csv")):
        batchllm(task, samples / file, "-n", 1, *at(server))
    batchllm("run", "-p", "Say {{ text }}", samples / "articles.csv", "-n", 1, *at(server))
    sent = [json.loads(received.body) for received in server.received if received.method == "POST"]
    assert [(body.get("temperature"), body.get("max_tokens")) for body in sent] == [
        (0.3, 150),
        (0.0, 10),
        (0.2, 500),
        (None, None),
    ]
    assert "3 bullet points" in sent[0]["messages"][0]["content"]
    assert "Python" in sent[2]["messages"][0]["content"]


def test_own_labels_and_chinese_text(batchllm: Command, samples: Path) -> None:
    said = batchllm(
        "classify", samples / "reviews_zh.csv", "--labels", "积极,消极,中性", "--column", "评论", *SIMULATOR
    )
    assert said.status == 0, said.err
    raw = (samples / "reviews_zh.classify.simulated.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    assert raw.count(b"\r\n") == 7
    text = raw.decode("utf-8-sig")
    assert text.splitlines()[0].startswith("编号;商品;评论;label;")
    assert [row["label"] for row in csv.DictReader(text.splitlines(), delimiter=";")][:2] == ["积极", "消极"]


def test_a_trial_writes_only_its_rows_and_the_full_run_reuses_them(
    batchllm: Command, samples: Path, server: Simulator
) -> None:
    words = ("classify", samples / "reviews.csv", *at(server))
    assert batchllm(*words, "-n", 3).status == 0
    assert len(rows_of(samples / "reviews.classify.trial.csv")) == 3
    assert not (samples / "reviews.classify.csv").exists()
    assert server.ledger.requests == 3
    assert batchllm(*words).status == 0
    assert len(rows_of(samples / "reviews.classify.csv")) == 12
    assert server.ledger.requests == 11


def test_a_sample_is_the_same_rows_every_time(batchllm: Command, samples: Path, server: Simulator) -> None:
    words = ("classify", samples / "reviews.csv", "--sample", 4, "--seed", 3, *at(server))
    batchllm(*words)
    first = (samples / "reviews.classify.trial.csv").read_bytes()
    batchllm(*words)
    assert (samples / "reviews.classify.trial.csv").read_bytes() == first
    assert len(rows_of(samples / "reviews.classify.trial.csv")) == 4


def test_csv_becomes_jsonl_by_the_suffix_of_the_output(
    batchllm: Command, samples: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    batchllm("classify", samples / "reviews.csv", "-o", output, *SIMULATOR)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert lines[0]["stars"] == "5"
    assert isinstance(lines[0]["prompt_tokens"], int)
    assert lines[8]["label"] is None


def test_standard_input_and_output(batchllm: Command, samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    raw = (samples / "reviews.jsonl").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
    said = batchllm("classify", "-", "--input-format", "jsonl", "-o", "-", "--quiet", *SIMULATOR)
    assert said.status == 0, said.err
    assert said.err == ""
    lines = said.out.splitlines()
    assert len(lines) == 12
    assert '"weight": 1.0' in lines[0]


def test_quiet_prints_nothing_on_success(batchllm: Command, samples: Path) -> None:
    said = batchllm("classify", samples / "reviews.csv", "--quiet", *SIMULATOR)
    assert (said.status, said.out, said.err) == (0, "", "")


def test_the_line_before_and_the_summary_go_to_standard_error(batchllm: Command, samples: Path) -> None:
    said = batchllm("classify", samples / "reviews.csv", *SIMULATOR)
    assert said.out == ""
    first, *rest = said.err.splitlines()
    assert first.startswith("12 rows, simulator")
    assert rest[0].startswith("11 of 12 rows answered, 1 empty")
    assert "\r" not in said.err
    assert len(said.err.splitlines()) <= 12


def test_the_summary_file_is_json_and_jsonl_grows_by_a_line_a_run(
    batchllm: Command, samples: Path, tmp_path: Path
) -> None:
    words = ("classify", samples / "reviews.csv", *SIMULATOR, "--summary")
    batchllm(*words, tmp_path / "run.json")
    figures = json.loads((tmp_path / "run.json").read_text())
    assert {
        "rows": 12,
        "answered": 11,
        "skipped": 1,
        "failed": 0,
        "requests": 11,
        "exit_status": 0,
    }.items() <= figures.items()
    assert figures["total_tokens"] == figures["prompt_tokens"] + figures["completion_tokens"]
    for _ in range(2):
        batchllm(*words, tmp_path / "runs.jsonl")
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 2


def test_failed_rows_stay_in_the_output_with_their_error(batchllm: Command, samples: Path) -> None:
    with start_in_thread(SimulatorSettings(error_rate={"400": 0.4}, seed=5)) as server:
        said = batchllm("classify", samples / "reviews.csv", *at(server))
    assert said.status == 1
    rows = rows_of(samples / "reviews.classify.csv")
    failed = [row for row in rows if row["error"]]
    assert len(rows) == 12
    assert 0 < len(failed) < 11
    assert all(row["error"].startswith("HTTP 400") and row["label"] == "" for row in failed)
    assert f"Failed: {len(failed)} (HTTP 400 {len(failed)})" in said.err


def test_a_share_of_failures_may_be_allowed(batchllm: Command, samples: Path) -> None:
    with start_in_thread(SimulatorSettings(error_rate={"400": 0.4}, seed=5)) as server:
        said = batchllm("classify", samples / "reviews.csv", "--allow-failed", "90%", *at(server))
    assert said.status == 0


def test_failed_rows_are_sent_again_only_when_asked(batchllm: Command, samples: Path) -> None:
    with start_in_thread(SimulatorSettings(error_rate={"filter": 1.0})) as server:
        assert batchllm("classify", samples / "reviews.csv", *at(server), "--no-early-stop").status == 1
        said = batchllm("classify", samples / "reviews.csv", *at(server), "--no-early-stop")
        assert said.status == 1 and "of them found in the journal" not in said.err, "none was answered"
        assert server.ledger.requests == 11
    with start_in_thread(SimulatorSettings()) as server:
        again = batchllm("classify", samples / "reviews.csv", *at(server), "--retry-failed")
        assert again.status == 0
        assert server.ledger.requests == 11
        assert "about 0 + at most 0 tokens" not in again.err, "what is asked again has a price"


def test_a_changed_job_is_refused_until_the_change_is_accepted(
    batchllm: Command, samples: Path, server: Simulator
) -> None:
    words = ("summarize", samples / "articles.csv", *at(server))
    assert batchllm(*words).status == 0
    said = batchllm(*words, "--temperature", 0.9)
    assert said.status == 2
    assert "--temperature changed from 0.3 to 0.9: 4 rows that have an answer would be paid again" in said.err
    assert "4 rows" in said.err
    assert server.ledger.requests == 4
    assert batchllm(*words, "--temperature", 0.9, "--accept-change").status == 0
    assert server.ledger.requests == 8
    assert batchllm(*words, "--accept-change").status == 0
    assert server.ledger.requests == 8, "the answers of the first job were kept"


def test_restart_pays_again_and_keeps_the_old_journal_aside(
    batchllm: Command, samples: Path, server: Simulator
) -> None:
    words = ("summarize", samples / "articles.csv", *at(server))
    batchllm(*words)
    assert batchllm(*words, "--restart", "--force").status == 0
    assert server.ledger.requests == 8
    assert len(list(samples.glob("articles.summarize.csv.journal*"))) == 2


def test_a_foreign_or_edited_output_is_not_overwritten(
    batchllm: Command, samples: Path, server: Simulator
) -> None:
    output = samples / "articles.summarize.csv"
    output.write_text("mine\n")
    words = ("summarize", samples / "articles.csv", *at(server))
    said = batchllm(*words)
    assert said.status == 2
    assert "--force" in said.err
    assert output.read_text() == "mine\n"
    assert server.ledger.requests == 0
    assert batchllm(*words, "--force").status == 0
    with output.open("a") as file:
        file.write("edited\n")
    said = batchllm(*words)
    assert said.status == 2
    assert "edited" in said.err


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("classify", "reviews.csv"), 2, "--provider simulator"),
        (("classify", "missing.csv", *SIMULATOR), 65, "missing.csv"),
        (("classify", "reviews.csv", "--provider", "opnai"), 2, "did you mean openai"),
        (("run", "-p", "{{ txt }}", "reviews.csv", *SIMULATOR), 2, "id, product, review, stars"),
        (("run", "reviews.csv", *SIMULATOR), 2, "-p"),
        (("classify", "reviews.csv", "--labels", "one", *SIMULATOR), 2, "--labels"),
        (("classify", "reviews.csv", "--temperature", "9", *SIMULATOR), 2, "--temperature"),
        (("classify", "reviews.csv", "--rpm", "0", *SIMULATOR), 2, "--rpm"),
        (("classify", "reviews.csv", "--base-url", "http://example.com/v1"), 2, "--allow-http"),
        (("classify", "reviews.csv", "--add", "price", *SIMULATOR), 2, "--add"),
        (("classify", "reviews.csv", "-o", "out.pdf", *SIMULATOR), 2, ".xlsx"),
        (("classify", "reviews.csv", "-o", "reviews.csv", *SIMULATOR), 2, "reviews.csv"),
        (("classify", "reviews.csv", "-o", "no/such/folder/out.csv", *SIMULATOR), 73, "no/such/folder"),
        (("classify", "reviews.csv", "--column", "text", *SIMULATOR), 2, "review"),
        (("classify", "taken.csv", *SIMULATOR), 2, "--prefix"),
        (("classify", "ragged.csv", *SIMULATOR), 65, "ragged.csv, line 3"),
        (("classify", "quote.csv", *SIMULATOR), 65, "quote.csv, line 2"),
        (("classify", "twice.csv", *SIMULATOR), 2, "a (column 2)"),
        (("classify", "bad.jsonl", *SIMULATOR), 65, "bad.jsonl, line 2"),
        (
            ("classify", "latin.csv", *SIMULATOR),
            65,
            "line 2: byte 8 (0xe9) is not UTF-8; in cp1252 this line reads “café is good”",
        ),
        (("templates", "show", "sumarize"), 2, "summarize"),
        (("status", "nothing.csv"), 65, "no journal"),
    ],
)
def test_wrong_use_is_one_sentence_with_its_status_and_sends_nothing(
    batchllm: Command,
    samples: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    status: int,
    says: str,
) -> None:
    monkeypatch.chdir(samples)
    Path("taken.csv").write_text("text,label\nfine,x\n")
    Path("ragged.csv").write_text("a,b\n1,2\n3\n")
    Path("quote.csv").write_text('a,b\n1,"2\n3,4\n')
    Path("twice.csv").write_text("a,a\n1,2\n")
    Path("bad.jsonl").write_text('{"text": "x"}\n{bad\n')
    Path("latin.csv").write_bytes(b"text\ncaf\xe9 is good\n")
    monkeypatch.setattr("batchllm.client.Client.send", None)
    said = batchllm(*words)
    assert said.status == status, said.err
    assert says in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert "Traceback" not in said.err
    assert not list(samples.glob("*.journal")) or status == 2


def test_a_wrong_key_costs_one_request(
    batchllm: Command, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with start_in_thread(SimulatorSettings(api_key="sk-right")) as server:
        said = batchllm("classify", samples / "reviews.csv", *at(server))
        assert said.status == 2
        assert "key" in said.err
        assert "sk-wrong" not in said.err
        assert server.ledger.requests == 1


def test_header_only_is_done_at_once(batchllm: Command, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("id,text\n")
    said = batchllm("classify", tmp_path / "empty.csv", *SIMULATOR)
    assert said.status == 0
    assert (tmp_path / "empty.classify.simulated.csv").read_text().startswith("id,text,label,")


def test_an_empty_jsonl_file_is_done_at_once(batchllm: Command, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    assert batchllm("classify", tmp_path / "empty.jsonl", *SIMULATOR).status == 0
    assert (tmp_path / "empty.classify.simulated.jsonl").read_bytes() == b""


def test_a_prefix_makes_room_beside_columns_of_the_same_name(batchllm: Command, tmp_path: Path) -> None:
    (tmp_path / "taken.csv").write_text("text,label,error\nI love it,x,y\n")
    assert batchllm("classify", tmp_path / "taken.csv", "--prefix", "llm_", *SIMULATOR).status == 0
    (row,) = rows_of(tmp_path / "taken.classify.simulated.csv")
    assert (row["label"], row["error"], row["llm_label"], row["llm_error"]) == ("x", "y", "positive", "")


def test_templates_are_listed_and_shown_to_be_copied(
    batchllm: Command, samples: Path, tmp_path: Path
) -> None:
    listed = batchllm("templates").out
    assert [line.split()[0] for line in listed.splitlines()] == ["classify", "codegen", "summarize"]
    copy = tmp_path / "mine.toml"
    copy.write_text(batchllm("templates", "show", "summarize").out)
    said = batchllm("run", "-t", copy, samples / "articles.csv", *SIMULATOR)
    assert said.status == 0, said.err
    assert rows_of(samples / "articles.mine.simulated.csv")[0]["summary"]


def test_model_text_cannot_command_a_terminal() -> None:
    from batchllm.printable import printable

    hostile = "\x1b]52;c;cm0gLXJm\x07 \x1b[2J \x9b31m \u202e\u2066 \x7f\r plain é 中\n"
    shown = printable(hostile)
    assert shown.endswith("plain é 中\n")
    assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in shown)
    assert "\u202e" not in shown


def test_export_status_show_and_clean(batchllm: Command, samples: Path, tmp_path: Path) -> None:
    output = samples / "reviews.classify.simulated.csv"
    batchllm("classify", samples / "reviews.csv", *SIMULATOR)
    assert "finished" in batchllm("status", output).out
    figures = json.loads(batchllm("status", output, "--json").out)
    assert (figures["rows"], figures["counts"]["answered"], figures["rows_left"]) == (12, 11, 0)
    shown = batchllm("show", output, 2).out
    assert "The left ear stopped working" in shown
    assert "HTTP 200" in shown
    assert batchllm("export", output, "-o", tmp_path / "copy.csv").status == 0
    assert (tmp_path / "copy.csv").read_bytes() == output.read_bytes()
    assert batchllm("export", output, "-o", "-").out.encode() == output.read_bytes()
    assert batchllm("export", output, "-o", tmp_path / "copy.jsonl").status == 0
    lines = (tmp_path / "copy.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines][:2] == ["r-001", "r-002"]
    assert batchllm("clean", output).status == 0
    assert output.exists()
    assert not list(samples.glob("*.journal*")) and not list(samples.glob("*.lock"))


def test_a_budget_that_is_used_up_leaves_nothing_in_flight_and_show_says_what_was_not_sent(
    batchllm: Command, samples: Path
) -> None:
    stopped = batchllm("classify", samples / "reviews.csv", *SIMULATOR, "--max-requests", 3)
    assert stopped.status == 3
    assert "in flight" not in stopped.err
    output = samples / "reviews.classify.simulated.csv"
    last = batchllm("show", output, 11).out
    assert last.endswith("not sent yet\n") and "attempt" not in last
    assert "not sent yet" not in batchllm("show", output, 1).out


def test_a_row_that_could_not_be_sent_is_built_again_with_retry_failed(
    batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    (tmp_path / "in.csv").write_text("text,photo\nwhat is it,cat.png\n")
    (tmp_path / "media").mkdir()
    words = (
        "run",
        "-p",
        "{{ text }}",
        tmp_path / "in.csv",
        "--image",
        "photo",
        "--media-root",
        tmp_path / "media",
        *at(server),
    )
    assert batchllm(*words).status == 1
    (tmp_path / "media" / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 20)
    assert batchllm(*words).status == 1
    assert server.ledger.requests == 0
    assert batchllm(*words, "--retry-failed").status == 0
    assert server.ledger.requests == 1


def test_two_outputs_cannot_use_one_journal_at_once(batchllm: Command, samples: Path, tmp_path: Path) -> None:
    from batchllm.journal import JobLock

    words = ("classify", samples / "reviews.csv", *SIMULATOR, "--journal", tmp_path / "shared.journal")
    with JobLock(tmp_path / "shared.journal.lock"):
        assert batchllm(*words, "-o", tmp_path / "a.csv").status == 75
    assert batchllm(*words, "-o", tmp_path / "a.csv").status == 0


def test_a_run_after_one_that_died_says_which_rows_may_have_been_paid(
    batchllm: Command, samples: Path, server: Simulator
) -> None:
    with start_in_thread(SimulatorSettings(error_rate={"timeout": 1.0})) as silent:
        words = ("classify", str(samples / "reviews.csv"), *at(silent))
        running = subprocess.Popen([sys.executable, "-m", "batchllm", *words, "-q"])
        while silent.ledger.requests == 0 and running.poll() is None:
            time.sleep(0.01)
        running.kill()
        running.wait()
    said = batchllm("classify", samples / "reviews.csv", *at(server))
    assert said.status == 0
    assert "A run that died left 1 row possibly billed without an answer: 1\n" in said.err
    assert "Possibly billed without an answer: 1 request" in said.err


def test_what_a_signal_leaves_half_made_says_nothing() -> None:
    code = (
        "import os, signal\n"
        "from batchllm import cli\n"
        "class Half:\n"
        "    def __del__(self):\n"
        "        raise RuntimeError('half made')\n"
        "async def never(): pass\n"
        "def app():\n"
        "    half, coroutine = Half(), never()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "cli.command_line = lambda: app\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert done.stderr == "Stopped by SIGTERM. Run the same command to go on.\n"


def test_the_line_before_the_run_names_column_limit_and_temperature(batchllm: Command, samples: Path) -> None:
    said = batchllm("classify", samples / "reviews.csv", *SIMULATOR)
    assert "column review, at most 10 tokens an answer, temperature 0," in said.err
    said = batchllm("run", "-p", "Say {{ text }}", samples / "reviews.csv", *SIMULATOR)
    assert "column review, no limit of an answer set, temperature not set," in said.err


def test_settings_that_some_requests_lack_are_told_as_such() -> None:
    settings = AnswerSettings("text", 0, (11, 150, None), (0.3, None))
    limits = "at most 11 to 150 tokens an answer (some requests set no limit)"
    assert settings.to_text() == f"column text, {limits}, temperature 0.3 (some requests set none)"


def test_an_input_in_a_folder_that_does_not_exist_is_no_fault_of_the_output(batchllm: Command) -> None:
    said = batchllm("classify", "gone/in.csv", *SIMULATOR)
    assert said.status == 65 and "gone/in.csv: cannot be opened" in said.err
    assert batchllm("classify", "gone/in.csv", "-o", "gone/out.csv", *SIMULATOR).status == 65


def test_a_question_beside_an_answer_is_not_classified_in_silence(batchllm: Command, tmp_path: Path) -> None:
    source = tmp_path / "q.csv"
    source.write_text("id,question,answer\n1,What is the capital of France?,Paris\n")
    said = batchllm("classify", source, *SIMULATOR)
    assert said.status == 2
    assert "several columns read like text: question, answer; say which it is with --column NAME" in said.err
    said = batchllm("classify", source, *SIMULATOR, "--column", "question")
    assert said.status == 0
    assert "column question," in said.err


def finished(folder: Path) -> Path:
    """An input of 38 rows, whose job with the output ``r.csv`` is finished."""
    source = folder / "in.csv"
    source.write_text("text\n" + "".join(f"text number {row} is good\n" for row in range(38)))
    return source


def test_a_trial_never_replaces_a_finished_output(batchllm: Command, tmp_path: Path) -> None:
    output = tmp_path / "r.csv"
    words = ("classify", finished(tmp_path), *SIMULATOR, "-o", output)
    assert batchllm(*words).status == 0
    before = output.read_bytes()
    said = batchllm(*words, "-n", 3)
    assert said.status == 0
    assert output.read_bytes() == before
    assert len(rows_of(tmp_path / "r.trial.csv")) == 3
    assert f"{output} holds the finished job and stays as it is" in said.err


def test_a_trial_shows_what_was_asked_beside_the_answer_and_writes_the_named_file(
    batchllm: Command, tmp_path: Path
) -> None:
    output = tmp_path / "r.csv"
    words = ("classify", finished(tmp_path), *SIMULATOR, "-o", output)
    said = batchllm(*words, "-n", 2)
    assert re.search(r"asked: text number 0 is good\n +label: (positive|negative|neutral)\n", said.err)
    assert len(rows_of(output)) == 2
    status = batchllm("status", output).out
    assert "trial finished" in status and "36 to go" in status
    said = batchllm("clean", output)
    assert (said.status, said.err.count("only a trial of the job is finished")) == (2, 1)
    said = batchllm(*words)
    assert "2 answered already" in said.err
    assert len(rows_of(output)) == 38
    assert "finished" in batchllm("status", output).out
    assert batchllm("clean", output).status == 0


@pytest.mark.parametrize(
    "more", [("--max-requests", 100), ("--max-cost", 5, "--max-tokens", 90), ("-n", 3), ()]
)
def test_only_accept_change_pays_again_and_a_refusal_changes_nothing(
    more: tuple[object, ...], batchllm: Command, tmp_path: Path, server: Simulator
) -> None:
    output = tmp_path / "r.csv"
    words = (
        "run",
        finished(tmp_path),
        "--provider",
        "simulator",
        "--base-url",
        server.base_url,
        "-o",
        output,
    )
    assert batchllm(*words, "-p", "Say {{ text }}").status == 0
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    said = batchllm(*words, "-p", "Shout {{ text }}", *more)
    assert said.status == 2
    assert server.ledger.requests == 38
    rows = 3 if "-n" in more else 38
    assert "--prompt or --template changed from 'Say {{ text }}' to 'Shout {{ text }}'" in said.err
    assert (
        f"{rows} rows that have an answer would be paid again, for $0; agree with --accept-change" in said.err
    )
    status = batchllm("status", output).out
    assert f"{output}: finished" in status and "38 of 38 rows answered" in status
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert batchllm(*words, "-p", "Shout {{ text }}", *more, "--accept-change").status == 0
    assert server.ledger.requests == 38 + rows
    if rows == 3:
        said = batchllm(*words, "-p", "Shout {{ text }}")
        assert said.status == 2
        assert "35 rows that have an answer would be paid again" in said.err


def test_trials_of_two_prompts_do_not_refuse_the_job_of_the_second(batchllm: Command, tmp_path: Path) -> None:
    words = ("run", finished(tmp_path), *SIMULATOR)
    assert batchllm(*words, "-p", "Say {{ text }}", "-n", 3).status == 0
    assert batchllm(*words, "-p", "Shout {{ text }}", "-n", 3).status == 2
    assert batchllm(*words, "-p", "Shout {{ text }}", "-n", 3, "--accept-change").status == 0
    assert batchllm(*words, "-p", "Shout {{ text }}").status == 0


def test_rows_that_failed_are_not_called_answered(batchllm: Command, samples: Path, tmp_path: Path) -> None:
    words = ("run", "-p", "Say {{ text }}", samples / "articles.csv", *SIMULATOR, "--schema", "missing text",
             "--max-tokens", 1, "--reask", 0, "--no-early-stop")  # fmt: skip
    assert batchllm(*words).status == 1, "an object of one token is no JSON"
    second = batchllm(*words)
    assert second.status == 1
    assert "4 failed before (--retry-failed asks again)" in second.err
    assert "answered already" not in second.err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("-m", "a", "-m", "b"), "--model is given twice"),
        (("-m", "a", "--model", "b"), "--model is given twice"),
        (("--param", "top_p=1", "--param", "top_p=0.5"), "--param names 'top_p' twice"),
        (("-n", "0"), "--limit (-n) must be a whole number of at least 1, not '0'"),
        (("--wait",), "--wait waits for batches; add --via batch"),
        (("--dry-run", "--json", "--curl"), "--json and --curl exclude each other"),
    ],
)
def test_what_would_be_ignored_is_refused(
    words: tuple[str, ...], complaint: str, batchllm: Command, samples: Path
) -> None:
    said = batchllm("classify", samples / "reviews.csv", *SIMULATOR, *words)
    assert said.status == 2
    assert complaint in said.err


def test_every_list_option_is_repeated_or_takes_commas(batchllm: Command, samples: Path) -> None:
    words = ("classify", samples / "reviews.csv", *SIMULATOR, "--dry-run", "-v")
    lists = {
        option.name: option
        for option in TABLE
        if option.kind.python_type is tuple and "classify" in option.tasks
    }
    assert {"keep", "drop", "columns", "add", "labels", "image", "gold", "reuse"} <= lists.keys()
    assert all(
        option.kind.repeated or option.kind.by_comma for option in lists.values() if option.name != "shard"
    )
    one = batchllm(*words, "--keep", "id,review", "--add", "cost", "--labels", '"a, b",c,d')
    other = batchllm(
        *words, "--keep", "id", "--keep", "review", "--add", "cost", "--labels", '"a, b"', "--labels", "c,d"
    )
    assert one.status == other.status == 0, other.err
    assert one.out == other.out
    assert "--keep names 'id' twice" in batchllm(*words, "--keep", "id", "--keep", "id").err


def test_the_input_may_come_from_the_environment(
    batchllm: Command, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batchllm("classify", *SIMULATOR).status == 2
    monkeypatch.setenv("BATCHLLM_INPUT", str(samples / "reviews.csv"))
    assert batchllm("classify", *SIMULATOR).status == 0


def test_a_label_with_a_comma_reaches_the_model_with_its_ends_visible(
    batchllm: Command, samples: Path, server: Simulator
) -> None:
    words = ("classify", samples / "reviews.csv", "-n", 1, "--no-early-stop", *at(server))
    batchllm(*words, "--labels", '"Home, Garden",Toys')
    (sent,) = [json.loads(received.body) for received in server.received if received.method == "POST"]
    assert (
        'nothing else: "Home, Garden", "Toys" (without the quotation marks' in sent["messages"][0]["content"]
    )
    assert batchllm(*words, "--labels", '"Home, Garden,Toys').status == 2


def test_a_variable_is_a_list_where_the_template_has_a_list(
    batchllm: Command, samples: Path, server: Simulator
) -> None:
    words = ("run", "-t", "classify", samples / "reviews.csv", "-n", 1, *at(server))
    batchllm(*words, "--var", 'labels=good,"bad, or worse"')
    (sent,) = [json.loads(received.body) for received in server.received if received.method == "POST"]
    assert '"good", "bad, or worse"' in sent["messages"][0]["content"]


def test_answers_that_were_cut_off_are_counted_aloud(batchllm: Command, samples: Path) -> None:
    words = ("run", "-p", "Say {{ text }}", samples / "articles.csv", *SIMULATOR, "--no-early-stop")
    said = batchllm(*words, "--max-tokens", 2)
    assert (
        "Cut off at the limit of an answer: 4 answers; the same command with --retry-cut-off --max-tokens N"
        in said.err
    )


def test_the_journal_may_be_named_to_look_at_a_job(batchllm: Command, tmp_path: Path) -> None:
    output, journal = tmp_path / "r.csv", tmp_path / "kept.db"
    words = ("classify", finished(tmp_path), *SIMULATOR, "-o", output, "--journal", journal)
    assert batchllm(*words).status == 0
    assert "finished" in batchllm("status", output, "--journal", journal).out
    assert "row 2 of" in batchllm("show", output, 2, "--journal", journal).out
    said = batchllm("export", output, "--journal", journal, "-o", tmp_path / "so-far.jsonl")
    assert said.status == 0, said.err
    assert len((tmp_path / "so-far.jsonl").read_text().splitlines()) == 38
    assert (
        json.loads((tmp_path / "so-far.jsonl").read_text().splitlines()[0])["text"] == "text number 0 is good"
    )


def test_answers_that_were_cut_off_are_asked_for_again_with_the_option_that_the_summary_names(
    batchllm: Command, samples: Path, server: Simulator
) -> None:
    words = ("run", "-p", "Say {{ text }}", samples / "articles.csv", *at(server), "--no-early-stop")
    batchllm(*words, "--max-tokens", 2)
    refused = batchllm(*words, "--max-tokens", 500)
    assert refused.status == 2
    assert "--max-tokens changed from 2 to 500" in refused.err and "--retry-cut-off" in refused.err
    refused = batchllm(*words, "--retry-cut-off", "--max-tokens", 2)
    assert (refused.status, server.ledger.requests) == (2, 4)
    assert "needs a limit higher than the one that answers were cut off at (2 tokens)" in refused.err
    said = batchllm(*words, "--retry-cut-off", "--max-tokens", 500)
    assert said.status == 0, said.err
    assert "4 rows, 4 cut off and asked again, any at http://127.0.0.1:" in said.err
    assert "at most 500 tokens an answer" in said.err
    assert "Cut off" not in said.err
    assert server.ledger.requests == 8
    assert {row["finish_reason"] for row in rows_of(samples / "articles.run.csv")} == {"stop"}


@pytest.mark.parametrize("to", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("source", ["csv", "tsv", "jsonl"])
def test_the_suffix_decides_the_format_of_an_export(
    batchllm: Command, tmp_path: Path, source: str, to: str
) -> None:
    wanted = [{"id": str(number), "text": f"so, good {number}"} for number in range(3)]
    path = tmp_path / f"in.{source}"
    if source == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in wanted))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["id", "text"], delimiter={"csv": ",", "tsv": "\t"}[source])
            writer.writeheader()
            writer.writerows(wanted)
    output, copy = tmp_path / f"out.{source}", tmp_path / f"copy.{to}"
    assert batchllm("classify", path, *SIMULATOR, "-o", output).status == 0
    assert batchllm("export", output, "-o", copy).status == 0
    with copy.open(newline="") as file:
        rows = (
            [json.loads(line) for line in file]
            if to == "jsonl"
            else list(csv.DictReader(file, delimiter={"csv": ",", "tsv": "\t"}[to]))
        )
    assert [{"id": row["id"], "text": row["text"]} for row in rows] == wanted
    assert all(row["label"] for row in rows)


def test_clean_finds_a_job_by_its_journal(batchllm: Command, tmp_path: Path) -> None:
    output, journal = tmp_path / "r.csv", tmp_path / "kept.db"
    batchllm("classify", finished(tmp_path), *SIMULATOR, "-o", output, "--journal", journal, "-n", 3)
    refused = batchllm("clean", output, "--journal", journal)
    assert (refused.status, journal.exists()) == (2, True)
    assert "trial" in refused.err
    batchllm("classify", finished(tmp_path), *SIMULATOR, "-o", output, "--journal", journal)
    assert batchllm("clean", "--journal", journal).status == 0
    assert output.exists() and not journal.exists()
    assert "leave out one" in batchllm("clean", "--journal", journal, "--older-than", "1d").err
