"""Draws charts to SVG with matplotlib, once for light and once for dark pages.

A chart goes into the page as an image, so nothing in it can run, whatever a label holds. Texts stay texts, so that the
reader's fonts have the characters. Labels stand above their bars in lines that fit any font, so none is cut.
"""

import io
import unicodedata
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from batchllm.journal.history import RunHistory
from batchllm.printable import printable
from batchllm.report.distribution import Bin

WIDTH = 480
_WIDE = set("MW@%&—…―")
_LINE, _BAR, _GAP = 17, 13, 9


@dataclass(frozen=True, slots=True)
class Colours:
    """The colours of a chart: of text, of lines, and of the series."""

    text: str
    line: str
    series: tuple[str, str, str]


LIGHT = Colours("#1f2933", "#c5ced8", ("#2563a8", "#c2410c", "#8a6d00"))
DARK = Colours("#e4e9ef", "#4a5663", ("#6aa9ec", "#fb923c", "#e0c04a"))


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart as data URIs of two images, for light and dark pages, and its size in pixels."""

    light: str
    dark: str
    width: int
    height: int


def can_draw() -> bool:
    """Whether matplotlib is there: it comes with the extra ``report``."""
    return find_spec("matplotlib") is not None


def bar_chart(counts: Mapping[str, int]) -> Picture:
    """Draws a bar for each label, which is written above it with its count."""
    lines = [wrapped(f"{printable(label, keep='')}  {count:,}") for label, count in counts.items()]
    height = sum(len(each) * _LINE + _BAR + _GAP for each in lines)
    most = max(counts.values(), default=0) or 1

    def draw(figure: Any, colours: Colours) -> None:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(height, 0)
        axes.axis("off")
        top = 0
        for each, count in zip(lines, counts.values(), strict=True):
            for line in each:
                axes.text(0, top + 12, line, color=colours.text, parse_math=False)
                top += _LINE
            axes.barh(top + _BAR / 2, WIDTH, _BAR, color=colours.line, alpha=0.35)
            axes.barh(top + _BAR / 2, max(1.0, WIDTH * count / most), _BAR, color=colours.series[0])
            top += _BAR + _GAP

    return _picture(draw, height)


def histogram(bins: Sequence[Bin], unit: str, counted: str = "rows") -> Picture:
    """Draws how often values occur.

    Args:
        bins: The bars.
        unit: What is written below the axis.
        counted: What occurs, which is written beside it.
    """

    def draw(figure: Any, colours: Colours) -> None:
        axes = _axes(figure, colours)
        axes.bar(
            [it.start for it in bins],
            [it.count for it in bins],
            [(it.end - it.start) * 0.92 for it in bins],
            align="edge",
            color=colours.series[0],
        )
        axes.set_xlabel(unit, color=colours.text)
        axes.set_ylabel(counted, color=colours.text)
        if all((it.end - it.start).is_integer() for it in bins):
            axes.xaxis.get_major_locator().set_params(integer=True)

    return _picture(draw, 230)


def time_chart(history: RunHistory) -> Picture:
    """Draws the requests of a run over time, by what they brought."""
    scale, unit = _time_unit(history.step_s * len(history.moments))
    starts = [moment.start_s / scale for moment in history.moments]
    series = [
        ("answered", [moment.answered for moment in history.moments], ""),
        ("refused", [moment.refused for moment in history.moments], "///"),
        ("failed", [moment.failed for moment in history.moments], "xxx"),
    ]

    def draw(figure: Any, colours: Colours) -> None:
        axes = _axes(figure, colours)
        below = [0] * len(starts)
        for (name, counts, hatch), colour in zip(series, colours.series, strict=True):
            if name != "answered" and not any(counts):
                continue
            axes.bar(
                starts,
                counts,
                history.step_s / scale,
                bottom=below,
                align="edge",
                color=colour,
                hatch=hatch,
                edgecolor=colours.line if hatch else colour,
                linewidth=0,
                label=name,
            )
            below = [low + count for low, count in zip(below, counts, strict=True)]
        axes.set_xlabel(f"{unit} since the first request", color=colours.text)
        axes.set_ylabel("requests", color=colours.text)
        legend = axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
        for text in legend.get_texts():
            text.set_color(colours.text)

    return _picture(draw, 250)


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds < 180:
        return 1, "seconds"
    return (60, "minutes") if seconds < 3 * 3600 else (3600, "hours")


def _axes(figure: Any, colours: Colours) -> Any:
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(colours.line)
    axes.tick_params(colors=colours.text, length=3)
    axes.grid(axis="y", color=colours.line, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    axes.locator_params(axis="y", nbins=5)
    axes.yaxis.get_major_locator().set_params(integer=True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, place: f"{value:,.10g}")
    return axes


def _picture(draw: Callable[[Any, Colours], None], height: int) -> Picture:
    uris = [_drawn(draw, colours, height) for colours in (LIGHT, DARK)]
    return Picture(uris[0], uris[1], WIDTH, height)


def _drawn(draw: Callable[[Any, Colours], None], colours: Colours, height: int) -> str:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "batchllm",
        "font.size": 12,
        "font.family": "DejaVu Sans",
    }
    with warnings.catch_warnings(), mpl.rc_context(settings):
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the reader's fonts count
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        FigureCanvasSVG(figure)
        draw(figure, colours)
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue().decode().replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    return "data:image/svg+xml;base64," + b64encode(svg.encode()).decode()


def wrapped(text: str) -> list[str]:
    """Returns a text in lines that fit into a chart, in any usual font; at blanks where there are some."""
    return list(_lines(text)) or [""]


def _lines(text: str) -> Iterator[str]:
    start, blank, width = 0, -1, 0.0
    for place, sign in enumerate(text):
        width += _width(sign)
        if width > WIDTH and place > start:
            end = blank if blank > start else place
            yield text[start:end].rstrip()
            start = end + 1 if blank > start else end
            blank, width = -1, sum(map(_width, text[start : place + 1]))
        if sign == " ":
            blank = place
    if text[start:].strip():
        yield text[start:].rstrip()


def _width(sign: str) -> float:
    """The most pixels that a character takes in a usual font of 12 pixels."""
    if unicodedata.east_asian_width(sign) in "WF" or sign in _WIDE or ord(sign) > 0x2E7F:
        return 13
    return 10 if sign.isupper() or not sign.isascii() else 8.4
