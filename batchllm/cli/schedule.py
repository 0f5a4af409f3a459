"""``batchllm schedule``: prints a crontab line and systemd units that run a job."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from batchllm.cli.run import HELP, job_flags
from batchllm.cli.streams import say
from batchllm.errors import UsageError, did_you_mean
from batchllm.formats.suffixes import stem_of
from batchllm.stores import ObjectPath, settings_of

if TYPE_CHECKING:
    from batchllm.inspect.schedule import ScheduledRun
    from batchllm.job import Job

STATUSES = """\
# What an exit status means here:
#   0   every row has an answer          1   finished, some rows failed (see the error column)
#   2   wrong use, nothing was paid      3   stopped at a budget, or early
#   65  the input cannot be read        69   endpoint unavailable, or out of quota
#   73  cannot write                    74   I/O error
#   75  another run has this job, a batch is not ready, or --max-time is over: not a failure
# After 3, 69, 73, 74 and 75 the same command goes on, so the next time does."""

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
CARRIED = (
    *(name for proxy in PROXIES for name in (proxy, proxy.lower())),
    *("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_VERSION"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("TIKTOKEN_CACHE_DIR", "XDG_STATE_HOME", "PYTHONPATH"),
)
"""Variables that change a run and are no secret; they go into the line, with those of ``BATCHLLM_*``."""


class Part(StrEnum):
    """One of the things that ``schedule`` prints."""

    CRON = "cron"
    SERVICE = "service"
    TIMER = "timer"
    FAILURE = "failure"


def schedule(
    context: typer.Context,
    job: Annotated[
        str, typer.Argument(help="A job file, or a command: summarize, classify, …", metavar="JOB")
    ],
    at: Annotated[
        str | None, typer.Option(help="Time of day; 'Sun 02:30' is once a week.  (02:30)", metavar="HH:MM")
    ] = None,
    hourly: Annotated[
        bool, typer.Option("--hourly", help="Every hour, at the minute of --at, or on the hour.")
    ] = False,
    weekly: Annotated[
        bool, typer.Option("--weekly", help="Once a week, on Monday unless --at names a day.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the systemd units.  (batchllm- and the job)", metavar="NAME")
    ] = None,
    only: Annotated[
        Part | None, typer.Option(help="Print one part alone, to write it into its place.")
    ] = None,
) -> None:
    """Print a crontab line and systemd units that run a job every night, hour or week.

    Everything after JOB belongs to the command: batchllm schedule --at 02:30 classify reviews.csv -o out.csv.
    They carry what the job takes from this shell: URL, model, BATCHLLM_* variables, working folder. A key comes
    from --api-key-file; what else is missing is named, with exit status 2.
    """
    from batchllm.inspect.schedule import crontab_line, failure_unit, service_unit, timer_unit, when

    moment = when(at, hourly=hourly, weekly=weekly)
    run = scheduled_run(context, job, list(context.args), name)
    texts: dict[Part, Callable[[], str]] = {
        Part.CRON: lambda: crontab_line(run, moment),
        Part.SERVICE: lambda: service_unit(run),
        Part.TIMER: lambda: timer_unit(run, moment),
        Part.FAILURE: lambda: failure_unit(run),
    }
    if only:
        typer.echo(texts[only]())
        return
    unit = f"# {Path('~/.config/systemd/user') / run.name}"
    start = (
        f"# then: systemctl --user daemon-reload && systemctl --user enable --now {run.name}.timer\n"
        "# and once, so that it runs while you are logged out: loginctl enable-linger"
    )
    headings = ("# crontab -e", f"{unit}.service", f"{unit}.timer\n{start}", f"{unit}-failed.service")
    parts = (f"{heading}\n{text()}" for heading, text in zip(headings, texts.values(), strict=True))
    typer.echo("\n\n".join((STATUSES, *parts)))


def scheduled_run(context: typer.Context, job: str, words: list[str], name: str | None) -> "ScheduledRun":
    """Returns a run that needs nothing of this shell.

    Raises:
        UsageError: The command is wrong, or it needs something that cron and systemd would not have.
    """
    from batchllm.inspect.schedule import ScheduledRun, unit_name

    task, arguments = ("run", [job, *words]) if job.lower().endswith(".toml") else (job, words)
    values = _parsed(context, task, arguments)
    if values.get("dry_run"):
        raise UsageError("a dry run sends nothing, so there is nothing to schedule; leave --dry-run out")
    found = _job(task, values, os.environ)
    if not found.inputs:
        raise UsageError(
            "rows from standard input cannot be scheduled: cron and systemd have none; name a file"
        )
    _refuse_secrets(found)
    stores = _stores_of(found)
    for option, field, variable in (
        ("--base-url", found.endpoint.base_url, "OPENAI_BASE_URL"),
        ("--model", found.endpoint.model, "OPENAI_MODEL"),
    ):
        if found.sources.get(option[2:].replace("-", "_")) == variable:
            arguments = [*arguments, option, field]
    environment = _environment(found, stores)
    key_file = None
    if found.endpoint.key_source is not None and not _has_tables(found):
        key_file = Path(found.endpoint.key_source).absolute()
        arguments = _without_key_file(arguments)
    key = [] if key_file is None else ["--api-key-file", str(key_file)]
    _check_same(found, _job(task, _parsed(context, task, [*arguments, *key]), environment))
    if not (values.get("quiet") or values.get("verbose")):
        arguments = [*arguments, "--quiet"]
    job_file = job_flags(task, values).get("job_file")
    usual = f"{task}-{stem_of(found.inputs[0])}" if job_file is None else Path(job_file).stem
    run = ScheduledRun(
        name=unit_name(name or f"batchllm-{usual}"),
        program=_program(),
        arguments=[task, *arguments],
        folder=Path.cwd(),
        environment=environment,
        key_file=key_file,
        grace_s=found.grace_s,
    )
    everything = [*run.words(str(key_file)), str(run.folder), *environment.values()]
    if any("\ud800" <= sign <= "\udfff" for text in everything for sign in text):
        raise UsageError("a word or a folder of the command is not UTF-8; rename it")
    secrets = [name for scheme in stores for name in settings_of(scheme, os.environ)[1]]
    if secrets:
        say(
            f"This job needs {' and '.join(secrets)}, which are not printed here, since they are secrets: set them at "
            "the head of the crontab, or in a file of your own that the service names with EnvironmentFile="
        )
    return run


def _parsed(context: typer.Context, task: str, words: list[str]) -> dict[str, Any]:
    """The options of a command, as the command itself reads them."""
    group = context.find_root().command
    command = group.get_command(context, task) if task in HELP else None  # type: ignore[attr-defined]
    if command is None:
        hint = did_you_mean(task, HELP)
        raise UsageError(f"{task} cannot be scheduled{hint}; name {', '.join(HELP)}, or a job file (.toml)")
    return dict(command.make_context(task, list(words)).params)


def _job(task: str, values: Mapping[str, Any], environ: Mapping[str, str]) -> "Job":
    from batchllm.job import assemble
    from batchllm.job.options import SWITCHES

    mine = {name: value for name, value in values.items() if name not in SWITCHES and value not in ((), [])}
    return assemble(task, job_flags(task, mine), environ)


def _refuse_secrets(job: "Job") -> None:
    """Refuses what neither a crontab nor a unit should hold, and says where it belongs.

    Raises:
        UsageError: The key, or the password of a proxy, is in the environment.
    """
    from batchllm.job.endpoints import endpoints_of

    sources = {endpoint.key_source for endpoint in endpoints_of(job)} - {None}
    if source := next((each for each in sorted(map(str, sources)) if each in os.environ), None):
        raise UsageError(
            f"the key comes from {source}, which cron and systemd do not have: put it into a file that you alone can "
            f"read ((umask 077; printenv {source} > ~/.batchllm-key)), and add --api-key-file ~/.batchllm-key"
        )
    if os.environ.get("OPENAI_CUSTOM_HEADERS"):
        raise UsageError(
            "OPENAI_CUSTOM_HEADERS is set, which cron and systemd do not have, and it may hold a secret: unset it, and "
            "give the headers with --header"
        )
    for name in CARRIED:
        value = os.environ.get(name, "")
        if name.upper() in PROXIES and "@" in urlsplit(value if "://" in value else f"//{value}").netloc:
            raise UsageError(
                f"{name} holds a password, which no crontab or unit should: use a proxy that needs none, or unset "
                f"{name} and set it for cron or systemd yourself"
            )


def _stores_of(job: "Job") -> list[str]:
    """The object stores of a job, by the schemes of their URLs.

    Raises:
        UsageError: A URL has a query, which may be a signature.
    """
    urls = [path.url for path in (*job.inputs, job.output) if isinstance(path, ObjectPath)]
    for url in urls:
        if url.query:
            raise UsageError(
                f"{url}: what follows its ? may be a signature, which ends and which no crontab or unit should hold; "
                "name the object itself, such as s3://bucket/key"
            )
    return sorted({url.scheme for url in urls})


def _environment(job: "Job", stores: list[str]) -> dict[str, str]:
    """What the job takes from the environment beside URL, model, key and the credentials of object stores."""
    from batchllm import presets
    from batchllm.job.options import OPTIONS

    own = [option.variable for option in OPTIONS.values() if option.name != "api_key_file"]
    preset = presets.load(job.endpoint.preset).base_url_variable
    of_stores = [name for scheme in stores for name in settings_of(scheme, os.environ)[0]]
    names = [*own, *([preset] if preset else []), *CARRIED, *of_stores]
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _has_tables(job: "Job") -> bool:
    """Whether the endpoints are those of ``[[endpoints]]``, each of which names its own key."""
    tables = job.sources.get("endpoints")
    return bool(job.endpoints) and tables in (job.sources.get("base_url"), job.sources.get("provider"))


def _without_key_file(words: list[str]) -> list[str]:
    kept, rest = [], iter(words)
    for word in rest:
        if word == "--api-key-file":
            next(rest, None)
        elif not word.startswith("--api-key-file="):
            kept.append(word)
    return kept


def _check_same(job: "Job", scheduled: "Job") -> None:
    """Refuses a run that would be another one without this shell.

    Raises:
        UsageError: It would; the message says in what.
    """
    from batchllm.job.endpoints import endpoints_of

    here, there = job.endpoint, scheduled.endpoint
    pairs: dict[str, tuple[Any, Any]] = {
        "the endpoint": ((here.preset, here.base_url), (there.preset, there.base_url)),
        "the model": (here.model, there.model),
        "the key": (here.api_key, there.api_key),
        "the headers": (here.headers, there.headers),
        "the requests": (job.fingerprint(), scheduled.fingerprint()),
        "the files": (
            (job.inputs, job.output, job.journal),
            (scheduled.inputs, scheduled.output, scheduled.journal),
        ),
    }
    others = [
        [(each.preset, each.base_url, each.api_key) for each in endpoints_of(one)][1:]
        for one in (job, scheduled)
    ]
    pairs["the other endpoints"] = others[0], others[1]
    if other := [what for what, (one, two) in pairs.items() if one != two]:
        raise UsageError(
            f"{' and '.join(other)} would be another without the variables of this shell: give --base-url, --model and "
            "--api-key-file in the command"
        )


def _program() -> list[str]:
    """This program by its absolute path: cron and systemd know no profile."""
    own = Path(sys.argv[0])
    if own.name == "batchllm" and (found := shutil.which(own)):
        return [str(Path(found).absolute())]
    return [sys.executable, "-m", "batchllm"]
