import pytest

from batchllm.answer import code_block

CODE = "def f():\n    return 1"


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        f"```python\n{CODE}\n```",
        f"```\n{CODE}\n```",
        f"~~~python\n{CODE}\n~~~",
        f"````\n{CODE}\n````",
        f"Here it is:\n\n``` python title=x\n{CODE}\n```\n\nIt returns 1.",
        f"```python\n{CODE}",
        f"```python\n{CODE}\n",
        f"Install first:\n```bash\npip install a-very-long-name-of-a-package more\n```\n```python\n{CODE}\n```",
        f"```python\n{CODE}\n```\nUse it:\n```python\nf()\n```",
        "1. So:\n   ```python\n   def f():\n       return 1\n   ```",
        f"```python\r\n{CODE}\r\n```",
    ],
)
def test_the_code_is_the_content_of_the_fenced_block(text: str) -> None:
    assert code_block(text) == CODE


def test_a_shell_block_is_the_code_where_there_is_no_other() -> None:
    assert code_block("```sh\nls -l\n```") == "ls -l"


def test_indentation_and_blank_lines_inside_the_block_stay() -> None:
    assert code_block("```\n\n    x\n\n```") == "\n    x\n"


def test_fences_inside_a_longer_fence_belong_to_the_code() -> None:
    assert code_block("````md\n```py\nx\n```\n````") == "```py\nx\n```"


def test_a_fence_within_one_line_is_understood() -> None:
    assert code_block("```print(1)```") == "print(1)"


def test_no_closing_and_no_content_is_no_error() -> None:
    assert code_block("```") is None
    assert code_block("```python") is None
    assert code_block("") == ""
