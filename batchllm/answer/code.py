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

# A list's mark, a heading's, and words of code within a sentence.
_MARK = re.compile(r"^(?:[-*+•]|\d+[.)]|#{1,6}|>)\s+")
_QUOTED = re.compile(r"`[^`]*`|\*\*|https?://\S+|\b[\w.]+\(\)")
_SENTENCE = re.compile(
    r"^[\"'“(]?[^\W\d_][^\W\d_'’,-]*(?:[ \u00a0][^\n]*)?[.!?:…][\"'”)]*$|[。！？]"
    r"|\b(?:I|you|we)(?:'m|’m|'re| am| can| need| have)\b"
    r"|\b(?:sorry|cannot|can't|can’t)\b"
)
_CODE = re.compile(
    r"[;{}]\s*$|[^=!<>]==?[^=]|=>|->|::|\w\[|\w\([^)\s]*\)\s*[:;{.]?$|\w\([^()]*[\"'=,+*\[(]"
    r"|^\s*[#/]{2}|^#!|^#include|^<[?!/a-zA-Z]"
    r"|^\$\s|^@\w+|^(?:def|class|async|elif|while|for|if|with|try|except|switch|case)\b[^.?!]*:\s*$"
    r"|^(?:import|package|namespace|require)\s+[\w.\"'{*]+(?:\s+as\s+\w+)?$|^(?:from|use)\s+\S+\s+import\b|^using\s+[\w.]+$"
    r"|^(?:return|yield|raise|throw|print|echo|puts|printf)\s+[\"'\w$\[({]+(?:\s*[-+*/%]\s*\w+)*$"
    r"|^(?:const|let|var|fn|func|function|public|private|static|struct|enum|impl|interface|type)\s+\w+\s*[:=({<]"
    r"|^(?:SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|WITH|FROM|WHERE|GROUP|ORDER|JOIN|DISPLAY|MOVE|PERFORM)\b"
    r"|^(?:print|echo|puts|printf)\s+[\"'$]|^[a-z][\w./-]*\s(?:\S+\s)*?--?[a-z]"
    r"|^(?:pass|break|continue|end|fi|done|else:?|try:)$"
)


def code_block(text: str) -> str | None:
    """Returns the code in the answer: a fenced block, or the whole answer; ``None`` where that is prose."""
    blocks = fenced_blocks(text)
    if not blocks:
        text = text.strip()
        inside = text.removeprefix("```").removesuffix("```").strip()
        if len(text) - len(inside) >= 6 and "`" not in inside:
            return inside
        return None if is_prose(text) else text
    main = [content for tag, content in blocks if tag not in _ASIDE]
    code = max(main or [content for _, content in blocks], key=lambda content: len(content.strip()))
    return code if code.strip() else None


def is_prose(text: str) -> bool:
    """Returns whether a text without fences is sentences: some line is one, and no line looks like code."""
    lines = [_MARK.sub("", _QUOTED.sub("x", line.strip())) for line in text.splitlines()]
    lines = [line for line in lines if line]
    sentences = sum(_SENTENCE.search(line) is not None for line in lines)
    return sentences > 0 and not any(_CODE.search(line) for line in lines)


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
