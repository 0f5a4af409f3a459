"""The table of options: command line, environment, job files, ``Job``, help and reference are made from it.

An option has the name of its flag with underscores: ``--max-attempts`` is ``max_attempts`` in a job file and
``BATCHLLM_MAX_ATTEMPTS`` in the environment. An option without a default leaves the decision to the template, the
preset or the run.
"""

import json
from dataclasses import dataclass
from typing import Any

from batchllm.formats import BAD_ROWS, INPUT_FORMATS, SUFFIXES
from batchllm.job import compound, values
from batchllm.job.labels import labels
from batchllm.job.values import Kind, any_text, boolean, choice, integer, number, text

TASKS = ("summarize", "classify", "codegen", "run")
"""The commands that run a job."""

INPUT, OUTPUT, PROMPT, CONNECTION = "Input", "Output", "Prompt", "Connection"
PACE, REQUEST, SAMPLING, BUDGET, RUN_CONTROL = "Pace", "Request", "Sampling", "Budget", "Run control"


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        name: Its name in job files and in Python.
        kind: The values that it takes.
        help: What it does, as one or two sentences.
        panel: The section of the help that lists it.
        default: Its value where it is not given, as a user would write it.
        otherwise: What holds where it is not given, in words; for options without a default.
        short: Its short flag.
        metavar: Stands for a value in the help, instead of the kind's.
        example: A value in TOML for ``batchllm init``; the default unless given.
        tasks: The commands that have it; none for what is not a flag.
        field: The attribute of ``Job`` that holds it, dotted; ``variables`` and ``parameters`` hold it by name.
        in_request: It shapes requests: rows are asked again after it was changed.
        switch: It belongs to the command, not to the job: a flag alone.
    """

    name: str
    kind: Kind
    help: str
    panel: str
    default: Any = None
    otherwise: str = ""
    short: str = ""
    metavar: str = ""
    example: str = ""
    tasks: tuple[str, ...] = TASKS
    field: str = ""
    in_request: bool = False
    switch: bool = False

    @property
    def flag(self) -> str:
        """The long flag; of an option without one, what the usage line calls it."""
        return "--" + self.name.replace("_", "-") if self.tasks else self.name.upper()

    @property
    def flags(self) -> tuple[str, ...]:
        """All its flags."""
        return (self.flag, self.short) if self.short else (self.flag,)

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "BATCHLLM_" + self.name.upper()

    @property
    def attribute(self) -> str:
        """The attribute of ``Job`` that holds it."""
        return self.field or self.name

    @property
    def default_value(self) -> Any:
        """The default, parsed."""
        return self.kind(self.default) if self.default else self.default

    @property
    def default_text(self) -> str:
        """The default in words; empty where there is nothing to say."""
        plain = isinstance(self.default, bool) or self.default in (None, "", ())
        return self.otherwise or ("" if plain else str(self.default))

    @property
    def full_help(self) -> str:
        """What it does, and the default in parentheses."""
        return f"{self.help}  ({self.default_text})" if self.default_text else self.help

    @property
    def toml(self) -> str:
        """An example of a value in TOML."""
        return self.example or json.dumps(self.default)


VARIABLE: dict[str, Any] = {"field": "variables", "in_request": True}
PARAMETER: dict[str, Any] = {"field": "parameters", "in_request": True}
FLAG: dict[str, Any] = {"kind": boolean, "default": False}
SWITCH: dict[str, Any] = {**FLAG, "switch": True}
EFFORTS = choice("none", "minimal", "low", "medium", "high", "xhigh", "max")

TABLE = (
    Option("input", values.inputs, f"Rows to read: files, patterns or folders of {', '.join(SUFFIXES)}, also"
           " compressed; '-' is standard input.", INPUT, example='"reviews.csv"', tasks=(), field="inputs"),
    Option("input_format", choice(*INPUT_FORMATS), "Format of an input whose suffix does not say it.",
           INPUT, metavar="FORMAT", example='"csv"'),
    Option("delimiter", any_text, "Delimiter of CSV: a character, comma, semicolon, bar, tab, or none.", INPUT,
           otherwise="found in the first rows", example='";"'),
    Option("quote", any_text, "What encloses cells of CSV: a character, or none.", INPUT, metavar="CHARACTER",
           otherwise='"', example='"none"'),
    Option("escape", any_text, "What stands before a character of CSV that is text.", INPUT, metavar="CHARACTER",
           otherwise="nothing", example="'\\'"),
    Option("skip_lines", integer(0), "Lines above the header of CSV, or rows above that of a sheet.", INPUT,
           metavar="N", otherwise="blank ones", example="2"),
    Option("sheet", values.sheet, "Sheet of a workbook, by name or number.", INPUT, metavar="NAME|NUMBER",
           otherwise="the first with rows", example='"Reviews"'),
    Option("query", text, "Query that makes the rows of a SQLite database; it only reads.", INPUT, metavar="SELECT",
           example="'select id, text from reviews order by id'"),
    Option("bad_rows", choice(*BAD_ROWS), "Rows that cannot be read: refuse the file, fill short rows with empty"
           " cells, or leave such rows out and write them to OUTPUT.skipped.EXT.", INPUT, otherwise="fail",
           example='"skip"'),
    Option("encoding", values.encoding, "Encoding of the input.", INPUT, otherwise="UTF-8, or by byte order mark",
           example='"cp1252"'),
    Option("column", text, "The text column, {{ text }} in templates.", INPUT,
           otherwise="text, else the only text-like one", example='"review"', in_request=True),
    Option("text_from", text, "Column that names a file under --media-root with the row's text: PDF, DOCX, HTML, text.",
           INPUT, metavar="COLUMN", example='"path"', in_request=True),
    Option("output", values.location, "File to write, its suffix decides the format; FOLDER/ gets one for each"
           " input, with --engine parts; '-' is standard output.", OUTPUT,
           otherwise="INPUT.TASK.csv beside the input", short="-o", metavar="PATH", example='"reviews.summaries.csv"'),
    Option("output_encoding", values.encoding, "Encoding of the output.", OUTPUT,
           otherwise="the input's, or UTF-8 where that lacks characters", example='"utf-8-sig"'),
    Option("escape_formulas", help="Put ' before answers in CSV that a spreadsheet would run as a formula.",
           panel=OUTPUT, **FLAG),
    Option("columns", values.words, "Answer columns to write, and no others.", OUTPUT, example='["summary", "error"]'),
    Option("add", values.words, "Further answer columns: source_file, response_id, latency_s, cost, …", OUTPUT,
           default=(), example='["cost", "latency_s"]'),
    Option("prefix", text, "Put before the name of every answer column.", OUTPUT, default="", example='"llm_"'),
    Option("keep", values.columns, "Input columns to write, in this order, and no others.", OUTPUT,
           otherwise="all", example='["id", "text"]'),
    Option("drop", values.columns, "Input columns to leave out.", OUTPUT, otherwise="none", example='["notes"]'),
    Option("rename", compound.renames, "Another name for an answer column, instead of one with --prefix.", OUTPUT,
           metavar="ANSWER=NAME", example='{ label = "sentiment" }'),
    Option("journal", values.path, "File for the journal.", OUTPUT, otherwise="OUTPUT.journal", metavar="PATH",
           example='"reviews.journal"'),
    Option("summary", values.path, "File for the run's figures: JSON, or one more line of .jsonl.", OUTPUT,
           example='"runs.jsonl"'),
    Option("gold", values.columns_or_files, "The known answers, which no prompt shows: a column, ANSWER=COLUMN, or a "
           "file with --on. The run ends with the figures.", OUTPUT, (), example='["gold"]', in_request=True),
    Option("on", text, "With a gold file: the column that both files have.", OUTPUT, metavar="ID", example='"id"'),
    Option("log_file", values.path, "File that gets a line of JSON for each refusal, retry, failure and wait.", OUTPUT,
           metavar="FILE", example='"nightly.log"'),
    Option("force", help="Overwrite an output that batchllm did not write.", panel=OUTPUT, **FLAG),

    Option("task", choice(*TASKS[:-1]), "A built-in task; or template, or prompt:", PROMPT, tasks=(),
           example='"summarize"', in_request=True),
    Option("template", values.text_or_path, "A template, a file or a built-in name; tasks read its answers as theirs.",
           PROMPT, short="-t", metavar="NAME|FILE", example='"mine.toml"', field="template.name", in_request=True),
    Option("prompt", text, "A one-line prompt: 'Translate to English: {{ text }}'.", PROMPT, short="-p",
           example="'Translate to English: {{ text }}'", tasks=("run",), field="template.messages", in_request=True),
    Option("system", text, "Replaces the system message; classify still sends its labels.", PROMPT, short="-s",
           example='"You are brief."', in_request=True),
    Option("instructions", values.text_or_path, "Text, or a file of text, at the end of the system message.", PROMPT,
           example='"Name no persons."', in_request=True),
    Option("var", compound.json_pairs, "A variable of the template.", PROMPT, metavar="NAME=VALUE",
           example='{ tone = "friendly" }', tasks=("run",), **VARIABLE),
    Option("bullets", integer(1, 50), "Bullet points of a summary.", PROMPT, otherwise="3", example="3",
           tasks=("summarize",), **VARIABLE),
    Option("answer_language", any_text, "Language of the summary.", PROMPT, otherwise="the text's own",
           example='"French"', tasks=("summarize",), **VARIABLE),
    Option("labels", labels, "The labels, separated by commas (one with a comma in quotes), or a file.", PROMPT,
           otherwise="positive,negative,neutral",
           example='["positive", "negative", "neutral"]', tasks=("classify",), **VARIABLE),
    Option("multi_label", boolean, "Any number of the labels, joined by '; '; none where no label applies.", PROMPT,
           example="true", tasks=("classify",), **VARIABLE),
    Option("examples", values.examples, "Few-shot pairs: a file with the prompt's columns and the answer's.", PROMPT,
           example='"examples.csv"', in_request=True),
    Option("shots", integer(1, 1000), "How many of the examples each request carries, balanced over the labels.",
           PROMPT, 8, short="-k", metavar="K", in_request=True),
    Option("language", text, "Programming language.", PROMPT, otherwise="Python", example='"Python"',
           tasks=("codegen",), **VARIABLE),

    Option("provider", compound.one_or_several, "Preset of the endpoint: openai, azure, groq, ollama, simulator, …; "
           "several times: several endpoints.", CONNECTION, metavar="PRESET", example='"openai"',
           field="endpoint.preset", in_request=True),
    Option("base_url", compound.one_or_several, "URL of the API, such as http://localhost:8000/v1; several times:"
           " several endpoints.", CONNECTION, metavar="URL",
           example='"http://localhost:8000/v1"', field="endpoint.base_url"),
    Option("endpoints", compound.tables, "Several endpoints, each with its URL, key file, limits and name of the"
           " model.", CONNECTION, (), tasks=(), example='[{ base_url = "http://localhost:8000/v1" }]'),
    Option("model", text, "The model.", CONNECTION, otherwise="OPENAI_MODEL, or the preset's", short="-m",
           example='"gpt-4o-mini"', field="endpoint.model", in_request=True),
    Option("api_key_file", values.path, "File with the key, readable by you alone.", CONNECTION,
           otherwise="the key comes from the environment", example='"key.txt"', field="endpoint.key_source"),
    Option("header", compound.pairs, "A further header.", CONNECTION, example='{ X-Title = "reviews" }',
           field="endpoint.headers"),
    Option("allow_http", help="Allow plain http beyond loopback and private addresses.", panel=CONNECTION,
           field="endpoint.allow_http", **FLAG),

    Option("rpm", number(0, above=True), "Rate limit in requests per minute.", PACE,
           otherwise="read from the answers, or found", example="500", field="pace.requests_per_minute"),
    Option("tpm", number(0, above=True), "Rate limit in tokens per minute.", PACE,
           otherwise="read from the answers, or found", example="200_000", field="pace.tokens_per_minute"),
    Option("concurrency", integer(1, 10_000), "Requests in flight.", PACE, otherwise="found, at most 256", short="-c",
           example="64", field="pace.concurrency"),
    Option("max_attempts", integer(1, 100), "Attempts per request in one run, the first included.", PACE, 5,
           field="pace.max_attempts"),
    Option("timeout", number(0, 86_400, above=True), "Timeout per attempt, in seconds.", PACE, 600, metavar="SECONDS",
           field="pace.timeout_s"),
    Option("max_wait", values.duration_s, "The longest pause that the endpoint may ask for.", PACE, "1h",
           field="pace.max_wait_s"),
    Option("max_outage", values.duration_s, "How long the endpoint may be down before the run stops.", PACE, "10min",
           field="pace.max_outage_s"),

    Option("temperature", number(0, 2), "Sampling temperature.", REQUEST,
           otherwise="summarize 0.3, classify 0, codegen 0.2, run -p: not sent", example="0.3",
           **PARAMETER),
    Option("max_tokens", integer(1), "The most tokens that an answer may have.", REQUEST,
           otherwise="summarize 50 a bullet point, classify room for the longest label, codegen 500, run -p: not sent",
           example="150", **PARAMETER),
    Option("param", compound.json_pairs, "Any other request parameter.", REQUEST, metavar="KEY=JSON",
           example="{ top_p = 0.9 }", **PARAMETER),
    Option("image", values.several, "Column with an image: a URL, or a file under --media-root.", REQUEST, (),
           metavar="COLUMN", example='["photo"]', field="images", in_request=True),
    Option("detail", choice("low", "high", "auto"), "Resolution at which the model sees images.", REQUEST, "auto",
           in_request=True),
    Option("media_root", values.path, "Folder that images and documents may come from.", REQUEST, metavar="DIR",
           example='"photos"'),
    Option("tools", values.tools, "JSON file with tool definitions.", REQUEST, example='"tools.json"', in_request=True),
    Option("tool_choice", text, "auto, none, required, or a tool's name.", REQUEST, metavar="CHOICE", example='"auto"',
           in_request=True),
    Option("schema", values.schema, "'label [a|b], score 1..5, tags list, note?', a JSON Schema file, or module:Model.",
           REQUEST, metavar="FILE|TEXT", example='"topic, urgent bool"', in_request=True),
    Option("confidence", help="Ask for logprobs, and write the probability of the label as a column.", panel=REQUEST,
           tasks=("classify", "run"), in_request=True, **FLAG),
    Option("reask", integer(0, 5), "How often to ask again for an answer that does not validate.", REQUEST,
           otherwise="1; in batch mode 0", example="1"),
    Option("samples", integer(1, 100), "Ask every row so many times, and take the majority.", REQUEST, 1,
           in_request=True),
    Option("conversation", text, "Column whose equal values make rows one conversation.", REQUEST, metavar="COLUMN",
           example='"thread"', in_request=True),
    Option("max_input_tokens", integer(1), "The most tokens that the text may have.", REQUEST, example="8000",
           in_request=True),
    Option("on_long", choice("fail", "truncate", "split"), "What to do with longer text: fail, cut it off, or ask "
           "about its parts and combine the answers.", REQUEST, "fail", in_request=True),
    Option("overlap", integer(0), "With --on-long split: tokens of each part that the next one repeats.", REQUEST, 0,
           metavar="TOKENS", in_request=True),
    Option("combine", choice("ask", "vote"), "With --on-long split: one more request decides about the labels of the "
           "parts, or the most frequent label wins.", REQUEST, "ask", tasks=("classify", "run"), in_request=True),
    Option("reasoning_effort", EFFORTS, "Effort of a model that reasons: none, minimal, low, medium, high, …", REQUEST,
           otherwise="the lowest there is", metavar="EFFORT", example='"low"', in_request=True),

    Option("limit", integer(1), "Only the first N rows.", SAMPLING, short="-n", metavar="N", example="10"),
    Option("sample", integer(1), "Only N random rows.", SAMPLING, metavar="N", example="10"),
    Option("seed", integer(0), "Seed of the sample.", SAMPLING, 0),
    Option("shard", compound.shard, "Only one of M equal parts of the rows, such as 3/8; see merge.",
           SAMPLING, example='"3/8"'),

    Option("max_cost", values.dollars, "Budget in US dollars.", BUDGET, example='"5.00"'),
    Option("max_requests", integer(1), "Budget in requests.", BUDGET, example="10_000"),
    Option("max_total_tokens", integer(1), "Budget in tokens.", BUDGET, example="5_000_000"),
    Option("prices", values.prices, "Price table in LiteLLM's JSON format.", BUDGET, example='"prices.json"'),
    Option("dedupe", help="Send equal requests once.", panel=BUDGET, **FLAG),
    Option("reuse", values.paths, "Output of another job whose answers may be used.", BUDGET, (), metavar="OUTPUT",
           example='["last.summaries.csv"]'),
    Option("via", choice("online", "batch"), "Single requests, or the Batch API: half the price, within a day.", BUDGET,
           "online"),
    Option("no_early_stop", help="Go on even if none of the first 20 answers is usable.", panel=BUDGET, **FLAG),

    Option("engine", choice("ray"), "Run the job on the machines of a cluster that exists (needs the extra ray).",
           RUN_CONTROL, otherwise="this machine alone", example='"ray"'),
    Option("ray_address", text, "With --engine ray: where the cluster is.", RUN_CONTROL, "auto", metavar="ADDRESS"),
    Option("workers", integer(1, 10_000), "With --engine: shards that are answered side by side.", RUN_CONTROL,
           otherwise="one for each node", metavar="N", example="8"),
    Option("work", values.location, "With --engine: folder that all machines see, or URL of a store.", RUN_CONTROL,
           metavar="FOLDER|URL", example='"/shared/job"'),
    Option("retry_failed", help="Ask again for rows that failed.", panel=RUN_CONTROL, **FLAG),
    Option("retry_cut_off", help="Ask again, with a higher --max-tokens, for rows whose answer was cut off.",
           panel=RUN_CONTROL, **FLAG),
    Option("accept_change", help="Pay for rows again after the job was changed.", panel=RUN_CONTROL, **FLAG),
    Option("restart", help="Start over, and keep the old journal aside.", panel=RUN_CONTROL, **FLAG),
    Option("allow_failed", values.share, "Share of rows that may fail without exit status 1.", RUN_CONTROL, 0,
           example='"1%"'),
    Option("grace", number(0, 86_400), "Seconds that requests in flight get when a run is stopped.", RUN_CONTROL, 30,
           metavar="SECONDS", field="grace_s"),
    Option("max_time", values.duration_s, "The longest time that a run may take; the same command goes on.",
           RUN_CONTROL, example='"2h"', field="max_time_s"),
    Option("wait_lock", number(0, 86_400 * 7), "Seconds to wait for another run of the same job.", RUN_CONTROL, 0,
           metavar="SECONDS", field="wait_lock_s"),
    Option("dry_run", help="Count, estimate and show; send nothing.", panel=RUN_CONTROL, **SWITCH),
    Option("json", help="With --dry-run: the estimate as one JSON object.", panel=RUN_CONTROL, **SWITCH),
    Option("curl", help="With --dry-run: the first request as a curl command.", panel=RUN_CONTROL, **SWITCH),
    Option("yes", help="Do not ask before an expensive run.", panel=RUN_CONTROL, short="-y", **SWITCH),
    Option("wait", help="With --via batch: wait until every batch is ready.", panel=RUN_CONTROL, **SWITCH),
    Option("quiet", help="Print nothing on success.", panel=RUN_CONTROL, short="-q", **SWITCH),
    Option("verbose", help="Print more about the run; with --dry-run, every option and whole requests.",
           panel=RUN_CONTROL, short="-v", **SWITCH),
    Option("debug", help="Log every decision, and show tracebacks.", panel=RUN_CONTROL, **SWITCH),
)  # fmt: skip

TABLES = {"variables": "var", "parameters": "param"}
"""The attributes of ``Job`` that are tables: each is also a table of a job file, to which this option adds."""

OPTIONS = {option.name: option for option in TABLE if not option.switch}
"""The options of a job, by name."""

SWITCHES = {option.name: option for option in TABLE if option.switch}
"""The flags of a command that are no part of its job, by name."""


def options_in(attribute: str) -> list[str]:
    """Names of the options that each are one entry of an attribute of ``Job``, such as ``variables``."""
    return [name for name, option in OPTIONS.items() if option.field == attribute and not option.kind.merged]
