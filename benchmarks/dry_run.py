"""Tokens a second of ``--dry-run``, against tiktoken alone on the same file with the same threads."""

import json
import sys
from pathlib import Path

from processes import BATCHLLM, Broken, run
from report import Figure
from rows import PROMPT, write_input
from suite import Bench

# Both load the vocabulary, so that what is compared is what somebody waits for.
_BARE = """
import csv, json, sys
from batchllm.tokens import counter
encoding = counter("gpt-4o-mini")._encoding
with open(sys.argv[1], encoding="utf-8", newline="") as file:
    texts = [row["text"] for row in csv.DictReader(file)]
print(json.dumps(sum(map(len, encoding.encode_ordinary_batch(texts, num_threads=int(sys.argv[2]))))))
"""
THREADS = 2
MODEL = "gpt-4o-mini"
NOWHERE = "http://127.0.0.1:9/v1"  # nothing is sent, and nobody would answer


def measure(bench: Bench) -> list[Figure]:
    """The part ``dry_run``."""
    return [_measure(bench, 1_000, 0.8), _measure(bench, 120, 0.5)]


def _measure(bench: Bench, words: int, target: float) -> Figure:
    source = write_input(bench.folder, bench.size.dry_run_words // words, words)
    bare_rates, rates = [], []
    for _ in range(bench.size.repeats):
        bare = run([sys.executable, "-c", _BARE, str(source), str(THREADS)], bench.folder)
        tokens = json.loads(_log(bench))
        ours = run(_command(source, bench), bench.folder)
        counted = json.loads(_log(bench))["prompt_tokens"]
        rows = bench.size.dry_run_words // words
        if not tokens < counted < tokens + 40 * rows:
            raise Broken(f"--dry-run counts {counted} tokens, tiktoken {tokens} of the texts alone")
        bare_rates.append(tokens / bare.seconds)
        rates.append(counted / ours.seconds)
    return Figure(
        part="dry_run",
        what=f"--dry-run, {words:,} words a row",
        samples=rates,
        unit="tokens/s",
        ratios=[ours / bare for bare, ours in zip(bare_rates, rates, strict=True)],
        against="encode_ordinary_batch",
        target=target,
    )


def _command(source: Path, bench: Bench) -> list[str]:
    command = [BATCHLLM, "run", "-p", PROMPT + "{{ text }}", str(source), "-o", str(bench.output("dry"))]
    return [*command, "--base-url", NOWHERE, "-m", MODEL, "--dry-run", "--json"]


def _log(bench: Bench) -> str:
    return (bench.folder / "log.txt").read_text("utf-8")
