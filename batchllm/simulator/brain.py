"""Answers without a model: text in, text out, always the same for the same request.

What is asked for is read from the request itself (tools, a schema, JSON), then from the system message, then
from the user's instruction: a summary in bullets, a label, code. Anything else gets an answer that takes up
what the user said last.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import orjson

from batchllm.simulator import labels, schema, stubs

_READ = 20_000  # characters of a text that are looked at
_READ_OF_SYSTEM = 4_000  # characters
_ASK = 400  # characters at either end of a message in which an instruction is looked for

_SUMMARY = re.compile(r"summar|bullet|key points|tl;?dr|要点|总结|摘要|概括|概述", re.I)
_CLASSIFY = re.compile(r"classif|categor|\blabel|sentiment|分类|归类|标签|类别|情感", re.I)
_CODE = re.compile(
    r"(?:write|implement|create|generate|编写|写一?个|实现|生成).{0,60}?(?:function|class|script|program|code|函数|代码|程序|脚本)",
    re.I | re.S,
)
_COUNT = re.compile(
    r"(\d{1,3}|one|two|three|four|five|six|seven|eight|nine|ten|[一二两三四五六七八九十])"
    r"\s*(?:个|条|concise |short |key |main |brief )*(?:bullet|point|sentence|item|要点|点|句)",
    re.I,
)
_NUMBERS = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    **{sign: n for n, sign in enumerate("一二三四五六七八九十", 1)},
    "两": 2,
}
_LEAD = re.compile(r"[^\n:：]{1,240}?[:：\n]\s*(?=\S)")
_PARAGRAPH = re.compile(r".+?\n[ \t\r]*\n\s*(?=\S)", re.S)
_OPENING = re.compile(r'<[\w-]+>|"""|```\w*')
_CLOSING = re.compile(r'(?:</[\w-]+>|"""|```)\Z')
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。!?！？])|\n+")
_CLAUSE_END = re.compile(r"(?<=[,;:])\s+|(?<=[，；、：])")
_CHINESE = re.compile(r"[\u3400-\u9fff]")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says.

    Attributes:
        content: The text; ``None`` beside tool calls.
        tool: Name and arguments (as JSON) of the tool it calls, if it calls one.
    """

    content: str | None
    tool: tuple[str, str] | None = None


def reply(request: Mapping[str, Any]) -> Reply:
    """Answer a chat request that has passed ``validation.check``."""
    messages = request["messages"]
    asked = _last_user_text(messages)
    if (tool := _chosen_tool(request, messages, asked)) is not None:
        arguments = schema.instance(tool.get("parameters") or {"type": "object"}, material(asked)[:_READ])
        return Reply(None, (tool["name"], orjson.dumps(arguments).decode()))
    form = request.get("response_format") or {}
    if form.get("type") == "json_schema":
        wanted = form["json_schema"].get("schema") or {"type": "object"}
        return Reply(orjson.dumps(schema.instance(wanted, material(asked)[:_READ])).decode())
    if form.get("type") == "json_object":
        return Reply(orjson.dumps({"answer": _answer(messages, asked)}).decode())
    return Reply(_answer(messages, asked))


def text_of(content: Any) -> str:
    """The text of a message's content: itself, or its text parts one below the other."""
    if isinstance(content, str):
        return content
    if not content:
        return ""
    return "\n".join(part["text"] for part in content if part.get("type") == "text")


