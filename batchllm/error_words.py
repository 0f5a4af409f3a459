"""What the words of an error mean: patterns over codes, types and messages."""

import re

_I = re.IGNORECASE
TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size|limit)|maximum context|prompt (?:is )?too long|too many (?:input )?tokens"
    r"|maximum prompt length|model token limit|range of input length|input tokens exceed|\+ `?max_new_tokens\W+must be"
    r"|must be at least 1, got -\d"  # what the prompt leaves for the answer, vLLM
    r"|must have less than \d+ tokens|reduce the length of the (?:messages|prompt|input)"
    r"|(?:input|prompt|string|text) (?:is )?too long|string_above_max|tokens?_too_long|characters_too_long"
    r"|max(?:imum)? (?:model|seq(?:uence)?|session|input)(?: tokens?)? (?:len(?:gth)?|exceed)"
    r"|input token count|max(?:imum)? input (?:characters|tokens)|session length|exceeds? max_num_tokens"
    r"|超过.{0,8}(?:最大)?长度|输入过长|超长",
    _I,
)
_SENTENCE = re.compile(r"[.;!\n](?=\s|$)|。|；")
_WORD_SEAM = re.compile(r"[_\-]|(?<=[a-z])(?=[A-Z])")
_AMOUNT = r"(?:tokens?|context|length|len|characters?)\b"
_OF_TEXT = (
    r"\b(?:inputs?|prompts?|context|messages?|conversation|sequence|seq|session|text|content|query|total|request(?:ed)?"
    r"|size limit|(?:number of|max(?:imum)?) tokens|tokens? (?:count|number|total|limit))\b"
)
_EXCESS = (
    r"exceed|too (?:long|large|big|many)|(?:long|great|larg|bigg|high)er than|no more than|less than|at most|over the"
    r"|(?:must|should|can ?not|may not|has to|have to)(?: not)? be (?:<|≤|less|under|below|within|shorter|smaller)"
    r"|reached|overflow|beyond|max(?:imum)? ?length|<=|≤|\d >"
)
_GRAMMAR = tuple(re.compile(pattern, _I) for pattern in (_AMOUNT, _OF_TEXT, _EXCESS))
_PLAINLY_LONG = re.compile(
    r"\b(?:inputs?|prompts?|context|messages?|conversation|sequence|text|query)(?: (?:is|are|was|were))?"
    r" too (?:long|large|big)"
    r"|(?:输入|上下文|长度|文本|提示词|总数|字数).{0,16}(?:超过|超出|超限|过长|过大|大于|上限)"
    r"|(?:超过|超出).{0,16}(?:长度|上下文)"
    r"|(?:入力|プロンプト|コンテキスト|トークン).{0,16}(?:長すぎ|超え|超過)|(?:입력|프롬프트|컨텍스트|토큰).{0,16}(?:초과|너무)",
    _I,
)
_OF_ELSE = re.compile(
    r"\b(?:per|a) (?:second|minute|min|hour|day|month)\b|\b(?:rate|tpm|tpd|rpm|daily|monthly|quota|credits?|balance)\b"
    r"|\b(?:enum|schema|response format)\b|\b(?:number of|too many) (?:images|messages|tools|files)"
    r"|\b(?:image|file|tool|function|name|stop|metadata)s? (?:size|length|is|are|exceed|must|too)"
    r"|\b(?:auth\w*|access|api|bearer|expired|jwt|timeout|timed|lifetime)\b",
    _I,
)
_OF_ANSWER = re.compile(
    r"\bmax_(?:completion_|new_|output_)?tokens\b|\b(?:output|completion|new) tokens\b|\bfor (?:the )?completion\b",
    _I,
)
_ANSWER_ALONE = re.compile(r"^\W*max_\w*tokens\W+must be (?:less|smaller|no more|at most|<)", _I)
_OF_PROMPT = re.compile(r"\b(?:inputs?|prompts?|messages?|total)\b", _I)
TOO_LARGE = re.compile(
    r"(?:request|payload|request entity|request body) too large"
    r"|exceeds? the maximum (?:number of )?(?:tokens|request size)",
    _I,
)
FILTERED = re.compile(
    r"content[_ ]?(?:filter|policy|management)|responsible\s?ai|moderation|flagged|guardrail|data_?inspection|safety"
    r"|inappropriate content|new_sensitive|sensitive (?:content|words?)|prohibited content|敏感|违规|不安全|内容安全",
    _I,
)
QUOTA = re.compile(
    r"insufficient[_ ](?:\w+[_ ])?(?:quota|balance|credits?|funds)|credit[_ ]balance"
    r"|balance (?:is )?(?:not enough|too low|in)"
    r"|balance[_ ](?:exhausted|depleted)|billing[_ ](?:hard[_ ]limit|not[_ ]active)|spend[_ ]limit|usage_limit_exceeded"
    r"|out of credits|credits? (?:\w+ ){0,3}(?:exhausted|depleted|used up)|no (?:more |remaining )?credits"
    r"|payment[_ ]required|arrear|overdue|余额|欠费",
    _I,
)
QUOTA_NAMED = re.compile(
    r"insufficient[_ ](?:quota|balance|credit|funds)|credit[_ ]balance"
    r"|billing[_ ](?:hard[_ ]limit|not[_ ]active)|spend[_ ]limit|usage_limit_exceeded|out of credits",
    _I,
)
"""As ``QUOTA``, for messages that may repeat words of the row."""
_PAY = re.compile(r"recharge|top[ -]?up|充值", _I)
RATE = re.compile(
    r"rate[_ -]?limit|too[_ ]?many[_ ]?requests|resource[_ ]?exhausted|throttl|rate (?:is )?exceeded"
    r"|(?:request|qps|rpm|tpm|quota|concurrency|frequency|minute|token)s?[_ ](?:\w+[_ ]){0,2}(?:limit|exceeded|reached)"
    r"|quota exceeded|too frequent|requests? too fast|limit ?exceeded|限流|频繁|并发|频率|速率|请求过多|请求过快"
    r"|超出.{0,6}限制",
    _I,
)
THROTTLED = re.compile(r"throttl|too[_ ]?many[_ ]?requests|rate[_ ]?limit", _I)
"""As ``RATE``, for the codes of a 400."""
BUSY = re.compile(
    r"server[_ ](?:is )?busy|engine[_ ](?:is )?busy|system[_ ](?:is )?busy|overload|maximum pending requests"
    r"|(?:at|no|over|exceeded) capacity|queue is full|temporarily unavailable|service[_ ]?unavailable|繁忙|过载|负载",
    _I,
)
LOADING = re.compile(r"loading model|model is loading|currently loading|warming up", _I)
_KEY = re.compile(
    r"(?:invalid|incorrect|wrong|missing|expired|no|bad)[_ -]?(?:\w+[_ -]){0,2}(?:(?:api|access)[_ -]?key|credentials?)"
    r"|api[_ -]?key\b.{0,20}\b(?:invalid|incorrect|expired|missing|required)"
    r"|unauthori[sz]ed|unauthenticated|authenti?cation|authorization|login fail|access[_ ]?denied|permission[_ ]?denied"
    r"|鉴权|密钥|未授权|认证",
    _I,
)
_MODEL = re.compile(
    r"model[^.]{0,60}(?:not[_ ]found|not[_ ]exist|does not exist|not supported|unknown)|no such model|unknown model"
    r"|模型不存在",
    _I,
)
_INVALID = re.compile(
    r"invalid[_ .]?(?:param|request|argument|input|value|type)|bad[_ ]?request|validation|illegal|unsupported"
    r"|malformed|参数",
    _I,
)

