"""A report in a real Chromium, driven by Playwright: what it loads, and whether it can be used and harmed."""

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batchllm.report import make_report, write_page
from batchllm.report.rows import STATES
from tests.test_report import hostile_output, write_rows

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


class Watched:
    """A page in the browser, with everything that it asked for and complained about.

    Attributes:
        page: The page.
        requests: The URLs that it asked for, but for itself and what it has in itself.
        complaints: Errors of scripts, and messages of the console.
    """

    def __init__(self, browser: "Browser", path: Path, **context: Any) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page: Page = browser.new_context(**context).new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())
        own = (path.as_uri(), "data:")
        self.requests = [url for url in self.requests if not url.startswith(own)]

    def violations(self) -> list[str]:
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page)
        return [found.generate_report()] if found.violations_count else []


def shows(page: "Page", pattern: str, timeout: int = 5_000) -> None:
    """Waits until the page says how many rows it shows; the policy forbids to wait for an expression."""
    from playwright.sync_api import expect

    expect(page.locator("#shown")).to_have_text(re.compile(pattern), timeout=timeout)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every section that files alone can have: gold, two outputs, samples, failures."""
    folder = tmp_path_factory.mktemp("report")
    dice = random.Random(1)
    labels = ["positive", "negative", "neutral", "积极"]
    columns = [
        "text",
        "gold",
        "label",
        "agreement",
        "samples",
        "finish_reason",
        "prompt_tokens",
        "cost",
        "error",
    ]
    paths = []
    for name in ("one", "other"):
        rows = []
        for n in range(120):
            broken = dice.random() < 0.1
            label = "" if broken else dice.choice(labels)
            error = f"HTTP 500: broke at {n}" if broken else ""
            finish = "" if broken else dice.choice(["stop", "stop", "length"])
            rows.append([f"text number {n}", labels[n % 4], label, "" if broken else dice.choice([0.6667, 1]), "[]",
                         finish, dice.randint(50, 900), 0.001 * n, error])  # fmt: skip
        paths.append(write_rows(folder / f"{name}.csv", columns, rows))
    write_page(make_report(paths[0], paths[1:], gold="gold"), folder / "page.html")
    return folder / "page.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_asks_for_nothing_complains_of_nothing_and_is_accessible(
    browser: "Browser", path: Path, scheme: Any, width: int
) -> None:
    watched = Watched(browser, path, color_scheme=scheme, viewport={"width": width, "height": 900})
    assert watched.requests == []
    assert watched.violations() == []
    assert watched.complaints == []
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
    loaded = watched.page.evaluate("[...document.images].map(image => image.naturalWidth > 0)")
    assert loaded
    assert all(loaded)


def test_the_page_of_a_run_is_accessible_too(browser: "Browser", samples: Path) -> None:
    gold = ("--gold", "gold")
    # In processes of their own, since Playwright has an event loop in this one.
    for words in (
        (
            "classify",
            "labelled_reviews.csv",
            "-o",
            "out.csv",
            "--provider",
            "simulator",
            "--column",
            "text",
            *gold,
        ),
        ("report", "out.csv", *gold),
    ):
        subprocess.run(
            [sys.executable, "-m", "batchllm", *words], cwd=samples, check=True, capture_output=True
        )
    watched = Watched(browser, samples / "out.report.html")
    watched.page.locator("#rows details summary").first.click()
    assert "Raw answer" in watched.page.locator("#rows tbody tr").first.inner_text()
    assert (watched.requests, watched.violations(), watched.complaints) == ([], [], [])


def test_search_and_filter_show_the_rows_that_they_name(browser: "Browser", path: Path) -> None:
    page = Watched(browser, path).page
    rows = page.locator("#rows tbody tr:visible")
    assert rows.count() == 120
    page.get_by_label("Search").fill("NUMBER 11")
    shows(page, r"^11 of")
    assert [text.split("\t")[2] for text in rows.all_inner_texts()] == [
        f"text number {n}" for n in (11, *range(110, 120))
    ]
    page.get_by_label("Search").fill("")
    page.get_by_label("Show").select_option("failed")
    shows(page, r"^(?!120 )")
    assert rows.count() > 0
    assert all("failed" in text.split("\t")[1] for text in rows.all_inner_texts())
    offered = page.locator("#state option").all_inner_texts()[1:]
    assert set(offered) <= set(STATES)
    assert "wrong" in offered


def test_a_click_sorts_and_another_turns_the_order(browser: "Browser", path: Path) -> None:
    page = Watched(browser, path).page
    heading = page.locator("#rows thead th").first
    for order, expected in (("ascending", range(1, 121)), ("descending", range(120, 0, -1))):
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == order
        assert page.locator("#rows tbody th").all_inner_texts() == list(map(str, expected))
    page.get_by_role("button", name="label").focus()
    page.keyboard.press("Enter")
    texts = [text.split("\t")[3] for text in page.locator("#rows tbody tr").all_inner_texts()]
    assert len({key for key in texts if "HTTP" not in key}) == sum(
        key != before for key, before in zip(texts, ["", *texts], strict=False) if "HTTP" not in key
    )


def test_without_javascript_every_row_and_figure_is_there(browser: "Browser", path: Path) -> None:
    page = Watched(browser, path, java_script_enabled=False).page
    assert page.locator("#rows tbody tr").count() == 120
    assert not page.get_by_label("Search").is_visible()
    assert page.locator("#rows thead button").count() == 0
    assert page.get_by_text("Confusion matrix").is_visible()


def test_the_page_can_be_printed(browser: "Browser", path: Path) -> None:
    page = Watched(browser, path, color_scheme="dark").page
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.get_by_label("Search").is_visible()
    assert page.pdf()[:4] == b"%PDF"


def test_a_hostile_file_changes_nothing_of_the_page(browser: "Browser", tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    write_page(make_report(hostile_output(tmp_path), [hostile_output(tmp_path)], gold="<b>text</b>"), path)
    watched = Watched(browser, path)
    page = watched.page
    assert page.title() == "Report on hostile.jsonl"
    assert (watched.requests, watched.complaints) == ([], [])
    assert page.locator("h1").count() == 1
    assert page.locator("#rows tbody tr").count() == 30
    cells = page.evaluate("[...document.querySelectorAll('#rows tbody tr')].map(row => row.cells.length)")
    assert len(set(cells)) == 1
    assert page.locator("script").count() == 1
    assert page.locator("a").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    page.get_by_label("Search").fill("<script>")
    shows(page, r"^4 of")
    assert page.locator("#rows tbody tr:visible").count() == 4
    assert watched.violations() == []


def test_five_thousand_rows_are_searched_within_seconds(browser: "Browser", tmp_path: Path) -> None:
    rows = [[n, f"text {n} " * 100, "x", "stop"] for n in range(5_000)]
    output = write_rows(tmp_path / "m.csv", ["id", "text", "label", "finish_reason"], rows)
    write_page(make_report(output), tmp_path / "page.html")
    page = Watched(browser, tmp_path / "page.html").page
    page.get_by_label("Search").fill("text 4321 ")
    shows(page, r"^1 of 5,000 shown$", timeout=20_000)
