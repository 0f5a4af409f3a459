"""``batchllm report``: from files to figures and a page."""

import csv
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm import UsageError, run
from batchllm.report import make_report, write_page
from batchllm.report.charts import WIDTH, _width, wrapped
from batchllm.report.distribution import Distribution
from batchllm.report.page import MAX_BYTES, page_of
from batchllm.report.picks import MOST_ROWS
from batchllm.report.rows import ReportRow, fit_rows
from batchllm.report.texts import LONGEST_TEXT, cut_text, size_of
from batchllm.simulator import ScriptedResponse, Simulator, SimulatorSettings, start_in_thread
from tests.command import Command
from tests.fakes import chat_body

HOSTILE = [
    "<script>document.title='run'</script>",
    "</script><script>document.title='run'</script>",
    "</td></tr></table><h1>gone</h1>",
    "javascript:document.title='run'",
    '"><img src=x onerror="document.title=1">',
    "<svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202eتجربة right to left \u2066",
    "]]><!--",
    "\x00\x07\x1b[31m",
    "&lt;b&gt; &amp; ",
    "=cmd|' /C calc'!A0",
    "😀" * 50,
    "$x^2$ \\frac{1}{0}",
    "x" * 1_000_000,
]


class Page(HTMLParser):
    """What a page has, as a parser sees it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    """Answers with the word behind ``=>``; refuses where that is ``refuse``, and is cut off where it is ``cut``."""

    def script(body: dict[str, Any]) -> ScriptedResponse:
        word = body["messages"][-1]["content"].rpartition("=>")[2].strip()
        if word == "refuse":
            return ScriptedResponse(
                status=400, body=json.dumps({"error": {"message": "no such 7 thing"}}).encode()
            )
        return ScriptedResponse(
            body=chat_body(word or "nothing", finish_reason="length" if word == "cut" else "stop")
        )

    with start_in_thread(SimulatorSettings(), script=script) as running:
        yield running


def write_rows(path: Path, columns: list[str], rows: list[list[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def answered(batchllm: Command, server: Simulator, folder: Path, texts: list[str], name: str = "out") -> Path:
    rows = write_rows(folder / f"{name}.in.csv", ["id", "text"], [[n, text] for n, text in enumerate(texts)])
    output = folder / f"{name}.csv"
    said = batchllm(
        "run",
        "-p",
        "{{ text }}",
        rows,
        "-o",
        output,
        "--base-url",
        server.base_url,
        "-m",
        "any",
        "-q",
        "--no-early-stop",
    )
    assert said.status in (0, 1), said.err
    return output


def figures(batchllm: Command, *words: object) -> dict[str, Any]:
    said = batchllm("report", *words, "--json")
    assert said.status == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_the_figures_say_what_was_asked_and_what_came(
    batchllm: Command, server: Simulator, tmp_path: Path
) -> None:
    output = answered(
        batchllm, server, tmp_path, ["a =>yes", "b =>yes", "c =>no", "d =>refuse", "e =>cut", ""]
    )
    found = figures(batchllm, output)
    assert (found["rows"], found["answered"], found["failed"], found["skipped"]) == (6, 4, 1, 1)
    assert found["cut_off"] == 1
    (reason,) = found["failed_by_reason"]
    assert reason["rows"] == 1
    assert reason["example_row"] == 4
    assert "no such 7 thing" in reason["example"]
    assert {"role": "user", "content": "{{ text }}"} in found["asked"]["messages"]
    assert found["asked"]["model"] == "any"
    assert found["requests"] == {"sent": 5, "answered": 4, "refused": 0}
    assert found["latency_s"]["count"] == 4
    assert sum(found["requests_over_time"]["answered"]) == 4
    assert sum(found["requests_over_time"]["failed"]) == 1
    assert found["notes"] == []


def test_refusals_of_a_rate_limit_are_counted(tmp_path: Path, batchllm: Command) -> None:
    rows = write_rows(tmp_path / "r.csv", ["text"], [["one"], ["two"], ["three"]])
    first = True

    def script(body: dict[str, Any]) -> ScriptedResponse:
        nonlocal first
        refuse, first = first, False
        if refuse:
            return ScriptedResponse(status=429, headers={"retry-after": "0"}, body=b"{}")
        return ScriptedResponse(body=chat_body("fine"))

    with start_in_thread(SimulatorSettings(), script=script) as server:
        batchllm("run", "-p", "{{ text }}", rows, "--base-url", server.base_url, "-m", "any", "-q")
    found = figures(batchllm, tmp_path / "r.run.csv")
    assert found["requests"]["refused"] == 1
    assert found["requests"]["answered"] == 3
    assert sum(found["requests_over_time"]["refused"]) == 1


def test_without_a_journal_the_page_leaves_out_what_it_knows_and_says_so(
    batchllm: Command, server: Simulator, tmp_path: Path
) -> None:
    output = answered(batchllm, server, tmp_path, ["a =>yes", "b =>no"])
    Path(f"{output}.journal").unlink()
    said = batchllm("report", output)
    assert said.status == 0
    page = (tmp_path / "out.report.html").read_text("utf-8")
    assert "no journal beside out.csv" in page
    assert "no journal beside out.csv" in said.err
    assert "What was asked" not in page
    assert "Raw answer" not in page
    found = figures(batchllm, output)
    assert found["asked"] is found["latency_s"] is found["requests_over_time"] is None
    assert found["answered"] == 2


def test_prompts_and_raw_answers_are_those_of_the_row(
    batchllm: Command, server: Simulator, tmp_path: Path
) -> None:
    output = answered(batchllm, server, tmp_path, ["one =>yes", "", "three =>refuse", "four =>no"])
    rows = make_report(output).rows
    assert [[each.prompt.partition("\n\n")[2] for each in row.exchanges] for row in rows] == [
        ["user: one =>yes"],
        [],
        ["user: three =>refuse"],
        ["user: four =>no"],
    ]
    assert '"content":"yes"' in rows[0].exchanges[0].reply.replace(" ", "")
    assert rows[2].exchanges[0].reply.startswith("HTTP 400")
    assert [row.states for row in rows] == [("answered",), ("skipped",), ("failed",), ("answered",)]


def test_an_output_that_was_sorted_gets_no_prompts_of_other_rows(
    batchllm: Command, server: Simulator, tmp_path: Path
) -> None:
    output = answered(batchllm, server, tmp_path, ["one =>yes", "two =>no"])
    head, *lines = output.read_text("utf-8").splitlines()
    output.write_text("\n".join([head, *reversed(lines)]) + "\n", "utf-8")
    report = make_report(output)
    assert not any(row.exchanges for row in report.rows)
    assert "changed since the job wrote it" in report.notes[0]


def test_an_input_that_was_changed_gives_no_prompts(
    batchllm: Command, server: Simulator, tmp_path: Path
) -> None:
    output = answered(batchllm, server, tmp_path, ["one =>yes", "two =>no"])
    write_rows(tmp_path / "out.in.csv", ["id", "text"], [[1, "other"], [2, "texts"]])
    report = make_report(output)
    assert not any(row.exchanges for row in report.rows)
    assert "The input was changed" in report.notes[0]


def test_known_answers_and_other_outputs_mark_the_rows(tmp_path: Path, batchllm: Command) -> None:
    columns = ["text", "gold", "label", "finish_reason", "error"]
    one = [["a", "x", "x", "stop", ""], ["b", "x", "y", "stop", ""], ["c", "y", "", "", "broken 17 times"]]
    other = [["a", "x", "x", "stop", ""], ["b", "x", "x", "stop", ""], ["c", "y", "y", "stop", ""]]
    first = write_rows(tmp_path / "one.csv", columns, one)
    second = write_rows(tmp_path / "other.csv", columns, other)
    report = make_report(first, [second], gold="gold")
    assert [row.states for row in report.rows] == [
        ("answered",),
        ("answered", "wrong", "outputs differ"),
        ("failed", "wrong", "outputs differ"),
    ]
    assert [row.others for row in report.rows] == [("x",), ("x",), ("y",)]
    assert [row.gold for row in report.rows] == ["x", "x", "y"]
    found = figures(batchllm, first, second, "--gold", "gold")
    assert (
        found["evaluation"]["accuracy"]
        == json.loads(batchllm("evaluate", first, "--gold", "gold", "--json").out)["accuracy"]
    )
    compared = json.loads(batchllm("compare", first, second, "--gold", "gold", "--json").out)
    assert found["comparison"] == compared
    page = page_of(report).decode()
    assert "Confusion matrix" in page
    assert compared["verdict"].replace("'", "&#39;") in page


def test_samples_are_shown_by_their_agreement(batchllm: Command, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "s.csv", ["text"], [["good"], ["bad"], ["so so"]])
    assert batchllm("classify", rows, "--provider", "simulator", "--samples", "3", "-q").status == 0
    output = tmp_path / "s.classify.simulated.csv"
    found = figures(batchllm, output)
    assert found["samples_agreement"]["count"] == 3
    report = make_report(output)
    assert all(len(row.exchanges) == 3 for row in report.rows)
    assert "Agreement of the samples" in page_of(report).decode()


def test_without_a_journal_the_agreement_of_samples_is_known_by_its_columns(
    batchllm: Command, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "s.csv", ["text"], [["good"], ["bad"], ["so so"]])
    assert batchllm("classify", rows, "--provider", "simulator", "--samples", "3", "-q").status == 0
    alone = (tmp_path / "s.classify.simulated.csv").rename(tmp_path / "alone.csv")
    report = make_report(alone)
    assert [row.asked for row in report.rows] == ["good", "bad", "so so"]
    assert all(row.agreement for row in report.rows)
    assert "Agreement of the samples" in page_of(report).decode()


def hostile_output(folder: Path) -> Path:
    columns = ["<b>text</b>", "label", "finish_reason", "error", "model"]
    rows = [[text, text[:150], "stop", None, text[:100]] for text in HOSTILE]
    rows += [[text, None, None, text, None] for text in HOSTILE]
    path = folder / "hostile.jsonl"
    path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows), "utf-8")
    return path


def test_nothing_that_a_row_holds_becomes_markup(tmp_path: Path) -> None:
    report = make_report(hostile_output(tmp_path))
    data = page_of(report)
    assert len(data) <= MAX_BYTES
    assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", data)
    assert max(len(text) for row in report.rows for text in row.texts()) < 1.1 * LONGEST_TEXT
    page = Page(data.decode())
    names = {tag for tag, _ in page.tags}
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not names & {"svg", "iframe", "object", "embed", "link", "base"}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert tag != "a" or attributes["href"] == "#rows"
        assert tag != "img" or (attributes["src"] or "").startswith("data:image/svg+xml;base64,")
    assert "</td></tr></table><h1>gone</h1>" in page.text
    assert "{{ 7 * 7 }}{% raw %}" in page.text


def test_the_policy_lets_nothing_be_loaded_and_only_the_own_script_run(tmp_path: Path) -> None:
    text = page_of(make_report(hostile_output(tmp_path))).decode()
    page = Page(text)
    policies = [attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv")]
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policies[0]
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*['\"]?(?:https?:)?//", text)
    assert " style=" not in text


def test_large_outputs_show_failures_and_a_sample_and_say_what_is_left_out(tmp_path: Path) -> None:
    many = MOST_ROWS + 3_000
    rows = [[n, f"text {n} " * 40, "x", "stop", ""] for n in range(many)]
    for n in range(100, many, 1_000):
        rows[n][2:] = ["", "", f"broken {n}"]
    report = make_report(
        write_rows(tmp_path / "m.csv", ["id", "text", "label", "finish_reason", "error"], rows)
    )
    assert len(report.rows) == MOST_ROWS
    assert sum("failed" in row.states for row in report.rows) == report.figures.failed == 8
    (reason,) = report.figures.reasons
    assert reason.rows == 8
    assert write_page(report, tmp_path / "page.html") <= MAX_BYTES
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "3,000 rows are left out" in text
    assert "8,000 rows" in text


@settings(max_examples=40)
@given(
    texts=st.lists(st.text(max_size=400).map(lambda text: text * 3), min_size=1, max_size=120),
    budget=st.integers(30_000, 200_000),
)
def test_rows_fit_their_budget_and_lose_nothing_that_fits(texts: list[str], budget: int) -> None:
    safe = [text.encode("utf-8", "replace").decode() for text in texts]
    rows = [
        ReportRow(number=n, states=("answered",), asked=text, answer="") for n, text in enumerate(safe, 1)
    ]
    fitted = fit_rows(rows, len(rows), budget)
    assert sum(size_of(row.asked) + 170 for row in fitted.rows) <= budget + 5 * len(rows)
    assert fitted.left_out == len(rows) - len(fitted.rows)
    if sum(size_of(text) + 170 for text in safe) <= budget:
        assert fitted.rows == tuple(rows)


@given(text=st.text(alphabet="ab<&é漢😀", max_size=300), limit=st.integers(0, 600))
def test_a_cut_text_is_a_beginning_that_fits(text: str, limit: int) -> None:
    found = cut_text(text, limit)
    if size_of(text) <= limit:
        assert found == text
    else:
        assert found.endswith("…")
        assert text.startswith(found[:-1])
        assert size_of(found[:-1]) <= limit


@settings(max_examples=60)
@given(values=st.lists(st.integers(0, 9_999), min_size=1, max_size=200))
def test_percentiles_are_those_of_numpy_and_bars_have_every_value(values: list[int]) -> None:
    found = Distribution()
    for value in values:
        found.add(value)
    for percent in (50, 90, 95, 99):
        assert found.percentile(percent) == np.percentile(values, percent, method="inverted_cdf")
    assert (found.total, found.least, found.greatest) == (sum(values), min(values), max(values))
    bins, left_out = found.bins()
    assert sum(it.count for it in bins) + left_out == len(values)
    for it in bins:
        inside = sum(it.start <= value < it.end for value in values)
        assert it.count == inside or it is bins[-1]


@given(values=st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=100))
def test_values_of_any_size_are_counted_to_four_digits(values: list[float]) -> None:
    found = Distribution()
    for value in values:
        found.add(value)
    exact = float(np.percentile(values, 50, method="inverted_cdf"))
    assert found.percentile(50) == pytest.approx(exact, rel=1e-3, abs=1e-300)
    bins, left_out = found.bins()
    assert sum(it.count for it in bins) + left_out == len(values)


@given(label=st.text(max_size=300))
def test_no_line_of_a_label_is_wider_than_its_chart_and_nothing_of_it_is_lost(label: str) -> None:
    lines = wrapped(label)
    assert "".join(lines).replace(" ", "") == label.replace(" ", "").strip() or label.strip() != label.strip(
        " "
    )
    for line in lines:
        assert sum(map(_width, line)) <= WIDTH + max(map(_width, line), default=0)


def test_without_matplotlib_the_figures_are_there_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = write_rows(tmp_path / "w.csv", ["text", "label", "finish_reason"], [["t", "x", "stop"]] * 4)
    for module in ("page", "sections"):
        monkeypatch.setattr(f"batchllm.report.{module}.can_draw", lambda: False)
    text = page_of(make_report(output)).decode()
    assert "pip install matplotlib" in text
    assert "x 4 (100.0 %)" in text
    assert "<img" not in text


def test_a_file_that_is_no_report_is_not_replaced(tmp_path: Path, batchllm: Command) -> None:
    output = write_rows(tmp_path / "o.csv", ["text", "label", "finish_reason"], [["t", "x", "stop"]])
    notes = tmp_path / "o.report.html"
    notes.write_text("<p>mine</p>")
    said = batchllm("report", output)
    assert said.status == 2
    assert notes.read_text() == "<p>mine</p>"
    page = tmp_path / "page.html"
    assert batchllm("report", output, "-o", page).status == 0
    assert batchllm("report", output, "-o", page).status == 0


def test_results_write_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    frame = pd.DataFrame({"text": ["good", "bad", "fine"], "gold": ["positive", "negative", "positive"]})
    result = run(frame, "classify", provider="simulator", column="text")
    text = result.report(tmp_path / "table.html", gold="gold").read_text("utf-8")
    assert "Against known answers" in text
    assert "What was asked" in text
    assert text.count("Raw answer") == 3
    frame.to_csv(tmp_path / "f.csv", index=False)
    result = run(tmp_path / "f.csv", "classify", provider="simulator", gold="gold")
    assert "Against known answers" in result.report(tmp_path / "file.html").read_text("utf-8")
    with pytest.raises(UsageError):
        result.report(tmp_path / "f.csv")
