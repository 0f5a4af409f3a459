"""What a command says before a run, on standard error: the line with the estimate, notes, and the question.

Text of a model or a file goes through ``printable`` before a terminal sees it.
"""

import sys
from collections.abc import Sequence
from decimal import Decimal

from batchllm.answer import fields_text
from batchllm.cli.streams import say
from batchllm.errors import UsageError
from batchllm.formats import is_narrow
from batchllm.job import Job
from batchllm.job.endpoints import endpoints_text
from batchllm.presets import CUSTOM
from batchllm.printable import counted, dollars, duration, one_line, printable
from batchllm.progress import compact
from batchllm.runner import Forecast

NAMED_ROWS = 100
"""The most rows that the line about possibly billed requests names."""

ASK_ABOVE_WAVES = 10
"""A conversation of more turns asks first in batch mode."""

MOST_FIELDS = 1000
"""Characters of the line that shows the fields of a schema."""

ASK_ABOVE = Decimal(5)
"""A run that may cost more than this many dollars asks first, on a terminal."""


def confirm(job: Job, forecast: Forecast, *, quiet: bool, yes: bool) -> None:
    """Shows what a run is about to do; on a terminal asks first when it may be expensive.

    Raises:
        UsageError: The answer was no.
    """
    if not quiet:
        if forecast.input_notes:
            say(f"{job.input_name}: {'; '.join(forecast.input_notes)}")
        say(line_before(job, forecast))
        if forecast.rows == 0:
            say(f"{job.input_name} has no rows: nothing is sent")
        if fields := fields_line(job):
            say(fields)
        if (note := encoding_text(job)) is not None:
            say(note)
        if forecast.at_once is not None:
            say(at_once_text(forecast))
        if forecast.possibly_billed_rows:
            say(possibly_billed_text(forecast.possibly_billed_rows))
    _confirm_waves(job, forecast, yes=yes)
    high = forecast.cost_high
    if yes or high is None or high <= ASK_ABOVE or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    most = "about" if forecast.sampled else "up to"
    _ask(f"This may cost {most} {dollars(high)}.")


def _confirm_waves(job: Job, forecast: Forecast, *, yes: bool) -> None:
    """Asks before a conversation of many turns begins in batch mode, because each turn is one batch after the other.

    Raises:
        UsageError: The answer was no, or there is nobody to ask.
    """
    waves = forecast.waves or 0
    if yes or forecast.begun or job.conversation is None or waves <= ASK_ABOVE_WAVES:
        return
    words = (
        f"The longest conversation needs up to {waves:,} batches, one after the other, each of up to a day."
    )
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{words} Agree with -y, or leave out --via batch")
    _ask(words)


def _ask(words: str) -> None:
    say(f"{words} Go on? [y/N] ", end="")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was sent")


def waves_text(job: Job, forecast: Forecast) -> str:
    """How many samples a row has, and how many batches it may need one after the other; empty for one of each."""
    parts = []
    if job.samples > 1:
        parts.append(f", {job.samples} samples a row")
    if forecast.waves is not None and forecast.waves > 1:
        parts.append(f", at most {forecast.waves:,} waves of batches")
    return "".join(parts)


def line_before(job: Job, forecast: Forecast) -> str:
    """Rows, model, endpoint, what shapes the answers, tokens and price, in one line."""
    endpoint = job.endpoint
    parts = [counted(forecast.rows or 0, "row")]
    parts += forecast.known_rows()
    if job.steps and forecast.requests_upper_bound is not None:
        most = "about" if forecast.sampled else "at most"
        parts.append(f"{most} {counted(forecast.requests_upper_bound, 'request')} in {len(job.steps)} steps")
    if forecast.parts is not None:
        parts.append(forecast.parts.to_text(forecast.requests_upper_bound, sampled=forecast.sampled))
    models, where = models_text(job, forecast), endpoint.base_url or "on this machine"
    if job.endpoints:
        parts.append(f"{models} at {endpoints_text(job.endpoints)}")
    elif endpoint.preset == CUSTOM:  # the name of a preset that is no provider
        parts.append(f"{models} at {where}")
    else:  # the simulator's model is called simulator
        at = f" at {endpoint.preset}" if models != endpoint.preset else ""
        parts.append(f"{models}{at} ({where})")
    if settings := forecast.settings.to_text():
        parts.append(printable(settings))
    if forecast.prompt_tokens is not None:
        about = "" if forecast.exact else "about "
        answer = forecast.completion_tokens_upper_bound
        most = "about" if forecast.sampled else "at most"
        bound = f" + {most} {compact(answer)} tokens" if answer is not None else " tokens + answers"
        parts.append(f"{about}{compact(forecast.prompt_tokens)}{bound}")
    return f"{', '.join(parts)}, {mode_text(job, forecast)}{waves_text(job, forecast)}"


