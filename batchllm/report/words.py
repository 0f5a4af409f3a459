"""Says the figures of charts in words."""

from batchllm.journal.history import RunHistory
from batchllm.report.distribution import Distribution

MOST_BARS = 12
"""Labels in a chart; a table has the others."""


def share(part: float, whole: float) -> str:
    """Returns a share for people: ``93.4 %``."""
    return f"{100 * part / whole:.1f} %" if whole else "0 %"


def number(value: float) -> str:
    """Returns a number for people: all digits of a whole one, else three that count."""
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def money(value: float) -> str:
    """Returns US dollars for people, with as many digits as a small amount needs."""
    if value == 0:
        return "$0"
    return f"${value:,.2f}" if value >= 1 else f"${value:.3g}" if value >= 1e-4 else f"${value:.2e}"


def distribution_words(found: Distribution, unit: str, *, of_money: bool) -> str:
    """Returns a distribution in a sentence."""
    say = money if of_money else number
    if found.least == found.greatest:
        return f"Always {say(found.least)}{f' {unit}' if unit else ''}."
    after = f" {unit}" if unit else ""
    at = {percent: say(found.percentile(percent)) for percent in (50, 90, 95, 99)}
    return (
        f"Median {at[50]}{after}, mean {say(found.mean)}{after}; 90 % are at most {at[90]}, 95 % at most {at[95]}, "
        f"99 % at most {at[99]}; from {say(found.least)} to {say(found.greatest)}{after}."
    )


def history_words(history: RunHistory, runs: int) -> str:
    """Returns the requests of a run over time in a sentence or two."""
    moments = history.moments
    answered, refused, failed = (sum(column) for column in list(zip(*moments, strict=True))[1:])
    seconds = history.step_s * len(moments)
    per_minute = 60 * answered / max(seconds, 1)
    of_runs = f"Run {history.run_id} of {runs}, the largest: " if runs > 1 else ""
    busiest = max(moments, key=lambda moment: moment.answered)
    text = (
        f"{of_runs}{answered:,} requests answered, {refused:,} refused by a rate limit and {failed:,} failed "
        f"otherwise, sent within {duration(seconds)}"
    )
    if seconds >= 1:
        text += f"; {per_minute:,.0f} answered requests a minute on average"
        text += f", most of them {duration(busiest.start_s)} after the start"
    return text + "."


def duration(seconds: float) -> str:
    """Returns a time span for people."""
    if seconds < 120:
        return f"{seconds:.3g} seconds"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
