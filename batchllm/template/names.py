"""Words for errors about names: the nearest one, and the ones there are."""

from collections.abc import Iterable
from difflib import get_close_matches

SHOWN = 30


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like ``word``, upper and lower case alike; ``None`` where none does."""
    by_fold = {name.casefold(): name for name in known}
    found = get_close_matches(word.casefold(), by_fold, n=1, cutoff=0.6)
    return by_fold[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean temperature?)`` with its leading space, or nothing."""
    found = nearest(word, known)
    return f" (did you mean {found}?)" if found else ""


def listed(names: Iterable[str]) -> str:
    """Names for a sentence, at most ``SHOWN`` of them."""
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more
