"""Code without a fence is code; an answer in prose is a failure that shows the prose."""

import pytest

from batchllm.answer import code_block
from tests.bench import Bench

PROSE = [
    "I'm sorry, but I can't help with that.",
    "I cannot write this program without more information. Which database do you use?",
    "To reverse a string you can use slicing. Python's slices take a step, and a step of -1 walks backwards.",
    "Sure! First open the file, then read each line.\n\n1. Open the file.\n2. Read the lines.\n3. Close it.",
    "Here is how it works:\n- The loop visits every element.\n- Each element is added to the sum.",
    "You should use `sorted(x, key=len)` for that. It sorts by length.",
    "Could you please clarify what the function should return?",
    "抱歉，我无法编写这段代码。",
    "Es tut mir leid, dabei kann ich nicht helfen.",
    "The function `add` takes two numbers and returns their sum. See https://example.com/a=b for more.",
]
CODE = [
    "def add(a, b):\n    return a + b",
    "print('Hello, world.')",
    "print(1)",
    "x = 1",
    "SELECT name FROM users WHERE age > 3;",
    "SELECT name\nFROM users",
    "for i in range(3):\n    print(i)",
    "import os",
    "ls -la | grep foo",
    "git commit -m 'Add a file.'",
    'fn main() {\n    println!("hi");\n}',
    "#include <stdio.h>\nint main() { return 0; }",
    "const add = (a, b) => a + b;",
    "<p>Hello, world.</p>",
    "return x",
    "lambda x: x + 1",
    "# Adds two numbers.\ndef add(a, b):\n    return a + b",
    "Here is the code:\n\ndef f(x):\n    return x\n\nThis returns x.",
    "42",
    "pass",
    'main = putStrLn "Hello."',
    "class A:\n    pass",
    'echo "Done."',
    "DISPLAY 'HELLO'.",
    "[x for x in y]",
    "public class A { }",
    "// A comment.\nlet x = 1",
    "body {\n  color: red;\n}",
    "name: build\non: push",
]


@pytest.mark.parametrize("text", PROSE)
def test_prose_is_no_code(text: str) -> None:
    assert code_block(text) is None


@pytest.mark.parametrize("text", CODE)
def test_code_without_a_fence_is_code(text: str) -> None:
    assert code_block(text) == text
    assert code_block(f"Here you are:\n```\n{text}\n```") == text


def test_an_answer_in_prose_stands_in_the_errors_place(bench: Bench) -> None:
    path = bench.file("in.csv", "text\nsort a list\n")
    bench.dictate(PROSE[1])
    words = ("codegen", path, "--language", "Python", "-o", bench.folder / "out.csv")
    bench.run(*words, status=1)
    (row,) = bench.out("out.csv")
    assert (row["code"], row["error"]) == ("", f"no code: {PROSE[1]}")
    bench.run(*words, status=1)
    assert bench.server.ledger.requests == 1