# The more specific first: what says "quota" and "limit" in one breath is a limit only where no balance is named.
_STATUS = (
    (TOO_LONG, 400), (QUOTA, 402), (FILTERED, 400), (RATE, 429), (_PAY, 402), (BUSY, 503), (LOADING, 503), (_KEY, 401),
    (_MODEL, 404),
)  # fmt: skip


def says_too_long(message: str) -> bool:
    """Returns whether an error says that a request holds too much text, in known words or in the grammar of them.

    The grammar is a sentence that has an amount (tokens, characters, length), what it is of (prompt, input, context
    …) and an excess (exceeds, too long, at most …), and that is neither about a rate nor about the answer alone.
    """
    if _ANSWER_ALONE.search(message):
        return False
    return TOO_LONG.search(message) is not None or any(map(_is_too_long, _SENTENCE.split(message)))


def _is_too_long(sentence: str) -> bool:
    words = _WORD_SEAM.sub(" ", sentence)
    if _PLAINLY_LONG.search(words):
        return True
    if _OF_ELSE.search(words) or (_OF_ANSWER.search(sentence) and not _OF_PROMPT.search(words)):
        return False
    return all(pattern.search(words) for pattern in _GRAMMAR)


def status_meant(code: str, kind: str, message: str) -> int:
    """Returns the HTTP status that an error within a 2xx would have had; 500 where its words say nothing known.

    Args:
        code: The error's code; an HTTP status in it decides.
        kind: The error's type.
        message: Its explanation, which counts where code and type are silent.
    """
    first = code.partition(" ")[0]
    if len(first) == 3 and first.isascii() and first.isdigit() and 400 <= int(first) < 600:
        return int(first)
    for words in (f"{code} {kind}", message):
        for pattern, status in _STATUS:
            if pattern.search(words):
                return status
    if says_too_long(message) or _INVALID.search(f"{code} {kind}") or _INVALID.search(message):
        return 400
    return 500
