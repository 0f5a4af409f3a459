import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.answer import Labels
from batchllm.errors import UsageError

SENTIMENTS = ("positive", "negative", "neutral")
CHINESE = ("积极", "消极", "中性")


@pytest.mark.parametrize(
    "text",
    [
        "positive",
        "Positive.",
        '"positive"',
        "**Positive**",
        "`positive`",
        "  POSITIVE\n",
        "# Positive",
        "- positive",
        "(positive)",
        "「positive」",
        "ｐｏｓｉｔｉｖｅ",
        "Label: positive",
        "**Label:** Positive",
        "Label:\npositive",
        "The sentiment is: **Positive**",
        "The sentiment of this text is positive.",
        '{"label": "positive"}',
        '```json\n{"label": "Positive", "confidence": 0.97}\n```',
        '{"sentiment": "positive", "reason": "not negative at all"}',
        '["positive"]',
        "情感：积极",
        "标签：positive。",
        "Positive\n\nThe text isn't negative: the author liked it.",
        "The plot is negative, the actors are neutral.\n\nLabel: **positive**",
        "It says negative things about the hotel and some about food. Overall: positive",
        "Labels: positive, negative, neutral\nAnswer: positive",
        "It is not negative, it is positive.",
        "Some negative words, some neutral ones, but in the end **positive**",
        "毫无疑问是积极的",
        r"\boxed{positive}",
    ],
)
def test_a_label_is_read_out_of_what_models_write(text: str) -> None:
    assert Labels(SENTIMENTS).find(text) == "positive"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "...",
        "not positive",
        "It isn't positive.",
        "positive or negative",
        "positive, negative, neutral",
        "positive\nnegative",
        "Label: positive\nLabel: negative",
        '{"label": "positive", "class": "negative"}',
        "positivity",
        "non-positive",
        "positive-ish",
        "I cannot say whether this is positive",
        "不积极",
        "mixed",
        "好",
        "{" * 5000,
        "a" * 100_000,
    ],
)
def test_where_none_or_several_can_be_read_there_is_no_label(text: str) -> None:
    assert Labels(SENTIMENTS).find(text) is None


@pytest.mark.parametrize(
    ("labels", "text", "label"),
    [
        (CHINESE, "积极", "积极"),
        (CHINESE, "情感：积极", "积极"),
        (CHINESE, "这段文字的情感是积极的。", "积极"),
        (CHINESE, "非常积极", "积极"),
        (CHINESE, "并不积极", None),
        (CHINESE, "Positive", "积极"),
        (("正面", "积极"), "positive", None),
        (("neg", "negative"), "negative", "negative"),
        (("neg", "negative"), "It is neg.", "neg"),
        (("neg", "pos"), "negative", None),
        (("A", "A+", "B"), "A+", "A+"),
        (("A", "A+", "B"), "Grade: A+", "A+"),
        (("A", "A+", "B"), "The grade is A", "A"),
        (("A", "B"), "A+", None),
        (("A", "B"), "This is a B", "B"),
        (("A", "B"), "A: the first one", "A"),
        (("C", "C++", "C#"), "C#.", "C#"),
        (("C", "C++", "C#"), "It is written in C++.", "C++"),
        (("C", "C++", "C#"), "It is written in C.", "C"),
        (("1", "2", "3"), "Score: 2", "2"),
        (("1", "2", "3"), "1.5", None),
        (("1", "2", "3"), "12", None),
        (("yes", "no"), "No.", "no"),
        (("yes", "no"), "No, it is not.", "no"),
        (("spam", "not spam"), "This is not spam.", "not spam"),
        (("spam", "not spam"), "Not Spam", "not spam"),
        (("Bug report", "Feature request"), "category: bug report", "Bug report"),
        (("U.S.", "U.K."), "U.S.", "U.S."),
        ((".NET", "Java"), ".NET", ".NET"),
        (("été", "hiver"), "ÉTÉ !", "été"),
        (("スパム", "普通"), "これはスパムです", "スパム"),
        (("긍정", "부정"), "긍정입니다", "긍정"),
    ],
)
def test_labels_of_all_kinds(labels: tuple[str, ...], text: str, label: str | None) -> None:
    assert Labels(labels).find(text) == label


