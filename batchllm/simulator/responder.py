"""Answers without a model: text in, text out, always the same for the same request.

What is asked for is read from the request itself (tools, a schema, JSON), then from the system message, then
from the user's instruction: a summary, a label, code. Anything else is answered with an excerpt of the
last user message.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import orjson

from batchllm.simulator.instance import instance

_READ_CHARS = 20_000  # of a text
_SYSTEM_CHARS = 4_000
_INSTRUCTION_CHARS = 400  # at either end of a message

_SUMMARY = re.compile(r"summar|bullet|key points|tl;?dr|要点|总结|摘要|概括", re.I)
_CLASSIFY = re.compile(r"classif|categor|\blabel|one of|sentiment|分类|归类|标签|类别|情感", re.I)
_CODE = re.compile(
    r"(?:write|implement|create|generate|编写|写一?个|实现).{0,60}?(?:function|class|script|program|code|函数|代码|程序)",
    re.I | re.S,
)
_LEAD = re.compile(r"(?:[^\n]{1,240}\n\s*\n|[^\n:：]{1,240}?[:：])\s*(?=\S)")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_COUNT = re.compile(r"(\d{1,3})\s*(?:个|条|\w+ )?(?:bullet|point|sentence|要点|句)", re.I)

_LABELS = re.compile(
    r"""
    (?:(?:labels?|categor(?:y|ies)|one\ of|标签|类别)[^:：\n]{0,80}[:：]
      |(?:classif|categori|label)[^:：\n]{0,80}?\b(?:as|into)\ (?![^\n]*[:：])(?:either\ |one\ of\ )?
      |(?:分类为|归类为))
    \s*([^\n。]+?)\s*(?:\.\s|\.?$|。)
    """,
    re.I | re.M | re.X,
)
_SEPARATOR = re.compile(r",\s*(?:or|and)\s+|[,，、|;；/]|\s+or\s+|\s+and\s+|或", re.I)
_TRIM = " \t\r\"'`“”「」[](){}*."
_TONES = {"positive": 1, "积极": 1, "negative": -1, "消极": -1, "neutral": 0, "中性": 0}
_GOOD = re.compile(r"\b(?:love|great|excellent|wonderful|perfect|happy|best)|喜欢|推荐|满意", re.I)
_BAD = re.compile(r"\b(?:terrible|awful|broke|waste|disappoint|refund|hate|worst)|失望|糟糕|退货", re.I)
_WORD = re.compile(r"[a-z]{3,}|[\u3400-\u9fff]{2}")

_LANGUAGE = re.compile(
    r"(?i:\ban?|一个) +([\w+#.-]+) *(?i:expert|programmer|developer|专家)"
    r"|(?:^|[^\w])([A-Z][\w+#.-]*) *(?:code|function|script|program|class|函数|代码)"
    r"|(?:\b(?:in|using)|用) *([A-Z][\w+#]*)"
)
_FENCES = {"c++": "cpp", "c#": "csharp"}
_C_LIKE = ("//", 'function solve() {\n  throw "not written";\n}')
_STUBS = {  # language to the sign of a comment and a function
    "python": ("#", "def solve(*values):\n    raise NotImplementedError"),
    "go": ("//", 'func solve(values ...any) any {\n\tpanic("not written")\n}'),
    "sql": ("--", "SELECT NULL AS answer;"),
    "bash": ("#", "solve() {\n  return 1\n}"),
}


@dataclass(frozen=True, slots=True)
class SimulatedMessage:
    """What the assistant says.

    Attributes:
        content: The text; ``None`` beside a tool call.
        tool: Name and arguments (as JSON) of the tool it calls, if it calls one.
    """

    content: str | None
    tool: tuple[str, str] | None = None


def respond(request: Mapping[str, Any]) -> SimulatedMessage:
    """Answers a chat request that has passed ``validation.check``.

    Malformed tools and schemas raise what Python raises: ``LookupError``, ``TypeError`` and alike.
    """
    messages = request["messages"]
    asked = _last_user_text(messages)
    if (tool := _chosen_tool(request, messages, asked)) is not None:
        arguments = instance(tool.get("parameters") or {"type": "object"}, text_to_work_on(asked))
        return SimulatedMessage(None, (tool["name"], orjson.dumps(arguments).decode()))
    response_format = request.get("response_format") or {}
    if response_format.get("type") == "json_schema":
        schema = response_format["json_schema"].get("schema") or {"type": "object"}
        return SimulatedMessage(orjson.dumps(instance(schema, text_to_work_on(asked))).decode())
    answer = _answer(messages, asked)
    if response_format.get("type") == "json_object":
        return SimulatedMessage(orjson.dumps({"answer": answer}).decode())
    return SimulatedMessage(answer)


def text_of(content: Any) -> str:
    """Returns the text of a message's content: itself, or its text parts one below the other."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content or () if part.get("type") == "text")


