"""Makes the pictures of the terminal in ``docs/images`` from real runs against the simulator.

    python docs/screenshots.py [FOLDER]

Each scene runs a command on a pseudo-terminal of 80 and of 120 columns. A terminal emulator (pyte) makes the screen of
what the command writes, and rich makes an SVG of the screen, for light and for dark pages. Nothing is drawn by hand.
"""

import fcntl
import io
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, MONOKAI, TerminalTheme
from rich.text import Text

from batchllm.simulator import SimulatorSettings, start_in_thread

COLUMNS = (80, 120)
LINES = 24
THEMES = {"light": DEFAULT_TERMINAL_THEME, "dark": MONOKAI}
DEADLINE_S = 60.0
LABELS = "--labels bug,praise,question"
PROGRAM = "import sys; from batchllm.cli import main; sys.argv[0] = 'batchllm'; main()"
PRICES = {"gpt-4o-mini": {"input_cost_per_token": 15e-8, "output_cost_per_token": 6e-7}}
PARTS = (
    ("The kettle", "The lid", "My order", "The app", "Your support"),
    ("arrived broken", "works every day", "has a new colour", "never answers", "saved my morning"),
)

SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g>
</g>
</svg>
"""
"""rich's own form loads its font from the network."""


@dataclass(frozen=True)
class Scene:
    """One picture.

    Attributes:
        name: The name of its file.
        command: What is typed.
        before: Commands that have to run before.
        until: The picture is taken when the screen shows this, and the command is stopped; at its end if empty.
        ctrl_c: Then press Ctrl-C, and take the picture at the end.
        top: Show the first lines instead of the last ones.
        faults: Faults of the simulator.
        latency_s: The time that the simulator takes for an answer.
    """

    name: str
    command: str
    before: tuple[str, ...] = ()
    until: str = ""
    ctrl_c: bool = False
    top: bool = False
    faults: tuple[tuple[str, float], ...] = ()
    latency_s: float = 0.0


SCENES = (
    Scene(
        "bar",
        f"batchllm classify reviews.csv {LABELS}",
        until=r" 6\d% .*rows/s, .* left",
        faults=(("500", 0.01),),
        latency_s=0.2,
    ),
    Scene(
        "summary",
        f"batchllm classify reviews.csv {LABELS}",
        faults=(("500", 0.02),),
        latency_s=0.05,
    ),
    Scene(
        "stopped",
        f"batchllm classify reviews.csv {LABELS}",
        until=r" 1\d% .*rows/s, .* left",
        ctrl_c=True,
        latency_s=0.4,
    ),
    Scene(
        "refusal",
        "batchllm classify reviews.csv --labels bug,praise",
        before=(f"batchllm classify reviews.csv {LABELS}",),
    ),
    Scene("help", "batchllm classify --help", top=True),
)


def main(folder: Path) -> None:
    """Makes every picture."""
    folder.mkdir(parents=True, exist_ok=True)
    for scene in SCENES:
        for columns in COLUMNS:
            screen = photograph(scene, columns)
            for theme in THEMES:
                name = f"{scene.name}-{columns}-{theme}.svg"
                (folder / name).write_text(
                    svg(screen, THEMES[theme], f"{scene.name}-{columns}-{theme}"), "utf-8"
                )


def photograph(scene: Scene, columns: int) -> pyte.Screen:
    """Returns what a terminal of this width shows of a scene."""
    settings = SimulatorSettings(error_rate=dict(scene.faults), latency_s=scene.latency_s, seed=7)
    with TemporaryDirectory() as folder, start_in_thread(settings) as server:
        (Path(folder) / "prices.json").write_text(json.dumps(PRICES))
        write_reviews(Path(folder) / "reviews.csv", 2_000 if scene.until else 400)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": folder,
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "OPENAI_API_KEY": "sk-none",
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_MODEL": "gpt-4o-mini",
            "BATCHLLM_PRICES": "prices.json",
            "BATCHLLM_MAX_ATTEMPTS": "1",
            "BATCHLLM_CONCURRENCY": "24",
        }
        run = Terminal(columns, environment, folder)
        for command in scene.before:
            run.type(command, shown=False)
        run.type(scene.command, until=scene.until, ctrl_c=scene.ctrl_c)
        return run.screen(top=scene.top)


