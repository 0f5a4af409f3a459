"""What endpoints say about requests that are too long, in the words of many."""

import json

import pytest

from batchllm.answer import Reader
from batchllm.context_error import SaidLimit, said_limit
from batchllm.records import AnswerSpec, Response
from batchllm.request.long_text import is_too_long
from batchllm.retry import Disposition, classify
from batchllm.retry.policy import may_be_setting

WORDINGS = [
    # OpenAI, Azure, DeepSeek, OpenRouter, vLLM, SGLang
    ("This model's maximum context length is 8192 tokens. However, your messages resulted in 10000 tokens. Please "
     "reduce the length of the messages.", SaidLimit(8192, 10000)),
    ("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4500 in the messages, "
     "500 in the completion).", SaidLimit(4096, 4500, 500)),
    ("This endpoint's maximum context length is 131,072 tokens. However, you requested about 140,500 tokens (140,000 "
     "of text input, 500 in the output).", SaidLimit(131072, 140000, 500)),
    ("Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens.",
     SaidLimit(272000, 300000)),
    ("'max_tokens' or 'max_completion_tokens' is too large: 500. This model's maximum context length is 4096 tokens "
     "and your request has 4000 input tokens (500 > 4096 - 4000).", SaidLimit(4096, 4000, 500)),
    ("Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 5000 "
     "tokens: 4500 tokens from the input messages and 500 tokens for the completion.", SaidLimit(4096, 4500, 500)),
    ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", SaidLimit(4096, 5000)),
    # Anthropic
    ("prompt is too long: 205000 tokens > 200000 maximum", SaidLimit(200000, 205000)),
    ("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length or "
     "`max_tokens` and try again", SaidLimit(200000, 190000, 20000)),
    # Gemini, Mistral, Cohere, xAI, Fireworks, Moonshot, DashScope, TGI, llama.cpp, LM Studio
    ("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
     SaidLimit(1048576, 1200000)),
    ("Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
     SaidLimit(32768, 40000)),
    ("too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000.",
     SaidLimit(4081, 5000)),
    ("This model's maximum prompt length is 131072 but the request contains 140000 tokens.",
     SaidLimit(131072, 140000)),
    ("The prompt is too long: 9000, model maximum context length: 8191", SaidLimit(8191, 9000)),
    ("Invalid request: Your request exceeded model token limit: 8192", SaidLimit(8192)),
    ("Range of input length should be [1, 30720]", SaidLimit(30720)),
    ("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000 `inputs` tokens and "
     "512 `max_new_tokens`", SaidLimit(4097, 5000)),
    ("request (5012 tokens) exceeds the available context size (4096 tokens), try increasing it",
     SaidLimit(4096, 5012)),
    ("Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context "
     "length of only 4096 tokens", SaidLimit(4096, 5000)),
    ("Please reduce the length of the messages or completion.", SaidLimit()),
    # vLLM's newer words: the answer before the prompt, the prompt's share of the limit, other names of the limit
    ("This model's maximum context length is 4096 tokens. However, you requested 500 output tokens and your prompt "
     "contains at least 3597 input tokens, for a total of at least 4097 tokens. Please reduce the length of the input "
     "prompt or the number of requested output tokens.", SaidLimit(4096, 3597, 500)),
    ("You passed 5001 input tokens and requested 100 output tokens. However, the model's context length is only 4096 "
     "tokens, resulting in a maximum input length of 3996 tokens. Please reduce the length of the input prompt.",
     SaidLimit(4096, 5001, 100)),
    ("The decoder prompt (length 5012) is longer than the maximum model length of 4096. Make sure that "
     "`max_model_len` is no smaller than the number of text tokens.", SaidLimit(4096, 5012)),
    # Vertex, Cohere, Ollama, MiniMax, DashScope, Zhipu, Baidu, SambaNova, TensorRT-LLM, LMDeploy, GitHub Models
    ("Unable to submit request because the input token count is 40000 but model only supports up to 32768. Reduce the "
     "input token count and try again.", SaidLimit(32768, 40000)),
    ("too many tokens: size limit exceeded by 1208 tokens. Try using shorter or fewer inputs. The limit for this model "
     "is 128000 tokens.", SaidLimit(128000, 129208)),
    ("prompt too long; exceeded max context length by 512 tokens", SaidLimit()),
    ("invalid params, context window exceeds limit (2013)", SaidLimit()),
    ("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]", SaidLimit(30720)),
    ("Error code: 400 - This model's maximum context length is 8192 tokens.", SaidLimit(8192)),
    ("Prompt 超长", SaidLimit()),
    ("Request max input token exceed limit: 128000, got 140123", SaidLimit(128000, 140123)),
    ("the max input characters is 23000", SaidLimit(23000)),
    ("The prompt length (9012) exceeds max seq length 8192", SaidLimit(8192, 9012)),
    ("Prompt length (5012) exceeds maximum input length (4096).", SaidLimit(4096, 5012)),
    ("The sum of prompt length (5012), query length (0) should not exceed max_num_tokens (4096)",
     SaidLimit(4096, 5012)),
    ("The input is too long: input length 5012, session length 4096", SaidLimit(4096, 5012)),
    ("Request body too large for gpt-4o-mini model. Max size: 8000 tokens.", SaidLimit(8000)),
    ("Invalid 'messages[0].content': string too long. Expected a string with maximum length 1048576, but got a string "
     "with length 2000000 instead.", SaidLimit(1048576, 2000000)),
    # Words that no pattern knows by heart: an amount, what it is of, and an excess
    ("size limit exceeded by 1208 tokens. Try using fewer inputs. The limit for this model is 128000 tokens.",
     SaidLimit(128000, 129208)),
    ("Malformed input request: expected maxLength: 50000, actual: 63234, please reformat your input and try again.",
     SaidLimit(50000, 63234)),
    ("length of prompt_tokens (9000) must be less than max_seq_len (8192).", SaidLimit(8192, 9000)),
    ("The input length 9000 exceeds session_len 8192", SaidLimit(8192, 9000)),
    ("prompt length 9000 exceeds max context 8192", SaidLimit(8192, 9000)),
    ("Bad request: prompt token count (9000) cannot exceed 8192.", SaidLimit(8192, 9000)),
    ("number of input tokens must be no more than 8192, got 9000", SaidLimit(8192, 9000)),
    ("The conversation is too long: 9000 tokens, but the maximum is 8192", SaidLimit(8192, 9000)),
    ("prompt + max_tokens should be <= 8192, got 9100", SaidLimit(8192, 9100)),
    ("Total tokens of image and text exceed max message tokens.", SaidLimit()),
    ("The request failed because the input exceeds the maximum limit of 8192 tokens", SaidLimit(8192)),
    ("AiError: AiError: Invalid input or prompt too large", SaidLimit()),
    ("max tokens of 8192 exceeded", SaidLimit(8192)),
    ("max_tokens must be at least 1, got -904.", SaidLimit()),
    ("输入内容长度超过模型上限 8192 tokens", SaidLimit(8192)),
    ("入力が長すぎます。最大 8192 トークンです。", SaidLimit(8192)),
]  # fmt: skip


