"""Extracts the code of an answer: the content of its fenced block.

Fences are CommonMark's: a line that begins with three or more backticks or tildes opens a block, a line of at
least as many of the same closes it, and a block that nothing closes (an answer cut by ``max_tokens``) goes to
the end. The longest block is the code; the others usually show how to install or run it, or what it prints. Blocks
tagged as shell or output count only if there are no others.
"""

import re

_OPENING = re.compile(r"^([ \t]*)(`{3,}|~{3,})([^\n`]*)$", re.MULTILINE)
_ASIDE = frozenset(
    {"sh", "bash", "shell", "console", "terminal", "zsh", "powershell", "text", "txt", "output", "log"}
)


def code_block(text: str) -> str:
    """Returns the code in the answer; the whole answer where no block is fenced."""
    blocks = fenced_blocks(text)
    if not blocks:
        text = text.strip()
        inside = text.removeprefix("```").removesuffix("```").strip()
        return inside if len(text) - len(inside) >= 6 and "`" not in inside else text
    main = [content for tag, content in blocks if tag not in _ASIDE]
    return max(main or [content for _, content in blocks], key=lambda content: len(content.strip()))


def fenced_blocks(text: str) -> list[tuple[str, str]]:
    """Returns tag (lower case) and content of each fenced block, in order."""
    blocks: list[tuple[str, str]] = []
    position = 0
    while opening := _OPENING.search(text, position):
        indent, fence, info = opening.groups()
        start = min(opening.end() + 1, len(text))
        closing = re.compile(rf"^[ \t]*{fence[0]}{{{len(fence)},}}[ \t]*\r?$", re.MULTILINE).search(
            text, start
        )
        content = text[start : closing.start() if closing else len(text)]
        tag = info.strip().partition(" ")[0].strip("{.}").lower()
        blocks.append((tag, _dedented(content.removesuffix("\n").removesuffix("\r"), len(indent))))
        if closing is None:
            break
        position = closing.end()
    return blocks


def _dedented(content: str, width: int) -> str:
    """Removes the indentation of the fence, for a block within a list."""
    return re.sub(rf"^[ \t]{{1,{width}}}", "", content, flags=re.MULTILINE) if width else content
