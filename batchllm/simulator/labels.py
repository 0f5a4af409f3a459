"""Choosing one of some labels by words: a sentiment list in English and Chinese, else words in common."""

import re
from collections.abc import Sequence
from zlib import crc32

_INTRODUCED = re.compile(
    r"""
    (?:labels?|categor(?:y|ies)|class(?:es)?|one\ of|标签|类别|之一)[^:：\n]{0,80}[:：]\s*
        (?P<list>[^\n]*(?:\n[ \t]*[-*•][^\n]+)*)
    |(?:classif\w*|categori[sz]\w*|label\w*)\b[^:：\n]{0,80}?\b(?:as|into|to|in)\b
        (?:\s+(?:either|(?:exactly\ )?one\ of|the\ labels?|the\ categories))*\s*[:：]?\s*
        (?P<english>[^\n.]+)
    |(?:分类为|归类为|归为|判断为|标记为|分为|分成)\s*[:：]?\s*(?P<chinese>[^\n。]+)
    """,
    re.I | re.X,
)
_SENTENCE_END = re.compile(r"\.(?=\s|$)|。")
_QUOTED = re.compile(r"[\"“「『`']([^\"”」』`'\n]{1,60})[\"”」』`'](?!\w)")
_SEPARATOR = re.compile(r"\s*(?:,\s*(?:or|and)\s+|[,，、|;；/\n]|\s+or\s+|\s+and\s+|或者|或|和)\s*", re.I)
_TRIM = " \t\r\n\"'`“”「」『』[](){}<>*•-.。:："
_LONGEST_LABEL = 60

_WORD = re.compile(r"[a-z][a-z']*")
_CHINESE_TONE = re.compile(
    r"""
    (?P<no>不是|没有|不|没|未|毫无|别)?(?:太|很|怎么|够|那么|非常)?
    (?:(?P<good>喜欢|满意|很好|好用|好吃|好看|不错|优秀|完美|推荐|漂亮|方便|舒服|开心|高兴|快乐|感谢|值得|惊喜|流畅
        |赞|棒|爱|快捷|贴心|热情|超值|精致|清晰|得很好)
    |(?P<bad>糟糕|失望|难用|难吃|难看|讨厌|差劲|很差|太差|垃圾|后悔|退货|退款|故障|坏了|坏的|破损|卡顿|投诉|生气|难过
        |恶心|浪费|骗|慢|贵|问题|差评|假货|脏|敷衍|崩溃))
    """,
    re.X,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEGATION = _words("not no never hardly without isn't wasn't don't doesn't didn't won't can't cannot nothing")
_GOOD = _words(
    """good great excellent amazing awesome love loved loves lovely like liked likes enjoy enjoyed best better
    perfect perfectly wonderful fantastic happy pleased satisfied recommend recommended fast quick quickly
    easy helpful friendly beautiful works worked nice superb brilliant impressed impressive reliable smooth
    smoothly delicious comfortable fun thanks thank favorite favourite outstanding delighted glad sturdy
    elegant worth intuitive flawless exceeded"""
)
_BAD = _words(
    """bad terrible awful horrible hate hated hates worst worse poor poorly broken broke disappointed
    disappointing disappointment useless slow slowly sad angry annoying annoyed refund return returned
    defective faulty fail fails failed failure crash crashes crashed problem problems issue issues bug bugs
    waste wasted dirty rude expensive late difficult confusing cheap missing wrong unhappy damaged stopped
    leak leaks leaking cracked overpriced unreliable unusable mediocre"""
)
_POLARITY = {
    **dict.fromkeys(
        _words("positive pos good happy favorable favourable satisfied 积极 正面 正向 好评 褒义 满意"), 1
    ),
    **dict.fromkeys(
        _words(
            "negative neg bad unhappy unfavorable unfavourable dissatisfied 消极 负面 负向 差评 贬义 不满意"
        ),
        -1,
    ),
    **dict.fromkeys(_words("neutral mixed none other unclear 中性 中立 中评 一般 其他"), 0),
}


def listed(instruction: str) -> list[str]:
    """The labels that an instruction lists, in its order; none when it lists fewer than two."""
    for match in _INTRODUCED.finditer(instruction):
        text = _SENTENCE_END.split(match["list"] or match["english"] or match["chinese"] or "", 1)[0]
        quoted = _QUOTED.findall(text)
        parts = quoted if len(quoted) > 1 else _SEPARATOR.split(text)
        found = [label for part in parts if (label := part.strip(_TRIM)) and len(label) <= _LONGEST_LABEL]
        if len(found) > 1:
            return list(dict.fromkeys(found))
    return []


def choose(labels: Sequence[str], text: str) -> str:
    """Exactly one of ``labels``: by sentiment, else by words in common, else by a hash of the text."""
    poles = {_POLARITY[label.lower()]: label for label in reversed(labels) if label.lower() in _POLARITY}
    if 1 in poles and -1 in poles:
        score = sentiment(text)
        pole = (score > 0) - (score < 0)
        if pole in poles:
            return poles[pole]
    best = most_alike(labels, text)
    return labels[best if best is not None else crc32(text.encode("utf-8", "replace")) % len(labels)]


def sentiment(text: str) -> int:
    """Good words less bad words, each turned by a negation before it."""
    words = _WORD.findall(text.lower().replace("’", "'"))
    score = 0
    for at, word in enumerate(words):
        tone = (word in _GOOD) - (word in _BAD)
        if tone:
            negated = not _NEGATION.isdisjoint(words[max(0, at - 3) : at])
            score += -tone if negated else tone
    if not text.isascii():
        for match in _CHINESE_TONE.finditer(text):
            tone = 1 if match["good"] else -1
            score += -tone if match["no"] else tone
    return score


def most_alike(names: Sequence[str], text: str) -> int | None:
    """Index of the name that shares most words with the text; ``None`` when no name shares any."""
    lower = text.lower()
    words = {word[:4] for word in _WORD.findall(lower)}
    best, best_score = None, 0
    for index, name in enumerate(names):
        own = {word[:4] for word in _WORD.findall(name.lower()) if len(word) > 2}
        score = len(own & words) + sum(lower.count(part) for part in re.findall(r"[\u3400-\u9fff]{2,}", name))
        if score > best_score:
            best, best_score = index, score
    return best
