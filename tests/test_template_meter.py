"""Hostile templates: whatever an expression holds, a rendering ends soon and stays small."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from batchllm.errors import UsageError
from batchllm.records import Row
from batchllm.template import Renderer, RenderError, from_prompt

TEXT = "word " * 2_000
GROWN = "".join(f"{{% set x{n + 1} = [x{n}, x{n}, x{n}, x{n}, x{n}, x{n}, x{n}, x{n}] %}}" for n in range(12))
DOUBLED = "".join(f"{{% set x{n + 1} = x{n} ~ x{n} %}}" for n in range(40))
ADDED = "".join(f"{{% set x{n + 1} = x{n} + x{n} %}}" for n in range(40))
SQUARED = "".join(f"{{% set x{n + 1} = x{n} * x{n} %}}" for n in range(40))
HOSTILE = [
    "{{ ((['a'*1000000]*400)|join)|length }}",
    "{{ 'a' * 10**9 }}",
    "{{ ([0] * 10**8) | length }}",
    "{{ [[0] * 1000] * 10**6 }}",
    "{% set x0 = [text] %}" + GROWN + "{{ x12 | length }}",
    "{% set x0 = [1] %}" + GROWN + "{{ x12 == x11 }}",
    "{% set x0 = text %}" + DOUBLED + "{{ x40 | length }}",
    "{% set x0 = text %}" + ADDED + "{{ x40 | length }}",
    "{% set x0 = 12345678901234567890 %}" + SQUARED + "{{ x40 > 1 }}",
    "{% for a in text %}{% for b in text %}{% for c in text %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for a in text %}{% for b in text %}{% if a == b %}{{ text }}{% endif %}{% endfor %}{% endfor %}",
    "{% set y %}{% for a in text %}{{ text * 100 }}{% endfor %}{% endset %}{{ y | length }}",
    "{% for a in text %}{% set y = text[1:] | upper %}{% for b in text %}{{ y[1:] | length }}{% endfor %}{% endfor %}",
    "{{ text | replace('', text) | length }}",
    "{{ text.replace('w', text) | length }}",
    "{{ text.join(text) | length }}",
    "{{ text | list | join(text) | length }}",
    "{{ text | map('replace', '', text) | list | length }}",
    "{{ ([text] * 1000) | map('upper') | join | length }}",
    "{{ 1.5 | round(10**8, 'ceil') }}",
    "{{ ([text] * 10000) | sum(start=[]) }}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ text.translate({119: 'x' * 1000000}) | length }}",
    "{{ text.center(10**9) | length }}",
    "{{ text | center(10**9) }}",
    "{{ text | indent(10**8) }}",
    "{{ range(10**9) | list | length }}",
    "{{ (('<' * 1000000) | striptags) | length }}",
    "{{ 9 ** (9 ** 9) }}",
]


def fill(source: str, text: str) -> Any:
    renderer = Renderer(from_prompt("{{ text }}" + source), ("text",), "text")
    return renderer.messages(Row(0, 2, {"text": text}, []))


def measured() -> list[tuple[bool, float, int]]:
    """For each hostile template: whether it was refused, its CPU seconds, and the peak of this process in KiB."""
    found = []
    for source in HOSTILE:
        started_s = time.process_time()
        try:
            fill(source, TEXT)
            refused = False
        except (UsageError, RenderError):
            refused = True
        found.append((refused, time.process_time() - started_s, peak_memory()))
    return found


def peak_memory() -> int:
    """The peak of this process, in KiB on Linux. ru_maxrss would count that of the process which started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(
            int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:")
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_hostile_templates_are_refused_soon_and_stay_small() -> None:
    program = "import json; from tests.test_template_meter import measured; print(json.dumps(measured()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    results = json.loads(done.stdout)
    unit = 1 if sys.platform == "linux" else 1024
    assert [source for source, (refused, _, _) in zip(HOSTILE, results, strict=True) if not refused] == []
    assert [source for source, (_, took_s, _) in zip(HOSTILE, results, strict=True) if took_s > 5] == []
    assert results[-1][2] / unit < 200_000, "KiB, the interpreter and its libraries included"


@pytest.mark.parametrize(
    ("source", "filled"),
    [
        (
            "{% for word in text.split() %}{{ loop.index }} {{ word }}, {% endfor %}",
            "1 word, 2 word, 3 word, ",
        ),
        ("{{ text ~ '!' ~ 1 }}", "word word word!1"),
        ("{{ text.split() | unique | join('/') }} {{ text[5:9] | upper }}", "word WORD"),
        ("{{ text | replace('word', 'bird') }}", "bird bird bird"),
        ("{{ 'yes' if 'word' in text and 3 == text.split() | length else 'no' }}", "yes"),
        ("{{ [1, 2, 3] | sum }} {{ {'a': [1, (2, 3)]} | tojson }}", '6 {"a":[1,[2,3]]}'),
        ("{% macro m(n) %}{{ n }}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}", "3210"),
        ("{% set y %}{{ text }}{% endset %}{{ y | length }} {{ 2 * 3 + 4 }}", "14 10"),
        ("{{ text.split() | map('title') | join(' ') }}", "Word Word Word"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "a1"),
    ],
)
def test_an_ordinary_template_means_what_jinja_means(source: str, filled: str) -> None:
    text = "word word word"
    assert fill(source, text)[-1]["content"] == text + filled


def test_an_ordinary_loop_over_a_long_text_has_room() -> None:
    lines = "\n".join(f"line {number} of a long text" for number in range(5_000))
    source = (
        "{% for line in text.splitlines() %}{% if '7' in line %}{{ line | trim }};{% endif %}{% endfor %}"
    )
    assert fill(source, lines)[-1]["content"].count(";") == sum("7" in line for line in lines.splitlines())
