"""Prices by endpoint and model, and the cost of an answer.

Prices come from the package ``genai-prices``, offline, by base URL and model; a table in LiteLLM's JSON format
(``--prices``) takes precedence. An unknown price is ``None``, never 0. Only the simulator is free, unless a table
names its model, so that a budget can be rehearsed.

All money is US dollars as ``Decimal``.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from batchllm.errors import UsageError
from batchllm.records import Usage

MILLION = Decimal(1_000_000)

# Prices of tokens that a chat answer's usage does not show separately: the cost of such a model is unknown.
_BEYOND_USAGE = ("output_reasoning_mtok", "output_citation_mtok")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Dollars per million tokens, for prompts above a size.

    Attributes:
        above: Prompts of more tokens than this have these rates.
        input: Prompt tokens that are not cached.
        output: Completion tokens, reasoning among them.
        cached_input: Prompt tokens read from the endpoint's cache; ``None``: as ``input``.
    """

    above: int = 0
    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs at an endpoint.

    Attributes:
        rates: By size of the prompt, the smallest first; the last that the prompt exceeds applies to all of it.
        per_request: Dollars for each request, in addition to its tokens.
        source: Where the price is from, with its date (``genai-prices 0.2.3, for 2026-11-23``).
        output_limit: The most tokens of an answer, where a table of the user's says so.
    """

    rates: tuple[Rates, ...]
    per_request: Decimal = Decimal(0)
    source: str = ""
    output_limit: int | None = None


FREE = Price(rates=(Rates(input=Decimal(0), output=Decimal(0)),), source="the simulator costs nothing")

Table = Mapping[str, Price]


def cost(usage: Usage, price: Price | None) -> Decimal | None:
    """Returns the cost of an answer in dollars; ``None`` where the price or a token count is unknown.

    Cached tokens are included in the prompt's, and reasoning tokens in the completion's, as endpoints count them.
    """
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if price is None or prompt is None or completion is None:
        return None
    rates = _rates_of(prompt, price)
    cached = min(usage.cached_tokens or 0, prompt)
    cached_input = rates.input if rates.cached_input is None else rates.cached_input
    tokens = (prompt - cached) * rates.input + cached * cached_input + completion * rates.output
    return tokens / MILLION + price.per_request


def saved_by_cache(usage: Usage, price: Price | None) -> Decimal | None:
    """Returns what the endpoint's cache took off the cost of an answer, in dollars.

    Returns:
        ``None`` where the price of the model, or of its cached tokens, or a token count is unknown.
    """
    if price is None or usage.prompt_tokens is None:
        return None
    cached = min(usage.cached_tokens or 0, usage.prompt_tokens)
    rates = _rates_of(usage.prompt_tokens, price)
    if rates.cached_input is None:
        return Decimal(0) if not cached else None
    return cached * (rates.input - rates.cached_input) / MILLION


def _rates_of(prompt: int, price: Price) -> Rates:
    rates = price.rates[0]
    for larger in price.rates[1:]:
        if prompt > larger.above:
            rates = larger
    return rates


def price(
    base_url: str,
    model: str,
    *,
    preset: str = "",
    table: Table | None = None,
    when: datetime | None = None,
) -> Price | None:
    """Returns the price of a model at an endpoint; ``None`` where it is unknown.

    Args:
        base_url: The endpoint; the price depends on who serves the model.
        model: The endpoint's name of the model.
        preset: Name of the endpoint's preset; ``simulator`` is free.
        table: The user's own prices, which take precedence.
        when: The time for prices that depend on date or time of day; now by default.
    """
    found = _in_table(table, model, preset)
    if found is None and preset == "simulator":
        found = FREE
    return found or _published(base_url, model, when or datetime.now(UTC))


def context_window(base_url: str, model: str) -> int | None:
    """Returns the context window of a model in tokens, often rounded; ``None`` where genai-prices has none."""
    info = _model_info(base_url, model)
    return info.context_window if info else None


def load_table(source: Path | Mapping[str, Any]) -> Table:
    """Loads prices in LiteLLM's format: model to ``input_cost_per_token``, ``output_cost_per_token``, ….

    It also reads ``cache_read_input_token_cost``, ``input_cost_per_request`` and
    ``…_above_200k_tokens`` (any number of thousands). Entries without both token prices are skipped.

    Raises:
        UsageError: The file cannot be read or is not such a table; the message names file, model and field.
    """
    if isinstance(source, Mapping):
        where, origin = "--prices", "prices of the job"
        data = json.loads(json.dumps(dict(source)), parse_float=Decimal)
    else:
        where = f"--prices {source}"
        try:
            data = json.loads(source.read_bytes(), parse_float=Decimal)
            origin = f"{source.name}, {time.strftime('%Y-%m-%d', time.gmtime(source.stat().st_mtime))}"
        except OSError as error:
            raise UsageError(f"{where}: {error.strerror}") from None
        except ValueError as error:
            raise UsageError(f"{where}: this is not JSON ({error})") from None
    if not isinstance(data, dict) or not all(isinstance(entry, dict) for entry in data.values()):
        raise UsageError(f"{where}: expected LiteLLM's format, an object of models with an object each")
    prices = {model: _entry(where, model, entry, origin) for model, entry in data.items()}
    return {model: price for model, price in prices.items() if price is not None}


def _in_table(table: Table | None, model: str, preset: str) -> Price | None:
    """Returns the user's price of a model; LiteLLM prefixes most names with the provider."""
    if not table:
        return None
    return table.get(model) or table.get(f"{preset}/{model}")


