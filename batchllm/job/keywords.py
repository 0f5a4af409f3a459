"""The keywords of ``run``, ``arun`` and ``astream``, typed for editors and type checkers.

``python -m batchllm.job.reference keywords > batchllm/job/keywords.py`` makes this module from the table of options.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from os import PathLike
from typing import Any, Literal, TypedDict


class Options(TypedDict, total=False):
    """Options of a call by name; one that is ``None`` is not given."""

    api_key: str | Callable[[], str] | None
    """The key, or a function that is called for it when the run begins. It is kept nowhere."""
    accept_change: bool | None
    """Pay for rows again after the job was changed."""
    add: str | Sequence[str] | None
    """Further answer columns: response_id, created, latency_s, cost, …."""
    allow_failed: float | str | None
    """Share of rows that may fail without exit status 1."""
    allow_http: bool | None
    """Allow plain http beyond loopback and private addresses."""
    answer_language: str | None
    """Language of the summary."""
    api_key_file: str | PathLike[str] | None
    """File with the key, readable by you alone."""
    base_url: str | None
    """URL of the API, such as http://localhost:8000/v1."""
    bullets: int | None
    """Bullet points of a summary."""
    column: str | None
    """The text column, {{ text }} in templates."""
    columns: str | Sequence[str] | None
    """Answer columns to write, and no others."""
    concurrency: int | None
    """Requests in flight."""
    conversation: str | None
    """Column whose equal values make rows one conversation."""
    dedupe: bool | None
    """Send equal requests once."""
    delimiter: str | None
    """Delimiter of CSV: comma, semicolon, bar or tab."""
    detail: Literal["low", "high", "auto"] | None
    """Resolution at which the model sees images."""
    encoding: str | None
    """Encoding of the input."""
    escape_formulas: bool | None
    """Put ' before answers in CSV that a spreadsheet would run as a formula."""
    force: bool | None
    """Overwrite an output that batchllm did not write."""
    grace: float | None
    """Seconds that requests in flight get when a run is stopped."""
    header: Mapping[str, str] | Sequence[str] | str | None
    """A further header."""
    image: str | Sequence[str] | None
    """Column with an image: a URL, or a file under --media-root."""
    input_format: Literal["csv", "tsv", "jsonl", "ndjson"] | None
    """Format of an input whose suffix does not say it."""
    journal: str | PathLike[str] | None
    """File for the journal."""
    labels: str | Sequence[str] | Mapping[str, str] | None
    """The labels, separated by commas; one with a comma in double quotes."""
    language: str | None
    """Programming language."""
    limit: int | None
    """Only the first N rows."""
    max_attempts: int | None
    """Attempts per row in one run, the first included."""
    max_cost: float | str | Decimal | None
    """Budget in US dollars."""
    max_input_tokens: int | None
    """The most tokens that the text may have."""
    max_outage: float | str | None
    """How long the endpoint may be down before the run stops."""
    max_requests: int | None
    """Budget in requests."""
    max_time: float | str | None
    """The longest time that a run may take; the same command goes on."""
    max_tokens: int | None
    """The most tokens that an answer may have."""
    max_total_tokens: int | None
    """Budget in tokens."""
    max_wait: float | str | None
    """The longest pause that the endpoint may ask for."""
    media_root: str | PathLike[str] | None
    """Folder that local images may come from."""
    model: str | None
    """The model."""
    no_early_stop: bool | None
    """Go on even if none of the first 20 answers is usable."""
    on_long: Literal["fail", "truncate"] | None
    """What to do with longer text."""
    output: str | PathLike[str] | None
    """File to write; '-' is standard output. The suffix decides the format."""
    output_encoding: str | None
    """Encoding of the output."""
    param: Mapping[str, Any] | Sequence[str] | str | None
    """Any other request parameter."""
    prefix: str | None
    """Put before the name of every answer column."""
    prices: str | PathLike[str] | Mapping[str, Mapping[str, Any]] | None
    """Price table in LiteLLM's JSON format."""
    prompt: str | None
    """A one-line prompt: 'Translate to English: {{ text }}'."""
    provider: str | None
    """Preset of the endpoint: openai, azure, groq, ollama, simulator, …."""
    reask: int | None
    """How often to ask again for an answer that does not validate."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None
    """Effort of a model that reasons: none, minimal, low, medium, high, …."""
    restart: bool | None
    """Start over, and keep the old journal aside."""
    retry_failed: bool | None
    """Ask again for rows that failed."""
    reuse: str | PathLike[str] | Sequence[str | PathLike[str]] | None
    """Output of another job whose answers may be used."""
    rpm: float | None
    """Rate limit in requests per minute."""
    sample: int | None
    """Only N random rows."""
    schema: str | PathLike[str] | Mapping[str, Any] | type[Any] | None
    """'label [a|b], score 1..5, tags list, note?', a JSON Schema file, or module:Model."""
    seed: int | None
    """Seed of the sample."""
    summary: str | PathLike[str] | None
    """File for the run's figures: JSON, or one more line of .jsonl."""
    system: str | None
    """Replaces the system message."""
    temperature: float | None
    """Sampling temperature."""
    template: str | PathLike[str] | None
    """A template: a file, or a built-in name."""
    timeout: float | None
    """Timeout per attempt, in seconds."""
    tool_choice: str | None
    """auto, none, required, or a tool's name."""
    tools: str | PathLike[str] | Sequence[Mapping[str, Any]] | None
    """JSON file with tool definitions."""
    tpm: float | None
    """Rate limit in tokens per minute."""
    var: Mapping[str, Any] | Sequence[str] | str | None
    """A variable of the template."""
    via: Literal["online", "batch"] | None
    """Single requests, or the Batch API: half the price, within a day."""
    wait_lock: float | None
    """Seconds to wait for another run of the same job."""
