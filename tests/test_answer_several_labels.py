"""Any number of labels in an answer: joined in the order of --labels, none where none applies."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.answer import Reader
from batchllm.answer.several_labels import SeveralLabels
from batchllm.errors import UsageError
from batchllm.records import AnswerSpec

LABELS = ("billing", "Home, Garden", "shipping", "R and D")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("shipping", "shipping"),
        ("shipping; billing", "billing; shipping"),
        ("Shipping, Billing.", "billing; shipping"),
        ("billing and shipping", "billing; shipping"),
        ("Home, Garden; billing", "billing; Home, Garden"),
        ("R and D", "R and D"),
        ("R and D; billing", "billing; R and D"),
        ("- shipping\n- billing", "billing; shipping"),
        ("1. billing\n2. Home, Garden", "billing; Home, Garden"),
        ("**billing**; **shipping**", "billing; shipping"),
        ("Labels: billing; shipping", "billing; shipping"),
        ("billing; shipping\n\nThe text asks for an invoice.", "billing; shipping"),
        ('["shipping", "billing"]', "billing; shipping"),
        ('{"labels": ["shipping"]}', "shipping"),
        ('```json\n{"billing": true, "shipping": false}\n```', "billing"),
        ("billing; billing", "billing"),
        ("none", "none"),
        ("None.", "none"),
        ("None of the labels", "none"),
        ("[]", "none"),
        ('{"labels": []}', "none"),
        ("Labels: none", "none"),
    ],
)
def test_labels_are_found_and_joined_in_their_order(text: str, found: str) -> None:
    assert SeveralLabels(LABELS).find(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "billing; returns",
        "It is about billing, and not about shipping.",
        "none\nbilling",
        "billing\nOr rather:\nshipping",
        '["billing", "returns"]',
        "returns",
    ],
)
def test_what_is_not_only_labels_is_not_guessed(text: str) -> None:
    assert SeveralLabels(LABELS).find(text) is None


def test_a_label_called_none_is_a_label() -> None:
    assert SeveralLabels(("None", "some")).find("none") == "None"


def test_a_label_with_a_semicolon_cannot_be_joined() -> None:
    with pytest.raises(UsageError, match="'a;b' cannot contain one"):
        SeveralLabels(("a;b", "c"))


@given(st.lists(st.text("abc ABC-_&,.", min_size=1, max_size=8), min_size=2, max_size=5), st.data())
@settings(max_examples=60)
def test_the_asked_for_form_is_always_read(labels: list[str], data: st.DataObject) -> None:
    try:
        several = SeveralLabels(labels)
    except UsageError:
        return
    stripped = [label for label in labels if label.strip(" .,-_&*") and label == label.strip()]
    chosen = [label for label in labels if label in stripped and data.draw(st.booleans())]
    found = several.find("; ".join(chosen) or "none")
    assert found is None or found == ("; ".join(chosen) or "none")
    if all(label.isalpha() for label in labels):
        assert found is not None


@given(st.text())
@settings(max_examples=60)
def test_any_text_is_read_or_not_and_nothing_is_raised(text: str) -> None:
    found = SeveralLabels(LABELS).find(text)
    assert found is None or found == "none" or set(found.split("; ")) <= set(LABELS)


def test_the_reader_joins_counts_and_refuses_what_was_cut() -> None:
    reader = Reader(AnswerSpec("label", "label", LABELS, multi_label=True))

    def answer(content: str, finish: str) -> object:
        choice = {"message": {"content": content}, "finish_reason": finish}
        return reader.read(200, json.dumps({"choices": [choice]}).encode())

    read = answer("shipping; billing", "stop")
    assert (read.columns, read.labels) == ({"label": "billing; shipping"}, ("billing", "shipping"))  # type: ignore[attr-defined]
    assert answer("none", "stop").labels == ("none",)  # type: ignore[attr-defined]
    cut = answer("billing; ship", "length")
    assert cut.reason == "cut" and "--max-tokens" in cut.error and cut.labels == ()  # type: ignore[attr-defined]