def images_of(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The image parts of all messages."""
    contents = (message.get("content") for message in messages)
    parts = (part for content in contents if isinstance(content, list) for part in content)
    return [part for part in parts if part.get("type") == "image_url"]


def material(text: str) -> str:
    """The text to work on: a leading instruction (``Summarize in 3 points:``) and wrappers taken off."""
    start = text[: 2 * _ASK]
    lead = _PARAGRAPH.match(start) or _LEAD.match(start)
    if lead and any(kind.search(lead[0]) for kind in (_SUMMARY, _CLASSIFY, _CODE)):
        text = text[lead.end() :]
    text = text.strip()
    if (opening := _OPENING.match(text)) and (closing := _CLOSING.search(text[-_ASK:])):
        text = text[opening.end() : len(text) - len(closing[0])].strip()
    return text


def bullets(text: str, count: int) -> str:
    """The first ``count`` sentences as a list; clauses where there are too few sentences."""
    return "\n".join(f"- {sentence}" for sentence in _sentences(text, count))


def _answer(messages: list[dict[str, Any]], asked: str) -> str:
    told = (text_of(m.get("content")) for m in messages if m["role"] in ("system", "developer"))
    system = "\n".join(told)[:_READ_OF_SYSTEM]
    instruction = asked if len(asked) <= 2 * _ASK else f"{asked[:_ASK]}\n{asked[-_ASK:]}"
    if images := images_of(messages):
        return _described(images, asked)
    for said in (system, instruction):
        if not said:
            continue
        if _CLASSIFY.search(said) and (choices := labels.listed(said)):
            return labels.choose(choices, material(asked)[:_READ])
        if _SUMMARY.search(said):
            return bullets(material(asked)[:_READ], _wanted_bullets(system, instruction))
        if (language := stubs.language_of(said)) or _CODE.search(said):
            return stubs.code(
                language or stubs.language_of(instruction) or stubs.other_language_of(said),
                material(asked)[:_READ],
            )
    return _echo(messages, asked)


def _last_user_text(messages: list[dict[str, Any]]) -> str:
    for message in reversed(messages):
        if message["role"] == "user":
            return text_of(message.get("content"))
    return text_of(messages[-1].get("content"))


def _wanted_bullets(system: str, instruction: str) -> int:
    found = _COUNT.search(instruction) or _COUNT.search(system)
    if not found:
        return 3
    word = found[1].lower()
    return max(1, int(word) if word.isdigit() else _NUMBERS[word])


def _sentences(text: str, count: int) -> list[str]:
    sentences = [s.strip(" \t-*•") for s in _SENTENCE_END.split(text)]
    sentences = [s for s in sentences if s]
    while 0 < len(sentences) < count:
        longest = max(range(len(sentences)), key=lambda i: len(sentences[i]))
        clauses = [c.strip() for c in _CLAUSE_END.split(sentences[longest], maxsplit=1) if c.strip()]
        if len(clauses) < 2:
            break
        sentences[longest : longest + 1] = clauses
    return sentences[:count]


def _described(images: list[dict[str, Any]], asked: str) -> str:
    details = sorted({image["image_url"].get("detail", "auto") for image in images})
    shown = ", ".join(details)
    if _CHINESE.search(asked[:_ASK]):
        return f"模拟回答：我收到了 {len(images)} 张图片（detail: {shown}）。问题：{_excerpt(asked)}"
    noun = "image" if len(images) == 1 else "images"
    return (
        f"Simulated answer: I received {len(images)} {noun} (detail: {shown}). You asked: {_excerpt(asked)}"
    )


def _echo(messages: list[dict[str, Any]], asked: str) -> str:
    turn = sum(message["role"] == "user" for message in messages)
    results = [text_of(message.get("content")) for message in messages if message["role"] == "tool"]
    if _CHINESE.search(asked[:_ASK]):
        answer = f"模拟回答（第 {turn} 轮）：{_excerpt(asked)}"
        return answer + (f" 工具结果：{_excerpt(results[-1])}" if results else "")
    answer = f"Simulated answer (turn {turn}) to: {_excerpt(asked)}"
    return answer + (f" The tool said: {_excerpt(results[-1])}" if results else "")


def _excerpt(text: str) -> str:
    sentences = _sentences(text[:_READ].strip(), 2)
    return " ".join(sentences)[:300]


def _chosen_tool(
    request: Mapping[str, Any], messages: list[dict[str, Any]], asked: str
) -> Mapping[str, Any] | None:
    tools: list[Mapping[str, Any]] = [
        tool["function"] for tool in request.get("tools") or () if tool.get("type") == "function"
    ]
    choice = request.get("tool_choice") or "auto"
    if not tools or choice == "none":
        return None
    if isinstance(choice, Mapping):
        name = choice["function"]["name"]
        return next(tool for tool in tools if tool["name"] == name)
    if choice == "auto" and messages[-1]["role"] == "tool":
        return None
    names = [f"{tool['name']} {tool.get('description', '')}" for tool in tools]
    best = labels.most_alike(names, asked[:_READ])
    return tools[best if best is not None else crc32(asked.encode()) % len(tools)]
