"""Every option of the commands that run a job, as one table; the job file has the same names.

A command is built from the table (``cli.run``), so that help, documentation, ``BATCHLLM_*`` variables and job
files cannot drift apart. An option that is not given is ``None``: then the environment, the job file, the
template or the preset decides.
"""

import inspect
from dataclasses import dataclass
from typing import Annotated, Any

import typer

TASKS = ("summarize", "classify", "codegen", "run")

CONNECTION = "Connection"
PACE = "Pace"
PROMPT = "Prompt"
INPUT = "Input"
REQUEST = "Request"
OUTPUT = "Output"
TRYING = "Trying and money"
MANNERS = "Manners"


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name in job files, its spellings, its type, its help, its panel, the commands it is for."""

    name: str
    kind: Any
    help: str
    panel: str
    spellings: tuple[str, ...] = ()
    metavar: str | None = None
    tasks: tuple[str, ...] = TASKS

    @property
    def flags(self) -> tuple[str, ...]:
        """The spellings on the command line, the long one first."""
        return self.spellings or ("--" + self.name.replace("_", "-"),)


OPTIONS: tuple[Option, ...] = (
    Option("output", str, "Where to write; '-' is standard output. The suffix decides the format.",
           OUTPUT, ("--output", "-o"), "PATH"),
    # What to ask
    Option("prompt", str, "A one-line prompt: 'Translate to English: {{ text }}'.",
           PROMPT, ("--prompt", "-p"), "TEXT", ("run",)),
    Option("template", str, "A template: a file, or a built-in name.",
           PROMPT, ("--template", "-t"), "NAME|FILE", ("run",)),
    Option("bullets", int, "Bullet points of a summary.  (3)", PROMPT, tasks=("summarize",)),
    Option("answer_language", str, "Language of the summary.  (the text's own)", PROMPT, tasks=("summarize",)),
    Option("labels", str, "The labels, separated by commas.  (positive,negative,neutral)",
           PROMPT, metavar="A,B,C", tasks=("classify",)),
    Option("language", str, "Programming language.  (Python)", PROMPT, tasks=("codegen",)),
    Option("column", str, "The text column, {{ text }} in templates.  (the only text-like one)", PROMPT),
    Option("system", str, "Replaces the system message.", PROMPT, ("--system", "-s"), "TEXT"),
    Option("var", list[str], "A variable of the template, as NAME=VALUE.", PROMPT, metavar="NAME=VALUE", tasks=("run",)),
    # Reading the input
    Option("delimiter", str, "Delimiter of CSV: , ; | or tab.  (found in the header)", INPUT),
    Option("encoding", str, "Encoding of the input.  (UTF-8, or by byte order mark)", INPUT),
    Option("input_format", str, "The format where the suffix does not tell, such as csv or jsonl.", INPUT, metavar="FORMAT"),
    # The endpoint
    Option("provider", str, "Preset of the endpoint: openai, azure, groq, ollama, simulator, …", CONNECTION, metavar="PRESET"),
    Option("base_url", str, "URL of the API, such as http://localhost:8000/v1.", CONNECTION, metavar="URL"),
    Option("model", str, "The model.  (OPENAI_MODEL, or the preset's)", CONNECTION, ("--model", "-m")),
    Option("api_key_file", str, "File with the key, readable by you alone.  (the key comes from the environment)",
           CONNECTION, metavar="FILE"),
    Option("header", list[str], "A further header, as NAME=VALUE.", CONNECTION, metavar="NAME=VALUE"),
    Option("allow_http", bool, "Allow plain http beyond loopback and private addresses.", CONNECTION),
    # How fast
    Option("rpm", float, "Requests per minute that you are granted.  (read from the answers, or found)", PACE),
    Option("tpm", float, "Tokens per minute that you are granted.  (read from the answers, or found)", PACE),
    Option("concurrency", int, "Requests in flight.  (found, at most 256)", PACE, ("--concurrency", "-c")),
    Option("max_attempts", int, "Attempts of a row in one run, the first included.  (5)", PACE),
    Option("timeout", float, "Seconds of one attempt, all in all.  (600)", PACE, metavar="SECONDS"),
    Option("max_wait", str, "The longest pause that the endpoint may ask for.  (1h)", PACE, metavar="TIME"),
    Option("max_outage", str, "How long the endpoint may be down before the run ends.  (10min)", PACE, metavar="TIME"),
    # The request
    Option("temperature", float, "Sampling temperature.", REQUEST),
    Option("max_tokens", int, "The most tokens an answer may have.", REQUEST),
    Option("param", list[str], "Any other request parameter, as KEY=JSON.", REQUEST, metavar="KEY=JSON"),
    Option("image", list[str], "Column with an image: a URL, or a file under --media-root.", REQUEST, metavar="COLUMN"),
    Option("detail", str, "How closely images are looked at: low, high or auto.", REQUEST),
    Option("media_root", str, "Folder that local images may come from.", REQUEST, metavar="DIR"),
    Option("tools", str, "JSON file with tool definitions.", REQUEST, metavar="FILE"),
    Option("tool_choice", str, "auto, none, required, or a tool's name.", REQUEST, metavar="CHOICE"),
    Option("schema", str, "JSON Schema file, or 'name, age int, bio: short text'.", REQUEST, metavar="FILE|TEXT"),
    Option("reask", int, "How often an answer that does not validate is asked for again.  (1)", REQUEST),
    Option("conversation", str, "Column whose equal values make rows one conversation.", REQUEST, metavar="COLUMN"),
    Option("max_input_tokens", int, "The most tokens the text may have.", REQUEST),
    Option("on_long", str, "What to do with longer text: fail or truncate.  (fail)", REQUEST),
    Option("reasoning_effort", str, "For models that reason.  (the lowest there is)", REQUEST),
    # What is written
    Option("columns", str, "Answer columns to write, and no others.", OUTPUT, metavar="A,B,C"),
    Option("add", str, "Further answer columns: response_id, created, latency_s, cost, …", OUTPUT, metavar="A,B,C"),
    Option("prefix", str, "Put before the name of every answer column.", OUTPUT),
    Option("journal", str, "Where the journal lies.  (OUTPUT.journal)", OUTPUT, metavar="PATH"),
    Option("force", bool, "Overwrite an output that batchllm did not write.", OUTPUT),
    Option("summary", str, "File for the run's figures: JSON, or a line added to .jsonl.", OUTPUT, metavar="FILE"),
    # Trying, money
    Option("limit", int, "Only the first N rows.", TRYING, ("--limit", "-n"), "N"),
    Option("sample", int, "Only N random rows.", TRYING, metavar="N"),
    Option("seed", int, "Seed of the sample.  (0)", TRYING),
    Option("dedupe", bool, "Send equal requests once.", TRYING),
    Option("reuse", list[str], "Output of another job whose answers may be used.", TRYING, metavar="OUTPUT"),
    Option("max_cost", str, "Budget in US dollars.", TRYING, metavar="DOLLARS"),
    Option("max_requests", int, "Budget in requests.", TRYING),
    Option("max_total_tokens", int, "Budget in tokens.", TRYING),
    Option("prices", str, "Price table in LiteLLM's JSON format.", TRYING, metavar="FILE"),
    Option("no_early_stop", bool, "Go on even if the first 20 answers are of no use.", TRYING),
    Option("via", str, "online, or batch for half the price within a day.", TRYING, metavar="ROAD"),
    # Manners
    Option("retry_failed", bool, "Send rows again whose answer was a failure.", MANNERS),
    Option("accept_change", bool, "Pay rows again after the job was changed.", MANNERS),
    Option("restart", bool, "Start over; the old journal is kept aside.", MANNERS),
    Option("allow_failed", str, "Share of rows that may fail without exit status 1.  (0)", MANNERS, metavar="1%"),
    Option("grace", float, "Seconds that requests in flight get after a signal.  (30)", MANNERS, metavar="SECONDS"),
    Option("wait_lock", float, "Seconds to wait for another run of the same job.  (0)", MANNERS, metavar="SECONDS"),
)  # fmt: skip


def parameter_of(option: Option) -> inspect.Parameter:
    """The option as a parameter of a command's function, for typer to read."""
    info = typer.Option(
        *option.flags,
        help=option.help,
        rich_help_panel=option.panel,
        metavar=option.metavar,
        show_default=False,
    )
    kind = bool if option.kind is bool else option.kind | None
    default = False if option.kind is bool else None
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, info], default=default
    )
