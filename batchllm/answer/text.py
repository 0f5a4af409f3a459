"""The visible text of an answer, and text on one line."""

import re
from typing import Any

# The names of reasoning blocks, in the brackets of many model families: <think>, <seed:think>, [THINK], ◁think▷,
# <|begin_of_thought|>, <|START_THINKING|>.
_NAME = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|ant_?thinking|think_fast|longcat_think)"
_BLOCK = re.compile(
    rf"<({_NAME})>.*?(?:</\1>|\Z)|\[({_NAME})\].*?(?:\[/\2\]|\Z)|◁({_NAME})▷.*?(?:◁/\3▷|\Z)"
    r"|<\|begin_of_thought\|>.*?(?:<\|end_of_thought\|>|\Z)|<\|START_THINKING\|>.*?(?:<\|END_THINKING\|>|\Z)"
    r"|<\|(?:think|thinking)\|>.*?(?:<\|/(?:think|thinking)\|>|\Z)|<unused94>.*?(?:<unused95>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_END = re.compile(
    rf"</{_NAME}>|\[/{_NAME}\]|◁/{_NAME}▷|<\|end_of_thought\|>|<\|END_THINKING\|>|<\|/think(?:ing)?\|>|<unused95>",
    re.IGNORECASE,
)
# Words that an answer may have tags for too are reasoning only where it begins with them.
_FIRST = re.compile(
    r"\s*<(reasoning|reflection|scratchpad|analysis|internal|inner_monologue|reason)>.*?(?:</\1>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w+)(?:(?!<\|message\|>).){0,200}<\|message\|>(.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)",
    re.DOTALL,
)
# A turn's end in the words of a chat template, and whatever the model wrote after it.
_TURN_END = (
    r"<\|(?:eot_id|eom_id|im_end|endoftext|end_of_text|end|return|eot|eos|end_of_turn|END_OF_TURN_TOKEN|END_RESPONSE"
    r"|end_of_solution|endofassistant|hy_eos|end_of_role|im_start)\|>|<end_of_turn>|<eos>|<｜end▁of▁sentence｜>|\[EOS\]|<\|im_end\|?$"
)
_TRAILING = re.compile(
    rf"(?:{_TURN_END}|</s>)\s*(?:\Z|(?:<\||<start_of_turn>|<｜|<s>|\[INST\]|{_TURN_END}).*\Z)", re.DOTALL
)
_LEADING = re.compile(
    r"\s*(?:(?:<s>|<bos>|<\|begin_of_text\|>|<｜begin▁of▁sentence｜>|<\|im_start\|>assistant|<start_of_turn>model|<｜Assistant｜>"
    r"|<\|start_header_id\|>assistant<\|end_header_id\|>|<\|START_RESPONSE\|>|<\|begin_of_solution\|>|<\|START_OF_TURN_TOKEN\|>"
    r"|<\|CHATBOT_TOKEN\|>|<\|assistant\|>)\s*)+"
)
_ANSWER = re.compile(r"\s*<answer>(.*?)(?:</answer>\s*|\Z)\Z", re.DOTALL | re.IGNORECASE)
_ANGLE = re.compile(r"<[|/｜a-zA-Z]")
_SQUARE = re.compile(r"\[(?:/|[Tt]|EOS)")


def visible_text(text: str) -> str:
    """Returns the text without reasoning, tokens of the chat template, and blank space around it.

    Reasoning is what stands between ``<think>`` and ``</think>`` or the marks of other model families, closed or not.
    Some chat templates open the block in the prompt, so that the answer only closes it: everything up to the closing
    mark is reasoning too. Of harmony's channels the last ``final`` is the answer.
    """
    if not (("<" in text and _ANGLE.search(text)) or ("[" in text and _SQUARE.search(text)) or "◁" in text):
        return text.strip()
    if "<|channel|>" in text:
        text = _final_channel(text)
    had_reasoning = text
    text = _BLOCK.sub("", _LEADING.sub("", text, count=1) if _LEADING.match(text) else text)
    ends = list(_END.finditer(text))
    if ends:
        text = text[ends[-1].end() :]
    while first := _FIRST.match(text):
        text = text[first.end() :]
    text = _TRAILING.sub("", text)
    if leading := _LEADING.match(text):
        text = text[leading.end() :]
    if text != had_reasoning and (answer := _ANSWER.match(text)):
        text = answer[1]
    return text.strip()


def _final_channel(text: str) -> str:
    """Returns the answer of a text in harmony's format; the empty string where only reasoning came."""
    said: list[tuple[str, str]] = _CHANNEL.findall(text)
    final = [content for name, content in said if name == "final"]
    if final:
        return final[-1]
    return "" if said else text


def content_text(content: Any) -> str:
    """Returns the text of a message's content: a string, or the text parts of a list joined."""
    if type(content) is str:
        return content
    if not isinstance(content, list):
        return ""
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type", "text") in ("text", "output_text"):
            text = part.get("text")
            texts.append(text if isinstance(text, str) else "")
    return "".join(texts)
