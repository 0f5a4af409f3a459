"""Every setting of a job: one table for flags, ``BATCHLLM_*`` variables, job files and ``batchllm init``.

A setting has the name of its flag with underscores: ``--max-attempts`` is ``max_attempts`` in a job file and
``BATCHLLM_MAX_ATTEMPTS`` in the environment.
"""

from dataclasses import dataclass
from pathlib import Path

from batchllm.formats import INPUT_FORMATS, SUFFIXES
from batchllm.job.values import (
    Parser,
    any_text,
    boolean,
    choice,
    dollars,
    duration_s,
    encoding,
    integer,
    json_pairs,
    labels,
    number,
    pairs,
    several,
    share,
    text,
    words,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        name: Of the flag, with underscores.
        parse: From text or TOML's types to the value.
        example: A value in TOML, for ``batchllm init``; empty keeps it out of there.
        help: What it is, for the same.
        is_path: Its value is a path (or several), relative to the file or folder it was given in.
        merged: A table that the places it is given in fill together.
    """

    name: str
    parse: Parser
    example: str
    help: str
    is_path: bool = False
    merged: bool = False

    @property
    def flag(self) -> str:
        """How it is spelled on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "BATCHLLM_" + self.name.upper()


def _path(name: str, example: str, help_text: str) -> Setting:
    return Setting(name, lambda value: Path(text(value)), example, help_text, is_path=True)


GROUPS: dict[str, tuple[Setting, ...]] = {
    "What to read, and what to write": (
        _path("input", '"reviews.csv"', f"rows to read: {', '.join(SUFFIXES)}, or - for standard input"),
        _path("output", '"reviews.summaries.csv"', "where to write; the suffix decides the format"),
        Setting("task", choice("summarize", "classify", "codegen"), '"summarize"', "a built-in task, or:"),
        Setting("template", text, '"mine.toml"', "a template file or a built-in name, or:", is_path=True),
        Setting("prompt", text, "'Translate to English: {{ text }}'", "a prompt of one line"),
        Setting("column", text, '"review"', "the text column, {{ text }} in templates"),
        Setting("system", text, '"You are brief."', "replaces the system message"),
        Setting("var", json_pairs, '{ tone = "friendly" }', "variables of the template", merged=True),
        Setting("bullets", integer(1, 50), "3", "bullet points of a summary"),
        Setting(
            "answer_language", any_text, '"French"', "language of the summary; the text's own unless said"
        ),
        Setting("labels", labels, '["positive", "negative", "neutral"]', "the labels of classify"),
        Setting("language", text, '"Python"', "programming language of codegen"),
        Setting("delimiter", any_text, '";"', "delimiter of the input; found in the header"),
        Setting("encoding", encoding, '"cp1252"', "encoding of the input; UTF-8 unless marked"),
        Setting("input_format", choice(*INPUT_FORMATS), '"csv"', "where the suffix does not tell"),
    ),
    "The endpoint": (
        Setting("provider", text, '"openai"', "a preset: openai, azure, groq, ollama, simulator, ..."),
        Setting("base_url", text, '"http://localhost:8000/v1"', "URL of the API"),
        Setting("model", text, '"gpt-4o-mini"', "the model"),
        _path(
            "api_key_file",
            '"key.txt"',
            "file with the key, readable by you alone; a key is never written here",
        ),
        Setting("header", pairs, '{ X-Title = "reviews" }', "further headers", merged=True),
        Setting("allow_http", boolean, "false", "plain http beyond loopback and private addresses"),
    ),
    "How fast": (
        Setting("rpm", number(0, above=True), "500", "requests per minute that you are granted"),
        Setting("tpm", number(0, above=True), "200_000", "tokens per minute that you are granted"),
        Setting("concurrency", integer(1, 10_000), "64", "requests in flight; found unless said"),
        Setting("max_attempts", integer(1, 100), "5", "attempts of a row in one run, the first included"),
        Setting("timeout", number(0, 86_400, above=True), "600", "seconds of one attempt, all in all"),
        Setting("max_wait", duration_s, '"1h"', "the longest pause that the endpoint may ask for"),
        Setting("max_outage", duration_s, '"10min"', "how long it may be down before the run ends"),
    ),
    "The request": (
        Setting("temperature", number(0, 2), "0.3", "sampling temperature"),
        Setting("max_tokens", integer(1), "150", "the most tokens an answer may have"),
        Setting("param", json_pairs, "{ top_p = 0.9 }", "any other request parameters", merged=True),
        Setting("image", several, '["photo"]', "columns with an image: a URL, or a file under media_root"),
        Setting("detail", choice("low", "high", "auto"), '"auto"', "how closely images are looked at"),
        _path("media_root", '"photos"', "folder that local images may come from"),
        _path("tools", '"tools.json"', "file with tool definitions"),
        Setting("tool_choice", text, '"auto"', "auto, none, required, or a tool's name"),
        Setting(
            "schema", text, '"topic, urgent bool"', "a JSON Schema file, or fields in short", is_path=True
        ),
        Setting("reask", integer(0, 5), "1", "how often an invalid answer is asked for again"),
        Setting("conversation", text, '"thread"', "column whose equal values make rows one conversation"),
        Setting("max_input_tokens", integer(1), "8000", "the most tokens the text may have"),
        Setting("on_long", choice("fail", "truncate"), '"fail"', "what to do with longer text"),
        Setting(
            "reasoning_effort",
            choice("none", "minimal", "low", "medium", "high", "xhigh", "max"),
            '"low"',
            "for models that reason; the lowest unless said",
        ),
    ),
    "What is written": (
        Setting("columns", words, '["summary", "error"]', "answer columns to write, and no others"),
        Setting("add", words, '["cost", "latency_s"]', "further answer columns"),
        Setting("prefix", text, '"llm_"', "put before the name of every answer column"),
        _path("journal", '"reviews.journal"', "where the journal lies; beside the output unless said"),
        _path("summary", '"runs.jsonl"', "file for the run's figures; .jsonl gets a line a run"),
        Setting("force", boolean, "false", "overwrite an output that batchllm did not write"),
    ),
    "Trying, and money": (
        Setting("limit", integer(1), "10", "only the first rows"),
        Setting("sample", integer(1), "10", "only so many random rows"),
        Setting("seed", integer(0), "0", "seed of the sample"),
        Setting("dedupe", boolean, "false", "send equal requests once"),
        Setting(
            "reuse",
            several,
            '["last.summaries.csv"]',
            "outputs of other jobs to take answers from",
            is_path=True,
        ),
        Setting("max_cost", dollars, '"5.00"', "budget in US dollars"),
        Setting("max_requests", integer(1), "10_000", "budget in requests"),
        Setting("max_total_tokens", integer(1), "5_000_000", "budget in tokens"),
        _path("prices", '"prices.json"', "a price table in LiteLLM's format"),
        Setting("no_early_stop", boolean, "false", "go on even if the first answers are of no use"),
        Setting("via", choice("online", "batch"), '"online"', "batch: half the price within a day"),
    ),
    "Manners": (
        Setting("allow_failed", share, '"1%"', "share of rows that may fail without exit status 1"),
        Setting("retry_failed", boolean, "false", "send rows again whose answer was a failure"),
        Setting("accept_change", boolean, "false", "pay rows again after the job was changed"),
        Setting("restart", boolean, "false", "start over; the old journal is kept aside"),
        Setting("grace", number(0, 86_400), "30", "seconds that requests in flight get after a signal"),
        Setting("wait_lock", number(0, 86_400 * 7), "0", "seconds to wait for another run of this job"),
    ),
}

SETTINGS: dict[str, Setting] = {setting.name: setting for group in GROUPS.values() for setting in group}
