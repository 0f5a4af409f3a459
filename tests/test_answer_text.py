"""The reasoning and the template's tokens of every model family are no part of an answer."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.answer import Labels, visible_text

HARMONY = "<|channel|>analysis<|message|>Hm, positive?<|end|><|start|>assistant<|channel|>final<|message|>yes<|return|>"


@pytest.mark.parametrize(
    "text",
    [
        "<think>a\nb</think>\nyes", "<thinking>a</thinking>yes", "<thought>a</thought>yes",
        "<thoughts>a</thoughts> yes",
        "[THINK]a\nb[/THINK]yes", "a b[/THINK]yes", "<seed:think>a</seed:think>yes", "a</seed:think>yes",
        "<mm:think>a</mm:think>yes", "◁think▷a◁/think▷yes", "a◁/think▷yes", "<antThinking>a</antThinking>yes",
        "<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>yes<|end_of_solution|>",
        "<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>yes<|END_RESPONSE|>",
        "<unused94>thought\na<unused95>yes", "<reasoning>a</reasoning>yes", "<scratchpad>a</scratchpad>\nyes",
        "<think>a</think>\n<answer>yes</answer>", "<longcat_think>a</longcat_think>yes",
        HARMONY, HARMONY.removesuffix("<|return|>"), HARMONY.replace("<|end|>", ""),
        "<|channel|>final<|message|>yes",
        "<|start|>assistant<|channel|>final <|constrain|>json<|message|>yes",
        "yes<|eot_id|>", "yes<|im_end|>", "yes<|im_end|>\n", "yes</s>", "yes<|endoftext|>", "yes<end_of_turn>",
        "yes<eos>",
        "yes<｜end▁of▁sentence｜>", "yes<|end|>", "yes<|return|>", "yes<|END_OF_TURN_TOKEN|>",
        "yes<|eom_id|>", "yes[EOS]",
        "yes<|im_end|>\n<|im_start|>user\nno", "yes<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nno",
        "<s>yes</s>", "<|im_start|>assistant\nyes<|im_end|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\nyes<|eot_id|>", "yes<|im_end|><|endoftext|>",
        "<think>a</think>yes<|im_end|>",
    ],
)  # fmt: skip
def test_the_answer_is_what_is_neither_reasoning_nor_a_token_of_the_template(text: str) -> None:
    assert visible_text(text) == "yes"
    assert Labels(("yes", "no")).find(visible_text(text)) == "yes"


@pytest.mark.parametrize(
    "text", ["[THINK]a", "<seed:think>a", "◁think▷a", "<thought>a", HARMONY[:45], "<reasoning>a"]
)
def test_reasoning_that_never_ends_leaves_no_answer(text: str) -> None:
    assert visible_text(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "I think so < you", "[1] and [thing]", "<p>a</p>", "a <s>b</s> c", "[see <b>x</b>]", "x = a[i] <|> b",
        "The tag <reasoning> opens it.", "<answer>b</answer>", "a <analysis>b</analysis> c",
        "use <|im_end|> to end a turn",
        "[INST] is a mark", "if a < b: c[0] = 1",
    ],
)  # fmt: skip
def test_what_belongs_to_the_answer_stays(text: str) -> None:
    assert visible_text(text) == text


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("<>[]/|◁▷ abthinkTHINKchannelmessage\n"), max_size=60))
def test_whatever_the_text_some_of_it_is_left_or_nothing(text: str) -> None:
    seen = visible_text(text)
    assert seen == seen.strip() and len(seen) <= len(text)


@pytest.mark.parametrize(
    "text", ["<think>" * 9000, "<|channel|>x<|message|>" * 3000, "<s>" * 20_000, "<|im_end|>" * 9000, "a<" * 30_000,
             "</s> x" * 9000, "<|im_end|> x" * 5000]
)  # fmt: skip
def test_long_answers_are_read_in_no_time(text: str) -> None:
    started = time.process_time()
    visible_text(text)
    assert time.process_time() - started < 1.0
