"""The keywords of ``run``, ``arun`` and ``astream``, typed for editors and type checkers.

``python -m batchllm.job.reference keywords > batchllm/job/keywords.py`` makes this module from the table of options.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from os import PathLike
from typing import Any, Literal, TypedDict


class Options(TypedDict, total=False):
    """Options of a call by name; one that is ``None`` is not given.

    They are those of the command line, and ``api_key``: the key, or a function that returns it when the run begins.
    """

    api_key: str | Callable[[], str] | None
    accept_change: bool | None
    add: str | Sequence[str] | None
    allow_failed: float | str | None
    allow_http: bool | None
    answer_language: str | None
    api_key_file: str | PathLike[str] | None
    bad_rows: Literal["fail", "pad", "skip"] | None
    base_url: str | Sequence[str] | None
    bullets: int | None
    column: str | None
    columns: str | Sequence[str] | None
    combine: Literal["ask", "vote"] | None
    concurrency: int | None
    confidence: bool | None
    conversation: str | None
    dedupe: bool | None
    delimiter: str | None
    detail: Literal["low", "high", "auto"] | None
    drop: str | Sequence[str] | None
    encoding: str | None
    endpoints: Sequence[Mapping[str, Any]] | None
    engine: Literal["ray"] | None
    escape: str | None
    escape_formulas: bool | None
    examples: str | PathLike[str] | Sequence[Mapping[str, Any]] | None
    force: bool | None
    gold: str | Sequence[str] | None
    grace: float | None
    header: Mapping[str, str] | Sequence[str] | str | None
    image: str | Sequence[str] | None
    input_format: Literal["csv", "tsv", "jsonl", "ndjson", "parquet", "xlsx", "xlsm", "ods", "xls", "db", "sqlite", "sqlite3", "pdf", "docx", "html", "htm", "md", "txt"] | None
    instructions: str | PathLike[str] | None
    journal: str | PathLike[str] | None
    labels: str | PathLike[str] | Sequence[str] | Mapping[str, str] | None
    language: str | None
    limit: int | None
    log_file: str | PathLike[str] | None
    max_attempts: int | None
    max_cost: float | str | Decimal | None
    max_input_tokens: int | None
    max_outage: float | str | None
    max_requests: int | None
    max_time: float | str | None
    max_tokens: int | None
    max_total_tokens: int | None
    max_wait: float | str | None
    media_root: str | PathLike[str] | None
    model: str | None
    multi_label: bool | None
    no_early_stop: bool | None
    on: str | None
    on_long: Literal["fail", "truncate", "split"] | None
    output: str | PathLike[str] | None
    output_encoding: str | None
    overlap: int | None
    param: Mapping[str, Any] | Sequence[str] | str | None
    prefix: str | None
    prices: str | PathLike[str] | Mapping[str, Mapping[str, Any]] | None
    prompt: str | None
    provider: str | Sequence[str] | None
    query: str | None
    quote: str | None
    ray_address: str | None
    reask: int | None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None
    rename: Mapping[str, str] | Sequence[str] | str | None
    restart: bool | None
    retry_cut_off: bool | None
    retry_failed: bool | None
    reuse: str | PathLike[str] | Sequence[str | PathLike[str]] | None
    rpm: float | None
    sample: int | None
    samples: int | None
    schema: str | PathLike[str] | Mapping[str, Any] | type[Any] | None
    seed: int | None
    shard: str | None
    sheet: str | int | None
    shots: int | None
    skip_lines: int | None
    summary: str | PathLike[str] | None
    system: str | None
    temperature: float | None
    template: str | PathLike[str] | None
    text_from: str | None
    timeout: float | None
    tool_choice: str | None
    tools: str | PathLike[str] | Sequence[Mapping[str, Any]] | None
    tpm: float | None
    var: Mapping[str, Any] | Sequence[str] | str | None
    via: Literal["online", "batch"] | None
    wait_lock: float | None
    work: str | PathLike[str] | None
    workers: int | None