def at_once_text(forecast: Forecast) -> str:
    """How many requests the budget lets fly at once, where answers are bounded by the model alone."""
    room = counted(forecast.at_once or 0, "request")
    limit = "" if forecast.output_limit is None else f" of {forecast.output_limit:,} tokens"
    return (
        f"The budget has room for {room} at once, since each answer may reach the model's own limit{limit}; "
        "--max-tokens makes room for more"
    )


MOST_MODELS = 5


def models_text(job: Job, forecast: Forecast) -> str:
    """The models that rows go to; with their rows where these are not all the job's own."""
    own = job.endpoint.model or "no model"
    if not forecast.models or list(forecast.models) == [own]:
        return own
    about = "" if forecast.exact else "about "
    named = [
        f"{printable(name)} ({about}{counted(count, 'row')})"
        for name, count in list(forecast.models.items())[:MOST_MODELS]
    ]
    more = len(forecast.models) - len(named)
    return ", ".join(named) + (f" and {counted(more, 'more model')}" if more > 0 else "")


def fields_line(job: Job) -> str:
    """The fields of the schema with their types, as they were understood; empty if there are none."""
    jobs = [step.job for step in job.steps] or [job]
    fields = "; ".join(fields_text(each.schema) for each in jobs if each.schema is not None)
    return f"Fields: {one_line(fields, MOST_FIELDS)}" if fields else ""


def encoding_text(job: Job) -> str | None:
    """What becomes of characters that the encoding of the input or the output lacks; ``None`` if it lacks none."""
    if job.output_encoding is not None and is_narrow(job.output_encoding):
        return f"Characters that {job.output_encoding} lacks will be written as escapes such as \\u2019"
    if job.output_encoding is None and job.encoding is not None and is_narrow(job.encoding):
        return (
            f"The output will be in UTF-8, since {job.encoding} lacks characters that answers may have; "
            f"--output-encoding {job.encoding} keeps it"
        )
    return None


def possibly_billed_text(rows: Sequence[int], who: str = "A run") -> str:
    """How many rows of what died are possibly billed without an answer, and which."""
    named = ", ".join(map(str, rows[:NAMED_ROWS])) + (", …" if len(rows) > NAMED_ROWS else "")
    return f"{who} that died left {counted(len(rows), 'row')} possibly billed without an answer: {named}"


def mode_text(job: Job, forecast: Forecast) -> str:
    """Price and time of the mode that the job uses, and the price of the other where there is one."""
    from batchllm.budget.modes import compare_modes

    offer = compare_modes(job, forecast)
    time = "" if forecast.seconds is None else f", {duration(forecast.seconds)} at the limits known"
    saves_nothing = forecast.cost_high == 0 and job.via != "batch"
    if offer is None or saves_nothing:
        return f"{price_text(forecast)}{time}"
    batch = price_text(offer.batch)
    if (offer.batch.cost_low is None or offer.batch.cost_high is None) and job.via != "batch":
        batch = f"{offer.batch_share:.0%} of that"
    batch = f"{batch} in batch mode, up to {offer.window}"
    online = price_text(offer.online)
    return (
        f"{batch}; online {online}{time}" if job.via == "batch" else f"{online}{time}; {batch} (--via batch)"
    )


def price_text(forecast: Forecast) -> str:
    """The price as a range, or that it is unknown."""
    if forecast.cost_low is None:
        return "price unknown"
    if forecast.cost_high is None:
        return f"{dollars(forecast.cost_low)} or more (nothing bounds the answers; --max-tokens does)"
    about = "about " if forecast.sampled else ""
    if forecast.cost_low == forecast.cost_high:
        return f"{about}{dollars(forecast.cost_high)}"
    return f"{about}{dollars(forecast.cost_low)} to {dollars(forecast.cost_high)}"
