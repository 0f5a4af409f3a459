"""The yardstick: the fastest honest script that sends a CSV file through chat requests and writes a CSV file.

Workers share one reader; bytes over aiohttp, orjson both ways, all answers in memory, one write at the end
in the order of the input. No limiter, no journal, no retry, no check: whoever is killed pays again.
"""

import argparse
import asyncio
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from rows import PROMPT

ANSWER_COLUMNS = ("response", "finish_reason", "prompt_tokens", "completion_tokens", "total_tokens", "model")


async def work(
    session: aiohttp.ClientSession,
    url: str,
    rows: Iterator[tuple[int, list[str]]],
    text_at: int,
    done: dict[int, list[Any]],
) -> None:
    """Sends rows until there is none left."""
    for index, row in rows:
        message = {"role": "user", "content": PROMPT + row[text_at]}
        body = orjson.dumps({"model": "benchmark-1", "messages": [message]})
        async with session.post(url, data=body) as reply:
            answer = orjson.loads(await reply.read())
        choice, usage = answer["choices"][0], answer["usage"]
        done[index] = [
            *row,
            choice["message"]["content"],
            choice["finish_reason"],
            usage["prompt_tokens"],
            usage["completion_tokens"],
            usage["total_tokens"],
            answer["model"],
        ]


async def main(source: str, output: str, base_url: str, concurrency: int) -> None:
    """Reads, sends, writes."""
    headers = {"authorization": "Bearer benchmark", "content-type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    done: dict[int, list[Any]] = {}
    with Path(source).open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        columns = next(reader)
        rows = enumerate(reader)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            url = f"{base_url}/chat/completions"
            workers = (work(session, url, rows, columns.index("text"), done) for _ in range(concurrency))
            await asyncio.gather(*workers)
    with Path(output).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *ANSWER_COLUMNS])
        writer.writerows(done[index] for index in range(len(done)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("output")
    parser.add_argument("--base-url", required=True)
    parser.add_argument("-c", "--concurrency", type=int, default=64)
    options = parser.parse_args()
    asyncio.run(main(options.source, options.output, options.base_url, options.concurrency))
