"""Writes a report as one page of HTML that needs nothing beside itself."""

from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from batchllm import __version__
from batchllm.errors import UsageError
from batchllm.evaluate.values import shown
from batchllm.formats import AtomicFile
from batchllm.printable import one_line
from batchllm.report import words
from batchllm.report.charts import can_draw
from batchllm.report.report import Report, RowHeadings
from batchllm.report.rows import STATES, FittedRows, fit_rows
from batchllm.report.sections import charts_of, confusion_of
from batchllm.report.texts import clean

MAX_BYTES = 5_000_000
"""The size of a page."""
MARK = '<meta name="generator" content="batchllm'
_SPARE_BYTES = 20_000


def write_page(report: Report, path: Path) -> int:
    """Writes the page; returns its size in bytes.

    Raises:
        UsageError: The file exists and is no report.
        CannotWrite, StorageFailure: It cannot be written.
    """
    check_page(path)
    data = page_of(report)
    with AtomicFile(path) as target:
        target.write(data)
        target.commit()
    return len(data)


def check_page(path: Path) -> None:
    """Refuses to replace a file that is no report.

    Raises:
        UsageError: The file exists and is no report.
    """
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb") as file:
        if MARK.encode() not in file.read(2_000):
            raise UsageError(f"{path} exists and is no report of batchllm; name another file with -o")


def page_of(report: Report) -> bytes:
    """Returns the page, of at most ``MAX_BYTES``."""
    page = _Page(report)
    budget = MAX_BYTES - _SPARE_BYTES - len(page.render(FittedRows((), report.figures.rows, None)))
    while True:
        found = page.render(fit_rows(report.rows, report.figures.rows, budget))
        if len(found) <= MAX_BYTES:
            return found
        budget -= len(found) - MAX_BYTES + _SPARE_BYTES


class _Page:
    def __init__(self, report: Report) -> None:
        folder = files("batchllm.report")
        self._style = folder.joinpath("page.css").read_text("utf-8") + _labels(report.row_headings)
        self._script = folder.joinpath("page.js").read_text("utf-8")
        environment = Environment(
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters |= {
            "number": words.number,
            "money": words.money,
            "content": content,
            "line": one_line,
        }
        environment.globals |= {"share": words.share, "sentence": words.distribution_words}
        self._template = environment.from_string(folder.joinpath("page.html.jinja").read_text("utf-8"))
        self._values: dict[str, Any] = {
            "report": report,
            "figures": report.figures,
            "facts": report.facts,
            "asked": None if report.facts is None else report.facts.job,
            "charts": charts_of(report),
            "confusion": confusion_of(report.evaluation),
            "example": next((row for row in report.rows if row.exchanges), None),
            "policy": self._policy(),
            "style": Markup(self._style),  # noqa: S704 - a file of this package
            "script": Markup(self._script),  # noqa: S704 - a file of this package
            "version": __version__,
            "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "clean": clean,
            "draws": can_draw(),
            "shown": _shown,
        }

    def _policy(self) -> str:
        """Nothing is loaded, and no style or script runs but those of this package."""
        return (
            f"default-src 'none'; img-src data:; style-src '{_hash(self._style)}'; script-src '{_hash(self._script)}'; "
            "base-uri 'none'; form-action 'none'"
        )

    def render(self, fitted: FittedRows) -> bytes:
        present = {state for row in fitted.rows for state in row.states}
        states = [state for state in STATES if state in present]
        text = self._template.render(**self._values, fitted=fitted, states=states)
        return text.encode("utf-8", "replace")


def _labels(headings: RowHeadings) -> str:
    """Returns the style that names the cells of a row on a phone, where they stand below each other."""
    names = ["state", headings.asked, headings.answer, headings.gold, *headings.others, headings.agreement]
    rules = []
    for place, name in enumerate((name for name in names if name is not None), 2):
        safe = "".join(sign for sign in name if sign.isalnum() or sign in " _-.").strip()
        rules.append(f'#rows td:nth-child({place})::before {{ content: "{safe}: "; }}')
    return "@media screen and (max-width: 40rem) {\n" + "\n".join(rules) + "\n}\n"


def _shown(value: Any) -> str:
    return ", ".join(map(shown, value)) if isinstance(value, list) else shown(value)


def _hash(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def content(text: str) -> Markup:
    """Escapes a text for the content of an element; quotes stay, which saves space in JSON."""
    return Markup(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))  # noqa: S704