@pytest.mark.parametrize(("words", "limit"), WORDINGS, ids=[words[:40] for words, _ in WORDINGS])
def test_every_wording_is_known_and_its_numbers_are_read(words: str, limit: SaidLimit) -> None:
    body = json.dumps({"error": {"message": words, "type": "invalid_request_error"}}).encode()
    answer = Reader(AnswerSpec("response")).read(400, body)
    assert is_too_long(answer), answer.reason
    assert said_limit(answer.error or "") == limit


@pytest.mark.parametrize(
    "words",
    [
        "max_tokens is too large: 50000. This model supports at most 16384 completion tokens, you provided 50000.",
        "Invalid 'tools[0].function.name': string does not match pattern.",
        "Invalid value for 'temperature': must be at most 2",
        "The maximum number of images is 10",
        "max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens for this model",
        "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the "
        "`context_window` for this model",
        "max_new_tokens must be <= 2048",
        "max_tokens=5000 cannot be greater than max_model_len=4096.",
        "Your account has reached its daily token limit",
        "Invalid schema for response_format 'x': enum values of a total length that exceeds 15000 characters",
        "The request exceeded the timeout of 60 s",
        "Access token: its length exceeds 4096 characters",
    ],
)
def test_other_limits_are_not_taken_for_long_texts(words: str) -> None:
    body = json.dumps({"error": {"message": words, "type": "invalid_request_error"}}).encode()
    assert not is_too_long(Reader(AnswerSpec("response")).read(400, body))


def test_fields_of_llama_cpp_are_part_of_its_words() -> None:
    error = {"code": 400, "message": "the request exceeds the available context size. try increasing the context size",
             "type": "exceed_context_size_error", "n_prompt_tokens": 5012, "n_ctx": 4096}  # fmt: skip
    answer = Reader(AnswerSpec("response")).read(400, json.dumps({"error": error}).encode())
    assert is_too_long(answer)
    assert said_limit(answer.error or "") == SaidLimit(4096, 5012)


def test_a_limit_a_minute_that_a_request_exceeds_is_read_too() -> None:
    words = "Request too large for gpt-4o-2024-08-06 on tokens per min (TPM): Limit 30000, Requested 30601."
    assert said_limit(f"HTTP 429: {words}") == SaidLimit(30000, 30601)


@pytest.mark.parametrize(
    ("status", "error", "limit"),
    [
        (400, {"error": {"code": "1261", "message": "Prompt 超长"}}, SaidLimit()),
        (400, {"message": "Prompt contains 40000 tokens, too large for model with 1200 maximum context length",
               "code": "3051"}, SaidLimit(1200, 40000)),
        (200, {"error_code": 336103, "error_msg": "the max input characters is 23000"}, SaidLimit(23000)),
        (500, {"error": {"message": "prompt too long; exceeded max context length", "code": None}}, SaidLimit()),
        (400, {"errors": [{"description": "Total tokens 9100 exceed model limit 8192"}]}, SaidLimit(8192, 9100)),
        (413, "<html><head><title>413 Request Entity Too Large</title></head></html>", SaidLimit()),
        (400, "context length exceeded", SaidLimit()),
        (400, {"message": "The input exceeds the context. Request id: 217"}, SaidLimit()),
    ],
)  # fmt: skip
def test_codes_and_statuses_are_no_limits_and_shapes_do_not_hide_the_words(
    status: int, error: object, limit: SaidLimit
) -> None:
    body = error.encode() if isinstance(error, str) else json.dumps(error).encode()
    answer = Reader(AnswerSpec("response")).read(status, body)
    assert is_too_long(answer), answer.reason
    assert said_limit(answer.error or "") == limit
    verdict = classify(Response(status, {}, body, 0.1))
    assert verdict.disposition is Disposition.REJECTED
    assert not may_be_setting(verdict)  # rows that are too long do not stop the job