def test_the_label_is_spelled_as_the_user_spelled_it() -> None:
    assert Labels(("PoSiTiVe", "Ｎｅｇ")).find("positive") == "PoSiTiVe"
    assert Labels(("PoSiTiVe", "Ｎｅｇ")).find("neg") == "Ｎｅｇ"


@pytest.mark.parametrize("labels", [(), ("",), ("a", " "), ("Yes", "yes"), ("a", "ａ")])
def test_labels_that_cannot_be_told_apart_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="--labels"):
        Labels(labels)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200), st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6))
def test_whatever_the_text_a_label_found_is_one_of_the_labels(text: str, labels: list[str]) -> None:
    try:
        reader = Labels(labels)
    except UsageError:
        return
    assert reader.find(text) in (None, *labels)
    for label in labels:
        assert reader.find(label) == label


@pytest.mark.parametrize(
    "text", ["positive " * 5000, "**" * 10_000, "label:" * 5000, ":\n" * 10_000, "not " * 6000]
)
def test_long_answers_take_no_long_time(text: str) -> None:
    started = time.process_time()
    Labels(SENTIMENTS).find(text)
    assert time.process_time() - started < 1.0


NAMES = ("billing_issue", "tech-support", "Feature Request", "other")


@pytest.mark.parametrize(
    ("labels", "text", "label"),
    [
        (NAMES, "Billing issue", "billing_issue"),
        (NAMES, "billing-issue", "billing_issue"),
        (NAMES, "BILLING_ISSUE.", "billing_issue"),
        (NAMES, "BillingIssue", "billing_issue"),
        (NAMES, "billing–issue", "billing_issue"),
        (NAMES, "**Tech Support**", "tech-support"),
        (NAMES, "tech_support", "tech-support"),
        (NAMES, "tech\u2011support", "tech-support"),
        (NAMES, "feature_request", "Feature Request"),
        (NAMES, "- feature-request", "Feature Request"),
        (NAMES, '{"label": "feature_request"}', "Feature Request"),
        (NAMES, "Label: billing issue", "billing_issue"),
        (NAMES, "The customer has a billing issue with the invoice.", "billing_issue"),
        (NAMES, "This is about tech support or a billing issue", None),
        (NAMES, "It is not a billing issue", None),
        (("1", "2", "3", "4", "5"), "4.0", "4"),
        (("1", "2", "3", "4", "5"), "4,00", "4"),
        (("1", "2", "3", "4", "5"), "Score: 4.0", "4"),
        (("1", "2", "3", "4", "5"), "I rate this 4.0", "4"),
        (("1", "2", "3", "4", "5"), "04", "4"),
        (("1", "2", "3", "4", "5"), "4.5", None),
        (("1.0", "2.0"), "2", "2.0"),
        (("0.5", "1.5"), "1.50", "1.5"),
        (("-1", "0", "1"), "-1", "-1"),
        (("-1", "0", "1"), "−1.0", "-1"),
        (("-1", "0", "1"), "+1", "1"),
        (("0", "1", "2"), "-1", None),
        (("4", "4.0"), "4", "4"),
        (("4", "4.0"), "4.00", None),
        (("no go", "nogo"), "no go", "no go"),
        (("no go", "nogo"), "no_go", None),
        (("re-sign", "resign"), "re sign", None),
        (("pre_paid", "other"), "prepaid", "pre_paid"),
        (("非常 好", "差"), "非常好", "非常 好"),
    ],
)  # fmt: skip
def test_a_label_is_found_up_to_case_separators_and_the_form_of_a_number(
    labels: tuple[str, ...], text: str, label: str | None
) -> None:
    assert Labels(labels).find(text) == label
