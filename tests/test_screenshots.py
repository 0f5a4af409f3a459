"""The pictures of the documentation: a script makes them from real runs, and what they show fits the terminal."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest
from wcwidth import wcswidth

from docs import screenshots

IMAGES = Path(screenshots.__file__).parent / "images"
SHOWN = {
    "bar": (r"rows/s,", "s left, $", "failed,", "█"),
    "summary": ("of 400 rows answered", "Written: reviews.classify.csv", "Failed: ", "to ask again:"),
    "stopped": (
        "requests in flight get up to 30 s",
        "rows are kept; run the same command to go on, or batchllm",
    ),
    "refusal": ("--labels changed from bug, praise, question to bug, praise", "--accept-change"),
    "help": ("  batchllm classify reviews.csv -n 10 --provider simulator",),
}
"""What each picture has to show."""

PICTURES = [
    (scene.name, columns, theme)
    for scene in screenshots.SCENES
    for columns in screenshots.COLUMNS
    for theme in screenshots.THEMES
]


def lines_of(picture: Path) -> list[str]:
    """The lines of a picture."""
    lines: dict[float, str] = defaultdict(str)
    for text in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text"):
        lines[float(text.attrib["y"])] += (text.text or "").replace("\xa0", " ").rstrip("\n")
    return [lines[y] for y in sorted(lines)]


def check(folder: Path, name: str, columns: int, theme: str) -> None:
    """Holds a picture to the width of its terminal, and to what it has to show."""
    lines = lines_of(folder / f"{name}-{columns}-{theme}.svg")
    assert all(wcswidth(line) <= columns for line in lines)
    assert len(lines) <= screenshots.LINES
    whole = " ".join(" ".join(lines).split())
    assert all(" ".join(words.split()) in whole for words in SHOWN[name])


@pytest.mark.parametrize(("name", "columns", "theme"), PICTURES)
def test_the_pictures_are_there_and_fit(name: str, columns: int, theme: str) -> None:
    check(IMAGES, name, columns, theme)
    assert (IMAGES / f"{name}-{columns}-{theme}.svg").stat().st_size < 20_000


def test_there_is_no_other_picture() -> None:
    named = {f"{name}-{columns}-{theme}.svg" for name, columns, theme in PICTURES}
    assert {path.name for path in IMAGES.glob("*.svg")} == named


@pytest.mark.proof
def test_the_script_makes_the_pictures_anew(tmp_path: Path) -> None:
    script = [sys.executable, screenshots.__file__, str(tmp_path)]
    assert subprocess.run(script, check=False, timeout=300).returncode == 0
    for name, columns, theme in PICTURES:
        check(tmp_path, name, columns, theme)