def write_reviews(path: Path, rows: int) -> None:
    """Writes reviews that differ."""
    things, events = PARTS
    lines = (f"{things[n % 5]} {events[n // 5 % 5]} (order {n})." for n in range(rows))
    path.write_text("text\n" + "".join(f"{line}\n" for line in lines))


class Terminal:
    """A pseudo-terminal that runs one command after the other."""

    def __init__(self, columns: int, environment: dict[str, str], folder: str) -> None:
        self._columns = columns
        self._environment = environment
        self._folder = folder
        self._text = ""

    def type(self, command: str, *, shown: bool = True, until: str = "", ctrl_c: bool = False) -> None:
        """Runs a command until its end, or until it has written what ``until`` finds; see ``Scene``."""
        program = [sys.executable, "-c", PROGRAM, *shlex.split(command)[1:]]
        text = ""
        with opened(self._columns) as (master, slave):
            run = subprocess.Popen(  # noqa: S603 - this script's own commands
                program, stdin=slave, stdout=slave, stderr=slave, cwd=self._folder, env=self._environment
            )
            deadline = time.monotonic() + DEADLINE_S
            for piece in pieces(master, lambda: run.poll() is not None or time.monotonic() > deadline):
                text += piece
                if until and re.search(until, without_colours(text).rsplit("\r", 1)[-1]):
                    until = ""
                    run.send_signal(signal.SIGINT if ctrl_c else signal.SIGTERM)
                    if not ctrl_c:
                        break
            assert not until, f"{command} did not show {until!r}: {text}"
            run.wait(DEADLINE_S)
        if shown:
            self._text += f"$ {command}\r\n{text}"

    def screen(self, *, top: bool) -> pyte.Screen:
        """Returns the first or the last lines of what was typed and shown."""
        tall = pyte.Screen(self._columns, 1_000)
        pyte.Stream(tall).feed(self._text)
        used = max(y for y, line in enumerate(tall.display) if line.strip()) + 1
        first = 0 if top else max(0, used - LINES)
        small = pyte.Screen(self._columns, min(used, LINES))
        for y in range(small.lines):
            small.buffer[y].update(tall.buffer[first + y])
        return small


@contextmanager
def opened(columns: int) -> Iterator[tuple[int, int]]:
    """Both ends of a pseudo-terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
    try:
        yield master, slave
    finally:
        os.close(slave)
        os.close(master)


def pieces(master: int, ended: Callable[[], bool]) -> Iterator[str]:
    """Yields what is written to a terminal, until the program has ended and everything is read."""
    written = io.BytesIO()
    while True:
        over = ended()
        while select.select([master], [], [], 0.05)[0]:
            written.write(os.read(master, 65_536))
        text = written.getvalue()
        whole = text.decode("utf-8", "ignore")  # a character may be cut in two
        written = io.BytesIO(text[len(whole.encode()) :])
        written.seek(0, io.SEEK_END)
        yield whole
        if over:
            return


def without_colours(text: str) -> str:
    """Removes the sequences that set colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def svg(screen: pyte.Screen, theme: TerminalTheme, name: str) -> str:
    """Returns a picture of a screen."""
    console = Console(
        record=True, width=screen.columns, file=io.StringIO(), force_terminal=True, color_system="standard"
    )
    for y in range(screen.lines):
        console.print(line_of(screen, y), no_wrap=True, overflow="ignore", crop=False)
    return console.export_svg(title="", theme=theme, code_format=SVG, unique_id=name)


def line_of(screen: pyte.Screen, y: int) -> Text:
    """Returns a line of a screen with its colours."""
    line = Text()
    signs = (screen.buffer[y][x] for x in range(screen.columns))
    for (colour, bold), run in groupby(signs, lambda sign: (sign.fg, sign.bold)):
        style = Style(color=None if colour == "default" else colour.replace("brown", "yellow"), bold=bold)
        line.append("".join(sign.data for sign in run), style)
    line.rstrip()
    return line


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
