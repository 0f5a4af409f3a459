"""A run in which every row gets another reply out of the field: each good one is used, each bad one says why."""

import gzip
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tests.bench import CALL
from tests.command import Command
from tests.fakes import chat_body
from tests.raw_server import RawServer


def said(text: Any, finish: str = "stop", **more: Any) -> bytes:
    body = json.loads(chat_body("x"))
    body["choices"][0] |= {"message": {"role": "assistant", "content": text, **more}, "finish_reason": finish}
    return json.dumps(body).encode()


def stream(*parts: str) -> bytes:
    chunks = [{"choices": [{"index": 0, "delta": {"content": part}}]} for part in parts]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return (
        b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
    )


@dataclass(frozen=True)
class Odd:
    """A reply, and what its row gets: the answer's ``topic``, or words of its error.

    Attributes:
        later: The reply to every further request for the row; the same where ``None``.
        again: A later run sends the row again, and gets an answer.
    """

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    topic: str | None = None
    error: str = ""
    later: bytes | None = None
    again: bool = False


GOOD = said('{"topic": "tea"}')
TEA = [
    Odd(GOOD, topic="tea"),
    Odd(said('{"topic": "a\nb"}'), topic="a\nb"),
    Odd(said("<think>{}</think>```json\n{'topic': 'tea',} // so\n```<|im_end|>"), topic="tea"),
    Odd(said('[THINK]hm[/THINK]{"topic": "tea"}', "eos"), topic="tea"),
    Odd(said('Format {"topic": 1}. So {"topic": "tea"}'), topic="tea"),
    Odd(stream('{"topic"', ': "tea"}'), headers={"content-type": "text/event-stream"}, topic="tea"),
    Odd(gzip.compress(GOOD), topic="tea"),
    Odd(gzip.compress(GOOD), headers={"content-encoding": "gzip"}, topic="tea"),
    Odd(GOOD, headers={"content-encoding": "br"}, topic="tea"),
    Odd(b'{"base_resp": {"status_code": 1002, "status_msg": "rate limit"}, "wait_time": 0.05}', later=GOOD,
        topic="tea"),
    Odd(b'{"code": "Throttling.RateQuota", "message": "slow", "retry_after_ms": 50}', later=GOOD, topic="tea"),
    Odd(b'{"error": {"message": "slow", "code": 429, "metadata": {"headers": {"Retry-After": "0.05"}}}}', 429,
        later=GOOD, topic="tea"),
]  # fmt: skip
BAD = [
    Odd(b"<html><title>Request blocked</title></html>", 403, error="HTTP 403: Request blocked"),
    Odd(b'{"error":{"message":"No endpoints found that support image input"}}', 404, error="HTTP 404: No endpoints"),
    Odd(b'{"error":{"message":"no such thing","code":"\xc2\xb2"}}', 400, error="no such thing"),
    Odd(b'{"base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}}', error="input new_sensitive"),
    Odd(b'{"code": "DataInspectionFailed", "message": "inappropriate content"}', error="inappropriate content"),
    Odd(said(None, "tool_calls", tool_calls=[CALL]), error="no tools were offered"),
    Odd(said('{"topic": "cut', "MAX_TOKENS"), error="raise --max-tokens"),
    Odd(said('{"topic": "cut'), error="is cut off"),
    Odd(said('{"topic": NaN}'), error="NaN is no JSON value"),
    Odd(said('{"topic": 5}'), error="does not fit the schema"),
    Odd(said(None, refusal="I will not."), error="I will not."),
    Odd(said(None, "SAFETY"), error="content filter"),
    Odd(b"\x8b\x02\x80", headers={"content-encoding": "br"}, error="in the encoding br"),
    Odd(b'{"error":{"message":"context_length_exceeded: too long","code":"context_length_exceeded"}}', 400,
        error="too long"),
    Odd(b'{"detail":[{"loc":["body","n"],"msg":"too big"}]}', 422, error="body.n: too big"),
    Odd(b'{"error":{"message":"upstream gone","code":502}}', error="upstream gone", again=True),
    Odd(b'{"choices": []}', error="no choices", again=True),
]  # fmt: skip
ROWS = 300


def replies() -> list[Odd]:
    """Two good ones and a bad one in turn."""
    return [(BAD if number % 3 == 2 else TEA)[number // 3 % 1000 % len(BAD if number % 3 == 2 else TEA)]
            for number in range(ROWS)]  # fmt: skip


@pytest.mark.timeout(120)
def test_a_run_through_every_odd_reply_answers_all_that_can_be_and_sends_again_only_what_may_help(
    tmp_path: Any, batchllm: Command
) -> None:
    plan = replies()
    asked: list[int] = []
    healed = False

    def answer(body: dict[str, Any]) -> web.Response:
        number = int(body["messages"][-1]["content"].split()[-1])
        odd = plan[number]
        is_first = number not in asked
        asked.append(number)
        if odd.later is not None and not is_first:
            return web.Response(body=odd.later)
        if odd.again and healed:
            return web.Response(body=GOOD)
        return web.Response(status=odd.status, headers=odd.headers, body=odd.body)

    rows = tmp_path / "in.jsonl"
    rows.write_text("".join(json.dumps({"text": f"number {number}"}) + "\n" for number in range(ROWS)))
    output = tmp_path / "out.jsonl"
    with RawServer(answer) as server:
        words = ("run", "-p", "{{ text }}", rows, "--schema", "topic", "--reask", 0, "--max-attempts", 2, "-o", output,
                 "--base-url", server.base_url, "-m", "m", "-c", 4)  # fmt: skip

        def run(*more: object) -> list[dict[str, Any]]:
            ended = batchllm(*words, *more)
            assert ended.status == 1, ended.err
            return [json.loads(line) for line in output.read_text().splitlines()]

        def holds(found: list[dict[str, Any]]) -> None:
            for number, (odd, row) in enumerate(zip(plan, found, strict=True)):
                is_good = odd.topic is not None or (odd.again and healed)
                assert (row["error"] is None) == is_good, (number, odd, row)
                assert row["topic"] == (odd.topic or ("tea" if is_good else None)), (number, odd, row)
                assert is_good or odd.error in row["error"], (number, odd, row)

        holds(run())
        assert set(asked) == set(range(ROWS))
        first, healed = len(asked), True
        holds(run())
        assert set(asked[first:]) == {number for number, odd in enumerate(plan) if odd.again}
        second = len(asked)
        holds(run("--retry-failed"))
        assert set(asked[second:]) == {
            number for number, odd in enumerate(plan) if odd.error and not odd.again
        }


def test_attempts_counts_failures_and_answers_and_no_refusals(tmp_path: Any, batchllm: Command) -> None:
    slow = {"retry-after": "0.05"}
    left = {
        "refused": [web.Response(status=429, headers=slow), web.Response(status=429, headers=slow)],
        "failed": [web.Response(status=500, headers=slow)],
        "plain": [],
    }

    def answer(body: dict[str, Any]) -> web.Response:
        before = left[body["messages"][-1]["content"]]
        return before.pop() if before else web.Response(body=said("fine"))

    rows = tmp_path / "in.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in left))
    output = tmp_path / "out.jsonl"
    with RawServer(answer) as server:
        words = ("run", "-p", "{{ text }}", rows, "-o", output, "--base-url", server.base_url, "-m", "m")
        assert batchllm(*words, "-c", 1).status == 0
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert {row["text"]: row["attempts"] for row in found} == {"refused": 1, "failed": 2, "plain": 1}