def images_of(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the image parts of all messages."""
    contents = (message.get("content") for message in messages)
    parts = (part for content in contents if isinstance(content, list) for part in content)
    return [part for part in parts if part.get("type") == "image_url"]


def text_to_work_on(message: str) -> str:
    """Returns a message without the instruction before it, such as ``Summarize in 3 points:``."""
    lead = _LEAD.match(message[: 2 * _INSTRUCTION_CHARS])
    if lead and any(kind.search(lead[0]) for kind in (_SUMMARY, _CLASSIFY, _CODE)):
        message = message[lead.end() :]
    return message[:_READ_CHARS].strip()


def labels_in(instruction: str) -> list[str]:
    """Returns the labels that an instruction lists, in its order; none when it lists fewer than two."""
    for match in _LABELS.finditer(instruction):
        labels = [label for part in _SEPARATOR.split(match[1]) if (label := part.strip(_TRIM))]
        if len(labels) > 1:
            return list(dict.fromkeys(labels))
    return []


def choose_label(labels: Sequence[str], text: str) -> str:
    """Returns one of ``labels``: by a few words of praise and complaint, words in common, or a hash."""
    tones = {_TONES[label.lower()]: label for label in labels if label.lower() in _TONES}
    if 1 in tones and -1 in tones:
        score = len(_GOOD.findall(text)) - len(_BAD.findall(text))
        tone = (score > 0) - (score < 0)
        if tone in tones:
            return tones[tone]
    return labels[_most_alike(labels, text)]


def _answer(messages: list[dict[str, Any]], asked: str) -> str:
    if images := images_of(messages):
        details = ", ".join(sorted({image["image_url"].get("detail", "auto") for image in images}))
        count = "1 image" if len(images) == 1 else f"{len(images)} images"
        return f"Simulated answer: I received {count} (detail: {details}). You asked: {_excerpt(asked)}"
    told = (text_of(each.get("content")) for each in messages if each["role"] in ("system", "developer"))
    system = "\n".join(told)[:_SYSTEM_CHARS]
    instruction = f"{asked[:_INSTRUCTION_CHARS]}\n{asked[_INSTRUCTION_CHARS:][-_INSTRUCTION_CHARS:]}"
    for said in (system, instruction):
        if _CLASSIFY.search(said) and (labels := labels_in(said)):
            return choose_label(labels, text_to_work_on(asked))
        if _SUMMARY.search(said):
            wanted = _COUNT.search(instruction) or _COUNT.search(system)
            sentences = _sentences(text_to_work_on(asked), int(wanted[1]) if wanted else 3)
            return "\n".join(f"- {sentence}" for sentence in sentences)
        if _CODE.search(said):
            language = _LANGUAGE.search(system) or _LANGUAGE.search(instruction)
            return _code(language, asked[:_READ_CHARS])
    return _echo(messages, asked)


def _code(language: re.Match[str] | None, request: str) -> str:
    """Returns a fenced block: a comment with the request, and a function that is not written."""
    name = next(filter(None, language.groups())).lower() if language else "python"
    comment, stub = _STUBS.get(name, _C_LIKE)
    asked = " ".join(request.replace("`", "'").split())[:160]
    return f"```{_FENCES.get(name, name)}\n{comment} {asked}\n{stub}\n```"


def _echo(messages: list[dict[str, Any]], asked: str) -> str:
    turn = sum(message["role"] == "user" for message in messages)
    results = [text_of(message.get("content")) for message in messages if message["role"] == "tool"]
    answer = f"Simulated answer (turn {turn}) to: {_excerpt(asked)}"
    return answer + (f" The tool said: {_excerpt(results[-1])}" if results else "")


def _last_user_text(messages: list[dict[str, Any]]) -> str:
    users = [message for message in messages if message["role"] == "user"]
    return text_of((users or messages)[-1].get("content"))


def _sentences(text: str, count: int) -> list[str]:
    parts = (part.strip(" \t-*•") for part in _SENTENCE_END.split(text[:_READ_CHARS]))
    return [part for part in parts if part][:count]


def _excerpt(text: str) -> str:
    return " ".join(_sentences(text, 2))[:300]


def _chosen_tool(
    request: Mapping[str, Any], messages: list[dict[str, Any]], asked: str
) -> Mapping[str, Any] | None:
    tools: list[Mapping[str, Any]] = [tool["function"] for tool in request.get("tools") or ()]
    choice = request.get("tool_choice") or "auto"
    if not tools or choice == "none" or (choice == "auto" and messages[-1]["role"] == "tool"):
        return None
    if isinstance(choice, Mapping):
        name = choice["function"]["name"]
        return next(tool for tool in tools if tool["name"] == name)
    described = [f"{tool['name']} {tool.get('description', '')}".replace("_", " ") for tool in tools]
    return tools[_most_alike(described, asked[:_READ_CHARS])]


def _most_alike(names: Sequence[str], text: str) -> int:
    """Returns the index of the name with most words in common with the text, else one by a hash of it."""
    words = {word[:4] for word in _WORD.findall(text.lower())}
    scores = [len(words & {word[:4] for word in _WORD.findall(name.lower())}) for name in names]
    if any(scores):
        return scores.index(max(scores))
    return crc32(text.encode("utf-8", "replace")) % len(names)