def _entry(where: str, model: str, entry: Mapping[str, Any], source: str) -> Price | None:
    """Reads one model of a LiteLLM table."""

    def dollars(field: str) -> Decimal | None:
        value = entry.get(field)
        if value is None:
            return None
        number = isinstance(value, (int, Decimal)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            raise UsageError(f"{where}: {model}: {field} must be a number of dollars, not {value!r}")
        return Decimal(value)

    def rates(suffix: str, above: int = 0) -> Rates | None:
        input_cost, output_cost = (dollars(f"{side}_cost_per_token{suffix}") for side in ("input", "output"))
        if input_cost is None or output_cost is None:
            return None
        cached = dollars(f"cache_read_input_token_cost{suffix}")
        return Rates(
            above=above,
            input=input_cost * MILLION,
            output=output_cost * MILLION,
            cached_input=None if cached is None else cached * MILLION,
        )

    base = rates("")
    if base is None:
        return None
    tiers = (rates(f"_above_{size}k_tokens", size * 1000) for size in _tier_sizes(entry))
    return Price(
        rates=(base, *(tier for tier in tiers if tier)),
        per_request=dollars("input_cost_per_request") or Decimal(0),
        source=source,
        output_limit=limit
        if isinstance(limit := entry.get("max_output_tokens"), int) and limit > 0
        else None,
    )


def _tier_sizes(fields: Iterable[str]) -> list[int]:
    """Returns the thousands of tokens at which tiers begin, from names such as ``…_above_200k_tokens``."""
    marks = (field.partition("_above_")[2].removesuffix("k_tokens") for field in fields)
    return sorted({int(mark) for mark in marks if mark.isdigit()})


def _published(base_url: str, model: str, when: datetime) -> Price | None:
    """Returns the price of genai-prices."""
    info = _model_info(base_url, model)
    if info is None:
        return None
    import genai_prices

    published = info.get_prices(when)
    needed = (published.input_mtok, published.output_mtok)
    if None in needed or any(getattr(published, name, None) is not None for name in _BEYOND_USAGE):
        return None
    cached = published.cache_read_mtok
    sizes = sorted({tier.start for value in (*needed, cached) for tier in getattr(value, "tiers", ())})
    rates = tuple(
        Rates(
            above=size,
            input=_at(needed[0], size),
            output=_at(needed[1], size),
            cached_input=_at(cached, size),
        )
        for size in (0, *sizes)
    )
    per_thousand_requests = published.requests_kcount or Decimal(0)
    return Price(
        rates=rates,
        per_request=per_thousand_requests / 1000,
        source=f"genai-prices {genai_prices.__version__}, for {when:%Y-%m-%d}",
    )


def _at(value: Any, size: int) -> Any:
    """Returns a price of genai-prices for prompts of more than ``size`` tokens."""
    if not hasattr(value, "tiers"):
        return value
    reached = [tier.price for tier in value.tiers if tier.start <= size]
    return reached[-1] if reached else value.base


@cache
def _model_info(base_url: str, model: str) -> Any:
    """Returns genai-prices' entry for the model at this endpoint, or ``None``."""
    if not base_url or not model:
        return None
    from genai_prices.data_snapshot import get_snapshot

    try:
        return get_snapshot().find_provider_model(model, None, None, base_url)[1]
    except LookupError:
        return None
