"""Reads from the words of an error how much an endpoint takes, and how much it counted.

The wordings are many, and their numbers are what they have in common:

- OpenAI, vLLM: ``maximum context length is 8192 tokens. However, you requested 9000 tokens (8500 in the messages, 500
  in the completion)``
- Anthropic: ``prompt is too long: 205000 tokens > 200000 maximum``; ``190000 + 20000 > 200000``
- vLLM: ``maximum context length is 4096 tokens. However, you requested 500 output tokens and your prompt contains at
  least 3597 input tokens, for a total of at least 4097 tokens``
- Cohere: ``size limit exceeded by 1208 tokens. The limit for this model is 128000 tokens``
- llama.cpp: ``request (5012 tokens) exceeds the available context size (4096 tokens)``
- Gemini: ``The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)``
- a request that is too large for a limit a minute: ``Limit 30000, Requested 30601``
"""

import re
from typing import NamedTuple

_NO_COUNT = re.compile(
    r"^HTTP \d+: |<\d{3}>|\b(?:code \d+|(?:error code|status(?: code)?)\W{1,3}\d{3})\b|\brequest[ _-]?id\W+\S+"
    r"|\binvalid params\b.*\(\d{4}\)$",
    re.IGNORECASE,
)
_STATUS = re.compile(r"^HTTP (\d+): ")
_EXCESS = re.compile(
    r"\b(?:exceed(?:ed|s)?|over|too (?:long|many))\b(?: \w+){0,4} by (\d[\d,_]*)", re.IGNORECASE
)
_OF_ANSWER = re.compile(
    r"\W{0,3}(?:tokens? )?(?:for |in |of )?(?:the )?(?:output|completion|max_(?:new_)?tokens)", re.IGNORECASE
)
_SUM = re.compile(r"(\d+) \+ (\d+) > (\d+)")
_DIFFERENCE = re.compile(r"(\d+) > (\d+) - (\d+)")
_NUMBER = re.compile(r"(?<![\w.\-/#:])\d{1,3}(?:[,_]\d{3})+(?![\w\-/])|(?<![\w.\-/#:])\d+(?![\w\-/]|\.\d)")
_SMALLEST, _LARGEST = 16, 10**9


class SaidLimit(NamedTuple):
    """What an endpoint says about a request that it finds too long.

    Attributes:
        limit: The most that it takes; ``None`` if it does not say.
        counted: What it counted of the request, in its own unit; ``None`` if it does not say.
        answer: What it counted for the answer, if it says so; then that is in ``limit`` too, and not in ``counted``.
    """

    limit: int | None = None
    counted: int | None = None
    answer: int = 0


def said_limit(message: str) -> SaidLimit:
    """Reads the numbers of an error, which are told apart by their order and by what adds up."""
    text = _NO_COUNT.sub("", message)
    if found := _SUM.search(text):
        prompt, answer, limit = map(int, found.groups())
        return SaidLimit(limit, prompt, answer)
    if found := _DIFFERENCE.search(text):
        answer, limit, prompt = map(int, found.groups())
        return SaidLimit(limit, prompt, answer)
    excess = _EXCESS.search(text)
    text = _EXCESS.sub("", text)
    written = [(_integer(each[0]), each.end()) for each in _NUMBER.finditer(text)]
    status = _STATUS.match(message)  # a proxy's page names it again: 413 Request Entity Too Large
    written = [each for each in written if status is None or each[0] != int(status[1])]
    numbers = list(dict.fromkeys(number for number, _ in written if _SMALLEST <= number < _LARGEST))
    if not numbers:
        return SaidLimit()
    if len(numbers) == 1:
        return SaidLimit(numbers[0], numbers[0] + _integer(excess[1]) if excess else None)
    parts = _sum_of_two(numbers)
    if parts is not None:
        total, prompt, answer = parts
        if max(numbers) > total:  # the parts of the limit: what is left for the prompt beside the answer
            of_answer = [number for number, end in written if number in parts and _OF_ANSWER.match(text, end)]
            return SaidLimit(total, max(numbers), of_answer[0] if of_answer else 0)
        if any(number == prompt and _OF_ANSWER.match(text, end) for number, end in written):
            prompt, answer = answer, prompt
        others = [each for each in numbers if each < total and each not in (prompt, answer)]
        return SaidLimit(max(others), prompt, answer) if others else SaidLimit(None, total)
    largest = sorted(numbers, reverse=True)
    return SaidLimit(largest[1], largest[0])


def _integer(written: str) -> int:
    return int(re.sub("[,_]", "", written))


def _sum_of_two(numbers: list[int]) -> tuple[int, int, int] | None:
    """Returns a total with its two parts: prompt and answer, which nearly every wording names in this order."""
    for place, prompt in enumerate(numbers):
        for answer in numbers[place + 1 :]:
            if prompt + answer in numbers:
                return prompt + answer, prompt, answer
    return None
