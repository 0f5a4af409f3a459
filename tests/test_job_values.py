import math
from decimal import Decimal
from typing import Any

import pytest

from batchllm.job import values
from batchllm.job.options import OPTIONS


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("rpm", "500", 500),
        ("rpm", 0.5, 0.5),
        ("tpm", "200_000", 200_000),
        ("concurrency", "64", 64),
        ("concurrency", 64.0, 64),
        ("temperature", "0", 0),
        ("temperature", 2, 2),
        ("max_wait", "24h", 86_400),
        ("max_wait", "10min", 600),
        ("max_wait", "90", 90),
        ("max_wait", 90, 90),
        ("max_wait", "1.5 hours", 5400),
        ("allow_failed", "1%", 0.01),
        ("allow_failed", 0.01, 0.01),
        ("allow_failed", "100%", 1),
        ("max_cost", "$5.00", Decimal("5.00")),
        ("max_cost", 0.1, Decimal("0.1")),
        ("labels", " yes , no ", ("yes", "no")),
        ("labels", ["a, b", "c"], ("a, b", "c")),
        ("columns", "summary,error", ("summary", "error")),
        ("image", "front, side", ("front, side",)),
        ("image", ["front", "side"], ("front", "side")),
        ("force", "YES", True),
        ("force", "0", False),
        ("force", True, True),
        ("detail", "High", "high"),
        ("encoding", "CP1252", "cp1252"),
        ("param", "top_p=0.9", {"top_p": 0.9}),
        ("param", ["stop=[\"a\"]", "user=me=you", "x=nan"], {"stop": ["a"], "user": "me=you", "x": "nan"}),
        ("param", {"stop": "[1]"}, {"stop": "[1]"}),
        ("header", ["X-Title=a b"], {"X-Title": "a b"}),
        ("header", {"X-N": 3}, {"X-N": "3"}),
    ],
)  # fmt: skip
def test_a_setting_takes_text_and_tomls_own_types(name: str, raw: Any, value: Any) -> None:
    found = OPTIONS[name].kind(raw)
    assert found == value
    assert type(found) is type(value) or isinstance(found, (int, float))


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("rpm", "0", "above 0"),
        ("rpm", -1, "above 0"),
        ("rpm", "fast", "a number above 0, not 'fast'"),
        ("rpm", math.nan, "above 0"),
        ("rpm", math.inf, "above 0"),
        ("rpm", True, "above 0"),
        ("rpm", None, "above 0"),
        ("concurrency", 2.5, "a whole number from 1 to 10000"),
        ("concurrency", "1e999", "a whole number"),
        ("temperature", 2.1, "from 0 to 2"),
        ("max_tokens", 0, "at least 1"),
        ("max_wait", "soon", "90s, 10min, 1h or 2d"),
        ("max_wait", -5, "90s"),
        ("allow_failed", "101%", "1% or 0.01"),
        ("allow_failed", 1.5, "1% or 0.01"),
        ("allow_failed", "NaN", "1% or 0.01"),
        ("max_cost", "0", "dollars above 0"),
        ("max_cost", "Infinity", "dollars above 0"),
        ("max_cost", "five", "dollars above 0"),
        ("labels", "one", "at least two labels"),
        ("labels", "a,,b", "none of them empty"),
        ("labels", "a,b,a", "names 'a' twice"),
        ("labels", "Spam,spam", "in another case"),
        ("labels", [1, 2], "separated by commas"),
        ("columns", [], "none of them empty"),
        ("force", "maybe", "true or false"),
        ("detail", "medium", "one of low, high, auto"),
        ("encoding", "utf-9", "utf-8, cp1252 or gb18030"),
        ("param", "top_p", "NAME=VALUE"),
        ("param", 3, "NAME=VALUE"),
        ("header", "=x", "NAME=VALUE"),
        ("model", "  ", "must be text"),
        ("column", 3, "must be text"),
    ],
)
def test_a_value_beyond_its_limits_is_refused_in_words_that_say_them(
    name: str, raw: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        OPTIONS[name].kind(raw)


def test_any_text_may_be_empty() -> None:
    assert values.any_text("") == ""
