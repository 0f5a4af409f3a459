"""Code without a model: a function that has the right name, says what it is for, and is not written yet."""

import re

# Language to the tag of its fenced block, the sign of a comment, and a function.
_STUBS: dict[str, tuple[str, str, str]] = {
    "Python": ("python", "#", "def {name}(*arguments):\n    raise NotImplementedError({text})"),
    "JavaScript": ("javascript", "//", "function {name}(...values) {{\n  throw new Error({text});\n}}"),
    "TypeScript": (
        "typescript",
        "//",
        "export function {name}(...values: unknown[]): never {{\n  throw new Error({text});\n}}",
    ),
    "Java": (
        "java",
        "//",
        "static Object {name}(Object... values) {{\n    throw new UnsupportedOperationException({text});\n}}",
    ),
    "Go": ("go", "//", "func {name}(values ...any) any {{\n\tpanic({text})\n}}"),
    "Rust": ("rust", "//", "pub fn {name}() {{\n    unimplemented!({text});\n}}"),
    "C++": ("cpp", "//", "auto {name}() {{\n    throw {text};\n}}"),
    "C#": (
        "csharp",
        "//",
        "static object {name}(params object[] values) {{\n    throw new NotImplementedException({text});\n}}",
    ),
    "C": ("c", "//", "int {name}(void) {{\n    return -1;\n}}"),
    "Ruby": ("ruby", "#", "def {name}(*values)\n  raise NotImplementedError, {text}\nend"),
    "PHP": ("php", "//", "function {name}(...$values) {{\n    throw new Exception({text});\n}}"),
    "Kotlin": ("kotlin", "//", "fun {name}(vararg values: Any): Any = TODO({text})"),
    "Swift": ("swift", "//", "func {name}(_ values: Any...) -> Any {{\n    fatalError({text})\n}}"),
    "SQL": ("sql", "--", "SELECT NULL AS {name};"),
    "R": ("r", "#", "{name} <- function(...) {{\n  stop({text})\n}}"),
    "Bash": ("bash", "#", "{name}() {{\n  return 1\n}}"),
}
_BY_NAME = {**{name.lower(): name for name in _STUBS}, "shell": "Bash", "golang": "Go", "node": "JavaScript"}
_NAMES = "|".join(re.escape(name) for name in sorted(_BY_NAME, key=len, reverse=True))
_EXPERT = re.compile(
    rf"(?<![\w+#])({_NAMES})(?![\w+#])\s*(?:code|coding|programming|编程|语言|代码)?\s*"
    r"(?:expert|programmer|developer|engineer|function|code|script|class|专家|程序员|工程师|开发者|函数|代码)",
    re.I,
)
_OTHER_EXPERT = re.compile(r"(?:\ban?|一个)\s+([A-Za-z][\w+#-]*)\s*(?:expert|programmer|developer|专家)")
_ASKED = re.compile(rf"(?:\b(?:in|using)|用|使用)\s*({_NAMES})(?![\w+#])", re.I)
_IDLE = re.compile(
    r"""\b(?:an?|the|of|to|for|in|that|which|with|and|or|is|are|be|it|this|using|use|write|implement|create
    |generate|function|class|script|program|code|please|python|me|computes?|calculates?|returns?|method)\b""",
    re.X,
)


def language_of(text: str) -> str | None:
    """The programming language that an instruction asks for: ``a Python expert``, ``in Go``, ``用 Rust``."""
    found = _EXPERT.search(text) or _ASKED.search(text)
    return _BY_NAME[found[1].lower()] if found else None


def other_language_of(text: str) -> str:
    """A language that has no stub of its own (``a Haskell expert``); Python where none is named."""
    found = _OTHER_EXPERT.search(text)
    return found[1] if found else "Python"


def code(language: str, request: str) -> str:
    """A fenced block with a function stub for ``request``, in C's manner for languages that are not known."""
    fence, comment, stub = _STUBS.get(language) or (
        language.lower(),
        "//",
        "function {name}() {{\n  {text}\n}}",
    )
    said = " ".join(request.replace("`", "'").split())[:160] or "nothing was asked"
    quoted = (
        '"'
        + said.replace("\\", "/").replace('"', "'").replace("$", "").replace("{", "(").replace("}", ")")
        + '"'
    )
    body = stub.format(name=_name(request), text=quoted)
    return f"```{fence}\n{comment} {said}\n{body}\n```"


def _name(request: str) -> str:
    words = re.findall(r"[a-z][a-z0-9]*", _IDLE.sub(" ", request[:400].lower()))
    return "_".join(["solve", *words[:3]])
